//! One inotify watch, on `staging/`: every publish is a rename out of it.
//!
//! So there are no recursive watches and no race with new folders. The content of the events is
//! ignored, except whose staged files they name: a worker's own commits are no news to it. An overflow of
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
    /// The prefix of the names of this process's staged files.
    own: Option<String>,
}

impl InotifyHints {
    /// Hints of what this machine publishes on the bus at `bus`, on any kind of mount; needs a
    /// runtime with I/O. The error says why there can be no watch.
    pub fn of(bus: &Path) -> Result<Self, String> {
        Self::watch(&bus.join(super::STAGING), None)
    }

    /// Watches `staging`; needs a runtime with I/O. The error says why there can be no watch.
    pub(super) fn watch(staging: &Path, own: Option<String>) -> Result<Self, String> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| format!("no inotify instance left: {errno} (raise fs.inotify.max_user_instances)"))?;
        // Where renames cannot refuse to replace, a link and an unlink replace the rename.
        let events = WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, staging, events)
            .map_err(|errno| format!("cannot watch {}: {errno}", staging.display()))?;
        let queue =
            Receiver::from_owned_fd_unchecked(queue).map_err(|error| format!("cannot wait for inotify: {error}"))?;
        Ok(Self { queue, own })
    }

    /// Reads all queued events. Returns whether there were any.
    fn drain(&self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        let mut found = false;
        while let Ok(read @ 1..) = self.queue.try_read(&mut buffer) {
            found |= has_news(&buffer[..read], self.own.as_deref());
        }
        found
    }
}

/// Whether any of these events (inotify(7)) is about something else than this process's staged files.
fn has_news(mut events: &[u8], own: Option<&str>) -> bool {
    const HEAD: usize = 16;
    let Some(own) = own else { return true };
    while events.len() >= HEAD {
        let mut len = [0; 4];
        len.copy_from_slice(&events[12..HEAD]);
        let end = HEAD.saturating_add(u32::from_ne_bytes(len) as usize).min(events.len());
        // An overflow has no name.
        if !events[HEAD..end].starts_with(own.as_bytes()) {
            return true;
        }
        events = &events[end..];
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend(u32::try_from(name.len().next_multiple_of(16)).unwrap().to_ne_bytes());
        bytes.extend(name.as_bytes());
        bytes.resize(16 + name.len().next_multiple_of(16), 0);
        bytes
    }

    #[test]
    fn only_changes_by_others_raise_a_hint() {
        let (mine, theirs, overflow) = (event("00aa-1"), event("00bb-1"), event(""));
        assert!(!has_news(&mine, Some("00aa-")));
        assert!(!has_news(&[mine.clone(), mine.clone()].concat(), Some("00aa-")));
        assert!(has_news(&[mine.clone(), theirs].concat(), Some("00aa-")));
        assert!(has_news(&[mine.clone(), overflow].concat(), Some("00aa-")));
        assert!(has_news(&mine, None));
    }
}
