//! The only module that prints. stdout carries the result, stderr everything else.

use std::io::{self, BufWriter, IsTerminal, Write};

use anstyle::Style;
use serde::Serialize;

use super::colour::{Colours, WARNING};
use super::style;
use crate::handler::Stream;

pub(super) mod pump;

/// Buffered stdout. Callers pass errors on; a closed pipe then ends evbus with success.
pub(super) struct Out {
    out: BufWriter<pump::BlockingStdout>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::new(pump::BlockingStdout) }
    }

    /// Writes text verbatim and flushes.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes verbatim and flushes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Writes a line, which may stay in the buffer.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes a JSON document on one line, which may stay in the buffer.
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

/// Prints a line on stderr. Where that fails, the error cannot be reported.
pub(super) fn note(line: &str) {
    pump::write(Stream::Err, format!("{line}\n").as_bytes());
}

/// Prints text on stderr verbatim.
pub(super) fn note_verbatim(text: &str) {
    pump::write(Stream::Err, text.as_bytes());
}

/// Prints a line on stderr that begins with a word in a colour: `error: …`.
pub(super) fn note_labelled(style: Style, label: &str, line: &str) {
    let label = Colours::of_stderr().paint(style, format_args!("{label}:"));
    note(&format!("{label} {}", style::escape(line)));
}

/// Prints a warning on stderr.
pub(super) fn warn(line: &str) {
    note_labelled(WARNING, "warning", line);
}

/// Asks a question on the terminal; every answer but yes means no.
pub(super) fn confirm(question: &str) -> io::Result<bool> {
    note_verbatim(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether stdin and stderr are a terminal, so that a question can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
