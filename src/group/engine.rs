//! The engine: what a worker decides. A pure state machine, without I/O, clocks or futures.
//!
//! [`Engine::handle`] takes in an [`Input`] and the time, and returns [`Command`]s, which the
//! runtime ([`super::worker`]) carries out; how each of them ended comes back as a [`Completion`].
//!
//! `completions` takes the answers in, `plan` says what follows from the state, `scans` decides which
//! shards to acquire, `polling` and `releases` find work, `rebalance` shares the shards, `requests`
//! follows what operators ask, `shutdown` and `trouble` say when to end. [`Shard`] has the state of
//! an owned shard.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::definition::Registered;
use super::lease::LeaseObservation;
use super::marker::Owner;
use super::worker_event::WorkerEvent;
use super::{GroupName, Marker, Position};
use crate::event::{EventName, EventTime, Filter};
use crate::store::{Profile, Requests, StoreError, StoreResult, Version};

mod candidate;
mod command;
mod completions;
mod input;
mod plan;
mod polling;
mod random;
mod rebalance;
mod releases;
mod reported;
mod requests;
mod scans;
mod settings;
mod shard;
mod shutdown;
#[cfg(test)]
mod tests;
mod trouble;

pub(super) use command::Command;
pub(super) use input::{
    Committed, Completion, ControlRequests, GroupChanges, Input, Now, Polled, ReadMarker, ScanStats, ShardScan,
};
pub use settings::{Mode, Stop, Summary, WorkerSettings};
pub use shard::ShardBounds;
pub(super) use shard::{Commit, Launch};
pub(super) use trouble::can_be_repeated;

use polling::Polling;
use random::Random;
use releases::Releases;
use reported::Reported;
use requests::Control;
use shard::Shard;
use shutdown::Shutdown;
use trouble::Trouble;

/// After this time a handler that could not be started is tried again.
const STALL: Duration = Duration::from_secs(5);

/// A shard that this worker watches, whichever worker owns it.
#[derive(Default)]
struct ShardSlot {
    owned: Option<Box<Shard>>,
    observation: Option<LeaseObservation>,
    /// The marker as it stood when the shard had no owner: it need not be read again before the
    /// shard is acquired.
    last_free_marker: Option<(Box<Marker>, Option<Version>)>,
    /// The acquisition under way.
    acquiring: Option<Acquiring>,
    /// There is nothing to scan here until something new turns up.
    idle: bool,
    /// Scanned at least once, with an answer.
    seen: bool,
    /// Another worker owns it, and it has work.
    is_held: bool,
    scanning: bool,
    /// Whether the shard was owned when that scan began.
    scanning_owned: bool,
    /// Something turned up while a scan was under way, which may have missed it.
    rescan: bool,
    scan_at: Duration,
    /// Until then the shard is left to another worker, which has asked for it.
    yielded_until: Duration,
    /// The worker that the shard was given to, and when.
    handoff: Option<String>,
    handoff_at: Duration,
    /// The worker that holds it.
    holder: Option<String>,
    stats: ScanStats,
    last_scan_through: Option<Position>,
    /// A last scan was made to let `through` pass what it can.
    had_final_scan: bool,
    /// The version at the first scan. A drain compares it to see whether an owner, whose process it
    /// cannot look up, still commits.
    first_version: Option<Option<Version>>,
}

/// What a shard is acquired with, while its commit is under way.
struct Acquiring {
    marker: Marker,
    scan: ShardScan,
    /// Whether its last owner had not released it.
    unclean: bool,
}

impl ShardSlot {
    /// Something has turned up here: the shard is scanned now, and again if a scan is under way.
    fn wake(&mut self, now: Duration) {
        self.idle = false;
        self.rescan |= self.scanning;
        self.scan_at = now;
    }
}

/// What an engine begins with.
pub(super) struct EngineParts {
    pub group: GroupName,
    pub registered: Registered,
    pub filter: Arc<Filter>,
    pub settings: WorkerSettings,
    /// What the store is like.
    pub profile: Profile,
    /// This process, as other workers see it.
    pub me: Owner,
    /// A random number, known to no other process.
    pub seed: u64,
    pub now: Now,
}

/// The state of one group's worker.
pub(super) struct Engine {
    group: GroupName,
    registered: Registered,
    filter: Arc<Filter>,
    settings: WorkerSettings,
    profile: Profile,
    me: Owner,
    random: Random,
    /// When the input came that is being handled.
    now: Now,
    commands: Vec<Command>,
    /// How many commands have no completion yet.
    in_flight: usize,
    shards: Vec<ShardSlot>,
    begun: Duration,
    /// How many handlers were started.
    started: u64,
    /// The shard that may start an event next.
    turn: usize,
    /// The events whose ordering keys are being read.
    reading_keys: HashSet<EventName>,
    /// The most runs that the handler takes at once; none: any number.
    max_in_flight: Option<usize>,
    /// The handler could not be started; not tried again before this.
    stalled_until: Option<Duration>,
    /// When the last listing ended that showed something.
    listed_at: Duration,
    polling: Polling,
    releases: Releases,
    control: Control,
    /// When the next shard may be asked for.
    share_at: Duration,
    shutdown: Shutdown,
    trouble: Trouble,
    reported: Reported,
    /// Requests of the store that no marker counts yet.
    requests_made: Requests,
    summary: Summary,
    failure: Option<StoreError>,
}

impl Engine {
    /// An engine that has begun with nothing.
    pub fn new(from: EngineParts) -> Self {
        let EngineParts { group, registered, filter, settings, profile, me, seed, now } = from;
        let begun = now.elapsed;
        let slots = (0..registered.definition.shards).map(|_| ShardSlot { scan_at: begun, ..ShardSlot::default() });
        Self {
            shards: slots.collect(),
            polling: Polling::new(begun, settings.poll.unwrap_or(profile.poll.0)),
            // The definition was read just now.
            control: Control::new(begun, settings.poll.unwrap_or(profile.poll.1)),
            releases: Releases::new(begun),
            trouble: Trouble::new(begun),
            random: Random::new(seed),
            group,
            registered,
            filter,
            settings,
            profile,
            me,
            now,
            commands: Vec::new(),
            in_flight: 0,
            begun,
            started: 0,
            turn: 0,
            reading_keys: HashSet::new(),
            max_in_flight: None,
            stalled_until: None,
            listed_at: begun,
            share_at: begun,
            shutdown: Shutdown::default(),
            reported: Reported::default(),
            requests_made: Requests::default(),
            summary: Summary::default(),
            failure: None,
        }
    }

    /// Forgets all that it has read and decided: the store may have lost its latest writes.
    pub fn begin_anew(&mut self, seed: u64, now: Now) {
        let fresh = Self::new(EngineParts {
            group: self.group.clone(),
            registered: self.registered.clone(),
            filter: Arc::clone(&self.filter),
            settings: self.settings.clone(),
            profile: self.profile,
            me: self.me.clone(),
            seed,
            now,
        });
        let old = std::mem::replace(self, fresh);
        self.summary = old.summary;
        self.shutdown.level = old.shutdown.level;
        self.max_in_flight = old.max_in_flight;
        self.reported = old.reported;
        self.requests_made = old.requests_made;
    }

    /// Takes in what has happened, and says what is to be done: the last command is
    /// [`Command::WakeAt`] or [`Command::End`].
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Command> {
        self.now = now;
        inputs.into_iter().for_each(|input| self.take_in(input));
        self.plan();
        let last = if self.finished() {
            Command::End(self.end())
        } else if self.gives_up() {
            Command::End(Err(self.failure.take().unwrap_or_else(|| self.given_up())))
        } else {
            Command::WakeAt(self.deadline())
        };
        self.commands.push(last);
        // The next commands are most likely as many.
        let next = Vec::with_capacity(self.commands.len());
        std::mem::replace(&mut self.commands, next)
    }

    /// Whether it owns a shard whose marker it will still commit.
    pub fn owns_shards(&self) -> bool {
        self.owned_shards().any(|shard| !shard.releasing)
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Completed(completion) => self.complete(completion),
            Input::Hint => self.hint(),
            Input::PolledElsewhere => self.polling.poll_at = self.now(),
            Input::Trouble(error) => self.store_is_away(error, true),
            Input::Stop(level) => self.shutdown.level = self.shutdown.level.max(level),
            Input::MaxInFlight(most) => self.max_in_flight = most,
            Input::Requests(made) => self.requests_made = self.requests_made.plus(made),
        }
    }

    fn now(&self) -> Duration {
        self.now.elapsed
    }

    fn wall(&self) -> EventTime {
        self.now.wall
    }

    fn command(&mut self, command: Command) {
        self.in_flight += usize::from(command.completes());
        self.commands.push(command);
    }

    fn report(&mut self, event: WorkerEvent) {
        self.command(Command::Report(event));
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

    fn hint(&mut self) {
        let now = self.now();
        self.polling.poll_at = now;
        self.polling.pause = self.poll_range().0;
        // Most often it is of an event, which is read first.
        self.control.ask_at = self.control.ask_at.min(now + Duration::from_millis(5));
    }

    fn poll_range(&self) -> (Duration, Duration) {
        let (least, most) = self.profile.poll;
        match self.settings.poll {
            Some(poll) => (least.min(poll), poll),
            None => (least, most),
        }
    }

    /// How often a shard with something to see is scanned.
    fn resync_after(stats: &ScanStats) -> Duration {
        // An expensive listing is made less often, up to a limit: a process that was frozen
        // measures a false time.
        (stats.took * 20).clamp(Duration::from_secs(4), Duration::from_secs(60))
    }

    fn end(&mut self) -> StoreResult<Summary> {
        self.summary.held_elsewhere = self.shards.iter().any(|shard| shard.is_held);
        self.summary.paused = self.paused();
        // A drain that ends while the store is away, or with entries that it could not release, has
        // not done all that was due.
        let undone = self.draining() && (self.trouble.is_on() || self.releases.failure.is_some());
        match self.failure.take() {
            Some(error) => Err(error),
            None if undone => Err(self.given_up()),
            None => Ok(std::mem::take(&mut self.summary)),
        }
    }
}
