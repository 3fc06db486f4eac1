//! Finds the config file: the one that was named, else the first that exists.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{ConfigError, Environment};

/// The file's name, in the working directory and in the user's and the system's folders.
const FILE_NAME: &str = "evbus.toml";

/// The end of a warning about a file that is not trusted.
const NAME_IT: &str = " (name it with --config to use it)";

/// A config file that has been read but not parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// The absolute path.
    pub path: PathBuf,
    /// The file's name in errors: as the user wrote it.
    pub shown: String,
    /// The content.
    pub text: Vec<u8>,
}

/// The outcome of the search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundConfig {
    /// The file to use, if there is one.
    pub file: Option<ConfigFile>,
    /// Why files were ignored, one line each.
    pub warnings: Vec<String>,
}

/// The result for a path in a folder where other users may be able to write.
enum LocalConfig {
    Absent,
    Refused(String),
    Read(Vec<u8>),
}

/// Searches for the config file.
pub(super) fn find(environment: &Environment, explicit: Option<&Path>) -> Result<FoundConfig, ConfigError> {
    let from_environment = environment.var("EVBUS_CONFIG").map(Path::new);
    let named = explicit.map(|path| (path, "--config")).or(from_environment.map(|path| (path, "EVBUS_CONFIG")));
    match named {
        Some((path, named_by)) => {
            Ok(FoundConfig { file: Some(read_named(environment, path, named_by)?), warnings: Vec::new() })
        }
        None => search(environment),
    }
}

fn read_named(environment: &Environment, path: &Path, named_by: &'static str) -> Result<ConfigFile, ConfigError> {
    let full = environment.cwd.join(path);
    match fs::read(&full) {
        Ok(text) => Ok(ConfigFile { path: full, shown: path.display().to_string(), text }),
        Err(error) if is_absent(&error) => Err(ConfigError::Missing { path: path.to_owned(), named_by }),
        Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
}

fn search(environment: &Environment) -> Result<FoundConfig, ConfigError> {
    let mut found = FoundConfig::default();
    let user = environment.xdg("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("evbus").join(FILE_NAME));
    let here = (environment.cwd.join(FILE_NAME), format!("./{FILE_NAME}"));
    let elsewhere = user.into_iter().chain([environment.etc.join("evbus").join(FILE_NAME)]);
    let elsewhere = elsewhere.map(|path| (path.clone(), path.display().to_string()));
    for (path, shown) in std::iter::once(here).chain(elsewhere) {
        match read_trusted(&path, environment.uid) {
            Ok(LocalConfig::Read(text)) => {
                let shown = shown.trim_start_matches("./").to_owned();
                found.file = Some(ConfigFile { path, shown, text });
                break;
            }
            Ok(LocalConfig::Refused(why)) => found.warnings.push(format!("ignoring {shown}: {why}")),
            Ok(LocalConfig::Absent) => {}
            Err(source) => {
                let path = shown.trim_start_matches("./").into();
                return Err(ConfigError::Unreadable { path, source });
            }
        }
    }
    Ok(found)
}

/// Reads the file only if no other user but root can write it or put a link there: evbus runs its
/// commands.
fn read_trusted(path: &Path, uid: u32) -> io::Result<LocalConfig> {
    if let Ok(metadata) = fs::symlink_metadata(path)
        && metadata.is_symlink()
        && !is_trusted(metadata.uid(), uid)
    {
        return Ok(LocalConfig::Refused(format!(
            "it is a link of user {}'s, not yours or root's{NAME_IT}",
            metadata.uid()
        )));
    }
    let mut file = match open_without_waiting(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(LocalConfig::Absent),
        Err(error) => match fs::metadata(path) {
            Ok(metadata) if !is_trusted(metadata.uid(), uid) => {
                return Ok(LocalConfig::Refused(foreign(metadata.uid())));
            }
            _ => return Err(error),
        },
    };
    // Read from the open file: the path may lead to another file by now.
    let metadata = file.metadata()?;
    if !is_trusted(metadata.uid(), uid) {
        return Ok(LocalConfig::Refused(foreign(metadata.uid())));
    }
    if !metadata.is_file() {
        return Ok(LocalConfig::Refused("it is not a file".to_owned()));
    }
    if let Some(who) = other_writers(metadata.mode(), metadata.uid(), metadata.gid()) {
        return Ok(LocalConfig::Refused(format!("{who} may write it: chmod go-w{NAME_IT}")));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(LocalConfig::Read(text))
}

/// Which other users can write a file. A group with the number of its user has no other members
/// (user private groups).
fn other_writers(mode: u32, user: u32, group: u32) -> Option<&'static str> {
    match (mode & 0o002 != 0, mode & 0o020 != 0 && group != user) {
        (true, _) => Some("every user"),
        (false, true) => Some("its group"),
        (false, false) => None,
    }
}

/// Does not block: a named pipe without a writer must not hold up every command.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn is_trusted(owner: u32, me: u32) -> bool {
    owner == me || owner == 0
}

fn foreign(owner: u32) -> String {
    format!("it belongs to user {owner}, not to you or root{NAME_IT}")
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl ConfigFile {
    /// The folder from which relative paths in the file start.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new(OsStr::new("/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_writable_by_others_names_its_writers() {
        assert_eq!(other_writers(0o100_644, 1000, 100), None);
        assert_eq!(other_writers(0o100_664, 1000, 1000), None, "a user private group");
        assert_eq!(other_writers(0o100_664, 1000, 100), Some("its group"));
        assert_eq!(other_writers(0o100_666, 0, 0), Some("every user"));
    }

    #[test]
    fn files_of_the_user_and_of_root_are_trusted() {
        for (owner, me, trusted) in
            [(1000, 1000, true), (0, 1000, true), (1001, 1000, false), (0, 0, true), (1000, 0, false)]
        {
            assert_eq!(is_trusted(owner, me), trusted, "{owner} {me}");
        }
    }
}
