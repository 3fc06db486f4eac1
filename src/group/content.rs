//! The content of an event: as it lies on the bus or, once it is gone from there, as the dead letter
//! has it that the event was redriven from, or another one of it.

use bytes::Bytes;

use super::{GroupName, dead_letter};
use crate::bus::BusHandle;
use crate::event::EventName;
use crate::store::StoreResult;

/// How much white space around a document is read, in bytes; it does not count as the document's
/// size.
const WHITE_SPACE: usize = 4_096;

/// Reads the content, if it is not larger than `limit`, in bytes; `redriven` is the name of the dead
/// letter.
pub(super) async fn read(
    bus: &BusHandle,
    group: &GroupName,
    name: &EventName,
    redriven: Option<&str>,
    limit: usize,
) -> StoreResult<Option<Bytes>> {
    if let Some(document) = crate::bus::read::document(bus, name, limit.saturating_add(WHITE_SPACE)).await? {
        return Ok(Some(document));
    }
    let Some(redriven) = redriven else { return Ok(None) };
    if let Some(bytes) = enclosed(bus, group, redriven).await? {
        return Ok(Some(bytes));
    }
    // Of an event that was redriven twice the first run clears that letter away, and leaves another.
    for letter in dead_letter::names_of(bus, group, name).await? {
        if let Some(bytes) = enclosed(bus, group, &letter).await? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// The event that a letter holds.
async fn enclosed(bus: &BusHandle, group: &GroupName, letter: &str) -> StoreResult<Option<Bytes>> {
    Ok(dead_letter::read(bus, group, letter).await?.and_then(|letter| letter.event_bytes()).map(Bytes::from))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::event::{EventTime, HashSlot, Identity};
    use crate::group::marker::PendingEvent;
    use crate::store::memory::{Calm, MemoryStore};
    use crate::store::object::PROFILE;

    #[tokio::test]
    async fn an_event_that_was_redriven_twice_is_found_in_its_other_letter() {
        let store = MemoryStore::new(Rc::default(), Rc::new(Calm), PROFILE);
        let bus = BusHandle::new(Rc::new(store), Rc::new(SystemClock));
        let group = GroupName::parse("g").unwrap();
        let name = |n: u64| EventName::new(EventTime::MIN, HashSlot::of("k"), &Identity::random(n, n), "t");
        let write = async |event: &EventName, content: Option<&'static str>| {
            let letter = dead_letter::fresh_name(event, 7);
            let pending = PendingEvent { new_dead_letter: Some(letter), ..PendingEvent::default() };
            dead_letter::write(&bus, &group, event, &pending, Ok(content.map(Bytes::from))).await.unwrap();
        };
        write(&name(1), Some("the event")).await;
        write(&name(2), Some("another one")).await;
        write(&name(3), None).await;
        let gone = dead_letter::fresh_name(&name(1), 1);
        let found = async |name: &EventName| read(&bus, &group, name, Some(&gone), 100).await.unwrap();
        assert_eq!(found(&name(1)).await.as_deref(), Some(&b"the event"[..]));
        assert_eq!(found(&name(3)).await, None);
        assert_eq!(read(&bus, &group, &name(1), None, 100).await.unwrap(), None, "not redriven");
    }
}
