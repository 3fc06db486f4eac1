//! Runs one handler for one event.
//!
//! [`Handler`] is all that the worker knows of a handler; [`CommandHandler`] runs a user's command,
//! [`Webhook`] sends an HTTP request.
//! [`Locks`] hands events out to members of the group that fetch them.
//! Inside, [`CommandHandler`] puts one run together, [`Batches`] makes one run of many, `program`
//! finds the executable, `input` makes stdin and the event's file, `output` passes lines on and
//! keeps the end of stderr, `process` owns the running child until it is reaped, and
//! [`OrphanReaper`] ends what a killed worker would leave behind.

mod batch;
mod children;
mod command;
mod input;
mod locks;
mod orphan_reaper;
mod output;
mod process;
mod program;
#[cfg(test)]
mod tests;
mod webhook;

use std::ffi::OsString;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::LocalBoxStream;
use sha2::{Digest, Sha256};

pub use batch::{BatchBounds, BatchOutcome, Batches};
pub use children::reap_inherited;
pub use command::{CommandHandler, CommandSpec};
pub use locks::{Demand, HandedOut, LockError, Locks, Settlement, SettlementKind};
pub use orphan_reaper::{ORPHAN_REAPER_ARGUMENT, OrphanReaper, orphan_reaper_main};
pub use output::{Discard, LineSource, Output, Stream};
pub use program::ProgramError;
#[cfg(feature = "cli")]
pub(crate) use webhook::signature::key as standard_webhook_key;
pub use webhook::{Network, NetworkError, Webhook, WebhookFormat, WebhookProxy, WebhookSettings, WebhookTarget};
#[cfg(feature = "cli")]
pub(crate) use webhook::{http_cause, http_client};

use crate::clock::Fut;
use crate::event::Likeness;

/// One run: an event and what the handler is told about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The event's document, which the handler finds on stdin.
    pub event: Bytes,
    /// The end of the name of the file that `EVBUS_FILE` names.
    pub file: Arc<str>,
    /// Variables added to the handler's environment (`EVBUS_ID` and its kin). `EVBUS_FILE` is not
    /// among them.
    pub vars: Rc<dyn JobVars>,
    /// That of the event's document, where it is known.
    pub likeness: Option<Likeness>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// That of the shard's ownership; later owners have higher ones.
    pub epoch: u64,
    /// Whether it may still start.
    pub permit: Permit,
}

impl Job {
    /// Whether it has failed before.
    pub fn was_tried(&self) -> bool {
        self.attempt > 1
    }
}

/// A variable of a run: its name, and its value, which may be a path that is no text.
pub type Var = (&'static str, OsString);

/// The variables of a job. Most jobs of a batch are never asked for all of theirs.
pub trait JobVars: std::fmt::Debug {
    /// All of them.
    fn list(&self) -> Vec<Var>;

    /// Drops from another job's variables those that are not the same here. `is_like`: this event
    /// differs from that job's in id, time and data alone.
    fn keep_common(&self, vars: &mut Vec<Var>, _is_like: bool) {
        let own = self.list();
        vars.retain(|var| own.contains(var));
    }
}

impl JobVars for Vec<Var> {
    fn list(&self) -> Vec<Var> {
        self.clone()
    }
}

/// Says whether a run may still start: a run that waits for its turn may outlive the lease under
/// which it was to start.
#[derive(Clone)]
pub struct Permit {
    holds: Rc<dyn Fn() -> bool>,
    owns: Option<Rc<dyn Fn() -> bool>>,
    shared: Option<SharedPermit>,
}

/// A permit that another thread can ask.
#[derive(Clone)]
pub struct SharedPermit(Arc<dyn Fn(Duration) -> bool + Send + Sync>);

impl SharedPermit {
    /// Holds for as long as `holds` says so at the time of the system's clock.
    pub fn new(holds: impl Fn(Duration) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    /// Whether the run may start now; `now` is of the system's clock.
    pub fn holds(&self, now: Duration) -> bool {
        (self.0)(now)
    }
}

impl Permit {
    /// Holds for as long as `holds` says so.
    pub fn new(holds: impl Fn() -> bool + 'static) -> Self {
        Self { holds: Rc::new(holds), owns: None, shared: None }
    }

    /// The same, which another thread can ask by `shared`.
    pub fn with_shared(self, shared: SharedPermit) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// What another thread can ask in place of this.
    pub fn shared(&self) -> Option<SharedPermit> {
        self.shared.clone()
    }

    /// The same for a run whose worker is sure to own its shard for as long as `owns` says so.
    pub fn while_owned(self, owns: impl Fn() -> bool + 'static) -> Self {
        Self { owns: Some(Rc::new(owns)), ..self }
    }

    /// Whether the worker is sure to own the shard now.
    pub fn is_owned(&self) -> bool {
        self.owns.as_ref().is_none_or(|owns| owns())
    }

    /// Whether the run may start now.
    pub fn holds(&self) -> bool {
        (self.holds)()
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Permit").field(&self.holds()).finish()
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The handler ended itself with this exit code.
    Exit(i32),
    /// A signal ended the handler, and evbus did not send it.
    Signal(i32),
    /// The time limit passed, and the handler was ended.
    TimedOut,
    /// An HTTP server has answered with this status.
    Status(u16),
    /// A request was sent, and has no answer; why, in one line.
    NoAnswer(Box<str>),
    /// A member of the group has given the event back, to be tried again; with the exit code of its
    /// own handler, if it had one.
    Released(Option<i32>),
    /// A member of the group has refused the event: no attempt would succeed; with the exit code of its
    /// own handler.
    Rejected(Option<i32>),
    /// The event cannot be handed over at all, now or later; why, in one line.
    Unfit(Box<str>),
    /// [`Handler::terminate`] cut the run short; it does not count as an attempt.
    Stopped,
    /// The handler never began; it does not count as an attempt.
    NotStarted(Box<Obstacle>),
}

impl Outcome {
    /// Whether the events are processed.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exit(0) | Self::Status(200..=299))
    }
}

/// What kept a handler from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The obstacle, in one line.
    pub why: String,
    /// What is wrong with the program, where it is the program.
    pub program: Option<ProgramError>,
    /// Whether it may pass without a change to the handler: no process, or no file, is available.
    pub is_temporary: bool,
}

impl From<String> for Obstacle {
    fn from(why: String) -> Self {
        Self { why, program: None, is_temporary: false }
    }
}

impl From<ProgramError> for Obstacle {
    fn from(error: ProgramError) -> Self {
        Self { why: error.to_string(), program: Some(error), is_temporary: false }
    }
}

/// What one run left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The last 4 KiB of stderr, or the first of an answer's body, as UTF-8 with replacement
    /// characters. It may hold control characters, which must be escaped before it is printed.
    pub stderr_tail: String,
    /// The last 4 KiB of stdout, in the same way, where it is read at all.
    pub stdout_tail: String,
    /// From before the start until the handler was reaped and its output read.
    pub took: Duration,
    /// The number of events of the run: one, unless they came as a batch.
    pub events: usize,
    /// How long the receiver asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
}

impl RunReport {
    /// The report of a run for one event.
    pub fn new(outcome: Outcome, stderr_tail: String, took: Duration) -> Self {
        Self { outcome, stderr_tail, stdout_tail: String::new(), took, events: 1, retry_after: None }
    }

    /// The report of a run that was cut short, or that never began because no run may start any
    /// more.
    pub fn stopped() -> Self {
        Self::new(Outcome::Stopped, String::new(), Duration::ZERO)
    }

    /// The exit code of the command, or the status of the answer.
    pub fn code(&self) -> Option<i32> {
        match self.outcome {
            Outcome::Exit(code) => Some(code),
            Outcome::Status(status) => Some(status.into()),
            Outcome::Released(code) | Outcome::Rejected(code) => code,
            _ => None,
        }
    }

    /// Whether the events are processed.
    pub fn succeeded(&self) -> bool {
        self.outcome.is_success()
    }

    /// Whether the handler may have ended by a signal that was meant for its worker (SIGHUP,
    /// SIGINT, SIGTERM), which a shell passes on as an exit code.
    pub fn may_be_interrupted(&self) -> bool {
        matches!(self.outcome, Outcome::Signal(1 | 2 | 15) | Outcome::Exit(129 | 130 | 143))
    }

    /// How it ended, in a few words: `exit 22 "curl: (22) 503"`.
    pub fn why(&self) -> String {
        let how = match &self.outcome {
            Outcome::Exit(code) => format!("exit {code}"),
            Outcome::Released(Some(code)) | Outcome::Rejected(Some(code)) => format!("exit {code}"),
            Outcome::Released(None) => "released".to_owned(),
            Outcome::Rejected(None) => "rejected".to_owned(),
            Outcome::Signal(signal) => format!("signal {signal}"),
            Outcome::TimedOut => "time limit".to_owned(),
            Outcome::Status(status) => format!("HTTP {status}"),
            Outcome::NoAnswer(why) | Outcome::Unfit(why) => why.to_string(),
            Outcome::Stopped => "stopped".to_owned(),
            Outcome::NotStarted(obstacle) => obstacle.why.clone(),
        };
        let mut lines = self.stderr_tail.lines().filter(|line| !line.trim().is_empty());
        // A program says last why it ends; a page says first what it is.
        let line = match &self.outcome {
            Outcome::Status(_) => lines.next(),
            // A command of evbus's own ends with the cure.
            _ => lines.clone().rfind(|line| !line.starts_with("help: ")).or_else(|| lines.next_back()),
        };
        match line {
            Some(line) => format!("{how} \"{}\"", line.trim().chars().take(120).collect::<String>()),
            None => how,
        }
    }
}

/// What a handler is told apart by: its name, and the beginning of a hash of its parts.
fn named_digest(name: &str, parts: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let hash = hash.finalize();
    format!("{name} {:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

/// Reports by the places of their jobs, as they come.
pub type Reports = LocalBoxStream<'static, Vec<(usize, RunReport)>>;

/// Takes many events at once.
pub trait RunMany {
    /// Runs the handler for several events; ends after the last report. Dropping the stream ends the
    /// runs that still have events of it.
    fn run_many(&self, jobs: Vec<Job>) -> Reports;
}

/// What the worker needs of any handler.
pub trait Handler {
    /// Runs the handler for one event. Dropping the future kills the handler at once.
    fn run(&self, job: Job) -> Fut<'_, RunReport>;

    /// Itself, if it makes one run of many events: then events that start together are handed over
    /// together.
    fn many(&self) -> Option<&dyn RunMany> {
        None
    }

    /// Asks every run in progress to end: TERM, and KILL after the grace. Their outcome is
    /// [`Outcome::Stopped`]. Later runs are not affected.
    fn terminate(&self);

    /// Lets no further run begin: runs that wait for others end as [`Outcome::Stopped`].
    fn refuse_new_runs(&self) {}

    /// Says how many runs are in progress if no other comes before one of them has ended, so that a
    /// batch need not wait for more; none if others may come.
    fn expect(&self, _runs: Option<usize>) {}

    /// The most runs that it takes at once now, where that varies; none: any number. A worker starts no more.
    fn max_in_flight(&self) -> Option<usize> {
        None
    }

    /// Completes when [`Handler::max_in_flight`] has changed since this was called last.
    fn max_in_flight_changed(&self) -> Fut<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Says before the first event whether the handler could be started at all.
    ///
    /// # Errors
    /// One line that names the command and, where there is one, the cure.
    fn check(&self) -> Result<(), Obstacle>;
}
