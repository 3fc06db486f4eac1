//! The engine by itself: what goes in, what comes out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::group::lease::Process;
use crate::group::request::{PendingRequest, Request};
use crate::group::verdict::{Fingerprint, RunResult};
use crate::group::{Definition, Listing};
use crate::handler::{Outcome, RunReport};
use crate::store::object::PROFILE;

const W: &str = "20261123T021500.000000Z";

fn name(second: u32) -> EventName {
    EventName::parse(&format!("20261123T0215{second:02}.000000Z-7k00000000{second:06}-t.json")).unwrap()
}

fn owner(worker: &str) -> Owner {
    let [host, boot, command] = ["h", "b", "c"].map(str::to_owned);
    Owner { worker: worker.to_owned(), host, pid: 1, boot, since: W.parse().unwrap(), command }
}

/// An engine with one shard, and what it has been told to do.
struct EngineBench {
    engine: Engine,
    elapsed: Duration,
    commands: Vec<Command>,
    /// Whether a commit is under way.
    committing: bool,
    version: u32,
}

impl EngineBench {
    fn new(concurrency: usize, mode: Mode) -> Self {
        let group = GroupName::parse("g").unwrap();
        let created: EventTime = W.parse().unwrap();
        let definition = Definition {
            created,
            types: Vec::new(),
            not: Vec::new(),
            condition: None,
            shards: 1,
            start: Position::Time(created),
            paused: None,
        };
        let filter = Arc::new(definition.filter(&group).unwrap());
        let registered = Registered { definition, version: Version("1".to_owned()) };
        let settings = WorkerSettings { concurrency, ..WorkerSettings::new(mode) };
        let elapsed = Duration::from_secs(1_000);
        let now = Now { elapsed, wall: name(30).time() };
        let beginning =
            EngineParts { group, registered, filter, settings, profile: PROFILE, me: owner("me"), seed: 7, now };
        let mut bench =
            Self { engine: Engine::new(beginning), elapsed, commands: Vec::new(), committing: false, version: 0 };
        bench.feed([]);
        bench
    }

    fn feed(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let wall = name(30).time().plus(self.elapsed - Duration::from_secs(1_000));
        self.commands = self.engine.handle(inputs, Now { elapsed: self.elapsed, wall });
        self.committing |= self.has_command(|command| matches!(command, Command::Commit { .. }));
    }

    fn complete(&mut self, completion: Completion) {
        self.feed([Input::Completed(completion)]);
    }

    fn scanned(&mut self, owner: Option<Owner>, process: Process, names: &[EventName]) {
        let mut marker = Marker::new(Position::Time(W.parse().unwrap()));
        marker.made = W.parse().unwrap();
        marker.owner = owner;
        let marker = ReadMarker { marker: Box::new(marker), version: Some(Version("m".to_owned())), process };
        let (marker, scan) = (Some(marker), Box::new(Ok(scan(names))));
        self.complete(Completion::Scanned { shard: 0, marker, scan });
    }

    fn version(&mut self) -> Committed {
        self.version += 1;
        Committed::Yes { version: Version(self.version.to_string()), sent: self.elapsed }
    }

    /// Acquires the shard, with these events in it.
    fn acquire(&mut self, names: &[EventName]) {
        self.scanned(None, Process::MayLive, names);
        assert!(self.has_command(|command| matches!(command, Command::Acquire { shard: 0, .. })));
        let committed = self.version();
        self.complete(Completion::Acquired { shard: 0, committed });
    }

    fn has_command(&self, what: impl Fn(&Command) -> bool) -> bool {
        self.commands.iter().any(what)
    }

    /// The seconds of the events that are started now.
    fn started(&self) -> Vec<EventName> {
        let start = |command: &Command| match command {
            Command::Start { launch, .. } => Some(launch.name.clone()),
            _ => None,
        };
        self.commands.iter().filter_map(start).collect()
    }

    fn ran(&mut self, name: &EventName, exit: i32) {
        self.ended(name, Outcome::Exit(exit));
    }

    fn not_started(&mut self, name: &EventName) {
        self.ended(name, Outcome::NotStarted(Box::new("away".to_owned().into())));
    }

    /// Lets time pass for a worker whose commits succeed, as it must to start events. Returns those.
    fn pass(&mut self, time: Duration) -> Vec<EventName> {
        let mut started = Vec::new();
        for step in [Duration::ZERO, time] {
            self.elapsed += step;
            self.feed([]);
            started.extend(self.started());
            if std::mem::take(&mut self.committing) {
                let committed = self.version();
                self.complete(Completion::Committed { shard: 0, epoch: 1, committed });
                started.extend(self.started());
            }
        }
        started
    }

    fn ended(&mut self, name: &EventName, outcome: Outcome) {
        let report = RunReport::new(outcome, String::new(), Duration::ZERO);
        let ran = Some(RunResult::Reported(report, Fingerprint::of(b"x", 1)));
        self.complete(Completion::Ran { shard: 0, epoch: 1, name: name.clone(), attempt: 1, ran });
    }
}

fn scan(names: &[EventName]) -> ShardScan {
    let newest = names.last().map(EventName::time);
    let stats = ScanStats { newest, newest_raisable: newest, raisable_len: names.len() as u64, ..ScanStats::default() };
    let listing = Listing::new(W.parse().unwrap(), names.iter().cloned(), None);
    ShardScan { whole: true, listing, stats, redefined: None, unread: None }
}

#[test]
fn a_worker_starts_with_a_scan_a_poll_requests_and_a_release() {
    let bench = EngineBench::new(1, Mode::Watch);
    assert!(bench.has_command(|command| matches!(command, Command::Scan { shard: 0, through: None, .. })));
    assert!(bench.has_command(|command| matches!(command, Command::Poll { .. })));
    assert!(bench.has_command(|command| matches!(command, Command::ReadRequests { .. })));
    assert!(bench.has_command(|command| matches!(command, Command::ReleaseScheduled { .. })));
    assert!(matches!(bench.commands.last(), Some(Command::WakeAt(_))), "{:?}", bench.commands);
}

#[test]
fn a_listed_event_is_run_and_committed() {
    let mut bench = EngineBench::new(1, Mode::Watch);
    bench.acquire(&[name(1), name(2)]);
    assert_eq!(bench.started(), [name(1)]);
    bench.ran(&name(1), 0);
    assert_eq!(bench.started(), [name(2)]);
    let commit = |command: &Command| match command {
        Command::Commit { commit, .. } => serde_json::from_slice::<Marker>(&commit.bytes).ok(),
        _ => None,
    };
    bench.elapsed += PROFILE.commit_gap;
    bench.feed([]);
    let marker = bench.commands.iter().find_map(commit).expect("a commit");
    // W does not let it pass yet.
    assert!(marker.done.contains(&name(1)) && !marker.is_unprocessed(&name(1)), "{marker:?}");
    assert!(!marker.done.contains(&name(2)));
}

#[test]
fn requests_are_counted_by_the_next_commit_and_once() {
    let mut bench = EngineBench::new(1, Mode::Watch);
    assert!(!bench.engine.owns_shards());
    bench.acquire(&[name(1)]);
    assert!(bench.engine.owns_shards());
    bench.feed([Input::Requests(Requests { puts: 3, ..Requests::default() })]);
    for _ in 0..2 {
        bench.elapsed += Duration::from_secs(5);
        bench.feed([]);
        let puts = |command: &Command| match command {
            Command::Commit { commit, .. } => serde_json::from_slice::<Marker>(&commit.bytes).ok(),
            _ => None,
        };
        let marker = bench.commands.iter().find_map(puts).expect("a heartbeat");
        assert_eq!(marker.requests.puts, 3);
        let committed = bench.version();
        bench.complete(Completion::Committed { shard: 0, epoch: 1, committed });
    }
}

/// The request may have been folded in and deleted by the owner of that time, whose marker need not
/// remember it any more.
#[test]
fn a_request_that_was_listed_before_the_takeover_is_not_folded_in() {
    let shown = || {
        let id = "000660e83147c9d7835ad8e0".to_owned();
        let request = Some(Request::Reset { to: Position::Time(W.parse().unwrap()) });
        let pending = vec![PendingRequest { key: "asked".to_owned(), shard: 0, id, request }];
        Completion::ControlRequests(Ok(ControlRequests { pending, woken: Vec::new() }))
    };
    let none = || Completion::ControlRequests(Ok(ControlRequests { pending: Vec::new(), woken: Vec::new() }));
    let reads = |bench: &EngineBench| bench.has_command(|command| matches!(command, Command::ReadRequests { .. }));
    let folded = |bench: &mut EngineBench| {
        let shard = bench.engine.owned_shards().next().expect("an owned shard");
        shard.marker.folded.len()
    };
    for (early, late) in [(true, false), (false, true), (true, true)] {
        let mut bench = EngineBench::new(1, Mode::Drain { wait: false, most: None, span: None });
        if early {
            bench.complete(shown());
        }
        bench.acquire(&[name(1)]);
        assert_eq!((folded(&mut bench), reads(&bench)), (0, early), "{early} {late}");
        if late {
            // Its listing was sent before the takeover, or is the one that was sent because of it.
            bench.complete(shown());
            assert_eq!((folded(&mut bench), reads(&bench)), (usize::from(early), !early), "{early} {late}");
        }
        if early != late {
            bench.complete(none());
            assert_eq!((folded(&mut bench), reads(&bench)), (0, false), "{early} {late}");
        }
    }
}

#[test]
fn a_handler_gets_no_more_than_it_takes() {
    let mut bench = EngineBench::new(8, Mode::Watch);
    bench.feed([Input::MaxInFlight(Some(1))]);
    bench.acquire(&[name(1), name(2), name(3), name(4)]);
    assert_eq!(bench.started(), [name(1)]);
    bench.feed([Input::MaxInFlight(Some(3))]);
    assert_eq!(bench.started(), [name(2), name(3)]);
    bench.feed([Input::MaxInFlight(Some(0))]);
    bench.ran(&name(1), 0);
    assert_eq!(bench.started(), []);
    bench.feed([Input::MaxInFlight(None)]);
    assert_eq!(bench.started(), [name(4)]);
}

#[test]
fn a_handler_that_cannot_start_is_probed_by_one_event() {
    let mut bench = EngineBench::new(8, Mode::Watch);
    bench.acquire(&[name(1), name(2), name(3)]);
    assert_eq!(bench.started(), [name(1), name(2), name(3)]);
    for second in 1..=3 {
        bench.not_started(&name(second));
        assert_eq!(bench.started(), []);
    }
    for _ in 0..2 {
        assert_eq!(bench.pass(STALL), [name(1)]);
        bench.not_started(&name(1));
    }
    // One that is slow to answer holds up no other probe.
    assert_eq!(bench.pass(STALL), [name(1)]);
    assert_eq!(bench.pass(STALL), [name(2)]);
    bench.ran(&name(2), 0);
    assert_eq!(bench.started(), [name(3)]);
}

#[test]
fn what_was_not_run_shows_no_recovery() {
    let mut bench = EngineBench::new(2, Mode::Watch);
    bench.acquire(&[name(1), name(2), name(3)]);
    assert_eq!(bench.started(), [name(1), name(2)]);
    bench.not_started(&name(1));
    // Cut short.
    bench.ended(&name(2), Outcome::Stopped);
    assert_eq!(bench.started(), []);
    assert!(bench.engine.summary.stalled.is_some());
    // Passed over: another may probe at once, but not all.
    assert_eq!(bench.pass(STALL), [name(1)]);
    let ran = Some(RunResult::Skipped(None));
    bench.complete(Completion::Ran { shard: 0, epoch: 1, name: name(1), attempt: 1, ran });
    assert_eq!(bench.started(), [name(2)]);
    assert!(bench.engine.summary.stalled.is_some());
    bench.ran(&name(2), 0);
    assert!(bench.engine.summary.stalled.is_none());
}

#[test]
fn a_fenced_worker_ends_its_runs() {
    let mut bench = EngineBench::new(2, Mode::Watch);
    bench.acquire(&[name(1), name(2)]);
    bench.elapsed += Duration::from_secs(5);
    bench.feed([]);
    assert!(bench.has_command(|command| matches!(command, Command::Commit { .. })), "a heartbeat");
    bench.complete(Completion::Committed { shard: 0, epoch: 1, committed: Committed::Fenced });
    let cancelled = bench.commands.iter().filter(|command| matches!(command, Command::Cancel { epoch: 1, .. }));
    assert_eq!(cancelled.count(), 1, "{:?}", bench.commands);
    // How they have ended then counts for nothing.
    bench.ran(&name(1), 0);
    assert!(!bench.has_command(|command| matches!(command, Command::Report(WorkerEvent::Done { .. }))));
}

#[test]
fn a_live_owner_keeps_its_shard_until_its_lease_expires() {
    let table = [
        (Process::Lives, Duration::ZERO, false),
        (Process::MayLive, Duration::ZERO, false),
        (Process::Gone, Duration::ZERO, true),
        (Process::MayLive, Duration::from_secs(14), false),
        (Process::MayLive, Duration::from_secs(15), true),
        // It hangs.
        (Process::Lives, Duration::from_secs(15), true),
    ];
    for (process, later, taken) in table {
        let mut bench = EngineBench::new(1, Mode::Watch);
        bench.scanned(Some(owner("other")), if later.is_zero() { process } else { Process::MayLive }, &[name(1)]);
        if !later.is_zero() {
            bench.elapsed += later;
            bench.feed([]);
            assert!(bench.has_command(|command| matches!(command, Command::Scan { .. })));
            bench.scanned(Some(owner("other")), process, &[name(1)]);
        }
        let acquired = bench.has_command(|command| matches!(command, Command::Acquire { .. }));
        assert_eq!(acquired, taken, "{process:?} after {later:?}");
    }
}

#[test]
fn a_stop_starts_no_events_and_releases_owned_shards() {
    let mut bench = EngineBench::new(1, Mode::Watch);
    bench.acquire(&[name(1), name(2)]);
    bench.feed([Input::Stop(Stop::Starts)]);
    assert!(bench.has_command(|command| matches!(command, Command::EndHandlers)));
    assert!(!bench.has_command(|command| matches!(command, Command::StopHandlers)), "a handler may end");
    bench.ran(&name(1), 0);
    assert_eq!(bench.started(), []);
    let released = |command: &Command| match command {
        Command::Commit { commit, .. } => {
            serde_json::from_slice::<Marker>(&commit.bytes).is_ok_and(|marker| marker.owner.is_none())
        }
        _ => false,
    };
    let committed = bench.version();
    bench.complete(Completion::Committed { shard: 0, epoch: 1, committed });
    bench.complete(Completion::Scanned { shard: 0, marker: None, scan: Box::new(Ok(scan(&[name(1), name(2)]))) });
    assert!(bench.has_command(released), "{:?}", bench.commands);
    let committed = bench.version();
    bench.complete(Completion::Committed { shard: 0, epoch: 1, committed });
    bench.complete(Completion::Polled(Ok(polled())));
    bench.complete(Completion::ControlRequests(Ok(ControlRequests { pending: Vec::new(), woken: Vec::new() })));
    assert!(!bench.has_command(|command| matches!(command, Command::End(_))), "a release of entries is under way");
    bench.complete(Completion::Released(Ok(crate::bus::schedule::Released::default())));
    let Some(Command::End(Ok(summary))) = bench.commands.pop() else { panic!("{:?}", bench.commands) };
    assert_eq!((summary.done, summary.left), (1, 1));
}

fn polled() -> Polled {
    Polled { names: Vec::new(), next: None, stats: ScanStats::default(), changes: None, poll: 0 }
}

#[test]
fn a_second_or_overdue_stop_ends_the_handlers() {
    let stops: [&dyn Fn(&mut EngineBench); 2] = [&|bench| bench.feed([Input::Stop(Stop::Handlers)]), &|bench| {
        bench.elapsed += Duration::from_secs(30);
        bench.feed([]);
    }];
    for stop in stops {
        let mut bench = EngineBench::new(1, Mode::Watch);
        bench.acquire(&[name(1)]);
        bench.feed([Input::Stop(Stop::Starts)]);
        stop(&mut bench);
        assert!(bench.has_command(|command| matches!(command, Command::StopHandlers)));
    }
}

#[test]
fn a_worker_that_is_to_end_after_its_runs_waits_for_them_until_it_is_told_more() {
    let mut bench = EngineBench::new(1, Mode::Watch);
    bench.acquire(&[name(1), name(2)]);
    bench.feed([Input::Stop(Stop::AfterRuns)]);
    assert!(bench.has_command(|command| matches!(command, Command::EndHandlers)));
    for limit in [false, true] {
        bench.elapsed += Duration::from_hours(1);
        bench.feed([]);
        assert_eq!(
            (bench.has_command(|command| matches!(command, Command::StopHandlers)), bench.started()),
            (limit, vec![])
        );
        bench.feed([Input::Stop(Stop::Starts)]);
    }
}
