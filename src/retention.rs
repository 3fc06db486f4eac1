//! Retention: deletes what is older than asked and what every group is done with, and nothing else.
//!
//! An event may be deleted when it is at or before `through` of every shard of every group and in
//! none of their `pending` lists. A marker that was never written counts as the group's start, a
//! pending reset as its target.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::time::Duration;

use crate::archive::Archive;
use crate::bus::emit::{EventCopy, acknowledged_copy, noted_objects};
use crate::bus::{BusHandle, horizon, keys, read, schedule};
use crate::event::{EVENTS, EventName, EventTime, ListedKey, NameMatch, TypeFilter, names_between, parse_segment_key};
use crate::group::{GroupName, Position, definition, read_marker, request};
use crate::store::{ErrorDetail, ErrorKind, List, Pager, StoreError, StoreResult, refuse_after_rewind};

/// A file in `staging/` that is older than this was left behind by a writer that died.
const ABANDONED: Duration = Duration::from_hours(24);

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRequest {
    /// Only events before this time.
    pub before: EventTime,
    /// Only say what would be deleted.
    pub dry_run: bool,
}

/// A group that holds back events that are old enough to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The group.
    pub group: GroupName,
    /// How far its slowest shard has come.
    pub through: String,
    /// How many of those events are pending in it.
    pub pending: u64,
    /// How many of them it has not passed yet, or has pending.
    pub held: u64,
    /// How many of those it has still to run, as far as their names tell.
    pub wanted: u64,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Events deleted.
    pub deleted: u64,
    /// How many of them are in the archive.
    pub archived: u64,
    /// The keys of what stays because an archive cannot hold it.
    pub unfit: Vec<String>,
    /// Events that are old enough, but that a group still needs.
    pub held: u64,
    /// The groups that hold events back, slowest first; no others.
    pub holders: Vec<Holder>,
    /// Remembered ids that went with their events.
    pub ids: u64,
    /// Files whose writers died while they wrote them.
    pub abandoned: u64,
}

/// What a group still needs.
struct Need {
    group: GroupName,
    /// Everything after this.
    through: Position,
    /// And these.
    pending: BTreeSet<EventName>,
    /// Events that it is done with, but that `through` cannot pass yet.
    done: BTreeSet<EventName>,
    /// Which events it wants; none if that cannot be read.
    filter: Option<TypeFilter>,
}

impl Need {
    fn allows(&self, old: &Old) -> bool {
        match old {
            Old::Event(name) => self.through.covers(name) && !self.pending.contains(name),
            // All of its events must be passed, the last one and any other of its time, too.
            Old::Segment { first, last, .. } => {
                self.through >= Position::Time(*last) && self.within(&self.pending, *first, *last) == 0
            }
        }
    }

    /// How many of these names have a time from `first` to `last`.
    fn within(&self, names: &BTreeSet<EventName>, first: EventTime, last: EventTime) -> u64 {
        let [from, to] = names_between(first, last);
        count(names.range::<str, _>((Bound::Included(&*from), Bound::Excluded(&*to))).count())
    }

    /// What it holds back of what stays.
    fn holder(&self, stay: &[Old]) -> Holder {
        let mut holder =
            Holder { group: self.group.clone(), through: self.through.to_string(), pending: 0, held: 0, wanted: 0 };
        for old in stay.iter().filter(|old| !self.allows(old)) {
            let wants = |filter: &TypeFilter| old.matches(filter) != NameMatch::No;
            let (pending, done) = match old {
                Old::Event(name) => (u64::from(self.pending.contains(name)), u64::from(self.done.contains(name))),
                Old::Segment { first, last, .. } => {
                    (self.within(&self.pending, *first, *last), self.within(&self.done, *first, *last))
                }
            };
            let waits = match self.filter.as_ref().is_none_or(wants) {
                true => old.len().saturating_sub(done).max(pending),
                false => pending,
            };
            holder.pending += pending;
            holder.wanted += waits;
            holder.held += old.len();
        }
        holder
    }
}

/// Something that is old enough to be deleted.
enum Old {
    Event(EventName),
    Segment { key: String, first: EventTime, last: EventTime, len: u64 },
}

impl Old {
    fn at(key: &str) -> Option<Self> {
        Some(match ListedKey::parse(key)? {
            ListedKey::Event(_) => Self::Event(EventName::from_key(key)?),
            parts @ ListedKey::Segment(_) => Self::Segment {
                key: key.to_owned(),
                first: parts.first(),
                last: parts.last(),
                len: parts.event_count(),
            },
        })
    }

    fn key(&self) -> String {
        match self {
            Self::Event(name) => name.key(),
            Self::Segment { key, .. } => key.clone(),
        }
    }

    /// The time of its last event.
    fn last(&self) -> EventTime {
        match self {
            Self::Event(name) => name.time(),
            Self::Segment { last, .. } => *last,
        }
    }

    /// How many events it is.
    fn len(&self) -> u64 {
        match self {
            Self::Event(_) => 1,
            Self::Segment { len, .. } => *len,
        }
    }

    fn matches(&self, filter: &TypeFilter) -> NameMatch {
        match self {
            Self::Event(name) => filter.matches_slug(name.slug()),
            Self::Segment { key, .. } => {
                parse_segment_key(key).map_or(NameMatch::Unsure, |parts| filter.matches_segment(parts.slug))
            }
        }
    }
}

/// Prunes; calls `progress` with the number of events looked at so far. With an archive, an event is
/// deleted only once it is safe there.
pub async fn prune(
    bus: &BusHandle,
    asked: PruneRequest,
    archive: Option<&Archive>,
    mut progress: impl FnMut(u64),
) -> StoreResult<PruneReport> {
    let mut report = PruneReport::default();
    let mut pager = Pager::default();
    let mut seen = 0;
    let before = asked.before;
    // Events that are ahead of this machine's clock may be older than their names.
    let old = |now| {
        List::all(EVENTS)
            .keep(move |key| ListedKey::parse(key).is_some_and(|parts| parts.last() < before || parts.last() > now))
    };
    while let Some(keys) = pager.next(&*bus.store, old(bus.clock.now())).await? {
        let rewinds = bus.store.rewinds();
        let mut all = Vec::with_capacity(keys.len());
        for key in &keys {
            if is_old(bus, key, before).await? {
                all.extend(Old::at(key));
            }
        }
        // The groups are read last, just before the deletes, so that a group made meanwhile counts.
        let mut needs = self::needs(bus).await?;
        let (mut go, mut stay): (Vec<Old>, Vec<Old>) =
            all.into_iter().partition(|old| needs.iter().all(|need| need.allows(old)));
        if !asked.dry_run {
            let mut gone: Vec<String> = go.iter().map(Old::key).collect();
            if let Some(archive) = archive {
                let (safe, unfit) = archive.keep(bus, gone).await?;
                let safe: HashSet<String> = safe.into_iter().collect();
                // To write the copies takes a while: a group that was made or reset meanwhile counts, too.
                needs = self::needs(bus).await?;
                let (allowed, held): (Vec<Old>, Vec<Old>) =
                    go.into_iter().partition(|old| needs.iter().all(|need| need.allows(old)));
                stay.extend(held);
                go = allowed.into_iter().filter(|old| safe.contains(&old.key())).collect();
                report.archived += go.iter().map(Old::len).sum::<u64>();
                report.unfit.extend(unfit);
                gone = go.iter().map(Old::key).collect();
            }
            if let Some(last) = go.iter().map(Old::last).max() {
                horizon::raise(&*bus.store, last).await?;
            }
            // Markers that were read before may be behind again.
            refuse_after_rewind(&*bus.store, rewinds)?;
            bus.store.delete_many(&gone).await?;
        }
        report.deleted += go.iter().map(Old::len).sum::<u64>();
        report.held += stay.iter().map(Old::len).sum::<u64>();
        report.take_holders(needs.iter().map(|need| need.holder(&stay)));
        seen += count(keys.len());
        progress(seen);
    }
    report.holders.sort_by(|a, b| a.through.cmp(&b.through));
    if !asked.dry_run {
        report.ids = forget_ids(bus, asked.before).await?;
        // A put may be under way for as long as it takes until a write counts as abandoned.
        schedule::forget(&*bus.store, asked.before.min(bus.clock.now().minus(ABANDONED))).await?;
        report.abandoned = bus.store.tidy(ABANDONED).await?;
    }
    Ok(report)
}

/// Whether what lies at a key is old enough to be deleted. Where W has been ahead of the clock, a
/// name does not tell: then the event itself does, or the newest one of a segment.
async fn is_old(bus: &BusHandle, key: &str, before: EventTime) -> StoreResult<bool> {
    if ListedKey::parse(key).is_some_and(|parts| parts.last() < before) {
        return Ok(true);
    }
    Ok(read::newest_happened_at(bus, key).await?.is_some_and(|happened| happened < before))
}

impl PruneReport {
    /// Adds what groups hold back of a page.
    fn take_holders(&mut self, holders: impl Iterator<Item = Holder>) {
        for new in holders.filter(|holder| holder.held > 0) {
            match self.holders.iter_mut().find(|holder| holder.group == new.group) {
                Some(holder) => {
                    holder.pending += new.pending;
                    holder.held += new.held;
                    holder.wanted += new.wanted;
                    holder.through = new.through;
                }
                None => self.holders.push(new),
            }
        }
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

async fn needs(bus: &BusHandle) -> StoreResult<Vec<Need>> {
    let groups = definition::names(&*bus.store).await?;
    if groups.is_empty() {
        let what = "this bus has no groups, so no group has processed anything";
        return Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::NoGroups));
    }
    let mut needs = Vec::new();
    for group in groups {
        let Some(registered) = definition::find_durable(&*bus.store, &group).await? else { continue };
        // A reset may be folded into its marker between the two reads, or come between them: so the
        // requests are read twice.
        let mut asked = request::pending(bus, &group).await?;
        let (mut through, mut pending) = (Position::Time(EventTime::MAX), BTreeSet::new());
        let mut done = BTreeSet::new();
        for shard in 0..registered.definition.shards {
            let (marker, version) = read_marker(bus, &group, shard, &registered.definition).await?;
            if version.is_some() {
                // Events that the marker says are passed are about to be deleted.
                bus.store.persist(&keys::marker(&group, shard)).await?;
            }
            pending.extend(marker.pending.into_keys());
            done.extend(marker.done);
            through = through.min(marker.through);
        }
        asked.extend(request::pending(bus, &group).await?);
        for asked in asked {
            match asked.request {
                Some(request::Request::Reset { to }) => {
                    through = through.min(to);
                    done.clear();
                }
                Some(request::Request::Redrive { event, .. }) => {
                    pending.insert(event);
                }
                Some(request::Request::Share { .. }) => {}
                // An unreadable request may need any event: nothing is deleted until it has been
                // dealt with.
                None => through = Position::START,
            }
        }
        let filter = registered.definition.type_filter(&group).ok();
        needs.push(Need { group, through, pending, done, filter });
    }
    Ok(needs)
}

/// A named id is remembered as long as its event would be kept, or waits.
pub(crate) async fn forget_ids(bus: &BusHandle, before: EventTime) -> StoreResult<u64> {
    let mut pager = Pager::default();
    let mut forgotten = 0;
    while let Some(records) = pager.next(&*bus.store, List::all(keys::DEDUP)).await? {
        let rewinds = bus.store.rewinds();
        let mut old = Vec::new();
        for key in &records {
            let Some(object) = bus.store.get(key).await? else { continue };
            if is_forgotten(bus, &object.bytes, before).await? {
                old.push((key.clone(), object.bytes));
            }
        }
        // Each record once more: a release or an emit may have replaced it.
        let mut unchanged = Vec::with_capacity(old.len());
        for (key, bytes) in old {
            if bus.store.get(&key).await?.is_some_and(|object| object.bytes == bytes) {
                unchanged.push(key);
            }
        }
        refuse_after_rewind(&*bus.store, rewinds)?;
        bus.store.delete_many(&unchanged).await?;
        forgotten += count(unchanged.len());
    }
    Ok(forgotten)
}

/// Whether a record, or a note of a killed emit, tells of nothing that is there, or may come.
async fn is_forgotten(bus: &BusHandle, record: &[u8], before: EventTime) -> StoreResult<bool> {
    if let Some(EventCopy { name, key }) = acknowledged_copy(record) {
        return Ok(name.time() < before
            && bus.store.get(&key).await?.is_none()
            && bus.store.get(&keys::scheduled(&name)).await?.is_none());
    }
    for key in noted_objects(record).unwrap_or_else(|_| vec![String::new()]) {
        if ListedKey::parse(&key).is_none_or(|parts| parts.last() >= before) || bus.store.get(&key).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
