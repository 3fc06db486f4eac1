//! The end of a worker: told to stop, or, as a drain, with nothing left to do.

use std::time::Duration;

use super::shard::Next;
use super::{Command, Engine, Mode, ShardSlot, Stop};

/// How far the worker was told to stop.
#[derive(Default)]
pub(super) struct Shutdown {
    pub level: Stop,
    /// Whether handlers were told that nothing more comes.
    pub is_told: bool,
    /// Since when their time to end is limited.
    pub since: Option<Duration>,
    /// Whether the running handlers were ended, too.
    pub handlers_stopped: bool,
}

impl Engine {
    /// A second stop, or a stop that takes too long, ends the handlers too.
    pub(super) fn follow_stop(&mut self) {
        if self.shutdown.level == Stop::No {
            // Members could keep their runs for as long as they like.
            if self.failure.is_some() && self.settings.runs_elsewhere && !self.shutdown.handlers_stopped {
                self.shutdown.handlers_stopped = true;
                self.command(Command::EndHandlers);
                self.command(Command::StopHandlers);
            }
            return;
        }
        if !std::mem::replace(&mut self.shutdown.is_told, true) {
            self.command(Command::EndHandlers);
        }
        if self.shutdown.level == Stop::AfterRuns {
            return;
        }
        let now = self.now();
        let since = *self.shutdown.since.get_or_insert(now);
        let late = now.saturating_sub(since) >= self.settings.stop_timeout;
        if (self.shutdown.level == Stop::Handlers || late) && !self.shutdown.handlers_stopped {
            self.shutdown.handlers_stopped = true;
            self.command(Command::StopHandlers);
        }
    }

    /// Whether the worker must acquire nothing more, because it was told to stop or has failed.
    pub(super) fn is_stopping(&self) -> bool {
        self.failure.is_some() || self.shutdown.level != Stop::No
    }

    /// Whether no new handler may start.
    pub(super) fn no_more_starts(&self) -> bool {
        if self.paused() || self.is_stopping() {
            return true;
        }
        match self.settings.mode {
            Mode::Watch => false,
            Mode::Drain { most, span, .. } => {
                self.summary.stalled.is_some()
                    || most.is_some_and(|most| self.started >= most)
                    || span.is_some_and(|span| self.now().saturating_sub(self.begun) >= span)
            }
        }
    }

    /// Whether the worker is to end as soon as nothing runs any more.
    pub(super) fn ending(&self) -> bool {
        self.is_stopping() || (self.draining() && (self.no_more_starts() || self.drained()))
    }

    /// Whether every shard was scanned, and none is being scanned.
    pub(super) fn scanned_everywhere(&self) -> bool {
        self.shards.iter().all(|shard| shard.seen && !shard.scanning)
    }

    /// Whether a drain has seen everything and found nothing more that is due.
    fn drained(&self) -> bool {
        let idle = self.owned_shards().all(|shard| {
            !shard.busy()
                && !shard.wants_more()
                && !shard.has_unconfirmed()
                && !shard.holds()
                && self.quiet_next(shard).is_none()
                && self.next_of(shard) == Next::Nothing
        });
        let waits = self.waits() && !self.shards.iter().all(|shard| shard.owned.is_none() && shard.idle);
        let waits = waits && !self.shards.iter().all(settled);
        self.scanned_everywhere()
            && idle
            && !waits
            && self.reading_keys.is_empty()
            && self.requests_are_known()
            && self.releases.seen()
    }

    /// Whether every shard is released, and every command carried out.
    pub(super) fn finished(&self) -> bool {
        self.ending() && self.shards.iter().all(|shard| shard.owned.is_none()) && self.in_flight == 0
    }
}

/// Whether a drain need not wait for the shard any more.
fn settled(slot: &ShardSlot) -> bool {
    match &slot.owned {
        Some(shard) => shard.marker.pending.is_empty() && shard.waiting_len() == 0 && !shard.holds(),
        None => !slot.is_held,
    }
}
