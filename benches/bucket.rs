//! The bus in a bucket, against a bare loop of the same `object_store` calls at the same
//! concurrency in the same run.
//!
//! `cargo bench --bench bucket` runs everything; `-- emit drain latency` runs only these. `-- cost` counts
//! the requests of segments for `docs/src/cost.md`, and `-- memory` is a measurement of half an hour: a
//! backlog of 1,000,000 events (`EVBUS_BENCH_EVENTS` for another number). `./test` must have fetched the
//! server.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use evbus::bus::BusHandle;
use evbus::bus::emit::Emitter;
use evbus::clock::{Clock, Fut, SystemClock};
use evbus::group::worker::{Mode, WorkerSettings};
use evbus::group::{GroupName, definition};
use evbus::handler::{Handler, Job, Outcome, RunReport};
use evbus::store::List;
use evbus::store::object::{BucketStore, PROFILE};
use futures_util::{StreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

#[path = "../tests/support/group.rs"]
mod group;
#[path = "../tests/support/proxy.rs"]
mod proxy;
#[path = "../tests/support/s3.rs"]
mod s3;

const EVENTS: usize = 10_000;
const ROUNDS: usize = 3;

/// Reads at a time, in both loops.
const HANDLERS: usize = 16;

/// Writes at a time, in both loops: the number that evbus uses.
const PUTS: usize = 32;

fn bare() -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(&s3::seaweedfs().endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(s3::BUCKET)
        .with_access_key_id("AK")
        .with_secret_access_key("SK")
        .build()
        .unwrap()
}

fn bus(prefix: &str) -> BusHandle {
    let store = BucketStore::connect(&s3::seaweedfs().bucket(prefix)).unwrap();
    BusHandle::new(Rc::new(store), Rc::new(SystemClock))
}

/// evbus, with the bus at a prefix of the bucket.
fn evbus(prefix: &str, args: &[&str]) -> Command {
    evbus_at(&s3::seaweedfs().endpoint, prefix, args)
}

fn evbus_at(endpoint: &str, prefix: &str, args: &[&str]) -> Command {
    let url = format!("s3://{}/{prefix}?endpoint={endpoint}", s3::BUCKET);
    let mut command = Command::new(env!("CARGO_BIN_EXE_evbus"));
    command.env_clear().envs(s3::CREDENTIALS).env("PATH", "/usr/bin:/bin").env("EVBUS_URL", url).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn emit(prefix: &str, count: usize) {
    let file = lines(count);
    let args = ["emit", "order.created", "-q", "--each", "--ndjson", &format!("@{}", file.path().display())];
    assert!(evbus(prefix, &args).status().unwrap().success());
}

/// A file with the data of `count` events.
fn lines(count: usize) -> tempfile::NamedTempFile {
    let mut file = std::io::BufWriter::new(tempfile::NamedTempFile::new().unwrap());
    for n in 0..count {
        writeln!(file, "{{\"order\":{n},\"total\":99.5,\"note\":\"{n:0>80}\"}}").unwrap();
    }
    file.into_inner().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn at(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn median(values: Vec<f64>) -> f64 {
    at(values, 0.5)
}

fn row(what: &str, bare: &str, ours: &str, ratio: &str, goal: &str) {
    println!("{what:<44} {bare:>16} {ours:>16} {ratio:>8}   {goal}");
}

fn per_second(seconds: f64) -> String {
    format!("{:.0}/s", EVENTS as f64 / seconds)
}

/// The keys that `evbus emit` has left at a prefix, and the length of each object.
fn events(prefix: &str) -> Vec<(Path, usize)> {
    block_on(async {
        let below = Path::from(format!("{prefix}/events"));
        let store = bare();
        let found = store.list(Some(&below));
        found.map(|found| found.map(|object| (object.location, object.size as usize)).unwrap()).collect().await
    })
}

fn bulk_emit() {
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let prefix = format!("emit-{round}");
        assert!(evbus(&prefix, &["init"]).status().unwrap().success());
        ours.push(timed(|| emit(&prefix, EVENTS)));
        // The same keys under another prefix, with as many bytes.
        let copies: Vec<_> = events(&prefix).into_iter().map(|(key, len)| (format!("bare-{key}"), len)).collect();
        assert_eq!(copies.len(), EVENTS);
        floors.push(timed(|| {
            block_on(async {
                let store = bare();
                let put = |(key, len): (String, usize)| {
                    let (store, body) = (&store, PutPayload::from(vec![b'x'; len]));
                    async move {
                        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                        store.put_opts(&Path::from(key), body, options).await.unwrap();
                    }
                };
                stream::iter(copies).map(put).buffer_unordered(PUTS).collect::<Vec<()>>().await;
            });
        }));
    }
    let (floor, ours) = (median(floors), median(ours));
    row(
        "emit --ndjson --each, 10,000",
        &per_second(floor),
        &per_second(ours),
        &format!("{:.2}", floor / ours),
        ">= 0.9",
    );
}

fn drain() {
    let prefix = "drain";
    assert!(evbus(prefix, &["init"]).status().unwrap().success());
    emit(prefix, EVENTS);
    let keys = events(prefix);
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floors.push(timed(|| {
            block_on(async {
                let store = bare();
                let get = |(key, _): (Path, usize)| {
                    let store = &store;
                    async move { store.get(&key).await.unwrap().bytes().await.unwrap().len() }
                };
                let sizes: Vec<usize> = stream::iter(keys.clone()).map(get).buffer_unordered(HANDLERS).collect().await;
                assert_eq!(sizes.len(), EVENTS);
            });
        }));
        let notes = Rc::new(group::RunCounter::default());
        ours.push(timed(|| {
            block_on(async {
                let (bus, name) = (bus(prefix), GroupName::parse(&format!("g{round}")).unwrap());
                definition::create(&*bus.store, &name, group::of_everything(&SystemClock, 1)).await.unwrap();
                let mode = Mode::Drain { wait: false, most: None, span: None };
                let settings = WorkerSettings { concurrency: HANDLERS, ..WorkerSettings::new(mode) };
                group::work(bus, name, Rc::clone(&notes) as _, settings, None).await;
            });
        }));
        assert_eq!(notes.runs(), EVENTS as u64);
    }
    let (floor, ours) = (median(floors), median(ours));
    row(
        "drain of 10,000, handler in the process",
        &per_second(floor),
        &per_second(ours),
        &format!("{:.2}", floor / ours),
        ">= 0.8",
    );
}

/// Notes when it runs for which event.
#[derive(Default)]
struct Stamps(RefCell<HashMap<String, Duration>>);

impl Handler for Stamps {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        let id = job.vars.list().into_iter().find(|(name, _)| *name == "EVBUS_ID").map(|(_, id)| id).unwrap();
        let id = id.into_string().unwrap();
        self.0.borrow_mut().insert(id, SystemClock.elapsed());
        let report = RunReport::new(Outcome::Exit(0), String::new(), Duration::ZERO);
        Box::pin(std::future::ready(report))
    }
    fn terminate(&self) {}
    fn check(&self) -> Result<(), evbus::handler::Obstacle> {
        Ok(())
    }
}

/// Events come one by one, some thirty a second, while a worker follows.
fn latency() {
    const COUNT: usize = 600;
    let prefix = "latency";
    let (mut waited, mut gets, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    block_on(async {
        let (bus, emitting, name) = (bus(prefix), bus(prefix), GroupName::parse("g").unwrap());
        definition::create(&*bus.store, &name, group::of_everything(&SystemClock, 1)).await.unwrap();
        let stamps = Rc::new(Stamps::default());
        let settings = WorkerSettings { concurrency: HANDLERS, ..WorkerSettings::new(Mode::Watch) };
        let worker = group::work(bus, name, Rc::clone(&stamps) as _, settings, None);
        let emitter = async {
            let (mut emitter, mut acked) = (Emitter::new(emitting.clone(), Duration::from_secs(60)), Vec::new());
            let mut last = String::new();
            for _ in 0..COUNT {
                let draft = group::draft(&SystemClock);
                emitter.emit(std::slice::from_ref(&draft)).await.unwrap();
                acked.push((draft.event().id().to_owned(), SystemClock.elapsed()));
                // The requests that the worker makes, too: the new names, and the event.
                let begun = Instant::now();
                let found = emitting.store.list_after(List::all("events/").after(last.as_str())).await.unwrap();
                lists.push(begun.elapsed().as_secs_f64() * 1e3);
                let begun = Instant::now();
                last.clone_from(found.keys.last().unwrap());
                emitting.store.get(&last).await.unwrap();
                gets.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while stamps.0.borrow().len() < COUNT {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            acked
        };
        let acked = tokio::select! {
            acked = emitter => acked,
            _ = worker => unreachable!("a watch does not end"),
        };
        let stamps = stamps.0.borrow();
        waited.extend(acked.iter().map(|(id, at)| stamps[id].saturating_sub(*at).as_secs_f64() * 1e3));
    });
    for (what, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let (waited, asked) = (at(waited.clone(), share), at(lists.clone(), share) + at(gets.clone(), share));
        let limit = asked + PROFILE.poll.0.as_secs_f64() * 1e3;
        row(
            &format!("emit to handler under load, {what}"),
            &format!("{asked:.1} ms + poll"),
            &format!("{waited:.0} ms"),
            &format!("{:.2}", waited / limit),
            "<= 1: a list, a get and the poll",
        );
    }
}

/// The requests behind a proxy, for so many events: puts, gets and listings of one, and the dollars of a
/// million by the prices of S3 Standard.
fn requests(what: &str, proxy: &proxy::RunningProxy, events: usize) {
    let (mut puts, mut gets, mut lists) = (0, 0, 0);
    for request in proxy.seen() {
        match &*request.method {
            "PUT" => puts += 1,
            "GET" | "HEAD" if request.target.contains("list-type=2") => lists += 1,
            "GET" | "HEAD" => gets += 1,
            // Removals are free.
            _ => {}
        }
    }
    let of = |count: u32| f64::from(count) / events as f64;
    let dollars = 5.0 * of(puts + lists) + 0.4 * of(gets);
    let [puts, gets, lists] = [puts, gets, lists].map(of);
    println!("{what:<44} {puts:>9.4} put {gets:>9.4} get {lists:>9.4} list   ${dollars:.4}");
}

/// What events in segments cost, by how many come at once: to emit, to follow, to drain.
fn cost() {
    const ROUNDS: usize = 60;
    for len in [10, 100, 1_000] {
        for shards in ["1", "8"] {
            let prefix = format!("cost-{len}-{shards}");
            assert!(evbus(&prefix, &["init"]).status().unwrap().success());
            for group in ["follows", "drains"] {
                let create = ["group", "create", group, "--from", "earliest", "--shards", shards];
                assert!(evbus(&prefix, &create).status().unwrap().success());
            }
            let behind = || proxy::start(&s3::seaweedfs().endpoint, proxy::ProxyOptions::default());
            let [emits, follows, drains] = [(); 3].map(|()| behind());
            let (size, seen) = (len.to_string(), tempfile::NamedTempFile::new().unwrap());
            let count = format!("wc -l >>{}", seen.path().display());
            let handler = ["--batch", &size, "--shell", &count];
            let handled = || {
                let text = std::fs::read_to_string(seen.path()).unwrap();
                text.lines().map(|line| line.trim().parse::<usize>().unwrap_or(0)).sum::<usize>()
            };
            let watch = [&["watch", "-q", "-g", "follows"], &handler[..]].concat();
            let mut watch = evbus_at(&follows.endpoint, &prefix, &watch).spawn().unwrap();
            let file = lines(len);
            let emit = ["emit", "order.created", "-q", "--ndjson", &format!("@{}", file.path().display())];
            for _ in 0..ROUNDS {
                std::thread::sleep(Duration::from_secs(1));
                assert!(evbus_at(&emits.endpoint, &prefix, &emit).status().unwrap().success());
            }
            let events = ROUNDS * len;
            while handled() < events {
                std::thread::sleep(Duration::from_millis(100));
            }
            // Its last commits.
            std::thread::sleep(Duration::from_secs(5));
            requests(&format!("emit, {len} at a time"), &emits, events);
            requests(&format!("watch follows, {len} each second, {shards} shards"), &follows, events);
            watch.kill().unwrap();
            watch.wait().unwrap();
            let drain = [&["drain", "-q", "-g", "drains"], &handler[..]].concat();
            assert!(evbus_at(&drains.endpoint, &prefix, &drain).status().unwrap().success());
            assert_eq!(handled(), 2 * events);
            requests(&format!("drain of {events}, {len} a segment, {shards} shards"), &drains, events);
        }
    }
}

fn memory() {
    let events = std::env::var("EVBUS_BENCH_EVENTS").map_or(1_000_000, |events| events.parse().unwrap());
    let prefix = "memory";
    assert!(evbus(prefix, &["init"]).status().unwrap().success());
    emit(prefix, events);
    let args = ["drain", "-q", "-g", "g", "--from", "earliest", "-j", "16", "--max", "20000", "--", "/bin/true"];
    let mut drain = evbus(prefix, &args).spawn().unwrap();
    let mut peak = 0.0_f64;
    while drain.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", drain.id())).unwrap_or_default();
        if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
            peak = peak.max(line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    row(&format!("memory of a drain over {events} events"), "", &format!("{peak:.1} MB"), "", "<= 64 MB");
}

fn main() {
    let all: [(&str, fn()); 5] =
        [("emit", bulk_emit), ("drain", drain), ("latency", latency), ("cost", cost), ("memory", memory)];
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    row("work, on SeaweedFS", "bare", "evbus", "ratio", "to reach");
    for (name, measure) in all {
        let takes_long = matches!(name, "cost" | "memory");
        let wanted = if named.is_empty() { !takes_long } else { named.iter().any(|wanted| wanted == name) };
        if wanted {
            measure();
        }
    }
}
