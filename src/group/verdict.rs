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
        // Which of the two it is was the member's decision.
        Outcome::Released(exit) | Outcome::Rejected(exit) => (None, *exit),
        Outcome::Signal(_) | Outcome::TimedOut | Outcome::NoAnswer(_) | Outcome::Unfit(_) => (None, None),
    };
    let why = report.why();
    let is_refused = matches!(report.outcome, Outcome::Unfit(_) | Outcome::Rejected(_));
    let dead_at_once = is_refused || code.is_some_and(|code| retry.dead_on.contains(&code));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name() -> EventName {
        EventName::parse("20261123T021530.000000Z-7k00000000000030-t.json").unwrap()
    }

    /// The verdict on a first attempt that ended so, and was asked to wait.
    fn judged(outcome: Outcome, retry: &Retry, retry_after: Option<Duration>) -> Judgement {
        let report = RunReport { retry_after, ..RunReport::new(outcome, "why\nnot".to_owned(), Duration::ZERO) };
        let ran = RunResult::Reported(report, Fingerprint::of(b"x", 1));
        judge(ran, &name(), 1, retry, name().time(), 0)
    }

    /// What it comes to, in a word; for a retry the pause in seconds.
    fn word(judgement: Judgement) -> String {
        match judgement {
            Judgement::Verdict(Verdict::Done) => "done".to_owned(),
            Judgement::Verdict(Verdict::Release) => "release".to_owned(),
            Judgement::Verdict(Verdict::Dead { exit, why, .. }) => format!("dead {exit:?} {why}"),
            Judgement::Verdict(Verdict::Retry { next, .. }) => format!("retry {}", next.since(name().time()).as_secs()),
            Judgement::NotStarted(_) => "not started".to_owned(),
            Judgement::Unread(_) => "unread".to_owned(),
        }
    }

    #[test]
    fn exit_codes_and_statuses_have_their_verdicts() {
        let (commands, requests) =
            (Retry { jitter: false, ..Retry::default() }, Retry { jitter: false, ..Retry::of_requests() });
        for (outcome, retry, wanted) in [
            (Outcome::Exit(0), &commands, "done"),
            (Outcome::Exit(65), &commands, "dead Some(65) exit 65 \"not\""),
            (Outcome::Exit(1), &commands, "retry 1"),
            (Outcome::Signal(9), &commands, "retry 1"),
            (Outcome::TimedOut, &commands, "retry 1"),
            (Outcome::Released(None), &commands, "retry 1"),
            (Outcome::Released(Some(65)), &commands, "retry 1"),
            (Outcome::Rejected(Some(22)), &commands, "dead Some(22) exit 22 \"not\""),
            (Outcome::Rejected(None), &commands, "dead None rejected \"not\""),
            (Outcome::Stopped, &commands, "release"),
            (Outcome::NotStarted(Box::new("no".to_owned().into())), &commands, "not started"),
            (Outcome::Status(200), &requests, "done"),
            (Outcome::Status(299), &requests, "done"),
            (Outcome::Status(301), &requests, "retry 5"),
            (Outcome::Status(400), &requests, "dead None HTTP 400 \"why\""),
            (Outcome::Status(413), &requests, "dead None HTTP 413 \"why\""),
            (Outcome::Status(422), &requests, "dead None HTTP 422 \"why\""),
            (Outcome::Status(404), &requests, "retry 5"),
            (Outcome::Status(503), &requests, "retry 5"),
            (Outcome::NoAnswer("reset".into()), &requests, "retry 5"),
            (Outcome::Exit(65), &requests, "retry 5"),
            (Outcome::Unfit("too much".into()), &requests, "dead None too much \"not\""),
        ] {
            assert_eq!(word(judged(outcome.clone(), retry, None)), wanted, "{outcome:?}");
        }
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_but_not_for_a_shorter_one() {
        let retry = Retry { jitter: false, max: Duration::from_secs(60), ..Retry::of_requests() };
        for (asked, pause) in [(0, 5), (3, 5), (20, 20), (60, 60), (3_600, 60), (u64::MAX, 60)] {
            let judgement = judged(Outcome::Status(503), &retry, Some(Duration::from_secs(asked)));
            assert_eq!(word(judgement), format!("retry {pause}"), "{asked}");
        }
    }
}
