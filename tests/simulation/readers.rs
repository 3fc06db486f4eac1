//! Readers of the feed: clients that come and go, each with the cursor that it was given last, at
//! servers that are killed, too. None may miss an acknowledged event.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::{BusHandle, Position};
use evbus::event::{Event, EventName, EventTime};
use evbus::feed::{Cursor, Feed, FeedBounds, Given, Order, ReadFrom, Reader, Selection};

use crate::executor::{Micros, SECOND, SimProcess};
use crate::world::{JUNK, World};

/// How many servers there are.
pub const SERVERS: usize = 2;

/// What a client has seen; it outlives the servers that it reads from.
pub struct Client {
    pub order: Order,
    /// Which one it reads from.
    server: Cell<usize>,
    state: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    /// As a text, as a client keeps it.
    cursor: Option<String>,
    ids: BTreeSet<String>,
    last: Option<EventName>,
    /// Up to this time events were pruned that it has perhaps not seen, as it was told.
    gap: Option<EventTime>,
}

impl Client {
    pub fn new(order: Order) -> Self {
        Self { order, server: Cell::new(0), state: RefCell::default() }
    }

    /// An acknowledged event that it has not seen, and not been told of.
    pub fn misses(&self, world: &World) -> Option<String> {
        let seen = self.state.borrow();
        let events = world.events.borrow();
        let mut missed = events.values().filter(|known| {
            let Some((_, name)) = &known.acked else { return false };
            // What is dated ahead of all clocks waits for them.
            let waits = |name: &EventName| self.order == Order::Settled && name.time() > world.frontier.get();
            let copies = world.copies_on_bus(known);
            let pruned = !copies.contains(name) && seen.gap.is_some_and(|gap| name.time() <= gap);
            // A put that came late may have left a copy of what was pruned.
            let excused = (pruned || waits(name)) && copies.iter().all(waits);
            !excused && !known.id.starts_with(JUNK) && !seen.ids.contains(&known.id) && world.is_on_bus_or_pruned(known)
        });
        missed.next().map(|known| known.id.clone())
    }

    fn take(&self, world: &World, pid: u32, given: Given, most: usize) {
        let mut seen = self.state.borrow_mut();
        if let Some(gap) = given.gap {
            world.log_line(|| format!("p{pid} a {:?} client is told that events up to {gap} were pruned", self.order));
            seen.gap = seen.gap.max(Some(gap));
        }
        // The rest is lost with the connection.
        for item in given.items.into_iter().take(most) {
            let event = Event::parse(&item.document, usize::MAX).expect("only events are given");
            world.log_line(|| {
                format!("p{pid} a {:?} client sees {} {} {}", self.order, event.id(), item.name, item.cursor)
            });
            if self.order == Order::Settled && item.name.time() > world.frontier.get() {
                world.complain(format!("a client in settled order is given {} above W", item.name));
            }
            if self.order == Order::Settled
                && let Some(last) = seen.last.replace(item.name.clone()).filter(|last| *last >= item.name)
            {
                world.complain(format!("a client in settled order is given {} behind {last}", item.name));
            }
            seen.ids.insert(event.id().to_owned());
            seen.cursor = Some(item.cursor.to_string());
        }
    }

    fn start(&self) -> ReadFrom {
        // What was pruned before it came it is told, too.
        let first = || Cursor::at(Position::START);
        let read = |text: &String| Cursor::parse(text).expect("a cursor that was given is read");
        ReadFrom::Cursor(self.state.borrow().cursor.as_ref().map_or_else(first, read))
    }
}

/// Serves clients until the process ends.
pub async fn serve(world: Rc<World>, process: Rc<SimProcess>, bus: BusHandle, server: usize) {
    let rng = &world.simulation.rng;
    // So small that all of them are reached.
    let bounds = FeedBounds {
        window: rng.one(&[3, 10, 1_000]),
        reads: rng.one(&[1, 2, 128]),
        kept: rng.one(&[0, 2, 20]),
        above_w: rng.one(&[3, 10, 1_000]),
        document_bytes: rng.one(&[0, 300, 1 << 20]),
    };
    let feed = Feed::new(bus, bounds);
    for at in 0..world.clients.len() {
        let (world, feed, pid) = (Rc::clone(&world), Rc::clone(&feed), process.pid);
        let simulation = Rc::clone(&world.simulation);
        simulation.spawn(&process, async move { read(&world, pid, &feed, at, server).await });
    }
    while !world.workers_end.get() {
        feed.follow((Duration::from_millis(200), Duration::from_secs(5))).await;
        world.simulation.sleep(SECOND / 10).await;
    }
}

/// A client that comes to this server again and again.
async fn read(world: &Rc<World>, pid: u32, feed: &Rc<Feed>, at: usize, server: usize) {
    let (rng, client) = (&world.simulation.rng, &world.clients[at]);
    loop {
        // It is at one server at a time.
        if client.server.get() != server {
            world.simulation.sleep(SECOND).await;
            continue;
        }
        let selection = Selection { order: client.order, ..Selection::default() };
        let mut reader = Reader::new(feed, selection, client.start());
        let mut left = rng.one(&[1, 3, 10, 100]);
        if rng.chance(0.3) {
            let _ = feed.refresh().await;
        }
        while left > 0 {
            left -= 1;
            let changed = feed.changed();
            let most = 1 + rng.below(5);
            let Ok(given) = reader.next(most).await else {
                // It goes on where it was.
                world.simulation.sleep(SECOND).await;
                continue;
            };
            let (more, is_empty) = (given.more, given.items.is_empty());
            // The connection ends with what was sent last on its way.
            let arrives = if left == 0 { rng.below(most + 1) } else { most };
            client.take(world, pid, given, arrives);
            if is_empty
                && rng.chance(0.3)
                && let Some(cursor) = reader.cursor()
            {
                world.log_line(|| format!("p{pid} a {:?} client stands at {cursor}", client.order));
                client.state.borrow_mut().cursor = Some(cursor.to_string());
            }
            if !more {
                tokio::select! { biased;
                    () = changed => {}
                    () = world.simulation.sleep(5 * SECOND) => {}
                }
            }
        }
        drop(reader);
        client.server.set(rng.below(SERVERS));
        world.simulation.sleep((rng.around(3.0) * SECOND as f64) as Micros).await;
    }
}
