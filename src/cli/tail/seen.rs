//! Remembers which events a tail has printed, in bounded memory.

use std::collections::{BTreeSet, HashSet};

use crate::event::{EventName, EventTime};

/// How many names are remembered.
const BOUND: usize = 50_000;

/// The newest names seen; every name at or before the floor counts as seen.
#[derive(Debug)]
pub(super) struct Seen {
    names: BTreeSet<EventName>,
    /// An event that is put again under another time keeps its identity.
    identities: HashSet<Box<str>>,
    floor: Option<EventName>,
    floor_time: EventTime,
    bound: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            identities: HashSet::new(),
            floor: None,
            floor_time: EventTime::MIN,
            bound: BOUND,
        }
    }
}

impl Seen {
    /// Remembers a name; returns whether it is new.
    pub(super) fn add(&mut self, name: &EventName) -> bool {
        let below = name.time() < self.floor_time || self.floor.as_ref().is_some_and(|floor| name <= floor);
        if below || !self.names.insert(name.clone()) {
            return false;
        }
        let new = self.identities.insert(name.identity().into());
        if self.names.len() > self.bound
            && let Some(oldest) = self.names.pop_first()
        {
            self.identities.remove(oldest.identity());
            self.floor = Some(oldest);
        }
        new
    }

    /// Lets every name before `time` count as seen.
    pub(super) fn raise_floor(&mut self, time: EventTime) {
        self.floor_time = self.floor_time.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};
    use std::time::Duration;

    fn name(second: u64, id: &str) -> EventName {
        let time = EventTime::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(second));
        EventName::new(time, HashSlot::of(""), &Identity::named("test", id), "a")
    }

    #[test]
    fn an_event_is_new_once() {
        let mut seen = Seen::default();
        assert!(seen.add(&name(5, "a")));
        assert!(!seen.add(&name(5, "a")));
        assert!(seen.add(&name(3, "b")), "one that came in behind is new");
        assert!(!seen.add(&name(9, "a")), "one that was put again is not");
    }

    #[test]
    fn forgotten_events_are_not_new_again() {
        let mut seen = Seen { bound: 3, ..Seen::default() };
        for second in 1..=5 {
            assert!(seen.add(&name(second, &second.to_string())));
        }
        assert_eq!(seen.names.len(), 3);
        assert_eq!(seen.identities.len(), 3);
        for second in 1..=5 {
            assert!(!seen.add(&name(second, &second.to_string())));
        }
        assert!(!seen.add(&name(1, "late")), "below the floor nothing is known any more");
        assert!(seen.add(&name(6, "next")));
    }

    #[test]
    fn the_floor_may_be_a_time() {
        let mut seen = Seen::default();
        seen.raise_floor(name(4, "x").time());
        assert!(!seen.add(&name(3, "a")));
        assert!(seen.add(&name(4, "b")));
    }
}
