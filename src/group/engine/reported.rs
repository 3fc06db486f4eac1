//! What was reported already, and is not reported again until it has ended.

use super::Engine;
use super::shard::Shard;
use crate::group::marker::Owner;
use crate::group::worker_event::WorkerEvent;

/// Which conditions were reported.
#[derive(Default)]
pub(super) struct Reported {
    foreign: bool,
    other_command: bool,
    isolating: bool,
    full: bool,
}

impl Engine {
    /// A foreign name lies among the events.
    pub(super) fn report_foreign(&mut self, key: &str) {
        if !std::mem::replace(&mut self.reported.foreign, true) {
            self.report(WorkerEvent::Foreign { key: key.to_owned() });
        }
    }

    /// Another live worker of the group runs another command.
    pub(super) fn report_other_command(&mut self, owner: &Owner) {
        if !std::mem::replace(&mut self.reported.other_command, true) {
            self.report(WorkerEvent::OtherCommand { owner: owner.clone() });
        }
    }

    /// Handlers run alone from now on, or side by side again.
    pub(super) fn report_isolating(&mut self, isolating: bool) {
        if !std::mem::replace(&mut self.reported.isolating, isolating) && isolating {
            self.report(WorkerEvent::Isolating);
        }
    }

    /// A full `pending` stops the intake, which must not happen silently.
    pub(super) fn report_full(&mut self) {
        let full = self.owned_shards().any(Shard::stalled_full);
        if full && !self.reported.full {
            let most = self.settings.bounds.capacity();
            let why = format!("{most} events are open; nothing new starts until some are done");
            self.report(WorkerEvent::Stalled { obstacle: why.into() });
        }
        self.reported.full = full;
    }
}
