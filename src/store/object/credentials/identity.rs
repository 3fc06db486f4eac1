//! All inputs of the credentials, handed in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// All that credentials depend on.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CredentialInputs {
    /// The environment variables.
    pub vars: BTreeMap<OsString, OsString>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// The profile that the URL names, which comes before keys in the environment.
    pub profile: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
}

/// Secrets never reach a log.
impl fmt::Debug for CredentialInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialInputs(profile {:?}, region {:?})", self.profile, self.region)
    }
}

impl CredentialInputs {
    /// A variable, without the white space that an editor or a `$(cat file)` leaves around it; an
    /// empty variable counts as unset.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        let value = self.vars.get(OsStr::new(name))?.to_str()?;
        Some(trimmed(value)).filter(|value| !value.is_empty())
    }

    /// Resolves a path as the tools' files and variables write it.
    pub(in super::super) fn path(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }

    /// `~/.aws`.
    pub(super) fn aws_folder(&self) -> PathBuf {
        self.home.as_deref().unwrap_or_else(|| Path::new("/")).join(".aws")
    }
}

/// A text without white space and byte order marks around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || c.is_whitespace())
}
