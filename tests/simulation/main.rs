//! The simulation: the real emitter, worker and prune on the memory store, under a seeded
//! scheduler, seeded clocks and a seeded network, with the invariants checked after every change
//! and at the end.
//!
//! - In the test run: 5,000 seeds.
//! - On demand: `EVBUS_SIM_SEEDS=1000000 cargo test --release --test simulation seeds --
//!   --nocapture`
//! - One seed, with its trace: `EVBUS_SIM_SEED=1234 cargo test --test simulation one_seed --
//!   --nocapture`
//! - The mutants, each of which must be caught: `tests/simulation/mutants/run`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

mod actors;
mod bucket;
mod checks;
mod cost;
mod emitters;
mod executor;
#[path = "../support/group.rs"]
mod group;
mod handler;
mod network;
mod plan;
mod readers;
mod rng;
mod seed;
mod sharing;
mod verdict;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use seed::{SeedOptions, SeedOutcome, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// How to repeat a seed that failed, and the end of its trace.
fn story(seed: u64, options: SeedOptions) -> String {
    let ended = run(seed, SeedOptions { verbose: true, ..options });
    let lines = ended.log.len();
    let tail = ended.log[lines.saturating_sub(25)..].join("\n");
    let trouble = ended.trouble.unwrap_or_else(|| "it passes when repeated: not deterministic".to_owned());
    format!(
        "seed {seed}: {trouble}\n{tail}\nrepeat it: EVBUS_SIM_SEED={seed} cargo test --test simulation one_seed -- --nocapture"
    )
}

/// Runs a range of seeds on all processors; returns the first that failed, if any.
fn run_seeds(from: u64, count: u64) -> (SeedTotals, Option<u64>) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(count);
    let totals = SeedTotals::default();
    let (next, failed, over) = (AtomicU64::new(from), AtomicU64::new(u64::MAX), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let ended = run(seed, SeedOptions::default());
                    totals.add(&ended);
                    if ended.trouble.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        over.store(!KEEP_GOING.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    (totals, (failed != u64::MAX).then_some(failed))
}

static KEEP_GOING: AtomicBool = AtomicBool::new(false);

/// Totals over a range of seeds, which show that the simulation does its work.
#[derive(Default)]
struct SeedTotals {
    seeds: AtomicU64,
    failed: AtomicU64,
    acknowledged: AtomicU64,
    runs: AtomicU64,
    letters: AtomicU64,
    seconds: AtomicU64,
    polls: AtomicU64,
    takeovers: AtomicU64,
}

impl SeedTotals {
    fn add(&self, ended: &SeedOutcome) {
        let add = |to: &AtomicU64, what: u64| to.fetch_add(what, Ordering::Relaxed);
        add(&self.seeds, 1);
        add(&self.failed, u64::from(ended.trouble.is_some()));
        add(&self.acknowledged, ended.acknowledged);
        add(&self.runs, ended.runs);
        add(&self.letters, ended.letters);
        add(&self.seconds, ended.seconds);
        add(&self.polls, ended.polls);
        add(&self.takeovers, ended.takeovers);
        if ended.trouble.is_some() && KEEP_GOING.load(Ordering::Relaxed) {
            println!("{}: {}", ended.seed, ended.trouble.as_deref().unwrap_or_default());
        }
    }

    fn summary(&self) -> String {
        let of = |what: &AtomicU64| what.load(Ordering::Relaxed);
        format!(
            "{} seeds ({} failed): {} events acknowledged, {} runs, {} dead letters, {} owners, {} virtual seconds, {} polls",
            of(&self.seeds),
            of(&self.failed),
            of(&self.acknowledged),
            of(&self.runs),
            of(&self.letters),
            of(&self.takeovers),
            of(&self.seconds),
            of(&self.polls)
        )
    }
}

#[test]
fn seeds() {
    let count = number("EVBUS_SIM_SEEDS").unwrap_or(5_000);
    let from = number("EVBUS_SIM_FROM").unwrap_or(0);
    KEEP_GOING.store(std::env::var_os("EVBUS_SIM_ALL").is_some(), Ordering::Relaxed);
    let (totals, failed) = run_seeds(from, count);
    println!("{}", totals.summary());
    if let Some(seed) = failed {
        panic!("{}", story(seed, SeedOptions::default()));
    }
    assert!(totals.acknowledged.into_inner() > count, "too little happens");
}

#[test]
fn one_seed() {
    let seed = number("EVBUS_SIM_SEED").unwrap_or(1);
    let ended = run(seed, SeedOptions { verbose: true, ..SeedOptions::default() });
    for line in ended.log.iter().filter(|_| number("EVBUS_SIM_SEED").is_some()) {
        println!("{line}");
    }
    if let Some(trouble) = ended.trouble {
        panic!("seed {seed}: {trouble}");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 0..20 {
        let verbose = SeedOptions { verbose: true, ..SeedOptions::default() };
        let (one, other) = (run(seed, SeedOptions::default()), run(seed, verbose));
        assert_eq!((one.trace, one.polls), (other.trace, other.polls), "seed {seed}");
    }
}

#[test]
fn without_hints_the_end_is_the_same() {
    let mut events = 0;
    for seed in 0..100 {
        let [without, with] = [false, true].map(|hints| {
            let ended = run(seed, SeedOptions { hints: Some(hints), calm: true, ..SeedOptions::default() });
            assert_eq!(ended.trouble, None, "seed {seed}, hints {hints}");
            ended.ends
        });
        assert_eq!(without, with, "seed {seed}");
        events += with.len();
    }
    assert!(events > 1_000, "too little happens: {events}");
}
