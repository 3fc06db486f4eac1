//! The horizon: up to where events were pruned. A reader that comes back to a place before it is told that
//! it may have missed something.

use serde::{Deserialize, Serialize};

use super::format::to_json_line;
use super::keys::HORIZON;
use crate::event::EventTime;
use crate::store::{ErrorKind, Store, StoreError, StoreResult, Swap, Version};

/// The register's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// The greatest time of an event that was deleted, or is about to be.
    pruned: EventTime,
}

/// The greatest time of a pruned event; none where none was.
pub async fn read(store: &dyn Store) -> StoreResult<Option<EventTime>> {
    Ok(get(store).await?.map(|(pruned, _)| pruned))
}

async fn get(store: &dyn Store) -> StoreResult<Option<(EventTime, Version)>> {
    let Some(object) = store.get(HORIZON).await? else { return Ok(None) };
    let content: Content =
        serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(HORIZON, error))?;
    Ok(Some((content.pruned, object.version)))
}

/// Raises the horizon to at least `to`, before events up to it are deleted.
pub async fn raise(store: &dyn Store, to: EventTime) -> StoreResult<()> {
    loop {
        let found = get(store).await?;
        if found.as_ref().is_some_and(|(pruned, _)| *pruned >= to) {
            // Another process may have written it, and died before it was flushed.
            return store.persist(HORIZON).await;
        }
        let version = found.as_ref().map(|(_, version)| version);
        match store.cas(HORIZON, version, &to_json_line(&Content { pruned: to })).await {
            Ok(Swap::Swapped(_)) => return Ok(()),
            // Another process has raised it, or the answer was lost.
            Ok(Swap::Conflict) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
    }
}
