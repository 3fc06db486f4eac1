//! Turns file, environment and options into settings, once; nothing reads the environment again.
//!
//! - [`Environment`]: the environment as the process received it.
//! - [`Config`]: the config file, found, read and checked.
//! - [`BusAddress`]: where the bus is, and what decided it.
//! - [`Watcher`]: one `[watchers.NAME]` with all defaults filled in.
//! - [`ServeSettings`]: `[serve]`, with all defaults filled in.
//! - [`units`], [`instant`]: the text forms of durations, sizes and times.

mod address;
mod bucket;
#[cfg(feature = "postgres")]
mod database;
mod environment;
mod error;
mod find;
pub mod instant;
pub mod nearest;
mod parts;
mod read;
mod relay;
mod schedule;
mod section;
mod serve;
#[cfg(feature = "cli")]
mod source;
pub mod units;
mod watcher;

#[cfg(test)]
mod tests;

pub use address::{Address, BusAddress, Location, Origin};
pub use environment::{Environment, default_source};
pub use error::{ConfigDetail, ConfigError};
pub use find::{ConfigFile, FoundConfig};
pub use nearest::nearest;
pub use parts::without_password;
pub use read::Config;
pub use relay::RelaySettings;
pub use section::parse_secret;
pub use serve::{
    HmacEncoding, HmacScheme, Hook, ListenAddress, Permissions, PullSettings, ServeSettings, Template, TemplatePart,
    Token, Verify, is_loopback,
};
#[cfg(feature = "cli")]
pub use source::{TYPE as SOURCE_TYPE, after_of, place_of};
pub use watcher::{
    Action, BatchSettings, COMMAND_TIMEOUT, FilterError, KeptHistory, LINGER, MAX_CONCURRENCY, StartFrom, Watcher,
    parse_format, parse_url, several_shards,
};
