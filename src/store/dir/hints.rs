//! One inotify watch, on `staging/`: every publish is a rename out of it.
//!
//! So there are no recursive watches and no race with new folders. What the events say is ignored: an overflow of
//! the kernel's queue is a hint like any other.

use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

use crate::clock::Fut;
use crate::store::Hints;

/// Hints of publishes into one bus.
pub struct InotifyHints {
    /// The inotify queue, which reads like a pipe.
    queue: Receiver,
}

impl InotifyHints {
    /// Hints of what this machine publishes on the bus at `bus`, whatever kind of mount it lies on; needs a runtime
    /// with I/O. The error says why there can be no watch.
    pub fn of(bus: &Path) -> Result<Self, String> {
        Self::watch(&bus.join(super::STAGING))
    }

    /// Watches `staging`; needs a runtime with I/O. The error says why there can be no watch.
    pub(super) fn watch(staging: &Path) -> Result<Self, String> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| format!("no inotify instance left: {errno} (raise fs.inotify.max_user_instances)"))?;
        // A link and an unlink stand for the rename where renames cannot refuse to replace.
        let events = WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, staging, events)
            .map_err(|errno| format!("cannot watch {}: {errno}", staging.display()))?;
        let queue =
            Receiver::from_owned_fd_unchecked(queue).map_err(|error| format!("cannot wait for inotify: {error}"))?;
        Ok(Self { queue })
    }

    /// Reads all that is queued; whether there was something.
    fn drain(&self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        let mut found = false;
        while self.queue.try_read(&mut buffer).is_ok_and(|read| read > 0) {
            found = true;
        }
        found
    }
}

impl Hints for InotifyHints {
    fn next(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            while self.queue.readable().await.is_ok() {
                if self.drain() {
                    return;
                }
            }
            // The runtime is shutting down; there will be no more hints.
            std::future::pending().await
        })
    }
}
