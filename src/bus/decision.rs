//! What becomes of a scheduled entry: the first to create its decision settles it (FORMAT.md 9.2).

use serde::{Deserialize, Serialize};

use super::{BusHandle, keys, to_json_line};
use crate::event::EventName;
use crate::store::{Put, Store, StoreResult, get_durable};

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Decision {
    Release,
    Cancel,
}

/// What a decision holds.
#[derive(Serialize, Deserialize)]
struct Decided {
    decision: Decision,
    /// A random number of the process that decided, by which it knows its own decision after a lost
    /// answer.
    #[serde(default)]
    by: String,
}

/// Whether an entry of this name was cancelled: a new entry must then have another name.
pub(super) async fn was_cancelled(store: &dyn Store, name: &EventName) -> StoreResult<bool> {
    let decided = get_durable(store, &keys::decision(name)).await?;
    Ok(decided.is_some_and(|object| read(&object.bytes) == Decision::Cancel))
}

/// A decision that cannot be read counts as a release.
pub(super) fn read(decided: &[u8]) -> Decision {
    serde_json::from_slice::<Decided>(decided).map_or(Decision::Release, |decided| decided.decision)
}

/// Decides what becomes of an entry, unless that is decided. Returns the decision, and whether this
/// call made it.
pub(super) async fn decide(bus: &BusHandle, name: &EventName, decision: Decision) -> StoreResult<(Decision, bool)> {
    let (store, key) = (&*bus.store, keys::decision(name));
    let bytes = to_json_line(&Decided { decision, by: format!("{:016x}", bus.clock.random()) });
    loop {
        if store.put_new(&key, &bytes).await? == Put::Created {
            return Ok((decision, true));
        }
        // The decision may be gone again: then the entry is gone too, and the next round shows
        // that.
        let Some(object) = get_durable(store, &key).await? else { continue };
        return Ok((read(&object.bytes), object.bytes == bytes));
    }
}
