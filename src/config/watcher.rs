//! One `[watchers.NAME]`: its filter, its command, and how the command is run.

use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::instant::{TimeError, parse_past};
use crate::event::{Condition, ConditionError, EventTime, Filter, PatternError, TypeFilter};
use crate::group::GroupName;
use crate::group::retry::Retry;

mod read;

/// The most events at a time: a marker holds no more pending events (FORMAT.md).
pub const MAX_CONCURRENCY: usize = 1_000;

/// The default time for which the first event of a batch waits for others.
pub const LINGER: Duration = Duration::from_secs(1);

/// Where a new group starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// At the first stored event.
    Earliest,
    /// At the next event.
    Now,
    /// At the first event from this time on.
    Time(EventTime),
}

/// Batches: many events for one run of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// The most events in a batch; at least 1.
    pub size: usize,
    /// How long the first event waits for others.
    pub linger: Duration,
}

/// Why a watcher's filter cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An invalid type pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// An invalid condition.
    #[error(transparent)]
    Condition(#[from] ConditionError),
}

/// A watcher with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    /// The name in the config file.
    pub name: String,
    /// The group it works for.
    pub group: GroupName,
    /// Patterns of wanted types; empty for all.
    pub types: Vec<String>,
    /// Patterns of unwanted types.
    pub not: Vec<String>,
    /// Optional CEL condition on the content.
    pub condition: Option<String>,
    /// Where a new group starts, if given.
    pub from: Option<StartFrom>,
    /// The program and its arguments. With `shell`, `/bin/sh -c TEXT`.
    pub argv: Vec<String>,
    /// Whether the command is a shell line.
    pub shell: bool,
    /// The command's folder, absolute; by default the worker's.
    pub cwd: Option<PathBuf>,
    /// Most handlers at a time.
    pub concurrency: usize,
    /// If given, a handler gets many events, one on each line.
    pub batch: Option<BatchSettings>,
    /// Whether events of one ordering key run one after the other.
    pub ordered: bool,
    /// A handler's time limit.
    pub timeout: Duration,
    /// When failed events are tried again.
    pub retry: Retry,
    /// The command to run for each new dead letter: program and arguments.
    pub on_dead: Option<Vec<String>>,
    /// The variables that handlers see; by default all.
    pub env: Option<Vec<String>>,
    /// The interval between polls, instead of the adaptive one.
    pub poll: Option<Duration>,
    /// Whether the store's hints are used.
    pub hints: bool,
    /// How long handlers may run after a request to stop.
    pub stop_timeout: Duration,
    /// Shards of a new group, if given.
    pub shards: Option<u16>,
}

impl StartFrom {
    /// Parses `earliest`, `now` or a past time, as `--from` and the config take it.
    ///
    /// # Errors
    /// None of these forms.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, TimeError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            _ => parse_past(text, environment.now, &environment.zone()).map(Self::Time),
        }
    }
}

impl Watcher {
    /// A watcher of every type that runs `argv`, with defaults for everything else.
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

    /// The filter, which must equal its group's.
    ///
    /// # Errors
    /// An invalid pattern or condition.
    pub fn filter(&self) -> Result<Filter, FilterError> {
        let condition = self.condition.as_deref().map(Condition::parse).transpose()?;
        Ok(Filter { types: TypeFilter::new(&self.types, &self.not)?, condition })
    }

    /// The most events in progress at a time.
    ///
    /// # Errors
    /// More than a marker can hold; the text is about batch size and concurrency.
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

    /// The most events that a worker takes at a time: what is in progress and, of batches, one that
    /// gathers meanwhile.
    pub fn taken(&self) -> usize {
        let gathers = self.batch.map_or(0, |batch| batch.size);
        self.capacity().unwrap_or(1).saturating_add(gathers)
    }

    /// The program and arguments that run a shell line.
    pub fn shell_argv(line: &str) -> Vec<String> {
        ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
    }
}
