//! `evbus history`: what groups have run.

use std::fmt::Write;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::exit::Code;
use super::failure::Failure;
use super::help_line::command;
use super::ls::time_of;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use super::{style, times};
use crate::bus::BusHandle;
use crate::event::{EventName, EventTime, id_of};
use crate::group::history::{Follower, HistoryEntry, RunEnd};
use crate::group::{GroupName, definition};
use crate::store::ErrorKind;
use crate::store::dir::Execution;

/// How often a history that grows is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Show what groups have run: when, how long, and how it ended
///
/// Workers on a directory keep it for a week, up to 4 MB for each group; elsewhere they do if the
/// config says so (history, see evbus.toml(5)). It is written about a second late.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus history                                      # the last runs of all groups
  evbus history mail --failed --since 1d
  evbus history --follow
  evbus history mail -n 0 --json | jq .seconds")]
pub(super) struct HistoryArgs {
    /// Only this group
    #[arg(value_name = "GROUP")]
    group: Option<String>,
    /// Show the last N runs, and with --follow those that come; 0: all
    #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only runs from this time on: 1h, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only runs that have failed
    #[arg(long)]
    failed: bool,
    /// Go on with runs as they end
    #[arg(short, long)]
    follow: bool,
    /// Print each run as a JSON document, one per line
    #[arg(long)]
    json: bool,
}

/// A run, and of which group it was.
type Row = (GroupName, HistoryEntry);

pub(super) fn run(args: HistoryArgs, session: Session) -> Result<Code, Failure> {
    let since = args.since.as_deref().map(|text| time_of("--since", text, &session.environment)).transpose()?;
    let group = args.group.as_deref().map(GroupName::parse).transpose();
    let group = group.map_err(|error| Failure::usage(error.to_string()))?;
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let bus = opened.bus_handle();
        let mut groups = match &group {
            Some(group) if definition::find(&*bus.store, group).await?.is_none() => {
                let what = format!("no group '{group}' on {}", opened.address);
                return Err(Failure::failed(what).help(command("group", "ls")));
            }
            Some(group) => vec![group.clone()],
            None => definition::names(&*bus.store).await?,
        };
        let from = since.unwrap_or(EventTime::MIN);
        let mut followers: Vec<Follower> = groups.iter().map(|group| Follower::new(group.clone(), from)).collect();
        let zone = session.environment.zone();
        let wants = |entry: &HistoryEntry| entry.started >= from && (!args.failed || entry.result.is_failure());
        let mut rows = next(bus, &groups, &mut followers).await?;
        rows.retain(|(_, entry)| wants(entry));
        if args.limit > 0 {
            rows.drain(..rows.len().saturating_sub(args.limit));
        }
        let mut out = Out::new();
        loop {
            for (group, entry) in &rows {
                match args.json {
                    true => out.json(&document(group, entry))?,
                    false => out.text(&text(group, entry, bus.clock.now(), &zone))?,
                }
            }
            out.flush()?;
            if !args.follow {
                return Ok(Code::Done);
            }
            bus.clock.sleep_until(bus.clock.elapsed() + LOOK).await;
            let looked = async {
                if group.is_none() {
                    for made in definition::names(&*bus.store).await? {
                        if !groups.contains(&made) {
                            followers.push(Follower::new(made.clone(), from));
                            groups.push(made);
                        }
                    }
                }
                next(bus, &groups, &mut followers).await
            };
            rows = match looked.await {
                Err(error) if error.kind() == ErrorKind::Unavailable => Vec::new(),
                rows => rows?,
            };
            rows.retain(|(_, entry)| wants(entry));
        }
    })
}

/// What has come of all groups, in order.
async fn next(
    bus: &BusHandle,
    groups: &[GroupName],
    followers: &mut [Follower],
) -> crate::store::StoreResult<Vec<Row>> {
    let mut rows = Vec::new();
    for (group, follower) in groups.iter().zip(followers) {
        rows.extend(follower.next(bus).await?.into_iter().map(|entry| (group.clone(), entry)));
    }
    rows.sort_by_key(|(_, entry)| entry.started);
    Ok(rows)
}

/// The runs of one event, one line each, for `get`.
///
/// # Errors
/// The bus's.
pub(super) async fn runs_of(
    bus: &BusHandle,
    groups: &[GroupName],
    name: &EventName,
    zone: &TimeZone,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for group in groups {
        let entries = Follower::new(group.clone(), name.time()).next(bus).await?;
        let own = entries.iter().filter(|entry| entry.event.identity() == name.identity());
        for entry in own {
            let time = times::clock_text(entry.started, bus.clock.now(), zone);
            lines.push(format!("{group}  {time}  {}", style::escape(&end(entry, bus.clock.now(), zone))));
        }
    }
    Ok(lines)
}

/// One run as text: a line, and if it has failed the last lines of its output.
fn text(group: &GroupName, entry: &HistoryEntry, now: EventTime, zone: &TimeZone) -> String {
    let time = times::clock_text(entry.started, now, zone);
    let line = format!("{time}  {group}  {}  {}  {}", id_of(&entry.event), entry.event.slug(), end(entry, now, zone));
    let mut text = format!("{}\n", style::escape(&line));
    for line in entry.output.iter().filter(|_| entry.result.is_failure()) {
        let _ = writeln!(text, "    | {}", style::escape(line));
    }
    text
}

/// How a run ended: `#2 12ms done`.
fn end(entry: &HistoryEntry, now: EventTime, zone: &TimeZone) -> String {
    if entry.result == RunEnd::Superseded {
        return format!("superseded by {}", entry.by.as_ref().map(id_of).unwrap_or_default());
    }
    let took = times::format_duration(Duration::try_from_secs_f64(entry.seconds).unwrap_or_default());
    let why = entry.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let next = entry.next.map_or_else(String::new, |next| format!("; next {}", times::clock_text(next, now, zone)));
    let events = entry.events.map_or_else(String::new, |events| format!(" in a batch of {events}"));
    format!("#{} {took}{events} {}{why}{next}", entry.attempt, entry.result.as_str())
}

fn document(group: &GroupName, entry: &HistoryEntry) -> Value {
    json!({
        "group": group,
        "id": id_of(&entry.event),
        "type": entry.event.slug(),
        "attempt": entry.attempt,
        "started": entry.started.to_rfc3339(),
        "seconds": entry.seconds,
        "result": entry.result.as_str(),
        "exit": entry.exit,
        "why": entry.why,
        "next": entry.next.map(EventTime::to_rfc3339),
        "by": entry.by.as_ref().map(id_of),
        "events": entry.events.unwrap_or(1),
        "output": entry.output,
        "worker": entry.worker,
    })
}
