//! Refuses to emit what ends a chain of events that is too long.

use std::time::Duration;

use crate::bus::BusHandle;
use crate::bus::chain::LongChain;
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::config::{Environment, default_source};

/// The depth of an event that is emitted here: none outside of a handler.
pub(super) fn depth(environment: &Environment) -> Option<u32> {
    let var = |name: &str| environment.var(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
    var("EVBUS_ID")?;
    Some(var("EVBUS_DEPTH").and_then(|depth| depth.parse().ok()).unwrap_or(0_u32).saturating_add(1))
}

/// Refuses what this handler emits, if it has more events before it than `most`; 0: any number.
pub(super) async fn refuse_long(
    environment: &Environment,
    own_type: Option<&str>,
    most: u32,
    bus: &BusHandle,
) -> Result<(), Failure> {
    let Some(chain) = depth(environment).and_then(|depth| LongChain::of(depth, most, own_type)) else { return Ok(()) };
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
