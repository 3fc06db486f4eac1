//! The feed: what readers of the bus get who belong to no group, each event as it comes, and where they
//! go on when they come back.
//!
//! Readers share their reading: a *round* reads W, makes it durable, and lists everything behind the W
//! of the round before. What is new goes to a log in memory, from which all readers are served. A reader
//! that is further back reads the store by itself, up to that W, and then goes over to the log.
//!
//! Why nothing is missed (FORMAT.md, 14): an event that a round does not show is acknowledged above the
//! W that was read before the round began. So everything at or before that W is known whole, and the next
//! round begins behind it. A cursor stands at an event that lies at or before such a W, or else at the W.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::futures::Notified;
use tokio::sync::{Mutex, Notify};

use crate::bus::look::{self, LookBounds, Wanted};
use crate::bus::{BusHandle, Position, frontier, horizon, read};
use crate::event::{Event, EventName, EventTime, TypeFilter, one_line};
use crate::store::{ErrorKind, LARGEST_BYTES, StoreResult, Version};

mod cursor;
mod reader;
mod state;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, LogPlace};
pub use reader::{FeedItem, Given, Order, ReadFrom, Reader, Selection};

use state::{Arrival, State};

/// The pause after an error of the store.
const RETRY: Duration = Duration::from_secs(1);

/// A log to which nothing was added for so long, because nobody was reading, is given up.
const STALE: Duration = Duration::from_mins(2);

/// The longest rest after a round that took long.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// How long W is left to others after it could not be raised.
const REFUSED: Duration = Duration::from_mins(1);

/// How much a feed takes in and keeps.
#[derive(Debug, Clone, Copy)]
pub struct FeedBounds {
    /// How many names are listed at a time.
    pub window: usize,
    /// How many segments are read for that, if it can end before.
    pub reads: usize,
    /// How many events are kept in the log.
    pub kept: usize,
    /// How many events above W are held before rounds wait for W to rise.
    pub above_w: usize,
    /// The most bytes of documents in memory.
    pub document_bytes: usize,
}

impl Default for FeedBounds {
    fn default() -> Self {
        Self { window: 1_000, reads: look::READS, kept: 10_000, above_w: 200_000, document_bytes: 8 << 20 }
    }
}

/// An event that was read.
#[derive(Clone)]
struct Loaded {
    /// On one line.
    document: Bytes,
    type_: Rc<str>,
}

/// The feed of one bus.
pub struct Feed {
    bus: BusHandle,
    bounds: FeedBounds,
    state: RefCell<State>,
    /// Of what is new.
    changed: Notify,
    /// Of what this process has emitted, of which the store gives no hints.
    emitted: Notify,
    /// Of W, as a round has made it durable last.
    durable: Cell<Option<Version>>,
    /// One round at a time; how many have begun, and the last that has ended well.
    turn: Mutex<()>,
    begun: Cell<u64>,
    completed: Cell<u64>,
    /// When the last one began that has ended well.
    made: Cell<Duration>,
    /// Conditions that take long are evaluated one after the other, so that others than readers go on.
    evaluations: Mutex<()>,
    readers: Cell<usize>,
    is_followed: Cell<bool>,
}

impl Feed {
    /// A feed that has read nothing yet.
    pub fn new(bus: BusHandle, bounds: FeedBounds) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State::new(bus.clock.random(), bounds)),
            bus,
            bounds,
            changed: Notify::new(),
            emitted: Notify::new(),
            durable: Cell::default(),
            turn: Mutex::default(),
            begun: Cell::new(0),
            completed: Cell::new(0),
            made: Cell::default(),
            evaluations: Mutex::default(),
            readers: Cell::new(0),
            is_followed: Cell::new(false),
        })
    }

    /// Completes once there is something new, or a new trouble, that came after this call.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Tells that this process has emitted events.
    pub fn note_emit(&self) {
        self.emitted.notify_one();
    }

    /// Whether there was a round.
    fn has_begun(&self) -> bool {
        self.state.borrow().w.is_some()
    }

    /// Makes a round that begins after this call, unless another one does that ends well.
    ///
    /// # Errors
    /// The store does not answer, or does not let the bus be read.
    pub async fn refresh(&self) -> StoreResult<()> {
        let asked = self.begun.get();
        let _turn = self.turn.lock().await;
        if self.completed.get() > asked {
            return Ok(());
        }
        self.round_alone().await.map(drop)
    }

    /// The same; and raises W over what is a lag old, so that it is settled.
    ///
    /// # Errors
    /// As [`Feed::refresh`].
    pub async fn refresh_and_raise(&self) -> StoreResult<()> {
        self.refresh().await?;
        match self.raise().await {
            Raise::Done => self.refresh().await,
            Raise::Refused | Raise::In(_) | Raise::Not => Ok(()),
        }
    }

    /// Makes a round; returns how many events it has found.
    ///
    /// # Errors
    /// As [`Feed::refresh`].
    pub async fn round(&self) -> StoreResult<usize> {
        let _turn = self.turn.lock().await;
        self.round_alone().await
    }

    async fn round_alone(&self) -> StoreResult<usize> {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let store = &*self.bus.store;
        let now = self.bus.clock.elapsed();
        if self.has_begun() && now.saturating_sub(self.made.get()) > STALE {
            // To go on would mean to take in all that has come meanwhile.
            let mut state = self.state.borrow_mut();
            *state = state.anew(self.bus.clock.random());
        }
        if !self.has_begun() {
            self.raise_before_the_first().await?;
            let horizon = horizon::read(store).await?;
            self.state.borrow_mut().horizon = horizon;
        }
        let mut durable = self.durable.take();
        let w = frontier::read_durable_again(store, &mut durable).await?;
        self.durable.set(durable);
        let before = self.state.borrow().w.unwrap_or(w);
        let wanted = Wanted::of(TypeFilter::default());
        let bounds = LookBounds { window: self.bounds.window, reads: self.bounds.reads };
        let mut after = Position::Time(before);
        // Up to here everything is known whole.
        let mut known = w.max(before);
        let (mut found, mut trouble) = (0, None);
        let mut is_complete = true;
        self.state.borrow_mut().begin_round();
        loop {
            let look = look::look(&self.bus, &after, &wanted, bounds, &look::nothing()).await?;
            // Behind the listing: what was pruned before it is told before what comes.
            let horizon = horizon::read(store).await?;
            let mut state = self.state.borrow_mut();
            let mut is_new = state.take_horizon(horizon, before);
            if let Some((first, error)) = look.barrier {
                known = known.min(before_time(first)).max(before);
                (trouble, is_complete) = (Some(error), false);
            }
            for name in look.names {
                if state.arrived(name, known) {
                    (found, is_new) = (found + 1, true);
                }
            }
            if is_new {
                self.changed.notify_waiters();
            }
            let Some(end) = look.end else { break };
            if state.is_full_behind(known) {
                // The rest waits until W has risen.
                known = known.min(before_time(end.time())).max(before);
                is_complete = false;
                break;
            }
            after = end;
        }
        let mut state = self.state.borrow_mut();
        if is_complete {
            state.forget_what_is_gone();
        }
        let has_moved = state.settle(known);
        if has_moved {
            self.changed.notify_waiters();
        }
        if let Some(error) = trouble.as_ref().filter(|_| state.trouble.is_none()) {
            tracing::warn!("readers get nothing in settled order, and no newer cursor: {error}");
        }
        state.trouble = trouble;
        self.completed.set(number);
        self.made.set(now);
        Ok(found)
    }

    /// Where no worker has run for long, W is raised before the first round: all events behind it would be
    /// held in memory otherwise.
    async fn raise_before_the_first(&self) -> StoreResult<()> {
        let store = &*self.bus.store;
        let w = frontier::read(store).await?.time;
        let until = self.bus.clock.now().minus(store.profile().lag);
        if let Some(newest) = read::newest_between(store, w, until).await? {
            // Without the right to write there is nothing to be done.
            let _ = frontier::raise(store, newest).await;
        }
        Ok(())
    }

    /// Makes rounds for as long as there are readers; returns at once if another call does. Where the store
    /// gives no hints, the pause between two rounds grows from the first to the second.
    pub async fn follow(&self, poll: (Duration, Duration)) {
        if self.is_followed.replace(true) {
            return;
        }
        let _following = Following(self);
        let mut hints = self.bus.store.hints().ok();
        let clock = Rc::clone(&self.bus.clock);
        let (mut pause, mut refused) = (poll.0, None);
        // Since when the loop was at rest, and at work.
        let (mut rested, mut begun) = (clock.elapsed(), clock.elapsed());
        while self.readers.get() > 0 {
            let mut wait = pause;
            match self.round().await {
                Ok(found) => {
                    pause = if found > 0 { poll.0 } else { (pause * 2).min(poll.1) };
                    let may_raise = refused.is_none_or(|until| clock.elapsed() >= until);
                    match if may_raise { self.raise().await } else { Raise::Not } {
                        Raise::Done => continue,
                        // Without the right to write, readers that come back see more again.
                        Raise::Refused => {
                            if refused.is_none() {
                                tracing::warn!(
                                    "the frontier cannot be raised from here: what is given in settled order waits for a worker"
                                );
                            }
                            refused = Some(clock.elapsed() + REFUSED);
                        }
                        Raise::In(left) => wait = wait.min(left),
                        Raise::Not => {}
                    }
                }
                Err(error) => {
                    let before = self.state.borrow_mut().trouble.replace(error.clone());
                    if before.is_none() {
                        tracing::warn!("readers get nothing new: {error}");
                    }
                    wait = RETRY;
                }
            }
            // What comes meanwhile is listed together: rounds take half of the time at most.
            let now = clock.elapsed();
            let took = now.saturating_sub(begun).min(LONGEST_REST);
            let rest = took.saturating_sub(begun.saturating_sub(rested));
            rested = now + rest;
            if !rest.is_zero() {
                clock.sleep_until(now + rest).await;
            }
            let tick = clock.sleep_until(clock.elapsed() + wait);
            let hint = async {
                match &mut hints {
                    Some(hints) => hints.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = hint => {}
                () = self.emitted.notified() => {}
                () = tick => {}
            }
            begun = clock.elapsed();
        }
    }

    /// Raises W over what is above it, a lag behind the clock. Where a worker runs, it does so before.
    async fn raise(&self) -> Raise {
        let Some((w, newest, is_full)) = self.state.borrow().above_w() else { return Raise::Not };
        let store = &*self.bus.store;
        let lag = store.profile().lag;
        let until = self.bus.clock.now().minus(lag);
        let last = self.state.borrow().last_until(until);
        let to = match last {
            // In steps of a lag, while more comes: each costs a write.
            Some(to) if to == newest.time() || until.since(w) > lag * 2 => Some(to),
            // Rounds cannot go on otherwise; W is safe at any value.
            _ if is_full => Some(newest.time()),
            Some(_) => None,
            // Where W is ahead of the clock, the events themselves tell how old they are.
            None if until < w => match read::happened_at(&self.bus, &newest).await {
                Ok(Some(happened)) if happened <= until => Some(newest.time()),
                _ => None,
            },
            None => None,
        };
        match to {
            Some(to) if frontier::raise(store, to).await.is_ok() => Raise::Done,
            Some(_) => Raise::Refused,
            None => Raise::In(newest.time().since(until).min(lag).max(Duration::from_millis(100))),
        }
    }

    /// What an arrival holds; none if it is gone or no event.
    async fn content(&self, arrival: &Rc<Arrival>) -> StoreResult<Option<Loaded>> {
        let _turn = arrival.reading.lock().await;
        if let Some(content) = &*arrival.content.borrow() {
            return Ok(content.clone());
        }
        let content = content_of(&self.bus, &arrival.name).await?;
        arrival.content.replace(Some(content.clone()));
        if let Some(content) = &content {
            let digest = Sha256::digest(&content.document);
            arrival.digest.set(digest.first_chunk().copied());
            self.state.borrow_mut().keep(arrival, content.document.len());
        }
        Ok(content)
    }
}

/// What became of an attempt to raise W.
enum Raise {
    /// It stands higher now.
    Done,
    /// It may not be raised from here.
    Refused,
    /// There will be reason to, after this time.
    In(Duration),
    /// There is no reason to.
    Not,
}

/// Ends with the call that makes rounds, also if that is dropped.
struct Following<'a>(&'a Feed);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.is_followed.set(false);
    }
}

/// The last moment before a time.
fn before_time(time: EventTime) -> EventTime {
    EventTime::from_micros(time.as_micros().saturating_sub(1))
}

/// The content of an event; none if it is gone, or no event of this name.
async fn content_of(bus: &BusHandle, name: &EventName) -> StoreResult<Option<Loaded>> {
    let document = match read::document(bus, name, LARGEST_BYTES).await {
        Err(error) if error.kind() == ErrorKind::Damaged => None,
        found => found?,
    };
    let Some(document) = document else { return Ok(None) };
    let Ok(event) = Event::parse(&document, usize::MAX) else { return Ok(None) };
    if !name.fits(&event) {
        return Ok(None);
    }
    // What lies in a segment is a part of a larger whole, which must not stay for it.
    let document = Bytes::copy_from_slice(one_line(&document).trim_ascii());
    Ok(Some(Loaded { document, type_: event.type_().into() }))
}
