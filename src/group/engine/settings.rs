//! What a worker is told at its start, and what it reports at its end.

use std::time::Duration;

use super::shard::ShardBounds;
use crate::event::EventTime;
use crate::group::latest::Latest;
use crate::group::lease::Lease;
use crate::group::retry::Retry;
use crate::handler::Obstacle;

/// How far a worker was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    /// Go on.
    #[default]
    No,
    /// Start nothing new; let the running handlers end, however long they take.
    AfterRuns,
    /// Start nothing new; let the running handlers end within the worker's time for it.
    Starts,
    /// End the running handlers, too.
    Handlers,
}

/// What a worker is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Until told to stop.
    Watch,
    /// What is due now, then end.
    Drain {
        /// Also wait for later retries and for other workers.
        wait: bool,
        /// The most handlers to start.
        most: Option<u64>,
        /// The time after which no handler is started.
        span: Option<Duration>,
    },
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// See [`Mode`].
    pub mode: Mode,
    /// The most handlers that run at once.
    pub concurrency: usize,
    /// Whether events of one ordering key run one at a time, in the order of emission.
    pub ordered: bool,
    /// Set: of events of one key that wait only the last is run.
    pub latest: Option<Latest>,
    /// When failed events are tried again.
    pub retry: Retry,
    /// How long running handlers may go on after a stop.
    pub stop_timeout: Duration,
    /// See [`Lease`].
    pub lease: Lease,
    /// See [`ShardBounds`].
    pub bounds: ShardBounds,
    /// How often to poll where hints do not come; none: the store's own range.
    pub poll: Option<Duration>,
    /// Whether to use the store's hints.
    pub hints: bool,
    /// The bus's address, for handlers.
    pub url: String,
    /// Whether the runs are elsewhere, with members: none of them can kill this worker, and all end with
    /// it.
    pub runs_elsewhere: bool,
    /// Whether the end of each run is reported, with its output.
    pub reports_runs: bool,
    /// Events larger than this were not put there by evbus.
    pub max_event_bytes: usize,
}

impl WorkerSettings {
    /// One handler at a time, with the defaults of everything else.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            concurrency: 1,
            ordered: false,
            latest: None,
            retry: Retry::default(),
            stop_timeout: Duration::from_secs(30),
            lease: Lease::default(),
            bounds: ShardBounds::default(),
            poll: None,
            hints: true,
            url: String::new(),
            runs_elsewhere: false,
            reports_runs: false,
            max_event_bytes: usize::try_from(crate::bus::MAX_EVENT_BYTES).unwrap_or(usize::MAX),
        }
    }
}

/// What a worker did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events processed.
    pub done: u64,
    /// Events that the group's condition has passed over.
    pub skipped: u64,
    /// Events that a later one of their key has superseded.
    pub superseded: u64,
    /// Attempts that failed and will be repeated.
    pub retries: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events known to be left, waiting or retrying.
    pub left: u64,
    /// When the next of them is due again.
    pub next_retry: Option<EventTime>,
    /// Whether another worker holds a shard that has work.
    pub held_elsewhere: bool,
    /// Whether the group is paused.
    pub paused: bool,
    /// What kept the handler from being started, if anything did.
    pub stalled: Option<Obstacle>,
}
