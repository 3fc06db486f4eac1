//! The status of groups: what they have still to do, what is in their way, and which workers own
//! their shards.
//!
//! [`read`] reads a group's files; a [`Tally`] then counts, in one pass over the names on the bus,
//! what each group has still to process. Requests that are not folded in yet count as if they were:
//! a reset shows at once.

use std::fmt;

use super::definition::{self, Definition};
use super::lease::Process;
use super::marker::{Marker, Owner, PendingEvent};
use super::{GroupName, Position, ShardBounds, dead_letter, read_marker, request};
use crate::bus::BusHandle;
use crate::event::{EventName, EventTime, NameMatch, TypeFilter};
use crate::store::{ErrorKind, StoreError, StoreResult};

mod document;
mod event_state;
mod tally;

pub use event_state::EventState;
pub use tally::{Tally, tally};

/// The state of a group in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// Everything is done.
    Ok,
    /// Something is left, and a worker works on it.
    Working,
    /// Something is left, and no worker works on it.
    Waiting,
    /// Events are being retried, or have died.
    Failing,
    /// As many events as allowed are pending, and all have failed: nothing new is started.
    Stalled,
    /// An operator has paused it.
    Paused,
    /// One of its files cannot be read.
    Damaged,
}

impl GroupState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Stalled => "stalled",
            Self::Paused => "paused",
            Self::Damaged => "damaged",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Working, Self::Waiting, Self::Failing, Self::Stalled, Self::Paused, Self::Damaged];
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One shard's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Which shard.
    pub shard: u16,
    /// Its owner.
    pub owner: Owner,
}

/// A group's files as they were read.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupName,
    /// Its definition; none if that cannot be read.
    pub definition: Option<Definition>,
    /// One for each shard, with requests folded in.
    pub markers: Vec<Marker>,
    /// The owners that the markers named, in the order of the shards.
    pub owners: Vec<Owned>,
    /// Dead letters that have not been redriven.
    pub dead_letters: Vec<String>,
    /// Requests that lie on the bus.
    pub requests: usize,
    /// What cannot be read.
    pub damage: Option<StoreError>,
    filter: TypeFilter,
}

/// What a group has still to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Wanted events that are not done.
    pub events: u64,
    /// The oldest of them.
    pub oldest: Option<EventTime>,
    /// Wanted events behind the time given to [`Tally::new`], done or not.
    pub wanted: u64,
}

impl GroupStatus {
    /// Events that failed and will be tried again, the next due first.
    pub fn retrying(&self) -> Vec<(&EventName, &PendingEvent)> {
        let tried = |pending: &PendingEvent| {
            pending.new_dead_letter.is_none() && (pending.why.is_some() || pending.attempts > 0)
        };
        let pending = self.markers.iter().flat_map(|marker| &marker.pending);
        let mut retrying: Vec<_> = pending.filter(|(_, pending)| tried(pending)).collect();
        retrying.sort_by_key(|(name, pending)| (pending.next, *name));
        retrying
    }

    /// Events that were passed over because the group's condition could not be answered for them.
    pub fn unanswered(&self) -> u64 {
        self.markers.iter().map(|marker| marker.unanswered).sum()
    }

    /// Events that later ones of their keys have superseded.
    pub fn superseded(&self) -> u64 {
        self.markers.iter().map(|marker| marker.superseded).sum()
    }

    /// The lowest position of its shards: every event up to its time is known.
    pub fn floor(&self) -> Position {
        let lowest = self.markers.iter().map(|marker| &marker.through).min();
        lowest.cloned().unwrap_or(Position::Time(EventTime::MAX))
    }

    /// Whether one of its shards has an owner that is not known to be gone, as `process` tells.
    pub fn has_live_owner(&self, process: impl Fn(&Owner) -> Process) -> bool {
        self.owners.iter().any(|owned| process(&owned.owner) != Process::Gone)
    }

    /// The state in one word; `process` tells of an owner whether it is known to be gone.
    pub fn state(&self, lag: &Lag, process: impl Fn(&Owner) -> Process) -> GroupState {
        // A large batch alone may fill it.
        let full = |marker: &Marker| {
            let (pending, runs) =
                (&marker.pending, marker.pending.values().filter(|pending| pending.may_run()).count());
            pending.len() >= ShardBounds::default().capacity() && runs * 2 < pending.len()
        };
        match &self.definition {
            _ if self.damage.is_some() => GroupState::Damaged,
            Some(Definition { paused: Some(_), .. }) => GroupState::Paused,
            _ if self.markers.iter().any(full) => GroupState::Stalled,
            _ if !(self.dead_letters.is_empty() && self.retrying().is_empty()) => GroupState::Failing,
            _ if lag.events == 0 => GroupState::Ok,
            _ if self.has_live_owner(process) => GroupState::Working,
            _ => GroupState::Waiting,
        }
    }

    /// The events that its owners run, or are about to, the oldest first, each with its owner.
    pub fn running(&self) -> impl Iterator<Item = (&EventName, &Owner)> {
        self.owners.iter().flat_map(|Owned { shard, owner }| {
            let pending = self.markers.get(usize::from(*shard)).into_iter().flat_map(|marker| &marker.pending);
            let runs = pending.filter(|(_, pending)| pending.may_run());
            runs.map(move |(name, _)| (name, owner))
        })
    }

    /// Whether the group still has to process an event.
    pub fn is_unprocessed(&self, name: &EventName) -> bool {
        let shard = usize::from(name.hash_slot().shard(u16::try_from(self.markers.len()).unwrap_or(1)));
        self.markers.get(shard).is_some_and(|marker| marker.is_unprocessed(name))
    }

    /// Whether the group's filter wants an event of this slug, as far as that tells.
    pub fn wants(&self, slug: &str) -> NameMatch {
        self.filter.matches_slug(slug)
    }
}

/// Reads a group's status; what cannot be read is reported in [`GroupStatus::damage`]. None if
/// there is no such group.
///
/// # Errors
/// Only of a store that cannot be read at all.
pub async fn read(bus: &BusHandle, group: &GroupName) -> StoreResult<Option<GroupStatus>> {
    let mut status = GroupStatus {
        group: group.clone(),
        definition: None,
        markers: Vec::new(),
        owners: Vec::new(),
        dead_letters: dead_letter::names(bus, group).await?,
        requests: 0,
        damage: None,
        filter: TypeFilter::default(),
    };
    match definition::find(&*bus.store, group).await {
        Ok(None) => return Ok(None),
        Ok(Some(found)) => status.definition = Some(found.definition),
        Err(error) => {
            status.note(error)?;
            return Ok(Some(status));
        }
    }
    status.read_shards(bus).await?;
    status.fold_requests(bus).await?;
    let redriven = |dead_letter: &String| {
        let mut pending = status.markers.iter().flat_map(|marker| marker.pending.values());
        pending.any(|pending| pending.redriven_dead_letter.as_ref() == Some(dead_letter))
    };
    status.dead_letters = status.dead_letters.iter().filter(|dead_letter| !redriven(dead_letter)).cloned().collect();
    Ok(Some(status))
}

/// The status of all groups.
///
/// # Errors
/// See [`read`].
pub async fn all(bus: &BusHandle) -> StoreResult<Vec<GroupStatus>> {
    let mut statuses = Vec::new();
    for group in definition::names(&*bus.store).await? {
        statuses.extend(read(bus, &group).await?);
    }
    Ok(statuses)
}

impl GroupStatus {
    async fn read_shards(&mut self, bus: &BusHandle) -> StoreResult<()> {
        let Some(definition) = self.definition.clone() else { return Ok(()) };
        match definition.type_filter(&self.group) {
            Ok(filter) => self.filter = filter,
            Err(error) => self.note(error)?,
        }
        for shard in 0..definition.shards {
            let marker = match read_marker(bus, &self.group, shard, &definition).await {
                Ok((marker, _)) => marker,
                Err(error) => {
                    self.note(error)?;
                    Marker { made: definition.created, ..Marker::new(definition.start.clone()) }
                }
            };
            self.owners.extend(marker.owner.clone().map(|owner| Owned { shard, owner }));
            self.markers.push(marker);
        }
        Ok(())
    }

    async fn fold_requests(&mut self, bus: &BusHandle) -> StoreResult<()> {
        let pending = request::pending(bus, &self.group).await?;
        self.requests = pending.len();
        for asked in &pending {
            if let (Some(marker), Some(request)) = (self.markers.get_mut(usize::from(asked.shard)), &asked.request) {
                let _ = request::fold(marker, &asked.id, request, usize::MAX);
            }
        }
        Ok(())
    }

    /// Notes damage; any other error ends the read.
    fn note(&mut self, error: StoreError) -> StoreResult<()> {
        if error.kind() != ErrorKind::Damaged {
            return Err(error);
        }
        self.damage.get_or_insert(error);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};

    fn name(second: u64, type_: &str) -> EventName {
        let identity = Identity::named("test", &second.to_string());
        let time = EventTime::from_micros(1_800_000_000_000_000).plus(std::time::Duration::from_secs(second));
        EventName::new(time, HashSlot::of("key"), &identity, type_)
    }

    fn status(markers: Vec<Marker>) -> GroupStatus {
        GroupStatus {
            group: GroupName::parse("mail").unwrap(),
            definition: None,
            markers,
            owners: Vec::new(),
            dead_letters: Vec::new(),
            requests: 0,
            damage: None,
            filter: TypeFilter::new(&["order.*".to_owned()], &[]).unwrap(),
        }
    }

    fn lag_of(status: &GroupStatus, names: &[EventName]) -> Lag {
        let mut tally = Tally::new(std::slice::from_ref(status), &[EventTime::MIN]);
        names.iter().for_each(|name| tally.see(&name.key()));
        tally.lags().next().unwrap()
    }

    #[test]
    fn lag_counts_wanted_events_that_are_not_done() {
        let names: Vec<EventName> = (0..6).map(|n| name(n, if n == 4 { "other" } else { "order.created" })).collect();
        let mut marker = Marker::new(Position::Name(names[1].clone()));
        marker.done.insert(names[3].clone());
        marker.pending.insert(names[0].clone(), PendingEvent { attempts: 1, ..PendingEvent::default() });
        let lag = lag_of(&status(vec![marker]), &names);
        // 0 is pending, 1 passed, 2 waits, 3 done, 4 not wanted, 5 waits.
        assert_eq!((lag.events, lag.oldest, lag.wanted), (3, Some(names[0].time()), 5));
    }

    #[test]
    fn a_pending_event_above_through_counts_once() {
        let only = name(3, "order.created");
        let mut marker = Marker::new(Position::START);
        marker.pending.insert(only.clone(), PendingEvent { attempts: 2, ..PendingEvent::default() });
        assert_eq!(lag_of(&status(vec![marker]), &[only]).events, 1);
    }

    #[test]
    fn a_shard_counts_only_its_own() {
        let only = name(3, "order.created");
        let mut markers =
            vec![Marker::new(Position::Time(EventTime::MAX)), Marker::new(Position::Time(EventTime::MAX))];
        assert_eq!(lag_of(&status(markers.clone()), std::slice::from_ref(&only)).events, 0);
        markers[usize::from(only.hash_slot().shard(2))].through = Position::START;
        assert_eq!(lag_of(&status(markers.clone()), std::slice::from_ref(&only)).events, 1);
        markers.swap(0, 1);
        assert_eq!(lag_of(&status(markers), &[only]).events, 0);
    }

    #[test]
    fn the_state_is_the_most_severe_one() {
        let gone = |_: &Owner| Process::Gone;
        let lives = |_: &Owner| Process::MayLive;
        let lag = Lag { events: 1, ..Lag::default() };
        let mut group = status(vec![Marker::new(Position::START)]);
        assert_eq!(group.state(&Lag::default(), lives), GroupState::Ok);
        assert_eq!(group.state(&lag, lives), GroupState::Waiting);
        let owner = Owner {
            worker: "w".to_owned(),
            host: "db1".to_owned(),
            pid: 7,
            boot: String::new(),
            since: EventTime::MIN,
            command: String::new(),
        };
        group.owners.push(Owned { shard: 0, owner });
        assert_eq!(group.state(&lag, lives), GroupState::Working);
        assert_eq!(group.state(&lag, |_| Process::Lives), GroupState::Working);
        assert_eq!(group.state(&lag, gone), GroupState::Waiting);
        group.dead_letters.push("letter".to_owned());
        assert_eq!(group.state(&lag, lives), GroupState::Failing);
        for n in 0..1_000 {
            group.markers[0].pending.insert(name(n, "order.created"), PendingEvent::default());
        }
        assert_eq!(group.state(&lag, lives), GroupState::Failing, "a large batch runs");
        let failed = PendingEvent { next: Some(EventTime::MAX), ..PendingEvent::default() };
        group.markers[0].pending.values_mut().skip(400).for_each(|pending| *pending = failed.clone());
        assert_eq!(group.state(&lag, lives), GroupState::Stalled);
        group.damage = Some(StoreError::new(ErrorKind::Damaged, "x"));
        assert_eq!(group.state(&lag, lives), GroupState::Damaged);
    }

    #[test]
    fn an_untried_event_is_not_retrying() {
        let mut marker = Marker::new(Position::START);
        marker.pending.insert(name(1, "order.created"), PendingEvent::default());
        marker.pending.insert(name(2, "order.created"), PendingEvent { attempts: 1, ..PendingEvent::default() });
        marker.pending.insert(
            name(3, "order.created"),
            PendingEvent { new_dead_letter: Some("l".to_owned()), ..PendingEvent::default() },
        );
        let group = status(vec![marker]);
        let names: Vec<_> = group.retrying().into_iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, [name(2, "order.created")]);
    }
}
