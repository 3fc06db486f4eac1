//! `evbus replay`: prints the events of an archive, or runs a command for events of the bus.

use std::ffi::OsString;
use std::rc::Rc;

use futures_util::stream::{self, StreamExt};

use super::exit::Code;
use super::failure::Failure;
use super::ls::{FilterArgs, WhereArg, documents, time_of};
use super::output::{self, Out};
use super::reporter::{LogFormat, Printer};
use super::session::{Needs, Session, block_on};
use super::style;
use super::trial::Trial;
use crate::archive::Replay;
use crate::bus::read::{self, Range};
use crate::cli::help_line::command;
use crate::config::{Action, MAX_CONCURRENCY, Watcher};
use crate::event::{Event, EventTime, Filter, FilterResult};
use crate::group::GroupName;
use crate::open;
use crate::store::dir::Execution;

/// Print the events of an archive, or run a command for events of the bus
///
/// From an archive, which `evbus prune --archive` has written, each event's JSON document is printed on a
/// line, oldest first, each event once. `evbus emit --ndjson` puts them back on a bus with their ids, so
/// that a repeat is harmless.
///
/// With a command, it is run for each event of the bus as a handler is, once, oldest first, without a
/// group: nothing is recorded, and a failure is reported and not tried again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus replay --archive s3://archive/shop --since 2026-11-01 | jq -r .subject
  evbus replay --archive /mnt/archive -t 'order.*' | evbus emit --ndjson
  evbus replay -t 'order.*' --since 2026-11-20 -- ./reindex")]
pub(super) struct ReplayArgs {
    /// The archive: a folder or a place in a bucket
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    archive: Option<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    condition: WhereArg,
    /// From this time on: 1h, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Take at most N events
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// Run at most N commands at a time
    #[arg(short = 'j', long, value_name = "N", requires = "command", default_value_t = 1)]
    concurrency: usize,
    /// The command; it gets the event as a handler does
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(args: ReplayArgs, session: Session) -> Result<Code, Failure> {
    if args.archive.is_none() && args.command.is_empty() {
        return Err(Failure::usage("neither a command for events of the bus nor an archive")
            .help(command("replay", "-t 'TYPE' -- CMD ARG…, or evbus replay --archive URL")));
    }
    if !(1..=MAX_CONCURRENCY).contains(&args.concurrency) {
        return Err(Failure::usage(format!("-j {} is not between 1 and {MAX_CONCURRENCY}", args.concurrency)));
    }
    let time = |option, given: &Option<String>| {
        given.as_deref().map(|text| time_of(option, text, &session.environment)).transpose()
    };
    let since = time("--since", &args.since)?.unwrap_or(EventTime::MIN);
    let until = time("--until", &args.until)?.unwrap_or(EventTime::MAX);
    let filter = Filter { types: args.filter.filter()?, condition: args.condition.condition()? };
    let Some(archive) = &args.archive else { return run_commands(&args, (since, until), filter, &session) };
    let address = session.archive_address(archive)?;
    block_on(Needs::Everything, async {
        let archive = open::archive(&address, &session.clock, false).await?;
        let mut out = Out::new();
        let (asked, mut left) = (Replay { since, until, filter: filter.types.clone() }, args.limit.unwrap_or(u64::MAX));
        let strange = archive.replay(&asked, |event, line| print((event, line), &filter, &mut left, &mut out)).await?;
        out.flush()?;
        if strange > 0 {
            output::warn(&format!("{} of the archive cannot be read as events", style::plural(strange, "document")));
        }
        Ok(Code::Done)
    })
}

/// Prints the line of a wanted event; false once no more are to come.
fn print((event, line): (&Event, &str), filter: &Filter, left: &mut u64, out: &mut Out) -> Result<bool, Failure> {
    if *left == 0 {
        return Ok(false);
    }
    if filter.evaluate(event) == FilterResult::Wanted {
        out.line(line)?;
        *left -= 1;
    }
    Ok(*left > 0)
}

/// Runs the command for each wanted event of the bus.
fn run_commands(
    args: &ReplayArgs,
    (since, until): (EventTime, EventTime),
    filter: Filter,
    session: &Session,
) -> Result<Code, Failure> {
    let group = GroupName::parse("replay")?;
    let watcher = Watcher::new(group.to_string(), group, Action::Command(args.command.clone()));
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Threaded).await?;
        let bus = opened.bus_handle();
        output::pump::begin();
        let printer = Rc::new(Printer::new(LogFormat::Human, false, true, &session.environment, &session.clock));
        let trial = Trial::new(watcher, &opened, session, &printer)?;
        // What the command emits is none of it.
        let until = until.min(bus.clock.now());
        let range = Range { since, until, filter: filter.types.clone() };
        let (mut pages, mut left) = (read::NamePages::of(bus, &range), args.limit.unwrap_or(u64::MAX));
        let (mut done, mut failed) = (0_u64, 0_u64);
        let work = async {
            while let Some(names) = pages.next().await? {
                let mut wanted = Vec::new();
                for (name, document) in documents(bus, &names).await? {
                    let Ok(event) = Event::parse(&document, opened.bus.max_event_bytes()) else { continue };
                    if left > 0 && filter.evaluate(&event) == FilterResult::Wanted {
                        left -= 1;
                        wanted.push((name, event, document));
                    }
                }
                let runs = wanted.into_iter().map(|(name, event, document)| {
                    let trial = &trial;
                    async move {
                        let report = trial.run(&name, &event, document).await;
                        (event.id().to_owned(), report)
                    }
                });
                let mut runs = stream::iter(runs).buffer_unordered(args.concurrency.max(1));
                while let Some((id, report)) = runs.next().await {
                    match report.succeeded() {
                        true => done += 1,
                        false if trial.is_stopped() => {}
                        false => {
                            failed += 1;
                            output::warn(&format!("{id}: {}", report.why()));
                        }
                    }
                }
                if left == 0 || trial.is_stopped() {
                    break;
                }
            }
            Ok::<_, Failure>(())
        };
        trial.unless_stopped(work).await??;
        output::note(&format!(
            "{} done, {} failed; no group has recorded them",
            style::thousands(done),
            style::thousands(failed)
        ));
        Ok(if failed == 0 { Code::Done } else { Code::Failed })
    })
}
