//! One reader of the feed.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::state::{Arrival, Entry, Log, State};
use super::{Cursor, Feed, Loaded, LogPlace, before_time, content_of};
use crate::bus::look::{self, LookBounds, Wanted};
use crate::bus::{Position, horizon};
use crate::event::{Condition, Event, EventName, EventTime, Filter, FilterResult, NameMatch, TypeFilter};
use crate::store::{StoreError, StoreResult};
use crate::threads;

/// The most bytes of events that are given at a time, but for a single one.
const MOST_BYTES: usize = 256 << 10;

/// The most entries of the log that are passed at a time.
const MOST_PASSED: usize = 1_000;

/// At least so many names are listed at a time.
const LEAST_WINDOW: usize = 100;

/// In which order events are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they come.
    #[default]
    Arrival,
    /// By their names, each once it is at or before W: seconds later.
    Settled,
}

/// Which events a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Its own choice. An event for which the condition cannot be evaluated is given.
    pub filter: Filter,
    /// What it may see at most; none for everything.
    pub allowed: Option<TypeFilter>,
    /// In which order.
    pub order: Order,
}

impl Selection {
    fn slug_matches(&self, slug: &str) -> bool {
        let allowed = self.allowed.as_ref();
        self.filter.types.matches_slug(slug) != NameMatch::No
            && allowed.is_none_or(|allowed| allowed.matches_slug(slug) != NameMatch::No)
    }

    /// Whether an event is wanted.
    async fn wants(&self, content: &Loaded, evaluations: &Mutex<()>) -> bool {
        let types = self.filter.types.matches(&content.type_);
        if !types || self.allowed.as_ref().is_some_and(|allowed| !allowed.matches(&content.type_)) {
            return false;
        }
        if self.filter.condition.is_none() {
            return true;
        }
        let Ok(event) = Event::parse(&content.document, usize::MAX) else { return true };
        // What cannot be judged is not kept from anybody.
        let is_wanted = |result| matches!(result, FilterResult::Wanted | FilterResult::CannotEvaluate(_));
        // How long a regular expression takes depends on itself.
        if self.filter.is_slow(&event) || self.filter.condition.as_ref().is_some_and(Condition::has_patterns) {
            let filter = self.filter.clone();
            let _turn = evaluations.lock().await;
            return threads::run(move || filter.evaluate(&event)).await.is_none_or(is_wanted);
        }
        is_wanted(self.filter.evaluate(&event))
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the next event that comes.
    Now,
    /// Behind what a client has kept.
    Cursor(Cursor),
    /// With the events from a time on.
    Since(EventTime),
}

/// An event for a reader.
#[derive(Debug, Clone)]
pub struct FeedItem {
    /// Its document, on one line.
    pub document: Bytes,
    /// Where the reader stands behind it.
    pub cursor: Cursor,
    /// Its name.
    pub name: EventName,
}

/// What a reader is given.
#[derive(Debug, Default)]
pub struct Given {
    /// The events.
    pub items: Vec<FeedItem>,
    /// Events up to this time were pruned that the reader has perhaps not seen.
    pub gap: Option<EventTime>,
    /// Whether there is perhaps more already.
    pub more: bool,
}

impl Given {
    /// What was given before an error; the error itself if nothing was.
    fn or(self, error: StoreError) -> StoreResult<Self> {
        if self.items.is_empty() && self.gap.is_none() { Err(error) } else { Ok(Self { more: true, ..self }) }
    }
}

/// A reader of the feed.
pub struct Reader {
    feed: Rc<Feed>,
    selection: Selection,
    at: Place,
    /// Up to where events were pruned that it knows of: what was pruned before it began, and what it was
    /// told.
    told: Option<EventTime>,
}

/// Where a reader is.
#[derive(Debug, Clone)]
enum Place {
    /// Not known before there was a round.
    Start(ReadFrom),
    /// In the store.
    Behind(Position),
    /// In the log.
    Log(InLog),
}

/// Where a reader is in the log.
#[derive(Clone)]
struct InLog {
    /// The number of the next entry.
    number: u64,
    /// Everything at or before this was given out.
    position: Position,
    /// Where it came into the log: from there on it was given everything.
    entered: (u64, Position),
    /// What comes before the next entry: events above W that the log has forgotten, and how many of them
    /// were passed.
    first: Rc<[Rc<Arrival>]>,
    passed: usize,
}

impl std::fmt::Debug for InLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InLog").field("number", &self.number).field("position", &self.position).finish_non_exhaustive()
    }
}

impl InLog {
    fn new(number: u64, position: Position) -> Self {
        Self { number, entered: (number, position.clone()), position, first: Rc::default(), passed: 0 }
    }

    /// Whether all that the log has forgotten is passed.
    fn is_in_the_log(&self) -> bool {
        self.passed == self.first.len()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.feed.readers.set(self.feed.readers.get() - 1);
    }
}

impl Reader {
    /// A reader that begins at a place. Rounds must be made while there are readers: [`Feed::follow`].
    pub fn new(feed: &Rc<Feed>, selection: Selection, start: ReadFrom) -> Self {
        feed.readers.set(feed.readers.get() + 1);
        let mut reader = Self { feed: Rc::clone(feed), selection, at: Place::Start(start), told: None };
        if let Place::Start(ReadFrom::Now) = reader.at {
            reader.begin_now();
        }
        reader
    }

    /// The next events, at most so many; none if there are none now. [`Feed::changed`] tells when to ask
    /// again. Where this fails, or is dropped, nothing counts as given.
    ///
    /// # Errors
    /// The store does not answer, or a part of it cannot be read.
    pub async fn next(&mut self, most: usize) -> StoreResult<Given> {
        loop {
            let Some(w) = self.feed.state.borrow().w else { return Ok(Given::default()) };
            match self.at.clone() {
                Place::Start(ReadFrom::Now) => self.begin_now(),
                Place::Start(ReadFrom::Since(since)) => {
                    // What was pruned before is no gap.
                    self.told = horizon::read(&*self.feed.bus.store).await?;
                    self.at = Place::Behind(before(since));
                }
                Place::Start(ReadFrom::Cursor(cursor)) => self.at = self.behind(cursor),
                Place::Behind(position) if position >= Position::Time(w) => self.join(position),
                Place::Behind(position) => return self.read_store(position, w, most).await,
                Place::Log(place) if self.is_forgotten(place.number) => self.at = Place::Behind(place.position),
                Place::Log(place) => return self.read_log(place, most).await,
            }
        }
    }

    /// In which order it is given events.
    pub fn order(&self) -> Order {
        self.selection.order
    }

    /// Where the reader stands, or begins: from now on it is not before that.
    pub fn begun(&mut self) -> Cursor {
        if let Place::Start(ReadFrom::Now) = self.at {
            self.begin_now();
        }
        self.cursor().unwrap_or_else(|| Cursor::at(Position::START))
    }

    /// Where the reader stands; none before there was a round.
    pub fn cursor(&self) -> Option<Cursor> {
        let state = self.feed.state.borrow();
        match &self.at {
            Place::Start(ReadFrom::Cursor(cursor)) => Some(cursor.clone()),
            Place::Start(ReadFrom::Since(since)) => Some(Cursor::at(before(*since))),
            Place::Start(ReadFrom::Now) => None,
            Place::Behind(position) => Some(Cursor::at(position.clone())),
            Place::Log(place) => {
                // If all that is known is given out, so is everything at or before W.
                let has_all = place.is_in_the_log() && place.number == self.log(&state).end();
                let w = state.w.filter(|_| has_all).map(Position::Time);
                let position = w.into_iter().chain([place.position.clone()]).max();
                Some(self.cursor_in_log(&state, place, position.unwrap_or(Position::START)))
            }
        }
    }

    fn log<'a>(&self, state: &'a State) -> &'a Log {
        match self.selection.order {
            Order::Arrival => &state.log,
            Order::Settled => &state.settled,
        }
    }

    fn cursor_in_log(&self, state: &State, place: &InLog, position: Position) -> Cursor {
        match self.selection.order {
            Order::Arrival if place.is_in_the_log() => {
                Cursor { position, place: Some(LogPlace { instance: state.instance, number: place.number }) }
            }
            // The position is all.
            Order::Arrival | Order::Settled => Cursor::at(position),
        }
    }

    fn is_forgotten(&self, number: u64) -> bool {
        let state = self.feed.state.borrow();
        let log = self.log(&state);
        number < log.first || number > log.end()
    }

    /// Begins behind all that is known, if something is.
    fn begin_now(&mut self) {
        let feed = Rc::clone(&self.feed);
        let state = feed.state.borrow();
        if let Some(w) = state.w {
            self.told = state.horizon;
            self.at = Place::Log(InLog::new(self.log(&state).end(), Position::Time(w)));
        }
    }

    fn behind(&self, Cursor { position, place }: Cursor) -> Place {
        let state = self.feed.state.borrow();
        match place {
            Some(LogPlace { instance, number })
                if instance == state.instance
                    && self.selection.order == Order::Arrival
                    && (state.log.first..=state.log.end()).contains(&number) =>
            {
                Place::Log(InLog::new(number, position))
            }
            _ => Place::Behind(position),
        }
    }

    /// Goes over to the log: everything at or before W was given out, and what is above it is all in the
    /// log, or was.
    fn join(&mut self, position: Position) {
        let state = self.feed.state.borrow();
        self.at = Place::Log(match self.selection.order {
            Order::Arrival => InLog { first: state.above_before_the_log(), ..InLog::new(state.log.first, position) },
            // What is at or before the position is passed over there; what was pruned behind it is told.
            Order::Settled => InLog::new(state.settled.first, position),
        });
    }

    /// Reads the store from a position on, up to W.
    async fn read_store(&mut self, position: Position, w: EventTime, most: usize) -> StoreResult<Given> {
        let feed = Rc::clone(&self.feed);
        let mut given = Given { more: true, ..Given::default() };
        let wanted = Wanted { until: w, ..Wanted::of(self.selection.filter.types.clone()) };
        let window = feed.bounds.window.min(most.max(LEAST_WINDOW));
        let bounds = LookBounds { window, reads: feed.bounds.reads };
        let look = look::look(&feed.bus, &position, &wanted, bounds, &look::nothing()).await?;
        // Behind the listing: what was pruned before it is told.
        let horizon = horizon::read(&*feed.bus.store).await?;
        given.gap = horizon.filter(|pruned| Some(*pruned) > self.told && Position::Time(*pruned) > position);
        let told = self.told.max(given.gap);
        // What cannot be read ends what is given.
        let barrier = look.barrier.map(|(first, error)| (Position::Time(before_time(first)), error));
        let mut end = look.end.unwrap_or(Position::Time(w));
        if let Some((before, _)) = &barrier {
            end = end.min(before.clone()).max(position.clone());
        }
        let (mut at, mut bytes) = (position, 0);
        for name in look.names.into_iter().filter(|name| end.covers(name)) {
            if given.items.len() >= most || bytes >= MOST_BYTES {
                (self.at, self.told) = (Place::Behind(at), told);
                return Ok(given);
            }
            if self.selection.slug_matches(name.slug()) {
                let (content, gap) = match self.or_gap(&name, content_of(&feed.bus, &name)).await {
                    Ok(read) => read,
                    Err(error) => {
                        let given = given.or(error)?;
                        (self.at, self.told) = (Place::Behind(at), told);
                        return Ok(given);
                    }
                };
                given.gap = given.gap.max(gap);
                if let Some(content) = content
                    && self.selection.wants(&content, &feed.evaluations).await
                {
                    bytes += content.document.len();
                    let cursor = Cursor::at(Position::Name(name.clone()));
                    given.items.push(FeedItem { document: content.document, cursor, name: name.clone() });
                }
            }
            at = Position::Name(name);
        }
        if let Some((_, error)) = barrier {
            given = given.or(error)?;
        }
        (self.at, self.told) = (Place::Behind(end), told);
        Ok(given)
    }

    /// Gives what the log holds from a place on.
    async fn read_log(&mut self, mut place: InLog, most: usize) -> StoreResult<Given> {
        let feed = Rc::clone(&self.feed);
        let mut given = Given::default();
        let (mut told, mut bytes, mut passed) = (self.told, 0, 0);
        loop {
            let is_first = !place.is_in_the_log();
            let entry = match place.first.get(place.passed) {
                Some(arrival) => Some(Entry::Event(Rc::clone(arrival))),
                None => self.log(&feed.state.borrow()).get(place.number).cloned(),
            };
            let Some(entry) = entry else { break };
            // Others are to come to their turn, too.
            if given.items.len() >= most || bytes >= MOST_BYTES || passed == MOST_PASSED {
                given.more = true;
                break;
            }
            passed += 1;
            let mut behind = place.clone();
            match is_first {
                true => behind.passed += 1,
                false => behind.number += 1,
            }
            let arrival = match entry {
                Entry::Event(arrival) => arrival,
                Entry::Gap(pruned) => {
                    if Some(pruned) > told && Position::Time(pruned) > place.position {
                        given.gap = given.gap.max(Some(pruned));
                        told = Some(pruned);
                    }
                    place = behind;
                    continue;
                }
            };
            let is_new = !place.position.covers(&arrival.name) && self.selection.slug_matches(arrival.name.slug());
            if !is_first {
                let passed = match self.selection.order {
                    Order::Arrival => arrival.position.clone(),
                    Order::Settled => Position::Name(arrival.name.clone()),
                };
                behind.position = behind.position.max(passed);
            }
            if is_new {
                let (content, gap) = match self.or_gap(&arrival.name, feed.content(&arrival)).await {
                    Ok(read) => read,
                    Err(error) => {
                        let given = given.or(error)?;
                        (self.at, self.told) = (Place::Log(place), told);
                        return Ok(given);
                    }
                };
                given.gap = given.gap.max(gap);
                if let Some(content) = content
                    && !self.was_given(&arrival, &place)
                    && self.selection.wants(&content, &feed.evaluations).await
                {
                    bytes += content.document.len();
                    let cursor = self.cursor_in_log(&feed.state.borrow(), &behind, behind.position.clone());
                    given.items.push(FeedItem { document: content.document, cursor, name: arrival.name.clone() });
                }
            }
            place = behind;
        }
        (self.at, self.told) = (Place::Log(place), told);
        Ok(given)
    }

    /// What an event holds; or up to where events were pruned, if it is gone and may be one of them. Most
    /// that are gone were put again, and come under another name.
    async fn or_gap(
        &self,
        name: &EventName,
        reading: impl Future<Output = StoreResult<Option<Loaded>>>,
    ) -> StoreResult<(Option<Loaded>, Option<EventTime>)> {
        if let Some(content) = reading.await? {
            return Ok((Some(content), None));
        }
        let horizon = horizon::read(&*self.feed.bus.store).await?;
        Ok((None, horizon.filter(|pruned| *pruned >= name.time())))
    }

    /// Whether the reader was given the same document before, which its emitter has put again; the arrival was
    /// read.
    fn was_given(&self, arrival: &Arrival, place: &InLog) -> bool {
        let (number, position) = &place.entered;
        let mut earlier = arrival.earlier.as_ref();
        while let Some(copy) = earlier {
            let passed = match self.selection.order {
                Order::Arrival => Some(copy.number),
                Order::Settled => copy.settled.get(),
            };
            let has_passed = passed.is_some_and(|passed| (*number..place.number).contains(&passed));
            // One that was gone by then was given to some, and to others not.
            let was_gone = matches!(&*copy.content.borrow(), Some(None));
            if has_passed && !was_gone && !position.covers(&copy.name) && copy.digest == arrival.digest {
                return true;
            }
            earlier = copy.earlier.as_ref();
        }
        false
    }
}

/// The position before all events from a time on.
fn before(since: EventTime) -> Position {
    match since {
        EventTime::MIN => Position::START,
        since => Position::Time(before_time(since)),
    }
}
