//! What a handler is given: the event on stdin and as a file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;

/// What every pipe holds, whatever the user's pipe quota: one page (pipe(7)).
const PIPE_HOLDS_BYTES: usize = 4096;

/// The file that `EVBUS_FILE` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFile {
    /// This one, which exists already: an event on a directory bus.
    At(PathBuf),
    /// A private temporary file, made for the run and removed after it, whose name ends in this.
    Make(String),
}

impl EventFile {
    /// What the file's name ends in.
    pub(super) fn name(&self) -> String {
        match self {
            Self::At(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            Self::Make(name) => name.clone(),
        }
    }
}

/// Makes the handler's stdin with the whole event already in it, so that nobody needs to feed it: a handler that
/// never reads, or that writes a lot before it reads, is then no special case. A small event goes into a pipe; one that
/// a pipe might not hold goes into memory with a file's face.
///
/// # Errors
/// No descriptor or no memory to be had.
pub(super) fn stdin(event: &[u8]) -> io::Result<OwnedFd> {
    if event.len() > PIPE_HOLDS_BYTES {
        return memory_file(event);
    }
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // At most PIPE_BUF bytes into an empty pipe: written whole, or not at all.
    rustix::io::write(&write, event)?;
    Ok(read)
}

fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("evbus-event", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < content.len() {
        // By position, so that the reader begins at the start.
        written += rustix::io::pwrite(&file, &content[written..], written as u64)?;
    }
    Ok(file)
}

/// An [`EventFile`] that is there; one that was made goes with it.
#[derive(Debug)]
pub(super) struct PlacedFile {
    path: PathBuf,
    made: bool,
}

impl PlacedFile {
    /// Puts the event's file in its place. `unique` keeps two runs of one event apart.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(super) fn place(file: EventFile, event: &[u8], unique: impl FnOnce() -> u64) -> io::Result<Self> {
        match file {
            EventFile::At(path) => Ok(Self { path: std::path::absolute(path)?, made: false }),
            EventFile::Make(name) => {
                let name = name.replace('/', "_");
                let path = std::env::temp_dir().join(format!("evbus-{:016x}-{name}", unique()));
                // Made before it is filled: a half-written file is removed, too.
                let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                let placed = Self { path, made: true };
                out.write_all(event)?;
                Ok(placed)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PlacedFile {
    fn drop(&mut self) {
        if self.made {
            // The handler may have removed or moved it, which is its good right.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
