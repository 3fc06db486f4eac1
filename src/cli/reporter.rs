//! Prints what workers report: for people, or as JSON for machines. All of it goes to stderr; what handlers write
//! to stdout goes to stdout.

use std::cell::OnceCell;
use std::io::Write;

use clap::ValueEnum;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{output, style, times};
use crate::config::World;
use crate::event::{EventName, EventTime, Identity, event_id};
use crate::group::GroupName;
use crate::group::facts::{Fact, Reporter};
use crate::handler::{Output, Stream};

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
    zone: OnceCell<TimeZone>,
    world: World,
}

impl Printer {
    pub(super) fn new(format: LogFormat, quiet: bool, watching: bool, world: &World) -> Self {
        Self { format, quiet, each: watching && !quiet, zone: OnceCell::new(), world: world.clone() }
    }

    fn clock(&self, time: EventTime) -> String {
        times::clock_text(time, self.world.now, self.zone.get_or_init(|| self.world.zone()))
    }

    fn human(&self, group: &GroupName, fact: &Fact<'_>) -> Option<String> {
        let text = match fact {
            Fact::Done { name, took } if self.each => {
                format!("done {} {} {}", id_of(name), name.slug(), times::format_duration(*took))
            }
            Fact::Took { shard, unclean: true } => format!("took over shard {shard}: its worker had not given it back"),
            Fact::Fenced { shard } => format!("lost shard {shard} to another worker; what ran for it runs again there"),
            Fact::OtherCommand { owner } => {
                let (host, pid, command) = (style::escape(&owner.host), owner.pid, style::escape(&owner.command));
                format!("{host}:{pid} runs another command for this group ({command}): an event goes to one of the two")
            }
            Fact::Retrying { name, attempt, next, why } => {
                let next = self.clock(*next);
                format!(
                    "attempt {attempt} failed: {} ({} {}); next {next}",
                    style::escape(why),
                    id_of(name),
                    name.slug()
                )
            }
            Fact::Dead { name, attempt, why } => {
                let attempts = style::plural(u64::from(*attempt), "attempt");
                format!("dead after {attempts}: {} ({} {})", style::escape(why), id_of(name), name.slug())
            }
            Fact::Halved { events, why } => {
                format!("a batch of {events} failed: {}; trying it in halves", style::escape(why))
            }
            Fact::OnDeadFailed { name, why } => {
                format!("on_dead failed: {} ({} {})", style::escape(why), id_of(name), name.slug())
            }
            Fact::PassedOver { name, why: Some(why) } => {
                format!("where has no answer, passed over: {} ({} {})", style::escape(why), id_of(name), name.slug())
            }
            Fact::Stalled { why } => format!("stalled: {}", style::escape(why)),
            Fact::Unreachable { error } => format!("waiting: {}", style::escape(&error.to_string())),
            Fact::GoesOn => "goes on".to_owned(),
            Fact::Foreign { key } => format!("ignored {}: not an event's name", style::escape(key)),
            Fact::Careful => "a handler seems to kill its worker: one at a time until one has come back".to_owned(),
            Fact::Paused { paused: true } => "paused".to_owned(),
            Fact::Paused { paused: false } => "resumed".to_owned(),
            Fact::PassedOver { why: None, .. }
            | Fact::Done { .. }
            | Fact::Took { .. }
            | Fact::Started { .. }
            | Fact::Ended => {
                return None;
            }
        };
        Some(format!("{group}: {text}"))
    }
}

fn json(group: &GroupName, fact: &Fact<'_>) -> Value {
    let group = group.as_str();
    match fact {
        Fact::Took { shard, unclean } => json!({"event": "took", "group": group, "shard": shard, "unclean": unclean}),
        Fact::Fenced { shard } => json!({"event": "fenced", "group": group, "shard": shard}),
        Fact::Started { name, attempt } => {
            json!({"event": "started", "group": group, "id": id_of(name), "type": name.slug(), "attempt": attempt})
        }
        Fact::Done { name, took } => {
            let took = took.as_secs_f64();
            json!({"event": "done", "group": group, "id": id_of(name), "type": name.slug(), "seconds": took})
        }
        Fact::PassedOver { name, why } => {
            json!({"event": "passed_over", "group": group, "id": id_of(name), "type": name.slug(), "why": why})
        }
        Fact::Retrying { name, attempt, next, why } => json!({
            "event": "retrying", "group": group, "id": id_of(name), "type": name.slug(),
            "attempt": attempt, "next": next.to_rfc3339(), "why": why,
        }),
        Fact::Dead { name, attempt, why } => json!({
            "event": "dead", "group": group, "id": id_of(name), "type": name.slug(), "attempts": attempt, "why": why,
        }),
        Fact::Halved { events, why } => json!({"event": "halved", "group": group, "events": events, "why": why}),
        Fact::OnDeadFailed { name, why } => {
            json!({"event": "on_dead_failed", "group": group, "id": id_of(name), "type": name.slug(), "why": why})
        }
        Fact::Stalled { why } => json!({"event": "stalled", "group": group, "why": why}),
        Fact::Unreachable { error } => json!({"event": "waiting", "group": group, "why": error.to_string()}),
        Fact::GoesOn => json!({"event": "goes_on", "group": group}),
        Fact::Ended => json!({"event": "ended", "group": group}),
        Fact::OtherCommand { owner } => json!({
            "event": "other_command", "group": group, "host": owner.host, "pid": owner.pid, "command": owner.command,
        }),
        Fact::Foreign { key } => json!({"event": "ignored", "group": group, "key": key}),
        Fact::Careful => json!({"event": "careful", "group": group}),
        Fact::Paused { paused } => json!({"event": if *paused { "paused" } else { "resumed" }, "group": group}),
    }
}

/// The id by which `evbus get` finds an event: the one that evbus makes.
pub(super) fn id_of(name: &EventName) -> String {
    let identity = Identity::parse(name.identity());
    identity.map_or_else(|| name.stem().to_owned(), |identity| event_id(name.time(), &identity))
}

impl Reporter for Printer {
    fn report(&self, group: &GroupName, fact: Fact<'_>) {
        match self.format {
            LogFormat::Human => {
                let failure = !matches!(fact, Fact::Took { .. } | Fact::GoesOn | Fact::Paused { .. });
                if let Some(line) = self.human(group, &fact).filter(|_| failure || !self.quiet) {
                    output::note(&line);
                }
            }
            LogFormat::Json => {
                let chatter = matches!(
                    fact,
                    Fact::PassedOver { why: None, .. } | Fact::Started { .. } | Fact::Done { .. } | Fact::Took { .. }
                );
                if self.each || !chatter {
                    output::note(&json(group, &fact).to_string());
                }
            }
        }
    }
}

impl Output for Printer {
    fn line(&self, label: &str, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = if output::on_terminal() { style::escape(&text) } else { text.as_ref().into() };
        // A reader that has gone away must not end the worker.
        let _ = match stream {
            Stream::Out => writeln!(std::io::stdout().lock(), "{label}| {text}"),
            Stream::Err => writeln!(std::io::stderr().lock(), "{label}| {text}"),
        };
    }
}
