//! The environment of the process, handed in, so that tests can bring their own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

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
    /// The working directory; `.` where it has been deleted, so that absolute paths still work.
    pub cwd: PathBuf,
    /// The effective user: whose `./evbus.toml` is trusted, besides root's.
    pub uid: u32,
    /// The folder of the system's settings, `/etc`.
    pub etc: PathBuf,
    /// The present, which `from = "7d"` counts from.
    pub now: EventTime,
    /// The local time zone; without one, the system's, looked up only when a time needs it.
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

    /// A variable; one that is set to nothing counts as not set.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The time zone that times without one are in.
    pub fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or_else(TimeZone::system)
    }

    /// The time zone that `TZ` names, if nobody knows it: times are UTC then, which its user does not expect.
    pub fn unknown_zone(&self) -> Option<&str> {
        let name = self.var("TZ")?.to_str()?;
        let plain = name.trim_start_matches(':');
        let known = plain.starts_with('/') || TimeZone::get(plain).is_ok() || TimeZone::posix(plain).is_ok();
        (!known).then_some(name)
    }

    /// A folder of the XDG Base Directory Specification: `$variable`, else `~/fallback`. As the specification
    /// demands, a relative `$variable` is ignored.
    pub fn xdg(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        absolute_path(self.vars.get(OsStr::new(variable))).or_else(|| Some(self.home.as_ref()?.join(fallback)))
    }

    /// `path` from `base`, with `~/` as the home folder and without `.` in it. `..` stays: what it means depends on
    /// symbolic links. Without a home folder `~` is a name like any other.
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
pub fn default_source() -> String {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host: String = host.chars().filter(plain).collect();
    if host.is_empty() { "//localhost".to_owned() } else { format!("//{host}") }
}
