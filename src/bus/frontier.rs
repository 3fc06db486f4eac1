//! The frontier: a time W that only rises; no event at or before it may be acknowledged any more.
//!
//! W is safe at any value; a wrong one only costs second puts. An emitter that reads W after its
//! put, and finds its event's time above W, knows that every listing begun under a higher W has its
//! event.
//!
//! The register also names the format of a bus that was upgraded: an evbus that does not know the
//! format's rules refuses the member, and so cannot acknowledge or pass anything.

use serde::{Deserialize, Serialize};

use super::format::{refuse_newer, to_json_line};
use super::keys::FRONTIER;
use crate::event::EventTime;
use crate::store::{ErrorKind, Store, StoreError, StoreResult, Swap, Version};

/// The register's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    w: EventTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
}

/// W as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    /// W; [`EventTime::MIN`] on a bus where no worker has raised it.
    pub time: EventTime,
    /// The format that the bus was upgraded to; none where `bus.json` alone tells it.
    pub format: Option<u32>,
    version: Option<Version>,
}

/// Reads W.
pub async fn read(store: &dyn Store) -> StoreResult<Frontier> {
    let Some(object) = store.get(FRONTIER).await? else {
        return Ok(Frontier { time: EventTime::MIN, format: None, version: None });
    };
    // A damaged frontier that was read as too low would lose events; so all work stops until it is
    // repaired.
    let content: Content =
        serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(FRONTIER, error))?;
    if let Some(format) = content.format {
        refuse_newer(format, "the bus")?;
    }
    Ok(Frontier { time: content.w, format: content.format, version: Some(object.version) })
}

/// Reads W and makes it durable, so that a listing may rely on it.
pub async fn read_durable(store: &dyn Store) -> StoreResult<EventTime> {
    read_durable_again(store, &mut None).await
}

/// The same for one who reads it again and again. `durable` is the version that was made durable last.
pub async fn read_durable_again(store: &dyn Store, durable: &mut Option<Version>) -> StoreResult<EventTime> {
    let frontier = read(store).await?;
    if frontier.version.is_some() && frontier.version != *durable {
        store.persist(FRONTIER).await?;
        *durable = frontier.version;
    }
    Ok(frontier.time)
}

/// Raises W to at least `to`, durably. Returns the W that is then there.
pub async fn raise(store: &dyn Store, to: EventTime) -> StoreResult<EventTime> {
    let next = |frontier: &Frontier| (frontier.time < to).then_some(Content { w: to, format: frontier.format });
    Ok(change(store, next).await?.w)
}

/// Records that the bus has at least `format`, durably.
pub async fn upgrade(store: &dyn Store, format: u32) -> StoreResult<()> {
    let next = |frontier: &Frontier| {
        (frontier.format < Some(format)).then_some(Content { w: frontier.time, format: Some(format) })
    };
    change(store, next).await.map(drop)
}

/// Replaces the content by what `next` makes of it, until that is nothing. Returns what is then there.
async fn change(store: &dyn Store, next: impl Fn(&Frontier) -> Option<Content>) -> StoreResult<Content> {
    loop {
        let frontier = read(store).await?;
        let Some(content) = next(&frontier) else {
            store.persist(FRONTIER).await?;
            return Ok(Content { w: frontier.time, format: frontier.format });
        };
        match store.cas(FRONTIER, frontier.version.as_ref(), &to_json_line(&content)).await {
            Ok(Swap::Swapped(_)) => return Ok(content),
            // Another process changed it, or this swap did and its answer was lost: read again.
            Ok(Swap::Conflict) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
    }
}
