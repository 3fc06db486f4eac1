//! The worker: finds, owns, runs, commits, advances, until it is told to stop or, as a drain, has
//! nothing left to do.
//!
//! It is one task with one loop: `plan` starts what the state asks for, the operations run side by
//! side, and each ends in an `Ended` that `apply` takes into the state; `hot` and `scans` find work
//! and shards, `rebalance` asks other workers for shards. All decisions are in [`Shard`],
//! [`Marker`], [`super::lease`] and [`super::retry`].

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, watch};

use super::definition::Registered;
use super::lease::{LeaseObservation, Process};
use super::marker::Owner;
use super::ops::{Committed, ControlRequests, GroupStore, Hot, ScanStats, ShardScan};
use super::polls::Polls;
use super::run::Ran;
use super::shard::{Followup, Next, Shard};
use super::worker_event::{Reporter, WorkerEvent};
use super::{GroupName, Marker, Position, request};
use crate::bus::Place;
use crate::bus::schedule::Released;
use crate::clock::Fut;
use crate::event::{EventName, EventTime};
use crate::handler::Handler;
use crate::store::{Hints, StoreError, StoreResult, Version};

mod apply;
mod due;
mod hot;
mod plan;
mod rebalance;
mod scans;
mod settings;
mod trouble;

use due::Due;
pub use settings::{Mode, Settings, Stop, Summary};
use trouble::Trouble;
pub(super) use trouble::{Troubles, can_be_repeated};

/// After this time a handler that could not be started is tried again.
const STALL: Duration = Duration::from_secs(5);

/// At most this many `on_dead` commands run at once; a bad deploy can create a thousand dead
/// letters.
const ON_DEAD_CONCURRENCY: usize = 4;

/// How an operation ended.
enum Ended {
    Scanned {
        shard: u16,
        owned: bool,
        marker: Option<(Box<Marker>, Option<Version>)>,
        scan: Box<StoreResult<ShardScan>>,
    },
    Acquired {
        shard: u16,
        marker: Box<Marker>,
        scan: Box<ShardScan>,
        unclean: bool,
        committed: Committed,
    },
    Committed {
        shard: u16,
        epoch: u64,
        then: Followup,
        committed: Committed,
    },
    Hot(StoreResult<Hot>),
    ControlRequests(StoreResult<ControlRequests>),
    Released(StoreResult<Released>),
    Definition(StoreResult<Option<Registered>>),
    Ran {
        shard: u16,
        epoch: u64,
        name: EventName,
        attempt: u32,
        ran: Option<Ran>,
    },
    Key {
        shard: u16,
        epoch: u64,
        name: EventName,
        key: StoreResult<Option<u64>>,
    },
    DeadLetterWritten {
        shard: u16,
        epoch: u64,
        name: EventName,
        written: StoreResult<()>,
        /// Why the `on_dead` command failed, if it did.
        failed: Option<String>,
    },
    /// A request was answered, and the answer changes nothing.
    Sent,
}

/// A shard that this worker watches, whichever worker owns it.
#[derive(Default)]
struct ShardSlot {
    owned: Option<Box<Shard>>,
    observation: Option<LeaseObservation>,
    /// The marker as it stood when the shard had no owner: it need not be read again before the
    /// shard is acquired.
    free: Option<(Box<Marker>, Option<Version>)>,
    /// There is nothing to scan here until something new turns up.
    idle: bool,
    /// Scanned at least once, with an answer.
    seen: bool,
    /// Another worker owns it, and it has work.
    held: bool,
    scanning: bool,
    /// Something turned up while a scan was under way, which may have missed it.
    again: bool,
    scan_at: Duration,
    /// Until then the shard is left to another worker, which has asked for it.
    left_until: Duration,
    /// The worker that the shard was given to, and when.
    handoff: Option<String>,
    handoff_at: Duration,
    /// The worker that holds it.
    holder: Option<String>,
    stats: ScanStats,
    last_scan_through: Option<Position>,
    /// A last scan was made to let `through` pass what it can.
    closed: bool,
    /// The version at the first scan. A drain compares it to see whether an owner, whose process it
    /// cannot look up, still commits.
    first_version: Option<Option<Version>>,
}

impl ShardSlot {
    /// Something has turned up here: the shard is scanned now, and again if a scan is under way.
    fn wake(&mut self, now: Duration) {
        self.idle = false;
        self.again |= self.scanning;
        self.scan_at = now;
    }
}

/// Runs one group's events through its handler.
pub struct Worker {
    group_store: GroupStore,
    settings: Settings,
    handler: Rc<dyn Handler>,
    on_dead: Option<(Rc<dyn Handler>, Rc<Semaphore>)>,
    reporter: Rc<dyn Reporter>,
    me: Owner,
    alive: Rc<dyn Fn(&Owner) -> Process>,
    registered: Registered,
    shards: Vec<ShardSlot>,
    ops: FuturesUnordered<Fut<'static, Ended>>,
    stop: watch::Receiver<Stop>,
    stopped_at: Option<Duration>,
    told_handlers: bool,
    begun: Duration,
    started: u64,
    /// The key of its fingerprints, known to no other process.
    secret: u64,
    /// The shard that may start an event next.
    turn: usize,
    summary: Summary,
    reading_keys: HashSet<EventName>,
    due: Due,
    hot_cursor: EventTime,
    /// Where the next poll continues, if the last one was truncated.
    hot_after: Option<String>,
    /// The names that the last polls showed, from cursor to end; bounded.
    polled_names: HashSet<EventName>,
    /// The same, of the polls that have not reached the end yet.
    polling_names: HashSet<EventName>,
    hot_at: Duration,
    hot_pause: Duration,
    /// When the last one was asked for.
    hot_begun: Duration,
    hot_running: bool,
    /// The last shared poll that was taken in.
    polled: u64,
    /// When the last listing ended that showed something.
    listed_at: Duration,
    /// Whether the group is paused, for runs that wait for their turn.
    pausing: Rc<Cell<bool>>,
    asked_at: Duration,
    asked_last: Duration,
    asking: bool,
    /// When the next shard may be asked for.
    share_at: Duration,
    /// When the markers of idle shards are to be read again.
    idle_check_at: Duration,
    pending: Vec<request::PendingRequest>,
    defined_at: Duration,
    defining: bool,
    trouble: Trouble,
    /// When the last answer came.
    heard_at: Duration,
    /// The handler could not be started; not tried again before this.
    stalled_until: Option<Duration>,
    foreign_told: bool,
    other_told: bool,
    isolation_reported: bool,
    full_told: bool,
    failure: Option<StoreError>,
}

/// What a worker works on and with.
pub struct WorkerParts {
    /// The bus.
    pub place: Place,
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
    pub fn new(at: WorkerParts, settings: Settings) -> StoreResult<Self> {
        let wants = Rc::new(at.registered.definition.wants(&at.group)?);
        let shards = at.registered.definition.shards;
        let now = at.place.clock.elapsed();
        let poll = at.place.store.profile().poll;
        let secret = at.place.clock.random();
        Ok(Self {
            group_store: GroupStore {
                place: at.place,
                group: at.group,
                wants,
                version: at.registered.version.clone(),
                confirmed: Rc::default(),
                troubles: Rc::default(),
                shards,
                polls: at.polls,
            },
            handler: at.handler,
            on_dead: at.on_dead.map(|handler| (handler, Rc::new(Semaphore::new(ON_DEAD_CONCURRENCY)))),
            reporter: at.reporter,
            me: at.me,
            alive: at.alive,
            pausing: Rc::new(Cell::new(at.registered.definition.paused.is_some())),
            registered: at.registered,
            shards: (0..shards).map(|_| ShardSlot { scan_at: now, ..ShardSlot::default() }).collect(),
            ops: FuturesUnordered::new(),
            stop: at.stop,
            stopped_at: None,
            told_handlers: false,
            begun: now,
            started: 0,
            secret,
            turn: 0,
            summary: Summary::default(),
            reading_keys: HashSet::new(),
            due: Due::new(now),
            hot_cursor: EventTime::MIN,
            hot_after: None,
            polled_names: HashSet::new(),
            polling_names: HashSet::new(),
            hot_at: now,
            hot_pause: settings.poll.unwrap_or(poll.0),
            hot_begun: now,
            hot_running: false,
            polled: 0,
            listed_at: now,
            asked_at: now,
            asked_last: now,
            asking: false,
            share_at: now,
            idle_check_at: now,
            pending: Vec::new(),
            // The definition was read just now.
            defined_at: now + settings.poll.unwrap_or(poll.1).max(Duration::from_secs(4)),
            defining: false,
            trouble: Trouble::default(),
            heard_at: now,
            stalled_until: None,
            foreign_told: false,
            other_told: false,
            isolation_reported: false,
            full_told: false,
            failure: None,
            settings,
        })
    }

    /// Works until it is told to stop, a drain has nothing left to do, or an error of the store
    /// does not let it go on.
    pub async fn run(mut self) -> StoreResult<Summary> {
        let mut hints = if self.settings.hints && self.settings.mode == Mode::Watch {
            self.group_store.place.store.hints().ok()
        } else {
            None
        };
        let clock = Rc::clone(&self.group_store.place.clock);
        let (polls, mut told) = (self.group_store.polls.clone(), 0);
        let troubles = self.troubles();
        loop {
            self.plan();
            if self.finished() {
                return self.end();
            }
            if self.gives_up() {
                return Err(self.failure.take().unwrap_or_else(|| self.given_up()));
            }
            let deadline = self.deadline();
            let mut stop = self.stop.clone();
            let level = *stop.borrow_and_update();
            tokio::select! {
                biased;
                () = changed(&mut stop, level) => {}
                Some(ended) = self.ops.next() => {
                    self.apply(ended);
                    while let Some(Some(ended)) = self.ops.next().now_or_never() {
                        self.apply(ended);
                    }
                }
                () = troubles.news() => {}
                () = next_hint(&mut hints) => self.hint(),
                () = next_news(polls.as_deref(), &mut told) => self.polled_by_another(),
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.group_store.place.clock.elapsed()
    }

    fn wall(&self) -> EventTime {
        self.group_store.place.clock.now()
    }

    fn report(&self, fact: WorkerEvent<'_>) {
        self.reporter.report(&self.group_store.group, fact);
    }

    fn draining(&self) -> bool {
        self.settings.mode != Mode::Watch
    }

    fn waits(&self) -> bool {
        matches!(self.settings.mode, Mode::Drain { wait: true, .. })
    }

    fn paused(&self) -> bool {
        self.registered.definition.paused.is_some()
    }

    /// How often a shard with something to see is scanned.
    fn warm(&self, stats: &ScanStats) -> Duration {
        // An expensive listing is made less often, up to a limit: a process that was frozen
        // measures a false time.
        (stats.took * 20).clamp(Duration::from_secs(4), Duration::from_secs(60))
    }

    /// Whether no new handler may start.
    fn starts_over(&self) -> bool {
        if self.paused() || self.told_to_end() {
            return true;
        }
        match self.settings.mode {
            Mode::Watch => false,
            Mode::Drain { most, span, .. } => {
                self.summary.stalled.is_some()
                    || most.is_some_and(|most| self.started >= most)
                    || span.is_some_and(|span| self.now().saturating_sub(self.begun) >= span)
            }
        }
    }

    /// Whether the worker is to end as soon as nothing runs any more.
    fn ending(&self) -> bool {
        self.told_to_end() || (self.draining() && (self.starts_over() || self.drained()))
    }

    fn scanned_everywhere(&self) -> bool {
        self.shards.iter().all(|shard| shard.seen && !shard.scanning)
    }

    /// Whether a drain has seen everything and found nothing more that is due.
    fn drained(&self) -> bool {
        let idle = self.shards.iter().filter_map(|shard| shard.owned.as_deref()).all(|shard| {
            !shard.busy() && !shard.wants_more() && !shard.has_unconfirmed() && self.next_of(shard) == Next::Nothing
        });
        let waits = self.waits() && !self.shards.iter().all(|shard| shard.owned.is_none() && shard.idle);
        let waits = waits && !self.shards.iter().all(|shard| self.settled(shard));
        self.scanned_everywhere() && idle && !waits && self.reading_keys.is_empty() && !self.asking && self.due.seen()
    }

    /// Whether a drain need not wait for the shard any more.
    fn settled(&self, slot: &ShardSlot) -> bool {
        match &slot.owned {
            Some(shard) => shard.marker.pending.is_empty() && shard.waiting_len() == 0,
            None => !slot.held,
        }
    }

    fn finished(&self) -> bool {
        self.ending() && self.shards.iter().all(|shard| shard.owned.is_none()) && self.ops.is_empty()
    }

    fn end(mut self) -> StoreResult<Summary> {
        self.summary.held_elsewhere = self.shards.iter().any(|shard| shard.held);
        self.summary.paused = self.paused();
        // A drain that ends while the store is away, or with entries that it could not release, has
        // not done all that was due.
        let undone = self.draining() && (self.trouble.is_on() || self.due.failure.is_some());
        match self.failure.take() {
            Some(error) => Err(error),
            None if undone => Err(self.given_up()),
            None => Ok(self.summary),
        }
    }

    fn hint(&mut self) {
        let now = self.now();
        self.hot_at = now;
        self.hot_pause = self.poll_range().0;
        self.asked_at = self.asked_at.min(now);
    }

    fn poll_range(&self) -> (Duration, Duration) {
        let (least, most) = self.group_store.place.store.profile().poll;
        match self.settings.poll {
            Some(poll) => (least.min(poll), poll),
            None => (least, most),
        }
    }
}

/// Completes when the stop level is no longer `level`.
async fn changed(stop: &mut watch::Receiver<Stop>, level: Stop) {
    loop {
        if *stop.borrow_and_update() != level {
            return;
        }
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next_news(polls: Option<&Polls>, told: &mut u64) {
    match polls {
        Some(polls) => polls.news(told).await,
        None => std::future::pending().await,
    }
}

async fn next_hint(hints: &mut Option<Box<dyn Hints>>) {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}
