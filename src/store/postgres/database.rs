//! Where a bus in a PostgreSQL database is, and how to reach it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;

/// How long one statement may take. With its repeats that is well below a lease.
pub(super) const TIMEOUT: Duration = Duration::from_secs(8);

/// How much TLS is asked for, in libpq's words (PostgreSQL, 34.19.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// None.
    Disable,
    /// Where the server has it.
    Prefer,
    /// Always, with any certificate.
    Require,
    /// With a certificate that is signed by a known authority.
    VerifyCa,
    /// With one that also names the host.
    VerifyFull,
}

/// The settings of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// How much is asked for.
    pub mode: SslMode,
    /// The certificates of the authorities, in PEM; none: those of the system.
    pub root: Option<PathBuf>,
    /// The certificate to show and its key, both in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A schema in a PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// Hosts, user, database and password.
    pub config: Config,
    /// The schema that the tables are in.
    pub schema: String,
    /// TLS.
    pub ssl: Ssl,
    /// Where to listen for notifications, if not at the same place.
    pub listen: Option<Config>,
    /// The file of passwords that could not be used, and why.
    pub unused_passwords: Option<String>,
    /// The longest that one statement may take, if less than usual.
    pub timeout: Option<Duration>,
}

impl Database {
    /// From now on no statement takes longer than this, if this is less than usual.
    pub fn limit_timeout(&mut self, limit: Duration) {
        self.timeout = Some(self.timeout.map_or(limit, |known| known.min(limit)));
    }

    pub(super) fn timeout(&self) -> Duration {
        // A time-out of zero does not mean that there is no limit.
        self.timeout.map_or(TIMEOUT, |limit| TIMEOUT.min(limit.max(Duration::from_millis(100))))
    }

    /// The servers, for messages: `db.example.com:5432`.
    pub fn server(&self) -> String {
        servers(&self.config)
    }
}

/// The servers that a configuration names.
pub(super) fn servers(config: &Config) -> String {
    use tokio_postgres::config::Host;
    let port = |at: usize| config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
    let host = |(at, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(at)),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(at)),
    };
    config.get_hosts().iter().enumerate().map(host).collect::<Vec<_>>().join(", ")
}

/// Passwords never reach a log.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} schema {}", self.server(), self.config.get_dbname(), self.schema)
    }
}
