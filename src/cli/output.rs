//! The only place that prints. stdout carries what was asked for, stderr everything else.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::{advice, style};
use crate::handler::Stream;

pub(super) mod pump;

/// Buffered stdout; an error is the caller's to pass on, a closed pipe ends evbus in order.
pub(super) struct Out {
    out: BufWriter<pump::Patient>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::new(pump::Patient) }
    }

    /// Text as it is, and out with it.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are, and out with them.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// A line; it may stay in the buffer.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// One JSON document on one line; it may stay in the buffer.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether stdout is a terminal.
pub(super) fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub(super) fn notes_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A line on stderr. There is nobody to tell where that fails.
pub(super) fn note(line: &str) {
    pump::write(Stream::Err, format!("{}\n", advice::complete(line)).as_bytes());
}

/// Text on stderr as it is.
pub(super) fn note_verbatim(text: &str) {
    pump::write(Stream::Err, text.as_bytes());
}

/// A warning on stderr.
pub(super) fn warn(line: &str) {
    note(&format!("warning: {}", style::escape(line)));
}

/// Asks on the terminal; anything but yes is no.
pub(super) fn confirm(question: &str) -> io::Result<bool> {
    note_verbatim(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether somebody sits at the terminal who can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
