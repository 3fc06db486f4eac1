//! The lease: when a worker may take a shard, and what an owner may still do. Pure: elapsed time is
//! handed in.
//!
//! No two clocks are compared. An observer counts, on its own monotonic clock, how long it has seen
//! the same version of the marker; an owner counts, on its own clock, from when it **sent** its
//! last successful commit.

use std::time::Duration;

use super::marker::Owner;
use crate::store::Version;

/// The lengths that ownership is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How long a marker must stand still before its owner counts as gone.
    pub length: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self { length: Duration::from_secs(15) }
    }
}

impl Lease {
    /// An owner commits at least this often.
    pub fn heartbeat(self) -> Duration {
        self.length.mul_f64(0.3)
    }

    /// An owner starts no handler later than this after it sent its last successful commit.
    pub fn start_limit(self) -> Duration {
        self.length.mul_f64(0.6)
    }

    /// Whether the owner may start a handler now.
    pub fn may_start(self, commit_sent: Duration, now: Duration) -> bool {
        now.saturating_sub(commit_sent) <= self.start_limit()
    }

    /// Whether no other worker can be the owner yet.
    pub fn holds(self, commit_sent: Duration, now: Duration) -> bool {
        now.saturating_sub(commit_sent) <= self.length
    }

    /// When the owner must have sent its next commit.
    pub fn heartbeat_at(self, commit_sent: Duration) -> Duration {
        commit_sent + self.heartbeat()
    }
}

/// One shard's marker as an observer has seen it stand still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseObservation {
    version: Option<Version>,
    since: Duration,
}

impl LeaseObservation {
    /// Notes that the marker is at `version` now, and keeps the time since which it has stood so.
    pub fn see(seen: Option<Self>, version: Option<&Version>, now: Duration) -> Self {
        match seen {
            Some(seen) if seen.version.as_ref() == version => seen,
            _ => Self { version: version.cloned(), since: now },
        }
    }

    /// Since when it has stood still, on the observer's clock.
    pub fn since(&self) -> Duration {
        self.since
    }
}

/// What is known of an owner's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It runs on this machine.
    Lives,
    /// This observer cannot tell.
    MayLive,
    /// It ran on this machine, in this boot and this process namespace, and there is no such
    /// process now.
    Gone,
}

/// Whether a shard with work may be taken: it has no owner, or its owner's process is gone, or its
/// marker has stood still for a whole lease.
pub fn may_take(
    owner: Option<&Owner>,
    process: Process,
    observation: &LeaseObservation,
    lease: Lease,
    now: Duration,
) -> bool {
    owner.is_none() || process == Process::Gone || now.saturating_sub(observation.since) >= lease.length
}
