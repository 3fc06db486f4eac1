//! What the owner of a shard knows of it, and what it decides. No I/O; time is handed in.
//!
//! This file has the window, the events that may still come into it, and how far `through` moves.
//! `key_order` says what may start next, `runs` what starting and ending a run does, `commit` what
//! the marker then says and which requests go into it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::bus::look;
use crate::event::{EventName, EventTime, Identity};
use crate::group::marker::PendingEvent;
use crate::group::name_ranges::MOST_PENDING;
use crate::group::verdict::Fingerprint;
use crate::group::{GroupName, Listing, Marker, Position};
use crate::store::Version;

mod commit;
mod key_order;
mod latest;
mod met_segments;
mod running;
mod runs;

pub(super) use key_order::Due;
use latest::LatestKeys;
pub(super) use met_segments::Confirmation;
use met_segments::MetSegments;
use running::{Running, RunningEvent};

/// After this many unclean takeovers in a row a handler is suspected of killing its worker.
const ISOLATE_FROM: u32 = 2;

/// `through` passes events that run, which then are in `pending`, if they are at most so many. Of more,
/// as in large batches, most will end soon: they are passed only when much is done behind them.
const PASSED_RUNS: usize = 64;

/// How much an owner holds of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardBounds {
    /// How many wanted names behind `through` may start.
    pub window: usize,
    /// The most events in `pending`, those that run included.
    pub pending: usize,
    /// The most segments that one listing reads, if it can end at all before it has read more.
    pub reads: usize,
}

impl ShardBounds {
    /// How many places of `pending` any event may take. The last place is for an event that pending
    /// events of its key must wait for. Without it they would wait for each other: that event for a
    /// place, and they for their turn.
    pub fn capacity(&self) -> usize {
        self.pending - 1
    }

    /// The bounds that leave each of so many runs its place.
    pub fn for_concurrency(runs: usize) -> Self {
        let bounds = Self::default();
        Self { pending: bounds.pending.max(runs.saturating_add(1)).min(MOST_PENDING), ..bounds }
    }
}

impl Default for ShardBounds {
    fn default() -> Self {
        Self { window: 10_000, pending: 1_000, reads: look::READS }
    }
}

/// A run to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub name: EventName,
    pub attempt: u32,
    /// The letter to read if the event is gone.
    pub dead_letter: Option<String>,
    /// The content of an event of the same identity that has succeeded here: a copy of it need not
    /// run.
    pub copy_of: Option<Fingerprint>,
}

/// A takeover that has succeeded.
pub(super) struct AcquiredShard {
    pub marker: Marker,
    pub version: Version,
    /// When its commit was sent.
    pub sent: Duration,
    /// How many listings of the requests were sent before the commit had succeeded.
    pub requests_before: u64,
}

/// Everything that one commit records.
#[derive(Debug)]
pub struct Commit {
    pub bytes: Vec<u8>,
    pub epoch: u64,
    pub nonce: String,
    pub version: Option<Version>,
}

/// What may be done only once the marker is durable.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Followup {
    /// Runs whose attempt is counted now.
    pub launches: Vec<EventName>,
    /// Dead letters that are announced now.
    pub dead_letters: Vec<(EventName, PendingEvent)>,
    /// Redriven letters and folded requests that are no longer needed.
    pub deletes: Vec<String>,
    /// The shard has no owner now.
    pub released: bool,
}

/// The next thing that an ordered group must know before it can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This one may run.
    Start(EventName),
    /// The ordering key of this one must be read first.
    ReadKey(EventName),
    /// The keys of these must be read first, by which the latest are told.
    ReadKeys(Vec<EventName>),
    /// Nothing may start now.
    Nothing,
}

/// Events that have run to success here, by identity: another copy of the same event need not run.
/// Their contents are compared, because an emitter may give any identity to what it writes.
/// Bounded; the oldest is dropped first.
#[derive(Default)]
struct Succeeded {
    contents: HashMap<Identity, Fingerprint>,
    order: VecDeque<Identity>,
}

impl Succeeded {
    fn insert(&mut self, name: &EventName, content: Fingerprint, limit: usize) {
        let Some(identity) = Identity::parse(name.identity()) else { return };
        if self.contents.insert(identity, content).is_none() {
            self.order.push_back(identity);
        }
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.contents.remove(&oldest);
            }
        }
    }
}

/// An owned shard.
pub(super) struct Shard {
    group: GroupName,
    pub number: u16,
    /// The marker, with the changes that are not committed yet.
    pub marker: Marker,
    pub version: Option<Version>,
    /// How many listings of the requests were sent before the shard was acquired.
    pub requests_before: u64,
    /// When the last successful commit was sent.
    pub commit_sent: Duration,
    pub commit_ended: Duration,
    pub committing: bool,
    pub dirty: bool,
    /// The newest listing, by which `through` moves; none before the first scan.
    pub listing: Option<Listing>,
    /// Names that may start.
    waiting: BTreeSet<EventName>,
    /// In an ordered group: names that no later listing has confirmed, so that an earlier name may
    /// still turn up.
    unconfirmed: BTreeSet<EventName>,
    pub running: Running,
    /// Events whose dead letters are being written.
    writing_dead_letters: BTreeSet<String>,
    deletes: Vec<String>,
    /// Runs that were forgotten while their handlers ran: the handlers must be ended.
    cancelled: bool,
    /// What the commit under way allows once it is durable.
    in_flight: Followup,
    succeeded: Succeeded,
    /// Hashes of the ordering keys that were read; none where the event is gone, so that its key
    /// cannot be read.
    order_keys: HashMap<EventName, Option<u64>>,
    /// In a group that runs only the latest: the keys that were read.
    latest: LatestKeys,
    /// In an ordered group: names that may not start yet, whatever has run; later ones of their keys
    /// wait for them.
    withheld: BTreeSet<EventName>,
    /// Whether some of them wait for a while, and not for a segment that cannot be read.
    holds: bool,
    /// The segments that its listings have shown.
    met: MetSegments,
    pub last_active: Duration,
    pub bounds: ShardBounds,
    pub releasing: bool,
    /// The worker that the shard is given to as soon as its runs have ended.
    pub handing_off: Option<String>,
    /// [`Marker::unclean`] as it stands on the store: a good verdict ends isolation mode once it is durable.
    durable_unclean: u32,
    sent_unclean: u32,
}

impl Shard {
    /// A shard that was just acquired.
    pub fn taken(group: GroupName, number: u16, taken: AcquiredShard, now: Duration, bounds: ShardBounds) -> Self {
        Self {
            group,
            number,
            durable_unclean: taken.marker.unclean,
            sent_unclean: taken.marker.unclean,
            marker: taken.marker,
            version: Some(taken.version),
            requests_before: taken.requests_before,
            commit_sent: taken.sent,
            commit_ended: now,
            committing: false,
            dirty: false,
            listing: None,
            waiting: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            running: Running::default(),
            writing_dead_letters: BTreeSet::new(),
            deletes: Vec::new(),
            cancelled: false,
            in_flight: Followup::default(),
            succeeded: Succeeded::default(),
            order_keys: HashMap::new(),
            latest: LatestKeys::default(),
            withheld: BTreeSet::new(),
            holds: false,
            met: MetSegments::default(),
            last_active: now,
            bounds,
            releasing: false,
            handing_off: None,
        }
    }

    /// Takes in a listing from `through` on. With `confirm`, an event may start only if an earlier
    /// listing had seen it, if no segment that cannot be read may hold an earlier one, and if no
    /// part of its segment was passed before the segment was seen: then its emitter will move it.
    pub fn take_listing(&mut self, listing: Listing, confirm: Option<Confirmation>) {
        let held = confirm.map(|confirm| self.met.held(&listing, &self.marker.through, confirm)).unwrap_or_default();
        let is_held = |name: &EventName| held.iter().any(|(first, last)| *first <= name.time() && name.time() <= *last);
        let is_behind = |name: &EventName| listing.barrier.is_some_and(|barrier| name.time() >= barrier);
        let earlier = std::mem::take(&mut self.unconfirmed);
        let known = std::mem::take(&mut self.waiting);
        self.withheld.clear();
        self.holds = false;
        let startable = listing.names.iter().filter(|name| self.startable(name));
        if confirm.is_none() {
            self.waiting = startable.cloned().collect();
        } else {
            let (mut waiting, mut unconfirmed, mut withheld, mut holds) = (Vec::new(), Vec::new(), Vec::new(), false);
            for name in startable {
                let is_held = is_held(name);
                holds |= is_held;
                let to = match name {
                    name if is_held || is_behind(name) => &mut withheld,
                    name if known.contains(name) || earlier.contains(name) => &mut waiting,
                    _ => &mut unconfirmed,
                };
                to.push(name.clone());
            }
            self.holds = holds;
            self.waiting = waiting.into_iter().collect();
            self.unconfirmed = unconfirmed.into_iter().collect();
            self.withheld = withheld.into_iter().collect();
        }
        self.listing = Some(listing);
        let (waiting, unconfirmed, running, pending) =
            (&self.waiting, &self.unconfirmed, &self.running, &self.marker.pending);
        let withheld = &self.withheld;
        let is_held = |name: &EventName| {
            waiting.contains(name)
                || unconfirmed.contains(name)
                || withheld.contains(name)
                || running.contains(name)
                || pending.contains_key(name)
        };
        self.order_keys.retain(|name, _| is_held(name));
        self.latest.retain(is_held);
        self.latest.look_anew();
    }

    /// Takes in a name that a poll found, if there is room and nothing unknown lies before it.
    pub fn found(&mut self, name: EventName, confirm: bool) -> bool {
        let room = self.listing.as_ref().is_some_and(|listing| !listing.is_truncated())
            && self.waiting.len() + self.unconfirmed.len() + self.marker.done.len() < self.bounds.window;
        let listed = self.waiting.contains(&name) || self.withheld.contains(&name);
        if !room || !self.startable(&name) || listed {
            return false;
        }
        self.latest.look_anew();
        if confirm { self.unconfirmed.insert(name) } else { self.waiting.insert(name) }
    }

    fn startable(&self, name: &EventName) -> bool {
        self.marker.is_unprocessed(name) && !self.marker.pending.contains_key(name) && !self.running.contains(name)
    }

    /// How many names it holds of events that are neither pending nor running: bounded by the
    /// window, whatever lies on the bus.
    pub fn held_len(&self) -> usize {
        let listed = self.listing.as_ref().map_or(0, |listing| listing.names.len());
        listed
            + self.waiting.len()
            + self.unconfirmed.len()
            + self.withheld.len()
            + self.succeeded.contents.len()
            + self.order_keys.len()
            + self.latest.len()
    }

    /// Whether every handler of the worker must run alone. A shard with nothing to run need not hold up the others.
    pub fn isolating(&self) -> bool {
        let has_some = !self.waiting.is_empty() || !self.marker.pending.is_empty() || !self.running.is_empty();
        has_some && self.durable_unclean >= ISOLATE_FROM
    }

    /// How many of the window's names wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether listed names may not start yet, whatever has run.
    pub fn withholds(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Whether listed names may start after a while.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// Whether names wait for a second listing.
    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// Whether events have started or ended here that are not settled yet.
    pub fn busy(&self) -> bool {
        !self.running.is_empty()
            || !self.writing_dead_letters.is_empty()
            || self.committing
            || self.dirty
            || !self.deletes.is_empty()
    }

    /// Moves `through` as far as the listing allows.
    pub fn advance(&mut self) {
        let Some(listing) = &mut self.listing else { return };
        let running = &self.running;
        let passes = running.len() <= PASSED_RUNS || self.marker.done.len() >= self.bounds.window / 4;
        let Some(through) = listing.reach(&self.marker, |name| passes && running.contains(name)) else { return };
        // A name that only a poll found, at or below W, was not acknowledged: its emitter puts it
        // again.
        drop_covered(&mut self.waiting, &through);
        drop_covered(&mut self.unconfirmed, &through);
        drop_covered(&mut self.withheld, &through);
        self.marker.advance(through, self.running.names());
        self.dirty = true;
    }

    /// Whether the listing was truncated and what it showed is nearly used up. Behind a segment that
    /// cannot be read `through` does not move, so that the next listing would show the same.
    pub fn wants_more(&self) -> bool {
        self.listing.as_ref().is_some_and(|listing| listing.is_truncated() && !listing.has_barrier())
            && self.waiting.len() <= self.bounds.window / 4
    }

    /// The time to raise W to, whatever the clock, if the window is full and everything in it is
    /// done or pending.
    pub fn window_end(&self) -> Option<EventTime> {
        let listing = self.listing.as_ref().filter(|listing| self.waiting.is_empty() && !listing.has_barrier())?;
        let all = self.unconfirmed.is_empty() && self.withheld.is_empty() && self.running.is_empty();
        listing.end.as_ref().filter(|end| all && **end > self.marker.through).map(Position::time)
    }

    /// Events that are pending or run.
    fn pending_len(&self) -> usize {
        let (pending, running) = (&self.marker.pending, &self.running);
        let both = match pending.len() < running.len() {
            true => pending.keys().filter(|name| running.contains(name)).count(),
            false => running.names().filter(|name| pending.contains_key(*name)).count(),
        };
        pending.len() + running.len() - both
    }

    /// Whether `pending` leaves no room for anything new although something waits, and most of what
    /// is in it does not run: a large batch alone may fill it.
    pub fn stalled_full(&self) -> bool {
        let pending = self.marker.pending.len();
        !self.waiting.is_empty() && pending >= self.bounds.capacity() && self.running.len() * 2 < pending
    }

    /// The position up to which everything is settled.
    pub fn through(&self) -> &Position {
        &self.marker.through
    }

    /// The earliest time at which a failed event is due again.
    pub fn next_due(&self) -> Option<EventTime> {
        let waiting = self
            .marker
            .pending
            .iter()
            .filter(|(name, pending)| pending.new_dead_letter.is_none() && !self.running.contains(name));
        waiting.filter_map(|(_, pending)| pending.next).min()
    }
}

/// Removes what `through` covers from the front only: it moves at every commit, and the rest may be
/// ten thousand names.
fn drop_covered(names: &mut BTreeSet<EventName>, through: &Position) {
    while names.first().is_some_and(|name| through.covers(name)) {
        names.pop_first();
    }
}
