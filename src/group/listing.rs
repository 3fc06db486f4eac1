//! What a listing says about a shard, and how far it lets `through` move. Pure.

use std::collections::VecDeque;

use super::Position;
use super::marker::Marker;
use crate::event::{EventName, EventTime};

/// A listing of a shard's wanted names behind `through`, begun after W was read and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// W, as read before the listing.
    pub w: EventTime,
    /// The wanted names, ascending; those that `through` has passed are dropped from the front.
    pub names: VecDeque<EventName>,
    /// Whether the listing stopped at its bound: behind its last name nothing is known.
    pub is_truncated: bool,
    /// The last name passed, while the next has the same time.
    last_passed: Option<EventName>,
}

impl Listing {
    /// A listing's result.
    pub fn new(w: EventTime, names: impl IntoIterator<Item = EventName>, is_truncated: bool) -> Self {
        Self { w, names: names.into_iter().collect(), is_truncated, last_passed: None }
    }

    /// Where `through` may move to: before the first listed name that is neither done, nor pending,
    /// nor `running`; never past W; never past the last name of a truncated listing.
    pub fn reach(&mut self, marker: &Marker, running: impl Fn(&EventName) -> bool) -> Option<Position> {
        let settled =
            |name: &EventName| !marker.is_unprocessed(name) || marker.pending.contains_key(name) || running(name);
        while let Some(name) = self.names.front().filter(|name| name.time() <= self.w && settled(name)) {
            self.last_passed = Some(name.clone());
            self.names.pop_front();
        }
        let reach = match self.names.front() {
            Some(next) if next.time() <= self.w => self.before(next),
            None if self.is_truncated => Position::Name(self.last_passed.clone()?),
            Some(_) | None => Position::Time(self.w),
        };
        (reach > marker.through).then_some(reach)
    }

    /// The position just before `next`: every listed name before it was passed, and the listing was
    /// whole up to it.
    fn before(&self, next: &EventName) -> Position {
        match &self.last_passed {
            Some(passed) if passed.time() == next.time() => Position::Name(passed.clone()),
            _ => Position::Time(EventTime::from_micros(next.time().as_micros().saturating_sub(1))),
        }
    }
}
