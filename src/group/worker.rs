//! The worker: finds, owns, runs, commits, advances, until it is told to stop or, as a drain, has nothing to do.
//!
//! One task, one loop: [`Worker::plan`] starts what the state asks for, the operations run side by side, and each
//! ends in an [`Ended`] that [`Worker::apply`] takes into the state. All deciding is in [`Shard`], [`Marker`],
//! [`super::lease`] and [`super::retry`].

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use super::definition::Registered;
use super::facts::{Fact, Reporter};
use super::lease::{self, Lease, Process, Sighting};
use super::marker::{Open, Owner, Verdict};
use super::ops::{Committed, Desk, Looked, Sights};
use super::retry::Retry;
use super::run::{self, Ran, Task};
use super::shard::{Bounds, Commit, Followup, Launch, Next, Shard, Taken};
use super::{GroupName, Marker, letter, request};
use crate::bus::Place;
use crate::clock::Fut;
use crate::event::{EventName, EventTime};
use crate::handler::Handler;
use crate::store::{Hints, StoreError, StoreResult, Version};

/// How far a worker was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    /// Go on.
    #[default]
    No,
    /// Start nothing new; let what runs end.
    Starts,
    /// End what runs, too.
    Handlers,
}

/// What a worker is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Until told to stop.
    Watch,
    /// What is due now, then end.
    Drain {
        /// Also wait for later retries and for other workers.
        wait: bool,
        /// Start at most so many handlers.
        most: Option<u64>,
        /// Start none after so long.
        span: Option<Duration>,
    },
}

/// What could not be run is tried again after this.
const STALL: Duration = Duration::from_secs(5);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// At most so many handlers at a time.
    pub concurrency: usize,
    /// One at a time for each ordering key, in the order of emission.
    pub ordered: bool,
    /// When failed events are tried again.
    pub retry: Retry,
    /// How long running handlers may go on after a stop.
    pub stop_timeout: Duration,
    /// See [`Lease`].
    pub lease: Lease,
    /// See [`Bounds`].
    pub bounds: Bounds,
    /// Look so often where hints do not come; the store's own range else.
    pub poll: Option<Duration>,
    /// Whether to use the store's hints.
    pub hints: bool,
    /// The bus's address, for handlers.
    pub url: String,
    /// Events larger than this were not put there by evbus.
    pub max_event_bytes: usize,
}

/// What a worker did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events processed.
    pub done: u64,
    /// Attempts that failed and will be repeated.
    pub retries: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events known to be left, waiting or retrying.
    pub left: u64,
    /// When the next of them is due again.
    pub next_retry: Option<EventTime>,
    /// Whether another worker holds a shard that has work.
    pub held_elsewhere: bool,
    /// Whether the group is paused.
    pub paused: bool,
    /// Why the handler cannot be started, if it could not.
    pub stalled: Option<String>,
}

/// How an operation ended.
enum Ended {
    Looked { shard: u16, owned: bool, marker: Option<(Marker, Option<Version>)>, looked: StoreResult<Looked> },
    Took { shard: u16, marker: Box<Marker>, looked: Box<Looked>, unclean: bool, committed: Committed },
    Committed { shard: u16, epoch: u64, then: Followup, committed: Committed },
    Hot(StoreResult<(Vec<EventName>, bool, Sights)>),
    Requests(StoreResult<Vec<request::Pending>>),
    Definition(StoreResult<Option<Registered>>),
    Ran { shard: u16, epoch: u64, name: EventName, attempt: u32, ran: Option<Ran> },
    Key { shard: u16, epoch: u64, name: EventName, key: StoreResult<u64> },
    Buried { shard: u16, epoch: u64, name: EventName, written: StoreResult<()> },
    Deleted,
}

/// A shard that this worker watches, whoever owns it.
#[derive(Default)]
struct Watched {
    owned: Option<Box<Shard>>,
    sighting: Option<Sighting>,
    /// Nothing to be seen here until something new turns up.
    quiet: bool,
    /// Looked at least once, with an answer.
    seen: bool,
    /// Another worker owns it, and it has work.
    held: bool,
    looking: bool,
    /// Something turned up while a look was on its way, which may have missed it.
    again: bool,
    look_at: Duration,
    sights: Sights,
    last_look_through: Option<super::Position>,
    /// A last look was made to let `through` pass what it can.
    closed: bool,
}

/// Runs one group's events through its handler.
pub struct Worker {
    desk: Desk,
    settings: Settings,
    handler: Rc<dyn Handler>,
    reporter: Rc<dyn Reporter>,
    me: Owner,
    alive: Rc<dyn Fn(&Owner) -> Process>,
    registered: Registered,
    shards: Vec<Watched>,
    ops: FuturesUnordered<Fut<'static, Ended>>,
    stop: watch::Receiver<Stop>,
    stopped_at: Option<Duration>,
    told_handlers: bool,
    begun: Duration,
    started: u64,
    /// Whose turn it is to start something.
    turn: usize,
    summary: Summary,
    reading_keys: HashSet<EventName>,
    hot_cursor: EventTime,
    /// Where the next hot listing goes on, if the last one was cut off.
    hot_after: Option<String>,
    /// What the last hot listings showed, from cursor to end; bounded.
    sighted: HashSet<EventName>,
    /// The same, of the listings that are not at the end yet.
    sighting: HashSet<EventName>,
    hot_at: Duration,
    hot_pause: Duration,
    hot_running: bool,
    hinted: bool,
    asked_at: Duration,
    asking: bool,
    pending: Vec<request::Pending>,
    defined_at: Duration,
    defining: bool,
    trouble: Option<String>,
    /// The handler could not be started; not tried again before this.
    stalled_until: Option<Duration>,
    foreign_told: bool,
    careful_told: bool,
    failure: Option<StoreError>,
}

/// What a worker works on and with.
pub struct Workplace {
    /// The bus.
    pub place: Place,
    /// The group.
    pub group: GroupName,
    /// Its definition.
    pub registered: Registered,
    /// Runs the group's command.
    pub handler: Rc<dyn Handler>,
    /// Takes in what happens.
    pub reporter: Rc<dyn Reporter>,
    /// This process, as others are to know it.
    pub me: Owner,
    /// What can be known of another owner's process.
    pub alive: Rc<dyn Fn(&Owner) -> Process>,
    /// Tells when to stop.
    pub stop: watch::Receiver<Stop>,
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(at: Workplace, settings: Settings) -> StoreResult<Self> {
        let filter = Rc::new(at.registered.definition.filter(&at.group)?);
        let shards = at.registered.definition.shards;
        let now = at.place.clock.elapsed();
        let poll = at.place.store.profile().poll;
        Ok(Self {
            desk: Desk { place: at.place, group: at.group, filter, shards },
            handler: at.handler,
            reporter: at.reporter,
            me: at.me,
            alive: at.alive,
            registered: at.registered,
            shards: (0..shards).map(|_| Watched { look_at: now, ..Watched::default() }).collect(),
            ops: FuturesUnordered::new(),
            stop: at.stop,
            stopped_at: None,
            told_handlers: false,
            begun: now,
            started: 0,
            turn: 0,
            summary: Summary::default(),
            reading_keys: HashSet::new(),
            hot_cursor: EventTime::MIN,
            hot_after: None,
            sighted: HashSet::new(),
            sighting: HashSet::new(),
            hot_at: now,
            hot_pause: settings.poll.unwrap_or(poll.0),
            hot_running: false,
            hinted: false,
            asked_at: now,
            asking: false,
            pending: Vec::new(),
            defined_at: now,
            defining: false,
            trouble: None,
            stalled_until: None,
            foreign_told: false,
            careful_told: false,
            failure: None,
            settings,
        })
    }

    /// Works until it is told to stop, a drain has nothing left to do, or the store refuses something that somebody
    /// must mend.
    pub async fn run(mut self) -> StoreResult<Summary> {
        let mut hints = if self.settings.hints && self.settings.mode == Mode::Watch {
            self.desk.place.store.hints().ok()
        } else {
            None
        };
        self.hinted = hints.is_some();
        let clock = Rc::clone(&self.desk.place.clock);
        loop {
            self.plan();
            if self.finished() {
                return self.end();
            }
            let deadline = self.deadline();
            let mut stop = self.stop.clone();
            let level = *stop.borrow_and_update();
            tokio::select! {
                biased;
                () = changed(&mut stop, level) => {}
                Some(ended) = self.ops.next() => {
                    self.apply(ended);
                    while let Some(Some(ended)) = self.ops.next().now_or_never() {
                        self.apply(ended);
                    }
                }
                () = next_hint(&mut hints) => self.hint(),
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.desk.place.clock.elapsed()
    }

    fn wall(&self) -> EventTime {
        self.desk.place.clock.now()
    }

    fn report(&self, fact: Fact<'_>) {
        self.reporter.report(&self.desk.group, fact);
    }

    fn draining(&self) -> bool {
        self.settings.mode != Mode::Watch
    }

    fn waits(&self) -> bool {
        matches!(self.settings.mode, Mode::Drain { wait: true, .. })
    }

    fn paused(&self) -> bool {
        self.registered.definition.paused.is_some()
    }

    /// How often a shard with something to see is looked at.
    fn warm(&self, sights: &Sights) -> Duration {
        Duration::from_secs(4).max(sights.took * 20)
    }

    /// Whether no new handler may start.
    fn starts_over(&self) -> bool {
        if self.paused() || self.failure.is_some() || *self.stop.borrow() != Stop::No {
            return true;
        }
        match self.settings.mode {
            Mode::Watch => false,
            Mode::Drain { most, span, .. } => {
                self.summary.stalled.is_some()
                    || most.is_some_and(|most| self.started >= most)
                    || span.is_some_and(|span| self.now().saturating_sub(self.begun) >= span)
            }
        }
    }

    /// Whether the worker is to end as soon as nothing runs any more.
    fn ending(&self) -> bool {
        self.failure.is_some()
            || *self.stop.borrow() != Stop::No
            || (self.draining() && (self.starts_over() || self.drained()))
    }

    /// Whether a drain has seen everything and found nothing more that is due.
    fn drained(&self) -> bool {
        let seen = self.shards.iter().all(|shard| shard.seen && !shard.looking);
        let idle = self.shards.iter().filter_map(|shard| shard.owned.as_deref()).all(|shard| {
            !shard.busy() && !shard.wants_more() && !shard.has_unconfirmed() && self.next_of(shard) == Next::Nothing
        });
        let waits = self.waits() && !self.shards.iter().all(|shard| shard.owned.is_none() && shard.quiet);
        let waits = waits && !self.shards.iter().all(|shard| self.settled(shard));
        seen && idle && !waits && self.reading_keys.is_empty() && !self.asking
    }

    /// Whether nothing of a shard is left to wait for.
    fn settled(&self, watched: &Watched) -> bool {
        match &watched.owned {
            Some(shard) => shard.marker.open.is_empty() && shard.waiting_len() == 0,
            None => !watched.held,
        }
    }

    fn finished(&self) -> bool {
        self.ending() && self.shards.iter().all(|shard| shard.owned.is_none()) && self.ops.is_empty()
    }

    fn end(mut self) -> StoreResult<Summary> {
        self.summary.held_elsewhere = self.shards.iter().any(|shard| shard.held);
        self.summary.paused = self.paused();
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(self.summary),
        }
    }

    fn hint(&mut self) {
        let now = self.now();
        self.hot_at = now;
        self.hot_pause = self.poll_range().0;
        self.asked_at = self.asked_at.min(now);
    }

    fn poll_range(&self) -> (Duration, Duration) {
        let (least, most) = self.desk.place.store.profile().poll;
        match self.settings.poll {
            Some(poll) => (least.min(poll), poll),
            None => (least, most),
        }
    }

    // ---- plan: start what the state asks for

    fn plan(&mut self) {
        self.heed_stop();
        for at in 0..self.shards.len() {
            if let Some(shard) = &mut self.shards[at].owned {
                shard.advance();
            }
        }
        self.plan_starts();
        for at in 0..self.shards.len() {
            self.plan_look(at);
            self.plan_give_back(at);
            self.plan_commit(at);
        }
        self.plan_hot();
        self.plan_questions();
    }

    /// The second stop, and a stop that takes too long, end the handlers too.
    fn heed_stop(&mut self) {
        let level = *self.stop.borrow();
        if level == Stop::No {
            return;
        }
        let now = self.now();
        let since = *self.stopped_at.get_or_insert(now);
        let late = now.saturating_sub(since) >= self.settings.stop_timeout;
        if (level == Stop::Handlers || late) && !self.told_handlers {
            self.told_handlers = true;
            self.handler.stop();
        }
    }

    fn running(&self) -> usize {
        self.shards.iter().filter_map(|shard| shard.owned.as_ref()).map(|shard| shard.running.len()).sum()
    }

    fn alone_runs(&self) -> bool {
        let shards = self.shards.iter().filter_map(|shard| shard.owned.as_ref());
        shards.flat_map(|shard| shard.running.values()).any(|run| run.alone)
    }

    fn careful(&self) -> bool {
        self.shards.iter().filter_map(|shard| shard.owned.as_ref()).any(|shard| shard.careful())
    }

    fn next_of(&self, shard: &Shard) -> Next {
        shard.next(&self.settings.retry, self.settings.ordered, self.wall())
    }

    fn plan_starts(&mut self) {
        let careful = self.careful();
        if careful && !std::mem::replace(&mut self.careful_told, careful) {
            self.report(Fact::Careful);
        }
        self.careful_told = careful;
        let shards = self.shards.len();
        let mut blocked = vec![false; shards];
        while blocked.contains(&false) {
            // The shards in turn, from where the last start was: a single free place must not always go to the first.
            for at in (0..shards).map(|step| (self.turn + step) % shards).collect::<Vec<_>>() {
                if !blocked[at] {
                    blocked[at] = !self.start_one(at, careful);
                    if !blocked[at] {
                        self.turn = (at + 1) % shards;
                    }
                }
            }
        }
    }

    /// Starts the next event of a shard; false if none may start now.
    fn start_one(&mut self, at: usize, careful: bool) -> bool {
        if self.starts_over() || self.running() >= self.settings.concurrency || self.alone_runs() {
            return false;
        }
        let now = self.now();
        if self.stalled_until.is_some_and(|until| now < until) {
            return false;
        }
        let idle = self.running() == 0;
        let Some(shard) = self.shards[at].owned.as_deref() else { return false };
        if shard.giving_back || !self.settings.lease.may_start(shard.commit_sent, now) {
            return false;
        }
        match self.next_of(shard) {
            Next::Nothing => false,
            Next::ReadKey(name) => {
                self.read_key(at, name);
                false
            }
            Next::Start(name) => {
                let alone = careful || shard.suspect(&name);
                let again = shard.succeeded_already(&name);
                if alone && !idle {
                    return false;
                }
                let Some(shard) = self.shards[at].owned.as_deref_mut() else { return false };
                if again {
                    shard.settle(&name, Verdict::Done, false, now);
                    return true;
                }
                // It has killed its worker each time: nobody is left who could say so after another run.
                if shard.spent(&name, self.settings.retry.max_attempts) {
                    let why = "its worker died with it each time".to_owned();
                    let letter = letter::fresh_name(&name, self.desk.place.clock.random());
                    let verdict = Verdict::Dead { letter, why, stderr: String::new(), exit: None };
                    let attempt = shard.settle_spent(&name, verdict.clone(), now);
                    self.report_verdict(&name, attempt, &verdict, Duration::ZERO);
                    return true;
                }
                self.started += 1;
                if let Some(launch) = shard.start(&name, alone, now) {
                    self.launch(at, launch);
                }
                true
            }
        }
    }

    fn launch(&mut self, at: usize, launch: Launch) {
        self.report(Fact::Started { name: &launch.name, attempt: launch.attempt });
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        let (handle, registration) = AbortHandle::new_pair();
        if let Some(run) = shard.running.get_mut(&launch.name) {
            run.abort = Some(handle);
        }
        let (number, epoch) = (shard.number, shard.marker.epoch);
        let task = Task {
            place: self.desk.place.clone(),
            group: self.desk.group.clone(),
            filter: Rc::clone(&self.desk.filter),
            handler: Rc::clone(&self.handler),
            epoch,
            max_attempts: self.settings.retry.max_attempts,
            max_event_bytes: self.settings.max_event_bytes,
            url: self.settings.url.clone(),
            tenure: run::Tenure { lease: self.settings.lease, commit_sent: Rc::clone(&shard.tenure) },
        };
        let (name, attempt) = (launch.name.clone(), launch.attempt);
        let running = Abortable::new(async move { run::run(task, launch).await }, registration);
        self.ops.push(Box::pin(async move {
            let ran = running.await.ok();
            Ended::Ran { shard: number, epoch, name, attempt, ran }
        }));
    }

    fn read_key(&mut self, at: usize, name: EventName) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if !self.reading_keys.insert(name.clone()) {
            return;
        }
        let (number, epoch) = (shard.number, shard.marker.epoch);
        let letter = shard.marker.open.get(&name).and_then(|open| open.letter.clone());
        let (desk, most) = (self.desk.clone(), self.settings.max_event_bytes);
        self.ops.push(Box::pin(async move {
            let key = run::ordering_key(&desk.place, &desk.group, &name, letter.as_deref(), most).await;
            Ended::Key { shard: number, epoch, name, key }
        }));
    }

    fn plan_look(&mut self, at: usize) {
        let now = self.now();
        let watched = &self.shards[at];
        let more = watched.owned.as_deref().is_some_and(|shard| {
            shard.wants_more()
                && (watched.last_look_through.as_ref() != Some(shard.through()) || shard.window_end().is_some())
        });
        let due = watched.look_at <= now && !(watched.quiet && watched.owned.is_none());
        let giving_back = watched.owned.as_deref().is_some_and(|shard| shard.giving_back);
        if watched.looking || giving_back || self.failure.is_some() || !(due || more) {
            return;
        }
        if self.ending() || (self.draining() && watched.seen && watched.owned.is_none() && !self.waits()) {
            return;
        }
        self.look(at);
    }

    /// Looks at a shard: its marker, if it is not mine, and its window.
    fn look(&mut self, at: usize) {
        let raise_to = self.raise_to(at);
        let now = self.now();
        let watched = &mut self.shards[at];
        watched.looking = true;
        watched.look_at = now + Duration::from_secs(4).max(watched.sights.took * 20);
        let through = watched.owned.as_deref().map(|shard| shard.through().clone());
        watched.last_look_through.clone_from(&through);
        let (desk, window) = (self.desk.clone(), self.settings.bounds.window);
        let definition = self.registered.definition.clone();
        let shard = u16::try_from(at).unwrap_or(u16::MAX);
        self.ops.push(Box::pin(async move {
            if let Some(through) = through {
                let looked = desk.look(shard, &through, raise_to, window).await;
                return Ended::Looked { shard, owned: true, marker: None, looked };
            }
            match desk.marker(shard, &definition).await {
                Err(error) => Ended::Looked { shard, owned: false, marker: None, looked: Err(error) },
                Ok((marker, version)) => {
                    let looked = desk.look(shard, &marker.through, None, window).await;
                    Ended::Looked { shard, owned: false, marker: Some((marker, version)), looked }
                }
            }
        }));
    }

    /// What W should be raised to before the next look at an owned shard, so that `through` can move.
    fn raise_to(&self, at: usize) -> Option<EventTime> {
        let watched = &self.shards[at];
        let shard = watched.owned.as_deref()?;
        let w = shard.survey.as_ref().map_or(EventTime::MIN, |survey| survey.w);
        let limit = self.wall().minus(self.desk.place.store.profile().lag);
        let passable = watched.sights.newest.filter(|newest| *newest <= limit).or(watched.sights.passable);
        let last_listed = shard.survey.as_ref().filter(|survey| survey.cut);
        let passable = passable.map(|time| match last_listed.and_then(|survey| survey.names.back()) {
            // No further than the names that the window shows.
            Some(last) => time.min(last.time()),
            None => time,
        });
        let seal = self.seal(shard, limit);
        [passable, shard.window_end(), seal].into_iter().flatten().max().filter(|time| *time > w)
    }

    /// Where a listing costs what its last folder holds, a shard that ends puts that folder behind it.
    fn seal(&self, shard: &Shard, limit: EventTime) -> Option<EventTime> {
        if !self.desk.place.store.profile().scans_folders || *shard.through() == super::Position::START {
            return None;
        }
        let end = shard.through().time().minute_end();
        // What is listed may lie in my future: it is no reason to keep this folder.
        let idle = shard.survey.as_ref().is_some_and(|survey| survey.names.front().is_none_or(|name| name.time() > end));
        (idle && end <= limit && shard.through().time() < end).then_some(end)
    }

    /// An idle shard is given back: at once by a worker that ends, else after a minute.
    fn plan_give_back(&mut self, at: usize) {
        let now = self.now();
        let ending = self.ending();
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        if shard.giving_back || shard.committing || !shard.running.is_empty() || self.shards[at].looking {
            return;
        }
        let nothing_left = shard.marker.open.is_empty() && shard.waiting_len() == 0 && !shard.has_unconfirmed();
        let patience = Duration::from_secs(60);
        let idle = nothing_left && self.passed_all(at) && now.saturating_sub(shard.last_active) >= patience;
        if !(ending || idle) || (shard.busy() && self.failure.is_none()) {
            return;
        }
        // A last look lets `through` pass what it can, so that the next one finds nothing to do.
        let can_pass = self.raise_to(at).is_some() && !self.shards[at].closed && *self.stop.borrow() == Stop::No;
        if can_pass && self.failure.is_none() && shard.survey.is_some() {
            self.shards[at].closed = true;
            self.look(at);
            return;
        }
        self.note_left(at);
        if let Some(shard) = self.shards[at].owned.as_deref_mut() {
            shard.giving_back = true;
            shard.marker.give_back();
            shard.dirty = true;
        }
    }

    /// Whether `through` has passed everything seen that my clock has reached.
    fn passed_all(&self, at: usize) -> bool {
        let watched = &self.shards[at];
        let Some(shard) = watched.owned.as_deref() else { return false };
        let newest = watched.sights.newest.max(Some(self.hot_cursor).filter(|time| *time != EventTime::MIN));
        newest.is_none_or(|newest| newest <= shard.through().time())
    }

    fn note_left(&mut self, at: usize) {
        let Some(shard) = self.shards[at].owned.as_deref() else { return };
        let left = shard.marker.open.len() + shard.waiting_len();
        self.summary.left += u64::try_from(left).unwrap_or(u64::MAX);
        let due = shard.next_due();
        self.summary.next_retry = match (self.summary.next_retry, due) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
    }

    fn plan_commit(&mut self, at: usize) {
        let (now, gap) = (self.now(), self.desk.place.store.profile().commit_gap);
        let nonce = format!("{:016x}", self.desk.place.clock.random());
        let Some(shard) = self.shards[at].owned.as_deref_mut() else { return };
        if !shard.must_commit(self.settings.lease, gap, now) {
            return;
        }
        let commit = shard.commit(nonce);
        let (number, epoch, then, desk) = (shard.number, commit.epoch, commit.then.clone(), self.desk.clone());
        self.ops.push(Box::pin(async move {
            let committed = desk.commit(number, &commit).await;
            Ended::Committed { shard: number, epoch, then, committed }
        }));
    }

    fn plan_hot(&mut self) {
        let now = self.now();
        if self.draining() || self.hot_running || now < self.hot_at || self.ending() {
            return;
        }
        // While a window is full nothing new can start anyway.
        let full = self.shards.iter().filter_map(|shard| shard.owned.as_deref()).all(|shard| {
            shard.survey.as_ref().is_some_and(|survey| survey.cut)
        });
        if full && self.shards.iter().all(|shard| shard.owned.is_some()) {
            self.hot_at = now + self.poll_range().0;
            return;
        }
        self.hot_running = true;
        // A clock that was set back takes the cursor along: it never passes my clock.
        self.hot_cursor = self.hot_cursor.min(self.wall());
        let cursor = self.hot_cursor.max(self.least_through());
        let (desk, limit) = (self.desk.clone(), self.settings.bounds.window);
        // A listing that was cut off is gone on with: a clock that is behind leaves the cursor where it is.
        let after = self.hot_after.take().unwrap_or_else(|| super::Position::Time(cursor).list_after());
        self.ops.push(Box::pin(async move { Ended::Hot(desk.hot(after, limit).await) }));
    }

    /// How far every shard is known to have come.
    fn least_through(&self) -> EventTime {
        let through = |watched: &Watched| {
            watched.owned.as_deref().map(|shard| shard.through().time()).or(watched.last_look_through.as_ref().map(super::Position::time))
        };
        self.shards.iter().map(|watched| through(watched).unwrap_or(EventTime::MIN)).min().unwrap_or(EventTime::MIN)
    }

    fn plan_questions(&mut self) {
        let now = self.now();
        if self.ending() && !self.draining() {
            return;
        }
        if !self.asking && self.asked_at <= now {
            self.asking = true;
            self.asked_at = now + self.poll_range().1.max(Duration::from_secs(4));
            if self.draining() && !self.waits() {
                self.asked_at = Duration::MAX;
            }
            let desk = self.desk.clone();
            self.ops.push(Box::pin(async move { Ended::Requests(desk.requests().await) }));
        }
        if !self.draining() && !self.defining && self.defined_at <= now {
            self.defining = true;
            self.defined_at = now + self.poll_range().1.max(Duration::from_secs(4));
            let desk = self.desk.clone();
            self.ops.push(Box::pin(async move { Ended::Definition(desk.definition().await) }));
        }
    }

    /// When the loop must wake up, whatever happens.
    fn deadline(&self) -> Duration {
        let now = self.now();
        let mut deadline = now + Duration::from_secs(30);
        let mut at = |time: Duration| deadline = deadline.min(time);
        if !self.draining() {
            at(self.hot_at);
            at(self.defined_at);
        }
        if self.asked_at != Duration::MAX {
            at(self.asked_at);
        }
        if let Some(stopped) = self.stopped_at.filter(|_| !self.told_handlers) {
            at(stopped + self.settings.stop_timeout);
        }
        if let Mode::Drain { span: Some(span), .. } = self.settings.mode {
            at(self.begun + span);
        }
        if let Some(stalled) = self.stalled_until {
            at(stalled);
        }
        let gap = self.desk.place.store.profile().commit_gap;
        for watched in &self.shards {
            if !watched.looking && !(watched.quiet && watched.owned.is_none()) {
                at(watched.look_at);
            }
            let Some(shard) = watched.owned.as_deref() else { continue };
            if !shard.committing {
                at(self.settings.lease.heartbeat_at(shard.commit_sent));
                if shard.dirty {
                    at(shard.commit_ended + gap);
                }
            }
            at(shard.last_active + Duration::from_secs(60));
            if let Some(due) = shard.next_due() {
                at(now + due.since(self.wall()).max(Duration::from_millis(1)));
            }
        }
        // What is past has had its chance in this plan: wait a little rather than spin.
        deadline.max(now + Duration::from_millis(5))
    }

    // ---- apply: take in how an operation ended

    fn apply(&mut self, ended: Ended) {
        match ended {
            Ended::Looked { shard, owned, marker, looked } => self.looked(shard, owned, marker, looked),
            Ended::Took { shard, marker, looked, unclean, committed } => {
                self.took(shard, *marker, *looked, unclean, committed);
            }
            Ended::Committed { shard, epoch, then, committed } => self.committed(shard, epoch, then, committed),
            Ended::Hot(found) => self.found(found),
            Ended::Requests(pending) => self.asked(pending),
            Ended::Definition(registered) => self.defined(registered),
            Ended::Ran { shard, epoch, name, attempt, ran } => self.ran(shard, epoch, &name, attempt, ran),
            Ended::Key { shard, epoch, name, key } => self.learned(shard, epoch, &name, key),
            Ended::Buried { shard, epoch, name, written } => self.buried(shard, epoch, &name, written),
            Ended::Deleted => {}
        }
    }

    /// The owned shard that an operation was started for; none if it has changed hands since.
    fn owned(&mut self, shard: u16, epoch: u64) -> Option<&mut Shard> {
        let owned = self.shards.get_mut(usize::from(shard))?.owned.as_deref_mut()?;
        (owned.marker.epoch == epoch).then_some(owned)
    }

    /// Whether an answer came; a missing one is told once, a refusal ends the worker.
    fn answer<T>(&mut self, answer: StoreResult<T>) -> Option<T> {
        match answer {
            Ok(value) => {
                if self.trouble.take().is_some() {
                    self.report(Fact::GoesOn);
                }
                Some(value)
            }
            Err(error) if error.kind() == crate::store::ErrorKind::Unavailable => {
                if self.trouble.is_none() {
                    self.report(Fact::Unreachable { error: &error });
                    self.trouble = Some(error.to_string());
                }
                None
            }
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    fn see(&mut self, at: usize, sights: Sights) {
        if let Some(key) = sights.foreign.as_deref().filter(|_| !self.foreign_told) {
            self.report(Fact::Foreign { key });
            self.foreign_told = true;
        }
        // Only a hot listing moves its cursor: what one shard's listing shows the others have not been told of.
        self.shards[at].sights = sights;
    }

    fn looked(&mut self, number: u16, owned: bool, marker: Option<(Marker, Option<Version>)>, looked: StoreResult<Looked>) {
        let at = usize::from(number);
        self.shards[at].looking = false;
        let now = self.now();
        let Some(looked) = self.answer(looked) else {
            self.shards[at].look_at = now + Duration::from_secs(1);
            return;
        };
        self.see(at, looked.sights.clone());
        let confirm = self.settings.ordered;
        let warm = self.warm(&looked.sights);
        let watched = &mut self.shards[at];
        watched.look_at = now + warm;
        if owned {
            // A reset may have come in between: then the listing began too far behind, and says nothing.
            let from = watched.last_look_through.clone();
            let stale = |shard: &Shard| from.as_ref().is_none_or(|from| from > shard.through());
            if watched.owned.as_deref().is_some_and(stale) {
                watched.look_at = now;
                return;
            }
            if let Some(shard) = watched.owned.as_deref_mut() {
                shard.surveyed(looked.survey, confirm);
                if shard.has_unconfirmed() {
                    watched.look_at = now;
                }
            }
            watched.seen = true;
        } else if let Some((marker, version)) = marker {
            self.consider(at, marker, version, looked);
        }
    }

    /// Decides about a shard that is not mine: leave it, watch it, or take it.
    fn consider(&mut self, at: usize, marker: Marker, version: Option<Version>, looked: Looked) {
        let (now, wall) = (self.now(), self.wall());
        let limit = wall.minus(self.desk.place.store.profile().lag).max(looked.survey.w);
        let asked = self.pending.iter().any(|asked| usize::from(asked.shard) == at);
        let wanted = looked.survey.names.iter().any(|name| marker.lacks(name)) || !marker.open.is_empty() || asked;
        // A window of which all is done hides what lies behind it.
        let wanted = wanted || looked.survey.cut;
        let passable = looked.sights.passable.filter(|time| *time <= limit);
        let settled = self.draining() || looked.sights.passable_len >= 1_000 || looked.sights.newest == passable;
        let can_pass = passable.is_some() && settled;
        let sealable = self.sealable(&marker, limit);
        let paused = self.paused();
        let over = self.told_to_end();
        let process = marker.owner.as_ref().map_or(Process::MayLive, |owner| (self.alive)(owner));
        let watched = &mut self.shards[at];
        watched.last_look_through = Some(marker.through.clone());
        let sighting = Sighting::see(watched.sighting.take(), version.as_ref(), now);
        let may = lease::may_take(marker.owner.as_ref(), process, &sighting, self.settings.lease, now);
        watched.sighting = Some(sighting);
        // An owner that died with nothing left to do is tidied up, or everybody would watch its shard for ever.
        let abandoned = marker.owner.is_some() && may;
        let work = (wanted && !paused) || asked || can_pass || sealable || abandoned;
        // Behind the hot cursor but above W an event may still come in, which no hot listing would show.
        let behind = marker.through.time() < self.hot_cursor;
        let again = std::mem::take(&mut watched.again);
        if again {
            watched.look_at = now;
        }
        watched.quiet = marker.owner.is_none() && !wanted && looked.sights.newest.is_none() && !sealable && !behind && !again;
        watched.held = wanted && marker.owner.is_some() && !may;
        if work && may && !over {
            self.take(at, marker, version, looked);
        } else {
            watched.seen = true;
        }
    }

    fn sealable(&self, marker: &Marker, limit: EventTime) -> bool {
        let end = marker.through.time().minute_end();
        self.desk.place.store.profile().scans_folders
            && marker.through != super::Position::START
            && marker.through.time() < end
            && end <= limit
    }

    /// A worker that was told to stop takes nothing more.
    fn told_to_end(&self) -> bool {
        self.failure.is_some() || *self.stop.borrow() != Stop::No
    }

    fn take(&mut self, at: usize, mut marker: Marker, version: Option<Version>, looked: Looked) {
        let unclean = marker.owner.is_some();
        marker.take(Owner { since: self.wall(), ..self.me.clone() });
        marker.nonce = format!("{:016x}", self.desk.place.clock.random());
        let mut bytes = crate::bus::to_json(&marker);
        bytes.push(b'\n');
        let (epoch, nonce) = (marker.epoch, marker.nonce.clone());
        let commit = Commit { bytes, epoch, nonce, version, then: Followup::default() };
        let shard = u16::try_from(at).unwrap_or(u16::MAX);
        self.shards[at].looking = true;
        let desk = self.desk.clone();
        self.ops.push(Box::pin(async move {
            let committed = desk.commit(shard, &commit).await;
            Ended::Took { shard, marker: Box::new(marker), looked: Box::new(looked), unclean, committed }
        }));
    }

    fn took(&mut self, number: u16, marker: Marker, looked: Looked, unclean: bool, committed: Committed) {
        let at = usize::from(number);
        let now = self.now();
        self.shards[at].looking = false;
        self.shards[at].seen = true;
        match committed {
            Committed::Yes { version, sent } => {
                let (group, bounds) = (self.desk.group.clone(), self.settings.bounds);
                let has_work = looked.survey.cut || !marker.open.is_empty() || looked.survey.names.iter().any(|name| marker.lacks(name));
                let mut shard = Shard::taken(group, number, Taken { marker, version, sent }, now, bounds);
                if !has_work {
                    // Taken only to let `through` pass: given back as soon as it has.
                    shard.last_active = now.saturating_sub(Duration::from_secs(60));
                }
                shard.surveyed(looked.survey, self.settings.ordered);
                shard.fold(&self.pending);
                // What an earlier owner has announced or left to delete comes with the first commit.
                shard.dirty |= shard.marker.open.values().any(|open| open.dead.is_some());
                let watched = &mut self.shards[at];
                watched.owned = Some(Box::new(shard));
                watched.quiet = false;
                watched.held = false;
                watched.closed = false;
                // Look again at once: what must be confirmed is, and W can be raised for what is there.
                watched.look_at = now;
                self.report(Fact::Took { shard: number, unclean });
            }
            Committed::Fenced => self.shards[at].look_at = now,
            Committed::Failed(error) => {
                self.answer::<()>(Err(error));
            }
        }
    }

    fn committed(&mut self, number: u16, epoch: u64, then: Followup, committed: Committed) {
        let now = self.now();
        match committed {
            Committed::Fenced => {
                if self.owned(number, epoch).is_some() {
                    self.lose(number);
                }
            }
            Committed::Failed(error) => {
                self.answer::<()>(Err(error));
                self.lose(number);
            }
            Committed::Yes { version, sent } => {
                let Some(shard) = self.owned(number, epoch) else { return };
                shard.committed(version, sent, now, &then);
                self.follow_up(number, then);
            }
        }
    }

    /// The shard is somebody else's, or cannot be held any longer.
    fn lose(&mut self, number: u16) {
        let now = self.now();
        let watched = &mut self.shards[usize::from(number)];
        if let Some(mut shard) = watched.owned.take() {
            shard.fenced();
        }
        watched.sighting = None;
        watched.quiet = false;
        watched.look_at = now;
        self.report(Fact::Fenced { shard: number });
    }

    /// What only a durable marker allows.
    fn follow_up(&mut self, number: u16, then: Followup) {
        let at = usize::from(number);
        for key in then.deletes {
            let place = self.desk.place.clone();
            // One that stays is deleted, or asked for, another time.
            self.ops.push(Box::pin(async move {
                let _ = place.store.delete(&key).await;
                Ended::Deleted
            }));
        }
        for (name, open) in then.letters {
            self.bury(number, name, open);
        }
        for name in then.launches {
            let may = self.shards[at].owned.as_deref().and_then(|shard| shard.launch_counted(&name));
            if let Some(launch) = may {
                self.launch(at, launch);
            }
        }
        if then.given_back {
            self.shards[at].owned = None;
            self.shards[at].sighting = None;
            // Whether it is quiet its next look tells.
            self.shards[at].quiet = false;
        }
    }

    fn bury(&mut self, number: u16, name: EventName, open: Open) {
        let Some(epoch) = self.shards[usize::from(number)].owned.as_deref().map(|shard| shard.marker.epoch) else {
            return;
        };
        let desk = self.desk.clone();
        self.ops.push(Box::pin(async move {
            let written = letter::write(&desk.place, &desk.group, &name, &open).await;
            Ended::Buried { shard: number, epoch, name, written }
        }));
    }

    fn buried(&mut self, number: u16, epoch: u64, name: &EventName, written: StoreResult<()>) {
        let written = self.answer(written).is_some();
        if let Some(shard) = self.owned(number, epoch) {
            if written { shard.buried(name) } else { shard.unburied(name) }
        }
    }

    fn found(&mut self, found: StoreResult<(Vec<EventName>, bool, Sights)>) {
        self.hot_running = false;
        let now = self.now();
        let (least, most) = self.poll_range();
        let answer = self.answer(found);
        let news = answer.as_ref().is_some_and(|(_, _, sights)| sights.newest.is_some());
        self.hot_pause = if news { least } else { (self.hot_pause * 2).clamp(least, most) };
        self.hot_at = now + self.hot_pause;
        let Some((names, cut, sights)) = answer else { return };
        if let Some(newest) = sights.newest {
            self.hot_cursor = self.hot_cursor.max(newest);
            for watched in &mut self.shards {
                // Wanted or not, `through` must pass it before the shard is quiet again.
                watched.sights.newest = watched.sights.newest.max(Some(newest));
                watched.closed = false;
                watched.again |= watched.looking;
                if std::mem::take(&mut watched.quiet) {
                    watched.look_at = now + Duration::from_secs(4);
                }
            }
        }
        let confirm = self.settings.ordered;
        // What lies in my future is listed each time: only its first sight is news.
        let known: HashSet<EventName> = names.iter().filter(|name| self.sighted.contains(*name)).cloned().collect();
        if self.sighting.len() < 2 * self.settings.bounds.window {
            self.sighting.extend(names.iter().cloned());
        }
        match names.last().filter(|_| cut) {
            Some(last) => {
                self.hot_after = Some(last.key());
                self.hot_at = now + least;
            }
            None => self.sighted = std::mem::take(&mut self.sighting),
        }
        for name in names {
            let watched = &mut self.shards[usize::from(name.lane().shard(self.desk.shards))];
            if watched.owned.is_none() && known.contains(&name) {
                continue;
            }
            match watched.owned.as_deref_mut() {
                Some(shard) => {
                    if shard.found(name, confirm) && confirm {
                        watched.look_at = now;
                    }
                }
                None => {
                    watched.quiet = false;
                    watched.again |= watched.looking;
                    watched.look_at = now;
                }
            }
        }
    }

    fn asked(&mut self, pending: StoreResult<Vec<request::Pending>>) {
        self.asking = false;
        let now = self.now();
        let Some(pending) = self.answer(pending) else {
            self.asked_at = now + Duration::from_secs(1);
            return;
        };
        self.pending = pending;
        for at in 0..self.shards.len() {
            let watched = &mut self.shards[at];
            if let Some(shard) = watched.owned.as_deref_mut().filter(|shard| !shard.giving_back) {
                if shard.fold(&self.pending) {
                    watched.look_at = now;
                }
            } else if self.pending.iter().any(|asked| usize::from(asked.shard) == at) {
                watched.quiet = false;
                watched.seen = false;
                watched.look_at = now;
            }
        }
    }

    fn defined(&mut self, registered: StoreResult<Option<Registered>>) {
        self.defining = false;
        let Some(found) = self.answer(registered) else { return };
        let Some(registered) = found else {
            let what = format!("group '{}' was removed", self.desk.group);
            self.failure.get_or_insert(StoreError::new(crate::store::ErrorKind::Unfit, what));
            return;
        };
        if registered == self.registered {
            return;
        }
        if registered.definition.created != self.registered.definition.created {
            let what = format!("group '{}' was removed and made anew", self.desk.group);
            self.failure.get_or_insert(StoreError::new(crate::store::ErrorKind::Unfit, what));
            return;
        }
        let was = self.paused();
        match registered.definition.filter(&self.desk.group) {
            Ok(filter) => self.desk.filter = Rc::new(filter),
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        }
        self.registered = registered;
        if was != self.paused() {
            self.report(Fact::Paused { paused: self.paused() });
        }
        let now = self.now();
        for watched in &mut self.shards {
            watched.quiet = false;
            watched.again |= watched.looking;
            watched.look_at = now;
        }
    }

    fn learned(&mut self, number: u16, epoch: u64, name: &EventName, key: StoreResult<u64>) {
        self.reading_keys.remove(name);
        let Some(key) = self.answer(key) else { return };
        if let Some(shard) = self.owned(number, epoch) {
            shard.learn_key(name, key);
        }
    }

    fn ran(&mut self, number: u16, epoch: u64, name: &EventName, attempt: u32, ran: Option<Ran>) {
        let now = self.now();
        let wall = self.wall();
        // Aborted: the shard was lost or reset, and has forgotten it.
        let Some(ran) = ran else { return };
        if self.owned(number, epoch).is_none_or(|shard| !shard.running.contains_key(name)) {
            return;
        }
        let (succeeded, took) = ran.success();
        let judged = run::judge(ran, name, attempt, &self.settings.retry, wall, self.desk.place.clock.random());
        match &judged {
            run::Judged::Verdict(verdict) => {
                self.unstall();
                self.report_verdict(name, attempt, verdict, took);
            }
            run::Judged::Unread(why) => self.report(Fact::Stalled { why }),
            run::Judged::NotStarted(why) => self.stall(why),
        }
        let Some(shard) = self.owned(number, epoch) else { return };
        match judged {
            run::Judged::Verdict(verdict) => shard.settle(name, verdict, succeeded, now),
            run::Judged::Unread(why) => shard.unread(name, wall.plus(STALL), why),
            run::Judged::NotStarted(_) => shard.settle(name, Verdict::Again, false, now),
        }
    }

    /// The handler cannot be started, whatever the event: said once, and tried again after a while.
    fn stall(&mut self, why: &str) {
        self.stalled_until = Some(self.now() + STALL);
        if self.summary.stalled.replace(why.to_owned()).is_none() {
            self.report(Fact::Stalled { why });
        }
    }

    fn unstall(&mut self) {
        self.stalled_until = None;
        if self.summary.stalled.take().is_some() {
            self.report(Fact::GoesOn);
        }
    }

    fn report_verdict(&mut self, name: &EventName, attempt: u32, verdict: &Verdict, took: Duration) {
        match verdict {
            Verdict::Done => {
                self.summary.done += 1;
                self.report(Fact::Done { name, took });
            }
            Verdict::Retry { next, why } => {
                self.summary.retries += 1;
                self.report(Fact::Retrying { name, attempt, next: *next, why });
            }
            Verdict::Dead { why, .. } => {
                self.summary.dead += 1;
                self.report(Fact::Dead { name, attempt, why });
            }
            Verdict::Again => {}
        }
    }
}

/// Completes when the stop level is no longer `level`.
async fn changed(stop: &mut watch::Receiver<Stop>, level: Stop) {
    loop {
        if *stop.borrow_and_update() != level {
            return;
        }
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next_hint(hints: &mut Option<Box<dyn Hints>>) {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}
