//! Chains of events that cause each other: a handler that emits what it wants itself would go on for ever.

use crate::bus::BusHandle;
use crate::cli::failure::Failure;
use crate::cli::get;
use crate::cli::help_line::{command, text};
use crate::config::Environment;
use crate::event::{Event, id_of};
use crate::store::LARGEST_BYTES;

/// The attribute that counts the events before this one, each of which has caused the next.
pub(super) const DEPTH: &str = "causationdepth";

/// How many types of a chain an error names.
const NAMED: usize = 6;

/// The depth of an event that is emitted here: none outside of a handler.
pub(super) fn depth(environment: &Environment) -> Option<u32> {
    let var = |name: &str| environment.var(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
    var("EVBUS_ID")?;
    Some(var("EVBUS_DEPTH").and_then(|depth| depth.parse().ok()).unwrap_or(0_u32).saturating_add(1))
}

/// Refuses an event with more events before it than `most`; 0: any number.
pub(super) async fn refuse_long(
    environment: &Environment,
    own_type: Option<&str>,
    most: u32,
    bus: Option<&BusHandle>,
) -> Result<(), Failure> {
    let Some(depth) = depth(environment).filter(|depth| most > 0 && *depth > most) else { return Ok(()) };
    let mut types: Vec<String> = own_type.map(str::to_owned).into_iter().collect();
    let mut id = environment.var("EVBUS_ID").and_then(|id| id.to_str()).map(str::to_owned);
    while let (Some(bus), Some(cause), true) = (bus, &id, types.len() < NAMED) {
        let Ok(Some((name, document))) = get::by_id(bus, cause).await else { break };
        let Ok(event) = Event::parse(&document, LARGEST_BYTES) else { break };
        types.push(event.type_().to_owned());
        id = event.attribute("causationid").map(|id| id.into_owned()).filter(|id| *id != id_of(&name));
    }
    let rest = if id.is_some() { " <- …" } else { "" };
    let chain = if types.is_empty() { String::new() } else { format!(": {}{rest}", types.join(" <- ")) };
    let what = format!("{depth} events would have caused each other, and the bus allows {most}{chain}");
    Err(Failure::failed(what).help([
        command("check", ""),
        text(" warns of a handler that emits what it wants; env -u EVBUS_ID emits without a cause"),
    ]))
}
