//! A handler's output: passed on line by line as it comes, and the end of stderr kept.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;

use crate::clock::{Clock, Fut};

/// A longer line is passed on in pieces of at most this many bytes.
const LINE_BYTES: usize = 8 * 1024;
/// How much of the end of stderr is kept.
const TAIL_BYTES: usize = 4 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;
/// How many reads empty a pipe of the usual 64 KiB, and see its end.
const RELEASE_READS: usize = 5;
/// The outputs of a handler that ends sooner than this are never watched: all of its output is read
/// at its end.
const UNWATCHED: Duration = Duration::from_millis(5);

/// Which of a handler's outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Its stdout.
    Out,
    /// Its stderr.
    Err,
}

/// Where a line comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineSource {
    /// What the command's lines are marked with.
    pub label: String,
    /// The event that it runs for; empty for several.
    pub id: String,
    /// Which attempt, from 1; empty for several.
    pub attempt: String,
    /// How many events it runs for, if they come as a batch; else empty.
    pub events: String,
}

/// Where the lines of handlers go.
pub trait Output {
    /// Takes one line without its line feed, raw: control characters must be escaped before it is
    /// printed. A line over 8 KiB comes in pieces.
    fn line(&self, source: &LineSource, stream: Stream, line: &[u8]);

    /// Completes when more lines can be taken: until then a handler's lines wait in its pipe, and
    /// so does the handler.
    fn room(&self, stream: Stream) -> Fut<'_, ()> {
        let _ = stream;
        Box::pin(std::future::ready(()))
    }

    /// Whether the lines of this stream are wanted. A stdout that is not wanted goes to
    /// `/dev/null`.
    fn wants(&self, stream: Stream) -> bool {
        let _ = stream;
        true
    }
}

/// Drops every line. The end of stderr is kept for the report all the same.
#[derive(Debug, Default, Clone, Copy)]
pub struct Discard;

impl Output for Discard {
    fn line(&self, _: &LineSource, _: Stream, _: &[u8]) {}

    fn wants(&self, _stream: Stream) -> bool {
        false
    }
}

/// A pipe for a child: evbus's end, which never blocks, and the child's end, which does, as
/// programs expect.
///
/// # Errors
/// No descriptor is available.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// Cuts a stream of bytes into lines, in bounded memory.
#[derive(Debug, Default)]
struct LineSplitter {
    /// The beginning of a line whose end has not come yet, at most [`LINE_BYTES`].
    begun: Vec<u8>,
}

impl LineSplitter {
    fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LINE_BYTES - self.begun.len();
            // One byte more than there is room for is looked at: a line of exactly the limit is not
            // cut before its end.
            let ahead = &bytes[..bytes.len().min(room + 1)];
            let (taken, skipped) = match ahead.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, 1),
                None if ahead.len() > room => (room, 0),
                None => {
                    self.begun.extend_from_slice(bytes);
                    return;
                }
            };
            self.pass(&bytes[..taken], &mut each);
            bytes = &bytes[taken + skipped..];
        }
    }

    fn pass(&mut self, end: &[u8], each: &mut impl FnMut(&[u8])) {
        if self.begun.is_empty() {
            return each(end);
        }
        self.begun.extend_from_slice(end);
        each(&self.begun);
        self.begun.clear();
    }

    /// A last line without a line feed is a line, too.
    fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            each(&self.begun);
            self.begun.clear();
        }
    }
}

/// The last [`TAIL_BYTES`] of a stream.
#[derive(Debug, Default)]
pub(super) struct OutputTail(Vec<u8>);

impl OutputTail {
    fn feed(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
        self.0.extend_from_slice(bytes);
    }

    /// As text, with replacement characters, not beginning inside a character.
    pub(super) fn text(&self) -> String {
        let start = if self.0.len() < TAIL_BYTES {
            0
        } else {
            self.0.iter().take(3).take_while(|b| **b & 0xc0 == 0x80).count()
        };
        String::from_utf8_lossy(&self.0[start..]).into_owned()
    }
}

/// The ends of both outputs of a run.
#[derive(Debug, Default)]
pub(super) struct OutputTails {
    pub(super) out: OutputTail,
    pub(super) err: OutputTail,
}

/// Where an [`OutputPipe`] passes its lines on to, and whose lines they are.
#[derive(Clone)]
pub(super) struct LineSink {
    pub(super) output: Rc<dyn Output>,
    pub(super) source: Rc<LineSource>,
}

/// evbus's end of a handler's output.
enum Pipe {
    /// No task is woken when there is something to read.
    Unwatched(OwnedFd),
    /// The runtime watches it, and wakes the task.
    Watched(Receiver),
    /// Every holder of the other end has closed it.
    Ended,
}

/// One output of a running handler.
pub(super) struct OutputPipe {
    pipe: Pipe,
    stream: Stream,
    sink: Option<LineSink>,
    lines: LineSplitter,
    tail: OutputTail,
}

impl OutputPipe {
    /// Wraps evbus's end of a [`pipe`].
    pub(super) fn new(pipe: OwnedFd, stream: Stream, sink: &LineSink) -> Self {
        let sink = sink.output.wants(stream).then(|| sink.clone());
        Self { pipe: Pipe::Unwatched(pipe), stream, sink, lines: LineSplitter::default(), tail: OutputTail::default() }
    }

    /// Passes on what is there.
    pub(super) fn read_rest(&mut self) {
        // Reads as often as a full pipe needs, and not for as long as a process writes.
        for _ in 0..RELEASE_READS {
            let mut buffer = [0; READ_BYTES];
            // The read bypasses the runtime, which may not have noticed what came last.
            let read = match &self.pipe {
                Pipe::Unwatched(pipe) => rustix::io::read(pipe, &mut buffer),
                Pipe::Watched(pipe) => rustix::io::read(pipe, &mut buffer),
                Pipe::Ended => return,
            };
            match read {
                Ok(0) => self.finish(),
                Ok(count) => self.feed(&buffer[..count]),
                Err(_) => return,
            }
        }
    }

    /// Whether every holder of the other end has closed it.
    pub(super) fn ended(&self) -> bool {
        matches!(self.pipe, Pipe::Ended)
    }

    /// Passes on what comes until the pipe ends. May be dropped and called again at any point.
    pub(super) async fn drain(&mut self, clock: &dyn Clock) {
        loop {
            let pipe = match &self.pipe {
                Pipe::Watched(pipe) => pipe,
                Pipe::Ended => return,
                Pipe::Unwatched(_) => {
                    clock.sleep_until(clock.elapsed() + UNWATCHED).await;
                    self.watch();
                    continue;
                }
            };
            // The runtime makes this yield now and then, so that an endless writer does not hold up
            // the time limit.
            if pipe.readable().await.is_err() {
                return self.finish();
            }
            if let Some(sink) = &self.sink {
                sink.output.room(self.stream).await;
            }
            let mut buffer = [0; READ_BYTES];
            match pipe.try_read(&mut buffer) {
                Ok(0) => self.finish(),
                Ok(count) => self.feed(&buffer[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => self.finish(),
            }
        }
    }

    /// Has the runtime watch the pipe. If the runtime cannot watch one descriptor more, what is
    /// there is read, and the runtime is asked again.
    fn watch(&mut self) {
        self.read_rest();
        if let Pipe::Unwatched(pipe) = &self.pipe
            // Unchecked, because [`pipe`] has made it as it must be.
            && let Ok(pipe) = pipe.try_clone().and_then(Receiver::from_owned_fd_unchecked)
        {
            self.pipe = Pipe::Watched(pipe);
        }
    }

    /// Returns the end of the output; what has come of an unfinished line is passed on.
    pub(super) fn close(mut self) -> OutputTail {
        self.finish();
        self.tail
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.tail.feed(bytes);
        if let Some(sink) = &self.sink {
            self.lines.feed(bytes, |line| sink.output.line(&sink.source, self.stream, line));
        }
    }

    fn finish(&mut self) {
        self.pipe = Pipe::Ended;
        if let Some(sink) = &self.sink {
            self.lines.finish(|line| sink.output.line(&sink.source, self.stream, line));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut lines, mut seen) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |line| seen.push(line.to_vec()));
            assert!(lines.begun.len() <= LINE_BYTES);
        }
        lines.finish(|line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn a_long_line_comes_in_pieces_and_one_of_the_limit_whole() {
        let long = [vec![b'x'; 2 * LINE_BYTES + 5], b"\ny".to_vec()].concat();
        let lengths: Vec<usize> = lines_of(&[long]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [LINE_BYTES, LINE_BYTES, 5, 1]);
        let exact = [vec![b'x'; LINE_BYTES], b"\n\n".to_vec()].concat();
        let lengths: Vec<usize> = lines_of(&[exact]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [LINE_BYTES, 0]);
    }

    #[test]
    fn a_tail_begins_with_a_whole_character() {
        let mut tail = OutputTail::default();
        tail.feed("é".repeat(TAIL_BYTES).as_bytes());
        tail.feed(b"!");
        assert_eq!(tail.text(), format!("{}!", "é".repeat(TAIL_BYTES / 2 - 1)));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<Vec<u8>> = cuts.windows(2).map(|w| text.as_bytes()[w[0]..w[1]].to_vec()).collect();
            let mut expected: Vec<Vec<u8>> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(lines_of(&chunks), expected);
        }

        #[test]
        fn a_tail_is_the_end_of_all(chunks in prop::collection::vec(prop::collection::vec(0u8..128, 0..3000), 0..6)) {
            let mut tail = OutputTail::default();
            chunks.iter().for_each(|chunk| tail.feed(chunk));
            let all = chunks.concat();
            let text = tail.text();
            prop_assert_eq!(text.as_bytes(), &all[all.len().saturating_sub(TAIL_BYTES)..]);
        }
    }
}
