//! What the engine has the runtime do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::settings::Summary;
use super::shard::{Commit, Launch};
use crate::event::{EventName, EventTime, Filter};
use crate::group::Position;
use crate::group::definition::Registered;
use crate::group::marker::PendingEvent;
use crate::group::request::Request;
use crate::group::worker_event::WorkerEvent;
use crate::store::StoreResult;

/// Something to be done. What is not done at once ends in a [`Completion`](super::Completion).
#[derive(Debug)]
pub enum Command {
    /// List the window of an owned shard, after W was raised.
    Scan {
        /// Which shard.
        shard: u16,
        /// Where the shard stands, if it is owned. Otherwise its marker is to be read first.
        through: Option<Position>,
        /// What to raise W to first.
        raise_to: Option<EventTime>,
    },
    /// Write the marker by which the worker acquires a shard.
    Acquire {
        /// Which shard.
        shard: u16,
        /// The marker.
        commit: Commit,
    },
    /// Write the marker of an owned shard.
    Commit {
        /// Which shard.
        shard: u16,
        /// The marker.
        commit: Commit,
    },
    /// List what is new in all shards.
    Poll {
        /// After this key.
        after: String,
        /// A shared poll that is later than this one replaces it.
        seen: u64,
    },
    /// Read the requests, and the markers of these idle shards.
    ReadRequests {
        /// Which shards.
        idle: Vec<u16>,
    },
    /// Read the group's definition.
    ReadDefinition,
    /// Release scheduled entries that are due: see [`crate::bus::schedule::release`].
    ReleaseScheduled {
        /// Entries that another worker was releasing before; none: all that are due.
        others: Option<BTreeSet<EventName>>,
    },
    /// Run an event.
    Start {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// Which event.
        launch: Launch,
        /// When the last listing ended that may have shown the event.
        listed_at: Duration,
    },
    /// End all runs of an ownership that were started until now; each completes without a result.
    Cancel {
        /// Of which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
    },
    /// The ownership of a shard was confirmed by a commit, sent at this time: runs that wait may
    /// rely on it.
    Renewed {
        /// Which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// When the commit was sent.
        sent: Duration,
    },
    /// Read the ordering key of an event.
    ReadKey {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// Which event.
        name: EventName,
        /// The letter to read if the event is gone.
        dead_letter: Option<String>,
    },
    /// Write a dead letter that a commit has announced, and run the `on_dead` command.
    WriteDeadLetter {
        /// For which shard.
        shard: u16,
        /// By which ownership.
        epoch: u64,
        /// The event whose letter it is.
        name: EventName,
        /// What the marker says of it.
        pending: Box<PendingEvent>,
    },
    /// Delete an object that is no longer needed. One that stays is harmless.
    Delete {
        /// Its key.
        key: String,
    },
    /// Ask the owner of a shard. A request that does not arrive is made again.
    Ask {
        /// Which shard.
        shard: u16,
        /// The request.
        request: Request,
    },
    /// Work by this definition of the group from now on.
    Redefine {
        /// The definition.
        registered: Registered,
        /// Its filter.
        filter: Arc<Filter>,
    },
    /// How many runs are under way, if no other will come before one of them has ended.
    Expect(Option<usize>),
    /// No further run may begin.
    EndHandlers,
    /// End the handlers that run.
    StopHandlers,
    /// Report an event of the worker.
    Report(WorkerEvent),
    /// Give the next input at this time at the latest, on the monotonic clock.
    WakeAt(Duration),
    /// The worker has ended; there is no further command.
    End(StoreResult<Summary>),
}

impl Command {
    /// Whether a completion tells how it ended.
    pub fn completes(&self) -> bool {
        match self {
            Self::Scan { .. }
            | Self::Acquire { .. }
            | Self::Commit { .. }
            | Self::Poll { .. }
            | Self::ReadRequests { .. }
            | Self::ReadDefinition
            | Self::ReleaseScheduled { .. }
            | Self::Start { .. }
            | Self::ReadKey { .. }
            | Self::WriteDeadLetter { .. }
            | Self::Delete { .. }
            | Self::Ask { .. } => true,
            Self::Cancel { .. }
            | Self::Renewed { .. }
            | Self::Redefine { .. }
            | Self::Expect(_)
            | Self::EndHandlers
            | Self::StopHandlers
            | Self::Report(_)
            | Self::WakeAt(_)
            | Self::End(_) => false,
        }
    }
}
