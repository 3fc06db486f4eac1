//! Segments, read: many events in one object. What follows from a segment's key and its lines, and
//! the segments that this process has read last.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::keys::list_from;
use super::{BusHandle, Position};
use crate::event::{
    EVENTS, EventName, EventTime, EventView, HashSlot, Identity, Likeness, ListedKey, NameParts, SEGMENT_MAX_BYTES,
    SEGMENT_SPAN_MICROS, SegmentParts, Siblings, parse_event_id, parse_segment_key, slug_of,
};
use crate::store::{ErrorKind, List, Pager, StoreError, StoreResult};

/// How much of segments is kept in memory, in bytes.
pub(super) const CACHE_BYTES: usize = 8 << 20;

/// How many keys of segments are remembered, to know where a name was listed.
const KNOWN_KEYS: usize = 4_096;

/// About how much memory one line takes beside its text, in bytes.
const LINE_BYTES: usize = 160;

/// A segment that was read, with the names of its events.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Of the first event; the others follow by a microsecond each.
    first: EventTime,
    bytes: Bytes,
    lines: Vec<Line>,
    /// Lines behind the last event that the name counts.
    pub surplus: usize,
}

/// The identity of an event on a line: an id that was made for this line is told from one that was
/// named by the nonce in it.
fn identity(own: impl Fn() -> Identity, source: &str, id: &str) -> Identity {
    let own = own();
    let made = parse_event_id(id).is_some_and(|(_, identity)| identity == own);
    if made { own } else { Identity::named(source, id) }
}

/// What events have in common that differ in id, time and data alone.
struct Like<'a> {
    likeness: Likeness,
    siblings: Siblings<'a>,
    source: String,
    slug: String,
    /// Of the ordering key, if they have one.
    hash_slot: Option<HashSlot>,
}

impl<'a> Like<'a> {
    fn of(line: &'a [u8], event: &EventView<'a>) -> Option<Self> {
        let siblings = Siblings::of(line, event)?;
        Some(Self {
            likeness: siblings.likeness(),
            siblings,
            source: event.source().to_owned(),
            slug: slug_of(event.type_()),
            hash_slot: event.ordering_key().map(HashSlot::of),
        })
    }

    /// The name of a line that is such an event, and its hash slot.
    fn name(&self, line: &[u8], time: EventTime, own: impl Fn() -> Identity) -> Option<(EventName, HashSlot)> {
        let identity = identity(own, &self.source, self.siblings.id(line)?);
        let hash_slot = self.hash_slot.unwrap_or_else(|| HashSlot::of(identity.as_str()));
        Some((EventName::of_slug(time, hash_slot, &identity, &self.slug), hash_slot))
    }
}

/// A line of a segment.
#[derive(Debug)]
struct Line {
    name: EventName,
    hash_slot: HashSlot,
    range: Range<usize>,
    is_event: bool,
    likeness: Option<Likeness>,
}

/// The document of an event that lies in a segment.
#[derive(Debug)]
pub(crate) struct Document {
    pub bytes: Bytes,
    /// Whether it was read as an event already, to which the name belongs.
    pub is_event: bool,
    /// That of the lines around it, if it is like them.
    pub likeness: Option<Likeness>,
}

impl Segment {
    /// Reads a segment. All names follow from its key and its lines. A line that is no event, or is
    /// missing, has a name all the same, and is dead at once where it is run.
    pub fn expand(key: &SegmentParts<'_>, bytes: Vec<u8>) -> Self {
        let (first, len) = (key.first(), usize::from(key.len));
        let mut lines = Vec::with_capacity(len);
        let mut begin = 0;
        // Most lines are like the one before but for id, time and data.
        let mut like: Option<Like<'_>> = None;
        for at in 0..len {
            let rest = &bytes[begin..];
            // As a single object has it, with the line feed at its end.
            let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let range = begin..begin + line;
            begin = range.end;
            let time = EventTime::from_micros(first.as_micros() + i64::try_from(at).unwrap_or(0));
            let own = || key.identity(u16::try_from(at).unwrap_or(u16::MAX));
            let text = &bytes[range.clone()];
            let told = like.as_ref().and_then(|like| Some((like.name(text, time, own)?, like.likeness)));
            if let Some(((name, hash_slot), likeness)) = told {
                lines.push(Line { name, hash_slot, range, is_event: true, likeness: Some(likeness) });
                continue;
            }
            like = None;
            let event = EventView::parse(text, usize::MAX);
            let is_event = event.is_ok();
            let (name, hash_slot) = match event {
                Ok(event) => {
                    let identity = identity(own, event.source(), event.id());
                    let hash_slot = event.hash_slot(&identity);
                    let name = EventName::new(time, hash_slot, &identity, event.type_());
                    like = Like::of(text, &event);
                    (name, hash_slot)
                }
                Err(_) => {
                    let identity = Identity::named(key.nonce, &at.to_string());
                    let hash_slot = HashSlot::of(identity.as_str());
                    (EventName::of_slug(time, hash_slot, &identity, key.slug), hash_slot)
                }
            };
            let likeness = like.as_ref().map(|like| like.likeness);
            lines.push(Line { name, hash_slot, range, is_event, likeness });
        }
        let surplus = bytes[begin..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        Self { first, bytes: bytes.into(), lines, surplus }
    }

    /// The names of its events, ascending.
    pub fn names(&self) -> impl Iterator<Item = &EventName> {
        self.lines.iter().map(|line| &line.name)
    }

    /// Its events behind a position, ascending: their names, and what these say.
    pub fn behind<'a>(&'a self, after: &'a Position) -> impl Iterator<Item = (&'a EventName, NameParts<'a>)> {
        let passed = after.time().as_micros() - self.first.as_micros();
        // Of the position's own time, a name decides.
        let first = usize::try_from(passed).unwrap_or(0).min(self.lines.len());
        let times = (self.first.as_micros()..).map(EventTime::from_micros);
        let lines = self.lines.iter().zip(times).skip(first).skip_while(|(line, _)| after.covers(&line.name));
        lines.map(|(Line { name, hash_slot, .. }, time)| {
            (name, NameParts { time, hash_slot: *hash_slot, identity: name.identity(), slug: name.slug() })
        })
    }

    /// Its events with their documents, ascending.
    pub fn documents(&self) -> impl Iterator<Item = (EventName, Bytes)> {
        self.lines.iter().map(|line| (line.name.clone(), self.bytes.slice(line.range.clone())))
    }

    /// The document of an event, if it is one of these.
    pub fn document(&self, name: &EventName) -> Option<Document> {
        let at = usize::try_from(name.time().as_micros() - self.first.as_micros()).ok()?;
        let line = self.lines.get(at).filter(|line| line.name == *name)?;
        let Line { range, is_event, likeness, .. } = line;
        Some(Document { bytes: self.bytes.slice(range.clone()), is_event: *is_event, likeness: *likeness })
    }

    /// About how much memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.lines.len() * LINE_BYTES
    }
}

/// The segments that this process has read last. They never change, so that all groups and shards
/// share them.
#[derive(Debug)]
pub struct SegmentCache {
    state: RefCell<CacheState>,
    /// One segment is expanded at a time, however many shards read: a worker leaves the other
    /// processors to its handlers.
    expansions: Semaphore,
}

impl Default for SegmentCache {
    fn default() -> Self {
        Self { state: RefCell::default(), expansions: Semaphore::new(1) }
    }
}

#[derive(Debug, Default)]
struct CacheState {
    segments: HashMap<String, Rc<Segment>>,
    /// The keys of `segments`, the one that was used last at the end.
    used: VecDeque<String>,
    bytes: usize,
    /// Keys that were read, the newest of them: they sort by time.
    known: BTreeSet<String>,
    /// Segments that are being read: the shards of a group look for the same ones at once.
    reading: HashMap<String, Rc<Notify>>,
    /// The segment that a document was found in last: the next is most likely there.
    recent: Option<Rc<Segment>>,
}

/// The end of a read, or of the task that has begun it.
struct Reading<'a> {
    cache: &'a SegmentCache,
    key: &'a str,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.cache.state.borrow_mut().reading.remove(self.key) {
            waiting.notify_waiters();
        }
    }
}

impl SegmentCache {
    fn get(&self, key: &str) -> Option<Rc<Segment>> {
        let mut state = self.state.borrow_mut();
        let found = state.segments.get(key).cloned()?;
        if state.used.back().is_none_or(|last| last != key)
            && let Some(at) = state.used.iter().position(|used| used == key)
            && let Some(key) = state.used.remove(at)
        {
            state.used.push_back(key);
        }
        Some(found)
    }

    /// The document of an event of a segment that is in memory.
    pub(crate) fn document(&self, name: &EventName) -> Option<Document> {
        let recent = |state: &CacheState| state.recent.as_ref().and_then(|segment| segment.document(name));
        if let Some(found) = recent(&self.state.borrow()) {
            return Some(found);
        }
        let segments = self.spanning(name.time()).into_iter().filter_map(|key| self.get(&key));
        let (found, segment) = segments.filter_map(|segment| Some((segment.document(name)?, segment))).next()?;
        self.state.borrow_mut().recent = Some(segment);
        Some(found)
    }

    /// Waits until no other task reads a segment; then this task is to read it.
    async fn begin<'a>(&'a self, key: &'a str) -> Reading<'a> {
        loop {
            let other = self.state.borrow().reading.get(key).cloned();
            let Some(other) = other else { break };
            other.notified().await;
        }
        self.state.borrow_mut().reading.insert(key.to_owned(), Rc::default());
        Reading { cache: self, key }
    }

    fn keep(&self, key: &str, segment: &Rc<Segment>) {
        let mut state = self.state.borrow_mut();
        if state.segments.insert(key.to_owned(), Rc::clone(segment)).is_none() {
            state.bytes += segment.memory();
            state.used.push_back(key.to_owned());
        }
        while state.bytes > CACHE_BYTES && state.used.len() > 1 {
            let Some(oldest) = state.used.pop_front() else { break };
            let freed = state.segments.remove(&oldest).map_or(0, |segment| segment.memory());
            state.bytes -= freed;
        }
        state.known.insert(key.to_owned());
        if state.known.len() > KNOWN_KEYS {
            // What is in memory stays known, however old it is.
            let oldest = state.known.iter().find(|key| !state.segments.contains_key(*key)).cloned();
            oldest.map(|key| state.known.remove(&key));
        }
    }

    fn forget(&self, key: &str) {
        let mut state = self.state.borrow_mut();
        state.known.remove(key);
        state.recent = None;
        if let Some(segment) = state.segments.remove(key) {
            state.bytes -= segment.memory();
            state.used.retain(|used| used != key);
        }
    }

    /// The keys of known segments that span a time.
    fn spanning(&self, time: EventTime) -> Vec<String> {
        let state = self.state.borrow();
        if state.known.is_empty() {
            return Vec::new();
        }
        let end = EventTime::from_micros(time.as_micros().saturating_add(SEGMENT_SPAN_MICROS));
        let keys = state.known.range(list_from(time)..list_from(end));
        keys.filter(|key| parse_segment_key(key).is_some_and(|parts| parts.spans(time))).cloned().collect()
    }
}

/// Reads a segment; none if it is gone. One that is no file, or too large for any, has no lines.
pub(crate) async fn read(bus: &BusHandle, key: &str) -> StoreResult<Option<Rc<Segment>>> {
    if let Some(found) = bus.segments.get(key) {
        return Ok(Some(found));
    }
    if parse_segment_key(key).is_none() {
        return Ok(None);
    }
    let _reading = bus.segments.begin(key).await;
    // Another shard may have read it meanwhile.
    if let Some(found) = bus.segments.get(key) {
        return Ok(Some(found));
    }
    let bytes = match bus.store.get_within(key, SEGMENT_MAX_BYTES).await {
        Ok(Some(object)) => object.bytes,
        Ok(None) => {
            bus.segments.forget(key);
            return Ok(None);
        }
        Err(error) if error.kind() == ErrorKind::Damaged => Vec::new(),
        Err(error) => return Err(error),
    };
    let segment = Rc::new(expand(bus, key, bytes).await?);
    bus.segments.keep(key, &segment);
    Ok(Some(segment))
}

/// [`Segment::expand`], where the store has long work done.
async fn expand(bus: &BusHandle, key: &str, bytes: Vec<u8>) -> StoreResult<Segment> {
    let _turn = bus.segments.expansions.acquire().await;
    let (key, (answer, mut answered)) = (key.to_owned(), oneshot::channel());
    // The caller may be gone by then.
    let work = move || _ = answer.send(parse_segment_key(&key).map(|parts| Segment::expand(&parts, bytes)));
    bus.store.compute(Box::new(work)).await;
    answered
        .try_recv()
        .ok()
        .flatten()
        .ok_or_else(|| StoreError::new(ErrorKind::Unavailable, "the thread that reads segments has ended"))
}

/// The document of an event that lies in a segment: in one that was read before or, with `search`,
/// in any that spans its time.
pub(super) async fn document(bus: &BusHandle, name: &EventName, search: bool) -> StoreResult<Option<Bytes>> {
    if let Some(found) = bus.segments.document(name) {
        return Ok(Some(found.bytes));
    }
    let keys = match search {
        false => bus.segments.spanning(name.time()),
        true => listed_spanning(bus, name.time()).await?,
    };
    for key in keys {
        if let Some(segment) = read(bus, &key).await?
            && let Some(document) = segment.document(name)
        {
            return Ok(Some(document.bytes));
        }
    }
    Ok(None)
}

async fn listed_spanning(bus: &BusHandle, time: EventTime) -> StoreResult<Vec<String>> {
    let end = EventTime::from_micros(time.as_micros().saturating_add(SEGMENT_SPAN_MICROS));
    let spans = move |key: &str| parse_segment_key(key).is_some_and(|parts| parts.spans(time));
    // A key behind the longest span ends the search: no segment behind it can begin early enough.
    let list = List::all(EVENTS)
        .after(list_from(time))
        .keep(move |key| spans(key) || ListedKey::parse(key).is_some_and(|parts| parts.last() >= end));
    let mut pager = Pager::of(16);
    let mut keys = Vec::new();
    while let Some(page) = pager.next(&*bus.store, list.clone()).await? {
        let more = page.iter().all(|key| spans(key));
        keys.extend(page.into_iter().filter(|key| spans(key)));
        if !more {
            break;
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{SegmentName, SegmentNonce};

    fn key(len: u16) -> String {
        let last = EventTime::parse("20261123T021500.000002Z").unwrap();
        SegmentName::new(last, &SegmentNonce::random(1, 2), "order.~", len).key()
    }

    fn expand(len: u16, bytes: &str) -> Segment {
        Segment::expand(&parse_segment_key(&key(len)).unwrap(), bytes.as_bytes().to_vec())
    }

    const LINE: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.paid","subject":"k"}"#;

    #[test]
    fn names_follow_from_the_lines() {
        let segment = expand(3, &format!("{LINE}\nnothing\n"));
        let names: Vec<&EventName> = segment.names().collect();
        assert_eq!(names[0].slug(), "order.paid");
        assert_eq!(names[0].identity(), Identity::named("/s", "1").as_str());
        assert_eq!(names[0].hash_slot(), HashSlot::of("k"));
        assert_eq!(names[0].time().to_string(), "20261123T021500.000000Z");
        // Neither what is no event nor what is missing is passed over.
        assert_eq!((names[1].slug(), names[2].slug()), ("order.~", "order.~"));
        assert_eq!(names[2].time().to_string(), "20261123T021500.000002Z");
        assert_ne!(names[1].identity(), names[2].identity());
        let document = |name| segment.document(name).map(|found| (found.bytes, found.is_event)).unwrap();
        assert_eq!(document(names[0]), (format!("{LINE}\n").into(), true));
        assert_eq!(document(names[1]), ("nothing\n".into(), false));
        assert_eq!(document(names[2]), ("".into(), false));
        assert!(segment.names().all(|name| EventName::parse(name.as_str()).is_some()));
    }

    #[test]
    fn a_name_of_another_event_is_not_found() {
        let segment = expand(2, &format!("{LINE}\n{LINE}\n"));
        let names: Vec<EventName> = segment.names().cloned().collect();
        let other = EventName::new(names[0].time(), names[0].hash_slot(), &Identity::named("/s", "2"), "order.paid");
        assert!(segment.document(&other).is_none());
        assert!(segment.document(&names[0].with_time(EventTime::MIN)).is_none());
    }

    #[test]
    fn lines_behind_the_last_are_counted() {
        assert_eq!(expand(2, &format!("{LINE}\n{LINE}\n{LINE}\nx")).surplus, 2);
        assert_eq!(expand(2, &format!("{LINE}\n{LINE}\n")).surplus, 0);
    }

    #[test]
    fn the_cache_forgets_what_was_used_longest_ago() {
        let cache = SegmentCache::default();
        let large = |n: u8| format!("{LINE}{}\n", " ".repeat((3 << 20) + usize::from(n)));
        let key =
            |n: i64| SegmentName::new(EventTime::from_micros(n * 1_000_000), &SegmentNonce::random(1, 2), "a", 2).key();
        for n in 0..3 {
            let parts = key(n);
            let segment = Segment::expand(&parse_segment_key(&parts).unwrap(), large(0).into_bytes());
            cache.keep(&parts, &Rc::new(segment));
            assert!(cache.get(&key(0)).is_some());
        }
        assert!(cache.get(&key(1)).is_none() && cache.get(&key(2)).is_some());
        assert_eq!(cache.spanning(EventTime::from_micros(1_000_000)), [key(1)], "its key is still known");
    }
}
