//! One inotify watch as hints: of a directory's `staging/`, or of the doorbell beside a SQLite file.
//!
//! The content of the events is ignored, except whose files they name: a worker's own commits are no news to it. An
//! overflow of the kernel's queue is a hint like any other.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use crate::clock::Fut;
use crate::store::{Hints, NoHints};

/// What becomes visible by a rename out of a folder. Where renames cannot refuse to replace, a link and an unlink replace
/// the rename. So there are no recursive watches and no race with new folders.
pub const PUBLISHES: WatchFlags = WatchFlags::MOVED_FROM.union(WatchFlags::DELETE).union(WatchFlags::ONLYDIR);

/// How many bytes of events are read from the kernel at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Hints of changes in one folder or file.
pub struct InotifyHints {
    /// The inotify queue, which becomes readable like a pipe.
    queue: Receiver,
    /// The prefix of the names of this process's own files.
    own: Option<String>,
}

impl InotifyHints {
    /// Watches a path for these events; needs a runtime with I/O. The error says why there can be no watch.
    pub fn watch(path: &Path, events: WatchFlags, own: Option<String>) -> Result<Self, NoHints> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| {
            NoHints(format!("no inotify instance left: {errno} (raise fs.inotify.max_user_instances)"))
        })?;
        inotify::add_watch(&queue, path, events)
            .map_err(|errno| NoHints(format!("cannot watch {}: {errno}", path.display())))?;
        let queue = Receiver::from_owned_fd_unchecked(queue)
            .map_err(|error| NoHints(format!("cannot wait for inotify: {error}")))?;
        Ok(Self { queue, own })
    }

    /// Reads all queued events. Returns whether any is about something else than this process's
    /// drafts.
    fn drain(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.queue, &mut buffer);
        let mut found = false;
        loop {
            match reader.next() {
                Ok(event) => found |= self.is_news(event.file_name().map(std::ffi::CStr::to_bytes)),
                Err(Errno::INTR) => {}
                Err(_) => return found,
            }
        }
    }

    /// Whether an event about this name is news; an overflow has no name.
    fn is_news(&self, name: Option<&[u8]>) -> bool {
        match (&self.own, name) {
            (Some(own), Some(name)) => !name.starts_with(own.as_bytes()),
            _ => true,
        }
    }
}

impl Hints for InotifyHints {
    fn next(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            while self.queue.readable().await.is_ok() {
                let found = self.drain();
                // Only its own read tells the runtime that the queue is empty. If an event has come
                // by now, one byte is too little for it, and the queue stays ready (inotify(7)).
                let _ = self.queue.try_read(&mut [0; 1]);
                if found {
                    return;
                }
            }
            // The runtime is shutting down; there will be no more hints.
            std::future::pending().await
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_changes_by_others_raise_a_hint() {
        let folder = tempfile::TempDir::new().unwrap();
        let hints = InotifyHints::watch(folder.path(), PUBLISHES, Some("00aa-".to_owned())).unwrap();
        let publish = |name: &str| {
            let staged = folder.path().join(name);
            std::fs::write(&staged, "").unwrap();
            std::fs::remove_file(staged).unwrap();
        };
        assert!(!hints.drain(), "nothing has happened");
        publish("00aa-1");
        publish("00aa-2");
        assert!(!hints.drain(), "its own drafts");
        publish("00bb-1");
        publish("00aa-3");
        assert!(hints.drain());
        assert!(!hints.drain(), "read once");
        assert!(hints.is_news(None), "an overflow");
        let mut hints = hints;
        publish("00bb-2");
        hints.next().await;
        publish("00bb-3");
        hints.next().await;
        let mut waiting = Box::pin(hints.next());
        assert!(waiting.as_mut().now_or_never().is_none(), "nothing more has happened");
        publish("00bb-4");
        waiting.await;
    }
}
