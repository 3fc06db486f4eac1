//! What became of an event that was started, and what that means for it. Pure: time and chance are
//! handed in.

use std::hash::{DefaultHasher, Hasher};

use super::dead_letter;
use super::definition::Registered;
use super::marker::Verdict;
use super::retry::Retry;
use crate::event::{EventName, EventTime};
use crate::handler::{Obstacle, Outcome, RunReport};
use crate::store::StoreError;

/// What became of an event that was started.
#[derive(Debug)]
pub(super) enum RunResult {
    /// Nothing is to be run: its emitter has put it under another name, its dead letter was removed,
    /// or its type is not wanted after all.
    NothingToRun,
    /// It has been removed, and not by its emitter.
    Gone,
    /// A foreign name: another event lies under it, which was not emitted under this name.
    Foreign,
    /// It is a copy of an event that has run to success here.
    Copy,
    /// The group's condition does not hold for it, or has no answer; why.
    Skipped(Option<String>),
    /// The group did not want it, but its definition has changed since.
    Redefined(Box<Registered>),
    /// Its content cannot be parsed.
    Unparsable(String),
    /// Its content cannot be read now.
    Unreadable(Box<StoreError>),
    /// Its handler ran.
    Reported(RunReport, Fingerprint),
}

/// Tells one content from another; keyed, so that no emitter can make two contents with the same
/// fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of a content.
    pub fn of(bytes: &[u8], key: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(key);
        hasher.write(bytes);
        Self(hasher.finish())
    }
}

impl RunResult {
    /// The handler's own report, if it ran.
    pub fn report(&self) -> Option<&RunReport> {
        match self {
            Self::Reported(report, _) => Some(report),
            _ => None,
        }
    }
}

/// What a run means.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Its event has a verdict.
    Verdict(Verdict),
    /// Its event could not be read, which costs no attempt; why.
    Unread(String),
    /// The handler could not be started, for this event or any other, which costs no attempt.
    NotStarted(Obstacle),
}

/// Judges a run. Pure: time and chance are handed in.
pub(super) fn judge(
    ran: RunResult,
    name: &EventName,
    attempt: u32,
    retry: &Retry,
    now: EventTime,
    random: u64,
) -> Judgement {
    let report = match ran {
        RunResult::NothingToRun | RunResult::Foreign | RunResult::Copy | RunResult::Skipped(_) => {
            return Judgement::Verdict(Verdict::Done);
        }
        RunResult::Gone => {
            let why = "it is gone from the bus: not by its emitter, nor by evbus prune".to_owned();
            return Judgement::Verdict(dead(name, why, String::new(), None, random));
        }
        RunResult::Redefined(_) => return Judgement::Verdict(Verdict::Release),
        RunResult::Unreadable(error) => return Judgement::Unread(error.to_string()),
        RunResult::Unparsable(why) => {
            let dead = dead(name, format!("the event {why}"), String::new(), None, random);
            return Judgement::Verdict(dead);
        }
        RunResult::Reported(report, _) => report,
    };
    if report.succeeded() {
        return Judgement::Verdict(Verdict::Done);
    }
    // The code by which the handler says what is to become of the event, and the exit code.
    let (code, exit) = match &report.outcome {
        Outcome::Stopped => return Judgement::Verdict(Verdict::Release),
        Outcome::NotStarted(obstacle) => return Judgement::NotStarted(Obstacle::clone(obstacle)),
        Outcome::Exit(code) => (Some(*code), Some(*code)),
        Outcome::Status(status) => (Some(i32::from(*status)), None),
        Outcome::Signal(_) | Outcome::TimedOut | Outcome::NoAnswer(_) => (None, None),
    };
    let why = report.why();
    let dead_at_once = code.is_some_and(|code| retry.dead_on.contains(&code));
    Judgement::Verdict(if dead_at_once || attempt >= retry.max_attempts {
        dead(name, why, report.stderr_tail, exit, random)
    } else {
        let asked = report.retry_after.unwrap_or_default().min(retry.max);
        Verdict::Retry { next: now.plus(retry.pause(attempt, random).max(asked)), why }
    })
}

fn dead(name: &EventName, why: String, stderr: String, exit: Option<i32>, random: u64) -> Verdict {
    Verdict::Dead { dead_letter: dead_letter::fresh_name(name, random), why, stderr, exit }
}
