//! The order of one emitter's events of one key, while they are put in a batch.
//!
//! If two events of one key were put before one check, W could come to stand between them: an
//! ordered group would then pass the first, unseen, and run the second before the first is put
//! again. So the second event of a key becomes visible only after W was seen to be before the
//! first.

use std::cell::Cell;
use std::collections::HashSet;

use crate::bus::frontier;
use crate::clock::Fut;
use crate::event::{EventTime, HashSlot};
use crate::store::{Gate, Store, StoreResult};

/// Lets each event of a batch become visible once the one before it of its key may.
pub(super) struct BatchOrder<'a> {
    store: &'a dyn Store,
    /// The time of the batch's first event.
    first: EventTime,
    /// Whether an event before this one has its ordering key.
    follows: Vec<bool>,
    /// The hash slot of each event: events of one key share theirs.
    slots: Vec<u64>,
    late: Cell<bool>,
}

impl<'a> BatchOrder<'a> {
    /// The order of a batch whose first event has the time `first`, by the ordering keys and
    /// the hash slots of its events.
    pub fn new<'k>(
        store: &'a dyn Store,
        first: EventTime,
        events: impl Iterator<Item = (Option<&'k str>, HashSlot)>,
    ) -> Self {
        let mut seen = HashSet::new();
        let (mut follows, mut slots) = (Vec::new(), Vec::new());
        for (key, slot) in events {
            follows.push(key.is_some_and(|key| !seen.insert(key)));
            slots.push(u64::from(slot.number()));
        }
        Self { store, first, follows, slots, late: Cell::new(false) }
    }

    /// Whether the gate refused an event: the whole batch came too late.
    pub fn late(&self) -> bool {
        self.late.get()
    }
}

impl Gate for BatchOrder<'_> {
    fn opens(&self, at: usize) -> Fut<'_, StoreResult<bool>> {
        if self.late.get() {
            return Box::pin(std::future::ready(Ok(false)));
        }
        if !self.follows.get(at).copied().unwrap_or(false) {
            return Box::pin(std::future::ready(Ok(true)));
        }
        Box::pin(async move {
            let late = frontier::read(self.store).await?.time >= self.first;
            self.late.set(self.late.get() || late);
            Ok(!self.late.get())
        })
    }

    fn chain(&self, at: usize) -> Option<u64> {
        self.slots.get(at).copied()
    }
}
