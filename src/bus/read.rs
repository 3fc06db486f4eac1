//! Reading the bus without belonging to a group.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::keys::list_from;
use super::look::{self, LookBounds, Wanted};
use super::{BusHandle, Position, segment};
use crate::event::{
    EVENTS, Event, EventName, EventTime, Identity, ListedKey, SEGMENT_SPAN_MICROS, SegmentNonce, TypeFilter, parse_key,
};
use crate::store::{LARGEST_BYTES, List, Pager, Store, StoreResult};

/// The file name at the end of an event's key.
pub fn name_in(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// The time of the newest event after `after` and not after `until`.
pub async fn newest_between(store: &dyn Store, after: EventTime, until: EventTime) -> StoreResult<Option<EventTime>> {
    let newest = Arc::new(AtomicI64::new(i64::MIN));
    let seen = Arc::clone(&newest);
    let list = List::all(EVENTS).after(list_from(after.next())).keep(move |key| {
        if let Some(parts) = ListedKey::parse(key)
            && parts.first() <= until
        {
            seen.fetch_max(parts.last().min(until).as_micros(), Ordering::Relaxed);
        }
        false
    });
    store.list_after(list).await?;
    let micros = newest.load(Ordering::Relaxed);
    Ok((micros != i64::MIN).then(|| EventTime::from_micros(micros)))
}

/// A span of events.
#[derive(Debug, Clone)]
pub struct Range {
    /// From this time on.
    pub since: EventTime,
    /// Up to and with this time.
    pub until: EventTime,
    /// Only events whose types match; a type that the name does not tell whole is included.
    pub filter: TypeFilter,
}

impl Range {
    fn wanted(&self) -> Wanted {
        Wanted { until: self.until, ..Wanted::of(self.filter.clone()) }
    }

    /// Behind everything before it.
    fn start(&self) -> Position {
        match self.since {
            EventTime::MIN => Position::START,
            since => Position::Time(EventTime::from_micros(since.as_micros() - 1)),
        }
    }
}

/// The first names in a range, ascending, about `limit` of them, and whether there are more.
pub async fn names(bus: &BusHandle, range: &Range, limit: usize) -> StoreResult<(Vec<EventName>, bool)> {
    let mut pages = NamePages::of(bus, range).of_len(limit);
    let names = pages.next().await?.unwrap_or_default();
    Ok((names, pages.after.is_some()))
}

fn parsed(keys: &[String]) -> Vec<EventName> {
    keys.iter().filter_map(|key| EventName::from_key(key)).collect()
}

/// The names in a range, ascending, page by page.
pub struct NamePages<'a> {
    bus: &'a BusHandle,
    range: &'a Range,
    len: usize,
    /// Where the next page begins; none behind the last.
    after: Option<Position>,
}

impl<'a> NamePages<'a> {
    /// From the beginning of the range.
    pub fn of(bus: &'a BusHandle, range: &'a Range) -> Self {
        Self { bus, range, len: 1_000, after: Some(range.start()) }
    }

    /// The same, in pages of at most `len` names.
    #[must_use]
    pub fn of_len(self, len: usize) -> Self {
        Self { len, ..self }
    }

    /// The next page, which may hold no name; none behind the last.
    ///
    /// # Errors
    /// Of the store; also if a segment of the page cannot be read.
    pub async fn next(&mut self) -> StoreResult<Option<Vec<EventName>>> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let bounds = LookBounds { window: self.len, reads: look::READS };
        let found = look::look(self.bus, &after, &self.range.wanted(), bounds, &look::nothing()).await?;
        if let Some((_, error)) = found.barrier {
            return Err(error);
        }
        self.after = found.end;
        Ok(Some(found.names))
    }
}

/// The document of an event, if it is there and not larger than `limit`, in bytes: a single object,
/// or a line of a segment.
pub async fn document(bus: &BusHandle, name: &EventName, limit: usize) -> StoreResult<Option<Bytes>> {
    // Where the name was listed, if it was in a segment: a single object of this name would be
    // another emitter's, by chance of 70 bits.
    if let Some(document) = segment::document(bus, name, false).await? {
        return Ok(Some(document));
    }
    if let Some(object) = bus.store.get_within(&name.key(), limit).await? {
        return Ok(Some(object.bytes.into()));
    }
    segment::document(bus, name, true).await
}

/// How many events a range holds, and the time of the oldest. A segment that holds some of them
/// counts whole.
pub async fn count(store: &dyn Store, range: &Range) -> StoreResult<(u64, Option<EventTime>)> {
    let tally = Arc::new((std::sync::atomic::AtomicU64::new(0), AtomicI64::new(i64::MAX)));
    let (seen, wanted) = (Arc::clone(&tally), range.wanted());
    let list = List::all(EVENTS).after(list_from(range.since)).keep(move |key| {
        if let Some(parts) = ListedKey::parse(key).filter(|parts| wanted.key(parts).1) {
            seen.0.fetch_add(parts.event_count(), Ordering::Relaxed);
            seen.1.fetch_min(parts.first().as_micros(), Ordering::Relaxed);
        }
        false
    });
    store.list_after(list).await?;
    let oldest = tally.1.load(Ordering::Relaxed);
    Ok((tally.0.load(Ordering::Relaxed), (oldest != i64::MAX).then(|| EventTime::from_micros(oldest))))
}

/// The events whose id begins with `prefix`: found by the time at the start of an id that evbus has
/// made, else by the identity of a named id, for each source that `sources` names.
pub async fn find(bus: &BusHandle, prefix: &str, limit: usize) -> StoreResult<Vec<EventName>> {
    let Some((from, until)) = id_span(prefix) else { return Ok(Vec::new()) };
    let typed = prefix.get(16..).unwrap_or("").to_owned();
    let tells_more = typed.len() >= Identity::LEN / 2;
    // An event that came too late was put again under a later time: its id kept its first time.
    let spans = [Some(until), None];
    for until in spans.into_iter().take(if tells_more { 2 } else { 1 }) {
        let mut found = matching(&*bus.store, from, until, typed.clone(), limit).await?;
        // The first events of a segment may lie just before the second of their ids.
        let least = from.minus(Duration::from_micros(SEGMENT_SPAN_MICROS.unsigned_abs()));
        let within = |name: &EventName| name.time() >= least && until.is_none_or(|until| name.time() <= until);
        found.extend(in_segments(bus, &typed, (from, until), limit, within).await?);
        if !found.is_empty() {
            found.sort();
            found.truncate(limit);
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The events in segments, from a time on, whose ids evbus has made and whose identities begin with
/// `typed`: their segments' names tell most of it.
async fn in_segments(
    bus: &BusHandle,
    typed: &str,
    (from, until): (EventTime, Option<EventTime>),
    limit: usize,
    within: impl Fn(&EventName) -> bool,
) -> StoreResult<Vec<EventName>> {
    let nonce = typed.get(..typed.len().min(SegmentNonce::ID_LEN)).unwrap_or(typed).to_owned();
    let list = List::all(EVENTS).after(list_from(from)).keep(move |key| match ListedKey::parse(key) {
        Some(ListedKey::Segment(parts)) => {
            parts.nonce.starts_with(&nonce) && until.is_none_or(|until| parts.first() <= until)
        }
        _ => false,
    });
    let mut pager = Pager::of(100);
    let mut found = Vec::new();
    while let Some(keys) = pager.next(&*bus.store, list.clone()).await? {
        for key in keys {
            let Some(segment) = segment::read(bus, &key).await? else { continue };
            let found_here = segment.names().filter(|name| name.identity().starts_with(typed) && within(name));
            found.extend(found_here.cloned());
            if found.len() >= limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

async fn matching(
    store: &dyn Store,
    from: EventTime,
    until: Option<EventTime>,
    identity_prefix: String,
    limit: usize,
) -> StoreResult<Vec<EventName>> {
    let list = List::all(EVENTS).after(list_from(from)).limit(limit).keep(move |key| {
        parse_key(key).is_some_and(|parts| {
            until.is_none_or(|until| parts.time <= until) && parts.identity.starts_with(&identity_prefix)
        })
    });
    Ok(parsed(&store.list_after(list).await?.keys))
}

/// The newest `limit` names of a range, ascending, and whether there are more before them. Looks at the last minute
/// before `now` first, then further and further back.
pub async fn newest(
    bus: &BusHandle,
    range: &Range,
    limit: usize,
    now: EventTime,
) -> StoreResult<(Vec<EventName>, bool)> {
    let spans = [60, 3_600, 86_400, 30 * 86_400].map(|seconds| now.minus(Duration::from_secs(seconds)));
    for since in spans.into_iter().filter(|since| *since > range.since).chain([range.since]) {
        let names = largest(bus, &Range { since, ..range.clone() }, limit.saturating_add(1)).await?;
        if names.len() > limit || since == range.since {
            let more = names.len() > limit;
            return Ok((names.into_iter().skip(usize::from(more)).collect(), more));
        }
    }
    Ok((Vec::new(), false))
}

/// What [`largest`] keeps of a listing.
#[derive(Default)]
struct Largest {
    names: BTreeSet<EventName>,
    /// The keys of segments.
    segments: BTreeSet<String>,
}

/// The `limit` greatest names of a range, ascending; no more single names than that are in memory.
async fn largest(bus: &BusHandle, range: &Range, limit: usize) -> StoreResult<Vec<EventName>> {
    let kept: Arc<Mutex<Largest>> = Arc::default();
    let wanted = range.wanted();
    let (seen, within) = (Arc::clone(&kept), wanted.clone());
    let list = List::all(EVENTS).after(list_from(range.since)).keep(move |key| {
        let Some(parts) = ListedKey::parse(key).filter(|parts| within.key(parts).1) else { return false };
        let mut kept = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match parts {
            ListedKey::Segment(_) => {
                kept.segments.insert(key.to_owned());
            }
            ListedKey::Event(_) => {
                kept.names.extend(EventName::from_key(key));
                if kept.names.len() > limit {
                    kept.names.pop_first();
                }
            }
        }
        false
    });
    bus.store.list_after(list).await?;
    let Largest { mut names, segments } = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
    // The newest segments first, until none can hold a name that is greater than those kept.
    for key in segments.iter().rev() {
        let last = ListedKey::parse(key).map_or(EventTime::MAX, |parts| parts.last());
        if names.len() == limit && names.first().is_none_or(|first| first.time() > last) {
            break;
        }
        let Some(segment) = segment::read(bus, key).await? else { continue };
        let start = range.start();
        names.extend(segment.behind(&start).filter(|(_, parts)| wanted.event(parts).1).map(|(name, _)| name.clone()));
        while names.len() > limit {
            names.pop_first();
        }
    }
    Ok(names.into_iter().collect())
}

/// The first `limit` events whose id, as evbus makes it, begins with `prefix`, however short that is.
pub async fn with_id_prefix(bus: &BusHandle, prefix: &str, limit: usize) -> StoreResult<Vec<EventName>> {
    let wanted = prefix.to_owned();
    let list = List::all(EVENTS).limit(limit).keep(move |key| {
        parse_key(key)
            .is_some_and(|parts| format!("{}-{}", parts.time.seconds_text(), parts.identity).starts_with(&wanted))
    });
    let mut found = parsed(&bus.store.list_after(list).await?.keys);
    let begins_so = |name: &EventName| name.time().seconds_text().starts_with(prefix);
    found.extend(in_segments(bus, "", (EventTime::MIN, None), limit, begins_so).await?);
    found.sort();
    found.truncate(limit);
    Ok(found)
}

/// The single events with an identity, wherever they lie.
pub async fn with_identity(store: &dyn Store, identity: &Identity) -> StoreResult<Vec<EventName>> {
    matching(store, EventTime::MIN, None, identity.to_string(), usize::MAX).await
}

/// Whether an event with this identity is in a segment from a time on, in which its emitter has put
/// it again: a segment that is put again keeps its nonce, which the identity begins with.
pub async fn is_in_later_segment(bus: &BusHandle, identity: &str, from: EventTime) -> StoreResult<bool> {
    let found = in_segments(bus, identity, (from, None), 1, |_| true).await?;
    Ok(!found.is_empty())
}

/// When an event says that it happened, if it is there and says so.
pub async fn happened_at(bus: &BusHandle, name: &EventName) -> StoreResult<Option<EventTime>> {
    let found = document(bus, name, LARGEST_BYTES).await?;
    Ok(found.and_then(|bytes| Event::parse(&bytes, usize::MAX).ok()).and_then(|event| event.occurred_at()))
}

/// When the newest event at a key says that it happened, if it is there and says so.
pub async fn newest_happened_at(bus: &BusHandle, key: &str) -> StoreResult<Option<EventTime>> {
    let name = match ListedKey::parse(key) {
        Some(ListedKey::Segment(_)) => {
            segment::read(bus, key).await?.and_then(|segment| segment.names().last().cloned())
        }
        _ => EventName::from_key(key),
    };
    match name {
        Some(name) => happened_at(bus, &name).await,
        None => Ok(None),
    }
}

/// The span of times that a prefix of an id allows: `20261123T0215` means that minute.
fn id_span(prefix: &str) -> Option<(EventTime, EventTime)> {
    let digits: String = prefix.chars().take(15).collect();
    let well_formed = digits.char_indices().all(|(at, c)| if at == 8 { c == 'T' } else { c.is_ascii_digit() });
    if digits.len() < 8 || !well_formed || prefix.chars().nth(15).is_some_and(|c| c != '-') {
        return None;
    }
    let fill = |rest: &str| EventTime::parse_seconds(&format!("{digits}{}", &rest[digits.len()..]));
    let first = fill("00000000T000000")?;
    let last = fill("00000000T235959").or_else(|| fill("00000000T195959")).or_else(|| fill("00000000T095959"))?;
    Some((first, EventTime::from_micros(last.as_micros() + 999_999)))
}
