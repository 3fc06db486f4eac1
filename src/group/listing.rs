//! What a listing says about a shard, and how far it lets `through` move. Pure.

use std::collections::VecDeque;

use super::Position;
use super::marker::Marker;
use crate::bus::look::SegmentSpan;
use crate::event::{EventName, EventTime};

/// A listing of a shard's wanted names behind `through`, begun after W was read and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// W, as read before the listing.
    pub w: EventTime,
    /// The wanted names, ascending; those that `through` has passed are dropped from the front.
    pub names: VecDeque<EventName>,
    /// Where the listing stopped: behind this nothing is known. None if it is whole.
    pub end: Option<Position>,
    /// The first time of a segment that cannot be read now.
    pub barrier: Option<EventTime>,
    /// The segments that were read.
    pub segments: Vec<SegmentSpan>,
    /// The last name passed, while the next has the same time.
    last_passed: Option<EventName>,
}

impl Listing {
    /// The result of a listing that is whole, or known up to `end`.
    pub fn new(w: EventTime, names: impl IntoIterator<Item = EventName>, end: Option<Position>) -> Self {
        let names = names.into_iter().collect();
        Self { w, names, end, barrier: None, segments: Vec::new(), last_passed: None }
    }

    /// Whether something may lie behind what is known.
    pub fn is_truncated(&self) -> bool {
        self.end.is_some()
    }

    /// Whether a segment that cannot be read now lies before the listing's end.
    pub fn has_barrier(&self) -> bool {
        self.barrier.is_some_and(|barrier| self.end.as_ref().is_none_or(|end| barrier <= end.time()))
    }

    /// How far `through` may move at most: to W, to the end of what is known, and to no segment that
    /// cannot be read.
    fn top(&self) -> Position {
        let barrier = self.barrier.map(|first| EventTime::from_micros(first.as_micros().saturating_sub(1)));
        let time = Position::Time(barrier.map_or(self.w, |before| before.min(self.w)));
        self.end.clone().map_or(time.clone(), |end| end.min(time))
    }

    /// Where `through` may move to: before the first listed name that is neither done, nor pending,
    /// nor `running`; never past W, the end of what is known, or a segment that cannot be read.
    pub fn reach(&mut self, marker: &Marker, running: impl Fn(&EventName) -> bool) -> Option<Position> {
        let settled =
            |name: &EventName| !marker.is_unprocessed(name) || marker.pending.contains_key(name) || running(name);
        let top = self.top();
        while let Some(name) = self.names.front().filter(|name| top.covers(name) && settled(name)) {
            self.last_passed = Some(name.clone());
            self.names.pop_front();
        }
        let reach = match self.names.front() {
            Some(next) if top.covers(next) => self.before(next),
            Some(_) | None => top,
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
