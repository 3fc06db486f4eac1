//! The events of a shard that run, with what is asked of all of them for every start.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use crate::event::{EventName, Identity};

/// A handler that runs, or is about to.
pub(in crate::group::engine) struct RunningEvent {
    pub attempt: u32,
    /// It runs with no other handler beside it.
    pub alone: bool,
    /// Whether its handler was started: a run that is alone waits for its commit first.
    pub launched: bool,
}

/// The events that run, by name.
#[derive(Default)]
pub(in crate::group::engine) struct Running {
    events: BTreeMap<EventName, RunningEvent>,
    /// How many names of each identity run.
    copies: HashMap<Identity, usize>,
    alone: usize,
}

impl Running {
    pub fn insert(&mut self, name: EventName, event: RunningEvent) {
        let (copies, alone) = (copy_key(&name), event.alone);
        if self.events.insert(name, event).is_none() {
            *self.copies.entry(copies).or_default() += 1;
            self.alone += usize::from(alone);
        }
    }

    /// Whether it ran.
    pub fn remove(&mut self, name: &EventName) -> bool {
        let Some(event) = self.events.remove(name) else { return false };
        self.alone -= usize::from(event.alone);
        if let Entry::Occupied(mut copies) = self.copies.entry(copy_key(name)) {
            *copies.get_mut() -= 1;
            if *copies.get() == 0 {
                copies.remove();
            }
        }
        true
    }

    /// The attempt of an event whose handler was not started yet; it is, from now on.
    pub fn launch(&mut self, name: &EventName) -> Option<u32> {
        let event = self.events.get_mut(name).filter(|event| !event.launched)?;
        event.launched = true;
        Some(event.attempt)
    }

    pub fn contains(&self, name: &EventName) -> bool {
        self.events.contains_key(name)
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Ascending.
    pub fn names(&self) -> impl Iterator<Item = &EventName> {
        self.events.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&EventName, &RunningEvent)> {
        self.events.iter()
    }

    /// Whether an event runs that must run alone.
    pub fn has_alone(&self) -> bool {
        self.alone > 0
    }

    /// Whether another copy of the same event runs.
    pub fn has_copy(&self, name: &EventName) -> bool {
        let copies = self.copies.get(&copy_key(name)).copied().unwrap_or(0);
        copies > 1 || (copies == 1 && !self.contains(name))
    }
}

fn copy_key(name: &EventName) -> Identity {
    Identity::parse(name.identity()).unwrap_or_else(|| Identity::random(0, 0))
}
