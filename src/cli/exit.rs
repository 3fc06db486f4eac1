//! Exit codes: public, documented, tested.

use std::process::ExitCode;

/// How evbus ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done, also when there was nothing to do, and when a pipe was closed by its reader.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// Wrong usage or config.
    Usage = 2,
    /// A threshold was crossed (`drain --strict`, `status --max-lag`, `--max-dead`).
    Threshold = 3,
    /// Try again later: the store cannot be reached or did not answer in time, or no process is to be had
    /// (EX_TEMPFAIL, sysexits.h).
    TryAgain = 75,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
