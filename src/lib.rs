//! evbus: an event bus without a broker.
//!
//! The map of the house. Each layer uses only the ones below it:
//!
//! - [`cli`]: one file per verb; output and exit codes.
//! - [`config`]: file, environment and flags become settings, once.
//! - [`group`]: consumer groups: marker and lease (pure), the worker, dead letters, requests.
//! - [`bus`]: emit (put, then check), reading, the frontier, prune.
//! - [`handler`]: run one command for one event.
//! - [`store`]: six operations, and the directory and memory stores behind them.
//! - [`event`]: what an event is: document, key name, type pattern. Pure.
//! - [`clock`]: the only wall clock and the only randomness.
//! - [`threads`]: where what waits for the disk, or computes for long, is done.

pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod event;
pub mod group;
pub mod handler;
pub mod store;
pub mod threads;
