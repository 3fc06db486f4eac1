//! An outbox in PostgreSQL.
//!
//! A pass is one transaction, which holds an advisory lock: of several relays of one table one is active. It is the relay's
//! own, so that neither the application nor another relay waits for it.

use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::columns::quoted;
use super::{Columns, Outbox, ParkedRow, Row, Rows};
use crate::clock::{Clock, Fut};
use crate::store::postgres::{Database, Link, schema};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// A look at the whole table that takes less than this costs nothing.
const QUICK: Duration = Duration::from_millis(20);

/// After this time a pass looks at the whole table again, and not only at what lies behind the last row that it moved.
const WHOLE_EVERY: Duration = Duration::from_secs(1);

/// An outbox in a PostgreSQL database.
pub struct PostgresOutbox {
    link: Link,
    clock: Rc<dyn Clock>,
    table: String,
    /// The bus's schema, quoted: rows are parked there.
    schema: String,
    /// The table's name as it is shown, by which its parked rows are known.
    shown: String,
    source: String,
    columns: Columns,
    /// The type of the column that rows are ordered by.
    place_type: String,
    /// The greatest number of a row that was moved: what lies before it is looked at less often, because deleted rows
    /// stay there for as long as an old snapshot is open.
    floor: Option<i64>,
    whole_at: Duration,
    whole_took: Duration,
    in_transaction: bool,
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
        let source = format!("/{}/{shown}", database.config.get_dbname().unwrap_or_default());
        let link = Link::new(database, Rc::clone(&clock));
        let asked = link
            .query(
                "look at the outbox",
                "SELECT format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a \
                 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped",
                &[(&table, Type::TEXT), (&columns.place(), Type::TEXT)],
            )
            .await?;
        let place_type: Option<String> = asked.first().and_then(|row| row.try_get(0).ok());
        let place_type = place_type.ok_or_else(|| {
            let what = format!("there is no table {shown} with a column '{}' in the database", columns.place());
            StoreError::new(ErrorKind::NoBus, what)
        })?;
        if asked.first().and_then(|row| row.try_get(1).ok()) != Some(true) {
            // A row without it could not be deleted.
            let what = format!("the column '{}' of {shown}, by which rows are deleted, may be NULL", columns.place());
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        Ok(Self {
            link,
            whole_at: clock.elapsed(),
            whole_took: Duration::ZERO,
            clock,
            schema,
            shown,
            table,
            source: source
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "/._-".contains(c) { c } else { '_' })
                .collect(),
            columns,
            place_type,
            floor: None,
            in_transaction: false,
        })
    }

    /// Whether rows are ordered by a whole number.
    fn is_numbered(&self) -> bool {
        self.columns.n.is_some() && ["bigint", "integer", "smallint"].contains(&self.place_type.as_str())
    }

    /// The rows of a table from a number on, as SQL.
    fn select(&self, floor: Option<i64>, most: usize) -> String {
        let text = |column: &Option<String>| match column {
            Some(column) => format!("{}::text", quoted(column)),
            None => "NULL::text".to_owned(),
        };
        let time = match &self.columns.time {
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
        let from = floor.map_or(String::new(), |floor| format!("WHERE o.{place} > {floor}"));
        // Without the table's name the order would be that of the column as text, which has the same name.
        format!(
            "SELECT {place}::text, {}, {}, {}, {}, {}, {}, {}, {time}, row_to_json(o)::text FROM {} o {from} ORDER BY o.{place} LIMIT {most}",
            text(&Some(of.id.clone())),
            type_.join(" || '.' || "),
            text(&of.source),
            text(&of.subject),
            text(&of.key),
            text(&of.data),
            text(&of.attr),
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
        if is_whole {
            // To look at many deleted rows takes long: at most a tenth of the time.
            let found = self.link.query("look at the outbox", &any, &[]).await?;
            let took = self.clock.elapsed().saturating_sub(now);
            self.whole_at = now + (took * 10).max(WHOLE_EVERY);
            self.whole_took = took;
            if found.is_empty() {
                return Ok(Rows::Found(Vec::new()));
            }
        } else if self.link.query("look at the outbox", &any, &[]).await?.is_empty() {
            return Ok(Rows::Found(Vec::new()));
        }
        // The server must not end the pass because the bus is slow.
        let begin =
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL idle_in_transaction_session_timeout = 0";
        self.link.execute("begin a pass", begin).await?;
        self.in_transaction = true;
        let name = format!("evbus relay {}", self.table);
        let lock = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))";
        let locked = self.link.query("take the relay's lock", lock, &[(&name, Type::TEXT)]).await?;
        if locked.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
            self.end("ROLLBACK").await?;
            return Ok(Rows::OtherRelay);
        }
        let rows = self.link.query("read the outbox", &self.select(floor, most), &[]).await?;
        let row = |row: &tokio_postgres::Row| -> Result<Row, tokio_postgres::Error> {
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
                whole: row.try_get(9)?,
                unreadable: None,
            })
        };
        let rows: Result<Vec<Row>, tokio_postgres::Error> = rows.iter().map(row).collect();
        let rows =
            rows.map_err(|error| StoreError::new(ErrorKind::Damaged, format!("a row cannot be read: {error}")))?;
        if rows.is_empty() {
            self.end("COMMIT").await?;
        }
        Ok(Rows::Found(rows))
    }

    /// Whether the table of parked rows is there.
    async fn has_parked(&self) -> StoreResult<bool> {
        let table = format!("{}.outbox_parked", self.schema);
        let there = "SELECT to_regclass($1) IS NOT NULL";
        let there = self.link.query("look for parked rows", there, &[(&table, Type::TEXT)]).await?;
        Ok(there.first().and_then(|row| row.try_get(0).ok()) == Some(true))
    }

    async fn end(&mut self, how: &str) -> StoreResult<()> {
        self.in_transaction = false;
        self.link.execute("end a pass", how).await
    }
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

    fn settle<'a>(&'a mut self, moved: &'a [String], parked: &'a [ParkedRow]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            if moved.is_empty() && parked.is_empty() {
                return Ok(());
            }
            let places: Vec<&str> =
                moved.iter().map(String::as_str).chain(parked.iter().map(|row| row.place.as_str())).collect();
            if !parked.is_empty() {
                // Another program's database may have no bus.
                if !self.has_parked().await? {
                    self.link.execute("make the table of parked rows", &schema::parked(&self.schema)).await?;
                }
            }
            let park =
                format!("INSERT INTO {}.outbox_parked (of, row_, reason) VALUES ($1, $2::text::json, $3)", self.schema);
            for row in parked {
                let values =
                    [(&self.shown as _, Type::TEXT), (&row.row as _, Type::TEXT), (&row.reason as _, Type::TEXT)];
                self.link.query("park a row", &park, &values).await?;
            }
            let sql = format!(
                "DELETE FROM {} WHERE {} = ANY ($1::text[]::{}[])",
                self.table,
                quoted(self.columns.place()),
                self.place_type
            );
            self.link.query("delete moved rows", &sql, &[(&places, Type::TEXT_ARRAY)]).await?;
            self.end("COMMIT").await?;
            if self.is_numbered() {
                self.floor = self.floor.max(places.iter().filter_map(|place| place.parse().ok()).max());
            }
            Ok(())
        })
    }

    fn give_up(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            if std::mem::take(&mut self.in_transaction) && self.link.execute("end a pass", "ROLLBACK").await.is_err() {
                self.link.forget();
            }
        })
    }

    fn parked(&mut self) -> Fut<'_, StoreResult<Vec<ParkedRow>>> {
        Box::pin(async move {
            if !self.has_parked().await? {
                return Ok(Vec::new());
            }
            let table = format!("{}.outbox_parked", self.schema);
            let sql = format!(
                "SELECT p.n::text, p.row_::text, p.reason FROM {table} p WHERE p.of = $1 ORDER BY p.n LIMIT 10000"
            );
            let rows = self.link.query("read the parked rows", &sql, &[(&self.shown, Type::TEXT)]).await?;
            let row = |row: &tokio_postgres::Row| -> Result<ParkedRow, tokio_postgres::Error> {
                Ok(ParkedRow { place: row.try_get(0)?, row: row.try_get(1)?, reason: row.try_get(2)? })
            };
            let rows: Result<Vec<ParkedRow>, tokio_postgres::Error> = rows.iter().map(row).collect();
            rows.map_err(|error| StoreError::new(ErrorKind::Damaged, format!("a row cannot be read: {error}")))
        })
    }

    fn redrive(&mut self) -> Fut<'_, StoreResult<u64>> {
        Box::pin(async move {
            let mut back = 0;
            for parked in self.parked().await? {
                // Its own number, too, so that it keeps its place.
                let sql = format!(
                    "WITH gone AS (DELETE FROM {}.outbox_parked WHERE n = {} RETURNING row_) \
                     INSERT INTO {table} OVERRIDING SYSTEM VALUE \
                     SELECT r.* FROM gone, json_populate_record(NULL::{table}, gone.row_) r",
                    self.schema,
                    parked.place,
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
