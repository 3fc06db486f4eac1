//! Registers without locks, so that a frozen process holds up no other, and NFS suffices.
//!
//! Version *n* of `frontier` is the file `frontier.<n>`. A swap from *n* creates *n* + 1, **then
//! lists**. The winner deletes all versions but the newest four, the oldest first. So if there is a
//! version above *n* + 4 by then, or the created one is gone, its number may have been won and
//! deleted before: the created version is deleted, and whether it ever counted is unknown.
//! Otherwise no winner can have deleted it, so this swap has won, even if other swaps have built on
//! it meanwhile.
//!
//! Deleting the oldest first matters to listings that are not atomic. Such a listing may miss the
//! newest version of its time only if that version was deleted while the listing ran; then all
//! older versions were deleted before, and cannot be read.

use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Shared;
use super::put::split;
use super::read::Stamp;
use crate::store::{ErrorKind, Object, Put, StoreError, StoreResult, Swap, Version};

/// How many versions stay.
const KEPT: usize = 4;

/// Digits of the largest version. A file with more was not made by evbus.
const DIGITS: usize = 15;

/// Prefixes with only objects, so many that no version is looked for among them (DESIGN §3).
const OBJECTS_ONLY: [&str; 2] = ["events/", "dedup/"];

/// How often the newest version may be in a listing, but missing when it is read.
const TRIES: u32 = 8;

/// The register and the version that a file name stands for.
pub(super) fn version_of(name: &str) -> Option<(&str, u64)> {
    let (register, digits) = name.rsplit_once('.')?;
    let canonical = !digits.is_empty() && digits.len() <= DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    (canonical && !digits.starts_with('0') && !register.is_empty())
        .then(|| digits.parse().ok())
        .flatten()
        .map(|version| (register, version))
}

fn holds_no_register(key: &str) -> bool {
    OBJECTS_ONLY.iter().any(|folder| key.starts_with(folder))
}

/// The version that a swap replaces: its number, and its stamp. A register that was deleted and
/// made anew counts from 1 again, and a process that slept meanwhile must not take a new version
/// for the one that it read.
struct Base {
    number: u64,
    stamp: Option<Stamp>,
}

impl Base {
    fn parse(version: &Version) -> Option<Self> {
        let (number, stamp) = version.0.split_once('@')?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        Some(Self { number, stamp: Some(Stamp::parse(stamp)) })
    }
}

fn version_text(number: u64, stamp: &Stamp) -> Version {
    Version(format!("{number}@{stamp}"))
}

impl Shared {
    /// The newest version of a register.
    pub(super) fn get_register(&self, key: &str, limit: usize) -> StoreResult<Option<Object>> {
        if holds_no_register(key) {
            return Ok(None);
        }
        let (mut before, mut again) = (None, 0);
        loop {
            let newest = self.versions(key)?.pop();
            // All versions that were there when a listing began may be deleted while it runs: only
            // a second listing proves absence.
            let Some(version) = newest else {
                if again > 0 && before.is_none() {
                    return Ok(None);
                }
                (before, again) = (None, 1);
                continue;
            };
            let path = format!("{key}.{version}");
            if let Some((bytes, stamp)) = self.read(&path, limit)? {
                return Ok(Some(Object { bytes, version: version_text(version, &stamp) }));
            }
            // The version was deleted by the winner of a newer one; then it is not listed again.
            again = if before == newest { again + 1 } else { 1 };
            before = newest;
            if again == TRIES {
                return Err(self.not_a_file(&path));
            }
        }
    }

    /// See [`crate::store::Store::cas`].
    pub(super) fn cas(self: &Arc<Self>, key: &str, version: Option<&Version>, bytes: &[u8]) -> StoreResult<Swap> {
        let base = match version {
            None => Base { number: 0, stamp: None },
            Some(version) => match Base::parse(version) {
                Some(base) => base,
                None => return Ok(Swap::Conflict),
            },
        };
        let versions = self.versions(key)?;
        let base_path = format!("{key}.{}", base.number);
        if versions.last().copied().unwrap_or(0) != base.number || self.stamp(&base_path)? != base.stamp {
            return Ok(Swap::Conflict);
        }
        let next = base.number + 1;
        let path = format!("{key}.{next}");
        if version_of(split(&path).1).is_none() {
            return Err(self.not_a_file(&base_path));
        }
        if self.with_reserve(&path, || self.create(&path, bytes))? == Put::Exists {
            return Ok(Swap::Conflict);
        }
        self.judge(key, next)
    }

    /// Whether the version `number`, which was just created, counts.
    fn judge(&self, key: &str, number: u64) -> StoreResult<Swap> {
        let versions = self.versions(key)?;
        let newest = versions.last().copied().unwrap_or(0);
        let path = format!("{key}.{number}");
        let stamp = self.stamp(&path)?.filter(|_| newest < number + KEPT as u64);
        let Some(stamp) = stamp else {
            if newest > number {
                self.unlink(&path)?;
            }
            // A conflict promises that nothing has happened. Here that is unknown: the caller must
            // read it back.
            let what = format!("cannot tell whether {} counted: overtaken while it was written", self.shown(&path));
            return Err(StoreError::new(ErrorKind::Unavailable, what));
        };
        // The swap has taken place; versions that cannot be deleted now are deleted by the next
        // swap.
        for old in &versions[..versions.len().saturating_sub(KEPT)] {
            if self.unlink(&format!("{key}.{old}")).is_err() {
                break;
            }
        }
        Ok(Swap::Swapped(version_text(number, &stamp)))
    }

    /// Removes every version of a register, the newest last: a crash leaves the register, not an older state of it.
    pub(super) fn delete_register(&self, key: &str) -> StoreResult<()> {
        while !holds_no_register(key) {
            let versions = self.versions(key)?;
            if versions.is_empty() {
                break;
            }
            for version in versions {
                self.unlink(&format!("{key}.{version}"))?;
            }
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
            Err(errno) => Err(self.failed("cannot delete", path, errno)),
        }
    }
}
