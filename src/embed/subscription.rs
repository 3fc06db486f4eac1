//! Reading along: events as they come, for a reader on any thread.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::thread::ThreadState;
use super::{Bus, Error};
use crate::bus::read::{self, Range};
use crate::clock::Fut;
use crate::event::{EventTime, TypeFilter};
use crate::feed::{Cursor, FeedItem, Order, ReadFrom, Reader, Selection};
use crate::store::ErrorKind;

/// How many events are delivered at a time.
const EVENTS: usize = 256;

/// How many deliveries wait for a slow reader.
const WAITING: usize = 1;

/// The pause after an error of the store.
const RETRY: Duration = Duration::from_secs(1);

/// The most bytes of an answer to [`Bus::poll`], but for a single event.
const POLL_BYTES: usize = 4 << 20;

/// How long events that are wanted are looked for among others.
const SEARCH: Duration = Duration::from_secs(10);

/// What a reader is given at a time.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// The events; none where there are none.
    pub items: Vec<FeedItem>,
    /// Events up to this time were pruned that the reader has perhaps not seen.
    pub gap: Option<EventTime>,
    /// Where the reader stands.
    pub cursor: Cursor,
    /// Whether that is elsewhere than before.
    pub has_moved: bool,
}

/// In a box: a channel has room for many, and most readers wait for long.
type Delivery = Box<Result<Delivered, Error>>;

/// Events as they come. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    deliveries: mpsc::Receiver<Delivery>,
}

impl Subscription {
    /// The next delivery; none after an error.
    pub async fn next(&mut self) -> Option<Result<Delivered, Error>> {
        self.deliveries.recv().await.map(|delivery| *delivery)
    }
}

impl Bus {
    /// Reads along from a place on: from the end of this call, if that is now. Returns the cursor of that
    /// place; it is delivered again where nothing comes for `idle`.
    ///
    /// # Errors
    /// The store does not answer, or does not let the bus be read.
    pub(crate) async fn subscribe(
        &self,
        selection: Selection,
        start: ReadFrom,
        idle: Duration,
    ) -> Result<(Subscription, Cursor), Error> {
        let (sender, mut deliveries) = mpsc::channel(WAITING);
        self.thread.run(move |local| {
            // From now on there is a reader.
            let reader = Reader::new(local.feed(), selection, start);
            Box::pin(async move { deliver(&local, reader, idle, sender).await })
        })?;
        self.follow()?;
        let first = (*deliveries.recv().await.ok_or(Error::Closed)?)?;
        Ok((Subscription { deliveries }, first.cursor))
    }

    /// The next events from a place on, at most so many. Where there are none, waits for one.
    ///
    /// # Errors
    /// As [`Bus::subscribe`].
    pub(crate) async fn poll(
        &self,
        selection: Selection,
        start: ReadFrom,
        most: usize,
        wait: Duration,
    ) -> Result<Delivered, Error> {
        let (sender, mut deliveries) = mpsc::channel(WAITING);
        self.thread.run(move |local| {
            let reader = Reader::new(local.feed(), selection, start);
            Box::pin(async move {
                tokio::select! { biased;
                    // The client has gone.
                    () = sender.closed() => {}
                    polled = poll(&local, reader, most, wait) => drop(sender.send(Box::new(polled)).await),
                }
            })
        })?;
        self.follow()?;
        *deliveries.recv().await.ok_or(Error::Closed)?
    }

    /// The place before the last so many events of these types that are there, none of them before a time.
    ///
    /// # Errors
    /// As [`Bus::subscribe`].
    pub(crate) async fn last_events(
        &self,
        types: TypeFilter,
        since: EventTime,
        most: usize,
    ) -> Result<ReadFrom, Error> {
        if most == 0 {
            return Ok(ReadFrom::Now);
        }
        let call = move |local: Rc<ThreadState>| -> Fut<'static, _> {
            Box::pin(async move {
                let bus = &local.bus.handle;
                let range = Range { since, until: EventTime::MAX, filter: types };
                read::newest(bus, &range, most, bus.clock.now()).await
            })
        };
        let (names, _) = self.thread.call(call).await??;
        Ok(names.first().map_or(ReadFrom::Now, |first| ReadFrom::Since(first.time())))
    }

    /// Makes rounds of the feed for as long as there are readers.
    fn follow(&self) -> Result<(), Error> {
        self.thread.run(|local| {
            let poll = local.bus.handle.store.profile().poll;
            Box::pin(async move { local.feed().follow(poll).await })
        })
    }
}

/// Delivers what a reader is given until nobody takes it.
async fn deliver(local: &Rc<ThreadState>, mut reader: Reader, idle: Duration, sender: mpsc::Sender<Delivery>) {
    let (feed, clock) = (local.feed(), &local.bus.handle.clock);
    // What was acknowledged before is behind a reader that begins now.
    let cursor = match feed.refresh().await {
        Ok(()) => reader.begun(),
        Err(error) => return drop(sender.send(Box::new(Err(error.into()))).await),
    };
    let mut last = cursor.clone();
    let first = Delivered { items: Vec::new(), gap: None, cursor, has_moved: true };
    if sender.send(Box::new(Ok(first))).await.is_err() {
        return;
    }
    let mut idle_at = clock.elapsed() + idle;
    loop {
        let changed = feed.changed();
        let given = match reader.next(EVENTS).await {
            Ok(given) => given,
            Err(error) if error.kind() == ErrorKind::Unavailable && !sender.is_closed() => {
                clock.sleep_until(clock.elapsed() + RETRY).await;
                continue;
            }
            Err(error) => return drop(sender.send(Box::new(Err(error.into()))).await),
        };
        if !given.items.is_empty() || given.gap.is_some() || clock.elapsed() >= idle_at {
            let cursor = reader.begun();
            let has_moved = last != cursor;
            last.clone_from(&cursor);
            let delivered = Delivered { items: given.items, gap: given.gap, cursor, has_moved };
            if sender.send(Box::new(Ok(delivered))).await.is_err() {
                return;
            }
            idle_at = clock.elapsed() + idle;
        }
        if given.more {
            if sender.is_closed() {
                return;
            }
            continue;
        }
        tokio::select! { biased;
            () = sender.closed() => return,
            () = changed => {}
            () = clock.sleep_until(idle_at) => {}
        }
    }
}

async fn poll(local: &Rc<ThreadState>, mut reader: Reader, most: usize, wait: Duration) -> Result<Delivered, Error> {
    let (feed, clock) = (local.feed(), &local.bus.handle.clock);
    let begun = clock.elapsed();
    let until = begun + wait;
    // What was acknowledged before the call is to be seen.
    match reader.order() {
        Order::Arrival => feed.refresh().await?,
        Order::Settled => feed.refresh_and_raise().await?,
    }
    let (mut items, mut gap) = (Vec::new(), None);
    let mut bytes = 0;
    loop {
        let changed = feed.changed();
        let given = match reader.next(most - items.len()).await {
            Ok(given) => given,
            // What was found before it is given; the error comes again.
            Err(_) if !items.is_empty() || gap.is_some() => {
                return Ok(Delivered { items, gap, cursor: reader.begun(), has_moved: true });
            }
            Err(error) => return Err(error.into()),
        };
        gap = gap.max(given.gap);
        bytes += given.items.iter().map(|item| item.document.len()).sum::<usize>();
        items.extend(given.items);
        let is_over = clock.elapsed() >= until;
        // A page may hold nothing that is wanted, and there may be more behind it.
        let limit = begun + SEARCH;
        let has_time = clock.elapsed() < if items.is_empty() { until.max(limit) } else { limit };
        if given.more && items.len() < most && bytes < POLL_BYTES && has_time {
            continue;
        }
        if !items.is_empty() || gap.is_some() || is_over {
            return Ok(Delivered { items, gap, cursor: reader.begun(), has_moved: true });
        }
        tokio::select! { biased;
            () = changed => {}
            () = clock.sleep_until(until) => {}
        }
    }
}
