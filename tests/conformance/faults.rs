//! Real servers behind a proxy that refuses, breaks off, delays by more than a lease, and loses
//! answers to writes that were applied. Acknowledged events are run; and once, if no worker was
//! taken for dead.
//!
//! `EVBUS_FAULT_SEEDS=10000 cargo test --release --test conformance faults` tries more schedules
//! than the test run does.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evbus::bus::BusHandle;
use evbus::bus::emit::{Draft, Emitter};
use evbus::clock::SystemClock;
use evbus::event::Event;
use evbus::group::lease::Lease;
use evbus::group::worker::{Mode, WorkerSettings};
use evbus::group::{GroupName, definition};
use evbus::store::ErrorKind;
use evbus::store::object::BucketStore;
use futures_util::future::join;

use crate::proxy::{self, ProxyOptions, next};
use crate::{block_on, group, s3};

/// How many schedules run at a time.
const AT_ONCE: usize = 40;

fn draft(seed: u64, n: usize) -> Draft {
    if n.is_multiple_of(3) {
        let event = Event::new(format!("named-{seed}-{n}"), "/faults", "t").build().unwrap();
        return Draft::named(event);
    }
    group::draft(&SystemClock)
}

/// Emits in batches of one to five; returns the acknowledged ids.
async fn emitted(bus: &BusHandle, seed: u64, rng: &AtomicU64) -> Vec<String> {
    let mut emitter = Emitter::new(bus.clone(), Duration::from_secs(60));
    let mut acked = Vec::new();
    let mut n = 0;
    while n < 12 {
        let batch: Vec<Draft> = (0..=next(rng) % 5).map(|more| draft(seed, n + more as usize)).collect();
        n += batch.len();
        // A repeat with the same id adds nothing.
        for _ in 0..2 {
            let acks = emitter.emit(&batch).await.expect("the server answers most requests");
            assert_eq!(acks.len(), batch.len());
            if !n.is_multiple_of(2) {
                break;
            }
        }
        acked.extend(batch.iter().map(|draft| draft.event().id().to_owned()));
    }
    acked
}

/// A schedule: two workers of a group, and the events acknowledged before they begin.
fn schedule(seed: u64) {
    let rng = AtomicU64::new(!seed);
    // Every third schedule delays by more than its lease, which is short for that. One of the
    // servers checks signatures, and would refuse a listing limit set by the proxy.
    let (late, splits_listings) = (seed.is_multiple_of(3), seed.is_multiple_of(2));
    let server = if splits_listings { s3::ministack() } else { s3::seaweedfs() };
    let late_by = late.then_some(Duration::from_millis(2_500));
    let proxy = proxy::start(&server.endpoint, ProxyOptions { faulty: true, seed, late: late_by, splits_listings });
    let lease = if late { Lease { length: Duration::from_secs(2) } } else { Lease::default() };
    let bucket = s3::S3Server::bucket_at(&proxy.endpoint, &format!("faults/{seed}"));
    let bus = || BusHandle::new(Rc::new(BucketStore::connect(&bucket).unwrap()), Rc::new(SystemClock));
    let (name, notes) = (GroupName::parse("g").unwrap(), Rc::new(group::RunCounter::default()));
    block_on(async {
        let made = group::of_everything(&SystemClock, 2);
        while definition::create(&*bus().store, &name, made.clone()).await.is_err() {}
        let acked = emitted(&bus(), seed, &rng).await;
        let mode = Mode::Drain { wait: true, most: None, span: None };
        let settings = WorkerSettings { concurrency: 4, lease, ..WorkerSettings::new(mode) };
        let gave_up = Cell::new(false);
        // A drain without answers for a whole lease gives up, and is started again, as cron would.
        let drain = || async {
            loop {
                let drain = group::attempt(bus(), name.clone(), Rc::clone(&notes) as _, settings.clone(), None);
                match drain.await {
                    Ok(summary) => break summary,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}"),
                }
                gave_up.set(true);
            }
        };
        let both = join(drain(), drain()).await;
        assert_eq!((both.0.dead, both.1.dead), (0, 0), "seed {seed}: {both:?}");
        for id in &acked {
            assert!(notes.runs_of(id) > 0, "seed {seed}: {id} was acknowledged and not run: {both:?}");
        }
        let twice = notes.repeated();
        assert!(
            late || gave_up.get() || twice.is_empty(),
            "seed {seed}: no worker was taken for dead, and {twice:?} ran twice"
        );
    });
}

#[test]
fn events_acknowledged_over_a_faulty_network_are_run() {
    let seeds = std::env::var("EVBUS_FAULT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let from = std::env::var("EVBUS_FAULT_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let next = AtomicU64::new(from);
    // Mostly they wait: for pauses, delays and retries.
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
