//! What the owner of a shard knows of it, and what it decides on that. No I/O; time is handed in.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::AbortHandle;

use super::lease::Lease;
use super::marker::{Open, Verdict};
use super::request::{self, Folded, Pending};
use super::retry::Retry;
use super::{GroupName, Marker, Position, Survey};
use crate::bus::{keys, to_json};
use crate::event::{EventName, EventTime};
use crate::store::Version;

/// After so many unclean takeovers in a row a handler is suspected of killing its worker.
const CAREFUL_FROM: u32 = 2;

/// How much an owner holds of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first so many wanted names behind `through` may start.
    pub window: usize,
    /// `open` holds at most so many, those that run included.
    pub open: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window: 10_000, open: 1_000 }
    }
}

/// A handler that runs, or is about to.
pub(super) struct Run {
    pub attempt: u32,
    /// It runs with no other handler beside it.
    pub alone: bool,
    /// Ends it, once it runs.
    pub abort: Option<AbortHandle>,
}

/// A run to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Launch {
    pub name: EventName,
    pub attempt: u32,
    /// The letter to read if the event is gone.
    pub letter: Option<String>,
}

/// A takeover that has succeeded.
pub(super) struct Taken {
    pub marker: Marker,
    pub version: Version,
    /// When its commit was sent.
    pub sent: Duration,
}

/// Everything that one commit makes true, and what may follow once it has.
pub(super) struct Commit {
    pub bytes: Vec<u8>,
    pub epoch: u64,
    pub nonce: String,
    pub version: Option<Version>,
    pub then: Followup,
}

/// What only a durable marker allows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Followup {
    /// Runs whose attempt is counted now.
    pub launches: Vec<EventName>,
    /// Dead letters that are announced now.
    pub letters: Vec<(EventName, Open)>,
    /// Redriven letters and folded requests that are no longer needed.
    pub deletes: Vec<String>,
    /// The shard has no owner now.
    pub given_back: bool,
}

/// The next thing that an ordered group must know before it can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This one may run.
    Start(EventName),
    /// The ordering key of this one must be read first.
    ReadKey(EventName),
    /// Nothing may start now.
    Nothing,
}

/// Identities that ran to success here: another copy of the same event need not run. Bounded, oldest out.
#[derive(Default)]
struct Succeeded {
    set: HashSet<Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Succeeded {
    fn insert(&mut self, identity: &str, limit: usize) {
        if self.set.insert(identity.into()) {
            self.order.push_back(identity.into());
        }
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.set.remove(&oldest);
            }
        }
    }
}

/// An owned shard.
pub(super) struct Shard {
    group: GroupName,
    pub number: u16,
    /// The marker with all that is not committed yet.
    pub marker: Marker,
    pub version: Option<Version>,
    /// When the last successful commit was sent.
    pub commit_sent: Duration,
    /// The same, for the runs that are on their way.
    pub tenure: Rc<Cell<Duration>>,
    pub commit_ended: Duration,
    pub committing: bool,
    pub dirty: bool,
    /// What the marker changes by alone: no verdict waits for a heartbeat, but nothing else has to be said.
    pub survey: Option<Survey>,
    /// Names that may start.
    waiting: BTreeSet<EventName>,
    /// In an ordered group: names that no later listing has confirmed, so that an earlier one may still turn up.
    unconfirmed: BTreeSet<EventName>,
    pub running: BTreeMap<EventName, Run>,
    burying: BTreeSet<EventName>,
    deletes: Vec<String>,
    succeeded: Succeeded,
    /// Hashes of the ordering keys that were read; none where the event is gone, so that nobody can tell.
    order_keys: HashMap<EventName, Option<u64>>,
    pub last_active: Duration,
    pub bounds: Bounds,
    pub giving_back: bool,
    /// Another worker was promised the shard: nothing new starts here.
    pub yielding: bool,
    /// [`Marker::unclean`] as it stands on the store: a good verdict ends careful mode once it is durable.
    durable_unclean: u32,
    sent_unclean: u32,
}

impl Shard {
    /// A shard that was just taken.
    pub fn taken(group: GroupName, number: u16, taken: Taken, now: Duration, bounds: Bounds) -> Self {
        Self {
            group,
            number,
            durable_unclean: taken.marker.unclean,
            sent_unclean: taken.marker.unclean,
            marker: taken.marker,
            version: Some(taken.version),
            commit_sent: taken.sent,
            tenure: Rc::new(Cell::new(taken.sent)),
            commit_ended: now,
            committing: false,
            dirty: false,
            survey: None,
            waiting: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            running: BTreeMap::new(),
            burying: BTreeSet::new(),
            deletes: Vec::new(),
            succeeded: Succeeded::default(),
            order_keys: HashMap::new(),
            last_active: now,
            bounds,
            giving_back: false,
            yielding: false,
        }
    }

    /// Takes in a listing from `through` on. `confirm`: only what an earlier listing had seen may start.
    pub fn surveyed(&mut self, survey: Survey, confirm: bool) {
        let earlier = std::mem::take(&mut self.unconfirmed);
        let known = std::mem::take(&mut self.waiting);
        for name in &survey.names {
            if !self.startable(name) {
                continue;
            }
            if confirm && !known.contains(name) && !earlier.contains(name) {
                self.unconfirmed.insert(name.clone());
            } else {
                self.waiting.insert(name.clone());
            }
        }
        self.survey = Some(survey);
        let (waiting, unconfirmed, running, open) =
            (&self.waiting, &self.unconfirmed, &self.running, &self.marker.open);
        self.order_keys.retain(|name, _| {
            waiting.contains(name)
                || unconfirmed.contains(name)
                || running.contains_key(name)
                || open.contains_key(name)
        });
    }

    /// Takes in a name that a hot listing found, if there is room and nothing unknown lies before it.
    pub fn found(&mut self, name: EventName, confirm: bool) -> bool {
        let room = self.survey.as_ref().is_some_and(|survey| !survey.cut)
            && self.waiting.len() + self.unconfirmed.len() + self.marker.done.len() < self.bounds.window;
        if !room || !self.startable(&name) || self.waiting.contains(&name) {
            return false;
        }
        if confirm { self.unconfirmed.insert(name) } else { self.waiting.insert(name) }
    }

    fn startable(&self, name: &EventName) -> bool {
        self.marker.lacks(name) && !self.marker.open.contains_key(name) && !self.running.contains_key(name)
    }

    /// Whether every handler of the worker must run alone.
    pub fn careful(&self) -> bool {
        self.durable_unclean >= CAREFUL_FROM
    }

    /// How many of the window's names wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether names wait for a second listing.
    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// Whether a commit must be sent now.
    pub fn must_commit(&self, lease: Lease, gap: Duration, now: Duration) -> bool {
        !self.committing
            && (lease.heartbeat_at(self.commit_sent) <= now
                || (self.dirty && (self.commit_ended + gap <= now || self.running.is_empty())))
    }

    /// Whether something started or ended here that is not settled yet.
    pub fn busy(&self) -> bool {
        !self.running.is_empty()
            || !self.burying.is_empty()
            || self.committing
            || self.dirty
            || !self.deletes.is_empty()
    }

    /// Moves `through` as far as the survey allows.
    pub fn advance(&mut self) {
        let Some(survey) = &mut self.survey else { return };
        let running = &self.running;
        let Some(through) = survey.reach(&self.marker, |name| running.contains_key(name)) else { return };
        // A name that was only found hot, at or below W, was not acknowledged: its emitter puts it again.
        drop_covered(&mut self.waiting, &through);
        drop_covered(&mut self.unconfirmed, &through);
        self.marker.advance(through, self.running.keys().cloned());
        self.dirty = true;
    }

    /// Whether the listing stopped at its bound and what it showed is nearly used up.
    pub fn wants_more(&self) -> bool {
        self.survey.as_ref().is_some_and(|survey| survey.cut) && self.waiting.len() <= self.bounds.window / 4
    }

    /// In a full window of which everything is done or open, the time to raise W to, whatever the clock.
    pub fn window_end(&self) -> Option<EventTime> {
        let survey = self.survey.as_ref().filter(|survey| survey.cut && self.waiting.is_empty())?;
        let all = self.unconfirmed.is_empty() && self.running.is_empty();
        survey.names.back().filter(|_| all).map(EventName::time)
    }

    /// The next event to start: what is due again first, then what waits, in order.
    pub fn next(&self, retry: &Retry, ordered: bool, now: EventTime) -> Next {
        let due = self.marker.open.iter().filter(|(name, open)| {
            open.dead.is_none() && !self.running.contains_key(*name) && retry.due(open.next, now)
        });
        let due = due.map(|(name, _)| name);
        let room = self.open_len() < self.bounds.open;
        let fresh = self.waiting.iter().filter(|_| room);
        if !ordered {
            let mut candidates = due.chain(fresh);
            return candidates
                .find(|name| !self.copy_runs(name))
                .map_or(Next::Nothing, |name| Next::Start(name.clone()));
        }
        // A copy that runs may be gone from the bus by now, and then nobody can read its key.
        for name in due.chain(fresh.take(1_000)).filter(|name| !self.copy_runs(name)) {
            match self.turn(name) {
                Turn::Free => return Next::Start(name.clone()),
                Turn::Unknown(name) => return Next::ReadKey(name),
                Turn::Held => {}
            }
        }
        Next::Nothing
    }

    /// Whether an event of an ordered group is the first of its key that is not settled.
    fn turn(&self, name: &EventName) -> Turn {
        let lane = name.lane();
        let earlier = self.waiting.range(..name.clone()).chain(self.unconfirmed.range(..name.clone()));
        let others = self.running.keys().chain(self.marker.open.keys().filter(|open| *open < name)).chain(earlier);
        for other in others.filter(|other| *other != name && other.lane() == lane) {
            let Some(mine) = self.order_keys.get(name) else { return Turn::Unknown(name.clone()) };
            match self.order_keys.get(other) {
                None => return Turn::Unknown(other.clone()),
                // It was moved while it ran: until its run ends it may be of any key.
                Some(None) if self.running.contains_key(other) => return Turn::Held,
                Some(Some(theirs)) if *mine == Some(*theirs) => return Turn::Held,
                Some(_) => {}
            }
        }
        Turn::Free
    }

    /// Notes the hash of an event's ordering key.
    pub fn learn_key(&mut self, name: &EventName, key: Option<u64>) {
        self.order_keys.insert(name.clone(), key);
    }

    /// Whether another copy of the same event runs just now: then this one waits for its verdict.
    fn copy_runs(&self, name: &EventName) -> bool {
        self.running.keys().any(|other| other != name && other.identity() == name.identity())
    }

    /// Events that are open or run.
    fn open_len(&self) -> usize {
        self.marker.open.len() + self.running.keys().filter(|name| !self.marker.open.contains_key(*name)).count()
    }

    /// Whether `open` leaves no room for anything new although something waits.
    pub fn stalled_full(&self) -> bool {
        !self.waiting.is_empty() && self.marker.open.len() >= self.bounds.open
    }

    /// Whether another copy of this event has succeeded here, so that it need not run; an operator's redrive must.
    pub fn succeeded_already(&self, name: &EventName) -> bool {
        let redriven = self.marker.open.get(name).is_some_and(|open| open.letter.is_some());
        !redriven && self.succeeded.set.contains(name.identity())
    }

    /// Reserves the event's place. Alone, its attempt is counted first and it starts after the commit (`None`).
    pub fn start(&mut self, name: &EventName, alone: bool, now: Duration) -> Option<Launch> {
        self.waiting.remove(name);
        let attempt = self.marker.attempt(name);
        if alone {
            self.marker.count_before_run(name);
            self.dirty = true;
        }
        self.running.insert(name.clone(), Run { attempt, alone, abort: None });
        self.last_active = now;
        (!alone).then(|| self.launch(name, attempt))
    }

    /// The launch of an event that was started alone, once its attempt is committed.
    pub fn launch_counted(&self, name: &EventName) -> Option<Launch> {
        self.running.get(name).filter(|run| run.abort.is_none()).map(|run| self.launch(name, run.attempt))
    }

    fn launch(&self, name: &EventName, attempt: u32) -> Launch {
        let letter = self.marker.open.get(name).and_then(|open| open.letter.clone());
        Launch { name: name.clone(), attempt, letter }
    }

    /// Whether an event must run alone whatever the rest.
    pub fn suspect(&self, name: &EventName) -> bool {
        self.marker.open.get(name).is_some_and(|open| open.suspect)
    }

    /// Whether all attempts of an event are used up although none has come back with a verdict.
    pub fn spent(&self, name: &EventName, max_attempts: u32) -> bool {
        self.marker.open.get(name).is_some_and(|open| open.suspect && open.attempts >= max_attempts)
    }

    /// Gives up an event that is [`Shard::spent`]; its attempts, which stay what they were.
    pub fn settle_spent(&mut self, name: &EventName, verdict: Verdict, now: Duration) -> u32 {
        // Nor is this a sign that handlers come back.
        let unclean = self.marker.unclean;
        self.settle(name, verdict, false, now);
        self.marker.unclean = unclean;
        let Some(open) = self.marker.open.get_mut(name) else { return 0 };
        // No run ended here, so none is to be counted.
        open.attempts -= 1;
        open.attempts
    }

    /// Records a verdict. `ran`: its handler ran to success here.
    pub fn settle(&mut self, name: &EventName, verdict: Verdict, ran: bool, now: Duration) {
        self.running.remove(name);
        // A copy of an event that has succeeded is settled without having been started.
        self.waiting.remove(name);
        if ran {
            self.succeeded.insert(name.identity(), self.bounds.window);
        }
        if verdict == Verdict::Done
            && let Some(letter) = self.marker.open.get(name).and_then(|open| open.letter.clone())
        {
            self.deletes.push(keys::letter(&self.group, &letter));
        }
        let again = verdict == Verdict::Again;
        if again && !self.marker.open.contains_key(name) && !self.marker.through.covers(name) {
            self.waiting.insert(name.clone());
        }
        if !again {
            self.marker.unclean = 0;
        }
        self.marker.settle(name, verdict);
        self.dirty = true;
        self.last_active = now;
    }

    /// The event could not be read: it goes back to where it was, and costs no attempt.
    pub fn unread(&mut self, name: &EventName, retry_at: EventTime, why: String) {
        self.running.remove(name);
        let verdict = Verdict::Again;
        self.marker.settle(name, verdict);
        let open = self.marker.open.entry(name.clone()).or_default();
        open.next = Some(retry_at);
        open.why = Some(why);
        self.dirty = true;
    }

    /// The event's letter is on the bus.
    pub fn buried(&mut self, name: &EventName) {
        self.burying.remove(name);
        if let Some(redriven) = self.marker.buried(name) {
            self.deletes.push(keys::letter(&self.group, &redriven));
        }
        self.dirty = true;
    }

    /// The event's letter could not be written now.
    pub fn unburied(&mut self, name: &EventName) {
        self.burying.remove(name);
        self.dirty = true;
    }

    /// Folds in what operators ask; whether a reset came, so that what runs must end.
    pub fn fold(&mut self, pending: &[Pending], fresh: bool) -> bool {
        let mut reset = false;
        let number = self.number;
        for asked in pending.iter().filter(|asked| asked.shard == number) {
            let Some(request) = &asked.request else { continue };
            // What runs has its place in `open` already.
            let reserved = self.open_len() - self.marker.open.len();
            let room = self.bounds.open.saturating_sub(reserved);
            match request::fold(&mut self.marker, &asked.id, request, room) {
                Folded::Changed => {
                    match request {
                        request::Request::Reset { .. } => {
                            self.forget_everything();
                            reset = true;
                        }
                        request::Request::Share { with } => {
                            self.yielding |= self.marker.owner.as_ref().is_some_and(|owner| owner.worker != *with);
                        }
                        request::Request::Redrive { .. } => {}
                    }
                    self.deletes.push(asked.key.clone());
                    self.dirty = true;
                }
                Folded::Before => {
                    if !self.deletes.contains(&asked.key) {
                        self.deletes.push(asked.key.clone());
                        self.dirty = true;
                    }
                }
                Folded::NotYet => {}
            }
        }
        // An id is kept until its request is seen to be gone: what was asked before a takeover does not show that.
        if fresh {
            self.marker.folded.retain(|id| pending.iter().any(|asked| asked.id == *id));
        }
        reset
    }

    fn forget_everything(&mut self) {
        self.survey = None;
        self.waiting.clear();
        self.unconfirmed.clear();
        self.order_keys.clear();
        self.burying.clear();
        self.succeeded = Succeeded::default();
        for run in std::mem::take(&mut self.running).into_values() {
            if let Some(abort) = run.abort {
                abort.abort();
            }
        }
    }

    /// The marker as it is to be written now.
    pub fn commit(&mut self, nonce: String) -> Commit {
        self.marker.nonce.clone_from(&nonce);
        self.committing = true;
        self.sent_unclean = self.marker.unclean;
        self.dirty = false;
        let launches = self.running.iter().filter(|(_, run)| run.alone && run.abort.is_none());
        let launches = launches.map(|(name, _)| name.clone()).collect();
        let letters =
            self.marker.open.iter().filter(|(name, open)| open.dead.is_some() && !self.burying.contains(*name));
        let letters = letters.map(|(name, open)| (name.clone(), open.clone())).collect();
        let given_back = self.marker.owner.is_none();
        let then = Followup { launches, letters, deletes: std::mem::take(&mut self.deletes), given_back };
        let mut bytes = to_json(&self.marker);
        bytes.push(b'\n');
        Commit { bytes, epoch: self.marker.epoch, nonce, version: self.version.clone(), then }
    }

    /// The commit is durable.
    pub fn committed(&mut self, version: Version, sent: Duration, now: Duration, then: &Followup) {
        self.version = Some(version);
        self.commit_sent = sent;
        self.tenure.set(sent);
        self.commit_ended = now;
        self.committing = false;
        self.durable_unclean = self.sent_unclean;
        self.burying.extend(then.letters.iter().map(|(name, _)| name.clone()));
    }

    /// Ends what runs: somebody else owns the shard now, or will.
    pub fn fenced(&mut self) {
        self.forget_everything();
    }

    /// The position up to which everything is settled.
    pub fn through(&self) -> &Position {
        &self.marker.through
    }

    /// The earliest time at which something that failed is due again.
    pub fn next_due(&self) -> Option<EventTime> {
        let waiting =
            self.marker.open.iter().filter(|(name, open)| open.dead.is_none() && !self.running.contains_key(*name));
        waiting.filter_map(|(_, open)| open.next).min()
    }
}

/// Takes what `through` covers from the front: it moves at every commit, and the rest may be ten thousand names.
fn drop_covered(names: &mut BTreeSet<EventName>, through: &Position) {
    while names.first().is_some_and(|name| through.covers(name)) {
        names.pop_first();
    }
}

/// Whose turn it is, in an ordered group.
enum Turn {
    Free,
    Held,
    Unknown(EventName),
}
