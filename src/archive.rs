//! The archive: what prune deletes, kept on another store first.
//!
//! An archive is a folder or a place in a bucket (FORMAT.md, 13). `archive.json` marks it;
//! `segments/` has the events, many in one object, a JSON line each, compressed with zstd, under the
//! time of the first and the last; `index/` says of each object which types are in it. Objects are
//! only ever added. The same event may be in two of them, if two prunes met or one was killed.

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::CompressionLevel;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bus::{BusHandle, keys, look, to_json_line};
use crate::event::{Event, EventName, EventTime, NameMatch, TypeFilter, hex, one_line, sha256_of_much};
use crate::store::{ErrorDetail, ErrorKind, LARGEST_BYTES, List, Pager, Store, StoreError, StoreResult, put_once};

/// The mark of an archive, and the version of its format.
const MARK: &str = "archive.json";
const VERSION: u32 = 1;

const SEGMENTS: &str = "segments/";
const INDEX: &str = "index/";
const SUFFIX: &str = ".ndjson.zst";

/// An object is written once it holds so much before compression, in bytes.
const OBJECT_BYTES: usize = 4 << 20;

/// What `archive.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    archive: u32,
    created: EventTime,
}

/// One event, as a line of the archive has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Its name on the bus.
    name: EventName,
    /// The document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    /// What lay there, in base64, if it was no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Record {
    fn new(name: &EventName, document: &[u8]) -> Self {
        let line = std::str::from_utf8(document).ok().map(|_| one_line(document));
        let event = line.and_then(|line| serde_json::from_slice(&line).ok());
        let bytes = event.is_none().then(|| STANDARD.encode(document));
        Self { name: name.clone(), event, bytes }
    }
}

/// What `index/…` says of an object.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    events: u64,
    /// How many events there are of each type, as far as their names tell it.
    types: BTreeMap<String, u64>,
}

/// An archive that is open.
pub struct Archive {
    store: Rc<dyn Store>,
    /// Its address, for messages.
    shown: String,
}

/// An object of events, as its key tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: EventTime,
    last: EventTime,
    key: String,
}

impl Span {
    /// Reads `segments/<day>/<first>-<last>-<hash>.ndjson.zst`.
    fn parse(key: &str) -> Option<Self> {
        let (_, name) = key.strip_prefix(SEGMENTS)?.split_once('/')?;
        let mut parts = name.strip_suffix(SUFFIX)?.splitn(3, '-');
        let (first, last) = (EventTime::parse(parts.next()?)?, EventTime::parse(parts.next()?)?);
        parts.next().map(|_| Self { first, last, key: key.to_owned() })
    }

    fn index(&self) -> String {
        let stem = self.key.strip_prefix(SEGMENTS).and_then(|key| key.strip_suffix(SUFFIX)).unwrap_or_default();
        format!("{INDEX}{stem}.json")
    }
}

/// Which events to replay.
#[derive(Debug, Clone)]
pub struct Replay {
    /// From this time on, by the times of the bus.
    pub since: EventTime,
    /// Up to and with this time.
    pub until: EventTime,
    /// By their types; a type that a name does not tell whole is included.
    pub filter: TypeFilter,
}

impl Archive {
    /// Opens an archive to add to it, and makes it if there is none.
    ///
    /// # Errors
    /// There is a bus, or an archive of a later version; or the store fails.
    pub async fn open_or_make(store: Rc<dyn Store>, shown: &str, now: EventTime) -> StoreResult<Self> {
        let this = Self { store, shown: shown.to_owned() };
        if this.store.get(keys::BUS).await?.is_some() {
            let what = format!("{shown} is a bus, and no archive: an archive has a folder or a prefix of its own");
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        if this.mark().await?.is_none() {
            put_once(&*this.store, MARK, &to_json_line(&Mark { archive: VERSION, created: now })).await?;
        }
        Ok(this)
    }

    /// Opens an archive to read it.
    ///
    /// # Errors
    /// There is none, or one of a later version; or the store fails.
    pub async fn open(store: Rc<dyn Store>, shown: &str) -> StoreResult<Self> {
        let this = Self { store, shown: shown.to_owned() };
        match this.mark().await? {
            Some(_) => Ok(this),
            None => Err(missing(shown)),
        }
    }

    async fn mark(&self) -> StoreResult<Option<Mark>> {
        let Some(object) = self.store.get(MARK).await? else { return Ok(None) };
        let mark: Mark = serde_json::from_slice(&object.bytes).map_err(|error| StoreError::unreadable(MARK, error))?;
        if mark.archive > VERSION {
            let what = format!("{}: an archive of version {}; this evbus reads {VERSION}", self.shown, mark.archive);
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        Ok(Some(mark))
    }

    /// Adds events; after `Ok` they are durable, and were read back.
    async fn add(&self, records: &[(EventName, Bytes)]) -> StoreResult<()> {
        let (Some(first), Some(last)) =
            (records.iter().map(|(name, _)| name.time()).min(), records.iter().map(|(name, _)| name.time()).max())
        else {
            return Ok(());
        };
        let (mut lines, mut types) = (Vec::new(), BTreeMap::<String, u64>::new());
        for (name, document) in records {
            lines.extend(to_json_line(&Record::new(name, document)));
            *types.entry(name.slug().to_owned()).or_default() += 1;
        }
        // The same events give the same object, so that a repeat adds nothing.
        let hash = hex(&sha256_of_much(&lines)[..8]);
        let day = &first.to_string()[..8];
        let key = format!("{SEGMENTS}{day}/{first}-{last}-{hash}{SUFFIX}");
        let packed = ruzstd::encoding::compress_to_vec(&*lines, CompressionLevel::Fastest);
        put_once(&*self.store, &key, &packed).await?;
        if self.lines(&key).await?.as_deref() != Some(&*lines) {
            return Err(StoreError::new(ErrorKind::Damaged, format!("{}: {key} is not what was written", self.shown)));
        }
        let span = Span { first, last, key };
        let index = Index { events: count(records.len()), types };
        put_once(&*self.store, &span.index(), &to_json_line(&index)).await
    }

    /// Adds what lies at these keys of a bus. Returns the keys whose events are safe now, and those
    /// that stay: no files, or with lines that are no events.
    ///
    /// # Errors
    /// The bus or the archive fails.
    pub(crate) async fn keep(&self, bus: &BusHandle, keys: Vec<String>) -> StoreResult<(Vec<String>, Vec<String>)> {
        let (mut safe, mut unfit, mut gathered) = (Vec::new(), Vec::new(), Gathered::default());
        for key in keys {
            let object = match bus.store.get_within(&key, LARGEST_BYTES).await {
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Denied) => None,
                // Another prune was faster.
                Ok(None) => continue,
                object => object?,
            };
            let Some(documents) = object.and_then(|object| look::documents_at(&key, object.bytes)) else {
                unfit.push(key);
                continue;
            };
            gathered.bytes += documents.iter().map(|(_, document)| document.len()).sum::<usize>();
            gathered.records.extend(documents);
            gathered.keys.push(key);
            if gathered.bytes >= OBJECT_BYTES {
                let full = std::mem::take(&mut gathered);
                self.add(&full.records).await?;
                safe.extend(full.keys);
            }
        }
        self.add(&gathered.records).await?;
        safe.extend(gathered.keys);
        Ok((safe, unfit))
    }

    /// The lines of an object; none if it is not there.
    async fn lines(&self, key: &str) -> StoreResult<Option<Vec<u8>>> {
        let Some(object) = self.store.get(key).await? else { return Ok(None) };
        let mut lines = Vec::new();
        let packed = StreamingDecoder::new(&*object.bytes).map_err(|error| StoreError::unreadable(key, error))?;
        let most = 2 * LARGEST_BYTES;
        let read = packed.take(most as u64 + 1).read_to_end(&mut lines);
        let len = read.map_err(|error| StoreError::unreadable(key, error))?;
        if len > most {
            return Err(StoreError::unreadable(
                key,
                std::io::Error::other("it unpacks to more than any archive holds"),
            ));
        }
        Ok(Some(lines))
    }

    /// Whether an object may hold wanted events; true where there is no index that tells.
    async fn may_hold(&self, span: &Span, filter: &TypeFilter) -> StoreResult<bool> {
        let Some(object) = self.store.get(&span.index()).await? else { return Ok(true) };
        let Ok(index) = serde_json::from_slice::<Index>(&object.bytes) else { return Ok(true) };
        Ok(index.types.keys().any(|slug| filter.matches_slug(slug) != NameMatch::No))
    }

    /// Hands over the wanted events in the order of their names, each once and as it stands there, until
    /// `take` returns false; returns how many of the documents were no events.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub async fn replay<E: From<StoreError>>(
        &self,
        asked: &Replay,
        mut take: impl FnMut(&Event, &str) -> Result<bool, E>,
    ) -> Result<u64, E> {
        let (mut strange, mut waiting) = (0, BTreeMap::<EventName, Record>::new());
        let mut hand_over = |until: Option<EventTime>, waiting: &mut BTreeMap<EventName, Record>| {
            while waiting.first_key_value().is_some_and(|(name, _)| until.is_none_or(|until| name.time() < until)) {
                let Some((_, record)) = waiting.pop_first() else { break };
                let document = record.event.as_ref().map_or("", |event| event.get());
                match Event::parse(document.as_bytes(), usize::MAX) {
                    Ok(event) if !take(&event, document)? => return Ok(false),
                    Ok(_) => {}
                    Err(_) => strange += 1,
                }
            }
            Ok::<_, E>(true)
        };
        for span in self.spans(asked).await? {
            // No later object holds an event from before this one's first.
            if !hand_over(Some(span.first), &mut waiting)? {
                return Ok(strange);
            }
            if !asked.filter.everything() && !self.may_hold(&span, &asked.filter).await? {
                continue;
            }
            let gone = || StoreError::unreadable(&span.key, std::io::Error::other("it was there, and is gone"));
            let lines = self.lines(&span.key).await?.ok_or_else(gone)?;
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let record: Record =
                    serde_json::from_slice(line).map_err(|error| StoreError::unreadable(&span.key, error))?;
                let within = (asked.since..=asked.until).contains(&record.name.time());
                if within && asked.filter.matches_slug(record.name.slug()) != NameMatch::No {
                    waiting.insert(record.name.clone(), record);
                }
            }
        }
        hand_over(None, &mut waiting)?;
        Ok(strange)
    }

    /// The objects that may hold events of a time, in the order of their first ones.
    async fn spans(&self, asked: &Replay) -> StoreResult<Vec<Span>> {
        let (since, until) = (asked.since, asked.until);
        let list = List::all(SEGMENTS)
            .keep(move |key| Span::parse(key).is_some_and(|span| span.last >= since && span.first <= until));
        let (mut pager, mut spans) = (Pager::default(), Vec::new());
        while let Some(page) = pager.next(&*self.store, list.clone()).await? {
            spans.extend(page.iter().filter_map(|key| Span::parse(key)));
        }
        spans.sort();
        Ok(spans)
    }
}

/// Events that are gathered for one object.
#[derive(Default)]
struct Gathered {
    records: Vec<(EventName, Bytes)>,
    bytes: usize,
    /// Where they lie on the bus.
    keys: Vec<String>,
}

/// The error that there is no archive at an address.
pub(crate) fn missing(shown: &str) -> StoreError {
    StoreError::new(ErrorKind::NoBus, format!("no archive at {shown}")).with_detail(ErrorDetail::NoArchive)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
