//! What groups have still to do, counted in one pass over the names on the bus.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::{GroupStatus, Lag};
use crate::bus::{BusHandle, read};
use crate::event::{EVENTS, EventName, EventTime, ListedKey, NameMatch, SegmentParts, names_between};
use crate::group::Position;
use crate::group::marker::Marker;
use crate::store::{List, StoreResult};

/// Counts for several groups at once.
#[derive(Debug, Clone)]
pub struct Tally {
    groups: Vec<Count>,
    /// Events on the bus.
    pub events: u64,
    /// The objects that they lie in.
    pub objects: u64,
    /// The oldest of them.
    pub oldest: Option<EventTime>,
}

#[derive(Debug, Clone)]
struct Count {
    status: GroupStatus,
    /// The event that [`Lag::oldest`] is the time of.
    oldest: Option<EventName>,
    floor: EventTime,
    wanted_after: EventTime,
    lag: Lag,
}

impl Tally {
    /// A tally before its first name. `wanted_after` is, for each group, the time behind which
    /// [`Lag::wanted`] counts.
    pub fn new(statuses: &[GroupStatus], wanted_after: &[EventTime]) -> Self {
        let after = wanted_after.iter().copied().chain(std::iter::repeat(EventTime::MAX));
        let count = |(status, wanted_after): (&GroupStatus, EventTime)| {
            let pending = || status.markers.iter().flat_map(|marker| &marker.pending);
            let pending = || pending().filter(|(_, pending)| pending.new_dead_letter.is_none()).map(|(name, _)| name);
            let lag = Lag {
                events: u64::try_from(pending().count()).unwrap_or(u64::MAX),
                oldest: pending().map(EventName::time).min(),
                wanted: 0,
            };
            let oldest = pending().min().cloned();
            Count { floor: status.floor().time(), status: status.clone(), oldest, wanted_after, lag }
        };
        Self { groups: statuses.iter().zip(after).map(count).collect(), events: 0, objects: 0, oldest: None }
    }

    /// Counts what lies at a key; a foreign key is passed over.
    pub fn see(&mut self, key: &str) {
        let Some(parsed) = ListedKey::parse(key) else { return };
        self.events += parsed.event_count();
        self.objects += 1;
        self.oldest = Some(self.oldest.map_or(parsed.first(), |oldest| oldest.min(parsed.first())));
        let parts = match parsed {
            ListedKey::Event(parts) => parts,
            ListedKey::Segment(parts) => {
                self.groups.iter_mut().for_each(|count| count.take_segment(&parts));
                return;
            }
        };
        let name = read::name_in(key);
        let mut whole = None;
        for count in &mut self.groups {
            let behind = parts.time >= count.floor || parts.time > count.wanted_after;
            if !behind || count.status.wants(parts.slug) == NameMatch::No {
                continue;
            }
            count.lag.wanted += u64::from(parts.time > count.wanted_after);
            let Some(name) = whole.get_or_insert_with(|| EventName::parse(name)) else { return };
            count.take(name);
        }
    }

    /// What each group still has to do, in the order of the statuses.
    pub fn lags(&self) -> impl Iterator<Item = Lag> {
        self.groups.iter().map(|count| count.lag)
    }
}

impl Count {
    /// Counts a segment, as far as its name tells: its events are in all shards alike. One that
    /// only a part of the shards have passed counts whole, less what is done or pending.
    fn take_segment(&mut self, parts: &SegmentParts<'_>) {
        let behind = parts.last >= self.floor || parts.last > self.wanted_after;
        if !behind || self.status.filter.matches_segment(parts.slug) == NameMatch::No {
            return;
        }
        let len = u64::from(parts.len);
        self.lag.wanted += if parts.last > self.wanted_after { len } else { 0 };
        if self.status.floor() >= Position::Time(parts.last) {
            return;
        }
        let [from, to] = names_between(parts.first(), parts.last);
        let within = (Bound::Included(&*from), Bound::Excluded(&*to));
        let known = |marker: &Marker| marker.done.count_within(within) + marker.pending.range::<str, _>(within).count();
        let known: usize = self.status.markers.iter().map(known).sum();
        let left = len.saturating_sub(u64::try_from(known).unwrap_or(u64::MAX));
        if left > 0 {
            self.lag.events += left;
            let oldest = parts.first();
            self.lag.oldest = Some(self.lag.oldest.map_or(oldest, |known| known.min(oldest)));
        }
    }

    /// Counts one wanted name; the names in `pending` were counted at the start.
    fn take(&mut self, name: &EventName) {
        let is_pending = self.status.markers.iter().any(|marker| marker.pending.contains_key(name));
        if !is_pending && self.status.is_unprocessed(name) {
            self.lag.events += 1;
            self.lag.oldest = Some(self.lag.oldest.map_or(name.time(), |oldest| oldest.min(name.time())));
            if self.oldest.as_ref().is_none_or(|oldest| name < oldest) {
                self.oldest = Some(name.clone());
            }
        }
    }

    /// An event whose name is ahead of the clock is as old as its own time says.
    async fn ask_how_old(&mut self, bus: &BusHandle, now: EventTime) -> StoreResult<()> {
        if let Some(name) = self.oldest.as_ref().filter(|name| name.time() > now)
            && let Some(happened) = read::happened_at(bus, name).await?
        {
            self.lag.oldest = Some(happened.min(now));
        }
        Ok(())
    }
}

/// Counts over everything on the bus.
///
/// # Errors
/// Of the store.
pub async fn tally(bus: &BusHandle, statuses: &[GroupStatus], wanted_after: &[EventTime]) -> StoreResult<Tally> {
    let store = &*bus.store;
    let tally = Arc::new(Mutex::new(Tally::new(statuses, wanted_after)));
    let seen = Arc::clone(&tally);
    let list = List::all(EVENTS).keep(move |key| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).see(key);
        false
    });
    store.list_after(list).await?;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for count in &mut tally.groups {
        count.ask_how_old(bus, bus.clock.now()).await?;
    }
    Ok(tally)
}
