//! A handler that runs: its process group, its output, and its end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::signal::unix;

use super::Outcome;
use super::guard::Entry;
use super::output::{Tail, Tap};
use crate::clock::Clock;

/// How long output is still waited for after a handler's end, while a child that it left behind holds its pipes.
const LINGER: Duration = Duration::from_millis(200);

/// The children that this house has started and waits for itself.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child is waited for by whoever started it.
pub(super) fn adopt(child: &Child) {
    own().extend(i32::try_from(child.id()).ok());
}

/// It was waited for: the number may be another's from now on.
pub(super) fn disown(child: &Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        own().remove(&id);
    }
}

/// As process 1 of a container: waits for whatever handlers leave behind, which becomes this process's child when its
/// own parent ends. Never completes.
pub async fn reap_inherited() {
    let Ok(mut children) = unix::signal(unix::SignalKind::child()) else { return std::future::pending().await };
    loop {
        let listed = std::fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
        let inherited = listed.split_whitespace().filter_map(|id| id.parse().ok()).filter(|id| !own().contains(id));
        for child in inherited.filter_map(Pid::from_raw).collect::<Vec<_>>() {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // One that runs still says so when it ends.
            let _ = rustix::process::waitid(WaitId::Pid(child), look);
        }
        children.recv().await;
    }
}

/// Children that were killed and have still to be reaped.
pub(super) type Strays = RefCell<Vec<Child>>;

/// Reaps those that have died since.
pub(super) fn reap(strays: &Strays) {
    strays.borrow_mut().retain_mut(|child| {
        let runs = matches!(child.try_wait(), Ok(None));
        if !runs {
            disown(child);
        }
        runs
    });
}

/// Why a run is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Limit,
    Stop,
}

/// Both outputs of a handler.
pub(super) struct Taps {
    pub(super) out: Option<Tap>,
    pub(super) err: Tap,
}

impl Taps {
    fn ended(&self) -> bool {
        self.err.ended() && self.out.as_ref().is_none_or(Tap::ended)
    }

    fn read_rest(&mut self) {
        self.err.read_rest();
        if let Some(out) = &mut self.out {
            out.read_rest();
        }
    }

    async fn drain(&mut self, clock: &dyn Clock) {
        match &mut self.out {
            Some(out) => _ = futures_util::future::join(self.err.drain(clock), out.drain(clock)).await,
            None => self.err.drain(clock).await,
        }
    }
}

/// A process that is not reaped yet, so that its number, which is its group's, is its own. Dropped before it has
/// ended it is killed, with its whole group.
pub(super) struct Leader<'a> {
    child: Option<Child>,
    group: Pid,
    entry: Option<Entry<'a>>,
    strays: &'a Strays,
}

impl<'a> Leader<'a> {
    pub(super) fn new(child: Child, group: Pid, entry: Entry<'a>, strays: &'a Strays) -> Self {
        adopt(&child);
        Self { child: Some(child), group, entry: Some(entry), strays }
    }

    /// Whether it has ended; it stays unreaped.
    fn ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error would say that it is not our child any more: no reason to wait.
        !matches!(rustix::process::waitid(WaitId::Pid(self.group), look), Ok(None))
    }

    /// Completes once it has ended. May be dropped and called again at any point.
    async fn end(&self, children: &mut unix::Signal) {
        while !self.ended() {
            children.recv().await;
        }
    }

    fn signal(&self, signal: Signal) {
        // The only error there is: everyone in the group has become someone else (set-user-ID).
        let _ = rustix::process::kill_process_group(self.group, signal);
    }

    fn reap(mut self) -> io::Result<ExitStatus> {
        // First off the list: the number is free as soon as it is reaped.
        self.entry = None;
        match self.child.take() {
            Some(mut child) => {
                let status = child.wait();
                disown(&child);
                status
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.signal(Signal::KILL);
            self.entry = None;
            self.strays.borrow_mut().push(child);
        }
    }
}

/// Sees a handler to its end, or ends it when `cut` completes. Says how it went and what it last wrote on stderr.
///
/// After a cut nothing of its process group remains. A handler that ends by itself may leave children behind, as one
/// that starts a daemon does; what they still write is passed on for 200 ms, then their pipes are closed.
///
/// # Errors
/// The process cannot be waited for; it has been killed.
pub(super) async fn see_through(
    leader: Leader<'_>,
    mut children: unix::Signal,
    mut taps: Taps,
    cut: impl Future<Output = Cut>,
    grace: Duration,
    clock: &dyn Clock,
) -> io::Result<(Outcome, Tail)> {
    let cut = tokio::select! { biased;
        () = leader.end(&mut children) => None,
        cut = cut => Some(cut),
        () = never_after(taps.drain(clock)) => None,
    };
    taps.read_rest();
    if cut.is_some() {
        end_group(&leader, &mut children, &mut taps, grace, clock).await;
    }
    let status = leader.reap()?;
    if !taps.ended() {
        linger(&mut taps, clock).await;
    }
    if let Some(out) = taps.out {
        out.close();
    }
    Ok((outcome(cut, status), taps.err.close()))
}

/// Completes `before`, then never: for what runs along in a `select!` and does not decide it.
async fn never_after<T>(before: impl Future<Output = ()>) -> T {
    before.await;
    std::future::pending().await
}

/// TERM; then, once all have let go of the outputs or the grace is over, KILL for whoever is left.
async fn end_group(
    leader: &Leader<'_>,
    children: &mut unix::Signal,
    taps: &mut Taps,
    grace: Duration,
    clock: &dyn Clock,
) {
    leader.signal(Signal::TERM);
    // One that is stopped, as by a terminal that it must not read, hears nothing before it goes on.
    leader.signal(Signal::CONT);
    tokio::select! { biased;
        _ = futures_util::future::join(leader.end(children), taps.drain(clock)) => {}
        () = clock.sleep_until(clock.elapsed() + grace) => {}
    }
    leader.signal(Signal::KILL);
    tokio::select! { biased;
        () = leader.end(children) => {}
        () = never_after(taps.drain(clock)) => {}
    }
}

async fn linger(taps: &mut Taps, clock: &dyn Clock) {
    tokio::select! { biased;
        () = clock.sleep_until(clock.elapsed() + LINGER) => {}
        () = taps.drain(clock) => {}
    }
}

fn outcome(cut: Option<Cut>, status: ExitStatus) -> Outcome {
    match (cut, status.code()) {
        (Some(Cut::Limit), _) => Outcome::TimedOut,
        (Some(Cut::Stop), _) => Outcome::Stopped,
        (None, Some(code)) => Outcome::Exit(code),
        (None, None) => Outcome::Signal(status.signal().unwrap_or_default()),
    }
}
