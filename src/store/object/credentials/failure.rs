//! Why there are no credentials.

use std::error::Error;
use std::fmt;

use crate::store::BucketProblem;

/// Why there are no credentials, as a user reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsFailure {
    /// Whether it may pass in a moment.
    pub passing: bool,
    /// What is wrong, naming the file, program or server that it is about.
    pub what: String,
    /// What exactly is wrong, where that decides the cure.
    pub problem: Option<BucketProblem>,
}

impl CredentialsFailure {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { passing: false, what: what.into(), problem: None }
    }

    pub(super) fn passing(what: impl Into<String>) -> Self {
        Self { passing: true, ..Self::of(what) }
    }

    pub(super) fn because(mut self, problem: BucketProblem) -> Self {
        self.problem = Some(problem);
        self
    }

    /// The failure inside an error of the crate, however deep.
    pub fn within(error: &object_store::Error) -> Option<&Self> {
        let mut error: &(dyn Error + 'static) = error;
        loop {
            if let Some(failure) = error.downcast_ref::<Self>() {
                return Some(failure);
            }
            error = error.source()?;
        }
    }
}

impl fmt::Display for CredentialsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for CredentialsFailure {}
