//! One `[watchers.NAME]`: what it wants, what it runs, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::instant::{TimeError, parse_past};
use crate::event::{Condition, ConditionError, EventTime, Filter, PatternError, TypeFilter};
use crate::group::GroupName;
use crate::group::retry::Retry;

mod read;

/// The most events at a time: a marker holds no more open ones (DESIGN §5).
pub const MAX_CONCURRENCY: usize = 1_000;

/// How long the first event of a batch waits for others, where nothing else was said.
pub const LINGER: Duration = Duration::from_secs(1);

/// Where a group that does not exist yet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With the first event stored.
    Earliest,
    /// With the next event that comes.
    Now,
    /// With the first event at or after this time.
    Time(EventTime),
}

/// Many events for one run of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// At most so many; at least 1.
    pub size: usize,
    /// How long the first waits for others.
    pub linger: Duration,
}

/// Why what a watcher wants cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantsError {
    /// A type pattern is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The condition is none.
    #[error(transparent)]
    Condition(#[from] ConditionError),
}

/// A watcher with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    /// Its name in the config file.
    pub name: String,
    /// The group it works for.
    pub group: GroupName,
    /// Patterns of types it wants; none means all.
    pub types: Vec<String>,
    /// Patterns of types it does not want.
    pub not: Vec<String>,
    /// What must hold for an event besides, in CEL.
    pub condition: Option<String>,
    /// Where a new group starts, if that was said.
    pub from: Option<StartFrom>,
    /// What is executed: program and arguments. With `shell`, `/bin/sh -c TEXT`.
    pub argv: Vec<String>,
    /// Whether the command was written for a shell.
    pub shell: bool,
    /// Where it runs, absolute; by default where the worker does.
    pub cwd: Option<PathBuf>,
    /// Handlers at a time.
    pub concurrency: usize,
    /// Whether a handler gets many events at a time, a line each.
    pub batch: Option<Batch>,
    /// Whether events of one key run one after the other.
    pub ordered: bool,
    /// The longest a handler may run.
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry: Retry,
    /// What is run, besides, for each event that has become a dead letter: program and arguments.
    pub on_dead: Option<Vec<String>>,
    /// The variables that handlers see; by default all.
    pub env: Option<Vec<String>>,
    /// How often to look for events, instead of the adaptive pace.
    pub poll: Option<Duration>,
    /// Whether hints of the store are used.
    pub hints: bool,
    /// How long handlers may go on after a request to stop.
    pub stop_timeout: Duration,
    /// Shards of a new group, if that was said.
    pub shards: Option<u16>,
}

impl StartFrom {
    /// Reads `earliest`, `now` or a time that has passed, as `--from` and the config take it.
    ///
    /// # Errors
    /// None of these.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, TimeError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            _ => parse_past(text, environment.now, &environment.zone()).map(Self::Time),
        }
    }
}

impl Watcher {
    /// A watcher of every type that runs `argv`, with the defaults for all else.
    pub fn new(name: String, group: GroupName, argv: Vec<String>) -> Self {
        Self {
            name,
            group,
            types: Vec::new(),
            not: Vec::new(),
            condition: None,
            from: None,
            argv,
            shell: false,
            cwd: None,
            concurrency: 1,
            batch: None,
            ordered: false,
            timeout: Duration::from_secs(300),
            retry: Retry::default(),
            on_dead: None,
            env: None,
            poll: None,
            hints: true,
            stop_timeout: Duration::from_secs(30),
            shards: None,
        }
    }

    /// What it wants, as its group must want it too.
    ///
    /// # Errors
    /// A condition that is none; types are refused as a usage error of the patterns' own.
    pub fn wants(&self) -> Result<Filter, WantsError> {
        let condition = self.condition.as_deref().map(Condition::parse).transpose()?;
        Ok(Filter { types: TypeFilter::new(&self.types, &self.not)?, condition })
    }

    /// So many events may be under way at a time.
    ///
    /// # Errors
    /// More than a marker can hold; a line about a batch's size and concurrency.
    pub fn capacity(&self) -> Result<usize, String> {
        let size = self.batch.map_or(1, |batch| batch.size);
        match self.concurrency.saturating_mul(size) {
            places if places <= MAX_CONCURRENCY => Ok(places),
            places => Err(format!(
                "batches of {size}, {} at a time, are {places} events; at most {MAX_CONCURRENCY} can be under way",
                self.concurrency
            )),
        }
    }

    /// What to execute for a line of shell.
    pub fn shell_argv(line: &str) -> Vec<String> {
        ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
    }
}
