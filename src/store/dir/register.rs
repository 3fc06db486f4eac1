//! Registers without locks, so that a frozen process holds up nobody and NFS will do.
//!
//! Version *n* of `frontier` is the file `frontier.<n>`. A swap from *n* creates *n* + 1, **then lists**: a higher
//! version there means that this number had been won before and cleared away, so mine is deleted and the answer is
//! Conflict. The winner deletes all but the newest four, because a listing that is not atomic may miss the newest
//! one, but not four in a row (`shared/model/chain.py` shows two winners without the one, and without the other).

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Shared;
use super::put::split;
use crate::store::{Object, Put, StoreError, StoreResult, Swap, Version};

/// How many versions stay.
const KEPT: usize = 4;

/// The register and the version that a file name stands for.
pub(super) fn version_of(name: &str) -> Option<(&str, u64)> {
    let (register, digits) = name.rsplit_once('.')?;
    let canonical = !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|digit| digit.is_ascii_digit());
    (canonical && !digits.starts_with('0') && !register.is_empty())
        .then(|| digits.parse().ok())
        .flatten()
        .map(|version| (register, version))
}

impl Shared {
    /// The newest version of a register.
    pub(super) fn get_register(&self, key: &str) -> StoreResult<Option<Object>> {
        loop {
            let Some(newest) = self.versions(key)?.pop() else {
                return Ok(None);
            };
            // The one who has just written four newer ones may have cleared it away: list again.
            if let Some(bytes) = self.read(&format!("{key}.{newest}"))? {
                return Ok(Some(Object { bytes, version: Version(newest.to_string()) }));
            }
        }
    }

    /// See [`crate::store::Store::cas`].
    pub(super) fn cas(&self, key: &str, version: Option<&Version>, bytes: &[u8]) -> StoreResult<Swap> {
        let Some(base) = version.map_or(Some(0), |version| version.0.parse::<u64>().ok()) else {
            return Ok(Swap::Conflict);
        };
        let versions = self.versions(key)?;
        if versions.last().copied().unwrap_or(0) != base {
            return Ok(Swap::Conflict);
        }
        let next = base + 1;
        let path = format!("{key}.{next}");
        if self.put_new(&path, bytes)? == Put::Exists {
            return Ok(Swap::Conflict);
        }
        let versions = self.versions(key)?;
        if versions.last().is_some_and(|newest| *newest > next) {
            self.unlink(&path)?;
            return Ok(Swap::Conflict);
        }
        for old in versions.iter().rev().skip(KEPT) {
            self.unlink(&format!("{key}.{old}"))?;
        }
        Ok(Swap::Swapped(Version(next.to_string())))
    }

    /// Removes every version of a register, the newest last: a crash leaves the register, not an older state of it.
    pub(super) fn delete_register(&self, key: &str) -> StoreResult<()> {
        for version in self.versions(key)? {
            self.unlink(&format!("{key}.{version}"))?;
        }
        Ok(())
    }

    /// The versions that are there, ascending.
    fn versions(&self, key: &str) -> StoreResult<Vec<u64>> {
        let (folder, register) = split(key);
        let mut versions = Vec::new();
        self.each_entry(folder, |name, _| {
            if let Some((of, version)) = version_of(name)
                && of == register
            {
                versions.push(version);
            }
        })?;
        versions.sort_unstable();
        Ok(versions)
    }

    fn unlink(&self, path: &str) -> StoreResult<()> {
        match rustix::fs::unlinkat(&self.root, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::system("cannot delete", self.shown(path), errno)),
        }
    }
}
