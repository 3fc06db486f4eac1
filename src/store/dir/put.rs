//! Creating an object: write in `staging/`, flush, rename without replacing, flush the folder.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Durability, STAGING, Shared, create_below};
use crate::store::{ErrorKind, Gate, Item, Put, StoreError, StoreResult};

/// From this many files on, one `syncfs` is quicker than a flush of each.
const SYNCFS_FROM: usize = 4;

/// How often a folder may vanish between its opening and the rename.
const TRIES: usize = 10_000;

/// File systems whose `syncfs` is known to reach the disk: ext2/3/4, XFS, Btrfs, F2FS, tmpfs (statfs(2)). Elsewhere
/// (FUSE, CIFS, 9p) it may end at this machine's page cache while `fdatasync` goes on to the server.
const SYNCFS_REACHES_DISK: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// File mode of a bus shared by a Unix group.
const SHARED_FILE_MODE: Mode = Mode::from_raw_mode(0o664);

/// Names of files being written, unique among all processes and hosts of a bus.
pub(super) struct Staging {
    process: u64,
    count: AtomicU64,
    group_writable: bool,
}

impl Staging {
    pub(super) fn new(random: u64, group_writable: bool) -> Self {
        Self { process: random, count: AtomicU64::new(0), group_writable }
    }

    /// The prefix of the names of this process's staged files.
    pub(super) fn own(&self) -> String {
        format!("{:016x}-", self.process)
    }

    fn next(&self) -> String {
        format!("{STAGING}/{:016x}-{}", self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether evbus gave this name to a file in `staging/`.
fn is_staged(name: &str) -> bool {
    name.split_once('-').is_some_and(|(process, count)| {
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        digits && process.len() == 16 && process.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A file in `staging/`; removed when dropped, unless it was published.
pub(super) struct StagedFile {
    shared: Arc<Shared>,
    name: String,
    published: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.published {
            // A file that was left behind would only be removed later, by `tidy`.
            let _ = rustix::fs::unlinkat(&self.shared.root, self.name.as_str(), AtFlags::empty());
        }
    }
}

/// A key's folder and its last part.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// The folders of many keys, each once.
pub(super) fn folders_of(items: &[Item]) -> BTreeSet<String> {
    items.iter().map(|(key, _)| split(key).0.to_owned()).collect()
}

impl Shared {
    /// See [`crate::store::Store::put_new`]. An object that exists already is made durable too: its
    /// maker may have died before the flush, and a caller that finds the object to be its own will
    /// rely on it.
    pub(super) fn put_new(self: &Arc<Self>, key: &str, bytes: &[u8]) -> StoreResult<Put> {
        match self.with_reserve(key, || self.create(key, bytes)) {
            Ok(Put::Exists) => self.flush_folder(split(key).0).map(|()| Put::Exists),
            Err(error) if error.kind() == ErrorKind::NotDurable => {
                // The object must not be found: a second flush would succeed, because its pages are
                // marked clean.
                let _ = rustix::fs::unlinkat(&self.root, key, AtFlags::empty());
                Err(error)
            }
            answer => answer,
        }
    }

    /// Creates a file. If this call has created it, it is durable.
    pub(super) fn create(self: &Arc<Self>, key: &str, bytes: &[u8]) -> StoreResult<Put> {
        let (staged, file) = self.write(bytes)?;
        self.flush_file(&file, &staged.name)?;
        drop(file);
        let put = self.publish(staged, key)?;
        if put == Put::Created {
            self.flush_folder(split(key).0)?;
        }
        Ok(put)
    }

    /// Writes and flushes many staged files.
    pub(super) fn write_many(self: &Arc<Self>, items: &[Item]) -> StoreResult<Vec<StagedFile>> {
        let one_by_one = self.flushes_one_by_one(items.len());
        let mut staged_files = Vec::with_capacity(items.len());
        for (_, bytes) in items {
            let (staged, file) = self.write(bytes)?;
            if one_by_one {
                self.flush_file(&file, &staged.name)?;
            }
            staged_files.push(staged);
        }
        if !one_by_one && self.durability == Durability::Full {
            rustix::fs::syncfs(&self.root)
                .map_err(|errno| StoreError::system("cannot flush", self.shown(""), errno))?;
        }
        Ok(staged_files)
    }

    /// Puts many objects without a gate: all are written before the first is published. Flushed also after
    /// an error: the caller will look for what was published before it, and rely on that.
    pub(super) fn put_open(self: &Arc<Self>, items: &[Item]) -> StoreResult<Vec<Put>> {
        let staged_files = self.write_many(items)?;
        let answers = self.publish_all(staged_files, items);
        self.flush_folders(&folders_of(items))?;
        answers
    }

    /// Publishes staged files in their order, until one exists already.
    fn publish_all(&self, staged_files: Vec<StagedFile>, items: &[Item]) -> StoreResult<Vec<Put>> {
        let mut answers = Vec::with_capacity(items.len());
        for (staged, (key, _)) in staged_files.into_iter().zip(items) {
            answers.push(self.publish(staged, key)?);
            if answers.last() == Some(&Put::Exists) {
                break;
            }
        }
        Ok(answers)
    }

    /// Publishes staged files in their order, each if `gate` opens for it, until one exists already.
    pub(super) async fn publish_in_turn(
        &self,
        staged_files: Vec<StagedFile>,
        items: &[Item],
        gate: &dyn Gate,
    ) -> StoreResult<Vec<Put>> {
        let mut answers = Vec::with_capacity(items.len());
        for (at, (staged, (key, _))) in staged_files.into_iter().zip(items).enumerate() {
            if !gate.opens(at).await? {
                break;
            }
            answers.push(self.publish(staged, key)?);
            if answers.last() == Some(&Put::Exists) {
                break;
            }
        }
        Ok(answers)
    }

    /// Whether this many files are best flushed one by one.
    pub(super) fn flushes_one_by_one(&self, files: usize) -> bool {
        files < SYNCFS_FROM || !self.syncfs_reaches_disk()
    }

    #[allow(clippy::unnecessary_cast, reason = "the type of this field differs between machines")]
    fn syncfs_reaches_disk(&self) -> bool {
        rustix::fs::fstatfs(&self.root).is_ok_and(|stat| SYNCFS_REACHES_DISK.contains(&(stat.f_type as i64)))
    }

    /// See [`crate::store::Store::tidy`]. Ages are measured against a file written just now: only
    /// the store's clock counts.
    pub(super) fn tidy(self: &Arc<Self>, age: Duration) -> StoreResult<u64> {
        // On a full disk no file can be written to compare with; nothing is removed then.
        let Ok((staged, file)) = self.write(b"") else { return Ok(0) };
        let stat = |path: &str| rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW);
        let now = stat(&staged.name).map_or(0, |stat| stat.st_mtime);
        drop((staged, file));
        let mut old = Vec::new();
        self.each_entry(STAGING, |name, _| {
            if is_staged(name) {
                old.push(format!("{STAGING}/{name}"));
            }
        })?;
        let limit = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        old.retain(|path| stat(path).is_ok_and(|stat| now.saturating_sub(stat.st_mtime) > limit));
        let mut removed = 0;
        for path in old {
            removed += u64::from(rustix::fs::unlinkat(&self.root, path.as_str(), AtFlags::empty()).is_ok());
        }
        self.fill_reserve();
        Ok(removed)
    }

    #[allow(clippy::unnecessary_cast, reason = "the type of this field differs between machines")]
    fn write(self: &Arc<Self>, bytes: &[u8]) -> StoreResult<(StagedFile, OwnedFd)> {
        let name = self.staging.next();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let file = match create_below(&self.root, &name, flags, mode) {
            Err(Errno::NOENT) => {
                self.folders.forget(STAGING);
                self.folders.open(&self.root, STAGING)?;
                create_below(&self.root, &name, flags, mode)
            }
            answer => answer,
        };
        let file = file.map_err(|errno| self.failed("cannot write", &name, errno))?;
        let staged = StagedFile { shared: Arc::clone(self), name, published: false };
        self.give_to_owner(&file, 0o666).map_err(|errno| self.failed("cannot share", &staged.name, errno))?;
        if self.staging.group_writable {
            rustix::fs::fchmod(&file, SHARED_FILE_MODE)
                .map_err(|errno| self.failed("cannot share", &staged.name, errno))?;
        }
        write_all(&file, bytes).map_err(|errno| self.failed("cannot write", &staged.name, errno))?;
        if let Ok(stat) = rustix::fs::fstat(&file) {
            let micros =
                stat.st_mtime.saturating_mul(1_000_000).saturating_add_unsigned(stat.st_mtime_nsec as u64 / 1_000);
            self.last_write_micros.store(micros, Ordering::Relaxed);
        }
        Ok((staged, file))
    }

    /// After a failed flush the pages are marked clean: the file is given up, never flushed again.
    pub(super) fn flush_file(&self, file: &OwnedFd, name: &str) -> StoreResult<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        rustix::fs::fdatasync(file).map_err(|errno| self.failed("cannot flush", name, errno))
    }

    fn publish(&self, mut staged: StagedFile, key: &str) -> StoreResult<Put> {
        let (folder, name) = split(key);
        // Retention may remove an empty folder between its opening and the rename.
        for _ in 0..TRIES {
            let fd = self.folders.open(&self.root, folder)?;
            match rename_new(&self.root, &staged.name, &fd, name) {
                Ok(()) => {
                    staged.published = true;
                    return Ok(Put::Created);
                }
                Err(Errno::EXIST) => return Ok(Put::Exists),
                Err(Errno::NOENT) => self.folders.forget(folder),
                Err(errno) => return Err(self.failed("cannot publish", key, errno)),
            }
        }
        let what = format!("cannot publish {}: its folder vanishes, or {}", self.shown(key), self.shown(&staged.name));
        Err(StoreError::new(ErrorKind::Unavailable, what))
    }

    /// See [`Shared::flush_folder`].
    pub(super) fn flush_folders(&self, folders: &BTreeSet<String>) -> StoreResult<()> {
        folders.iter().try_for_each(|folder| self.flush_folder(folder))
    }

    /// Makes what was published durable. A failure is never [`ErrorKind::Unavailable`]: a caller
    /// that tried again would find what it had published, and rely on it.
    pub(super) fn flush_folder(&self, folder: &str) -> StoreResult<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        let flushed = self.folders.open(&self.root, folder).and_then(|fd| self.folders.flush(&self.root, folder, &fd));
        flushed.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => error.not_durable(),
            _ => error,
        })
    }
}

/// Renames without replacing; where the file system cannot (NFS), links under the new name first.
fn rename_new(root: &OwnedFd, from: &str, folder: &OwnedFd, to: &str) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(root, from, folder, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(root, from, folder, to),
        answer => answer,
    }
}

/// Publishes by a second name. On NFS a repeated request may get "exists" although its first try
/// succeeded: the link count tells.
fn link_new(root: &OwnedFd, from: &str, folder: &OwnedFd, to: &str) -> rustix::io::Result<()> {
    match rustix::fs::linkat(root, from, folder, to, AtFlags::empty()) {
        Err(Errno::EXIST) if rustix::fs::statat(root, from, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink < 2 => {
            return Err(Errno::EXIST);
        }
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // The file is published, whatever becomes of the first name: `tidy` removes it.
    let _ = rustix::fs::unlinkat(root, from, AtFlags::empty());
    Ok(())
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NFS sees when the answer to its first try was lost.
    #[test]
    fn only_a_link_to_the_same_file_counts_as_published() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = std::fs::File::open(folder.path()).map(OwnedFd::from).unwrap();
        let (staged, target) = (folder.path().join("staged"), folder.path().join("target"));
        std::fs::write(&staged, "mine").unwrap();
        std::fs::hard_link(&staged, &target).unwrap();
        assert_eq!(link_new(&root, "staged", &root, "target"), Ok(()));
        assert!(!staged.exists() && target.exists());
        std::fs::write(&staged, "another").unwrap();
        assert_eq!(link_new(&root, "staged", &root, "target"), Err(Errno::EXIST));
        assert_eq!(link_new(&root, "staged", &root, "fresh"), Ok(()));
        assert_eq!(std::fs::read(folder.path().join("fresh")).unwrap(), b"another");
    }
}
