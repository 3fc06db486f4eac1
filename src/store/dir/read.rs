//! Reading an object or a register.

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::{Shared, open_below};
use crate::store::{Object, Obstruction, StoreError, StoreResult, Version};

/// Tells a file from another of the same name: by its modification time and its size. Not by its
/// inode, which some file systems (FUSE) number anew at every look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(String);

impl Stamp {
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self(format!("{}.{:09}-{}", stat.st_mtime, stat.st_mtime_nsec, stat.st_size))
    }

    pub(super) fn parse(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl Shared {
    /// See [`crate::store::Store::get`]. A plain file of that name is an object; else the highest version counts.
    pub(super) fn get(&self, key: &str, limit: usize) -> StoreResult<Option<Object>> {
        match self.read(key, limit)? {
            Some((bytes, _)) => Ok(Some(Object { bytes, version: Version(String::new()) })),
            None => self.get_register(key, limit),
        }
    }

    /// The content and the stamp of one file; none if it is not there. Its size is checked before
    /// it is read.
    pub(super) fn read(&self, path: &str, limit: usize) -> StoreResult<Option<(Vec<u8>, Stamp)>> {
        let failed = |errno| self.failed("cannot read", path, errno);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match open_below(&self.root, path, flags) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(self.not_a_file(path));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let within = |len: u64| match len > limit as u64 {
            true => Err(StoreError::too_large(self.shown(path), len, limit)
                .with_detail(self.obstructed(Obstruction::TooLarge, path))),
            false => Ok(()),
        };
        within(size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        loop {
            if bytes.len() == bytes.capacity() {
                bytes.reserve(4_096);
            }
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => return Ok(Some((bytes, Stamp::of(&stat)))),
                // A published file does not grow any more.
                Ok(_) if bytes.len() as u64 == size => return Ok(Some((bytes, Stamp::of(&stat)))),
                Ok(_) => within(bytes.len() as u64)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// The stamp of the file at `path`; none if there is none.
    pub(super) fn stamp(&self, path: &str) -> StoreResult<Option<Stamp>> {
        match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("cannot read", path, errno)),
        }
    }
}
