//! Consumer groups: each wanted event is processed once, whatever fails.
//!
//! [`Marker`], [`lease`], [`retry`], [`Listing`] and the owned shard decide and do no I/O;
//! [`worker`] does what they decide, and [`worker_event`] says what happened.

pub mod dead_letter;
pub mod definition;
pub mod lease;
mod listing;
pub mod marker;
pub mod name;
mod ops;
pub mod polls;
mod position;
pub mod request;
pub mod retry;
mod run;
mod shard;
pub mod status;
pub mod worker;
pub mod worker_event;

pub use definition::Definition;
pub use listing::Listing;
pub use marker::Marker;
pub use name::GroupName;
pub use ops::read_marker;
pub use position::Position;
pub use shard::Bounds;
