//! What the engine is told: what the runtime has done, and what has happened beside it.

use std::time::Duration;

use super::settings::Stop;
use crate::bus::schedule::Released;
use crate::event::{EventName, EventTime};
use crate::group::definition::Registered;
use crate::group::lease::Process;
use crate::group::verdict::RunResult;
use crate::group::{Listing, Marker, request};
use crate::store::{Requests, StoreError, StoreResult, Version};

/// The time at which an input came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// On the monotonic clock of this process.
    pub elapsed: Duration,
    /// On the wall clock, which may be wrong.
    pub wall: EventTime,
}

/// Something that the engine must know.
#[derive(Debug)]
pub enum Input {
    /// A command is carried out.
    Completed(Completion),
    /// The store hints that something has changed.
    Hint,
    /// Another group of this process has made a poll that replaces the next one of this group.
    PolledElsewhere,
    /// An operation has met this error, and goes on trying.
    Trouble(StoreError),
    /// The worker is told to stop.
    Stop(Stop),
    /// The most runs that the handler takes at once, from now on; none: any number.
    MaxInFlight(Option<usize>),
    /// Requests were made of a store that charges for them.
    Requests(Requests),
}

/// How a command ended.
#[derive(Debug)]
pub enum Completion {
    /// [`Command::Scan`](super::Command::Scan)
    Scanned {
        /// Which shard.
        shard: u16,
        /// The marker, where the command has read it.
        marker: Option<ReadMarker>,
        /// What was found.
        scan: Box<StoreResult<ShardScan>>,
    },
    /// [`Command::Acquire`](super::Command::Acquire)
    Acquired {
        /// Which shard.
        shard: u16,
        /// How the commit ended.
        committed: Committed,
    },
    /// [`Command::Commit`](super::Command::Commit)
    Committed {
        /// Which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// How the commit ended.
        committed: Committed,
    },
    /// [`Command::Poll`](super::Command::Poll)
    Polled(StoreResult<Polled>),
    /// [`Command::ReadRequests`](super::Command::ReadRequests)
    ControlRequests(StoreResult<ControlRequests>),
    /// [`Command::ReleaseScheduled`](super::Command::ReleaseScheduled)
    Released(StoreResult<Released>),
    /// [`Command::ReadDefinition`](super::Command::ReadDefinition); none: the group was removed.
    Definition(StoreResult<Option<Registered>>),
    /// [`Command::Start`](super::Command::Start)
    Ran {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// Which event.
        name: EventName,
        /// Which attempt, from 1.
        attempt: u32,
        /// What became of it; none if it was cancelled.
        ran: Option<RunResult>,
    },
    /// [`Command::ReadKey`](super::Command::ReadKey)
    Key {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// The event.
        name: EventName,
        /// The key's hash; none if the event is gone.
        key: StoreResult<Option<u64>>,
    },
    /// [`Command::WriteDeadLetter`](super::Command::WriteDeadLetter)
    DeadLetterWritten {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// The event whose letter it is.
        name: EventName,
        /// The letter's name.
        letter: String,
        /// Whether it is on the bus.
        written: StoreResult<()>,
        /// Why the `on_dead` command failed, if it did.
        failed: Option<String>,
    },
    /// A request was answered, and the answer changes nothing.
    Sent,
}

/// A marker as a scan has read it.
#[derive(Debug)]
pub struct ReadMarker {
    /// What it says.
    pub marker: Box<Marker>,
    /// None if it was never written.
    pub version: Option<Version>,
    /// What is known of its owner's process.
    pub process: Process,
}

/// What a listing showed in addition to the wanted names.
#[derive(Debug, Clone, Default)]
pub struct ScanStats {
    /// The newest event's time that this worker's clock has reached.
    pub newest: Option<EventTime>,
    /// The newest event's time that W may be raised to: no later than this worker's clock less the
    /// lag.
    pub newest_raisable: Option<EventTime>,
    /// How many events lie at or before `newest_raisable`.
    pub raisable_len: u64,
    /// The key of a foreign name.
    pub foreign: Option<String>,
    /// How long the listing took.
    pub took: Duration,
}

/// A shard as a listing shows it.
#[derive(Debug)]
pub struct ShardScan {
    /// False if the scan was replaced by a poll: then only what the poll had found is known.
    pub whole: bool,
    pub listing: Listing,
    pub stats: ScanStats,
    /// The group's new definition, if it has changed: then the listing says nothing.
    pub redefined: Option<Registered>,
    /// Why a segment cannot be read now.
    pub unread: Option<StoreError>,
}

/// What a poll has shown.
#[derive(Debug)]
pub struct Polled {
    pub names: Vec<EventName>,
    /// After which key more may follow.
    pub next: Option<String>,
    pub stats: ScanStats,
    /// The group's other keys, where the listing shows them.
    pub changes: Option<GroupChanges>,
    /// The number of the shared poll; 0 if the poll was not shared.
    pub poll: u64,
}

/// What is kept about a group, as a listing shows it.
#[derive(Debug, Default)]
pub struct GroupChanges {
    pub definition: Option<Version>,
    pub markers: Vec<(u16, Version)>,
    /// Whether there are requests.
    pub requests: bool,
    /// When the next scheduled entry is due.
    pub scheduled: Option<EventTime>,
}

/// What only a read shows, because nothing on the bus hints at it.
#[derive(Debug)]
pub struct ControlRequests {
    pub pending: Vec<request::PendingRequest>,
    /// Shards that were idle and are not any more.
    pub woken: Vec<u16>,
}

/// How a commit ended.
#[derive(Debug)]
pub enum Committed {
    /// It is the newest version; sent at this time.
    Yes { version: Version, sent: Duration },
    /// Another owner's commit is the newest version.
    Fenced,
    /// It could not be written while the lease lasted, or never can be.
    Failed(StoreError),
}
