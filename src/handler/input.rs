//! A handler's input: the event on stdin and as a file.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use tempfile::{Builder, TempPath};

/// A folder in memory (Filesystem Hierarchy Standard of Linux: tmpfs).
pub(super) const MEMORY: &str = "/dev/shm";

/// What every pipe holds, whatever the user's pipe quota: one page (pipe(7)).
const PIPE_HOLDS_BYTES: usize = 4096;

/// Makes the handler's stdin with the whole event already in it, so that evbus need not feed it: a
/// handler that never reads, or that writes a lot before it reads, is then no special case. A small
/// event goes into a pipe; one that a pipe might not hold goes into a memory file.
///
/// # Errors
/// No descriptor or no memory is available.
pub(super) fn stdin(event: &[u8]) -> io::Result<OwnedFd> {
    if event.len() > PIPE_HOLDS_BYTES {
        return memory_file(event);
    }
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // At most PIPE_BUF bytes go into an empty pipe: they are written whole, or not at all.
    rustix::io::write(&write, event)?;
    Ok(read)
}

fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("evbus-event", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < content.len() {
        // Written by position, so that the reader begins at the start.
        written += rustix::io::pwrite(&file, &content[written..], written as u64)?;
    }
    Ok(file)
}

/// The file that `EVBUS_FILE` names: a private one, made for the run and removed after it. On a
/// folder bus too it is not the stored event: a handler may move, change or remove it without
/// effect on others.
#[derive(Debug)]
pub(super) struct PlacedFile {
    /// Removed when dropped; the handler may have removed or moved it before, as it is allowed to.
    path: TempPath,
}

impl PlacedFile {
    /// Makes the file in one of `folders`, which belong to the worker; its name ends in `name`. If
    /// the first folder cannot take the file, because its disk is full, the second does.
    ///
    /// # Errors
    /// It cannot be written anywhere.
    pub(super) fn place(folders: [&Path; 2], name: &str, event: &[u8]) -> io::Result<Self> {
        let suffix = format!("-{}", name.replace('/', "_"));
        let [first, second] = folders;
        Self::write_in(first, &suffix, event).or_else(|error| Self::write_in(second, &suffix, event).map_err(|_| error))
    }

    /// Writes the file, which only this user may read. The folder is made when it is first needed,
    /// and again if a handler has removed it.
    fn write_in(folder: &Path, suffix: &str, event: &[u8]) -> io::Result<Self> {
        let make = || Builder::new().prefix("").suffix(suffix).tempfile_in(folder);
        let mut file = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(folder).or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })?;
                make()?
            }
            made => made?,
        };
        file.write_all(event)?;
        Ok(Self { path: file.into_temp_path() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
