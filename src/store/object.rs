//! The bucket store: the six operations on S3 and its kin, through the `object_store` crate.
//!
//! A key is the name of an object below the bus's prefix. `put_new` is a PUT with `If-None-Match`,
//! `cas` one with `If-Match`, a version is an ETag. The probe finds out what a provider really does
//! with them before a bus is made.
//!
//! An answer that may be lost or doubtful is not believed: the crate repeats a conditional PUT that
//! was answered 5xx, so a refusal can be the answer to the caller's own success, and a 409 can mean
//! that no writer has won. So a refused `put_new` is only ever [`Put::Exists`], a refused `cas`
//! only ever [`Swap::Conflict`], and the caller reads the key to learn which content it has.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use object_store::path::Path;
use object_store::{Error, GetResult, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::{
    ErrorKind, Gate, Hints, Item, LARGEST_BYTES, List, Object, Page, PageWithTail, Profile, Put, Requests, Store,
    StoreError, StoreResult, Swap, TailFilter, TailMatch, Version,
};
use crate::clock::Fut;
use crate::store::{ErrorDetail, NoHints};
use crate::threads;

mod connect;
mod credentials;
mod failure;
mod meter;
#[cfg(feature = "cli")]
mod objects;
mod properties;

use connect::Connected;
pub(crate) use connect::choose_cryptography;
pub use connect::{Bucket, Kind};
use credentials::AwsCredentials;
pub use credentials::{CredentialInputs, CredentialsFailure};
use failure::ErrorContext;
use meter::Meter;
#[cfg(feature = "cli")]
pub use objects::{Listing, ObjectState, Objects, is_nameable};
pub use properties::{BucketProperties, BucketProperty, Rule, Versioning};

/// How many puts of one batch are under way at once.
const PUTS_AT_ONCE: usize = 32;

/// How many keys may lie behind the objects before a list with tail gives up its tail: one page.
const GLANCE_KEYS: usize = 1_000;

/// How a bucket is best used: each request costs, and there are no hints.
pub const PROFILE: Profile = Profile {
    lag: Duration::from_secs(30),
    commit_gap: Duration::from_secs(1),
    hold: Duration::from_secs(5),
    poll: (Duration::from_millis(200), Duration::from_secs(30)),
    // Each batch ends with a few puts that run almost alone.
    batch: 1_024,
    scans_folders: false,
};

/// One process's connection to a bus in a bucket.
pub struct BucketStore {
    inner: Arc<dyn object_store::ObjectStore>,
    /// Ends in `/`, or is empty.
    prefix: String,
    kind: Kind,
    meter: Arc<Meter>,
    /// The requests that [`Store::unreported_requests`] has returned.
    reported: Cell<Requests>,
    shown: ErrorContext,
    /// The source of the credentials, if it may give others later.
    credentials: Option<Arc<AwsCredentials>>,
    /// The answer of [`Store::began_early`].
    early: Cell<bool>,
}

impl BucketStore {
    /// Connects to a bucket; no request is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be understood.
    pub fn connect(bucket: &Bucket) -> StoreResult<Self> {
        let meter = Arc::new(Meter::default());
        let Connected { inner, credentials, .. } = bucket.connect(&meter)?;
        let prefix = bucket.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let shown = ErrorContext::of(bucket, Arc::clone(&meter));
        Ok(Self {
            inner,
            prefix,
            kind: bucket.kind,
            meter,
            reported: Cell::default(),
            shown,
            credentials,
            early: Cell::default(),
        })
    }

    /// Where requests go, in the crate's words.
    #[cfg(test)]
    pub(crate) fn place(&self) -> String {
        let all = format!("{:?}", self.inner);
        let fields = ["bucket: ", "bucket_name: ", "bucket_endpoint: ", "container: ", "base_url: "];
        let of = |field: &str| all.find(field).and_then(|at| all[at..].split(',').next());
        let service = all.find("service: Url").and_then(|at| all[at..].split('}').next());
        let found: Vec<&str> = fields.into_iter().filter_map(of).chain(service).collect();
        format!("{} {}", found.join(" "), self.prefix)
    }

    fn path(&self, key: &str) -> StoreResult<Path> {
        Path::parse(format!("{}{key}", self.prefix))
            .map_err(|error| StoreError::new(ErrorKind::Other, format!("'{key}' cannot be a key in a bucket: {error}")))
    }

    /// Sends a request, and once more if the credentials were refused and there are others by now:
    /// keys are rotated while a worker runs. A request refused in this way had no effect.
    async fn asked<T>(&self, ask: impl AsyncFn() -> object_store::Result<T>) -> object_store::Result<T> {
        let used = self.credentials.as_ref().and_then(|credentials| credentials.current());
        match (ask().await, &self.credentials) {
            (Err(error), Some(credentials)) if self.shown.refuses_credentials(&error) => {
                if credentials.renewed(used).await { ask().await } else { Err(error) }
            }
            (answer, _) => answer,
        }
    }

    fn failed(&self, doing: &str, key: &str, error: Error) -> StoreError {
        self.shown.failure(doing, key, error)
    }

    /// The version for a swap: S3 and Azure know an object by its ETag, GCS by its generation.
    /// Unquoted, as every server that checks it at all accepts it.
    fn version(&self, e_tag: Option<String>, generation: Option<String>) -> Option<Version> {
        match self.kind {
            Kind::Gcs => generation.map(Version),
            Kind::S3 | Kind::Azure => e_tag.map(|tag| Version(tag.trim_matches('"').to_owned())),
        }
    }

    fn update(&self, version: &Version) -> PutMode {
        PutMode::Update(match self.kind {
            Kind::Gcs => UpdateVersion { e_tag: None, version: Some(version.0.clone()) },
            Kind::S3 => UpdateVersion { e_tag: Some(version.0.clone()), version: None },
            Kind::Azure => UpdateVersion { e_tag: Some(format!("\"{}\"", version.0)), version: None },
        })
    }

    async fn put(&self, key: &str, bytes: &[u8], mode: PutMode) -> StoreResult<Result<Option<Version>, ()>> {
        let path = self.path(key)?;
        let options = || PutOptions { mode: mode.clone(), ..PutOptions::default() };
        let payload = PutPayload::from(bytes.to_vec());
        match self.asked(async || self.inner.put_opts(&path, payload.clone(), options()).await).await {
            Ok(put) => Ok(Ok(self.version(put.e_tag, put.version))),
            Err(error) => match self.shown.refusal(&error) {
                true => Ok(Err(())),
                false => Err(self.failed("write", key, error)),
            },
        }
    }

    async fn read(&self, key: &str, limit: usize) -> StoreResult<Option<Object>> {
        let failed = |error: Error| self.failed("read", key, error);
        let path = self.path(key)?;
        let found = match self.asked(async || self.inner.get(&path).await).await {
            Ok(found) => found,
            Err(error) if self.shown.missing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let GetResult { meta, .. } = &found;
        if meta.size > limit as u64 {
            return Err(StoreError::too_large(key, meta.size, limit).with_detail(ErrorDetail::TooLargeObject));
        }
        let version = self.version(meta.e_tag.clone(), meta.version.clone()).unwrap_or_else(|| Version(String::new()));
        let bytes = found.bytes().await.map_err(failed)?;
        Ok(Some(Object { bytes: bytes.to_vec(), version }))
    }

    /// Lists a prefix; with a tail filter, also everything that lies behind it.
    async fn list(&self, list: List, tail_filter: Option<TailFilter>) -> StoreResult<PageWithTail> {
        let after = list.after.as_str();
        if after > list.prefix.as_str() && !after.starts_with(&list.prefix) {
            return Ok(PageWithTail::default());
        }
        let below = self.path(if tail_filter.is_some() { "" } else { &list.prefix })?;
        let listed = self.asked(async || self.listed(&list, tail_filter.as_ref(), &below).await).await;
        listed.map_err(|error| self.failed("list", &list.prefix, error))
    }

    async fn listed(
        &self,
        list: &List,
        tail_filter: Option<&TailFilter>,
        below: &Path,
    ) -> object_store::Result<PageWithTail> {
        let after = list.after.as_str();
        let mut shown = PageWithTail::default();
        let offset = self.offset(list);
        let begins = offset.as_ref().and_then(|offset| offset.as_ref().strip_prefix(&self.prefix)).unwrap_or_default();
        self.early.set(false);
        let mut found = match &offset {
            Some(offset) => self.inner.list_with_offset(Some(below), offset),
            // Keys before the prefix are passed over: without an offset the listing can only begin
            // there.
            None => self.inner.list(Some(below)),
        };
        let (mut registers, mut passed) = (Vec::new(), 0);
        while let Some(object) = found.next().await {
            let object = object?;
            let Some(key) = object.location.as_ref().strip_prefix(&self.prefix) else { continue };
            if key < begins {
                self.early.set(true);
            }
            if key.starts_with(&list.prefix) {
                if key <= after || !(list.keep)(key) {
                    continue;
                }
                if shown.page.keys.len() == list.limit {
                    shown.page.is_truncated = true;
                    return Ok(shown);
                }
                shown.page.keys.push(key.to_owned());
            } else if key > list.prefix.as_str() {
                passed += 1;
                if passed > GLANCE_KEYS {
                    return Ok(shown);
                }
                let taken = tail_filter.map_or(TailMatch::No, |tail_filter| tail_filter(key));
                if taken != TailMatch::No {
                    // A listing that tells no version, as Google's, does not show whether anything
                    // has changed.
                    let Some(version) = self.version(object.e_tag, object.version) else { return Ok(shown) };
                    registers.push((key.to_owned(), version));
                }
                if taken == TailMatch::Last {
                    break;
                }
            }
        }
        shown.tail = tail_filter.is_some().then_some(registers);
        Ok(shown)
    }

    /// The key after which the server is to begin, at or before the place where the list does;
    /// none: at the prefix.
    fn offset(&self, list: &List) -> Option<Path> {
        if list.after <= list.prefix {
            return None;
        }
        // A path loses a '/' at its end, and some servers then leave out all that lies below it; no
        // key of evbus sorts between the '/' and a '!'.
        let below = if list.after.ends_with('/') { "!" } else { "" };
        self.path(&format!("{}{below}", list.after)).ok()
    }

    /// Puts the items of one chain, each after the one before it; stops at the first that is not known to be there.
    async fn put_chain(&self, items: &[Item], chain: Vec<usize>, gate: &dyn Gate) -> Vec<(usize, StoreResult<Put>)> {
        let mut answers = Vec::with_capacity(chain.len());
        for at in chain {
            let (key, bytes) = &items[at];
            let answer = match gate.opens(at).await {
                Ok(true) => self.put_new(key, bytes).await,
                Ok(false) => Ok(Put::Exists),
                Err(error) => Err(error),
            };
            let there = matches!(answer, Ok(Put::Created));
            answers.push((at, answer));
            if !there {
                break;
            }
        }
        answers
    }
}

/// The indices of the items, chain by chain.
fn chains(items: usize, gate: &dyn Gate) -> Vec<Vec<usize>> {
    let mut chains: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for at in 0..items {
        match gate.chain(at) {
            Some(chain) => {
                let chain = *known.entry(chain).or_insert_with(|| {
                    chains.push(Vec::new());
                    chains.len() - 1
                });
                chains[chain].push(at);
            }
            None => chains.push(vec![at]),
        }
    }
    chains
}

impl Store for BucketStore {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        Box::pin(async move {
            Ok(match self.put(key, bytes, PutMode::Create).await? {
                Ok(_) => Put::Created,
                Err(()) => Put::Exists,
            })
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(self.read(key, LARGEST_BYTES))
    }

    fn get_within<'a>(&'a self, key: &'a str, limit: usize) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(self.read(key, limit))
    }

    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        Box::pin(async move { Ok(self.list(list, None).await?.page) })
    }

    fn list_with_tail(&self, list: List, tail_filter: TailFilter) -> Fut<'_, StoreResult<PageWithTail>> {
        Box::pin(self.list(list, Some(tail_filter)))
    }

    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        Box::pin(async move {
            // Some servers take an empty condition for no condition.
            if version.is_some_and(|version| version.0.trim().is_empty()) {
                return Ok(Swap::Conflict);
            }
            let mode = version.map_or(PutMode::Create, |version| self.update(version));
            match self.put(key, bytes, mode).await? {
                Ok(Some(version)) => Ok(Swap::Swapped(version)),
                Err(()) => Ok(Swap::Conflict),
                // The server does not say which version it has made: the swap took place if the
                // content is the new one.
                Ok(None) => match self.get(key).await? {
                    Some(object) if object.bytes == bytes => Ok(Swap::Swapped(object.version)),
                    _ => Ok(Swap::Conflict),
                },
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            let path = self.path(key)?;
            match self.asked(async || self.inner.delete(&path).await).await {
                Ok(()) => Ok(()),
                Err(error) if self.shown.missing(&error) => Ok(()),
                Err(error) => Err(self.failed("delete", key, error)),
            }
        })
    }

    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        Err(NoHints("a bucket sends no change notifications".to_owned()))
    }

    fn profile(&self) -> Profile {
        PROFILE
    }

    /// Puts items side by side, but in their order where that may matter. Returns an answer for
    /// every item: `Exists` also says that the result is unknown, or that the item was not tried,
    /// because one before it is in doubt.
    fn put_gated<'a>(&'a self, items: &'a [Item], gate: &'a dyn Gate) -> Fut<'a, StoreResult<Vec<Put>>> {
        Box::pin(async move {
            let mut answers = vec![Put::Exists; items.len()];
            let chains = chains(items.len(), gate).into_iter().map(|chain| self.put_chain(items, chain, gate));
            let mut running = stream::iter(chains).buffer_unordered(PUTS_AT_ONCE);
            while let Some(chain) = running.next().await {
                for (at, answer) in chain {
                    match answer {
                        Ok(answer) => answers[at] = answer,
                        Err(error) if error.kind() == ErrorKind::Unavailable => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(answers)
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            let paths: Vec<Path> = keys.iter().map(|key| self.path(key)).collect::<StoreResult<_>>()?;
            let deleted = self.asked(async || {
                let paths = stream::iter(paths.clone().into_iter().map(Ok)).boxed();
                let mut deleted = self.inner.delete_stream(paths);
                while let Some(answer) = deleted.next().await {
                    if let Some(error) = answer.err().filter(|error| !self.shown.missing(error)) {
                        return Err(error);
                    }
                }
                Ok(())
            });
            deleted.await.map_err(|error| self.failed("delete", "events", error))
        })
    }

    fn began_early(&self) -> bool {
        self.early.get()
    }

    fn last_write_micros(&self) -> Option<i64> {
        self.meter.last_write_micros()
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> Fut<'_, ()> {
        Box::pin(async move {
            let _ = threads::run(work).await;
        })
    }

    fn requests(&self) -> Option<Requests> {
        Some(self.meter.requests())
    }

    fn unreported_requests(&self) -> Option<Requests> {
        let made = self.meter.requests();
        Some(made.since(self.reported.replace(made)))
    }
}
