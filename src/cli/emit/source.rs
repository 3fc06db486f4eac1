//! What an argument refers to: a file, or stdin.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::cli::failure::Failure;
use crate::cli::help_line::{HelpLine, command, text};
use crate::store::system_words;

/// The content of `@file`, or of stdin for `-`, if it is not larger than `limit`, in bytes.
pub(super) fn read(source: &str, cwd: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = (limit as u64).saturating_add(1);
    let (shown, read) = match source.strip_prefix('@') {
        None => ("stdin", std::io::stdin().lock().take(most).read_to_end(&mut bytes)),
        Some(path) => (path, open(path, cwd)?.take(most).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::failed(format!("cannot read {shown}: {}", system_words(&error))))?;
    if bytes.len() > limit {
        return Err(Failure::usage(format!("{shown} holds more than this bus's limit of {limit} bytes"))
            .help(smaller_or_larger_bus()));
    }
    Ok(bytes)
}

pub(super) fn open(path: &str, cwd: &Path) -> Result<File, Failure> {
    let full = cwd.join(OsString::from(path));
    File::open(&full).map_err(|error| Failure::usage(format!("cannot open {path}: {}", system_words(&error))))
}

/// What to do about an event that is larger than the bus takes.
pub(super) fn smaller_or_larger_bus() -> HelpLine {
    [
        text("emit a reference to the payload instead, or make another bus, for larger ones: "),
        command("init", "--max-event 8MiB BUS"),
    ]
    .into()
}
