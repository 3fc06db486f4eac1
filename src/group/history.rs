//! What a group's workers have run, for people: nothing relies on it.
//!
//! Each worker writes what has ended within a second or so as one object, a line an entry. Old objects are joined, and
//! what is too old or too much is deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::GroupName;
use crate::bus::{BusHandle, keys, to_json_line};
use crate::event::{EventName, EventTime, hex, sha256_of_much};
use crate::store::{List, Pager, Put, StoreResult};

/// More objects than this are joined.
const MOST_OBJECTS: usize = 64;

/// Objects are joined up to this size, in bytes.
const JOINED_BYTES: u64 = 256 * 1024;

/// A history that is full lies in about as many objects, at least.
const PARTS: u64 = 8;

/// How much of a group's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// For how long.
    pub age: Duration,
    /// At most so many bytes.
    pub bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { age: Duration::from_hours(7 * 24), bytes: 4 << 20 }
    }
}

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEnd {
    /// The event is processed.
    Done,
    /// The event is tried again.
    Failed,
    /// The event is given up.
    Dead,
    /// The run was cut short, and does not count.
    Stopped,
    /// The event was not run, because a later one of its key was.
    Superseded,
}

impl RunEnd {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Stopped => "stopped",
            Self::Superseded => "superseded",
        }
    }

    /// Whether it is a failure.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Dead)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it began.
    pub started: EventTime,
    /// Its event.
    pub event: EventName,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub result: RunEnd,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The exit code of its command, or the status of the answer, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// How a failed one ended, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When the event is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<EventTime>,
    /// The later event that was run in place of a superseded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<EventName>,
    /// How many events the run was for, if not for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<usize>,
    /// The last lines of its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// The host and the process id of the worker.
    pub worker: String,
}

/// One object of a history, as its key tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HistoryObject {
    /// When the last of its entries was written.
    written: EventTime,
    key: String,
    bytes: u64,
}

impl HistoryObject {
    /// `<time>-<16 hexadecimal digits>-<bytes>.ndjson`
    fn parse(group: &GroupName, key: &str) -> Option<Self> {
        let name = key.strip_prefix(&keys::history(group))?.strip_suffix(".ndjson")?;
        let (written, rest) = (name.get(..EventTime::LEN)?.parse().ok()?, name.get(EventTime::LEN..)?);
        let (_, bytes) = rest.strip_prefix('-')?.split_once('-')?;
        Some(Self { written, key: key.to_owned(), bytes: bytes.parse().ok()? })
    }

    fn key(group: &GroupName, written: EventTime, content: &[u8]) -> String {
        let hash = hex(&sha256_of_much(content)[..8]);
        format!("{}{written}-{hash}-{:08}.ndjson", keys::history(group), content.len())
    }
}

/// The objects of a history from a time on, the oldest first.
async fn objects(bus: &BusHandle, group: &GroupName, since: EventTime) -> StoreResult<Vec<HistoryObject>> {
    let prefix = keys::history(group);
    let after = format!("{prefix}{since}");
    let mut pager = Pager::default();
    let mut objects = Vec::new();
    while let Some(page) = pager.next(&*bus.store, List::all(&prefix).after(after.clone())).await? {
        objects.extend(page.iter().filter_map(|key| HistoryObject::parse(group, key)));
    }
    Ok(objects)
}

/// Writes entries, as one object unless they are many: objects are deleted as a whole.
///
/// # Errors
/// The store's.
pub async fn write<'a>(
    bus: &BusHandle,
    group: &GroupName,
    entries: impl IntoIterator<Item = &'a HistoryEntry>,
    limits: HistoryLimits,
) -> StoreResult<()> {
    let most = usize::try_from(limits.bytes / PARTS).unwrap_or(usize::MAX);
    let mut content = Vec::new();
    for line in entries.into_iter().map(to_json_line) {
        if !content.is_empty() && content.len() + line.len() > most {
            put(bus, group, bus.clock.now(), &std::mem::take(&mut content)).await?;
        }
        content.extend(line);
    }
    put(bus, group, bus.clock.now(), &content).await
}

async fn put(bus: &BusHandle, group: &GroupName, written: EventTime, content: &[u8]) -> StoreResult<()> {
    // What is there under the key of this content is this content.
    let _: Put = bus.store.put_new(&HistoryObject::key(group, written, content), content).await?;
    Ok(())
}

/// Reads a history as it grows.
pub struct Follower {
    group: GroupName,
    since: EventTime,
    /// The objects of the last minute that were read.
    seen: BTreeSet<String>,
}

/// An object may become visible so long after its time.
const LATE: Duration = Duration::from_mins(1);

impl Follower {
    /// Reads what is written from a time on.
    pub fn new(group: GroupName, since: EventTime) -> Self {
        Self { group, since, seen: BTreeSet::new() }
    }

    /// The entries that were written since the last call, the oldest first. Lines that cannot be read are left out.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(&mut self, bus: &BusHandle) -> StoreResult<Vec<HistoryEntry>> {
        let objects = objects(bus, &self.group, self.since).await?;
        let mut entries = Vec::new();
        for object in objects.iter().filter(|object| !self.seen.contains(&object.key)) {
            // One that was joined meanwhile is read there by the next look.
            let Some(found) = bus.store.get(&object.key).await? else { continue };
            let lines = found.bytes.split(|byte| *byte == b'\n');
            entries.extend(lines.filter_map(|line| serde_json::from_slice::<HistoryEntry>(line).ok()));
        }
        self.since = self.since.max(bus.clock.now().minus(LATE));
        self.seen =
            objects.into_iter().filter(|object| object.written >= self.since).map(|object| object.key).collect();
        entries.sort_by(|a, b| (a.started, &a.event, a.attempt).cmp(&(b.started, &b.event, b.attempt)));
        // While objects are joined, an entry is in two of them.
        entries.dedup();
        Ok(entries)
    }
}

/// Deletes what is too old or too much, and joins small objects. Nothing that it does may fail a worker.
///
/// # Errors
/// The store's.
pub async fn tidy(bus: &BusHandle, group: &GroupName, limits: HistoryLimits) -> StoreResult<()> {
    let objects = objects(bus, group, EventTime::MIN).await?;
    let oldest = bus.clock.now().minus(limits.age);
    let mut bytes = 0;
    let (kept, gone): (Vec<HistoryObject>, Vec<HistoryObject>) = objects.into_iter().rev().partition(|object| {
        bytes += object.bytes;
        object.written >= oldest && bytes <= limits.bytes
    });
    let gone: Vec<String> = gone.into_iter().map(|object| object.key).collect();
    if !gone.is_empty() {
        bus.store.delete_many(&gone).await?;
    }
    // What readers may still find to be new stays as it is.
    let known = bus.clock.now().minus(2 * LATE);
    let old: Vec<HistoryObject> = kept.into_iter().filter(|object| object.written < known).collect();
    if old.len() > MOST_OBJECTS {
        join(bus, group, old, JOINED_BYTES.min(limits.bytes / PARTS)).await?;
    }
    Ok(())
}

/// Joins runs of small objects, to no more than `most` bytes; `objects` has the newest first. A reader may find an entry
/// twice meanwhile.
async fn join(bus: &BusHandle, group: &GroupName, objects: Vec<HistoryObject>, most: u64) -> StoreResult<()> {
    let small: Vec<HistoryObject> = objects.into_iter().rev().filter(|object| object.bytes < most / 2).collect();
    let mut at = 0;
    while at < small.len() {
        let mut bytes = 0;
        let part: Vec<&HistoryObject> = small[at..]
            .iter()
            .take_while(|object| {
                bytes += object.bytes;
                bytes <= most
            })
            .collect();
        at += part.len().max(1);
        if part.len() < 2 {
            continue;
        }
        let mut content = Vec::new();
        for object in &part {
            let Some(found) = bus.store.get(&object.key).await? else { continue };
            content.extend_from_slice(&found.bytes);
        }
        let written = part.last().map_or(EventTime::MIN, |object| object.written);
        put(bus, group, written, &content).await?;
        let joined: Vec<String> = part.iter().map(|object| object.key.clone()).collect();
        bus.store.delete_many(&joined).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::clock::{Clock, SetClock};
    use crate::store::memory::{Calm, Contents, MemoryStore};
    use crate::store::object;

    async fn read(bus: &BusHandle, group: &GroupName, since: EventTime) -> StoreResult<Vec<HistoryEntry>> {
        Follower::new(group.clone(), since).next(bus).await
    }

    fn entry(second: u32, attempt: u32) -> HistoryEntry {
        let name = format!("20261123T0215{:02}.000000Z-7k00000000{second:06}-t.json", second % 60);
        HistoryEntry {
            started: EventTime::from_micros(i64::from(second) * 1_000_000),
            event: EventName::parse(&name).unwrap(),
            attempt,
            result: RunEnd::Failed,
            seconds: 0.25,
            exit: Some(1),
            why: Some("exit 1".to_owned()),
            next: None,
            by: None,
            events: None,
            output: vec!["no".to_owned(); 3],
            worker: "h:1".to_owned(),
        }
    }

    #[tokio::test]
    async fn many_entries_are_not_deleted_together() {
        let clock = Rc::new(SetClock::at(EventTime::from_micros(1_000_000_000)));
        let store = MemoryStore::new(Rc::new(Contents::default()), Rc::new(Calm), object::PROFILE);
        let bus = BusHandle::new(Rc::new(store), clock as _);
        let group = GroupName::parse("g").unwrap();
        let limits = HistoryLimits { age: Duration::from_secs(900), bytes: 8_000 };
        let entries: Vec<HistoryEntry> = (0..100).map(|n| entry(0, n)).collect();
        write(&bus, &group, &entries, limits).await.unwrap();
        tidy(&bus, &group, limits).await.unwrap();
        let kept: u64 = objects(&bus, &group, EventTime::MIN).await.unwrap().iter().map(|object| object.bytes).sum();
        assert!((6_000..=8_000).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn a_history_is_bounded_and_read_in_order() {
        let clock = Rc::new(SetClock::at(EventTime::from_micros(1_000_000_000)));
        let store = MemoryStore::new(Rc::new(Contents::default()), Rc::new(Calm), object::PROFILE);
        let bus = BusHandle::new(Rc::new(store), Rc::clone(&clock) as _);
        let group = GroupName::parse("g").unwrap();
        let start = clock.now();
        let mut follower = Follower::new(group.clone(), EventTime::MIN);
        let limits = HistoryLimits { age: Duration::from_secs(900), bytes: 1 << 20 };
        let mut followed = Vec::new();
        for second in 0..400 {
            clock.set(start.plus(Duration::from_secs(second.into())));
            write(&bus, &group, &[entry(second, 1), entry(second, 2)], limits).await.unwrap();
            followed.extend(follower.next(&bus).await.unwrap());
            if second % 32 == 31 {
                tidy(&bus, &group, limits).await.unwrap();
            }
        }
        let all: Vec<HistoryEntry> = (0..400).flat_map(|second| [entry(second, 1), entry(second, 2)]).collect();
        assert!(followed == all, "each once, joined or not: {} of {}", followed.len(), all.len());
        tidy(&bus, &group, limits).await.unwrap();
        assert!(read(&bus, &group, EventTime::MIN).await.unwrap() == all);
        let objects_now = objects(&bus, &group, EventTime::MIN).await.unwrap();
        assert!(objects_now.len() <= 190, "{}", objects_now.len());
        assert!(objects_now.iter().all(|object| object.bytes <= JOINED_BYTES));
        let late = read(&bus, &group, start.plus(Duration::from_secs(399))).await.unwrap();
        assert!(late.ends_with(&all[798..]), "an object is read if its last entry is as late");
        // Too much, and then too old.
        tidy(&bus, &group, HistoryLimits { bytes: 3_000, ..limits }).await.unwrap();
        let left = read(&bus, &group, EventTime::MIN).await.unwrap();
        assert!(!left.is_empty() && left.len() < 20 && all.ends_with(&left), "{}", left.len());
        clock.set(start.plus(Duration::from_secs(1_400)));
        tidy(&bus, &group, limits).await.unwrap();
        assert_eq!(read(&bus, &group, EventTime::MIN).await.unwrap(), []);
    }
}
