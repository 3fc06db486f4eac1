//! Where everything lies on the bus, the same on every store.

use super::group_name::GroupName;
use crate::event::{EVENTS, EventName, EventTime, minute_folder};

/// The bus's format version and the settings fixed at its creation.
pub const BUS: &str = "bus.json";

/// The key to list after for everything at or after `time`.
pub fn list_from(time: EventTime) -> String {
    // '-' follows the time in every name, and nothing sorts between a time and the same time with '-'.
    format!("{}{time}", minute_folder(time))
}

/// The register that holds W.
pub const FRONTIER: &str = "frontier";

/// The register that holds up to where events were pruned.
pub const HORIZON: &str = "horizon";

/// Up to when a schedule was served, a register.
pub fn schedule(name: &str) -> String {
    format!("schedules/{name}.json")
}

/// Which files of a source have their events, a register.
pub fn source(name: &str) -> String {
    format!("sources/{name}.json")
}

/// The registry of groups.
pub const GROUPS: &str = "groups/";

/// The definition of a group, a register.
pub fn group(group: &GroupName) -> String {
    format!("{GROUPS}{group}.json")
}

/// The group that a registry key defines.
pub fn group_of(key: &str) -> Option<GroupName> {
    GroupName::parse(key.strip_prefix(GROUPS)?.strip_suffix(".json")?).ok()
}

/// Everything that is kept about a group's progress.
pub fn state(group: &GroupName) -> String {
    format!("state/{group}/")
}

/// The processed marker of one shard, a register.
pub fn marker(group: &GroupName, shard: u16) -> String {
    format!("state/{group}/marker-{shard:03}")
}

/// The shard whose marker lies at a key.
pub fn marker_of(group: &GroupName, key: &str) -> Option<u16> {
    key.strip_prefix(&state(group))?.strip_prefix("marker-")?.parse().ok()
}

/// The dead letters of a group.
pub fn dead_letters(group: &GroupName) -> String {
    format!("state/{group}/dead/")
}

/// One dead letter, by its name.
pub fn dead_letter(group: &GroupName, name: &str) -> String {
    format!("state/{group}/dead/{name}.json")
}

/// The name of the dead letter that lies at a key.
pub fn dead_letter_of<'a>(group: &GroupName, key: &'a str) -> Option<&'a str> {
    key.strip_prefix(&dead_letters(group))?.strip_suffix(".json")
}

/// Whether a dead letter of any group lies at a key.
pub fn is_dead_letter(key: &str) -> bool {
    key.strip_prefix("state/").and_then(|rest| rest.split_once('/')).is_some_and(|(_, rest)| rest.starts_with("dead/"))
}

/// What a group's workers have run.
pub fn history(group: &GroupName) -> String {
    format!("state/{group}/history/")
}

/// What operators have asked of a group.
pub fn requests(group: &GroupName) -> String {
    format!("state/{group}/requests/")
}

/// One request to the owner of one shard.
pub fn request(group: &GroupName, shard: u16, id: &str) -> String {
    format!("state/{group}/requests/{shard:03}-{id}.json")
}

/// The shard and the id of the request at a key.
pub fn request_of<'a>(group: &GroupName, key: &'a str) -> Option<(u16, &'a str)> {
    let (shard, id) = key.strip_prefix(&requests(group))?.strip_suffix(".json")?.split_once('-')?;
    Some((shard.parse().ok()?, id))
}

/// Events that wait for their time. It sorts behind all else: see [`crate::store::Store::list_with_tail`].
pub const SCHEDULED: &str = "timed/";

/// The key under which an event waits until the time of its name.
pub fn scheduled(name: &EventName) -> String {
    let key = name.key();
    format!("{SCHEDULED}{}", key.strip_prefix(EVENTS).unwrap_or(&key))
}

/// The event that waits at a key.
pub fn scheduled_name(key: &str) -> Option<EventName> {
    EventName::from_key(&format!("{EVENTS}{}", key.strip_prefix(SCHEDULED)?))
}

/// The key of the decision whether a scheduled entry is released or cancelled.
pub fn decision(name: &EventName) -> String {
    format!("{}{DECISION}", scheduled(name))
}

/// Whether a decision lies at a key.
pub fn is_decision(key: &str) -> bool {
    key.strip_suffix(DECISION).is_some_and(|key| scheduled_name(key).is_some())
}

/// The end of a decision's key.
pub const DECISION: &str = ".decided";

/// The dedup records of named ids.
pub const DEDUP: &str = "dedup/";

/// The dedup record of a named id.
pub fn dedup(hash: &str) -> String {
    format!("{DEDUP}{hash}.json")
}

/// A note of objects that are being put, the first event of which has this dedup hash.
pub fn note(hash: &str, number: u32) -> String {
    format!("{DEDUP}{hash}-{number}.json")
}
