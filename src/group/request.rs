//! Requests to a running group: from operators, to redrive a dead letter or to reset a shard; from
//! workers that have nothing to do, to be given a shard of one that has much. Each is one object;
//! the shard's owner folds it into the marker and removes it after the commit.

use serde::{Deserialize, Serialize};

use super::{GroupName, Marker, Position};
use crate::bus::{BusHandle, keys};
use crate::event::EventName;
use crate::store::{List, StoreResult, put_once};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run an event again that became a dead letter.
    Redrive {
        /// The event.
        event: EventName,
        /// Its letter's name.
        letter: String,
    },
    /// Process everything after a position again, and nothing before it.
    Reset {
        /// Resolved when it was asked; never above W.
        to: Position,
    },
    /// Give some shards, this one among them, to a worker that owns fewer.
    Share {
        /// The worker that is asked. Another owner ignores the request: it may have been given the
        /// shard just now, while the asking worker still saw the old owner.
        of: String,
        /// The worker that asks.
        by: String,
        /// How many shards that worker owns already.
        owns: usize,
    },
}

/// A request as it lies on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// Its key.
    pub key: String,
    /// The shard it is for.
    pub shard: u16,
    /// Its id, which the marker keeps once it is folded in.
    pub id: String,
    /// What is asked; `None` if it cannot be read.
    pub request: Option<Request>,
}

/// Writes a request. The id begins with the time, so that of two resets the later one counts, and
/// ends at random. After a lost answer the request may be written twice, which is harmless: a
/// letter is redriven once.
pub async fn ask(bus: &BusHandle, group: &GroupName, shard: u16, request: &Request) -> StoreResult<()> {
    let id = format!("{:016x}{:08x}", bus.clock.now().as_micros(), bus.clock.random() >> 32);
    let bytes = crate::bus::to_json_line(request);
    let key = keys::request(group, shard, &id);
    put_once(&*bus.store, &key, &bytes).await
}

/// Makes the earlier requests durable: an operator who repeats one is told that it is on its way.
pub async fn persist(bus: &BusHandle, group: &GroupName) -> StoreResult<()> {
    let page = bus.store.list_after(List::all(&keys::requests(group))).await?;
    bus.store.persist_many(&page.keys).await
}

/// The requests that lie on the bus, oldest id first within a shard.
pub async fn pending(bus: &BusHandle, group: &GroupName) -> StoreResult<Vec<PendingRequest>> {
    let page = bus.store.list_after(List::all(&keys::requests(group))).await?;
    let mut pending = Vec::new();
    for key in page.keys {
        let Some((shard, id)) = keys::request_of(group, &key) else { continue };
        let Some(object) = bus.store.get(&key).await? else { continue };
        let request = serde_json::from_slice(&object.bytes).ok();
        pending.push(PendingRequest { shard, id: id.to_owned(), request, key: key.clone() });
    }
    Ok(pending)
}

/// What folding a request in did.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// The marker has changed; the request may go after the next commit.
    Changed,
    /// It was folded in before; the request may go.
    Before,
    /// Not now: the event's letter is still being written, or `pending` is full.
    NotYet,
}

/// Folds one request into the marker.
pub fn fold(marker: &mut Marker, id: &str, request: &Request, open_limit: usize) -> Folded {
    if marker.folded.contains(id) {
        return Folded::Before;
    }
    match request {
        Request::Redrive { event, letter } => {
            let burying = marker.pending.get(event).is_some_and(|pending| pending.new_dead_letter.is_some());
            if burying || (marker.pending.len() >= open_limit && !marker.pending.contains_key(event)) {
                return Folded::NotYet;
            }
            marker.redrive(event.clone(), letter.clone());
        }
        Request::Reset { to } => marker.reset(to.clone()),
        // A share changes nothing in the marker: the owner has handled it.
        Request::Share { .. } => {}
    }
    marker.folded.insert(id.to_owned());
    Folded::Changed
}
