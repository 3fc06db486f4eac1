//! Disk space reserved for commits and `prune` when the disk is full.
//!
//! If a backlog has filled the disk, no worker could commit what is done, and so `prune` could not
//! delete it. Some files are made together with the bus; a register, or a key below `state/` and
//! `groups/`, takes the space of one after the other when none is left otherwise. Events do not:
//! they are what fills the disk.

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};

use super::{Shared, create_below};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The number of files: each is an inode, too. A group's first commit makes up to a dozen.
const FILES: usize = 16;

/// The largest size of each, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// All of them together take at most one part in this many of what is free.
const SHARE: u64 = 16;

/// Where they lie.
pub(super) const RESERVE: &str = "reserve";

fn name(number: usize) -> String {
    format!("{RESERVE}/{number:02}")
}

/// Whether a write to a key may use up the reserve.
fn is_work(key: &str) -> bool {
    ["state/", "groups/", "schedules/"].iter().any(|folder| key.starts_with(folder)) || !key.contains('/')
}

impl Shared {
    /// Makes the missing files of the reserve, as far as there is room.
    pub(super) fn fill_reserve(&self) {
        let free = rustix::fs::fstatvfs(&self.root).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let bytes = (free / SHARE / FILES as u64).min(MOST_BYTES) & !4_095;
        if self.folders.open(&self.root, RESERVE).is_err() {
            return;
        }
        for number in 0..FILES {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let Ok(file) = create_below(&self.root, &name(number), flags, Mode::from_raw_mode(0o666)) else { continue };
            let owned = self.give_to_owner(&file, 0o666);
            let kept = match bytes {
                0 => Ok(()),
                _ => rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes),
            };
            if owned.is_err() || kept.is_err() {
                // A file system that cannot reserve room at least has the inode to give.
                let _ = rustix::fs::ftruncate(&file, 0);
            }
        }
    }

    /// Does work that needs room, and frees some of the reserve for it if `key` may use that.
    pub(super) fn with_reserve<T>(&self, key: &str, mut work: impl FnMut() -> StoreResult<T>) -> StoreResult<T> {
        loop {
            match work() {
                Err(error) if is_full(&error) && is_work(key) && self.free_one() => {}
                answer => return answer,
            }
        }
    }

    fn free_one(&self) -> bool {
        (0..FILES).any(|number| rustix::fs::unlinkat(&self.root, name(number), AtFlags::empty()).is_ok())
    }
}

fn is_full(error: &StoreError) -> bool {
    error.kind() == ErrorKind::Full
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::dir::{DirOptions, DirStore};

    #[test]
    fn the_reserve_is_for_markers_and_not_for_events() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = DirStore::create(&folder.path().join("bus"), DirOptions::default(), &SystemClock).unwrap();
        let left = || std::fs::read_dir(folder.path().join("bus/reserve")).unwrap().count();
        assert_eq!(left(), FILES);
        let full = || StoreError::new(ErrorKind::Full, "full");
        let tries = Cell::new(0);
        let needs = |most: usize| {
            tries.set(0);
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                if tries.get() > most { Ok(()) } else { Err(full()) }
            }
        };
        assert_eq!(store.shared.with_reserve("state/g/marker-000.7", needs(3)), Ok(()));
        assert_eq!(left(), FILES - 3);
        assert_eq!(store.shared.with_reserve("events/20261123/0215/x.json", needs(1)), Err(full()));
        assert_eq!((tries.get(), left()), (1, FILES - 3));
        assert_eq!(store.shared.with_reserve("frontier.2", needs(usize::MAX)), Err(full()));
        assert_eq!(left(), 0);
        store.shared.fill_reserve();
        assert_eq!(left(), FILES);
    }
}
