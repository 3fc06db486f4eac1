//! Reports what workers do as `tracing` events, in lines or in JSON. All of it goes to stderr;
//! stdout is for the stdout of handlers.

use std::cell::OnceCell;
use std::rc::Rc;

use clap::ValueEnum;
use jiff::tz::TimeZone;
use tracing::{error, info, warn};

use super::{output, style, times};
use crate::cli::help_line;
use crate::clock::{Clock, Fut};
use crate::config::Environment;
use crate::event::{EventName, EventTime, id_of};
use crate::group::GroupName;
use crate::group::worker_event::{Reporter, WorkerEvent};
use crate::handler::{LineSource, Output, Stream};

mod log;

pub(super) use log::{EVBUS_LOG, begin};

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines of text
    Human,
    /// One JSON document per line
    Json,
}

/// Reports for all workers of a process.
pub(super) struct Printer {
    format: LogFormat,
    quiet: bool,
    /// Whether each processed event is reported.
    each: bool,
    clock: Rc<dyn Clock>,
    zone: OnceCell<TimeZone>,
    environment: Environment,
}

impl Printer {
    pub(super) fn new(
        format: LogFormat,
        quiet: bool,
        watching: bool,
        environment: &Environment,
        clock: &Rc<dyn Clock>,
    ) -> Self {
        let (zone, clock) = (OnceCell::new(), Rc::clone(clock));
        Self { format, quiet, each: watching && !quiet, clock, zone, environment: environment.clone() }
    }

    fn clock_text(&self, time: EventTime) -> String {
        times::clock_text(time, self.clock.now(), self.zone.get_or_init(|| self.environment.zone()))
    }

    /// Whether an event is reported.
    fn is_reported(&self, event: &WorkerEvent) -> bool {
        match event {
            WorkerEvent::Started { .. }
            | WorkerEvent::Skipped { why: None, .. }
            | WorkerEvent::Superseded { .. }
            | WorkerEvent::Ran(_)
            | WorkerEvent::Acquired { unclean: false, .. } => self.format == LogFormat::Json && self.each,
            // In lines, a batch is reported once, as `DoneTogether`.
            WorkerEvent::Done { events: 2.., .. } => self.each && self.format == LogFormat::Json,
            WorkerEvent::Done { .. } | WorkerEvent::DoneTogether { .. } => self.each,
            WorkerEvent::Ended => self.format == LogFormat::Json,
            WorkerEvent::Acquired { .. }
            | WorkerEvent::GoesOn
            | WorkerEvent::Paused { .. }
            | WorkerEvent::Redefined { .. } => !self.quiet || self.format == LogFormat::Json,
            _ => true,
        }
    }

    /// An event in words, to follow the group's name.
    fn message(&self, event: &WorkerEvent) -> String {
        let of = |name: &EventName| format!("{} {}", id_of(name), name.slug());
        match event {
            WorkerEvent::Done { name, attempt, took, .. } => {
                format!("done {}, attempt {attempt}, {}", of(name), times::format_duration(*took))
            }
            WorkerEvent::DoneTogether { events, took } => {
                format!("done {events} events in one run, {}", times::format_duration(*took))
            }
            WorkerEvent::Started { name, attempt } => format!("starts {}, attempt {attempt}", of(name)),
            WorkerEvent::Acquired { shard, unclean: true } => {
                format!("took over shard {shard} from a worker that died")
            }
            WorkerEvent::Acquired { shard, unclean: false } => format!("acquired shard {shard}"),
            WorkerEvent::Fenced { shard } => {
                format!("lost shard {shard} to another worker; its running events run again there")
            }
            WorkerEvent::LetGo { shard } => {
                format!("gave up shard {shard}, whose lease is over; its running events run again")
            }
            WorkerEvent::OtherCommand { owner } => {
                let (host, pid, command) = (style::escape(&owner.host), owner.pid, style::escape(&owner.command));
                format!("{host}:{pid} runs another command for this group ({command}): an event goes to one of the two")
            }
            WorkerEvent::Retrying { name, attempt, next, why } => {
                let next = self.clock_text(*next);
                format!("attempt {attempt} failed: {} ({}); next {next}", style::escape(why), of(name))
            }
            WorkerEvent::Released { name, attempt, why } => {
                format!("attempt {attempt} failed: {} ({}); given back", style::escape(why), of(name))
            }
            WorkerEvent::LockLost { name, why } => {
                format!("lost the lock of {}, which may run again: {}", of(name), style::escape(why))
            }
            WorkerEvent::Dead { name, attempt, why } => {
                let attempts = style::plural(u64::from(*attempt), "attempt");
                format!("dead after {attempts}: {} ({})", style::escape(why), of(name))
            }
            WorkerEvent::Halved { events, why } => {
                format!("a batch of {events} failed: {}; trying it in halves", style::escape(why))
            }
            WorkerEvent::OnDeadFailed { name, why } => format!("on_dead failed: {} ({})", style::escape(why), of(name)),
            WorkerEvent::Skipped { name, why: Some(why) } => {
                format!("where has no answer, passed over: {} ({})", style::escape(why), of(name))
            }
            WorkerEvent::Skipped { name, why: None } => format!("where does not hold, passed over ({})", of(name)),
            // What becomes of the event is reported by itself.
            WorkerEvent::Ran(_) => String::new(),
            WorkerEvent::Superseded { name, by } => format!("superseded by {} ({})", id_of(by), of(name)),
            WorkerEvent::Stalled { obstacle } => {
                format!("stalled: {}", style::escape(&help_line::obstacle_text(obstacle)))
            }
            WorkerEvent::Unreachable { error } => format!("waiting: {}", style::escape(&error.to_string())),
            WorkerEvent::GoesOn => "goes on".to_owned(),
            WorkerEvent::Foreign { key } => format!("ignored {}: not an event's name", style::escape(key)),
            WorkerEvent::Isolating => {
                "a handler seems to kill its worker: handlers run one at a time until one has ended".to_owned()
            }
            WorkerEvent::Ended => "ended".to_owned(),
            WorkerEvent::Redefined { filter } => format!("wants {} now", style::wanted(filter)),
            WorkerEvent::Paused { paused: true } => "paused".to_owned(),
            WorkerEvent::Paused { paused: false } => "resumed".to_owned(),
        }
    }
}

impl Reporter for Printer {
    fn report(&self, group: &GroupName, event: &WorkerEvent) {
        if !self.is_reported(event) || matches!(event, WorkerEvent::Ran(_)) {
            return;
        }
        let (group, line) = (group.as_str(), format!("{group}: {}", self.message(event)));
        let of = |name: &EventName| (id_of(name), name.slug().to_owned());
        match event {
            WorkerEvent::Acquired { shard, unclean } => info!(event = "acquired", group, shard, unclean, "{line}"),
            WorkerEvent::Fenced { shard } => warn!(event = "fenced", group, shard, "{line}"),
            WorkerEvent::LetGo { shard } => warn!(event = "let_go", group, shard, "{line}"),
            WorkerEvent::Started { name, attempt } => {
                let (id, r#type) = of(name);
                info!(event = "started", group, id, r#type, attempt, "{line}");
            }
            WorkerEvent::Done { name, attempt, took, events } => {
                let ((id, r#type), seconds) = (of(name), took.as_secs_f64());
                info!(event = "done", group, id, r#type, attempt, seconds, events, "{line}");
            }
            WorkerEvent::DoneTogether { events, took } => {
                let seconds = took.as_secs_f64();
                info!(event = "done_together", group, events, seconds, "{line}");
            }
            WorkerEvent::Skipped { name, why } => {
                let (id, r#type) = of(name);
                info!(event = "passed_over", group, id, r#type, why, "{line}");
            }
            WorkerEvent::Ran(_) => {}
            WorkerEvent::Superseded { name, by } => {
                let ((id, r#type), by) = (of(name), id_of(by));
                info!(event = "superseded", group, id, r#type, by, "{line}");
            }
            WorkerEvent::Retrying { name, attempt, next, why } => {
                let ((id, r#type), next) = (of(name), next.to_rfc3339());
                warn!(event = "retrying", group, id, r#type, attempt, next, why, "{line}");
            }
            WorkerEvent::Released { name, attempt, why } => {
                let (id, r#type) = of(name);
                warn!(event = "released", group, id, r#type, attempt, why, "{line}");
            }
            WorkerEvent::LockLost { name, why } => {
                let (id, r#type) = of(name);
                warn!(event = "lock_lost", group, id, r#type, why, "{line}");
            }
            WorkerEvent::Dead { name, attempt, why } => {
                let (id, r#type) = of(name);
                error!(event = "dead", group, id, r#type, attempt, why, "{line}");
            }
            WorkerEvent::OnDeadFailed { name, why } => {
                let (id, r#type) = of(name);
                warn!(event = "on_dead_failed", group, id, r#type, why, "{line}");
            }
            WorkerEvent::Halved { events, why } => warn!(event = "halved", group, events, why, "{line}"),
            WorkerEvent::Stalled { obstacle } => {
                warn!(event = "stalled", group, why = help_line::obstacle_text(obstacle), "{line}");
            }
            WorkerEvent::Unreachable { error } => warn!(event = "waiting", group, why = error.to_string(), "{line}"),
            WorkerEvent::GoesOn => info!(event = "goes_on", group, "{line}"),
            WorkerEvent::Ended => error!(event = "ended", group, "{line}"),
            WorkerEvent::OtherCommand { owner } => {
                let (host, pid, command) = (&*owner.host, owner.pid, &*owner.command);
                warn!(event = "other_command", group, host, pid, command, "{line}");
            }
            WorkerEvent::Foreign { key } => warn!(event = "ignored", group, key, "{line}"),
            WorkerEvent::Isolating => warn!(event = "isolating", group, "{line}"),
            WorkerEvent::Redefined { .. } => info!(event = "redefined", group, "{line}"),
            WorkerEvent::Paused { paused } => {
                info!(event = if *paused { "paused" } else { "resumed" }, group, "{line}");
            }
        }
    }
}

impl Output for Printer {
    fn line(&self, source: &LineSource, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if self.format == LogFormat::Json && stream == Stream::Err {
            let (group, id, attempt, events) = (&*source.label, &*source.id, &*source.attempt, &*source.events);
            return info!(event = "stderr", group, id, attempt, events, "{text}");
        }
        let line = format!("{}| {text}", mark(source));
        let line = if output::on_terminal() { style::escape(&line) } else { line.as_str().into() };
        output::pump::write(stream, format!("{line}\n").as_bytes());
    }

    fn room(&self, stream: Stream) -> Fut<'_, ()> {
        // Right for JSON too: all lines of the log go to stderr.
        Box::pin(output::pump::room(stream))
    }
}

/// The prefix of a handler's line: the group, with the event and its attempt, or the number of
/// events.
fn mark(source: &LineSource) -> String {
    let LineSource { label, id, attempt, events } = source;
    match (&**id, &**events) {
        ("", "") => label.clone(),
        ("", events) => format!("{label} {events} events"),
        (id, _) => format!("{label} {id} #{attempt}"),
    }
}
