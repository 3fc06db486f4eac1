//! A member of a group that fetches its events from a server: the same handlers as a worker's, while the
//! group's state is the server's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, SelectAll, StreamExt};
use tokio::sync::watch;

use super::{LockChanges, Receipt, Received, RemoteError, Server};
use crate::clock::{Backoff, Clock, Fut};
use crate::event::{Event, EventName};
use crate::group::GroupName;
use crate::group::event_vars;
use crate::group::worker::{Stop, changed};
use crate::group::worker_event::{Reporter, WorkerEvent};
use crate::handler::Var;
use crate::handler::{Handler, Job, JobVars, Outcome, Permit, RunReport, SettlementKind};
use crate::serve::{MOST_DELAY, MOST_EVENTS, MOST_TOKENS};
use crate::store::{ErrorKind, StoreError};

/// How many seconds a request waits for events.
const WAIT: u64 = 30;

/// After this time a handler that could not be started is tried again.
const STALL: Duration = Duration::from_secs(5);

/// The pauses between requests to a server that does not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// How long a lock may hold, whatever the server says.
const LENGTHS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_hours(24));

/// How long the server may take to hear of what was cut off.
const LAST_TIMEOUT: Duration = Duration::from_secs(3);

/// What a member works on and with.
pub struct MemberParts {
    /// The server.
    pub server: Rc<Server>,
    /// The group.
    pub group: GroupName,
    /// Runs the group's command.
    pub handler: Rc<dyn Handler>,
    /// How many events it takes at a time.
    pub capacity: usize,
    /// Exit codes, or statuses of HTTP, that mean dead at once.
    pub dead_on: Vec<i32>,
    /// How long running handlers may go on after a stop.
    pub stop_timeout: Duration,
    /// The clock.
    pub clock: Rc<dyn Clock>,
    /// Takes in what happens.
    pub reporter: Rc<dyn Reporter>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
}

/// Takes events from a server and runs their handler.
pub struct Member {
    parts: MemberParts,
    /// What it has, by numbers of its own.
    taken: BTreeMap<u64, Taken>,
    last_number: u64,
    runs: SelectAll<Runs>,
    /// Runs that have ended, and are to be told of.
    ended: Vec<(Taken, RunReport)>,
    /// How long a lock holds.
    length: Duration,
    max_attempts: u32,
    renew_at: Duration,
    is_stalled: bool,
    is_away: bool,
    /// What the server is being told of: until when their locks hold.
    settling: Vec<(String, Rc<Cell<Duration>>)>,
    /// Why it ends once its runs have.
    failure: Option<RemoteError>,
    /// The handlers were ended: what cannot be told at once is not told.
    is_over: bool,
    /// Nothing is asked for before this time.
    pause_until: Duration,
    retry: Backoff,
}

/// Reports of runs, by the numbers of their events; none for one whose lock is lost.
type Runs = LocalBoxStream<'static, Vec<(u64, Option<RunReport>)>>;

/// An event that was handed out to this member.
struct Taken {
    token: String,
    name: EventName,
    attempt: u32,
    /// Until then its lock holds for sure.
    until: Rc<Cell<Duration>>,
}

/// A request about locks that is under way.
struct Settling {
    kind: SettlementKind,
    settled: Vec<(Taken, RunReport)>,
}

/// How a request about locks has ended.
type Told<T> = (T, Result<super::LockAnswer, RemoteError>);

/// What a handler is told of a run.
#[derive(Debug)]
struct Vars {
    event: Event,
    name: EventName,
    own: Vec<Var>,
}

impl JobVars for Vars {
    fn list(&self) -> Vec<Var> {
        let mut vars = event_vars(&self.event, &self.name);
        vars.extend(self.own.iter().cloned());
        vars
    }
}

impl Member {
    /// A member that has not begun.
    pub fn new(parts: MemberParts) -> Self {
        Self {
            parts,
            taken: BTreeMap::new(),
            last_number: 0,
            runs: SelectAll::new(),
            ended: Vec::new(),
            length: Duration::from_mins(1),
            max_attempts: u32::MAX,
            renew_at: Duration::MAX,
            is_stalled: false,
            is_away: false,
            settling: Vec::new(),
            failure: None,
            is_over: false,
            pause_until: Duration::ZERO,
            retry: RETRY,
        }
    }

    /// Works until it is told to stop. Where the server refuses it, runs that have begun may end first.
    ///
    /// # Errors
    /// The group is gone, or the server refuses this member.
    pub async fn run(mut self) -> Result<(), RemoteError> {
        let clock = Rc::clone(&self.parts.clock);
        let mut stop = self.parts.stop.clone();
        let (mut level, mut end_at) = (Stop::No, Duration::MAX);
        let mut receiving: Option<Fut<'static, Result<Receipt, RemoteError>>> = None;
        let mut settling: Option<Fut<'static, Told<Settling>>> = None;
        let mut renewing: Option<Fut<'static, Told<Duration>>> = None;
        loop {
            let now = clock.elapsed();
            let told = *stop.borrow_and_update();
            if std::mem::replace(&mut level, told) != told {
                // What it was about to be given the server takes back.
                receiving = None;
                self.parts.handler.refuse_new_runs();
                end_at = match told {
                    Stop::No | Stop::AfterRuns => Duration::MAX,
                    Stop::Starts => now + self.parts.stop_timeout,
                    Stop::Handlers => now,
                };
            }
            if now >= end_at {
                end_at = Duration::MAX;
                self.is_over = true;
                self.parts.handler.terminate();
            }
            let goes_on = level == Stop::No && self.failure.is_none();
            if goes_on && receiving.is_none() && now >= self.pause_until {
                receiving = self.receive();
            }
            if settling.is_none() && (now >= self.pause_until || self.is_over) {
                settling = self.settle();
            }
            if renewing.is_none() && now >= self.renew_at {
                renewing = self.renew();
            }
            if !goes_on && self.taken.is_empty() && self.ended.is_empty() && settling.is_none() {
                return self.failure.map_or(Ok(()), Err);
            }
            let paused = if now < self.pause_until { self.pause_until } else { Duration::MAX };
            let renew_at = if renewing.is_none() { self.renew_at } else { Duration::MAX };
            let wake_at = paused.min(renew_at).min(end_at);
            tokio::select! { biased;
                () = changed(&mut stop, level) => {}
                Some(ended) = self.runs.next() => self.take_ends(ended, level),
                (sent, told) = under_way(&mut settling) => {
                    settling = None;
                    self.settled(sent, told);
                }
                (sent_at, told) = under_way(&mut renewing) => {
                    renewing = None;
                    self.renewed(sent_at, told);
                }
                received = under_way(&mut receiving) => {
                    receiving = None;
                    if let Err(error) = self.received(received) {
                        self.fail(error);
                    }
                }
                () = wake(&*clock, wake_at) => {}
            }
        }
    }

    /// Takes nothing more.
    fn fail(&mut self, error: RemoteError) {
        self.parts.handler.refuse_new_runs();
        self.failure.get_or_insert(error);
    }

    fn report(&self, event: &WorkerEvent) {
        self.parts.reporter.report(&self.parts.group, event);
    }

    /// Asks for as many events as there is room for.
    fn receive(&self) -> Option<Fut<'static, Result<Receipt, RemoteError>>> {
        // One shows whether handlers can start again.
        let capacity = if self.is_stalled { 1 } else { self.parts.capacity };
        let most = capacity.saturating_sub(self.taken.len() + self.ended.len()).min(MOST_EVENTS);
        let (server, group) = (Rc::clone(&self.parts.server), self.parts.group.clone());
        (most > 0).then(|| Box::pin(async move { server.receive(&group, most, WAIT).await }) as _)
    }

    fn received(&mut self, received: Result<Receipt, RemoteError>) -> Result<(), RemoteError> {
        let Some(receipt) = self.answer(received)? else { return Ok(()) };
        let length = Duration::try_from_secs_f64(receipt.lock_duration_in_seconds).unwrap_or(self.length);
        self.length = length.clamp(LENGTHS.0, LENGTHS.1);
        self.max_attempts = receipt.max_delivery_count;
        let now = self.parts.clock.elapsed();
        let mut jobs = Vec::with_capacity(receipt.value.len());
        for received in receipt.value {
            jobs.push(self.take(received, now)?);
        }
        if !jobs.is_empty() {
            self.renew_at = self.renew_at.min(now + self.length / 3);
            self.start(jobs);
        }
        Ok(())
    }

    /// Takes over an event; the job for its handler, with its number.
    fn take(&mut self, received: Received, now: Duration) -> Result<(u64, Job), RemoteError> {
        let Received { properties, event: document } = received;
        let strange = |why: String| RemoteError::Strange { url: self.parts.server.url().to_owned(), why };
        // It becomes the name of a file.
        let name = EventName::parse(&properties.name)
            .ok_or_else(|| strange(format!("'{}' is no event's name", properties.name.escape_debug())))?;
        let event = Event::parse(document.get().as_bytes(), usize::MAX).map_err(|error| strange(error.to_string()))?;
        // The lock holds from some time before its answer came.
        let until = Rc::new(Cell::new(now + self.length * 9 / 10));
        let (clock, holds_until) = (Rc::clone(&self.parts.clock), Rc::clone(&until));
        let own = vec![
            ("EVBUS_GROUP", self.parts.group.to_string().into()),
            ("EVBUS_ATTEMPT", properties.delivery_count.to_string().into()),
            ("EVBUS_MAX_ATTEMPTS", self.max_attempts.to_string().into()),
            ("EVBUS_EPOCH", properties.epoch.to_string().into()),
            ("EVBUS_URL", self.parts.server.url().into()),
        ];
        let job = Job {
            event: Bytes::from(document.get().as_bytes().to_vec()),
            file: name.text(),
            vars: Rc::new(Vars { event, name: name.clone(), own }),
            likeness: None,
            attempt: properties.delivery_count,
            epoch: properties.epoch,
            permit: Permit::new(move || clock.elapsed() < holds_until.get()),
        };
        self.last_number += 1;
        let taken = Taken { token: properties.lock_token, name, attempt: properties.delivery_count, until };
        self.taken.insert(self.last_number, taken);
        Ok((self.last_number, job))
    }

    fn start(&mut self, jobs: Vec<(u64, Job)>) {
        for (number, job) in &jobs {
            if let Some(taken) = self.taken.get(number) {
                self.report(&WorkerEvent::Started { name: taken.name.clone(), attempt: job.attempt });
            }
        }
        let handler = Rc::clone(&self.parts.handler);
        if let Some(many) = handler.many() {
            let (numbers, jobs): (Vec<u64>, Vec<Job>) = jobs.into_iter().unzip();
            let reports = many.run_many(jobs);
            let numbered = reports.map(move |reports| {
                reports.into_iter().map(|(place, report)| (numbers[place], Some(report))).collect::<Vec<_>>()
            });
            self.runs.push(Box::pin(numbered));
            return;
        }
        for (number, job) in jobs {
            let Some(taken) = self.taken.get(&number) else { continue };
            let (handler, clock, until) = (Rc::clone(&handler), Rc::clone(&self.parts.clock), Rc::clone(&taken.until));
            let run = async move {
                let report = tokio::select! { biased;
                    report = handler.run(job) => Some(report),
                    () = lost(&*clock, &until) => None,
                };
                vec![(number, report)]
            };
            self.runs.push(Box::pin(stream::once(run)));
        }
    }

    fn take_ends(&mut self, ended: Vec<(u64, Option<RunReport>)>, level: Stop) {
        for (number, report) in ended {
            let Some(taken) = self.taken.remove(&number) else { continue };
            let Some(mut report) = report else {
                self.lost(taken, "the server could not be told in time that it goes on");
                continue;
            };
            // A run that was cut short together with its member has not failed.
            if level != Stop::No && report.may_be_interrupted() {
                report.outcome = Outcome::Stopped;
            }
            match &report.outcome {
                Outcome::NotStarted(obstacle) => {
                    self.pause_until = self.pause_until.max(self.parts.clock.elapsed() + STALL);
                    if !std::mem::replace(&mut self.is_stalled, true) {
                        self.report(&WorkerEvent::Stalled { obstacle: (**obstacle).clone() });
                    }
                }
                Outcome::Stopped => {}
                _ if std::mem::take(&mut self.is_stalled) => self.report(&WorkerEvent::GoesOn),
                _ => {}
            }
            self.ended.push((taken, report));
        }
    }

    fn lost(&self, taken: Taken, why: &str) {
        self.report(&WorkerEvent::LockLost { name: taken.name, why: why.to_owned() });
    }

    /// What the server is to be told of a run.
    fn kind(&self, report: &RunReport) -> SettlementKind {
        let code = match &report.outcome {
            Outcome::Exit(code) => Some(*code),
            Outcome::Status(status) => Some(i32::from(*status)),
            _ => None,
        };
        match &report.outcome {
            outcome if outcome.is_success() => SettlementKind::Acknowledge,
            Outcome::Stopped | Outcome::NotStarted(_) => SettlementKind::Return,
            Outcome::Unfit(_) => SettlementKind::Reject,
            _ if code.is_some_and(|code| self.parts.dead_on.contains(&code)) => SettlementKind::Reject,
            _ => SettlementKind::Release(report.retry_after.unwrap_or_default().min(Duration::from_secs(MOST_DELAY))),
        }
    }

    /// Tells the server of runs that have ended: of all successes at once, or of one failure.
    fn settle(&mut self) -> Option<Fut<'static, Told<Settling>>> {
        let kind = self.kind(&self.ended.first()?.1);
        let is_one = !matches!(kind, SettlementKind::Acknowledge | SettlementKind::Return);
        let most = if is_one { 1 } else { MOST_TOKENS };
        let (mut settled, mut left) = (Vec::new(), Vec::new());
        for one in std::mem::take(&mut self.ended) {
            if settled.len() < most && self.kind(&one.1) == kind { settled.push(one) } else { left.push(one) }
        }
        self.ended = left;
        let mut changes = LockChanges {
            lock_tokens: settled.iter().map(|(taken, _)| taken.token.clone()).collect(),
            ..LockChanges::default()
        };
        if let Some((_, report)) = settled.first().filter(|_| is_one) {
            changes.exit = match &report.outcome {
                Outcome::Exit(code) => Some(*code),
                _ => None,
            };
            changes.stderr = match &report.outcome {
                Outcome::Exit(_) => report.stderr_tail.clone(),
                _ => report.why(),
            };
        }
        self.settling = settled.iter().map(|(taken, _)| (taken.token.clone(), Rc::clone(&taken.until))).collect();
        let (server, group) = (Rc::clone(&self.parts.server), self.parts.group.clone());
        let timeout = if self.is_over { LAST_TIMEOUT } else { Duration::MAX };
        Some(Box::pin(async move {
            let told = server.settle(&group, kind, &changes, timeout).await;
            (Settling { kind, settled }, told)
        }))
    }

    fn settled(&mut self, Settling { kind, settled }: Settling, told: Result<super::LockAnswer, RemoteError>) {
        self.settling.clear();
        let answer = match self.answer(told) {
            Ok(Some(answer)) => answer,
            outcome => {
                // It is told again for as long as that may be of use.
                let is_last = self.is_over || outcome.is_err();
                let now = self.parts.clock.elapsed();
                let (live, over): (Vec<_>, Vec<_>) =
                    settled.into_iter().partition(|(taken, _)| !is_last && now < taken.until.get() + self.length);
                over.into_iter().for_each(|(taken, _)| self.lost(taken, "the server could not be told"));
                self.ended.extend(live);
                if let Err(error) = outcome {
                    self.fail(error);
                }
                return;
            }
        };
        for (taken, report) in settled {
            if let Some(failed) = answer.failed_lock_tokens.iter().find(|failed| failed.lock_token == taken.token) {
                self.lost(taken, &failed.error.message);
                continue;
            }
            let Taken { name, attempt, .. } = taken;
            let why = report.why();
            self.report(&match kind {
                SettlementKind::Acknowledge => {
                    WorkerEvent::Done { name, attempt, took: report.took, events: report.events }
                }
                SettlementKind::Reject => WorkerEvent::Dead { name, attempt, why },
                SettlementKind::Release(_) if attempt >= self.max_attempts => WorkerEvent::Dead { name, attempt, why },
                SettlementKind::Release(_) => WorkerEvent::Released { name, attempt, why },
                SettlementKind::Return => continue,
            });
        }
    }

    /// Renews the locks of all that it has.
    fn renew(&mut self) -> Option<Fut<'static, Told<Duration>>> {
        let lock_tokens: Vec<String> = self.held().map(|(token, _)| token.clone()).take(MOST_TOKENS).collect();
        if lock_tokens.is_empty() {
            self.renew_at = Duration::MAX;
            return None;
        }
        let (server, group) = (Rc::clone(&self.parts.server), self.parts.group.clone());
        let sent_at = self.parts.clock.elapsed();
        self.renew_at = sent_at + self.length / 3;
        let changes = LockChanges { lock_tokens, ..LockChanges::default() };
        // Before the locks are over there is time for another one.
        let timeout = self.length / 6;
        Some(Box::pin(async move { (sent_at, server.renew(&group, &changes, timeout).await) }))
    }

    fn renewed(&mut self, sent_at: Duration, told: Result<super::LockAnswer, RemoteError>) {
        let Ok(answer) = told else {
            self.renew_at = self.parts.clock.elapsed() + (self.length / 20).max(Duration::from_millis(100));
            return;
        };
        for (token, until) in self.held() {
            let failed = answer.failed_lock_tokens.iter().any(|failed| failed.lock_token == *token);
            // What was taken while the request was under way holds for longer.
            until.set(if failed { Duration::ZERO } else { until.get().max(sent_at + self.length) });
        }
    }

    /// All locks that it has, and until when they hold.
    fn held(&self) -> impl Iterator<Item = (&String, &Rc<Cell<Duration>>)> {
        let own = self.taken.values().chain(self.ended.iter().map(|(taken, _)| taken));
        own.map(|taken| (&taken.token, &taken.until)).chain(self.settling.iter().map(|(token, until)| (token, until)))
    }

    /// An answer of the server; none if it is to be asked again after a pause.
    fn answer<T>(&mut self, answer: Result<T, RemoteError>) -> Result<Option<T>, RemoteError> {
        match answer {
            Ok(answer) => {
                self.retry = RETRY;
                if std::mem::take(&mut self.is_away) {
                    self.report(&WorkerEvent::GoesOn);
                }
                Ok(Some(answer))
            }
            Err(error) if error.is_temporary() => {
                let asked = match &error {
                    RemoteError::Refused { retry_after: Some(pause), .. } => *pause,
                    _ => Duration::ZERO,
                };
                self.pause_until = self.parts.clock.elapsed() + self.retry.take().max(asked.min(self.length / 3));
                if !std::mem::replace(&mut self.is_away, true) {
                    let error = StoreError::new(ErrorKind::Unavailable, error.to_string());
                    self.report(&WorkerEvent::Unreachable { error });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Completes when a lock no longer holds for sure.
async fn lost(clock: &dyn Clock, until: &Cell<Duration>) {
    while clock.elapsed() < until.get() {
        clock.sleep_until(clock.elapsed() + (until.get() - clock.elapsed()).min(Duration::from_secs(1))).await;
    }
}

/// A request, if one is under way.
async fn under_way<T>(request: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

async fn wake(clock: &dyn Clock, at: Duration) {
    match at {
        Duration::MAX => std::future::pending().await,
        at => clock.sleep_until(at).await,
    }
}
