//! The memory store: the same six operations over a network that may delay, lose and reorder.
//!
//! What the network does is a [`Network`]'s decision, so that the simulation can seed it. A request that was sent
//! takes effect when it arrives, whether or not its sender still lives or still waits.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::{
    ErrorKind, Hints, List, Object, Page, PageWithTail, Profile, Put, Store, StoreError, StoreResult, Swap, TailFilter,
    TailMatch, Version, refuse_after_rewind,
};
use crate::clock::Fut;
use crate::store::NoHints;

/// The kind of one request, for the network's decision and for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `put_new`
    Put,
    /// `get`
    Get,
    /// one page of `list_after`
    List,
    /// `cas`
    Cas,
    /// `delete`
    Delete,
}

/// What becomes of one request. All times count from its sending.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// When it takes effect, if it ever arrives.
    pub arrives: Option<Duration>,
    /// When its sender gets the answer, later than `arrives`; if never, the sender gives up after
    /// `timeout`.
    pub answered: Option<Duration>,
    /// How long a sender waits for a lost answer.
    pub timeout: Duration,
    /// Whether a create or a swap is refused although no other has won (some servers answer 409 to
    /// a race).
    pub spurious_conflict: bool,
}

/// What lies between a process and the store.
pub trait Network {
    /// Decides what becomes of a request.
    fn route(&self, operation: Operation, key: &str) -> Route;
    /// Runs `action` after a time, whatever becomes of the sender.
    fn later(&self, after: Duration, action: Box<dyn FnOnce()>);
    /// Waits, on the sender's side.
    fn pause(&self, time: Duration) -> Fut<'static, ()>;
    /// How many keys one page of a listing has; pages are read one after the other.
    fn page_len(&self) -> usize;
    /// Whether a [`Store::list_with_tail`] shows what lies behind the objects.
    fn lists_with_tail(&self) -> bool {
        false
    }
    /// Whether what is written lasts only from a flush on, which its sender makes before it has its
    /// answer, as in a folder.
    fn flushes(&self) -> bool {
        false
    }
    /// An answer has shown how often the latest writes were lost.
    fn saw_rewinds(&self, _rewinds: u64) {}
    /// Whether an object cannot be read now.
    fn is_unreadable(&self, _key: &str) -> bool {
        false
    }
    /// Whether its sender omits the flush, as a process does that was told that the write need not
    /// last.
    fn is_not_durable(&self) -> bool {
        false
    }
    /// Hints of changes, if this network carries any.
    fn hints(&self) -> Option<Box<dyn Hints>>;
    /// See [`Store::last_write_micros`].
    fn last_write_micros(&self) -> Option<i64>;
}

/// A network that answers at once and loses nothing.
pub struct Calm;

impl Network for Calm {
    fn route(&self, _: Operation, _: &str) -> Route {
        let now = Some(Duration::ZERO);
        Route { arrives: now, answered: now, timeout: Duration::ZERO, spurious_conflict: false }
    }
    fn later(&self, _: Duration, action: Box<dyn FnOnce()>) {
        action();
    }
    fn pause(&self, _: Duration) -> Fut<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn page_len(&self) -> usize {
        3
    }
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
    fn last_write_micros(&self) -> Option<i64> {
        None
    }
}

/// Something has changed: the key, what was there, what is there now.
pub type Observer = Box<dyn Fn(&str, Option<&[u8]>, Option<&[u8]>)>;

/// What lies at each key, and its version.
type Entries = BTreeMap<String, ObjectVersion>;

/// A content and its version.
type ObjectVersion = (Rc<[u8]>, u64);

/// What the store holds. Many [`MemoryStore`]s, one for each process, share one.
#[derive(Default)]
pub struct Contents {
    entries: RefCell<Entries>,
    versions: Cell<u64>,
    observer: RefCell<Option<Observer>>,
    /// What is not flushed yet, and what lies below it.
    unflushed: RefCell<BTreeMap<String, Option<ObjectVersion>>>,
    /// How often the power has failed.
    cuts: Cell<u64>,
    /// How often the latest writes were lost.
    rewinds: Cell<u64>,
}

/// What a store held at some time.
pub struct Snapshot(Entries);

impl Contents {
    /// The power fails: what was not flushed is as it was before. Senders that wait for an answer
    /// get none.
    pub fn cut_power(&self) {
        self.cuts.set(self.cuts.get() + 1);
        for (key, below) in self.unflushed.take() {
            let new = below.as_ref().map(|(bytes, _)| Rc::clone(bytes));
            let old = match below {
                Some(below) => self.entries.borrow_mut().insert(key.clone(), below),
                None => self.entries.borrow_mut().remove(&key),
            };
            if let Some(observer) = &*self.observer.borrow() {
                observer(&key, old.as_ref().map(|(bytes, _)| &**bytes), new.as_deref());
            }
        }
    }

    /// What there is now, for [`Contents::rewind`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.entries.borrow().clone())
    }

    /// All is as it was: a standby takes over that has not received the latest writes.
    pub fn rewind(&self, to: &Snapshot) {
        self.rewinds.set(self.rewinds.get() + 1);
        let now = self.entries.replace(to.0.clone());
        let changed: BTreeSet<&String> =
            now.keys().chain(to.0.keys()).filter(|key| now.get(*key) != to.0.get(*key)).collect();
        for key in changed {
            if let Some(observer) = &*self.observer.borrow() {
                let bytes = |entries: &Entries| entries.get(key).map(|(bytes, _)| Rc::clone(bytes));
                observer(key, bytes(&now).as_deref(), bytes(&to.0).as_deref());
            }
        }
    }

    /// How often the latest writes were lost.
    pub fn rewinds(&self) -> u64 {
        self.rewinds.get()
    }

    fn flush(&self, key: &str) {
        self.unflushed.borrow_mut().remove(key);
    }

    /// The change that follows is not durable before it is flushed.
    fn unflush(&self, key: &str) {
        let below = self.entries.borrow().get(key).cloned();
        self.unflushed.borrow_mut().entry(key.to_owned()).or_insert(below);
    }

    /// Calls `observer` after every change.
    pub fn observe(&self, observer: Observer) {
        *self.observer.borrow_mut() = Some(observer);
    }

    /// What is there now, without any network.
    pub fn read(&self, key: &str) -> Option<Rc<[u8]>> {
        self.entries.borrow().get(key).map(|(bytes, _)| Rc::clone(bytes))
    }

    /// A version as text: one that was read before a loss of writes is good for nothing after it.
    fn named(&self, version: u64) -> Version {
        Version(format!("{version}.{}", self.rewinds.get()))
    }

    /// The keys under a prefix, without any network.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = self.entries.borrow();
        entries
            .range(prefix.to_owned()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn set(&self, key: &str, bytes: Option<&[u8]>) -> u64 {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let old = match bytes {
            Some(bytes) => self.entries.borrow_mut().insert(key.to_owned(), (Rc::from(bytes), version)),
            None => self.entries.borrow_mut().remove(key),
        };
        if let Some(observer) = &*self.observer.borrow() {
            observer(key, old.as_ref().map(|(bytes, _)| &**bytes), bytes);
        }
        version
    }

    fn version(&self, key: &str) -> Option<u64> {
        self.entries.borrow().get(key).map(|(_, version)| *version)
    }

    fn put_new(&self, key: &str, bytes: &[u8]) -> Put {
        if self.version(key).is_some() {
            return Put::Exists;
        }
        self.set(key, Some(bytes));
        Put::Created
    }

    fn get(&self, key: &str) -> Option<Object> {
        let entries = self.entries.borrow();
        entries.get(key).map(|(bytes, version)| Object { bytes: bytes.to_vec(), version: self.named(*version) })
    }

    /// Whether a register has a version.
    fn has(&self, key: &str, version: Option<&Version>) -> bool {
        self.version(key).map(|version| self.named(version)).as_ref() == version
    }

    fn cas(&self, key: &str, version: Option<&Version>, bytes: &[u8]) -> Swap {
        if !self.has(key, version) {
            return Swap::Conflict;
        }
        Swap::Swapped(self.named(self.set(key, Some(bytes))))
    }

    /// The next keys after `after`, with their versions.
    fn versions(&self, after: &str, len: usize) -> Vec<(String, Version)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let entries = self.entries.borrow();
        let range = entries.range::<str, _>((Excluded(after), Unbounded));
        range.take(len).map(|(key, (_, version))| (key.clone(), self.named(*version))).collect()
    }

    /// The next keys under `prefix` after `after`, kept or not.
    fn page(&self, prefix: &str, after: &str, len: usize) -> Vec<String> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let entries = self.entries.borrow();
        let from = if after >= prefix { Excluded(after.to_owned()) } else { Included(prefix.to_owned()) };
        let range = entries.range((from, Unbounded)).map(|(key, _)| key);
        range.take_while(|key| key.starts_with(prefix)).take(len).cloned().collect()
    }
}

/// One process's view of a [`Contents`] over its [`Network`].
pub struct MemoryStore {
    contents: Rc<Contents>,
    network: Rc<dyn Network>,
    profile: Profile,
    /// The losses of writes that its answers have shown.
    known_rewinds: Cell<u64>,
}

impl MemoryStore {
    /// A view of `contents` over `network`.
    pub fn new(contents: Rc<Contents>, network: Rc<dyn Network>, profile: Profile) -> Self {
        let known_rewinds = Cell::new(contents.rewinds());
        Self { contents, network, profile, known_rewinds }
    }

    /// Sends one request and waits for its answer.
    async fn call<T: 'static>(
        &self,
        route: Route,
        operation: Operation,
        key: &str,
        apply: impl FnOnce(&Contents) -> T + 'static,
    ) -> StoreResult<T> {
        let answer = Rc::new(RefCell::new(None));
        if let Some(arrives) = route.arrives {
            let (contents, slot) = (Rc::clone(&self.contents), Rc::clone(&answer));
            let action = move || *slot.borrow_mut() = Some((apply(&contents), contents.rewinds()));
            self.network.later(arrives, Box::new(action));
        }
        let cuts = self.contents.cuts.get();
        self.network.pause(route.answered.unwrap_or(route.timeout)).await;
        let answer = answer.borrow_mut().take();
        let answer = answer.filter(|_| route.answered.is_some() && self.contents.cuts.get() == cuts);
        let Some((answer, rewinds)) = answer else {
            return Err(StoreError::new(ErrorKind::Unavailable, format!("{operation:?} {key}: no answer")));
        };
        // An answer from before is no news.
        self.known_rewinds.set(self.known_rewinds.get().max(rewinds));
        self.network.saw_rewinds(self.known_rewinds.get());
        Ok(answer)
    }

    fn flush(&self, key: &str) {
        if !self.network.is_not_durable() {
            self.contents.flush(key);
        }
    }

    fn route(&self, operation: Operation, key: &str) -> Route {
        self.network.route(operation, key)
    }
}

impl Store for MemoryStore {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        Box::pin(async move {
            let route = self.route(Operation::Put, key);
            let (owned, bytes, flushes) = (key.to_owned(), bytes.to_vec(), self.network.flushes());
            let put = self.call(route, Operation::Put, key, move |contents| {
                if route.spurious_conflict {
                    return Put::Exists;
                }
                if flushes && contents.version(&owned).is_none() {
                    contents.unflush(&owned);
                }
                contents.put_new(&owned, &bytes)
            });
            let put = put.await?;
            self.flush(key);
            Ok(put)
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(async move {
            let owned = key.to_owned();
            let route = self.route(Operation::Get, key);
            if self.network.is_unreadable(key) {
                return Err(StoreError::new(ErrorKind::Denied, format!("{key}: permission denied")));
            }
            self.call(route, Operation::Get, key, move |contents| contents.get(&owned)).await
        })
    }

    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        Box::pin(async move {
            let mut page = Page::default();
            let mut after = list.after.clone();
            loop {
                let (prefix, from, len) = (list.prefix.clone(), after.clone(), self.network.page_len());
                let route = self.route(Operation::List, &list.prefix);
                let keys = self
                    .call(route, Operation::List, &list.prefix, move |contents| contents.page(&prefix, &from, len))
                    .await?;
                let last = keys.len() < len;
                if page.take(&list, &mut after, keys) || last {
                    return Ok(page);
                }
            }
        })
    }

    fn list_with_tail(&self, list: List, tail_filter: TailFilter) -> Fut<'_, StoreResult<PageWithTail>> {
        Box::pin(async move {
            if !self.network.lists_with_tail() {
                return Ok(PageWithTail { page: self.list_after(list).await?, tail: None });
            }
            // Page by page: later keys are seen later than those before them.
            let (mut page, mut registers) = (Page::default(), Vec::new());
            let mut after = list.after.clone().max(list.prefix.clone());
            loop {
                let (from, len) = (after.clone(), self.network.page_len());
                let route = self.route(Operation::List, "");
                let found =
                    self.call(route, Operation::List, "", move |contents| contents.versions(&from, len)).await?;
                let last = found.len() < len;
                for (key, version) in found {
                    after.clone_from(&key);
                    if !key.starts_with(&list.prefix) {
                        let taken = tail_filter(&key);
                        registers.extend((taken != TailMatch::No).then_some((key, version)));
                        if taken == TailMatch::Last {
                            return Ok(PageWithTail { page, tail: Some(registers) });
                        }
                    } else if (list.keep)(&key) {
                        if page.keys.len() == list.limit {
                            page.is_truncated = true;
                            return Ok(PageWithTail { page, tail: None });
                        }
                        page.keys.push(key);
                    }
                }
                if last {
                    return Ok(PageWithTail { page, tail: Some(registers) });
                }
            }
        })
    }

    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        Box::pin(async move {
            let (owned, version, bytes) = (key.to_owned(), version.cloned(), bytes.to_vec());
            let (route, flushes) = (self.route(Operation::Cas, key), self.network.flushes());
            let known = self.known_rewinds.get();
            let apply = move |contents: &Contents| {
                // What is to be made was not there before.
                let is_current = version.is_some() || contents.rewinds() == known;
                if route.spurious_conflict || !is_current || !contents.has(&owned, version.as_ref()) {
                    return Swap::Conflict;
                }
                if flushes {
                    contents.unflush(&owned);
                }
                contents.cas(&owned, version.as_ref(), &bytes)
            };
            let swap = self.call(route, Operation::Cas, key, apply).await?;
            if matches!(swap, Swap::Swapped(_)) {
                self.flush(key);
            }
            Ok(swap)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            let (owned, known) = (key.to_owned(), self.known_rewinds.get());
            let apply = move |contents: &Contents| {
                if contents.rewinds() == known && contents.version(&owned).is_some() {
                    contents.flush(&owned);
                    contents.set(&owned, None);
                }
            };
            self.call(self.route(Operation::Delete, key), Operation::Delete, key, apply).await?;
            refuse_after_rewind(self, known)
        })
    }

    fn persist<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        self.flush(key);
        Box::pin(std::future::ready(Ok(())))
    }

    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        self.network.hints().ok_or_else(|| NoHints("this network carries no hints".to_owned()))
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn last_write_micros(&self) -> Option<i64> {
        self.network.last_write_micros()
    }

    fn rewinds(&self) -> u64 {
        self.known_rewinds.get()
    }
}
