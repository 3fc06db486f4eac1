//! One `[watchers.NAME]`: what it wants, what it runs, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::instant::{TimeError, parse_past};
use super::nearest::nearest;
use super::section::{Field, Item, Section};
use super::{ConfigError, World};
use crate::event::{Condition, ConditionError, EventTime, PatternError, TypeFilter, Wants};
use crate::group::GroupName;
use crate::group::definition::MOST_SHARDS;
use crate::group::retry::Retry;

/// The most handlers at a time: a marker holds no more open events (DESIGN §5).
pub const MAX_CONCURRENCY: usize = 1_000;

const KEYS: [&str; 19] = [
    "group",
    "types",
    "not",
    "from",
    "command",
    "shell",
    "cwd",
    "concurrency",
    "ordered",
    "timeout",
    "retry",
    "env",
    "poll",
    "hints",
    "stop_timeout",
    "shards",
    "where",
    "batch",
    "on_dead",
];
const LATER_KEYS: [&str; 2] = ["batch", "on_dead"];
const RETRY_KEYS: [&str; 5] = ["max_attempts", "min", "max", "jitter", "dead_on"];

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
    /// Whether events of one key run one after the other.
    pub ordered: bool,
    /// The longest a handler may run.
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry: Retry,
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
    pub fn parse(text: &str, world: &World) -> Result<Self, TimeError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            _ => parse_past(text, world.now, &world.zone()).map(Self::Time),
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
            ordered: false,
            timeout: Duration::from_secs(300),
            retry: Retry::default(),
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
    pub fn wants(&self) -> Result<Wants, WantsError> {
        let condition = self.condition.as_deref().map(Condition::parse).transpose()?;
        Ok(Wants { types: TypeFilter::new(&self.types, &self.not)?, condition })
    }

    /// What to execute for a line of shell.
    pub fn shell_argv(line: &str) -> Vec<String> {
        ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
    }

    /// Reads one `[watchers.NAME]`; relative paths start from `folder`.
    pub(super) fn read(field: &Field<'_>, world: &World, folder: &Path) -> Result<Self, ConfigError> {
        let section = field.section()?;
        refuse_keys(&section)?;
        let argv = read_command(field, &section)?;
        let mut watcher = Self::new(field.name.to_owned(), read_group(field, &section)?, argv);
        watcher.shell = section.field("shell").is_some();
        watcher.read_filter(&section, world)?;
        watcher.read_running(&section, world, folder)?;
        watcher.read_pace(&section)?;
        Ok(watcher)
    }

    /// What the group will hold: types, start, shards.
    fn read_filter(&mut self, section: &Section<'_>, world: &World) -> Result<(), ConfigError> {
        if let Some(field) = section.field("types") {
            self.types = read_patterns(&field, |pattern| TypeFilter::new(&[pattern], &[]).map(drop))?;
            if self.types.is_empty() {
                return Err(field.error("is empty (leave it out to take every type)"));
            }
        }
        if let Some(field) = section.field("not") {
            self.not = read_patterns(&field, |pattern| TypeFilter::new(&["**".to_owned()], &[pattern]).map(drop))?;
        }
        if let Some(field) = section.field("where") {
            let text = field.text()?;
            Condition::parse(text).map_err(|error| field.plain_error(error))?;
            self.condition = Some(text.to_owned());
        }
        if let Some(field) = section.field("from") {
            let text = field.time_text()?;
            let start = StartFrom::parse(&text, world)
                .map_err(|error| field.error(format_args!("must be earliest, now or a time: {error}")))?;
            self.from = Some(start);
        }
        set(&mut self.shards, section, "shards", |field| field.whole(1, i64::from(MOST_SHARDS)).map(Some))
    }

    /// How a handler is run.
    fn read_running(&mut self, section: &Section<'_>, world: &World, folder: &Path) -> Result<(), ConfigError> {
        if let Some(field) = section.field("cwd") {
            let text = clean(&field, field.offset, field.text()?)?;
            self.cwd = Some(world.expand(Path::new(text), folder));
        }
        if let Some(field) = section.field("env") {
            self.env = Some(field.items()?.iter().map(|item| read_variable(&field, item)).collect::<Result<_, _>>()?);
        }
        set(&mut self.timeout, section, "timeout", Field::positive_duration)?;
        set(&mut self.stop_timeout, section, "stop_timeout", Field::duration)?;
        match section.field("retry") {
            Some(field) => read_retry(&mut self.retry, &field),
            None => Ok(()),
        }
    }

    /// How many at a time, in what order, and how soon.
    fn read_pace(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        let max = i64::try_from(MAX_CONCURRENCY).unwrap_or(i64::MAX);
        set(&mut self.concurrency, section, "concurrency", |field| field.whole(1, max))?;
        set(&mut self.ordered, section, "ordered", Field::flag)?;
        set(&mut self.poll, section, "poll", |field| field.positive_duration().map(Some))?;
        set(&mut self.hints, section, "hints", Field::flag)
    }
}

/// Reads `retry = {…}` over the defaults.
fn read_retry(retry: &mut Retry, field: &Field<'_>) -> Result<(), ConfigError> {
    let section = field.section()?;
    section.refuse_unknown(&RETRY_KEYS)?;
    set(&mut retry.max_attempts, &section, "max_attempts", |field| field.whole(1, i64::from(u32::MAX)))?;
    set(&mut retry.min, &section, "min", Field::duration)?;
    set(&mut retry.max, &section, "max", Field::duration)?;
    set(&mut retry.jitter, &section, "jitter", Field::flag)?;
    set(&mut retry.dead_on, &section, "dead_on", |field| field.wholes(1, 255))?;
    if retry.min <= retry.max {
        return Ok(());
    }
    let shown = super::units::format_duration;
    Err(field.error(format_args!("min ({}) is longer than max ({})", shown(retry.min), shown(retry.max))))
}

/// Sets `target` if the key is there.
fn set<'a, T>(
    target: &mut T,
    section: &Section<'a>,
    key: &str,
    read: impl FnOnce(&Field<'a>) -> Result<T, ConfigError>,
) -> Result<(), ConfigError> {
    if let Some(field) = section.field(key) {
        *target = read(&field)?;
    }
    Ok(())
}

/// Refuses the first key that is unknown, or known only to a later version.
fn refuse_keys(section: &Section<'_>) -> Result<(), ConfigError> {
    for field in section.fields() {
        if LATER_KEYS.contains(&field.name) {
            let key = field.name;
            return Err(field.plain_error(format_args!("`{key}` is not supported by this version yet")));
        }
        if !KEYS.contains(&field.name) {
            return Err(match nearest(field.name, RETRY_KEYS).filter(|_| nearest(field.name, KEYS).is_none()) {
                Some(key) => field.unknown_near(&format!(" (did you mean 'retry.{key}'?)")),
                None => field.unknown(&KEYS),
            });
        }
    }
    Ok(())
}

fn read_group(watcher: &Field<'_>, section: &Section<'_>) -> Result<GroupName, ConfigError> {
    match section.field("group") {
        Some(field) => GroupName::parse(field.text()?).map_err(|error| field.plain_error(error)),
        None => GroupName::parse(watcher.name)
            .map_err(|error| watcher.plain_error(format_args!("{error}; or add group = \"…\" to the watcher"))),
    }
}

fn read_command(watcher: &Field<'_>, section: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    match (section.field("command"), section.field("shell")) {
        (Some(_), Some(shell)) => Err(shell.error("stands beside 'command' (keep one of them)")),
        (None, None) => Err(watcher.error("has no command (add command = [\"PROGRAM\", \"ARG\"] or shell = \"…\")")),
        (Some(field), None) => {
            let items = field.items()?;
            let argv: Vec<String> = items
                .iter()
                .map(|item| clean(&field, item.offset, item.text).map(str::to_owned))
                .collect::<Result<_, _>>()?;
            match argv.first().is_none_or(String::is_empty) {
                true => Err(field.error("is empty (write command = [\"PROGRAM\", \"ARG\"])")),
                false => Ok(argv),
            }
        }
        (None, Some(field)) => match clean(&field, field.offset, field.text()?)?.trim() {
            "" => Err(field.error("is empty (write shell = \"PROGRAM ARG | …\")")),
            _ => Ok(Watcher::shell_argv(field.text()?)),
        },
    }
}

fn read_patterns<E: std::fmt::Display>(
    field: &Field<'_>,
    check: impl Fn(String) -> Result<(), E>,
) -> Result<Vec<String>, ConfigError> {
    let read = |item: &Item<'_>| match check(item.text.to_owned()) {
        Ok(()) => Ok(item.text.to_owned()),
        Err(error) => Err(field.error_at(item.offset, error)),
    };
    field.items()?.iter().map(read).collect()
}

fn read_variable(field: &Field<'_>, item: &Item<'_>) -> Result<String, ConfigError> {
    let text = clean(field, item.offset, item.text)?;
    if text.is_empty() || text.contains('=') {
        let what =
            format!("'{}' is not the name of a variable (write env = [\"PATH\", \"HOME\"])", text.escape_debug());
        return Err(field.error_at(item.offset, what));
    }
    Ok(text.to_owned())
}

/// No program can be given a NUL.
fn clean<'a>(field: &Field<'_>, offset: usize, text: &'a str) -> Result<&'a str, ConfigError> {
    if text.contains('\0') { Err(field.error_at(offset, "holds a NUL character")) } else { Ok(text) }
}
