//! The content of an event: as it lies on the bus or, once it is gone from there, as the dead letter
//! has it that the event was redriven from.

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
    match redriven {
        Some(letter) => {
            Ok(dead_letter::read(bus, group, letter).await?.and_then(|letter| letter.event_bytes()).map(Bytes::from))
        }
        None => Ok(None),
    }
}
