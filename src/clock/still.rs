//! Clocks for tests.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Clock, Fut};
use crate::event::EventTime;

/// A clock that stands still until it is moved.
#[derive(Default)]
pub(crate) struct Still {
    elapsed: Cell<Duration>,
    moved: Notify,
}

impl Still {
    pub fn move_to(&self, to: Duration) {
        self.elapsed.set(to);
        self.moved.notify_waiters();
    }
}

impl Clock for Still {
    fn now(&self) -> EventTime {
        EventTime::MIN
    }
    fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }
    fn sleep_until(&self, until: Duration) -> Fut<'_, ()> {
        Box::pin(async move {
            while self.elapsed.get() < until {
                self.moved.notified().await;
            }
        })
    }
    fn random(&self) -> u64 {
        0
    }
}

/// Shows the time that it is set to, sleeps for no time, and counts where it should be random.
pub(crate) struct SetClock {
    now: Cell<EventTime>,
    /// What it answers next where it should be random.
    pub next_random: Cell<u64>,
}

impl SetClock {
    pub fn at(now: EventTime) -> Self {
        Self { now: Cell::new(now), next_random: Cell::new(7) }
    }

    pub fn set(&self, now: EventTime) {
        self.now.set(now);
    }
}

impl Clock for SetClock {
    fn now(&self) -> EventTime {
        self.now.get()
    }
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep_until(&self, _: Duration) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    fn random(&self) -> u64 {
        self.next_random.replace(self.next_random.get() + 1)
    }
}
