//! What a worker starts now: handlers, commits, reads; and when it must wake up.

use std::time::Duration;

use super::shard::{Due, Launch, Next, Shard, ShardBounds};
use super::{Command, Engine, Mode, STALL, Stop};
use crate::event::{EventName, EventTime};
use crate::group::dead_letter;
use crate::group::marker::Verdict;
use crate::group::worker_event::WorkerEvent;
use crate::store::Profile;

impl Engine {
    pub(super) fn plan(&mut self) {
        debug_assert!(self.within_memory(), "a worker holds more names than its windows allow");
        self.follow_stop();
        for at in 0..self.shards.len() {
            if let Some(shard) = &mut self.shards[at].owned {
                shard.advance();
            }
        }
        self.report_full();
        self.plan_starts();
        self.expect();
        for at in 0..self.shards.len() {
            self.plan_scan(at);
            self.plan_release(at);
            self.plan_commit(at);
        }
        self.plan_poll();
        self.plan_releases();
        self.plan_questions();
    }

    /// Whether the names that the worker holds stay within a few windows and the pending events.
    fn within_memory(&self) -> bool {
        let ShardBounds { window, pending, .. } = self.settings.bounds;
        let held = |shard: &Shard| shard.held_len() <= 5 * window + pending;
        self.owned_shards().all(held)
            && self.polling.names.len() <= 3 * window
            && self.polling.partial.len() <= 3 * window
    }

    /// The shards that this worker owns.
    pub(super) fn owned_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(|slot| slot.owned.as_deref())
    }

    pub(super) fn running(&self) -> usize {
        self.owned_shards().map(|shard| shard.running.len()).sum()
    }

    pub(super) fn alone_runs(&self) -> bool {
        self.owned_shards().any(|shard| shard.running.has_alone())
    }

    pub(super) fn isolating(&self) -> bool {
        !self.settings.runs_elsewhere && self.owned_shards().any(|shard| shard.isolating())
    }

    pub(super) fn next_of(&self, shard: &Shard) -> Next {
        self.next_with(shard, &self.due_of(shard))
    }

    fn next_with(&self, shard: &Shard, due: &Due) -> Next {
        match &self.settings.latest {
            Some(latest) => shard.next_latest(due, latest.settle, self.now(), self.wall()),
            None => shard.next(due, self.settings.ordered),
        }
    }

    fn due_of(&self, shard: &Shard) -> Due {
        shard.due(&self.settings.retry, self.wall(), self.settings.latest.is_some())
    }

    /// When an event of a shard will have been the latest of its key for long enough.
    pub(super) fn quiet_next(&self, shard: &Shard) -> Option<Duration> {
        let latest = self.settings.latest.as_ref()?;
        shard.quiet_next(latest.settle, self.now(), self.wall())
    }

    pub(super) fn plan_starts(&mut self) {
        let isolating = self.isolating();
        self.report_isolating(isolating);
        let shards = self.shards.len();
        let (mut blocked, mut due) = (vec![false; shards], Vec::new());
        due.resize_with(shards, || None);
        while blocked.contains(&false) {
            // The shards take turns, from the one where the last start was: a single free place
            // must not always go to the first.
            for at in (0..shards).map(|step| (self.turn + step) % shards).collect::<Vec<_>>() {
                if !blocked[at] {
                    blocked[at] = !self.start_one(at, isolating, &mut due[at]);
                    if !blocked[at] {
                        self.turn = (at + 1) % shards;
                    }
                }
            }
        }
    }

    /// Tells the handler how many runs it has, if no event will start before one of them has ended.
    fn expect(&mut self) {
        let last = self.alone_runs() || (self.draining() && self.scanned_everywhere() && self.reading_keys.is_empty());
        let runs = last.then(|| self.running());
        self.command(Command::Expect(runs));
    }

    /// The most handlers that may run at once now.
    fn concurrency(&self) -> usize {
        self.max_in_flight.map_or(self.settings.concurrency, |most| most.min(self.settings.concurrency))
    }

    /// Starts the next event of a shard; false if none may start now.
    fn start_one(&mut self, at: usize, isolating: bool, due: &mut Option<Due>) -> bool {
        if self.no_more_starts() || self.running() >= self.concurrency() || self.alone_runs() {
            return false;
        }
        let now = self.now();
        if self.stalled_until.is_some_and(|until| now < until) {
            return false;
        }
        let idle = self.running() == 0;
        let Some(shard) = self.shards[at].owned.as_deref() else { return false };
        if shard.releasing || self.hands_off(shard) || !self.settings.lease.may_start(shard.commit_sent, now) {
            return false;
        }
        let due = due.get_or_insert_with(|| self.due_of(shard));
        match self.next_with(shard, due) {
            Next::Nothing => false,
            Next::ReadKeys(names) => {
                names.into_iter().for_each(|name| self.read_key(at, name));
                false
            }
            Next::ReadKey(name) => {
                self.read_key(at, name);
                false
            }
            Next::Start(name) => {
                let is_suspect = !self.settings.runs_elsewhere && shard.poison_candidate(&name);
                let alone = isolating || is_suspect;
                if alone && !idle {
                    return false;
                }
                let Some(shard) = self.shards[at].owned.as_deref_mut() else { return false };
                due.took(&name);
                // It has killed its worker each time: another run would leave no worker to report
                // it.
                if is_suspect && shard.exhausted(&name, self.settings.retry.max_attempts) {
                    let why = "its worker died with it each time".to_owned();
                    let dead_letter = dead_letter::fresh_name(&name, self.random.next());
                    let verdict = Verdict::Dead { dead_letter, why, stderr: String::new(), exit: None };
                    let attempt = shard.settle_exhausted(&name, verdict.clone(), now);
                    self.report_verdict(&name, attempt, &verdict, (Duration::ZERO, 1));
                    return true;
                }
                self.started += 1;
                if self.summary.stalled.is_some() {
                    // A probe: the others wait for what it shows.
                    self.stalled_until = Some(now + STALL);
                }
                if let Some(launch) = shard.start(&name, alone, now) {
                    self.launch(at, launch);
                }
                true
            }
        }
    }

    pub(super) fn launch(&mut self, at: usize, launch: Launch) {
        self.report(WorkerEvent::Started { name: launch.name.clone(), attempt: launch.attempt });
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        let (shard, epoch, listed_at) = (shard.number, shard.marker.epoch, self.listed_at);
        self.command(Command::Start { shard, epoch, launch, listed_at });
    }

    /// Ends the handlers of runs that the shard has forgotten.
    pub(super) fn cancel_forgotten(&mut self, at: usize) {
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        let (shard, epoch, cancelled) = (shard.number, shard.marker.epoch, shard.take_cancelled());
        if cancelled {
            self.command(Command::Cancel { shard, epoch });
        }
    }

    fn read_key(&mut self, at: usize, name: EventName) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if !self.reading_keys.insert(name.clone()) {
            return;
        }
        let dead_letter = shard.marker.pending.get(&name).and_then(|pending| pending.redriven_dead_letter.clone());
        let (shard, epoch) = (shard.number, shard.marker.epoch);
        self.command(Command::ReadKey { shard, epoch, name, dead_letter });
    }

    /// Releases an idle shard: at once if the worker is ending, else after a while.
    pub(super) fn plan_release(&mut self, at: usize) {
        let now = self.now();
        let ending = self.ending();
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if shard.releasing || shard.committing || !shard.running.is_empty() || self.shards[at].scanning {
            return;
        }
        // The next owner would withhold the same names from the beginning.
        let waits =
            shard.waiting_len() > 0 || shard.has_unconfirmed() || shard.withholds() || self.awaits_requests(shard);
        let nothing_left = shard.marker.pending.is_empty() && !waits;
        let Profile { hold, lag, .. } = self.profile;
        let passed = hold < lag || self.passed_all(at);
        let idle = nothing_left && passed && now.saturating_sub(shard.last_active) >= hold;
        let handing_off = self.hands_off(shard);
        if !(ending || idle || handing_off) || (shard.busy() && self.failure.is_none()) {
            return;
        }
        // A last scan lets `through` pass what it can, so that the next owner finds nothing to do.
        let can_advance =
            self.raise_to(at).is_some() && !self.shards[at].had_final_scan && self.shutdown.level == Stop::No;
        if can_advance && self.failure.is_none() && shard.listing.is_some() {
            self.shards[at].had_final_scan = true;
            self.scan(at);
            return;
        }
        self.note_left(at);
        if handing_off {
            // Long enough for the asking worker to scan the shard and find it free.
            self.shards[at].yielded_until = now + self.settings.lease.length;
            self.shards[at].handoff_at = now;
            self.shards[at].handoff = self.shards[at].owned.as_deref().and_then(|shard| shard.handing_off.clone());
        }
        if let Some(shard) = self.shards[at].owned.as_deref_mut() {
            shard.releasing = true;
            let to = shard.handing_off.clone().filter(|_| handing_off);
            shard.marker.release(to);
            shard.dirty = true;
        }
    }

    /// Whether `through` has passed every event seen that this worker's clock has reached.
    pub(super) fn passed_all(&self, at: usize) -> bool {
        let slot = &self.shards[at];
        let Some(shard) = slot.owned.as_deref() else { return false };
        let newest = slot.stats.newest.max(Some(self.polling.cursor).filter(|time| *time != EventTime::MIN));
        newest.is_none_or(|newest| newest <= shard.through().time())
    }

    pub(super) fn note_left(&mut self, at: usize) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        let unread = shard.listing.as_ref().is_some_and(|listing| listing.barrier.is_some());
        let left = shard.marker.pending.len() + shard.waiting_len() + usize::from(unread);
        self.summary.left += u64::try_from(left).unwrap_or(u64::MAX);
        let due = shard.next_due();
        self.summary.next_retry = match (self.summary.next_retry, due) {
            (Some(known), Some(due)) => Some(known.min(due)),
            (known, due) => known.or(due),
        };
    }

    pub(super) fn plan_commit(&mut self, at: usize) {
        let (now, gap) = (self.now(), self.profile.commit_gap);
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        if !shard.must_commit(self.settings.lease, gap, now) {
            return;
        }
        shard.marker.requests = shard.marker.requests.plus(std::mem::take(&mut self.requests_made));
        let commit = shard.commit(self.random.next_hex());
        let shard = shard.number;
        self.command(Command::Commit { shard, commit });
    }

    /// When to plan again, whatever happens.
    pub(super) fn deadline(&self) -> Duration {
        let now = self.now();
        let mut deadline = now + Duration::from_secs(30);
        let mut at = |time: Duration| deadline = deadline.min(time);
        if !self.draining() {
            at(self.polling.poll_at);
        }
        at(self.release_at(now));
        at(self.control.define_at);
        if self.control.ask_at != Duration::MAX {
            at(self.ask_at());
        }
        if let Some(stopped) = self.shutdown.since.filter(|_| !self.shutdown.handlers_stopped) {
            at(stopped + self.settings.stop_timeout);
        }
        if let Some(gives_up) = self.gives_up_at().filter(|_| self.running() == 0) {
            at(gives_up);
        }
        if let Mode::Drain { span: Some(span), .. } = self.settings.mode {
            at(self.begun + span);
        }
        if let Some(stalled) = self.stalled_until.filter(|until| now < *until) {
            at(stalled);
        }
        let gap = self.profile.commit_gap;
        for slot in &self.shards {
            if !slot.scanning && (slot.owned.is_some() || !slot.idle) {
                at(slot.scan_at);
            }
            let Some(shard) = slot.owned.as_deref() else { continue };
            if !shard.committing {
                at(self.settings.lease.heartbeat_at(shard.commit_sent));
                if shard.dirty {
                    at(shard.commit_ended + gap);
                }
            }
            let idle_at = shard.last_active + self.profile.hold;
            if now < idle_at {
                at(idle_at);
            }
            if let Some(quiet_at) = self.quiet_next(shard) {
                at(quiet_at);
            }
            if let Some(due) = shard.next_due() {
                at(now + due.since(self.wall()).max(Duration::from_millis(1)));
            }
        }
        // A deadline in the past was served by this plan: wait a little rather than spin.
        deadline.max(now + Duration::from_millis(5))
    }
}
