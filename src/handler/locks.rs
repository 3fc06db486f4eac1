//! Hands events out to members of a group that fetch them.
//!
//! A worker starts no more events than the members ask for. Each is handed out under a lock, and stays
//! a run in progress until the member settles it by the lock's token, or the lock expires.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Notify, mpsc};

use super::{Handler, Job, Obstacle, Outcome, Reports, RunMany, RunReport};
use crate::clock::{Clock, Fut};

/// An event that nobody has taken is given back after this time: another worker may run it.
const UNTAKEN: Duration = Duration::from_secs(2);

/// How many locks that have ended are remembered, so that it can be said how.
const REMEMBERED: usize = 10_000;

/// How many bytes of events are handed out at a time, but for a single event, and how many are under locks
/// before no more is started.
const TAKEN_BYTES: usize = 1 << 20;
const LOCKED_BYTES: usize = 64 << 20;

/// How many reports are passed on together.
const REPORTS: usize = 1_000;

/// An event that was handed out.
#[derive(Debug, Clone)]
pub struct HandedOut {
    /// By which it is settled.
    pub token: String,
    /// The event's document.
    pub event: Bytes,
    /// The event's name on the bus.
    pub name: Arc<str>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// That of the shard's ownership.
    pub epoch: u64,
}

/// What a member says of an event that was handed out to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What is to become of it.
    pub kind: SettlementKind,
    /// The exit code of the member's own handler, if it ran one that failed.
    pub exit: Option<i32>,
    /// What that handler left on stderr, or why the event was not processed.
    pub stderr: String,
}

/// What is to become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementKind {
    /// It is processed.
    Acknowledge,
    /// It is tried again, after this time at the earliest.
    Release(Duration),
    /// It is as if it had not been handed out.
    Return,
    /// No attempt would succeed.
    Reject,
}

/// Why a lock's token is good for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It is no token at all.
    #[error("it is no lock token")]
    NoToken,
    /// Another worker has given it.
    #[error("it belongs to another worker: to another server, or to one before a restart")]
    OtherWorker,
    /// The time is over.
    #[error("the lock has expired: the attempt has failed")]
    Expired,
    /// Another worker owns the event's shard.
    #[error("it belongs to a past epoch: another worker owns the event's shard, and runs it again")]
    PastEpoch,
    /// The worker has ended.
    #[error("the worker has ended and given the event back")]
    Stopped,
    /// It was said before, and otherwise.
    #[error("the event was settled before, in another way")]
    Settled,
    /// It has ended too long ago.
    #[error("the lock has ended long ago")]
    Unknown,
}

impl LockError {
    /// The error for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoToken => "NoToken",
            Self::OtherWorker => "OtherWorker",
            Self::Expired => "LockExpired",
            Self::PastEpoch => "PastEpoch",
            Self::Stopped => "WorkerStopped",
            Self::Settled => "SettledOtherwise",
            Self::Unknown => "TokenLost",
        }
    }
}

/// Events that are handed out under locks.
pub struct Locks(Rc<Inner>);

struct Inner {
    clock: Rc<dyn Clock>,
    /// How long a lock holds.
    length: Duration,
    /// Tells its tokens from those of other workers.
    worker: u64,
    state: RefCell<State>,
    /// Notified when more or fewer events may be in progress.
    max_in_flight_changed: Notify,
    /// Notified when there are events to be taken.
    offered: Notify,
    /// Notified when the next deadline has changed.
    deadlines_changed: Notify,
}

#[derive(Default)]
struct State {
    /// For how many events members wait.
    wanted: usize,
    /// How often members have asked.
    asked: u64,
    /// Events that wait to be taken, by their numbers.
    offers: VecDeque<(u64, Run)>,
    locks: BTreeMap<u64, Lock>,
    /// Of the events under locks.
    locked_bytes: usize,
    /// When which offers and locks end.
    deadlines: BTreeSet<(Duration, u64)>,
    past: Past,
    last_number: u64,
    last_lot: u64,
    refuses: bool,
}

/// An event's run, from its start to its report.
struct Run {
    job: Job,
    /// Of the events that were started together.
    lot: u64,
    /// Its place among them.
    place: usize,
    reports: mpsc::UnboundedSender<(usize, RunReport)>,
    /// When it is given back if nobody takes it, or when its lock expires.
    until: Duration,
}

struct Lock {
    run: Run,
    salt: u32,
    taken_at: Duration,
}

/// How locks have ended.
#[derive(Default)]
struct Past {
    ends: HashMap<u64, (u32, End)>,
    order: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Settled(SettlementKind),
    Failed(LockError),
}

impl Past {
    fn add(&mut self, number: u64, salt: u32, end: End) {
        self.ends.insert(number, (salt, end));
        self.order.push_back(number);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }
}

/// A member that waits for events; no more are started for it after this is dropped.
pub struct Demand {
    inner: Rc<Inner>,
    events: usize,
}

impl Drop for Demand {
    fn drop(&mut self) {
        self.inner.state.borrow_mut().wanted -= self.events;
        self.inner.max_in_flight_changed.notify_one();
    }
}

impl Demand {
    /// Takes events, once there are any.
    pub async fn take(&self) -> Vec<HandedOut> {
        loop {
            let offered = self.inner.offered.notified();
            let taken = self.inner.take(self.events);
            if !taken.is_empty() {
                return taken;
            }
            offered.await;
        }
    }
}

/// Events that were started together. If it is dropped before all of them have ended, another worker owns
/// their shard.
struct Lot {
    inner: Rc<Inner>,
    number: u64,
    reports: mpsc::UnboundedReceiver<(usize, RunReport)>,
}

impl Drop for Lot {
    fn drop(&mut self) {
        self.inner.end_if(|run| run.lot == self.number, LockError::PastEpoch);
    }
}

impl Locks {
    /// Nothing is handed out yet; a lock will hold for `length`.
    pub fn new(clock: Rc<dyn Clock>, length: Duration) -> Self {
        let worker = clock.random();
        Self(Rc::new(Inner {
            clock,
            length,
            worker,
            state: RefCell::default(),
            max_in_flight_changed: Notify::new(),
            offered: Notify::new(),
            deadlines_changed: Notify::new(),
        }))
    }

    /// Asks for up to so many events.
    pub fn demand(&self, events: usize) -> Demand {
        let mut state = self.0.state.borrow_mut();
        state.wanted += events;
        state.asked += 1;
        self.0.max_in_flight_changed.notify_one();
        Demand { inner: Rc::clone(&self.0), events }
    }

    /// Takes back events whose member has gone before it had them; they are not attempts.
    pub fn take_back(&self, handed_out: &[HandedOut]) {
        for event in handed_out {
            let returned = Settlement { kind: SettlementKind::Return, exit: None, stderr: String::new() };
            let _ = self.settle(&event.token, returned);
        }
    }

    /// Ends a lock as its holder says. Saying the same again is no error.
    ///
    /// # Errors
    /// The token is good for nothing.
    pub fn settle(&self, token: &str, settlement: Settlement) -> Result<(), LockError> {
        let number = match self.0.find(token) {
            Err(End::Settled(kind)) if kind == settlement.kind => return Ok(()),
            found => found.map_err(End::error)?,
        };
        let Settlement { kind, exit, stderr } = settlement;
        let outcome = match kind {
            SettlementKind::Acknowledge => Outcome::Exit(0),
            SettlementKind::Release(_) => Outcome::Released(exit),
            SettlementKind::Return => Outcome::Stopped,
            SettlementKind::Reject => Outcome::Rejected(exit),
        };
        let mut report = RunReport::new(outcome, stderr, Duration::ZERO);
        if let SettlementKind::Release(pause) = kind {
            report.retry_after = Some(pause);
        }
        self.0.unlock(number, End::Settled(kind), report);
        Ok(())
    }

    /// Lets a lock hold for its full time from now on.
    ///
    /// # Errors
    /// The token is good for nothing.
    pub fn renew(&self, token: &str) -> Result<(), LockError> {
        let number = self.0.find(token).map_err(End::error)?;
        let mut state = self.0.state.borrow_mut();
        let until = self.0.clock.elapsed() + self.0.length;
        if let Some(lock) = state.locks.get_mut(&number) {
            let before = std::mem::replace(&mut lock.run.until, until);
            state.deadlines.remove(&(before, number));
            state.deadlines.insert((until, number));
        }
        self.0.deadlines_changed.notify_one();
        Ok(())
    }

    /// Ends locks when they expire; never completes.
    pub async fn expire(&self) {
        loop {
            let next = self.0.state.borrow().deadlines.first().map(|(until, _)| *until);
            tokio::select! { biased;
                () = self.0.deadlines_changed.notified() => continue,
                () = async {
                    match next {
                        Some(until) => self.0.clock.sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            let now = self.0.clock.elapsed();
            self.0.end_if(|run| run.until <= now, LockError::Expired);
        }
    }

    /// Completes when for so long no member has asked, and nothing was handed out.
    pub async fn idle(&self, long: Duration) {
        loop {
            let asked = self.0.state.borrow().asked;
            self.0.clock.sleep_until(self.0.clock.elapsed() + long).await;
            let state = self.0.state.borrow();
            if state.asked == asked && state.wanted == 0 && state.locks.is_empty() {
                return;
            }
        }
    }
}

impl End {
    fn error(self) -> LockError {
        match self {
            Self::Settled(_) => LockError::Settled,
            Self::Failed(error) => error,
        }
    }
}

impl Inner {
    fn token(&self, number: u64, salt: u32) -> String {
        format!("{:016x}-{number:x}-{salt:08x}", self.worker)
    }

    /// The number of the lock that a token belongs to.
    fn find(&self, token: &str) -> Result<u64, End> {
        let (worker, number, salt) = read_token(token).ok_or(End::Failed(LockError::NoToken))?;
        if worker != self.worker {
            return Err(End::Failed(LockError::OtherWorker));
        }
        let state = self.state.borrow();
        match (state.locks.get(&number), state.past.ends.get(&number)) {
            // The process may have stood still: another worker may own the shard, and run the event.
            (Some(lock), _) if lock.salt == salt && !lock.run.job.permit.is_owned() => {
                drop(state);
                self.unlock(number, End::Failed(LockError::PastEpoch), RunReport::stopped());
                Err(End::Failed(LockError::PastEpoch))
            }
            (Some(lock), _) if lock.salt == salt => Ok(number),
            (None, Some((of, end))) if *of == salt => Err(*end),
            _ => Err(End::Failed(LockError::Unknown)),
        }
    }

    /// Hands out up to so many events.
    fn take(&self, most: usize) -> Vec<HandedOut> {
        let mut state = self.state.borrow_mut();
        let mut taken = Vec::new();
        let now = self.clock.elapsed();
        let before = state.locked_bytes;
        while taken.len() < most
            && state.locked_bytes < before + TAKEN_BYTES
            && let Some((number, mut run)) = state.offers.pop_front()
        {
            state.deadlines.remove(&(run.until, number));
            // It may have waited for longer than its worker is sure to own it.
            if !run.job.permit.holds() {
                report(run, RunReport::stopped());
                continue;
            }
            run.until = now + self.length;
            let salt = self.clock.random() as u32;
            taken.push(HandedOut {
                token: self.token(number, salt),
                event: run.job.event.clone(),
                name: Arc::clone(&run.job.file),
                attempt: run.job.attempt,
                epoch: run.job.epoch,
            });
            state.deadlines.insert((run.until, number));
            state.locked_bytes += run.job.event.len();
            state.locks.insert(number, Lock { run, salt, taken_at: now });
        }
        if !taken.is_empty() {
            self.deadlines_changed.notify_one();
        }
        taken
    }

    fn offer(self: &Rc<Self>, jobs: Vec<Job>) -> Lot {
        let mut state = self.state.borrow_mut();
        let (sender, reports) = mpsc::unbounded_channel();
        state.last_lot += 1;
        let lot = state.last_lot;
        let until = self.clock.elapsed() + UNTAKEN;
        for (place, job) in jobs.into_iter().enumerate() {
            let run = Run { job, lot, place, reports: sender.clone(), until };
            if state.refuses {
                report(run, RunReport::stopped());
                continue;
            }
            state.last_number += 1;
            let number = state.last_number;
            state.deadlines.insert((until, number));
            state.offers.push_back((number, run));
        }
        self.offered.notify_waiters();
        self.deadlines_changed.notify_one();
        Lot { inner: Rc::clone(self), number: lot, reports }
    }

    fn unlock(&self, number: u64, end: End, mut ended: RunReport) {
        let mut state = self.state.borrow_mut();
        let Some(Lock { run, salt, taken_at }) = state.locks.remove(&number) else { return };
        state.locked_bytes -= run.job.event.len();
        state.deadlines.remove(&(run.until, number));
        state.past.add(number, salt, end);
        ended.took = self.clock.elapsed().saturating_sub(taken_at);
        report(run, ended);
        self.max_in_flight_changed.notify_one();
    }

    /// Gives back events that nobody has taken.
    fn give_back(&self, is_over: impl Fn(&Run) -> bool) {
        let mut state = self.state.borrow_mut();
        let State { offers, deadlines, .. } = &mut *state;
        let (over, left): (VecDeque<_>, VecDeque<_>) = offers.drain(..).partition(|(_, run)| is_over(run));
        *offers = left;
        for (number, run) in over {
            deadlines.remove(&(run.until, number));
            report(run, RunReport::stopped());
        }
        self.max_in_flight_changed.notify_one();
    }

    /// Ends runs: what nobody has taken is given back, a lock ends for this reason.
    fn end_if(&self, is_over: impl Fn(&Run) -> bool, why: LockError) {
        self.give_back(&is_over);
        let state = self.state.borrow();
        let over: Vec<u64> = state.locks.iter().filter(|(_, lock)| is_over(&lock.run)).map(|(at, _)| *at).collect();
        drop(state);
        for number in over {
            let ended = match why {
                LockError::Expired => {
                    RunReport::new(Outcome::TimedOut, "the lock has expired".to_owned(), Duration::ZERO)
                }
                _ => RunReport::stopped(),
            };
            self.unlock(number, End::Failed(why), ended);
        }
    }
}

/// Reports how a run has ended; its shard may belong to another worker by now.
fn report(run: Run, report: RunReport) {
    let _ = run.reports.send((run.place, report));
}

/// Worker, number and salt.
fn read_token(token: &str) -> Option<(u64, u64, u32)> {
    let mut parts = token.split('-');
    let (worker, number, salt) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_whole = (worker.len(), salt.len()) == (16, 8) && parts.next().is_none();
    if !is_whole || ![worker, number, salt].into_iter().all(is_hex) {
        return None;
    }
    let whole = |part| u64::from_str_radix(part, 16).ok();
    Some((whole(worker)?, whole(number)?, u32::from_str_radix(salt, 16).ok()?))
}

impl RunMany for Locks {
    fn run_many(&self, jobs: Vec<Job>) -> Reports {
        let lot = self.0.offer(jobs);
        Box::pin(stream::unfold(lot, |mut lot| async move {
            let mut reports = Vec::new();
            (lot.reports.recv_many(&mut reports, REPORTS).await > 0).then_some((reports, lot))
        }))
    }
}

impl Handler for Locks {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        let mut reports = self.run_many(vec![job]);
        Box::pin(async move {
            let reported = reports.next().await.and_then(|reports| reports.into_iter().next());
            reported.map_or_else(RunReport::stopped, |(_, report)| report)
        })
    }

    fn many(&self) -> Option<&dyn RunMany> {
        Some(self)
    }

    fn terminate(&self) {
        self.0.end_if(|_| true, LockError::Stopped);
    }

    fn refuse_new_runs(&self) {
        self.0.state.borrow_mut().refuses = true;
        self.0.give_back(|_| true);
    }

    fn max_in_flight(&self) -> Option<usize> {
        let state = self.0.state.borrow();
        let more = if state.locked_bytes < LOCKED_BYTES { state.wanted } else { 0 };
        Some(state.locks.len() + more.max(state.offers.len()))
    }

    fn max_in_flight_changed(&self) -> Fut<'_, ()> {
        Box::pin(self.0.max_in_flight_changed.notified())
    }

    fn check(&self) -> Result<(), Obstacle> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
