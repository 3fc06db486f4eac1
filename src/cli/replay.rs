//! `evbus replay`: prints the events of an archive.

use std::ffi::OsString;

use super::exit::Code;
use super::failure::Failure;
use super::ls::{FilterArgs, WhereArg, time_of};
use super::output::{self, Out};
use super::session::{Needs, Session, block_on};
use super::style;
use crate::archive::Replay;
use crate::event::{Event, EventTime, Filter, FilterResult};
use crate::open;

/// Print the events of an archive
///
/// Prints each event's JSON document on a line, oldest first, each event once. `evbus emit --ndjson`
/// puts them back on a bus with their ids, so that a repeat is harmless. Reads the archive that
/// `evbus prune --archive` has written, and no bus.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus replay --archive s3://archive/shop --since 2026-11-01 | jq -r .subject
  evbus replay --archive /mnt/archive -t 'order.*' | evbus emit --ndjson")]
pub(super) struct ReplayArgs {
    /// The archive: a folder or a place in a bucket
    #[arg(long, value_name = "URL")]
    archive: OsString,
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
    /// Print at most N events
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
}

pub(super) fn run(args: ReplayArgs, session: Session) -> Result<Code, Failure> {
    let time = |option, given: &Option<String>| {
        given.as_deref().map(|text| time_of(option, text, &session.environment)).transpose()
    };
    let since = time("--since", &args.since)?.unwrap_or(EventTime::MIN);
    let until = time("--until", &args.until)?.unwrap_or(EventTime::MAX);
    let filter = Filter { types: args.filter.filter()?, condition: args.condition.condition()? };
    let address = session.archive_address(&args.archive)?;
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
