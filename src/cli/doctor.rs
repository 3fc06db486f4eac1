//! `evbus doctor`: checks the store, the machine and the files on the bus.

use std::path::Path;

use serde_json::json;

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use super::style;
use crate::bus::{BusHandle, BusSettings, FORMAT, OpenBus, Sharing};
use crate::cli::colour::{BAD, Colours, GOOD, WARNING};
use crate::cli::help_line::{HelpLine, command, text};
use crate::config::Location;
use crate::open;
use crate::store::dir::{DirOptions, DirStore, Execution};
use crate::store::object::{Bucket, BucketStore};
use crate::store::{Store, StoreError, probe};
use anstyle::Style;

mod bucket;
mod content;
mod machine;
mod mounted;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

/// Check store, mount, clock, limits, permissions and the files on the bus
///
/// Each line is ok, warn or FAIL, with the cure. Exits 1 if a check fails. Everything that is
/// written to test the store is removed again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus doctor
  evbus doctor --bus /mnt/bus
  evbus doctor --json | jq '.findings[] | select(.level != \"ok\")'")]
pub(super) struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ok => GOOD,
            Self::Warn => WARNING,
            Self::Fail => BAD,
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: String,
    detail: String,
    cure: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), detail: detail.into(), cure: None }
    }

    fn warn(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Warn, ..Self::ok(what, detail) }
    }

    fn fail(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::ok(what, detail) }
    }

    fn error(what: &str, error: &StoreError) -> Self {
        Self { cure: HelpLine::of(error).map(|help| help.to_string()), ..Self::fail(what, error.to_string()) }
    }

    fn cure(self, cure: impl Into<HelpLine>) -> Self {
        Self { cure: Some(cure.into().to_string()), ..self }
    }

    /// The finding as text, with the cure on a second line: `warn hints       nfs4: polling every
    /// 5s`.
    fn text(&self, colours: Colours) -> String {
        let level = colours.paint(self.level.style(), format_args!("{:<4}", self.level.as_str()));
        let line = format!("{level} {:<10}  {}", self.what, style::escape(&self.detail));
        match &self.cure {
            Some(cure) => format!("{}\n     cure: {}\n", line.trim_end(), style::escape(cure)),
            None => format!("{}\n", line.trim_end()),
        }
    }
}

pub(super) fn run(args: DoctorArgs, session: Session) -> Result<Code, Failure> {
    let address = session.address()?;
    block_on(Needs::Everything, async {
        let findings = match &address.location {
            // Opened as `emit` opens it: workers refuse to start on an unfit mount, which is what
            // doctor has to report.
            Location::Dir(path) => {
                let bus = session.bus_handle(DirStore::open(path, DirOptions::default(), &*session.clock)?);
                look(path, &bus, &session).await
            }
            Location::Bucket(bucket, _) => {
                let bus = session.bus_handle(BucketStore::connect(bucket)?);
                look_at_bucket(&bus, bucket, &address.display).await
            }
            #[cfg(feature = "postgres")]
            Location::Postgres(database, _) => {
                postgres::findings((**database).clone(), &session, &address.display).await
            }
            #[cfg(feature = "sqlite")]
            Location::Sqlite(path) => sqlite::findings(path, &session, &address.display).await?,
            Location::Server(_) => return Err(open::only_a_server(&address).into()),
        };
        let mut out = Out::new();
        if args.json {
            let finding = |finding: &Finding| {
                json!({
                    "level": finding.level.as_str().to_lowercase(),
                    "what": finding.what,
                    "why": finding.detail,
                    "cure": finding.cure,
                })
            };
            let findings: Vec<_> = findings.iter().map(finding).collect();
            out.json(&json!({"bus": address.to_string(), "user": machine::user(), "findings": findings}))?;
        } else {
            out.line(&style::escape(&format!("bus  {address}   user {}", machine::user())))?;
            for finding in &findings {
                out.text(&finding.text(Colours::of_stdout()))?;
            }
        }
        out.flush()?;
        let failed = findings.iter().any(|finding| finding.level == Level::Fail);
        Ok(if failed { Code::Failed } else { Code::Done })
    })
}

async fn look(path: &Path, bus: &BusHandle, session: &Session) -> Vec<Finding> {
    let (first, settings) = settings(bus, &path.display().to_string()).await;
    let mut findings = vec![first];
    let permissions = machine::permissions(path, settings.as_ref());
    let may_write = permissions.iter().all(|finding| finding.level != Level::Fail);
    findings.extend(permissions);
    findings.extend(mounted::mount(path));
    if may_write {
        findings.extend(tried_with_threads(path, bus, session, settings.as_ref()).await);
    }
    findings.push(mounted::flush(path));
    findings.push(mounted::hints(bus));
    findings.extend(mounted::room(path));
    findings.push(machine::open_files());
    findings.extend(machine::inotify());
    findings.extend(content::findings(Some(path), bus).await);
    findings
}

async fn look_at_bucket(bus: &BusHandle, at: &Bucket, shown: &str) -> Vec<Finding> {
    let mut findings = vec![settings(bus, shown).await.0];
    let permissions = bucket::permissions(bus, at).await;
    let may_all = permissions.iter().all(|finding| finding.level == Level::Ok);
    findings.extend(permissions);
    if may_all {
        findings.extend(tried(&*bus.store, bus).await);
    }
    findings.extend(bucket::properties(at).await);
    findings.push(bucket::hints(bus));
    findings.push(machine::open_files());
    findings.extend(content::findings(None, bus).await);
    findings
}

/// Reads the settings in `bus.json`.
async fn settings(bus: &BusHandle, shown: &str) -> (Finding, Option<BusSettings>) {
    match OpenBus::open(bus.clone(), shown).await {
        Ok(bus) => {
            let size = style::thousands(bus.settings.max_event_bytes);
            let detail = format!("format {}, events up to {size} bytes", bus.settings.format);
            let finding = match bus.settings.format {
                FORMAT => Finding::ok("bus.json", detail),
                _ => Finding::warn("bus.json", detail)
                    .cure([command("upgrade", ""), text(" lets bulk emits put many events into one object")]),
            };
            (finding, Some(bus.settings))
        }
        Err(error) => (Finding::error("bus.json", &error), None),
    }
}

/// Probes the store with several threads, as workers use it.
async fn tried_with_threads(
    path: &Path,
    bus: &BusHandle,
    session: &Session,
    settings: Option<&BusSettings>,
) -> Vec<Finding> {
    let group_writable = settings.is_some_and(|settings| settings.sharing == Sharing::Group);
    let options = DirOptions { execution: Execution::Threaded, group_writable, ..DirOptions::default() };
    match DirStore::open(path, options, &*session.clock) {
        Ok(store) => tried(&store, bus).await,
        Err(error) => vec![Finding::error("store", &error)],
    }
}

/// Probes the store, then compares its clock with this machine's.
async fn tried(store: &dyn Store, bus: &BusHandle) -> Vec<Finding> {
    let found = probe::probe(store, &*bus.clock).await;
    let is_good = |finding: &probe::ProbeFinding| finding.outcome.is_ok() && finding.warning.is_none();
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(is_good);
    let mut findings = Vec::new();
    if !good.is_empty() {
        let names: Vec<String> = good.iter().map(|finding| finding.property.to_string()).collect();
        findings.push(Finding::ok(names.join(", "), ""));
    }
    for finding in bad {
        let what = finding.property.to_string();
        findings.extend(finding.warning.map(|why| Finding::warn(&what, why)));
        findings.extend(finding.outcome.err().map(|why| Finding::fail(what, why)));
    }
    findings.extend(machine::clock(store, &*bus.clock));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_the_manual_shows_it() {
        assert_eq!(Finding::ok("create, swap, list", "").text(Colours::NONE), "ok   create, swap, list\n");
        assert_eq!(
            Finding::warn("hints", "nfs4: polling every 5s").text(Colours::NONE),
            "warn hints       nfs4: polling every 5s\n"
        );
        assert_eq!(
            Finding::fail("caching", "lookupcache=all hides events").cure("remount").text(Colours::NONE),
            "FAIL caching     lookupcache=all hides events\n     cure: remount\n"
        );
    }
}
