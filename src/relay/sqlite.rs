//! An outbox in a SQLite file, as a rule the application's own.
//!
//! Rows are read without a lock and deleted in a short transaction, so that the application never waits for a bus. Of
//! several relays one is active: the one that holds the lock on a file beside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use rustix::fs::inotify::WatchFlags;
use rustix::fs::{FlockOperation, flock};

use super::columns::quoted;
use super::{Columns, NoEvent, Outbox, OutboxCounts, ParkedRow, Row, Rows, not_deleted, source_of};
use crate::clock::Fut;
use crate::store::inotify::InotifyHints;
use crate::store::sqlite::{connect, failure_of, identity_of, schema};
use crate::store::{ErrorDetail, ErrorKind, Hints, StoreError, StoreResult};

/// How long the application's own transaction is waited for: the workers of this process wait, too. The next pass tries
/// again.
const BUSY: Duration = Duration::from_millis(200);

/// An outbox in a SQLite file.
pub struct SqliteOutbox {
    path: PathBuf,
    /// Which file the connection is to.
    identity: Option<String>,
    connection: Connection,
    table: String,
    /// The table's name as it is shown, by which its parked rows are known.
    shown: String,
    /// All of its columns.
    all: Vec<String>,
    source: String,
    columns: Columns,
    lock: Option<File>,
    /// Notices of writes into the file's log, while there is one.
    hints: Option<InotifyHints>,
}

impl SqliteOutbox {
    /// The outbox in a table; none: `evbus_outbox`.
    ///
    /// # Errors
    /// There is no such file, table or column.
    pub fn open(path: &Path, table: Option<&str>, columns: Columns) -> StoreResult<Self> {
        let identity = identity_of(path);
        let connection = plain(connect(path, BUSY)?);
        let shown = table.unwrap_or("evbus_outbox");
        let mut outbox = Self {
            shown: shown.to_owned(),
            all: Vec::new(),
            source: source_of(&path.file_stem().unwrap_or_default().to_string_lossy(), shown),
            path: path.to_owned(),
            identity,
            connection,
            table: quoted(shown),
            columns,
            lock: None,
            hints: None,
        };
        let probe = format!("SELECT {} FROM {} LIMIT 0", quoted(outbox.columns.place()), outbox.table);
        let probe = outbox.connection.prepare(&probe).map(drop);
        if let Err(error) = probe {
            let (path, column) = (path.display(), outbox.columns.place());
            let what = format!("{path} has no table {shown} with a column '{column}': {error}");
            return Err(StoreError::new(ErrorKind::NoBus, what).with_detail(ErrorDetail::NoOutbox));
        }
        let all = outbox.connection.prepare(&format!("SELECT * FROM {} LIMIT 0", outbox.table));
        let all = all.map(|statement| statement.column_names().map(str::to_owned).collect());
        outbox.all = all.map_err(|error| outbox.failed("look at the outbox in", &error))?;
        outbox.check_columns()?;
        Ok(outbox)
    }

    /// Every column that is mapped must be there, and the one that rows are deleted by must tell them apart.
    fn check_columns(&self) -> StoreResult<()> {
        let of = &self.columns;
        let optional = [&of.n, &of.source, &of.subject, &of.key, &of.data, &of.attr, &of.time];
        let mapped = optional.into_iter().flatten().chain(&of.type_).chain([&of.id]);
        let has = |name: &String| self.all.iter().any(|column| column.eq_ignore_ascii_case(name));
        if let Some(missing) = mapped.into_iter().find(|name| !has(name)) {
            let what = format!("{} has no column '{missing}' in its table {}", self.path.display(), self.shown);
            return Err(StoreError::new(ErrorKind::NoBus, what).with_detail(ErrorDetail::NoOutbox));
        }
        let unique = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE AND pk = 1 \
                      AND (SELECT count(*) FROM pragma_table_info(?1) WHERE pk > 0) = 1) \
                      OR EXISTS (SELECT 1 FROM pragma_index_list(?1) l WHERE l.\"unique\" = 1 AND l.partial = 0 \
                      AND (SELECT group_concat(name) FROM pragma_index_info(l.name)) = ?2 COLLATE NOCASE \
                      AND EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE AND \"notnull\" = 1))";
        let is_unique = self.connection.query_row(unique, [&self.shown, of.place()], |row| row.get(0));
        match is_unique.map_err(|error| self.failed("look at the outbox in", &error))? {
            true => Ok(()),
            false => {
                let (column, table) = (of.place(), &self.shown);
                let what =
                    format!("the column '{column}' of {table}, by which rows are deleted, is not unique and NOT NULL");
                Err(StoreError::new(ErrorKind::Unfit, what))
            }
        }
    }

    /// Connects anew if another file lies at the path now.
    fn check_file(&mut self) -> StoreResult<()> {
        let identity = identity_of(&self.path);
        if identity == self.identity {
            return Ok(());
        }
        self.connection = plain(connect(&self.path, BUSY)?);
        (self.identity, self.hints, self.lock) = (identity, None, None);
        Err(StoreError::new(ErrorKind::Unavailable, format!("{} was replaced", self.path.display())))
    }

    fn failed(&self, doing: &str, error: &rusqlite::Error) -> StoreError {
        failure_of(&self.path, doing, error)
    }

    /// Whether this relay is the active one; it stays so until it ends.
    fn is_active(&mut self) -> StoreResult<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push("-relay");
        let made = File::options().create(true).truncate(false).write(true).open(&name);
        let file = made.map_err(|error| {
            StoreError::new(ErrorKind::Denied, format!("cannot make {}: {error}", Path::new(&name).display()))
        })?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        self.lock = Some(file);
        Ok(true)
    }

    fn found(&mut self, most: usize) -> StoreResult<Rows> {
        self.check_file()?;
        if !self.is_active()? {
            return Ok(Rows::OtherRelay);
        }
        let text = |column: &Option<String>| match column {
            Some(column) => format!("CAST(o.{} AS BLOB)", quoted(column)),
            None => "NULL".to_owned(),
        };
        let of = &self.columns;
        // An empty part makes no type.
        let part = |column: &String| format!("nullif(CAST(o.{} AS TEXT), '')", quoted(column));
        let type_: Vec<String> = of.type_.iter().map(part).collect();
        let place = quoted(of.place());
        let sql = format!(
            "SELECT quote(o.{place}), {}, CAST({} AS BLOB), {}, {}, {}, {}, {}, {} FROM {} AS o ORDER BY o.{place} LIMIT {most}",
            text(&Some(of.id.clone())),
            type_.join(" || '.' || "),
            text(&of.source),
            text(&of.subject),
            text(&of.key),
            text(&of.data),
            text(&of.attr),
            text(&of.time),
            self.table
        );
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| {
                let mut unreadable = None;
                let mut text = |at| -> rusqlite::Result<Option<String>> {
                    let bytes: Option<Vec<u8>> = row.get(at)?;
                    Ok(bytes.map(|bytes| {
                        String::from_utf8(bytes).unwrap_or_else(|error| {
                            unreadable = Some("it has a text that is not UTF-8".to_owned());
                            String::from_utf8_lossy(error.as_bytes()).into_owned()
                        })
                    }))
                };
                let mut found = Row {
                    place: String::new(),
                    id: text(1)?,
                    type_: text(2)?,
                    source: text(3)?,
                    subject: text(4)?,
                    key: text(5)?,
                    data: text(6)?,
                    attr: text(7)?,
                    time: text(8)?,
                    unreadable: None,
                };
                found.place = row.get(0)?;
                found.unreadable = unreadable;
                Ok(found)
            })?;
            rows.collect()
        };
        let found = |rows: Vec<Row>| {
            let has_more = rows.len() == most;
            Rows::Found(rows, has_more)
        };
        read().map(found).map_err(|error| self.failed("read the outbox in", &error))
    }

    /// Deletes and parks; returns how many rows were deleted. Fewer than were to be: nothing is changed.
    fn settled(&self, moved: &[String], parked: &[NoEvent]) -> rusqlite::Result<usize> {
        let transaction = rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        if !parked.is_empty() {
            transaction.execute_batch(schema::PARKED)?;
            for row in parked {
                // The place is a literal that SQLite's quote() has made.
                let park = format!(
                    "INSERT INTO evbus_outbox_parked (of, row_, reason) SELECT ?1, {}, ?2 FROM {} AS o WHERE o.{} = {}",
                    self.whole(),
                    self.table,
                    quoted(self.columns.place()),
                    row.place
                );
                transaction.execute(&park, [&self.shown, &row.reason])?;
            }
        }
        let places: Vec<&str> =
            moved.iter().map(String::as_str).chain(parked.iter().map(|row| row.place.as_str())).collect();
        let place = quoted(self.columns.place());
        let delete = format!("DELETE FROM {} WHERE {place} IN ({})", self.table, places.join(", "));
        let deleted = transaction.execute(&delete, [])?;
        if deleted == places.len() {
            transaction.commit()?;
        }
        Ok(deleted)
    }

    fn put_back(&self) -> StoreResult<u64> {
        let failed = |error: rusqlite::Error| self.failed("put parked rows back in", &error);
        let mut back = 0;
        let names: Vec<String> = self.all.iter().map(|column| quoted(column)).collect();
        let values: Vec<String> =
            self.all.iter().map(|column| format!("json_extract(row_, {})", path_of(column))).collect();
        // From the table itself: the row may hold text that is no UTF-8.
        let which = "FROM evbus_outbox_parked WHERE n = CAST(?1 AS INTEGER)";
        let sql = format!("INSERT INTO {} ({}) SELECT {} {which}", self.table, names.join(", "), values.join(", "));
        for parked in self.all_parked()? {
            let transaction = rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
                .map_err(failed)?;
            back += transaction.execute(&sql, [&parked.number]).map_err(failed)? as u64;
            transaction.execute(&format!("DELETE {which}"), [&parked.number]).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        Ok(back)
    }

    fn counted(&self) -> rusqlite::Result<OutboxCounts> {
        let count = |sql: &str| {
            let count: rusqlite::Result<i64> = self.connection.query_row(sql, [], |row| row.get(0));
            count.map(|count| u64::try_from(count).unwrap_or_default())
        };
        let waiting = count(&format!("SELECT count(*) FROM {}", self.table))?;
        let has_parked: bool = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'evbus_outbox_parked')",
            [],
            |row| row.get(0),
        )?;
        let parked = match has_parked {
            true => count(&format!("SELECT count(*) FROM evbus_outbox_parked WHERE of = {}", literal(&self.shown)))?,
            false => 0,
        };
        Ok(OutboxCounts { waiting, parked })
    }

    fn all_parked(&self) -> StoreResult<Vec<ParkedRow>> {
        let read = || -> rusqlite::Result<Vec<ParkedRow>> {
            self.connection.execute_batch(schema::PARKED)?;
            let mut statement = self.connection.prepare(
                "SELECT CAST(n AS TEXT), row_, reason FROM evbus_outbox_parked \
                     WHERE of = ?1 ORDER BY n LIMIT 10000",
            )?;
            let rows = statement.query_map([&self.shown], |row| {
                let row_ = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
                Ok(ParkedRow { number: row.get(0)?, row: row_, reason: row.get(2)? })
            })?;
            rows.collect()
        };
        read().map_err(|error| self.failed("read the parked rows of", &error))
    }

    /// The whole row as JSON, as an expression.
    fn whole(&self) -> String {
        let pair = |column: &String| {
            let (name, column) = (literal(column), quoted(column));
            format!("{name}, CASE typeof(o.{column}) WHEN 'blob' THEN CAST(o.{column} AS TEXT) ELSE o.{column} END")
        };
        format!("json_object({})", self.all.iter().map(pair).collect::<Vec<_>>().join(", "))
    }
}

/// A connection to which what stands in double quotes is a column, and never a text.
fn plain(connection: Connection) -> Connection {
    for quirk in [DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_DQS_DDL] {
        let _ = connection.set_db_config(quirk, false);
    }
    connection
}

/// A text as SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The path of a member, as SQL.
fn path_of(column: &str) -> String {
    literal(&format!("$.\"{column}\""))
}

impl Outbox for SqliteOutbox {
    fn rows(&mut self, most: usize) -> Fut<'_, StoreResult<Rows>> {
        let found = self.found(most);
        Box::pin(std::future::ready(found))
    }

    fn settle<'a>(&'a mut self, moved: &'a [String], parked: &'a [NoEvent]) -> Fut<'a, StoreResult<()>> {
        let asked = moved.len() + parked.len();
        let settled = match asked {
            0 => Ok(0),
            _ => self.check_file().and_then(|()| {
                self.settled(moved, parked).map_err(|error| self.failed("delete moved rows in", &error))
            }),
        };
        Box::pin(std::future::ready(settled.and_then(|deleted| match deleted == asked {
            true => Ok(()),
            false => Err(not_deleted(&self.shown, asked, deleted)),
        })))
    }

    fn give_up(&mut self) -> Fut<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn counts(&mut self) -> Fut<'_, StoreResult<OutboxCounts>> {
        let counted = self.counted().map_err(|error| self.failed("count the rows of the outbox in", &error));
        Box::pin(std::future::ready(counted))
    }

    fn parked(&mut self) -> Fut<'_, StoreResult<Vec<ParkedRow>>> {
        let parked = self.all_parked();
        Box::pin(std::future::ready(parked))
    }

    fn redrive(&mut self) -> Fut<'_, StoreResult<u64>> {
        let back = self.put_back();
        Box::pin(std::future::ready(back))
    }

    /// The log of the application's writes.
    fn changed(&mut self) -> Fut<'_, ()> {
        if self.hints.is_none() {
            let mut log = self.path.as_os_str().to_owned();
            log.push("-wal");
            self.hints = InotifyHints::watch(Path::new(&log), WatchFlags::MODIFY, None).ok();
        }
        Box::pin(async move {
            match &mut self.hints {
                Some(hints) => hints.next().await,
                None => std::future::pending().await,
            }
        })
    }

    fn default_source(&self) -> String {
        self.source.clone()
    }
}
