//! `emit --ndjson`: many events, acknowledged in batches.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Args, Maker, data, open, print};
use crate::bus::emit::{Draft, Emitter};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Out};
use crate::cli::progress::Progress;
use crate::cli::style;

/// A batch holds no more bytes than this, so that large events do not fill the memory.
const BATCH_BYTES: usize = 8 << 20;

/// Where the lines come from.
struct Lines<R: Read + AsFd> {
    reader: BufReader<R>,
    number: u64,
    max_bytes: usize,
}

impl<R: Read + AsFd> Lines<R> {
    /// The next line that is not blank, without its end; none at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let mut line = Vec::new();
            // One byte more than allowed is enough to know that it is too long.
            let limit = u64::try_from(self.max_bytes).unwrap_or(u64::MAX).saturating_add(2);
            let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(|error| Failure::failed(format!("cannot read the lines: {error}")))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !line.ends_with(b"\n") && line.len() > self.max_bytes {
                let what = format!("line {}: longer than this bus's limit of {} bytes", self.number, self.max_bytes);
                return Err(Failure::usage(what));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Whether the next line is there without waiting for it.
    fn ready(&self) -> bool {
        self.reader.buffer().contains(&b'\n') || readable(self.reader.get_ref().as_fd())
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

pub(super) async fn run(
    args: &Args,
    source: Option<&str>,
    maker: &Maker,
    emitter: &mut Emitter,
) -> Result<Code, Failure> {
    let file = source.and_then(|source| source.strip_prefix('@'));
    match file {
        Some(path) => {
            let file = open(path, std::path::Path::new(""))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            emit_all(args, file, bytes, maker, emitter).await
        }
        None => emit_all(args, std::io::stdin(), None, maker, emitter).await,
    }
}

async fn emit_all<R: Read + AsFd>(
    args: &Args,
    source: R,
    bytes: Option<u64>,
    maker: &Maker,
    emitter: &mut Emitter,
) -> Result<Code, Failure> {
    let reader = BufReader::with_capacity(256 * 1024, source);
    let mut lines = Lines { reader, number: 0, max_bytes: maker.max_event_bytes };
    let mut progress = Progress::new("emitting", bytes);
    let mut out = Out::new();
    let mut acknowledged = 0u64;
    let mut end = Ok(false);
    while matches!(end, Ok(false)) {
        let mut batch: Vec<Draft> = Vec::new();
        end = fill(args, maker, &mut lines, &mut batch, emitter.batch(), &mut progress);
        // What came before a bad line is good.
        let receipts = maker.send(emitter, &batch).await.map_err(|error| told(Failure::from(error), acknowledged))?;
        print(&mut out, args.print(), &batch, &receipts).map_err(|failure| told(failure, acknowledged))?;
        acknowledged += u64::try_from(receipts.len()).unwrap_or(0);
    }
    progress.end();
    end.map(|_| Code::Done).map_err(|failure| told(failure, acknowledged))
}

/// Fills a batch until it is large enough, the next line is not there yet, or the lines end (true).
fn fill<R: Read + AsFd>(
    args: &Args,
    maker: &Maker,
    lines: &mut Lines<R>,
    batch: &mut Vec<Draft>,
    most: usize,
    progress: &mut Progress,
) -> Result<bool, Failure> {
    let mut bytes = 0;
    while batch.len() < most && bytes < BATCH_BYTES && (batch.is_empty() || lines.ready()) {
        let Some(line) = lines.next()? else { return Ok(true) };
        let draft = draft(args, maker, &line).map_err(|failure| failure.after(&format!("line {}", lines.number)))?;
        bytes += draft.size();
        progress.advance(u64::try_from(line.len()).unwrap_or(0));
        batch.push(draft);
    }
    Ok(false)
}

fn draft(args: &Args, maker: &Maker, line: &[u8]) -> Result<Draft, Failure> {
    let Some(type_) = &args.type_ else {
        return maker
            .document(line)
            .map_err(|failure| failure.or_help("evbus emit TYPE --ndjson, if each line is the data alone"));
    };
    let text = std::str::from_utf8(line).map_err(|_| Failure::usage("it is not UTF-8"))?;
    let (data, content_type) = data::line(args, text.trim_end_matches(['\n', '\r']))?;
    maker.draft(type_, data, content_type, None)
}

/// A bulk emit that ends early tells what was acknowledged.
fn told(failure: Failure, acknowledged: u64) -> Failure {
    if acknowledged > 0 {
        output::note(&format!("{} acknowledged before this:", style::plural(acknowledged, "event")));
    }
    failure
}
