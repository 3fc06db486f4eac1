//! Parses one `[watchers.NAME]`; each error names its line.

use std::ops::RangeInclusive;
use std::path::Path;

use super::webhook::{self, WEBHOOK_KEYS};
use super::{Action, BatchSettings, KeptHistory, LINGER, MAX_CONCURRENCY, StartFrom, Watcher};
use crate::config::nearest::nearest;
use crate::config::section::{Field, Item, Section};
use crate::config::units::{format_duration, parse_size};
use crate::config::{ConfigError, Environment};
use crate::event::{Condition, TypeFilter};
use crate::group::GroupName;
use crate::group::definition::MOST_SHARDS;
use crate::group::history::HistoryLimits;
use crate::group::latest::{Latest, LatestKey};
use crate::group::retry::Retry;

const KEYS: [&str; 22] = [
    "group",
    "types",
    "not",
    "from",
    "command",
    "shell",
    "cwd",
    "concurrency",
    "ordered",
    "latest",
    "settle",
    "history",
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
const BATCH_KEYS: [&str; 2] = ["size", "linger"];
const HISTORY_KEYS: [&str; 2] = ["keep", "size"];
const RETRY_KEYS: [&str; 5] = ["max_attempts", "min", "max", "jitter", "dead_on"];

impl Watcher {
    /// Parses one `[watchers.NAME]`; relative paths start from `folder`.
    pub(in crate::config) fn read(
        field: &Field<'_>,
        environment: &Environment,
        folder: &Path,
    ) -> Result<Self, ConfigError> {
        let section = field.section()?;
        refuse_keys(&section)?;
        let action = read_action(field, &section, environment, folder)?;
        let mut watcher = Self::new(field.name.to_owned(), read_group(field, &section)?, action);
        watcher.read_filter(&section, environment)?;
        watcher.read_running(&section, environment, folder)?;
        watcher.read_pace(&section)?;
        Ok(watcher)
    }

    /// Reads what belongs to the group: types, start, shards.
    fn read_filter(&mut self, section: &Section<'_>, environment: &Environment) -> Result<(), ConfigError> {
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
            let start = StartFrom::parse(&text, environment)
                .map_err(|error| field.error(format_args!("must be earliest, now or a time: {error}")))?;
            self.from = Some(start);
        }
        set(&mut self.shards, section, "shards", |field| field.whole(1, i64::from(MOST_SHARDS)).map(Some))
    }

    /// Reads how a handler is run.
    fn read_running(
        &mut self,
        section: &Section<'_>,
        environment: &Environment,
        folder: &Path,
    ) -> Result<(), ConfigError> {
        if let Some(field) = section.field("cwd") {
            let text = clean(&field, field.offset, field.text()?)?;
            self.cwd = Some(environment.expand(Path::new(text), folder));
        }
        if let Some(field) = section.field("env") {
            self.env = Some(field.items()?.iter().map(|item| read_variable(&field, item)).collect::<Result<_, _>>()?);
        }
        set(&mut self.timeout, section, "timeout", Field::positive_duration)?;
        set(&mut self.stop_timeout, section, "stop_timeout", Field::duration)?;
        if let Some(field) = section.field("retry") {
            let codes = self.codes();
            read_retry(&mut self.retry, &field, codes)?;
        }
        if let Some(field) = section.field("on_dead") {
            self.on_dead = Some(read_argv(&field)?);
        }
        if matches!(self.action, Action::Webhook(_)) && self.on_dead.is_none() {
            for key in ["cwd", "env"] {
                if let Some(field) = section.field(key) {
                    return Err(field.error("is for a command, and this watcher has a url"));
                }
            }
        }
        Ok(())
    }

    /// Reads how many events run at a time, in what order, and how soon.
    fn read_pace(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        let max = i64::try_from(MAX_CONCURRENCY).unwrap_or(i64::MAX);
        set(&mut self.concurrency, section, "concurrency", |field| field.whole(1, max))?;
        set(&mut self.ordered, section, "ordered", Field::flag)?;
        if let Some(field) = section.field("latest") {
            let by = LatestKey::parse(field.text()?)
                .map_err(|error| field.error(error.to_string().replacen("where ", "", 1)))?;
            let settle = section.field("settle").map(|field| field.duration()).transpose()?.unwrap_or_default();
            self.latest = Some(Latest { by, settle });
            self.check_latest().map_err(|why| field.error(why))?;
        } else if let Some(field) = section.field("settle") {
            return Err(field.error("is for latest (add latest = \"subject\")"));
        }
        if let Some(field) = section.field("batch") {
            self.batch = Some(read_batch(&field)?);
            self.capacity().map_err(|why| field.error(why))?;
            self.check_batch().map_err(|why| field.error(why))?;
        }
        set(&mut self.history, section, "history", |field| read_history(field).map(Some))?;
        set(&mut self.poll, section, "poll", |field| field.positive_duration().map(Some))?;
        set(&mut self.hints, section, "hints", Field::flag)
    }
}

/// Reads `history`: true, false, or `{ keep = "7d", size = "4MB" }`.
fn read_history(field: &Field<'_>) -> Result<KeptHistory, ConfigError> {
    if let Ok(is_kept) = field.flag() {
        return Ok(if is_kept { KeptHistory::Within(HistoryLimits::default()) } else { KeptHistory::None });
    }
    let section = field.section().map_err(|_| field.mistyped("true, false, or { keep = \"7d\", size = \"4MB\" }"))?;
    section.refuse_unknown(&HISTORY_KEYS)?;
    let mut limits = HistoryLimits::default();
    set(&mut limits.age, &section, "keep", Field::positive_duration)?;
    set(&mut limits.bytes, &section, "size", |field| parse_size(field.text()?).map_err(|error| field.error(error)))?;
    Ok(KeptHistory::Within(limits))
}

/// Reads `retry = {…}` over the defaults.
pub(in crate::config) fn read_retry(
    retry: &mut Retry,
    field: &Field<'_>,
    codes: RangeInclusive<i32>,
) -> Result<(), ConfigError> {
    let section = field.section()?;
    section.refuse_unknown(&RETRY_KEYS)?;
    set(&mut retry.max_attempts, &section, "max_attempts", |field| field.whole(1, i64::from(u32::MAX)))?;
    set(&mut retry.min, &section, "min", Field::duration)?;
    set(&mut retry.max, &section, "max", Field::duration)?;
    set(&mut retry.jitter, &section, "jitter", Field::flag)?;
    set(&mut retry.dead_on, &section, "dead_on", |field| {
        field.wholes(i64::from(*codes.start()), i64::from(*codes.end()))
    })?;
    if retry.min <= retry.max {
        return Ok(());
    }
    let (min, max) = (format_duration(retry.min), format_duration(retry.max));
    Err(field.error(format_args!("min ({min}) is longer than max ({max})")))
}

/// Reads `batch = {…}`.
fn read_batch(field: &Field<'_>) -> Result<BatchSettings, ConfigError> {
    let section = field.section().map_err(|_| field.mistyped("a table: { size = 100, linger = \"5s\" }"))?;
    section.refuse_unknown(&BATCH_KEYS)?;
    let size = section.field("size").ok_or_else(|| field.error("has no size (write { size = 100 })"))?;
    let max = i64::try_from(MAX_CONCURRENCY).unwrap_or(i64::MAX);
    let mut batch = BatchSettings { size: size.whole(1, max)?, linger: LINGER };
    set(&mut batch.linger, &section, "linger", Field::duration)?;
    Ok(batch)
}

/// Sets `target` if the key exists.
pub(in crate::config) fn set<'a, T>(
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

/// Refuses the first key that is unknown.
fn refuse_keys(section: &Section<'_>) -> Result<(), ConfigError> {
    for field in section.fields() {
        if !KEYS.contains(&field.name) && !WEBHOOK_KEYS.contains(&field.name) {
            let within = |table: &str, keys: &[&'static str]| {
                nearest(field.name, keys.iter().copied()).map(|key| format!(" (did you mean '{table}.{key}'?)"))
            };
            let within = within("batch", &BATCH_KEYS).or_else(|| within("retry", &RETRY_KEYS));
            let keys = [&KEYS[..], &WEBHOOK_KEYS[..]].concat();
            return Err(match within.filter(|_| nearest(field.name, keys.iter().copied()).is_none()) {
                Some(meant) => field.unknown_near(&meant),
                None => field.unknown(&keys),
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

fn read_action(
    watcher: &Field<'_>,
    section: &Section<'_>,
    environment: &Environment,
    folder: &Path,
) -> Result<Action, ConfigError> {
    let given: Vec<Field<'_>> = ["command", "shell", "url"].into_iter().filter_map(|key| section.field(key)).collect();
    let field = match &given[..] {
        [field] => field,
        [first, second, ..] => {
            return Err(second.error(format_args!("stands beside '{}' (keep one of them)", first.name)));
        }
        [] => {
            return Err(watcher
                .error("has no command (add command = [\"PROGRAM\", \"ARG\"], shell = \"…\" or url = \"https://…\")"));
        }
    };
    if field.name != "url"
        && let Some(other) = WEBHOOK_KEYS.iter().find_map(|key| section.field(key))
    {
        return Err(other.error(format_args!("is for a url, and this watcher has a '{}'", field.name)));
    }
    match field.name {
        "command" => read_argv(field).map(Action::Command),
        "shell" => match clean(field, field.offset, field.text()?)?.trim() {
            "" => Err(field.error("is empty (write shell = \"PROGRAM ARG | …\")")),
            _ => Ok(Action::Shell(field.text()?.to_owned())),
        },
        _ => webhook::read(field, section, environment, folder).map(|target| Action::Webhook(Box::new(target))),
    }
}

fn read_argv(field: &Field<'_>) -> Result<Vec<String>, ConfigError> {
    let words = field.items()?;
    let argv = words.iter().map(|word| clean(field, word.offset, word.text).map(str::to_owned));
    let argv: Vec<String> = argv.collect::<Result<_, _>>()?;
    match argv.first().is_none_or(String::is_empty) {
        true => Err(field.error(format_args!("is empty (write {} = [\"PROGRAM\", \"ARG\"])", field.name))),
        false => Ok(argv),
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

/// Refuses a NUL, which no program can be given.
fn clean<'a>(field: &Field<'_>, offset: usize, text: &'a str) -> Result<&'a str, ConfigError> {
    if text.contains('\0') { Err(field.error_at(offset, "holds a NUL character")) } else { Ok(text) }
}
