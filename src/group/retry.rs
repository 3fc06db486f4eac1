//! When a failed event is tried again. Pure: time and chance are handed in.

use std::time::Duration;

use crate::event::EventTime;

/// How often and how soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// After this many counted attempts an event is dead.
    pub max_attempts: u32,
    /// The pause after the first failure.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Whether pauses vary by half, so that events that failed together are not retried together.
    pub jitter: bool,
    /// Exit codes, or statuses of HTTP, that mean dead at once.
    pub dead_on: Vec<i32>,
}

impl Default for Retry {
    fn default() -> Self {
        let (min, max) = (Duration::from_secs(1), Duration::from_mins(10));
        Self { max_attempts: 15, min, max, jitter: true, dead_on: vec![65] }
    }
}

impl Retry {
    /// The default for requests over HTTP: a receiver may be away for a day.
    pub fn of_requests() -> Self {
        let (min, max) = (Duration::from_secs(5), Duration::from_hours(12));
        Self { max_attempts: 16, min, max, jitter: true, dead_on: vec![400, 413, 422] }
    }

    /// The pause after the `attempts`-th failure: doubled each time, varied by ±50 %, never above the longest.
    pub fn pause(&self, attempts: u32, random: u64) -> Duration {
        let doubled = self.min.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.max);
        if !self.jitter {
            return pause;
        }
        #[allow(clippy::cast_precision_loss, reason = "chance needs no more than 32 bits")]
        let share = (random >> 32) as f64 / f64::from(u32::MAX);
        pause.mul_f64(0.5 + share).min(self.max)
    }

    /// Whether an event with this `next` is due. If that is further off than the longest pause
    /// allows, a clock was wrong, and the event is due now.
    pub fn due(&self, next: Option<EventTime>, now: EventTime) -> bool {
        next.is_none_or(|next| next <= now || next.since(now) > self.max.mul_f64(1.5))
    }
}
