//! A server's error in one line, which says what to do next (PostgreSQL, Appendix A, Error Codes).

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::database::Database;
use crate::store::{ErrorDetail, ErrorKind, StoreError, system_words};

/// What is wrong with a database, or with who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseProblem {
    /// No server answers at the address.
    NoServer,
    /// No database of this name.
    NoDatabase {
        /// The name.
        name: String,
    },
    /// The password is missing or wrong; and why a file of passwords was not used.
    Password {
        /// What is wrong with the file.
        unused_file: Option<String>,
    },
    /// The server lets this user not in from here.
    NotLetIn,
    /// There is no such role, or it may not log in.
    NoRole,
    /// The role's own limit for statements is too short.
    StatementTimeout,
    /// A pooler refuses the connection.
    Pooler,
    /// The role may not do it.
    NoPrivilege,
    /// It is a standby.
    Standby,
    /// The server has no TLS, or its certificate is not trusted.
    Tls,
    /// A file of certificates is not good.
    CertificateFile,
    /// The server's disk is full.
    DiskFull,
    /// The server takes no more connections.
    TooManyConnections,
    /// A commit waits for standbys that do not answer.
    NotReplicated,
    /// A text in a row is no UTF-8, which the database does not check.
    NotText,
}

/// When an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Before anything was written.
    Before,
    /// Of a statement that may have written.
    InStatement,
}

/// Whether a notice says that a commit is on this server, and not on its standbys.
pub(super) fn is_not_replicated(notice: &DbError) -> bool {
    notice.severity() == "WARNING" && notice.message().contains("synchronous replication")
}

/// The error of such a commit: it may yet be lost by a failover.
pub(super) fn not_replicated(database: &Database, doing: &str) -> StoreError {
    let server = database.server();
    let what = format!("cannot {doing}: {server} has given up its wait for synchronous replication");
    StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::Database(DatabaseProblem::NotReplicated))
}

/// The error that there are no tables of a bus.
pub(super) fn no_bus(database: &Database) -> StoreError {
    let name = database.config.get_dbname().unwrap_or_default();
    let what = format!("the database {name} at {} has no bus in the schema {}", database.server(), database.schema);
    StoreError::new(ErrorKind::NoBus, what)
}

/// A failure, as a store's error.
pub(super) fn failed(database: &Database, doing: &str, error: &Error, doubt: Doubt) -> StoreError {
    let Some(server) = error.as_db_error() else { return without_code(database, doing, error, doubt) };
    let code = server.code();
    if matches!(*code, SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME) {
        return no_bus(database);
    }
    let (kind, problem) = kind(database, code, server.message(), doubt);
    let said = one_line(server.message());
    let error =
        StoreError::new(kind, format!("cannot {doing}: {said} ({}, SQLSTATE {})", database.server(), code.code()));
    match problem {
        Some(problem) => error.with_detail(ErrorDetail::Database(problem)),
        None => error,
    }
}

fn kind(database: &Database, code: &SqlState, message: &str, doubt: Doubt) -> (ErrorKind, Option<DatabaseProblem>) {
    use DatabaseProblem as Problem;
    let class = &code.code()[..2];
    match *code {
        _ if message.contains("synchronous replication") => (ErrorKind::Unavailable, Some(Problem::NotReplicated)),
        SqlState::INVALID_CATALOG_NAME => {
            let name = database.config.get_dbname().unwrap_or_default().to_owned();
            (ErrorKind::NoBus, Some(Problem::NoDatabase { name }))
        }
        SqlState::INVALID_PASSWORD => (ErrorKind::Denied, Some(Problem::Password { unused_file: unused(database) })),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.starts_with("role ") => {
            (ErrorKind::Denied, Some(Problem::NoRole))
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (ErrorKind::Denied, Some(Problem::NotLetIn)),
        SqlState::QUERY_CANCELED if message.contains("statement timeout") => {
            (ErrorKind::Unavailable, Some(Problem::StatementTimeout))
        }
        // A pooler refuses what it does not know, or whom.
        SqlState::PROTOCOL_VIOLATION if doubt == Doubt::Before => (ErrorKind::Unfit, Some(Problem::Pooler)),
        SqlState::INSUFFICIENT_PRIVILEGE => (ErrorKind::Denied, Some(Problem::NoPrivilege)),
        // A role whose transactions are serializable cannot even ask.
        SqlState::FEATURE_NOT_SUPPORTED if message.contains("hot standby") => {
            (ErrorKind::Unavailable, Some(Problem::Standby))
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => (ErrorKind::Unavailable, Some(Problem::Standby)),
        SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER => {
            (ErrorKind::Other, Some(Problem::NotText))
        }
        SqlState::DISK_FULL => (ErrorKind::Full, Some(Problem::DiskFull)),
        SqlState::TOO_MANY_CONNECTIONS => (ErrorKind::Unavailable, Some(Problem::TooManyConnections)),
        // Rolled back, cut off, out of something, shutting down, starting: try again, or read back.
        _ if matches!(class, "40" | "57" | "53" | "08" | "25" | "55") => (ErrorKind::Unavailable, None),
        // Two writers of one row, of which the other has won: it is read back.
        _ if class == "23" => (ErrorKind::Unavailable, None),
        // A pooler's own errors, and the server's that are none of the statement's.
        _ if matches!(class, "58" | "XX") => (ErrorKind::Unavailable, None),
        _ if doubt == Doubt::Before => (ErrorKind::Unfit, None),
        _ => (ErrorKind::Other, None),
    }
}

fn unused(database: &Database) -> Option<String> {
    database.unused_passwords.clone()
}

/// An error that the server has not told: of the connection, of TLS, of the settings.
fn without_code(database: &Database, doing: &str, error: &Error, doubt: Doubt) -> StoreError {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let said = match cause.downcast_ref::<std::io::Error>() {
        Some(system) if system.get_ref().is_none() => system_words(system),
        _ => one_line(&cause.to_string()),
    };
    let is_about = |words: &[&str]| words.iter().any(|word| said.to_lowercase().contains(word));
    let problem = match doubt {
        _ if is_about(&["certificate", "tls"]) => Some(DatabaseProblem::Tls),
        Doubt::Before if is_about(&["password"]) => Some(DatabaseProblem::Password { unused_file: unused(database) }),
        Doubt::Before => Some(DatabaseProblem::NoServer),
        Doubt::InStatement => None,
    };
    let kind = match problem {
        Some(DatabaseProblem::Password { .. }) => ErrorKind::Denied,
        Some(DatabaseProblem::Tls) => ErrorKind::Unfit,
        _ => ErrorKind::Unavailable,
    };
    let what = format!("cannot {doing}: the PostgreSQL server {}: {said}", database.server());
    let error = StoreError::new(kind, what);
    match problem {
        Some(problem) => error.with_detail(ErrorDetail::Database(problem)),
        None => error,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
