//! Consumer groups: each wanted event is processed once, whatever fails.
//!
//! The engine decides, with [`Marker`], [`lease`], [`retry`] and [`Listing`], and does no I/O;
//! [`worker`] does what it decides, and [`worker_event`] says what happened.

mod content;
pub mod dead_letter;
pub mod definition;
mod engine;
pub mod history;
pub mod latest;
pub mod lease;
mod listing;
pub mod marker;
mod name_ranges;
pub mod operate;
mod ops;
pub mod owner;
pub mod polls;
pub mod request;
pub mod retry;
mod run;
pub mod status;
mod troubles;
mod verdict;
pub mod worker;
pub mod worker_event;

pub use crate::bus::Position;
pub use crate::bus::group_name::GroupName;
pub use definition::Definition;
pub use engine::ShardBounds;
pub use listing::Listing;
pub use marker::Marker;
pub use ops::read_marker;
#[cfg(feature = "cli")]
pub(crate) use run::event_vars;
