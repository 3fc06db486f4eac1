//! Folders of a bus: made when needed, flushed once up to the bus, and kept open while they are
//! written to.
//!
//! A folder that is held open, and into which a rename still succeeds, is the one that was flushed:
//! if it had been removed and made anew, the rename would fail. A name alone proves nothing:
//! retention may have removed the folder, and a process that has since died may have made the one
//! that is there now.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::FileOwner;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Folder mode of a bus shared by a Unix group: writable, and new files inherit the group.
pub(super) const SHARED_MODE: Mode = Mode::from_raw_mode(0o2775);

/// How many folders are kept open: a worker writes to its markers, its letters, the frontier and
/// the staging folder.
const KEPT_OPEN: usize = 12;

/// How often a folder may vanish before it is open. A loop that does nothing but remove it wins nine times in ten.
const TRIES: usize = 10_000;

/// The durability mark: an attribute that says that a folder can be reached after a crash.
const MARK: &str = "user.evbus.reachable";

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folders that this process has written to.
pub(super) struct Folders {
    /// The bus, for messages.
    path: PathBuf,
    group_writable: bool,
    owner: Option<FileOwner>,
    /// In the order of their last writes, the latest last.
    open: Mutex<Vec<Open>>,
}

struct Open {
    name: String,
    fd: Arc<OwnedFd>,
    /// Whether its entry in its parent, and so on up to the bus, has been flushed.
    reachable: bool,
}

impl Folders {
    pub(super) fn new(path: PathBuf, group_writable: bool, owner: Option<FileOwner>) -> Self {
        Self { path, group_writable, owner, open: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, folder: &str, errno: Errno) -> StoreError {
        StoreError::system(doing, self.path.join(folder).display(), errno)
    }

    /// Opens `folder`, making it and those above it if they are not there.
    pub(super) fn open(&self, root: &OwnedFd, folder: &str) -> StoreResult<Arc<OwnedFd>> {
        {
            let mut kept = self.kept();
            if let Some(at) = kept.iter().rposition(|open| open.name == folder) {
                let open = kept.remove(at);
                let fd = Arc::clone(&open.fd);
                kept.push(open);
                return Ok(fd);
            }
        }
        let fd = match open_folder(root, folder) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make(root, folder)?,
            Err(errno) => return Err(self.failed("cannot open the folder", folder, errno)),
        };
        Ok(self.keep(folder, fd))
    }

    /// Keeps a folder open for the next write to it.
    fn keep(&self, folder: &str, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        let mut kept = self.kept();
        if kept.len() == KEPT_OPEN {
            kept.remove(0);
        }
        kept.push(Open { name: folder.to_owned(), fd: Arc::clone(&fd), reachable: false });
        fd
    }

    fn make(&self, root: &OwnedFd, folder: &str) -> StoreResult<OwnedFd> {
        // Retention removes empty folders, even those that are being made.
        for _ in 0..TRIES {
            self.make_path(root, folder)?;
            match open_folder(root, folder) {
                Ok(fd) => return Ok(fd),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed("cannot open the folder", folder, errno)),
            }
        }
        // Nothing can be made in a folder that was removed, even if it is still held open.
        if rustix::fs::fstat(root).is_ok_and(|stat| stat.st_nlink == 0) {
            let what = format!("the bus at {} was removed", self.path.display());
            return Err(StoreError::new(ErrorKind::NoBus, what));
        }
        let what = format!("cannot open the folder {}: it vanishes", self.path.join(folder).display());
        Err(StoreError::new(ErrorKind::Unavailable, what))
    }

    /// Makes a folder, or, if folders above it are missing, the highest of those: the next try goes
    /// on from there.
    fn make_path(&self, root: &OwnedFd, folder: &str) -> StoreResult<()> {
        let shared = || match self.group_writable {
            true => rustix::fs::chmodat(root, folder, SHARED_MODE, AtFlags::empty()),
            false => Ok(()),
        };
        // The owner is set first, because that clears the mode's set-group-ID bit.
        let owned = || self.owner.map_or(Ok(()), |owner| owner.chown(&open_folder(root, folder)?, 0o7777));
        match rustix::fs::mkdirat(root, folder, Mode::from_raw_mode(0o777)) {
            Ok(()) if self.group_writable || self.owner.is_some() => match owned().and_then(|()| shared()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(self.failed("cannot share the folder", folder, errno)),
            },
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(Errno::NOENT) => match folder.rsplit_once('/') {
                Some((parent, _)) => self.make_path(root, parent),
                None => Ok(()),
            },
            Err(errno) => Err(self.failed("cannot make the folder", folder, errno)),
        }
    }

    /// Forgets the open folder: it has been removed.
    pub(super) fn forget(&self, folder: &str) {
        self.kept().retain(|open| open.name != folder);
    }

    /// Flushes a folder that was written to, and, once while it is kept open, every folder from
    /// there up to the bus, whichever process made it: that process may have died before the flush.
    pub(super) fn flush(&self, root: &OwnedFd, folder: &str, fd: &Arc<OwnedFd>) -> StoreResult<()> {
        self.fsync(fd, folder)?;
        let same = |open: &Open| Arc::ptr_eq(&open.fd, fd);
        if self.kept().iter().any(|open| same(open) && open.reachable) {
            return Ok(());
        }
        let mut below = if is_marked(fd) { "" } else { folder };
        let marked = below.is_empty();
        while !below.is_empty() {
            let parent = below.rsplit_once('/').map_or("", |(parent, _)| parent);
            let fd = open_folder(root, parent).map_err(|errno| self.failed("cannot open the folder", parent, errno))?;
            self.fsync(&fd, parent)?;
            below = parent;
        }
        if !marked {
            mark(fd);
        }
        if let Some(open) = self.kept().iter_mut().find(|open| same(open)) {
            open.reachable = true;
        }
        Ok(())
    }

    /// Flushes `folder`, so that what was read in it is durable, whichever process wrote it. A
    /// folder that is gone has nothing in it.
    pub(super) fn persist(&self, root: &OwnedFd, folder: &str) -> StoreResult<()> {
        // The folder that is kept open may have been replaced by another.
        self.forget(folder);
        match open_folder(root, folder) {
            Ok(fd) => {
                let fd = self.keep(folder, fd);
                self.flush(root, folder, &fd)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("cannot open the folder", folder, errno)),
        }
    }

    /// Removes a folder if it is empty.
    pub(super) fn remove(&self, root: &OwnedFd, folder: &str) {
        if rustix::fs::unlinkat(root, folder, AtFlags::REMOVEDIR).is_ok() {
            self.forget(folder);
        }
    }

    fn fsync(&self, fd: &OwnedFd, folder: &str) -> StoreResult<()> {
        match rustix::fs::fsync(fd) {
            // Some file systems (FUSE, CIFS) cannot flush a folder and need none.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(errno) => Err(self.failed("cannot flush the folder", folder, errno).not_durable()),
        }
    }
}

/// Whether every folder above this one has been flushed since it was made, as the durability mark
/// on the folder itself says: an emit of one event need not flush them again. The mark names the
/// inode, so that a copy of a bus has none.
fn is_marked(fd: &OwnedFd) -> bool {
    let mut mark = [0; 24];
    let Some(own) = mark_of(fd) else { return false };
    rustix::fs::fgetxattr(fd, MARK, &mut mark[..]).is_ok_and(|len| mark.get(..len) == Some(own.as_bytes()))
}

/// Sets the mark that [`is_marked`] looks for, after the flush. Where it cannot be set, or is lost
/// in a crash, the next process flushes again.
fn mark(fd: &OwnedFd) {
    if let Some(own) = mark_of(fd) {
        let _ = rustix::fs::fsetxattr(fd, MARK, own.as_bytes(), rustix::fs::XattrFlags::empty());
    }
}

fn mark_of(fd: &OwnedFd) -> Option<String> {
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino.to_string())
}

/// Opens a folder of the bus; the bus itself is the one with the empty name.
fn open_folder(root: &OwnedFd, folder: &str) -> rustix::io::Result<OwnedFd> {
    super::open_below(root, if folder.is_empty() { "." } else { folder }, FOLDER_FLAGS)
}
