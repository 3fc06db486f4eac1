//! An error of SQLite in one line, which says what to do next (sqlite.org, Result and Error Codes).

use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::{ErrorDetail, ErrorKind, StoreError};

/// `SQLITE_IOERR_FSYNC` and `SQLITE_IOERR_DIR_FSYNC`.
const NOT_FLUSHED: [i32; 2] = [10 | (4 << 8), 10 | (5 << 8)];

/// The error that a file holds no bus.
pub(super) fn no_bus(path: &Path) -> StoreError {
    StoreError::new(ErrorKind::NoBus, format!("{} holds no bus", path.display()))
}

/// A failure, as a store's error.
pub(crate) fn failed(path: &Path, doing: &str, error: &rusqlite::Error) -> StoreError {
    let (code, extended, said) = match error {
        rusqlite::Error::SqliteFailure(code, said) => {
            (code.code, code.extended_code, said.clone().unwrap_or_else(|| code.to_string()))
        }
        other => return StoreError::new(ErrorKind::Damaged, format!("{doing} {}: {other}", path.display())),
    };
    if said.starts_with("no such table: evbus_meta") {
        return no_bus(path);
    }
    let (kind, detail) = match code {
        _ if NOT_FLUSHED.contains(&extended) => (ErrorKind::NotDurable, Some(ErrorDetail::NotFlushed)),
        // Another writer is at it, perhaps a frozen one.
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (ErrorKind::Unavailable, None),
        ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::SchemaChanged => {
            (ErrorKind::Unavailable, None)
        }
        ErrorCode::DiskFull => (ErrorKind::Full, Some(ErrorDetail::NoSpace)),
        ErrorCode::PermissionDenied => (ErrorKind::Denied, Some(ErrorDetail::NoPermission)),
        ErrorCode::CannotOpen => (ErrorKind::Denied, Some(ErrorDetail::NoPermission)),
        ErrorCode::ReadOnly => (ErrorKind::Denied, Some(ErrorDetail::ReadOnly)),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => (ErrorKind::Damaged, None),
        _ => (ErrorKind::Other, None),
    };
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let error = StoreError::new(kind, format!("{doing} {}: {said}", path.display()));
    match detail {
        Some(detail) => error.with_detail(detail),
        None => error,
    }
}
