//! The copy of events from one bus to another, of whatever kinds: with their ids, so that a repeat is harmless.
//!
//! On the other bus they are new events, under new times: its groups run them. A copy that was killed is begun again, and
//! skips what is there.

use std::time::Duration;

use crate::bus::emit::{AckKind, Draft, Emitter};
use crate::bus::read::{self, NamePages, Range};
use crate::bus::{BusHandle, OpenBus, frontier, keys, schedule};
use crate::event::{Event, EventTime, check_size};
use crate::store::{LARGEST_BYTES, StoreResult};

/// How many events are read and put together.
const PAGE: usize = 1_000;

/// How long a bus that does not answer is asked.
const TIMEOUT: Duration = Duration::from_mins(1);

/// What a copy has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Events that are on the other bus now, and were not before.
    pub events: u64,
    /// Events that were there.
    pub repeats: u64,
    /// Events that wait for their time, copied or there.
    pub scheduled: u64,
    /// Events that cannot be copied, as `NAME: REASON`; the first of them.
    pub unfit: Vec<String>,
    /// How many cannot.
    pub unfit_len: u64,
}

/// At most so many events that cannot be copied are named.
const UNFIT: usize = 20;

/// A copy from one bus to another.
pub struct Copier<'a> {
    from: &'a BusHandle,
    to: &'a OpenBus,
    emitter: Emitter,
    range: Range,
    /// Where the range began at first.
    since: EventTime,
    /// The losses of writes of the bus that is copied, so far.
    rewinds: u64,
}

impl<'a> Copier<'a> {
    /// A copy of the events in a range.
    pub fn new(from: &'a BusHandle, to: &'a OpenBus, range: Range) -> Self {
        let emitter = Emitter::new(to.handle.clone(), TIMEOUT);
        Self { from, to, emitter, since: range.since, range, rewinds: from.store.rewinds() }
    }

    /// Copies what is there; calls `progress` with the number of events so far.
    ///
    /// # Errors
    /// One of the buses fails: what was copied stays, and a repeat goes on.
    pub async fn pass(&mut self, progress: impl FnMut(u64)) -> StoreResult<Copied> {
        let range = self.range.clone();
        let mut copied = Copied::default();
        self.copy(&range, &mut copied, progress).await?;
        Ok(copied)
    }

    /// Copies what is there, and the next time what has come since. An event that comes in behind others is not missed:
    /// the next pass begins where all was settled before this one listed.
    ///
    /// # Errors
    /// As [`Copier::pass`].
    pub async fn follow(&mut self, progress: impl FnMut(u64)) -> StoreResult<Copied> {
        let store = &*self.from.store;
        if std::mem::replace(&mut self.rewinds, store.rewinds()) != store.rewinds() {
            // What comes now may lie before what was copied.
            self.range.since = self.since;
        }
        let w = frontier::read_durable(store).await?;
        let range = self.range.clone();
        let mut copied = Copied::default();
        let newest = self.copy(&range, &mut copied, progress).await?;
        self.range.since = self.range.since.max(w.next());
        // Where no worker raises W, all above it would be listed each time.
        let settled = self.from.clock.now().minus(store.profile().lag);
        if let Some(newest) = newest.map(|newest| newest.min(settled)).filter(|newest| *newest > w) {
            frontier::raise(store, newest).await?;
        }
        Ok(copied)
    }

    /// Copies the events of a range; returns the time of the newest.
    async fn copy(
        &mut self,
        range: &Range,
        copied: &mut Copied,
        mut progress: impl FnMut(u64),
    ) -> StoreResult<Option<EventTime>> {
        let (from, mut newest) = (self.from, None);
        let mut pages = NamePages::of(from, range).of_len(PAGE);
        while let Some(names) = pages.next().await? {
            let mut drafts = Vec::with_capacity(names.len());
            for name in &names {
                newest = newest.max(Some(name.time()));
                let Some(document) = read::document(from, name, LARGEST_BYTES).await? else { continue };
                match self.draft(&document) {
                    Ok(draft) => drafts.push(draft),
                    Err(why) => copied.refuse(format!("{name}: {why}")),
                }
            }
            self.emit(&drafts, copied).await?;
            progress(copied.events + copied.repeats);
        }
        Ok(newest)
    }

    fn draft(&self, document: &[u8]) -> Result<Draft, String> {
        let event = Event::parse(document, LARGEST_BYTES).map_err(|error| error.to_string())?;
        check_size(&event.to_json(), self.to.max_event_bytes()).map_err(|error| error.to_string())?;
        Ok(Draft::named(event))
    }

    async fn emit(&mut self, drafts: &[Draft], copied: &mut Copied) -> StoreResult<()> {
        let acks = match self.to.settings.has_segments() {
            true => self.emitter.emit_chunks(drafts).await?,
            false => {
                let mut acks = Vec::with_capacity(drafts.len());
                for batch in drafts.chunks(self.emitter.batch()) {
                    acks.extend(self.emitter.emit(batch).await?);
                }
                acks
            }
        };
        for (ack, draft) in acks.iter().zip(drafts) {
            match ack.kind {
                AckKind::New => copied.events += 1,
                AckKind::Duplicate => copied.repeats += 1,
                AckKind::IdTaken => {
                    copied.refuse(format!("{}: another event there has its id and source", draft.event().id()));
                }
            }
        }
        Ok(())
    }

    /// Copies the events that wait for their time.
    ///
    /// # Errors
    /// As [`Copier::pass`].
    pub async fn scheduled(&mut self, copied: &mut Copied) -> StoreResult<()> {
        let (names, _) = schedule::entries(&*self.from.store, usize::MAX, |_| true).await?;
        for name in names {
            let Some(found) = self.from.store.get_within(&keys::scheduled(&name), LARGEST_BYTES).await? else {
                continue;
            };
            match self.draft(&found.bytes) {
                Ok(draft) => {
                    self.emitter.schedule(&[draft], name.time()).await?;
                    copied.scheduled += 1;
                }
                Err(why) => copied.refuse(format!("{name}: {why}")),
            }
        }
        Ok(())
    }
}

impl Copied {
    /// Adds what a later pass of a mirror has done; what lies above W is looked at again in each, and counts once.
    pub fn add_new(&mut self, pass: Self) {
        self.events += pass.events;
        for why in pass.unfit {
            if !self.unfit.contains(&why) && self.unfit.len() < UNFIT {
                self.unfit.push(why);
            }
        }
        self.unfit_len = self.unfit.len() as u64;
    }

    fn refuse(&mut self, why: String) {
        self.unfit_len += 1;
        if self.unfit.len() < UNFIT {
            self.unfit.push(why);
        }
    }
}
