//! `emit --ndjson`: many events, acknowledged in batches.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::acks::Acks;
use super::args::EmitArgs;
use super::lines::{InputLine, InputLines};
use super::maker::Maker;
use super::target::{Sent, Target};
use super::{acks, data, source};
use crate::bus::emit::{AckKind, Draft, SegmentDraft};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::style;
use crate::event::{DataLine, EventTemplate};

/// The most bytes in a batch, which bounds the memory for large events.
const BATCH_BYTES: usize = 8 << 20;

/// At most this many skipped lines are reported one by one.
const MAX_WARNINGS: u64 = 5;

pub(super) async fn run(
    args: &EmitArgs,
    source: Option<&str>,
    maker: &Maker,
    target: &mut Target,
) -> Result<Code, Failure> {
    let typed = args.type_.is_some();
    match source.and_then(|source| source.strip_prefix('@')) {
        Some(path) => {
            let file = source::open(path, Path::new(""))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            let lines = InputLines::new(file, maker.max_event_bytes, typed)?;
            BulkEmit::new(args, maker, lines, bytes)?.emit(target).await
        }
        None => {
            let lines = InputLines::new(std::io::stdin(), maker.max_event_bytes, typed)?;
            BulkEmit::new(args, maker, lines, None)?.emit(target).await
        }
    }
}

/// The lines that `--on-error skip` skips.
struct Skipped {
    file: Option<(String, File)>,
    count: u64,
}

impl Skipped {
    fn new(path: Option<&str>) -> Result<Self, Failure> {
        let made = |path: &str| {
            let file = File::options().append(true).create(true).open(path).map_err(|error| {
                Failure::usage(format!("cannot write {path}: {}", crate::store::system_words(&error)))
            })?;
            Ok::<_, Failure>((path.to_owned(), file))
        };
        Ok(Self { file: path.map(made).transpose()?, count: 0 })
    }

    fn add(&mut self, input: &InputLine, failure: &Failure) -> Result<(), Failure> {
        self.count += 1;
        if self.count <= MAX_WARNINGS {
            let kept = if input.is_truncated && self.file.is_some() { ", its start kept" } else { "" };
            output::warn(&format!("{}: {}; passed over{kept}", input.position, failure.message()));
        }
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = input.bytes.trim_ascii().to_vec();
        // An array element may span several lines; a line of the rejects file must not.
        line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        line.push(b'\n');
        file.write_all(&line)
            .map_err(|error| Failure::failed(format!("cannot write {path}: {}", crate::store::system_words(&error))))
    }

    fn report(&self) {
        let Some((path, _)) = self.file.as_ref().filter(|_| self.count > 0) else {
            if self.count > 0 {
                output::note(&format!("{} passed over", style::plural(self.count, "line")));
            }
            return;
        };
        output::note(&format!("{} passed over, kept in {path}", style::plural(self.count, "line")));
    }
}

/// A bulk emit under way.
struct BulkEmit<'a, R> {
    args: &'a EmitArgs,
    maker: &'a Maker,
    lines: InputLines<R>,
    acks: Acks,
    skipped: Skipped,
    progress: Progress,
    /// Of events that are lines of JSON.
    template: Option<EventTemplate>,
}

impl<'a, R: Read + AsFd> BulkEmit<'a, R> {
    fn new(args: &'a EmitArgs, maker: &'a Maker, lines: InputLines<R>, bytes: Option<u64>) -> Result<Self, Failure> {
        Ok(Self {
            acks: Acks::new(args.print()),
            skipped: Skipped::new(args.rejects.as_deref())?,
            progress: Progress::new("emitting", bytes),
            template: args.type_.as_deref().filter(|_| !args.text).and_then(|type_| maker.template(type_)),
            args,
            maker,
            lines,
        })
    }

    async fn emit(mut self, target: &mut Target) -> Result<Code, Failure> {
        let ended = self.emit_all(target).await;
        self.progress.end();
        self.skipped.report();
        let acknowledged = self.acks.count();
        if let Err(failure) = ended {
            if acknowledged > 0 {
                let what = if self.args.dry_run { "would be emitted" } else { "acknowledged" };
                output::note(&format!("{} {what} before this:", style::plural(acknowledged, "event")));
            }
            return Err(failure);
        }
        self.acks.end().map(|()| Code::Done)
    }

    async fn emit_all(&mut self, target: &mut Target) -> Result<(), Failure> {
        loop {
            // The events before a bad line are emitted first.
            let end = match target {
                Target::Bus(emitter) if self.in_segments() => {
                    let mut segments = Vec::new();
                    let end = self.fill_segments(&mut segments);
                    // With ordering keys each is safe before the next is put, and is acknowledged so.
                    let together = if segments.iter().any(SegmentDraft::has_ordering_key) { 1 } else { segments.len() };
                    for part in segments.chunks(together) {
                        self.maker.send_segments(emitter, part).await?;
                        self.acks.on_the_bus(part.iter().flat_map(SegmentDraft::events));
                    }
                    end
                }
                _ => {
                    let mut batch = LineBatch::default();
                    let in_chunks = self.in_chunks();
                    let end = self.fill(&mut batch, if in_chunks { usize::MAX } else { target.batch() });
                    let mut at = 0;
                    while at < batch.drafts.len() {
                        let drafts = &batch.drafts[at..];
                        let acks = match target {
                            Target::Bus(emitter) if in_chunks => self.maker.send_chunks(emitter, drafts).await?,
                            _ => self.maker.send(target, drafts).await?,
                        };
                        self.acks.report(drafts.iter().zip(&acks));
                        self.taken(&batch, at, &acks)?;
                        at += acks.len();
                    }
                    end
                }
            };
            if end? {
                return Ok(());
            }
        }
    }

    /// Whether many events go into one object: those that are of now.
    fn share_objects(&self) -> bool {
        self.maker.has_segments && self.maker.due.is_none() && !self.args.each
    }

    /// Whether they do, and evbus makes their ids.
    fn in_segments(&self) -> bool {
        self.share_objects() && self.args.type_.is_some()
    }

    /// Whether they do, and have ids of their own.
    fn in_chunks(&self) -> bool {
        self.share_objects() && self.args.type_.is_none()
    }

    /// Fills segments until there are enough, the next line would have to be waited for, or the
    /// input ends (true).
    fn fill_segments(&mut self, segments: &mut Vec<SegmentDraft>) -> Result<bool, Failure> {
        segments.push(self.maker.segment());
        let mut bytes = 0;
        while bytes < BATCH_BYTES && (bytes == 0 || self.lines.ready()) {
            let Some(input) = self.lines.next()? else { return Ok(true) };
            self.progress.advance(input.bytes.len() as u64);
            match self.add_to_segments(&input, segments) {
                Ok(size) => bytes += size,
                Err(failure) if self.args.skips() => self.skipped.add(&input, &failure)?,
                Err(failure) => return Err(failure.context(&input.position.to_string())),
            }
        }
        Ok(false)
    }

    /// Adds a line to the last segment, or to a new one; returns its size.
    fn add_to_segments(&self, input: &InputLine, segments: &mut Vec<SegmentDraft>) -> Result<usize, Failure> {
        self.refuse_truncated(input)?;
        // Most lines differ only in their data. What is refused here is looked at closely below.
        if let (Some(template), Some(last)) = (&self.template, segments.last_mut())
            && let Some(data) = DataLine::check(&input.bytes)
            && let Some(size) = last.add_line(template, self.maker.now(), data, self.maker.max_event_bytes)
        {
            return Ok(size);
        }
        let type_ = self.args.type_.as_deref().unwrap_or_default();
        loop {
            let (data, content_type) = data::line(self.args, &input.bytes)?;
            if let Some(last) = segments.last_mut().filter(|last| last.has_room()) {
                let draft = self.maker.draft_in_segment(type_, data, content_type, last)?;
                let size = draft.size();
                if last.add(draft).is_ok() {
                    return Ok(size);
                }
            }
            // With another segment the event has another id.
            segments.push(self.maker.segment());
        }
    }

    /// Fills a batch until it is large enough, the next line would have to be waited for, or the
    /// input ends (true).
    fn fill(&mut self, batch: &mut LineBatch, most: usize) -> Result<bool, Failure> {
        let mut bytes = 0;
        while batch.drafts.len() < most && bytes < BATCH_BYTES && (batch.drafts.is_empty() || self.lines.ready()) {
            let Some(input) = self.lines.next()? else { return Ok(true) };
            self.progress.advance(input.bytes.len() as u64);
            match self.draft(&input) {
                Ok(draft) => {
                    bytes += draft.size();
                    batch.drafts.push(draft);
                    batch.inputs.push(input);
                }
                Err(failure) if self.args.skips() => self.skipped.add(&input, &failure)?,
                Err(failure) => return Err(failure.context(&input.position.to_string())),
            }
        }
        Ok(false)
    }

    fn refuse_truncated(&self, input: &InputLine) -> Result<(), Failure> {
        if !input.is_truncated {
            return Ok(());
        }
        let limit = style::thousands(self.maker.max_event_bytes as u64);
        Err(Failure::usage(format!("it is longer than this bus's limit of {limit} bytes")).help([
            command("init", "--max-event 8MiB"),
            text(" makes a bus for larger ones; or emit a reference in place of the data"),
        ]))
    }

    fn draft(&self, input: &InputLine) -> Result<Draft, Failure> {
        self.refuse_truncated(input)?;
        let line = &input.bytes;
        let Some(type_) = &self.args.type_ else {
            return self.maker.document(line).map_err(|failure| {
                if looks_like_an_event(line) {
                    return failure;
                }
                failure.or_help([command("emit", "TYPE --ndjson"), text(", if each line is the data alone")])
            });
        };
        let (data, content_type) = data::line(self.args, line)?;
        self.maker.draft(type_, data, content_type, None)
    }

    /// Handles events whose id belongs to another event: they are not on the bus. `from`: the place of the
    /// first that was acknowledged now.
    fn taken(&mut self, batch: &LineBatch, from: usize, acks: &[Sent]) -> Result<(), Failure> {
        for ((input, draft), ack) in batch.inputs.iter().zip(&batch.drafts).skip(from).zip(acks) {
            if ack.kind != AckKind::IdTaken || self.args.if_exists.as_deref() == Some("ok") {
                continue;
            }
            let failure = acks::taken(draft, ack);
            if !self.args.skips() {
                return Err(failure.context(&input.position.to_string()));
            }
            self.skipped.add(input, &failure)?;
        }
        Ok(())
    }
}

/// Events that are emitted together, and the lines that they came from.
#[derive(Default)]
struct LineBatch {
    drafts: Vec<Draft>,
    inputs: Vec<InputLine>,
}

/// Whether a line is meant as a CloudEvent, in which case the missing `TYPE` is not its problem.
fn looks_like_an_event(line: &[u8]) -> bool {
    line.windows(13).any(|part| part == b"\"specversion\"")
}
