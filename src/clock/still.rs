//! A clock for tests.

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
