//! A group and its worker, in the test's own process.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::BusHandle;
use evbus::bus::emit::{Draft, SegmentDraft};
use evbus::clock::{Clock, Fut};
use evbus::event::{Event, Identity, event_id};
use evbus::group::definition::{self, Definition};
use evbus::group::lease::Process;
use evbus::group::marker::Owner;
use evbus::group::polls::Polls;
use evbus::group::worker::{Stop, Summary, Worker, WorkerParts, WorkerSettings};
use evbus::group::worker_event::Silent;
use evbus::group::{GroupName, Position};
use evbus::handler::{Handler, Job, Outcome, RunReport};
use evbus::store::StoreResult;

/// A handler that succeeds at once and notes its events.
#[derive(Default)]
pub struct RunCounter(RefCell<BTreeMap<String, u32>>);

impl RunCounter {
    /// How many handlers ran.
    pub fn runs(&self) -> u64 {
        self.0.borrow().values().map(|runs| u64::from(*runs)).sum()
    }

    /// How often the handler ran for an event.
    pub fn runs_of(&self, id: &str) -> u32 {
        self.0.borrow().get(id).copied().unwrap_or(0)
    }

    /// The events that ran more than once.
    pub fn repeated(&self) -> Vec<String> {
        self.0.borrow().iter().filter(|(_, runs)| **runs > 1).map(|(id, _)| id.clone()).collect()
    }
}

impl Handler for RunCounter {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        let id = job.vars.list().into_iter().find(|(name, _)| *name == "EVBUS_ID").map(|(_, id)| id).unwrap();
        let id = id.into_string().unwrap();
        *self.0.borrow_mut().entry(id).or_default() += 1;
        let report = RunReport::new(Outcome::Exit(0), String::new(), Duration::ZERO);
        Box::pin(std::future::ready(report))
    }
    fn terminate(&self) {}
    fn check(&self) -> Result<(), evbus::handler::Obstacle> {
        Ok(())
    }
}

/// A group of every type, from the earliest event on.
pub fn of_everything(clock: &dyn Clock, shards: u16) -> Definition {
    Definition {
        created: clock.now(),
        types: Vec::new(),
        not: Vec::new(),
        condition: None,
        shards,
        start: Position::START,
        paused: None,
    }
}

/// A small event with a generated id.
pub fn draft(clock: &dyn Clock) -> Draft {
    let identity = Identity::random(clock.random(), clock.random());
    let id = event_id(clock.now(), &identity);
    Draft::generated(Event::new(id, "/test", "t").build().unwrap(), identity)
}

/// A segment of small events.
pub fn segment(clock: &dyn Clock, len: usize) -> SegmentDraft {
    let mut segment = SegmentDraft::new(clock);
    for _ in 0..len {
        let nonce = *segment.nonce();
        let made = Draft::in_segment(clock, &nonce, segment.len(), |id, _| Event::new(id, "/test", "t").build());
        assert!(segment.add(made.unwrap()).is_ok());
    }
    segment
}

/// Runs a worker of an existing group to its end.
pub async fn work(
    bus: BusHandle,
    group: GroupName,
    handler: Rc<dyn Handler>,
    settings: WorkerSettings,
    polls: Option<Rc<Polls>>,
) -> Summary {
    attempt(bus, group, handler, settings, polls).await.unwrap()
}

/// The same for a worker that may give up.
pub async fn attempt(
    bus: BusHandle,
    group: GroupName,
    handler: Rc<dyn Handler>,
    settings: WorkerSettings,
    polls: Option<Rc<Polls>>,
) -> StoreResult<Summary> {
    let registered = loop {
        if let Ok(found) = definition::find(&*bus.store, &group).await {
            break found.unwrap();
        }
    };
    let me = Owner {
        worker: format!("{:016x}", bus.clock.random()),
        host: "here".to_owned(),
        pid: 1,
        boot: "this".to_owned(),
        since: bus.clock.now(),
        command: "notes".to_owned(),
    };
    let (_sender, stop) = tokio::sync::watch::channel(Stop::No);
    let (alive, reporter) = (Rc::new(|_: &Owner| Process::MayLive), Rc::new(Silent));
    let at = WorkerParts { bus, group, registered, handler, on_dead: None, reporter, me, alive, stop, polls };
    Worker::new(at, settings).unwrap().run().await
}
