//! What a bus in a bucket asks for: each kind of request, counted in virtual time on a network that loses nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::Place;
use evbus::bus::emit::{Draft, Emitter};
use evbus::clock::Fut;
use evbus::group::polls::Polls;
use evbus::group::worker::{Mode, Settings};
use evbus::group::{GroupName, definition};
use evbus::store::memory::{Contents, MemoryStore, Network, Operation, Route};
use evbus::store::{Hints, object};

use crate::executor::{Micros, SECOND, Simulation};
use crate::group::{self, Notes};
use crate::network::SkewedClock;

const DAY: Micros = 86_400 * SECOND;

/// So many objects has a page of a real listing.
const PAGE: usize = 1_000;

/// Answers after 20 ms, and counts.
struct Counting {
    simulation: Rc<Simulation>,
    counts: RefCell<BTreeMap<Operation, u64>>,
}

impl Network for Counting {
    fn route(&self, operation: Operation, _: &str) -> Route {
        *self.counts.borrow_mut().entry(operation).or_default() += 1;
        let (arrives, answered) = (Some(Duration::from_millis(10)), Some(Duration::from_millis(20)));
        Route { arrives, answered, patience: Duration::from_secs(8), nobody_won: false }
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
    fn glances(&self) -> bool {
        true
    }
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
    fn last_write_micros(&self) -> Option<i64> {
        None
    }
}

/// A bucket, and who uses it.
struct Bucket {
    simulation: Rc<Simulation>,
    contents: Rc<Contents>,
}

/// One process's use of it.
struct User {
    network: Rc<Counting>,
    place: Place,
}

impl User {
    fn sum(&self) -> u64 {
        self.network.counts.borrow().values().sum()
    }
    fn of(&self, operation: Operation) -> u64 {
        self.network.counts.borrow().get(&operation).copied().unwrap_or(0)
    }
}

impl Bucket {
    fn new() -> Self {
        Self { simulation: Simulation::new(1), contents: Rc::default() }
    }

    fn user(&self) -> User {
        let simulation = Rc::clone(&self.simulation);
        let network = Rc::new(Counting { simulation: Rc::clone(&simulation), counts: RefCell::default() });
        let clock = SkewedClock { simulation, skew: 0, drift: 0.0, jump: (0, 0), uptime: 0 };
        let store = MemoryStore::new(Rc::clone(&self.contents), Rc::clone(&network) as _, object::PROFILE);
        User { network, place: Place { store: Rc::new(store), clock: Rc::new(clock) } }
    }

    /// Emits in bulks of `size`, by a process of its own; what it asked for.
    fn emit(&self, bulks: u64, size: usize) -> User {
        let (user, done) = (self.user(), Rc::new(Cell::new(false)));
        let (place, ended) = (user.place.clone(), Rc::clone(&done));
        self.simulation.spawn(&self.simulation.process(), async move {
            let mut emitter = Emitter::new(place.clone(), Duration::from_secs(60));
            for _ in 0..bulks {
                let drafts: Vec<Draft> = (0..size).map(|_| group::draft(&*place.clock)).collect();
                emitter.emit(&drafts).await.unwrap();
            }
            ended.set(true);
        });
        self.until(|| done.get());
        user
    }

    fn until(&self, is_so: impl Fn() -> bool) {
        let limit = self.simulation.now() + DAY;
        while !is_so() && self.simulation.now() < limit {
            self.simulation.run_until(self.simulation.now() + SECOND / 100);
            assert_eq!(self.simulation.trouble(), None);
        }
        assert!(is_so(), "a day was not enough");
    }

    fn pass(&self, time: Micros) {
        self.simulation.run_until(self.simulation.now() + time);
        assert_eq!(self.simulation.trouble(), None);
    }

    /// One process with a worker for each group; what they have run.
    fn work(&self, user: &User, groups: &[&str], mode: &Mode) -> Rc<Notes> {
        let (notes, process) = (Rc::new(Notes::default()), self.simulation.process());
        let polls = (groups.len() > 1).then(Rc::<Polls>::default);
        let settings = Settings { concurrency: 16, ..Settings::new(mode.clone()) };
        for group in groups {
            let (place, name) = (user.place.clone(), GroupName::parse(group).unwrap());
            let (notes, settings, polls) = (Rc::clone(&notes), settings.clone(), polls.clone());
            self.simulation.spawn(&process, async move {
                let made = group::of_everything(&*place.clock, 1);
                definition::create(&*place.store, &name, made).await.unwrap();
                group::work(place, name, notes, settings, polls).await;
            });
        }
        notes
    }
}

#[test]
fn an_idle_watcher_makes_at_most_3000_requests_a_day() {
    let bucket = Bucket::new();
    bucket.emit(3, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Watch);
    bucket.pass(600 * SECOND);
    assert_eq!(runs.runs(), 3);
    let before = user.sum();
    bucket.pass(DAY);
    assert!(user.sum() - before <= 3_000, "{} requests a day", user.sum() - before);
}

#[test]
fn groups_of_one_process_share_their_polls() {
    let bucket = Bucket::new();
    bucket.emit(3, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one", "two", "three"], &Mode::Watch);
    bucket.pass(600 * SECOND);
    assert_eq!(runs.runs(), 9);
    let before = user.sum();
    bucket.pass(DAY);
    assert!(user.sum() - before <= 3_000, "{} requests a day for three groups", user.sum() - before);
    // Each gets what comes.
    let lists = user.of(Operation::List);
    bucket.emit(1, 1);
    bucket.until(|| runs.runs() == 12);
    assert!(user.of(Operation::List) - lists <= 2, "{} listings", user.of(Operation::List) - lists);
}

#[test]
fn an_event_on_an_idle_bus_costs_8_requests_from_emit_to_commit() {
    let bucket = Bucket::new();
    bucket.emit(1, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Watch);
    bucket.pass(3_600 * SECOND);
    let marker = || bucket.contents.read("state/one/marker-000").unwrap();
    let before = user.sum();
    let emitted = bucket.emit(1, 1).sum();
    bucket.until(|| runs.runs() == 2);
    let id = bucket.contents.keys("events/").pop().unwrap();
    let stem = id.rsplit('/').next().unwrap().get(..40).unwrap().to_owned();
    let done = || {
        let marker: serde_json::Value = serde_json::from_slice(&marker()).unwrap();
        marker["done"].as_array().is_some_and(|done| done.iter().any(|name| name.as_str() == Some(&stem)))
    };
    bucket.until(done);
    let all = emitted + user.sum() - before;
    assert!(all <= 8, "{emitted} of {all} requests by emit, then {:?}", user.network.counts);
}

#[test]
fn a_backlog_costs_a_get_and_a_twentieth_of_a_request_for_each_event() {
    const EVENTS: u64 = 10_000;
    let bucket = Bucket::new();
    let emitted = bucket.emit(EVENTS / 100, 100);
    assert_eq!(emitted.of(Operation::Put), EVENTS);
    assert!(emitted.sum() - EVENTS <= EVENTS / 100, "{:?}", emitted.network.counts);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Drain { wait: false, most: None, span: None });
    bucket.until(|| runs.runs() == EVENTS);
    bucket.pass(60 * SECOND);
    assert_eq!(runs.runs(), EVENTS);
    let others = user.sum() - EVENTS;
    assert!(user.of(Operation::Get) >= EVENTS && others <= EVENTS / 20, "{:?}", user.network.counts);
}
