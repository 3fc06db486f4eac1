//! A group whose events closures of this program handle.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::lanes::{Closure, Ended, Lanes, MOST_AHEAD};
use super::thread::{ThreadState, WantedGroup};
use super::{Bus, Delivery, Error, HandlerResult, event_time};
use crate::clock::{Clock, Fut};
use crate::event::{Condition, Filter, TypeFilter};
use crate::group::GroupName;
use crate::group::definition::{self, Start};
use crate::group::owner::{process_of, this_process};
use crate::group::worker::{Mode, Stop, Worker, WorkerParts, WorkerSettings};
use crate::group::worker_event::Silent;
use crate::handler::{Handler, Job, Obstacle, Outcome, RunReport};

/// The exit codes that stand for how a closure ended, as if it were a command.
const FAILED: i32 = 1;
const DEAD: i32 = 65;
const PANICKED: i32 = 101;

/// Where a new group starts. A group that is there goes on where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartAt {
    /// Before every event that is on the bus.
    #[default]
    Earliest,
    /// Behind every event that is on the bus.
    Now,
    /// Behind every event before this time.
    Time(SystemTime),
}

/// What a consumer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Events processed.
    pub done: u64,
    /// Attempts that failed and are repeated.
    pub retries: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that are known to be left.
    pub left: u64,
}

/// A group that is being described.
#[derive(Debug, Clone)]
pub struct GroupBuilder {
    bus: Bus,
    name: String,
    types: Vec<String>,
    condition: Option<String>,
    shards: Option<u16>,
    start: StartAt,
    concurrency: usize,
    ordered: bool,
    max_attempts: Option<u32>,
    timeout: Option<Duration>,
}

impl GroupBuilder {
    pub(super) fn new(bus: Bus, name: String) -> Self {
        Self {
            bus,
            name,
            types: Vec::new(),
            condition: None,
            shards: None,
            start: StartAt::default(),
            concurrency: 1,
            ordered: false,
            max_attempts: None,
            timeout: None,
        }
    }

    /// Only events whose types match one of these patterns, such as `order.*`; every type unless
    /// this is called. A group that is there must have the same.
    #[must_use]
    pub fn types<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.types.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Only events for which this CEL expression is true.
    #[must_use]
    pub fn condition(mut self, expression: impl Into<String>) -> Self {
        self.condition = Some(expression.into());
        self
    }

    /// Shards of a new group, 1 unless told otherwise; fixed at creation: the most workers that can
    /// share it.
    #[must_use]
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Where a new group starts.
    #[must_use]
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// The most events that are handled at once, 1 unless told otherwise.
    #[must_use]
    pub fn concurrency(mut self, events: usize) -> Self {
        self.concurrency = events.max(1);
        self
    }

    /// Handles events of one ordering key one at a time, in the order of emission.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// After this many attempts an event becomes a dead letter, 15 unless told otherwise.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// An attempt that takes longer has failed, and is ended.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Handles each event by this closure. It returns nothing, or a `Result`: an error is tried
    /// again, [`HandlerError::dead`] is not.
    pub fn handler<F, R>(self, handler: F) -> Consumer
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output: HandlerResult> + Send + 'static,
    {
        let handler: Closure = Arc::new(move |delivery| {
            let running = handler(delivery);
            Box::pin(async move { running.await.into_result() })
        });
        Consumer { group: self, handler }
    }
}

/// A group and the closure that handles its events.
pub struct Consumer {
    group: GroupBuilder,
    handler: Closure,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Ends the worker of a caller that has gone.
struct StopOnDrop(watch::Sender<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(Stop::Handlers);
    }
}

impl Consumer {
    /// Handles events until `shutdown` completes; then handlers that run may end, and the group's
    /// shards are released. Must be called on a tokio runtime, on which the handlers run.
    ///
    /// Dropping the future ends the handlers at once. Their events are handled again.
    ///
    /// # Errors
    /// The group cannot be made, or is there with another filter; or it or the bus is gone.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<Totals, Error> {
        self.work(Mode::Watch, shutdown).await
    }

    /// Handles what is due now, and ends. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// See [`Consumer::run`]; or the store does not answer.
    pub async fn drain(self) -> Result<Totals, Error> {
        self.work(Mode::Drain { wait: false, most: None, span: None }, std::future::pending()).await
    }

    async fn work(self, mode: Mode, shutdown: impl Future<Output = ()> + Send) -> Result<Totals, Error> {
        let (stop, stopped) = watch::channel(Stop::No);
        let stop = StopOnDrop(stop);
        let (runtime, bus) = (Handle::current(), self.group.bus.clone());
        let working = bus.thread.call(move |local| Box::pin(self.work_on(local, mode, runtime, stopped)));
        let mut working = std::pin::pin!(working);
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! { biased;
            ended = &mut working => return ended?,
            () = &mut shutdown => stop.0.send_replace(Stop::Starts),
        };
        working.await?
    }

    async fn work_on(
        self,
        local: Rc<ThreadState>,
        mode: Mode,
        runtime: Handle,
        stop: watch::Receiver<Stop>,
    ) -> Result<Totals, Error> {
        let bus = local.bus.handle.clone();
        let name = GroupName::parse(&self.group.name)?;
        let registered = self.group.registered(&local, &name).await?;
        let concurrency = self.group.concurrency;
        // In an ordered group one event of a key is under way, and to look for others costs reads.
        let ahead = if self.group.ordered { 0 } else { MOST_AHEAD };
        let mut settings = WorkerSettings {
            concurrency: concurrency.saturating_add(ahead),
            ordered: self.group.ordered,
            url: local.url.clone(),
            max_event_bytes: local.bus.max_event_bytes(),
            ..WorkerSettings::new(mode)
        };
        settings.retry.dead_on = vec![DEAD];
        settings.retry.max_attempts = self.group.max_attempts.unwrap_or(settings.retry.max_attempts);
        let handler = Callback {
            lanes: Lanes::new(self.handler, self.group.name, concurrency, runtime),
            timeout: self.group.timeout,
            clock: Rc::clone(&bus.clock),
            stopped: watch::Sender::default(),
        };
        let parts = WorkerParts {
            me: this_process(&bus, "a closure".to_owned()),
            bus,
            group: name,
            registered,
            handler: Rc::new(handler),
            on_dead: None,
            reporter: Rc::new(Silent),
            alive: Rc::new(process_of),
            stop,
            polls: None,
        };
        let summary = Worker::new(parts, settings)?.run().await?;
        Ok(Totals { done: summary.done, retries: summary.retries, dead: summary.dead, left: summary.left })
    }
}

impl GroupBuilder {
    /// The group as it is there, or as it is made now.
    async fn registered(&self, local: &ThreadState, name: &GroupName) -> Result<definition::Registered, Error> {
        let condition = self.condition.as_deref().map(Condition::parse).transpose()?;
        let start = match self.start {
            StartAt::Earliest => Start::Earliest,
            StartAt::Now => Start::Now,
            StartAt::Time(time) => Start::At(event_time(time)),
        };
        let filter = Filter { types: TypeFilter::new(&self.types, &[])?, condition };
        let wanted = WantedGroup { filter: Some(filter), shards: self.shards, start: Some(start) };
        Ok(local.find_or_make(name, &wanted).await?.0)
    }
}

/// Runs the closure on the caller's runtime.
struct Callback {
    lanes: Lanes,
    timeout: Option<Duration>,
    clock: Rc<dyn Clock>,
    /// Set once runs are to be ended; none begins any more.
    stopped: watch::Sender<bool>,
}

impl Handler for Callback {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let mut stopped = self.stopped.subscribe();
            if !job.permit.holds() {
                return RunReport::stopped();
            }
            let begun = self.clock.elapsed();
            let (tell, told) = self.timeout.map(|_| oneshot::channel()).unzip();
            let mut running = self.lanes.run(job.event, job.attempt, job.permit.shared(), tell);
            let limit = async {
                if let (Some(limit), Some(told)) = (self.timeout, told)
                    && told.await.is_ok()
                {
                    return self.clock.sleep_until(self.clock.elapsed() + limit).await;
                }
                // Without a limit; and of a run that never begins the end is told.
                std::future::pending().await
            };
            let (ended, ended_by) = tokio::select! { biased;
                ended = running.ended() => (ended, Outcome::Stopped),
                _ = stopped.changed() => (running.end().await, Outcome::Stopped),
                () = limit => (running.end().await, Outcome::TimedOut),
            };
            let elapsed = || self.clock.elapsed().saturating_sub(begun);
            let (outcome, why, took) = match ended {
                Some(Ended::Ran(Ok(()), took)) => (Outcome::Exit(0), String::new(), took),
                Some(Ended::Ran(Err(error), took)) => {
                    (Outcome::Exit(if error.dead { DEAD } else { FAILED }), error.why, took)
                }
                Some(Ended::Panicked) => (Outcome::Exit(PANICKED), "the handler panicked".to_owned(), elapsed()),
                Some(Ended::Cancelled) => (ended_by, String::new(), elapsed()),
                Some(Ended::NotBegun) => return RunReport::stopped(),
                None => {
                    let why = "the runtime of the handler has ended".to_owned();
                    let obstacle = Obstacle { is_temporary: true, ..why.into() };
                    (Outcome::NotStarted(Box::new(obstacle)), String::new(), elapsed())
                }
            };
            RunReport::new(outcome, why, took)
        })
    }

    fn terminate(&self) {
        self.lanes.close();
        self.stopped.send_replace(true);
    }

    fn refuse_new_runs(&self) {
        self.lanes.close();
    }

    fn max_in_flight(&self) -> Option<usize> {
        Some(self.lanes.most())
    }

    fn check(&self) -> Result<(), Obstacle> {
        Ok(())
    }
}
