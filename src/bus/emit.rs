//! Emit: put, then check, then acknowledge.
//!
//! A worker moves W **before** it lists. If an emitter still reads W below its event's time after its put, the put
//! had ended before the frontier moved past it, so before that listing began, so the listing has it. No lock, no
//! shared counter, no trust in any clock.

use std::collections::HashMap;
use std::time::Duration;

use super::settings::to_json;
use super::{Place, frontier, keys, schedule};
use crate::event::{Event, EventName, EventTime, Identity, dedup_hash};
use crate::store::{ErrorKind, Put, StoreError, StoreResult};
use serde::{Deserialize, Serialize};

/// A clock further ahead of the store's than this would drag the bus along.
const CLOCK_AHEAD: Duration = Duration::from_hours(24);

/// So many second puts in a row, each further ahead than the one before, mean that W runs away.
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

    /// An event whose emitter named its id: emitted twice, it is there once.
    pub fn named(event: Event) -> Self {
        let identity = Identity::named(event.source(), event.id());
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Self { bytes: event.to_json(), event, identity, dedup }
    }

    /// An event that has waited, as it is stored: it keeps its bytes and its identity, and released twice, it is there
    /// once. None if the name tells no identity.
    pub(super) fn stored(event: Event, bytes: Vec<u8>, name: &EventName) -> Option<Self> {
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Some(Self { identity: Identity::parse(name.identity())?, bytes, event, dedup })
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Its size on the bus, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn name(&self, time: EventTime) -> EventName {
        EventName::new(time, self.event.lane(&self.identity), &self.identity, self.event.type_())
    }
}

/// Whether an acknowledged event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It was put now.
    New,
    /// It had been acknowledged before.
    Repeat,
}

/// The acknowledgement of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where it lies.
    pub name: EventName,
    /// Whether this emit added it.
    pub novelty: Novelty,
}

/// What a `dedup/` object holds.
#[derive(Serialize, Deserialize)]
struct Acknowledged {
    event: EventName,
}

/// The event that a `dedup/` object tells of.
pub(super) fn acknowledged_name(bytes: &[u8]) -> Option<EventName> {
    serde_json::from_slice::<Acknowledged>(bytes).ok().map(|content| content.event)
}

/// Emits from one process; its times strictly grow.
pub struct Emitter {
    place: Place,
    patience: Duration,
    last: EventTime,
    seen: EventTime,
}

/// An event of the batch that is on the bus but not yet acknowledged.
struct Pending {
    index: usize,
    name: EventName,
}

impl Emitter {
    /// An emitter that gives up on a store that does not answer after `patience`.
    pub fn new(place: Place, patience: Duration) -> Self {
        Self { place, patience, last: EventTime::MIN, seen: EventTime::MIN }
    }

    /// So many events are best emitted together.
    pub fn batch(&self) -> usize {
        self.place.store.profile().batch
    }

    /// Puts a batch and acknowledges it as a whole: after `Ok` every event is safe. After an error some of them may
    /// be there, unacknowledged.
    pub async fn emit(&mut self, drafts: &[Draft]) -> StoreResult<Vec<Receipt>> {
        let (mut receipts, fresh) = self.repeats(drafts).await?;
        let mut pending = self.put_batch(drafts, &fresh, EventTime::MIN).await?;
        let mut reputs = 0;
        loop {
            self.refuse_clock_ahead(&pending).await?;
            let w = self.retry(async || frontier::read(&*self.place.store).await).await?.time;
            self.seen = self.seen.max(w);
            if pending.iter().all(|put| put.name.time() > w) {
                break;
            }
            if reputs == REPUTS {
                let what = format!("cannot get ahead of the frontier after {REPUTS} puts; it stands at {w}");
                return Err(StoreError::new(ErrorKind::Unavailable, what).with_help("evbus doctor"));
            }
            // All of them, so that their order stays.
            let lag = self.place.store.profile().lag;
            let earliest = w.next().max(w.plus(lag.saturating_mul(1u32.checked_shl(reputs).unwrap_or(u32::MAX))));
            reputs += 1;
            let indices: Vec<usize> = pending.iter().map(|put| put.index).collect();
            let again = self.put_batch(drafts, &indices, earliest).await?;
            // The last first: a worker of an ordered group that still finds a first copy has found all before it, too.
            let old: Vec<String> = pending.iter().rev().map(|put| put.name.key()).collect();
            // One that stays is run twice at worst.
            let _ = self.place.store.delete_many(&old).await;
            pending = again;
        }
        self.acknowledge(drafts, pending, &mut receipts).await?;
        Ok(receipts.into_iter().flatten().collect())
    }

    /// Lets events wait until `due`: after `Ok` each of them will come, unless it is cancelled.
    pub async fn schedule(&mut self, drafts: &[Draft], due: EventTime) -> StoreResult<Vec<Receipt>> {
        let (receipts, _) = self.repeats(drafts).await?;
        let mut due = due;
        let mut answers = Vec::with_capacity(drafts.len());
        for (draft, known) in drafts.iter().zip(receipts) {
            if let Some(receipt) = known {
                answers.push(receipt);
                continue;
            }
            let mut name = draft.name(due);
            while draft.dedup.is_some()
                && self.retry(async || schedule::was_cancelled(&*self.place.store, &name).await).await?
            {
                name = name.with_time(name.time().next());
            }
            let mine = self.settle(&keys::scheduled(&name), &draft.bytes).await?;
            answers.push(Receipt { name, novelty: if mine { Novelty::New } else { Novelty::Repeat } });
            // In the order in which they were given.
            due = due.next();
        }
        Ok(answers)
    }

    /// Receipts of what had been acknowledged before, and the indices of the rest.
    async fn repeats(&self, drafts: &[Draft]) -> StoreResult<(Vec<Option<Receipt>>, Vec<usize>)> {
        let mut receipts = vec![None; drafts.len()];
        let mut fresh = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            match &draft.dedup {
                Some(hash) => match self.acknowledged(hash).await? {
                    Some(name) => receipts[index] = Some(Receipt { name, novelty: Novelty::Repeat }),
                    None => fresh.push(index),
                },
                None => fresh.push(index),
            }
        }
        // Of two with one id in one batch only the first is put.
        let mut first = HashMap::new();
        fresh.retain(|index| match &drafts[*index].dedup {
            Some(hash) => *first.entry(hash.clone()).or_insert(*index) == *index,
            None => true,
        });
        Ok((receipts, fresh))
    }

    async fn acknowledged(&self, hash: &str) -> StoreResult<Option<EventName>> {
        let key = keys::dedup(hash);
        let Some(object) = self.retry(async || self.place.store.get(&key).await).await? else { return Ok(None) };
        let content: Acknowledged = serde_json::from_slice(&object.bytes).map_err(|error| {
            StoreError::new(ErrorKind::Damaged, format!("{key} cannot be read: {error}"))
                .with_help(format!("delete {key} and emit again: the event may then be there twice"))
        })?;
        Ok(Some(content.event))
    }

    /// Puts drafts under new, growing times, none below `earliest`.
    async fn put_batch(
        &mut self,
        drafts: &[Draft],
        indices: &[usize],
        earliest: EventTime,
    ) -> StoreResult<Vec<Pending>> {
        let mut pending = Vec::with_capacity(indices.len());
        let mut items = Vec::with_capacity(indices.len());
        for &index in indices {
            let time = self.place.clock.now().max(self.seen.next()).max(self.last.next()).max(earliest);
            self.last = time;
            let name = drafts[index].name(time);
            items.push((name.key(), drafts[index].bytes.clone()));
            pending.push(Pending { index, name });
        }
        for at in self.put_in_order(&items).await? {
            // Another event of this very name: 70 random bits have met. Any other time will do.
            pending[at].name = self.put_elsewhere(&drafts[pending[at].index], earliest).await?;
        }
        Ok(pending)
    }

    /// Puts every item, none before the one ahead of it is there, so that a group that works in order sees them in
    /// order. The places of those whose keys somebody else had taken.
    async fn put_in_order(&self, items: &[(String, Vec<u8>)]) -> StoreResult<Vec<usize>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let answers = match self.place.store.put_many(&items[at..]).await {
                Ok(answers) => answers,
                // Which of them arrived is unknown: the same names again, the first by itself.
                Err(error) if error.kind() == ErrorKind::Unavailable => vec![Put::Exists],
                Err(error) => return Err(error),
            };
            for answer in answers {
                if answer == Put::Exists && !self.settle(&items[at].0, &items[at].1).await? {
                    taken.push(at);
                }
                at += 1;
            }
        }
        Ok(taken)
    }

    /// Makes sure that `bytes` are at `key`: puts until a `get` shows whose the key is. False: somebody else's.
    async fn settle(&self, key: &str, bytes: &[u8]) -> StoreResult<bool> {
        let store = &self.place.store;
        loop {
            if let Some(object) = self.retry(async || store.get(key).await).await? {
                return Ok(object.bytes == bytes);
            }
            let put = self.retry(async || store.put_new(key, bytes).await).await?;
            if put == Put::Created {
                return Ok(true);
            }
        }
    }

    async fn put_elsewhere(&mut self, draft: &Draft, earliest: EventTime) -> StoreResult<EventName> {
        loop {
            let time = self.place.clock.now().max(self.last.next()).max(earliest);
            self.last = time;
            let name = draft.name(time);
            if self.settle(&name.key(), &draft.bytes).await? {
                return Ok(name);
            }
        }
    }

    /// Step 3: what names its own id is written down as acknowledged; a copy of another emitter wins over mine.
    async fn acknowledge(
        &self,
        drafts: &[Draft],
        pending: Vec<Pending>,
        receipts: &mut [Option<Receipt>],
    ) -> StoreResult<()> {
        let (mut named, mut items) = (Vec::new(), Vec::new());
        for (at, put) in pending.iter().enumerate() {
            let Some(hash) = &drafts[put.index].dedup else { continue };
            let mut bytes = to_json(&Acknowledged { event: put.name.clone() });
            bytes.push(b'\n');
            named.push(at);
            items.push((keys::dedup(hash), bytes));
        }
        let mut theirs = HashMap::new();
        for taken in self.put_in_order(&items).await? {
            let at = named[taken];
            let hash = drafts[pending[at].index].dedup.as_deref().unwrap_or_default();
            if let Some(name) = self.acknowledged(hash).await? {
                self.retry(async || self.place.store.delete(&pending[at].name.key()).await).await?;
                theirs.insert(at, name);
            }
        }
        for (at, put) in pending.into_iter().enumerate() {
            receipts[put.index] = Some(match theirs.remove(&at) {
                Some(name) => Receipt { name, novelty: Novelty::Repeat },
                None => Receipt { name: put.name, novelty: Novelty::New },
            });
        }
        repeat_within_batch(drafts, receipts);
        Ok(())
    }

    /// A clock a day ahead of the store's own would make everybody else's events late: takes the puts back.
    async fn refuse_clock_ahead(&self, pending: &[Pending]) -> StoreResult<()> {
        let Some(written) = self.place.store.last_write_micros().map(EventTime::from_micros) else { return Ok(()) };
        let now = self.place.clock.now();
        if pending.is_empty() || now.since(written) <= CLOCK_AHEAD {
            return Ok(());
        }
        let keys: Vec<String> = pending.iter().map(|put| put.name.key()).collect();
        self.place.store.delete_many(&keys).await?;
        let what = format!("this machine's clock says {now}, the store's {written}: more than a day ahead");
        Err(StoreError::new(ErrorKind::Unfit, what).with_help("set the clock: timedatectl status"))
    }

    /// Repeats what is harmless to repeat until the store answers or patience ends.
    async fn retry<T>(&self, mut operation: impl AsyncFnMut() -> StoreResult<T>) -> StoreResult<T> {
        let clock = &self.place.clock;
        let deadline = clock.elapsed() + self.patience;
        let mut pause = Duration::from_millis(20);
        loop {
            match operation().await {
                Err(error) if error.kind() == ErrorKind::Unavailable && clock.elapsed() + pause < deadline => {
                    clock.sleep_until(clock.elapsed() + pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                answer => return answer,
            }
        }
    }
}

/// The second of two with one id in one batch is a repeat of the first.
fn repeat_within_batch(drafts: &[Draft], receipts: &mut [Option<Receipt>]) {
    let mut known: HashMap<&str, EventName> = HashMap::new();
    for (draft, receipt) in drafts.iter().zip(receipts) {
        let Some(hash) = draft.dedup.as_deref() else { continue };
        match receipt {
            Some(receipt) => {
                known.insert(hash, receipt.name.clone());
            }
            None => *receipt = known.get(hash).map(|name| Receipt { name: name.clone(), novelty: Novelty::Repeat }),
        }
    }
}
