//! Exit codes: public, documented, tested.

use std::process::ExitCode;

use crate::store::ErrorKind;

/// How evbus ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Success, also if there was nothing to do or the reader closed the pipe.
    Done = 0,
    /// Failure.
    Failed = 1,
    /// Wrong usage or config.
    Usage = 2,
    /// A threshold was crossed (`drain --strict`, `status --max-lag`, `--max-dead`).
    Threshold = 3,
    /// Try again later: the store cannot be reached or did not answer in time, or no process is
    /// available (EX_TEMPFAIL, sysexits.h).
    TryAgain = 75,
}

impl Code {
    /// All codes, in order.
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Usage, Self::Threshold, Self::TryAgain];

    /// What the code means, as the manual says it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Success, also if there was nothing to do or the reader closed the pipe.",
            Self::Failed => "Failure.",
            Self::Usage => "Wrong usage or config.",
            Self::Threshold => "A threshold was crossed: drain --strict, status --max-lag, status --max-dead.",
            Self::TryAgain => {
                "Try again later: the store cannot be reached or did not answer in time, or no process is available."
            }
        }
    }
}

/// The exit code for an error of the store. That of a worker is `Failure::of_a_worker`, which tries
/// again later where the cause can go away.
impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable => Self::TryAgain,
            ErrorKind::NoBus => Self::Usage,
            ErrorKind::Denied
            | ErrorKind::Full
            | ErrorKind::NotDurable
            | ErrorKind::Damaged
            | ErrorKind::Unfit
            | ErrorKind::Other => Self::Failed,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
