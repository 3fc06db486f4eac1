//! The file: opened, known again, flushed, and the doorbell beside it.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::{failed, no_bus};
use super::{SqliteOptions, schema};
use crate::store::{ErrorDetail, ErrorKind, NoHints, StoreError, StoreResult, mount, system_words};

/// How long another writer is waited for: less than a lease, after which a worker is taken for dead.
const BUSY: Duration = Duration::from_secs(5);

/// A connection, and which file it is to.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The file's own path: its log lies beside it, and not beside a link to it.
    pub(super) real: PathBuf,
    pub(super) identity: String,
}

/// Which file lies at a path: device and inode.
pub(crate) fn identity(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    Some(format!("{:x}-{:x}", found.dev(), found.ino()))
}

/// A connection to a file that is there.
pub(crate) fn connect(path: &Path, busy: Duration) -> StoreResult<Connection> {
    connect_or_make(path, busy, false)
}

fn connect_or_make(path: &Path, busy: Duration, make: bool) -> StoreResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let flags = if make { flags | OpenFlags::SQLITE_OPEN_CREATE } else { flags };
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(path, "open", &error))?;
    connection.busy_timeout(busy).map_err(|error| failed(path, "open", &error))?;
    Ok(connection)
}

impl Opened {
    pub(super) fn open(path: &Path, options: &SqliteOptions, make: bool) -> StoreResult<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        if make {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::new(ErrorKind::Denied, format!("make {}: {}", folder.display(), system_words(&error)))
                    .with_detail(ErrorDetail::NoPermission)
            })?;
        }
        mount::refuse_unlocked(folder)?;
        let given = path;
        if make {
            let made = File::options().create(true).truncate(false).write(true).open(path);
            made.map_err(|error| failed_to_open(path, &error))?;
        }
        let real = std::fs::canonicalize(path).map_err(|error| failed_to_open(path, &error))?;
        let path = real.as_path();
        mount::refuse_unlocked(path.parent().unwrap_or(Path::new("/")))?;
        let before = identity(path);
        let busy = options.timeout.map_or(BUSY, |limit| BUSY.min(limit));
        let connection = connect_or_make(path, busy, make)?;
        let at = |error| failed(path, "open", &error);
        if make {
            // The mode of the log stays with the file; no transaction may be open.
            connection.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT", schema::DEFINITION)).map_err(at)?;
        }
        // SQLite's own constants: FULL is 2, NORMAL is 1.
        let level = if options.is_durable { 2 } else { 1 };
        connection.pragma_update(None, "synchronous", level).map_err(at)?;
        let format: i64 = match connection.query_row("SELECT format FROM evbus_meta", [], |row| row.get(0)) {
            Ok(format) => format,
            Err(rusqlite::Error::QueryReturnedNoRows) => return Err(no_bus(path)),
            Err(error) => return Err(at(error)),
        };
        if format > schema::FORMAT {
            let what = format!("{} has format {format}, and this evbus knows {}", path.display(), schema::FORMAT);
            return Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::NewerFormat));
        }
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(at)?;
        if !mode.eq_ignore_ascii_case("wal") {
            let what = format!("{} has no write-ahead log (journal_mode is {mode})", path.display());
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        match identity(path) {
            Some(identity) if before.as_ref() == Some(&identity) && self::identity(given) == before => {
                Ok(Self { connection, identity, real })
            }
            _ => Err(StoreError::new(ErrorKind::Unavailable, format!("{} is being replaced", path.display()))),
        }
    }
}

fn failed_to_open(path: &Path, error: &std::io::Error) -> StoreError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => return no_bus(path),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        std::io::ErrorKind::StorageFull => ErrorKind::Full,
        _ => ErrorKind::Other,
    };
    StoreError::new(kind, format!("open {}: {}", path.display(), system_words(error)))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Flushes the write-ahead log: all that is in it by now outlasts a power cut.
pub(super) fn flush(path: &Path) -> StoreResult<()> {
    let log = beside(path, "-wal");
    match File::open(&log).and_then(|log| log.sync_data()) {
        Ok(()) => Ok(()),
        // It has been taken into the file, flushed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let what = format!("flush {}: {}", log.display(), system_words(&error));
            Err(StoreError::new(ErrorKind::NotDurable, what).not_durable())
        }
    }
}

/// The file system's time of the last write into the log, in microseconds since the Unix epoch; 0 if it is not known.
pub(super) fn now_micros(path: &Path) -> i64 {
    let written = std::fs::metadata(beside(path, "-wal")).ok();
    written.map_or(0, |found| found.mtime().saturating_mul(1_000_000).saturating_add(found.mtime_nsec() / 1_000))
}

/// The doorbell: a file beside the database, one byte of which is written after each commit of events.
pub(super) struct Bell {
    database: PathBuf,
    path: PathBuf,
}

impl Bell {
    pub(super) fn of(database: &Path) -> Self {
        Self { database: database.to_owned(), path: beside(database, "-bell") }
    }

    /// The file that it is for.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Rings, if there is a bell: where no worker has hung one, none listens.
    pub(super) fn ring(&self) {
        // It is only a hint.
        if let Ok(file) = File::options().write(true).open(&self.path) {
            let _ = file.write_at(b"!", 0);
        }
    }

    /// The bell's path; makes it if there is none.
    pub(super) fn hang(&self) -> Result<&Path, NoHints> {
        let made = File::options().create(true).truncate(false).write(true).open(&self.path);
        made.map_err(|error| NoHints(format!("{}: {}", self.path.display(), system_words(&error))))?;
        Ok(&self.path)
    }
}
