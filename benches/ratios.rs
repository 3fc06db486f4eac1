//! Speed, as ratios to the best that the machine can do, measured in the same run.
//!
//! `cargo bench` runs everything and prints a table; `cargo bench -- emit drain` runs only these.
//! The floor is `benches/floor.c`, built here with the system's C compiler; `benches/peers.py` runs SQLite
//! and, if it is installed, Redis. Rounds are interleaved and medians taken, because machines are shared
//! and noisy. `EVBUS_BENCH_DIR` names the folder to work in (a journalled disk, say).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[cfg(all(feature = "postgres", feature = "sqlite"))]
#[path = "ratios/databases.rs"]
mod databases;
#[path = "ratios/serve.rs"]
mod serve;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
#[path = "../tests/support/postgres.rs"]
mod server;
#[path = "ratios/webhooks.rs"]
mod webhooks;

/// The program as an installation leaves it. A linker writes through a memory map, which leaves
/// single pages in the page cache; such a file starts a fifth slower than its own copy.
static EVBUS: OnceLock<PathBuf> = OnceLock::new();
const ROUNDS: usize = 5;

fn program() -> &'static Path {
    EVBUS.get().unwrap()
}

/// The folder and the floor program of the measurements.
struct RatioBench {
    dir: TempDir,
    floor: PathBuf,
    count: std::cell::Cell<usize>,
}

impl RatioBench {
    fn new() -> Self {
        let base = std::env::var_os("EVBUS_BENCH_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let dir = tempfile::tempdir_in(base).unwrap();
        let copy = dir.path().join("evbus");
        std::fs::copy(env!("CARGO_BIN_EXE_evbus"), &copy).unwrap();
        EVBUS.set(copy).unwrap();
        let floor = dir.path().join("floor");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
        let built =
            Command::new("cc").args(["-O2", "-static", "-pthread", "-w"]).arg(source).arg("-o").arg(&floor).status();
        assert!(built.unwrap().success());
        Self { dir, floor, count: std::cell::Cell::new(0) }
    }

    /// An unused folder: to create files where thousands were deleted is slow on some file systems.
    fn fresh(&self, what: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        let path = self.dir.path().join(format!("{what}-{}", self.count.get()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn bus(&self) -> PathBuf {
        let bus = self.fresh("bus");
        run(Command::new(program()).arg("init").arg(&bus));
        bus
    }

    fn floor(&self, args: &[&str]) -> String {
        let output = Command::new(&self.floor).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A bus with events whose data is like the floor's payload of 300 bytes.
    fn filled(&self, count: usize) -> PathBuf {
        let bus = self.bus();
        emit(&bus, count);
        bus
    }

    /// The floor's own executable that does next to nothing.
    fn nothing(&self) -> [&str; 2] {
        [self.floor.to_str().unwrap(), "true"]
    }
}

fn evbus(bus: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("EVBUS_URL", bus).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
}

fn emit(bus: &Path, count: usize) {
    emit_by(bus, count, &["emit", "order.created", "--ndjson", "--each", "-q"]);
}

/// Emits events whose lines are made meanwhile.
fn emit_by(bus: &Path, count: usize, args: &[&str]) {
    let mut child = evbus(bus, args).stdin(Stdio::piped()).spawn().unwrap();
    lines(child.stdin.take().unwrap(), count);
    assert!(child.wait().unwrap().success());
}

/// Writes the data of so many events, a line each.
fn lines(to: impl Write, count: usize) {
    let mut to = std::io::BufWriter::new(to);
    for n in 0..count {
        writeln!(to, "{{\"order\":{n},\"total\":99.5,\"note\":\"{:0>80}\"}}", n).unwrap();
    }
    to.flush().unwrap();
}

/// A file with the data of so many events.
fn file_of_lines(bench: &RatioBench, count: usize) -> std::fs::File {
    let path = bench.dir.path().join(format!("lines-{count}"));
    if !path.exists() {
        lines(std::fs::File::create(&path).unwrap(), count);
    }
    std::fs::File::open(path).unwrap()
}

/// Emits them in segments.
fn emit_segments(bench: &RatioBench, bus: &Path, count: usize) {
    run(evbus(bus, &["emit", "order.created", "--ndjson", "-q"]).stdin(file_of_lines(bench, count)));
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The number after `label=` in the floor's line.
fn figure(line: &str, label: &str) -> f64 {
    let rest = &line[line.find(label).unwrap_or_else(|| panic!("{label} in {line}")) + label.len()..];
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn row(what: &str, floor: String, ours: String, ratio: String, goal: &str) {
    println!("{what:<42} {floor:>14} {ours:>14} {ratio:>8}   {goal}");
}

fn single_emit(bench: &RatioBench) {
    const EACH: usize = 200;
    let data = format!("{{\"order\":12345,\"total\":99.5,\"note\":\"{:0>80}\"}}", 1);
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (folder, bus) = (bench.fresh("once"), bench.bus());
        // Both run in a shell loop of the same shape, so that its cost is in both.
        let shell = |line: String| run(Command::new("sh").args(["-c", &line]));
        let floor = format!(
            "i=0; while [ $i -lt {EACH} ]; do {} once {} 0; i=$((i+1)); done",
            bench.floor.display(),
            folder.display()
        );
        let own = format!(
            "i=0; while [ $i -lt {EACH} ]; do {} --bus {} emit order.created '{data}' -q; i=$((i+1)); done",
            program().display(),
            bus.display()
        );
        floors.push(timed(|| shell(floor)) / EACH as f64 * 1e3);
        ours.push(timed(|| shell(own)) / EACH as f64 * 1e3);
    }
    let (floor, ours) = (median(floors), median(ours));
    row(
        "emit, one process each",
        format!("{floor:.2} ms"),
        format!("{ours:.2} ms"),
        format!("{:.2}", ours / floor),
        "<= 1.25",
    );
}

fn bulk_emit(bench: &RatioBench) {
    const COUNT: usize = 20_000;
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let best = ["256", "512", "1024"].iter().map(|chunk| {
            let folder = bench.fresh("a3b");
            figure(&bench.floor(&["a3b", folder.to_str().unwrap(), "0", &COUNT.to_string(), chunk]), "events/s=")
        });
        floors.push(best.fold(0.0, f64::max));
        let bus = bench.bus();
        ours.push(COUNT as f64 / timed(|| emit(&bus, COUNT)));
    }
    let (floor, ours) = (median(floors), median(ours));
    row(
        "emit --ndjson --each, 20,000",
        format!("{floor:.0}/s"),
        format!("{ours:.0}/s"),
        format!("{:.2}", ours / floor),
        ">= 0.75",
    );
}

/// Many events in one object: emitted, and drained in batches.
fn segments(bench: &RatioBench) {
    const COUNT: usize = 1_000_000;
    file_of_lines(bench, COUNT);
    let (mut floors, mut emits, mut drains) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers = ["sqlite", "redis"].map(|peer| (peer, Vec::new()));
    let (mut peak, mut marker) = (0.0_f64, 0);
    for _ in 0..ROUNDS {
        let folder = bench.fresh("log");
        floors.push(figure(&bench.floor(&["a3l", folder.to_str().unwrap(), &COUNT.to_string(), "1000"]), "events/s="));
        std::fs::remove_dir_all(folder).unwrap();
        for (peer, rates) in &mut peers {
            rates.extend(peer_rate(bench, peer, COUNT));
        }
        let bus = bench.bus();
        emits.push(COUNT as f64 / timed(|| emit_segments(bench, &bus, COUNT)));
        let drain = ["drain", "-q", "-g", "g", "--from", "earliest", "--batch", "1000", "--", "wc", "-l"];
        let begun = Instant::now();
        let mut child = evbus(&bus, &drain).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            peak = peak.max(peak_mb(child.id()).unwrap_or(0.0));
            marker = marker.max(largest_marker(&bus));
            std::thread::sleep(Duration::from_millis(20));
        }
        drains.push(COUNT as f64 / begun.elapsed().as_secs_f64());
        std::fs::remove_dir_all(bus).unwrap();
    }
    let (floor, emits) = (median(floors), median(emits));
    let ratio = format!("{:.2}", emits / floor);
    row("emit --ndjson, 1,000,000", format!("{floor:.0}/s"), format!("{emits:.0}/s"), ratio, ">= 0.4");
    for (peer, rates) in peers.into_iter().filter(|(_, rates)| !rates.is_empty()) {
        let rate = median(rates);
        let ratio = format!("{:.2}", emits / rate);
        row(&format!("  beside {peer}"), format!("{rate:.0}/s"), format!("{emits:.0}/s"), ratio, "> 1");
    }
    let rate = |rate| format!("{rate:.0}/s");
    row("drain --batch 1000, 1,000,000", rate(150_000.0), rate(median(drains)), String::new(), ">= 150,000/s");
    row("  its memory", String::new(), format!("{peak:.1} MB"), String::new(), "<= 48 MB");
    row("  its marker", String::new(), format!("{:.1} KiB", marker as f64 / 1024.0), String::new(), "<= 64 KiB");
}

/// Events in segments, handed one by one to a closure.
fn in_program(bench: &RatioBench) {
    let rate = |rate| format!("{rate:.0}/s");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for at_once in [1, 16] {
        let rates = (0..ROUNDS).map(|_| {
            let bus = bench.bus();
            emit_segments(bench, &bus, 100_000);
            100_000.0 / timed(|| assert_eq!(runtime.block_on(handle_all(&bus, at_once)), 100_000))
        });
        let (what, ours) = (format!("100,000 in the program, {at_once} at once"), median(rates.collect()));
        row(&what, rate(40_000.0), rate(ours), String::new(), ">= 40,000/s");
    }
}

/// Events a second of another tool at the same work, if it is installed.
fn peer_rate(bench: &RatioBench, peer: &str, count: usize) -> Option<f64> {
    file_of_lines(bench, count);
    let (folder, lines) = (bench.fresh(peer), bench.dir.path().join(format!("lines-{count}")));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers.py");
    let output = Command::new("python3").arg(script).arg(peer).arg(&folder).arg(lines).arg("20000").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_dir_all(folder).unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    (!line.is_empty()).then(|| figure(&line, "events/s="))
}

/// Work that must not grow with the events, but with the objects alone: 10,000,000 events in segments,
/// beside 10,000 of one each.
fn many(bench: &RatioBench) {
    let buses = [10_000, 10_000_000].map(|count| {
        let bus = bench.bus();
        match count {
            10_000 => emit(&bus, count),
            _ => emit_by(&bus, count, &["emit", "order.created", "--ndjson", "-q"]),
        }
        // All are processed: a group that starts now has passed every one of them.
        run(&mut evbus(&bus, &["group", "create", "g", "--from", "now"]));
        bus
    });
    // Once the minute of the last event is over, the first drain moves past its folder.
    std::thread::sleep(Duration::from_secs(63));
    let works: [(&str, &[&str]); 4] = [
        ("drain with nothing new", &["drain", "-q", "-g", "g", "--", "true"]),
        ("status", &["status"]),
        ("ls of the last 20", &["ls", "--limit", "20"]),
        ("prune --dry-run", &["prune", "--keep", "0s", "--dry-run"]),
    ];
    for (what, args) in works {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..20 {
            for (bus, took) in buses.iter().zip(&mut took) {
                took.push(timed(|| run(&mut evbus(bus, args))) * 1e3);
            }
        }
        many_row(what, took.map(median));
    }
    let prunes = [0, 1].map(|at| timed(|| run(&mut evbus(&buses[at], &["prune", "--keep", "0s", "--yes"]))) * 1e3);
    many_row("prune", prunes);
}

fn many_row(what: &str, [small, large]: [f64; 2]) {
    let what = format!("{what}, 10,000,000 events");
    row(&what, format!("{small:.2} ms"), format!("{large:.2} ms"), format!("{:.2}", large / small), "<= 1.2");
}

/// The bytes of the largest marker of a bus.
fn largest_marker(bus: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(bus.join("state/g")) else { return 0 };
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).max().unwrap_or(0)
}

/// Handles all events of a bus by a closure; returns how many they were.
async fn handle_all(bus: &Path, at_once: usize) -> u64 {
    let bus = evbus::Bus::open(bus.to_str().unwrap()).await.unwrap();
    bus.group("g").concurrency(at_once).handler(|_| async {}).drain().await.unwrap().done
}

fn handlers(bench: &RatioBench) {
    const COUNT: usize = 5_000;
    for j in ["1", "2", "4"] {
        let (mut floors, mut bounds, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let [program, argument] = bench.nothing();
            let count = COUNT.to_string();
            floors.push(figure(&bench.floor(&["a6", j, &count, "1", program, argument]), "spawns/s="));
            bounds.push(figure(&bench.floor(&["a6p", j, &count, program, argument]), "spawns/s="));
            let bus = bench.filled(COUNT);
            let args = ["drain", "-q", "-g", "g", "--from", "earliest", "-j", j, "--", program, argument];
            ours.push(COUNT as f64 / timed(|| run(&mut evbus(&bus, &args))));
        }
        let (floor, bound, ours) = (median(floors), median(bounds), median(ours));
        let rate = |rate| format!("{rate:.0}/s");
        let ratio = |ours| format!("{:.2}", ours / floor);
        row(&format!("drain of 5,000, -j {j}"), rate(floor), rate(ours), ratio(ours), ">= 0.9");
        // What any program reaches that does for a run what evbus promises.
        row("  the floor with two outputs, a file, a group", rate(floor), rate(bound), ratio(bound), "");
    }
}

/// Ends a worker that this bench started.
fn stop(mut child: Child) {
    run(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    child.wait().unwrap();
}

fn latency(bench: &RatioBench) {
    const COUNT: usize = 200;
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (folder, stamps) = (bench.fresh("a5"), bench.fresh("stamps").join("s"));
        let line =
            bench.floor(&["a5", folder.to_str().unwrap(), &COUNT.to_string(), "20000", stamps.to_str().unwrap()]);
        floors.push((figure(&line, "p50_us="), figure(&line, "p99_us=")));
        ours.push(live(bench, COUNT));
    }
    for (at, label, goal) in [(0, "p50", "<= 1.3"), (1, "p99", "<= 2")] {
        let pick =
            |pairs: &[(f64, f64)]| median(pairs.iter().map(|pair| if at == 0 { pair.0 } else { pair.1 }).collect());
        let (floor, ours) = (pick(&floors), pick(&ours));
        row(
            &format!("emit to handler's first line, {label}"),
            format!("{floor:.0} µs"),
            format!("{ours:.0} µs"),
            format!("{:.2}", ours / floor),
            goal,
        );
    }
}

/// Microseconds from the rename that publishes an event to its handler's first line, p50 and p99.
/// Without flushes: the writer runs with `--durability none`.
fn live(bench: &RatioBench, count: usize) -> (f64, f64) {
    let (bus, stamps) = (bench.bus(), bench.fresh("stamps").join("s"));
    let handler = format!("{} hstdin {}", bench.floor.display(), stamps.display());
    let mut words = vec!["watch", "-q", "-g", "g", "--"];
    words.extend(handler.split(' '));
    let watch = evbus(&bus, &words).spawn().unwrap();
    while !bus.join("groups").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_for_a_new_minute(10);
    // The first event wakes the worker and makes it the owner of its shard.
    run(&mut evbus(&bus, &["emit", "t", "{\"seq\":0}", "-q"]));
    let lines = || std::fs::read_to_string(&stamps).unwrap_or_default().lines().count();
    while lines() < 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut emit = evbus(&bus, &["emit", "t", "--ndjson", "--each", "-q", "--durability", "none"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = emit.stdin.take().unwrap();
    let publishes = publishes(&bus, count);
    for seq in 1..=count {
        std::thread::sleep(Duration::from_millis(20));
        writeln!(stdin, "{{\"seq\":{seq},\"note\":\"{:0>200}\"}}", 1).unwrap();
    }
    drop(stdin);
    emit.wait().unwrap();
    while lines() < count + 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(watch);
    let sent = publishes.join().unwrap();
    let text = std::fs::read_to_string(&stamps).unwrap();
    let mut taken: Vec<f64> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .filter(|(seq, _)| *seq != "0")
        .map(|(seq, at)| (at.parse::<f64>().unwrap() - sent[seq.parse::<usize>().unwrap() - 1]) / 1e3)
        .collect();
    taken.sort_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

/// Waits until the minute has `seconds` left, so that all events of a measurement lie in one
/// folder.
fn wait_for_a_new_minute(seconds: i64) {
    while 60 - rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec % 60 < seconds {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// When each of the next `count` events is published, on the floor's clock: inotify shows it to a
/// separate thread.
fn publishes(bus: &Path, count: usize) -> std::thread::JoinHandle<Vec<f64>> {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    let queue = inotify::init(CreateFlags::CLOEXEC).unwrap();
    // Only events are renamed out of this folder while nothing else is emitted; the worker's
    // markers go elsewhere.
    let folder = std::fs::read_dir(bus.join("events")).unwrap().next().unwrap().unwrap().path();
    for minute in std::fs::read_dir(folder).unwrap() {
        inotify::add_watch(&queue, minute.unwrap().path(), WatchFlags::MOVED_TO).unwrap();
    }
    std::thread::spawn(move || {
        let (mut buffer, mut seen) = ([std::mem::MaybeUninit::uninit(); 4096], Vec::new());
        let mut reader = Reader::new(&queue, &mut buffer);
        while seen.len() < count {
            let event = reader.next().unwrap();
            if event.events().contains(ReadFlags::MOVED_TO) {
                seen.push(monotonic_ns());
            }
        }
        seen
    })
}

/// The clock whose stamps the floor writes.
fn monotonic_ns() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn empty_drain(bench: &RatioBench) {
    let mut figures = Vec::new();
    for count in [10_000, 1_000_000] {
        let bus = bench.filled(count);
        // All are processed: a group that starts now has passed every one of them.
        run(&mut evbus(&bus, &["group", "create", "g", "--from", "now"]));
        // Once the minute of the last event is over, the first drain moves past its folder.
        std::thread::sleep(Duration::from_secs(63));
        let drain = || evbus(&bus, &["drain", "-q", "-g", "g", "--", "true"]);
        run(&mut drain());
        figures.push(median((0..50).map(|_| timed(|| run(&mut drain())) * 1e3).collect()));
    }
    let (small, large) = (figures[0], figures[1]);
    row("drain with nothing new, 10,000 events", "5 ms".to_owned(), format!("{small:.2} ms"), String::new(), "<= 5 ms");
    row(
        "drain with nothing new, 1,000,000 events",
        format!("{small:.2} ms"),
        format!("{large:.2} ms"),
        format!("{:.2}", large / small),
        "<= 1.2",
    );
}

/// The most memory a process has held, in MB.
fn peak_mb(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // A process that has just ended has none.
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn memory(bench: &RatioBench) {
    let [program, argument] = bench.nothing();
    for (what, count, goal) in [("idle", 0, "<= 10 MB"), ("over a backlog of 1,000,000", 1_000_000, "<= 24 MB")] {
        let bus = bench.bus();
        emit(&bus, count);
        let watch = evbus(&bus, &["watch", "-q", "-g", "g", "--from", "earliest", "-j", "2", "--", program, argument])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(if count == 0 { 5 } else { 60 }));
        let peak = peak_mb(watch.id()).unwrap();
        stop(watch);
        row(&format!("memory of watch, {what}"), String::new(), format!("{peak:.1} MB"), String::new(), goal);
    }
}

/// Measures one kind of work and prints its row.
type Measure = fn(&RatioBench);

fn main() {
    let all: &[(&str, Measure)] = &[
        ("emit", single_emit),
        ("bulk", bulk_emit),
        ("segments", segments),
        ("program", in_program),
        ("many", many),
        ("handlers", handlers),
        ("latency", latency),
        ("drain", empty_drain),
        ("memory", memory),
        ("webhooks", webhooks::webhooks),
        ("serve", serve::serve),
        #[cfg(all(feature = "postgres", feature = "sqlite"))]
        ("databases", databases::databases),
    ];
    if std::env::args().any(|argument| argument == serve::BARE) {
        return serve::bare();
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let bench = RatioBench::new();
    row("work", "floor".to_owned(), "evbus".to_owned(), "ratio".to_owned(), "to reach");
    for (name, measure) in all {
        #[cfg(all(feature = "postgres", feature = "sqlite"))]
        if *name == "databases" && !databases::is_there() {
            println!("databases: PostgreSQL or sqlite3 is not installed");
            continue;
        }
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            measure(&bench);
        }
    }
}
