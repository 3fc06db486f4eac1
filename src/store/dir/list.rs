//! Listing: folders in byte order, and of each folder only the keys that the caller can use, in
//! bounded memory.

use std::collections::{BTreeSet, BinaryHeap};
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, OFlags, RawDir};
use rustix::io::Errno;

use super::reserve::RESERVE;
use super::{STAGING, Shared, open_below, register};
use crate::store::{List, Page, StoreResult};

/// How many bytes of names are read from the kernel at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// One folder's share of a page: the `limit` smallest keys; no more than that are in memory.
struct Smallest {
    limit: usize,
    keys: BinaryHeap<String>,
    is_truncated: bool,
}

impl Smallest {
    fn push(&mut self, key: &str) {
        if self.keys.len() < self.limit {
            self.keys.push(key.to_owned());
            return;
        }
        self.is_truncated = true;
        if let Some(mut largest) = self.keys.peek_mut()
            && key < largest.as_str()
        {
            largest.clear();
            largest.push_str(key);
        }
    }
}

impl Page {
    fn push(&mut self, key: String, limit: usize) {
        if self.keys.len() < limit {
            self.keys.push(key);
        } else {
            self.is_truncated = true;
        }
    }
}

impl Shared {
    /// See [`crate::store::Store::list_after`].
    pub(super) fn list_after(&self, list: &List) -> StoreResult<Page> {
        let folder = list.prefix.trim_end_matches('/');
        let (mut page, mut seen) = (Page::default(), 0);
        self.list_folder(folder, list, &mut page, &mut seen)?;
        self.note_listing(&list.prefix, seen);
        Ok(page)
    }

    /// Adds a folder's share to the page; `seen` counts the entries that were read.
    fn list_folder(&self, folder: &str, list: &List, page: &mut Page, seen: &mut usize) -> StoreResult<()> {
        let mut folders = BTreeSet::new();
        let mut files = Smallest { limit: list.limit - page.keys.len(), keys: BinaryHeap::new(), is_truncated: false };
        let mut registers = BTreeSet::new();
        let mut key = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let stem = key.len();
        self.each_entry(folder, |name, kind| {
            *seen += 1;
            key.truncate(stem);
            if kind == FileType::Directory {
                key.push_str(name);
                key.push('/');
                if !(stem == 0 && [STAGING, RESERVE].contains(&name)) && may_hold_after(&key, &list.after) {
                    folders.insert(key.clone());
                }
                return;
            }
            match register::version_of(name).filter(|_| mark_of(kind).is_none()) {
                // A register is listed once, however many versions it has.
                Some((register, _)) => {
                    key.push_str(register);
                    if !registers.insert(register.to_owned()) {
                        return;
                    }
                }
                None => {
                    key.push_str(name);
                    key.extend(mark_of(kind));
                }
            }
            if key.as_str() > list.after.as_str() && (list.keep)(&key) {
                files.push(&key);
            }
        })?;
        let is_truncated = files.is_truncated;
        let mut files = files.keys.into_sorted_vec();
        // A plain file may stand beside a register of its name.
        files.dedup();
        let mut files = files.into_iter().peekable();
        for below in folders {
            while let Some(key) = files.next_if(|key| *key < below) {
                page.push(key, list.limit);
            }
            // A full page goes on to the next kept key, so that it knows whether there is one.
            page.is_truncated |= is_truncated && page.keys.len() == list.limit;
            if page.is_truncated {
                return Ok(());
            }
            self.list_folder(below.trim_end_matches('/'), list, page, seen)?;
        }
        for key in files {
            page.push(key, list.limit);
        }
        page.is_truncated |= is_truncated;
        Ok(())
    }

    /// Calls `see` with each entry of a folder, in no order; a folder that is not there has none.
    pub(super) fn each_entry(&self, folder: &str, mut see: impl FnMut(&str, FileType)) -> StoreResult<()> {
        let failed = |errno| self.failed("cannot list", folder, errno);
        let at = if folder.is_empty() { "." } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match open_below(&self.root, at, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The folder was removed while it was read: it was empty.
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            };
            // A name that is not UTF-8 was not put there by evbus.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&fd, name),
                kind => kind,
            };
            see(name, kind);
        }
        Ok(())
    }
}

/// The kind of an entry; some file systems do not tell it in a listing.
fn kind_of(folder: &std::os::fd::OwnedFd, name: &str) -> FileType {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// The mark behind the name of what is not a file, as `ls -F` sets it: so marked, no name is one of
/// the bus's.
fn mark_of(kind: FileType) -> Option<char> {
    match kind {
        FileType::Symlink => Some('@'),
        FileType::Fifo => Some('|'),
        FileType::Socket => Some('='),
        FileType::CharacterDevice | FileType::BlockDevice => Some('#'),
        _ => None,
    }
}

/// Whether a folder (with its `/`) can hold a key greater than `after`.
fn may_hold_after(folder: &str, after: &str) -> bool {
    folder > after || after.starts_with(folder)
}
