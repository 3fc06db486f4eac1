//! What one commit says, what it allows, and which requests go into it.

use std::time::Duration;

use super::met_segments::MetSegments;
use super::{Commit, Followup, Shard, Succeeded};
use crate::bus::to_json_line;
use crate::group::lease::Lease;
use crate::group::request;
use crate::group::request::Folded;
use crate::store::Version;

impl Shard {
    /// Whether a commit must be sent now.
    pub fn must_commit(&self, lease: Lease, gap: Duration, now: Duration) -> bool {
        !self.committing
            && (lease.heartbeat_at(self.commit_sent) <= now
                || (self.dirty && (self.commit_ended + gap <= now || self.running.is_empty())))
    }

    /// The marker as it is to be written now.
    pub fn commit(&mut self, nonce: String) -> Commit {
        self.marker.nonce.clone_from(&nonce);
        self.committing = true;
        self.sent_unclean = self.marker.unclean;
        self.dirty = false;
        let launches = self.running.iter().filter(|(_, run)| run.alone && !run.launched);
        let launches = launches.map(|(name, _)| name.clone()).collect();
        let dead_letters = self.marker.pending.iter().filter(|(_, pending)| {
            pending.new_dead_letter.as_ref().is_some_and(|letter| !self.writing_dead_letters.contains(letter))
        });
        let dead_letters = dead_letters.map(|(name, pending)| (name.clone(), pending.clone())).collect();
        let released = self.marker.owner.is_none();
        self.in_flight = Followup { launches, dead_letters, deletes: std::mem::take(&mut self.deletes), released };
        let bytes = to_json_line(&self.marker);
        Commit { bytes, epoch: self.marker.epoch, nonce, version: self.version.clone() }
    }

    /// The commit is durable. Returns what it allows.
    pub fn committed(&mut self, version: Version, sent: Duration, now: Duration) -> Followup {
        self.version = Some(version);
        self.commit_sent = sent;
        self.commit_ended = now;
        self.committing = false;
        self.durable_unclean = self.sent_unclean;
        let then = std::mem::take(&mut self.in_flight);
        self.writing_dead_letters
            .extend(then.dead_letters.iter().filter_map(|(_, pending)| pending.new_dead_letter.clone()));
        then
    }

    /// Folds requests in. Returns whether a reset was among them, so that all runs must end.
    /// They were listed while this worker owned the shard: none has been folded in and deleted by
    /// another, and one that is missing is gone.
    pub fn fold(&mut self, pending: &[request::PendingRequest]) -> bool {
        let mut reset = false;
        let number = self.number;
        for asked in pending.iter().filter(|asked| asked.shard == number) {
            let Some(request) = &asked.request else { continue };
            // Events that run have their places in `pending` already.
            let reserved = self.pending_len() - self.marker.pending.len();
            let room = self.bounds.capacity().saturating_sub(reserved);
            match request::fold(&mut self.marker, &asked.id, request, room) {
                Folded::Changed => {
                    match request {
                        request::Request::Reset { .. } => {
                            self.forget_everything();
                            reset = true;
                        }
                        request::Request::Share { .. } | request::Request::Redrive { .. } => {}
                    }
                    self.deletes.push(asked.key.clone());
                    self.dirty = true;
                }
                Folded::Before => {
                    if !self.deletes.contains(&asked.key) {
                        self.deletes.push(asked.key.clone());
                        self.dirty = true;
                    }
                }
                Folded::NotYet => {}
            }
        }
        // An id is kept until its request is seen to be gone.
        self.marker.folded.retain(|id| pending.iter().any(|asked| asked.id == *id));
        reset
    }

    /// Ends all runs: another worker owns the shard now, or will.
    pub fn fenced(&mut self) {
        self.forget_everything();
    }

    /// Whether runs were forgotten whose handlers must be ended.
    pub fn take_cancelled(&mut self) -> bool {
        std::mem::take(&mut self.cancelled)
    }

    fn forget_everything(&mut self) {
        self.listing = None;
        self.waiting.clear();
        self.unconfirmed.clear();
        self.withheld.clear();
        self.met = MetSegments::default();
        self.order_keys.clear();
        self.writing_dead_letters.clear();
        self.succeeded = Succeeded::default();
        let running = std::mem::take(&mut self.running);
        self.cancelled |= running.iter().any(|(_, run)| run.launched);
    }
}
