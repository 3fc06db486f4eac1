//! Refuses to emit what ends a chain of events that is too long.

use std::time::Duration;

use crate::bus::BusHandle;
use crate::bus::chain::{LongChain, depth_after};
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::config::{Environment, default_source};

/// The depth of an event that is emitted here: none outside of a handler. An environment that has lost it is asked for the
/// event that the handler runs for.
pub(super) async fn depth(environment: &Environment, bus: Option<&BusHandle>) -> Option<u32> {
    let var = |name: &str| environment.var(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
    let id = var("EVBUS_ID")?;
    if let Some(depth) = var("EVBUS_DEPTH").and_then(|depth| depth.parse::<u32>().ok()) {
        return Some(depth.saturating_add(1));
    }
    let found = match bus {
        Some(bus) => depth_after(bus, var("EVBUS_SOURCE").unwrap_or(default_source()), id).await.ok().flatten(),
        None => None,
    };
    Some(found.unwrap_or(1))
}

/// Refuses what this handler emits, if it has more events before it than `most`; 0: any number.
pub(super) async fn refuse_long(
    environment: &Environment,
    (depth, own_type): (Option<u32>, Option<&str>),
    most: u32,
    bus: &BusHandle,
) -> Result<(), Failure> {
    let Some(chain) = depth.and_then(|depth| LongChain::of(depth, most, own_type)) else { return Ok(()) };
    let cause = environment.var("EVBUS_ID").and_then(|id| id.to_str()).map(str::to_owned);
    Err(refusal(&chain.traced(bus, default_source(), cause, Duration::MAX).await))
}

/// The failure of an event that ends a chain that is too long.
pub(super) fn refusal(chain: &LongChain) -> Failure {
    Failure::failed(chain.to_string()).help([
        command("check", ""),
        text(" warns of a handler that emits what it wants; env -u EVBUS_ID emits without a cause"),
    ])
}
