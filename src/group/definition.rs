//! The registry of groups: which events each wants, its shards, where it started, whether it is
//! paused.

use serde::{Deserialize, Serialize};

use super::{GroupName, Position};
use crate::bus::{frontier, keys, read};
use crate::clock::Clock;
use crate::event::{Condition, EventTime, Filter, TypeFilter};
use crate::store::{ErrorDetail, ErrorKind, List, Object, Store, StoreError, StoreResult, Swap, Version, get_durable};

/// The most shards that a group can have.
pub const MOST_SHARDS: u16 = 256;

/// Why and since when a group is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    /// Since when.
    pub since: EventTime,
    /// What the operator said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What `groups/<name>.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// When the group was made.
    pub created: EventTime,
    /// Wanted type patterns; none: every type.
    pub types: Vec<String>,
    /// Unwanted type patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<String>,
    /// Optional CEL condition on the content.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// How many shards its events are split into; fixed at creation.
    pub shards: u16,
    /// Where it started, resolved when it was made.
    pub start: Position,
    /// Set while its workers start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

impl Definition {
    /// The definition of a new group.
    pub fn new(created: EventTime, filter: &Filter, shards: u16, start: Position) -> Self {
        let condition = filter.condition.as_ref().map(|condition| condition.as_str().to_owned());
        Self {
            created,
            types: filter.types.types_text(),
            not: filter.types.not_text(),
            condition,
            shards,
            start,
            paused: None,
        }
    }

    /// The filter by type, parsed.
    pub fn type_filter(&self, group: &GroupName) -> StoreResult<TypeFilter> {
        TypeFilter::new(&self.types, &self.not).map_err(|error| {
            StoreError::new(ErrorKind::Damaged, format!("{}: {error}", keys::group(group)))
                .with_detail(ErrorDetail::InvalidFilter { group: group.to_string() })
                .with_source(error)
        })
    }

    /// The whole filter, by type and condition, parsed.
    pub fn filter(&self, group: &GroupName) -> StoreResult<Filter> {
        let condition = self.condition.as_deref().map(Condition::parse).transpose().map_err(|error| {
            StoreError::new(ErrorKind::Damaged, format!("{}: {error}", keys::group(group)))
                .with_detail(ErrorDetail::InvalidCondition { group: group.to_string() })
                .with_source(error)
        })?;
        Ok(Filter { types: self.type_filter(group)?, condition })
    }
}

/// A definition as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What it says.
    pub definition: Definition,
    /// For [`replace`].
    pub version: Version,
}

/// Where a new group is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Before every event.
    Earliest,
    /// Behind every event that is there.
    Now,
    /// Behind every event before this time.
    At(EventTime),
}

/// Reads a group's definition, to show it, or to see whether it has changed.
pub async fn find(store: &dyn Store, group: &GroupName) -> StoreResult<Option<Registered>> {
    read(store.get(&keys::group(group)).await?, group)
}

/// Reads a group's definition for work that relies on it. If such a definition were lost again,
/// events that the one before it wants would have been passed over.
pub async fn find_durable(store: &dyn Store, group: &GroupName) -> StoreResult<Option<Registered>> {
    read(get_durable(store, &keys::group(group)).await?, group)
}

fn read(found: Option<Object>, group: &GroupName) -> StoreResult<Option<Registered>> {
    let (key, Some(object)) = (keys::group(group), found) else { return Ok(None) };
    let definition: Definition =
        serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(&key, error))?;
    if definition.shards == 0 || definition.shards > MOST_SHARDS {
        let what = format!("{key}: shards is {}, not 1 to {MOST_SHARDS}", definition.shards);
        return Err(StoreError::new(ErrorKind::Damaged, what));
    }
    Ok(Some(Registered { definition, version: object.version }))
}

/// The names of all groups, in order.
pub async fn names(store: &dyn Store) -> StoreResult<Vec<GroupName>> {
    let page = store.list_after(List::all(keys::GROUPS)).await?;
    Ok(page.keys.iter().filter_map(|key| keys::group_of(key)).collect())
}

/// Makes a group; `None` if one of this name was there first.
pub async fn create(store: &dyn Store, group: &GroupName, definition: Definition) -> StoreResult<Option<Registered>> {
    swap(store, group, None, definition).await
}

/// Makes a group, or finds the one that another process has made first.
pub async fn ensure(store: &dyn Store, group: &GroupName, definition: Definition) -> StoreResult<Registered> {
    if let Some(made) = create(store, group, definition).await? {
        return Ok(made);
    }
    let gone = || StoreError::new(ErrorKind::Other, format!("group '{group}' was made and removed meanwhile"));
    find_durable(store, group).await?.ok_or_else(gone)
}

/// Changes a group's definition; `None` if it was changed meanwhile.
pub async fn replace(
    store: &dyn Store,
    group: &GroupName,
    version: &Version,
    definition: Definition,
) -> StoreResult<Option<Registered>> {
    swap(store, group, Some(version), definition).await
}

/// After this many refusals of a swap without another winner the swap is given up.
const REFUSALS: u32 = 10;

async fn swap(
    store: &dyn Store,
    group: &GroupName,
    version: Option<&Version>,
    definition: Definition,
) -> StoreResult<Option<Registered>> {
    let bytes = crate::bus::to_json_line(&definition);
    let key = keys::group(group);
    for _ in 0..REFUSALS {
        let answer = store.cas(&key, version, &bytes).await;
        let lost = match answer {
            Ok(Swap::Swapped(version)) => return Ok(Some(Registered { definition, version })),
            Ok(Swap::Conflict) => None,
            Err(error) if error.kind() == ErrorKind::Unavailable => Some(error),
            Err(error) => return Err(error),
        };
        let found = find_durable(store, group).await?;
        let stands = found.as_ref().map(|found| &found.version) == version;
        match (found.filter(|found| found.definition == definition), lost) {
            (Some(replaced), _) => return Ok(Some(replaced)),
            (None, Some(error)) => return Err(error),
            // A server may refuse all contenders of a race.
            (None, None) if stands => {}
            (None, None) => return Ok(None),
        }
    }
    Err(StoreError::new(ErrorKind::Unavailable, format!("{key} cannot be written, although no other process wrote it")))
}

/// Resolves a start once. W is raised to the newest event before the start, so that every event
/// acknowledged later lies behind it. No position is ever above W.
pub async fn resolve(store: &dyn Store, clock: &dyn Clock, start: Start) -> StoreResult<Position> {
    let until = match start {
        Start::Earliest => return Ok(Position::START),
        Start::At(time) => EventTime::from_micros(time.as_micros().saturating_sub(1)).min(clock.now()),
        Start::Now => clock.now(),
    };
    let w = frontier::read_durable(store).await?;
    let w = match read::newest_between(store, w, until).await? {
        Some(newest) => frontier::raise(store, newest).await?,
        None => w,
    };
    Ok(Position::Time(match start {
        Start::At(_) => w.min(until),
        _ => w,
    }))
}
