//! Real processes whose clocks are hours apart, and step. Built with the feature `clock-file`,
//! which no release has.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

#[path = "support/until.rs"]
mod until;

use until::until;

/// A home with a bus and clocks.
struct ClockHome(tempfile::TempDir);

impl ClockHome {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        assert!(home.run("now", &["init"]).status.success());
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Sets how many seconds a clock is wrong.
    fn set(&self, clock: &str, seconds: i64) {
        let path = self.path().join(clock);
        let next = path.with_extension("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    /// evbus with a clock; one that was never set is right.
    fn evbus(&self, clock: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evbus"));
        command.args(args).env_clear().current_dir(self.path()).env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
        command.env("EVBUS_URL", self.path().join("bus")).env("EVBUS_CLOCK_FILE", self.path().join(clock));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, clock: &str, args: &[&str]) -> Output {
        self.evbus(clock, args).output().unwrap()
    }

    fn emit(&self, clock: &str) -> String {
        let output = self.run(clock, &["emit", "t"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn watch(&self, clock: &str, group: &str) -> Child {
        let shell = format!("echo $EVBUS_ID >> {group}.seen");
        let args = ["watch", "-q", "-g", group, "--from", "earliest", "--poll", "200ms", "--shell", &shell];
        self.evbus(clock, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn seen(&self, group: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(format!("{group}.seen"))).unwrap_or_default();
        let mut seen: Vec<String> = text.lines().map(str::to_owned).collect();
        seen.sort();
        seen
    }
}

fn end(mut worker: Child) {
    assert!(Command::new("kill").arg(worker.id().to_string()).status().unwrap().success());
    assert!(worker.wait().unwrap().success());
}

#[test]
fn clocks_that_are_hours_apart_and_step_lose_no_event() {
    let home = ClockHome::new();
    let clocks = [("right", 0), ("behind", -3 * 3_600), ("ahead", 2 * 3_600)];
    for (clock, seconds) in clocks {
        home.set(clock, seconds);
    }
    let workers = [home.watch("ahead", "one"), home.watch("behind", "two")];
    let mut ids = Vec::new();
    for round in 0..6 {
        ids.extend(clocks.map(|(clock, _)| home.emit(clock)));
        // Steps back and forth by hours.
        home.set("right", if round % 2 == 0 { 7_200 } else { -7_200 });
        home.set("ahead", 3_600 * (5 - 2 * round));
    }
    ids.sort();
    for group in ["one", "two"] {
        until("each event has run", || {
            let mut seen = home.seen(group);
            seen.dedup();
            seen == ids
        });
    }
    workers.into_iter().for_each(end);
    // Once each: no clock is a reason to run an event twice.
    assert_eq!(home.seen("one"), ids);
    assert_eq!(home.seen("two"), ids);
}

#[test]
fn a_clock_days_ahead_is_refused_and_leaves_no_event() {
    let home = ClockHome::new();
    home.set("days", 90_000);
    let refused = home.run("days", &["emit", "t"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), said.contains("more than a day ahead")), (Some(1), true), "{said}");
    assert!(String::from_utf8(home.run("right", &["ls"]).stdout).unwrap().is_empty());
}

/// The workers' clocks release scheduled entries: a clock that is ahead too early, no other too
/// late.
#[test]
fn a_scheduled_event_is_released_by_the_workers_clock() {
    let home = ClockHome::new();
    assert!(home.run("right", &["emit", "t", "--delay", "1h"]).status.success());
    let worker = home.watch("stepping", "g");
    until("the worker is there", || {
        home.emit("right");
        !home.seen("g").is_empty()
    });
    let waits = || String::from_utf8(home.run("right", &["ls", "--scheduled"]).stdout).unwrap().lines().count();
    assert_eq!(waits(), 1);
    home.set("stepping", 3_700);
    until("it comes when the clock says so", || waits() == 0);
    end(worker);
}
