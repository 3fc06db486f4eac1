//! stdout and stderr while workers run, each written by a thread of its own. A reader that pauses
//! (a pager, Ctrl-S, a stuck log shipper) delays only the handlers whose lines it has not read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::handler::Stream;

/// A handler's lines wait in its own pipe while this many bytes are queued.
const ROOM_BYTES: usize = 256 << 10;

/// Output that cannot wait (a handler's last lines, the log) is dropped and counted while this many
/// bytes are queued.
const MOST_BYTES: usize = 16 << 20;

/// How long a flush waits for the queued lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes to one descriptor.
struct Pump {
    stream: Stream,
    state: Mutex<PumpState>,
    changed: Condvar,
    room: Notify,
}

#[derive(Default)]
struct PumpState {
    waiting: VecDeque<Vec<u8>>,
    /// Includes the lines that are being written.
    bytes: usize,
    dropped: u64,
    /// Whether the reader has closed the pipe.
    closed: bool,
    /// Whether a flush has waited in vain.
    timed_out: bool,
}

struct Pumps {
    out: Arc<Pump>,
    err: Arc<Pump>,
}

static PUMPS: OnceLock<Pumps> = OnceLock::new();

/// Starts the pumps. If a thread cannot be started, output is written directly, as before.
pub(in crate::cli) fn begin() {
    if PUMPS.get().is_some() {
        return;
    }
    if let (Some(out), Some(err)) = (Pump::start(Stream::Out), Pump::start(Stream::Err)) {
        let _ = PUMPS.set(Pumps { out, err });
    }
}

/// Writes some lines, through the pump if it runs.
pub(in crate::cli) fn write(stream: Stream, lines: &[u8]) {
    match of(stream) {
        Some(pump) => pump.push(lines),
        // An error cannot be reported.
        None => _ = write_all(descriptor(stream), lines),
    }
}

/// Completes when there is room for more lines of handlers.
pub(in crate::cli) async fn room(stream: Stream) {
    if let Some(pump) = of(stream) {
        pump.has_room().await;
    }
}

/// Waits a limited time for the queued lines to be written.
pub(in crate::cli) fn flush_all() {
    for pump in PUMPS.get().into_iter().flat_map(|pumps| [&pumps.out, &pumps.err]) {
        pump.flush();
    }
}

/// Waits a limited time for the queued lines of one stream to be written.
pub(in crate::cli) fn flush(stream: Stream) {
    if let Some(pump) = of(stream) {
        pump.flush();
    }
}

fn of(stream: Stream) -> Option<&'static Arc<Pump>> {
    PUMPS.get().map(|pumps| match stream {
        Stream::Out => &pumps.out,
        Stream::Err => &pumps.err,
    })
}

impl Pump {
    fn start(stream: Stream) -> Option<Arc<Self>> {
        let (state, changed, room) = (Mutex::default(), Condvar::new(), Notify::new());
        let pump = Arc::new(Self { stream, state, changed, room });
        let serving = Arc::clone(&pump);
        let started = std::thread::Builder::new().name("evbus-output".to_owned()).spawn(move || serving.serve());
        started.is_ok().then_some(pump)
    }

    fn state(&self) -> MutexGuard<'_, PumpState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.bytes >= MOST_BYTES {
            state.dropped += lines.iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
            return;
        }
        let dropped = std::mem::take(&mut state.dropped);
        if dropped > 0 {
            let note = format!("evbus: {dropped} lines were dropped here: the reader was too slow\n").into_bytes();
            state.bytes += note.len();
            state.waiting.push_back(note);
        }
        state.bytes += lines.len();
        state.waiting.push_back(lines.to_vec());
        self.changed.notify_all();
    }

    async fn has_room(&self) {
        loop {
            let notified = self.room.notified();
            if self.state().bytes < ROOM_BYTES {
                return;
            }
            notified.await;
        }
    }

    fn serve(&self) {
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = state.waiting.drain(..).collect::<Vec<_>>().concat();
            drop(state);
            let written = write_all(descriptor(self.stream), &lines);
            let mut state = self.state();
            state.bytes -= lines.len();
            if written.is_err() {
                // A closed pipe does not end a worker.
                state.closed = true;
                state.bytes = 0;
                state.waiting.clear();
            }
            self.changed.notify_all();
            self.room.notify_waiters();
        }
    }

    /// Waits while the reader takes something; one that has stopped is not waited for again.
    fn flush(&self) {
        let mut state = self.state();
        while state.bytes > 0 && !state.timed_out {
            let waited = self.changed.wait_timeout(state, FLUSH_TIMEOUT);
            let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.timed_out = waited.timed_out();
        }
    }
}

fn descriptor(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Out => rustix::stdio::stdout(),
        Stream::Err => rustix::stdio::stderr(),
    }
}

/// Writes all bytes, also to a descriptor that another process has made non-blocking.
pub(super) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None).or_else(|errno| match errno {
                    Errno::INTR => Ok(0),
                    errno => Err(errno),
                })?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A writer to stdout that waits if another process has made the descriptor non-blocking.
#[derive(Debug, Default)]
pub(super) struct BlockingStdout;

impl io::Write for BlockingStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(rustix::stdio::stdout(), bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer to stderr, for `tracing`.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::cli) struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(Stream::Err, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
