//! What must be there after a power cut, and whether it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bus::{DiskBus, EvbusRun};
use super::workload::{FAR, SOURCE};

/// The marks until the cut, by meaning.
#[derive(Default)]
pub struct ExpectedState {
    made: bool,
    acked: BTreeSet<String>,
    /// Events for which a handler ran.
    ran: BTreeSet<String>,
    died: BTreeSet<String>,
    /// Events whose drain has ended: they must not run again.
    done: BTreeSet<String>,
    /// Events that must be among the dead letters.
    dead: BTreeSet<String>,
    /// Events that may have been redriven.
    redriving: BTreeSet<String>,
    redriven: BTreeSet<String>,
    /// Events that may have been pruned.
    goes: BTreeSet<String>,
    cancelling: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl ExpectedState {
    pub fn new<'a>(marks: impl Iterator<Item = &'a str>) -> Self {
        let mut expected = Self::default();
        for mark in marks {
            let (verb, of) = mark.split_once(' ').unwrap_or((mark, ""));
            expected.apply(verb, of.to_owned());
        }
        expected
    }

    fn apply(&mut self, verb: &str, of: String) {
        match verb {
            "made" => self.made = true,
            "acked" => _ = self.acked.insert(of),
            "ran" => _ = self.ran.insert(of),
            "died" => _ = self.died.insert(of),
            "drained" => self.done.clone_from(&self.ran),
            "buried" => self.dead = &self.died - &self.ran,
            "redrives" => self.redriving.append(&mut std::mem::take(&mut self.dead)),
            "redriven" => self.redriven.clone_from(&self.redriving),
            "prunes" => self.goes = &self.ran | &self.died,
            "cancels" => _ = self.cancelling.insert(of),
            "cancelled" => _ = self.cancelled.insert(of),
            "grouped" => _ = self.groups.insert(of),
            "removes" => _ = self.groups.remove(&of),
            _ => {}
        }
    }

    /// The newest named event that a second emit must find; events with a due time are left out.
    fn newest_named(&self) -> Option<&String> {
        let named = |id: &str| id.starts_with(char::is_alphabetic) && !id.starts_with("soon");
        let kept = |id: &&String| named(id) && !self.goes.contains(*id) && !self.cancelling.contains(*id);
        self.acked.iter().filter(kept).max_by_key(|id| id.rsplit('-').next().and_then(|n| n.parse::<u32>().ok()))
    }
}

/// Every id that was ever emitted: no other may appear.
pub fn known<'a>(marks: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    marks.filter_map(|mark| mark.strip_prefix("tries ").or_else(|| mark.strip_prefix("acked "))).collect()
}

/// What is wrong with a bus after the cut.
pub fn judge(expected: &ExpectedState, known: &BTreeSet<&str>, disk: &Path, home: &Path) -> Vec<String> {
    if !expected.made {
        return Vec::new();
    }
    let mut inspection = BusInspection { bus: DiskBus::new(disk, home), disk: disk.to_owned(), wrong: Vec::new() };
    inspection.at_events(expected, known);
    inspection.at_groups(expected);
    inspection.at_repeats(expected);
    inspection.at_work(expected);
    inspection.wrong
}

struct BusInspection {
    bus: DiskBus,
    disk: PathBuf,
    wrong: Vec<String>,
}

impl BusInspection {
    fn run(&mut self, args: &[&str]) -> EvbusRun {
        let ran = self.bus.run(args);
        if ran.code != Some(0) {
            self.wrong.push(format!("evbus {} exits with {:?}: {}", args.join(" "), ran.code, ran.err.trim()));
        }
        ran
    }

    /// JSON documents, one per line.
    fn documents(&mut self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(args);
        ran.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn waiting(&mut self) -> Vec<Value> {
        self.documents(&["ls", "--scheduled", "--json", "--limit", "0"])
    }

    fn ids(&mut self, args: &[&str]) -> BTreeSet<String> {
        self.documents(args).iter().map(|document| text(document, "/id")).collect()
    }

    fn letters(&mut self, expected: &ExpectedState) -> BTreeSet<String> {
        if expected.groups.contains("d") { self.ids(&["dead", "ls", "d", "--json"]) } else { BTreeSet::new() }
    }

    /// Reports each of them as wrong.
    fn none(&mut self, all: impl IntoIterator<Item = String>, what: &str) {
        self.wrong.extend(all.into_iter().map(|id| format!("{id} {what}")));
    }

    /// Checks the events on the bus.
    fn at_events(&mut self, expected: &ExpectedState, known: &BTreeSet<&str>) {
        let there = [self.documents(&["ls", "--json", "--limit", "0"]), self.waiting()].concat();
        let strange = |event: &&Value| {
            let (id, of) = (text(event, "/id"), text(event, "/data/of"));
            !known.contains(id.as_str()) || of != id && of != "single"
        };
        self.none(there.iter().filter(strange).map(Value::to_string), "was never emitted");
        let there = there.iter().map(|event| text(event, "/id")).collect();
        let kept = &(&expected.acked - &expected.goes) - &expected.cancelling;
        self.none(&kept - &there, "was acknowledged and is not there");
        let back = &expected.cancelled & &there;
        let decided = if back.is_empty() { BTreeSet::new() } else { cancelled(&self.disk.join("bus/timed")) };
        self.none(&back - &decided, "was cancelled and will come");
    }

    /// Checks the groups and their dead letters.
    fn at_groups(&mut self, expected: &ExpectedState) {
        let groups = self.run(&["group", "ls", "--json"]).out;
        let groups: Value = serde_json::from_str(&groups).unwrap_or_default();
        let groups = groups["groups"].as_array().into_iter().flatten().map(|group| text(group, "/group")).collect();
        self.none(&expected.groups - &groups, "was made as a group and is not there");
        let letters = self.letters(expected);
        self.none(&expected.dead - &letters, "was a dead letter and is none");
    }

    /// An acknowledged event is not added again. An emit that was killed before may have left a
    /// copy.
    fn at_repeats(&mut self, expected: &ExpectedState) {
        let Some(id) = expected.newest_named() else { return };
        let type_ = if id.starts_with("bad") { "bad" } else { "t" };
        let at = if id.starts_with("far") { &["--at", FAR][..] } else { &[] };
        let before = self.copies(id);
        let data = format!(r#"{{"of":"{id}"}}"#);
        self.run(&[&["emit", "-q", "--source", SOURCE, "--id", id, type_, &data], at].concat());
        let after = self.copies(id);
        if before != after {
            self.wrong.push(format!("{id} was acknowledged {before} times, emitted again, and is there {after} times"));
        }
    }

    fn copies(&mut self, id: &str) -> usize {
        let there = [self.documents(&["ls", "--json", "--limit", "0"]), self.waiting()].concat();
        there.iter().filter(|event| text(event, "/id") == id).count()
    }

    /// Checks what runs when work goes on.
    fn at_work(&mut self, expected: &ExpectedState) {
        let after = self.bus.outside("after");
        let _ = std::fs::remove_file(&after);
        for (group, filter) in [("g", "--not"), ("d", "--type")] {
            let handler = format!("echo $EVBUS_ID >> '{}'", after.display());
            let args = ["drain", "-q", "-g", group, "--from", "earliest", filter, "bad", "--shell", &handler];
            self.run(&args);
        }
        let text = std::fs::read_to_string(&after).unwrap_or_default();
        let after: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let letters = self.letters(expected);
        let due = expected.acked.iter().filter(|id| !id.starts_with("far")).cloned().collect();
        let seen = &(&expected.ran | &after) | &letters;
        self.none(&due - &seen, "was acknowledged and is never run");
        self.none(&(&expected.redriven - &expected.ran) - &after, "was put back to work and is not run");
        // A request to redrive that was removed when it was done may come back, and is done again.
        self.none(&(&expected.done - &expected.redriving) & &after, "was done and is run again");
        self.run(&["status"]);
    }
}

fn text(document: &Value, pointer: &str) -> String {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Cancelled entries that are still there beside their decision: a cancel does not flush its
/// deletes.
fn cancelled(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut cancelled(&path));
        } else if std::fs::read_to_string(path.with_added_extension("decided"))
            .is_ok_and(|text| text.contains("cancel"))
        {
            let event = std::fs::read(&path).unwrap_or_default();
            found.extend(serde_json::from_slice(&event).ok().map(|event: Value| text(&event, "/id")));
        }
    }
    found
}
