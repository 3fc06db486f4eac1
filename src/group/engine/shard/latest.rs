//! Which event may start next in a group that runs only the latest of each key, and which are superseded.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Due, Next, Shard};
use crate::event::{EventName, EventTime};
use crate::group::marker::Verdict;

/// The most keys that are read at once.
pub(super) const READS: usize = 64;

/// The keys of the events that wait, run or are pending.
#[derive(Default)]
pub(super) struct LatestKeys {
    known: HashMap<EventName, KnownKey>,
    /// The names of each key; some may be settled by now.
    by_key: HashMap<u64, BTreeSet<EventName>>,
    /// Whether all names that wait are known.
    all_known: Cell<bool>,
}

struct KnownKey {
    /// None: the event is run for itself.
    key: Option<u64>,
    /// When it was read.
    seen: Duration,
}

impl LatestKeys {
    pub fn knows(&self, name: &EventName) -> bool {
        self.known.contains_key(name)
    }

    pub fn learn(&mut self, name: &EventName, key: Option<u64>, seen: Duration) {
        self.forget(name);
        if let Some(key) = key {
            self.by_key.entry(key).or_default().insert(name.clone());
        }
        self.known.insert(name.clone(), KnownKey { key, seen });
    }

    /// Names may have come that are not known.
    pub fn look_anew(&self) {
        self.all_known.set(false);
    }

    pub fn forget(&mut self, name: &EventName) {
        let Some(key) = self.known.remove(name).and_then(|known| known.key) else { return };
        if let Some(names) = self.by_key.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    pub fn retain(&mut self, mut is_kept: impl FnMut(&EventName) -> bool) {
        let gone: Vec<EventName> = self.known.keys().filter(|name| !is_kept(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    fn key(&self, name: &EventName) -> Option<u64> {
        self.known.get(name)?.key
    }
}

impl Shard {
    /// Events whose keys are not known.
    pub(super) fn unread_keys(&self) -> Vec<EventName> {
        let is_unread = |name: &&EventName| !self.latest.knows(name);
        let pending = self.marker.pending.keys().filter(|name| self.is_open(name)).filter(is_unread);
        let mut unread: Vec<EventName> = pending.take(READS).cloned().collect();
        // Names that leave are no news; what is looked at for every start may be ten thousand names.
        if !self.latest.all_known.get() {
            let waiting = self.waiting.iter().rev().filter(is_unread);
            unread.extend(waiting.take(READS - unread.len()).cloned());
            self.latest.all_known.set(unread.is_empty());
        }
        unread
    }

    /// Whether an event waits, runs, or is to be tried again.
    fn is_open(&self, name: &EventName) -> bool {
        let is_tried = || self.marker.pending.get(name).is_some_and(|pending| pending.new_dead_letter.is_none());
        self.waiting.contains(name) || self.running.contains(name) || is_tried()
    }

    fn open_of(&self, key: u64) -> impl DoubleEndedIterator<Item = &EventName> {
        let names = self.latest.by_key.get(&key);
        names.into_iter().flatten().filter(|name| self.is_open(name))
    }

    /// The next event to start: one that is the last of its key and that no other has followed for a while, or one
    /// without a key.
    pub fn next_latest(&self, due: &Due, settle: Duration, now: Duration, wall: EventTime) -> Next {
        if !due.unread.is_empty() {
            return Next::ReadKeys(due.unread.clone());
        }
        let room = due.pending < self.bounds.capacity();
        let fresh = self.waiting.iter().filter(|_| room);
        let may_start = |name: &&EventName| {
            let is_settled = || !self.waiting.contains(*name) || self.quiet_at(name, settle, now, wall) <= now;
            !self.copy_runs(name) && self.is_last(name) && is_settled()
        };
        if let Some(name) = due.names.iter().chain(fresh).find(may_start) {
            return Next::Start(name.clone());
        }
        // The last place is for an event that pending ones of its key wait for.
        let holds_up = |name: &&EventName| {
            let key = self.latest.key(name);
            key.is_some_and(|key| self.open_of(key).any(|other| self.marker.pending.contains_key(other)))
        };
        let mut blocked = self.waiting.iter().filter(|_| !room && due.pending < self.bounds.pending);
        let next = blocked.find(|name| holds_up(name) && may_start(name));
        next.map_or(Next::Nothing, |name| Next::Start(name.clone()))
    }

    /// Whether an event has no key, or is the last of its key of which none runs.
    fn is_last(&self, name: &EventName) -> bool {
        let Some(key) = self.latest.key(name) else { return true };
        self.open_of(key).next_back() == Some(name) && !self.open_of(key).any(|other| self.running.contains(other))
    }

    /// When an event is to be run if no other follows it: `settle` after its own time, or after it was read, if the clocks
    /// differ.
    fn quiet_at(&self, name: &EventName, settle: Duration, now: Duration, wall: EventTime) -> Duration {
        let by_name = now + settle.saturating_sub(wall.since(name.time()));
        self.latest.known.get(name).map_or(by_name, |known| by_name.min(known.seen + settle))
    }

    /// When the next event will have been the last of its key for long enough; none: no event waits for that alone.
    pub fn quiet_next(&self, settle: Duration, now: Duration, wall: EventTime) -> Option<Duration> {
        if settle.is_zero() {
            return None;
        }
        let lasts = self.latest.by_key.keys().filter_map(|key| self.open_of(*key).next_back());
        let waits = lasts.filter(|name| self.waiting.contains(*name) && self.is_last(name));
        waits.map(|name| self.quiet_at(name, settle, now, wall)).filter(|quiet_at| *quiet_at > now).min()
    }

    /// The group's filter was changed: it may want events by now that it did not.
    pub fn forget_unwanted(&mut self) {
        self.latest.known.retain(|_, known| known.key.is_some());
        self.latest.look_anew();
    }

    /// The key of an event was read.
    pub fn learn_latest(&mut self, name: &EventName, key: Option<u64>, now: Duration) {
        self.latest.learn(name, key, now);
    }

    /// The earlier events of a key whose last one is settled.
    pub fn superseded_by(&self, name: &EventName) -> Vec<EventName> {
        let Some(key) = self.latest.key(name) else { return Vec::new() };
        let earlier = self.open_of(key).take_while(|other| *other < name);
        earlier.filter(|other| !self.running.contains(other)).cloned().collect()
    }

    /// Settles an event whose key has had a later one settled.
    pub fn supersede(&mut self, name: &EventName, now: Duration) {
        self.settle(name, Verdict::Done, None, now);
        self.marker.superseded += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::engine::shard::{AcquiredShard, ShardBounds};
    use crate::group::marker::PendingEvent;
    use crate::group::retry::Retry;
    use crate::group::{GroupName, Listing, Marker, Position};
    use crate::store::Version;

    const SETTLE: Duration = Duration::from_secs(2);

    fn name(second: u32) -> EventName {
        EventName::parse(&format!("20261123T0215{second:02}.000000Z-7k00000000{second:06}-t.json")).unwrap()
    }

    /// A shard where the events from 1 on wait, with these keys; those of second 50 and more are pending.
    fn shard(keys: &[Option<u64>], pending: &[(u32, u64)], bounds: ShardBounds) -> Shard {
        let mut marker = Marker::new(Position::START);
        marker.pending.extend(pending.iter().map(|(second, _)| (name(*second), PendingEvent::default())));
        let taken = AcquiredShard { marker, version: Version(String::new()), sent: Duration::ZERO, requests_before: 0 };
        let mut shard = Shard::taken(GroupName::parse("g").unwrap(), 0, taken, Duration::ZERO, bounds);
        let names: Vec<EventName> = (1..).take(keys.len()).map(name).collect();
        shard.take_listing(Listing::new(EventTime::MIN, names.clone(), None), None);
        names.iter().zip(keys).for_each(|(name, key)| shard.learn_latest(name, *key, Duration::ZERO));
        pending.iter().for_each(|(second, key)| shard.learn_latest(&name(*second), Some(*key), Duration::ZERO));
        shard
    }

    fn next(shard: &Shard, wall: EventTime, now: Duration) -> Next {
        shard.next_latest(&shard.due(&Retry::default(), wall, true), SETTLE, now, wall)
    }

    fn start(shard: &mut Shard, second: u32) {
        shard.start(&name(second), false, Duration::ZERO);
    }

    #[test]
    fn only_the_last_of_a_key_runs_and_the_next_waits_for_it() {
        let mut shard = shard(&[Some(7), Some(8), Some(7), None], &[], ShardBounds::default());
        let late = name(59).time();
        let next = |shard: &Shard| next(shard, late, Duration::ZERO);
        assert_eq!(next(&shard), Next::Start(name(2)));
        start(&mut shard, 2);
        assert_eq!(next(&shard), Next::Start(name(3)), "not 1, which it follows");
        start(&mut shard, 3);
        assert_eq!(next(&shard), Next::Start(name(4)), "it has no key");
        start(&mut shard, 4);
        assert!(shard.found(name(5), false));
        assert_eq!(next(&shard), Next::ReadKeys(vec![name(5)]));
        shard.learn_latest(&name(5), Some(7), Duration::ZERO);
        assert_eq!(next(&shard), Next::Nothing, "one of its key runs");
        assert_eq!(shard.superseded_by(&name(3)), [name(1)]);
        assert_eq!(shard.superseded_by(&name(2)), []);
        shard.supersede(&name(1), Duration::ZERO);
        shard.settle(&name(3), Verdict::Done, None, Duration::ZERO);
        assert_eq!((next(&shard), shard.marker.superseded), (Next::Start(name(5)), 1));
    }

    #[test]
    fn a_failed_one_gives_way_to_a_later_one_and_is_superseded_with_it() {
        let mut shard = shard(&[Some(7)], &[], ShardBounds::default());
        let late = name(59).time();
        start(&mut shard, 1);
        let verdict = Verdict::Retry { next: EventTime::MIN, why: "exit 1".to_owned() };
        shard.settle(&name(1), verdict, None, Duration::ZERO);
        assert_eq!(next(&shard, late, Duration::ZERO), Next::Start(name(1)), "it is the last");
        assert!(shard.found(name(2), false));
        shard.learn_latest(&name(2), Some(7), Duration::ZERO);
        assert_eq!(next(&shard, late, Duration::ZERO), Next::Start(name(2)));
        start(&mut shard, 2);
        assert_eq!(shard.superseded_by(&name(2)), [name(1)]);
        shard.supersede(&name(1), Duration::ZERO);
        assert!(shard.marker.pending.is_empty() && shard.marker.done.contains(&name(1)));
    }

    #[test]
    fn the_last_is_run_once_no_other_has_followed_for_a_while() {
        let shard = shard(&[Some(7), Some(7)], &[], ShardBounds::default());
        let wall = name(2).time();
        assert_eq!(next(&shard, wall, Duration::ZERO), Next::Nothing);
        assert_eq!(shard.quiet_next(SETTLE, Duration::ZERO, wall), Some(SETTLE));
        let later = name(3).time();
        assert_eq!(shard.quiet_next(SETTLE, Duration::ZERO, later), Some(Duration::from_secs(1)));
        assert_eq!(next(&shard, name(4).time(), Duration::ZERO), Next::Start(name(2)));
        // The clock of its emitter is ahead: it does not wait for that.
        assert_eq!(next(&shard, EventTime::MIN, SETTLE), Next::Start(name(2)));
        assert_eq!(shard.quiet_next(SETTLE, SETTLE, EventTime::MIN), None);
    }

    #[test]
    fn what_is_gone_is_not_the_last() {
        let mut shard = shard(&[Some(7), Some(7)], &[], ShardBounds::default());
        shard.take_listing(Listing::new(EventTime::MIN, [name(1)], None), None);
        assert_eq!(next(&shard, name(59).time(), Duration::ZERO), Next::Start(name(1)));
    }

    #[test]
    fn the_last_place_is_for_the_event_that_pending_ones_wait_for() {
        let bounds = |pending: usize| ShardBounds { window: 10, pending, reads: 4 };
        let keys = [Some(6), Some(7)];
        let full = |places: usize| {
            let mut shard = shard(&keys, &[(51, 8), (52, 8)], bounds(places));
            shard.learn_latest(&name(51), Some(7), Duration::ZERO);
            // An earlier time for the pending one.
            let pending = shard.marker.pending.remove(&name(51)).unwrap();
            let earlier = EventName::parse(&name(1).as_str().replace("021501.0", "021500.0")).unwrap();
            shard.marker.pending.insert(earlier.clone(), PendingEvent { next: Some(EventTime::MAX), ..pending });
            shard.learn_latest(&earlier, Some(7), Duration::ZERO);
            start(&mut shard, 52);
            next(&shard, name(59).time(), Duration::ZERO)
        };
        assert_eq!(full(3), Next::Start(name(2)), "not 1, which nothing waits for");
        assert_eq!(full(4), Next::Start(name(1)), "there is room for any event");
        assert_eq!(full(2), Next::Nothing, "there is none at all");
    }
}
