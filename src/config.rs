//! File, environment and flags become settings, once; nothing re-reads the environment afterwards.
//!
//! - [`Environment`]: the environment as it was handed in.
//! - [`Config`]: the config file, found, read and checked.
//! - [`BusAddress`]: where the bus is, and who said so.
//! - [`Watcher`]: one `[watchers.NAME]` with all defaults filled in.
//! - [`units`], [`instant`]: durations, sizes and times as people write them.

mod address;
mod bucket;
mod environment;
mod error;
mod find;
pub mod instant;
pub mod nearest;
mod read;
mod section;
pub mod units;
mod watcher;

#[cfg(test)]
mod tests;

pub use address::{Address, BusAddress, Location, Origin};
pub use environment::{Environment, default_source};
pub use error::ConfigError;
pub use find::{ConfigFile, Found};
pub use nearest::nearest;
pub use read::Config;
pub use watcher::{Batch, LINGER, MAX_CONCURRENCY, StartFrom, WantsError, Watcher};
