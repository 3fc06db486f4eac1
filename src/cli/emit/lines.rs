//! Reads the input of a bulk emit: lines, or the elements of one JSON array, gzipped or not.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};

use flate2::bufread::MultiGzDecoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::failure::Failure;

/// How much is read at a time, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// The first bytes of a gzip file (RFC 1952 § 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event's text and its position in the input.
pub(super) struct InputLine {
    pub bytes: Vec<u8>,
    pub position: Position,
    /// Whether the text is only the start of one that is longer than any event may be.
    pub is_truncated: bool,
}

/// `line 3`, `element 3`.
pub(super) struct Position {
    what: &'static str,
    number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.number)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    /// After the `[` of an array.
    Array,
    /// After its `]`.
    Over,
}

enum InputSource<R> {
    Plain(BufReader<R>),
    Packed(BufReader<MultiGzDecoder<BufReader<R>>>),
}

/// Reads the events' texts one by one.
pub(super) struct InputLines<R> {
    source: InputSource<R>,
    form: Form,
    number: u64,
    max_bytes: usize,
}

impl<R: Read + AsFd> InputLines<R> {
    /// With `typed`, each line is data, which may be an array itself.
    pub fn new(file: R, max_bytes: usize, typed: bool) -> Result<Self, Failure> {
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, file);
        let packed = plain.fill_buf().map_err(|error| unreadable(&error))?.starts_with(&GZIP);
        let source = match packed {
            true => InputSource::Packed(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(plain))),
            false => InputSource::Plain(plain),
        };
        let mut this = Self { source, form: Form::Lines, number: 0, max_bytes };
        this.begin(typed).map_err(|error| unreadable(&error))?;
        Ok(this)
    }

    fn reader(&mut self) -> &mut dyn BufRead {
        match &mut self.source {
            InputSource::Plain(reader) => reader,
            InputSource::Packed(reader) => reader,
        }
    }

    /// Skips a byte order mark and the start of an array.
    fn begin(&mut self, typed: bool) -> io::Result<()> {
        if self.reader().fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.reader().consume(BYTE_ORDER_MARK.len());
        }
        let start = self.reader().fill_buf()?;
        let blank = start.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &start[blank..];
        let first_line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        // With a type, a complete array on the first line is that line's data.
        let whole = typed && serde_json::from_slice::<serde::de::IgnoredAny>(first_line).is_ok();
        if rest.starts_with(b"[") && !whole {
            self.reader().consume(blank + 1);
            self.form = Form::Array;
        }
        Ok(())
    }

    /// The next text that is not blank; none at the end.
    pub fn next(&mut self) -> Result<Option<InputLine>, Failure> {
        match self.form {
            Form::Lines => self.line(),
            Form::Array => self.element(),
            Form::Over => self.end(),
        }
    }

    fn line(&mut self) -> Result<Option<InputLine>, Failure> {
        loop {
            let mut bytes = Vec::new();
            // Two bytes above the limit are enough to recognise a line as too long.
            let limit = u64::try_from(self.max_bytes).unwrap_or(u64::MAX).saturating_add(2);
            let read = self.reader().take(limit).read_until(b'\n', &mut bytes);
            if read.map_err(|error| unreadable(&error))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !bytes.ends_with(b"\n") && bytes.len() > self.max_bytes {
                self.skip_line()?;
                return Ok(Some(self.input_line("line", bytes, true)));
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(self.input_line("line", bytes, false)));
            }
        }
    }

    /// Skips the rest of a line that is too long.
    fn skip_line(&mut self) -> Result<(), Failure> {
        loop {
            let buffer = self.reader().fill_buf().map_err(|error| unreadable(&error))?;
            let (len, ends) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.reader().consume(len);
            if ends {
                return Ok(());
            }
        }
    }

    fn input_line(&self, what: &'static str, bytes: Vec<u8>, is_truncated: bool) -> InputLine {
        InputLine { bytes, position: Position { what, number: self.number }, is_truncated }
    }

    /// The next element of the array, up to its comma or the closing bracket.
    fn element(&mut self) -> Result<Option<InputLine>, Failure> {
        let mut scan = Element::default();
        let mut bytes = Vec::new();
        let most = self.max_bytes.saturating_add(2);
        self.number += 1;
        loop {
            let buffer = self.reader().fill_buf().map_err(|error| unreadable(&error))?;
            if buffer.is_empty() {
                return Err(Failure::usage(format!("element {}: the array ends too early", self.number)));
            }
            let end = buffer.iter().position(|byte| scan.ends_at(*byte));
            let room = most.saturating_sub(bytes.len());
            let len = end.unwrap_or(buffer.len());
            bytes.extend_from_slice(&buffer[..len.min(room)]);
            let ender = end.map(|at| buffer[at]);
            self.reader().consume(len + usize::from(end.is_some()));
            let Some(ender) = ender else { continue };
            if ender == b']' {
                self.form = Form::Over;
            }
            return match bytes.trim_ascii().is_empty() {
                true if ender == b']' => self.end(),
                true => Err(Failure::usage(format!("element {}: nothing stands before the comma", self.number))),
                false => {
                    let is_truncated = bytes.len() == most;
                    Ok(Some(self.input_line("element", bytes, is_truncated)))
                }
            };
        }
    }

    /// Only white space may follow an array: anything else would be lost without a message.
    fn end(&mut self) -> Result<Option<InputLine>, Failure> {
        loop {
            let buffer = self.reader().fill_buf().map_err(|error| unreadable(&error))?;
            if buffer.iter().any(|byte| !byte.is_ascii_whitespace()) {
                let what = format!("something follows the array, which ended with element {}", self.number);
                return Err(Failure::usage(what).help("one JSON array, or one event a line: jq -c '.[]' makes lines"));
            }
            let len = buffer.len();
            if len == 0 {
                return Ok(None);
            }
            self.reader().consume(len);
        }
    }

    /// Whether the next text can be read without waiting.
    pub fn ready(&self) -> bool {
        match &self.source {
            InputSource::Plain(reader) => reader.buffer().contains(&b'\n') || readable(reader.get_ref().as_fd()),
            // Compressed input arrives as a whole: a wait for its next line is short.
            InputSource::Packed(_) => true,
        }
    }
}

/// Finds the end of an array's element.
#[derive(Default)]
struct Element {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Element {
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.quoted {
            let escaped = std::mem::take(&mut self.escaped);
            self.escaped = byte == b'\\' && !escaped;
            self.quoted = escaped || byte != b'"';
            return false;
        }
        match byte {
            b'"' => self.quoted = true,
            b'[' | b'{' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read the lines: {}", crate::store::system_words(error)))
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
