//! `evbus copy`: copies events from one bus to another.

use std::ffi::OsString;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Code;
use super::failure::Failure;
use super::ls::{FilterArgs, time_of};
use super::output;
use super::progress::Progress;
use super::session::{Needs, Session, block_on};
use super::style;
use crate::bus::read::Range;
use crate::clock::Backoff;
use crate::copy::{Copied, Copier};
use crate::event::EventTime;
use crate::store::ErrorKind;
use crate::store::dir::{Durability, Execution};

/// How often a mirror looks for what is new.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Copy events from one bus to another, of any kinds
///
/// The events keep their ids, sources and content, and get new times: groups of the other bus run them. A copy that was
/// stopped is begun again and skips what is there. Events that wait for their time are copied, too, unless a part is asked
/// for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus copy /srv/bus postgres://app@db/shop
  evbus copy /srv/bus s3://acme-events/prod --since 7d
  evbus copy sqlite:///srv/app/bus.db /mnt/mirror --follow")]
pub(super) struct CopyArgs {
    /// The bus to copy from: a path, a URL, or a name from [buses.NAME] in the config
    #[arg(value_name = "FROM")]
    from: OsString,
    /// The bus to copy to, which is there already
    #[arg(value_name = "TO")]
    to: OsString,
    #[command(flatten)]
    filter: FilterArgs,
    /// From this time on: 1h, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Go on with what comes, until a signal
    #[arg(long)]
    follow: bool,
    /// Print no summary
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: CopyArgs, session: Session) -> Result<Code, Failure> {
    let time = |option, given: &Option<String>| {
        given.as_deref().map(|text| time_of(option, text, &session.environment)).transpose()
    };
    let (since, until) = (time("--since", &args.since)?, time("--until", &args.until)?);
    let filter = args.filter.filter()?;
    let is_part = since.is_some() || until.is_some() || !filter.types_text().is_empty();
    let range = Range { since: since.unwrap_or(EventTime::MIN), until: until.unwrap_or(EventTime::MAX), filter };
    let (from, to) = (session.archive_address(&args.from)?, session.archive_address(&args.to)?);
    if from.location == to.location {
        return Err(Failure::usage(format!("FROM and TO are the same bus, {}", from.display)));
    }
    block_on(Needs::Everything, async {
        let from = session.open_at(from, Execution::Threaded, Durability::Full).await?;
        let to = session.open_at(to, Execution::Threaded, Durability::Full).await?;
        if from.bus.settings == to.bus.settings {
            let (from, to) = (&from.address.display, &to.address.display);
            return Err(Failure::usage(format!("{from} and {to} are the same bus, made at one time")));
        }
        let mut copier = Copier::new(from.bus_handle(), &to.bus, range);
        let mut progress = Progress::new("copied", None);
        let mut shown = 0;
        let mut copied = if args.follow {
            follow(&mut copier, &session).await?
        } else {
            let show = |done: u64| progress.advance(done - std::mem::replace(&mut shown, done));
            copier.pass(show).await?
        };
        if !is_part && !args.follow {
            copier.scheduled(&mut copied).await?;
        }
        progress.end();
        to.bus_handle().store.send_hints().await;
        report(&copied, &args, &from.address.display, &to.address.display);
        Ok(if copied.unfit_len == 0 { Code::Done } else { Code::Failed })
    })
}

/// Copies until a signal comes.
async fn follow(copier: &mut Copier<'_>, session: &Session) -> Result<Copied, Failure> {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut all = Copied::default();
    let first = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let (mut backoff, mut in_trouble) = (first, false);
    loop {
        let pause = match copier.follow(|_| ()).await {
            Ok(copied) => {
                if std::mem::take(&mut in_trouble) {
                    output::note("the copy goes on");
                    backoff = first;
                }
                all.add_new(copied);
                LOOK_EVERY
            }
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) => {
                if !std::mem::replace(&mut in_trouble, true) {
                    output::warn(&format!("the copy waits: {error}"));
                }
                backoff.take()
            }
            Err(error) => return Err(error.into()),
        };
        tokio::select! { biased;
            _ = term.recv() => return Ok(all),
            _ = int.recv() => return Ok(all),
            () = session.clock.sleep_until(session.clock.elapsed() + pause) => {}
        }
    }
}

fn report(copied: &Copied, args: &CopyArgs, from: &str, to: &str) {
    for unfit in &copied.unfit {
        output::warn(&format!("not copied: {unfit}"));
    }
    if args.quiet {
        return;
    }
    let mut text = format!("copied {} from {from} to {to}", style::plural(copied.events, "event"));
    if copied.repeats > 0 {
        text = format!("{text}; {} were there", style::thousands(copied.repeats));
    }
    if copied.scheduled > 0 {
        text = format!("{text}; {} wait for their time", style::thousands(copied.scheduled));
    }
    if copied.unfit_len > 0 {
        text = format!("{text}; {} not copied", style::thousands(copied.unfit_len));
    }
    output::note(&text);
}
