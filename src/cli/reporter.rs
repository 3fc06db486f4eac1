//! Reports what workers do, as `tracing` events: for people, or as JSON for machines. All of it goes to stderr; what
//! handlers write to stdout goes to stdout.

use std::cell::OnceCell;
use std::rc::Rc;

use clap::ValueEnum;
use jiff::tz::TimeZone;
use tracing::{error, info, warn};

use super::watchers::wanted;
use super::{output, style, times};
use crate::clock::{Clock, Fut};
use crate::config::Environment;
use crate::event::{EventName, EventTime, Identity, event_id};
use crate::group::GroupName;
use crate::group::facts::{Fact, Reporter};
use crate::handler::{Output, Speaker, Stream};

mod log;

pub(super) use log::{EVBUS_LOG, begin};

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Human,
    /// One JSON document a line
    Json,
}

/// The one reporter of a process.
pub(super) struct Printer {
    format: LogFormat,
    quiet: bool,
    /// Whether each processed event is told.
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

    /// Whether a fact is worth a line.
    fn is_told(&self, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::Started { .. } | Fact::PassedOver { why: None, .. } | Fact::Acquired { unclean: false, .. } => {
                self.format == LogFormat::Json && self.each
            }
            // For people a batch is one line.
            Fact::Done { events: 2.., .. } => self.each && self.format == LogFormat::Json,
            Fact::Done { .. } | Fact::DoneTogether { .. } => self.each,
            Fact::Ended => self.format == LogFormat::Json,
            Fact::Acquired { .. } | Fact::GoesOn | Fact::Paused { .. } | Fact::Redefined { .. } => {
                !self.quiet || self.format == LogFormat::Json
            }
            _ => true,
        }
    }

    /// A fact in words, behind the group's name.
    fn words(&self, fact: &Fact<'_>) -> String {
        let of = |name: &EventName| format!("{} {}", id_of(name), name.slug());
        match fact {
            Fact::Done { name, attempt, took, .. } => {
                format!("done {}, attempt {attempt}, {}", of(name), times::format_duration(*took))
            }
            Fact::DoneTogether { events, took } => {
                format!("done {events} events in one run, {}", times::format_duration(*took))
            }
            Fact::Started { name, attempt } => format!("starts {}, attempt {attempt}", of(name)),
            Fact::Acquired { shard, unclean: true } => format!("took over shard {shard} from a worker that died"),
            Fact::Acquired { shard, unclean: false } => format!("acquired shard {shard}"),
            Fact::Fenced { shard } => format!("lost shard {shard} to another worker; what ran for it runs again there"),
            Fact::LetGo { shard } => {
                format!("let go of shard {shard}, whose lease is over; what ran for it runs again")
            }
            Fact::OtherCommand { owner } => {
                let (host, pid, command) = (style::escape(&owner.host), owner.pid, style::escape(&owner.command));
                format!("{host}:{pid} runs another command for this group ({command}): an event goes to one of the two")
            }
            Fact::Retrying { name, attempt, next, why } => {
                let next = self.clock_text(*next);
                format!("attempt {attempt} failed: {} ({}); next {next}", style::escape(why), of(name))
            }
            Fact::Dead { name, attempt, why } => {
                let attempts = style::plural(u64::from(*attempt), "attempt");
                format!("dead after {attempts}: {} ({})", style::escape(why), of(name))
            }
            Fact::Halved { events, why } => {
                format!("a batch of {events} failed: {}; trying it in halves", style::escape(why))
            }
            Fact::OnDeadFailed { name, why } => format!("on_dead failed: {} ({})", style::escape(why), of(name)),
            Fact::PassedOver { name, why: Some(why) } => {
                format!("where has no answer, passed over: {} ({})", style::escape(why), of(name))
            }
            Fact::PassedOver { name, why: None } => format!("where does not hold, passed over ({})", of(name)),
            Fact::Stalled { why } => format!("stalled: {}", style::escape(why)),
            Fact::Unreachable { error } => format!("waiting: {}", style::escape(&error.to_string())),
            Fact::GoesOn => "goes on".to_owned(),
            Fact::Foreign { key } => format!("ignored {}: not an event's name", style::escape(key)),
            Fact::Isolating => "a handler seems to kill its worker: one at a time until one has come back".to_owned(),
            Fact::Ended => "ended".to_owned(),
            Fact::Redefined { wants } => format!("wants {} now", wanted(wants)),
            Fact::Paused { paused: true } => "paused".to_owned(),
            Fact::Paused { paused: false } => "resumed".to_owned(),
        }
    }
}

impl Reporter for Printer {
    fn report(&self, group: &GroupName, fact: Fact<'_>) {
        if !self.is_told(&fact) {
            return;
        }
        let (group, line) = (group.as_str(), format!("{group}: {}", self.words(&fact)));
        let of = |name: &EventName| (id_of(name), name.slug().to_owned());
        match fact {
            Fact::Acquired { shard, unclean } => info!(event = "acquired", group, shard, unclean, "{line}"),
            Fact::Fenced { shard } => warn!(event = "fenced", group, shard, "{line}"),
            Fact::LetGo { shard } => warn!(event = "let_go", group, shard, "{line}"),
            Fact::Started { name, attempt } => {
                let (id, r#type) = of(name);
                info!(event = "started", group, id, r#type, attempt, "{line}");
            }
            Fact::Done { name, attempt, took, events } => {
                let ((id, r#type), seconds) = (of(name), took.as_secs_f64());
                info!(event = "done", group, id, r#type, attempt, seconds, events, "{line}");
            }
            Fact::DoneTogether { events, took } => {
                let seconds = took.as_secs_f64();
                info!(event = "done_together", group, events, seconds, "{line}");
            }
            Fact::PassedOver { name, why } => {
                let (id, r#type) = of(name);
                info!(event = "passed_over", group, id, r#type, why, "{line}");
            }
            Fact::Retrying { name, attempt, next, why } => {
                let ((id, r#type), next) = (of(name), next.to_rfc3339());
                warn!(event = "retrying", group, id, r#type, attempt, next, why, "{line}");
            }
            Fact::Dead { name, attempt, why } => {
                let (id, r#type) = of(name);
                error!(event = "dead", group, id, r#type, attempt, why, "{line}");
            }
            Fact::OnDeadFailed { name, why } => {
                let (id, r#type) = of(name);
                warn!(event = "on_dead_failed", group, id, r#type, why, "{line}");
            }
            Fact::Halved { events, why } => warn!(event = "halved", group, events, why, "{line}"),
            Fact::Stalled { why } => warn!(event = "stalled", group, why, "{line}"),
            Fact::Unreachable { error } => warn!(event = "waiting", group, why = error.to_string(), "{line}"),
            Fact::GoesOn => info!(event = "goes_on", group, "{line}"),
            Fact::Ended => error!(event = "ended", group, "{line}"),
            Fact::OtherCommand { owner } => {
                let (host, pid, command) = (&*owner.host, owner.pid, &*owner.command);
                warn!(event = "other_command", group, host, pid, command, "{line}");
            }
            Fact::Foreign { key } => warn!(event = "ignored", group, key, "{line}"),
            Fact::Isolating => warn!(event = "isolating", group, "{line}"),
            Fact::Redefined { .. } => info!(event = "redefined", group, "{line}"),
            Fact::Paused { paused } => {
                info!(event = if paused { "paused" } else { "resumed" }, group, "{line}");
            }
        }
    }
}

impl Output for Printer {
    fn line(&self, speaker: &Speaker, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if self.format == LogFormat::Json && stream == Stream::Err {
            let (group, id, attempt, events) = (&*speaker.label, &*speaker.id, &*speaker.attempt, &*speaker.events);
            return info!(event = "stderr", group, id, attempt, events, "{text}");
        }
        let line = format!("{}| {text}", mark(speaker));
        let line = if output::on_terminal() { style::escape(&line) } else { line.as_str().into() };
        output::pump::write(stream, format!("{line}\n").as_bytes());
    }

    fn room(&self, stream: Stream) -> Fut<'_, ()> {
        // JSON lines all go to stderr.
        Box::pin(output::pump::room(stream))
    }
}

/// Whose line it is: the group, and the event with its attempt, or how many events.
fn mark(speaker: &Speaker) -> String {
    let Speaker { label, id, attempt, events } = speaker;
    match (&**id, &**events) {
        ("", "") => label.clone(),
        ("", events) => format!("{label} {events} events"),
        (id, _) => format!("{label} {id} #{attempt}"),
    }
}

/// The id by which `evbus get` finds an event: the one that evbus makes.
pub(super) fn id_of(name: &EventName) -> String {
    let identity = Identity::parse(name.identity());
    identity.map_or_else(|| name.stem().to_owned(), |identity| event_id(name.time(), &identity))
}
