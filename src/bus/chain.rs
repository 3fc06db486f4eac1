//! Chains of events that cause each other: a handler that emits what it wants itself would go on for ever.

use std::fmt;
use std::time::Duration;

use super::emit::remembered;
use super::{BusHandle, read};
use crate::event::{Event, EventName, parse_event_id};
use crate::store::{LARGEST_BYTES, StoreResult};

/// The attribute that counts the events before this one, each of which has caused the next.
pub const DEPTH: &str = "causationdepth";

/// How many types of a chain an error names.
const NAMED: usize = 6;

/// A chain that is longer than the bus allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongChain {
    depth: u32,
    most: u32,
    /// The types that are known, the last event's first.
    types: Vec<String>,
    /// Whether others come before those.
    has_more: bool,
}

/// `33 events would have caused each other, and the bus allows 32: b <- a <- …`.
impl fmt::Display for LongChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events would have caused each other, and the bus allows {}", self.depth, self.most)?;
        if !self.types.is_empty() {
            write!(f, ": {}{}", self.types.join(" <- "), if self.has_more { " <- …" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for LongChain {}

impl LongChain {
    /// The chain of an event with so many before it, if those are more than `most`; 0: any number.
    pub fn of(depth: u32, most: u32, own_type: Option<&str>) -> Option<Self> {
        let types = own_type.map(str::to_owned).into_iter().collect();
        (most > 0 && depth > most).then_some(Self { depth, most, types, has_more: true })
    }

    /// The chain that an event tells by its attributes, if it is longer than `most`.
    pub fn of_event(event: &Event, most: u32) -> Option<Self> {
        Self::of_attribute(&event.attribute(DEPTH)?, most, event.type_())
    }

    /// The same by the text of the attribute.
    pub fn of_attribute(depth: &str, most: u32, own_type: &str) -> Option<Self> {
        // A number that is no u32 is not small.
        let is_number = !depth.is_empty() && depth.bytes().all(|byte| byte.is_ascii_digit());
        let depth = depth.parse().ok().or(is_number.then_some(u32::MAX))?;
        Self::of(depth, most, Some(own_type))
    }

    /// Looks for the types of the events before: `cause` is the id of the nearest, `source` that of the event itself. Events
    /// without an id of their own are looked for in what was emitted within `reach`.
    #[must_use]
    pub async fn traced(mut self, bus: &BusHandle, source: &str, cause: Option<String>, reach: Duration) -> Self {
        let (mut source, mut cause) = (source.to_owned(), cause);
        while let Some(id) = cause.as_deref().filter(|_| self.types.len() < NAMED) {
            let Ok(Some(event)) = find(bus, &source, id, reach).await else { break };
            self.types.push(event.type_().to_owned());
            event.source().clone_into(&mut source);
            cause = event.attribute("causationid").map(|cause| cause.into_owned()).filter(|cause| cause != id);
        }
        self.has_more = cause.is_some();
        self
    }
}

/// The event with an id: one of this source that was named, or one that evbus has named.
async fn find(bus: &BusHandle, source: &str, id: &str, reach: Duration) -> StoreResult<Option<Event>> {
    let mut name: Option<EventName> = remembered(bus, source, id).await?;
    let since = bus.clock.now().minus(reach);
    if name.is_none() && parse_event_id(id).is_some_and(|(made, _)| made >= since) {
        name = read::find(bus, id, 1).await?.pop();
    }
    let Some(name) = name else { return Ok(None) };
    let document = read::document(bus, &name, LARGEST_BYTES).await?;
    Ok(document.and_then(|document| Event::parse(&document, LARGEST_BYTES).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(depth: &str) -> Event {
        Event::new("1", "s", "a.b").extension(DEPTH, depth).build().unwrap()
    }

    #[test]
    fn an_event_tells_how_long_its_chain_is() {
        let long = |depth: &str, most| LongChain::of_event(&event(depth), most).map(|chain| chain.to_string());
        let says =
            |depth: u64| Some(format!("{depth} events would have caused each other, and the bus allows 3: a.b <- …"));
        for (depth, most, expected) in [
            ("3", 3, None),
            ("4", 3, says(4)),
            ("4", 0, None),
            ("04", 3, says(4)),
            ("99999999999", 3, says(u32::MAX.into())),
            ("-5", 3, None),
            ("four", 3, None),
        ] {
            assert_eq!(long(depth, most), expected, "{depth} {most}");
        }
        assert_eq!(LongChain::of_event(&Event::new("1", "s", "a").build().unwrap(), 1), None);
    }
}
