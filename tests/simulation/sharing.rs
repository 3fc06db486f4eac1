//! New workers of a group share its shards evenly, and soon.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::keys;
use evbus::clock::{Clock, Fut};
use evbus::group::lease::Lease;
use evbus::group::worker::{Mode, WorkerSettings};
use evbus::group::{GroupName, Marker, definition};
use evbus::handler::{Handler, Job, Outcome, RunReport};

use crate::bucket::SimBucket;
use crate::executor::{Micros, SECOND};
use crate::group;

const SHARDS: u16 = 8;

/// A handler that takes a fifth of a second.
struct Slow(Rc<dyn Clock>);

impl Handler for Slow {
    fn run(&self, _: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            self.0.sleep_until(self.0.elapsed() + Duration::from_millis(200)).await;
            RunReport::new(Outcome::Exit(0), String::new(), Duration::from_millis(200))
        })
    }
    fn terminate(&self) {}
    fn check(&self) -> Result<(), evbus::handler::Obstacle> {
        Ok(())
    }
}

fn worker(bucket: &SimBucket) {
    let bus = bucket.user().bus;
    let settings = WorkerSettings { concurrency: 2, ..WorkerSettings::new(Mode::Watch) };
    bucket.simulation.spawn(&bucket.simulation.process(), async move {
        let name = GroupName::parse("g").unwrap();
        let handler = Rc::new(Slow(Rc::clone(&bus.clock)));
        definition::create(&*bus.store, &name, group::of_everything(&*bus.clock, SHARDS)).await.ok();
        group::work(bus, name, handler, settings, None).await;
    });
}

/// How many shards each worker owns, the fewest first.
fn owned(bucket: &SimBucket) -> Vec<usize> {
    let name = GroupName::parse("g").unwrap();
    let mut counts = BTreeMap::new();
    for shard in 0..SHARDS {
        let bytes = bucket.contents.read(&keys::marker(&name, shard));
        let marker: Option<Marker> = bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap());
        if let Some(owner) = marker.and_then(|marker| marker.owner) {
            *counts.entry(owner.worker).or_insert(0) += 1;
        }
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn shards_are_spread_evenly_within_three_leases_and_stay_so() {
    let lease = Lease::default().length.as_micros() as Micros;
    for workers in 2..=5 {
        for seed in 0..4 {
            let bucket = SimBucket::new(seed);
            bucket.emit(20, 500);
            worker(&bucket);
            bucket.pass(10 * SECOND);
            assert_eq!(owned(&bucket), [usize::from(SHARDS)]);
            for _ in 1..workers {
                worker(&bucket);
                // Some workers come at once, some one after the other.
                bucket.pass(seed as Micros % 4 * SECOND);
            }
            bucket.pass(3 * lease);
            let (each, more) = (usize::from(SHARDS) / workers, usize::from(SHARDS) % workers);
            let even: Vec<usize> = (0..workers).map(|at| each + usize::from(at >= workers - more)).collect();
            for second in 0..40 {
                assert_eq!(owned(&bucket), even, "{workers} workers, seed {seed}, {second} s later");
                bucket.pass(SECOND);
            }
        }
    }
}
