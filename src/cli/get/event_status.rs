//! The state of one event in every group.

use crate::bus::BusHandle;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::session::Session;
use crate::cli::{style, times};
use crate::event::{Condition, Event, EventName, FilterResult, NameMatch};
use crate::group::marker::PendingEvent;
use crate::group::status::{self, GroupStatus};
use crate::group::{dead_letter, definition};

/// One line for each group; `event` is none if the document cannot be read.
pub(super) async fn lines(
    bus: &BusHandle,
    name: &EventName,
    event: Option<&Event>,
    session: &Session,
) -> Result<Vec<String>, Failure> {
    let groups = definition::names(&*bus.store).await?;
    let width = groups.iter().map(|group| group.as_str().len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for group in groups {
        let Some(status) = status::read(bus, &group).await? else { continue };
        let state = match dead_letter_of(&status, name) {
            Some(dead_letter) => {
                let dead_letter = dead_letter::read(bus, &group, dead_letter).await?;
                let why = dead_letter.map_or_else(String::new, |dead_letter| {
                    format!(" after {}: {}", style::plural(u64::from(dead_letter.attempts), "attempt"), dead_letter.why)
                });
                format!("dead{why}   {}", command("dead", format_args!("show {group}")))
            }
            None => {
                let next = |open: &PendingEvent| {
                    open.next.map(|next| times::clock_text(next, session.environment.now, &session.environment.zone()))
                };
                skipped(&status, event).unwrap_or_else(|| state_of(&status, name, next))
            }
        };
        lines.push(format!("{group:<width$}  {}", style::escape(&state)));
    }
    Ok(lines)
}

/// The event's newest dead letter that is still there.
fn dead_letter_of<'a>(status: &'a GroupStatus, name: &EventName) -> Option<&'a String> {
    status.dead_letters.iter().rev().find(|dead_letter| dead_letter.starts_with(name.stem()))
}

/// Explains how the group's condition excludes the event; none if it does not.
fn skipped(status: &GroupStatus, event: Option<&Event>) -> Option<String> {
    let filter = status.definition.as_ref()?.filter(&status.group).ok()?;
    let condition = filter.condition.as_ref().map(Condition::as_str)?;
    match filter.evaluate(event?) {
        FilterResult::Wanted | FilterResult::OtherType => None,
        FilterResult::DoesNotHold => Some(format!("not wanted: '{condition}' does not hold")),
        FilterResult::CannotEvaluate(why) => Some(format!("dead at once: {why}")),
        FilterResult::NoAnswer(why) => Some(format!("not wanted: '{condition}' has no answer: {why}")),
    }
}

/// The state of an event without a dead letter.
fn state_of(status: &GroupStatus, name: &EventName, next: impl Fn(&PendingEvent) -> Option<String>) -> String {
    let open = status.markers.iter().find_map(|marker| marker.pending.get(name));
    let started_behind = status.definition.as_ref().is_some_and(|definition| definition.start.covers(name));
    let paused = status.definition.as_ref().is_some_and(|definition| definition.paused.is_some());
    if let Some(error) = &status.damage {
        return error.to_string();
    }
    match open {
        _ if status.wants(name.slug()) == NameMatch::No => "not wanted".to_owned(),
        Some(PendingEvent { new_dead_letter: Some(_), .. }) => "dying: its letter is being written".to_owned(),
        Some(open @ PendingEvent { why: Some(why), .. }) => {
            let next = next(open).map_or_else(String::new, |next| format!("; next {next}"));
            format!("retrying after {}: {why}{next}", style::plural(u64::from(open.attempts), "attempt"))
        }
        Some(PendingEvent { redriven_dead_letter: Some(_), .. }) => "waiting: redriven".to_owned(),
        Some(_) => {
            let by = status.running().find(|(running, _)| *running == name);
            let by = by.map_or_else(String::new, |(_, owner)| format!(", on {}:{}", owner.host, owner.pid));
            format!("running, or about to{by}")
        }
        None if status.is_unprocessed(name) && paused => "waiting: the group is paused".to_owned(),
        None if status.is_unprocessed(name) => "waiting".to_owned(),
        None if started_behind => "not reached: the group started behind it".to_owned(),
        None => "done".to_owned(),
    }
}
