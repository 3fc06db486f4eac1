//! Finds the dead letters that ids or types select.

use crate::bus::BusHandle;
use crate::cli::failure::Failure;
use crate::cli::help_line::{HelpLine, command, text};
use crate::cli::style;
use crate::event::{Event, NameMatch, TypeFilter, id_of};
use crate::group::dead_letter;
use crate::group::status::GroupStatus;

/// How many matches of an ambiguous prefix an error names.
const NAMED: usize = 5;

/// The letters that the ids select, without repeats.
pub(super) async fn by_ids(bus: &BusHandle, status: &GroupStatus, ids: &[String]) -> Result<Vec<String>, Failure> {
    let mut picked: Vec<String> = Vec::new();
    for id in ids {
        let mut found = by_name(&status.dead_letters, id);
        if found.is_empty() {
            found = by_document(bus, status, id).await?;
        }
        match found.as_slice() {
            [] => return Err(none(status, id)),
            _ if one_event(&found) => {}
            several => return Err(ambiguous(id, several)),
        }
        picked.extend(found.into_iter().filter(|name| !picked.contains(name)).collect::<Vec<_>>());
    }
    Ok(picked)
}

/// Whether all letters are of one event: an event that died, was redriven and died again may have
/// two, and its id selects both.
fn one_event(dead_letters: &[String]) -> bool {
    let mut events = dead_letters.iter().map(|dead_letter| dead_letter::event_of(dead_letter));
    let first = events.next().flatten();
    first.is_none() && dead_letters.len() == 1 || first.is_some() && events.all(|event| event == first)
}

/// Selects by the letter's name or the generated id, each whole or as a prefix.
fn by_name(dead_letters: &[String], id: &str) -> Vec<String> {
    let matches = |dead_letter: &&String| {
        dead_letter.starts_with(id)
            || dead_letter::event_of(dead_letter).is_some_and(|event| id_of(&event).starts_with(id))
    };
    dead_letters.iter().filter(matches).cloned().collect()
}

/// Selects by the id in the event's document; prefixes count only if no id is equal.
async fn by_document(bus: &BusHandle, status: &GroupStatus, id: &str) -> Result<Vec<String>, Failure> {
    let (mut whole, mut begun) = (Vec::new(), Vec::new());
    for name in &status.dead_letters {
        let dead_letter = dead_letter::readable(bus, &status.group, name).await?;
        let own = dead_letter::shown_id(name, dead_letter.as_ref());
        if own == id {
            whole.push(name.clone());
        } else if own.starts_with(id) {
            begun.push(name.clone());
        }
    }
    Ok(if whole.is_empty() { begun } else { whole })
}

/// Selects the letters whose event type matches.
pub(super) async fn by_type(
    bus: &BusHandle,
    status: &GroupStatus,
    filter: &TypeFilter,
) -> Result<Vec<String>, Failure> {
    let mut picked = Vec::new();
    for name in &status.dead_letters {
        let wanted = match dead_letter::event_of(name).map(|event| filter.matches_slug(event.slug())) {
            Some(NameMatch::Yes) => true,
            Some(NameMatch::No) => false,
            Some(NameMatch::Unsure) | None => {
                let bytes = dead_letter::readable(bus, &status.group, name)
                    .await?
                    .and_then(|dead_letter| dead_letter.event_bytes());
                let event = bytes.and_then(|bytes| Event::parse(&bytes, usize::MAX).ok());
                event.is_some_and(|event| filter.matches(event.type_()))
            }
        };
        if wanted {
            picked.push(name.clone());
        }
    }
    Ok(picked)
}

fn none(status: &GroupStatus, id: &str) -> Failure {
    let group = &status.group;
    let what = format!("group '{group}' has no dead letter '{id}'");
    Failure::failed(what).help(match status.dead_letters.len() {
        0 => HelpLine::from([text("it has none at all: "), command("status", group)]),
        n => [
            command("dead", format_args!("ls {group}")),
            text(format!(" lists the {}", style::plural(n as u64, "letter"))),
        ]
        .into(),
    })
}

fn ambiguous(id: &str, dead_letters: &[String]) -> Failure {
    let ids: Vec<String> =
        dead_letters.iter().take(NAMED).map(|dead_letter| dead_letter::shown_id(dead_letter, None)).collect();
    let more = if dead_letters.len() > NAMED { ", …" } else { "" };
    Failure::failed(format!("'{id}' is the beginning of several: {}{more}", ids.join(", "))).help("give more of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventName, EventTime, HashSlot, Identity};

    fn name(micros: i64, id: &str) -> EventName {
        EventName::new(EventTime::from_micros(micros), HashSlot::of(""), &Identity::named("s", id), "order.a-b")
    }

    #[test]
    fn dead_letters_are_found_by_any_prefix() {
        let (one, two) = (name(1, "x"), name(2_000_000, "y"));
        let dead_letters =
            [dead_letter::fresh_name(&one, 1), dead_letter::fresh_name(&one, 2), dead_letter::fresh_name(&two, 3)];
        assert_eq!(by_name(&dead_letters, &id_of(&two)), &dead_letters[2..]);
        assert_eq!(by_name(&dead_letters, &dead_letters[1]), &dead_letters[1..2]);
        assert_eq!(by_name(&dead_letters, "1970").len(), 3);
        assert!(one_event(&dead_letters[..2]) && !one_event(&dead_letters));
        assert!(by_name(&dead_letters, "2").is_empty());
    }
}
