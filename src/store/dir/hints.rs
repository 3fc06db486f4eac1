//! One inotify watch, on `staging/`: every publish is a rename out of it.
//!
//! So there are no recursive watches and no race with new folders. The content of the events is
//! ignored, except whose staged files they name: a worker's own commits are no news to it. An overflow of
//! the kernel's queue is a hint like any other.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use crate::clock::Fut;
use crate::store::{Hints, NoHints};

/// How many bytes of events are read from the kernel at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Hints of publishes into one bus.
pub struct InotifyHints {
    /// The inotify queue, which becomes readable like a pipe.
    queue: Receiver,
    /// The prefix of the names of this process's drafts.
    own: Option<String>,
}

impl InotifyHints {
    /// Hints of what this machine publishes on the bus at `bus`, on any kind of mount; needs a
    /// runtime with I/O. The error says why there can be no watch.
    pub fn of(bus: &Path) -> Result<Self, NoHints> {
        Self::watch(&bus.join(super::STAGING), None)
    }

    /// Watches `staging`; needs a runtime with I/O. The error says why there can be no watch.
    pub(super) fn watch(staging: &Path, own: Option<String>) -> Result<Self, NoHints> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| {
            NoHints(format!("no inotify instance left: {errno} (raise fs.inotify.max_user_instances)"))
        })?;
        // Where renames cannot refuse to replace, a link and an unlink replace the rename.
        let events = WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, staging, events)
            .map_err(|errno| NoHints(format!("cannot watch {}: {errno}", staging.display())))?;
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
        let hints = InotifyHints::watch(folder.path(), Some("00aa-".to_owned())).unwrap();
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
