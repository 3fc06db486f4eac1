//! Emit: put, then check, then acknowledge.
//!
//! A worker moves W **before** it lists. If an emitter still reads W below its event's time after
//! its put, the put ended before the frontier passed that time, and so before the listing began:
//! the listing has the event. This needs no lock, no shared counter and no trust in any clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{BusHandle, decision, frontier, keys};
use crate::event::{EventName, EventTime};
use crate::store::{ErrorDetail, ErrorKind, StoreError, StoreResult};

mod batch_order;
mod chunks;
mod draft;
mod named;
mod notes;
mod put;
mod segments;

#[cfg(test)]
mod tests;

use batch_order::BatchOrder;
use chunks::Chunks;
pub(crate) use chunks::LEAST_IN_CHUNKS;
pub(crate) use draft::EventCopy;
use draft::Unacknowledged;
pub use draft::{Ack, AckKind, Draft, SegmentDraft};
use named::Timing;
pub(crate) use named::acknowledged_copy;
pub use named::remembered;
pub(crate) use notes::noted_objects;
use put::SurePuts;

/// The largest tolerated skew of a clock ahead of the store's; a larger one would move W, and
/// with it the times of all new events, ahead.
const CLOCK_AHEAD: Duration = Duration::from_hours(24);

/// After this many second puts in a row, each further ahead than the one before, W is running away.
const REPUTS: u32 = 40;

impl BusHandle {
    /// [`EmitTimes::take`], now.
    fn next_time(&self, earliest: EventTime, len: u16) -> EventTime {
        self.times.take(self.clock.now(), earliest, len)
    }
}

fn refuse_endless_puts(reputs: u32, w: EventTime) -> StoreResult<()> {
    if reputs < REPUTS {
        return Ok(());
    }
    let what = format!("cannot get ahead of the frontier after {REPUTS} puts; it stands at {w}");
    Err(StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::FrontierAhead))
}

/// The times that a process has given to events on a bus. They strictly grow, whichever of its emitters
/// asks, so that the order of its calls stays.
#[derive(Debug)]
pub struct EmitTimes {
    last: Cell<EventTime>,
    /// The greatest W that was read.
    seen: Cell<EventTime>,
}

impl Default for EmitTimes {
    fn default() -> Self {
        Self { last: Cell::new(EventTime::MIN), seen: Cell::new(EventTime::MIN) }
    }
}

impl EmitTimes {
    /// Takes the next `len` free times, a microsecond apart and none below `earliest`; returns the last.
    fn take(&self, now: EventTime, earliest: EventTime, len: u16) -> EventTime {
        let behind = i64::from(len) - 1;
        let first = self.seen.get().next().max(self.last.get().next()).max(earliest);
        let last = now.max(EventTime::from_micros(first.as_micros().saturating_add(behind)));
        self.last.set(last);
        last
    }

    fn saw(&self, w: EventTime) {
        self.seen.set(self.seen.get().max(w));
    }
}

/// Emits events.
pub struct Emitter {
    puts: SurePuts,
    chunks: Chunks,
}

/// A batch that was put; `late`: only a part of it was, because W had passed its beginning
/// meanwhile.
struct PutBatch {
    pending: Vec<Unacknowledged>,
    late: bool,
    /// The store's [`rewinds`](crate::store::Store::rewinds) before the puts.
    rewinds: u64,
}

impl Emitter {
    /// An emitter that gives up on a store that does not answer after `timeout`.
    pub fn new(bus: BusHandle, timeout: Duration) -> Self {
        Self { puts: SurePuts { bus, timeout }, chunks: Chunks::default() }
    }

    /// How many events are best emitted together.
    pub fn batch(&self) -> usize {
        self.puts.bus.store.profile().batch
    }

    /// Puts a batch and acknowledges it as a whole: after `Ok` every event is safe whose ack does not say
    /// [`AckKind::IdTaken`]. After an error some of them may be there, unacknowledged.
    pub async fn emit(&mut self, drafts: &[Draft]) -> StoreResult<Vec<Ack>> {
        let store = Rc::clone(&self.puts.bus.store);
        loop {
            let rewinds = store.rewinds();
            let acks = self.emit_once(drafts).await?;
            // A record that was written behind a loss may tell of an event that was lost: then it is stale.
            if rewinds == store.rewinds() {
                return Ok(acks);
            }
        }
    }

    async fn emit_once(&mut self, drafts: &[Draft]) -> StoreResult<Vec<Ack>> {
        let (mut acks, fresh) = self.puts.repeats(drafts, Timing::Now).await?;
        let mut batch = self.put_batch(drafts, &fresh, EventTime::MIN).await?;
        // First copies of named ids: a twin of this emitter may have been acknowledged on them.
        let mut first_copies = Vec::new();
        let mut reputs = 0;
        while !batch.pending.is_empty() {
            self.refuse_clock_ahead(drafts, &batch.pending).await?;
            let w = self.puts.retry(async || frontier::read(&*self.puts.bus.store).await).await?.time;
            self.puts.bus.times.saw(w);
            // A store that has lost its latest writes may have lost these.
            let is_there = batch.rewinds == self.puts.bus.store.rewinds();
            if is_there && !batch.late && batch.pending.iter().all(|put| put.name.time() > w) {
                break;
            }
            refuse_endless_puts(reputs, w)?;
            // The whole batch is put again, so that its order stays.
            let earliest = self.earliest_again(w, reputs);
            reputs += 1;
            let indices: Vec<usize> = batch.pending.iter().map(|put| put.index).collect();
            let again = self.put_batch(drafts, &indices, earliest).await?;
            let (named, own): (Vec<Unacknowledged>, Vec<Unacknowledged>) =
                batch.pending.into_iter().partition(|put| drafts[put.index].dedup.is_some());
            // The last is deleted first: if a worker of an ordered group still finds a first copy,
            // it has found all before it, too.
            let own: Vec<String> = own.iter().rev().map(|put| put.name.key()).collect();
            // A first copy that stays is run twice at worst.
            let _ = self.puts.bus.store.delete_many(&own).await;
            first_copies.extend(named);
            batch = again;
        }
        self.puts.acknowledge(drafts, batch.pending, &mut acks, Timing::Now).await?;
        self.clear_away(first_copies, &acks).await;
        Ok(acks.into_iter().flatten().collect())
    }

    /// Where events are put again that W has overtaken, for the n-th time, from 0.
    fn earliest_again(&self, w: EventTime, reputs: u32) -> EventTime {
        let lag = self.puts.bus.store.profile().lag;
        w.next().max(w.plus(lag.saturating_mul(1u32.checked_shl(reputs).unwrap_or(u32::MAX))))
    }

    /// Removes first copies of named ids, once the record of each id says which copy was
    /// acknowledged: every later emit of the id is acknowledged on that copy, and on no other.
    async fn clear_away(&self, copies: Vec<Unacknowledged>, acks: &[Option<Ack>]) {
        let acknowledged = |put: &Unacknowledged| acks[put.index].as_ref().is_some_and(|ack| ack.name == put.name);
        let old: Vec<String> = copies.iter().rev().filter(|put| !acknowledged(put)).map(|put| put.name.key()).collect();
        // A first copy that stays is run twice at worst.
        let _ = self.puts.bus.store.delete_many(&old).await;
    }

    /// Lets events wait until `due`: after `Ok` each of them will come, unless it is cancelled, or its ack says
    /// [`AckKind::IdTaken`].
    pub async fn schedule(&mut self, drafts: &[Draft], due: EventTime) -> StoreResult<Vec<Ack>> {
        let (mut acks, fresh) = self.puts.repeats(drafts, Timing::Later).await?;
        let mut due = due;
        let mut entries = Vec::with_capacity(fresh.len());
        for index in fresh {
            let draft = &drafts[index];
            let mut name = draft.name(due);
            let found = loop {
                let found = match self.was_cancelled(draft, &name).await? {
                    true => None,
                    false => Some(self.puts.put_and_read_back(&keys::scheduled(&name), &draft.bytes).await?),
                };
                // An earlier entry of this name may have been cancelled while this one was put.
                match found {
                    Some(found) if !self.was_cancelled(draft, &name).await? => break found,
                    _ => name = name.with_time(name.time().next()),
                }
            };
            match found {
                Some(found) if !named::is_same_event(draft, &found) => {
                    acks[index] = Some(Ack { name, kind: AckKind::IdTaken })
                }
                _ => entries.push(Unacknowledged { index, name }),
            }
            // In the order in which they were given.
            due = due.next();
        }
        self.puts.acknowledge(drafts, entries, &mut acks, Timing::Later).await?;
        Ok(acks.into_iter().flatten().collect())
    }

    /// Whether an entry of this name was cancelled, so that it will not come. Only an entry with a
    /// named id has a name that another one may have had before.
    async fn was_cancelled(&self, draft: &Draft, name: &EventName) -> StoreResult<bool> {
        match draft.dedup {
            Some(_) => self.puts.retry(async || decision::was_cancelled(&*self.puts.bus.store, name).await).await,
            None => Ok(false),
        }
    }

    /// Puts drafts under new, growing times, none below `earliest`.
    async fn put_batch(&mut self, drafts: &[Draft], indices: &[usize], earliest: EventTime) -> StoreResult<PutBatch> {
        let rewinds = self.puts.bus.store.rewinds();
        let mut pending = Vec::with_capacity(indices.len());
        let mut items = Vec::with_capacity(indices.len());
        for &index in indices {
            let name = drafts[index].name(self.puts.bus.next_time(earliest, 1));
            items.push((name.key(), Bytes::copy_from_slice(&drafts[index].bytes)));
            pending.push(Unacknowledged { index, name });
        }
        let Some(first) = pending.first() else { return Ok(PutBatch { pending, late: false, rewinds }) };
        let slots = pending.iter().map(|put| put.name.hash_slot());
        let events = indices.iter().map(|index| drafts[*index].event.ordering_key()).zip(slots);
        let store = Rc::clone(&self.puts.bus.store);
        let order = BatchOrder::new(&*store, first.name.time(), events);
        for at in self.puts.put_in_order(&items, &order).await? {
            // Another event has this very name: 70 random bits have collided. Any other time will
            // do.
            pending[at].name = self.put_elsewhere(&drafts[pending[at].index], earliest).await?;
        }
        Ok(PutBatch { pending, late: order.late(), rewinds })
    }

    async fn put_elsewhere(&mut self, draft: &Draft, earliest: EventTime) -> StoreResult<EventName> {
        loop {
            let name = draft.name(self.puts.bus.next_time(earliest, 1));
            if self.puts.put_and_read_back(&name.key(), &draft.bytes).await?.is_none() {
                return Ok(name);
            }
        }
    }

    /// A clock a day ahead of the store's would make all other emitters' events late: takes the
    /// puts back.
    async fn refuse_clock_ahead(&self, drafts: &[Draft], pending: &[Unacknowledged]) -> StoreResult<()> {
        if pending.is_empty() {
            return Ok(());
        }
        // A copy of a named id stays: a twin may have been acknowledged on it.
        let own = pending.iter().filter(|put| drafts[put.index].dedup.is_none());
        self.take_back_if_ahead(|| own.map(|put| put.name.key()).collect()).await
    }

    /// Takes back what lies at the keys, and fails, if the clock is a day ahead of the store's.
    async fn take_back_if_ahead(&self, keys: impl FnOnce() -> Vec<String>) -> StoreResult<()> {
        let Some(written) = self.puts.bus.store.last_write_micros().map(EventTime::from_micros) else { return Ok(()) };
        let now = self.puts.bus.clock.now();
        if now.since(written) <= CLOCK_AHEAD {
            return Ok(());
        }
        self.puts.bus.store.delete_many(&keys()).await?;
        let what = format!("this machine's clock says {now}, the store's {written}: more than a day ahead");
        Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::Clock))
    }
}
