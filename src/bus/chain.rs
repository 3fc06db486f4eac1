//! Chains of events that cause each other: a handler that emits what it wants itself would go on for ever.

use std::fmt;
use std::time::Duration;

use super::emit::remembered;
use super::{BusHandle, read};
use crate::event::{Event, EventName, parse_event_id};
use crate::store::{LARGEST_BYTES, StoreResult};

/// The attribute that counts the events before this one, each of which has caused the next.
pub const DEPTH: &str = "causationdepth";

/// How many events of a chain are looked for, and how many types of a longer one an error names.
const TRACED: usize = 64;
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

/// `33 events would have caused each other, and the bus allows 32: b <- a <- … <- start`.
impl fmt::Display for LongChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events would have caused each other, and the bus allows {}", self.depth, self.most)?;
        let Some((first, others)) = self.types.split_last() else { return Ok(()) };
        let (named, is_cut) = (others.len().min(NAMED), others.len() > NAMED);
        let mut named: Vec<&str> = others[..named].iter().map(String::as_str).collect();
        named.extend(is_cut.then_some("…"));
        named.push(first);
        named.extend(self.has_more.then_some("…"));
        write!(f, ": {}", named.join(" <- "))
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
        while let Some(id) = cause.as_deref().filter(|_| self.types.len() < TRACED) {
            let Ok(Some(event)) = find(bus, &source, id, reach).await else { break };
            self.types.push(event.type_().to_owned());
            event.source().clone_into(&mut source);
            cause = event.attribute("causationid").map(|cause| cause.into_owned()).filter(|cause| cause != id);
        }
        self.has_more = cause.is_some();
        self
    }
}

/// The depth of what an event causes: by its id, and the source that it is likely to have.
///
/// # Errors
/// The store's.
pub async fn depth_after(bus: &BusHandle, source: &str, id: &str) -> StoreResult<Option<u32>> {
    let depth_of = |event: &Event| event.attribute(DEPTH).and_then(|depth| depth.parse().ok()).unwrap_or(0_u32);
    Ok(find(bus, source, id, Duration::MAX).await?.map(|event| depth_of(&event).saturating_add(1)))
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
    fn of_a_long_chain_the_last_and_the_first_types_are_named() {
        let named = |count: usize, has_more| {
            let types = (0..count).map(|n| format!("t{n}")).collect();
            LongChain { depth: 9, most: 8, types, has_more }
                .to_string()
                .split_off("9 events would have caused each other, and the bus allows 8".len())
        };
        assert_eq!(named(0, true), "");
        assert_eq!(named(1, true), ": t0 <- …");
        assert_eq!(named(7, false), ": t0 <- t1 <- t2 <- t3 <- t4 <- t5 <- t6");
        assert_eq!(named(9, false), ": t0 <- t1 <- t2 <- t3 <- t4 <- t5 <- … <- t8");
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
