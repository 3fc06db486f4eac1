//! Exit codes: public, documented, tested.

use std::process::ExitCode;

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

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
