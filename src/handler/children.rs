//! The children of this process: those that evbus waits for, and those that it inherits.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::signal::unix;

/// The children that evbus has started and waits for itself.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a child for which the code that started it waits.
pub(super) fn adopt(child: &Child) {
    own().extend(i32::try_from(child.id()).ok());
}

/// The child was waited for: from now on its number may belong to another process.
pub(super) fn disown(child: &Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        own().remove(&id);
    }
}

/// As process 1 of a container, waits for the processes that handlers leave behind, each of which
/// becomes a child of this process when its own parent ends. Never completes.
pub async fn reap_inherited() {
    let Ok(mut children) = unix::signal(unix::SignalKind::child()) else { return std::future::pending().await };
    loop {
        let listed = std::fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
        let inherited = listed.split_whitespace().filter_map(|id| id.parse().ok()).filter(|id| !own().contains(id));
        for child in inherited.filter_map(Pid::from_raw).collect::<Vec<_>>() {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // A child that still runs sends a signal when it ends.
            let _ = rustix::process::waitid(WaitId::Pid(child), look);
        }
        children.recv().await;
    }
}

/// Children that were killed and have still to be reaped.
pub(super) type Unreaped = RefCell<Vec<Child>>;

/// Reaps those that have died since.
pub(super) fn reap(unreaped: &Unreaped) {
    unreaped.borrow_mut().retain_mut(|child| {
        let runs = matches!(child.try_wait(), Ok(None));
        if !runs {
            disown(child);
        }
        runs
    });
}
