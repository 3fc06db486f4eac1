//! The plan of a seed: everything decided before it begins.

use std::time::Duration;

use evbus::feed::Order;
use evbus::group::ShardBounds;
use evbus::group::latest::{Latest, LatestKey};
use evbus::group::retry::Retry;
use evbus::store::Profile;

use crate::executor::{Micros, SECOND};
use crate::rng::Rng;

/// Holds for an event whose `n` is 1, not for one whose `n` is 0, and has no answer without `n`.
const CONDITION: &str = "data.n > 0";

/// The plan of one group.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    pub name: String,
    pub types: Vec<String>,
    /// Whether it wants only events for which its condition holds.
    pub condition: Option<&'static str>,
    /// When the group is changed to want every event.
    pub widens: Option<Micros>,
    pub shards: u16,
    pub ordered: bool,
    /// Whether of the events of a key that wait only the last is run.
    pub latest: Option<Latest>,
    pub concurrency: usize,
    /// The most events for one run of a handler, and how long the first waits for others.
    pub batch: Option<(usize, Micros)>,
    pub bounds: ShardBounds,
    /// Workers that watch.
    pub watchers: usize,
    /// Cron jobs that drain.
    pub drains: usize,
    /// When and how the group is made; none if it exists from the start.
    pub late_start: Option<(Micros, GroupStart)>,
    /// From when and how long none of its handlers can start, as when a receiver of webhooks is away.
    pub outage: Option<(Micros, Micros)>,
}

/// Where a late group starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStart {
    Now,
    Earliest,
    At(Micros),
}

/// Everything about a seed that is decided before it begins.
#[derive(Debug, Clone)]
pub struct SeedPlan {
    pub faults_until: Micros,
    pub groups: Vec<GroupPlan>,
    pub emitters: usize,
    pub events_each: usize,
    /// Mean pause between two emits, in microseconds.
    pub emit_pause: f64,
    /// How many events all emitters begin with.
    pub backlog: usize,
    pub keys: usize,
    pub latency: f64,
    pub slow_puts: f64,
    /// The share of listings whose answer comes seconds after the store has made it.
    pub late_lists: f64,
    pub spurious_conflicts: f64,
    pub lost: f64,
    pub page_len: usize,
    /// Whether a list with tail also shows changes other than events.
    pub lists_with_tail: bool,
    /// Whether all workers share their polls, as the groups of one process do.
    pub shared_polls: bool,
    pub hints: bool,
    pub hints_lost: f64,
    pub profile: Profile,
    pub retry: Retry,
    /// Mean time between two crashes, freezes or stops, in seconds.
    pub chaos: f64,
    pub killers: f64,
    pub failing: f64,
    pub slow_handlers: f64,
    pub hosts: u32,
    pub prune: Option<Micros>,
    pub operator: bool,
    /// The clients that read the feed.
    pub clients: Vec<Order>,
    pub resets: bool,
    pub pauses: bool,
    pub wild_clocks: bool,
    /// The share of power cuts among the faults, on a folder: writes that were not flushed are then
    /// lost.
    pub power: f64,
    /// When the store loses its latest writes, and since when.
    pub rewind: Option<(Micros, Micros)>,
    /// The share of events with named ids.
    pub named: f64,
    /// The share of batches that are emitted in segments, and the most events of one.
    pub segments: f64,
    pub segment_len: usize,
    /// The share of segments of a foreign writer, with lines that are no events.
    pub foreign: f64,
    /// The share of bulk imports: inputs of named ids, each emitted from its first event on until it is
    /// acknowledged whole.
    pub imports: f64,
    /// Whether clocks show whole seconds only, and emitters' are about a lag behind: then W comes to
    /// stand within segments.
    pub coarse_clocks: bool,
    /// Whether many events come within each second of the coarse clocks, some of their puts late, and all
    /// emitters are about a lag behind.
    pub crowded: bool,
    /// The share of segments that cannot be read for a while.
    pub unreadable: f64,
    /// Whether the emitters use the same named ids: each emits all of them.
    pub twins: bool,
    /// The share of batches that are scheduled. If it is not zero, no clock is wrong by more than
    /// seconds.
    pub waits: f64,
}

impl SeedPlan {
    /// The plan of a seed.
    pub fn new(rng: &Rng) -> Self {
        let bucket = rng.chance(0.6);
        let groups = rng.one(&[1, 1, 1, 2, 2, 3]);
        let faults_until = rng.one(&[60, 120, 120, 200, 300]) * SECOND;
        let profile = Profile {
            lag: if bucket { Duration::from_secs(30) } else { Duration::from_secs(2) },
            hold: Duration::from_secs(if bucket { 5 } else { 60 }),
            commit_gap: if bucket { Duration::from_secs(1) } else { Duration::ZERO },
            poll: (Duration::from_millis(200), Duration::from_secs(30)),
            batch: 512,
            scans_folders: !bucket && rng.chance(0.5),
        };
        let retry = Retry {
            max_attempts: rng.one(&[3, 4, 5]),
            min: Duration::from_millis(500),
            max: Duration::from_secs(10),
            jitter: true,
            dead_on: vec![65],
        };
        let calm = rng.chance(0.1);
        let lists_with_tail = bucket && rng.chance(0.7);
        let waits = if rng.chance(0.4) { 0.3 } else { 0.0 };
        let power = if !bucket && rng.chance(0.7) { 0.15 } else { 0.0 };
        let groups = (0..groups).map(|at| GroupPlan::new(rng, at, groups, faults_until)).collect();
        let mut plan = Self {
            faults_until,
            groups,
            emitters: rng.one(&[1, 2, 3]),
            events_each: rng.one(&[4, 8, 12, 16]),
            emit_pause: rng.one(&[0.3, 2.0, 2.0, 8.0]) * 1e6,
            backlog: rng.one(&[0, 0, 5, 15]),
            keys: rng.one(&[2, 4, 16]),
            latency: if bucket { 25_000.0 } else { rng.one(&[300.0, 3_000.0]) },
            slow_puts: if calm { 0.0 } else { rng.one(&[0.0, 0.03, 0.03]) },
            late_lists: if calm { 0.0 } else { rng.one(&[0.0, 0.05, 0.2]) },
            spurious_conflicts: if calm { 0.0 } else { 0.01 },
            lost: if calm { 0.0 } else { rng.one(&[0.0, 0.002, 0.01, 0.02]) },
            page_len: rng.one(&[3, 7, 1000]),
            lists_with_tail,
            hints: rng.chance(0.5),
            hints_lost: rng.one(&[0.0, 0.3, 1.0]),
            profile,
            retry,
            chaos: if calm { 1e9 } else { rng.one(&[8.0, 20.0, 60.0]) },
            killers: if rng.chance(0.25) { 0.04 } else { 0.0 },
            failing: 0.1,
            slow_handlers: 0.04,
            hosts: rng.one(&[1, 2, 3]),
            prune: rng.chance(0.6).then(|| rng.one(&[15, 40]) * SECOND),
            operator: rng.chance(0.6),
            clients: match rng.below(5) {
                0 => vec![Order::Arrival],
                1 => vec![Order::Settled],
                2 => vec![Order::Arrival, Order::Settled],
                _ => Vec::new(),
            },
            resets: rng.chance(0.15),
            pauses: rng.chance(0.2),
            wild_clocks: rng.chance(0.3) && waits == 0.0,
            power,
            rewind: None,
            named: 0.3,
            segments: rng.one(&[0.0, 0.5, 0.9]),
            segment_len: rng.one(&[3, 5, 8]),
            foreign: rng.one(&[0.0, 0.0, 0.2]),
            imports: rng.one(&[0.0, 0.1, 0.5]),
            coarse_clocks: rng.chance(0.2) && waits == 0.0,
            crowded: false,
            unreadable: if calm { 0.0 } else { rng.one(&[0.0, 0.1]) },
            // A twin that is scheduled by one emitter and emitted by another would be acknowledged
            // twice.
            twins: rng.chance(0.3) && waits == 0.0,
            waits,
            shared_polls: lists_with_tail && rng.chance(0.5),
        };
        if plan.coarse_clocks && rng.chance(0.5) {
            plan.crowd_seconds(rng);
        }
        if plan.power == 0.0 && !calm && rng.chance(0.2) {
            plan.rewind_once(rng);
        }
        plan
    }

    /// Lets some groups run only the latest of each key. Its own numbers decide, so that seeds are what they were.
    pub fn choose_latest(&mut self, seed: u64) {
        let rng = Rng::new(seed.rotate_left(32));
        for group in &mut self.groups {
            let settle = Duration::from_secs(rng.one(&[0, 0, 2]));
            group.latest = rng.chance(0.25).then_some(Latest { by: LatestKey::Key, settle });
        }
    }

    /// Lets the store lose its latest writes, as by a failover. What was told of them by then is excused where the
    /// verdict can know it; the rest is left out.
    fn rewind_once(&mut self, rng: &Rng) {
        let when = (rng.between(0.2, 0.95) * self.faults_until as f64) as Micros;
        let lost = (rng.one(&[0.02, 0.5, 3.0, 20.0]) * 1e6) as Micros;
        self.rewind = Some((when, when.saturating_sub(lost)));
        self.clients.clear();
        // A writer that is not evbus does not look for a loss.
        (self.pauses, self.shared_polls, self.foreign) = (false, false, 0.0);
        for group in &mut self.groups {
            (group.late_start, group.widens) = (None, None);
        }
    }

    /// Lets W come to stand within segments as often as it can.
    fn crowd_seconds(&mut self, rng: &Rng) {
        self.crowded = true;
        (self.emitters, self.events_each, self.backlog, self.keys) = (5, 16, 0, 1);
        (self.emit_pause, self.slow_puts) = (rng.one(&[0.1, 0.3]) * 1e6, 0.3);
        (self.named, self.segments, self.segment_len) = (0.0, 0.7, 8);
        (self.foreign, self.imports, self.unreadable, self.killers) = (0.0, 0.0, 0.0, 0.0);
        self.groups.iter_mut().for_each(|group| group.ordered = true);
    }

    /// Whether events lie in segments.
    pub fn has_segments(&self) -> bool {
        self.segments > 0.0 || self.imports > 0.0 || self.foreign > 0.0
    }

    /// The most events of a segment.
    pub fn longest_segment(&self) -> usize {
        self.segment_len + 1
    }

    /// Whether every request of a process that lives is answered, and none takes effect after its
    /// process has died.
    pub fn answers_all(&self) -> bool {
        self.lost == 0.0 && self.slow_puts == 0.0 && self.power == 0.0
    }

    /// Removes everything that makes the end depend on chance.
    pub fn calm_down(&mut self) {
        (self.slow_puts, self.late_lists, self.spurious_conflicts, self.lost) = (0.0, 0.0, 0.0, 0.0);
        (self.chaos, self.killers, self.prune) = (1e9, 0.0, None);
        self.clients.clear();
        (self.operator, self.resets, self.pauses, self.wild_clocks) = (false, false, false, false);
        // The ids of segments are made at random.
        (self.named, self.segments, self.power, self.unreadable) = (1.0, 0.0, 0.0, 0.0);
        (self.imports, self.foreign, self.rewind) = (0.0, 0.0, None);
        for group in &mut self.groups {
            (group.late_start, group.widens, group.outage, group.latest) = (None, None, None, None);
        }
    }
}

impl GroupPlan {
    fn new(rng: &Rng, at: usize, of: usize, faults_until: Micros) -> Self {
        let shards = rng.one(&[1, 1, 1, 2, 2, 3, 4, 8]);
        let small = of == 1 && shards <= 3;
        let (watchers, drains) = match rng.below(6) {
            0 | 1 => (1, 0),
            2 => (2, 0),
            3 => (if small { rng.one(&[3, 5]) } else { 2 }, 0),
            4 => (0, rng.one(&[1, 2])),
            _ => (1, 1),
        };
        let bounds = match rng.below(3) {
            0 => ShardBounds { window: 8, pending: 3, reads: 2 },
            1 => ShardBounds { window: 12, pending: 5, reads: 4 },
            _ => ShardBounds { window: 40, pending: 10, reads: 128 },
        };
        let late_start = (at > 0 && rng.chance(0.5)).then(|| {
            let when = (rng.share() * faults_until as f64) as Micros;
            (when, rng.one(&[GroupStart::Now, GroupStart::Earliest, GroupStart::At(when / 2)]))
        });
        Self {
            name: ["mail", "thumbs", "index"][at].to_owned(),
            types: if rng.chance(0.3) { vec!["order.*".to_owned()] } else { Vec::new() },
            shards,
            ordered: rng.chance(0.35),
            latest: None,
            concurrency: rng.one(&[1, 2, 3, 8]),
            batch: rng.chance(0.25).then(|| (rng.one(&[2, 4, 8]), rng.one(&[0, SECOND / 5, 2 * SECOND]))),
            bounds,
            watchers,
            drains,
            late_start,
            outage: rng
                .chance(0.25)
                .then(|| ((rng.share() * faults_until as f64) as Micros, rng.one(&[2, 20, 90]) * SECOND)),
            condition: rng.chance(0.3).then_some(CONDITION),
            widens: rng.chance(0.4).then(|| (rng.share() * faults_until as f64) as Micros),
        }
    }
}
