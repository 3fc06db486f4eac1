//! Named ids in bulk: the events of a chunk lie in one segment, which one record remembers, that of its
//! first event. The same events, emitted again in their order, are told one by one (FORMAT.md, 5.7).

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::draft::{Ack, AckKind, Draft, EventCopy, SegmentDraft};
use super::named::{Record, Timing, has_id_of, is_same_event, repeat_within_batch};
use super::notes::Note;
use super::{Emitter, frontier};
use crate::bus::segment::Segment;
use crate::event::{Event, EventName, EventTime, Identity, ListedKey, SegmentNonce};
use crate::recent::Recent;
use crate::store::{StoreResult, get_durable};

/// Fewer new events than this are put one by one, each with a record of its own.
pub(crate) const LEAST_IN_CHUNKS: usize = 100;

/// How many of the last ids of a process are remembered at least.
const REMEMBERED: usize = 1 << 15;

/// Before an event whose identity ends so, a chunk ends: of two inputs that overlap, the chunks meet.
const BOUNDARY: &str = "00";

/// What an emitter knows of the named ids that it has emitted in bulk.
pub(super) struct Chunks {
    /// The events of a chunk that was acknowledged before, from the next on, and its key.
    following: VecDeque<(EventName, Bytes)>,
    following_key: Rc<str>,
    /// The last events of this process.
    last: Recent<Identity, (Rc<str>, EventName)>,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { following: VecDeque::new(), following_key: Rc::default(), last: Recent::new(REMEMBERED) }
    }
}

impl Chunks {
    /// Follows the events of a segment from this one on.
    fn follow(&mut self, segment: &Segment, key: &str, from: &EventName) {
        let events = segment.documents().skip_while(|(name, _)| name != from);
        (self.following, self.following_key) = (events.collect(), key.into());
    }

    /// The next event of the chunk that is followed, if the draft has its id. Another one ends the chunk.
    fn next(&mut self, draft: &Draft) -> Option<Ack> {
        let (name, document) = self.following.pop_front()?;
        // Most often the very same document.
        let same = draft.bytes.trim_ascii_end() == document.trim_ascii_end();
        if !same && !has_id_of(draft, &document) {
            self.following.clear();
            return None;
        }
        let kind = if same || is_same_event(draft, &document) { AckKind::Duplicate } else { AckKind::IdTaken };
        let key = Rc::clone(&self.following_key);
        self.remember(draft, &key, name.clone());
        Some(Ack { name, kind })
    }

    fn remember(&mut self, draft: &Draft, key: &Rc<str>, name: EventName) {
        self.last.insert(draft.identity, (Rc::clone(key), name));
    }

    /// Where this process has emitted the draft's id, if it has lately.
    fn remembered(&self, draft: &Draft) -> Option<EventCopy> {
        let (key, name) = self.last.get(&draft.identity)?;
        Some(EventCopy { name: name.clone(), key: key.to_string() })
    }
}

/// Events that are to lie in one segment.
struct Chunk {
    segment: SegmentDraft,
    /// Their places among the new events of a call.
    places: Range<usize>,
}

/// The events of one call.
struct Call<'a> {
    drafts: &'a [Draft],
    acks: Vec<Option<Ack>>,
    /// Which of the drafts are not known to this process, each id once.
    new: Vec<usize>,
}

impl Call<'_> {
    fn draft(&self, place: usize) -> &Draft {
        &self.drafts[self.new[place]]
    }

    fn acknowledge(&mut self, place: usize, ack: Ack) {
        self.acks[self.new[place]] = Some(ack);
    }
}

impl Emitter {
    /// Emits events with named ids, many of them in one object. After `Ok` every event is safe whose
    /// ack does not say [`AckKind::IdTaken`]. The events of an input are there once, however often it is
    /// emitted from its first event on, by however many emitters, and however it is cut into calls. An
    /// event that comes in another order is told only where a chunk begins with it.
    pub async fn emit_chunks(&mut self, drafts: &[Draft]) -> StoreResult<Vec<Ack>> {
        self.emit_chunks_from(drafts, LEAST_IN_CHUNKS).await
    }

    /// The same, with chunks of `least` new events and more.
    pub async fn emit_chunks_from(&mut self, drafts: &[Draft], least: usize) -> StoreResult<Vec<Ack>> {
        let store = Rc::clone(&self.puts.bus.store);
        loop {
            let rewinds = store.rewinds();
            let acks = self.emit_chunks_once(drafts, least).await?;
            if rewinds == store.rewinds() {
                return Ok(acks);
            }
            // What is remembered may be lost.
            self.chunks = Chunks::default();
        }
    }

    async fn emit_chunks_once(&mut self, drafts: &[Draft], least: usize) -> StoreResult<Vec<Ack>> {
        let mut call = Call { drafts, acks: vec![None; drafts.len()], new: Vec::with_capacity(drafts.len()) };
        let mut seen = HashSet::new();
        for (index, draft) in drafts.iter().enumerate() {
            // The second of one id is answered as the first, at the end.
            if !seen.insert(draft.dedup.as_deref()) {
                continue;
            }
            let before = match self.chunks.remembered(draft) {
                Some(copy) => self.puts.known(draft, &copy).await?,
                None => None,
            };
            match before {
                Some(known) => call.acks[index] = Some(known.ack),
                None => call.new.push(index),
            }
        }
        let mut at = 0;
        while at < call.new.len() {
            // Put singly while others of its call are looked at anew: it is in no segment that is followed.
            if call.acks[call.new[at]].is_some() {
                at += 1;
                continue;
            }
            at = match self.chunks.next(call.draft(at)) {
                Some(ack) => {
                    call.acknowledge(at, ack);
                    at + 1
                }
                None => self.emit_unfollowed(&mut call, at, least).await?,
            };
        }
        repeat_within_batch(drafts, &mut call.acks);
        Ok(call.acks.into_iter().flatten().collect())
    }

    /// Emits the event at a place, which no chunk leads to, and perhaps some behind it; returns the next
    /// place.
    async fn emit_unfollowed(&mut self, call: &mut Call<'_>, at: usize, least: usize) -> StoreResult<usize> {
        let first = call.draft(at);
        let hash = first.dedup.as_deref().unwrap_or_default();
        if let Record::Valid(known) = self.puts.acknowledged(first, hash, Timing::Now).await? {
            self.puts.rely_on(first, &known).await?;
            match &known.segment {
                Some(segment) => self.chunks.follow(segment, known.key(), &known.ack.name),
                None => {
                    call.acknowledge(at, known.ack);
                    return Ok(at + 1);
                }
            }
            return Ok(at);
        }
        if self.end_killed_emit(hash).await? {
            return Ok(at);
        }
        if call.new.len() - at < least { self.put_singly(call, at).await } else { self.put_chunks(call, at).await }
    }

    /// Puts events one by one, up to one that has been acknowledged as the first of a chunk.
    async fn put_singly(&mut self, call: &mut Call<'_>, at: usize) -> StoreResult<usize> {
        let mut drafts = vec![call.draft(at).clone()];
        while at + drafts.len() < call.new.len() {
            let draft = call.draft(at + drafts.len());
            if self.is_recorded(draft).await? {
                break;
            }
            drafts.push(draft.clone());
        }
        let acks = self.emit(&drafts).await?;
        // Another emitter has put these meanwhile, perhaps with others of them in one segment.
        let mut twins = Vec::new();
        for (draft, _) in drafts.iter().zip(&acks).filter(|(_, ack)| ack.kind == AckKind::Duplicate) {
            twins.extend(self.segment_of(draft).await?);
        }
        let mut next = at + drafts.len();
        for (place, (draft, ack)) in (at..).zip(drafts.iter().zip(acks)) {
            match ack.kind {
                AckKind::New if twins.iter().any(|twin| has_event(twin, draft)) => self.take_back(draft, &ack).await?,
                AckKind::Duplicate if twins.iter().any(|twin| has_event(twin, draft)) => {}
                _ => {
                    call.acknowledge(place, ack);
                    continue;
                }
            }
            // It is looked at anew, and told to be in that segment.
            next = next.min(place);
        }
        Ok(next)
    }

    /// The segment that the record of an event names.
    async fn segment_of(&self, draft: &Draft) -> StoreResult<Option<Segment>> {
        let hash = draft.dedup.as_deref().unwrap_or_default();
        Ok(match self.puts.acknowledged(draft, hash, Timing::Now).await? {
            Record::Valid(known) => known.segment,
            Record::Stale(_) | Record::None => None,
        })
    }

    /// Takes back an event that was put and recorded, and that another emitter has put in a segment at the
    /// same time: that copy stays.
    async fn take_back(&self, draft: &Draft, ack: &Ack) -> StoreResult<()> {
        let own = [ack.name.key(), draft.record_key()];
        self.puts.retry(async || self.puts.bus.store.delete_many(&own).await).await
    }

    async fn is_recorded(&self, draft: &Draft) -> StoreResult<bool> {
        let key = draft.record_key();
        Ok(self.puts.retry(async || self.puts.bus.store.get(&key).await).await?.is_some())
    }

    /// Puts events in chunks, and records them. Where another emitter has recorded a chunk first, the
    /// events of this one are to be looked at anew: returns the place of its first.
    async fn put_chunks(&mut self, call: &mut Call<'_>, at: usize) -> StoreResult<usize> {
        let chunks = self.cut(call, at).await?;
        let mut note = Note::new(call.draft(at).dedup.as_deref().unwrap_or_default(), 0);
        let segments: Vec<&SegmentDraft> = chunks.iter().map(|chunk| &chunk.segment).collect();
        let firsts = self.emit_together(&segments, Some(&mut note)).await?;
        let names: Vec<Vec<EventName>> =
            segments.iter().zip(&firsts).map(|(segment, first)| segment.names(*first)).collect();
        let mut copies = Vec::with_capacity(chunks.len());
        for ((chunk, first), names) in chunks.iter().zip(firsts).zip(&names) {
            let copy = EventCopy { name: names[0].clone(), key: chunk.segment.key(first) };
            copies.push((call.draft(chunk.places.start), copy));
        }
        let others = self.puts.record(&copies, Timing::Now).await?;
        let keys: Vec<Rc<str>> = copies.into_iter().map(|(_, copy)| copy.key.into()).collect();
        note.remove(&self.puts).await;
        let mut end = at;
        for (((chunk, names), other), key) in chunks.into_iter().zip(names).zip(others).zip(&keys) {
            if other.is_some() {
                return Ok(chunk.places.start);
            }
            end = chunk.places.end;
            for (place, name) in chunk.places.zip(names) {
                self.chunks.remember(call.draft(place), key, name.clone());
                call.acknowledge(place, Ack { name, kind: AckKind::New });
            }
        }
        Ok(end)
    }

    /// Cuts the events from a place on into chunks that may be put together: one, if an event has an
    /// ordering key; and none that begins with an event that has a record.
    async fn cut(&self, call: &Call<'_>, at: usize) -> StoreResult<Vec<Chunk>> {
        let keyed = (at..call.new.len()).any(|place| call.draft(place).event.ordering_key().is_some());
        let mut chunks: Vec<Chunk> = Vec::new();
        for place in at..call.new.len() {
            let draft = call.draft(place);
            let is_boundary = draft.identity.as_str().ends_with(BOUNDARY);
            if let Some(last) = chunks.last_mut().filter(|_| !is_boundary)
                && last.segment.append(draft)
            {
                last.places.end += 1;
                continue;
            }
            if place > at && (keyed || self.is_recorded(draft).await?) {
                break;
            }
            let mut segment = SegmentDraft::new(&*self.puts.bus.clock);
            segment.append(draft);
            chunks.push(Chunk { segment, places: place..place + 1 });
        }
        Ok(chunks)
    }

    /// Records the chunks that an emit has put which was killed before it could, if their first event
    /// has this dedup hash; returns whether there was such an emit. A chunk that W has passed is put
    /// again: its emitter may not have seen whether it came too late.
    async fn end_killed_emit(&mut self, hash: &str) -> StoreResult<bool> {
        let left = Note::left(&self.puts, hash).await?;
        if left.is_empty() {
            return Ok(false);
        }
        let (notes, objects): (Vec<String>, Vec<Vec<String>>) = left.into_iter().unzip();
        let mut there: Vec<PutChunk> = Vec::new();
        let mut first_copies = Vec::new();
        for key in objects.into_iter().flatten() {
            let store = &self.puts.bus.store;
            let Some(found) = self.puts.retry(async || get_durable(&**store, &key).await).await? else { continue };
            // What is not what its emitter has put is nothing to be recorded.
            let Some(chunk) = PutChunk::read(key, found.bytes) else { continue };
            match there.iter_mut().find(|other| other.nonce == chunk.nonce) {
                Some(earlier) => first_copies.push(std::mem::replace(earlier, chunk).copy.key),
                None => there.push(chunk),
            }
        }
        let w = self.puts.retry(async || frontier::read(&*self.puts.bus.store).await).await?.time;
        self.puts.bus.times.saw(w);
        let mut again = Note::new(hash, u32::try_from(notes.len()).unwrap_or(u32::MAX));
        for PutChunk { nonce, first, copy, drafts } in there {
            let hash = drafts[0].dedup.as_deref().unwrap_or_default();
            if let Record::Valid(known) = self.puts.acknowledged(&drafts[0], hash, Timing::Now).await? {
                if !known.is(&copy) {
                    first_copies.push(copy.key);
                }
                continue;
            }
            if first > w {
                self.puts.record(&[(&drafts[0], copy)], Timing::Now).await?;
                continue;
            }
            let mut segment = SegmentDraft::of_nonce(nonce);
            // They have been in one before.
            for draft in &drafts {
                segment.append(draft);
            }
            let first = self.emit_together(&[&segment], Some(&mut again)).await?[0];
            let later = EventCopy { name: segment.names(first)[0].clone(), key: segment.key(first) };
            // Another one may have recorded the first copy meanwhile.
            if self.puts.record(&[(&drafts[0], later)], Timing::Now).await?[0].is_none() {
                first_copies.push(copy.key);
            }
        }
        // An emitter that is alive after all finds the records, and puts its own copies away.
        let store = &self.puts.bus.store;
        self.puts.retry(async || store.delete_many(&first_copies).await).await?;
        self.puts.retry(async || store.delete_many(&notes).await).await?;
        again.remove(&self.puts).await;
        Ok(true)
    }
}

/// Whether a segment holds the draft's event: whoever was acknowledged on the draft's copy has it there.
fn has_event(segment: &Segment, draft: &Draft) -> bool {
    let is_it = |bytes: &[u8]| has_id_of(draft, bytes) && is_same_event(draft, bytes);
    segment.documents().any(|(name, bytes)| name.identity() == draft.identity.as_str() && is_it(&bytes))
}

/// A chunk that was put and not recorded.
struct PutChunk {
    /// Of its segment. One of an event alone is made of its identity: put again, it has the same.
    nonce: SegmentNonce,
    first: EventTime,
    /// Its first event.
    copy: EventCopy,
    drafts: Vec<Draft>,
}

impl PutChunk {
    /// None if it does not hold named events alone.
    fn read(key: String, bytes: Vec<u8>) -> Option<Self> {
        let named = |bytes: &[u8]| Event::parse(bytes, usize::MAX).ok().map(Draft::named);
        let (nonce, documents) = match ListedKey::parse(&key)? {
            ListedKey::Event(parts) => {
                (format!("{}00", parts.identity), vec![(EventName::from_key(&key)?, Bytes::from(bytes))])
            }
            ListedKey::Segment(parts) => (parts.nonce.to_owned(), Segment::expand(&parts, bytes).documents().collect()),
        };
        let nonce = SegmentNonce::parse(&nonce)?;
        let drafts: Vec<Draft> = documents.iter().map(|(_, bytes)| named(bytes)).collect::<Option<_>>()?;
        let name = documents.into_iter().next()?.0;
        Some(Self { nonce, first: name.time(), copy: EventCopy { name, key }, drafts })
    }
}
