//! Where the bus is, and what decided it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "postgres")]
use super::database;
use super::nearest::nearest;
#[cfg(feature = "postgres")]
use super::parts::without_password;
use super::parts::{Problem, percent_decoded};
use super::{Config, ConfigError, Environment, bucket};
use crate::config::ConfigDetail;
use crate::handler::WebhookTarget;
use crate::store::object::{Bucket, Kind};
#[cfg(feature = "postgres")]
use crate::store::postgres::Database;

/// An address as written, with its form recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A directory, absolute.
    Dir(PathBuf),
    /// A place in a bucket, and its URL as it was written.
    Bucket(Bucket, String),
    /// A schema in a PostgreSQL database, and its URL as it was written.
    #[cfg(feature = "postgres")]
    Postgres(Box<Database>, String),
    /// A SQLite file, absolute.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// The URL of an evbus server.
    Server(String),
    /// A name to look up in `[buses.NAME]`.
    Named(String),
}

/// Where the bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory, absolute.
    Dir(PathBuf),
    /// A place in a bucket, and its URL as it was written.
    Bucket(Bucket, String),
    /// A schema in a PostgreSQL database, and its URL as it was written.
    #[cfg(feature = "postgres")]
    Postgres(Box<Database>, String),
    /// A SQLite file, absolute.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// The URL of an evbus server, which alone reaches the bus.
    Server(String),
}

/// What decided where the bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--bus`.
    Flag,
    /// `EVBUS_URL`.
    EnvVar,
    /// `[bus] url` of this config file.
    Config(PathBuf),
    /// `[buses.NAME]` of this config file; the name may come from anywhere.
    Named(String, PathBuf),
    /// The default: the user's own bus, which is created when it is missing.
    Default,
}

/// The address of the bus to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusAddress {
    /// Where it is.
    pub location: Location,
    /// What decided it.
    pub origin: Origin,
    /// The address as text, for messages. A handler's `EVBUS_URL` is made from `location`, which
    /// need not be UTF-8.
    pub display: String,
}

impl BusAddress {
    /// Limits the time of every request to a bucket or a database.
    pub fn limit_timeout(&mut self, limit: Duration) {
        match &mut self.location {
            Location::Bucket(bucket, _) => bucket.limit_timeout(limit),
            #[cfg(feature = "postgres")]
            Location::Postgres(database, _) => database.limit_timeout(limit),
            #[cfg(feature = "sqlite")]
            Location::Sqlite(_) => {}
            Location::Dir(_) | Location::Server(_) => {}
        }
    }

    /// Decides where the bus is: `flag` (`--bus`), `EVBUS_URL`, `[bus] url`,
    /// `$XDG_DATA_HOME/evbus`.
    ///
    /// # Errors
    /// An address that cannot be parsed, a name that the config does not have, or an unknown kind
    /// of store. Whether a bus exists at the address is not checked.
    pub fn resolve(environment: &Environment, config: &Config, flag: Option<&OsStr>) -> Result<Self, ConfigError> {
        let in_environment = environment.vars.get(OsStr::new("EVBUS_URL")).map(OsString::as_os_str);
        let named = flag.map(|text| (text, Origin::Flag)).or(in_environment.map(|text| (text, Origin::EnvVar)));
        if let Some((_, origin)) = named.as_ref().filter(|(text, origin)| text.is_empty() && *origin == Origin::EnvVar)
        {
            // An empty variable, which a script forgot to fill, must not lead to another bus.
            return Err(problem_at(origin, ("it is empty".to_owned(), Some(ConfigDetail::EmptyVariable))));
        }
        let (address, origin) = match (named, &config.bus, &config.path) {
            (Some((text, origin)), ..) => {
                let address = Address::parse(text, environment, &environment.cwd);
                (address.map_err(|problem| problem_at(&origin, problem))?, origin)
            }
            (None, Some(address), Some(path)) => (address.clone(), Origin::Config(path.clone())),
            _ => (default_address(environment)?, Origin::Default),
        };
        match address {
            Address::Named(name) => Self::named(config, &name, origin),
            address => Self::at(&address, origin),
        }
    }

    /// The address of an outbox, which a `[relays.NAME]` of the config names.
    ///
    /// # Errors
    /// A name that the config does not have.
    pub fn of_relay(config: &Config, address: &Address) -> Result<Self, ConfigError> {
        let origin = Origin::Config(config.path.clone().unwrap_or_default());
        match address {
            Address::Named(name) => Self::named(config, name, origin),
            address => Self::at(address, origin),
        }
    }

    fn named(config: &Config, name: &str, asked_by: Origin) -> Result<Self, ConfigError> {
        match (config.buses.get(name), &config.path) {
            (Some(address), Some(path)) => Self::at(address, Origin::Named(name.to_owned(), path.clone())),
            _ => Err(problem_at(&asked_by, unknown_name(config, name))),
        }
    }

    fn at(address: &Address, origin: Origin) -> Result<Self, ConfigError> {
        match address {
            Address::Dir(path) => {
                let display = path.display().to_string();
                Ok(Self { location: Location::Dir(path.clone()), origin, display })
            }
            Address::Bucket(bucket, url) => {
                Ok(Self { location: Location::Bucket(bucket.clone(), url.clone()), origin, display: url.clone() })
            }
            #[cfg(feature = "postgres")]
            Address::Postgres(database, url) => {
                let location = Location::Postgres(database.clone(), url.clone());
                Ok(Self { location, origin, display: without_password(url) })
            }
            #[cfg(feature = "sqlite")]
            Address::Sqlite(path) => {
                let display = format!("sqlite://{}", path.display());
                Ok(Self { location: Location::Sqlite(path.clone()), origin, display })
            }
            Address::Server(url) => Ok(Self { location: Location::Server(url.clone()), origin, display: url.clone() }),
            Address::Named(name) => Err(problem_at(&origin, (format!("'{name}' is a name of a name"), None))),
        }
    }
}

impl fmt::Display for BusAddress {
    /// `/mnt/bus (EVBUS_URL)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.display, self.origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--bus"),
            Self::EnvVar => f.write_str("EVBUS_URL"),
            Self::Config(path) => write!(f, "{}", path.display()),
            Self::Named(name, path) => write!(f, "{} in {}", name.escape_debug(), path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Address {
    /// Recognises the form: a path has a `/` or is `.`, `..` or `~`; a URL has a scheme; anything
    /// else is a name. Relative paths start from `base`.
    pub(super) fn parse(text: &OsStr, environment: &Environment, base: &Path) -> Result<Self, Problem> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(("the address of the bus is empty or holds a NUL".to_owned(), Some(taken_for_name("evbus"))));
        }
        if let Some((scheme, rest)) = scheme(text) {
            let kind = match scheme.as_str() {
                "file" => return file_url(rest).map(|path| Self::Dir(environment.expand(&path, Path::new("/")))),
                "s3" => Kind::S3,
                "gs" => Kind::Gcs,
                "az" => Kind::Azure,
                "postgres" | "postgresql" => return postgres(text, rest, environment),
                "sqlite" => return sqlite(rest, environment),
                "http" | "https" => {
                    // The rest of the text may be a secret.
                    return match WebhookTarget::parse_url(&text.to_string_lossy()) {
                        Ok(url) if url.query().is_none() => Ok(Self::Server(url.to_string())),
                        Ok(_) => Err(("the URL of a server has no '?' part".to_owned(), None)),
                        // Why it is none speaks of webhooks, and is for them.
                        Err(_) => {
                            Err(("the URL of a server is https://HOST:PORT, without a password".to_owned(), None))
                        }
                    };
                }
                _ => {
                    let known = "known are a path, file:///path, s3://bucket, gs://bucket, az://container, postgres://host/database, \
                         sqlite:///file and https://server";
                    return Err((format!("'{scheme}://' is no store ({known})"), None));
                }
            };
            return Ok(Self::Bucket(bucket::parse(kind, rest, environment)?, text.to_string_lossy().into_owned()));
        }
        if let Some(scheme) = ["s3:/", "gs:/", "az:/"].into_iter().find(|scheme| bytes.starts_with(scheme.as_bytes())) {
            // The rest of the text may be a secret.
            return Err((format!("a bucket's URL begins with {scheme}/"), None));
        }
        if bytes.contains(&b'/') || [".", "..", "~"].iter().any(|word| text == *word) {
            return Ok(Self::Dir(environment.expand(Path::new(text), base)));
        }
        Ok(Self::Named(text.to_string_lossy().into_owned()))
    }

    /// Whether an address with this text would be parsed as a name.
    pub(super) fn is_name(text: &str) -> bool {
        !text.is_empty() && !text.contains(['/', '\0']) && ![".", "..", "~"].contains(&text)
    }
}

#[cfg(feature = "postgres")]
fn postgres(text: &OsStr, rest: &str, environment: &Environment) -> Result<Address, Problem> {
    let database = database::parse(rest, environment)?;
    Ok(Address::Postgres(Box::new(database), text.to_string_lossy().into_owned()))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &OsStr, _: &str, _: &Environment) -> Result<Address, Problem> {
    Err(("this evbus was built without PostgreSQL (the feature `postgres`)".to_owned(), None))
}

#[cfg(feature = "sqlite")]
fn sqlite(rest: &str, environment: &Environment) -> Result<Address, Problem> {
    if !rest.starts_with('/') || rest.ends_with('/') {
        return Err(("a sqlite:// URL names a file of this machine: sqlite:///path/bus.db".to_owned(), None));
    }
    let path = file_url(rest)?;
    Ok(Address::Sqlite(environment.expand(&path, Path::new("/"))))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &str, _: &Environment) -> Result<Address, Problem> {
    Err(("this evbus was built without SQLite (the feature `sqlite`)".to_owned(), None))
}

/// `s3` and `bucket/prefix` of `s3://bucket/prefix` (RFC 3986, 3.1).
fn scheme(text: &OsStr) -> Option<(String, &str)> {
    let (scheme, rest) = text.to_str()?.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// The path of `file:///path` or `file://localhost/path` (RFC 8089).
fn file_url(rest: &str) -> Result<PathBuf, Problem> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(("a file:// URL names a path of this machine: file:///path".to_owned(), None));
    }
    if path.contains(['?', '#']) {
        return Err(("the URL of a file ends with its path (write ? as %3F and # as %23)".to_owned(), None));
    }
    let bytes = percent_decoded(path)
        .ok_or(("the URL of a file has a % that no two hex digits follow, or %00".to_owned(), None))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn default_address(environment: &Environment) -> Result<Address, ConfigError> {
    let folder = environment.xdg("XDG_DATA_HOME", ".local/share").map(|data| data.join("evbus"));
    folder.map(Address::Dir).ok_or_else(|| {
        let what = "no bus was named, and without HOME there is no default one".to_owned();
        problem_at(&Origin::Default, (what, Some(ConfigDetail::NoHome)))
    })
}

fn unknown_name(config: &Config, name: &str) -> Problem {
    if let Some(sign) = ['@', '='].into_iter().find(|sign| name.contains(*sign)) {
        // The text before an '@', or behind a '=', may be a secret.
        let what = format!("no bus has this name, which has an '{sign}' in it");
        return (what, Some(ConfigDetail::CredentialsInName));
    }
    let known = || config.buses.keys().map(String::as_str);
    let hint = match (nearest(name, known()), &config.path) {
        (Some(near), _) => format!(" (did you mean '{}'?)", near.escape_debug()),
        (None, None) => " (there is no config file)".to_owned(),
        (None, Some(path)) if config.buses.is_empty() => format!(" ({} has no [buses.NAME])", path.display()),
        (None, Some(_)) => format!(" (known are {})", known().collect::<Vec<_>>().join(", ").escape_debug()),
    };
    (format!("no bus is named '{}'{hint}", name.escape_debug()), Some(taken_for_name(name)))
}

fn taken_for_name(name: &str) -> ConfigDetail {
    ConfigDetail::TakenForName { name: name.to_owned() }
}

fn problem_at(origin: &Origin, (what, detail): Problem) -> ConfigError {
    ConfigError::Address { origin: origin.to_string(), what, detail }
}
