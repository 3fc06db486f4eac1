//! One `[serve.groups.NAME]`: how the server's worker hands out a group's events to its members.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::ConfigError;
use crate::config::section::Field;
use crate::config::watcher::{read_retry, set};
use crate::group::GroupName;
use crate::group::retry::Retry;

const KEYS: [&str; 3] = ["lock", "ordered", "retry"];

/// How long a lock may hold.
const LOCK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// How a group's events are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSettings {
    /// How long a member has an event, unless it renews its lock.
    pub lock: Duration,
    /// Whether events of one ordering key are handed out one after the other.
    pub ordered: bool,
    /// When failed events are tried again.
    pub retry: Retry,
}

impl Default for PullSettings {
    fn default() -> Self {
        // A member says itself what is dead.
        let retry = Retry { dead_on: Vec::new(), ..Retry::default() };
        Self { lock: Duration::from_mins(1), ordered: false, retry }
    }
}

impl PullSettings {
    /// Parses one `[serve.groups.NAME]`.
    pub(super) fn read(field: &Field<'_>) -> Result<(GroupName, Self), ConfigError> {
        let group = GroupName::parse(field.name).map_err(|error| field.plain_error(error))?;
        let section = field.section()?;
        section.refuse_unknown(&KEYS)?;
        let mut settings = Self::default();
        set(&mut settings.lock, &section, "lock", |field| match field.duration()? {
            lock if LOCK.contains(&lock) => Ok(lock),
            _ => Err(field.error("must be from 1s to 1h")),
        })?;
        set(&mut settings.ordered, &section, "ordered", Field::flag)?;
        if let Some(retry) = section.field("retry") {
            if let Some(dead_on) = retry.section()?.field("dead_on") {
                return Err(dead_on.error("is for commands: a member rejects what is dead"));
            }
            read_retry(&mut settings.retry, &retry, 1..=255)?;
        }
        Ok((group, settings))
    }
}
