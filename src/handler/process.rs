//! A running handler: its process group, its output, and its end.

use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::signal::unix;

use super::Outcome;
use super::children::{Unreaped, adopt, disown};
use super::orphan_reaper::Registration;
use super::output::{OutputPipe, OutputTails};
use crate::clock::Clock;

/// How long to wait for output after a handler's end, while a child that it left behind holds its
/// pipes.
const LINGER: Duration = Duration::from_millis(200);

/// Why a run is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillReason {
    Limit,
    Stop,
}

/// Both outputs of a handler.
pub(super) struct OutputPipes {
    pub(super) out: Option<OutputPipe>,
    pub(super) err: OutputPipe,
}

impl OutputPipes {
    fn ended(&self) -> bool {
        self.err.ended() && self.out.as_ref().is_none_or(OutputPipe::ended)
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

/// A process that is not reaped yet, so that no other process has its number, which is also its
/// group's. If it is dropped before it has ended, it is killed with its whole group.
pub(super) struct ProcessGroup<'a> {
    child: Option<Child>,
    group: Pid,
    entry: Option<Registration<'a>>,
    unreaped: &'a Unreaped,
}

impl<'a> ProcessGroup<'a> {
    pub(super) fn new(child: Child, group: Pid, entry: Registration<'a>, unreaped: &'a Unreaped) -> Self {
        adopt(&child);
        Self { child: Some(child), group, entry: Some(entry), unreaped }
    }

    /// Whether it has ended; it stays unreaped.
    fn ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is not a child of this process any more: no reason to wait.
        !matches!(rustix::process::waitid(WaitId::Pid(self.group), look), Ok(None))
    }

    /// Completes once it has ended. May be dropped and called again at any point.
    async fn end(&self, children: &mut unix::Signal) {
        while !self.ended() {
            children.recv().await;
        }
    }

    fn signal(&self, signal: Signal) {
        // The only possible error: every process in the group now runs as another user
        // (set-user-ID).
        let _ = rustix::process::kill_process_group(self.group, signal);
    }

    fn reap(mut self) -> io::Result<ExitStatus> {
        // The entry goes first: the number is free as soon as the child is reaped.
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

impl Drop for ProcessGroup<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.signal(Signal::KILL);
            self.entry = None;
            self.unreaped.borrow_mut().push(child);
        }
    }
}

/// Waits for a handler to end, or ends it when `kill` completes. Returns how it ended and the end of
/// its stderr.
///
/// After a kill nothing of its process group remains. A handler that ends by itself may leave
/// children behind, as one that starts a daemon does; their output is passed on for 200 ms, then
/// their pipes are closed.
///
/// # Errors
/// The process cannot be waited for; it has been killed.
pub(super) async fn see_through(
    process_group: ProcessGroup<'_>,
    mut children: unix::Signal,
    mut pipes: OutputPipes,
    kill: impl Future<Output = KillReason>,
    grace: Duration,
    clock: &dyn Clock,
) -> io::Result<(Outcome, OutputTails)> {
    let kill_reason = tokio::select! { biased;
        () = process_group.end(&mut children) => None,
        reason = kill => Some(reason),
        () = never_after(pipes.drain(clock)) => None,
    };
    pipes.read_rest();
    if kill_reason.is_some() {
        end_group(&process_group, &mut children, &mut pipes, grace, clock).await;
    }
    let status = process_group.reap()?;
    if !pipes.ended() {
        linger(&mut pipes, clock).await;
    }
    let out = pipes.out.map(OutputPipe::close).unwrap_or_default();
    Ok((outcome(kill_reason, status), OutputTails { out, err: pipes.err.close() }))
}

/// Completes `before`, then never completes: for a future that runs along in a `select!` and does
/// not decide it.
async fn never_after<T>(before: impl Future<Output = ()>) -> T {
    before.await;
    std::future::pending().await
}

/// Sends TERM; then, once all outputs are closed and the handler has ended, or the grace is over,
/// KILL for the processes that are left.
async fn end_group(
    process_group: &ProcessGroup<'_>,
    children: &mut unix::Signal,
    pipes: &mut OutputPipes,
    grace: Duration,
    clock: &dyn Clock,
) {
    process_group.signal(Signal::TERM);
    // A stopped process, as by a terminal that it must not read, gets no signal before it goes on.
    process_group.signal(Signal::CONT);
    tokio::select! { biased;
        _ = futures_util::future::join(process_group.end(children), pipes.drain(clock)) => {}
        () = clock.sleep_until(clock.elapsed() + grace) => {}
    }
    process_group.signal(Signal::KILL);
    tokio::select! { biased;
        () = process_group.end(children) => {}
        () = never_after(pipes.drain(clock)) => {}
    }
}

async fn linger(pipes: &mut OutputPipes, clock: &dyn Clock) {
    tokio::select! { biased;
        () = clock.sleep_until(clock.elapsed() + LINGER) => {}
        () = pipes.drain(clock) => {}
    }
}

fn outcome(kill_reason: Option<KillReason>, status: ExitStatus) -> Outcome {
    match (kill_reason, status.code()) {
        (Some(KillReason::Limit), _) => Outcome::TimedOut,
        (Some(KillReason::Stop), _) => Outcome::Stopped,
        (None, Some(code)) => Outcome::Exit(code),
        (None, None) => Outcome::Signal(status.signal().unwrap_or_default()),
    }
}
