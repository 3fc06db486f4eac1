//! Settings that are secrets: told where they are, not what they are, and read when they are needed,
//! so that one that is replaced needs no restart. None is printed.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The largest file of a secret, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// The largest file of certificates or keys, in bytes.
pub(crate) const PEM_BYTES: u64 = 1 << 20;

/// What others than the owner and the group may do with a file, and the group's right to write.
const OPEN_MODE: u32 = 0o027;

/// Where a secret is: written `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In this environment variable.
    Env(String),
    /// In this file, alone; white space around it is not part of it.
    File(PathBuf),
}

/// A secret that cannot be had. The text never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{of} {problem}")]
pub struct SecretError {
    of: String,
    problem: String,
}

impl SecretSource {
    /// Reads `env:NAME` or `file:PATH`; none if the text begins with neither. `absolute` makes a path
    /// absolute.
    pub fn parse(text: &str, absolute: impl FnOnce(&Path) -> PathBuf) -> Option<Self> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Some(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Some(Self::File(absolute(Path::new(path)))),
            _ => None,
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// It is not there, is empty or not text, or its file may be read by everyone.
    pub fn read(&self) -> Result<String, SecretError> {
        let failed = |problem: String| SecretError { of: self.to_string(), problem };
        let text = match self {
            Self::Env(name) => std::env::var(name).map_err(|error| {
                failed(match error {
                    std::env::VarError::NotPresent => "is not set".to_owned(),
                    std::env::VarError::NotUnicode(_) => "is not UTF-8 text".to_owned(),
                })
            })?,
            Self::File(path) => read_file(path).map_err(failed)?,
        };
        match text.trim() {
            "" => Err(failed("is empty".to_owned())),
            secret => Ok(secret.to_owned()),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = read_private(path, MOST_BYTES)?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// Reads a file that only its owner, and perhaps its group, may read.
///
/// # Errors
/// What is wrong with it, to be read after its name.
pub(crate) fn read_private(path: &Path, most_bytes: u64) -> Result<Vec<u8>, String> {
    let (file, metadata) = open(path, most_bytes)?;
    if metadata.mode() & OPEN_MODE != 0 {
        return Err(format!("is open to others (mode {:04o}): chmod 600 {}", metadata.mode() & 0o7777, path.display()));
    }
    read_all(file)
}

/// Reads a file.
///
/// # Errors
/// What is wrong with it, to be read after its name.
pub(crate) fn read_public(path: &Path, most_bytes: u64) -> Result<Vec<u8>, String> {
    read_all(open(path, most_bytes)?.0)
}

fn open(path: &Path, most_bytes: u64) -> Result<(File, Metadata), String> {
    // A pipe that nothing is written to must not hold up the process.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is no file".to_owned());
    }
    if metadata.len() > most_bytes {
        return Err(format!("has {} bytes, over the limit of {most_bytes}", metadata.len()));
    }
    Ok((file, metadata))
}

fn read_all(mut file: File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn unreadable(error: std::io::Error) -> String {
    format!("cannot be read: {}", crate::store::system_words(&error))
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Whether two texts of bytes are equal; how long it takes tells only whether their lengths are.
#[cfg(feature = "cli")]
pub(crate) fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

/// A setting that may be a secret: a text, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaybeSecret {
    /// As it was given.
    Plain(String),
    /// Elsewhere.
    Secret(SecretSource),
}

impl MaybeSecret {
    /// Reads `env:NAME` or `file:PATH`; any other text is the setting itself.
    pub fn parse(text: &str, absolute: impl FnOnce(&Path) -> PathBuf) -> Self {
        SecretSource::parse(text, absolute).map_or_else(|| Self::Plain(text.to_owned()), Self::Secret)
    }

    /// The setting.
    ///
    /// # Errors
    /// As [`SecretSource::read`].
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Secret(source) => source.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_two_forms_are_read() {
        let source = |text| SecretSource::parse(text, |path| Path::new("/etc").join(path));
        assert_eq!(source("env:TOKEN"), Some(SecretSource::Env("TOKEN".to_owned())));
        assert_eq!(source("file:token"), Some(SecretSource::File("/etc/token".into())));
        assert_eq!(source("file:/run/token").map(|source| source.to_string()), Some("file:/run/token".to_owned()));
        for other in ["TOKEN", "env:", "file:", "https://h", "envy:X"] {
            assert_eq!(source(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, " s3cret\n").unwrap();
        let source = SecretSource::File(path.clone());
        for (mode, is_good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o601, false)]
        {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = source.read();
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            match read {
                Ok(secret) => assert_eq!(secret, "s3cret"),
                Err(error) => assert!(error.to_string().contains("chmod 600") && !error.to_string().contains("s3cret")),
            }
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let said = |source: SecretSource| source.read().unwrap_err().to_string();
        assert_eq!(said(SecretSource::Env("EVBUS_NO_SUCH_SECRET".to_owned())), "env:EVBUS_NO_SUCH_SECRET is not set");
        let missing = folder.path().join("missing");
        assert_eq!(
            said(SecretSource::File(missing.clone())),
            format!("file:{} cannot be read: no such file or directory", missing.display())
        );
        assert!(said(SecretSource::File(folder.path().into())).ends_with(" is no file"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(said(SecretSource::File(pipe)).ends_with(" is no file"), "and is not waited for");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        std::fs::set_permissions(&empty, Permissions::from_mode(0o600)).unwrap();
        assert!(said(SecretSource::File(empty)).ends_with(" is empty"));
    }
}
