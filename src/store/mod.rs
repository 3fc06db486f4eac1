//! The six operations that everything else is built on, and the stores behind them.
//!
//! A store holds two kinds of things under `/`-separated keys: **objects**, written once by
//! [`Store::put_new`] and never changed, and **registers**, replaced by [`Store::cas`]. The only property that the
//! protocol relies on: *a completed write is visible to every later read and listing*.
//!
//! A new kind of store is one more file here, proved by `tests/conformance`, and an arm where the
//! program opens a bus (ARCHITECTURE.md, "To add").

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Fut;

mod cost;
pub mod dir;
mod error;
pub mod inotify;
pub mod memory;
pub mod mount;
pub mod object;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod probe;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use cost::Requests;
pub(crate) use error::system_words;
pub use error::{BucketProblem, ErrorDetail, ErrorKind, Obstruction, StoreError};

/// The largest content that evbus writes, in bytes: a marker with a full window and a thousand
/// pending events with their stderr has some megabytes.
pub(crate) const LARGEST_BYTES: usize = 64 << 20;

/// What every operation returns.
pub type StoreResult<T> = Result<T, StoreError>;

/// A register's version, as its store names it. Only good for [`Store::cas`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// What [`Store::get`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole content.
    pub bytes: Vec<u8>,
    /// For [`Store::cas`]; meaningless for objects written by [`Store::put_new`].
    pub version: Version,
}

/// The answer to [`Store::put_new`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there, durably, and this call has put it.
    Created,
    /// The key was taken. By which writer, only a `get` can tell.
    Exists,
}

/// The answer to [`Store::cas`].
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The bytes are the newest version, durably.
    Swapped(Version),
    /// The register had another version.
    Conflict,
}

/// Which of the listed keys are wanted; sees every key of the range once, in any order.
pub type Keep = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How a [`Store::list_with_tail`] takes a key that lies behind the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailMatch {
    /// Not at all.
    No,
    /// It is shown.
    Yes,
    /// It is shown, and nothing behind it.
    Last,
}

/// Says how a key that lies behind the objects is taken.
pub type TailFilter = Arc<dyn Fn(&str) -> TailMatch + Send + Sync>;

/// What to list: keys that begin with `prefix`, are greater than `after`, and are kept, the first `limit` of them.
#[derive(Clone)]
pub struct List {
    /// Whole keys begin with this; ends in `/`.
    pub prefix: String,
    /// Only keys greater than this, in byte order; empty for all.
    pub after: String,
    /// The most kept keys.
    pub limit: usize,
    /// Which keys count.
    pub keep: Keep,
}

impl List {
    /// Every key under `prefix`.
    pub fn all(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), after: String::new(), limit: usize::MAX, keep: Arc::new(|_| true) }
    }

    /// The same list, cut off after `limit` kept keys.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The same list, only what is greater than `after`.
    #[must_use]
    pub fn after(mut self, after: impl Into<String>) -> Self {
        self.after = after.into();
        self
    }

    /// What lies before its first key, and behind its last; none where no key has the prefix.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn range(&self) -> Option<(String, String)> {
        // '0' follows '/' in ASCII. The prefix itself is no key.
        let end = format!("{}0", self.prefix.strip_suffix('/')?);
        Some((self.after.clone().max(self.prefix.clone()), end))
    }

    /// The same list, only what `keep` wants.
    #[must_use]
    pub fn keep(mut self, keep: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.keep = Arc::new(keep);
        self
    }
}

/// The answer to [`Store::list_after`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Kept keys, whole, in byte order.
    pub keys: Vec<String>,
    /// Whether the list stopped at its limit, so that more kept keys may follow the last one.
    pub is_truncated: bool,
}

impl Page {
    /// Takes the next keys of a listing, in their order; returns whether the page is full.
    fn take(&mut self, list: &List, after: &mut String, keys: Vec<String>) -> bool {
        for key in keys {
            after.clone_from(&key);
            if (list.keep)(&key) {
                if self.keys.len() == list.limit {
                    self.is_truncated = true;
                    return true;
                }
                self.keys.push(key);
            }
        }
        false
    }
}

/// A name as SQL (ISO/IEC 9075-2, 5.2, delimited identifier).
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Puts items in as few transactions as the gate allows: `put` puts a run of them in one. A run ends before an item
/// that may depend on one within it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
async fn put_in_runs(
    items: usize,
    gate: &dyn Gate,
    put: impl AsyncFn(std::ops::Range<usize>) -> StoreResult<Vec<Put>>,
) -> StoreResult<Vec<Put>> {
    let mut answers = Vec::with_capacity(items);
    let (mut from, mut chains) = (0, std::collections::HashSet::new());
    for at in 0..items {
        let follows = !gate.is_always_open() && gate.chain(at).is_some_and(|chain| !chains.insert(chain));
        if follows {
            answers.extend(put(from..at).await?);
            if answers.contains(&Put::Exists) {
                return Ok(answers);
            }
            from = at;
            chains = gate.chain(at).into_iter().collect();
        }
        if !gate.opens(at).await? {
            if from < at {
                answers.extend(put(from..at).await?);
            }
            return Ok(answers);
        }
    }
    if from < items {
        answers.extend(put(from..items).await?);
    }
    Ok(answers)
}

/// The answer to [`Store::list_with_tail`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageWithTail {
    /// The objects that were asked for.
    pub page: Page,
    /// The wanted keys behind them, with their versions; none where that costs as much as to ask for each.
    pub tail: Option<Vec<(String, Version)>>,
}

/// How a kind of store is best used. All durations are measured, none is relied on for safety.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// How far the frontier stays behind the clock.
    pub lag: Duration,
    /// The least time between two commits of one marker.
    pub commit_gap: Duration,
    /// How long an owner holds a shard that has nothing to do. Where this is shorter than the lag,
    /// the shard is released before `through` has passed what was done: that is left to the next
    /// owner, because each heartbeat until then would cost.
    pub hold: Duration,
    /// The interval of polls starts at the first and grows to the second.
    pub poll: (Duration, Duration),
    /// How many events of a bulk emit are put and acknowledged together.
    pub batch: usize,
    /// Whether a listing costs as much as its last folder holds, and not only as much as it
    /// returns.
    pub scans_folders: bool,
}

/// A key, and what is to be put there.
pub type Item = (String, Bytes);

/// Decides for each item of a batch, before it becomes visible, whether it may.
pub trait Gate {
    /// Whether the item at this index may become visible now. After the first no, the answer is
    /// always no.
    fn opens(&self, at: usize) -> Fut<'_, StoreResult<bool>>;

    /// The chain of the item at this index: items of one chain become visible in their order, and
    /// none before one that is in doubt. An item without a chain is independent of the others.
    fn chain(&self, _at: usize) -> Option<u64> {
        None
    }

    /// Whether it opens for every item, so that it need not be asked.
    fn is_always_open(&self) -> bool {
        false
    }
}

/// A gate that lets every item become visible.
pub struct AlwaysOpen;

impl Gate for AlwaysOpen {
    fn opens(&self, _: usize) -> Fut<'_, StoreResult<bool>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn is_always_open(&self) -> bool {
        true
    }
}

/// Notices that something may have changed; one may be false, late or missing.
pub trait Hints {
    /// Completes when something may have changed since the last call.
    fn next(&mut self) -> Fut<'_, ()>;
}

/// Why a store gives no hints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoHints(pub String);

/// [`Store::get`] of what is going to be relied on: **nothing found is relied on before it is
/// durable**. Answers that say "it is there" use this, for an object that another process has
/// written, and for one that this process has written without knowing it.
pub async fn get_durable(store: &dyn Store, key: &str) -> StoreResult<Option<Object>> {
    let found = store.get(key).await?;
    if found.is_some() {
        store.persist(key).await?;
    }
    Ok(found)
}

/// Fails if the store may have lost writes since its [`rewinds`](Store::rewinds) were `since`: for what must not be
/// deleted on the ground of what was there before.
pub fn refuse_after_rewind(store: &dyn Store, since: u64) -> StoreResult<()> {
    if store.rewinds() == since {
        return Ok(());
    }
    Err(StoreError::new(ErrorKind::Unavailable, "the store was started anew, and may have lost its latest writes"))
}

/// [`Store::put_new`] of a key that no other writer uses. "Exists" is then the trace of an earlier try
/// of this one, or of a race that no writer won: only a read tells.
pub async fn put_once(store: &dyn Store, key: &str, bytes: &[u8]) -> StoreResult<()> {
    match store.put_new(key, bytes).await? {
        Put::Created => Ok(()),
        Put::Exists => match get_durable(store, key).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::new(ErrorKind::Unavailable, format!("{key}: neither created nor there"))),
        },
    }
}

/// Lists in pages of bounded length, each from where the last one ended.
#[derive(Debug)]
pub struct Pager {
    /// The largest number of keys in a page.
    len: usize,
    after: String,
    has_ended: bool,
}

impl Default for Pager {
    fn default() -> Self {
        Self::of(1_000)
    }
}

impl Pager {
    /// Pages of at most `len` keys. On a directory each page reads the folder that it begins in.
    pub fn of(len: usize) -> Self {
        Self { len, after: String::new(), has_ended: false }
    }

    /// The next page of `list`; none behind the last.
    pub async fn next(&mut self, store: &dyn Store, list: List) -> StoreResult<Option<Vec<String>>> {
        if self.has_ended {
            return Ok(None);
        }
        let list = if self.after.is_empty() { list } else { list.after(self.after.clone()) };
        let page = store.list_after(list.limit(self.len)).await?;
        match page.keys.last() {
            Some(last) if page.is_truncated => self.after.clone_from(last),
            _ => self.has_ended = true,
        }
        Ok(Some(page.keys))
    }
}

/// The six operations, which have no defaults: [`put_new`](Store::put_new), [`get`](Store::get),
/// [`list_after`](Store::list_after), [`cas`](Store::cas), [`delete`](Store::delete) and
/// [`hints`](Store::hints); and further ones that a store can do better than code above it.
///
/// An error of kind [`ErrorKind::Unavailable`] leaves open whether the operation took effect, now
/// or later.
pub trait Store {
    /// Creates `key` atomically; durable before it returns.
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>>;

    /// Reads an object or a register.
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>>;

    /// Lists keys in byte order; complete for every `put_new` that had returned before the call.
    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>>;

    /// [`Store::get`] of what is not larger than `limit`, in bytes: any writer to a bus can put a
    /// file there that does not fit into memory. An object that is larger is
    /// [`ErrorKind::Damaged`], and is not read where the store can tell before.
    fn get_within<'a>(&'a self, key: &'a str, limit: usize) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(async move {
            match self.get(key).await? {
                Some(found) if found.bytes.len() > limit => {
                    Err(StoreError::too_large(key, found.bytes.len() as u64, limit))
                }
                found => Ok(found),
            }
        })
    }

    /// [`Store::list_after`], together with the keys behind the list's prefix that the filter
    /// wants, where one listing shows both for the price of one.
    fn list_with_tail(&self, list: List, _tail_filter: TailFilter) -> Fut<'_, StoreResult<PageWithTail>> {
        Box::pin(async move { Ok(PageWithTail { page: self.list_after(list).await?, tail: None }) })
    }

    /// Replaces a register if it still has `version` (`None`: if it does not exist); durable before it returns.
    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>>;

    /// Removes an object or a register; a missing one is no error.
    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>>;

    /// Hints of changes, or why there are none.
    fn hints(&self) -> Result<Box<dyn Hints>, NoHints>;

    /// How this kind of store is best used.
    fn profile(&self) -> Profile;

    /// [`Store::put_new`] of many objects, with one wait for the disk where the store can. The answers are those of the first items, at least of one:
    /// `Exists` says that an item is not known to be there, and that a `get` must tell. On an error any part of them
    /// may be there.
    fn put_many<'a>(&'a self, items: &'a [Item]) -> Fut<'a, StoreResult<Vec<Put>>> {
        self.put_gated(items, &AlwaysOpen)
    }

    /// [`Store::put_many`], but an item becomes visible only if `gate` opens for it. If the gate
    /// does not open, the answers may end before that item, or say `Exists` from there on.
    fn put_gated<'a>(&'a self, items: &'a [Item], gate: &'a dyn Gate) -> Fut<'a, StoreResult<Vec<Put>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(items.len());
            for (at, (key, bytes)) in items.iter().enumerate() {
                if !gate.opens(at).await? {
                    break;
                }
                let answer = self.put_new(key, bytes).await?;
                answers.push(answer);
                if answer == Put::Exists {
                    break;
                }
            }
            Ok(answers)
        })
    }

    /// [`Store::delete`] of many objects; also removes the folders that this empties, where there are folders.
    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            for key in keys {
                self.delete(key).await?;
            }
            Ok(())
        })
    }

    /// Makes what `get` showed of an object or a register durable, whichever process wrote it: that
    /// process may have died before the flush, or have done without one. Nothing found is relied on
    /// before this has returned; see [`get_durable`].
    fn persist<'a>(&'a self, _key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async { Ok(()) })
    }

    /// [`Store::persist`] of many objects, with one wait for the disk where the store can.
    fn persist_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            for key in keys {
                self.persist(key).await?;
            }
            Ok(())
        })
    }

    /// Removes files whose writers died while they wrote them, longer than `age` ago. Returns how
    /// many.
    fn tidy<'a>(&'a self, _age: Duration) -> Fut<'a, StoreResult<u64>> {
        Box::pin(async { Ok(0) })
    }

    /// Runs what computes for long: on another thread where the store has some. It is not run if that
    /// thread ends.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> Fut<'_, ()> {
        work();
        Box::pin(std::future::ready(()))
    }

    /// Whether the latest listing had to begin before the key that it was to begin after, so that
    /// it cost what is stored there, and not only what it showed.
    fn began_early(&self) -> bool {
        false
    }

    /// How often this process has found that the store may have lost its latest writes: after a failover, or because a
    /// backup was restored. What was read before such a change says nothing of what is there now, and a write before it
    /// may be gone.
    fn rewinds(&self) -> u64 {
        0
    }

    /// Sends the hints of this process's writes that the store holds back, before the process ends.
    fn send_hints(&self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The store's own time of this process's newest write, in microseconds since the Unix epoch, where it tells.
    fn last_write_micros(&self) -> Option<i64> {
        None
    }

    /// The requests that this process has made so far, where they cost something.
    fn requests(&self) -> Option<Requests> {
        None
    }

    /// The requests that no earlier call of this has returned.
    fn unreported_requests(&self) -> Option<Requests> {
        None
    }
}

#[cfg(all(test, any(feature = "postgres", feature = "sqlite")))]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_the_next_folder() {
        let range = |prefix: &str, after: &str| List::all(prefix).after(after).range();
        let pair = |after: &str, end: &str| Some((after.to_owned(), end.to_owned()));
        assert_eq!(range("events/", ""), pair("events/", "events0"));
        assert_eq!(range("events/", "events/x"), pair("events/x", "events0"));
        assert!("events/~" < "events0" && "events/\u{10ffff}" < "events0");
        assert_eq!(range("events", ""), None);
    }
}
