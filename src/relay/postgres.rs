//! An outbox in PostgreSQL.
//!
//! A pass is one transaction, which holds an advisory lock: of several relays of one table one is active. It is the relay's
//! own, so that neither the application nor another relay waits for it.

use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::columns::quoted;
use super::{Columns, NoEvent, Outbox, OutboxCounts, ParkedRow, Row, Rows, not_deleted, source_of};
use crate::clock::{Clock, Fut};
use crate::store::postgres::{Database, DatabaseProblem, Link, schema};
use crate::store::{ErrorDetail, ErrorKind, StoreError, StoreResult};

/// A look at the whole table that takes less than this costs nothing.
const QUICK: Duration = Duration::from_millis(20);

/// After this time a pass looks at the whole table again, and not only at what lies behind the last row that it moved.
const WHOLE_EVERY: Duration = Duration::from_secs(1);

type SqlResult<T> = Result<T, tokio_postgres::Error>;

/// An outbox in a PostgreSQL database.
pub struct PostgresOutbox {
    link: Link,
    clock: Rc<dyn Clock>,
    table: String,
    /// The bus's schema, quoted: rows are parked there.
    schema: String,
    /// The table's schema and name, by which its lock and its parked rows are known.
    shown: String,
    /// Whether the column of times is one of instants, and not of texts.
    is_instant: bool,
    source: String,
    columns: Columns,
    /// The type of the column that rows are ordered by.
    place_type: String,
    /// The greatest number of a row that was moved: what lies before it is looked at less often, because deleted rows
    /// stay there for as long as an old snapshot is open.
    floor: Option<i64>,
    whole_at: Duration,
    whole_took: Duration,
}

impl PostgresOutbox {
    /// The outbox in a table; none: in the bus's schema.
    ///
    /// # Errors
    /// The server does not answer, or there is no such table or column.
    pub async fn open(
        database: Database,
        table: Option<&str>,
        columns: Columns,
        clock: Rc<dyn Clock>,
    ) -> StoreResult<Self> {
        let schema = schema::quoted(&database.schema);
        let shown = table.map_or_else(|| format!("{}.outbox", database.schema), str::to_owned);
        let table = table.map_or_else(|| format!("{schema}.outbox"), quoted);
        let source = source_of(database.config.get_dbname().unwrap_or_default(), &shown);
        let link = Link::new(database, Rc::clone(&clock));
        let asked = link
            .query(
                "look at the outbox",
                "SELECT n.nspname || '.' || c.relname, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                 EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid \
                 AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum), \
                 (SELECT format_type(t.atttypid, NULL) FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = $3) \
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped",
                &[
                    (&table, Type::TEXT),
                    (&columns.place(), Type::TEXT),
                    (&columns.time.as_deref().unwrap_or_default(), Type::TEXT),
                ],
            )
            .await?;
        let Some(found) = asked.first() else {
            let what = format!("there is no table {shown} with a column '{}' in the database", columns.place());
            return Err(StoreError::new(ErrorKind::NoBus, what).with_detail(ErrorDetail::NoOutbox));
        };
        let strange = |error: tokio_postgres::Error| StoreError::new(ErrorKind::Damaged, format!("{shown}: {error}"));
        let (name, place_type): (String, String) =
            (found.try_get(0).map_err(strange)?, found.try_get(1).map_err(strange)?);
        let (not_null, is_unique): (bool, bool) =
            (found.try_get(2).map_err(strange)?, found.try_get(3).map_err(strange)?);
        let time_type: Option<String> = found.try_get(4).map_err(strange)?;
        if !not_null || !is_unique {
            // A row without it could not be deleted; and with a row others would be that were not read.
            let what = format!(
                "the column '{}' of {shown}, by which rows are deleted, is not NOT NULL with a unique index of its own",
                columns.place()
            );
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        let is_instant = time_type.is_some_and(|of| of.starts_with("timestamp"));
        let outbox = Self {
            link,
            whole_at: clock.elapsed(),
            whole_took: Duration::ZERO,
            clock,
            schema,
            shown: name,
            is_instant,
            table,
            source,
            columns,
            place_type,
            floor: None,
        };
        // Every column that is mapped must be there.
        outbox.link.query("look at the outbox", &outbox.select(None, 0, true), &[]).await?;
        Ok(outbox)
    }

    /// Whether rows are ordered by a whole number.
    fn is_numbered(&self) -> bool {
        self.columns.n.is_some() && ["bigint", "integer", "smallint"].contains(&self.place_type.as_str())
    }

    /// The rows of a table from a number on, as SQL: whole, or only what they are deleted by.
    fn select(&self, floor: Option<i64>, most: usize, is_whole: bool) -> String {
        let place = quoted(self.columns.place());
        let from = floor.map_or("true".to_owned(), |floor| format!("o.{place} > {floor}"));
        self.select_where(&from, most, is_whole)
    }

    fn select_where(&self, condition: &str, most: usize, is_whole: bool) -> String {
        let text = |column: &Option<String>| match column {
            Some(column) => format!("{}::text", quoted(column)),
            None => "NULL::text".to_owned(),
        };
        let time = match &self.columns.time {
            Some(column) if !self.is_instant => format!("{}::text", quoted(column)),
            Some(column) => format!(
                "to_char({}::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                quoted(column)
            ),
            None => "NULL::text".to_owned(),
        };
        // An empty part makes no type.
        let part = |column: &String| format!("nullif({}::text, '')", quoted(column));
        let type_: Vec<String> = self.columns.type_.iter().map(part).collect();
        let (place, of) = (quoted(self.columns.place()), &self.columns);
        let events = [text(&Some(of.id.clone())), type_.join(" || '.' || "), text(&of.source), text(&of.subject)];
        let events = events.into_iter().chain([text(&of.key), text(&of.data), text(&of.attr), time]);
        let events: Vec<String> = match is_whole {
            true => events.collect(),
            false => events.map(|_| "NULL::text".to_owned()).collect(),
        };
        // Without the table's name the order would be that of the column as text, which has the same name.
        format!(
            "SELECT {place}::text, {} FROM {} o WHERE {condition} ORDER BY o.{place} LIMIT {most}",
            events.join(", "),
            self.table
        )
    }

    async fn found(&mut self, most: usize) -> StoreResult<Rows> {
        let now = self.clock.elapsed();
        let is_whole = self.floor.is_none() || self.whole_took < QUICK || now >= self.whole_at;
        let floor = self.floor.filter(|_| !is_whole);
        // An empty table costs one statement, and no transaction.
        let (place, table) = (quoted(self.columns.place()), &self.table);
        let from = floor.map_or(String::new(), |floor| format!("WHERE {place} > {floor}"));
        let any = format!("SELECT 1 FROM (SELECT {place} FROM {table} {from} ORDER BY {place} LIMIT 1) AS any_row");
        let is_empty = self.link.query("look at the outbox", &any, &[]).await?.is_empty();
        if is_whole {
            // To look at many deleted rows takes long: at most a tenth of the time.
            self.whole_took = self.clock.elapsed().saturating_sub(now);
            self.whole_at = now + (self.whole_took * 10).max(WHOLE_EVERY);
        }
        if is_empty {
            return Ok(Rows::Found(Vec::new(), false));
        }
        self.read(floor, most).await
    }

    /// Reads rows in a transaction that stays open. If one of them cannot be read as text, it reads fewer, down to one by
    /// itself.
    async fn read(&self, floor: Option<i64>, most: usize) -> StoreResult<Rows> {
        let mut most = most;
        while most > 1 {
            match self.begin_with(&self.select(floor, most, true), most).await {
                Err(error) if is_no_text(&error) => self.link.end("ROLLBACK").await?,
                found => return found,
            }
            most /= 2;
        }
        self.read_one(floor).await
    }

    /// Reads one row: first what it is deleted by, and then this very row whole, if it can be.
    async fn read_one(&self, floor: Option<i64>) -> StoreResult<Rows> {
        let (place, has_more) = match self.begin_with(&self.select(floor, 1, false), 1).await? {
            Rows::Found(mut rows, has_more) => match rows.pop() {
                Some(row) => (row.place, has_more),
                None => return Ok(Rows::Found(Vec::new(), false)),
            },
            Rows::OtherRelay => return Ok(Rows::OtherRelay),
        };
        self.link.execute("mark a place in the transaction", "SAVEPOINT one").await?;
        let condition = format!("o.{} = $1::text::{}", quoted(self.columns.place()), self.place_type);
        match self.link.query("read a row", &self.select_where(&condition, 1, true), &[(&place, Type::TEXT)]).await {
            Ok(rows) => Ok(Rows::Found(rows_of(&rows)?, has_more)),
            Err(error) if is_no_text(&error) => {
                self.link.execute("go back in the transaction", "ROLLBACK TO SAVEPOINT one").await?;
                Ok(Rows::Found(vec![Row { place, unreadable: Some(error.to_string()), ..Row::default() }], has_more))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins the pass's transaction, and reads rows in it if this relay is the active one.
    async fn begin_with(&self, select: &str, most: usize) -> StoreResult<Rows> {
        // The server must not end the pass because the bus is slow.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                     SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '4s'";
        self.link.begin(begin).await?;
        let name = format!("evbus relay {}", self.shown);
        let lock = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))";
        let locked = self.link.query("take the relay's lock", lock, &[(&name, Type::TEXT)]).await?;
        if locked.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
            self.link.end("ROLLBACK").await?;
            return Ok(Rows::OtherRelay);
        }
        // Rows that the application holds are passed over, and what is deleted is what was read.
        let sql = format!("{select} FOR UPDATE OF o SKIP LOCKED");
        let rows = rows_of(&self.link.query("read the outbox", &sql, &[]).await?)?;
        if rows.is_empty() {
            self.link.end("COMMIT").await?;
        }
        let has_more = rows.len() == most;
        Ok(Rows::Found(rows, has_more))
    }

    /// The parked rows; each is had by an expression, and made of its value.
    async fn parked_as(
        &self,
        row: &str,
        whole: fn(&tokio_postgres::Row) -> SqlResult<String>,
    ) -> StoreResult<Vec<ParkedRow>> {
        let sql = format!(
            "SELECT {row}, p.n::text, p.reason FROM {}.outbox_parked p WHERE p.of = $1 ORDER BY p.n LIMIT 10000",
            self.schema
        );
        let rows = self.link.query("read the parked rows", &sql, &[(&self.shown, Type::TEXT)]).await?;
        let row = |row: &tokio_postgres::Row| -> SqlResult<ParkedRow> {
            Ok(ParkedRow { row: whole(row)?, number: row.try_get(1)?, reason: row.try_get(2)? })
        };
        let rows: SqlResult<Vec<ParkedRow>> = rows.iter().map(row).collect();
        rows.map_err(|error| StoreError::new(ErrorKind::Damaged, format!("a row cannot be read: {error}")))
    }

    /// Whether the table of parked rows is there.
    async fn has_parked(&self) -> StoreResult<bool> {
        let table = format!("{}.outbox_parked", self.schema);
        let there = "SELECT to_regclass($1) IS NOT NULL";
        let there = self.link.query("look for parked rows", there, &[(&table, Type::TEXT)]).await?;
        Ok(there.first().and_then(|row| row.try_get(0).ok()) == Some(true))
    }
}

fn rows_of(rows: &[tokio_postgres::Row]) -> StoreResult<Vec<Row>> {
    let row = |row: &tokio_postgres::Row| -> SqlResult<Row> {
        Ok(Row {
            place: row.try_get::<_, Option<String>>(0)?.unwrap_or_default(),
            id: row.try_get(1)?,
            type_: row.try_get(2)?,
            source: row.try_get(3)?,
            subject: row.try_get(4)?,
            key: row.try_get(5)?,
            data: row.try_get(6)?,
            attr: row.try_get(7)?,
            time: row.try_get(8)?,
            unreadable: None,
        })
    };
    let rows: SqlResult<Vec<Row>> = rows.iter().map(row).collect();
    rows.map_err(|error| StoreError::new(ErrorKind::Damaged, format!("a row cannot be read: {error}")))
}

/// Whether a row has a text that is no UTF-8, as a database with the encoding `SQL_ASCII` takes it.
fn is_no_text(error: &StoreError) -> bool {
    matches!(error.detail(), Some(ErrorDetail::Database(DatabaseProblem::NotText)))
}

impl Outbox for PostgresOutbox {
    fn rows(&mut self, most: usize) -> Fut<'_, StoreResult<Rows>> {
        Box::pin(async move {
            let found = self.found(most).await;
            if found.is_err() {
                self.give_up().await;
            }
            found
        })
    }

    fn settle<'a>(&'a mut self, moved: &'a [String], parked: &'a [NoEvent]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            if moved.is_empty() && parked.is_empty() {
                return Ok(());
            }
            let places: Vec<&str> =
                moved.iter().map(String::as_str).chain(parked.iter().map(|row| row.place.as_str())).collect();
            // Another program's database may have no bus.
            if !parked.is_empty() && !self.has_parked().await? {
                self.link.execute("make the table of parked rows", &schema::parked(&self.schema)).await?;
            }
            let (place, of) = (quoted(self.columns.place()), &self.place_type);
            let park = format!(
                "INSERT INTO {}.outbox_parked (of, row_, reason) SELECT $1, row_to_json(o), $2 FROM {} o \
                 WHERE o.{place} = $3::text::{of}",
                self.schema, self.table
            );
            for row in parked {
                let values =
                    [(&self.shown as _, Type::TEXT), (&row.reason as _, Type::TEXT), (&row.place as _, Type::TEXT)];
                self.link.query("park a row", &park, &values).await?;
            }
            let sql = format!("DELETE FROM {} WHERE {place} = ANY ($1::text[]::{of}[]) RETURNING 1", self.table);
            let deleted = self.link.query("delete moved rows", &sql, &[(&places, Type::TEXT_ARRAY)]).await?;
            if deleted.len() < places.len() {
                return Err(not_deleted(&self.shown, places.len(), deleted.len()));
            }
            self.link.end("COMMIT").await?;
            if self.is_numbered() {
                self.floor = self.floor.max(places.iter().filter_map(|place| place.parse().ok()).max());
            }
            Ok(())
        })
    }

    fn give_up(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            if self.link.is_in_transaction() {
                // One that fails is given up with its session.
                let _ = self.link.end("ROLLBACK").await;
            }
        })
    }

    fn counts(&mut self) -> Fut<'_, StoreResult<OutboxCounts>> {
        Box::pin(async move {
            let parked = match self.has_parked().await? {
                true => format!("SELECT count(*) FROM {}.outbox_parked WHERE of = $1", self.schema),
                false => "SELECT 0::bigint WHERE $1 IS NOT NULL".to_owned(),
            };
            let sql = format!("SELECT (SELECT count(*) FROM {}), ({parked})", self.table);
            let counted = self.link.query("count the rows of the outbox", &sql, &[(&self.shown, Type::TEXT)]).await?;
            let count = |at| -> u64 {
                let count: Option<i64> = counted.first().and_then(|row| row.try_get(at).ok());
                count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
            };
            Ok(OutboxCounts { waiting: count(0), parked: count(1) })
        })
    }

    fn parked(&mut self) -> Fut<'_, StoreResult<Vec<ParkedRow>>> {
        Box::pin(async move {
            if !self.has_parked().await? {
                return Ok(Vec::new());
            }
            match self.parked_as("p.row_::text", |row| row.try_get(0)).await {
                Err(error) if is_no_text(&error) => {
                    let bytes = "convert_to(p.row_::text, getdatabaseencoding())";
                    self.parked_as(bytes, |row| Ok(String::from_utf8_lossy(row.try_get(0)?).into_owned())).await
                }
                parked => parked,
            }
        })
    }

    fn redrive(&mut self) -> Fut<'_, StoreResult<u64>> {
        Box::pin(async move {
            let columns = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
                           WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
            let columns = self.link.query("look at the outbox", columns, &[(&self.table, Type::TEXT)]).await?;
            let columns: String = columns.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
            let mut back = 0;
            for parked in self.parked().await? {
                // Its own number, too, so that it keeps its place.
                let sql = format!(
                    "WITH gone AS (DELETE FROM {}.outbox_parked WHERE n = {} RETURNING row_) \
                     INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE \
                     SELECT {columns} FROM gone, json_populate_record(NULL::{table}, gone.row_) r",
                    self.schema,
                    parked.number,
                    table = self.table
                );
                self.link.query("put a parked row back", &sql, &[]).await?;
                back += 1;
            }
            Ok(back)
        })
    }

    fn default_source(&self) -> String {
        self.source.clone()
    }
}
