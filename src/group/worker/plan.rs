//! What a worker starts now: handlers, commits, reads; and when it must wake up.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable};

use super::{Ended, Mode, Stop, Worker};
use crate::event::{EventName, EventTime};
use crate::group::marker::Verdict;
use crate::group::run::Task;
use crate::group::shard::{Bounds, Launch, Next, Shard};
use crate::group::worker_event::WorkerEvent;
use crate::group::{dead_letter, run};
use crate::store::Profile;

impl Worker {
    pub(super) fn plan(&mut self) {
        debug_assert!(self.within_memory(), "a worker holds more names than its windows allow");
        self.heed_stop();
        self.hear_of_troubles();
        for at in 0..self.shards.len() {
            if let Some(shard) = &mut self.shards[at].owned {
                shard.advance();
            }
        }
        self.tell_full();
        self.plan_starts();
        self.handler.expect(self.nobody_else_starts().then(|| self.running()));
        for at in 0..self.shards.len() {
            self.plan_scan(at);
            self.plan_release(at);
            self.plan_commit(at);
        }
        self.plan_hot();
        self.plan_due();
        self.plan_questions();
    }

    /// Whether the names that the worker holds stay within a few windows and the pending events.
    fn within_memory(&self) -> bool {
        let Bounds { window, pending: open } = self.settings.bounds;
        let held = |shard: &Shard| shard.held_len() <= 5 * window + open;
        self.shards.iter().filter_map(|shard| shard.owned.as_deref()).all(held)
            && self.polled_names.len() <= 3 * window
            && self.polling_names.len() <= 3 * window
    }

    /// Reports a full `pending`, once: it stops the intake, which must not happen silently.
    fn tell_full(&mut self) {
        let full = self.shards.iter().filter_map(|shard| shard.owned.as_deref()).any(Shard::stalled_full);
        if full && !self.full_told {
            let why =
                format!("{} events are open; nothing new starts until some are done", self.settings.bounds.capacity());
            self.report(WorkerEvent::Stalled { why: &why });
        }
        self.full_told = full;
    }

    /// A second stop, or a stop that takes too long, ends the handlers too.
    pub(super) fn heed_stop(&mut self) {
        let level = *self.stop.borrow();
        if level == Stop::No {
            return;
        }
        let now = self.now();
        let since = *self.stopped_at.get_or_insert_with(|| {
            self.handler.end();
            now
        });
        let late = now.saturating_sub(since) >= self.settings.stop_timeout;
        if (level == Stop::Handlers || late) && !self.told_handlers {
            self.told_handlers = true;
            self.handler.stop();
            if let Some((on_dead, _)) = &self.on_dead {
                on_dead.stop();
            }
        }
    }

    pub(super) fn running(&self) -> usize {
        self.shards.iter().filter_map(|shard| shard.owned.as_ref()).map(|shard| shard.running.len()).sum()
    }

    pub(super) fn alone_runs(&self) -> bool {
        let shards = self.shards.iter().filter_map(|shard| shard.owned.as_ref());
        shards.flat_map(|shard| shard.running.values()).any(|run| run.alone)
    }

    pub(super) fn isolating(&self) -> bool {
        self.shards.iter().filter_map(|shard| shard.owned.as_ref()).any(|shard| shard.isolating())
    }

    pub(super) fn next_of(&self, shard: &Shard) -> Next {
        shard.next(&self.settings.retry, self.settings.ordered, self.wall())
    }

    pub(super) fn plan_starts(&mut self) {
        let isolating = self.isolating();
        if isolating && !std::mem::replace(&mut self.isolation_reported, isolating) {
            self.report(WorkerEvent::Isolating);
        }
        self.isolation_reported = isolating;
        let shards = self.shards.len();
        let mut blocked = vec![false; shards];
        while blocked.contains(&false) {
            // The shards take turns, from the one where the last start was: a single free place
            // must not always go to the first.
            for at in (0..shards).map(|step| (self.turn + step) % shards).collect::<Vec<_>>() {
                if !blocked[at] {
                    blocked[at] = !self.start_one(at, isolating);
                    if !blocked[at] {
                        self.turn = (at + 1) % shards;
                    }
                }
            }
        }
    }

    /// Whether no event will start before one that runs has ended.
    fn nobody_else_starts(&self) -> bool {
        self.alone_runs() || (self.draining() && self.scanned_everywhere() && self.reading_keys.is_empty())
    }

    /// Starts the next event of a shard; false if none may start now.
    pub(super) fn start_one(&mut self, at: usize, isolating: bool) -> bool {
        if self.starts_over() || self.running() >= self.settings.concurrency || self.alone_runs() {
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
        match self.next_of(shard) {
            Next::Nothing => false,
            Next::ReadKey(name) => {
                self.read_key(at, name);
                false
            }
            Next::Start(name) => {
                let alone = isolating || shard.poison_candidate(&name);
                if alone && !idle {
                    return false;
                }
                let Some(shard) = self.shards[at].owned.as_deref_mut() else { return false };
                // It has killed its worker each time: another run would leave no worker to report
                // it.
                if shard.exhausted(&name, self.settings.retry.max_attempts) {
                    let why = "its worker died with it each time".to_owned();
                    let letter = dead_letter::fresh_name(&name, self.group_store.place.clock.random());
                    let verdict = Verdict::Dead { letter, why, stderr: String::new(), exit: None };
                    let attempt = shard.settle_exhausted(&name, verdict.clone(), now);
                    self.report_verdict(&name, attempt, &verdict, (Duration::ZERO, 1));
                    return true;
                }
                self.started += 1;
                if let Some(launch) = shard.start(&name, alone, now) {
                    self.launch(at, launch);
                }
                true
            }
        }
    }

    pub(super) fn launch(&mut self, at: usize, launch: Launch) {
        self.report(WorkerEvent::Started { name: &launch.name, attempt: launch.attempt });
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        let (handle, registration) = AbortHandle::new_pair();
        if let Some(run) = shard.running.get_mut(&launch.name) {
            run.abort = Some(handle);
        }
        let (number, epoch) = (shard.number, shard.marker.epoch);
        let task = Task {
            group_store: self.group_store.clone(),
            listed_at: self.listed_at,
            handler: Rc::clone(&self.handler),
            epoch,
            max_attempts: self.settings.retry.max_attempts,
            max_event_bytes: self.settings.max_event_bytes,
            url: self.settings.url.clone(),
            secret: self.secret,
            tenure: run::Tenure {
                lease: self.settings.lease,
                commit_sent: Rc::clone(&shard.tenure),
                pausing: Rc::clone(&self.pausing),
            },
        };
        let (name, attempt) = (launch.name.clone(), launch.attempt);
        let running = Abortable::new(async move { run::run(task, launch).await }, registration);
        self.ops.push(Box::pin(async move {
            let ran = running.await.ok();
            Ended::Ran { shard: number, epoch, name, attempt, ran }
        }));
    }

    pub(super) fn read_key(&mut self, at: usize, name: EventName) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if !self.reading_keys.insert(name.clone()) {
            return;
        }
        let (number, epoch) = (shard.number, shard.marker.epoch);
        let letter = shard.marker.pending.get(&name).and_then(|open| open.letter.clone());
        let (group_store, most) = (self.group_store.clone(), self.settings.max_event_bytes);
        self.ops.push(Box::pin(async move {
            let key = run::ordering_key(&group_store.place, &group_store.group, &name, letter.as_deref(), most).await;
            Ended::Key { shard: number, epoch, name, key }
        }));
    }

    /// Releases an idle shard: at once if the worker is ending, else after a while.
    pub(super) fn plan_release(&mut self, at: usize) {
        let now = self.now();
        let ending = self.ending();
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if shard.releasing || shard.committing || !shard.running.is_empty() || self.shards[at].scanning {
            return;
        }
        let nothing_left = shard.marker.pending.is_empty() && shard.waiting_len() == 0 && !shard.has_unconfirmed();
        let Profile { hold, lag, .. } = self.group_store.place.store.profile();
        let passed = hold < lag || self.passed_all(at);
        let idle = nothing_left && passed && now.saturating_sub(shard.last_active) >= hold;
        let handing_off = self.hands_off(shard);
        if !(ending || idle || handing_off) || (shard.busy() && self.failure.is_none()) {
            return;
        }
        // A last scan lets `through` pass what it can, so that the next owner finds nothing to do.
        let can_pass = self.raise_to(at).is_some() && !self.shards[at].closed && *self.stop.borrow() == Stop::No;
        if can_pass && self.failure.is_none() && shard.listing.is_some() {
            self.shards[at].closed = true;
            self.scan(at);
            return;
        }
        self.note_left(at);
        if handing_off {
            // Long enough for the asking worker to scan the shard and find it free.
            self.shards[at].left_until = now + self.settings.lease.length;
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
        let newest = slot.stats.newest.max(Some(self.hot_cursor).filter(|time| *time != EventTime::MIN));
        newest.is_none_or(|newest| newest <= shard.through().time())
    }

    pub(super) fn note_left(&mut self, at: usize) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        let left = shard.marker.pending.len() + shard.waiting_len();
        self.summary.left += u64::try_from(left).unwrap_or(u64::MAX);
        let due = shard.next_due();
        self.summary.next_retry = match (self.summary.next_retry, due) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
    }

    pub(super) fn plan_commit(&mut self, at: usize) {
        let (now, gap) = (self.now(), self.group_store.place.store.profile().commit_gap);
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        if !shard.must_commit(self.settings.lease, gap, now) {
            return;
        }
        if let Some(made) = self.group_store.place.store.untold_requests() {
            shard.marker.requests = shard.marker.requests.plus(made);
        }
        let nonce = format!("{:016x}", self.group_store.place.clock.random());
        let commit = shard.commit(nonce);
        let (number, epoch, then, group_store) =
            (shard.number, commit.epoch, commit.then.clone(), self.group_store.clone());
        let lease = self.settings.lease.length;
        self.ops.push(Box::pin(async move {
            let committed = group_store.commit(number, &commit, lease).await;
            Ended::Committed { shard: number, epoch, then, committed }
        }));
    }

    pub(super) fn plan_questions(&mut self) {
        let now = self.now();
        if self.ending() && !self.draining() {
            return;
        }
        if !self.asking && self.ask_at() <= now {
            self.asking = true;
            self.asked_last = now;
            self.asked_at = now + self.poll_range().1.max(Duration::from_secs(4));
            if self.draining() && !self.waits() {
                self.asked_at = Duration::MAX;
            }
            let idle = self.idle_to_check(now);
            let (group_store, definition) = (self.group_store.clone(), self.registered.definition.clone());
            self.ops.push(Box::pin(async move { Ended::ControlRequests(group_store.ask(idle, &definition).await) }));
        }
        if !self.defining && self.defined_at <= now {
            self.defining = true;
            self.defined_at = now + self.poll_range().1.max(Duration::from_secs(4));
            let group_store = self.group_store.clone();
            self.ops.push(Box::pin(async move { Ended::Definition(group_store.definition().await) }));
        }
    }

    /// The idle shards whose markers are to be read again: once in a poll, with or without hints.
    fn idle_to_check(&mut self, now: Duration) -> Vec<u16> {
        if now < self.idle_check_at {
            return Vec::new();
        }
        self.idle_check_at = now + self.poll_range().1;
        let idle = self.shards.iter().enumerate().filter(|(_, shard)| shard.idle && shard.owned.is_none());
        idle.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }

    /// When the loop must wake up, whatever happens.
    pub(super) fn deadline(&self) -> Duration {
        let now = self.now();
        let mut deadline = now + Duration::from_secs(30);
        let mut at = |time: Duration| deadline = deadline.min(time);
        if !self.draining() {
            at(self.hot_at);
        }
        at(self.due_at(now));
        at(self.defined_at);
        if self.asked_at != Duration::MAX {
            at(self.ask_at());
        }
        if let Some(stopped) = self.stopped_at.filter(|_| !self.told_handlers) {
            at(stopped + self.settings.stop_timeout);
        }
        if let Some(gives_up) = self.gives_up_at().filter(|_| self.running() == 0) {
            at(gives_up);
        }
        if let Mode::Drain { span: Some(span), .. } = self.settings.mode {
            at(self.begun + span);
        }
        if let Some(stalled) = self.stalled_until {
            at(stalled);
        }
        let gap = self.group_store.place.store.profile().commit_gap;
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
            at(shard.last_active + self.group_store.place.store.profile().hold);
            if let Some(due) = shard.next_due() {
                at(now + due.since(self.wall()).max(Duration::from_millis(1)));
            }
        }
        // A deadline in the past was served by this plan: wait a little rather than spin.
        deadline.max(now + Duration::from_millis(5))
    }
}
