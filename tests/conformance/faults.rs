//! Real servers behind a proxy that refuses, breaks off, is late by more than a lease, and loses answers to writes that
//! were applied: what was acknowledged is run; and once, where no worker was taken for dead.
//!
//! `EVBUS_FAULT_SEEDS=10000 cargo test --release --test conformance faults` tries more schedules than the test run does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evbus::bus::Place;
use evbus::bus::emit::{Draft, Emitter};
use evbus::clock::{Clock, Fut, SystemClock};
use evbus::event::{Event, Identity, event_id};
use evbus::group::definition::{self, Definition};
use evbus::group::facts::Silent;
use evbus::group::lease::{Lease, Process};
use evbus::group::marker::Owner;
use evbus::group::retry::Retry;
use evbus::group::worker::{Mode, Settings, Stop, Summary, Worker, Workplace};
use evbus::group::{Bounds, GroupName, Position};
use evbus::handler::{Handler, Job, Outcome, Report};
use evbus::store::object::BucketStore;
use futures_util::future::join;

use crate::proxy::{self, Habits, next};
use crate::{block_on, s3};

/// So many schedules run at a time.
const AT_ONCE: usize = 100;

/// Notes what it is run for.
#[derive(Default)]
struct Notes(RefCell<BTreeMap<String, u32>>);

impl Handler for Notes {
    fn run(&self, job: Job) -> Fut<'_, Report> {
        let id = job.vars.iter().find(|(name, _)| *name == "EVBUS_ID").map(|(_, id)| id.clone()).unwrap();
        *self.0.borrow_mut().entry(id).or_default() += 1;
        let report = Report { outcome: Outcome::Exit(0), stderr_tail: String::new(), took: Duration::ZERO };
        Box::pin(std::future::ready(report))
    }
    fn stop(&self) {}
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

fn draft(seed: u64, n: usize) -> Draft {
    if n.is_multiple_of(3) {
        let event = Event::new(format!("named-{seed}-{n}"), "/faults", "t").build().unwrap();
        return Draft::named(event);
    }
    let identity = Identity::random(SystemClock.random(), SystemClock.random());
    Draft::fresh(Event::new(event_id(SystemClock.now(), &identity), "/faults", "t").build().unwrap(), identity)
}

/// Emits in batches of one to five; the ids that were acknowledged.
async fn emitted(place: &Place, seed: u64, dice: &AtomicU64) -> Vec<String> {
    let mut emitter = Emitter::new(place.clone(), Duration::from_secs(60));
    let mut acked = Vec::new();
    let mut n = 0;
    while n < 12 {
        let batch: Vec<Draft> = (0..=next(dice) % 5).map(|more| draft(seed, n + more as usize)).collect();
        n += batch.len();
        // Twice with one id is once.
        for _ in 0..2 {
            let receipts = emitter.emit(&batch).await.expect("the server answers most requests");
            assert_eq!(receipts.len(), batch.len());
            if !n.is_multiple_of(2) {
                break;
            }
        }
        acked.extend(batch.iter().map(|draft| draft.event().id().to_owned()));
    }
    acked
}

async fn drained(place: &Place, group: &GroupName, lease: Lease, notes: &Rc<Notes>) -> Summary {
    let registered = loop {
        if let Ok(Some(found)) = definition::find(&*place.store, group).await {
            break found;
        }
    };
    let me = Owner {
        worker: format!("{:016x}", place.clock.random()),
        host: "here".to_owned(),
        pid: 1,
        boot: "this".to_owned(),
        since: place.clock.now(),
        command: "notes".to_owned(),
    };
    let (_sender, stop) = tokio::sync::watch::channel(Stop::No);
    let workplace = Workplace {
        place: place.clone(),
        group: group.clone(),
        registered,
        handler: Rc::clone(notes) as Rc<dyn Handler>,
        reporter: Rc::new(Silent),
        me,
        alive: Rc::new(|_| Process::MayLive),
        stop,
        polls: None,
    };
    let settings = Settings {
        mode: Mode::Drain { wait: true, most: None, span: None },
        concurrency: 4,
        ordered: false,
        retry: Retry::default(),
        stop_timeout: Duration::from_secs(5),
        lease,
        bounds: Bounds::default(),
        poll: None,
        hints: false,
        url: "s3://evbus".to_owned(),
        max_event_bytes: 1 << 20,
    };
    Worker::new(workplace, settings).unwrap().run().await.unwrap()
}

/// A schedule: two workers of a group, and what has been acknowledged before they begin.
fn schedule(seed: u64) {
    let dice = AtomicU64::new(!seed);
    // Every third is late by more than its lease, which is short for that; one of the servers checks signatures, and
    // would not take a listing's limit from the proxy.
    let (late, shreds) = (seed.is_multiple_of(3), seed.is_multiple_of(2));
    let server = if shreds { s3::ministack() } else { s3::seaweedfs() };
    let late_by = late.then_some(Duration::from_millis(2_500));
    let proxy = proxy::start(&server.endpoint, Habits { seed, late: late_by, shreds });
    let lease = if late { Lease { length: Duration::from_secs(2) } } else { Lease::default() };
    let bucket = s3::Server::bucket_at(&proxy.endpoint, &format!("faults/{seed}"));
    let place = || Place { store: Rc::new(BucketStore::connect(&bucket).unwrap()), clock: Rc::new(SystemClock) };
    let (group, notes) = (GroupName::parse("g").unwrap(), Rc::new(Notes::default()));
    block_on(async {
        let made = Definition {
            created: SystemClock.now(),
            types: Vec::new(),
            not: Vec::new(),
            shards: 2,
            start: Position::START,
            paused: None,
        };
        while definition::create(&*place().store, &group, made.clone()).await.is_err() {}
        let acked = emitted(&place(), seed, &dice).await;
        let (one, other) = (place(), place());
        let both = join(drained(&one, &group, lease, &notes), drained(&other, &group, lease, &notes)).await;
        assert_eq!((both.0.dead, both.1.dead), (0, 0), "seed {seed}: {both:?}");
        let runs = notes.0.borrow();
        for id in &acked {
            assert!(runs.contains_key(id), "seed {seed}: {id} was acknowledged and not run: {both:?}");
        }
        let twice: Vec<&String> = runs.iter().filter(|(_, runs)| **runs > 1).map(|(id, _)| id).collect();
        assert!(late || twice.is_empty(), "seed {seed}: nobody was taken for dead, and {twice:?} ran twice");
    });
}

#[test]
fn what_is_acknowledged_through_a_faulty_network_is_run() {
    let seeds = std::env::var("EVBUS_FAULT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let from = std::env::var("EVBUS_FAULT_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let next = AtomicU64::new(from);
    // Mostly they wait: for each other's pauses, for what is late, for what is tried again.
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    schedule(seed);
                }
            });
        }
    });
}
