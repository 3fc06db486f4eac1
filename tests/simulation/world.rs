//! Everything the actors share: the store's contents, the plan, and the record of what has
//! happened.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use evbus::bus::look::names_at;
use evbus::event::{EventName, EventTime, TypeFilter};
use evbus::group::marker::{Marker, Owner};
use evbus::group::polls::Polls;
use evbus::group::request::Request;
use evbus::group::{Definition, GroupName, Position};
use evbus::store::memory::{Contents, Operation};

use crate::executor::{Micros, SECOND, SimProcess, Simulation};
use crate::network::{Notifier, ProcessRole, StoreConnection};
use crate::plan::SeedPlan;
use crate::readers::Client;
use crate::rng;

/// An event that an emitter has made.
#[derive(Debug, Clone)]
pub struct KnownEvent {
    pub id: String,
    pub type_: String,
    pub key: Option<String>,
    /// The emitting process and the event's number in it; only where the order is promised.
    pub order: Option<(u32, u32)>,
    /// When its first emit began.
    pub began: Micros,
    /// When and under which name it was acknowledged; for a scheduled entry, when it is due.
    pub acked: Option<(Micros, EventName)>,
    /// It must not run before this time.
    pub due: Micros,
    /// The latest due time of its emits: a repeat is acknowledged on the entry that waits already.
    pub latest_due: Micros,
    pub cancelled: CancelStatus,
    /// Its `n`, if it has one.
    pub n: Option<u8>,
}

/// What the ids of lines begin with that are no events.
pub const JUNK: &str = "junk-";

impl KnownEvent {
    /// One that is emitted from now on.
    pub fn new(id: &str, type_: &str, began: Micros) -> Self {
        Self {
            id: id.to_owned(),
            type_: type_.to_owned(),
            key: None,
            order: None,
            began,
            acked: None,
            due: 0,
            latest_due: 0,
            cancelled: CancelStatus::No,
            n: None,
        }
    }
}

/// Whether a scheduled entry was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelStatus {
    No,
    /// The cancel got no answer.
    Perhaps,
    Yes,
}

/// What a group's handler has done with one event.
#[derive(Debug, Default, Clone)]
pub struct Runs {
    pub started: u32,
    /// When it first ran, and which copy of it.
    pub first_start: Option<(Micros, String)>,
    pub successes: Vec<Micros>,
    /// When its first dead letter was written or its first run succeeded.
    pub first_settled: Option<Micros>,
    pub letters: u32,
    /// The copies that letters have held: later letters of these must hold one, too, whatever
    /// `prune` has deleted.
    pub kept: BTreeSet<EventName>,
    /// It may be skipped, because of a reset or a late start of the group.
    pub excused: bool,
}

/// The recorded state of one group.
pub struct GroupRecord {
    pub name: GroupName,
    pub filter: TypeFilter,
    /// Whether it has a condition.
    pub has_condition: bool,
    /// Since when the group may want every event; `widened` is since when it certainly does.
    pub widening: Option<Micros>,
    pub widened: Option<Micros>,
    /// None until the group is made.
    pub definition: Option<Definition>,
    pub created: Micros,
    pub markers: BTreeMap<u16, Marker>,
    pub runs: HashMap<String, Runs>,
    /// Redrives on the bus, with their event; `resets` has the shard, the position and the time.
    pub redrives: BTreeMap<String, EventName>,
    pub resets: BTreeMap<String, (u16, Position, Micros)>,
    /// Whether of the events of a key that wait only the last is run.
    pub latest: bool,
    /// In such a group, the last event of each key that has run to success, or is a dead letter.
    pub latest_settled: HashMap<String, EventName>,
    /// When the last handler of each shard started or ended, or its owner had no capacity left.
    pub active: BTreeMap<u16, Micros>,
    /// The number of live workers; `staffed` is when the last one died, or one came when there was
    /// none.
    pub workers: u32,
    pub staffed: Micros,
    pub paused: bool,
    pub resumed: Micros,
}

impl GroupRecord {
    /// Whether the group must run an event: by its first filter, or because the event was emitted
    /// after the group had been changed to want all.
    pub fn wants(&self, known: &KnownEvent) -> bool {
        let at_first = self.filter.matches(&known.type_) && (!self.has_condition || known.n == Some(1));
        at_first || self.widened.is_some_and(|widened| known.began >= widened)
    }

    /// Whether the group may run an event.
    pub fn may_want(&self, known: &KnownEvent) -> bool {
        self.widening.is_some() || self.wants(known)
    }

    /// A shard's `through`, as a reader of the store sees it.
    pub fn through(&self, shard: u16) -> Position {
        let start = || self.definition.as_ref().map_or(Position::START, |definition| definition.start.clone());
        self.markers.get(&shard).map_or_else(start, |marker| marker.through.clone())
    }

    pub fn shards(&self) -> u16 {
        self.definition.as_ref().map_or(1, |definition| definition.shards)
    }

    /// Whether an event has run to success, or is a dead letter, or a later one of its key is in its place.
    pub fn is_settled(&self, known: Option<&KnownEvent>, id: &str, name: &EventName) -> bool {
        let later = known.and_then(|known| self.latest_settled.get(known.key.as_ref()?));
        self.handled(id) || later.is_some_and(|later| later > name)
    }

    /// A run for an event has succeeded, or it has a dead letter.
    pub fn note_settled(&mut self, key: Option<&String>, name: &EventName) {
        let Some(key) = key.filter(|_| self.latest) else { return };
        let last = self.latest_settled.entry(key.clone()).or_insert_with(|| name.clone());
        if name > last {
            *last = name.clone();
        }
    }

    pub fn handled(&self, id: &str) -> bool {
        self.runs.get(id).is_some_and(|runs| !runs.successes.is_empty() || runs.letters > 0)
    }
}

/// A handler in progress.
pub struct RunningHandler {
    pub group: usize,
    pub id: String,
    pub name: EventName,
    pub shard: u16,
    pub epoch: u64,
    pub pid: u32,
    /// When the last freeze of its worker ended.
    pub thawed: Micros,
}

/// The shared state.
pub struct World {
    pub seed: u64,
    pub simulation: Rc<Simulation>,
    pub contents: Rc<Contents>,
    pub plan: SeedPlan,
    pub notifiers: RefCell<Vec<(Rc<SimProcess>, Rc<Notifier>)>>,
    pub groups: RefCell<Vec<GroupRecord>>,
    pub events: RefCell<HashMap<String, KnownEvent>>,
    pub by_identity: RefCell<HashMap<String, String>>,
    pub present: RefCell<BTreeSet<EventName>>,
    /// Names that came after they had been deleted, after their emitters had given these puts up, or after
    /// their events were acknowledged.
    pub late_copies: RefCell<BTreeSet<EventName>>,
    /// The keys of puts that arrive after their emitters have given them up.
    pub overdue: RefCell<BTreeSet<String>>,
    /// When each segment was put.
    pub put_at: RefCell<HashMap<String, Micros>>,
    pub deleted: RefCell<BTreeSet<EventName>>,
    pub frontier: Cell<EventTime>,
    /// Set while writes are taken back.
    pub rewinding: Cell<bool>,
    /// When the latest writes were lost.
    pub rewound: Cell<Option<Micros>>,
    /// The versions of markers that were swapped: group, shard, nonce.
    pub replaced: RefCell<BTreeSet<(String, u16, String)>>,
    /// Shared by all workers, as by the groups of one process, if the plan says so.
    pub polls: Option<Rc<Polls>>,
    pub running: RefCell<BTreeMap<u64, RunningHandler>>,
    pub run_number: Cell<u64>,
    pub cured: RefCell<BTreeSet<String>>,
    /// Requests sent by workers; `written` counts the writes of all.
    pub asked: Cell<u64>,
    pub written: Cell<u64>,
    pub prunes: Cell<bool>,
    /// Who reads the feed.
    pub clients: Vec<Client>,
    /// Actors that may still emit.
    pub emitting: Cell<u32>,
    pub workers_end: Cell<bool>,
    pub verbose: bool,
    pub log: RefCell<Vec<String>>,
}

impl World {
    pub fn faults(&self) -> bool {
        self.simulation.now() < self.plan.faults_until
    }

    /// Adds to the trace of this seed.
    pub fn log_line(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            let at = self.simulation.now();
            self.log.borrow_mut().push(format!("{:>4}.{:06} {}", at / SECOND, at % SECOND, what()));
        }
    }

    pub fn complain(&self, what: String) {
        self.log_line(|| format!("VIOLATED {what}"));
        self.simulation.complain(what);
    }

    /// The names under which an event lies on the bus.
    pub fn copies_on_bus(&self, known: &KnownEvent) -> Vec<EventName> {
        let has_id = |name: &&EventName| self.id_of(name.as_str()).as_deref() == Some(&known.id);
        self.present.borrow().iter().filter(has_id).cloned().collect()
    }

    /// Takes back what was acknowledged since a time and is lost.
    pub fn excuse_what_was_lost(&self, since: Micros) {
        let now = self.simulation.now();
        self.rewound.set(Some(now));
        for known in self.events.borrow_mut().values_mut() {
            let lost = known.acked.as_ref().is_some_and(|(at, name)| *at >= since && !self.lies_on_bus(name));
            if lost {
                known.acked = None;
            }
            if known.cancelled == CancelStatus::Yes {
                known.cancelled = CancelStatus::Perhaps;
            }
        }
        for group in self.groups.borrow_mut().iter_mut() {
            group.resumed = now;
        }
    }

    /// Whether an event lies on the bus under a name, or waits for its time under it.
    pub fn lies_on_bus(&self, name: &EventName) -> bool {
        self.present.borrow().contains(name) || self.contents.read(&evbus::bus::keys::scheduled(name)).is_some()
    }

    /// Whether an acknowledged event has come to the bus: one that waits for its time may still be cancelled.
    pub fn is_on_bus_or_pruned(&self, known: &KnownEvent) -> bool {
        let has_id = |name: &EventName| self.id_of(name.as_str()).as_deref() == Some(&known.id);
        known.cancelled == CancelStatus::No
            && (known.latest_due == 0
                || self.present.borrow().iter().any(has_id)
                || self.deleted.borrow().iter().any(has_id))
    }

    /// The id of the event with a name or stem.
    pub fn id_of(&self, name: &str) -> Option<String> {
        self.by_identity.borrow().get(name.get(26..40)?).cloned()
    }

    /// Records a request that leaves a process.
    pub fn sent(&self, connection: &StoreConnection, operation: Operation, key: &str) {
        self.simulation.note(rng::hash(key) ^ operation as u64);
        if connection.role == ProcessRole::Worker {
            self.asked.set(self.asked.get() + 1);
        }
        if matches!(operation, Operation::Put | Operation::Cas | Operation::Delete) {
            self.written.set(self.written.get() + 1);
        }
        if connection.role == ProcessRole::Pruner && key == "groups/" {
            connection.groups_read.set(self.simulation.now());
        }
        // What a process asks for that does not know of a loss is refused.
        if operation == Operation::Delete && !connection.is_behind() {
            match connection.role {
                ProcessRole::Pruner => self.check_prune(connection, key),
                ProcessRole::Worker => self.check_worker_delete(key),
                _ => {}
            }
        }
        if connection.role == ProcessRole::Worker {
            self.log_line(|| format!("p{} {operation:?} {key}", connection.process.pid));
        }
    }

    /// No event that a group still needs may be deleted.
    fn check_prune(&self, connection: &StoreConnection, key: &str) {
        let Some(bytes) = self.contents.read(key).filter(|_| key.starts_with("events/")) else { return };
        for name in names_at(key, &bytes) {
            self.check_prune_of(connection, &name);
        }
    }

    fn check_prune_of(&self, connection: &StoreConnection, name: &EventName) {
        let Some(id) = self.id_of(name.as_str()) else { return };
        let mut groups = self.groups.borrow_mut();
        for group in groups.iter_mut() {
            if group.definition.is_none() || group.created >= connection.groups_read.get() {
                // The group was made after prune had read the groups, so it may lose what prune
                // deletes now.
                group.runs.entry(id.clone()).or_default().excused = true;
                continue;
            }
            let shard = name.hash_slot().shard(group.shards());
            let pending = group.markers.get(&shard).and_then(|marker| marker.pending.get(name));
            let needed = !group.through(shard).covers(name)
                || pending.is_some_and(|pending| {
                    // A redriven event is in its letter, too.
                    pending.redriven_dead_letter.is_none()
                });
            let groups_read = connection.groups_read.get();
            let reset = group.resets.values().any(|(of, _, since)| *of == shard && *since >= groups_read);
            if needed && !reset {
                self.complain(format!("prune deletes {name}, which {} still needs", group.name));
            }
            let redriven = group.redrives.values().any(|event| event == name);
            if redriven {
                self.log_line(|| format!("prune deletes {name} although a redrive of it is pending"));
            }
        }
    }

    /// A letter or a request is deleted only when the marker no longer needs it.
    fn check_worker_delete(&self, key: &str) {
        let groups = self.groups.borrow();
        for group in groups.iter() {
            if let Some(letter) = evbus::bus::keys::dead_letter_of(&group.name, key) {
                let needed = group.markers.values().flat_map(|marker| marker.pending.values());
                let mut needed = needed.filter(|pending| pending.redriven_dead_letter.as_deref() == Some(letter));
                // Redriven twice and dead again: the newer letter has all that this one has.
                let newer = self.id_of(letter).and_then(|id| group.runs.get(&id));
                let newer = newer.is_some_and(|runs| runs.letters > 1 || !runs.successes.is_empty());
                if needed.next().is_some() && !newer {
                    self.complain(format!("{key} is deleted although its event is still open"));
                }
            }
            if let Some((shard, id)) = evbus::bus::keys::request_of(&group.name, key) {
                let known = self.contents.read(key).is_some();
                let folded = group.markers.get(&shard).is_some_and(|marker| marker.folded.contains(id));
                if known && !folded {
                    self.complain(format!("{key} is deleted before it is folded in"));
                }
            }
        }
    }

    /// Records an operator's request.
    pub fn requested(&self, group: &mut GroupRecord, key: &str, bytes: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return };
        let Some((shard, id)) = evbus::bus::keys::request_of(&group.name, key) else { return };
        match request {
            Request::Redrive { event, .. } => {
                group.redrives.insert(id.to_owned(), event);
            }
            Request::Share { .. } => {}
            Request::Reset { to } => {
                group.resets.insert(id.to_owned(), (shard, to, self.simulation.now()));
            }
        }
    }

    /// Records the start of a handler; returns its number.
    pub fn run_starts(&self, run: RunningHandler, name: &str) -> u64 {
        let number = self.run_number.get() + 1;
        self.run_number.set(number);
        let now = self.simulation.now();
        self.simulation.note(number ^ rng::hash(&run.id));
        {
            let mut groups = self.groups.borrow_mut();
            let group = &mut groups[run.group];
            self.log_line(|| {
                format!("p{} {}/{} epoch {} runs {} {name}", run.pid, group.name, run.shard, run.epoch, run.id)
            });
            let marker = group.markers.get(&run.shard);
            // An owner learns of a loss by its next answer.
            let may_be_behind = self.rewound.get().is_some_and(|at| now < at + 60 * SECOND);
            if !may_be_behind && marker.is_none_or(|marker| marker.epoch != run.epoch || marker.owner.is_none()) {
                self.complain(format!(
                    "p{} starts {} of {}/{} in epoch {}, but the marker says {:?}",
                    run.pid,
                    run.id,
                    group.name,
                    run.shard,
                    run.epoch,
                    marker.map(|marker| (marker.epoch, marker.owner.as_ref().map(|owner| owner.pid)))
                ));
            }
            let runs = group.runs.entry(run.id.clone()).or_default();
            runs.started += 1;
            runs.first_start.get_or_insert_with(|| (now, name.to_owned()));
            group.active.insert(run.shard, now);
            // One poll, and another if its answer was lost.
            if group.paused && now > group.resumed.max(run.thawed) + 2 * 30 * SECOND + 10 * SECOND {
                self.complain(format!("{} runs in {} although that is paused", run.id, group.name));
            }
        }
        if run.id.starts_with(JUNK) {
            self.complain(format!("{} runs, which is no event", run.id));
        }
        self.check_neighbours(&run);
        if let Some(known) = self.events.borrow().get(&run.id) {
            // No two clocks differ by more.
            if now + 11 * SECOND < known.due || known.cancelled == CancelStatus::Yes {
                self.complain(format!("{} runs at {now}, due {}, cancelled: {:?}", run.id, known.due, known.cancelled));
            }
            let group = &self.groups.borrow()[run.group];
            if !group.may_want(known) {
                self.complain(format!("{} runs {}, which it does not want", group.name, run.id));
            }
        }
        self.running.borrow_mut().insert(number, run);
        number
    }

    /// No owner runs an event twice at once, or more events than allowed, or two of one key if
    /// ordered.
    fn check_neighbours(&self, run: &RunningHandler) {
        let plan = &self.plan.groups[run.group];
        let key = |id: &str| self.events.borrow().get(id).and_then(|known| known.key.clone());
        let mine = key(&run.id);
        let mut beside = 0;
        for other in self.running.borrow().values().filter(|other| other.group == run.group && other.pid == run.pid) {
            beside += 1;
            let same_owner = other.shard == run.shard && other.epoch == run.epoch;
            if same_owner && other.id == run.id {
                self.complain(format!("{} runs twice at once", run.id));
            }
            let one_at_a_time = plan.ordered || plan.latest.is_some();
            if same_owner && one_at_a_time && mine.is_some() && key(&other.id) == mine {
                self.complain(format!("{} runs beside {} of the same key", run.id, other.id));
            }
        }
        if beside >= plan.concurrency {
            self.complain(format!("p{} runs more than {} handlers", run.pid, plan.concurrency));
        }
    }

    /// Whether a handler runs for a shard, or its owner has no capacity for one.
    pub fn occupied(&self, group: usize, shard: u16) -> bool {
        let groups = self.groups.borrow();
        let owner = groups[group].markers.get(&shard).and_then(|marker| marker.owner.as_ref());
        let running = self.running.borrow();
        let mut theirs = running.values().filter(|run| run.group == group);
        let owners = theirs.clone().filter(|run| owner.is_some_and(|owner| owner.pid == run.pid)).count();
        // After unclean takeovers handlers run alone.
        let whose = |owner: Option<&Owner>| owner.map(|owner| owner.pid);
        let markers = groups[group].markers.values().filter(|marker| whose(marker.owner.as_ref()) == whose(owner));
        let careful = markers.clone().any(|marker| marker.unclean > 1)
            || markers
                .flat_map(|marker| marker.pending.values())
                .any(|pending| pending.poison_candidate || pending.started);
        // The halves of a batch wait for each other.
        let plan = &self.plan.groups[group];
        let places = if careful || plan.batch.is_some() { 1 } else { plan.concurrency };
        theirs.any(|run| run.shard == shard) || owners >= places
    }

    /// Records that a worker of a group begins or ends.
    pub fn staff(&self, group: usize, comes: bool) {
        let group = &mut self.groups.borrow_mut()[group];
        if !comes || group.workers == 0 {
            group.staffed = self.simulation.now();
        }
        group.workers = if comes { group.workers + 1 } else { group.workers - 1 };
    }

    /// Records that a handler has ended by itself.
    pub fn run_ends(&self, number: u64, success: bool) {
        let Some(group) = self.running.borrow().get(&number).map(|run| run.group) else { return };
        let shards = self.groups.borrow()[group].shards();
        let occupied: Vec<u16> = (0..shards).filter(|shard| self.occupied(group, *shard)).collect();
        let Some(run) = self.running.borrow_mut().remove(&number) else { return };
        self.log_line(|| format!("p{} {} {}", run.pid, run.id, if success { "succeeds" } else { "fails" }));
        let now = self.simulation.now();
        let mut groups = self.groups.borrow_mut();
        let group = &mut groups[run.group];
        group.active.extend(occupied.into_iter().map(|shard| (shard, now)));
        if success {
            let key = self.events.borrow().get(&run.id).and_then(|known| known.key.clone());
            group.note_settled(key.as_ref(), &run.name);
            let runs = group.runs.entry(run.id).or_default();
            runs.successes.push(now);
            runs.first_settled.get_or_insert(now);
        }
    }

    /// Whether a group must handle an acknowledged event.
    pub fn expected(&self, at: usize, group: &GroupRecord, known: &KnownEvent) -> bool {
        let Some((_, name)) = &known.acked else { return false };
        if known.cancelled != CancelStatus::No {
            return false;
        }
        let Some(definition) = &group.definition else { return false };
        if !group.wants(known) || group.runs.get(&known.id).is_some_and(|runs| runs.excused) {
            return false;
        }
        match self.plan.groups[at].late_start {
            None => true,
            // Earlier events may be there or pruned; events after the group was made must be
            // processed.
            Some((_, crate::plan::GroupStart::Now)) => known.began >= group.created,
            Some(_) => known.began >= group.created || !definition.start.covers(name),
        }
    }
}
