//! What a worker reports. It prints nothing itself: one reporter does, for people, machines or metrics.

use std::sync::Arc;
use std::time::Duration;

use super::GroupName;
use super::marker::Owner;
use crate::event::{EventName, EventTime, Filter};
use crate::handler::{Obstacle, RunReport};
use crate::store::StoreError;

/// The end of a handler's run.
#[derive(Debug, Clone)]
pub struct EndedRun {
    /// For which event.
    pub name: EventName,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended, and with what output.
    pub report: RunReport,
}

/// Something that happened in a worker.
#[derive(Debug, Clone)]
pub enum WorkerEvent {
    /// The worker owns a shard now; `unclean`: its last owner had not given it back.
    Acquired {
        /// Which.
        shard: u16,
        /// Whether the last owner had not given it back.
        unclean: bool,
    },
    /// Another worker owns the shard now; the runs for it have been ended, and their events will
    /// run again there.
    Fenced {
        /// Which.
        shard: u16,
    },
    /// The shard could not be kept while the bus could not be written to; the runs for it have been
    /// ended, and their events will run again.
    LetGo {
        /// Which.
        shard: u16,
    },
    /// A handler starts.
    Started {
        /// For which event.
        name: EventName,
        /// From 1.
        attempt: u32,
    },
    /// Another live worker of the group runs another command; said once.
    OtherCommand {
        /// That worker.
        owner: Owner,
    },
    /// The event is processed.
    Done {
        /// Which.
        name: EventName,
        /// The attempt that succeeded, from 1.
        attempt: u32,
        /// How long its handler ran.
        took: Duration,
        /// For how many events that run was: one, unless they came as a batch.
        events: usize,
    },
    /// A batch is processed; each of its events is reported as well.
    DoneTogether {
        /// How many they are.
        events: usize,
        /// How long their handler ran.
        took: Duration,
    },
    /// The group's condition does not hold for the event.
    Skipped {
        /// Which.
        name: EventName,
        /// Why it could not be answered, if it could not.
        why: Option<String>,
    },
    /// A handler has ended; what becomes of the event is reported next.
    Ran(Box<EndedRun>),
    /// A later event of its key was run in its place.
    Superseded {
        /// Which.
        name: EventName,
        /// The later one.
        by: EventName,
    },
    /// The event will be tried again.
    Retrying {
        /// Which.
        name: EventName,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// When again.
        next: EventTime,
        /// How it ended.
        why: String,
    },
    /// A batch failed and is run again in halves, which is no attempt of its events.
    Halved {
        /// How many they are.
        events: usize,
        /// How it ended.
        why: String,
    },
    /// The attempt failed, and the event was given back to the server, which tries it again.
    Released {
        /// Which.
        name: EventName,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// How it ended.
        why: String,
    },
    /// The lock under which the server had handed the event out no longer holds: the event may run again.
    LockLost {
        /// Which.
        name: EventName,
        /// Why.
        why: String,
    },
    /// An `on_dead` command failed, which changes nothing.
    OnDeadFailed {
        /// Whose letter it is.
        name: EventName,
        /// How it ended.
        why: String,
    },
    /// The event is given up and becomes a dead letter.
    Dead {
        /// Which.
        name: EventName,
        /// Counted attempts.
        attempt: u32,
        /// How the last one ended.
        why: String,
    },
    /// Nothing can start, although something waits; said once until it ends.
    Stalled {
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// The store did not answer; said once until it does.
    Unreachable {
        /// The answer that was missed.
        error: StoreError,
    },
    /// It goes on again after [`WorkerEvent::Stalled`] or [`WorkerEvent::Unreachable`].
    GoesOn,
    /// A foreign name lies among the events; said once for each worker.
    Foreign {
        /// Its key.
        key: String,
    },
    /// From now on handlers run alone, because one of them seems to kill its worker.
    Isolating,
    /// The worker has ended with an error, which is reported elsewhere.
    Ended,
    /// The group's filter has changed.
    Redefined {
        /// The filter that it has now.
        filter: Arc<Filter>,
    },
    /// The group was paused or resumed.
    Paused {
        /// Whether it is now.
        paused: bool,
    },
}

/// Takes in what workers report.
pub trait Reporter {
    /// Something happened in a worker of `group`.
    fn report(&self, group: &GroupName, event: &WorkerEvent);
}

/// Reports nothing.
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: &GroupName, _: &WorkerEvent) {}
}
