//! Finds the executable of a command, as execvp(3) would, and says clearly why it cannot be run.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::Obstacle;

/// Where execvp(3) looks when there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that `name` means: `name` itself below `cwd` if it has a slash, else the first
/// executable with this name in `PATH`.
///
/// # Errors
/// One line that names the command, and the cure where there is one.
pub(super) fn find(name: &str, cwd: Option<&Path>) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH");
    find_in(name, cwd, path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH)))
}

fn find_in(name: &str, cwd: Option<&Path>, search: &OsStr) -> Result<PathBuf, String> {
    let folder = cwd.unwrap_or(Path::new("."));
    // A deleted folder has no absolute name; a program that is found through `PATH` needs none.
    let base = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if let Some(cwd) = cwd
        && !cwd.is_dir()
    {
        return Err(format!("cannot run handler '{name}' in '{}': no such directory", cwd.display()));
    }
    if name.is_empty() {
        return Err("the handler's command is empty".to_owned());
    }
    if name.contains('/') {
        let file = base.join(name);
        return executable(&file).map(|()| file).map_err(|flaw| flaw.sentence(name, Path::new(name)));
    }
    search_path(name, &base, search)
}

fn search_path(name: &str, base: &Path, search: &OsStr) -> Result<PathBuf, String> {
    let mut denied = None;
    for folder in std::env::split_paths(search) {
        let file = base.join(folder).join(name);
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(Flaw::Missing) => {}
            // As execvp(3) does: remember the flaw, and search on.
            Err(flaw) => denied = denied.or_else(|| Some(flaw.sentence(name, &file))),
        }
    }
    let cure = match name.split_once(' ') {
        Some((program, _)) => {
            format!("program and arguments are words of their own, {program} …; a line is for --shell")
        }
        None => "name it by its path, or extend PATH".to_owned(),
    };
    Err(denied.unwrap_or_else(|| format!("handler '{name}' not found in PATH (help: {cure})")))
}

/// Why a file cannot be run.
enum Flaw {
    Missing,
    Folder,
    NoPermission,
    Other(io::Error),
}

impl Flaw {
    fn sentence(&self, name: &str, file: &Path) -> String {
        let file = file.display();
        match self {
            Self::Missing => format!("handler '{name}' not found"),
            Self::Folder => format!("handler '{file}' is a directory"),
            Self::NoPermission => format!("handler '{file}' is not executable (help: chmod +x {file})"),
            Self::Other(error) => format!("cannot look at handler '{file}': {error}"),
        }
    }
}

fn executable(file: &Path) -> Result<(), Flaw> {
    let about = match std::fs::metadata(file) {
        Ok(about) => about,
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR)) => {
            return Err(Flaw::Missing);
        }
        Err(error) => return Err(Flaw::Other(error)),
    };
    if about.is_dir() {
        return Err(Flaw::Folder);
    }
    if !about.is_file() || rustix::fs::access(file, Access::EXEC_OK).is_err() {
        return Err(Flaw::NoPermission);
    }
    Ok(())
}

/// A refusal by the system, in the words of `sentence`.
pub(super) fn refused(error: &io::Error, sentence: impl FnOnce(&io::Error) -> String) -> Obstacle {
    let passes = matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT | Errno::TXTBSY)
    );
    Obstacle { why: sentence(error), passes }
}

/// Why the system did not start `name`, in one line.
pub(super) fn refusal(name: &str, cwd: Option<&Path>, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        // The program was found, so the interpreter that its first line names is missing, or the
        // program has just been removed.
        Some(Errno::NOENT) => match find(name, cwd) {
            Ok(file) => {
                format!("cannot start handler '{name}': the interpreter that {} needs is missing", file.display())
            }
            Err(reason) => reason,
        },
        Some(Errno::ACCESS) => match find(name, cwd) {
            Ok(file) => format!("may not run handler '{}', or its interpreter: {error}", file.display()),
            Err(reason) => reason,
        },
        Some(Errno::NOEXEC) => {
            format!("handler '{name}' is neither a program nor a script (help: begin it with '#!/bin/sh')")
        }
        Some(Errno::AGAIN | Errno::NOMEM) => {
            format!("the system has no process to spare for handler '{name}': {error}")
        }
        Some(Errno::TOOBIG) => format!("the environment is too large for handler '{name}': {error}"),
        _ => format!("cannot start handler '{name}': {error}"),
    }
}
