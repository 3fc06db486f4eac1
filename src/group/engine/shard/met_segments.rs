//! The segments that an ordered group has met.
//!
//! A segment that came too late for its group has lost its first events to `through`: its emitter
//! has not been acknowledged, and moves it. To start the rest of it would be to start later events of
//! a key before earlier ones; so the rest waits, and is gone by then.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::EventTime;
use crate::group::{Listing, Position};

/// How an ordered group takes in a listing.
#[derive(Debug, Clone, Copy)]
pub struct Confirmation {
    /// The time, on the monotonic clock.
    pub now: Duration,
    /// For how long the rest of a segment waits of which a part was passed before it was seen.
    pub hold: Duration,
}

/// When each segment was met, if a part of it had been passed by then.
#[derive(Debug, Default)]
pub(super) struct MetSegments(HashMap<Box<str>, Met>);

#[derive(Debug)]
struct Met {
    first: EventTime,
    last: EventTime,
    /// None: it was seen before any part of it was passed.
    partly_at: Option<Duration>,
}

impl MetSegments {
    /// Notes what a listing shows, and returns from when to when no event may start.
    pub fn held(
        &mut self,
        listing: &Listing,
        through: &Position,
        confirm: Confirmation,
    ) -> Vec<(EventTime, EventTime)> {
        for segment in &listing.segments {
            let partly = segment.first <= through.time();
            self.0.entry(segment.key.clone()).or_insert(Met {
                first: segment.first,
                last: segment.last,
                partly_at: partly.then_some(confirm.now),
            });
        }
        self.0.retain(|_, met| met.last >= through.time());
        let held = |met: &&Met| met.partly_at.is_some_and(|at| confirm.now < at + confirm.hold);
        self.0.values().filter(held).map(|met| (met.first, met.last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::look::SegmentSpan;

    fn at(micros: i64) -> EventTime {
        EventTime::from_micros(micros)
    }

    fn listing(segments: &[(&str, i64, i64)]) -> Listing {
        let span = |(key, first, last): &(&str, i64, i64)| SegmentSpan {
            key: (*key).into(),
            first: at(*first),
            last: at(*last),
        };
        let mut listing = Listing::new(EventTime::MIN, [], None);
        listing.segments.extend(segments.iter().map(span));
        listing
    }

    #[test]
    fn only_a_segment_that_was_partly_passed_before_it_was_seen_waits_and_not_for_ever() {
        let mut met = MetSegments::default();
        let held = |met: &mut MetSegments, segments: &[(&str, i64, i64)], through, second| {
            let confirm = Confirmation { now: Duration::from_secs(second), hold: Duration::from_secs(4) };
            met.held(&listing(segments), &Position::Time(at(through)), confirm)
        };
        let (whole, partly) = (("a", 11, 14), ("b", 9, 15));
        assert_eq!(held(&mut met, &[whole, partly], 10, 1), [(at(9), at(15))]);
        // `through` passes a part of the one that was seen whole.
        assert_eq!(held(&mut met, &[whole, partly], 12, 4), [(at(9), at(15))]);
        assert_eq!(held(&mut met, &[whole, partly], 12, 5), []);
        // What was passed is forgotten.
        assert_eq!(held(&mut met, &[], 16, 6), []);
        assert!(met.0.is_empty());
    }
}
