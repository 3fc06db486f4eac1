//! What a worker does while the store is away, refuses, or is full: it says so once, waits, and
//! goes on when the store works again. A drain gives up after a while, and so does a worker that
//! was told to stop: its successor acquires its shards once its leases are over.

use std::time::Duration;

use super::{Engine, Mode};
use crate::group::worker_event::WorkerEvent;
use crate::store::ErrorKind;
use crate::store::{StoreError, StoreResult};

/// How long a drain waits for a store that refuses, or has no room.
const REFUSED: Duration = Duration::from_secs(3);

/// How long without any answer a worker that was told to stop still waits for one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The store's current error, if there is one.
pub(super) struct Trouble {
    error: Option<StoreError>,
    /// Only a write can show that it is over: a store that is full or read-only can still be read.
    writing: bool,
    since: Duration,
    /// Whether an event could not be read, which was reported.
    unread: bool,
    /// When the last answer came.
    pub(super) last_answer_at: Duration,
}

impl Trouble {
    pub(super) fn new(begun: Duration) -> Self {
        Self { error: None, writing: false, since: begun, unread: false, last_answer_at: begun }
    }

    /// Whether the store is away, refuses, or is full.
    pub(super) fn is_on(&self) -> bool {
        self.error.is_some()
    }
}

/// Whether the error can be repaired without a restart of this worker: also a bus that is gone comes back, when a backup is
/// restored. Any other error ends a worker: its group is gone, or its bus holds something that cannot be read.
pub(in crate::group) fn can_be_mended(error: &StoreError) -> bool {
    use ErrorKind::{Damaged, Denied, Full, NoBus, NotDurable, Other, Unavailable, Unfit};
    match error.kind() {
        Unavailable | Denied | Full | NotDurable | NoBus | Other => true,
        Damaged | Unfit => false,
    }
}

/// Whether the same write can be sent again, once the error is repaired.
pub(in crate::group) fn can_be_repeated(error: &StoreError) -> bool {
    can_be_mended(error) && error.kind() != ErrorKind::NotDurable
}

impl Engine {
    /// Returns the answer, if one came. A missing answer is reported once; an error that cannot be
    /// repaired ends the worker.
    pub(super) fn answer<T>(&mut self, answer: StoreResult<T>) -> Option<T> {
        self.answer_of(answer, false)
    }

    /// [`Engine::answer`] of an operation that may have written.
    pub(super) fn answer_of<T>(&mut self, answer: StoreResult<T>, wrote: bool) -> Option<T> {
        match answer {
            Ok(value) => {
                if wrote || !self.trouble.writing {
                    self.store_is_back();
                }
                Some(value)
            }
            Err(error) if can_be_mended(&error) => {
                self.store_is_away(error, wrote);
                None
            }
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    fn store_is_back(&mut self) {
        self.trouble.writing = false;
        if self.trouble.error.take().is_some() {
            self.report(WorkerEvent::GoesOn);
        }
    }

    pub(super) fn store_is_away(&mut self, error: StoreError, writing: bool) {
        self.trouble.writing |= writing;
        if self.trouble.error.is_none() {
            self.report(WorkerEvent::Unreachable { error: error.clone() });
            self.trouble.since = self.now();
            self.trouble.error = Some(error);
        }
    }

    /// An event could not be read: said once, not for each event.
    pub(super) fn report_unread(&mut self, why: &str) {
        if !std::mem::replace(&mut self.trouble.unread, true) {
            self.report(WorkerEvent::Stalled { obstacle: why.to_owned().into() });
        }
    }

    /// An event could be read.
    pub(super) fn was_read(&mut self) {
        self.trouble.unread = false;
    }

    /// When a store that is away is given up; none: never.
    pub(super) fn gives_up_at(&self) -> Option<Duration> {
        let stopped = self
            .shutdown
            .since
            .map(|at| if self.shutdown.handlers_stopped { at } else { at + self.settings.stop_timeout });
        if self.trouble.error.is_none() {
            // Requests that are never answered count like errors.
            return stopped.map(|at| at.max(self.trouble.last_answer_at + ANSWER_TIMEOUT));
        }
        let timeout = match self.trouble.error.as_ref().map(StoreError::kind) {
            Some(ErrorKind::Unavailable) => self.settings.lease.length,
            _ => REFUSED,
        };
        let drain = match self.settings.mode {
            Mode::Watch => None,
            Mode::Drain { span, .. } => {
                let most = span.map(|span| self.begun + span);
                let gives_up = self.trouble.since + timeout;
                Some(most.map_or(gives_up, |most| most.min(gives_up)))
            }
        };
        [stopped, drain].into_iter().flatten().min()
    }

    /// Whether the worker ends although it has not released its shards.
    pub(super) fn gives_up(&self) -> bool {
        self.running() == 0 && self.gives_up_at().is_some_and(|at| self.now() >= at)
    }

    /// Why it has given up.
    pub(super) fn given_up(&mut self) -> StoreError {
        let error = self.trouble.error.take().or_else(|| self.releases.failure.take());
        error.map_or_else(|| StoreError::new(ErrorKind::Unavailable, "no answer from the bus"), StoreError::given_up)
    }
}
