//! What can go wrong on a store, grouped by what the caller does next.

use std::io;

use rustix::io::Errno;

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No answer, or not in time: the operation may or may not have taken effect. Try again.
    Unavailable,
    /// No permission, or a read-only store: an operator must change that.
    Denied,
    /// No room: an operator must make some.
    Full,
    /// What was written, or found, may not outlast a power cut, because a flush has failed. It must not be flushed again:
    /// its pages are marked clean (fsync(2), Notes). It has to be written anew, under another name.
    NotDurable,
    /// There is no bus here.
    NoBus,
    /// The store holds something that evbus did not put there, or not in this form.
    Damaged,
    /// This kind of store cannot carry a bus as it is set up.
    Unfit,
    /// Anything else that the system reports.
    Other,
}

/// An operation on a store failed. Displays as a fragment that fits after "cannot emit: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    kind: ErrorKind,
    what: String,
    help: Option<String>,
}

impl StoreError {
    /// An error of a kind, told in one line.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), help: None }
    }

    /// The error that the object at `path` is larger than anything that evbus puts there, in bytes.
    pub fn too_large(path: impl std::fmt::Display, size: u64, limit: usize) -> Self {
        Self::new(ErrorKind::Damaged, format!("{path} is {size} bytes, over the limit of {limit}"))
    }

    /// The same failure, as that of a flush; with its own words and cure.
    #[must_use]
    pub fn not_durable(self) -> Self {
        let help = "what was just written may not survive a power cut: look at the disk (dmesg), then try again";
        Self { kind: ErrorKind::NotDurable, help: self.help.or_else(|| Some(help.to_owned())), what: self.what }
    }

    /// The same error with the next command to type.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A system call failed on `path`.
    pub fn system(doing: &str, path: impl std::fmt::Display, errno: Errno) -> Self {
        let kind = match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
            Errno::NOSPC | Errno::DQUOT => ErrorKind::Full,
            Errno::NOTDIR | Errno::ISDIR | Errno::LOOP => ErrorKind::Damaged,
            Errno::IO | Errno::STALE | Errno::TIMEDOUT | Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                ErrorKind::Unavailable
            }
            // The errors of a file server that is away, or comes back.
            Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::NETUNREACH | Errno::NETRESET => {
                ErrorKind::Unavailable
            }
            Errno::NOTCONN | Errno::CONNRESET | Errno::CONNREFUSED | Errno::CONNABORTED | Errno::SHUTDOWN => {
                ErrorKind::Unavailable
            }
            Errno::BUSY | Errno::NOLCK | Errno::REMOTEIO | Errno::NOBUFS | Errno::INTR => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        };
        let error = Self::new(kind, format!("{doing} {path}: {}", describe(errno)));
        match errno {
            Errno::LOOP => error.with_help(format!("a symbolic link is no part of a bus: ls -la {path}")),
            Errno::NOTDIR => error.with_help(format!("a file stands where a folder should be: ls -la {path}")),
            Errno::ACCESS | Errno::PERM => {
                error.with_help("ls -ld shows who may write there; evbus doctor tells more of a bus")
            }
            Errno::ROFS => error.with_help("the file system is read-only: remount it, or name another bus"),
            Errno::NOSPC | Errno::DQUOT => error.with_help("make room on the disk, or: evbus prune --keep 7d"),
            Errno::MFILE => error.with_help("raise the limit of open files: ulimit -n"),
            _ => error,
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The next command to type, where there is one.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

fn describe(errno: Errno) -> String {
    system_words(&io::Error::from(errno))
}

/// The system's own words, without Rust's "(os error 2)".
pub(crate) fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
