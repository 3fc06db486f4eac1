//! Simulated handlers: each event has a fate in each group.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use evbus::clock::Fut;
use evbus::event::{Event, EventName};
use evbus::handler::{Batches, Handler, Job, Outcome, Reports, RunMany, RunReport};

use crate::executor::{Micros, SECOND, SimProcess};
use crate::rng::{self, Rng};
use crate::world::{RunningHandler, World};

/// What a handler does with an event.
///
/// Ordered from the best to the worst: a batch has the worst fate of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Succeed,
    /// Takes longer than a lease.
    Slow,
    /// Fails this often first.
    Fail(u32),
    Never,
    DeadAtOnce,
    /// Runs until the time limit.
    Hang,
    /// The command cannot be started the first time.
    NotStarted,
    /// Kills its worker.
    Kill,
}

/// The fate of an event in a group.
pub fn fate(world: &World, group: usize, id: &str) -> Fate {
    let rng = Rng::new(rng::hash(id) ^ rng::mix(world.seed ^ group as u64));
    let plan = &world.plan;
    let share = rng.share();
    let kinds = [
        (plan.killers, Fate::Kill),
        (plan.failing, Fate::Fail(1 + rng.below(2) as u32)),
        (0.03, Fate::Never),
        (0.02, Fate::DeadAtOnce),
        (0.01, Fate::Hang),
        (plan.slow_handlers, Fate::Slow),
        (0.02, Fate::NotStarted),
    ];
    let mut sum = 0.0;
    for (part, fate) in kinds {
        sum += part;
        if share < sum {
            return fate;
        }
    }
    Fate::Succeed
}

/// Records each job of a worker that runs batches: the job of a batch lacks the events' own
/// variables.
pub struct JobRecorder {
    pub batches: Batches,
    pub jobs: Jobs,
}

/// Jobs by the ids of their events.
pub type Jobs = Rc<RefCell<BTreeMap<String, Job>>>;

impl Handler for JobRecorder {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        self.jobs.borrow_mut().insert(var(&job, "EVBUS_ID"), job.clone());
        self.batches.run(job)
    }
    fn many(&self) -> Option<&dyn RunMany> {
        Some(self)
    }
    fn terminate(&self) {
        self.batches.terminate();
    }
    fn refuse_new_runs(&self) {
        self.batches.refuse_new_runs();
    }
    fn expect(&self, runs: Option<usize>) {
        self.batches.expect(runs);
    }
    fn check(&self) -> Result<(), evbus::handler::Obstacle> {
        Ok(())
    }
}

impl RunMany for JobRecorder {
    fn run_many(&self, jobs: Vec<Job>) -> Reports {
        self.jobs.borrow_mut().extend(jobs.iter().map(|job| (var(job, "EVBUS_ID"), job.clone())));
        self.batches.run_many(jobs)
    }
}

fn var(job: &Job, name: &str) -> String {
    job.vars
        .list()
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into_string().unwrap())
        .unwrap_or_default()
}

/// The handlers of one worker.
pub struct SimHandler {
    pub world: Rc<World>,
    pub process: Rc<SimProcess>,
    pub group: usize,
    /// The jobs that its batches consist of.
    pub jobs: Jobs,
    pub stopped: Rc<Cell<bool>>,
    pub waiting: Rc<RefCell<Vec<Waker>>>,
}

/// A handler's process: ends by itself, or with the future that waits for it.
struct Child {
    world: Rc<World>,
    number: u64,
    outcome: Rc<Cell<Option<bool>>>,
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.outcome.get().is_none() {
            // The worker dropped the run or died, so the handler was killed.
            self.outcome.set(Some(false));
            self.world.running.borrow_mut().remove(&self.number);
        }
    }
}

impl SimHandler {
    fn begin(&self, job: &Job) -> (Child, Fate) {
        let (id, epoch) = (var(job, "EVBUS_ID"), var(job, "EVBUS_EPOCH").parse().unwrap());
        let name = &job.file;
        let shards = self.world.groups.borrow()[self.group].shards();
        let copy = EventName::parse(name).unwrap();
        let shard = copy.hash_slot().shard(shards);
        let fate = fate(&self.world, self.group, &id);
        let (pid, thawed) = (self.process.pid, self.process.thaws_at.get());
        let run = RunningHandler { group: self.group, id: id.clone(), name: copy, shard, epoch, pid, thawed };
        let number = self.world.run_starts(run, name);
        let started = self.world.groups.borrow()[self.group].runs[&id].started;
        let fate = match fate {
            Fate::Fail(times) if started > times => Fate::Succeed,
            Fate::NotStarted if started > 1 => Fate::Succeed,
            _ if self.world.cured.borrow().contains(&id) => Fate::Succeed,
            fate => fate,
        };
        (Child { world: Rc::clone(&self.world), number, outcome: Rc::default() }, fate)
    }

    /// The jobs of the events on a job's stdin.
    fn each(&self, job: Job) -> Vec<Job> {
        if var(&job, "EVBUS_BATCH").is_empty() {
            return vec![job];
        }
        let lines = job.event.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let ids = lines.map(|line| Event::parse(line, usize::MAX).unwrap().id().to_owned());
        ids.map(|id| self.jobs.borrow()[&id].clone()).collect()
    }

    fn time(&self, fate: Fate) -> Micros {
        let rng = &self.world.simulation.rng;
        match fate {
            Fate::Hang => 25 * SECOND,
            Fate::Kill => SECOND,
            Fate::Slow => (rng.between(16.0, 40.0) * 1e6) as Micros,
            _ => (rng.around(0.3) * 1e6) as Micros,
        }
    }
}

impl Handler for SimHandler {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let now = self.world.simulation.now();
            let outage = self.world.plan.groups[self.group].outage;
            if outage.is_some_and(|(from, long)| (from..from + long).contains(&now)) {
                let outcome = Outcome::NotStarted(Box::new("the receiver is away".to_owned().into()));
                return RunReport::new(outcome, String::new(), Duration::ZERO);
            }
            let begun: Vec<(Child, Fate)> = self.each(job).iter().map(|job| self.begin(job)).collect();
            // A batch has the worst fate of its events.
            let fate = begun.iter().map(|(_, fate)| *fate).max().unwrap();
            let (took, success) = (self.time(fate), fate <= Fate::Slow);
            if fate == Fate::Kill {
                let (world, process) = (Rc::clone(&self.world), Rc::clone(&self.process));
                self.world.simulation.later(50_000, move || {
                    world.log_line(|| format!("p{} is killed by its handler", process.pid));
                    world.simulation.kill(&process);
                });
            }
            let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
            {
                // The child ends by itself, even while its worker is frozen.
                let (world, waker) = (Rc::clone(&self.world), Rc::clone(&waker));
                let children: Vec<_> =
                    begun.iter().map(|(child, _)| (Rc::clone(&child.outcome), child.number)).collect();
                self.world.simulation.later(took, move || {
                    for (outcome, number) in &children {
                        if outcome.get().is_none() {
                            outcome.set(Some(success));
                            world.run_ends(*number, success);
                        }
                    }
                    if let Some(waker) = waker.borrow_mut().take() {
                        waker.wake();
                    }
                });
            }
            let stopped = std::future::poll_fn(|context| {
                if begun.iter().all(|(child, _)| child.outcome.get().is_some()) {
                    return Poll::Ready(false);
                }
                if self.stopped.get() {
                    return Poll::Ready(true);
                }
                *waker.borrow_mut() = Some(context.waker().clone());
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            })
            .await;
            let outcome = match fate {
                _ if stopped => Outcome::Stopped,
                Fate::Succeed | Fate::Slow => Outcome::Exit(0),
                Fate::DeadAtOnce => Outcome::Exit(65),
                Fate::Hang => Outcome::TimedOut,
                Fate::NotStarted => Outcome::NotStarted(Box::new("no such file".to_owned().into())),
                Fate::Kill => Outcome::Signal(9),
                Fate::Fail(_) | Fate::Never => Outcome::Exit(1),
            };
            RunReport::new(outcome, "it failed\n".to_owned(), Duration::from_micros(took))
        })
    }

    fn terminate(&self) {
        self.stopped.set(true);
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    fn check(&self) -> Result<(), evbus::handler::Obstacle> {
        Ok(())
    }
}
