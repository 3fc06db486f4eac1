//! Reading the bus without belonging to a group.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event::{
    EVENTS, Event, EventName, EventTime, Identity, NameMatch, NameParts, TypeFilter, minute_folder, parse_event_id,
    parse_key,
};
use crate::store::{List, Pager, Store, StoreResult};

/// The file name at the end of an event's key.
pub fn name_in(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// The key to list after for everything at or after `time`.
pub fn list_from(time: EventTime) -> String {
    // '-' follows the time in every name, and nothing sorts between a time and the same time with '-'.
    format!("{}{time}", minute_folder(time))
}

/// The time of the newest event after `after` and not after `until`.
pub async fn newest_between(store: &dyn Store, after: EventTime, until: EventTime) -> StoreResult<Option<EventTime>> {
    let newest = Arc::new(AtomicI64::new(i64::MIN));
    let seen = Arc::clone(&newest);
    let list = List::all(EVENTS).after(list_from(after.next())).keep(move |key| {
        if let Some(parts) = parse_key(key)
            && parts.time <= until
        {
            seen.fetch_max(parts.time.as_micros(), Ordering::Relaxed);
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
    /// Its events, as far as their names tell.
    fn list(&self) -> List {
        let range = self.clone();
        List::all(EVENTS)
            .after(list_from(self.since))
            .keep(move |key| parse_key(key).is_some_and(|parts| range.may_include(&parts)))
    }

    /// Whether a name behind `since` may be in the range.
    fn may_include(&self, parts: &NameParts<'_>) -> bool {
        parts.time <= self.until && self.filter.matches_slug(parts.slug) != NameMatch::No
    }
}

/// The first `limit` names in a range, ascending, and whether there are more.
pub async fn names(store: &dyn Store, range: &Range, limit: usize) -> StoreResult<(Vec<EventName>, bool)> {
    let page = store.list_after(range.list().limit(limit)).await?;
    Ok((parsed(&page.keys), page.is_truncated))
}

fn parsed(keys: &[String]) -> Vec<EventName> {
    keys.iter().filter_map(|key| EventName::from_key(key)).collect()
}

/// The names in a range, ascending, page by page.
pub struct NamePages<'a> {
    store: &'a dyn Store,
    range: &'a Range,
    pager: Pager,
}

impl<'a> NamePages<'a> {
    /// From the beginning of the range.
    pub fn of(store: &'a dyn Store, range: &'a Range) -> Self {
        Self { store, range, pager: Pager::default() }
    }

    /// The same, in pages of at most `len` names.
    #[must_use]
    pub fn of_len(self, len: usize) -> Self {
        Self { pager: Pager::of(len), ..self }
    }

    /// The next page; none behind the last.
    pub async fn next(&mut self) -> StoreResult<Option<Vec<EventName>>> {
        let keys = self.pager.next(self.store, self.range.list()).await?;
        Ok(keys.map(|keys| parsed(&keys)))
    }
}

/// How many events the bus holds, and the time of the oldest.
pub async fn count(store: &dyn Store, range: &Range) -> StoreResult<(u64, Option<EventTime>)> {
    let tally = Arc::new((std::sync::atomic::AtomicU64::new(0), AtomicI64::new(i64::MAX)));
    let (seen, wanted) = (Arc::clone(&tally), range.clone());
    let list = List::all(EVENTS).after(list_from(range.since)).keep(move |key| {
        if let Some(parts) = parse_key(key).filter(|parts| wanted.may_include(parts)) {
            seen.0.fetch_add(1, Ordering::Relaxed);
            seen.1.fetch_min(parts.time.as_micros(), Ordering::Relaxed);
        }
        false
    });
    store.list_after(list).await?;
    let oldest = tally.1.load(Ordering::Relaxed);
    Ok((tally.0.load(Ordering::Relaxed), (oldest != i64::MAX).then(|| EventTime::from_micros(oldest))))
}

/// The events whose id begins with `prefix`: found by the time at the start of an id that evbus has
/// made, else by the identity of a named id, for each source that `sources` names.
pub async fn find(store: &dyn Store, prefix: &str, limit: usize) -> StoreResult<Vec<EventName>> {
    let Some((from, until)) = id_span(prefix) else { return Ok(Vec::new()) };
    let identity = parse_event_id(prefix).map(|(_, identity)| identity);
    let typed = prefix.get(16..).unwrap_or("").to_owned();
    let found = matching(store, from, Some(until), typed.clone(), limit).await?;
    if !found.is_empty() || identity.is_none() {
        return Ok(found);
    }
    // An event that came too late was put again under a later time: its id kept its first time.
    matching(store, from, None, typed, limit).await
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
    store: &dyn Store,
    range: &Range,
    limit: usize,
    now: EventTime,
) -> StoreResult<(Vec<EventName>, bool)> {
    let spans = [60, 3_600, 86_400, 30 * 86_400].map(|seconds| now.minus(Duration::from_secs(seconds)));
    for since in spans.into_iter().filter(|since| *since > range.since).chain([range.since]) {
        let names = largest(store, &Range { since, ..range.clone() }, limit.saturating_add(1)).await?;
        if names.len() > limit || since == range.since {
            let more = names.len() > limit;
            return Ok((names.into_iter().skip(usize::from(more)).collect(), more));
        }
    }
    Ok((Vec::new(), false))
}

/// The `limit` greatest names of a range, ascending; no more than that are in memory.
async fn largest(store: &dyn Store, range: &Range, limit: usize) -> StoreResult<Vec<EventName>> {
    let kept: Arc<Mutex<BTreeSet<EventName>>> = Arc::default();
    let (seen, within) = (Arc::clone(&kept), range.clone());
    let list = List::all(EVENTS).after(list_from(range.since)).keep(move |key| {
        let wanted = parse_key(key).is_some_and(|parts| within.may_include(&parts));
        if let Some(name) = wanted.then(|| EventName::from_key(key)).flatten() {
            let mut kept = seen.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(name);
            if kept.len() > limit {
                kept.pop_first();
            }
        }
        false
    });
    store.list_after(list).await?;
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *kept).into_iter().collect())
}

/// The first `limit` events whose id, as evbus makes it, begins with `prefix`, however short that is.
pub async fn with_id_prefix(store: &dyn Store, prefix: &str, limit: usize) -> StoreResult<Vec<EventName>> {
    let wanted = prefix.to_owned();
    let list = List::all(EVENTS).limit(limit).keep(move |key| {
        parse_key(key)
            .is_some_and(|parts| format!("{}-{}", parts.time.seconds_text(), parts.identity).starts_with(&wanted))
    });
    Ok(parsed(&store.list_after(list).await?.keys))
}

/// The events with an identity, wherever they lie.
pub async fn with_identity(store: &dyn Store, identity: &Identity) -> StoreResult<Vec<EventName>> {
    matching(store, EventTime::MIN, None, identity.to_string(), usize::MAX).await
}

/// When an event says that it happened, if it is there and says so.
pub async fn happened_at(store: &dyn Store, name: &EventName) -> StoreResult<Option<EventTime>> {
    let found = store.get_within(&name.key(), crate::store::LARGEST_BYTES).await?;
    Ok(found.and_then(|object| Event::parse(&object.bytes, usize::MAX).ok()).and_then(|event| event.occurred_at()))
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
