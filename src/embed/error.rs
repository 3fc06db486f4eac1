//! What can go wrong for a program that embeds the bus.

use std::io;

use crate::bus::group_name::GroupNameError;
use crate::config::ConfigError;
use crate::event::{ConditionError, EventError, PatternError};
use crate::store::{ErrorKind, StoreError};

/// Why an operation on the bus failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the bus cannot be understood.
    #[error(transparent)]
    Address(#[from] ConfigError),
    /// The event is no valid CloudEvent, or larger than this bus takes.
    #[error("the event {0}")]
    Event(#[from] EventError),
    /// The data cannot be serialised, or most readers of JSON could not read it.
    #[error("the data is not JSON that others can read")]
    Data(#[source] serde_json::Error),
    /// Another event has this id: this one is not on the bus.
    #[error("id '{id}' is another event's")]
    IdTaken {
        /// The id.
        id: String,
    },
    /// A type pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The condition of a group is not valid.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// The name of a group is not valid.
    #[error(transparent)]
    GroupName(#[from] GroupNameError),
    /// There is no group of this name.
    #[error("there is no group '{group}' (evbus group create makes one)")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The group is not there, and its start would make a difference.
    #[error("there is no group '{group}' yet, and events for it are there: where is it to start?")]
    NeedsStart {
        /// Its name.
        group: String,
        /// How many events there are.
        events: u64,
    },
    /// The group is there, with another filter or another number of shards.
    #[error("group '{group}' is there with another {what}")]
    GroupDiffers {
        /// The group.
        group: String,
        /// What differs.
        what: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No thread can be started for the bus.
    #[error("no thread can be started for the bus")]
    Thread(#[source] io::Error),
    /// The thread of the bus has ended, after a panic in it.
    #[error("the thread of the bus has ended")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later, without anything being repaired.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind() == ErrorKind::Unavailable)
    }
}
