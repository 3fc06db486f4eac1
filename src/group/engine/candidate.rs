//! A shard that this worker does not own, as a scan has shown it, and what to do about it.

/// What is known of the shard and of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Events of it may be unprocessed, or it has requests.
    pub wanted: bool,
    /// It has requests.
    pub requested: bool,
    /// `through` can move, although nothing is to be run.
    pub can_advance: bool,
    /// The marker names an owner.
    pub owned: bool,
    /// The lease allows that the shard is taken, and it is not kept for another worker.
    pub free: bool,
    /// Its owner's process cannot be looked up, and the marker is the one that was seen first: the
    /// owner has neither died nor shown that it lives.
    pub unknown: bool,
    /// The group is paused.
    pub paused: bool,
    /// The worker must acquire nothing more.
    pub ending: bool,
    /// The worker is a drain.
    pub draining: bool,
}

/// What to do about a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcquireDecision {
    /// Acquire it.
    Acquire,
    /// Scan it again soon, before the drain counts it as seen.
    LookAgain,
    /// Leave it until something turns up.
    Leave,
}

impl Candidate {
    /// Whether another worker holds the shard while it has work.
    pub fn held(&self) -> bool {
        self.wanted && self.owned && !self.free
    }

    /// Whether there is a reason to own it. The shard of an owner that died with nothing left to do
    /// is one: otherwise all workers would watch it for ever.
    fn has_work(&self) -> bool {
        let abandoned = self.owned && self.free;
        (self.wanted && !self.paused) || self.requested || self.can_advance || abandoned
    }

    /// What to do about it.
    pub fn decide(&self) -> AcquireDecision {
        if self.ending {
            return AcquireDecision::Leave;
        }
        if self.free && self.has_work() {
            return AcquireDecision::Acquire;
        }
        // A drain waits for a lease, or until the owner shows that it lives.
        if self.draining && self.held() && self.unknown { AcquireDecision::LookAgain } else { AcquireDecision::Leave }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination, of which some do not occur.
    fn all() -> impl Iterator<Item = Candidate> {
        (0..1u32 << 9).map(|bits| {
            let bit = |at: u32| bits & (1 << at) != 0;
            Candidate {
                wanted: bit(0),
                requested: bit(1),
                can_advance: bit(2),
                owned: bit(3),
                free: bit(4),
                unknown: bit(5),
                paused: bit(6),
                ending: bit(7),
                draining: bit(8),
            }
        })
    }

    #[test]
    fn each_reason_and_each_obstacle_decides_alone() {
        let free = Candidate { free: true, ..Candidate::default() };
        let table = [
            (free, AcquireDecision::Leave),
            (Candidate { wanted: true, ..free }, AcquireDecision::Acquire),
            (Candidate { wanted: true, paused: true, ..free }, AcquireDecision::Leave),
            (Candidate { requested: true, wanted: true, paused: true, ..free }, AcquireDecision::Acquire),
            (Candidate { can_advance: true, paused: true, ..free }, AcquireDecision::Acquire),
            // Its owner has died, with nothing left to do.
            (Candidate { owned: true, ..free }, AcquireDecision::Acquire),
            (Candidate { owned: true, wanted: true, ending: true, ..free }, AcquireDecision::Leave),
            (Candidate { owned: true, wanted: true, free: false, ..free }, AcquireDecision::Leave),
            (Candidate { owned: true, wanted: true, free: false, draining: true, ..free }, AcquireDecision::Leave),
            (
                Candidate { owned: true, wanted: true, free: false, draining: true, unknown: true, ..free },
                AcquireDecision::LookAgain,
            ),
        ];
        for (candidate, decision) in table {
            assert_eq!(candidate.decide(), decision, "{candidate:?}");
        }
    }

    #[test]
    fn only_a_free_shard_is_acquired_and_only_by_a_worker_not_ending() {
        for candidate in all() {
            let decision = candidate.decide();
            let may = candidate.free && !candidate.ending;
            assert!(may || decision != AcquireDecision::Acquire, "{candidate:?}");
            assert!(!candidate.ending || decision == AcquireDecision::Leave, "{candidate:?}");
            // Nothing that waits for a worker is left, where this one may take it.
            let needed = (candidate.wanted && !candidate.paused) || candidate.requested || candidate.owned;
            assert!(!(may && needed) || decision == AcquireDecision::Acquire, "{candidate:?}");
            // A drain that does not know whether its neighbour lives does not end at once.
            let waits = candidate.held() && candidate.unknown && candidate.draining && !candidate.ending;
            assert_eq!(decision == AcquireDecision::LookAgain, waits, "{candidate:?}");
        }
    }
}
