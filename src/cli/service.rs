//! Notifications to systemd: watchers started, process alive, process stopping (`sd_notify(3)`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Environment;
use crate::group::worker::Stop;

/// The service manager, if there is one.
pub(super) struct Service {
    socket: Option<UnixDatagram>,
    /// The interval in which the manager expects a sign of life.
    watchdog: Option<Duration>,
}

impl Service {
    /// Connects as the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub(super) fn new(environment: &Environment) -> Self {
        let number = |name: &str| environment.var(name)?.to_str()?.parse::<u64>().ok();
        let is_for_this_process = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_this_process).map(Duration::from_micros);
        Self { socket: environment.var("NOTIFY_SOCKET").and_then(|name| connect(name.as_bytes())), watchdog }
    }

    /// Sends a notification; a failure has no consequence.
    pub(super) fn notify(&self, what: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(what.as_bytes());
        }
    }

    /// Sends signs of life, twice in each interval, and a notification when the process stops. It
    /// runs on the workers' thread: if that hangs, the signs of life end.
    pub(super) async fn notify_until_stopped(&self, clock: &dyn Clock, mut stop: watch::Receiver<Stop>) {
        let stopping = async {
            let is_stopping = stop.wait_for(|stop| *stop != Stop::No).await.is_ok();
            if is_stopping {
                self.notify("STOPPING=1");
            }
            std::future::pending::<()>().await;
        };
        let living = async {
            let Some(often) = self.watchdog.map(|watchdog| watchdog / 2) else {
                return std::future::pending().await;
            };
            loop {
                self.notify("WATCHDOG=1");
                clock.sleep_until(clock.elapsed() + often).await;
            }
        };
        tokio::select! {
            () = stopping => {}
            () = living => {}
        }
    }
}

/// Connects to a path, or to `@` and an abstract name (`unix(7)`).
fn connect(name: &[u8]) -> Option<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address).ok()?;
    Some(socket)
}
