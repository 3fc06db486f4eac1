//! What can go wrong on a store, grouped by what the caller does next.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

pub use detail::{BucketProblem, ErrorDetail, Obstruction};

mod detail;

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

/// An operation on a store failed. Displays, with its cause, as a fragment that fits after "cannot
/// emit: "; [`Error::source`] is the system's or the client library's own error.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    detail: Option<ErrorDetail>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of a kind, with a message of one line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, source: None }
    }

    /// The error that the document at `key` cannot be read.
    pub fn unreadable(key: &str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::new(ErrorKind::Damaged, format!("{key} cannot be read: {source}"))
            .with_detail(ErrorDetail::Unreadable { key: key.to_owned() })
            .with_source(source)
    }

    /// The error that the object at `path` is larger than anything that evbus puts there, in bytes.
    pub fn too_large(path: impl Display, size: u64, limit: usize) -> Self {
        Self::new(ErrorKind::Damaged, format!("{path} is {size} bytes, over the limit of {limit}"))
    }

    /// The same failure as that of a flush, with its own message.
    #[must_use]
    pub fn not_durable(self) -> Self {
        let detail = self.detail.or(Some(ErrorDetail::NotFlushed));
        Self { kind: ErrorKind::NotDurable, detail, ..self }
    }

    /// The same error with what decides its cure.
    #[must_use]
    pub fn with_detail(mut self, detail: ErrorDetail) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The same error with the one that has caused it, which the message repeats.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same failure of an operation that is given up: the store did not recover in time.
    #[must_use]
    pub fn given_up(self) -> Self {
        Self { kind: ErrorKind::Unavailable, ..self }
    }

    /// A system call failed on `path`.
    pub fn system(doing: &str, path: impl Display, errno: Errno) -> Self {
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
        let error = Self::new(kind, format!("{doing} {path}: {}", describe(errno))).with_source(io::Error::from(errno));
        let detail = match errno {
            Errno::LOOP => ErrorDetail::SymbolicLink { path: path.to_string() },
            Errno::NOTDIR => ErrorDetail::NotAFolder { path: path.to_string() },
            Errno::ACCESS | Errno::PERM => ErrorDetail::NoPermission,
            Errno::ROFS => ErrorDetail::ReadOnly,
            Errno::NOSPC | Errno::DQUOT => ErrorDetail::NoSpace,
            Errno::MFILE => ErrorDetail::TooManyOpenFiles,
            _ => return error,
        };
        error.with_detail(detail)
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What exactly is wrong, where that decides the cure.
    pub fn detail(&self) -> Option<&ErrorDetail> {
        self.detail.as_ref()
    }
}

/// Equal when they say the same; what has caused them is not compared.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.message, &self.detail) == (other.kind, &other.message, &other.detail)
    }
}

impl Eq for StoreError {}

impl Display for StoreError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
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
