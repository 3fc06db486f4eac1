//! What all readers of a feed share: the log of what rounds have found.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Mutex;

use super::{FeedBounds, Loaded};
use crate::bus::Position;
use crate::event::{EventName, EventTime};
use crate::store::StoreError;

/// So many copies of an event are known to be ones: no emitter of evbus puts it so often.
const MOST_COPIES: u8 = 40;

/// An event as a round has found it.
pub(super) struct Arrival {
    pub name: EventName,
    /// Everything at or before this is in the log at or before this event, or was there before the log.
    pub position: Position,
    /// Its number in the log.
    pub number: u64,
    /// Another event of this identity that was in the log already: its emitter may have put it again.
    pub earlier: Option<Rc<Arrival>>,
    /// How many such there are before it.
    copies: u8,
    /// None: not in memory. None inside: it is gone, or no event.
    pub content: RefCell<Option<Option<Loaded>>>,
    /// Held while it is read: one read serves all readers.
    pub reading: Mutex<()>,
    /// Of the document, once it was read.
    pub digest: Cell<Option<[u8; 16]>>,
    /// Its number in the order of names, once it is at or before W.
    pub settled: Cell<Option<u64>>,
    /// The last round that has listed it.
    listed: Cell<u64>,
}

/// What the log has in a place.
#[derive(Clone)]
pub(super) enum Entry {
    Event(Rc<Arrival>),
    /// Events up to this time were pruned, perhaps before a round has seen them.
    Gap(EventTime),
}

/// Entries with their numbers.
#[derive(Default)]
pub(super) struct Log {
    /// The number of the first one that is kept.
    pub first: u64,
    entries: VecDeque<Entry>,
}

impl Log {
    /// The number that the next one gets.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entry with a number; none if it is not there yet, or not any more.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Forgets the oldest ones, as long as there are more than so many. A gap above W stays for those who
    /// come later.
    fn trim(&mut self, most: usize, w: EventTime) -> Vec<Entry> {
        let mut gone = Vec::new();
        while self.entries.len() > most
            && self.entries.front().is_some_and(|first| !matches!(first, Entry::Gap(horizon) if *horizon > w))
        {
            gone.extend(self.entries.pop_front());
            self.first += 1;
        }
        gone
    }
}

/// What all readers share.
pub(super) struct State {
    /// Of this log, so that a cursor of another one is not taken for one of this.
    pub instance: u32,
    /// W as it was before the last round: everything at or before it is known whole.
    pub w: Option<EventTime>,
    /// In the order in which rounds have found them.
    pub log: Log,
    /// In the order of their names: those at or before W.
    pub settled: Log,
    /// Up to where events were pruned, as the log tells.
    pub horizon: Option<EventTime>,
    /// What holds the rounds up.
    pub trouble: Option<StoreError>,
    /// Those above W, also where the log has forgotten them.
    above: BTreeMap<EventName, Rc<Arrival>>,
    /// Those in the log, by their identities.
    identities: HashMap<Box<str>, Rc<Arrival>>,
    /// The documents that are in memory, oldest first, and their bytes.
    documents: VecDeque<(Rc<Arrival>, usize)>,
    document_bytes: usize,
    rounds: u64,
    bounds: FeedBounds,
}

impl State {
    /// One before the first round; `random` makes it another than all before.
    pub fn new(random: u64, bounds: FeedBounds) -> Self {
        Self {
            instance: (random >> 32) as u32,
            w: None,
            log: Log::default(),
            settled: Log::default(),
            horizon: None,
            trouble: None,
            above: BTreeMap::new(),
            identities: HashMap::new(),
            documents: VecDeque::new(),
            document_bytes: 0,
            rounds: 0,
            bounds,
        }
    }

    /// One before the first round, in place of this. Its numbers are others: whoever was in the log of this
    /// one finds itself forgotten.
    pub fn anew(&self, random: u64) -> Self {
        let behind = |log: &Log| Log { first: log.end() + 1, entries: VecDeque::new() };
        Self { log: behind(&self.log), settled: behind(&self.settled), ..Self::new(random, self.bounds) }
    }

    /// What is listed from now on belongs to a new round.
    pub fn begin_round(&mut self) {
        self.rounds += 1;
    }

    /// Takes in a name that a round has found; returns whether it is new. `known`: up to where everything
    /// is known whole, as far as the round has come.
    pub fn arrived(&mut self, name: EventName, known: EventTime) -> bool {
        if let Some(arrival) = self.above.get(&name) {
            arrival.listed.set(self.rounds);
            return false;
        }
        let position = if name.time() <= known { Position::Name(name.clone()) } else { Position::Time(known) };
        let earlier = self.identities.get(name.identity()).filter(|earlier| earlier.copies < MOST_COPIES);
        let earlier = earlier.map(Rc::clone);
        let arrival = Rc::new(Arrival {
            position,
            number: self.log.end(),
            copies: earlier.as_ref().map_or(0, |earlier| earlier.copies + 1),
            earlier,
            content: RefCell::default(),
            reading: Mutex::default(),
            digest: Cell::default(),
            settled: Cell::default(),
            listed: Cell::new(self.rounds),
            name: name.clone(),
        });
        self.identities.insert(name.identity().into(), Rc::clone(&arrival));
        self.log.push(Entry::Event(Rc::clone(&arrival)));
        self.above.insert(name, arrival);
        true
    }

    /// Takes in up to where events were pruned; returns whether that is new to a log behind `before`.
    pub fn take_horizon(&mut self, horizon: Option<EventTime>, before: EventTime) -> bool {
        let Some(pruned) = horizon.filter(|pruned| Some(*pruned) > self.horizon) else { return false };
        self.horizon = horizon;
        let is_new = pruned > before;
        if is_new {
            self.log.push(Entry::Gap(pruned));
            self.settled.push(Entry::Gap(pruned));
        }
        is_new
    }

    /// Forgets what is above W and was not in the listing that has just ended, and was whole: its emitter
    /// has put it elsewhere, or has taken it back.
    pub fn forget_what_is_gone(&mut self) {
        let round = self.rounds;
        self.above.retain(|_, arrival| arrival.listed.get() == round);
    }

    /// Everything at or before `known` is known whole; returns whether that is new.
    pub fn settle(&mut self, known: EventTime) -> bool {
        let is_new = self.w != Some(known);
        self.w = Some(known);
        while let Some(first) = self.above.first_entry().filter(|first| first.key().time() <= known) {
            let arrival = first.remove();
            arrival.settled.set(Some(self.settled.end()));
            self.settled.push(Entry::Event(arrival));
        }
        for entry in self.log.trim(self.bounds.kept, known) {
            if let Entry::Event(arrival) = entry
                && self.identities.get(arrival.name.identity()).is_some_and(|last| Rc::ptr_eq(last, &arrival))
            {
                self.identities.remove(arrival.name.identity());
            }
        }
        self.settled.trim(self.bounds.kept, known);
        is_new
    }

    /// W, the last event above it, and whether too many are; none if none is, or behind what cannot be
    /// read.
    pub fn above_w(&self) -> Option<(EventTime, EventName, bool)> {
        let (newest, _) = self.above.last_key_value().filter(|_| self.trouble.is_none())?;
        let w = self.w?;
        Some((w, newest.clone(), self.is_full_behind(w)))
    }

    /// Whether more events than are held lie behind a time.
    pub fn is_full_behind(&self, known: EventTime) -> bool {
        let behind = self.above.keys().rev().take_while(|name| name.time() > known);
        behind.take(self.bounds.above_w + 1).count() > self.bounds.above_w
    }

    /// The time of the last event above W that is not after `until`.
    pub fn last_until(&self, until: EventTime) -> Option<EventTime> {
        // Nearly all of them are.
        self.above.keys().rev().map(EventName::time).find(|time| *time <= until)
    }

    /// The events above W that the log has forgotten.
    pub fn above_before_the_log(&self) -> Rc<[Rc<Arrival>]> {
        self.above.values().filter(|arrival| arrival.number < self.log.first).map(Rc::clone).collect()
    }

    /// A document is in memory now; the oldest of them go.
    pub fn keep(&mut self, arrival: &Rc<Arrival>, bytes: usize) {
        self.documents.push_back((Rc::clone(arrival), bytes));
        self.document_bytes += bytes;
        while self.document_bytes > self.bounds.document_bytes
            && let Some((oldest, bytes)) = self.documents.pop_front()
        {
            oldest.content.replace(None);
            self.document_bytes -= bytes;
        }
    }
}
