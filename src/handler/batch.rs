//! Many events through one run of a handler: NDJSON on stdin, an event a line, in the order of
//! their names.
//!
//! Each event has its own run for the caller, and its own report; runs that are asked for at about
//! the same time are made as one. A batch that fails is run again in halves, so that an event has
//! failed only if it fails alone. Events that have failed before are batched apart from new ones: a
//! fault in them cannot cost the new ones another run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, Shared, WeakShared};
use tokio::sync::{Notify, Semaphore};

use super::{Handler, Job, Outcome, RunReport};
use crate::clock::{Clock, Fut};
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
    waker: Option<Waker>,
    /// Whether its caller no longer waits for the report.
    left: bool,
}

impl Slot {
    fn end(&mut self, report: RunReport) {
        self.report = Some(report);
        // The task that polls the batch may be that of another of its events.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// An event's place in a batch; leaves it when dropped.
struct Ticket {
    inner: Rc<Inner>,
    batch: Rc<Batch>,
    at: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inner.ticketed.set(self.inner.ticketed.get() - 1);
        self.batch.slots.borrow_mut()[self.at].left = true;
        self.batch.changed.notify_one();
    }
}

impl Batches {
    /// Batches for `handler`, which finds many events on its stdin.
    pub fn new(handler: Rc<dyn Handler>, clock: Rc<dyn Clock>, bounds: BatchBounds, on_batch: OnBatch) -> Self {
        let runs = Semaphore::new(bounds.concurrency);
        let (in_flight, ticketed, expected, over) = Default::default();
        Self(Rc::new(Inner { handler, clock, bounds, runs, on_batch, in_flight, ticketed, expected, over }))
    }
}

impl Handler for Batches {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let (ticket, mut run) = Inner::join(&self.0, job);
            poll_fn(|context| {
                let over = Pin::new(&mut run).poll(context).is_ready();
                let slot = &mut ticket.batch.slots.borrow_mut()[ticket.at];
                match slot.report.take() {
                    Some(report) => Poll::Ready(report),
                    None if over => Poll::Ready(RunReport::stopped()),
                    None => {
                        slot.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            })
            .await
        })
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

impl Inner {
    fn join(this: &Rc<Self>, job: Job) -> (Ticket, BatchRun) {
        this.ticketed.set(this.ticketed.get() + 1);
        let (batch, run) = this.open(job.tried).unwrap_or_else(|| Self::begin(this, job.tried));
        let at = batch.slots.borrow().len();
        batch.slots.borrow_mut().push(Slot { job, report: None, waker: None, left: false });
        this.look_again();
        (Ticket { inner: Rc::clone(this), batch, at }, run)
    }

    /// The batch that has room, if there is one.
    fn open(&self, tried: bool) -> Option<(Rc<Batch>, BatchRun)> {
        let mut in_flight = self.in_flight.borrow_mut();
        in_flight.retain(|in_flight| in_flight.batch.strong_count() > 0);
        let mut in_flight =
            in_flight.iter().filter_map(|in_flight| Some((in_flight.batch.upgrade()?, in_flight.run.upgrade()?)));
        in_flight.find(|(batch, _)| batch.tried == tried && !batch.closed.get() && batch.present() < self.bounds.size)
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
                    if part.len() == 1 || is_for_all(&report.outcome) {
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
        let complete = || self.over.get() || batch.complete.get() || batch.present() >= self.bounds.size;
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
    /// How many of its events wait for their reports.
    fn present(&self) -> usize {
        self.slots.borrow().iter().filter(|slot| !slot.left).count()
    }

    /// The slots in the order of their events.
    fn in_order(&self) -> Vec<usize> {
        let slots = self.slots.borrow();
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by_key(|at| slots[*at].job.file.clone());
        order
    }

    /// Drops from a part the events that have left, and those that may not start any more, which is
    /// no attempt.
    fn keep_startable(&self, part: &mut Vec<usize>, over: bool) {
        let mut slots = self.slots.borrow_mut();
        part.retain(|at| {
            let slot = &mut slots[*at];
            let may = !over && slot.job.permit.holds();
            if !may {
                slot.end(RunReport::stopped());
            }
            may && !slot.left
        });
    }

    fn report(&self, part: &[usize], report: &RunReport) {
        let mut slots = self.slots.borrow_mut();
        for at in part {
            slots[*at].end(report.clone());
        }
    }

    /// One job made of many: their documents, a line each, and the variables that they have in
    /// common.
    fn merged(&self, part: &[usize]) -> Job {
        let slots = self.slots.borrow();
        let jobs: Vec<&Job> = part.iter().map(|at| &slots[*at].job).collect();
        let mut lines = Vec::with_capacity(jobs.iter().map(|job| job.event.len() + 1).sum());
        for job in &jobs {
            // Line ends in a document are only white space: strings have them escaped (RFC 8259 §2
            // and §7).
            lines.extend(
                job.event.trim_ascii().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
            );
            lines.push(b'\n');
        }
        let mut vars: BTreeMap<&'static str, String> = jobs[0].vars.iter().cloned().collect();
        for job in &jobs[1..] {
            let its: BTreeMap<&str, &String> = job.vars.iter().map(|(name, value)| (*name, value)).collect();
            vars.retain(|name, value| its.get(name) == Some(&&*value));
        }
        if jobs.len() > 1 {
            // The events may be of several shards; that those are in the same epoch means nothing.
            vars.remove("EVBUS_EPOCH");
        }
        let vars = vars.into_iter().chain([("EVBUS_BATCH", jobs.len().to_string())]).collect();
        let (file, permit) = ("batch.ndjson".to_owned(), jobs[0].permit.clone());
        Job { event: Arc::from(lines), file, vars, tried: self.tried, permit }
    }
}

/// Whether an outcome says nothing about the events.
fn is_for_all(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Exit(0) | Outcome::Stopped | Outcome::NotStarted(_))
}

#[cfg(test)]
mod tests;
