//! The SQLite store: the six operations on tables in one file, each in one transaction.
//!
//! The file has a write-ahead log, whose flush ends every commit. Only one process writes at a time: one that is frozen
//! within a transaction holds up the others until it goes on or is killed, unlike on a directory.
//!
//! The file may be replaced by an older copy while workers run. Every operation looks whether it is still the same file
//! (device and inode); if not, it is opened anew, and [`Store::rewinds`] counts it. The identity is part of a version.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use rustix::fs::inotify::WatchFlags;

use super::inotify::InotifyHints;
use super::{
    ErrorKind, Gate, Hints, Item, LARGEST_BYTES, List, NoHints, Object, Page, Profile, Put, Store, StoreError,
    StoreResult, Swap, Version, put_in_runs, refuse_after_rewind,
};
use crate::clock::{Clock, Fut};
use crate::threads;

mod failure;
mod file;
pub mod schema;

use failure::failed;
pub(crate) use failure::failed as failure_of;
use file::{Bell, Opened};
pub(crate) use file::{connect, identity as identity_of};

/// How many keys one statement of a listing reads.
const CHUNK: i64 = 1_000;

/// How a SQLite file is best used.
pub const PROFILE: Profile = Profile {
    lag: Duration::from_secs(2),
    commit_gap: Duration::from_millis(10),
    hold: Duration::from_mins(1),
    poll: (Duration::from_millis(200), Duration::from_secs(5)),
    batch: 512,
    scans_folders: false,
};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Whether a commit is flushed before it is acknowledged.
    pub is_durable: bool,
    /// Whether operations run on threads of their own, so that the caller goes on meanwhile.
    pub is_threaded: bool,
    /// How long to wait for another writer, if less than usual.
    pub timeout: Option<Duration>,
}

/// One process's connection to a bus in a SQLite file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    is_threaded: bool,
}

struct Shared {
    path: PathBuf,
    options: SqliteOptions,
    opened: Mutex<Option<Opened>>,
    bell: Bell,
    /// The identity of the file that was opened last, and how often it was another than before.
    rewinds: AtomicU64,
    /// The machine's time of the newest write, in microseconds; 0 before the first.
    last_write: AtomicI64,
    /// What makes versions unlike all others.
    random: Mutex<u64>,
}

impl SqliteStore {
    /// Opens the file of a bus.
    ///
    /// # Errors
    /// There is no such file, it holds no bus, or it lies on a mount without reliable locks.
    pub fn open(path: &Path, options: SqliteOptions, clock: &dyn Clock) -> StoreResult<Self> {
        Self::with(path, options, clock, false)
    }

    /// Opens the file of a bus; makes the file and its tables where they are missing.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], or the file cannot be made.
    pub fn create(path: &Path, options: SqliteOptions, clock: &dyn Clock) -> StoreResult<Self> {
        Self::with(path, options, clock, true)
    }

    fn with(path: &Path, options: SqliteOptions, clock: &dyn Clock, make: bool) -> StoreResult<Self> {
        let opened = Opened::open(path, &options, make)?;
        let shared = Shared {
            bell: Bell::of(&opened.real),
            path: path.to_owned(),
            options,
            opened: Mutex::new(Some(opened)),
            rewinds: AtomicU64::new(0),
            last_write: AtomicI64::new(0),
            random: Mutex::new(clock.random()),
        };
        Ok(Self { shared: Arc::new(shared), is_threaded: options.is_threaded })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        if !self.is_threaded {
            return work(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        threads::run(move || work(&shared))
            .await
            .unwrap_or_else(|| Err(StoreError::new(ErrorKind::Other, "an operation on the SQLite file has panicked")))
    }

    /// The answers to a few questions in SQL, as text, for `doctor`.
    ///
    /// # Errors
    /// The file's.
    pub async fn ask(&self, sql: &'static str) -> StoreResult<String> {
        self.run(move |shared| {
            shared.with("look", |opened| {
                let row = opened.connection.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0))?;
                Ok(match row {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
            })
        })
        .await
    }
}

impl Shared {
    /// Runs an operation on the file, which is opened anew if it is another one now.
    fn with<T>(&self, doing: &str, work: impl FnOnce(&mut Opened) -> rusqlite::Result<T>) -> StoreResult<T> {
        let mut held = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*held
            && file::identity(&self.path).as_ref() != Some(&opened.identity)
        {
            *held = None;
        }
        let opened = match &mut *held {
            Some(opened) => opened,
            none => {
                let opened = Opened::open(&self.path, &self.options, false)?;
                self.rewinds.fetch_add(1, Ordering::Relaxed);
                none.insert(opened)
            }
        };
        work(opened).map_err(|error| failed(&self.path, doing, &error))
    }

    /// Runs a transaction that writes. Another writer is waited for at its beginning, and not in its midst.
    fn write<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&rusqlite::Transaction<'_>, &Opened) -> rusqlite::Result<T>,
    ) -> StoreResult<T> {
        let written = self.with(doing, |opened| {
            let held = &*opened;
            let transaction = rusqlite::Transaction::new_unchecked(&held.connection, TransactionBehavior::Immediate)?;
            let answer = work(&transaction, held)?;
            transaction.commit()?;
            self.last_write.store(file::now_micros(&held.real), Ordering::Relaxed);
            Ok(answer)
        })?;
        Ok(written)
    }

    fn put(&self, items: &[Item]) -> StoreResult<Vec<Put>> {
        let answers = self.write("write", |transaction, _| {
            let mut insert = transaction
                .prepare_cached("INSERT INTO evbus_object (key, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
            let mut put = |(key, bytes): &Item| {
                Ok(if insert.execute(params![key, &bytes[..]])? == 0 { Put::Exists } else { Put::Created })
            };
            items.iter().map(&mut put).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        self.bell.ring();
        Ok(answers)
    }

    fn get(&self, key: &str, limit: usize) -> StoreResult<Option<Object>> {
        let found = self.with(&format!("read {key}"), |opened| {
            let connection = &opened.connection;
            let object = connection
                .prepare_cached("SELECT length(body), CASE WHEN length(body) <= ?2 THEN body END FROM evbus_object WHERE key = ?1")?
                .query_row(params![key, as_i64(limit)], |row| Ok((row.get(0)?, row.get(1)?, Version(String::new()))))
                .optional()?;
            if object.is_some() {
                return Ok(object);
            }
            connection
                .prepare_cached(
                    "SELECT length(body), CASE WHEN length(body) <= ?2 THEN body END, n, ver FROM evbus_register WHERE key = ?1",
                )?
                .query_row(params![key, as_i64(limit)], |row| {
                    let (n, random): (i64, i64) = (row.get(2)?, row.get(3)?);
                    Ok((row.get(0)?, row.get(1)?, version(n, random, opened)))
                })
                .optional()
        })?;
        let found: Option<(i64, Option<Vec<u8>>, Version)> = found;
        match found {
            None => Ok(None),
            Some((_, Some(bytes), version)) => Ok(Some(Object { bytes, version })),
            Some((size, None, _)) => Err(StoreError::too_large(key, u64::try_from(size).unwrap_or(0), limit)),
        }
    }

    fn list(&self, list: &List) -> StoreResult<Page> {
        let mut page = Page::default();
        let Some((mut after, end)) = list.range() else { return Ok(page) };
        loop {
            // Each chunk is a transaction of its own: a long listing must not keep the log from being taken in.
            let keys: Vec<String> = self.with(&format!("list {}", list.prefix), |opened| {
                let mut keys = opened.connection.prepare_cached(
                    "SELECT key FROM (SELECT key FROM (SELECT key FROM evbus_object WHERE key > ?1 AND key < ?2 \
                     ORDER BY key LIMIT ?3) UNION ALL SELECT key FROM evbus_register WHERE key > ?1 AND key < ?2) \
                     ORDER BY key LIMIT ?3",
                )?;
                keys.query_map(params![after, end, CHUNK], |row| row.get(0))?.collect()
            })?;
            let is_last = as_i64(keys.len()) < CHUNK;
            if page.take(list, &mut after, keys) || is_last {
                return Ok(page);
            }
        }
    }

    fn swap(&self, key: &str, from: Option<&Version>, since: u64, bytes: &[u8]) -> StoreResult<Swap> {
        let random = self.next_random();
        let swapped = self.write(&format!("write {key}"), |transaction, opened| {
            // What was looked for in another file is not known of this one.
            if from.is_none() && self.rewinds.load(Ordering::Relaxed) != since {
                return Ok(None);
            }
            let n = match from {
                None => transaction
                    .prepare_cached(
                        "INSERT INTO evbus_register (key, n, ver, body) VALUES (?1, 1, ?2, ?3) \
                         ON CONFLICT DO NOTHING RETURNING n",
                    )?
                    .query_row(params![key, random, bytes], |row| row.get::<_, i64>(0))
                    .optional()?,
                Some(from) => {
                    let Some((n, old)) = parts(from, opened) else { return Ok(None) };
                    transaction
                        .prepare_cached(
                            "UPDATE evbus_register SET n = n + 1, ver = ?2, body = ?3 \
                             WHERE key = ?1 AND n = ?4 AND ver = ?5 RETURNING n",
                        )?
                        .query_row(params![key, random, bytes, n, old], |row| row.get(0))
                        .optional()?
                }
            };
            Ok(n.map(|n| version(n, random, opened)))
        })?;
        Ok(swapped.map_or(Swap::Conflict, Swap::Swapped))
    }

    /// A number that no other writer has: each is a step of a random sequence (xorshift64*).
    fn next_random(&self) -> i64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (*state).max(1);
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        i64::from_ne_bytes(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_ne_bytes())
    }

    fn delete(&self, keys: &[String], since: u64) -> StoreResult<()> {
        self.write("delete", |transaction, _| {
            if self.rewinds.load(Ordering::Relaxed) != since {
                return Ok(());
            }
            for table in ["evbus_object", "evbus_register"] {
                let mut delete = transaction.prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?;
                for key in keys {
                    delete.execute(params![key])?;
                }
            }
            Ok(())
        })
    }
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A version as text: number, random part, the file's identity.
fn version(n: i64, random: i64, opened: &Opened) -> Version {
    Version(format!("{n}.{random}.{}", opened.identity))
}

/// Number and random part, if the version is of this file.
fn parts(version: &Version, opened: &Opened) -> Option<(i64, i64)> {
    let mut parts = version.0.splitn(3, '.');
    let (n, random, identity) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    (identity == opened.identity).then_some((n, random))
}

impl Store for SqliteStore {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        let item = [(key.to_owned(), bytes.to_vec().into())];
        Box::pin(async move {
            let answers = self.run(move |shared| shared.put(&item)).await?;
            Ok(answers.first().copied().unwrap_or(Put::Exists))
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        self.get_within(key, LARGEST_BYTES)
    }

    fn get_within<'a>(&'a self, key: &'a str, limit: usize) -> Fut<'a, StoreResult<Option<Object>>> {
        let key = key.to_owned();
        Box::pin(self.run(move |shared| shared.get(&key, limit)))
    }

    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        Box::pin(self.run(move |shared| shared.list(&list)))
    }

    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        let (key, version, bytes, since) = (key.to_owned(), version.cloned(), bytes.to_vec(), self.rewinds());
        Box::pin(self.run(move |shared| shared.swap(&key, version.as_ref(), since, &bytes)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move { self.delete_many(&[key.to_owned()]).await })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        let (keys, since) = (keys.to_vec(), self.rewinds());
        Box::pin(async move {
            for chunk in keys.chunks(1_000) {
                let chunk = chunk.to_vec();
                self.run(move |shared| shared.delete(&chunk, since)).await?;
                refuse_after_rewind(self, since)?;
            }
            Ok(())
        })
    }

    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        super::mount::inotify_serves(self.shared.bell.database())?;
        let bell = self.shared.bell.hang()?;
        Ok(Box::new(InotifyHints::watch(bell, WatchFlags::MODIFY, None)?))
    }

    fn profile(&self) -> Profile {
        PROFILE
    }

    /// Items are put in one transaction for as long as none depends on one before it.
    fn put_gated<'a>(&'a self, items: &'a [Item], gate: &'a dyn Gate) -> Fut<'a, StoreResult<Vec<Put>>> {
        Box::pin(put_in_runs(items.len(), gate, async |run| {
            let items = items[run].to_vec();
            self.run(move |shared| shared.put(&items)).await
        }))
    }

    /// What another process has written may not have been flushed, if it died before or was told not to.
    fn persist<'a>(&'a self, _key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            if !self.shared.options.is_durable {
                return Ok(());
            }
            self.run(|shared| {
                let real = shared.with("flush", |opened| Ok(opened.real.clone()))?;
                file::flush(&real)
            })
            .await
        })
    }

    fn persist_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            match keys.first() {
                Some(key) => self.persist(key).await,
                None => Ok(()),
            }
        })
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> Fut<'_, ()> {
        match self.is_threaded {
            true => Box::pin(async move { _ = threads::run(work).await }),
            false => {
                work();
                Box::pin(std::future::ready(()))
            }
        }
    }

    fn rewinds(&self) -> u64 {
        self.shared.rewinds.load(Ordering::Relaxed)
    }

    fn last_write_micros(&self) -> Option<i64> {
        Some(self.shared.last_write.load(Ordering::Relaxed)).filter(|micros| *micros != 0)
    }
}
