//! Signals: SIGTERM, SIGINT, and SIGHUP from a closing terminal stop the process. After the first,
//! running handlers may finish; the second ends them. For a daemon SIGHUP means to reload the
//! config.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::ConfigWatch;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::group::worker::Stop;

/// What a SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum HangUp {
    /// Stop, as for SIGTERM.
    Stop,
    /// Read the config anew, and run what it says by then.
    Reload,
    /// Nothing: `nohup` has the signal ignored.
    Ignored,
}

impl HangUp {
    /// The meaning for this process. In a terminal the signal says that the terminal closes; only a
    /// daemon with a config reloads.
    pub(in crate::cli) fn of(in_config: bool) -> Self {
        if is_ignored(SignalKind::hangup()) {
            Self::Ignored
        } else if in_config && !has_terminal() {
            Self::Reload
        } else {
            Self::Stop
        }
    }
}

/// What makes a watch read its config anew.
pub(in crate::cli) struct Reloads<'a> {
    /// What a SIGHUP means.
    pub(in crate::cli) hang_up: HangUp,
    /// Looks for changes of the file.
    pub(in crate::cli) config: Option<ConfigWatch>,
    /// Told each time.
    pub(in crate::cli) asked: &'a Notify,
}

/// Turns signals into stop levels for as long as the future is polled; a SIGHUP is one of them.
pub(in crate::cli) async fn on_signals(stop: watch::Sender<Stop>) -> Result<(), Failure> {
    on_signals_or_reloads(stop, None).await
}

/// The same; until the first stop a SIGHUP, or a change of the config file, may be a reason to reload.
pub(in crate::cli) async fn on_signals_or_reloads(
    stop: watch::Sender<Stop>,
    mut reloads: Option<Reloads<'_>>,
) -> Result<(), Failure> {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    let hang_up = reloads.as_ref().map_or_else(|| HangUp::of(false), |reloads| reloads.hang_up);
    let mut hup = match hang_up {
        HangUp::Ignored => None,
        HangUp::Stop | HangUp::Reload => Some(signal(SignalKind::hangup()).map_err(cannot)?),
    };
    let mut level = Stop::No;
    loop {
        let is_reload = tokio::select! {
            _ = term.recv() => false,
            _ = int.recv() => false,
            () = received(&mut hup) => hang_up == HangUp::Reload,
            () = changed(&mut reloads) => true,
        };
        if is_reload {
            if let Some(reloads) = reloads.as_ref().filter(|_| level == Stop::No) {
                reloads.asked.notify_one();
            }
            continue;
        }
        level = if level == Stop::No { Stop::Starts } else { Stop::Handlers };
        if level == Stop::Starts && output::notes_on_terminal() {
            output::note("stopping: running handlers may finish; a second signal ends them at once");
        }
        stop.send_replace(level);
    }
}

/// Completes when the config file has changed; never, if that is not looked for.
async fn changed(reloads: &mut Option<Reloads<'_>>) {
    match reloads.as_mut().and_then(|reloads| reloads.config.as_mut()) {
        Some(config) => config.changed().await,
        None => std::future::pending().await,
    }
}

/// Completes with the next signal; never, if it is not listened for.
pub(in crate::cli) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process ignores a signal (proc_pid_status(5), SigIgn).
pub(in crate::cli) fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Whether this process has a terminal, which its handlers could read.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Makes handlers fail at once when they read the terminal, such as for a password. Otherwise
/// SIGTTIN would stop them without a message. Child processes inherit an ignored signal; no safe
/// call can ignore one, so a shell does, which then runs this program again.
pub(in crate::cli) fn ignore_terminal_stops() {
    use std::os::unix::process::CommandExt;
    // SIGTTIN and SIGTTOU have these numbers on every supported Linux (signal(7)).
    let stops = [SignalKind::from_raw(21), SignalKind::from_raw(22)];
    if !has_terminal() || stops.into_iter().all(is_ignored) || !std::path::Path::new("/proc/self/status").exists() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Without a shell, the process goes on as it is.
    let _ = std::process::Command::new("/bin/sh")
        .args(["-c", "trap '' TTIN TTOU; exec \"$0\" \"$@\""])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
}
