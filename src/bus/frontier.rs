//! The frontier: a time W that only rises; no event at or before it may be acknowledged any more.
//!
//! W is safe at any value; a wrong one only costs second puts. An emitter that reads W after its
//! put, and finds its event's time above W, knows that every listing begun under a higher W has its
//! event.

use serde::{Deserialize, Serialize};

use super::keys::FRONTIER;
use super::settings::to_json_line;
use crate::event::EventTime;
use crate::store::{ErrorKind, Store, StoreError, StoreResult, Swap, Version};

/// The register's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    w: EventTime,
}

/// W as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    /// W; [`EventTime::MIN`] on a bus where no worker has raised it.
    pub time: EventTime,
    version: Option<Version>,
}

/// Reads W.
pub async fn read(store: &dyn Store) -> StoreResult<Frontier> {
    let Some(object) = store.get(FRONTIER).await? else {
        return Ok(Frontier { time: EventTime::MIN, version: None });
    };
    // A damaged frontier that was read as too low would lose events; so all work stops until it is
    // repaired.
    let content: Content =
        serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(FRONTIER, error))?;
    Ok(Frontier { time: content.w, version: Some(object.version) })
}

/// Reads W and makes it durable, so that a listing may rely on it.
pub async fn read_durable(store: &dyn Store) -> StoreResult<EventTime> {
    let frontier = read(store).await?;
    if frontier.version.is_some() {
        store.persist(FRONTIER).await?;
    }
    Ok(frontier.time)
}

/// Raises W to at least `to`, durably. Returns the W that is then there.
pub async fn raise(store: &dyn Store, to: EventTime) -> StoreResult<EventTime> {
    loop {
        let frontier = read(store).await?;
        if frontier.time >= to {
            store.persist(FRONTIER).await?;
            return Ok(frontier.time);
        }
        let bytes = to_json_line(&Content { w: to });
        match store.cas(FRONTIER, frontier.version.as_ref(), &bytes).await {
            Ok(Swap::Swapped(_)) => return Ok(to),
            // Another worker moved W, or this swap did and its answer was lost. W only rises, so
            // read again.
            Ok(Swap::Conflict) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
    }
}
