//! Events that wait for their time: `timed/<day>/<minute>/<event name>`, which sorts by when they
//! are due.
//!
//! An entry is an event's document, acknowledged once it is durable. Any worker releases entries
//! that are due: it emits the event under the current time, as one with a named id, so that two
//! releases make one event, and then removes the entry. The first to create an entry's *decision*
//! settles whether the entry is released or cancelled. A released entry is removed before its
//! decision, and a process acts on a decision only after it has looked for the entry once more: one
//! that comes late finds no entry, and does nothing. A cancelled entry keeps its decision until
//! `prune`, because a put of the entry may still be under way.
//!
//! The folder sorts behind everything else, so that the listing that polls a bucket ends with the
//! next entry, and waiting entries cost nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::BusHandle;
use super::decision::{Decision, decide, was_cancelled};
use super::emit::{AckKind, Draft, Emitter};
use super::keys::{self, SCHEDULED};
use crate::event::{Event, EventName, EventTime, Identity};
use crate::store::{ErrorKind, List, Store, StoreError, StoreResult, refuse_after_rewind};

/// How many entries are released together.
const BATCH: usize = 100;

/// How long a release asks a store that does not answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a release did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// How many events came to the bus.
    pub events: usize,
    /// When the next entry is due, if one waits.
    pub next: Option<EventTime>,
    /// Entries that another process is releasing.
    pub others: BTreeSet<EventName>,
    /// The key of something that is no entry.
    pub foreign: Option<String>,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not come.
    Yes,
    /// It has come, or is just coming.
    TooLate,
}

/// The first `limit` entries that are wanted, the next first, and whether there are more.
pub async fn entries(
    store: &dyn Store,
    limit: usize,
    wanted: impl Fn(&EventName) -> bool + Send + Sync + 'static,
) -> StoreResult<(Vec<EventName>, bool)> {
    let list =
        List::all(SCHEDULED).limit(limit).keep(move |key| keys::scheduled_name(key).is_some_and(|name| wanted(&name)));
    let page = store.list_after(list).await?;
    Ok((page.keys.iter().filter_map(|key| keys::scheduled_name(key)).collect(), page.is_truncated))
}

/// Releases entries that are due. Skips those that another process has decided to release; an entry
/// that is still there on the next call, and so is among `others`, is taken over. With none, every
/// such entry is taken over at once: that is for a caller that comes only once. An entry larger
/// than `limit`, in bytes, is not read. A foreign name, or an entry that cannot be read, does not
/// stop the others.
pub async fn release(bus: &BusHandle, others: Option<&BTreeSet<EventName>>, limit: usize) -> StoreResult<Released> {
    let mut released = Released::default();
    let mut after = String::new();
    loop {
        let page = due(bus, &after, &mut released).await?;
        release_entries(bus, &page.names, others, limit, &mut released).await?;
        let (Some(last), true) = (page.names.last(), page.more) else { return Ok(released) };
        if released.events > 0 {
            // More entries may be due at once.
            released.next = Some(last.time());
            return Ok(released);
        }
        after = keys::scheduled(last);
    }
}

/// Some of the entries that are due.
struct Due {
    names: Vec<EventName>,
    /// Whether more may be due behind them.
    more: bool,
}

/// The next entries that are due behind `after`; notes in `released` when the first later one is
/// due, and a foreign name.
async fn due(bus: &BusHandle, after: &str, released: &mut Released) -> StoreResult<Due> {
    let now = bus.clock.now();
    let foreign: Arc<Mutex<Option<String>>> = Arc::default();
    let seen = Arc::clone(&foreign);
    let list = List::all(SCHEDULED).after(after).limit(BATCH).keep(move |key| {
        let entry = keys::scheduled_name(key).is_some();
        if !entry && !keys::is_decision(key) {
            seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| key.to_owned());
        }
        entry
    });
    let page = bus.store.list_after(list).await?;
    let mut names: Vec<EventName> = page.keys.iter().filter_map(|key| keys::scheduled_name(key)).collect();
    let waits = names.iter().position(|name| name.time() > now);
    released.next = waits.map(|at| names[at].time());
    names.truncate(waits.unwrap_or(names.len()));
    let foreign = foreign.lock().unwrap_or_else(PoisonError::into_inner).take();
    released.foreign = released.foreign.take().or(foreign);
    Ok(Due { names, more: page.is_truncated && waits.is_none() })
}

async fn release_entries(
    bus: &BusHandle,
    due: &[EventName],
    others: Option<&BTreeSet<EventName>>,
    limit: usize,
    released: &mut Released,
) -> StoreResult<()> {
    let (store, rewinds) = (&*bus.store, bus.store.rewinds());
    let (mut drafts, mut ended, mut decided, mut failed) = (Vec::new(), Vec::new(), Vec::new(), None);
    for name in due {
        let key = keys::scheduled(name);
        match decide(bus, name, Decision::Release).await? {
            (Decision::Release, false) if others.is_some_and(|others| !others.contains(name)) => {
                released.others.insert(name.clone());
                continue;
            }
            (Decision::Cancel, _) => {
                ended.push(key);
                continue;
            }
            (Decision::Release, _) => match entry(store, name, limit).await {
                Ok(draft) => drafts.extend(draft),
                // The entry stays, to be looked at or tried again; the others are released.
                Err(error) => {
                    released.foreign.get_or_insert(format!("{key} ({error})"));
                    failed = failed.or(Some(error).filter(|error| error.kind() == ErrorKind::Unavailable));
                    continue;
                }
            },
        }
        ended.push(key);
        decided.push(keys::decision(name));
    }
    let mut emitter = Emitter::new(bus.clone(), TIMEOUT);
    let acks = emitter.emit(&drafts).await?;
    // The entry's id was given to another event meanwhile; both were acknowledged, so both are
    // emitted.
    let taken = drafts.iter().zip(&acks).filter(|(_, ack)| ack.kind == AckKind::IdTaken);
    let taken: Vec<Draft> = taken.map(|(draft, _)| draft.clone().without_dedup()).collect();
    emitter.emit(&taken).await?;
    released.events += drafts.len();
    refuse_after_rewind(store, rewinds)?;
    store.delete_many(&ended).await?;
    store.delete_many(&decided).await?;
    // If no entry could be read, the store is away.
    failed.filter(|_| drafts.is_empty()).map_or(Ok(()), Err)
}

/// An entry as it is to be emitted; none if it is gone. An error says why it cannot be emitted.
async fn entry(store: &dyn Store, name: &EventName, limit: usize) -> StoreResult<Option<Draft>> {
    let Some(object) = store.get_within(&keys::scheduled(name), limit).await? else { return Ok(None) };
    let event = Event::parse(&object.bytes, limit)
        .map_err(|error| StoreError::new(ErrorKind::Damaged, format!("it {error}")))?;
    Ok(Draft::stored(event, object.bytes, name))
}

/// Cancels an entry.
pub async fn cancel(bus: &BusHandle, name: &EventName) -> StoreResult<Cancelled> {
    let (store, key) = (&*bus.store, keys::scheduled(name));
    if store.get(&key).await?.is_none() {
        let cancelled = was_cancelled(store, name).await? && !has_come(store, name).await?;
        return Ok(if cancelled { Cancelled::Yes } else { Cancelled::TooLate });
    }
    let (decision, is_ours) = decide(bus, name, Decision::Cancel).await?;
    if decision == Decision::Release {
        return Ok(Cancelled::TooLate);
    }
    if store.get(&key).await?.is_some() {
        store.delete(&key).await?;
        return Ok(Cancelled::Yes);
    }
    if is_ours {
        // Released meanwhile, down to its decision.
        store.delete(&keys::decision(name)).await?;
        return Ok(Cancelled::TooLate);
    }
    Ok(if has_come(store, name).await? { Cancelled::TooLate } else { Cancelled::Yes })
}

/// Whether an entry that is gone has been released: a late cancel by another process may have left
/// a decision, and not yet have taken it back. This costs a listing of the bus, but only where two
/// processes race.
async fn has_come(store: &dyn Store, name: &EventName) -> StoreResult<bool> {
    let Some(identity) = Identity::parse(name.identity()) else { return Ok(false) };
    Ok(!super::read::with_identity(store, &identity).await?.is_empty())
}

/// Removes the decisions of entries that were due before a time and are gone.
pub(crate) async fn forget(store: &dyn Store, before: EventTime) -> StoreResult<()> {
    let page = store.list_after(List::all(SCHEDULED)).await?;
    let entries: BTreeSet<&String> = page.keys.iter().filter(|key| !keys::is_decision(key)).collect();
    let old = |key: &&String| {
        let of = key.strip_suffix(keys::DECISION).map(str::to_owned);
        of.is_some_and(|of| {
            !entries.contains(&of) && keys::scheduled_name(&of).is_some_and(|name| name.time() < before)
        })
    };
    let old: Vec<String> = page.keys.iter().filter(old).cloned().collect();
    store.delete_many(&old).await
}

#[cfg(test)]
mod tests;
