//! Errors in the settings. The user can correct all of them, so all end with exit code 2.

use std::io;
use std::path::PathBuf;

use crate::store::BucketProblem;
use crate::store::object::Kind;

/// Settings that cannot be used. The text is one line.
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
        /// What exactly is wrong, where that decides the cure.
        detail: Option<ConfigDetail>,
    },
    /// A watcher that the config does not have.
    #[error("{what}")]
    NoWatcher {
        /// The name, and the nearest one that exists.
        what: String,
        /// What there is.
        detail: ConfigDetail,
    },
}

/// What exactly is wrong, where that decides what a user can do about it. The command line turns each
/// into its hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigDetail {
    /// A path without a `/` was taken for a name.
    TakenForName {
        /// The name.
        name: String,
    },
    /// `EVBUS_URL` is empty.
    EmptyVariable,
    /// There is no default bus without `HOME`.
    NoHome,
    /// Credentials, perhaps, in the name of a bus.
    CredentialsInName,
    /// Credentials, perhaps, in the URL of a bucket.
    CredentialsInUrl(Kind),
    /// The parameter `endpoint` of a URL.
    EndpointParameter,
    /// An endpoint that an environment variable gives.
    EndpointVariable {
        /// The variable.
        name: String,
    },
    /// The emulator without its address.
    Emulator,
    /// The credentials of the bucket that the address names.
    Bucket(Kind, BucketProblem),
    /// There is no config file.
    NoFile,
    /// The config file has no watchers.
    NoWatchers,
    /// The config file has other watchers.
    Watchers {
        /// Their names.
        names: Vec<String>,
    },
}

impl ConfigError {
    /// What exactly is wrong, where that decides the cure.
    pub fn detail(&self) -> Option<&ConfigDetail> {
        match self {
            Self::Address { detail, .. } => detail.as_ref(),
            Self::NoWatcher { detail, .. } => Some(detail),
            Self::InFile { .. } | Self::Missing { .. } | Self::Unreadable { .. } => None,
        }
    }
}
