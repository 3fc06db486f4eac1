//! What operators and other workers ask of a group: requests, and changes of its definition.

use std::sync::Arc;
use std::time::Duration;

use super::{Command, ControlRequests, Engine, Shard};
use crate::group::definition::Registered;
use crate::group::request::PendingRequest;
use crate::group::worker_event::WorkerEvent;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The requests and the definition are not read more often than this, unless something hints at
/// them.
const LEAST_PAUSE: Duration = Duration::from_secs(4);

/// What is known of the requests, and when to read them again.
pub(super) struct Control {
    /// The requests of the last answer.
    pub pending: Vec<PendingRequest>,
    pub asking: bool,
    /// How many listings of the requests were sent.
    pub asked: u64,
    /// The number of the last one that was answered, and not by an error.
    pub answered: u64,
    pub ask_at: Duration,
    pub asked_last: Duration,
    /// When the markers of idle shards are to be read again.
    pub idle_check_at: Duration,
    pub define_at: Duration,
    pub defining: bool,
}

impl Control {
    /// Reads the requests at once, and the definition after `poll`.
    pub fn new(begun: Duration, poll: Duration) -> Self {
        Self {
            pending: Vec::new(),
            asking: false,
            asked: 0,
            answered: 0,
            ask_at: begun,
            asked_last: begun,
            idle_check_at: begun,
            define_at: begun + poll.max(LEAST_PAUSE),
            defining: false,
        }
    }
}

impl Engine {
    pub(super) fn plan_questions(&mut self) {
        let now = self.now();
        if self.ending() && !self.draining() {
            return;
        }
        let pause = self.poll_range().1.max(LEAST_PAUSE);
        if !self.control.asking && self.ask_at() <= now {
            self.control.asking = true;
            self.control.asked += 1;
            self.control.asked_last = now;
            self.control.ask_at = now + pause;
            if self.draining() && !self.waits() {
                self.control.ask_at = Duration::MAX;
            }
            let idle = self.idle_to_check(now);
            self.command(Command::ReadRequests { idle });
        }
        if !self.control.defining && self.control.define_at <= now {
            self.control.defining = true;
            self.control.define_at = now + pause;
            self.command(Command::ReadDefinition);
        }
    }

    /// The idle shards whose markers are to be read again: once in a poll, with or without hints.
    fn idle_to_check(&mut self, now: Duration) -> Vec<u16> {
        if now < self.control.idle_check_at {
            return Vec::new();
        }
        self.control.idle_check_at = now + self.poll_range().1;
        let idle = self.shards.iter().enumerate().filter(|(_, shard)| shard.idle && shard.owned.is_none());
        idle.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }

    pub(super) fn take_requests(&mut self, asked: StoreResult<ControlRequests>) {
        self.control.asking = false;
        let now = self.now();
        let Some(asked) = self.answer(asked) else {
            self.control.ask_at = now + Duration::from_secs(1);
            return;
        };
        self.control.answered = self.control.asked;
        self.control.pending = asked.pending;
        self.rebalance();
        for shard in asked.woken {
            self.shards[usize::from(shard)].wake(now);
        }
        for at in 0..self.shards.len() {
            let requested = self.is_requested(at);
            let slot = &mut self.shards[at];
            if let Some(shard) = slot.owned.as_deref_mut().filter(|shard| !shard.releasing) {
                if shard.requests_before >= self.control.asked {
                    self.read_requests_anew(at);
                } else if shard.fold(&self.control.pending) {
                    slot.scan_at = now;
                    self.cancel_forgotten(at);
                }
            } else if requested {
                slot.idle = false;
                slot.seen = false;
                slot.scan_at = now;
            }
        }
    }

    /// Whether the last listing showed a request for a shard.
    pub(super) fn is_requested(&self, at: usize) -> bool {
        self.control.pending.iter().any(|asked| usize::from(asked.shard) == at)
    }

    /// Reads the requests again if the shard has any: those that are known were listed before it
    /// was acquired. Its owner of that time may have folded them in, and forgotten their ids when
    /// it had deleted them, so that they would be folded in twice.
    pub(super) fn read_requests_anew(&mut self, at: usize) {
        if self.is_requested(at) {
            self.control.ask_at = self.now();
        }
    }

    /// Whether every owned shard has folded in what the requests ask of it.
    pub(super) fn requests_are_known(&self) -> bool {
        !self.control.asking && self.owned_shards().all(|shard| !self.awaits_requests(shard))
    }

    /// Whether what the requests ask of an owned shard is still to be folded in.
    pub(super) fn awaits_requests(&self, shard: &Shard) -> bool {
        shard.requests_before >= self.control.answered && self.is_requested(usize::from(shard.number))
    }

    pub(super) fn take_definition(&mut self, registered: StoreResult<Option<Registered>>) {
        self.control.defining = false;
        let Some(found) = self.answer(registered) else { return };
        let Some(registered) = found else {
            return self.fail(format!("group '{}' was removed", self.group));
        };
        self.redefine(registered);
    }

    /// Works by a new definition of the group from now on.
    pub(super) fn redefine(&mut self, registered: Registered) {
        if registered == self.registered {
            return;
        }
        if registered.definition.created != self.registered.definition.created {
            return self.fail(format!("group '{}' was removed and made anew", self.group));
        }
        let was = self.paused();
        match registered.definition.filter(&self.group) {
            Ok(filter) => {
                let filter = Arc::new(filter);
                if filter != self.filter {
                    self.report(WorkerEvent::Redefined { filter: Arc::clone(&filter) });
                }
                self.filter = Arc::clone(&filter);
                self.command(Command::Redefine { registered: registered.clone(), filter });
            }
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        }
        self.registered = registered;
        if was != self.paused() {
            self.report(WorkerEvent::Paused { paused: self.paused() });
        }
        let now = self.now();
        for slot in &mut self.shards {
            if let Some(shard) = &mut slot.owned {
                shard.forget_unwanted();
            }
            slot.wake(now);
        }
    }

    /// The worker cannot go on.
    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(StoreError::new(ErrorKind::Unfit, what));
    }
}
