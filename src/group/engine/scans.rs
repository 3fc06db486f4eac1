//! Finding work and shards: resyncs of a shard, and whether to acquire a shard.

use std::time::Duration;

use super::candidate::{AcquireDecision, Candidate};
use super::shard::{AcquiredShard, Commit, Confirmation, Shard};
use super::{Acquiring, Command, Committed, Engine, ReadMarker, ScanStats, ShardScan};
use crate::event::EventTime;
use crate::group::lease::{self, LeaseObservation, Process};
use crate::group::marker::Owner;
use crate::group::worker_event::WorkerEvent;
use crate::group::{Marker, Position};
use crate::store::{StoreResult, Version};

impl Engine {
    pub(super) fn plan_scan(&mut self, at: usize) {
        let now = self.now();
        let slot = &self.shards[at];
        let more = slot.owned.as_deref().is_some_and(|shard| {
            shard.wants_more()
                && (slot.last_scan_through.as_ref() != Some(shard.through()) || shard.window_end().is_some())
        });
        let due = slot.scan_at <= now && !(slot.idle && slot.owned.is_none());
        let releasing = slot.owned.as_deref().is_some_and(|shard| shard.releasing);
        let yielded = slot.owned.is_none() && now < slot.yielded_until;
        if slot.scanning || releasing || yielded || self.failure.is_some() || !(due || more) {
            return;
        }
        if self.ending() || (self.draining() && slot.seen && slot.owned.is_none() && !self.waits()) {
            return;
        }
        self.scan(at);
    }

    /// Scans a shard: its window, and its marker, unless this worker owns it.
    pub(super) fn scan(&mut self, at: usize) {
        let raise_to = self.raise_to(at);
        let next = self.now() + Self::resync_after(&self.shards[at].stats);
        let slot = &mut self.shards[at];
        slot.scanning = true;
        slot.scan_at = next;
        let through = slot.owned.as_deref().map(|shard| shard.through().clone());
        slot.scanning_owned = through.is_some();
        slot.last_scan_through.clone_from(&through);
        let shard = u16::try_from(at).unwrap_or(u16::MAX);
        self.command(Command::Scan { shard, through, raise_to });
    }

    /// What W should be raised to before the next scan of an owned shard, so that `through` can
    /// move.
    pub(super) fn raise_to(&self, at: usize) -> Option<EventTime> {
        let slot = &self.shards[at];
        let shard = slot.owned.as_deref()?;
        let w = shard.listing.as_ref().map_or(EventTime::MIN, |listing| listing.w);
        let limit = self.wall().minus(self.profile.lag);
        // An event that a poll has shown may be gone by now; its time must be passed all the same.
        let polled = Some(self.polling.cursor).filter(|time| *time != EventTime::MIN);
        let reached = [slot.stats.newest, polled].into_iter().flatten().filter(|time| *time <= limit).max();
        let newest_raisable = reached.max(slot.stats.newest_raisable);
        let end = shard.listing.as_ref().and_then(|listing| listing.end.as_ref());
        // W rises no further than the window shows.
        let newest_raisable = newest_raisable.map(|time| end.map_or(time, |end| time.min(end.time())));
        let advance_past_minute = self.advance_past_minute(shard, limit);
        [newest_raisable, shard.window_end(), advance_past_minute].into_iter().flatten().max().filter(|time| *time > w)
    }

    /// The end of the minute of `through`, if the shard is done with that minute: where a listing
    /// costs as much as its last folder holds, `through` then moves behind that folder.
    pub(super) fn advance_past_minute(&self, shard: &Shard, limit: EventTime) -> Option<EventTime> {
        if !self.profile.scans_folders || *shard.through() == Position::START {
            return None;
        }
        let end = shard.through().time().minute_end();
        // A listed event may be ahead of this worker's clock: it is no reason to keep this folder.
        let idle =
            shard.listing.as_ref().is_some_and(|listing| listing.names.front().is_none_or(|name| name.time() > end));
        (idle && end <= limit && shard.through().time() < end).then_some(end)
    }

    pub(super) fn may_advance_past_minute(&self, marker: &Marker, limit: EventTime) -> bool {
        let end = marker.through.time().minute_end();
        self.profile.scans_folders && marker.through != Position::START && marker.through.time() < end && end <= limit
    }

    /// How an ordered group confirms names before it starts them; none if it is not ordered.
    fn confirmation(&self) -> Option<Confirmation> {
        let hold = self.profile.lag * 2;
        self.settings.ordered.then(|| Confirmation { now: self.now(), hold })
    }

    pub(super) fn note_stats(&mut self, at: usize, stats: ScanStats) {
        if let Some(key) = &stats.foreign {
            self.report_foreign(key);
        }
        // Only a poll moves the poll's cursor: the other shards have not taken in what one shard's
        // scan shows.
        self.shards[at].stats = stats;
    }

    pub(super) fn scanned(&mut self, number: u16, marker: Option<ReadMarker>, scan: StoreResult<ShardScan>) {
        let at = usize::from(number);
        self.shards[at].scanning = false;
        let now = self.now();
        let owned = std::mem::take(&mut self.shards[at].scanning_owned);
        let scan = match scan {
            // The scan may have raised W, which is a write.
            Err(error) => self.answer_of(Err(error), owned),
            scan => self.answer(scan),
        };
        let Some(mut scan) = scan else {
            self.shards[at].scan_at = now + Duration::from_secs(1);
            return;
        };
        if let Some(registered) = scan.redefined.take() {
            self.shards[at].scan_at = now;
            self.redefine(registered);
            return;
        }
        self.listed_at = now;
        self.note_stats(at, scan.stats.clone());
        if let Some(error) = scan.unread.take() {
            self.report_unread(&error.to_string());
        }
        let confirm = self.confirmation();
        let resync_after = Self::resync_after(&scan.stats);
        let slot = &mut self.shards[at];
        slot.scan_at = now + resync_after;
        if owned {
            // A reset may have come in between: then the listing began too far behind it, and says
            // nothing.
            let from = slot.last_scan_through.clone();
            let stale = |shard: &Shard| from.as_ref().is_none_or(|from| from > shard.through());
            if slot.owned.as_deref().is_some_and(stale) {
                slot.scan_at = now;
                return;
            }
            if let Some(shard) = slot.owned.as_deref_mut() {
                shard.take_listing(scan.listing, confirm);
                if shard.has_unconfirmed() {
                    slot.scan_at = now;
                }
            }
            slot.seen = true;
        } else if let Some(read) = marker {
            self.decide_on_unowned_shard(at, read, scan);
        }
    }

    /// Decides about a shard that this worker does not own: leave it, watch it, or acquire it.
    fn decide_on_unowned_shard(&mut self, at: usize, read: ReadMarker, scan: ShardScan) {
        let now = self.now();
        let ReadMarker { marker, version, process } = read;
        let owner = marker.owner.as_ref();
        if let Some(owner) = owner.filter(|owner| owner.command != self.me.command && process != Process::Gone) {
            self.report_other_command(owner);
        }
        let limit = self.wall().minus(self.profile.lag).max(scan.listing.w);
        let (free, kept) = self.observe_lease(at, &marker, version.as_ref(), process);
        let slot = &mut self.shards[at];
        let unchanged = *slot.first_version.get_or_insert_with(|| version.clone()) == version;
        let requested = self.is_requested(at);
        let past_minute = self.may_advance_past_minute(&marker, limit);
        // What a drain cannot read it must own, to count it as left.
        let unread = scan.listing.barrier.is_some() && self.draining();
        // A window in which everything is done hides what lies behind it.
        let unprocessed = unread
            || (scan.listing.is_truncated() && !scan.listing.has_barrier())
            || scan.listing.names.iter().any(|name| marker.is_unprocessed(name));
        // `through` has come to a segment that cannot be read: nothing moves before it can.
        let blocked = scan.listing.barrier.is_some_and(|first| first <= marker.through.time().next());
        let candidate = Candidate {
            wanted: unprocessed || !marker.pending.is_empty() || requested,
            requested,
            can_advance: !blocked && (past_minute || self.can_advance(&marker, &scan.stats, limit)),
            owned: owner.is_some(),
            free,
            unknown: unchanged && process == Process::MayLive,
            paused: self.paused(),
            ending: self.is_stopping(),
            draining: self.draining(),
        };
        let behind = self.is_behind_poll(&marker);
        let slot = &mut self.shards[at];
        slot.last_scan_through = Some(marker.through.clone());
        let rescan = std::mem::take(&mut slot.rescan);
        if rescan {
            slot.scan_at = now;
        }
        // No poll tells when a segment can be read again.
        let all_read = scan.listing.barrier.is_none();
        let nothing_new = scan.stats.newest.is_none() && !past_minute && !behind && !rescan && all_read;
        slot.idle = owner.is_none() && !candidate.wanted && nothing_new;
        slot.is_held = candidate.held();
        slot.holder = owner.map(|owner| owner.worker.clone()).filter(|_| slot.is_held);
        slot.last_free_marker = (owner.is_none() && !kept).then(|| (marker.clone(), version.clone()));
        // Events that are done wait for W: nothing changes before W may pass them.
        let waits = (!candidate.wanted && !rescan && owner.is_none()).then_some(scan.stats.newest).flatten();
        if let Some(newest) = waits {
            slot.scan_at = slot.scan_at.max(now + newest.since(limit).min(Duration::from_mins(1)));
        }
        match candidate.decide() {
            AcquireDecision::Acquire => self.acquire(at, *marker, version, scan),
            AcquireDecision::LookAgain => slot.scan_at = now + Duration::from_secs(1),
            AcquireDecision::Leave => {
                slot.seen = true;
                self.ask_for_a_share();
            }
        }
    }

    /// Notes how long the marker has stood still. Returns whether the shard may be taken, and
    /// whether it is kept for another worker.
    fn observe_lease(
        &mut self,
        at: usize,
        marker: &Marker,
        version: Option<&Version>,
        process: Process,
    ) -> (bool, bool) {
        let (now, lease) = (self.now(), self.settings.lease);
        let slot = &mut self.shards[at];
        let observation = LeaseObservation::see(slot.observation.take(), version, now);
        let may = lease::may_take(marker.owner.as_ref(), process, &observation, lease, now);
        // For a while the shard is kept for the worker that it was given to.
        let kept = marker.handoff.as_ref().is_some_and(|to| *to != self.me.worker)
            && now.saturating_sub(observation.since()) < lease.length * 2 / 3;
        slot.observation = Some(observation);
        (may && (self.draining() || !kept), kept)
    }

    /// Whether `through` of a shard without work can move.
    fn can_advance(&self, marker: &Marker, stats: &ScanStats, limit: EventTime) -> bool {
        let settled = self.draining() || stats.raisable_len >= 1_000 || stats.newest == stats.newest_raisable;
        (stats.newest_raisable.is_some() && settled) || (self.is_behind_poll(marker) && self.polling.cursor <= limit)
    }

    /// Whether the shard stands before the cursor of the polls: before the cursor but above W an
    /// event may still come in, which no poll would show.
    fn is_behind_poll(&self, marker: &Marker) -> bool {
        marker.through.time() < self.polling.cursor
    }

    pub(super) fn acquire(&mut self, at: usize, mut marker: Marker, version: Option<Version>, scan: ShardScan) {
        let unclean = marker.owner.is_some();
        self.shards[at].last_free_marker = None;
        marker.acquire(Owner { since: self.wall(), ..self.me.clone() });
        marker.nonce = self.random.next_hex();
        let bytes = crate::bus::to_json_line(&marker);
        let commit = Commit { bytes, epoch: marker.epoch, nonce: marker.nonce.clone(), version };
        let shard = u16::try_from(at).unwrap_or(u16::MAX);
        self.shards[at].scanning = true;
        self.shards[at].acquiring = Some(Acquiring { marker, scan, unclean });
        self.command(Command::Acquire { shard, commit });
    }

    pub(super) fn acquired(&mut self, number: u16, committed: Committed) {
        let at = usize::from(number);
        let now = self.now();
        self.shards[at].scanning = false;
        self.shards[at].seen = true;
        let Some(Acquiring { marker, scan, unclean }) = self.shards[at].acquiring.take() else { return };
        match committed {
            Committed::Yes { version, sent } => {
                self.answer_of(Ok(()), true);
                let (group, bounds) = (self.group.clone(), self.settings.bounds);
                let has_work = scan.listing.is_truncated()
                    || !marker.pending.is_empty()
                    || scan.listing.names.iter().any(|name| marker.is_unprocessed(name));
                let epoch = marker.epoch;
                let taken = AcquiredShard { marker, version, sent, requests_before: self.control.asked };
                let mut shard = Shard::taken(group, number, taken, now, bounds);
                if !has_work {
                    // Acquired only to let `through` pass: the shard is released as soon as it has.
                    shard.last_active = now.saturating_sub(self.profile.hold);
                }
                shard.take_listing(scan.listing, self.confirmation());
                // Dead letters that an earlier owner has announced are written with the first
                // commit.
                shard.dirty |= shard.marker.pending.values().any(|pending| pending.new_dead_letter.is_some());
                let slot = &mut self.shards[at];
                slot.owned = Some(Box::new(shard));
                slot.idle = false;
                slot.is_held = false;
                slot.had_final_scan = false;
                // Scan again at once, to confirm names that must be confirmed, and because W can be
                // raised for what is there. A shard that was acquired without a scan has time until
                // its events have run.
                slot.scan_at = if scan.whole { now } else { now + Duration::from_secs(4) };
                self.read_requests_anew(at);
                self.command(Command::Renewed { shard: number, epoch, sent });
                self.report(WorkerEvent::Acquired { shard: number, unclean });
            }
            Committed::Fenced => self.shards[at].scan_at = now,
            Committed::Failed(error) => {
                self.shards[at].scan_at = now + Duration::from_secs(1);
                self.answer_of::<()>(Err(error), true);
            }
        }
    }
}
