//! The actors of the simulation: emitters, workers, prune, an operator, and faults.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::BusHandle;
use evbus::event::EventTime;
use evbus::group::definition::{self, Definition, Start};
use evbus::group::lease::{Lease, Process as Alive};
use evbus::group::marker::Owner;
use evbus::group::request::{self, Request};
use evbus::group::worker::{Mode, Stop, Worker, WorkerParts, WorkerSettings};
use evbus::group::worker_event::Silent;
use evbus::group::{Position, dead_letter};
use evbus::handler::{BatchBounds, Batches, Handler};
use evbus::retention;
use evbus::store::memory::MemoryStore;
use evbus::store::{ErrorKind, StoreResult};
use tokio::sync::watch;

use crate::emitters::emit_all;
use crate::executor::{Micros, SECOND, SimProcess};
use crate::handler::{JobRecorder, Jobs, SimHandler};
use crate::network::{BEGIN, ProcessRole, SkewedClock, StoreConnection};
use crate::plan::GroupStart;
use crate::readers;
use crate::world::World;

/// A running worker that faults may affect.
struct FaultTarget {
    process: Rc<SimProcess>,
    stop: Option<watch::Sender<Stop>>,
}

/// All actors of one seed.
pub struct Actors {
    world: Rc<World>,
    root: Rc<SimProcess>,
    targets: RefCell<Vec<FaultTarget>>,
    hosts: RefCell<Vec<(u32, u32, Rc<SimProcess>)>>,
}

impl Actors {
    pub fn new(world: &Rc<World>) -> Rc<Self> {
        let root = world.simulation.process();
        Rc::new(Self { world: Rc::clone(world), root, targets: RefCell::default(), hosts: RefCell::default() })
    }

    /// Starts all actors.
    pub fn begin(self: &Rc<Self>) {
        let world = &self.world;
        let plan = &world.plan;
        for at in 0..plan.groups.len() {
            let me = Rc::clone(self);
            self.spawn_as_root(async move { me.group(at).await });
        }
        for at in 0..plan.emitters {
            world.emitting.set(world.emitting.get() + 1);
            let me = Rc::clone(self);
            self.spawn_as_root(async move { me.emitter(at).await });
        }
        if let Some(every) = plan.prune {
            let me = Rc::clone(self);
            self.spawn_as_root(async move { me.pruner(every).await });
        }
        if !plan.clients.is_empty() {
            for server in 0..readers::SERVERS {
                let me = Rc::clone(self);
                self.spawn_as_root(async move { me.feed(server).await });
            }
        }
        if plan.operator {
            let me = Rc::clone(self);
            self.spawn_as_root(async move { me.operator().await });
        }
        let me = Rc::clone(self);
        self.spawn_as_root(async move { me.inject_faults().await });
        let me = Rc::clone(self);
        self.spawn_as_root(async move { me.rewind().await });
    }

    fn spawn_as_root(&self, future: impl Future<Output = ()> + 'static) {
        self.world.simulation.spawn(&self.root, future);
    }

    fn clock(&self) -> SkewedClock {
        let simulation = Rc::clone(&self.world.simulation);
        let rng = &simulation.rng;
        let years = if self.world.plan.wild_clocks && !self.world.plan.coarse_clocks && rng.chance(0.15) {
            rng.one(&[3, -3, 40])
        } else {
            0
        };
        let waits = self.world.plan.waits > 0.0;
        let millis: i64 = rng.one(if waits {
            &[0, 0, 0, 400, -7_000, 3_000]
        } else {
            &[0, 0, 0, 400, -7_000, 3_000, 3_600_000, -3_600_000]
        });
        let coarse = self.world.plan.coarse_clocks;
        let behind = self.world.plan.profile.lag.as_millis() as i64;
        let millis = match (self.world.plan.crowded, coarse) {
            (true, _) => 0,
            (false, true) => rng.one(&[0, 0, 2_000 - behind, 1_000 - behind, -behind]),
            (false, false) => millis,
        };
        let jump = if !waits && !coarse && rng.chance(0.1) { rng.one(&[-60, 60, -3600, 3600]) * 1_000_000 } else { 0 };
        SkewedClock {
            skew: years * 365 * 86_400 * 1_000_000 + millis * 1_000,
            step: if coarse { SECOND as i64 } else { 1 },
            drift: if !waits && !coarse && rng.chance(0.2) { rng.between(-0.01, 0.01) } else { 0.0 },
            jump: ((rng.share() * self.world.plan.faults_until as f64) as Micros, jump),
            uptime: (rng.around(300.0) * 1e6) as Micros,
            simulation,
        }
    }

    fn emitter_clock(&self) -> SkewedClock {
        let plan = &self.world.plan;
        let behind = plan.profile.lag.as_micros() as i64;
        let skew = self.world.simulation.rng.one(&[2_000_000 - behind, 1_000_000 - behind, -behind]);
        if plan.crowded { SkewedClock { skew, ..self.clock() } } else { self.clock() }
    }

    fn bus_handle(&self, process: &Rc<SimProcess>, role: ProcessRole, clock: SkewedClock) -> BusHandle {
        let (world, process) = (Rc::clone(&self.world), Rc::clone(process));
        let known_rewinds = Cell::new(world.contents.rewinds());
        let connection = StoreConnection { world, process, role, groups_read: Cell::new(0), known_rewinds };
        let store = MemoryStore::new(Rc::clone(&self.world.contents), Rc::new(connection), self.world.plan.profile);
        BusHandle::new(Rc::new(store), Rc::new(clock))
    }

    async fn pause(&self, seconds: f64) {
        self.world.simulation.sleep((seconds * 1e6) as Micros).await;
    }

    // ---- groups and their workers

    async fn group(self: Rc<Self>, at: usize) {
        let plan = self.world.plan.groups[at].clone();
        let start = match plan.late_start {
            None => Start::Earliest,
            Some((when, from)) => {
                self.world.simulation.sleep_until(when).await;
                match from {
                    GroupStart::Now => Start::Now,
                    GroupStart::Earliest => Start::Earliest,
                    GroupStart::At(at) => Start::At(EventTime::from_micros(BEGIN + at as i64)),
                }
            }
        };
        loop {
            let process = self.world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Operator, self.clock());
            if self.create(&bus, at, start).await.is_ok() {
                break;
            }
            self.pause(1.0).await;
        }
        for watcher in 0..plan.watchers {
            let me = Rc::clone(&self);
            self.spawn_as_root(async move { me.watcher(at, watcher).await });
        }
        for drain in 0..plan.drains {
            let me = Rc::clone(&self);
            self.spawn_as_root(async move { me.cron(at, drain).await });
        }
        if let Some(when) = self.world.plan.groups[at].widens {
            let me = Rc::clone(&self);
            self.spawn_as_root(async move { me.widener(at, when).await });
        }
        let me = Rc::clone(&self);
        if self.world.plan.pauses && at == 0 {
            self.spawn_as_root(async move { me.pauser(at).await });
        }
    }

    async fn create(&self, bus: &BusHandle, at: usize, start: Start) -> StoreResult<()> {
        let plan = &self.world.plan.groups[at];
        let name = self.world.groups.borrow()[at].name.clone();
        if definition::find_durable(&*bus.store, &name).await?.is_some() {
            return Ok(());
        }
        let start = definition::resolve(&*bus.store, &*bus.clock, start).await?;
        let made = Definition {
            created: bus.clock.now(),
            types: plan.types.clone(),
            not: Vec::new(),
            condition: plan.condition.map(str::to_owned),
            shards: plan.shards,
            start,
            paused: None,
        };
        definition::create(&*bus.store, &name, made).await.map(|_| ())
    }

    /// Changes a group to want every event.
    async fn widener(&self, at: usize, when: Micros) {
        let (world, name) = (&self.world, self.world.groups.borrow()[at].name.clone());
        world.simulation.sleep_until(when).await;
        let bus = self.bus_handle(&world.simulation.process(), ProcessRole::Operator, self.clock());
        loop {
            let Ok(found) = definition::find(&*bus.store, &name).await else { continue };
            let Some(found) = found else {
                world.simulation.sleep(SECOND).await;
                continue;
            };
            let wide = Definition { types: Vec::new(), condition: None, ..found.definition };
            world.groups.borrow_mut()[at].widening.get_or_insert(world.simulation.now());
            if let Ok(Some(_)) = definition::replace(&*bus.store, &name, &found.version, wide).await {
                world.log_line(|| format!("{name} wants everything"));
                world.groups.borrow_mut()[at].widened = Some(world.simulation.now());
                return;
            }
        }
    }

    /// Pauses a group for a while, and resumes it.
    async fn pauser(&self, at: usize) {
        let name = self.world.groups.borrow()[at].name.clone();
        let world = &self.world;
        loop {
            self.pause(world.simulation.rng.around(40.0)).await;
            let over = !world.faults();
            let process = world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Operator, self.clock());
            loop {
                let Ok(Some(found)) = definition::find(&*bus.store, &name).await else { continue };
                let mut definition = found.definition.clone();
                let since = bus.clock.now();
                let paused = definition::Paused { since, why: None };
                definition.paused = if over || definition.paused.is_some() { None } else { Some(paused) };
                if definition.paused == found.definition.paused
                    || matches!(definition::replace(&*bus.store, &name, &found.version, definition).await, Ok(Some(_)))
                {
                    break;
                }
            }
            if over {
                return;
            }
        }
    }

    async fn watcher(&self, at: usize, _number: usize) {
        let rng = &self.world.simulation.rng;
        self.pause(rng.around(3.0)).await;
        while !self.world.workers_end.get() {
            self.work(at, Mode::Watch).await;
            self.pause(rng.one(&[0.5, 2.0, 5.0, 30.0])).await;
        }
    }

    /// A cron job: one drain after the other, which overlap if one takes long.
    async fn cron(self: Rc<Self>, at: usize, _number: usize) {
        let rng = &self.world.simulation.rng;
        let every = rng.one(&[5.0, 10.0, 20.0]);
        // A drain that does not wait leaves a shard to its last owner unless that owner is known to
        // be gone.
        let wait = rng.chance(0.3) || self.world.plan.groups[at].watchers == 0;
        let most = rng.chance(0.2).then_some(3);
        while !self.world.workers_end.get() {
            let me = Rc::clone(&self);
            let span = rng.chance(0.2).then(|| Duration::from_secs(10));
            self.spawn_as_root(async move { me.work(at, Mode::Drain { wait, most, span }).await });
            self.pause(every).await;
        }
    }

    /// One worker's life.
    async fn work(&self, at: usize, mode: Mode) {
        let world = &self.world;
        let process = world.simulation.process();
        let host = world.simulation.rng.below(world.plan.hosts as usize) as u32;
        let (sender, receiver) = watch::channel(Stop::No);
        self.hosts.borrow_mut().push((host, process.pid, Rc::clone(&process)));
        self.targets.borrow_mut().push(FaultTarget { process: Rc::clone(&process), stop: Some(sender) });
        let bus = self.bus_handle(&process, ProcessRole::Worker, self.clock());
        world.log_line(|| format!("p{} begins on host {host}: {mode:?} {}", process.pid, world.plan.groups[at].name));
        let body = self.worker(at, mode, bus, Rc::clone(&process), host, receiver);
        let (simulation, mine, world) = (Rc::clone(&world.simulation), Rc::clone(&process), Rc::clone(world));
        world.staff(at, true);
        self.world.simulation.spawn(&process, async move {
            if let Err(error) = body.await
                && error.kind() != ErrorKind::Unavailable
            {
                world.complain(format!("p{}: {error}", mine.pid));
            }
            world.log_line(|| format!("p{} ends", mine.pid));
            simulation.kill(&mine);
        });
        process.ended().await;
        self.world.staff(at, false);
        self.targets.borrow_mut().retain(|target| !target.process.dead());
    }

    fn worker(
        &self,
        at: usize,
        mode: Mode,
        bus: BusHandle,
        process: Rc<SimProcess>,
        host: u32,
        stop: watch::Receiver<Stop>,
    ) -> impl Future<Output = StoreResult<()>> + 'static {
        let world = Rc::clone(&self.world);
        let plan = world.plan.groups[at].clone();
        let name = world.groups.borrow()[at].name.clone();
        let me = Owner {
            worker: format!("{:016x}", bus.clock.random()),
            host: format!("host{host}"),
            pid: process.pid,
            boot: format!("boot{host}"),
            since: bus.clock.now(),
            command: "handler 00000000".to_owned(),
        };
        let neighbours: Vec<(u32, u32, Rc<SimProcess>)> = self.hosts.borrow().clone();
        let simulated = Rc::clone(&world);
        let alive = move |owner: &Owner| {
            let there = neighbours.iter().find(|(on, pid, _)| *on == host && *pid == owner.pid);
            match there {
                Some((_, _, process)) if process.dead() => Alive::Gone,
                _ => Alive::MayLive,
            }
        };
        let jobs = Jobs::default();
        let (stopped, waiting) = Default::default();
        let handler: Rc<dyn Handler> = Rc::new(SimHandler {
            world: Rc::clone(&world),
            process,
            group: at,
            jobs: Rc::clone(&jobs),
            stopped,
            waiting,
        });
        let handler = match plan.batch {
            None => handler,
            Some((size, linger)) => {
                let bounds = BatchBounds { size, linger: Duration::from_micros(linger), concurrency: 2 };
                let batches = Batches::new(handler, Rc::clone(&bus.clock), bounds, Box::new(|_, _| {}));
                Rc::new(JobRecorder { batches, jobs })
            }
        };
        let settings = WorkerSettings {
            mode,
            concurrency: plan.concurrency,
            ordered: plan.ordered,
            latest: plan.latest.clone(),
            retry: world.plan.retry.clone(),
            stop_timeout: Duration::from_secs(5),
            lease: Lease::default(),
            bounds: plan.bounds,
            poll: None,
            hints: world.plan.hints,
            url: "memory:".to_owned(),
            runs_elsewhere: false,
            reports_runs: false,
            max_event_bytes: 1 << 20,
        };
        async move {
            let registered = loop {
                match definition::find(&*bus.store, &name).await {
                    Ok(Some(found)) => break found,
                    Ok(None) => simulated.complain(format!("group {name} is not there")),
                    Err(_) => {}
                }
                bus.clock.sleep_until(bus.clock.elapsed() + Duration::from_secs(1)).await;
            };
            let parts = WorkerParts {
                bus,
                group: name,
                registered,
                handler,
                on_dead: None,
                reporter: Rc::new(Silent),
                me,
                alive: Rc::new(alive),
                stop,
                polls: simulated.polls.clone(),
            };
            Worker::new(parts, settings)?.run().await.map(|_| ())
        }
    }

    // ---- emitters

    async fn emitter(&self, at: usize) {
        let world = &self.world;
        let rng = &world.simulation.rng;
        let next = Rc::new(Cell::new(0));
        self.pause(rng.around(2.0)).await;
        while next.get() < world.plan.events_each {
            let process = world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Emitter, self.emitter_clock());
            self.targets.borrow_mut().push(FaultTarget { process: Rc::clone(&process), stop: None });
            let not_durable = self.bus_handle(&process, ProcessRole::NotDurable, self.emitter_clock());
            let body = emit_all(Rc::clone(world), Rc::clone(&process), [bus, not_durable], at, Rc::clone(&next));
            let (simulation, mine) = (Rc::clone(&world.simulation), Rc::clone(&process));
            world.simulation.spawn(&process, async move {
                body.await;
                simulation.kill(&mine);
            });
            process.ended().await;
            self.targets.borrow_mut().retain(|target| !target.process.dead());
            self.pause(1.0).await;
        }
        world.emitting.set(world.emitting.get() - 1);
    }

    // ---- readers

    /// A server of the feed, which is started again after it was killed.
    async fn feed(&self, server: usize) {
        let world = &self.world;
        while !world.workers_end.get() {
            let process = world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Feed, self.clock());
            self.targets.borrow_mut().push(FaultTarget { process: Rc::clone(&process), stop: None });
            world.log_line(|| format!("p{} begins to serve the feed", process.pid));
            world.simulation.spawn(&process, readers::serve(Rc::clone(world), Rc::clone(&process), bus, server));
            process.ended().await;
            self.targets.borrow_mut().retain(|target| !target.process.dead());
            self.pause(1.0).await;
        }
    }

    // ---- prune, operator, faults

    async fn pruner(&self, every: Micros) {
        let world = &self.world;
        loop {
            self.world.simulation.sleep(every).await;
            if !world.prunes.get() {
                return;
            }
            let process = world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Pruner, self.clock());
            let before = bus.clock.now().minus(Duration::from_secs(world.simulation.rng.one(&[5, 60])));
            let _ = retention::prune(&bus, retention::PruneRequest { before, dry_run: false }, None, |_| {}).await;
        }
    }

    async fn operator(&self) {
        let world = &self.world;
        let rng = &world.simulation.rng;
        let until = world.plan.faults_until + 20 * SECOND;
        while world.simulation.now() < until {
            self.pause(rng.between(10.0, 60.0)).await;
            let process = world.simulation.process();
            let bus = self.bus_handle(&process, ProcessRole::Operator, self.clock());
            for at in 0..world.plan.groups.len() {
                let _ = self.redrive(&bus, at).await;
                if world.plan.resets && rng.chance(0.2) {
                    let _ = self.reset(&bus, at).await;
                }
            }
        }
    }

    async fn redrive(&self, bus: &BusHandle, at: usize) -> StoreResult<()> {
        let rng = &self.world.simulation.rng;
        let (name, shards) = {
            let groups = self.world.groups.borrow();
            (groups[at].name.clone(), groups[at].shards())
        };
        for letter_name in dead_letter::names(bus, &name).await? {
            if rng.chance(0.5) {
                let Some(letter) = dead_letter::read(bus, &name, &letter_name).await? else { continue };
                if let Some(id) = self.world.id_of(letter.name.as_str()).filter(|_| rng.chance(0.6)) {
                    self.world.cured.borrow_mut().insert(id);
                }
                let shard = letter.name.hash_slot().shard(shards);
                let asked = Request::Redrive { event: letter.name, letter: letter_name };
                request::ask(bus, &name, shard, &asked).await?;
            }
        }
        Ok(())
    }

    async fn reset(&self, bus: &BusHandle, at: usize) -> StoreResult<()> {
        let rng = &self.world.simulation.rng;
        let (name, shards) = {
            let groups = self.world.groups.borrow();
            (groups[at].name.clone(), groups[at].shards())
        };
        let shard = rng.below(usize::from(shards)) as u16;
        let to = match rng.chance(0.5) {
            true => Position::START,
            false => self.world.groups.borrow()[at].through(shard),
        };
        request::ask(bus, &name, shard, &Request::Reset { to }).await
    }

    /// Kills, freezes and stops, until the faults end.
    async fn inject_faults(&self) {
        let world = &self.world;
        let rng = &world.simulation.rng;
        loop {
            self.pause(rng.around(world.plan.chaos)).await;
            if !world.faults() {
                return;
            }
            if world.plan.power > 0.0 && rng.chance(world.plan.power) {
                self.power_cut();
                continue;
            }
            let targets = self.targets.borrow();
            if targets.is_empty() {
                continue;
            }
            let target = &targets[rng.below(targets.len())];
            let process = Rc::clone(&target.process);
            match (rng.below(10), &target.stop) {
                (0..4, _) => {
                    world.log_line(|| format!("p{} is killed", process.pid));
                    drop(targets);
                    world.simulation.kill(&process);
                }
                (4..8, _) => {
                    let time = rng.one(&[1, 5, 10, 20, 40, 150]);
                    world.log_line(|| format!("p{} freezes for {time} s", process.pid));
                    world.simulation.freeze(&process, world.simulation.now() + time * SECOND);
                }
                (_, Some(stop)) => {
                    world.log_line(|| format!("p{} is told to stop", process.pid));
                    let _ = stop.send(rng.one(&[Stop::AfterRuns, Stop::Starts, Stop::Handlers]));
                }
                (_, None) => {}
            }
        }
    }
}

impl Actors {
    /// Loses the latest writes, as a failover to a standby does that has not received them.
    async fn rewind(self: Rc<Self>) {
        let world = &self.world;
        let Some((when, since)) = world.plan.rewind else { return };
        world.simulation.sleep_until(since).await;
        // A group that is gone is made again by an operator, and there is none here.
        while world.groups.borrow().iter().any(|group| group.definition.is_none()) {
            self.pause(0.1).await;
        }
        let since = world.simulation.now();
        let snapshot = world.contents.snapshot();
        world.simulation.sleep_until(when).await;
        world.log_line(|| format!("THE WRITES SINCE {} s ARE LOST", since as f64 / SECOND as f64));
        world.rewinding.set(true);
        world.contents.rewind(&snapshot);
        world.rewinding.set(false);
        world.excuse_what_was_lost(since);
    }

    /// Kills all processes at once and takes back what was not flushed.
    fn power_cut(&self) {
        self.world.log_line(|| "THE POWER FAILS".to_owned());
        let all: Vec<Rc<SimProcess>> = self.targets.borrow().iter().map(|target| Rc::clone(&target.process)).collect();
        for process in all {
            self.world.simulation.kill(&process);
        }
        self.world.rewinding.set(true);
        self.world.contents.cut_power();
        self.world.rewinding.set(false);
    }
}
