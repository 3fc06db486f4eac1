//! What is done with a file once groups are done with its event: it is moved away or deleted, if it still is the version
//! that the event told of.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::file::{FileState, open_file};
use super::{After, Folder, Source};
use crate::bus::BusHandle;
use crate::clock::Backoff;
use crate::event::EventName;
use crate::group::GroupName;
use crate::group::status::{self, EventState};
use crate::store::StoreResult;

/// The pauses between looks at the groups while they are not done.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// More files than this are asked for less often.
const MANY: usize = 100;

/// What [`Unfinished::done`] has found.
#[derive(Debug, Default)]
pub struct DoneFiles {
    /// Events that all groups have processed, and their files.
    pub files: Vec<(EventName, PathBuf)>,
    /// Why a file will never be done, of one of them.
    pub kept: Option<String>,
}

/// Files whose groups are not known to be done.
pub struct Unfinished {
    files: BTreeMap<EventName, PathBuf>,
    pauses: Backoff,
    next: Duration,
}

impl Default for Unfinished {
    fn default() -> Self {
        Self { files: BTreeMap::new(), pauses: Backoff::new(PAUSES.0, PAUSES.1), next: Duration::ZERO }
    }
}

impl Unfinished {
    /// A file has an event that groups are to process.
    pub fn add(&mut self, event: EventName, path: PathBuf, now: Duration) {
        if self.files.insert(event, path).is_none() {
            self.pauses = Backoff::new(PAUSES.0, PAUSES.1);
            self.next = now + self.pauses.pause();
        }
    }

    /// Looks at once.
    pub fn look_now(&mut self) {
        self.next = Duration::ZERO;
    }

    /// When to look next; none: there is no file.
    pub fn next(&self) -> Option<Duration> {
        (!self.files.is_empty()).then_some(self.next)
    }

    /// The files whose events all groups have processed, and what keeps others for good. A dead letter is not processed.
    ///
    /// # Errors
    /// The store's.
    pub async fn done(&mut self, bus: &BusHandle, groups: &[GroupName], now: Duration) -> StoreResult<DoneFiles> {
        let mut statuses = Vec::new();
        for group in groups {
            // A group that does not exist yet has everything before it.
            let Some(status) = status::read(bus, group).await? else {
                self.next = now + self.pauses.take();
                return Ok(DoneFiles::default());
            };
            statuses.push(status);
        }
        let (mut done, mut kept) = (Vec::new(), None);
        for (event, path) in &self.files {
            let mut is_done = true;
            for status in &statuses {
                let group = &status.group;
                match status.event_state(bus, event, None).await? {
                    EventState::Done => continue,
                    EventState::NotWanted(_) => {
                        kept = Some(format!("group '{group}' does not want the event of {}", path.display()))
                    }
                    EventState::NotReached => {
                        kept = Some(format!("group '{group}' started behind the event of {}", path.display()))
                    }
                    _ => {}
                }
                is_done = false;
            }
            if is_done {
                done.push(event.clone());
            }
        }
        if !done.is_empty() {
            // To ask for very many takes long.
            let first = if self.files.len() > MANY { PAUSES.0 * 10 } else { PAUSES.0 };
            self.pauses = Backoff::new(first, PAUSES.1);
        }
        self.next = now + self.pauses.take();
        let files = done.into_iter().filter_map(|event| self.files.remove_entry(&event)).collect();
        Ok(DoneFiles { files, kept })
    }
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It was moved or deleted.
    Away,
    /// It is gone already, or is another version by now.
    Other,
}

/// Does with a file what is to be done; it blocks. `is_version` tells whether the file still is the version of the event.
///
/// # Errors
/// The file cannot be moved or deleted, and is where it was.
pub fn finish(
    source: &Source,
    folder: &Folder,
    path: &Path,
    is_version: impl Fn(&FileState) -> bool,
) -> io::Result<Finished> {
    let from = folder.path.join(path);
    let state = match std::fs::symlink_metadata(&from) {
        Ok(metadata) => FileState::of(&metadata, folder.has_stable_numbers),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Finished::Other),
        Err(error) => return Err(error),
    };
    if !is_version(&state) {
        return Ok(Finished::Other);
    }
    let done = match &source.after {
        After::Leave => return Ok(Finished::Other),
        After::Delete => std::fs::remove_file(&from),
        After::Move(to) => {
            let mark = &state.id(path, None, 0)[..8];
            let is_same = |metadata: &Metadata| is_version(&FileState::of(metadata, folder.has_stable_numbers));
            move_to(&from, &to.join(path), mark, &is_same)
        }
    };
    match done {
        Ok(()) => Ok(Finished::Away),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Finished::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(Finished::Other),
        Err(error) => Err(error),
    }
}

/// Moves a file without replacing another: where the name is taken, `mark` is put before the name's ending.
fn move_to(from: &Path, to: &Path, mark: &str, is_same: &dyn Fn(&Metadata) -> bool) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match move_new(from, to, is_same) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut name = to.file_stem().unwrap_or_default().to_owned();
            name.push(format!(".{mark}"));
            if let Some(ending) = to.extension() {
                name.push(".");
                name.push(ending);
            }
            move_new(from, &to.with_file_name(name), is_same)
        }
        other => other,
    }
}

fn move_new(from: &Path, to: &Path, is_same: &dyn Fn(&Metadata) -> bool) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::XDEV) => copy_new(from, to, is_same),
        // File systems that do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_ok() => Err(Errno::EXIST.into()),
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to).map_err(io::Error::from),
        other => other.map_err(io::Error::from),
    }
}

/// Moves a file to another file system: it is there, whole and durable, before it is deleted here, and only if it is still the
/// same.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`]: it is another by now.
fn copy_new(from: &Path, to: &Path, is_same: &dyn Fn(&Metadata) -> bool) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    let mut copy = tempfile::Builder::new().prefix(".evbus-").tempfile_in(folder)?;
    let mut file = open_file(from)?;
    io::copy(&mut file, &mut copy)?;
    let metadata = file.metadata()?;
    copy.as_file().set_permissions(metadata.permissions())?;
    copy.as_file().set_modified(metadata.modified()?)?;
    copy.as_file().sync_all()?;
    if !is_same(&file.metadata()?) || !is_same(&std::fs::symlink_metadata(from)?) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    copy.persist_noclobber(to).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()?;
    std::fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_replaced_by_one_that_is_moved() {
        let folder = tempfile::TempDir::new().unwrap();
        let (inbox, done) = (folder.path().join("in"), folder.path().join("done/sub"));
        std::fs::create_dir(&inbox).unwrap();
        for content in ["one", "two"] {
            std::fs::write(inbox.join("a.tar.gz"), content).unwrap();
            move_to(&inbox.join("a.tar.gz"), &done.join("a.tar.gz"), &format!("{content}hash"), &|_| true).unwrap();
        }
        assert_eq!(std::fs::read_to_string(done.join("a.tar.gz")).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(done.join("a.tar.twohash.gz")).unwrap(), "two");
        std::fs::write(inbox.join("b"), "three").unwrap();
        copy_new(&inbox.join("b"), &done.join("b"), &|_| true).unwrap();
        assert_eq!(std::fs::read_to_string(done.join("b")).unwrap(), "three");
        std::fs::write(inbox.join("b"), "four").unwrap();
        assert!(copy_new(&inbox.join("b"), &done.join("b"), &|_| true).is_err());
        let changed = copy_new(&inbox.join("b"), &done.join("c"), &|_| false).unwrap_err();
        assert_eq!((changed.kind(), done.join("c").exists()), (io::ErrorKind::Interrupted, false));
        assert_eq!(std::fs::read_to_string(inbox.join("b")).unwrap(), "four", "it is where it was");
    }
}
