//! Folders of a bus: made when needed, flushed once per process, kept open while they are written to.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Durability;
use crate::store::{StoreError, StoreResult};

/// Folder mode of a bus shared by a Unix group: writable, and new files inherit the group.
pub(super) const SHARED_MODE: Mode = Mode::from_raw_mode(0o2775);

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folders that this process has written to.
pub(super) struct Folders {
    group_writable: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Folders whose entries in their parents, up to the bus, this process has flushed.
    flushed: HashSet<String>,
    /// The folder written to last.
    recent: Option<(String, Arc<OwnedFd>)>,
}

impl Folders {
    pub(super) fn new(group_writable: bool) -> Self {
        Self { group_writable, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens `folder`, making it and those above it if they are not there.
    pub(super) fn open(&self, root: &OwnedFd, folder: &str) -> StoreResult<Arc<OwnedFd>> {
        if let Some((name, fd)) = &self.state().recent
            && name == folder
        {
            return Ok(Arc::clone(fd));
        }
        let fd = match rustix::fs::openat(root, at(folder), FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make(root, folder)?,
            Err(errno) => return Err(StoreError::system("cannot open the folder", folder, errno)),
        };
        let fd = Arc::new(fd);
        self.state().recent = Some((folder.to_owned(), Arc::clone(&fd)));
        Ok(fd)
    }

    fn make(&self, root: &OwnedFd, folder: &str) -> StoreResult<OwnedFd> {
        let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
        for part in ends.map(|end| &folder[..end]) {
            match rustix::fs::mkdirat(root, part, Mode::from_raw_mode(0o777)) {
                Ok(()) if self.group_writable => {
                    rustix::fs::chmodat(root, part, SHARED_MODE, AtFlags::empty())
                        .map_err(|errno| StoreError::system("cannot share the folder", part, errno))?;
                }
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(StoreError::system("cannot make the folder", part, errno)),
            }
        }
        rustix::fs::openat(root, folder, FOLDER_FLAGS, Mode::empty())
            .map_err(|errno| StoreError::system("cannot open the folder", folder, errno))
    }

    /// Forgets the open folder: retention has removed it.
    pub(super) fn forget(&self, folder: &str) {
        let mut state = self.state();
        state.flushed.remove(folder);
        if state.recent.as_ref().is_some_and(|(name, _)| name == folder) {
            state.recent = None;
        }
    }

    /// Flushes a folder that was written to, and once per process every folder from there up to the bus, whoever
    /// made it: its maker may have died before the flush.
    pub(super) fn flush(&self, root: &OwnedFd, folder: &str, fd: &OwnedFd) -> StoreResult<()> {
        fsync(fd, folder)?;
        let mut below = folder;
        while !below.is_empty() && !self.state().flushed.contains(below) {
            let parent = below.rsplit_once('/').map_or("", |(parent, _)| parent);
            let fd = rustix::fs::openat(root, at(parent), FOLDER_FLAGS, Mode::empty())
                .map_err(|errno| StoreError::system("cannot open the folder", parent, errno))?;
            fsync(&fd, parent)?;
            below = parent;
        }
        self.remember_flushed(folder);
        Ok(())
    }

    /// Only entered after the flush of everything above: a folder in the set is reachable after a crash.
    fn remember_flushed(&self, folder: &str) {
        let mut state = self.state();
        state.flushed.insert(folder.to_owned());
        let mut below = folder;
        while let Some((parent, _)) = below.rsplit_once('/') {
            state.flushed.insert(parent.to_owned());
            below = parent;
        }
        // A process that lives for months writes to a new folder every minute.
        if state.flushed.len() > 4_096 {
            state.flushed.clear();
        }
    }

    /// Flushes `folder` alone, so that what was read in it is durable, whoever wrote it.
    pub(super) fn persist(&self, root: &OwnedFd, folder: &str, durability: Durability) -> StoreResult<()> {
        if durability == Durability::None {
            return Ok(());
        }
        if folder.is_empty() {
            return fsync(root, ".");
        }
        let fd = self.open(root, folder)?;
        fsync(&fd, folder)
    }

    /// Removes a folder if it is empty.
    pub(super) fn remove(&self, root: &OwnedFd, folder: &str) {
        if rustix::fs::unlinkat(root, folder, AtFlags::REMOVEDIR).is_ok() {
            self.forget(folder);
        }
    }
}

/// The bus itself is the folder with the empty name.
fn at(folder: &str) -> &str {
    if folder.is_empty() { "." } else { folder }
}

fn fsync(fd: &OwnedFd, folder: &str) -> StoreResult<()> {
    match rustix::fs::fsync(fd) {
        // Some file systems (FUSE, CIFS) cannot flush a folder and need none.
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(StoreError::system("cannot flush the folder", folder, errno)),
    }
}
