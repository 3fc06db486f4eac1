//! A bucket in virtual time, on a network without loss that counts requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::BusHandle;
use evbus::bus::emit::{Draft, Emitter};
use evbus::clock::Fut;
use evbus::group::polls::Polls;
use evbus::group::worker::{Mode, WorkerSettings};
use evbus::group::{Definition, GroupName, definition};
use evbus::store::memory::{Contents, MemoryStore, Network, Operation, Route};
use evbus::store::{Hints, object};

use crate::executor::{Micros, SECOND, Simulation};
use crate::group::{self, RunCounter};
use crate::network::SkewedClock;

pub const DAY: Micros = 86_400 * SECOND;

/// The objects in a page of a real listing.
const PAGE: usize = 1_000;

/// Answers after 20 ms, and counts.
pub struct Counting {
    simulation: Rc<Simulation>,
    pub counts: RefCell<BTreeMap<Operation, u64>>,
}

impl Network for Counting {
    fn route(&self, operation: Operation, _: &str) -> Route {
        *self.counts.borrow_mut().entry(operation).or_default() += 1;
        let (arrives, answered) = (Some(Duration::from_millis(10)), Some(Duration::from_millis(20)));
        Route { arrives, answered, timeout: Duration::from_secs(8), spurious_conflict: false }
    }
    fn later(&self, after: Duration, action: Box<dyn FnOnce()>) {
        self.simulation.later(after.as_micros() as Micros, action);
    }
    fn pause(&self, time: Duration) -> Fut<'static, ()> {
        Box::pin(self.simulation.sleep(time.as_micros() as Micros))
    }
    fn page_len(&self) -> usize {
        PAGE
    }
    fn lists_with_tail(&self) -> bool {
        true
    }
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
    fn last_write_micros(&self) -> Option<i64> {
        None
    }
}

/// A bucket and its users.
pub struct SimBucket {
    pub simulation: Rc<Simulation>,
    pub contents: Rc<Contents>,
}

/// One process's use of the bucket.
pub struct User {
    pub network: Rc<Counting>,
    pub bus: BusHandle,
}

impl User {
    pub fn sum(&self) -> u64 {
        self.network.counts.borrow().values().sum()
    }
    pub fn of(&self, operation: Operation) -> u64 {
        self.network.counts.borrow().get(&operation).copied().unwrap_or(0)
    }
}

impl SimBucket {
    pub fn new(seed: u64) -> Self {
        Self { simulation: Simulation::new(seed), contents: Rc::default() }
    }

    pub fn user(&self) -> User {
        let simulation = Rc::clone(&self.simulation);
        let network = Rc::new(Counting { simulation: Rc::clone(&simulation), counts: RefCell::default() });
        let clock = SkewedClock { simulation, skew: 0, drift: 0.0, step: 1, jump: (0, 0), uptime: 0 };
        let store = MemoryStore::new(Rc::clone(&self.contents), Rc::clone(&network) as _, object::PROFILE);
        User { network, bus: BusHandle::new(Rc::new(store), Rc::new(clock)) }
    }

    /// Emits in bulks of `size` by a new process; returns its requests.
    pub fn emit(&self, bulks: u64, size: usize) -> User {
        let (user, done) = (self.user(), Rc::new(Cell::new(false)));
        let (bus, ended) = (user.bus.clone(), Rc::clone(&done));
        self.simulation.spawn(&self.simulation.process(), async move {
            let mut emitter = Emitter::new(bus.clone(), Duration::from_secs(60));
            for _ in 0..bulks {
                let drafts: Vec<Draft> = (0..size).map(|_| group::draft(&*bus.clock)).collect();
                emitter.emit(&drafts).await.unwrap();
            }
            ended.set(true);
        });
        self.until(|| done.get());
        user
    }

    /// Emits segments of `size` events, one at a time, by a new process; returns its requests.
    pub fn emit_segments(&self, segments: u64, size: usize) -> User {
        let (user, done) = (self.user(), Rc::new(Cell::new(false)));
        let (bus, ended) = (user.bus.clone(), Rc::clone(&done));
        self.simulation.spawn(&self.simulation.process(), async move {
            let mut emitter = Emitter::new(bus.clone(), Duration::from_secs(60));
            for _ in 0..segments {
                emitter.emit_segments(&[group::segment(&*bus.clock, size)]).await.unwrap();
            }
            ended.set(true);
        });
        self.until(|| done.get());
        user
    }

    pub fn until(&self, is_so: impl Fn() -> bool) {
        let limit = self.simulation.now() + DAY;
        while !is_so() && self.simulation.now() < limit {
            self.simulation.run_until(self.simulation.now() + SECOND / 100);
            assert_eq!(self.simulation.trouble(), None);
        }
        assert!(is_so(), "a day was not enough");
    }

    pub fn pass(&self, time: Micros) {
        self.simulation.run_until(self.simulation.now() + time);
        assert_eq!(self.simulation.trouble(), None);
    }

    /// One process with a worker for each group, all of which want everything; returns their runs.
    pub fn work(&self, user: &User, groups: &[&str], mode: &Mode) -> Rc<RunCounter> {
        self.work_wanting(user, groups, mode, |_| {})
    }

    /// The same, for groups with the filter that `narrow` makes.
    pub fn work_wanting(
        &self,
        user: &User,
        groups: &[&str],
        mode: &Mode,
        narrow: impl Fn(&mut Definition) + Copy + 'static,
    ) -> Rc<RunCounter> {
        let (notes, process) = (Rc::new(RunCounter::default()), self.simulation.process());
        let polls = (groups.len() > 1).then(Rc::<Polls>::default);
        let settings = WorkerSettings { concurrency: 16, ..WorkerSettings::new(mode.clone()) };
        for group in groups {
            let (bus, name) = (user.bus.clone(), GroupName::parse(group).unwrap());
            let (notes, settings, polls) = (Rc::clone(&notes), settings.clone(), polls.clone());
            self.simulation.spawn(&process, async move {
                let mut made = group::of_everything(&*bus.clock, 1);
                narrow(&mut made);
                definition::create(&*bus.store, &name, made).await.unwrap();
                group::work(bus, name, notes, settings, polls).await;
            });
        }
        notes
    }
}
