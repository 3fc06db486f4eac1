//! What the kernel tells of a folder and the folders below it: inotify(7), one watch for each folder.
//!
//! Writes are not asked for, only their ends: a file that is written for an hour causes no work.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

/// How many bytes of notices are read from the kernel at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// More notices than this are not kept: the folder is looked through instead.
const MOST: usize = 100_000;

const ASKED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::OPEN)
    .union(WatchFlags::CLOSE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// What has happened; paths are below the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A file was made, or linked.
    Made(PathBuf),
    /// A file was opened.
    Opened(PathBuf),
    /// A file was closed by a program that could only read it.
    Read(PathBuf),
    /// A file was closed by a program that could write it.
    Closed(PathBuf),
    /// A file was moved in; the number is that of [`Notice::MovedAway`], if it came from here.
    MovedIn(PathBuf, u32),
    /// A file was moved away.
    MovedAway(PathBuf, u32),
    /// A file's times or modes were set.
    Touched(PathBuf),
    /// A file was deleted.
    Gone(PathBuf),
    /// A folder was made, or moved in: it is to be looked through.
    FolderCame(PathBuf),
    /// A folder was moved away.
    FolderGone(PathBuf),
    /// The folder itself was deleted, moved or unmounted.
    Ended,
    /// Notices were lost.
    Lost,
}

/// The watches. A thread that looks through the folder adds them.
#[derive(Clone)]
pub struct Watches {
    queue: Arc<Receiver>,
    folders: Arc<Mutex<HashMap<i32, PathBuf>>>,
}

impl Watches {
    /// Watches a folder from now on: what happens to its files before it is listed is told, too.
    ///
    /// # Errors
    /// Why not. That the folder is gone is none.
    pub fn add(&self, folder: &Path, below: &Path) -> Result<(), String> {
        let mut folders = self.folders();
        match inotify::add_watch(&*self.queue, folder, ASKED) {
            Ok(watch) => {
                folders.insert(watch, below.to_owned());
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
            Err(Errno::NOSPC) => Err("no inotify watch left (raise fs.inotify.max_user_watches)".to_owned()),
            Err(errno) => Err(format!("cannot watch {}: {errno}", folder.display())),
        }
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the watches of a folder that was moved away, and of those below it.
    fn remove_below(&self, folder: &Path) {
        let mut folders = self.folders();
        let below: Vec<i32> = folders.iter().filter(|(_, path)| path.starts_with(folder)).map(|(id, _)| *id).collect();
        for watch in below {
            folders.remove(&watch);
            // One that is gone already is no harm.
            let _ = inotify::remove_watch(&*self.queue, watch);
        }
    }
}

/// The notices of one folder, and of those below it that were added.
pub struct Notices {
    watches: Watches,
}

impl Notices {
    /// Makes the queue; needs a runtime with I/O.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn new() -> Result<Self, String> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| format!("no inotify instance left: {errno} (raise fs.inotify.max_user_instances)"))?;
        let queue =
            Receiver::from_owned_fd_unchecked(queue).map_err(|error| format!("cannot wait for inotify: {error}"))?;
        Ok(Self { watches: Watches { queue: Arc::new(queue), folders: Arc::default() } })
    }

    /// The watches, to add more.
    pub fn watches(&self) -> Watches {
        self.watches.clone()
    }

    /// Completes once there is a notice.
    pub async fn ready(&self) {
        if self.watches.queue.readable().await.is_err() {
            // The runtime is shutting down.
            std::future::pending::<()>().await;
        }
    }

    /// The notices that have come by now, in their order.
    pub fn take(&self) -> Vec<Notice> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&*self.watches.queue, &mut buffer);
        let mut notices = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    notices.extend(self.notice(event.wd(), event.events(), name, event.cookie()));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
            if notices.len() > MOST {
                notices.clear();
                notices.push(Notice::Lost);
            }
        }
        // Only its own read tells the runtime that the queue is empty (see `store/inotify.rs`).
        let _ = self.watches.queue.try_read(&mut [0; 1]);
        notices
    }

    fn notice(&self, watch: i32, events: ReadFlags, name: Option<&OsStr>, cookie: u32) -> Option<Notice> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Notice::Lost);
        }
        let folder = if events.contains(ReadFlags::IGNORED) {
            self.watches.folders().remove(&watch)
        } else {
            self.watches.folders().get(&watch).cloned()
        };
        // The watch has ended: of a folder that was moved away.
        let folder = folder?;
        let ends = ReadFlags::IGNORED | ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
        if events.intersects(ends) {
            return folder.as_os_str().is_empty().then_some(Notice::Ended);
        }
        let path = folder.join(name?);
        if events.contains(ReadFlags::ISDIR) {
            let came = ReadFlags::CREATE | ReadFlags::MOVED_TO;
            if events.intersects(ReadFlags::MOVED_FROM) {
                self.watches.remove_below(&path);
                return Some(Notice::FolderGone(path));
            }
            return events.intersects(came).then_some(Notice::FolderCame(path));
        }
        match events {
            _ if events.contains(ReadFlags::CLOSE_WRITE) => Some(Notice::Closed(path)),
            _ if events.contains(ReadFlags::MOVED_TO) => Some(Notice::MovedIn(path, cookie)),
            _ if events.contains(ReadFlags::MOVED_FROM) => Some(Notice::MovedAway(path, cookie)),
            _ if events.contains(ReadFlags::OPEN) => Some(Notice::Opened(path)),
            _ if events.contains(ReadFlags::CLOSE_NOWRITE) => Some(Notice::Read(path)),
            _ if events.contains(ReadFlags::CREATE) => Some(Notice::Made(path)),
            _ if events.contains(ReadFlags::DELETE) => Some(Notice::Gone(path)),
            _ if events.contains(ReadFlags::ATTRIB) => Some(Notice::Touched(path)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_happens_to_files_and_folders_is_told_in_order() {
        let folder = tempfile::TempDir::new().unwrap();
        let (root, elsewhere) = (folder.path().join("in"), folder.path().join("out"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let notices = Notices::new().unwrap();
        notices.watches().add(&root, Path::new("")).unwrap();
        assert_eq!(notices.take(), []);
        let path = |name: &str| PathBuf::from(name);
        fs::write(root.join("a"), "x").unwrap();
        notices.ready().await;
        let written = |name: &str| [Notice::Made(path(name)), Notice::Opened(path(name)), Notice::Closed(path(name))];
        assert_eq!(notices.take(), written("a"));
        drop(fs::File::open(root.join("a")).unwrap());
        assert_eq!(notices.take(), [Notice::Opened(path("a")), Notice::Read(path("a"))]);
        fs::rename(root.join("a"), root.join("b")).unwrap();
        fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(root.join("b")).unwrap();
        let told = notices.take();
        let [Notice::MovedAway(from, one), Notice::MovedIn(to, other), rest @ ..] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((from, to, one), (&path("a"), &path("b"), other));
        assert_eq!(rest, [Notice::Touched(path("b")), Notice::Gone(path("b"))]);
        fs::create_dir(root.join("sub")).unwrap();
        notices.watches().add(&root.join("sub"), Path::new("sub")).unwrap();
        fs::write(root.join("sub/c"), "").unwrap();
        fs::rename(root.join("sub"), elsewhere.join("sub")).unwrap();
        fs::write(elsewhere.join("sub/d"), "").unwrap();
        let told = notices.take();
        assert_eq!(told[0], Notice::FolderCame(path("sub")));
        assert_eq!(told[1..4], written("sub/c"));
        assert_eq!(told[4..], [Notice::FolderGone(path("sub"))], "and not what happens elsewhere");
        fs::remove_dir(&root).unwrap();
        assert!(notices.take().contains(&Notice::Ended));
        notices.watches().add(&root, Path::new("")).unwrap();
    }
}
