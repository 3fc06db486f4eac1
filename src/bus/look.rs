//! A look: what lies on the bus behind a position, event by event, whether it lies there as a single
//! object or in a segment.
//!
//! A segment is listed by the time of its last event, so that one that was not listed, or not read,
//! may begin up to [`SEGMENT_SPAN_MICROS`] before its key: a look that does not reach the end of the
//! bus knows nothing from there on.

use std::sync::Arc;

use bytes::Bytes;

use super::position::Position;
use super::segment::CACHE_BYTES;
use super::{BusHandle, segment};
use crate::event::{
    EVENTS, EventName, EventTime, ListedKey, NameMatch, NameParts, SEGMENT_SPAN_MICROS, SegmentParts, TypeFilter,
};
use crate::store::{ErrorKind, List, StoreError, StoreResult};

/// The most segments that one look reads, if it can end at all before it has read more.
pub const READS: usize = 128;

/// A look that has read so much of segments ends as soon as it has [`ENOUGH`] names: what the events are
/// read from, and what other shards look at next, is then still in memory.
const READ_BYTES: usize = CACHE_BYTES / 2;

/// How many names are worth a look.
const ENOUGH: usize = 500;

/// Which events to look for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// By their types; a type that the name does not tell whole is wanted.
    pub filter: TypeFilter,
    /// Only events of this shard, of so many.
    pub shard: Option<(u16, u16)>,
    /// Only events up to and with this time.
    pub until: EventTime,
}

impl Wanted {
    /// All events of these types.
    pub fn of(filter: TypeFilter) -> Self {
        Self { filter, shard: None, until: EventTime::MAX }
    }

    /// Whether an event is wanted, by its type alone and in all.
    pub(super) fn event(&self, event: &NameParts<'_>) -> (bool, bool) {
        let here =
            event.time <= self.until && self.shard.is_none_or(|(shard, shards)| event.hash_slot.shard(shards) == shard);
        let wanted = self.filter.matches_slug(event.slug) != NameMatch::No;
        (!here || wanted, here && wanted)
    }

    /// The same of a segment, as far as its name tells.
    fn segment(&self, segment: &SegmentParts<'_>) -> (bool, bool) {
        let here = segment.first() <= self.until;
        let wanted = self.filter.matches_segment(segment.slug) != NameMatch::No;
        (!here || wanted, here && wanted)
    }

    /// The same of a key.
    pub fn key(&self, key: &ListedKey<'_>) -> (bool, bool) {
        match key {
            ListedKey::Event(event) => self.event(event),
            ListedKey::Segment(segment) => self.segment(segment),
        }
    }
}

/// Sees every key of a listing, in any order, perhaps on another thread; `unwanted`: its type is not
/// wanted.
pub type Observer = Arc<dyn Fn(&str, Option<&ListedKey<'_>>, bool) + Send + Sync>;

/// An observer that does nothing.
pub fn nothing() -> Observer {
    Arc::new(|_, _, _| {})
}

/// How much a look takes in.
#[derive(Debug, Clone, Copy)]
pub struct LookBounds {
    /// The most names.
    pub window: usize,
    /// The most segments that are read, if the look can end before it has read more.
    pub reads: usize,
}

/// A segment that a look has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Its key.
    pub key: Box<str>,
    /// The time of its first event.
    pub first: EventTime,
    /// The time of its last event.
    pub last: EventTime,
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Look {
    /// The wanted names, ascending.
    pub names: Vec<EventName>,
    /// Behind this nothing is known; none if everything is.
    pub end: Option<Position>,
    /// The first segment that cannot be read now: its first time, and why.
    pub barrier: Option<(EventTime, StoreError)>,
    /// Whether there was an event in a segment whose type is not wanted.
    pub unwanted: bool,
    /// The segments that were read.
    pub segments: Vec<SegmentSpan>,
    /// A segment with more lines than its name counts.
    pub surplus: Option<String>,
}

/// The names that a look keeps: the smallest of all, at most a window.
struct Kept {
    /// Ascending.
    names: Vec<EventName>,
    window: usize,
    dropped: bool,
}

impl Kept {
    fn add(&mut self, name: EventName) {
        // Nearly all come in order.
        match self.names.last().is_none_or(|last| *last < name) {
            true => self.names.push(name),
            false => match self.names.binary_search(&name) {
                Ok(_) => return,
                Err(at) => self.names.insert(at, name),
            },
        }
        if self.names.len() > self.window {
            self.names.pop();
            self.dropped = true;
        }
    }

    /// Whether at least half a window lies at or before a position.
    fn is_half_full_at(&self, end: &Position) -> bool {
        self.has(self.window / 2, end)
    }

    /// Whether so many names lie at or before a position.
    fn has(&self, count: usize, end: &Position) -> bool {
        self.names.get(count.max(1) - 1).is_some_and(|name| end.covers(name))
    }
}

/// What is known whole when `last` is the time of the last key that was listed and read.
fn known_until(last: EventTime) -> Position {
    Position::Time(EventTime::from_micros(last.as_micros().saturating_sub(SEGMENT_SPAN_MICROS)))
}

/// The key to list after, so that a segment is listed that the position has passed a part of.
pub fn list_after(after: &Position) -> String {
    match after {
        Position::Time(_) => after.list_after(),
        // All of its time: a segment's key does not sort as the names of its events do.
        Position::Name(name) => {
            Position::Time(EventTime::from_micros(name.time().as_micros().saturating_sub(1))).list_after()
        }
    }
}

/// Looks for the first wanted names behind a position.
///
/// # Errors
/// The store does not answer. What cannot be read otherwise is a barrier.
pub async fn look(
    bus: &BusHandle,
    after: &Position,
    wanted: &Wanted,
    bounds: LookBounds,
    observer: &Observer,
) -> StoreResult<Look> {
    let mut found = Look::default();
    let mut kept = Kept { names: Vec::new(), window: bounds.window, dropped: false };
    let mut from = list_after(after);
    // Where the look ended before the list did: what is known until there.
    let mut known = None;
    let (mut reads, mut read_bytes) = (0, 0);
    'pages: loop {
        let (within, position, seen) = (wanted.clone(), after.clone(), Arc::clone(observer));
        let list = List::all(EVENTS).after(from).limit(bounds.window).keep(move |key| {
            let parsed = ListedKey::parse(key);
            let (wanted_type, wanted) = parsed.as_ref().map_or((true, false), |parsed| within.key(parsed));
            let passed = match &parsed {
                // A listing after a name shows all of its time.
                Some(ListedKey::Event(event)) if event.time <= position.time() => {
                    EventName::from_key(key).is_some_and(|name| position.covers(&name))
                }
                _ => false,
            };
            if !passed {
                seen(key, parsed.as_ref(), !wanted_type);
            }
            wanted && !passed
        });
        let page = bus.store.list_after(list).await?;
        let mut last = None;
        for key in &page.keys {
            let Some(parsed) = ListedKey::parse(key) else { continue };
            let ListedKey::Segment(parts) = parsed else {
                if let Some(name) = EventName::from_key(key) {
                    kept.add(name);
                }
                last = Some(parsed.last());
                continue;
            };
            if reads >= bounds.reads && known_until(parts.last) > *after {
                known = Some(known_until(parts.last));
                break 'pages;
            }
            reads += 1;
            last = Some(parts.last);
            match segment::read(bus, key).await {
                Ok(None) => continue,
                Ok(Some(segment)) => {
                    take(&segment, after, wanted, &mut kept, &mut found);
                    read_bytes += segment.memory();
                    if segment.surplus > 0 {
                        found.surplus.get_or_insert_with(|| key.clone());
                    }
                    found.segments.push(SegmentSpan { key: (**key).into(), first: parts.first(), last: parts.last });
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    if found.barrier.as_ref().is_none_or(|(first, _)| parts.first() < *first) {
                        found.barrier = Some((parts.first(), error));
                    }
                }
            }
            // More is listed than fits, or more was read: what is known whole is enough.
            let here = known_until(parts.last);
            let read_enough = read_bytes > READ_BYTES && kept.has(ENOUGH.min(kept.window / 2), &here);
            if read_enough || (kept.dropped && kept.is_half_full_at(&here)) {
                known = Some(here);
                break 'pages;
            }
        }
        let Some(last) = last.filter(|_| page.is_truncated) else { break };
        if kept.is_half_full_at(&known_until(last)) {
            known = Some(known_until(last));
            break;
        }
        from = page.keys.last().cloned().unwrap_or_default();
    }
    let largest = kept.names.last().filter(|_| kept.dropped).map(|name| Position::Name(name.clone()));
    found.end = [known, largest].into_iter().flatten().min();
    found.names = match &found.end {
        Some(end) => kept.names.into_iter().take_while(|name| end.covers(name)).collect(),
        None => kept.names,
    };
    Ok(found)
}

/// The wanted names in a segment, ascending; none if it is gone, or cannot be read.
///
/// # Errors
/// The store does not answer.
pub async fn names_in_segment(bus: &BusHandle, key: &str, wanted: &Wanted) -> StoreResult<Vec<EventName>> {
    match segment::read(bus, key).await {
        Ok(None) => Ok(Vec::new()),
        Ok(Some(segment)) => {
            let wanted = segment.behind(&Position::START).filter(|(_, parts)| wanted.event(parts).1);
            Ok(wanted.map(|(name, _)| name.clone()).collect())
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        Err(_) => Ok(Vec::new()),
    }
}

/// The names of all events at a key: of one, or of a segment's.
pub fn names_at(key: &str, bytes: &[u8]) -> Vec<EventName> {
    match ListedKey::parse(key) {
        Some(ListedKey::Segment(parts)) => segment::Segment::expand(&parts, bytes.to_vec()).names().cloned().collect(),
        Some(ListedKey::Event(_)) => EventName::from_key(key).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The events at a key with their documents: one, or a segment's; none if it is foreign, or has lines
/// that are no event of it.
pub fn documents_at(key: &str, bytes: Vec<u8>) -> Option<Vec<(EventName, Bytes)>> {
    match ListedKey::parse(key)? {
        ListedKey::Segment(parts) => {
            let segment = segment::Segment::expand(&parts, bytes);
            (segment.surplus == 0).then(|| segment.documents().collect())
        }
        ListedKey::Event(_) => Some(vec![(EventName::from_key(key)?, bytes.into())]),
    }
}

/// Takes in the events of a segment that are wanted and not passed.
fn take(segment: &segment::Segment, after: &Position, wanted: &Wanted, kept: &mut Kept, found: &mut Look) {
    for (name, parts) in segment.behind(after) {
        let (wanted_type, wanted) = wanted.event(&parts);
        found.unwanted |= !wanted_type;
        if wanted {
            kept.add(name.clone());
        }
    }
}
