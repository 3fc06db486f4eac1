//! Sources: each file that has finished arriving in a folder, or in a prefix of a bucket, becomes an event.
//!
//! A file's event has an id made of its path and its version, so that what a restarted source, or several hosts, emit for
//! one file is one event. A folder is watched by [`notices`] where the kernel tells of every writer, and looked through
//! again and again elsewhere; [`settling`] decides when a file is finished, [`seen`] holds on the bus which files have
//! their events, [`after`] does what is to be done with a file once groups are done with its event.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::event::{Data, Event, EventError, EventTime, hex};
use crate::group::GroupName;
use crate::store::mount::Mount;
use crate::store::object::Bucket;

mod after;
mod file;
mod notices;
mod patterns;
mod runner;
mod seen;
mod settling;
mod sure;
mod walk;

use file::{FoundFile, ShortHash, path_text};
pub use patterns::Patterns;
pub use runner::{Runner, SourcePass};
pub use seen::count;

/// How long a file must have stood still, unless it is set otherwise.
pub const SETTLE: Duration = Duration::from_secs(2);

/// How often a folder that tells nothing is looked through.
pub const POLL: Duration = Duration::from_secs(10);

/// The end of the type of events of new files. The other two take its place.
const ARRIVED: &str = "arrived";

/// What has become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is there. With [`Change::Changed`] told apart: for the first time.
    Arrived,
    /// It was there, and is another version.
    Changed,
    /// It is gone.
    Removed,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Arrived, Self::Changed, Self::Removed];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arrived => ARRIVED,
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What is done with a file once the named groups are done with its event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    #[default]
    Leave,
    /// It is moved below this folder, or to below this prefix of its bucket.
    Move(PathBuf),
    /// It is deleted.
    Delete,
}

/// Where files arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder, absolute.
    Folder(PathBuf),
    /// A prefix of a bucket, and its URL.
    Bucket(Box<Bucket>, String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(_, url) => f.write_str(url),
        }
    }
}

/// A folder, or a prefix of a bucket, whose files become events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, by which all hosts know it.
    pub name: String,
    /// Where files arrive.
    pub place: Place,
    /// The events' type; of those of other changes, with its last word replaced.
    pub type_: String,
    /// Which changes become events.
    pub changes: Vec<Change>,
    /// Which files are meant.
    pub patterns: Patterns,
    /// Whether folders below it are looked into.
    pub recursive: bool,
    /// How long a file must have stood still whose writer does not tell.
    pub settle: Duration,
    /// Set: the folder is looked through as often, and notices are not relied on.
    pub poll: Option<Duration>,
    /// Whether a version is known by its content.
    pub sha256: bool,
    /// What is done with files in the end.
    pub after: After,
    /// The groups that must be done with an event before.
    pub groups: Vec<GroupName>,
}

/// Why a source cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The type has no word that could be replaced.
    #[error("must end in '.arrived' where 'events' has others, which take that word's place")]
    Type,
    /// Objects are to be known by their content.
    #[error("is for folders: an object is known by its ETag")]
    BucketContent,
    /// Files are to be moved into a folder whose files become events.
    #[error("is below the folder itself")]
    MovesIntoItself,
    /// `after` without groups.
    #[error("needs groups = [\"GROUP\"]: it is done once they are done with the event")]
    NoGroups,
    /// Files that the source itself removes would be told as removed.
    #[error("does not go together with \"removed\" in 'events': each file would be removed in the end")]
    RemovesItself,
}

/// A folder, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    /// Whether a file has the same number on every host that sees it.
    has_stable_numbers: bool,
    /// Whether the clock that stamps its files is this machine's, and writers of other hosts are not hidden.
    is_local: bool,
}

/// File systems that other hosts write to, or other programs without the kernel's knowledge.
const SHARED: [&str; 10] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "lustre"];

/// Those among them on which a file has the same number everywhere.
const NUMBERED: [&str; 4] = ["nfs", "nfs4", "ceph", "lustre"];

impl Folder {
    fn of(path: &Path) -> Self {
        let kind = Mount::of(path).map(|mount| mount.kind).unwrap_or_default();
        let is_shared = SHARED.contains(&kind.as_str()) || kind.starts_with("fuse");
        // FAT makes numbers up.
        let has_stable_numbers = (!is_shared || NUMBERED.contains(&kind.as_str())) && kind != "vfat" && kind != "exfat";
        Self { path: path.to_owned(), has_stable_numbers, is_local: !is_shared }
    }
}

impl Source {
    /// Refuses what contradicts itself; which setting does, and why.
    ///
    /// # Errors
    /// The setting's name and what is wrong.
    pub fn validate(&self) -> Result<(), (&'static str, SourceError)> {
        let has_others = self.changes.iter().any(|change| *change != Change::Arrived);
        if has_others && self.type_of(Change::Changed) == self.type_ {
            return Err(("type", SourceError::Type));
        }
        if self.sha256 && matches!(self.place, Place::Bucket(..)) {
            return Err(("sha256", SourceError::BucketContent));
        }
        if self.after == After::Leave {
            return Ok(());
        }
        if self.groups.is_empty() {
            return Err(("after", SourceError::NoGroups));
        }
        if self.changes.contains(&Change::Removed) {
            return Err(("after", SourceError::RemovesItself));
        }
        match &self.after {
            After::Move(to) if self.moves_into_itself(to) => Err(("after", SourceError::MovesIntoItself)),
            _ => Ok(()),
        }
    }

    fn moves_into_itself(&self, to: &Path) -> bool {
        match &self.place {
            Place::Folder(folder) => to == folder,
            Place::Bucket(bucket, _) => to.starts_with(bucket.prefix.trim_matches('/')),
        }
    }

    /// The type of the events of a change.
    pub fn type_of(&self, change: Change) -> String {
        match self.type_.strip_suffix(ARRIVED) {
            Some(rest) if rest.is_empty() || rest.ends_with('.') => format!("{rest}{}", change.as_str()),
            _ => self.type_.clone(),
        }
    }

    /// Whether this is a folder to which the source itself moves files.
    fn is_own(&self, folder: &Path) -> bool {
        matches!(&self.after, After::Move(to) if to == folder)
    }

    fn wants(&self, change: Change) -> bool {
        self.changes.contains(&change)
    }

    /// What a found version is called: a later one of a known file is a change where changes are wanted, and arrives
    /// where they are not. None: it is not wanted.
    fn change(&self, was_known: bool) -> Option<Change> {
        let change = if was_known && self.wants(Change::Changed) { Change::Changed } else { Change::Arrived };
        self.wants(change).then_some(change)
    }

    /// The event of a file. Its time is the file's: of two hosts that emit it at once, both emit the same bytes.
    fn event(
        &self,
        file: &FoundFile,
        sha256: Option<&[u8; 32]>,
        (change, removals): (Change, u32),
    ) -> Result<Event, EventError> {
        let state = &file.state;
        let mut data = self.path_data(&file.path);
        data["size"] = json!(state.size);
        data["mtime"] = json!(state.mtime.to_rfc3339());
        match &self.place {
            Place::Bucket(..) => data["etag"] = json!(state.identity),
            Place::Folder(_) if !state.identity.is_empty() => data["inode"] = json!(state.place.1),
            Place::Folder(_) => {}
        }
        if let Some(content) = sha256 {
            data["sha256"] = json!(hex(content));
        }
        self.build(&state.id(&file.path, sha256, removals), &file.path, change, &data, state.mtime)
    }

    /// The event of a file that is gone, of which this version had an event.
    fn removal(&self, path: &Path, version: ShortHash, now: EventTime) -> Result<Event, EventError> {
        use std::os::unix::ffi::OsStrExt;
        let version: String = version.into();
        let id = hex(&file::digest([path.as_os_str().as_bytes(), version.as_bytes(), b"removed"])[..16]);
        self.build(&id, path, Change::Removed, &self.path_data(path), now)
    }

    fn path_data(&self, path: &Path) -> Value {
        let folder = match &self.place {
            Place::Folder(folder) => folder,
            Place::Bucket(_, url) => {
                return json!({ "path": format!("{}/{}", url.trim_end_matches('/'), path.display()) });
            }
        };
        let absolute = folder.join(path);
        match absolute.to_str() {
            Some(text) => json!({ "path": text }),
            None => {
                let Data::Base64(bytes) = Data::binary(absolute.as_os_str().as_encoded_bytes()) else {
                    return json!({});
                };
                json!({ "path": absolute.to_string_lossy(), "path_base64": bytes })
            }
        }
    }

    fn build(&self, id: &str, path: &Path, change: Change, data: &Value, now: EventTime) -> Result<Event, EventError> {
        Event::new(format!("{}:{id}", self.name), format!("/sources/{}", self.name), self.type_of(change))
            .subject(path_text(path))
            .time(now.to_rfc3339())
            .datacontenttype("application/json")
            .data(Data::json(&data.to_string()).unwrap_or_default())
            .build()
    }
}

#[cfg(test)]
mod tests;
