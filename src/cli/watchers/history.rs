//! Notes what workers have run, and writes it to the bus now and then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::bus::BusHandle;
use crate::cli::output;
use crate::cli::session::Opened;
use crate::config::{KeptHistory, Location, Watcher};
use crate::event::EventName;
use crate::group::GroupName;
use crate::group::history::{self, HistoryEntry, HistoryLimits, RunEnd};
use crate::group::worker_event::{EndedRun, Reporter, WorkerEvent};

/// How long entries are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// More entries than this are not kept in memory until they are written: about as many are kept on the bus.
const MOST: usize = 10_000;

/// After so many objects old ones are joined and deleted.
const TIDY_AFTER: u32 = 32;

/// The most lines of a run's output that are kept, and the most characters of one.
const LINES: usize = 10;
const LINE_CHARS: usize = 300;

/// How much of what a watcher runs is kept on its bus; none: nothing.
fn limits(watcher: &Watcher, opened: &Opened) -> Option<HistoryLimits> {
    match watcher.history {
        Some(KeptHistory::Within(limits)) => Some(limits),
        Some(KeptHistory::None) => None,
        // Elsewhere each object is a request.
        None => matches!(opened.address.location, Location::Dir(_)).then(HistoryLimits::default),
    }
}

/// Whether anything is kept.
pub(super) fn is_kept(watcher: &Watcher, opened: &Opened) -> bool {
    limits(watcher, opened).is_some()
}

/// What one group's runs have left to be written.
struct GroupHistory {
    limits: HistoryLimits,
    /// The watchers of this process that keep it; none: what is noted is still written, and nothing more is noted.
    kept_by: BTreeSet<String>,
    entries: VecDeque<HistoryEntry>,
    /// How many objects were written since the last tidying; many at first.
    written: u32,
}

/// A reporter that notes runs for those that are kept, and reports to another.
pub(in crate::cli) struct HistoryKeeper {
    next: Rc<dyn Reporter>,
    bus: BusHandle,
    worker: String,
    groups: RefCell<BTreeMap<GroupName, GroupHistory>>,
    wake: Notify,
    has_warned: Cell<bool>,
}

impl HistoryKeeper {
    /// Keeps nothing until it is told of watchers.
    pub(in crate::cli) fn new(next: Rc<dyn Reporter>, opened: &Opened) -> Rc<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Rc::new(Self {
            next,
            bus: opened.bus_handle().clone(),
            worker: format!("{host}:{}", std::process::id()),
            groups: RefCell::default(),
            wake: Notify::new(),
            has_warned: Cell::new(false),
        })
    }

    /// Keeps from now on what a watcher's settings say of its group. Of several watchers of one group those that keep none
    /// report no runs.
    pub(in crate::cli) fn keep_for(&self, watcher: &Watcher, opened: &Opened) {
        let mut groups = self.groups.borrow_mut();
        let found = groups.get_mut(&watcher.group);
        match (limits(watcher, opened), found) {
            (Some(limits), Some(history)) => {
                history.limits = limits;
                history.kept_by.insert(watcher.name.clone());
            }
            (Some(limits), None) => {
                let kept_by = BTreeSet::from([watcher.name.clone()]);
                let history = GroupHistory { limits, kept_by, entries: VecDeque::new(), written: TIDY_AFTER };
                groups.insert(watcher.group.clone(), history);
            }
            (None, Some(history)) => _ = history.kept_by.remove(&watcher.name),
            (None, None) => {}
        }
    }

    /// Writes what was noted, until it is dropped.
    pub(in crate::cli) async fn keep(&self) -> Infallible {
        let clock = &*self.bus.clock;
        loop {
            self.wake.notified().await;
            clock.sleep_until(clock.elapsed() + GATHER).await;
            self.write().await;
        }
    }

    /// Writes what was noted. A bus that does not take it is no trouble: it is tried again with the next.
    pub(in crate::cli) async fn write(&self) {
        let groups: Vec<GroupName> = self.groups.borrow().keys().cloned().collect();
        for group in groups {
            let taken = |history: &mut GroupHistory| (std::mem::take(&mut history.entries), history.limits);
            let Some((entries, limits)) = self.groups.borrow_mut().get_mut(&group).map(taken) else { continue };
            if entries.is_empty() {
                continue;
            }
            let written = history::write(&self.bus, &group, &entries, limits).await;
            if let Err(error) = written {
                if !self.has_warned.replace(true) {
                    output::warn(&format!("{group}: its history is not written: {error}"));
                }
                if let Some(history) = self.groups.borrow_mut().get_mut(&group) {
                    let newer = std::mem::replace(&mut history.entries, entries);
                    history.entries.extend(newer);
                }
                continue;
            }
            self.has_warned.set(false);
            if self.is_due_for_tidying(&group) {
                // What stays is tidied another time.
                let _ = history::tidy(&self.bus, &group, limits).await;
            }
        }
    }

    fn is_due_for_tidying(&self, group: &GroupName) -> bool {
        let mut groups = self.groups.borrow_mut();
        let Some(history) = groups.get_mut(group) else { return false };
        history.written += 1;
        let is_due = history.written >= TIDY_AFTER;
        history.written = if is_due { 0 } else { history.written };
        is_due
    }

    fn note(&self, group: &GroupName, event: &WorkerEvent) {
        let mut groups = self.groups.borrow_mut();
        let Some(history) = groups.get_mut(group).filter(|history| !history.kept_by.is_empty()) else { return };
        let last = |entries: &mut VecDeque<HistoryEntry>, name: &EventName, set: &dyn Fn(&mut HistoryEntry)| {
            if let Some(entry) = entries.iter_mut().rev().find(|entry| entry.event == *name) {
                set(entry);
            }
        };
        match event {
            WorkerEvent::Ran(run) => {
                let entry = self.entry(run);
                history.entries.push_back(entry);
            }
            WorkerEvent::Retrying { name, next, .. } => {
                last(&mut history.entries, name, &|entry| entry.next = Some(*next));
            }
            WorkerEvent::Dead { name, .. } => {
                last(&mut history.entries, name, &|entry| entry.result = RunEnd::Dead);
            }
            WorkerEvent::Superseded { name, by } => {
                let entry = HistoryEntry { by: Some(by.clone()), ..self.blank(name, RunEnd::Superseded) };
                history.entries.push_back(entry);
            }
            _ => return,
        }
        if history.entries.len() > MOST {
            history.entries.pop_front();
        }
        self.wake.notify_one();
    }

    fn blank(&self, name: &EventName, result: RunEnd) -> HistoryEntry {
        HistoryEntry {
            started: self.bus.clock.now(),
            event: name.clone(),
            attempt: 0,
            result,
            seconds: 0.0,
            exit: None,
            why: None,
            next: None,
            by: None,
            events: None,
            output: Vec::new(),
            worker: self.worker.clone(),
        }
    }

    fn entry(&self, run: &EndedRun) -> HistoryEntry {
        let EndedRun { name, attempt, report } = run;
        let result = match &report.outcome {
            outcome if outcome.is_success() => RunEnd::Done,
            crate::handler::Outcome::Stopped => RunEnd::Stopped,
            _ => RunEnd::Failed,
        };
        HistoryEntry {
            started: self.bus.clock.now().minus(report.took),
            attempt: *attempt,
            seconds: report.took.as_secs_f64(),
            exit: report.code(),
            why: (result == RunEnd::Failed).then(|| report.why()),
            events: (report.events > 1).then_some(report.events),
            output: last_lines(&report.stdout_tail, &report.stderr_tail),
            ..self.blank(name, result)
        }
    }
}

/// The last lines of both outputs.
fn last_lines(out: &str, err: &str) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> =
            text.lines().rev().take(LINES).map(|line| line.chars().take(LINE_CHARS).collect()).collect();
        lines.reverse();
        lines
    };
    let (out, err) = (lines(out), lines(err));
    // What a program says of an error is not pushed out by what it has printed.
    let room = LINES - err.len();
    let from = out.len().saturating_sub(room);
    out.into_iter().skip(from).chain(err).collect()
}

impl Reporter for HistoryKeeper {
    fn report(&self, group: &GroupName, event: &WorkerEvent) {
        self.note(group, event);
        self.next.report(group, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_both_outputs_are_kept() {
        let many = |word: &str, count: usize| (0..count).map(|n| format!("{word}{n}\n")).collect::<String>();
        assert_eq!(last_lines("a\nb", "c\n"), ["a", "b", "c"]);
        assert_eq!(last_lines(&many("o", 20), "e\n").len(), LINES);
        assert_eq!(last_lines(&many("o", 20), "e\n")[8..], ["o19", "e"]);
        assert_eq!(last_lines("o\n", &many("e", 20))[0], "e10");
        assert_eq!(last_lines("", &"x".repeat(1_000))[0].len(), LINE_CHARS);
    }
}
