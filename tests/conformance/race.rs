//! Two processes with sixteen threads each race: there is exactly one winner.
//!
//! The second process is this test binary again, running the same test with `EVBUS_RACE` set to the
//! shared folder. A socket there keeps the two in step, so that every round is a race.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Barrier, Mutex};

use evbus::clock::SystemClock;
use evbus::store::dir::{DirOptions, DirStore, Durability};
use evbus::store::{ErrorKind, Put, Store, Swap, Version};
use tempfile::TempDir;

use crate::block_on;

const ROUNDS: usize = 10_000;
const THREADS: usize = 16;
const TOGETHER: &str = "EVBUS_RACE";

/// One of the two processes of a race.
struct RaceSide {
    folder: PathBuf,
    other: Mutex<UnixStream>,
    barrier: Barrier,
    /// In the first process: its folder and its child.
    first: Option<(TempDir, Child)>,
}

impl RaceSide {
    /// Starts the second process, or joins as the second process.
    fn of(test: &str) -> Self {
        let (folder, first) = match std::env::var_os(TOGETHER) {
            Some(folder) => (PathBuf::from(folder), None),
            None => {
                // In memory, if possible: these races are about the protocol, not about the disk.
                let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
                (folder.path().to_owned(), Some(folder))
            }
        };
        let socket = folder.join("step");
        let (other, first) = match first {
            None => (UnixStream::connect(socket).unwrap(), None),
            Some(owned) => {
                let listener = UnixListener::bind(socket).unwrap();
                let child = Command::new(std::env::current_exe().unwrap())
                    .args([test, "--exact", "--quiet", "--test-threads=1"])
                    .env(TOGETHER, &folder)
                    .spawn()
                    .unwrap();
                (listener.accept().unwrap().0, Some((owned, child)))
            }
        };
        Self { folder, other: Mutex::new(other), barrier: Barrier::new(THREADS), first }
    }

    /// Waits for all threads of both processes.
    fn step(&self) {
        if self.barrier.wait().is_leader() {
            let mut other = self.other.lock().unwrap();
            if other.write_all(b".").and_then(|()| other.read_exact(&mut [0])).is_err() {
                // Otherwise fifteen threads would wait for ever for the one that panics.
                eprintln!("the other process of the race has ended");
                std::process::exit(101);
            }
        }
        self.barrier.wait();
    }

    /// Runs a racer on every thread and returns the reports of both processes; none in the second
    /// process. A racer must not panic, because the others would wait for it.
    fn race(mut self, racer: impl Fn(&Self, &DirStore, usize) -> Vec<String> + Sync) -> Option<Vec<String>> {
        let bus = self.folder.join("bus");
        let options = DirOptions { durability: Durability::None, ..DirOptions::default() };
        // Four threads of a process share a store, as workers do.
        let stores: Vec<DirStore> =
            (0..THREADS / 4).map(|_| DirStore::create(&bus, options, &SystemClock).unwrap()).collect();
        let first = self.first.take();
        let base = if first.is_some() { 0 } else { THREADS };
        let lines: Vec<String> = std::thread::scope(|scope| {
            let (side, racer, stores) = (&self, &racer, &stores);
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || racer(side, &stores[thread / 4], base + thread)))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let Some((folder, mut child)) = first else {
            std::fs::write(self.folder.join("second"), lines.join("\n")).unwrap();
            return None;
        };
        assert!(child.wait().unwrap().success());
        let second = std::fs::read_to_string(folder.path().join("second")).unwrap();
        Some(lines.into_iter().chain(second.lines().map(str::to_owned)).collect())
    }
}

/// How often each round was won.
fn tally(lines: &[String]) -> BTreeMap<&str, usize> {
    let mut winners = BTreeMap::new();
    for line in lines {
        *winners.entry(line.as_str()).or_default() += 1;
    }
    winners
}

fn assert_one_winner_a_round(lines: &[String]) {
    let winners = tally(lines);
    assert_eq!(winners.len(), ROUNDS);
    let disputed: Vec<_> = winners.iter().filter(|(_, winners)| **winners != 1).collect();
    assert!(disputed.is_empty(), "{disputed:?}");
}

#[test]
fn two_processes_create_each_object_once() {
    let lines = RaceSide::of("race::two_processes_create_each_object_once").race(|side, store, racer| {
        let mut won = Vec::new();
        for round in 0..ROUNDS {
            side.step();
            let key = format!("events/20261123/{:04}/{round:05}.json", round / 1_000);
            match block_on_ready(store.put_new(&key, format!("{racer}").as_bytes())) {
                Ok(Put::Created) => {
                    let mine = std::fs::read(store.path().join(&key))
                        .is_ok_and(|bytes| bytes == format!("{racer}").into_bytes());
                    won.push(if mine { round.to_string() } else { format!("{round} was overwritten") });
                }
                Ok(Put::Exists) => {}
                Err(error) => won.push(format!("{round}: {error}")),
            }
        }
        won
    });
    if let Some(lines) = lines {
        assert_one_winner_a_round(&lines);
    }
}

#[test]
fn two_processes_swap_each_version_once() {
    let lines = RaceSide::of("race::two_processes_swap_each_version_once").race(|side, store, racer| {
        let mut won = Vec::new();
        for round in 0..ROUNDS {
            side.step();
            let found = block_on_ready(store.get("state/race/marker-000"));
            side.step();
            let version = found.as_ref().map_or(None, |object| object.as_ref().map(|object| &object.version));
            match block_on_ready(store.cas("state/race/marker-000", version, format!("{racer}").as_bytes())) {
                Ok(Swap::Swapped(next)) if number_of(Some(&next)) == round as u64 + 1 => won.push(round.to_string()),
                Ok(Swap::Conflict) => {}
                odd => won.push(format!("{round}: {odd:?}")),
            }
        }
        won
    });
    if let Some(lines) = lines {
        assert_one_winner_a_round(&lines);
    }
}

/// Threads do not wait for each other: some are overtaken at every step, and numbers are won,
/// removed and tried again.
#[test]
fn free_swaps_of_two_processes_form_a_chain() {
    let lines = RaceSide::of("race::free_swaps_of_two_processes_form_a_chain").race(|side, store, _| {
        side.step();
        let mut told = Vec::new();
        for _ in 0..ROUNDS / 20 {
            let found = block_on_ready(store.get("frontier")).unwrap();
            let version = found.map(|object| object.version);
            let base = number_of(version.as_ref());
            match block_on_ready(store.cas("frontier", version.as_ref(), base.to_string().as_bytes())) {
                Ok(Swap::Swapped(next)) => told.push(format!("won {base} {}", number_of(Some(&next)))),
                Ok(Swap::Conflict) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => told.push(format!("unknown {base}")),
                Err(error) => panic!("{error}"),
            }
        }
        told
    });
    let Some(lines) = lines else { return };
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let number = |word: &str| word.parse::<u64>().unwrap();
    let mut won: Vec<u64> = words.iter().filter(|line| line[0] == "won").map(|line| number(line[1])).collect();
    let unknown: Vec<u64> = words.iter().filter(|line| line[0] == "unknown").map(|line| number(line[1])).collect();
    won.sort_unstable();
    assert!(won.len() > 100, "{}", won.len());
    assert!(won.windows(2).all(|pair| pair[0] < pair[1]), "a base was used twice");
    assert!(words.iter().filter(|line| line[0] == "won").all(|line| number(line[2]) == number(line[1]) + 1));
    // A gap in the chain is a swap that was answered with an unknown outcome.
    for base in 0..*won.last().unwrap() {
        assert!(won.binary_search(&base).is_ok() || unknown.contains(&base), "version {} came from nowhere", base + 1);
    }
}

/// The number in a version; 0 for none.
fn number_of(version: Option<&Version>) -> u64 {
    version.map_or(0, |version| version.0.split('@').next().unwrap_or_default().parse().unwrap_or(u64::MAX))
}

/// The result of a future that an inline store completes at once.
fn block_on_ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => block_on(future),
    }
}

/// A regression: folders that were removed while another thread wrote to them.
#[test]
fn events_survive_a_prune_that_removes_their_folder() {
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let bus: &Path = folder.path();
    let options = DirOptions { durability: Durability::None, ..DirOptions::default() };
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let writer = DirStore::create(bus, options, &SystemClock).unwrap();
            for turn in 0..10_000 {
                let key = format!("events/20261123/0215/{turn}.json");
                assert_eq!(block_on_ready(writer.put_new(&key, b"x")), Ok(Put::Created));
                assert!(block_on_ready(writer.get(&key)).unwrap().is_some());
                block_on_ready(writer.delete(&key)).unwrap();
            }
        });
        let pruner = DirStore::create(bus, options, &SystemClock).unwrap();
        let absent = vec!["events/20261123/0215/none.json".to_owned()];
        while !writing.is_finished() {
            block_on_ready(pruner.delete_many(&absent)).unwrap();
        }
    });
}
