//! Makes durable what was found: its writer may have died before the flush, or have done without
//! one ([`Durability::None`]).

use std::collections::BTreeSet;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::put::split;
use super::{Durability, Shared, open_below};
use crate::store::{StoreError, StoreResult};

impl Shared {
    /// See [`crate::store::Store::persist`]. The contents are flushed first, then the folders: a
    /// name that survives must not lead to nothing. An object that is gone meanwhile needs no
    /// flush.
    pub(super) fn persist(&self, keys: &[String]) -> StoreResult<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        if self.flushes_one_by_one(keys.len()) {
            for key in keys {
                self.flush_content(key)?;
            }
        } else {
            rustix::fs::syncfs(&self.root)
                .map_err(|errno| StoreError::system("cannot flush", self.shown(""), errno).not_durable())?;
        }
        let folders: BTreeSet<&str> = keys.iter().map(|key| split(key).0).collect();
        folders.into_iter().try_for_each(|folder| self.folders.persist(&self.root, folder))
    }

    /// Flushes an object's content. The content of a register's version needs no flush: it is
    /// always flushed before it is published.
    fn flush_content(&self, key: &str) -> StoreResult<()> {
        match open_below(&self.root, key, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK) {
            Ok(file) => self.flush_file(&file, key).map_err(StoreError::not_durable),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(()),
            Err(errno) => Err(self.failed("cannot flush", key, errno)),
        }
    }
}
