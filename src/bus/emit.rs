//! Emit: put, then check, then acknowledge.
//!
//! A worker moves W **before** it lists. If an emitter still reads W below its event's time after
//! its put, the put ended before the frontier passed that time, and so before the listing began:
//! the listing has the event. This needs no lock, no shared counter and no trust in any clock.

use std::rc::Rc;
use std::time::Duration;

use super::{BusHandle, decision, frontier, keys};
use crate::clock::{Backoff, Clock, Fut};
use crate::event::{Event, EventName, EventTime, Identity, dedup_hash, event_id};
use crate::store::{ErrorDetail, ErrorKind, Gate, Put, StoreError, StoreResult, get_durable};

mod named;
mod turn;

#[cfg(test)]
mod tests;

use named::Timing;
pub(crate) use named::acknowledged_name;
use turn::Turns;

/// The largest tolerated skew of a clock ahead of the store's; a larger one would drag the bus
/// along.
const CLOCK_AHEAD: Duration = Duration::from_hours(24);

/// After this many second puts in a row, each further ahead than the one before, W is running away.
const REPUTS: u32 = 40;

/// An event on its way to the bus.
#[derive(Debug, Clone)]
pub struct Draft {
    event: Event,
    bytes: Vec<u8>,
    identity: Identity,
    /// Set where the emitter named the id: a repeat is harmless.
    dedup: Option<String>,
}

impl Draft {
    /// An event whose id evbus has made from `identity`.
    pub fn fresh(event: Event, identity: Identity) -> Self {
        Self { bytes: event.to_json(), event, identity, dedup: None }
    }

    /// An event of now, or of when it is due, with the id that its emitter has named. Without one
    /// evbus makes an id of the same moment. `make` gets the id and the time.
    pub fn minted<E>(
        clock: &dyn Clock,
        due: Option<EventTime>,
        id: Option<&str>,
        make: impl FnOnce(&str, EventTime) -> Result<Event, E>,
    ) -> Result<Self, E> {
        let time = due.unwrap_or(EventTime::MIN).max(clock.now());
        if let Some(id) = id {
            return Ok(Self::named(make(id, time)?));
        }
        let identity = Identity::random(clock.random(), clock.random());
        Ok(Self::fresh(make(&event_id(time, &identity), time)?, identity))
    }

    /// An event whose emitter named its id: emitted twice, it is there once.
    pub fn named(event: Event) -> Self {
        let identity = Identity::named(event.source(), event.id());
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Self { bytes: event.to_json(), event, identity, dedup }
    }

    /// An event that has waited, with its stored bytes and identity: released twice, it is on the
    /// bus once. None if the name tells no identity.
    pub(super) fn stored(event: Event, bytes: Vec<u8>, name: &EventName) -> Option<Self> {
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Some(Self { identity: Identity::parse(name.identity())?, bytes, event, dedup })
    }

    /// The same event, put whether or not another event has its id.
    pub(super) fn regardless_of_its_id(self) -> Self {
        Self { dedup: None, ..self }
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The document, as it is put.
    pub fn document(&self) -> &[u8] {
        &self.bytes
    }

    /// Its size on the bus, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn name(&self, time: EventTime) -> EventName {
        EventName::new(time, self.event.hash_slot(&self.identity), &self.identity, self.event.type_())
    }
}

/// Whether an acknowledged event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// It was put now.
    New,
    /// It had been acknowledged before.
    Duplicate,
    /// Its id had been acknowledged before, for an event of another type, subject or data: this one is not on the bus.
    IdTaken,
}

/// The acknowledgement of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Where it lies.
    pub name: EventName,
    /// Whether this emit added it.
    pub kind: AckKind,
}

/// Emits from one process; its times strictly grow.
pub struct Emitter {
    bus: BusHandle,
    timeout: Duration,
    last: EventTime,
    seen: EventTime,
}

/// An event that is on the bus, or waits, but is not yet acknowledged.
struct Unacknowledged {
    index: usize,
    name: EventName,
}

/// A batch that was put; `late`: only a part of it was, because W had passed its beginning
/// meanwhile.
struct PutBatch {
    pending: Vec<Unacknowledged>,
    late: bool,
}

/// A gate of all items, for the items from an index on.
struct GateFrom<'a> {
    gate: &'a dyn Gate,
    at: usize,
}

impl Gate for GateFrom<'_> {
    fn opens(&self, at: usize) -> Fut<'_, StoreResult<bool>> {
        self.gate.opens(self.at + at)
    }
}

impl Emitter {
    /// An emitter that gives up on a store that does not answer after `timeout`.
    pub fn new(bus: BusHandle, timeout: Duration) -> Self {
        Self { bus, timeout, last: EventTime::MIN, seen: EventTime::MIN }
    }

    /// How many events are best emitted together.
    pub fn batch(&self) -> usize {
        self.bus.store.profile().batch
    }

    /// Puts a batch and acknowledges it as a whole: after `Ok` every event is safe whose ack does not say
    /// [`AckKind::IdTaken`]. After an error some of them may be there, unacknowledged.
    pub async fn emit(&mut self, drafts: &[Draft]) -> StoreResult<Vec<Ack>> {
        let (mut acks, fresh) = self.repeats(drafts, Timing::Now).await?;
        let mut batch = self.put_batch(drafts, &fresh, EventTime::MIN).await?;
        // First copies of named ids: a twin of this emitter may have been acknowledged on them.
        let mut first_copies = Vec::new();
        let mut reputs = 0;
        while !batch.pending.is_empty() {
            self.refuse_clock_ahead(drafts, &batch.pending).await?;
            let w = self.retry(async || frontier::read(&*self.bus.store).await).await?.time;
            self.seen = self.seen.max(w);
            if !batch.late && batch.pending.iter().all(|put| put.name.time() > w) {
                break;
            }
            if reputs == REPUTS {
                let what = format!("cannot get ahead of the frontier after {REPUTS} puts; it stands at {w}");
                return Err(StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::FrontierAhead));
            }
            // The whole batch is put again, so that its order stays.
            let lag = self.bus.store.profile().lag;
            let earliest = w.next().max(w.plus(lag.saturating_mul(1u32.checked_shl(reputs).unwrap_or(u32::MAX))));
            reputs += 1;
            let indices: Vec<usize> = batch.pending.iter().map(|put| put.index).collect();
            let again = self.put_batch(drafts, &indices, earliest).await?;
            let (named, own): (Vec<Unacknowledged>, Vec<Unacknowledged>) =
                batch.pending.into_iter().partition(|put| drafts[put.index].dedup.is_some());
            // The last is deleted first: if a worker of an ordered group still finds a first copy,
            // it has found all before it, too.
            let own: Vec<String> = own.iter().rev().map(|put| put.name.key()).collect();
            // A first copy that stays is run twice at worst.
            let _ = self.bus.store.delete_many(&own).await;
            first_copies.extend(named);
            batch = again;
        }
        self.acknowledge(drafts, batch.pending, &mut acks, Timing::Now).await?;
        self.clear_away(first_copies, &acks).await;
        Ok(acks.into_iter().flatten().collect())
    }

    /// Removes first copies of named ids, once the record of each id says which copy was
    /// acknowledged: every later emit of the id is acknowledged on that copy, and on no other.
    async fn clear_away(&self, copies: Vec<Unacknowledged>, acks: &[Option<Ack>]) {
        let acknowledged = |put: &Unacknowledged| acks[put.index].as_ref().is_some_and(|ack| ack.name == put.name);
        let old: Vec<String> = copies.iter().rev().filter(|put| !acknowledged(put)).map(|put| put.name.key()).collect();
        // A first copy that stays is run twice at worst.
        let _ = self.bus.store.delete_many(&old).await;
    }

    /// Lets events wait until `due`: after `Ok` each of them will come, unless it is cancelled, or its ack says
    /// [`AckKind::IdTaken`].
    pub async fn schedule(&mut self, drafts: &[Draft], due: EventTime) -> StoreResult<Vec<Ack>> {
        let (mut acks, fresh) = self.repeats(drafts, Timing::Later).await?;
        let mut due = due;
        let mut entries = Vec::with_capacity(fresh.len());
        for index in fresh {
            let draft = &drafts[index];
            let mut name = draft.name(due);
            let found = loop {
                let found = match self.was_cancelled(draft, &name).await? {
                    true => None,
                    false => Some(self.settle(&keys::scheduled(&name), &draft.bytes).await?),
                };
                // An earlier entry of this name may have been cancelled while this one was put.
                match found {
                    Some(found) if !self.was_cancelled(draft, &name).await? => break found,
                    _ => name = name.with_time(name.time().next()),
                }
            };
            match found {
                Some(found) if !named::same(draft, &found) => acks[index] = Some(Ack { name, kind: AckKind::IdTaken }),
                _ => entries.push(Unacknowledged { index, name }),
            }
            // In the order in which they were given.
            due = due.next();
        }
        self.acknowledge(drafts, entries, &mut acks, Timing::Later).await?;
        Ok(acks.into_iter().flatten().collect())
    }

    /// Whether an entry of this name was cancelled, so that it will not come. Only an entry with a
    /// named id has a name that another one may have had before.
    async fn was_cancelled(&self, draft: &Draft, name: &EventName) -> StoreResult<bool> {
        match draft.dedup {
            Some(_) => self.retry(async || decision::was_cancelled(&*self.bus.store, name).await).await,
            None => Ok(false),
        }
    }

    /// Puts drafts under new, growing times, none below `earliest`.
    async fn put_batch(&mut self, drafts: &[Draft], indices: &[usize], earliest: EventTime) -> StoreResult<PutBatch> {
        let mut pending = Vec::with_capacity(indices.len());
        let mut items = Vec::with_capacity(indices.len());
        for &index in indices {
            let time = self.bus.clock.now().max(self.seen.next()).max(self.last.next()).max(earliest);
            self.last = time;
            let name = drafts[index].name(time);
            items.push((name.key(), drafts[index].bytes.clone()));
            pending.push(Unacknowledged { index, name });
        }
        let Some(first) = pending.first() else { return Ok(PutBatch { pending, late: false }) };
        let keys = indices.iter().map(|index| drafts[*index].event.ordering_key());
        let store = Rc::clone(&self.bus.store);
        let turns = Turns::new(&*store, first.name.time(), keys);
        for at in self.put_in_order(&items, &turns).await? {
            // Another event has this very name: 70 random bits have collided. Any other time will
            // do.
            pending[at].name = self.put_elsewhere(&drafts[pending[at].index], earliest).await?;
        }
        Ok(PutBatch { pending, late: turns.late() })
    }

    /// Puts the items in order, each only once the one before it is there and `gate` opens for it,
    /// so that an ordered group sees them in order. An item that the gate refuses is not put.
    /// Returns the indices of the items whose keys another writer had taken.
    async fn put_in_order(&self, items: &[(String, Vec<u8>)], gate: &dyn Gate) -> StoreResult<Vec<usize>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let from = GateFrom { gate, at };
            let answers = match self.bus.store.put_gated(&items[at..], &from).await {
                Ok(answers) => answers,
                // Which of them arrived is unknown: the same names are put again, the first by
                // itself.
                Err(error) if error.kind() == ErrorKind::Unavailable => vec![Put::Exists],
                Err(error) => return Err(error),
            };
            if answers.is_empty() {
                return Ok(taken);
            }
            for answer in answers {
                if answer == Put::Exists {
                    if !self.retry(async || gate.opens(at).await).await? {
                        return Ok(taken);
                    }
                    let (key, bytes) = &items[at];
                    if self.settle(key, bytes).await?.is_some() {
                        taken.push(at);
                    }
                }
                at += 1;
            }
        }
        Ok(taken)
    }

    /// Makes sure that `bytes` are at `key`, durably: puts until a `get` shows whose content the
    /// key has. Returns what another writer has put there; none if the content is `bytes`.
    async fn settle(&self, key: &str, bytes: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        let store = &self.bus.store;
        loop {
            if let Some(object) = self.retry(async || get_durable(&**store, key).await).await? {
                return Ok((object.bytes != bytes).then_some(object.bytes));
            }
            let put = self.retry(async || store.put_new(key, bytes).await).await?;
            if put == Put::Created {
                return Ok(None);
            }
        }
    }

    async fn put_elsewhere(&mut self, draft: &Draft, earliest: EventTime) -> StoreResult<EventName> {
        loop {
            let time = self.bus.clock.now().max(self.last.next()).max(earliest);
            self.last = time;
            let name = draft.name(time);
            if self.settle(&name.key(), &draft.bytes).await?.is_none() {
                return Ok(name);
            }
        }
    }

    /// A clock a day ahead of the store's would make all other emitters' events late: takes the
    /// puts back.
    async fn refuse_clock_ahead(&self, drafts: &[Draft], pending: &[Unacknowledged]) -> StoreResult<()> {
        let Some(written) = self.bus.store.last_write_micros().map(EventTime::from_micros) else { return Ok(()) };
        let now = self.bus.clock.now();
        if pending.is_empty() || now.since(written) <= CLOCK_AHEAD {
            return Ok(());
        }
        // A copy of a named id stays: a twin may have been acknowledged on it.
        let own = pending.iter().filter(|put| drafts[put.index].dedup.is_none());
        let keys: Vec<String> = own.map(|put| put.name.key()).collect();
        self.bus.store.delete_many(&keys).await?;
        let what = format!("this machine's clock says {now}, the store's {written}: more than a day ahead");
        Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::Clock))
    }

    /// Repeats an operation that is harmless to repeat until the store answers or the timeout ends.
    async fn retry<T>(&self, mut operation: impl AsyncFnMut() -> StoreResult<T>) -> StoreResult<T> {
        let clock = &self.bus.clock;
        let deadline = clock.elapsed() + self.timeout;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            match operation().await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && clock.elapsed() + backoff.pause() < deadline =>
                {
                    backoff.wait(&**clock).await;
                }
                answer => return answer,
            }
        }
    }
}
