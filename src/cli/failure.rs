//! How a failure is shown: one line that says what failed, on what, and why; a line `help: …` with
//! the next command where there is one; and the exit code for the error's kind.

use std::io;

use super::colour::{BAD, NOTE};
use super::exit::Code;
use super::help_line::HelpLine;
use super::output;
use super::times::{TimeError, UnitError};
use crate::bus::group_name::GroupNameError;
use crate::config::{ConfigError, FilterError};
use crate::event::{ConditionError, EventError, PatternError};
use crate::remote::RemoteError;
use crate::store::{ErrorKind, StoreError};

mod clap_errors;

/// The reason for an exit code other than done.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
    help: Option<HelpLine>,
    /// Whether the text is printed unchanged: `--help`, `--version`.
    verbatim: bool,
    /// Whether the cause can go away without a change of the command.
    is_temporary: bool,
}

impl Failure {
    /// A mistake in the command or the config.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: Code::Usage, message: message.into(), help: None, verbatim: false, is_temporary: false }
    }

    /// Any other failure.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: Code::Failed, message: message.into(), help: None, verbatim: false, is_temporary: false }
    }

    /// Sets the help line.
    pub(super) fn help(mut self, help: impl Into<HelpLine>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the help line unless there is one.
    pub(super) fn or_help(mut self, help: impl Into<HelpLine>) -> Self {
        self.help.get_or_insert_with(|| help.into());
        self
    }

    /// Puts a context before the message.
    pub(super) fn context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The exit code for a worker: where the cause can go away, a supervisor should try again.
    pub(super) fn of_a_worker(self) -> Self {
        let code = if self.is_temporary { Code::TryAgain } else { self.code };
        Self { code, ..self }
    }

    /// The message, in one line.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The exit code.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// Prints the failure and returns the exit code.
    pub(super) fn report(self) -> Code {
        if self.verbatim {
            if self.code == Code::Done {
                // A closed pipe is no failure of --help either.
                let _ = output::Out::new().text(&self.message);
            } else {
                output::note_verbatim(&self.message);
            }
            return self.code;
        }
        if !self.message.is_empty() {
            output::note_labelled(BAD, "error", &self.message);
        }
        if let Some(help) = &self.help {
            output::note_labelled(NOTE, "help", &help.to_string());
        }
        self.code
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let is_temporary = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Full | ErrorKind::NotDurable);
        Self {
            code: error.kind().into(),
            message: error.to_string(),
            help: HelpLine::of(&error),
            verbatim: false,
            is_temporary,
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let failure = Self::failed(error.to_string());
        match error.status() {
            _ if error.is_temporary() => Self { code: Code::TryAgain, ..failure },
            Some(401) => failure.help("EVBUS_TOKEN holds the token"),
            _ => failure,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { help: HelpLine::of_config(&error), ..Self::usage(error.to_string()) }
    }
}

/// The error of a write to stdout. A pipe that its reader has closed is success.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: Code::Done, message: String::new(), help: None, verbatim: false, is_temporary: false };
        }
        Self::failed(format!("cannot write the output: {error}"))
    }
}

macro_rules! usage_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::usage(error.to_string())
            }
        })*
    };
}

usage_errors!(PatternError, ConditionError, FilterError, GroupNameError, TimeError, UnitError, EventError);
