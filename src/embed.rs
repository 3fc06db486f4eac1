//! The bus inside another program: emit events, read them, and run closures for them.
//!
//! A [`Bus`] is a handle, cheap to clone, `Send` and `Sync`. Its store and its workers run on a
//! thread of their own; handlers run on the runtime that calls [`Consumer::run`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bus::emit::{Ack, AckKind};
use crate::bus::read;
#[cfg(feature = "cli")]
use crate::config::BusAddress;
use crate::event::{Event, EventTime, TypeFilter};

mod batcher;
mod consumer;
mod delivery;
mod error;
mod event_lines;
mod lanes;
#[cfg(feature = "cli")]
mod long_chains;
mod new_event;
#[cfg(feature = "cli")]
mod operator;
#[cfg(feature = "cli")]
mod overview;
#[cfg(feature = "cli")]
mod pull;
#[cfg(feature = "cli")]
mod pulled;
#[cfg(feature = "cli")]
mod subscription;
mod thread;

pub use batcher::Batcher;
pub use consumer::{Consumer, GroupBuilder, StartAt, Totals};
pub use delivery::{Delivery, HandlerError, HandlerResult};
pub use error::Error;
#[cfg(feature = "cli")]
pub(crate) use event_lines::EventLines;
pub use new_event::NewEvent;
#[cfg(feature = "cli")]
pub(crate) use pull::{HandedOut, LockChange, Settlement, SettlementKind};
#[cfg(feature = "cli")]
pub(crate) use subscription::{Delivered, Subscription};
#[cfg(feature = "cli")]
pub(crate) use thread::WantedGroup;

use thread::BusThread;

/// How many events [`Bus::read`] returns unless the query has a limit.
const READ_LIMIT: usize = 1_000;

/// A bus that is open.
///
/// ```
/// # #[tokio::main(flavor = "multi_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("evbus-doc-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let url = folder.join("bus").display().to_string();
/// use evbus::{Bus, NewEvent, Query};
///
/// let bus = Bus::create(&url).await?;
/// let event = NewEvent::new("order.created").subject("order/1").json(&[99.5])?;
/// let id = bus.emit(event).await?.id;
///
/// // Run a closure for each event that the group has not seen, then end.
/// let mail = bus.group("mail").types(["order.*"]);
/// let handler = mail.handler(|event| async move { println!("a mail about {:?}", event.subject()) });
/// assert_eq!(handler.drain().await?.done, 1);
///
/// assert_eq!(bus.read(Query::new().types(["order.*"])).await?[0].id(), id);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Bus {
    thread: Arc<BusThread>,
}

/// An event that was acknowledged: it is run to success by every group, or kept as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Emitted {
    /// The event's id.
    pub id: String,
    /// Whether an equal event with this id had been acknowledged before.
    pub duplicate: bool,
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    types: Vec<String>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    limit: Option<usize>,
}

impl Query {
    /// Every event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only events whose types match one of these patterns, such as `order.*`.
    #[must_use]
    pub fn types<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.types.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Only events from this time on.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Only events up to this time.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// At most this many events, the oldest; 1,000 unless told otherwise.
    #[must_use]
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = Some(events);
        self
    }
}

impl Bus {
    /// Opens the bus at an address: a path with a `/`, or a URL (`file:`, `s3:`, `gs:`, `az:`).
    ///
    /// # Errors
    /// The address cannot be understood, there is no bus, or it cannot be used from here.
    pub async fn open(address: &str) -> Result<Self, Error> {
        Ok(Self { thread: Arc::new(BusThread::start(address, false).await?) })
    }

    /// Opens the bus at a path, and makes it if there is none. A bus in a bucket is made by
    /// `evbus init`, which tries the bucket out.
    ///
    /// # Errors
    /// See [`Bus::open`]; or the folder cannot be made.
    pub async fn create(path: &str) -> Result<Self, Error> {
        Ok(Self { thread: Arc::new(BusThread::start(path, true).await?) })
    }

    /// Opens the bus at an address that is known; with `create` it makes a directory's that is not there.
    #[cfg(feature = "cli")]
    pub(crate) async fn open_at(address: BusAddress, create: bool) -> Result<Self, Error> {
        Ok(Self { thread: Arc::new(BusThread::start_at(address, create).await?) })
    }

    /// Emits an event. After `Ok` it is on the disk, or durable in the bucket. Events of one program
    /// are put in the order of these calls; calls side by side share their flushes.
    ///
    /// # Errors
    /// The event is not a valid CloudEvent or too large; another event has its id; or the store
    /// fails. After an error of the store the event may be on the bus: with [`NewEvent::id`] a
    /// repeat is harmless.
    pub async fn emit(&self, event: NewEvent) -> Result<Emitted, Error> {
        emitted(self.thread.emit(vec![event]).await?.pop().ok_or(Error::Closed)?)
    }

    /// Emits many events with few writes: see [`Batcher`].
    #[must_use]
    pub fn batcher(&self) -> Batcher {
        Batcher::new(self.clone())
    }

    /// The events that a query selects, in the order of their times.
    ///
    /// # Errors
    /// A pattern is not valid, or the store fails.
    pub async fn read(&self, query: Query) -> Result<Vec<Event>, Error> {
        let filter = TypeFilter::new(&query.types, &[])?;
        let since = query.since.map_or(EventTime::MIN, event_time);
        let range = read::Range { since, until: query.until.map_or(EventTime::MAX, event_time), filter };
        let limit = query.limit.unwrap_or(READ_LIMIT);
        self.thread
            .call(move |local| {
                Box::pin(async move {
                    let mut events = Vec::new();
                    let mut pages = read::NamePages::of(&local.bus.handle, &range);
                    while events.len() < limit
                        && let Some(names) = pages.next().await?
                    {
                        for name in &names {
                            events.extend(local.event(name).await?.filter(|event| range.filter.matches(event.type_())));
                            if events.len() == limit {
                                break;
                            }
                        }
                    }
                    Ok(events)
                })
            })
            .await?
    }

    /// The largest event that the bus takes, in bytes of its document.
    pub fn max_event_bytes(&self) -> usize {
        self.thread.max_event_bytes
    }

    /// A group of this name, whose workers share its events.
    #[must_use]
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.clone(), name.into())
    }
}

fn emitted((id, ack): (String, Ack)) -> Result<Emitted, Error> {
    match ack.kind {
        AckKind::IdTaken => Err(Error::IdTaken { id }),
        kind => Ok(Emitted { id, duplicate: kind == AckKind::Duplicate }),
    }
}

fn event_time(time: SystemTime) -> EventTime {
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    EventTime::from_micros(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => micros(before.duration()).saturating_neg(),
    })
}
