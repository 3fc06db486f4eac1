//! The binary as a user runs it, in a cleared environment: its output, its exit code, and the bus
//! afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/mini.rs"]
mod mini;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/until.rs"]
mod until;

mod archive;
mod bad_input;
mod bucket;
mod bucket_messages;
mod bulk;
mod crash;
mod credentials;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod database_servers;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod databases;
mod emit;
mod faults;
mod hosts;
mod latest;
mod members;
mod metrics_and_health;
mod operator_view;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod outbox;
mod output;
mod page;
mod recovery;
mod schedules;
mod segments;
mod serve;
mod sources;
mod support;
mod trial;
mod usage_mistakes;
mod webhooks;
mod work;
