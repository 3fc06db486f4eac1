//! The operations of a worker on the store: each is a future that ends in what the worker must
//! know.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::definition::{self, Registered};
use super::engine::{Commit, Committed, ControlRequests, GroupChanges, Polled, ScanStats, ShardScan, can_be_repeated};
use super::polls::Polls;
use super::troubles::Troubles;
use super::{Definition, GroupName, Listing, Marker, Position, request};
use crate::bus::look::{self, LookBounds, Observer, Wanted};
use crate::bus::{BusHandle, frontier, keys, read};
use crate::clock::Backoff;
use crate::event::{EVENTS, EventName, EventTime, Filter, ListedKey};
use crate::store::{
    ErrorKind, List, Page, PageWithTail, StoreError, StoreResult, Swap, TailMatch, Version, get_durable,
};

/// What every operation of one worker needs.
#[derive(Clone)]
pub(super) struct GroupStore {
    pub bus: BusHandle,
    pub group: GroupName,
    pub filter: Arc<Filter>,
    /// The version of the definition that `filter` is from.
    pub version: Version,
    /// When the last read began that found that version unchanged.
    pub confirmed: Rc<Cell<Option<Duration>>>,
    /// The errors that operations have met and go on trying after.
    pub troubles: Rc<Troubles>,
    pub shards: u16,
    /// The store's [`rewinds`](crate::store::Store::rewinds) before anything was read that the worker goes by.
    pub rewinds: u64,
    /// Shares the polls of this process.
    pub polls: Option<Rc<Polls>>,
}

/// Collects [`ScanStats`] while a listing runs, perhaps on another thread.
struct ScanCollector {
    now: EventTime,
    limit: EventTime,
    newest: AtomicI64,
    newest_raisable: AtomicI64,
    raisable_len: AtomicU64,
    foreign: Mutex<Option<String>>,
    /// The key of the newest event whose time this worker's clock has not reached.
    ahead: Mutex<Option<String>>,
    /// Whether there was an event that the group does not want.
    unwanted: AtomicBool,
}

impl ScanCollector {
    fn new(bus: &BusHandle) -> Arc<Self> {
        let now = bus.clock.now();
        Arc::new(Self {
            now,
            limit: now.minus(bus.store.profile().lag),
            newest: AtomicI64::new(i64::MIN),
            newest_raisable: AtomicI64::new(i64::MIN),
            raisable_len: AtomicU64::new(0),
            foreign: Mutex::default(),
            ahead: Mutex::default(),
            unwanted: AtomicBool::new(false),
        })
    }

    /// Sees a key; `unwanted`: its type is not wanted.
    fn see(&self, key: &str, parsed: Option<&ListedKey<'_>>, unwanted: bool) {
        let Some(parsed) = parsed else { return self.see_foreign(key) };
        let last = parsed.last();
        if last <= self.now {
            self.newest.fetch_max(last.as_micros(), Ordering::Relaxed);
        } else {
            self.see_ahead(key);
        }
        if last <= self.limit {
            self.newest_raisable.fetch_max(last.as_micros(), Ordering::Relaxed);
            self.raisable_len.fetch_add(parsed.event_count(), Ordering::Relaxed);
        }
        self.unwanted.fetch_or(unwanted, Ordering::Relaxed);
    }

    fn see_ahead(&self, key: &str) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.as_deref().is_none_or(|newest| key > newest) {
            *ahead = Some(key.to_owned());
        }
    }

    fn see_foreign(&self, key: &str) {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.get_or_insert_with(|| key.to_owned());
    }

    /// The collector, and the observer that fills it.
    fn observing(self: Arc<Self>) -> (Arc<Self>, Observer) {
        let seen = Arc::clone(&self);
        (self, Arc::new(move |key, parsed, unwanted| seen.see(key, parsed, unwanted)))
    }

    fn stats(&self, took: Duration) -> ScanStats {
        let time = |micros: &AtomicI64| {
            Some(micros.load(Ordering::Relaxed)).filter(|micros| *micros != i64::MIN).map(EventTime::from_micros)
        };
        ScanStats {
            newest: time(&self.newest),
            newest_raisable: time(&self.newest_raisable),
            raisable_len: self.raisable_len.load(Ordering::Relaxed),
            foreign: self.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            took,
        }
    }
}

impl GroupStore {
    /// Whether the store still has what the worker goes by.
    pub fn is_current(&self) -> bool {
        self.rewinds == self.bus.store.rewinds()
    }

    /// Reads W, raising it first if `raise_to` says so, and then lists a shard's window. If the
    /// listing shows an event that the group does not want, the group's definition is read last, to
    /// see whether it still does not: every event emitted after the group was changed to want it
    /// lies above the W that was read before.
    pub async fn scan(
        &self,
        shard: u16,
        through: &Position,
        raise_to: Option<EventTime>,
        bounds: LookBounds,
    ) -> StoreResult<ShardScan> {
        let store = &*self.bus.store;
        let w = match raise_to {
            Some(time) => frontier::raise(store, time).await?,
            None => frontier::read_durable(store).await?,
        };
        let (collector, observer) = ScanCollector::new(&self.bus).observing();
        let wanted = Wanted { shard: Some((shard, self.shards)), ..Wanted::of(self.filter.types.clone()) };
        let begun = self.bus.clock.elapsed();
        let found = look::look(&self.bus, through, &wanted, bounds, &observer).await?;
        let mut stats = collector.stats(self.bus.clock.elapsed().saturating_sub(begun));
        stats.foreign = stats.foreign.or(found.surplus);
        if let Some(ahead) = self.raisable_ahead(&collector, w, found.end.is_some()).await? {
            stats.newest = stats.newest.max(Some(ahead));
            stats.newest_raisable = stats.newest_raisable.max(Some(ahead));
            stats.raisable_len += 1;
        }
        let redefined = match found.unwanted || collector.unwanted.load(Ordering::Relaxed) {
            true => self.redefined(begun).await?,
            false => None,
        };
        let mut listing = Listing::new(w, found.names, found.end);
        listing.segments = found.segments;
        let (barrier, unread) = found.barrier.unzip();
        listing.barrier = barrier;
        Ok(ShardScan { whole: true, listing, stats, redefined, unread })
    }

    /// When a wrong clock has put W ahead of this worker's clock, all new names are ahead too. How
    /// old their events are, only the events themselves say. Returns the time of the newest, if W
    /// may be raised to it.
    async fn raisable_ahead(
        &self,
        collector: &ScanCollector,
        w: EventTime,
        is_truncated: bool,
    ) -> StoreResult<Option<EventTime>> {
        let ahead = collector.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ahead = ahead.filter(|_| w > collector.now && !is_truncated);
        let Some(key) = ahead else { return Ok(None) };
        let time = ListedKey::parse(&key).map(|parts| parts.last());
        // What cannot be read now raises nothing.
        let happened = read::newest_happened_at(&self.bus, &key).await.unwrap_or_default();
        Ok(happened.filter(|happened| *happened <= collector.limit).and(time))
    }

    /// The group's definition, if it has changed; an earlier check counts if it began at `since` or
    /// later.
    pub async fn redefined(&self, since: Duration) -> StoreResult<Option<Registered>> {
        if self.confirmed.get() >= Some(since) {
            return Ok(None);
        }
        Ok(self.definition().await?.filter(|found| found.version != self.version))
    }

    /// Lists what is new after `cursor`, in all shards, and also what else has changed, where that
    /// costs no more. Uses a shared poll later than `seen`, where polls are shared.
    pub async fn poll(&self, cursor: String, bounds: LookBounds, seen: u64) -> StoreResult<Polled> {
        let (collector, observer) = ScanCollector::new(&self.bus).observing();
        let wanted = Wanted::of(self.filter.types.clone());
        let within = wanted.clone();
        let list = List::all(EVENTS).after(cursor).limit(bounds.window).keep(move |key| {
            let parsed = ListedKey::parse(key);
            let (wanted_type, wanted) = parsed.as_ref().map_or((true, false), |parsed| within.key(parsed));
            observer(key, parsed.as_ref(), !wanted_type);
            wanted
        });
        let (definition, state) = (keys::group(&self.group), keys::state(&self.group));
        let tail_filter = move |key: &str| match key {
            _ if keys::scheduled_name(key).is_some() => TailMatch::Last,
            _ if key == definition || (key.starts_with(&state) && !keys::is_dead_letter(key)) => TailMatch::Yes,
            _ => TailMatch::No,
        };
        let begun = self.bus.clock.elapsed();
        let (shown, poll) = match &self.polls {
            None => (self.bus.store.list_with_tail(list, Arc::new(tail_filter)).await?, 0),
            Some(polls) => {
                let poll = Rc::clone(polls).after(self.bus.clone(), list.after.clone(), seen).await?;
                (picked(&poll.page, &list, tail_filter), poll.number)
            }
        };
        let stats = collector.stats(self.bus.clock.elapsed().saturating_sub(begun));
        let (names, next) = self.expanded(shown.page, &wanted, bounds).await?;
        let changes = shown.tail.map(|found| self.changes(found));
        Ok(Polled { names, next, stats, changes, poll })
    }

    /// The wanted names of a page, and after which key more may follow. A segment that cannot be
    /// read is left to the scans.
    async fn expanded(
        &self,
        page: Page,
        wanted: &Wanted,
        bounds: LookBounds,
    ) -> StoreResult<(Vec<EventName>, Option<String>)> {
        let mut names = Vec::new();
        let (mut reads, mut last) = (0, None);
        for key in page.keys {
            let Some(parsed) = ListedKey::parse(&key) else { continue };
            let len = usize::try_from(parsed.event_count()).unwrap_or(usize::MAX);
            let is_full = names.len() + len > bounds.window || reads == bounds.reads;
            if is_full && last.is_some() {
                return Ok((names, last));
            }
            match parsed {
                ListedKey::Event(_) => names.extend(EventName::from_key(&key)),
                ListedKey::Segment(_) => {
                    reads += 1;
                    names.extend(look::names_in_segment(&self.bus, &key, wanted).await?);
                }
            }
            last = Some(key);
        }
        Ok((names, last.filter(|_| page.is_truncated)))
    }

    fn changes(&self, found: Vec<(String, Version)>) -> GroupChanges {
        let mut changes = GroupChanges::default();
        for (key, version) in found {
            if key == keys::group(&self.group) {
                changes.definition = Some(version);
            } else if let Some(waiting) = keys::scheduled_name(&key) {
                changes.scheduled = Some(waiting.time());
            } else if keys::request_of(&self.group, &key).is_some() {
                changes.requests = true;
            } else if let Some(shard) = keys::marker_of(&self.group, &key) {
                changes.markers.push((shard, version));
            }
        }
        changes
    }

    /// Reads a shard's marker.
    pub async fn marker(&self, shard: u16, definition: &Definition) -> StoreResult<(Marker, Option<Version>)> {
        read_marker(&self.bus, &self.group, shard, definition).await
    }

    /// The requests that are there now, and which of the idle shards have work again: between two
    /// of these reads, a request may have come and been folded in by an owner that died afterwards.
    pub async fn ask(&self, idle: Vec<u16>, definition: &Definition) -> StoreResult<ControlRequests> {
        let pending = request::pending(&self.bus, &self.group).await?;
        let mut woken = Vec::new();
        for shard in idle {
            let (marker, _) = self.marker(shard, definition).await?;
            if marker.owner.is_some() || !marker.pending.is_empty() {
                woken.push(shard);
            }
        }
        Ok(ControlRequests { pending, woken })
    }

    /// The group as it is registered now.
    pub async fn definition(&self) -> StoreResult<Option<Registered>> {
        let begun = self.bus.clock.elapsed();
        let found = definition::find(&*self.bus.store, &self.group).await?;
        if found.as_ref().is_some_and(|found| found.version == self.version) {
            self.confirmed.set(self.confirmed.get().max(Some(begun)));
        } else if found.is_some() {
            // The worker relies on it from now on.
            self.bus.store.persist(&keys::group(&self.group)).await?;
        }
        Ok(found)
    }

    /// Writes a commit and makes sure of the answer: after a lost answer, or a conflict that may be
    /// with itself, it reads back and compares epoch and nonce before it believes either. If the
    /// error is one that an operator can repair, it goes on trying until a lease is over: then
    /// another worker may own the shard. If the store has lost its latest writes, the commit rests on what may not be
    /// there any more: it is not believed.
    pub async fn commit(&self, shard: u16, commit: &Commit, lease: Duration) -> Committed {
        let key = keys::marker(&self.group, shard);
        let store = &*self.bus.store;
        let clock = &self.bus.clock;
        let sent = clock.elapsed();
        let over = |now: Duration| now.saturating_sub(sent) >= lease;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            if !self.is_current() {
                return Committed::Fenced;
            }
            match store.cas(&key, commit.version.as_ref(), &commit.bytes).await {
                Ok(Swap::Swapped(version)) => return Committed::Yes { version, sent },
                Ok(Swap::Conflict) => {}
                Err(error) if can_be_repeated(&error) && !over(clock.elapsed()) => self.troubles.record(error),
                Err(error) => return Committed::Failed(error),
            }
            match get_durable(store, &key).await {
                Ok(_) if !self.is_current() => return Committed::Fenced,
                Ok(found) => {
                    match self.commit_state(commit, found.as_ref().map(|object| (&object.bytes[..], &object.version))) {
                        CommitState::Ours(version) => return Committed::Yes { version, sent },
                        CommitState::Theirs => return Committed::Fenced,
                        CommitState::Removed => {
                            let what = format!("{key} was removed");
                            return Committed::Failed(StoreError::new(ErrorKind::Unfit, what));
                        }
                        CommitState::NotYet => {}
                    }
                }
                Err(error) if can_be_repeated(&error) && !over(clock.elapsed()) => self.troubles.record(error),
                Err(error) => return Committed::Failed(error),
            }
            backoff.wait(&**clock).await;
        }
    }

    /// Whose commit the marker shows: only epoch and nonce together tell.
    fn commit_state(&self, commit: &Commit, found: Option<(&[u8], &Version)>) -> CommitState {
        let Some((bytes, version)) = found else {
            return if commit.version.is_none() { CommitState::NotYet } else { CommitState::Removed };
        };
        match serde_json::from_slice::<Marker>(bytes) {
            Ok(marker) if marker.epoch == commit.epoch && marker.nonce == commit.nonce => {
                CommitState::Ours(version.clone())
            }
            _ if commit.version.as_ref() == Some(version) => CommitState::NotYet,
            _ => CommitState::Theirs,
        }
    }
}

/// The part of a shared poll that one group wants.
fn picked(shown: &PageWithTail, list: &List, tail_filter: impl Fn(&str) -> TailMatch) -> PageWithTail {
    let mut wanted = shown.page.keys.iter().filter(|key| **key > list.after && (list.keep)(key));
    let keys: Vec<String> = wanted.by_ref().take(list.limit).cloned().collect();
    let is_truncated = wanted.next().is_some() || shown.page.is_truncated;
    let tail = shown.tail.as_ref().filter(|_| !is_truncated);
    let tail = tail.map(|found| found.iter().filter(|(key, _)| tail_filter(key) != TailMatch::No).cloned().collect());
    PageWithTail { page: Page { keys, is_truncated }, tail }
}

enum CommitState {
    Ours(Version),
    Theirs,
    /// The marker has been removed.
    Removed,
    /// The marker still stands as it was: the commit may be sent again, with the same nonce.
    NotYet,
}

/// Reads a shard's marker. A marker that was never written stands at the group's start; so does one
/// that was written for an earlier group of the same name, by a worker that did not yet know of
/// that group's end.
pub async fn read_marker(
    bus: &BusHandle,
    group: &GroupName,
    shard: u16,
    definition: &Definition,
) -> StoreResult<(Marker, Option<Version>)> {
    let key = keys::marker(group, shard);
    let fresh = || Marker { made: definition.created, ..Marker::new(definition.start.clone()) };
    let Some(object) = bus.store.get(&key).await? else { return Ok((fresh(), None)) };
    let marker: Marker = serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(&key, error))?;
    let marker = if marker.made == definition.created { marker } else { fresh() };
    Ok((marker, Some(object.version)))
}
