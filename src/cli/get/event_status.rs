//! The state of one event in every group.

use crate::bus::BusHandle;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::session::Session;
use crate::cli::{style, times};
use crate::event::{Event, EventName, EventTime};
use crate::group::GroupName;
use crate::group::status::{self, EventState};

/// One line for each group; `event` is none if the document cannot be read.
pub(super) async fn lines(
    bus: &BusHandle,
    name: &EventName,
    event: Option<&Event>,
    session: &Session,
) -> Result<Vec<String>, Failure> {
    let clock = |time: EventTime| times::clock_text(time, session.environment.now, &session.environment.zone());
    let statuses = status::all(bus).await?;
    let width = statuses.iter().map(|status| status.group.as_str().len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for status in statuses {
        let group = &status.group;
        let state = text(group, status.event_state(bus, name, event).await?, clock);
        lines.push(format!("{group:<width$}  {}", style::escape(&state)));
    }
    Ok(lines)
}

/// The state in words.
fn text(group: &GroupName, state: EventState, clock: impl Fn(EventTime) -> String) -> String {
    let attempts = |attempts: u32| style::plural(u64::from(attempts), "attempt");
    match state {
        EventState::Done => "done".to_owned(),
        EventState::NotWanted(None) => "not wanted".to_owned(),
        EventState::NotWanted(Some(why)) => format!("not wanted: {why}"),
        EventState::Unanswerable(why) => format!("dead at once: {why}"),
        EventState::Dead(dead_letter) => {
            let why = dead_letter.map_or_else(String::new, |dead_letter| {
                format!(" after {}: {}", attempts(dead_letter.attempts), dead_letter.why)
            });
            format!("dead{why}   {}", command("dead", format_args!("show {group}")))
        }
        EventState::Dying => "dying: its letter is being written".to_owned(),
        EventState::Retrying { attempts: counted, why, next } => {
            let next = next.map_or_else(String::new, |next| format!("; next {}", clock(next)));
            format!("retrying after {}: {why}{next}", attempts(counted))
        }
        EventState::Redriven => "waiting: redriven".to_owned(),
        EventState::Running(by) => {
            let by = by.map_or_else(String::new, |(host, pid)| format!(", on {host}:{pid}"));
            format!("running, or about to{by}")
        }
        EventState::Waiting { paused: true } => "waiting: the group is paused".to_owned(),
        EventState::Waiting { paused: false } => "waiting".to_owned(),
        EventState::NotReached => "not reached: the group started behind it".to_owned(),
        EventState::Damaged(error) => error.to_string(),
    }
}
