//! What can be wrong with the settings. All of it is the user's to mend, so all of it ends with exit code 2.

use std::io;
use std::path::PathBuf;

/// Settings that cannot be used. Its text is one line; [`ConfigError::help`] is the next thing to type.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Something in the config file, at a line of it.
    #[error("{file}:{line}: {what}")]
    InFile {
        /// The file, as the user knows it.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong, with its key and the cure.
        what: String,
        /// What to do next.
        help: Option<String>,
    },
    /// A config file that was named, but is not there.
    #[error("no config file at {} ({named_by})", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// `--config` or `EVBUS_CONFIG`.
        named_by: &'static str,
    },
    /// A config file that is there, but cannot be read.
    #[error("cannot read the config file {}: {source}", .path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An address of the bus that leads nowhere.
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
        /// Which, and the nearest there is.
        what: String,
        /// What to do next.
        help: Option<String>,
    },
}

impl ConfigError {
    /// What to type next, without the word `help:`.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::InFile { help, .. } | Self::Address { help, .. } | Self::NoWatcher { help, .. } => help.clone(),
            Self::Missing { named_by: "EVBUS_CONFIG", .. } => Some("unset EVBUS_CONFIG, or write the file".to_owned()),
            Self::Missing { .. } | Self::Unreadable { .. } => None,
        }
    }
}
