//! Which files of a source have their events: a register on the bus, which all hosts that run the source share.
//!
//! The ids of events keep each file from being emitted twice; the register is for what they do not tell: files that lie
//! there after retention has forgotten their ids, files that are gone, and content that was written once more. It may lag
//! behind: a file that is missing in it is emitted again, and found to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::{FileState, ShortHash, decode_path, encode_path, path_hash};
use crate::bus::{BusHandle, keys, to_json_line};
use crate::event::EventName;
use crate::group::marker::is_default;
use crate::store::{ErrorKind, LARGEST_BYTES, StoreError, StoreResult, Swap, Version};

/// The register is written so long after a change at the earliest, and [`PER_FILE`] later for each file in it.
const EARLIEST: Duration = Duration::from_secs(1);
const PER_FILE: Duration = Duration::from_millis(1);

/// One file that has its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SeenFile {
    version: ShortHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<ShortHash>,
    /// Its event, while something is to be done with the file after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// Its path, where it is to be told that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// How often it was told to be gone: when it comes back it is another arrival.
    #[serde(default, skip_serializing_if = "is_default")]
    removals: u32,
    /// It is gone.
    #[serde(default, skip_serializing_if = "is_default")]
    absent: bool,
}

/// More files than this that are gone are forgotten.
const MOST_ABSENT: usize = 10_000;

/// What lies on the bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The number of the folder or of the bucket, by which another is told from it, or an empty mount point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<u64>,
    files: BTreeMap<ShortHash, SeenFile>,
}

/// How a file stands that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has its event; which one, where something is to be done after it.
    Known(Option<EventName>),
    /// Another version of it had one.
    Changed,
    /// It is new.
    New,
}

/// Files that have their events.
pub struct Seen {
    key: String,
    /// Whether paths are kept.
    keeps_paths: bool,
    record: Record,
    /// Those that are gone since the register was read.
    gone: BTreeSet<ShortHash>,
    /// Those that a scan has met.
    met: BTreeSet<ShortHash>,
    /// When the register is to be written.
    due: Option<Duration>,
}

async fn read(bus: &BusHandle, key: &str) -> StoreResult<(Record, Option<Version>)> {
    let Some(object) = bus.store.get_within(key, LARGEST_BYTES).await? else { return Ok((Record::default(), None)) };
    let record = serde_json::from_slice(&object.bytes)
        .map_err(|error| StoreError::new(ErrorKind::Damaged, format!("{key} cannot be read: {error}")))?;
    Ok((record, Some(object.version)))
}

/// How many files of a source have their events; none: it has never run.
///
/// # Errors
/// The store's; a register that cannot be read.
pub async fn count(bus: &BusHandle, source: &str) -> StoreResult<Option<u64>> {
    let (record, version) = read(bus, &keys::source(source)).await?;
    Ok(version.map(|_| record.files.values().filter(|seen| !seen.absent).count() as u64))
}

impl Seen {
    /// Reads a source's register.
    ///
    /// # Errors
    /// The store's; a register that cannot be read.
    pub async fn open(bus: &BusHandle, source: &str, keeps_paths: bool) -> StoreResult<Self> {
        let key = keys::source(source);
        let (record, _) = read(bus, &key).await?;
        let (gone, met) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { key, keeps_paths, record, gone, met, due: None })
    }

    /// Whether no file has one.
    pub fn is_empty(&self) -> bool {
        self.record.files.values().all(|seen| seen.absent)
    }

    fn present(&self, path: &Path) -> Option<&SeenFile> {
        self.record.files.get(&path_hash(path)).filter(|seen| !seen.absent)
    }

    /// How often a file was told to be gone.
    pub fn removals(&self, path: &Path) -> u32 {
        self.record.files.get(&path_hash(path)).map_or(0, |seen| seen.removals)
    }

    /// Notes the number of the folder.
    pub fn set_folder(&mut self, number: u64) {
        self.record.folder = Some(number);
    }

    /// The number of the folder, when it was noted last.
    pub fn folder(&self) -> Option<u64> {
        self.record.folder
    }

    /// How a file stands.
    pub fn standing(&self, path: &Path, state: &FileState) -> Standing {
        match self.present(path) {
            Some(seen) if seen.version == state.version() => {
                Standing::Known(seen.event.as_deref().and_then(EventName::parse))
            }
            Some(_) => Standing::Changed,
            None => Standing::New,
        }
    }

    /// The version of a file that has its event.
    pub fn version(&self, path: &Path) -> Option<ShortHash> {
        self.present(path).map(|seen| seen.version)
    }

    /// Whether the last event of a file told this content.
    pub fn has_content(&self, path: &Path, sha256: &[u8; 32]) -> bool {
        let known = self.present(path).and_then(|seen| seen.sha256);
        known == Some(ShortHash::of([&sha256[..]]))
    }

    /// A file has its event: which one, if something is to be done after it.
    pub fn insert(
        &mut self,
        path: &Path,
        (state, sha256): (&FileState, Option<&[u8; 32]>),
        event: Option<&EventName>,
        now: Duration,
    ) {
        let hash = path_hash(path);
        let seen = SeenFile {
            version: state.version(),
            sha256: sha256.map(|content| ShortHash::of([&content[..]])),
            event: event.map(|name| name.as_str().to_owned()),
            path: self.keeps_paths.then(|| encode_path(path)),
            removals: self.removals(path),
            absent: false,
        };
        self.gone.remove(&hash);
        self.met.insert(hash);
        self.record.files.insert(hash, seen);
        self.changed(now);
    }

    /// A file has the same content as before under another state.
    pub fn restate(&mut self, path: &Path, state: &FileState, now: Duration) {
        if let Some(seen) = self.record.files.get_mut(&path_hash(path)) {
            seen.version = state.version();
            // Another process would take it for another version.
            self.due = Some(now);
        }
    }

    /// The event of a file for which something is to be done after it.
    pub fn event(&self, path: &Path) -> Option<EventName> {
        EventName::parse(self.present(path)?.event.as_deref()?)
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &Path, now: Duration) {
        self.remove_hash(path_hash(path), now);
    }

    fn remove_hash(&mut self, hash: ShortHash, now: Duration) {
        if self.keeps_paths {
            let Some(seen) = self.record.files.get_mut(&hash).filter(|seen| !seen.absent) else { return };
            (seen.absent, seen.event) = (true, None);
            seen.removals += 1;
        } else {
            self.gone.insert(hash);
            if self.record.files.remove(&hash).is_none() {
                return;
            }
        }
        self.changed(now);
    }

    /// The files are those of another folder: none of them is here, and none was removed.
    pub fn leave_all(&mut self, now: Duration) {
        for seen in self.record.files.values_mut() {
            (seen.absent, seen.event) = (true, None);
        }
        self.changed(now);
    }

    /// A scan begins.
    pub fn begin_scan(&mut self) {
        self.met.clear();
    }

    /// A scan has met a file.
    pub fn meet(&mut self, path: &Path) {
        self.met.insert(path_hash(path));
    }

    /// A scan has met all files that are there. Forgets those whose paths are not kept; returns the paths of the others.
    pub fn unmet(&mut self, now: Duration) -> Vec<PathBuf> {
        let files = &mut self.record.files;
        if files.values().filter(|seen| seen.absent).count() > MOST_ABSENT {
            files.retain(|_, seen| !seen.absent);
        }
        let unmet = files.iter().filter(|(hash, seen)| !seen.absent && !self.met.contains(hash));
        let unmet: Vec<(ShortHash, Option<PathBuf>)> =
            unmet.map(|(hash, seen)| (*hash, seen.path.as_deref().map(decode_path))).collect();
        self.met.clear();
        let mut paths = Vec::new();
        for (hash, path) in unmet {
            match path {
                Some(path) if self.keeps_paths => paths.push(path),
                _ => self.remove_hash(hash, now),
            }
        }
        paths
    }

    /// The known files below a folder, where paths are kept.
    pub fn below(&self, folder: &Path) -> Vec<PathBuf> {
        let present = self.record.files.values().filter(|seen| !seen.absent);
        let paths = present.filter_map(|seen| seen.path.as_deref().map(decode_path));
        paths.filter(|path| path.starts_with(folder)).collect()
    }

    fn changed(&mut self, now: Duration) {
        let files = u32::try_from(self.record.files.len()).unwrap_or(u32::MAX);
        self.due.get_or_insert(now + EARLIEST + PER_FILE * files);
    }

    /// When the register is to be written.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Writes what has changed, joined with what other hosts have written meanwhile.
    ///
    /// # Errors
    /// The store's: it is tried again later.
    pub async fn save(&mut self, bus: &BusHandle) -> StoreResult<()> {
        if self.due.is_none() {
            return Ok(());
        }
        loop {
            let (there, version) = read(bus, &self.key).await?;
            for (hash, seen) in &there.files {
                if !self.gone.contains(hash) {
                    self.record.files.entry(*hash).or_insert_with(|| seen.clone());
                }
            }
            if there != self.record {
                let bytes = to_json_line(&self.record);
                if bus.store.cas(&self.key, version.as_ref(), &bytes).await? == Swap::Conflict {
                    continue;
                }
            }
            self.gone.clear();
            self.due = None;
            return Ok(());
        }
    }
}
