//! Which event may start next: one that is due again, else one that waits; in an ordered group one
//! event of a key at a time.

use std::collections::BTreeSet;

use super::{Next, Shard};
use crate::event::{EventName, EventTime};
use crate::group::retry::Retry;

/// Whether an event has its turn, in an ordered group.
enum KeyOrder {
    Free,
    /// It waits for this earlier event of its key, which is not settled.
    Held(EventName),
    /// The ordering key of this event must be read first.
    Unknown(EventName),
}

/// What a plan knows of a shard's pending events, while it starts one event after the other: with a large
/// batch a thousand of them are pending and run.
pub struct Due {
    /// Those that may run again, ascending.
    pub(super) names: Vec<EventName>,
    /// How many are pending or run.
    pub(super) pending: usize,
    /// Events whose keys must be read before the latest are known.
    pub(super) unread: Vec<EventName>,
}

impl Due {
    /// An event was started, or given up.
    pub fn took(&mut self, name: &EventName) {
        match self.names.iter().position(|due| due == name) {
            Some(at) => _ = self.names.remove(at),
            None => self.pending += 1,
        }
    }
}

impl Shard {
    /// See [`Due`]; `latest`: whether only the latest of a key is run.
    pub fn due(&self, retry: &Retry, now: EventTime, latest: bool) -> Due {
        let due = self.marker.pending.iter().filter(|(name, pending)| {
            pending.new_dead_letter.is_none() && !self.running.contains(name) && retry.due(pending.next, now)
        });
        let unread = if latest { self.unread_keys() } else { Vec::new() };
        Due { names: due.map(|(name, _)| name.clone()).collect(), pending: self.pending_len(), unread }
    }

    /// The next event to start: first those that are due again, then those that wait, in order.
    pub fn next(&self, due: &Due, ordered: bool) -> Next {
        let room = due.pending < self.bounds.capacity();
        let (pending, due) = (due.pending, due.names.iter());
        let fresh = self.waiting.iter().filter(|_| room);
        if !ordered {
            let mut candidates = due.chain(fresh);
            return candidates
                .find(|name| !self.copy_runs(name))
                .map_or(Next::Nothing, |name| Next::Start(name.clone()));
        }
        let mut first = None;
        // A copy that runs may be gone from the bus by now, so that its key cannot be read any
        // more.
        for name in due.chain(fresh.take(1_000)).filter(|name| !self.copy_runs(name)) {
            match self.key_order(name) {
                KeyOrder::Free => return Next::Start(name.clone()),
                KeyOrder::Unknown(name) => return Next::ReadKey(name),
                KeyOrder::Held(by) if !room => first = first.or(Some(by)),
                KeyOrder::Held(_) => {}
            }
        }
        first.filter(|_| pending < self.bounds.pending).map_or(Next::Nothing, |name| self.first_of_its_key(name))
    }

    /// Pending events must wait for an event that has no place in `pending`: the last place is for
    /// that event, or for an earlier one that it has to wait for itself.
    fn first_of_its_key(&self, mut name: EventName) -> Next {
        while self.waiting.contains(&name) && !self.copy_runs(&name) {
            name = match self.key_order(&name) {
                KeyOrder::Free => return Next::Start(name),
                KeyOrder::Unknown(name) => return Next::ReadKey(name),
                // Each step goes to an earlier event, so the loop ends.
                KeyOrder::Held(by) if by < name => by,
                KeyOrder::Held(_) => break,
            };
        }
        Next::Nothing
    }

    /// Whether an event of an ordered group is the first of its key that is not settled.
    fn key_order(&self, name: &EventName) -> KeyOrder {
        let hash_slot = name.hash_slot();
        let before = |names| BTreeSet::range(names, ..name.clone());
        let earlier = before(&self.waiting).chain(before(&self.unconfirmed)).chain(before(&self.withheld));
        let others =
            self.running.names().chain(self.marker.pending.keys().filter(|pending| *pending < name)).chain(earlier);
        for other in others.filter(|other| *other != name && other.hash_slot() == hash_slot) {
            let Some(key) = self.order_keys.get(name) else { return KeyOrder::Unknown(name.clone()) };
            match self.order_keys.get(other) {
                None => return KeyOrder::Unknown(other.clone()),
                // The other event was moved while it ran: until its run ends it may be of any key.
                Some(None) if self.running.contains(other) => return KeyOrder::Held(other.clone()),
                Some(Some(other_key)) if *key == Some(*other_key) => return KeyOrder::Held(other.clone()),
                Some(_) => {}
            }
        }
        KeyOrder::Free
    }

    /// Notes the hash of an event's ordering key.
    pub fn learn_key(&mut self, name: &EventName, key: Option<u64>) {
        self.order_keys.insert(name.clone(), key);
    }

    /// Whether another copy of the same event runs now: then this copy waits for its verdict.
    pub(super) fn copy_runs(&self, name: &EventName) -> bool {
        self.running.has_copy(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::group::engine::shard::{AcquiredShard, ShardBounds};
    use crate::group::marker::PendingEvent;
    use crate::group::{GroupName, Listing, Marker, Position};
    use crate::store::Version;

    fn name(second: u32) -> EventName {
        EventName::parse(&format!("20261123T0215{second:02}.000000Z-7k00000000{second:06}-t.json")).unwrap()
    }

    /// A shard in whose full `pending` stand two events of one key, while an earlier one of that key waits.
    fn shard(pending: usize) -> Shard {
        let mut marker = Marker::new(Position::START);
        marker.pending.extend([(name(5), PendingEvent::default()), (name(6), PendingEvent::default())]);
        let taken = AcquiredShard { marker, version: Version(String::new()), sent: Duration::ZERO, requests_before: 0 };
        let group = GroupName::parse("g").unwrap();
        let mut shard = Shard::taken(group, 0, taken, Duration::ZERO, ShardBounds { window: 10, pending, reads: 4 });
        shard.take_listing(Listing::new(EventTime::MIN, [name(1), name(2), name(5)], None), None);
        shard.order_keys.extend([(name(1), Some(7)), (name(2), Some(8)), (name(5), Some(8)), (name(6), Some(8))]);
        shard
    }

    fn next(shard: &Shard) -> Next {
        shard.next(&shard.due(&Retry::default(), name(9).time(), false), true)
    }

    /// Otherwise a drain would wait, and a watch list again and again, until it can be read.
    #[test]
    fn a_segment_that_cannot_be_read_ends_a_truncated_listing() {
        let mut shard = shard(10);
        let end = Some(Position::Name(name(5)));
        let listing = |barrier: Option<EventTime>| {
            let mut listing = Listing::new(EventTime::MIN, [], end.clone());
            listing.barrier = barrier;
            listing
        };
        shard.take_listing(listing(None), None);
        assert!(shard.wants_more() && shard.window_end() == Some(name(5).time()));
        shard.take_listing(listing(Some(name(6).time())), None);
        assert!(shard.wants_more(), "it lies behind the end");
        shard.take_listing(listing(Some(name(3).time())), None);
        assert!(!shard.wants_more() && shard.window_end().is_none());
    }

    #[test]
    fn the_last_slot_goes_to_an_event_that_blocks_its_key() {
        assert_eq!(next(&shard(3)), Next::Start(name(2)), "not 1, which nothing waits for");
        assert_eq!(next(&shard(4)), Next::Start(name(1)), "there is room for any event");
        assert_eq!(next(&shard(2)), Next::Nothing, "there is none at all");
        let mut unread = shard(3);
        unread.order_keys.remove(&name(2));
        assert_eq!(next(&unread), Next::ReadKey(name(2)));
    }
}
