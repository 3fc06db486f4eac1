//! Errors in the settings. The user can correct all of them, so all end with exit code 2.

use std::io;
use std::path::PathBuf;

/// Settings that cannot be used. The text is one line; [`ConfigError::help`] is the next command.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A mistake at a line of the config file.
    #[error("{file}:{line}: {what}")]
    InFile {
        /// The file, as the user named it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with its key and the cure.
        what: String,
        /// The cure, if it is not in `what`.
        help: Option<String>,
    },
    /// A config file that was named but does not exist.
    #[error("no config file at {} ({named_by})", .path.display())]
    Missing {
        /// The path that was named.
        path: PathBuf,
        /// `--config` or `EVBUS_CONFIG`.
        named_by: &'static str,
    },
    /// A config file that exists but cannot be read.
    #[error("cannot read the config file {}: {source}", .path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the read.
        source: io::Error,
    },
    /// An address of the bus that cannot be used.
    #[error("{origin}: {what}")]
    Address {
        /// `--bus`, `EVBUS_URL`, …
        origin: String,
        /// What is wrong with it.
        what: String,
        /// What to type instead.
        help: Option<String>,
    },
    /// A watcher that the config does not have.
    #[error("{what}")]
    NoWatcher {
        /// The name, and the nearest one that exists.
        what: String,
        /// The cure.
        help: Option<String>,
    },
}

impl ConfigError {
    /// The next command to type, without the word `help:`.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::InFile { help, .. } | Self::Address { help, .. } | Self::NoWatcher { help, .. } => help.clone(),
            Self::Missing { named_by: "EVBUS_CONFIG", .. } => Some("unset EVBUS_CONFIG, or write the file".to_owned()),
            Self::Missing { .. } | Self::Unreadable { .. } => None,
        }
    }
}
