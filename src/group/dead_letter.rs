//! Dead letters: what a group gave up on, kept whole until an operator decides.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::GroupName;
use super::marker::PendingEvent;
use crate::bus::{BusHandle, keys};
use crate::event::{EventName, EventTime};
use crate::store::{ErrorKind, List, StoreError, StoreResult, put_once};

mod document;

pub use document::{document, shown_id};

/// The event inside a letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enclosed {
    /// As it stood on the bus.
    Event(Box<RawValue>),
    /// Not JSON: its bytes, with invalid UTF-8 replaced.
    Text(String),
    /// Larger than an event of this bus may be, or no file; the content is not kept. Why.
    Unfit(String),
    /// The event was gone.
    Nothing,
}

/// What `dead/<name>.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The event's name on the bus.
    pub name: EventName,
    /// When it was given up, by the worker's clock.
    pub died: EventTime,
    /// Counted attempts.
    pub attempts: u32,
    /// How the last one ended, in a few words.
    pub why: String,
    /// Its exit code, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The end of its stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// The event itself.
    pub content: Enclosed,
}

impl DeadLetter {
    /// The event's bytes, to run it again when the bus no longer has it.
    pub fn event_bytes(&self) -> Option<Vec<u8>> {
        match &self.content {
            Enclosed::Event(raw) => Some(raw.get().as_bytes().to_vec()),
            Enclosed::Text(text) => Some(text.clone().into_bytes()),
            Enclosed::Unfit(_) | Enclosed::Nothing => None,
        }
    }
}

/// The name of a fresh letter for an event. Never the name of an older one: that one may just be redriven.
pub fn fresh_name(event: &EventName, random: u64) -> String {
    format!("{}-{random:016x}", stem(event))
}

/// What the names of all letters of an event begin with.
fn stem(event: &EventName) -> &str {
    event.as_str().strip_suffix(".json").unwrap_or(event.as_str())
}

/// The length of what [`fresh_name`] adds to an event's name: '-' and 16 digits.
const NONCE: usize = 17;

/// The event in a letter's name.
pub fn event_of(dead_letter: &str) -> Option<EventName> {
    let stem = dead_letter.get(..dead_letter.len().checked_sub(NONCE)?)?;
    EventName::parse(&format!("{stem}.json"))
}

/// Reads a letter; none if it is gone or cannot be read.
pub async fn readable(bus: &BusHandle, group: &GroupName, name: &str) -> StoreResult<Option<DeadLetter>> {
    match read(bus, group, name).await {
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
        answer => answer,
    }
}

/// Reads a letter.
pub async fn read(bus: &BusHandle, group: &GroupName, name: &str) -> StoreResult<Option<DeadLetter>> {
    let key = keys::dead_letter(group, name);
    let Some(object) = bus.store.get(&key).await? else { return Ok(None) };
    let dead_letter = serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(&key, error))?;
    Ok(Some(dead_letter))
}

/// The names of a group's letters, oldest event first.
pub async fn names(bus: &BusHandle, group: &GroupName) -> StoreResult<Vec<String>> {
    listed(bus, group, List::all(&keys::dead_letters(group))).await
}

/// The names of the letters of one event.
pub async fn names_of(bus: &BusHandle, group: &GroupName, event: &EventName) -> StoreResult<Vec<String>> {
    let folder = keys::dead_letters(group);
    let begin = format!("{folder}{}", stem(event));
    listed(bus, group, List::all(&folder).after(begin.clone()).keep(move |key| key.starts_with(&begin))).await
}

async fn listed(bus: &BusHandle, group: &GroupName, list: List) -> StoreResult<Vec<String>> {
    let page = bus.store.list_after(list).await?;
    Ok(page.keys.iter().filter_map(|key| keys::dead_letter_of(group, key)).map(str::to_owned).collect())
}

/// Writes the letter that `pending.new_dead_letter` announces. It may be there already: an earlier
/// owner wrote it. `content` is what a read of the event has shown.
pub async fn write(
    bus: &BusHandle,
    group: &GroupName,
    name: &EventName,
    pending: &PendingEvent,
    content: StoreResult<Option<Bytes>>,
) -> StoreResult<()> {
    let Some(dead_letter_name) = &pending.new_dead_letter else { return Ok(()) };
    let content = match content {
        Err(error) if error.kind() == ErrorKind::Damaged => Enclosed::Unfit(error.to_string()),
        Err(error) => return Err(error),
        Ok(None) => Enclosed::Nothing,
        Ok(Some(bytes)) => match serde_json::from_slice::<Box<RawValue>>(&bytes) {
            Ok(raw) => Enclosed::Event(raw),
            Err(_) => Enclosed::Text(String::from_utf8_lossy(&bytes).into_owned()),
        },
    };
    let dead_letter = DeadLetter {
        name: name.clone(),
        died: bus.clock.now(),
        attempts: pending.attempts,
        why: pending.why.clone().unwrap_or_default(),
        exit: pending.exit,
        stderr: pending.stderr.clone().unwrap_or_default(),
        content,
    };
    let bytes = crate::bus::to_json_line(&dead_letter);
    let key = keys::dead_letter(group, dead_letter_name);
    put_once(&*bus.store, &key, &bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};

    #[test]
    fn a_dead_letter_name_yields_its_event() {
        let (time, identity) = (EventTime::from_micros(1), Identity::named("s", "x"));
        let event = EventName::new(time, HashSlot::of(""), &identity, "order.a-b");
        assert_eq!(event_of(&fresh_name(&event, 77)), Some(event));
        assert_eq!(event_of("short"), None);
        assert_eq!(event_of("é-0123456789abcdef"), None);
    }
}
