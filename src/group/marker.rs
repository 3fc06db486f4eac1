//! The marker of one shard: its owner, what is done, what is pending. Pure: no I/O and no clock.
//!
//! - `through` is how far everything is settled; `done` lists what is processed above it.
//! - `pending` lists what is at or below `through`, or was tried, and is not done. An event leaves
//!   it only when it is done, or when its dead letter exists.
//! - `epoch` grows with each owner, `nonce` with each commit, so that a writer whose answer was
//!   lost can tell its own commit from another's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Position;
use super::name_ranges::{self, NameSet};
use crate::event::{EventName, EventTime};
use crate::store::Requests;

/// The owner of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The worker's random id.
    pub worker: String,
    /// Its host's name, for people.
    pub host: String,
    /// Its process id on that host.
    pub pid: u32,
    /// The boot of that host, and the process namespace in which `pid` counts.
    pub boot: String,
    /// Since when it owns the shard, by its own clock.
    pub since: EventTime,
    /// What it runs: its program's name and a digest of the whole command, which may hold secrets.
    pub command: String,
}

/// An event that is not done although `through` may be past it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingEvent {
    /// Runs that counted so far.
    pub attempts: u32,
    /// The time before which it is not run; none: it may run now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<EventTime>,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The dead letter that is to be written next, or has been.
    #[serde(rename = "dead", default, skip_serializing_if = "Option::is_none")]
    pub new_dead_letter: Option<String>,
    /// The end of the last attempt's stderr, until the dead letter is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// The exit code of the last attempt, until the dead letter is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The dead letter that was redriven; it goes when the event has left `pending`.
    #[serde(rename = "letter", default, skip_serializing_if = "Option::is_none")]
    pub redriven_dead_letter: Option<String>,
    /// Its attempt was counted before its run, in isolation mode, and the run has not ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub started: bool,
    /// A run alone ended with its worker, which it may have killed, so it always runs alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub poison_candidate: bool,
}

impl PendingEvent {
    /// Whether a worker that owns the shard runs it, or is about to.
    pub fn may_run(&self) -> bool {
        self.next.is_none() && self.new_dead_letter.is_none()
    }
}

/// Whether a field has the value that it is not written with.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The marker, readable as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// When its group was made. A group that was removed and made anew under the same name is
    /// another group.
    pub made: EventTime,
    /// Counts the owners.
    pub epoch: u64,
    /// Fresh in each commit.
    pub nonce: String,
    /// The owner; none after the shard was released.
    pub owner: Option<Owner>,
    /// The worker that the shard was given to, which takes it before others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<String>,
    /// Takeovers in a row from owners that had not released the shard, with no good commit in
    /// between.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unclean: u32,
    /// See [`Position`].
    pub through: Position,
    /// Processed, above `through`. Whole names, because two names that differ only in their type
    /// are two events.
    pub done: NameSet,
    /// Not processed, at or below `through`, or tried.
    #[serde(with = "name_ranges::map")]
    pub pending: BTreeMap<EventName, PendingEvent>,
    /// Requests that were folded in and may still lie on the bus.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub folded: BTreeSet<String>,
    /// Events that were passed over because the group's condition could not be answered for them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unanswered: u64,
    /// Events that later ones of their keys have superseded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub superseded: u64,
    /// The requests that its owners have made of a store that charges for them.
    #[serde(default, skip_serializing_if = "Requests::is_none")]
    pub requests: Requests,
}

/// What a run of a handler said about its event.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Processed, or not to be processed by this group.
    Done,
    /// To be run again, not before `next`.
    Retry {
        /// When.
        next: EventTime,
        /// How it ended, in a few words.
        why: String,
    },
    /// Never to be run again, unless an operator says so.
    Dead {
        /// The name of the letter to write: fresh, so that no older letter is mistaken for it.
        dead_letter: String,
        /// How it ended, in a few words.
        why: String,
        /// The end of its stderr.
        stderr: String,
        /// Its exit code, if it had one.
        exit: Option<i32>,
    },
    /// The attempt was cut short and does not count.
    Release,
}

impl Marker {
    /// The marker of a shard that has had no owner yet.
    pub fn new(start: Position) -> Self {
        Self {
            made: EventTime::MIN,
            epoch: 0,
            nonce: String::new(),
            owner: None,
            handoff: None,
            unclean: 0,
            through: start,
            done: NameSet::default(),
            pending: BTreeMap::new(),
            folded: BTreeSet::new(),
            unanswered: 0,
            superseded: 0,
            requests: Requests::default(),
        }
    }

    /// Makes `owner` the owner. If the last owner had not released the shard, this is an unclean
    /// takeover: an event that ran alone then may have killed that owner.
    pub fn acquire(&mut self, owner: Owner) {
        self.epoch += 1;
        if self.owner.is_some() {
            self.unclean = self.unclean.saturating_add(1);
            for pending in self.pending.values_mut().filter(|pending| pending.started) {
                pending.started = false;
                pending.poison_candidate = true;
            }
        }
        self.owner = Some(owner);
        self.handoff = None;
    }

    /// Releases the shard, to any worker or to one in particular. Only a verdict shows that handlers come back: an
    /// event that has killed the owners before may be named by a request that this owner has not read.
    pub fn release(&mut self, to: Option<String>) {
        self.owner = None;
        self.handoff = to;
    }

    /// Whether an event that the group wants is still to be processed.
    pub fn is_unprocessed(&self, name: &EventName) -> bool {
        self.pending.contains_key(name) || !(self.through.covers(name) || self.done.contains(name))
    }

    /// Records how a run ended. An attempt that isolation mode had counted before the run is not
    /// counted again.
    pub fn record_verdict(&mut self, name: &EventName, verdict: Verdict) {
        let counted = self.pending.get(name).is_some_and(|pending| pending.started);
        match verdict {
            Verdict::Done => {
                self.pending.remove(name);
                self.done_above_through(name);
            }
            Verdict::Retry { next, why } => {
                let pending = self.pending.entry(name.clone()).or_default();
                *pending = PendingEvent {
                    attempts: pending.attempts + u32::from(!counted),
                    next: Some(next),
                    why: Some(why),
                    redriven_dead_letter: pending.redriven_dead_letter.take(),
                    ..PendingEvent::default()
                };
            }
            Verdict::Dead { dead_letter, why, stderr, exit } => {
                let pending = self.pending.entry(name.clone()).or_default();
                *pending = PendingEvent {
                    attempts: pending.attempts + u32::from(!counted),
                    why: Some(why),
                    new_dead_letter: Some(dead_letter),
                    stderr: Some(stderr),
                    exit,
                    redriven_dead_letter: pending.redriven_dead_letter.take(),
                    ..PendingEvent::default()
                };
            }
            Verdict::Release => {
                if let Some(pending) = self.pending.get_mut(name) {
                    pending.attempts -= u32::from(counted);
                    pending.started = false;
                }
            }
        }
    }

    /// Whether a letter is to be written for an event, and which.
    pub fn announces(&self, name: &EventName, letter: &str) -> bool {
        self.pending.get(name).is_some_and(|pending| pending.new_dead_letter.as_deref() == Some(letter))
    }

    /// The event's dead letter exists: the event leaves `pending`. Returns the letter that was
    /// redriven, which may now be removed.
    pub fn dead_letter_written(&mut self, name: &EventName) -> Option<String> {
        let pending = self.pending.remove(name)?;
        self.done_above_through(name);
        pending.redriven_dead_letter
    }

    /// How often the event has been tried, this attempt included; from 1.
    pub fn attempt(&self, name: &EventName) -> u32 {
        self.pending.get(name).map_or(1, |pending| pending.attempts + u32::from(!pending.started))
    }

    /// Counts the attempt before the run.
    pub fn count_before_run(&mut self, name: &EventName) {
        let pending = self.pending.entry(name.clone()).or_default();
        pending.attempts += 1;
        pending.next = None;
        pending.started = true;
    }

    /// Moves `through` and drops from `done` what it passes. Events that still run below it stay
    /// known in `pending`; `running` is ascending.
    pub fn advance<'a>(&mut self, through: Position, running: impl Iterator<Item = &'a EventName>) {
        debug_assert!(through >= self.through, "through never moves back but by a reset");
        for name in running.take_while(|name| through.covers(name)).filter(|name| !self.through.covers(name)) {
            self.pending.entry(name.clone()).or_default();
        }
        while self.done.first().is_some_and(|name| through.covers(name)) {
            self.done.pop_first();
        }
        self.through = through;
    }

    /// An operator puts an event back to work, with its dead letter.
    pub fn redrive(&mut self, name: EventName, dead_letter: String) {
        self.done.remove(&name);
        self.pending
            .entry(name)
            .or_insert_with(|| PendingEvent { redriven_dead_letter: Some(dead_letter), ..PendingEvent::default() });
    }

    /// An operator sends the shard to another position: everything after it is to be processed
    /// again.
    pub fn reset(&mut self, through: Position) {
        self.through = through;
        self.done.clear();
        self.pending.clear();
    }

    fn done_above_through(&mut self, name: &EventName) {
        if !self.through.covers(name) {
            self.done.insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verdict_shows_that_handlers_come_back() {
        let owner = || Owner {
            worker: "w".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            boot: "b".to_owned(),
            since: EventTime::MIN,
            command: "c".to_owned(),
        };
        let mut marker = Marker::new(Position::START);
        for _ in 0..3 {
            marker.acquire(owner());
        }
        assert_eq!(marker.unclean, 2);
        marker.release(None);
        marker.acquire(owner());
        assert_eq!(marker.unclean, 2, "nothing has run");
    }

    #[test]
    fn a_letter_from_before_a_reset_ends_nothing() {
        let only = EventName::parse("20261123T021501.000000Z-7k00000000000001-order.created.json").unwrap();
        let mut marker = Marker::new(Position::START);
        let dies = PendingEvent { new_dead_letter: Some("l".to_owned()), ..PendingEvent::default() };
        marker.pending.insert(only.clone(), dies);
        assert!(marker.announces(&only, "l"));
        marker.reset(Position::START);
        marker.pending.insert(only.clone(), PendingEvent::default());
        assert!(!marker.announces(&only, "l"));
    }
}
