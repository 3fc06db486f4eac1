//! Scheduled entries: when the next is due, and releasing it. Any worker does that, of any group.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Command, Engine};
use crate::bus::schedule::Released;
use crate::event::{EventName, EventTime};
use crate::group::worker_event::WorkerEvent;
use crate::store::{StoreError, StoreResult};

/// How long entries that another worker is releasing are left to it.
const OTHERS: Duration = Duration::from_secs(10);

/// The pause after a release that has failed for good.
const FAILED: Duration = Duration::from_secs(60);

/// What a worker knows of the scheduled entries.
#[derive(Default)]
pub(super) struct Releases {
    /// When the next one is due.
    next: Option<EventTime>,
    /// When to look for entries in any case.
    scan_at: Duration,
    last_scan: Option<Duration>,
    running: bool,
    /// The entries that other workers were releasing when this worker last looked.
    others: BTreeSet<EventName>,
    /// The problem that was reported last.
    reported: Option<String>,
    /// Why the last release failed, if it did.
    pub(super) failure: Option<StoreError>,
}

impl Releases {
    /// Looks for the first time at `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { scan_at: now, ..Self::default() }
    }

    /// Whether the entries have been looked at: a drain leaves none behind that was due when it
    /// began.
    pub(super) fn seen(&self) -> bool {
        self.last_scan.is_some() && !self.running
    }
}

impl Engine {
    /// When to release entries that are due, or to look for them.
    pub(super) fn release_at(&self, now: Duration) -> Duration {
        // A drain looks once.
        if self.releases.running || (self.draining() && self.releases.last_scan.is_some()) {
            return Duration::MAX;
        }
        let due = self.releases.next.map(|next| now + next.since(self.wall()));
        due.map_or(self.releases.scan_at, |due| due.min(self.releases.scan_at))
    }

    pub(super) fn plan_releases(&mut self) {
        let now = self.now();
        if self.is_stopping() || self.release_at(now) > now {
            return;
        }
        self.releases.running = true;
        self.releases.last_scan = Some(now);
        let others = (!self.draining()).then(|| self.releases.others.clone());
        self.command(Command::ReleaseScheduled { others });
    }

    pub(super) fn take_released(&mut self, released: StoreResult<Released>) {
        let now = self.now();
        self.releases.running = false;
        self.releases.next = None;
        self.releases.failure = None;
        self.releases.scan_at = now + self.poll_range().1;
        let released = match released {
            Ok(released) => released,
            Err(error) if error.kind() == crate::store::ErrorKind::Unavailable => {
                self.answer::<()>(Err(error));
                self.releases.scan_at = now + Duration::from_secs(2);
                // A drain ends only once it has an answer on what is due.
                self.releases.last_scan = None;
                return;
            }
            Err(error) => {
                self.releases.scan_at = now + FAILED;
                self.report_release(format!("what was due cannot be released: {error}"));
                self.releases.failure = Some(error);
                return;
            }
        };
        match released.foreign {
            Some(key) => self.report_release(format!("{key} is no event that could be released")),
            None => self.releases.reported = None,
        }
        if !released.others.is_empty() {
            self.releases.scan_at = self.releases.scan_at.min(now + OTHERS);
        }
        self.releases.others = released.others;
        self.releases.next = released.next;
        if released.events > 0 {
            // A worker gets no hints of its own writes.
            self.hint();
            for slot in &mut self.shards {
                slot.wake(now);
                slot.seen = false;
            }
        }
    }

    fn report_release(&mut self, why: String) {
        if self.releases.reported.as_ref() != Some(&why) {
            self.report(WorkerEvent::Stalled { obstacle: why.clone().into() });
            self.releases.reported = Some(why);
        }
    }

    /// Takes in what a poll has shown of the scheduled entries; none if it does not show them.
    pub(super) fn scheduled_seen(&mut self, shown: Option<Option<EventTime>>, now: Duration) {
        match shown {
            Some(next) if self.releases.others.is_empty() => {
                self.releases.next = next;
                // While a window is full there are no polls.
                self.releases.scan_at = now + self.poll_range().1 + Duration::from_secs(5);
            }
            Some(_) => {}
            // Where a listing of the entries costs nothing it is made by itself, but not for each
            // event.
            None if self.profile.scans_folders => {
                let soon = self.releases.last_scan.map_or(now, |last| (last + Duration::from_secs(1)).max(now));
                self.releases.scan_at = self.releases.scan_at.min(soon);
            }
            None => {}
        }
    }
}
