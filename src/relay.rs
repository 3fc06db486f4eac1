//! The relay: moves the rows of an outbox, a table in an application's database, to a bus.
//!
//! The application inserts a row within its own transaction. A pass reads the oldest rows that are there, emits each with
//! its own id, and deletes it once it is acknowledged. So a repeat is harmless, and there is no cursor: a row whose
//! transaction commits late is read when it is there, wherever it lies in the order. A row that is no event is parked
//! beside, with the reason.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bus::BusHandle;
use crate::bus::emit::{AckKind, Draft, Emitter};
use crate::clock::Fut;
use crate::event::{Data, Event, check_size};
use crate::store::StoreResult;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::store::{ErrorKind, StoreError};

mod columns;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use columns::{Columns, ColumnsError};

/// The most rows of one pass.
pub const BATCH: usize = 500;

/// How long a bus that does not answer is asked.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The pauses between two passes of a relay that stays: the first after rows were moved, the second once none has come
/// for a while.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// One row of an outbox, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// What it is deleted by, as text: its number, or its id.
    pub place: String,
    /// The event's attributes and data; none where the row has nothing.
    pub id: Option<String>,
    /// See [`Row::id`].
    pub type_: Option<String>,
    /// See [`Row::id`].
    pub source: Option<String>,
    /// See [`Row::id`].
    pub subject: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// JSON.
    pub data: Option<String>,
    /// A JSON object of further attributes.
    pub attr: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    /// Why it cannot be read as text, if it cannot.
    pub unreadable: Option<String>,
}

/// A row that is to be parked: what it is deleted by, and why it is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoEvent {
    /// See [`Row::place`].
    pub place: String,
    /// Why it is no event.
    pub reason: String,
}

/// A row that is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Its number among the parked ones.
    pub number: String,
    /// The whole row as JSON, by its columns' names.
    pub row: String,
    /// Why it is no event.
    pub reason: String,
}

impl ParkedRow {
    /// The row and the reason as JSON.
    pub fn document(&self) -> Value {
        let row: Value = serde_json::from_str(&self.row).unwrap_or_default();
        json!({"reason": self.reason, "row": row})
    }
}

/// How many rows an outbox has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Rows that wait to be moved.
    pub waiting: u64,
    /// Rows that are no events.
    pub parked: u64,
}

/// The error that rows could not be deleted: they would be emitted again and again.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn not_deleted(table: &str, asked: usize, deleted: usize) -> StoreError {
    let what = format!("{} of {asked} rows of {table} could not be deleted, and stay", asked.saturating_sub(deleted));
    StoreError::new(ErrorKind::Unfit, what)
}

/// The source of a table's rows that name none: `/DATABASE/TABLE`, with what a URI reference cannot hold replaced.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn source_of(database: &str, table: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    format!("/{database}/{table}").chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

/// Where rows come from.
pub trait Outbox {
    /// The oldest rows, at most `most`, if this relay is the active one; they stay until [`Outbox::settle`].
    fn rows(&mut self, most: usize) -> Fut<'_, StoreResult<Rows>>;

    /// Deletes rows whose events are safe and parks those that are no events, in one transaction. A row that cannot be
    /// deleted is an error.
    fn settle<'a>(&'a mut self, moved: &'a [String], parked: &'a [NoEvent]) -> Fut<'a, StoreResult<()>>;

    /// Gives up what [`Outbox::rows`] has begun.
    fn give_up(&mut self) -> Fut<'_, ()>;

    /// How many rows wait, and how many are parked.
    fn counts(&mut self) -> Fut<'_, StoreResult<OutboxCounts>>;

    /// The rows that are parked.
    fn parked(&mut self) -> Fut<'_, StoreResult<Vec<ParkedRow>>>;

    /// Puts parked rows back; returns how many.
    fn redrive(&mut self) -> Fut<'_, StoreResult<u64>>;

    /// Completes when there may be new rows; never where that cannot be told.
    fn changed(&mut self) -> Fut<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The URI reference that is the source of rows without one.
    fn default_source(&self) -> String;
}

/// What [`Outbox::rows`] has found.
#[derive(Debug)]
pub enum Rows {
    /// These, in their order, and whether there may be more.
    Found(Vec<Row>, bool),
    /// Another relay is active.
    OtherRelay,
}

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Rows whose events are on the bus.
    pub moved: u64,
    /// Rows that were parked.
    pub parked: u64,
    /// Whether another relay is active, so that nothing was done.
    pub is_other: bool,
    /// Whether there may be more rows.
    pub has_more: bool,
}

/// Moves rows from one outbox to one bus.
pub struct Relay {
    outbox: Box<dyn Outbox>,
    emitter: Emitter,
    source: String,
    max_event_bytes: usize,
    /// How many rows the next pass takes: fewer where they were too many to be read in time.
    most: usize,
}

impl Relay {
    /// A relay onto a bus; `source` is that of rows without one.
    pub fn new(outbox: Box<dyn Outbox>, bus: BusHandle, max_event_bytes: usize, source: Option<String>) -> Self {
        let source = source.unwrap_or_else(|| outbox.default_source());
        Self { outbox, emitter: Emitter::new(bus, TIMEOUT), source, max_event_bytes, most: BATCH }
    }

    /// Moves what is there, at most [`BATCH`] rows.
    ///
    /// # Errors
    /// The database or the bus fails: the rows stay.
    pub async fn pass(&mut self) -> StoreResult<Pass> {
        let most = self.most;
        self.most = (most / 2).max(1);
        let (rows, has_more) = match self.outbox.rows(most).await? {
            Rows::Found(rows, has_more) => (rows, has_more),
            Rows::OtherRelay => {
                self.most = most;
                return Ok(Pass { is_other: true, ..Pass::default() });
            }
        };
        let moved = self.move_rows(&rows).await;
        match &moved {
            Ok(_) => self.most = (most * 2).min(BATCH),
            Err(_) => self.outbox.give_up().await,
        }
        let (moved, parked) = moved?;
        Ok(Pass { moved, parked, is_other: false, has_more })
    }

    /// Returns how many rows were moved, and how many parked.
    async fn move_rows(&mut self, rows: &[Row]) -> StoreResult<(u64, u64)> {
        let (mut drafts, mut places, mut parked) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match event_of(row, &self.source, self.max_event_bytes) {
                Ok(event) => {
                    drafts.push(Draft::named(event));
                    places.push(row);
                }
                Err(reason) => parked.push(park(row, reason)),
            }
        }
        let mut moved = Vec::with_capacity(places.len());
        for (drafts, rows) in drafts.chunks(self.emitter.batch()).zip(places.chunks(self.emitter.batch())) {
            for (ack, row) in self.emitter.emit(drafts).await?.iter().zip(rows) {
                match ack.kind {
                    AckKind::IdTaken => {
                        parked.push(park(row, "another event has its id and source".to_owned()));
                    }
                    _ => moved.push(row.place.clone()),
                }
            }
        }
        self.outbox.settle(&moved, &parked).await?;
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        Ok((count(moved.len()), count(parked.len())))
    }

    /// Completes when there may be new rows.
    pub async fn changed(&mut self) {
        self.outbox.changed().await;
    }
}

/// The event of a row, or why it is none.
fn event_of(row: &Row, source: &str, limit: usize) -> Result<Event, String> {
    if let Some(why) = &row.unreadable {
        return Err(why.clone());
    }
    let needed = |name: &str, value: &Option<String>| match value {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(format!("it has no {name}")),
    };
    let source = row.source.as_deref().unwrap_or(source);
    let mut builder = Event::new(needed("id", &row.id)?, source, needed("type", &row.type_)?);
    if let Some(subject) = &row.subject {
        builder = builder.subject(subject);
    }
    if let Some(time) = &row.time {
        builder = builder.time(time);
    }
    if let Some(key) = &row.key {
        builder = builder.extension("partitionkey", key.as_str());
    }
    if let Some(attributes) = &row.attr {
        let attributes: Map<String, Value> =
            serde_json::from_str(attributes).map_err(|error| format!("its attr is no JSON object: {error}"))?;
        for (name, value) in attributes {
            builder = builder.extension(name, value);
        }
    }
    if let Some(data) = &row.data {
        let data = Data::json(data).map_err(|error| format!("its data is no JSON: {error}"))?;
        data.check_readable().map_err(|error| format!("its data cannot be read: {error}"))?;
        builder = builder.data(data).datacontenttype("application/json");
    }
    let event = builder.build().map_err(|error| error.to_string())?;
    check_size(&event.to_json(), limit).map_err(|error| error.to_string())?;
    Ok(event)
}

fn park(row: &Row, reason: String) -> NoEvent {
    NoEvent { place: row.place.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(data: &str) -> Row {
        Row {
            place: "7".to_owned(),
            id: Some("i".to_owned()),
            type_: Some("order.created".to_owned()),
            subject: Some("orders/1".to_owned()),
            key: Some("k".to_owned()),
            data: Some(data.to_owned()),
            attr: Some(r#"{"tenant":"t"}"#.to_owned()),
            time: Some("2026-11-30T08:00:00Z".to_owned()),
            source: None,
            ..Row::default()
        }
    }

    #[test]
    fn a_row_is_an_event() {
        let event = event_of(&row(r#"{"total":12.50}"#), "/shop", 1_000).unwrap();
        let json = String::from_utf8(event.to_json()).unwrap();
        assert!(json.contains(r#""total":12.50"#), "numbers stay as they are: {json}");
        assert_eq!((event.id(), event.source(), event.ordering_key()), ("i", "/shop", Some("k")));
        assert_eq!(event.attribute("tenant").as_deref(), Some("t"));
    }

    #[test]
    fn a_row_that_is_no_event_says_why() {
        let cases = [
            (Row { id: None, ..row("1") }, "no id"),
            (Row { type_: Some(String::new()), ..row("1") }, "no type"),
            (row("{"), "no JSON"),
            (Row { unreadable: Some("it is odd".to_owned()), ..row("1") }, "it is odd"),
            (Row { attr: Some("[]".to_owned()), ..row("1") }, "no JSON object"),
            (Row { attr: Some(r#"{"Odd Name":"1"}"#.to_owned()), ..row("1") }, "Odd Name"),
            (Row { time: Some("yesterday".to_owned()), ..row("1") }, "RFC 3339"),
            (row(&format!("\"{}\"", "x".repeat(2_000))), "1,000"),
        ];
        for (row, word) in cases {
            let why = event_of(&row, "/shop", 1_000).unwrap_err();
            assert!(why.contains(word), "{word}: {why}");
            assert!(!why.contains('\n'), "{why}");
        }
    }
}
