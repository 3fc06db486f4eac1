//! How operations end: each answer is taken into the state, and what it allows is started.

use std::time::Duration;

use super::shard::{Followup, Shard};
use super::{Command, Committed, Completion, Engine, STALL};
use crate::event::EventName;
use crate::group::definition::Registered;
use crate::group::marker::{PendingEvent, Verdict};
use crate::group::verdict::{self, Judgement, RunResult};
use crate::group::worker_event::{EndedRun, WorkerEvent};
use crate::handler::{Obstacle, Outcome, RunReport};
use crate::store::StoreResult;

impl Engine {
    pub(super) fn complete(&mut self, ended: Completion) {
        self.in_flight -= 1;
        self.trouble.last_answer_at = self.now();
        match ended {
            Completion::Scanned { shard, marker, scan } => self.scanned(shard, marker, *scan),
            Completion::Acquired { shard, committed } => self.acquired(shard, committed),
            Completion::Committed { shard, epoch, committed } => self.committed(shard, epoch, committed),
            Completion::Polled(found) => self.take_poll(found),
            Completion::ControlRequests(asked) => self.take_requests(asked),
            Completion::Released(released) => self.take_released(released),
            Completion::Definition(registered) => self.take_definition(registered),
            Completion::Ran { shard, epoch, name, attempt, ran } => self.ran(shard, epoch, &name, attempt, ran),
            Completion::Key { shard, epoch, name, key } => self.learned(shard, epoch, &name, key),
            Completion::DeadLetterWritten { shard, epoch, name, letter, written, failed } => {
                if let Some(why) = failed {
                    self.report(WorkerEvent::OnDeadFailed { name: name.clone(), why });
                }
                self.dead_letter_written(shard, epoch, (&name, &letter), written);
            }
            Completion::Sent => {}
        }
    }

    /// The owned shard that an operation was started for; none if another worker has owned it
    /// since.
    pub(super) fn owned(&mut self, shard: u16, epoch: u64) -> Option<&mut Shard> {
        let owned = self.shards.get_mut(usize::from(shard))?.owned.as_deref_mut()?;
        (owned.marker.epoch == epoch).then_some(owned)
    }

    pub(super) fn committed(&mut self, number: u16, epoch: u64, committed: Committed) {
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
                let then = shard.committed(version, sent, now);
                self.command(Command::Renewed { shard: number, epoch, sent });
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
        let at = usize::from(number);
        if let Some(shard) = self.shards[at].owned.as_deref_mut() {
            shard.fenced();
            self.cancel_forgotten(at);
        }
        let slot = &mut self.shards[at];
        slot.owned = None;
        slot.observation = None;
        slot.idle = false;
        slot.scan_at = now;
    }

    /// Does what only a durable marker allows.
    pub(super) fn follow_up(&mut self, number: u16, then: Followup) {
        let at = usize::from(number);
        for key in then.deletes {
            self.command(Command::Delete { key });
        }
        for (name, pending) in then.dead_letters {
            self.write_dead_letter(number, name, pending);
        }
        for name in then.launches {
            let may = self.shards[at].owned.as_deref_mut().and_then(|shard| shard.launch_counted(&name));
            if let Some(launch) = may {
                self.launch(at, launch);
            }
        }
        if then.released {
            self.shards[at].owned = None;
            self.shards[at].observation = None;
            // The next scan shows whether it is idle.
            self.shards[at].idle = false;
        }
    }

    pub(super) fn write_dead_letter(&mut self, number: u16, name: EventName, pending: PendingEvent) {
        let Some(epoch) = self.shards[usize::from(number)].owned.as_deref().map(|shard| shard.marker.epoch) else {
            return;
        };
        self.command(Command::WriteDeadLetter { shard: number, epoch, name, pending: Box::new(pending) });
    }

    pub(super) fn dead_letter_written(
        &mut self,
        number: u16,
        epoch: u64,
        (name, letter): (&EventName, &str),
        written: StoreResult<()>,
    ) {
        let written = self.answer_of(written, true).is_some();
        if let Some(shard) = self.owned(number, epoch) {
            if written { shard.dead_letter_written(name, letter) } else { shard.dead_letter_not_written(letter) }
        }
    }

    pub(super) fn learned(&mut self, number: u16, epoch: u64, name: &EventName, key: StoreResult<Option<u64>>) {
        self.reading_keys.remove(name);
        let Some(key) = self.answer(key) else { return };
        let (now, is_latest) = (self.now(), self.settings.latest.is_some());
        if let Some(shard) = self.owned(number, epoch) {
            if is_latest { shard.learn_latest(name, key, now) } else { shard.learn_key(name, key) }
        }
    }

    pub(super) fn ran(&mut self, number: u16, epoch: u64, name: &EventName, attempt: u32, ran: Option<RunResult>) {
        let now = self.now();
        let wall = self.wall();
        // Aborted: the shard was lost or reset, and has forgotten it.
        let Some(ran) = ran else { return };
        if self.owned(number, epoch).is_none_or(|shard| !shard.running.contains(name)) {
            return;
        }
        let succeeded = match &ran {
            RunResult::Reported(report, content) if report.succeeded() => Some(*content),
            _ => None,
        };
        let (took, events) = ran.report().map_or((Duration::ZERO, 1), |report| (report.took, report.events));
        // A run that was cut short together with its worker has not failed.
        let ran = match ran {
            RunResult::Reported(report, content) if self.is_stopping() && report.may_be_interrupted() => {
                RunResult::Reported(RunReport { outcome: Outcome::Stopped, ..report }, content)
            }
            ran => ran,
        };
        let unreported = matches!(ran, RunResult::Skipped(_) | RunResult::Copy | RunResult::Foreign);
        if let RunResult::Foreign = &ran {
            self.report(WorkerEvent::Foreign { key: name.key() });
        }
        if let RunResult::Redefined(registered) = &ran {
            self.redefine(Registered::clone(registered));
        }
        if let RunResult::Skipped(why) = &ran {
            self.skip(number, epoch, name, why.as_deref());
        }
        if let Some(report) = ran.report().filter(|report| !matches!(report.outcome, Outcome::NotStarted(_)))
            && self.settings.reports_runs
        {
            let report = report.clone();
            self.report(WorkerEvent::Ran(Box::new(EndedRun { name: name.clone(), attempt, report })));
        }
        // Only a run that was begun, and not cut short, shows that handlers can start.
        let ended = ran.report().map(|report| !matches!(report.outcome, Outcome::Stopped | Outcome::NotStarted(_)));
        let judgement = verdict::judge(ran, name, attempt, &self.settings.retry, wall, self.random.next());
        match &judgement {
            Judgement::Verdict(verdict) => {
                self.was_read();
                match ended {
                    Some(true) => self.unstall(),
                    Some(false) => {}
                    // It has probed nothing: the next event may.
                    None => self.stalled_until = None,
                }
                if !unreported {
                    self.report_verdict(name, attempt, verdict, (took, events));
                }
            }
            Judgement::Unread(why) => self.report_unread(why),
            Judgement::NotStarted(obstacle) => self.stall(obstacle),
        }
        let is_latest = self.settings.latest.is_some();
        let Some(shard) = self.owned(number, epoch) else { return };
        match judgement {
            Judgement::Verdict(verdict) => {
                // One that turned out to be gone, or none that is wanted, supersedes nothing.
                let is_last = is_latest
                    && match verdict {
                        Verdict::Done => succeeded.is_some(),
                        Verdict::Dead { .. } => ended == Some(true),
                        Verdict::Retry { .. } | Verdict::Release => false,
                    };
                let superseded = if is_last { shard.superseded_by(name) } else { Vec::new() };
                shard.settle(name, verdict, succeeded, now);
                superseded.iter().for_each(|earlier| shard.supersede(earlier, now));
                self.report_superseded(superseded, name);
            }
            Judgement::Unread(why) => shard.unread(name, wall.plus(STALL), why),
            Judgement::NotStarted(_) => shard.settle(name, Verdict::Release, None, now),
        }
    }

    fn report_superseded(&mut self, superseded: Vec<EventName>, by: &EventName) {
        for name in superseded {
            self.summary.superseded += 1;
            self.report(WorkerEvent::Superseded { name, by: by.clone() });
        }
    }

    /// Passes over an event for which the group's condition does not hold, or has no answer, which
    /// is counted.
    fn skip(&mut self, number: u16, epoch: u64, name: &EventName, why: Option<&str>) {
        self.summary.skipped += 1;
        self.report(WorkerEvent::Skipped { name: name.clone(), why: why.map(str::to_owned) });
        if let Some(shard) = self.owned(number, epoch).filter(|_| why.is_some()) {
            shard.marker.unanswered += 1;
        }
    }

    /// The handler cannot be started, whatever the event: said once, and tried again after a while.
    pub(super) fn stall(&mut self, obstacle: &Obstacle) {
        self.stalled_until = Some(self.now() + STALL);
        if self.summary.stalled.replace(obstacle.clone()).is_none() {
            self.report(WorkerEvent::Stalled { obstacle: obstacle.clone() });
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
                self.report(WorkerEvent::Done { name: name.clone(), attempt, took, events });
            }
            Verdict::Retry { next, why } => {
                self.summary.retries += 1;
                self.report(WorkerEvent::Retrying { name: name.clone(), attempt, next: *next, why: why.clone() });
            }
            Verdict::Dead { why, .. } => {
                self.summary.dead += 1;
                self.report(WorkerEvent::Dead { name: name.clone(), attempt, why: why.clone() });
            }
            Verdict::Release => {}
        }
    }
}
