//! The network between a process and the store, and the process's clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use evbus::clock::{Clock, Fut};
use evbus::event::EventTime;
use evbus::store::Hints;
use evbus::store::memory::{Network, Operation, Route};

use crate::executor::{Micros, SECOND, SimProcess, Simulation};
use crate::rng::{self, Rng};
use crate::world::World;

/// The virtual start, in microseconds since the Unix epoch: 2026-11-23T02:15:30Z.
pub const BEGIN: i64 = 1_795_400_130_000_000;

/// One process's clock.
pub struct SkewedClock {
    pub simulation: Rc<Simulation>,
    /// How wrong its wall clock is, in microseconds.
    pub skew: i64,
    /// How much faster its wall clock runs than time.
    pub drift: f64,
    /// The step of its wall clock, in microseconds; 1, or one that is shown with a jitter.
    pub step: i64,
    /// When its wall clock jumps, and how far.
    pub jump: (Micros, i64),
    /// Its elapsed time when the simulation began.
    pub uptime: Micros,
}

impl Clock for SkewedClock {
    fn now(&self) -> EventTime {
        let now = self.simulation.now();
        let jumped = if now >= self.jump.0 { self.jump.1 } else { 0 };
        let drifted = (now as f64 * self.drift) as i64;
        let time = BEGIN + now as i64 + drifted + self.skew + jumped;
        // Not quite whole seconds: times then lie as close together as those of one segment.
        let jitter = if self.step > 1 { self.simulation.rng.below(8) as i64 } else { 0 };
        EventTime::from_micros(time - time.rem_euclid(self.step) + jitter)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.uptime + self.simulation.now())
    }

    fn sleep_until(&self, until: Duration) -> Fut<'_, ()> {
        let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        Box::pin(self.simulation.sleep_until(until.saturating_sub(self.uptime)))
    }

    fn random(&self) -> u64 {
        self.simulation.rng.next()
    }
}

/// The role of a process: only prune deletes what a group may still need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    Emitter,
    /// An emitter without flushes (`--durability none`), to which nothing is promised.
    NotDurable,
    Worker,
    Pruner,
    Operator,
    /// A server of the feed.
    Feed,
}

/// One process's connection to the store.
pub struct StoreConnection {
    pub world: Rc<World>,
    pub process: Rc<SimProcess>,
    pub role: ProcessRole,
    /// When it last listed the groups.
    pub groups_read: Cell<Micros>,
    /// The losses of writes that it knows of.
    pub known_rewinds: Cell<u64>,
}

impl StoreConnection {
    /// Whether it has yet to learn that the latest writes were lost.
    pub fn is_behind(&self) -> bool {
        self.known_rewinds.get() < self.world.contents.rewinds()
    }

    fn slow(&self, operation: Operation, key: &str) -> Micros {
        let rng = &self.world.simulation.rng;
        let slow = operation == Operation::Put && key.starts_with("events/") && rng.chance(self.world.plan.slow_puts);
        // A cancel's removal of its entry: meanwhile the entry may be due.
        let removal =
            operation == Operation::Delete && key.starts_with("timed/") && rng.chance(4.0 * self.world.plan.slow_puts);
        match (slow, removal) {
            (true, _) => rng.one(&[1, 5, 40, 150, 400]) * SECOND,
            (_, true) => rng.one(&[1, 3, 5]) * SECOND,
            _ => 0,
        }
    }
}

impl Network for StoreConnection {
    fn route(&self, operation: Operation, key: &str) -> Route {
        let (world, rng) = (&self.world, &self.world.simulation.rng);
        world.sent(self, operation, key);
        let timeout = Duration::from_secs(8);
        let mut there = rng.around(world.plan.latency) as Micros + 1;
        let mut back = rng.around(world.plan.latency) as Micros + 1;
        if !world.faults() {
            let answered = there.min(2 * SECOND) + back.min(2 * SECOND);
            let (arrives, answered) = (Duration::from_micros(there.min(2 * SECOND)), Duration::from_micros(answered));
            return Route { arrives: Some(arrives), answered: Some(answered), timeout, spurious_conflict: false };
        }
        if matches!(operation, Operation::Put | Operation::Cas) && rng.chance(world.plan.spurious_conflicts) {
            let (arrives, answered) = (Duration::from_millis(40), Duration::from_millis(50));
            return Route { arrives: Some(arrives), answered: Some(answered), timeout, spurious_conflict: true };
        }
        there += self.slow(operation, key);
        if operation == Operation::List && rng.chance(world.plan.late_lists) {
            back += rng.one(&[1, 3, 6]) * SECOND;
        }
        let lost = rng.chance(world.plan.lost);
        let arrives = match lost {
            true if rng.chance(0.4) => None,
            true => Some(there + rng.one(&[0, 0, 30, 200]) * SECOND),
            false => Some(there),
        };
        let answered = Some(there + back).filter(|answered| !lost && *answered < 8 * SECOND);
        if operation == Operation::Put && arrives.is_some_and(|arrives| arrives >= 8 * SECOND) {
            world.overdue.borrow_mut().insert(key.to_owned());
        }
        Route {
            arrives: arrives.map(Duration::from_micros),
            answered: answered.map(Duration::from_micros),
            timeout,
            spurious_conflict: false,
        }
    }

    fn later(&self, after: Duration, action: Box<dyn FnOnce()>) {
        self.world.simulation.later(u64::try_from(after.as_micros()).unwrap(), action);
    }

    fn pause(&self, time: Duration) -> Fut<'static, ()> {
        Box::pin(self.world.simulation.sleep(u64::try_from(time.as_micros()).unwrap()))
    }

    fn page_len(&self) -> usize {
        self.world.plan.page_len
    }

    fn lists_with_tail(&self) -> bool {
        self.world.plan.lists_with_tail
    }

    fn flushes(&self) -> bool {
        self.world.plan.power > 0.0
    }

    fn is_unreadable(&self, key: &str) -> bool {
        let plan = &self.world.plan;
        let of_key = Rng::new(rng::hash(key) ^ rng::mix(self.world.seed));
        let (unreadable, time) = (of_key.chance(plan.unreadable), of_key.between(5.0, 120.0));
        // From when it was put on, as everybody sees it.
        unreadable
            && key.ends_with(".ndjson")
            && self.world.faults()
            && self
                .world
                .put_at
                .borrow()
                .get(key)
                .is_none_or(|at| self.world.simulation.now() < at + (time * 1e6) as Micros)
    }

    fn saw_rewinds(&self, rewinds: u64) {
        self.known_rewinds.set(rewinds);
    }

    fn is_not_durable(&self) -> bool {
        self.role == ProcessRole::NotDurable
    }

    fn hints(&self) -> Option<Box<dyn Hints>> {
        if !self.world.plan.hints {
            return None;
        }
        let notifier = Rc::new(Notifier::default());
        self.world.notifiers.borrow_mut().push((Rc::clone(&self.process), Rc::clone(&notifier)));
        Some(Box::new(NotifierHints(notifier)))
    }

    fn last_write_micros(&self) -> Option<i64> {
        Some(BEGIN + self.world.simulation.now() as i64)
    }
}

/// Notifies when something may have changed.
#[derive(Default)]
pub struct Notifier {
    notified: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notifier {
    pub fn notify(&self) {
        self.notified.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

struct NotifierHints(Rc<Notifier>);

impl Hints for NotifierHints {
    fn next(&mut self) -> Fut<'_, ()> {
        Box::pin(std::future::poll_fn(|context| {
            if self.0.notified.replace(false) {
                return Poll::Ready(());
            }
            *self.0.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        }))
    }
}
