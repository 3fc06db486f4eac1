//! One seed, from its plan to its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use evbus::event::{EventTime, TypeFilter};
use evbus::group::GroupName;
use evbus::store::memory::Contents;

use crate::actors::Actors;
use crate::executor::{SECOND, Simulation};
use crate::plan::SeedPlan;
use crate::readers::Client;
use crate::world::{GroupRecord, World};
use crate::{checks, verdict};

/// Options for the run of a seed.
#[derive(Debug, Default, Clone, Copy)]
pub struct SeedOptions {
    /// Print its trace.
    pub verbose: bool,
    /// With or without hints, in place of the seed's choice.
    pub hints: Option<bool>,
    /// Without faults, and with every event named, so that the seed alone decides the ends.
    pub calm: bool,
}

/// How a seed has ended.
pub struct SeedOutcome {
    pub seed: u64,
    pub trouble: Option<String>,
    pub log: Vec<String>,
    pub trace: u64,
    pub acknowledged: u64,
    pub runs: u64,
    pub letters: u64,
    pub seconds: u64,
    pub polls: u64,
    pub takeovers: u64,
    /// By group and id: true for done, false for a dead letter.
    pub ends: BTreeMap<(String, String), bool>,
}

fn world(seed: u64, options: SeedOptions) -> Rc<World> {
    let simulation = Simulation::new(seed);
    let mut plan = SeedPlan::new(&simulation.rng);
    plan.choose_latest(seed);
    if let Some(hints) = options.hints {
        plan.hints = hints;
    }
    if options.calm {
        plan.calm_down();
    }
    let groups = plan.groups.iter().map(|group| GroupRecord {
        name: GroupName::parse(&group.name).expect("a valid name"),
        filter: TypeFilter::new(&group.types, &[]).expect("valid patterns"),
        has_condition: group.condition.is_some(),
        widening: None,
        widened: None,
        definition: None,
        created: 0,
        markers: Default::default(),
        runs: Default::default(),
        redrives: Default::default(),
        resets: Default::default(),
        active: Default::default(),
        latest: group.latest.is_some(),
        latest_settled: Default::default(),
        workers: 0,
        staffed: 0,
        paused: false,
        resumed: 0,
    });
    let groups = RefCell::new(groups.collect());
    Rc::new(World {
        seed,
        simulation,
        contents: Rc::new(Contents::default()),
        notifiers: RefCell::default(),
        groups,
        events: RefCell::default(),
        by_identity: RefCell::default(),
        present: RefCell::default(),
        late_copies: RefCell::default(),
        overdue: RefCell::default(),
        put_at: RefCell::default(),
        deleted: RefCell::default(),
        frontier: Cell::new(EventTime::MIN),
        rewinding: Cell::new(false),
        rewound: Cell::new(None),
        replaced: RefCell::default(),
        polls: plan.shared_polls.then(Rc::default),
        running: RefCell::default(),
        run_number: Cell::new(0),
        cured: RefCell::default(),
        asked: Cell::new(0),
        written: Cell::new(0),
        prunes: Cell::new(true),
        clients: plan.clients.iter().map(|order| Client::new(*order)).collect(),
        emitting: Cell::new(0),
        workers_end: Cell::new(false),
        plan,
        verbose: options.verbose,
        log: RefCell::default(),
    })
}

/// Runs a seed.
pub fn run(seed: u64, options: SeedOptions) -> SeedOutcome {
    let world = world(seed, options);
    world.log_line(|| format!("{:#?}", world.plan));
    checks::observe(&world);
    let actors = Actors::new(&world);
    actors.begin();
    let simulation = Rc::clone(&world.simulation);
    simulation.run_until(world.plan.faults_until);
    verdict::settle(&world);
    let groups = world.groups.borrow();
    let sum = |of: fn(&crate::world::Runs) -> u64| groups.iter().flat_map(|group| group.runs.values()).map(of).sum();
    let ends = groups.iter().flat_map(|group| {
        let runs = group.runs.iter().filter(|(id, _)| group.handled(id));
        runs.map(|(id, runs)| ((group.name.to_string(), id.clone()), !runs.successes.is_empty()))
    });
    let ended = SeedOutcome {
        ends: ends.collect(),
        seed,
        trouble: simulation.trouble(),
        log: world.log.take(),
        trace: simulation.trace(),
        acknowledged: world.events.borrow().values().filter(|known| known.acked.is_some()).count() as u64,
        runs: sum(|runs| u64::from(runs.started)),
        letters: sum(|runs| u64::from(runs.letters)),
        seconds: simulation.now() / SECOND,
        polls: simulation.polls(),
        takeovers: groups.iter().flat_map(|group| group.markers.values()).map(|marker| marker.epoch).sum(),
    };
    drop(groups);
    // All processes are dropped here, which is not checked.
    simulation.clear();
    ended
}
