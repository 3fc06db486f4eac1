//! `evbus prune`: deletes old events that every group has processed.

use std::ffi::OsString;

use serde_json::json;

use super::exit::Code;
use super::failure::Failure;
use super::group;
use super::output::{self, Out};
use super::progress::Progress;
use super::session::{Needs, Session, block_on};
use super::{style, times};
use crate::cli::help_line::command;
use crate::open;
use crate::retention::{self, Holder, PruneReport, PruneRequest};
use crate::store::dir::Execution;

/// Delete old events that every group has processed
///
/// An event is deleted only if it is older than --keep and every group has processed it; with
/// --archive, only once it is safe in the archive. A bus without groups is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus prune --keep 7d --dry-run
  evbus prune --keep 30d
  evbus prune --keep 30d --archive s3://archive/shop
  17 4 * * *  evbus prune --keep 7d             # crontab")]
pub(super) struct PruneArgs {
    /// Keep events younger than this: 7d, 24h, 2w
    #[arg(long, value_name = "DURATION")]
    keep: Option<String>,
    /// Show what would be deleted, and which groups hold back the rest
    #[arg(long)]
    dry_run: bool,
    /// Write what is deleted to this archive first: a folder or a place in a bucket of its own, made
    /// if there is none (see replay)
    #[arg(long, value_name = "URL")]
    archive: Option<OsString>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON document
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

pub(super) fn run(args: PruneArgs, session: Session) -> Result<Code, Failure> {
    let Some(keep) = &args.keep else {
        return Err(Failure::usage("how long are events to be kept?").help(command("prune", "--keep 7d")));
    };
    let keep = times::parse_duration(keep)?;
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let before = session.clock.now().minus(keep);
        let archive = match &args.archive {
            Some(address) if !args.dry_run => {
                Some(open::archive(&session.archive_address(address)?, &session.clock, true).await?)
            }
            _ => None,
        };
        // Without a terminal there is no question, so that cron jobs can prune.
        if !args.dry_run && !args.yes && output::can_ask() {
            let dry =
                retention::prune(opened.bus_handle(), PruneRequest { before, dry_run: true }, None, |_| {}).await?;
            let what = format!("deletes {} from {}", style::plural(dry.deleted, "event"), opened.address);
            if dry.deleted > 0 && !group::confirmed(&what, false, &command("prune", "--yes"))? {
                return Ok(Code::Done);
            }
        }
        let mut progress = Progress::new("pruning", None);
        let mut last = 0;
        let request = PruneRequest { before, dry_run: args.dry_run };
        let report = retention::prune(opened.bus_handle(), request, archive.as_ref(), |seen| {
            progress.advance(seen - last);
            last = seen;
        })
        .await;
        progress.end();
        print_report(&args, &report?, args.dry_run)
    })
}

fn print_report(args: &PruneArgs, report: &PruneReport, dry_run: bool) -> Result<Code, Failure> {
    if args.quiet {
        return Ok(Code::Done);
    }
    let mut out = Out::new();
    if args.json {
        let holders = report.holders.iter().map(|holder| {
            json!({
                "group": holder.group,
                "through": holder.through,
                "pending": holder.pending,
                "held": holder.held,
                "wanted": holder.wanted,
            })
        });
        out.json(&json!({
            "dry_run": dry_run,
            "deleted": report.deleted,
            "archived": report.archived,
            "unfit": report.unfit,
            "held": report.held,
            "holders": holders.collect::<Vec<_>>(),
            "ids": report.ids,
            "abandoned": report.abandoned,
        }))?;
    } else {
        for line in lines(report, dry_run) {
            out.line(&line)?;
        }
    }
    Ok(out.flush().map(|()| Code::Done)?)
}

/// What was deleted, and which groups hold back the rest.
fn lines(report: &PruneReport, dry_run: bool) -> Vec<String> {
    let verb = if dry_run { "would delete" } else { "deleted" };
    let mut first = format!("{verb} {}", style::plural(report.deleted, "event"));
    if report.archived > 0 {
        first.push_str(", all of them kept in the archive");
    }
    for (n, noun) in [(report.ids, "remembered id"), (report.abandoned, "unfinished file")] {
        if n > 0 {
            first.push_str(&format!(", {}", style::plural(n, noun)));
        }
    }
    let mut lines = vec![first];
    if let Some(key) = report.unfit.first() {
        let number = style::plural(u64::try_from(report.unfit.len()).unwrap_or(u64::MAX), "file");
        lines.push(format!("{number} stayed, which no archive can hold: {}", style::escape(key)));
    }
    if report.held > 0 {
        lines.push(format!("{} old enough, but not passed by every group yet:", style::plural(report.held, "event")));
        lines.extend(report.holders.iter().map(holding));
    }
    lines
}

/// What a group holds back, why, and the next command.
fn holding(holder: &Holder) -> String {
    let Holder { group, pending: open, held, wanted, .. } = holder;
    let held = style::thousands(*held);
    if *wanted == 0 {
        let next = "its next watch or drain passes them";
        return format!(
            "  {group}: {held} that it has done or does not want; {next}   or: {}",
            command("group", format_args!("rm {group}"))
        );
    }
    let open = if *open == 0 { String::new() } else { format!(", {} of them pending", style::thousands(*open)) };
    let through = &holder.through.get(..15).unwrap_or(&holder.through);
    let far = if through.starts_with("0000") { "none yet".to_owned() } else { format!("done up to {through}") };
    format!("  {group}: {held} ({far}{open})   {}", command("status", group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::GroupName;

    #[test]
    fn groups_that_hold_back_prune_are_named() {
        let holder = |name: &str, through: &str, open, held, wanted| Holder {
            group: GroupName::parse(name).unwrap(),
            through: through.to_owned(),
            pending: open,
            held,
            wanted,
        };
        let holders = vec![
            holder("loader", "00000101T000000.000000Z", 0, 2, 1),
            holder("mail", "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a.json", 1, 1, 1),
            holder("crm", "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a.json", 0, 1, 0),
        ];
        let report = PruneReport { deleted: 1, held: 2, holders, abandoned: 1, ..PruneReport::default() };
        assert_eq!(
            lines(&report, true),
            [
                "would delete 1 event, 1 unfinished file",
                "2 events old enough, but not passed by every group yet:",
                "  loader: 2 (none yet)   evbus status loader",
                "  mail: 1 (done up to 20261123T021530, 1 of them pending)   evbus status mail",
                "  crm: 1 that it has done or does not want; its next watch or drain passes them   or: evbus group rm crm",
            ]
        );
    }
}
