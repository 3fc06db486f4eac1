//! The directory store: a key is a file's path below the bus.
//!
//! - Objects are written in `staging/`, flushed, renamed into place without replacing, and their folder is flushed.
//! - Registers need no locks: version *n* of `frontier` is the file `frontier.<n>`, see [`register`].
//! - Hints come from one inotify watch on `staging/`, because every publish is a rename out of it.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::inotify::{InotifyHints, PUBLISHES};
use super::{
    ErrorKind, Gate, Hints, Item, LARGEST_BYTES, List, Object, Page, Profile, Put, Store, StoreError, StoreResult,
    Swap, Version,
};
use crate::clock::{Clock, Fut};
use crate::store::{ErrorDetail, NoHints, Obstruction};
use crate::threads;

mod folders;
mod list;
mod persist;
mod put;
mod read;
mod register;
mod reserve;

use folders::Folders;
use put::Staging;

/// Where files are written before they are published.
pub const STAGING: &str = "staging";

/// A listing of fewer entries than this is over within a millisecond.
const SHORT_LISTING: usize = 1_000;

/// How durable a write is before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the disk: survives a power cut.
    #[default]
    Full,
    /// In the page cache: survives the process, not a power cut.
    None,
}

/// Whether operations run on the caller's thread or on the runtime's blocking threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// At once, on the caller's thread: a single emit starts no threads.
    Inline,
    /// Work that may wait for the disk goes to another thread, so that a worker goes on meanwhile.
    Threaded,
}

/// How to open a directory store.
#[derive(Debug, Clone, Copy)]
pub struct DirOptions {
    /// See [`Durability`].
    pub durability: Durability,
    /// See [`Execution`].
    pub execution: Execution,
    /// Whether the group may write files and folders, whatever the umask.
    pub group_writable: bool,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self { durability: Durability::Full, execution: Execution::Inline, group_writable: false }
    }
}

/// The directory store. Cheap to clone.
#[derive(Clone)]
pub struct DirStore {
    shared: Arc<Shared>,
    execution: Execution,
}

/// What all operations of one process on one bus share.
struct Shared {
    path: PathBuf,
    /// The owner of the bus, to whom root gives the files that it makes; none if there is no need.
    owner: Option<FileOwner>,
    root: OwnedFd,
    folders: Folders,
    staging: Staging,
    durability: Durability,
    /// The newest file's own time; 0 before the first.
    last_write_micros: AtomicI64,
    /// The prefixes whose last listing was long.
    long_listings: Mutex<HashSet<String>>,
}

/// The user, the group and the modes of files that root makes on another user's bus: one
/// `sudo evbus emit` must not lock other users out.
#[derive(Debug, Clone, Copy)]
struct FileOwner {
    user: Uid,
    group: Gid,
    mode: u32,
}

impl FileOwner {
    fn of(bus: &OwnedFd) -> Option<Self> {
        let stat = rustix::fs::fstat(bus).ok().filter(|stat| stat.st_uid != 0)?;
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::process::geteuid().is_root().then_some(Self { user, group, mode: stat.st_mode })
    }

    /// Gives a file or a folder to the owner; `most` are the mode bits that it may have.
    fn chown(self, to: &OwnedFd, most: u32) -> rustix::io::Result<()> {
        rustix::fs::fchown(to, Some(self.user), Some(self.group))?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(self.mode & most))
    }
}

impl DirStore {
    /// Opens the folder of an existing bus.
    pub fn open(path: &Path, options: DirOptions, clock: &dyn Clock) -> StoreResult<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => StoreError::new(ErrorKind::NoBus, format!("no bus at {} (is it mounted?)", path.display()))
                .with_detail(ErrorDetail::NoBus { address: path.display().to_string() }),
            errno => StoreError::system("cannot open", path.display(), errno),
        })?;
        let owner = FileOwner::of(&root);
        let shared = Shared {
            path: path.to_owned(),
            owner,
            root,
            folders: Folders::new(path.to_owned(), options.group_writable, owner),
            staging: Staging::new(clock.random(), options.group_writable),
            durability: options.durability,
            last_write_micros: AtomicI64::new(0),
            long_listings: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), execution: options.execution })
    }

    /// Makes the folder of a new bus, and those above it, and opens it.
    pub fn create(path: &Path, options: DirOptions, clock: &dyn Clock) -> StoreResult<Self> {
        std::fs::create_dir_all(path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            StoreError::system("cannot create", path.display(), errno)
        })?;
        let store = Self::open(path, options, clock)?;
        if options.group_writable {
            rustix::fs::fchmod(&store.shared.root, folders::SHARED_MODE)
                .map_err(|errno| StoreError::system("cannot share", path.display(), errno))?;
        }
        if options.durability == Durability::Full {
            store.shared.persist_parents_of_root()?;
        }
        store.shared.folders.open(&store.shared.root, STAGING)?;
        store.shared.fill_reserve();
        Ok(store)
    }

    /// Gives the bus's folder, and what will be made in it, to a Unix group.
    pub fn give_to_group(&self, group: u32) -> StoreResult<()> {
        let group = Some(rustix::fs::Gid::from_raw(group));
        for folder in [".", STAGING] {
            let done = rustix::fs::chownat(&self.shared.root, folder, None, group, AtFlags::empty())
                .and_then(|()| rustix::fs::chmodat(&self.shared.root, folder, folders::SHARED_MODE, AtFlags::empty()));
            done.map_err(|errno| StoreError::system("cannot share", self.shared.shown(folder), errno))?;
        }
        Ok(())
    }

    /// The bus's folder.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `work` on the store where [`Execution`] says.
    fn run<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> StoreResult<T> + Send + 'static,
    ) -> Fut<'a, StoreResult<T>> {
        let shared = Arc::clone(&self.shared);
        match self.execution {
            Execution::Inline => {
                let answer = work(&shared);
                Box::pin(std::future::ready(answer))
            }
            Execution::Threaded => Box::pin(async move {
                threads::run(move || work(&shared)).await.unwrap_or_else(|| {
                    Err(StoreError::new(ErrorKind::Unavailable, "the thread that writes to the bus has ended"))
                })
            }),
        }
    }
}

/// Opens a path below the bus's folder, and follows no link on the way to it: a writer to the bus
/// must not make a worker of another user read files that the writer may not read.
fn open_below(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    create_below(root, path, flags, Mode::empty())
}

fn create_below(root: &OwnedFd, path: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    loop {
        match rustix::fs::openat2(root, path, flags, mode, no_links) {
            // A folder was renamed meanwhile (openat2(2)).
            Err(Errno::AGAIN) => {}
            // The kernel or the container does not know the call: then at least the last part is no
            // link.
            Err(Errno::NOSYS | Errno::PERM) => return rustix::fs::openat(root, path, flags | OFlags::NOFOLLOW, mode),
            answer => return answer,
        }
    }
}

impl Shared {
    /// Flushes the folders above a new bus, as far as this user may.
    fn persist_parents_of_root(&self) -> StoreResult<()> {
        for folder in self.path.ancestors() {
            let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            match std::fs::File::open(name).and_then(|file| file.sync_all()) {
                Ok(()) => {}
                Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                    Errno::ACCESS | Errno::PERM => break,
                    // A read-only root (squashfs) or FUSE cannot flush a folder and needs none.
                    Errno::INVAL | Errno::NOTSUP => {}
                    errno => return Err(StoreError::system("cannot flush", name.display(), errno)),
                },
            }
        }
        Ok(())
    }

    /// Gives a new file to the bus's owner, if this process runs as another user.
    fn give_to_owner(&self, file: &OwnedFd, most: u32) -> rustix::io::Result<()> {
        self.owner.map_or(Ok(()), |owner| owner.chown(file, most))
    }

    /// Whether the last listing of a prefix read many entries.
    fn was_long(&self, prefix: &str) -> bool {
        self.long_listings.lock().unwrap_or_else(PoisonError::into_inner).contains(prefix)
    }

    /// Remembers how many entries a listing of a prefix has read.
    fn note_listing(&self, prefix: &str, entries: usize) {
        let mut long = self.long_listings.lock().unwrap_or_else(PoisonError::into_inner);
        if entries < SHORT_LISTING {
            long.remove(prefix);
        } else if !long.contains(prefix) {
            long.insert(prefix.to_owned());
        }
    }

    /// A key as a path for messages.
    fn shown(&self, key: &str) -> String {
        self.path.join(key).display().to_string()
    }

    /// The error of a system call that failed on `key`.
    fn failed(&self, doing: &str, key: &str, errno: Errno) -> StoreError {
        let error = StoreError::system(doing, self.shown(key), errno);
        match errno {
            Errno::ISDIR => error.with_detail(self.obstructed(Obstruction::Folder, key)),
            Errno::LOOP => error.with_detail(self.obstructed(Obstruction::SymbolicLink, key)),
            Errno::XDEV => error.with_detail(ErrorDetail::SeveralFileSystems),
            _ => error,
        }
    }

    /// The error if something else than a file of evbus's is at `key`.
    fn not_a_file(&self, key: &str) -> StoreError {
        StoreError::new(ErrorKind::Damaged, format!("{} is not a file", self.shown(key)))
            .with_detail(self.obstructed(Obstruction::Special, key))
    }

    fn obstructed(&self, by: Obstruction, key: &str) -> ErrorDetail {
        ErrorDetail::Obstructed { by, path: self.shown(key) }
    }

    /// Removes an object, or all versions of a register.
    fn delete(&self, key: &str) -> StoreResult<()> {
        match rustix::fs::unlinkat(&self.root, key, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => self.delete_register(key),
            Err(errno) => Err(self.failed("cannot delete", key, errno)),
        }
    }

    /// Removes many objects, then every folder that this emptied.
    fn delete_many(&self, keys: &[String]) -> StoreResult<()> {
        let mut folders = std::collections::BTreeSet::new();
        for key in keys {
            match rustix::fs::unlinkat(&self.root, key.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed("cannot delete", key, errno)),
            }
            let mut folder = key.as_str();
            while let Some((parent, _)) = folder.rsplit_once('/') {
                folders.insert(parent);
                folder = parent;
            }
        }
        // The deepest first. A folder that is not empty, or that is being written to, stays.
        for folder in folders.into_iter().rev().filter(|folder| folder.contains('/')) {
            self.folders.remove(&self.root, folder);
        }
        Ok(())
    }
}

impl Store for DirStore {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        match self.execution {
            Execution::Inline => Box::pin(std::future::ready(self.shared.put_new(key, bytes))),
            Execution::Threaded => {
                let (key, bytes) = (key.to_owned(), bytes.to_owned());
                self.run(move |shared| shared.put_new(&key, &bytes))
            }
        }
    }

    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        self.get_within(key, LARGEST_BYTES)
    }

    fn get_within<'a>(&'a self, key: &'a str, limit: usize) -> Fut<'a, StoreResult<Option<Object>>> {
        // A cached read is quicker than a change of threads.
        Box::pin(std::future::ready(self.shared.get(key, limit)))
    }

    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        // A short listing takes less time than a change of threads, and an event waits for it.
        if !self.shared.was_long(&list.prefix) {
            return Box::pin(std::future::ready(self.shared.list_after(&list)));
        }
        self.run(move |shared| shared.list_after(&list))
    }

    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        let (key, version, bytes) = (key.to_owned(), version.cloned(), bytes.to_owned());
        self.run(move |shared| shared.cas(&key, version.as_ref(), &bytes))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        let key = key.to_owned();
        self.run(move |shared| shared.delete(&key))
    }

    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        super::mount::inotify_serves(&self.shared.path)?;
        let own = Some(self.shared.staging.own());
        Ok(Box::new(InotifyHints::watch(&self.shared.path.join(STAGING), PUBLISHES, own)?))
    }

    fn profile(&self) -> Profile {
        Profile {
            lag: Duration::from_secs(2),
            // Each commit is two flushes: more commits would take a tenth of the machine from the
            // handlers.
            commit_gap: Duration::from_millis(10),
            hold: Duration::from_mins(1),
            poll: (Duration::from_millis(200), Duration::from_secs(5)),
            // The events of a batch share one wait for the disk.
            batch: 512,
            scans_folders: true,
        }
    }

    /// All are written before the first is published, so that a full disk leaves none of them.
    fn put_gated<'a>(&'a self, items: &'a [Item], gate: &'a dyn Gate) -> Fut<'a, StoreResult<Vec<Put>>> {
        Box::pin(async move {
            let owned = items.to_vec();
            if gate.is_always_open() {
                return self.run(move |shared| shared.put_open(&owned)).await;
            }
            let staged_files = self.run(move |shared| shared.write_many(&owned)).await?;
            let answers = self.shared.publish_in_turn(staged_files, items, gate).await;
            // Flushed also after an error: the caller will look for what was published before it,
            // and rely on that.
            let folders = put::folders_of(items);
            self.run(move |shared| shared.flush_folders(&folders)).await?;
            answers
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        let keys = keys.to_vec();
        self.run(move |shared| shared.delete_many(&keys))
    }

    fn persist<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        let key = key.to_owned();
        self.run(move |shared| shared.persist(std::slice::from_ref(&key)))
    }

    fn persist_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        let keys = keys.to_vec();
        self.run(move |shared| shared.persist(&keys))
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> Fut<'_, ()> {
        Box::pin(async move {
            // Inline it is done at once, and cannot fail.
            let done = self.run(move |_| {
                work();
                Ok(())
            });
            let _ = done.await;
        })
    }

    fn tidy<'a>(&'a self, age: Duration) -> Fut<'a, StoreResult<u64>> {
        self.run(move |shared| shared.tidy(age))
    }

    fn last_write_micros(&self) -> Option<i64> {
        Some(self.shared.last_write_micros.load(Ordering::Relaxed)).filter(|micros| *micros != 0)
    }
}
