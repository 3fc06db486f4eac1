//! The worker: carries out what the engine decides, and tells it how that ended.
//!
//! It is one task with one loop. The operations run side by side; each ends in a [`Completion`],
//! which goes into the engine's next input.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, FuturesUnordered, LocalBoxStream, SelectAll, Stream, StreamExt};
use tokio::sync::{Notify, Semaphore, watch};

use super::definition::Registered;
use super::engine::{Command, Completion, Engine, EngineParts, Input, Launch, Now, ReadMarker};
use super::lease::Process;
use super::marker::{Owner, PendingEvent};
use super::ops::GroupStore;
use super::polls::Polls;
use super::run::{self, Task};
use super::worker_event::Reporter;
use super::{GroupName, Position, content, dead_letter, request};
use crate::bus::look::LookBounds;
use crate::bus::{BusHandle, schedule};
use crate::clock::Fut;
use crate::event::{EventName, EventTime};
use crate::handler::{Handler, Permit, SharedPermit};
use crate::store::{Hints, StoreResult};

pub use super::engine::{Mode, Stop, Summary, WorkerSettings};

/// At most this many `on_dead` commands run at once; a bad deploy can create a thousand dead
/// letters.
const ON_DEAD_CONCURRENCY: usize = 4;

/// The ends of runs that were started together, as they come.
type Completions = LocalBoxStream<'static, Vec<Completion>>;

/// What the runs of one ownership of a shard share.
#[derive(Default)]
struct Ownership {
    epoch: u64,
    /// When the last successful commit was sent, in nanoseconds of the worker's clock.
    commit_sent: Arc<AtomicU64>,
    /// Ends the runs.
    cancel: Rc<Cancel>,
}

/// Tells runs to end.
#[derive(Default)]
struct Cancel {
    told: Cell<bool>,
    changed: Notify,
}

impl Cancel {
    fn tell(&self) {
        self.told.set(true);
        self.changed.notify_waiters();
    }

    async fn told(self: Rc<Self>) {
        while !self.told.get() {
            self.changed.notified().await;
        }
    }
}

/// Runs without an end so far: their events and attempts.
type Started = Vec<Option<(EventName, u32)>>;

/// Runs that may be started together: of which shard, by which ownership, after which listing.
type StartKey = (u16, u64, Duration);

/// Runs one group's events through its handler.
pub struct Worker {
    engine: Engine,
    settings: WorkerSettings,
    registered: Registered,
    group_store: GroupStore,
    handler: Rc<dyn Handler>,
    on_dead: Option<(Rc<dyn Handler>, Rc<Semaphore>)>,
    reporter: Rc<dyn Reporter>,
    alive: Rc<dyn Fn(&Owner) -> Process>,
    stop: watch::Receiver<Stop>,
    operations: FuturesUnordered<Fut<'static, Completion>>,
    /// Runs that were started together.
    many: SelectAll<Completions>,
    /// The newest ownership of each shard.
    ownerships: HashMap<u16, Ownership>,
    /// Whether the group is paused, for runs that wait for their turn.
    pausing: Arc<AtomicBool>,
    /// The key of its fingerprints, known to no other process.
    secret: u64,
    /// The bus's address, for handlers.
    url: Rc<str>,
}

/// What a worker works on and with.
pub struct WorkerParts {
    /// The bus.
    pub bus: BusHandle,
    /// The group.
    pub group: GroupName,
    /// Its definition.
    pub registered: Registered,
    /// Runs the group's command.
    pub handler: Rc<dyn Handler>,
    /// Runs the `on_dead` command for each new dead letter.
    pub on_dead: Option<Rc<dyn Handler>>,
    /// Takes in what happens.
    pub reporter: Rc<dyn Reporter>,
    /// This process, as other workers see it.
    pub me: Owner,
    /// Tells what is known of another owner's process.
    pub alive: Rc<dyn Fn(&Owner) -> Process>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
    /// Shares the polls of a process that runs several groups of one bus.
    pub polls: Option<Rc<Polls>>,
}

impl Worker {
    /// A worker that has not begun.
    ///
    /// # Errors
    /// The group's definition cannot be understood.
    pub fn new(parts: WorkerParts, settings: WorkerSettings) -> StoreResult<Self> {
        let filter = Arc::new(parts.registered.definition.filter(&parts.group)?);
        let shards = parts.registered.definition.shards;
        let clock = &parts.bus.clock;
        let secret = clock.random();
        let engine = Engine::new(EngineParts {
            group: parts.group.clone(),
            registered: parts.registered.clone(),
            filter: Arc::clone(&filter),
            settings: settings.clone(),
            profile: parts.bus.store.profile(),
            me: parts.me,
            seed: clock.random(),
            now: Now { elapsed: clock.elapsed(), wall: clock.now() },
        });
        Ok(Self {
            engine,
            group_store: GroupStore {
                rewinds: parts.bus.store.rewinds(),
                bus: parts.bus,
                group: parts.group,
                filter,
                version: parts.registered.version.clone(),
                confirmed: Rc::default(),
                troubles: Rc::default(),
                shards,
                polls: parts.polls,
            },
            handler: parts.handler,
            on_dead: parts.on_dead.map(|handler| (handler, Rc::new(Semaphore::new(ON_DEAD_CONCURRENCY)))),
            reporter: parts.reporter,
            alive: parts.alive,
            stop: parts.stop,
            operations: FuturesUnordered::new(),
            many: SelectAll::new(),
            ownerships: HashMap::new(),
            pausing: Arc::new(AtomicBool::new(parts.registered.definition.paused.is_some())),
            registered: parts.registered,
            secret,
            url: settings.url.as_str().into(),
            settings,
        })
    }

    /// Works until it is told to stop, a drain has nothing left to do, or an error of the store
    /// does not let it go on.
    ///
    /// # Errors
    /// The group or the bus is gone or damaged; or, for a drain or a worker that was told to stop,
    /// the store does not answer.
    pub async fn run(mut self) -> StoreResult<Summary> {
        let mut hints = if self.settings.hints && self.settings.mode == Mode::Watch {
            self.group_store.bus.store.hints().ok()
        } else {
            None
        };
        let clock = Rc::clone(&self.group_store.bus.clock);
        let (polls, troubles) = (self.group_store.polls.clone(), Rc::clone(&self.group_store.troubles));
        let (handler, mut stop) = (Rc::clone(&self.handler), self.stop.clone());
        let (mut polled, mut level, mut in_flight) = (0, Stop::No, None);
        let mut inputs = Vec::new();
        loop {
            let mut wake_at = clock.elapsed();
            if self.group_store.rewinds != self.group_store.bus.store.rewinds() {
                self.begin_anew();
                inputs.clear();
            }
            inputs.extend(troubles.take().map(Input::Trouble));
            // Only an owner's commits record them; of several groups that share a store, another one
            // may own a shard.
            if self.engine.owns_shards() {
                inputs.extend(self.group_store.bus.store.unreported_requests().map(Input::Requests));
            }
            let now_level = *stop.borrow_and_update();
            if std::mem::replace(&mut level, now_level) != now_level {
                // Before the completions: a run that was ended together with its worker has not failed.
                inputs.insert(0, Input::Stop(now_level));
            }
            let now_in_flight = handler.max_in_flight();
            if std::mem::replace(&mut in_flight, now_in_flight) != now_in_flight {
                inputs.push(Input::MaxInFlight(now_in_flight));
            }
            let mut together: Vec<(StartKey, Vec<Launch>)> = Vec::new();
            for command in self.engine.handle(inputs.drain(..), Now { elapsed: clock.elapsed(), wall: clock.now() }) {
                match command {
                    Command::End(outcome) => return outcome,
                    Command::WakeAt(at) => wake_at = at,
                    Command::Start { shard, epoch, launch, listed_at } if handler.many().is_some() => {
                        let key = (shard, epoch, listed_at);
                        match together.iter_mut().find(|(of, _)| *of == key) {
                            Some((_, launches)) => launches.push(launch),
                            None => together.push((key, vec![launch])),
                        }
                    }
                    command => {
                        // What was to start before an end of its ownership has to be there to be ended.
                        if let Command::Cancel { shard, epoch } = &command {
                            let (ended, others): (Vec<_>, Vec<_>) =
                                together.into_iter().partition(|((of, at, _), _)| of == shard && at == epoch);
                            together = others;
                            self.start_together(ended);
                        }
                        self.carry_out(command);
                    }
                }
            }
            self.start_together(together);
            tokio::select! {
                biased;
                () = changed(&mut stop, level) => {}
                Some(first) = self.operations.next() => {
                    inputs.extend(with_ready(first, &mut self.operations).map(Input::Completed));
                }
                Some(first) = self.many.next() => {
                    inputs.extend(with_ready(first, &mut self.many).flatten().map(Input::Completed));
                }
                () = troubles.changed() => {}
                () = next_hint(&mut hints) => inputs.push(Input::Hint),
                () = next_news(polls.as_deref(), &mut polled) => inputs.extend(self.polled_elsewhere(polls.as_deref())),
                () = handler.max_in_flight_changed() => {}
                () = clock.sleep_until(wake_at) => {}
            }
        }
    }

    /// Gives up everything that was read before the store lost its latest writes, and what follows from it.
    fn begin_anew(&mut self) {
        for ownership in self.ownerships.values() {
            ownership.cancel.tell();
        }
        self.ownerships.clear();
        self.operations = FuturesUnordered::new();
        self.many = SelectAll::new();
        self.group_store.rewinds = self.group_store.bus.store.rewinds();
        let clock = &self.group_store.bus.clock;
        self.engine.begin_anew(clock.random(), Now { elapsed: clock.elapsed(), wall: clock.now() });
    }

    /// Another group of this process has polled: that poll may show what this worker would list.
    fn polled_elsewhere(&self, polls: Option<&Polls>) -> Option<Input> {
        let replaces = |polls: &&Polls| polls.has_news(&self.engine.poll_from(), self.engine.polled_through());
        polls.filter(replaces).map(|_| Input::PolledElsewhere)
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Report(event) => self.reporter.report(&self.group_store.group, &event),
            Command::Expect(runs) => self.handler.expect(runs),
            Command::EndHandlers => self.handler.refuse_new_runs(),
            Command::StopHandlers => {
                self.handler.terminate();
                if let Some((on_dead, _)) = &self.on_dead {
                    on_dead.terminate();
                }
            }
            Command::Cancel { shard, epoch } => std::mem::take(&mut self.ownership(shard, epoch).cancel).tell(),
            Command::Renewed { shard, epoch, sent } => {
                let sent = u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX);
                self.ownership(shard, epoch).commit_sent.store(sent, Relaxed);
            }
            Command::Redefine { registered, filter } => {
                self.group_store.version = registered.version.clone();
                self.group_store.filter = filter;
                self.group_store.confirmed = Rc::default();
                self.pausing.store(registered.definition.paused.is_some(), Relaxed);
                self.registered = registered;
            }
            Command::Start { shard, epoch, launch, listed_at } => {
                let run = self.start((shard, epoch, listed_at), launch);
                self.operations.push(run);
            }
            Command::WakeAt(_) | Command::End(_) => {}
            operation => self.operations.push(self.operation(operation)),
        }
    }

    /// What the runs of an ownership share.
    fn ownership(&mut self, shard: u16, epoch: u64) -> &mut Ownership {
        let known = self.ownerships.entry(shard).or_default();
        if known.epoch != epoch {
            *known = Ownership { epoch, ..Ownership::default() };
        }
        known
    }

    /// What runs need, and what ends them.
    fn task(&mut self, (shard, epoch, listed_at): StartKey) -> (Task, Rc<Cancel>) {
        let ownership = self.ownership(shard, epoch);
        let (commit_sent, cancel) = (Arc::clone(&ownership.commit_sent), Rc::clone(&ownership.cancel));
        let (clock, lease, pausing) =
            (Rc::clone(&self.group_store.bus.clock), self.settings.lease, Arc::clone(&self.pausing));
        let (owned_clock, owned_commit) = (Rc::clone(&clock), Arc::clone(&commit_sent));
        let sent = |commit_sent: &AtomicU64| Duration::from_nanos(commit_sent.load(Relaxed));
        let shared = SharedPermit::new(move |now| !pausing.load(Relaxed) && lease.may_start(sent(&commit_sent), now));
        let asked = shared.clone();
        let permit = Permit::new(move || asked.holds(clock.elapsed()))
            .while_owned(move || lease.holds(sent(&owned_commit), owned_clock.elapsed()))
            .with_shared(shared);
        let task = Task {
            group_store: self.group_store.clone(),
            listed_at,
            handler: Rc::clone(&self.handler),
            epoch,
            max_attempts: self.settings.retry.max_attempts,
            max_event_bytes: self.settings.max_event_bytes,
            url: Rc::clone(&self.url),
            secret: self.secret,
            permit,
        };
        (task, cancel)
    }

    fn start(&mut self, key: StartKey, launch: Launch) -> Fut<'static, Completion> {
        let (shard, epoch, _) = key;
        let (task, cancel) = self.task(key);
        let (name, attempt) = (launch.name.clone(), launch.attempt);
        Box::pin(async move {
            let ran = tokio::select! { biased;
                () = cancel.told() => None,
                ran = run::run(task, launch) => Some(ran),
            };
            Completion::Ran { shard, epoch, name, attempt, ran }
        })
    }

    /// Starts what is to start together, each lot through a handler that takes many at once.
    fn start_together(&mut self, lots: Vec<(StartKey, Vec<Launch>)>) {
        for (key, launches) in lots {
            let runs = self.start_many(key, launches);
            self.many.push(runs);
        }
    }

    /// Starts events through a handler that takes many at once.
    fn start_many(&mut self, key: StartKey, launches: Vec<Launch>) -> Completions {
        let (shard, epoch, _) = key;
        let (task, cancel) = self.task(key);
        let started = launches.iter().map(|launch| Some((launch.name.clone(), launch.attempt))).collect();
        let started: Rc<RefCell<Started>> = Rc::new(RefCell::new(started));
        let under_way = Rc::clone(&started);
        let ended = run::run_many(task, launches).take_until(cancel.told()).map(move |results| {
            let completion = |(place, ran): (usize, _)| {
                let (name, attempt) = under_way.borrow_mut()[place].take()?;
                Some(Completion::Ran { shard, epoch, name, attempt, ran: Some(ran) })
            };
            results.into_iter().filter_map(completion).collect()
        });
        let cancelled = stream::once(async move {
            let left = started.take().into_iter().flatten();
            left.map(|(name, attempt)| Completion::Ran { shard, epoch, name, attempt, ran: None }).collect()
        });
        Box::pin(ended.chain(cancelled))
    }

    /// The operation of a command on the store.
    fn operation(&self, command: Command) -> Fut<'static, Completion> {
        let (store, settings) = (self.group_store.clone(), &self.settings);
        let (lease, bounds, limit) = (settings.lease.length, look_bounds(settings), settings.max_event_bytes);
        match command {
            Command::Scan { shard, through, raise_to } => self.scan(shard, through, raise_to),
            Command::Acquire { shard, commit } => {
                Box::pin(
                    async move { Completion::Acquired { shard, committed: store.commit(shard, &commit, lease).await } },
                )
            }
            Command::Commit { shard, commit } => Box::pin(async move {
                let committed = store.commit(shard, &commit, lease).await;
                Completion::Committed { shard, epoch: commit.epoch, committed }
            }),
            Command::Poll { after, seen } => {
                Box::pin(async move { Completion::Polled(store.poll(after, bounds, seen).await) })
            }
            Command::ReadRequests { idle } => {
                let definition = self.registered.definition.clone();
                Box::pin(async move { Completion::ControlRequests(store.ask(idle, &definition).await) })
            }
            Command::ReadDefinition => Box::pin(async move { Completion::Definition(store.definition().await) }),
            Command::ReleaseScheduled { others } => {
                Box::pin(
                    async move { Completion::Released(schedule::release(&store.bus, others.as_ref(), limit).await) },
                )
            }
            Command::ReadKey { shard, epoch, name, dead_letter } => {
                let latest = settings.latest.as_ref().map(|latest| latest.by.clone());
                Box::pin(async move {
                    let letter = dead_letter.as_deref();
                    let key = match &latest {
                        Some(latest) => run::latest_key(&store, &name, letter, limit, latest).await,
                        None => run::ordering_key(&store.bus, &store.group, &name, letter, limit).await,
                    };
                    Completion::Key { shard, epoch, name, key }
                })
            }
            Command::WriteDeadLetter { shard, epoch, name, pending } => {
                let (on_dead, url) = (self.on_dead.clone(), settings.url.clone());
                Box::pin(async move {
                    let redriven = pending.redriven_dead_letter.as_deref();
                    let content = content::read(&store.bus, &store.group, &name, redriven, limit).await;
                    let written = dead_letter::write(&store.bus, &store.group, &name, &pending, content).await;
                    let failed = match on_dead.filter(|_| written.is_ok()) {
                        Some(on_dead) => run_on_dead(&store, on_dead, &name, &pending, url).await.err(),
                        None => None,
                    };
                    let letter = pending.new_dead_letter.unwrap_or_default();
                    Completion::DeadLetterWritten { shard, epoch, name, letter, written, failed }
                })
            }
            Command::Delete { key } => Box::pin(async move {
                // An object that stays is deleted another time, or asked for again.
                if store.is_current() {
                    let _ = store.bus.store.delete(&key).await;
                }
                Completion::Sent
            }),
            Command::Ask { shard, request } => Box::pin(async move {
                // A request that does not arrive is made again.
                let _ = request::ask(&store.bus, &store.group, shard, &request).await;
                Completion::Sent
            }),
            // The others have been carried out.
            _ => Box::pin(std::future::pending()),
        }
    }

    fn scan(&self, shard: u16, through: Option<Position>, raise_to: Option<EventTime>) -> Fut<'static, Completion> {
        let (store, bounds) = (self.group_store.clone(), look_bounds(&self.settings));
        let (definition, alive) = (self.registered.definition.clone(), Rc::clone(&self.alive));
        Box::pin(async move {
            if let Some(through) = through {
                let scan = store.scan(shard, &through, raise_to, bounds).await;
                return Completion::Scanned { shard, marker: None, scan: Box::new(scan) };
            }
            match store.marker(shard, &definition).await {
                Err(error) => Completion::Scanned { shard, marker: None, scan: Box::new(Err(error)) },
                Ok((marker, version)) => {
                    let scan = store.scan(shard, &marker.through, None, bounds).await;
                    let process = marker.owner.as_ref().map_or(Process::MayLive, |owner| alive(owner));
                    let marker = ReadMarker { marker: Box::new(marker), version, process };
                    Completion::Scanned { shard, marker: Some(marker), scan: Box::new(scan) }
                }
            }
        })
    }
}

/// How much a listing takes in.
fn look_bounds(settings: &WorkerSettings) -> LookBounds {
    LookBounds { window: settings.bounds.window, reads: settings.bounds.reads }
}

/// Runs the `on_dead` command for a new dead letter when it is its turn.
async fn run_on_dead(
    store: &GroupStore,
    (handler, turns): (Rc<dyn Handler>, Rc<Semaphore>),
    name: &EventName,
    pending: &PendingEvent,
    url: String,
) -> Result<(), String> {
    let _turn = turns.acquire().await;
    run::run_on_dead(&store.bus, &store.group, name, pending, url, &*handler).await
}

/// The first item of a stream, and those that are there as well. Where one batch has ended the next
/// begins here, and goes on while the verdicts are taken in.
fn with_ready<T>(first: T, rest: &mut (impl Stream<Item = T> + Unpin)) -> impl Iterator<Item = T> {
    iter::once(first).chain(iter::from_fn(|| rest.next().now_or_never().flatten()))
}

/// Completes when the stop level is no longer `level`.
pub(crate) async fn changed(stop: &mut watch::Receiver<Stop>, level: Stop) {
    loop {
        if *stop.borrow_and_update() != level {
            return;
        }
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next_news(polls: Option<&Polls>, seen: &mut u64) {
    match polls {
        Some(polls) => polls.news(seen).await,
        None => std::future::pending().await,
    }
}

async fn next_hint(hints: &mut Option<Box<dyn Hints>>) {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}
