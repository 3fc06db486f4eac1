//! One `[watchers.NAME]`: its filter, what it does with its events, and how.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::instant::{TimeError, parse_past};
use crate::event::{Condition, ConditionError, EventTime, Filter, PatternError, TypeFilter};
use crate::group::GroupName;
use crate::group::history::HistoryLimits;
use crate::group::latest::Latest;
use crate::group::retry::Retry;
use crate::handler::{WebhookFormat, WebhookTarget};

mod read;
mod webhook;

pub(in crate::config) use read::{read_retry, set};
pub use webhook::{parse_format, parse_url};

use webhook::URL_TIMEOUT;

/// The most events at a time: a marker holds no more pending events (FORMAT.md).
pub const MAX_CONCURRENCY: usize = 1_000;

/// How long a command may run unless a setting says otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_mins(5);

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

/// What a watcher does with its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Runs a program: itself and its arguments.
    Command(Vec<String>),
    /// Runs a shell line.
    Shell(String),
    /// Sends them to a URL.
    Webhook(Box<WebhookTarget>),
}

impl Action {
    /// The program and its arguments; none for a URL.
    pub fn argv(&self) -> Option<Vec<String>> {
        match self {
            Self::Command(argv) => Some(argv.clone()),
            Self::Shell(line) => Some(["/bin/sh", "-c", line].map(str::to_owned).to_vec()),
            Self::Webhook(_) => None,
        }
    }
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
    /// What it does with its events.
    pub action: Action,
    /// The command's folder, absolute; by default the worker's.
    pub cwd: Option<PathBuf>,
    /// Most handlers at a time.
    pub concurrency: usize,
    /// If given, a handler gets many events, one on each line.
    pub batch: Option<BatchSettings>,
    /// Whether events of one ordering key run one after the other.
    pub ordered: bool,
    /// If given, of events of one key that wait only the last is run.
    pub latest: Option<Latest>,
    /// The time limit of a handler, or of a request.
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
    /// Whether, and how much of, what it has run is kept on the bus; by default it is on a directory.
    pub history: Option<KeptHistory>,
}

/// What is kept of what a watcher has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptHistory {
    /// Nothing.
    None,
    /// So much.
    Within(HistoryLimits),
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
    /// Refuses what does not go with the latest.
    ///
    /// # Errors
    /// What, and the cure.
    pub fn check_latest(&self) -> Result<(), String> {
        let Some(latest) = self.latest.as_ref().filter(|latest| !latest.by.is_of_one_shard()) else { return Ok(()) };
        if self.ordered {
            return Err(format!(
                "by '{}' and an order by keys do not go together (latest = \"key\" does)",
                latest.by.as_str()
            ));
        }
        if self.shards.is_some_and(|shards| shards > 1) {
            return Err(several_shards(latest));
        }
        Ok(())
    }

    /// A watcher of every type, with defaults for everything else.
    pub fn new(name: String, group: GroupName, action: Action) -> Self {
        let (timeout, retry) = match action {
            Action::Command(_) | Action::Shell(_) => (COMMAND_TIMEOUT, Retry::default()),
            Action::Webhook(_) => (URL_TIMEOUT, Retry::of_requests()),
        };
        Self {
            name,
            group,
            types: Vec::new(),
            not: Vec::new(),
            condition: None,
            from: None,
            action,
            cwd: None,
            concurrency: 1,
            batch: None,
            ordered: false,
            latest: None,
            timeout,
            retry,
            on_dead: None,
            env: None,
            poll: None,
            hints: true,
            stop_timeout: Duration::from_secs(30),
            shards: None,
            history: None,
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

    /// What `dead_on` may hold: exit codes of failures, or statuses of HTTP.
    pub fn codes(&self) -> RangeInclusive<i32> {
        match self.action {
            Action::Command(_) | Action::Shell(_) => 1..=255,
            Action::Webhook(_) => 300..=599,
        }
    }

    /// Checks what one key alone does not tell.
    ///
    /// # Errors
    /// Batches in binary mode, which HTTP has not.
    pub fn check_batch(&self) -> Result<(), &'static str> {
        match &self.action {
            Action::Webhook(target) if target.format == WebhookFormat::Binary && self.batch.is_some() => {
                Err("a batch is sent as JSON: it cannot be binary")
            }
            _ => Ok(()),
        }
    }
}

/// Why a group of several shards cannot tell the latest.
pub fn several_shards(latest: &Latest) -> String {
    format!(
        "by '{}' needs a group of one shard: events of one of these may lie in several (latest = \"key\" takes any number)",
        latest.by.as_str()
    )
}
