//! A letter as JSON, and the id under which it is shown.

use serde_json::{Value, json};

use super::{DeadLetter, Enclosed, event_of};
use crate::event::{Event, EventName, id_of};
use crate::group::GroupName;

/// The id under which a letter is shown: the event's own, else the generated one, else the letter's
/// name.
pub fn shown_id(name: &str, dead_letter: Option<&DeadLetter>) -> String {
    let own = dead_letter.and_then(DeadLetter::event_bytes).and_then(|bytes| Event::parse(&bytes, usize::MAX).ok());
    match (own, event_of(name)) {
        (Some(event), _) => event.id().to_owned(),
        (None, Some(event)) => id_of(&event),
        (None, None) => name.to_owned(),
    }
}

/// A letter as JSON, with the same field names as other commands; `whole` adds stderr and the
/// event.
pub fn document(group: &GroupName, name: &str, dead_letter: Option<&DeadLetter>, whole: bool) -> Value {
    let event = event_of(name);
    let mut document = json!({
        "group": group,
        "id": shown_id(name, dead_letter),
        "type": event.as_ref().map(EventName::slug),
        "letter": name,
        "name": event,
        "died": dead_letter.map(|dead_letter| dead_letter.died.to_rfc3339()),
        "attempts": dead_letter.map(|dead_letter| dead_letter.attempts),
        "why": dead_letter.map_or("the letter cannot be read", |dead_letter| &dead_letter.why),
        "exit": dead_letter.and_then(|dead_letter| dead_letter.exit),
    });
    if whole {
        document["stderr"] = json!(dead_letter.map(|dead_letter| &dead_letter.stderr));
        document["event"] = match dead_letter.map(|dead_letter| &dead_letter.content) {
            Some(Enclosed::Event(raw)) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
            Some(Enclosed::Text(text)) => Value::from(text.as_str()),
            Some(Enclosed::Unfit(_) | Enclosed::Nothing) | None => Value::Null,
        };
    }
    document
}
