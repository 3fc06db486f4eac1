//! evbus: an event bus without a broker. Events are files in a directory, or objects in a bucket.
//!
//! ```
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("evbus-quick-{}", std::process::id()));
//! # std::fs::create_dir(&folder)?;
//! # let url = folder.join("bus").display().to_string();
//! use evbus::{Bus, NewEvent};
//!
//! let bus = Bus::create(&url).await?; // Bus::open, where there is one
//! bus.emit(NewEvent::new("order.created").subject("order/1").json(&99.5)?).await?;
//!
//! let consumer = bus.group("mail").types(["order.*"]).handler(|event| async move {
//!     let total: f64 = event.json()?;
//!     println!("{} costs {total}", event.subject().unwrap_or_default());
//!     Ok::<(), evbus::HandlerError>(()) // an error is tried again
//! });
//! # let shutdown = std::future::ready(());
//! # let consumer = consumer;
//! consumer.run(shutdown).await?; // until `shutdown` completes
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Bus`] is `Send`, `Sync` and cheap to clone, and works on any tokio runtime. What `emit` has
//! acknowledged is run to success by every group, or kept as a dead letter: README.md says what
//! that means, FORMAT.md how it is done.
//!
//! The program `evbus` is the feature `cli`, which is on by default; a program that embeds the bus
//! does without: `evbus = { version = "0.1", default-features = false }`.
//!
//! The modules below are public for the crate's own tests. They are no part of the public
//! interface, and change without notice. Each is a layer, and uses only those listed after it:
//!
//! - `cli`: one file per verb, with a folder where it is long; output and exit codes.
//! - `remote`: a bus behind an evbus server.
//! - `serve`: the HTTP face.
//! - `embed`: the bus inside another program.
//! - `open`: the bus at an address.
//! - `config`: file, environment and flags become settings, once.
//! - `copy`: events of one bus onto another.
//! - `recurring`: events that come by themselves, by a cron expression or in a period.
//! - `relay`: moves the rows of an outbox to a bus.
//! - `retention`: prune: what no group needs any more.
//! - `group`: consumer groups: the engine (pure), the worker, dead letters, requests.
//! - `feed`: what readers get who belong to no group, and where they go on.
//! - `bus`: emit (put, then check), reading, the frontier.
//! - `handler`: run one command, or send one request, for one event.
//! - `secret`: settings that are told where they are, and read when they are needed.
//! - `store`: six operations, and the directory, bucket and memory stores behind them.
//! - `threads`: where what waits for the disk, or computes for long, is done.
//! - `clock`: the only wall clock and the only randomness.
//! - `event`: what an event is: document, key name, type pattern. Pure.
//! - `recent`: a map that forgets.

#![deny(missing_docs)]

#[doc(hidden)]
pub mod archive;
#[doc(hidden)]
pub mod bus;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod copy;
mod embed;
#[doc(hidden)]
pub mod event;
#[doc(hidden)]
pub mod feed;
#[doc(hidden)]
pub mod group;
#[doc(hidden)]
pub mod handler;
#[doc(hidden)]
pub mod open;
mod recent;
#[doc(hidden)]
pub mod recurring;
pub mod relay;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod remote;
#[doc(hidden)]
pub mod retention;
#[doc(hidden)]
pub mod secret;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod serve;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod threads;

pub use embed::{
    Batcher, Bus, Consumer, Delivery, Emitted, Error, GroupBuilder, HandlerError, HandlerResult, NewEvent, Query,
    StartAt, Totals,
};
pub use event::{Data, Event};
