//! The work on a bus while its disk is recorded, and its marks.
//!
//! The marks: `tries ID`, `acked ID` (emit has exited with 0), `ran ID` and `died ID` (the handler
//! writes them before it exits), `drained` and `buried` (the drain of that handler has exited with
//! 0), `prunes`, `redrives`, `redriven`, `cancels ID`, `cancelled ID`, `grouped NAME`, `removes
//! NAME`.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::path::Path;

use super::bus::{DiskBus, EvbusRun, can_kill};
use super::recorder::DiskRecorder;
use super::rng::Rng;

/// How many things are done before the events are pruned, and how many after.
const STEPS: [usize; 2] = [16, 10];

/// Where evbus may be killed. Most is lost between a rename and the flush of the folder.
const CALLS: [&str; 7] = ["fsync", "fsync", "fsync", "fdatasync", "renameat2", "unlinkat", "mkdirat"];

/// The source of all events whose id this workload makes.
pub const SOURCE: &str = "//power";

/// The due time of events that never come.
pub const FAR: &str = "2099-01-01T00:00:00Z";

struct Workload<'a> {
    bus: DiskBus,
    recorder: &'a DiskRecorder,
    rng: &'a Rng,
    made: Cell<usize>,
    deletes: bool,
    /// Groups without a worker.
    idle: RefCell<Vec<String>>,
}

/// Runs the workload on a fresh file system; with everything that deletes, or without.
///
/// Without a journal a deleted file may come back in its folder after its inode belongs to another
/// file or folder. e2fsck then believes one of the two and clears the other, which may be a whole
/// minute folder, whatever evbus does.
pub fn run(disk: &Path, recorder: &DiskRecorder, home: &Path, rng: &Rng, deletes: bool) {
    let bus = DiskBus::new(disk, home);
    let work = Workload { bus, recorder, rng, made: Cell::new(0), deletes, idle: RefCell::default() };
    work.bus.run(&["init", disk.join("bus").to_str().unwrap()]).succeeds();
    recorder.mark("made");
    for (group, filter) in [("g", "--not"), ("d", "--type")] {
        work.bus.run(&["group", "create", group, "--from", "earliest", filter, "bad"]).succeeds();
        recorder.mark(&format!("grouped {group}"));
    }
    work.steps(STEPS[0]);
    if deletes {
        work.prune();
    }
    work.steps(STEPS[1]);
}

impl Workload<'_> {
    fn steps(&self, steps: usize) {
        for _ in 0..steps {
            match self.rng.below(if self.deletes { 12 } else { 8 }) {
                0 => self.single(),
                1 | 2 => _ = self.named("named", &[]),
                3 => self.named_not_durable(),
                4 | 5 => _ = self.named("far", &["--at", FAR]),
                6 => self.bulk(),
                7 => self.group(),
                8 => _ = self.named("soon", &["--delay", "20ms"]),
                9 => self.cancel(),
                10 => self.drain(),
                _ => self.dead(),
            }
        }
    }

    fn mark(&self, verb: &str, of: &str) {
        self.recorder.mark(&format!("{verb} {of}"));
    }

    fn id(&self, kind: &str) -> String {
        self.made.set(self.made.get() + 1);
        format!("{kind}-{}", self.made.get())
    }

    /// Runs evbus until it succeeds; earlier runs may be killed.
    fn insist(&self, args: &[&str]) -> EvbusRun {
        while can_kill() && self.rng.chance(0.6) {
            let ran = self.bus.run_killed(args, self.rng.one(&CALLS), 1 + self.rng.below(2));
            if ran.code == Some(0) {
                return ran;
            }
        }
        self.bus.run(args).succeeds()
    }

    /// An event whose id evbus generates.
    fn single(&self) {
        let ran = self.bus.run(&["emit", "t", r#"{"of":"single"}"#]).succeeds();
        self.mark("acked", ran.out.trim());
    }

    /// An event with an id of this workload, so that it can be emitted until that succeeds.
    fn named(&self, kind: &str, more: &[&str]) -> String {
        let id = self.id(kind);
        self.mark("tries", &id);
        self.insist(&[&emit(&id, &data(&id), "t"), more].concat());
        self.mark("acked", &id);
        id
    }

    /// First without a flush, then with one: only the second is a promise.
    fn named_not_durable(&self) {
        let (kind, more) = if self.rng.chance(0.5) { ("far", &["--at", FAR][..]) } else { ("careless", &[][..]) };
        let id = self.id(kind);
        let data = data(&id);
        let args = [&emit(&id, &data, "t"), more].concat();
        self.mark("tries", &id);
        self.bus.run(&[&args[..], &["--durability", "none"]].concat()).succeeds();
        self.bus.run(&args).succeeds();
        self.mark("acked", &id);
    }

    fn bulk(&self) {
        let ids: Vec<String> = (0..2 + self.rng.below(10)).map(|_| self.id("bulk")).collect();
        let mut lines = String::new();
        for id in &ids {
            self.mark("tries", id);
            let (data, source) = (data(id), SOURCE);
            let event = format!(r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"t","data":{data}}}"#);
            writeln!(lines, "{event}").unwrap();
        }
        std::fs::write(self.bus.outside("lines"), lines).unwrap();
        self.insist(&["emit", "--ndjson", "@lines"]);
        ids.iter().for_each(|id| self.mark("acked", id));
    }

    fn cancel(&self) {
        let id = self.named("far", &["--at", FAR]);
        self.mark("cancels", &id);
        self.insist(&["cancel", "--source", SOURCE, &id]);
        self.mark("cancelled", &id);
    }

    fn group(&self) {
        let name = self.id("more");
        self.bus.run(&["group", "create", &name, "-t", "never", "--from", "now"]).succeeds();
        self.mark("grouped", &name);
        self.idle.borrow_mut().push(name);
    }

    /// A shell line that marks its event and exits with `code`.
    fn handler(&self, verb: &str, code: i32) -> String {
        format!("echo \"{verb} $EVBUS_ID\" >> '{}'; exit {code}", self.recorder.marks().display())
    }

    fn drain(&self) {
        self.insist(&["drain", "-q", "-g", "g", "--shell", &self.handler("ran", 0)]);
        self.recorder.mark("drained");
    }

    /// Events that become dead letters and, sometimes, are redriven.
    fn dead(&self) {
        let id = self.id("bad");
        self.mark("tries", &id);
        self.insist(&emit(&id, &data(&id), "bad"));
        self.mark("acked", &id);
        self.insist(&["drain", "-q", "-g", "d", "--shell", &self.handler("died", 65)]);
        self.recorder.mark("buried");
        if self.rng.chance(0.8) {
            self.recorder.mark("redrives");
            self.insist(&["dead", "redrive", "d", "--all", "--yes"]);
            self.recorder.mark("redriven");
            self.insist(&["drain", "-q", "-g", "d", "--shell", &self.handler("ran", 0)]);
            self.recorder.mark("drained");
        }
    }

    fn events(&self) -> usize {
        self.bus.run(&["ls", "--json", "--limit", "0"]).succeeds().out.lines().count()
    }

    /// Prunes what the groups have processed. They pass an event only when the bus's lag has gone
    /// by since it came: the drain waits that long for the second attempt of an event that fails
    /// once; at random only half of the pause.
    fn prune(&self) {
        let id = self.named("again", &[]);
        let (again, ran) = (self.bus.outside("again"), self.handler("ran", 0));
        let once = format!("[ $EVBUS_ID != {id} ] || [ -e {0} ] || {{ touch {0}; exit 1; }}; {ran}", again.display());
        self.bus.run(&["drain", "-q", "-g", "g", "--wait", "--backoff", "4200ms..4200ms", "--shell", &once]).succeeds();
        self.recorder.mark("drained");
        for group in ["g", "d"] {
            self.insist(&["drain", "-q", "-g", group, "--shell", &ran]);
            self.recorder.mark("drained");
        }
        // These groups would hold back the events since they were made.
        for name in self.idle.take() {
            self.mark("removes", &name);
            self.bus.run(&["group", "rm", "--yes", &name]).succeeds();
        }
        self.recorder.mark("prunes");
        let before = self.events();
        self.insist(&["prune", "--keep", "0s", "--yes"]);
        assert!(self.events() < before, "nothing was pruned of {before} events");
    }
}

/// Whether a mark promises something that must not be lost from then on.
pub fn promises(mark: &str) -> bool {
    let promises = ["acked", "drained", "buried", "redriven", "cancelled", "grouped"];
    promises.contains(&mark.split(' ').next().unwrap_or_default())
}

fn data(id: &str) -> String {
    format!(r#"{{"of":"{id}"}}"#)
}

fn emit<'a>(id: &'a str, data: &'a str, type_: &'a str) -> [&'a str; 7] {
    ["emit", "--source", SOURCE, "--id", id, type_, data]
}
