//! How operations end: each answer is taken into the state, and what it allows is started.

use std::rc::Rc;
use std::time::Duration;

use super::{Ended, STALL, Worker};
use crate::event::EventName;
use crate::group::definition::Registered;
use crate::group::marker::{PendingEvent, Verdict};
use crate::group::ops::{Committed, ControlRequests};
use crate::group::run::Ran;
use crate::group::shard::{Followup, Shard};
use crate::group::worker_event::WorkerEvent;
use crate::group::{dead_letter, run};
use crate::handler::{Obstacle, Outcome, Report};
use crate::store::{StoreError, StoreResult};

impl Worker {
    pub(super) fn apply(&mut self, ended: Ended) {
        self.heard_at = self.now();
        match ended {
            Ended::Scanned { shard, owned, marker, scan } => self.scanned(shard, owned, marker, *scan),
            Ended::Acquired { shard, marker, scan, unclean, committed } => {
                self.took(shard, *marker, *scan, unclean, committed);
            }
            Ended::Committed { shard, epoch, then, committed } => self.committed(shard, epoch, then, committed),
            Ended::Hot(found) => self.found(found),
            Ended::ControlRequests(asked) => self.asked(asked),
            Ended::Released(released) => self.released(released),
            Ended::Definition(registered) => self.defined(registered),
            Ended::Ran { shard, epoch, name, attempt, ran } => self.ran(shard, epoch, &name, attempt, ran),
            Ended::Key { shard, epoch, name, key } => self.learned(shard, epoch, &name, key),
            Ended::DeadLetterWritten { shard, epoch, name, written, failed } => {
                if let Some(why) = &failed {
                    self.report(WorkerEvent::OnDeadFailed { name: &name, why });
                }
                self.dead_letter_written(shard, epoch, &name, written);
            }
            Ended::Sent => {}
        }
    }

    /// The owned shard that an operation was started for; none if another worker has owned it
    /// since.
    pub(super) fn owned(&mut self, shard: u16, epoch: u64) -> Option<&mut Shard> {
        let owned = self.shards.get_mut(usize::from(shard))?.owned.as_deref_mut()?;
        (owned.marker.epoch == epoch).then_some(owned)
    }

    pub(super) fn committed(&mut self, number: u16, epoch: u64, then: Followup, committed: Committed) {
        let now = self.now();
        match committed {
            Committed::Fenced => {
                if self.owned(number, epoch).is_some() {
                    self.lose(number);
                }
            }
            Committed::Failed(error) => {
                self.answer_of::<()>(Err(error), true);
                self.let_go(number);
                if self.failure.is_none() {
                    self.report(WorkerEvent::LetGo { shard: number });
                }
            }
            Committed::Yes { version, sent } => {
                self.answer_of(Ok(()), true);
                let Some(shard) = self.owned(number, epoch) else { return };
                shard.committed(version, sent, now, &then);
                self.follow_up(number, then);
            }
        }
    }

    /// Another worker owns the shard.
    pub(super) fn lose(&mut self, number: u16) {
        self.let_go(number);
        self.report(WorkerEvent::Fenced { shard: number });
    }

    /// The shard cannot be held any longer.
    fn let_go(&mut self, number: u16) {
        let now = self.now();
        let slot = &mut self.shards[usize::from(number)];
        if let Some(mut shard) = slot.owned.take() {
            shard.fenced();
        }
        slot.observation = None;
        slot.idle = false;
        slot.scan_at = now;
    }

    /// Does what only a durable marker allows.
    pub(super) fn follow_up(&mut self, number: u16, then: Followup) {
        let at = usize::from(number);
        for key in then.deletes {
            let place = self.group_store.place.clone();
            // An object that stays is deleted another time, or asked for again.
            self.ops.push(Box::pin(async move {
                let _ = place.store.delete(&key).await;
                Ended::Sent
            }));
        }
        for (name, open) in then.letters {
            self.write_dead_letter(number, name, open);
        }
        for name in then.launches {
            let may = self.shards[at].owned.as_deref().and_then(|shard| shard.launch_counted(&name));
            if let Some(launch) = may {
                self.launch(at, launch);
            }
        }
        if then.given_back {
            self.shards[at].owned = None;
            self.shards[at].observation = None;
            // The next scan shows whether it is idle.
            self.shards[at].idle = false;
        }
    }

    pub(super) fn write_dead_letter(&mut self, number: u16, name: EventName, open: PendingEvent) {
        let Some(epoch) = self.shards[usize::from(number)].owned.as_deref().map(|shard| shard.marker.epoch) else {
            return;
        };
        let (group_store, on_dead, url) = (self.group_store.clone(), self.on_dead.clone(), self.settings.url.clone());
        let limit = self.settings.max_event_bytes;
        self.ops.push(Box::pin(async move {
            let written = dead_letter::write(&group_store.place, &group_store.group, &name, &open, limit).await;
            let failed = match on_dead.filter(|_| written.is_ok()) {
                Some((handler, turns)) => {
                    let _turn = turns.acquire().await;
                    run::run_on_dead(&group_store.place, &group_store.group, &name, &open, url, &*handler).await.err()
                }
                None => None,
            };
            Ended::DeadLetterWritten { shard: number, epoch, name, written, failed }
        }));
    }

    pub(super) fn dead_letter_written(&mut self, number: u16, epoch: u64, name: &EventName, written: StoreResult<()>) {
        let written = self.answer_of(written, true).is_some();
        if let Some(shard) = self.owned(number, epoch) {
            if written { shard.dead_letter_written(name) } else { shard.unburied(name) }
        }
    }

    pub(super) fn asked(&mut self, asked: StoreResult<ControlRequests>) {
        self.asking = false;
        let now = self.now();
        let Some(asked) = self.answer(asked) else {
            self.asked_at = now + Duration::from_secs(1);
            return;
        };
        self.pending = asked.pending;
        self.rebalance();
        for shard in asked.woken {
            self.shards[usize::from(shard)].wake(now);
        }
        for at in 0..self.shards.len() {
            let slot = &mut self.shards[at];
            if let Some(shard) = slot.owned.as_deref_mut().filter(|shard| !shard.releasing) {
                if shard.fold(&self.pending, true) {
                    slot.scan_at = now;
                }
            } else if self.pending.iter().any(|asked| usize::from(asked.shard) == at) {
                slot.idle = false;
                slot.seen = false;
                slot.scan_at = now;
            }
        }
    }

    pub(super) fn defined(&mut self, registered: StoreResult<Option<Registered>>) {
        self.defining = false;
        let Some(found) = self.answer(registered) else { return };
        let Some(registered) = found else {
            let what = format!("group '{}' was removed", self.group_store.group);
            self.failure.get_or_insert(StoreError::new(crate::store::ErrorKind::Unfit, what));
            return;
        };
        self.redefine(registered);
    }

    /// Works by a new definition of the group from now on.
    pub(super) fn redefine(&mut self, registered: Registered) {
        if registered == self.registered {
            return;
        }
        if registered.definition.created != self.registered.definition.created {
            let what = format!("group '{}' was removed and made anew", self.group_store.group);
            self.failure.get_or_insert(StoreError::new(crate::store::ErrorKind::Unfit, what));
            return;
        }
        let was = self.paused();
        match registered.definition.wants(&self.group_store.group) {
            Ok(wants) => {
                if wants != *self.group_store.wants {
                    self.report(WorkerEvent::Redefined { wants: &wants });
                }
                self.group_store.wants = Rc::new(wants);
                self.group_store.version = registered.version.clone();
                self.group_store.confirmed = Rc::default();
            }
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        }
        self.pausing.set(registered.definition.paused.is_some());
        self.registered = registered;
        if was != self.paused() {
            self.report(WorkerEvent::Paused { paused: self.paused() });
        }
        let now = self.now();
        for slot in &mut self.shards {
            slot.wake(now);
        }
    }

    pub(super) fn learned(&mut self, number: u16, epoch: u64, name: &EventName, key: StoreResult<Option<u64>>) {
        self.reading_keys.remove(name);
        let Some(key) = self.answer(key) else { return };
        if let Some(shard) = self.owned(number, epoch) {
            shard.learn_key(name, key);
        }
    }

    pub(super) fn ran(&mut self, number: u16, epoch: u64, name: &EventName, attempt: u32, ran: Option<Ran>) {
        let now = self.now();
        let wall = self.wall();
        // Aborted: the shard was lost or reset, and has forgotten it.
        let Some(ran) = ran else { return };
        if self.owned(number, epoch).is_none_or(|shard| !shard.running.contains_key(name)) {
            return;
        }
        let succeeded = match &ran {
            Ran::Reported(report, content) if report.succeeded() => Some(*content),
            _ => None,
        };
        let (took, events) = ran.report().map_or((Duration::ZERO, 1), |report| (report.took, report.events));
        // A run that was cut short together with its worker has not failed.
        let ran = match ran {
            Ran::Reported(report, content) if self.told_to_end() && report.may_be_cut() => {
                Ran::Reported(Report { outcome: Outcome::Stopped, ..report }, content)
            }
            ran => ran,
        };
        let untold = matches!(ran, Ran::PassedOver(_) | Ran::Copy | Ran::Foreign);
        if let Ran::Foreign = &ran {
            self.report(WorkerEvent::Foreign { key: &name.key() });
        }
        if let Ran::Redefined(registered) = &ran {
            self.redefine(registered.clone());
        }
        if let Ran::PassedOver(why) = &ran {
            self.pass_over(number, epoch, name, why.as_deref());
        }
        let judged = run::judge(ran, name, attempt, &self.settings.retry, wall, self.group_store.place.clock.random());
        match &judged {
            run::Judged::Verdict(verdict) => {
                self.was_read();
                self.unstall();
                if !untold {
                    self.report_verdict(name, attempt, verdict, (took, events));
                }
            }
            run::Judged::Unread(why) => self.tell_unread(why),
            run::Judged::NotStarted(obstacle) => self.stall(obstacle),
        }
        let Some(shard) = self.owned(number, epoch) else { return };
        match judged {
            run::Judged::Verdict(verdict) => shard.settle(name, verdict, succeeded, now),
            run::Judged::Unread(why) => shard.unread(name, wall.plus(STALL), why),
            run::Judged::NotStarted(_) => shard.settle(name, Verdict::Release, None, now),
        }
    }

    /// Passes over an event for which the group's condition does not hold, or has no answer, which
    /// is counted.
    fn pass_over(&mut self, number: u16, epoch: u64, name: &EventName, why: Option<&str>) {
        self.summary.passed_over += 1;
        self.report(WorkerEvent::PassedOver { name, why });
        if let Some(shard) = self.owned(number, epoch).filter(|_| why.is_some()) {
            shard.marker.unanswered += 1;
        }
    }

    /// The handler cannot be started, whatever the event: said once, and tried again after a while.
    pub(super) fn stall(&mut self, obstacle: &Obstacle) {
        self.stalled_until = Some(self.now() + STALL);
        if self.summary.stalled.replace(obstacle.clone()).is_none() {
            self.report(WorkerEvent::Stalled { why: &obstacle.why });
        }
    }

    pub(super) fn unstall(&mut self) {
        self.stalled_until = None;
        if self.summary.stalled.take().is_some() {
            self.report(WorkerEvent::GoesOn);
        }
    }

    /// Reports how an attempt ended; `run`: how long it took, and for how many events it was.
    pub(super) fn report_verdict(&mut self, name: &EventName, attempt: u32, verdict: &Verdict, run: (Duration, usize)) {
        match verdict {
            Verdict::Done => {
                self.summary.done += 1;
                let (took, events) = run;
                self.report(WorkerEvent::Done { name, attempt, took, events });
            }
            Verdict::Retry { next, why } => {
                self.summary.retries += 1;
                self.report(WorkerEvent::Retrying { name, attempt, next: *next, why });
            }
            Verdict::Dead { why, .. } => {
                self.summary.dead += 1;
                self.report(WorkerEvent::Dead { name, attempt, why });
            }
            Verdict::Release => {}
        }
    }
}
