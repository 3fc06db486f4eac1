//! `evbus tail`: prints events as they come.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Code;
use super::failure::Failure;
use super::ls::line::{LineEvent, LineFormat, LineFormatter};
use super::ls::{FilterArgs, readable, time_of};
use super::output::{self, Out};
use super::session::{Needs, Session, block_on};
use super::times;
use crate::bus::read::{self, NamePages, Range};
use crate::bus::{BusHandle, frontier};
use crate::event::{EventName, EventTime};
use crate::store::dir::{Durability, Execution};
use crate::store::{ErrorKind, Hints, LARGEST_BYTES, StoreResult};

mod remote;
mod seen;

use seen::Seen;

/// How far behind the clock a listing after a hint begins.
const NEAR: Duration = Duration::from_secs(60);

/// How far behind the clock the occasional far listing begins, for emitters with slow clocks.
const FAR: Duration = Duration::from_hours(1);
const FAR_EVERY: Duration = Duration::from_secs(10);

/// Print events as they come
///
/// Belongs to no group and changes nothing. Starts with the last ten events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus tail
  evbus tail -t 'order.**' --since 1h
  evbus tail -n 0 --json | jq -r '.data.total'")]
pub(super) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Start with the last N events [default: 10, or all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Start with the events from this time on: 1h, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print each event's JSON document, one per line
    #[arg(long)]
    json: bool,
    /// Look this often if the store gives no hints
    #[arg(long, value_name = "DURATION")]
    poll: Option<String>,
    /// Do not use hints
    #[arg(long)]
    no_hints: bool,
}

pub(super) fn run(args: TailArgs, session: Session) -> Result<Code, Failure> {
    let since = args.since.as_deref().map(|text| time_of("--since", text, &session.environment)).transpose()?;
    let filter = args.filter.filter()?;
    let every = args.poll.as_deref().map(times::parse_duration).transpose()?;
    block_on(Needs::Everything, async {
        let format = if args.json { LineFormat::Json } else { LineFormat::Whole };
        let line = LineFormatter { format, filter, now: session.environment.now, zone: session.environment.zone() };
        let lines = args.lines.unwrap_or(if since.is_some() { usize::MAX } else { 10 });
        let address = session.address()?;
        if let Some(server) = session.server(&address)? {
            return tokio::select! { biased;
                stopped = stopped() => stopped,
                answer = remote::follow(&server, &*session.clock, line, since, lines) => answer,
            };
        }
        let opened = session.open_at(address, Execution::Threaded, Durability::Full).await?;
        let bus = opened.bus_handle().clone();
        let hints = if args.no_hints { None } else { bus.store.hints().ok() };
        let poll = every.unwrap_or(bus.store.profile().poll.1).max(Duration::from_millis(10));
        let mut tail = Tail { bus, line, seen: Seen::default(), w: EventTime::MIN, hints, poll, out: Out::new() };
        tokio::select! {
            biased;
            stopped = stopped() => stopped,
            answer = tail.follow(since.unwrap_or(EventTime::MIN), lines) => answer,
        }
    })
}

/// Completes on SIGTERM or SIGINT.
async fn stopped() -> Result<Code, Failure> {
    let cannot = |error: io::Error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(Code::Done)
}

/// The state of a running tail.
struct Tail {
    bus: BusHandle,
    line: LineFormatter,
    seen: Seen,
    /// The frontier before the last far listing: no later event can have a time at or before it.
    w: EventTime,
    hints: Option<Box<dyn Hints>>,
    poll: Duration,
    out: Out,
}

impl Tail {
    async fn follow(&mut self, since: EventTime, lines: usize) -> Result<Code, Failure> {
        self.begin(since, lines).await?;
        let clock = self.bus.clock.clone();
        let mut far_at = clock.elapsed() + FAR_EVERY;
        loop {
            self.wait().await;
            if reader_is_gone() {
                return Ok(Code::Done);
            }
            let far = clock.elapsed() >= far_at;
            match self.look(if far { FAR } else { NEAR }).await {
                Ok(names) => self.print(&names).await?,
                // tail waits until the store answers again.
                Err(error) if error.kind() == ErrorKind::Unavailable => output::warn(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            if far {
                far_at = clock.elapsed() + FAR_EVERY;
            }
        }
    }

    /// Prints the events that are already there, and remembers them.
    async fn begin(&mut self, since: EventTime, lines: usize) -> Result<(), Failure> {
        self.w = frontier::read(&*self.bus.store).await?.time;
        let now = self.bus.clock.now();
        let range = Range { since, until: EventTime::MAX, filter: self.line.filter.clone() };
        if lines < usize::MAX {
            self.look(FAR).await?;
            let (names, _) = read::newest(&self.bus, &range, lines, now).await?;
            for name in &names {
                self.seen.add(name);
            }
            return self.print(&names).await;
        }
        let bus = self.bus.clone();
        let mut pages = NamePages::of(&bus, &range);
        while let Some(names) = pages.next().await? {
            let new: Vec<EventName> = names.iter().filter(|name| self.seen.add(name)).cloned().collect();
            self.print(&new).await?;
        }
        // Events before the range must not appear as new in a later listing.
        self.seen.raise_floor(since);
        Ok(())
    }

    /// Lists from `back` behind the clock, or from the frontier if that is later. Returns the new
    /// names, oldest first.
    ///
    /// An event that a listing lacks is acknowledged above the W that was read before it. So the
    /// next far listing need not begin before that W. A near listing leaves earlier events out and
    /// does not move it.
    async fn look(&mut self, back: Duration) -> StoreResult<Vec<EventName>> {
        let store = &*self.bus.store;
        let w = frontier::read(store).await?.time;
        let since = self.bus.clock.now().minus(back).max(self.w.next());
        let range = Range { since, until: EventTime::MAX, filter: self.line.filter.clone() };
        let mut new = Vec::new();
        let mut pages = NamePages::of(&self.bus, &range);
        while let Some(names) = pages.next().await? {
            new.extend(names.iter().filter(|name| self.seen.add(name)).cloned());
        }
        if back == FAR {
            self.w = w;
        }
        Ok(new)
    }

    async fn print(&mut self, names: &[EventName]) -> Result<(), Failure> {
        self.line.now = self.bus.clock.now();
        for name in names {
            let found = read::document(&self.bus, name, LARGEST_BYTES).await;
            let Some(bytes) = readable(found)? else { continue };
            if let Some(text) = self.line.text(&LineEvent::new(name, &bytes), 0) {
                self.out.line(&text)?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Waits for a hint, or for the time to list anyway.
    async fn wait(&mut self) {
        let clock = self.bus.clock.clone();
        let tick = clock.sleep_until(clock.elapsed() + self.poll);
        match &mut self.hints {
            Some(hints) => {
                tokio::select! {
                    () = hints.next() => {}
                    () = tick => {}
                }
            }
            None => tick.await,
        }
    }
}

/// Whether stdout is a pipe without a reader. Without events there is no write that would fail.
fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut fds = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) && fds[0].revents().contains(PollFlags::ERR)
}
