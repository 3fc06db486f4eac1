//! Named ids: acknowledged once, however often and by however many emitters they are emitted.
//!
//! The record `dedup/<hash of source and id>` says on which copy the event was acknowledged: an
//! event on the bus, or an entry that waits. It counts only while that copy is there and has this
//! id: a record written without its event hides no event (FORMAT.md 5.3 and 9.1). The record of an
//! event that lies in a segment names that, too (5.7).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::draft::{Ack, AckKind, Draft, EventCopy, Unacknowledged};
use super::put::SurePuts;
use crate::bus::format::to_json_line;
use crate::bus::segment::Segment;
use crate::bus::{BusHandle, decision, keys};
use crate::event::{Data, Event, EventName, SEGMENT_MAX_BYTES, SegmentName, dedup_hash, parse_segment_key};
use crate::store::{AlwaysOpen, ErrorKind, Item, StoreError, StoreResult};

/// How often a record may turn out to be useless while it is replaced.
const TRIES: u32 = 20;

/// The largest record that evbus writes, in bytes; a larger one is not evbus's.
const RECORD_BYTES: usize = 4_096;

/// What a `dedup/` object holds.
#[derive(Serialize, Deserialize)]
struct Acknowledged {
    event: EventName,
    /// The name of the segment that the event lies in, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<SegmentName>,
}

impl From<Acknowledged> for EventCopy {
    fn from(Acknowledged { event, segment }: Acknowledged) -> Self {
        match segment {
            Some(segment) => Self { name: event, key: segment.key() },
            None => Self::single(event),
        }
    }
}

/// When the events of an emit are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timing {
    /// At once, also if an equal event still waits for its time.
    Now,
    /// At their time. An equal event that waits will come: this one is its repeat.
    Later,
}

/// The copy of an event on which its id was acknowledged.
pub(super) struct Known {
    pub ack: Ack,
    /// Where the copy lies.
    key: String,
    /// The segment, if it lies in one.
    pub segment: Option<Segment>,
}

impl Known {
    /// The key of the object that the copy lies in.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is this copy. One event alone has one key for each name.
    pub fn is(&self, copy: &EventCopy) -> bool {
        let is_alone = self.segment.is_none() && parse_segment_key(&copy.key).is_none();
        self.ack.name == copy.name && (is_alone || self.key == copy.key)
    }
}

/// What is known of an id.
pub(super) enum Record {
    /// Its record names a copy that is there.
    Valid(Known),
    /// Its record, whose bytes these are, names no copy that is there.
    Stale(Vec<u8>),
    /// It has none.
    None,
}

/// The copy that a `dedup/` object tells of.
pub(crate) fn acknowledged_copy(bytes: &[u8]) -> Option<EventCopy> {
    serde_json::from_slice::<Acknowledged>(bytes).ok().map(EventCopy::from)
}

/// The event on which a named id was acknowledged, from its dedup record, if it is still there.
///
/// # Errors
/// The store's.
pub async fn remembered(bus: &BusHandle, source: &str, id: &str) -> StoreResult<Option<EventName>> {
    let Some(object) = bus.store.get(&keys::dedup(&dedup_hash(source, id))).await? else { return Ok(None) };
    let Some(copy) = acknowledged_copy(&object.bytes) else { return Ok(None) };
    Ok(bus.store.get(&copy.key).await?.map(|_| copy.name))
}

/// Whether what lies on the bus is the draft's event: of the same type, subject and data. When and
/// how it is said to have happened may differ between two events that mean the same.
pub(super) fn is_same_event(draft: &Draft, bytes: &[u8]) -> bool {
    let event = &draft.event;
    let Ok(stored) = Event::parse(bytes, usize::MAX) else { return false };
    event.type_() == stored.type_() && event.subject() == stored.subject() && same_data(event.data(), stored.data())
}

fn same_data(one: &Data, other: &Data) -> bool {
    let value = |raw: &serde_json::value::RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
    match (one, other) {
        (Data::Json(one), Data::Json(other)) => {
            one.get() == other.get() || value(one).is_some_and(|one| Some(one) == value(other))
        }
        _ => one == other,
    }
}

/// Whether what lies on the bus has the draft's id.
pub(super) fn has_id_of(draft: &Draft, bytes: &[u8]) -> bool {
    let (id, source) = (draft.event.id(), draft.event.source());
    Event::parse(bytes, usize::MAX).is_ok_and(|stored| stored.id() == id && stored.source() == source)
}

impl SurePuts {
    /// Acks of what had been acknowledged before, durable by now, and the indices of the rest.
    pub(super) async fn repeats(
        &self,
        drafts: &[Draft],
        timing: Timing,
    ) -> StoreResult<(Vec<Option<Ack>>, Vec<usize>)> {
        let mut acks = vec![None; drafts.len()];
        let (mut fresh, mut relied_on) = (Vec::with_capacity(drafts.len()), Vec::new());
        for (index, draft) in drafts.iter().enumerate() {
            match &draft.dedup {
                Some(hash) => match self.acknowledged(draft, hash, timing).await? {
                    Record::Valid(known) => {
                        relied_on.extend([keys::dedup(hash), known.key]);
                        acks[index] = Some(known.ack);
                    }
                    Record::Stale(_) | Record::None => fresh.push(index),
                },
                None => fresh.push(index),
            }
        }
        if !relied_on.is_empty() {
            self.retry(async || self.bus.store.persist_many(&relied_on).await).await?;
        }
        // Of two drafts with one id in one batch only the first is put.
        let mut first = HashMap::new();
        fresh.retain(|index| match &drafts[*index].dedup {
            Some(hash) => *first.entry(hash.clone()).or_insert(*index) == *index,
            None => true,
        });
        Ok((acks, fresh))
    }

    /// What was acknowledged under the draft's id, if anything was and is still there.
    pub(super) async fn acknowledged(&self, draft: &Draft, hash: &str, timing: Timing) -> StoreResult<Record> {
        let (key, store) = (keys::dedup(hash), &self.bus.store);
        let mut previous = None;
        loop {
            let Some(record) = self.retry(async || store.get_within(&key, RECORD_BYTES).await).await? else {
                return Ok(Record::None);
            };
            if previous.as_ref() == Some(&record.bytes) {
                return Ok(Record::Stale(record.bytes));
            }
            let content: Acknowledged =
                serde_json::from_slice(&record.bytes).map_err(|error| StoreError::unreadable(&key, error))?;
            let copy = EventCopy::from(content);
            if let Some(known) = self.known(draft, &copy).await? {
                return Ok(Record::Valid(known));
            }
            let waits = EventCopy { key: keys::scheduled(&copy.name), name: copy.name };
            if let Some(known) = self.known(draft, &waits).await? {
                // One that is being cancelled will not come.
                let cancelled = self.retry(async || decision::was_cancelled(&**store, &waits.name).await).await?;
                let repeat = timing == Timing::Later || known.ack.kind == AckKind::IdTaken;
                return Ok(if repeat && !cancelled { Record::Valid(known) } else { Record::Stale(record.bytes) });
            }
            // Neither is there: pruned, cancelled or never put; or released since the record was
            // read, which has given it another name.
            previous = Some(record.bytes);
        }
    }

    /// A copy, if it is there and has the draft's id.
    pub(super) async fn known(&self, draft: &Draft, copy: &EventCopy) -> StoreResult<Option<Known>> {
        let EventCopy { name, key } = copy;
        let (document, segment) = match parse_segment_key(key) {
            None => (self.retry(async || self.bus.store.get(key).await).await?.map(|found| found.bytes.into()), None),
            Some(parts) => {
                let found = self.retry(async || self.bus.store.get_within(key, SEGMENT_MAX_BYTES).await).await?;
                let segment = found.map(|found| Segment::expand(&parts, found.bytes));
                let document = segment.as_ref().and_then(|segment| segment.document(name));
                (document.map(|document| document.bytes), segment)
            }
        };
        Ok(document.filter(|document| has_id_of(draft, document)).map(|document| {
            let kind = if is_same_event(draft, &document) { AckKind::Duplicate } else { AckKind::IdTaken };
            Known { ack: Ack { name: name.clone(), kind }, key: key.clone(), segment }
        }))
    }

    /// Makes a record, and the copy that it names, durable: both are going to be relied on.
    pub(super) async fn rely_on(&self, draft: &Draft, known: &Known) -> StoreResult<()> {
        let relied_on = [draft.record_key(), known.key.clone()];
        self.retry(async || self.bus.store.persist_many(&relied_on).await).await
    }

    /// Records each named id as acknowledged; if a twin has recorded its copy first, that
    /// copy wins.
    pub(super) async fn acknowledge(
        &self,
        drafts: &[Draft],
        pending: Vec<Unacknowledged>,
        acks: &mut [Option<Ack>],
        timing: Timing,
    ) -> StoreResult<()> {
        let (mut named, mut copies) = (Vec::new(), Vec::new());
        for (at, put) in pending.iter().enumerate() {
            let draft = &drafts[put.index];
            if draft.dedup.is_some() {
                named.push(at);
                copies.push((draft, EventCopy::single(put.name.clone())));
            }
        }
        let others = self.record(&copies, timing).await?;
        let mut recorded: HashMap<usize, Ack> =
            named.into_iter().zip(others).filter_map(|(at, other)| Some((at, other?))).collect();
        for (at, put) in pending.into_iter().enumerate() {
            let fresh = Ack { name: put.name, kind: AckKind::New };
            acks[put.index] = Some(recorded.remove(&at).unwrap_or(fresh));
        }
        repeat_within_batch(drafts, acks);
        Ok(())
    }

    /// Records for each draft the copy on which it is acknowledged. Where a twin has recorded another
    /// copy first, that one wins: returns the ack on it, and the draft's own copy is gone.
    pub(super) async fn record(&self, copies: &[(&Draft, EventCopy)], timing: Timing) -> StoreResult<Vec<Option<Ack>>> {
        let items: Vec<Item> = copies.iter().map(|(draft, copy)| (draft.record_key(), record(copy).into())).collect();
        let mut others = vec![None; copies.len()];
        for taken in self.put_in_order(&items, &AlwaysOpen).await? {
            let (draft, own) = &copies[taken];
            others[taken] = self.resolve_taken_record(draft, own, timing).await?;
        }
        Ok(others)
    }

    /// Handles an id whose record this emit has not created. Returns the ack on the recorded copy;
    /// none if `own` is the acknowledged copy, because the record names it or names no event of
    /// this id.
    async fn resolve_taken_record(&self, draft: &Draft, own: &EventCopy, timing: Timing) -> StoreResult<Option<Ack>> {
        let hash = draft.dedup.as_deref().unwrap_or_default();
        let (key, store) = (keys::dedup(hash), &self.bus.store);
        for _ in 0..TRIES {
            let stale = match self.acknowledged(draft, hash, timing).await? {
                Record::Valid(known) if known.is(own) => return Ok(None),
                Record::Valid(known) => {
                    self.rely_on(draft, &known).await?;
                    // An entry has the key of every entry of this event and this time, and so
                    // perhaps of one that was acknowledged: it stays, and comes.
                    if timing == Timing::Now {
                        self.retry(async || store.delete(&own.key).await).await?;
                    }
                    return Ok(Some(known.ack));
                }
                Record::Stale(bytes) => Some(bytes),
                Record::None => None,
            };
            // The event that the record names was pruned or cancelled, never existed, or waits while
            // this equal one is there already. A twin may have replaced the record since: then it is
            // judged anew.
            let found = self.retry(async || store.get_within(&key, RECORD_BYTES).await).await?;
            if found.map(|object| object.bytes) != stale {
                continue;
            }
            self.retry(async || store.delete(&key).await).await?;
            if self.put_and_read_back(&key, &record(own)).await?.is_none() {
                return Ok(None);
            }
        }
        let what = format!("{key} changes while it is written");
        Err(StoreError::new(ErrorKind::Unavailable, what))
    }
}

fn record(copy: &EventCopy) -> Vec<u8> {
    to_json_line(&Acknowledged { event: copy.name.clone(), segment: SegmentName::from_key(&copy.key) })
}

/// The second of two drafts with one id in one batch is a repeat of the first.
pub(super) fn repeat_within_batch(drafts: &[Draft], acks: &mut [Option<Ack>]) {
    let mut known: HashMap<&str, (usize, Ack)> = HashMap::new();
    for (at, (draft, ack)) in drafts.iter().zip(acks).enumerate() {
        let Some(hash) = draft.dedup.as_deref() else { continue };
        match ack {
            Some(ack) => {
                known.insert(hash, (at, ack.clone()));
            }
            None => {
                *ack = known.get(hash).map(|(first, ack)| {
                    // Where the id is taken, the first is not on the bus either.
                    let same = ack.kind != AckKind::IdTaken && is_same_event(draft, &drafts[*first].bytes);
                    let kind = if same { AckKind::Duplicate } else { AckKind::IdTaken };
                    Ack { name: ack.name.clone(), kind }
                });
            }
        }
    }
}
