//! Finds the executable of a command, as execvp(3) would, and says clearly why it cannot be run.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::Obstacle;

/// Where execvp(3) looks when there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Why a program cannot be run. Each displays as one line that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The command has no program.
    #[error("the handler's command is empty")]
    Empty,
    /// The folder to run it in is not there.
    #[error("cannot run handler '{name}' in '{}': no such directory", .folder.display())]
    NoFolder {
        /// The program, as it was named.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
    /// No folder of `PATH` has it.
    #[error("handler '{name}' not found in PATH")]
    NotInPath {
        /// The program, as it was named.
        name: String,
    },
    /// There is no such file.
    #[error("handler '{name}' not found")]
    Missing {
        /// The program, as it was named.
        name: String,
    },
    /// It is a folder.
    #[error("handler '{}' is a directory", .file.display())]
    Folder {
        /// Its path.
        file: PathBuf,
    },
    /// This user may not execute it.
    #[error("handler '{}' is not executable", .file.display())]
    NotExecutable {
        /// Its path.
        file: PathBuf,
    },
    /// Its folder cannot be read.
    #[error("cannot look at handler '{}': {source}", .file.display())]
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// The error of stat(2).
        source: Errno,
    },
    /// The program that its first line names is not there.
    #[error("cannot start handler '{name}': the interpreter that {} needs is missing", .file.display())]
    NoInterpreter {
        /// The program, as it was named.
        name: String,
        /// Its path.
        file: PathBuf,
    },
    /// It is neither an executable nor a script.
    #[error("handler '{name}' is neither a program nor a script")]
    NoProgram {
        /// The program, as it was named.
        name: String,
    },
}

/// The file that `name` means: `name` itself below `cwd` if it has a slash, else the first
/// executable with this name in `PATH`.
///
/// # Errors
/// The command cannot be run.
pub(super) fn find(name: &str, cwd: Option<&Path>) -> Result<PathBuf, ProgramError> {
    let path = std::env::var_os("PATH");
    find_in(name, cwd, path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH)))
}

fn find_in(name: &str, cwd: Option<&Path>, search: &OsStr) -> Result<PathBuf, ProgramError> {
    let folder = cwd.unwrap_or(Path::new("."));
    // A deleted folder has no absolute name; a program that is found through `PATH` needs none.
    let base = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if let Some(cwd) = cwd
        && !cwd.is_dir()
    {
        return Err(ProgramError::NoFolder { name: name.to_owned(), folder: cwd.to_owned() });
    }
    if name.is_empty() {
        return Err(ProgramError::Empty);
    }
    if name.contains('/') {
        let file = base.join(name);
        return executable(&file).map(|()| file).map_err(|flaw| flaw.of(name, Path::new(name)));
    }
    search_path(name, &base, search)
}

fn search_path(name: &str, base: &Path, search: &OsStr) -> Result<PathBuf, ProgramError> {
    let mut denied = None;
    for folder in std::env::split_paths(search) {
        let file = base.join(folder).join(name);
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(Flaw::Missing) => {}
            // As execvp(3) does: remember the flaw, and search on.
            Err(flaw) => denied = denied.or_else(|| Some(flaw.of(name, &file))),
        }
    }
    Err(denied.unwrap_or_else(|| ProgramError::NotInPath { name: name.to_owned() }))
}

/// Why a file cannot be run.
enum Flaw {
    Missing,
    Folder,
    NoPermission,
    Other(Errno),
}

impl Flaw {
    fn of(self, name: &str, file: &Path) -> ProgramError {
        let file = file.to_owned();
        match self {
            Self::Missing => ProgramError::Missing { name: name.to_owned() },
            Self::Folder => ProgramError::Folder { file },
            Self::NoPermission => ProgramError::NotExecutable { file },
            Self::Other(source) => ProgramError::Unreadable { file, source },
        }
    }
}

fn executable(file: &Path) -> Result<(), Flaw> {
    let about = match std::fs::metadata(file) {
        Ok(about) => about,
        Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NOTDIR => return Err(Flaw::Missing),
            errno => return Err(Flaw::Other(errno)),
        },
    };
    if about.is_dir() {
        return Err(Flaw::Folder);
    }
    if !about.is_file() || rustix::fs::access(file, Access::EXEC_OK).is_err() {
        return Err(Flaw::NoPermission);
    }
    Ok(())
}

/// A refusal by the system, explained by `obstacle`.
pub(super) fn refused(error: &io::Error, obstacle: impl FnOnce(&io::Error) -> Obstacle) -> Obstacle {
    let is_temporary = matches!(
        Errno::from_io_error(error),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT | Errno::TXTBSY)
    );
    Obstacle { is_temporary, ..obstacle(error) }
}

/// Why the system did not start `name`.
pub(super) fn refusal(name: &str, cwd: Option<&Path>, error: &io::Error) -> Obstacle {
    match Errno::from_io_error(error) {
        // The program was found, so the interpreter that its first line names is missing, or the
        // program has just been removed.
        Some(Errno::NOENT) => match find(name, cwd) {
            Ok(file) => ProgramError::NoInterpreter { name: name.to_owned(), file }.into(),
            Err(reason) => reason.into(),
        },
        Some(Errno::ACCESS) => match find(name, cwd) {
            Ok(file) => format!("may not run handler '{}', or its interpreter: {error}", file.display()).into(),
            Err(reason) => reason.into(),
        },
        Some(Errno::NOEXEC) => ProgramError::NoProgram { name: name.to_owned() }.into(),
        Some(Errno::AGAIN | Errno::NOMEM) => {
            format!("the system has no process to spare for handler '{name}': {error}").into()
        }
        Some(Errno::TOOBIG) => format!("the environment is too large for handler '{name}': {error}").into(),
        _ => format!("cannot start handler '{name}': {error}").into(),
    }
}
