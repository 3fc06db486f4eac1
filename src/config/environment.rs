//! The environment of the process, passed in so that tests can replace it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use jiff::tz::TimeZone;

use crate::clock::{Clock, SystemClock};
use crate::event::EventTime;

/// Everything outside the command line that settings depend on.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The environment variables.
    pub vars: BTreeMap<OsString, OsString>,
    /// `HOME`, if it is an absolute path.
    pub home: Option<PathBuf>,
    /// The working directory; `.` if it has been deleted, so that absolute paths still work.
    pub cwd: PathBuf,
    /// The effective user. A `./evbus.toml` of this user or of root is trusted.
    pub uid: u32,
    /// The folder of the system's settings, `/etc`.
    pub etc: PathBuf,
    /// The present time, from which `from = "7d"` counts back.
    pub now: EventTime,
    /// The local time zone. If none, it is the system's, looked up when a time first needs it.
    pub zone: Option<TimeZone>,
}

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        let vars: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        Self {
            home: absolute_path(vars.get(OsStr::new("HOME"))),
            vars,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            uid: rustix::process::geteuid().as_raw(),
            etc: PathBuf::from("/etc"),
            now: SystemClock.now(),
            zone: None,
        }
    }

    /// A variable; an empty one counts as not set.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The time zone for times that name none.
    pub fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or_else(TimeZone::system)
    }

    /// The value of `TZ` if it is unknown: times are then UTC, which the user does not expect.
    pub fn unknown_zone(&self) -> Option<&str> {
        let name = self.var("TZ")?.to_str()?;
        let plain = name.trim_start_matches(':');
        let known = plain.starts_with('/') || TimeZone::get(plain).is_ok() || TimeZone::posix(plain).is_ok();
        (!known).then_some(name)
    }

    /// A folder of the XDG Base Directory Specification: `$variable`, else `~/fallback`. The
    /// specification demands that a relative `$variable` is ignored.
    pub fn xdg(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        absolute_path(self.vars.get(OsStr::new(variable))).or_else(|| Some(self.home.as_ref()?.join(fallback)))
    }

    /// Resolves `path` from `base`: `~/` becomes the home folder and `.` is removed. `..` stays,
    /// because its meaning depends on symbolic links. Without a home folder `~` is a name like any
    /// other.
    pub fn expand(&self, path: &Path, base: &Path) -> PathBuf {
        let full = match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => base.join(path),
        };
        full.components().filter(|part| *part != Component::CurDir).collect()
    }
}

fn absolute_path(value: Option<&OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// This host, as a URI reference.
pub fn default_source() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let name = rustix::system::uname();
        let host = name.nodename().to_string_lossy();
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let host: String = host.chars().filter(plain).collect();
        if host.is_empty() { "//localhost".to_owned() } else { format!("//{host}") }
    })
}
