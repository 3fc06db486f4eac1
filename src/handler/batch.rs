//! Many events through one run of a handler: NDJSON on stdin, an event a line, in the order of
//! their names.
//!
//! Each event has its own run for the caller, and its own report; runs that are asked for at about
//! the same time are made as one. A batch that fails is run again in halves, so that an event has
//! failed only if it fails alone. Events that have failed before are batched apart from new ones: a
//! fault in them cannot cost the new ones another run.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, Shared, WeakShared};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::{Notify, Semaphore};

use super::{Handler, Job, Outcome, Reports, RunMany, RunReport};
use crate::clock::{Clock, Fut};
use crate::event::{EventView, Siblings, one_line};
use crate::handler::Obstacle;

/// The limits of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchBounds {
    /// The most events in one batch; at least 1.
    pub size: usize,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
    /// The most runs at once.
    pub concurrency: usize,
}

/// What became of a run for many events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The run succeeded, for all of them.
    Done,
    /// The run failed, and the events are run again in halves.
    Halved,
}

/// Called after each run for more than one event, unless the run says nothing about them.
pub type OnBatch = Box<dyn Fn(BatchOutcome, &RunReport)>;

/// Runs events in batches through another handler.
pub struct Batches(Rc<Inner>);

struct Inner {
    handler: Rc<dyn Handler>,
    /// Statuses of HTTP that say that an event is dead: the one that is meant must be found.
    dead_on: Vec<i32>,
    clock: Rc<dyn Clock>,
    bounds: BatchBounds,
    runs: Semaphore,
    on_batch: OnBatch,
    in_flight: RefCell<Vec<InFlight>>,
    /// Events that are in a batch.
    ticketed: Cell<usize>,
    /// How many events are to be expected; no more come before one of them has ended.
    expected: Cell<Option<usize>>,
    over: Cell<bool>,
}

type BatchRun = Shared<Fut<'static, ()>>;

/// A batch that at least one of its events waits for. It goes on for as long as any of its events
/// does.
struct InFlight {
    batch: Weak<Batch>,
    run: WeakShared<Fut<'static, ()>>,
}

#[derive(Default)]
struct Batch {
    slots: RefCell<Vec<Slot>>,
    /// How many of its events wait for their reports.
    present: Cell<usize>,
    /// Tasks that wait for reports.
    waiting: RefCell<Vec<Waker>>,
    /// Whether its events have failed before.
    tried: bool,
    /// Whether all expected events have come.
    complete: Cell<bool>,
    /// Whether no event can join any more.
    closed: Cell<bool>,
    /// Notified when an event has come or left, or when no other will come.
    changed: Notify,
}

struct Slot {
    job: Job,
    report: Option<RunReport>,
    /// Whether its caller no longer waits for the report.
    left: bool,
}

/// An event's place in a batch; leaves it when dropped.
struct Ticket {
    inner: Rc<Inner>,
    batch: Rc<Batch>,
    at: usize,
    /// The event's place among those that came with it.
    place: usize,
}

/// Events that came together, in their batches.
struct Joined {
    tickets: Vec<Ticket>,
    runs: Vec<(Rc<Batch>, BatchRun)>,
}

impl Stream for Joined {
    type Item = Vec<(usize, RunReport)>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { tickets, runs } = &mut *self;
        runs.retain_mut(|(_, run)| Pin::new(run).poll(context).is_pending());
        let mut reports = Vec::new();
        tickets.retain(|ticket| {
            let report = ticket.batch.slots.borrow_mut()[ticket.at].report.take();
            let is_over = || runs.iter().all(|(batch, _)| !Rc::ptr_eq(batch, &ticket.batch));
            match report.or_else(|| is_over().then(RunReport::stopped)) {
                Some(report) => {
                    reports.push((ticket.place, report));
                    false
                }
                None => true,
            }
        });
        if !reports.is_empty() {
            return Poll::Ready(Some(reports));
        }
        if tickets.is_empty() {
            return Poll::Ready(None);
        }
        for (batch, _) in runs {
            batch.wait(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inner.ticketed.set(self.inner.ticketed.get() - 1);
        self.batch.slots.borrow_mut()[self.at].left = true;
        self.batch.present.set(self.batch.present.get() - 1);
        self.batch.changed.notify_one();
    }
}

impl Batches {
    /// Batches for `handler`, which finds many events on its stdin.
    pub fn new(handler: Rc<dyn Handler>, clock: Rc<dyn Clock>, bounds: BatchBounds, on_batch: OnBatch) -> Self {
        Self::with_dead_on(handler, clock, bounds, Vec::new(), on_batch)
    }

    /// The same, where these statuses of HTTP make an event dead at once.
    pub fn with_dead_on(
        handler: Rc<dyn Handler>,
        clock: Rc<dyn Clock>,
        bounds: BatchBounds,
        dead_on: Vec<i32>,
        on_batch: OnBatch,
    ) -> Self {
        let runs = Semaphore::new(bounds.concurrency);
        let (in_flight, ticketed, expected, over) = Default::default();
        Self(Rc::new(Inner { handler, dead_on, clock, bounds, runs, on_batch, in_flight, ticketed, expected, over }))
    }
}

impl Handler for Batches {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let reports = self.run_many(vec![job]).next().await;
            reports.and_then(|reports| reports.into_iter().next()).map_or_else(RunReport::stopped, |(_, report)| report)
        })
    }

    fn many(&self) -> Option<&dyn RunMany> {
        Some(self)
    }

    fn terminate(&self) {
        self.refuse_new_runs();
        self.0.handler.terminate();
    }

    fn refuse_new_runs(&self) {
        self.0.over.set(true);
        self.0.look_again();
    }

    fn expect(&self, runs: Option<usize>) {
        if self.0.expected.replace(runs) != runs {
            self.0.look_again();
        }
    }

    fn check(&self) -> Result<(), Obstacle> {
        self.0.handler.check()
    }
}

impl RunMany for Batches {
    fn run_many(&self, jobs: Vec<Job>) -> Reports {
        let inner = Rc::clone(&self.0);
        // The events join at the first poll, as they would one by one.
        Box::pin(stream::once(async move { Inner::join(&inner, jobs) }).flatten())
    }
}

impl Inner {
    fn join(this: &Rc<Self>, jobs: Vec<Job>) -> Joined {
        let mut joined = Joined { tickets: Vec::with_capacity(jobs.len()), runs: Vec::new() };
        for (place, job) in jobs.into_iter().enumerate() {
            // Most have room where the one before them went.
            let open = joined.runs.last().filter(|(batch, _)| this.has_room(batch, job.was_tried())).cloned();
            let (batch, run) =
                open.or_else(|| this.open(job.was_tried())).unwrap_or_else(|| Self::begin(this, job.was_tried()));
            let at = batch.add(job);
            this.ticketed.set(this.ticketed.get() + 1);
            if !joined.runs.iter().any(|(known, _)| Rc::ptr_eq(known, &batch)) {
                joined.runs.push((Rc::clone(&batch), run));
            }
            joined.tickets.push(Ticket { inner: Rc::clone(this), batch, at, place });
        }
        this.look_again();
        joined
    }

    fn has_room(&self, batch: &Batch, tried: bool) -> bool {
        batch.tried == tried && !batch.closed.get() && batch.present.get() < self.bounds.size
    }

    /// The batch that has room, if there is one.
    fn open(&self, tried: bool) -> Option<(Rc<Batch>, BatchRun)> {
        let mut in_flight = self.in_flight.borrow_mut();
        in_flight.retain(|in_flight| in_flight.batch.strong_count() > 0);
        let mut in_flight =
            in_flight.iter().filter_map(|in_flight| Some((in_flight.batch.upgrade()?, in_flight.run.upgrade()?)));
        in_flight.find(|(batch, _)| self.has_room(batch, tried))
    }

    fn begin(this: &Rc<Self>, tried: bool) -> (Rc<Batch>, BatchRun) {
        let batch = Rc::new(Batch { tried, ..Batch::default() });
        let run: Fut<'static, ()> = Box::pin(Self::go(Rc::clone(this), Rc::clone(&batch)));
        let run = run.shared();
        if let Some(weak) = run.downgrade() {
            this.in_flight.borrow_mut().push(InFlight { batch: Rc::downgrade(&batch), run: weak });
        }
        (batch, run)
    }

    fn look_again(&self) {
        let all_here = self.expected.get().is_some_and(|expected| self.ticketed.get() >= expected);
        for batch in self.in_flight.borrow().iter().filter_map(|in_flight| in_flight.batch.upgrade()) {
            batch.complete.set(batch.complete.get() || all_here);
            batch.changed.notify_one();
        }
    }

    /// A batch from its first event to its last report.
    async fn go(self: Rc<Self>, batch: Rc<Batch>) {
        self.gather(&batch).await;
        // While the batch waits for its turn it can still grow.
        let turn = self.unless(&batch, || self.over.get(), self.runs.acquire()).await;
        batch.closed.set(true);
        let mut parts = vec![batch.in_order()];
        while let Some(mut part) = parts.pop() {
            batch.keep_startable(&mut part, turn.is_none() || self.over.get());
            if part.is_empty() {
                continue;
            }
            let job = batch.merged(&part);
            let left = || part.iter().any(|at| batch.slots.borrow()[*at].left);
            match self.unless(&batch, left, self.handler.run(job)).await {
                // A run with an event that has left since is ended; the other events start again.
                None => parts.push(part),
                Some(report) => {
                    let report = RunReport { events: part.len(), ..report };
                    if part.len() == 1 || is_for_all(&report.outcome, &self.dead_on, batch.tried) {
                        if part.len() > 1 && report.succeeded() {
                            (self.on_batch)(BatchOutcome::Done, &report);
                        }
                        batch.report(&part, &report);
                        continue;
                    }
                    (self.on_batch)(BatchOutcome::Halved, &report);
                    let later = part.split_off(part.len().div_ceil(2));
                    parts.extend([later, part]);
                }
            }
        }
    }

    /// Waits until the batch is full, its first event has waited long enough, or no other event
    /// will come.
    async fn gather(&self, batch: &Batch) {
        let complete = || self.over.get() || batch.complete.get() || batch.present.get() >= self.bounds.size;
        let until = self.clock.elapsed() + self.bounds.linger;
        let _ = self.unless(batch, complete, self.clock.sleep_until(until)).await;
    }

    /// The result of `future`; none if a change of the batch makes `happened` true first.
    async fn unless<T>(
        &self,
        batch: &Batch,
        happened: impl Fn() -> bool,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        loop {
            if happened() {
                return None;
            }
            tokio::select! { biased;
                () = batch.changed.notified() => {}
                value = &mut future => return Some(value),
            }
        }
    }
}

impl Batch {
    /// Adds an event; returns its slot.
    fn add(&self, job: Job) -> usize {
        let mut slots = self.slots.borrow_mut();
        slots.push(Slot { job, report: None, left: false });
        self.present.set(self.present.get() + 1);
        slots.len() - 1
    }

    /// Wakes a task at the next reports: the task that polls the batch may be that of another of its
    /// events.
    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// The slots in the order of their events.
    fn in_order(&self) -> Vec<usize> {
        let slots = self.slots.borrow();
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by(|this, that| slots[*this].job.file.cmp(&slots[*that].job.file));
        order
    }

    /// Drops from a part the events that have left, and those that may not start any more, which is
    /// no attempt.
    fn keep_startable(&self, part: &mut Vec<usize>, over: bool) {
        let mut slots = self.slots.borrow_mut();
        let len = part.len();
        part.retain(|at| {
            let slot = &mut slots[*at];
            let may = !over && slot.job.permit.holds();
            if !may {
                slot.report = Some(RunReport::stopped());
            }
            may && !slot.left
        });
        if part.len() < len {
            self.wake();
        }
    }

    fn report(&self, part: &[usize], report: &RunReport) {
        let mut slots = self.slots.borrow_mut();
        for at in part {
            slots[*at].report = Some(report.clone());
        }
        self.wake();
    }

    /// One job made of many: their documents, a line each, and the variables that they have in
    /// common.
    fn merged(&self, part: &[usize]) -> Job {
        let slots = self.slots.borrow();
        let jobs: Vec<&Job> = part.iter().map(|at| &slots[*at].job).collect();
        let mut lines = Vec::with_capacity(jobs.iter().map(|job| job.event.len() + 1).sum());
        for job in &jobs {
            lines.extend_from_slice(&one_line(&job.event));
            lines.push(b'\n');
        }
        let mut vars = jobs[0].vars.list();
        if jobs.len() > 1 {
            // The events may be of several shards; that those are in the same epoch means nothing.
            vars.retain(|(name, _)| *name != "EVBUS_EPOCH");
        }
        let siblings = OnceCell::new();
        for job in &jobs[1..] {
            let is_known = job.likeness.is_some() && job.likeness == jobs[0].likeness;
            let is_sibling = || {
                let siblings = siblings.get_or_init(|| {
                    let first = EventView::parse(&jobs[0].event, usize::MAX).ok()?;
                    Siblings::of(&jobs[0].event, &first)
                });
                siblings.as_ref().is_some_and(|siblings| siblings.include(&job.event))
            };
            job.vars.keep_common(&mut vars, is_known || is_sibling());
        }
        vars.push(("EVBUS_BATCH", jobs.len().to_string().into()));
        let permit = jobs[0].permit.clone();
        let (attempt, epoch) = (jobs[0].attempt, jobs[0].epoch);
        let (event, file) = (lines.into(), "batch.ndjson".into());
        Job { event, file, vars: Rc::new(vars), likeness: None, attempt, epoch, permit }
    }
}

/// Whether an outcome holds for each of the events, or says nothing about them: the receiver of a
/// request moves away, knows no such sender or address, has too much to do, or is away. One that fails
/// or does not answer may do so for any reason: only events that have failed before are halved for that.
fn is_for_all(outcome: &Outcome, dead_on: &[i32], tried: bool) -> bool {
    use Outcome::{NoAnswer, NotStarted, Status, Stopped};
    match outcome {
        outcome if outcome.is_success() => true,
        Stopped | NotStarted(_) => true,
        Status(status) if dead_on.contains(&i32::from(*status)) => false,
        Status(300..=399 | 401 | 403..=405 | 407 | 408 | 425 | 429 | 502..=504) => true,
        Status(500..=599) | NoAnswer(_) => !tried,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
