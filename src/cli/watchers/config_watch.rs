//! The config file of a watch that reloads it by itself.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Clock;

/// How often the file is looked at. A look costs nothing beside what goes on, and sees what a rename, a link or a network
/// file system has changed as well.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one content of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// Looks for changes of a file.
pub(in crate::cli) struct ConfigWatch {
    path: PathBuf,
    clock: Rc<dyn Clock>,
    seen: Option<Seen>,
}

impl ConfigWatch {
    /// Looks for changes from now on.
    pub(in crate::cli) fn new(path: PathBuf, clock: &Rc<dyn Clock>) -> Self {
        let seen = look(&path);
        Self { path, clock: Rc::clone(clock), seen }
    }

    /// Completes when the file has another content, or is gone, and was so for two looks: who writes it may be in the
    /// middle.
    pub(in crate::cli) async fn changed(&mut self) {
        let mut last = None;
        loop {
            self.clock.sleep_until(self.clock.elapsed() + LOOK).await;
            let now = look(&self.path);
            if now != self.seen && last == Some(now) {
                self.seen = now;
                return;
            }
            last = Some(now);
        }
    }
}

fn look(path: &PathBuf) -> Option<Seen> {
    let found = std::fs::metadata(path).ok()?;
    Some(Seen { inode: found.ino(), len: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
}
