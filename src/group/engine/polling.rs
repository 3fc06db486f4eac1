//! Polls: what is new behind the newest event, and, where one listing shows everything, what else
//! has changed.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use super::{Command, Engine, GroupChanges, Polled, ScanStats, ShardScan, ShardSlot};
use crate::event::{EventName, EventTime};
use crate::group::{Listing, Position};
use crate::store::StoreResult;

/// When and from where to poll.
pub(super) struct Polling {
    /// The newest event that a poll has shown.
    pub cursor: EventTime,
    /// Where the next poll continues, if the last one was truncated.
    after: Option<String>,
    /// The names that the last polls showed, from cursor to end; bounded.
    pub names: HashSet<EventName>,
    /// The same, of the polls that have not reached the end yet.
    pub partial: HashSet<EventName>,
    pub poll_at: Duration,
    pub pause: Duration,
    /// When the last one began.
    begun: Duration,
    running: bool,
    /// The last shared poll that was taken in.
    pub shared: u64,
}

impl Polling {
    /// Polls at once.
    pub fn new(begun: Duration, pause: Duration) -> Self {
        Self {
            cursor: EventTime::MIN,
            after: None,
            names: HashSet::new(),
            partial: HashSet::new(),
            poll_at: begun,
            pause,
            begun,
            running: false,
            shared: 0,
        }
    }
}

/// When to list again after a listing that took from `begun` to `now`: `pause` after its beginning.
/// After a slow listing the worker rests for as long as the listing took, but at most for
/// `longest`: otherwise a process that was stopped meanwhile would rest for just as long again.
fn next_listing(begun: Duration, now: Duration, pause: Duration, longest: Duration) -> Duration {
    let took = now.saturating_sub(begun);
    (begun + pause).max(now + took.min(longest))
}

impl Engine {
    pub(super) fn plan_poll(&mut self) {
        let now = self.now();
        if self.draining() || self.polling.running || now < self.polling.poll_at || self.ending() {
            return;
        }
        // While all windows are full nothing new can start anyway.
        let full =
            self.owned_shards().all(|shard| shard.listing.as_ref().is_some_and(|listing| listing.is_truncated()));
        if full && self.shards.iter().all(|shard| shard.owned.is_some()) {
            self.polling.poll_at = now + self.poll_range().0;
            return;
        }
        self.polling.running = true;
        self.polling.begun = now;
        // The cursor never passes this worker's clock, even if the clock was set back.
        self.polling.cursor = self.polling.cursor.min(self.wall());
        let after = self.poll_from();
        self.polling.after = None;
        self.command(Command::Poll { after, seen: self.polling.shared });
    }

    /// Where the next poll begins. A truncated poll is continued at its end: the cursor does not
    /// show that place where the clock is behind.
    pub fn poll_from(&self) -> String {
        let cursor = self.polling.cursor.max(self.least_through());
        self.polling.after.clone().unwrap_or_else(|| Position::Time(cursor).list_after())
    }

    /// The last shared poll that was taken in.
    pub fn polled_through(&self) -> u64 {
        self.polling.shared
    }

    /// The position that every shard is known to have reached.
    pub(super) fn least_through(&self) -> EventTime {
        let through = |slot: &ShardSlot| {
            slot.owned
                .as_deref()
                .map(|shard| shard.through().time())
                .or(slot.last_scan_through.as_ref().map(Position::time))
        };
        self.shards.iter().map(|slot| through(slot).unwrap_or(EventTime::MIN)).min().unwrap_or(EventTime::MIN)
    }

    pub(super) fn take_poll(&mut self, found: StoreResult<Polled>) {
        self.polling.running = false;
        let now = self.now();
        let (least, most) = self.poll_range();
        let answer = self.answer(found);
        let news = answer.as_ref().is_some_and(|polled| polled.stats.newest.is_some());
        self.polling.pause = if news { least } else { (self.polling.pause * 2).clamp(least, most) };
        self.polling.poll_at = next_listing(self.polling.begun, now, self.polling.pause, most);
        let Some(Polled { names, next, stats, changes, poll }) = answer else { return };
        if !names.is_empty() {
            self.listed_at = now;
        }
        self.polling.shared = self.polling.shared.max(poll);
        self.scheduled_seen(changes.as_ref().map(|changes| changes.scheduled), now);
        if let Some(changes) = changes {
            self.take_changes(changes, now);
        }
        if let Some(newest) = stats.newest {
            self.polling.cursor = self.polling.cursor.max(newest);
            for slot in &mut self.shards {
                // Whether the event is wanted or not, `through` must pass it before the shard is
                // idle again.
                slot.stats.newest = slot.stats.newest.max(Some(newest));
                slot.had_final_scan = false;
                slot.rescan |= slot.scanning;
                if std::mem::take(&mut slot.idle) {
                    slot.scan_at = now + Duration::from_secs(4);
                }
            }
        }
        let confirm = self.settings.ordered;
        let mut new = BTreeMap::new();
        // An event ahead of this worker's clock is listed each time: only its first sight is news.
        let known: HashSet<EventName> =
            names.iter().filter(|name| self.polling.names.contains(*name)).cloned().collect();
        if self.polling.partial.len() < 2 * self.settings.bounds.window {
            self.polling.partial.extend(names.iter().cloned());
        }
        match next {
            Some(last) => {
                self.polling.after = Some(last);
                self.polling.poll_at = now + least;
            }
            None => self.polling.names = std::mem::take(&mut self.polling.partial),
        }
        for name in names {
            let at = usize::from(name.hash_slot().shard(self.registered.definition.shards));
            let slot = &mut self.shards[at];
            if slot.owned.is_none() && known.contains(&name) {
                continue;
            }
            match slot.owned.as_deref_mut() {
                Some(shard) => {
                    if shard.found(name, confirm) && confirm {
                        slot.scan_at = now;
                    }
                }
                None => {
                    slot.wake(now);
                    new.entry(at).or_insert_with(Vec::new).push(name);
                }
            }
        }
        for (at, names) in new {
            self.acquire_free(at, names);
        }
    }

    /// Acquires a shard that was free when it was last seen, for events that a poll found: if the
    /// shard is still free, they need no scan.
    fn acquire_free(&mut self, at: usize, mut names: Vec<EventName>) {
        let may = !self.settings.ordered && !self.paused() && !self.is_stopping();
        let now = self.now();
        let slot = &mut self.shards[at];
        if slot.scanning || !may || now < slot.yielded_until {
            return;
        }
        let Some((marker, version)) = slot.last_free_marker.take() else { return };
        names.retain(|name| marker.is_unprocessed(name));
        if names.is_empty() {
            return;
        }
        // With the lowest W this listing lets nothing pass; the next scan does.
        let listing = Listing::new(EventTime::MIN, names, None);
        self.acquire(
            at,
            *marker,
            version,
            ShardScan { whole: false, listing, stats: ScanStats::default(), redefined: None, unread: None },
        );
    }

    /// Takes in what a poll has shown in addition to events: what has not changed need not be read.
    fn take_changes(&mut self, changes: GroupChanges, now: Duration) {
        // The next poll should have come by then; while a window is full there is none.
        let later = now + self.poll_range().1 + Duration::from_secs(5);
        self.control.define_at =
            if changes.definition.as_ref() == Some(&self.registered.version) { later } else { now };
        self.control.ask_at = if changes.requests { now } else { later };
        if !changes.requests {
            self.control.pending.clear();
        }
        self.control.idle_check_at = later;
        for (shard, version) in changes.markers {
            let Some(slot) = self.shards.get_mut(usize::from(shard)) else { continue };
            let known = slot.last_free_marker.as_ref().is_some_and(|(_, free)| free.as_ref() == Some(&version));
            if slot.idle && slot.owned.is_none() && !known {
                slot.wake(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_listing_never_exceeds_the_longest() {
        let [pause, longest] = [1, 30].map(Duration::from_secs);
        let begun = Duration::from_secs(100);
        for (took_millis, rests_millis) in
            [(0, 1_000), (10, 990), (500, 500), (900, 900), (5_000, 5_000), (150_000, 30_000)]
        {
            let now = begun + Duration::from_millis(took_millis);
            let next = next_listing(begun, now, pause, longest);
            assert_eq!(next - now, Duration::from_millis(rests_millis), "after a listing of {took_millis} ms");
        }
    }
}
