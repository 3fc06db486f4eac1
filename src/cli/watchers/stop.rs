//! SIGTERM and SIGINT: the first lets what runs end, the second ends it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::group::worker::Stop;

/// Turns signals into stop levels, for as long as the future is polled.
pub(in crate::cli) async fn on_signals(stop: watch::Sender<Stop>) -> Result<(), Failure> {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    for level in [Stop::Starts, Stop::Handlers] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if level == Stop::Starts && output::notes_on_terminal() {
            output::note("stopping: what runs may end; once more ends it at once");
        }
        stop.send_replace(level);
    }
    std::future::pending().await
}
