//! Groups whose members fetch their events, and the worker of each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::Error;
use crate::bus::OpenBus;
use crate::config::{MAX_CONCURRENCY, PullSettings};
use crate::group::definition::{self, Registered};
use crate::group::owner::{process_of, this_process};
use crate::group::worker::{Mode, Stop, Worker, WorkerParts, WorkerSettings};
use crate::group::worker_event::Silent;
use crate::group::{GroupName, ShardBounds};
use crate::handler::{HandedOut, Handler, Locks};
use crate::store::StoreError;

/// How long a member waits at least.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// After this time without members the group's shards are left to other workers.
const IDLE: Duration = Duration::from_secs(30);

/// The groups that are pulled from, by their names.
#[derive(Default)]
pub(super) struct PulledGroups(RefCell<HashMap<GroupName, Rc<PulledGroup>>>);

/// A group that is pulled from.
struct PulledGroup {
    locks: Rc<Locks>,
    stop: watch::Sender<Stop>,
    state: watch::Sender<State>,
}

/// How far its worker is.
#[derive(Debug, Clone)]
enum State {
    /// Nobody runs it.
    New,
    Works,
    Ended(Option<StoreError>),
}

impl PulledGroup {
    async fn run_worker(
        &self,
        open: &OpenBus,
        url: &str,
        group: &GroupName,
        settings: &PullSettings,
    ) -> Result<(), StoreError> {
        // It may have been deleted since.
        let Some(registered) = definition::find_durable(&*open.handle.store, group).await? else { return Ok(()) };
        let worker = self.worker(open, url, group, (registered, settings))?;
        let idle = async {
            self.locks.idle(IDLE).await;
            self.stop.send_if_modified(|stop| *stop == Stop::No && std::mem::replace(stop, Stop::Starts) == Stop::No);
            std::future::pending::<()>().await;
        };
        tokio::select! { biased;
            ended = worker.run() => ended.map(drop),
            () = self.locks.expire() => Ok(()),
            () = idle => Ok(()),
        }
    }

    fn worker(
        &self,
        open: &OpenBus,
        url: &str,
        group: &GroupName,
        (registered, settings): (Registered, &PullSettings),
    ) -> Result<Worker, StoreError> {
        let bus = open.handle.clone();
        let parts = WorkerParts {
            me: this_process(&bus, "members over HTTP".to_owned()),
            bus,
            group: group.clone(),
            registered,
            handler: Rc::clone(&self.locks) as Rc<dyn Handler>,
            on_dead: None,
            reporter: Rc::new(Silent),
            alive: Rc::new(process_of),
            stop: self.stop.subscribe(),
            polls: None,
        };
        let settings = WorkerSettings {
            concurrency: MAX_CONCURRENCY,
            ordered: settings.ordered,
            retry: settings.retry.clone(),
            stop_timeout: Duration::ZERO,
            runs_elsewhere: true,
            bounds: ShardBounds::for_concurrency(MAX_CONCURRENCY),
            url: url.to_owned(),
            max_event_bytes: open.max_event_bytes(),
            ..WorkerSettings::new(Mode::Watch)
        };
        Worker::new(parts, settings)
    }
}

impl PulledGroups {
    fn get(&self, group: &GroupName) -> Option<Rc<PulledGroup>> {
        self.0.borrow().get(group).cloned()
    }

    /// The locks of a group, if it is pulled from.
    pub fn locks(&self, group: &GroupName) -> Option<Rc<Locks>> {
        self.get(group).map(|pulled| Rc::clone(&pulled.locks))
    }

    /// Gives back all that was handed out, and the groups' shards.
    pub async fn stop(&self) {
        let all: Vec<_> = self.0.borrow().values().cloned().collect();
        for pulled in &all {
            pulled.stop.send_replace(Stop::Handlers);
        }
        for pulled in all {
            let mut state = pulled.state.subscribe();
            let _ = state.wait_for(|state| !matches!(state, State::Works)).await;
        }
    }

    /// Adds a group that is there.
    ///
    /// # Errors
    /// There is none, or the store does not answer.
    pub async fn add(&self, open: &OpenBus, group: &GroupName, settings: &PullSettings) -> Result<(), Error> {
        if self.get(group).is_some() {
            return Ok(());
        }
        let bus = &open.handle;
        if definition::find_durable(&*bus.store, group).await?.is_none() {
            return Err(Error::NoGroup { group: group.to_string() });
        }
        let mut all = self.0.borrow_mut();
        all.entry(group.clone()).or_insert_with(|| {
            Rc::new(PulledGroup {
                locks: Rc::new(Locks::new(Rc::clone(&bus.clock), settings.lock)),
                stop: watch::Sender::default(),
                state: watch::Sender::new(State::New),
            })
        });
        Ok(())
    }

    /// Takes events of a group, or waits for one; none if its worker has ended meanwhile.
    ///
    /// # Errors
    /// The worker has failed.
    pub async fn take(
        &self,
        open: &OpenBus,
        group: &GroupName,
        most: usize,
        until: Duration,
    ) -> Result<Option<Vec<HandedOut>>, Error> {
        let Some(pulled) = self.get(group) else { return Ok(None) };
        let demand = pulled.locks.demand(most);
        let mut state = pulled.state.subscribe();
        let failure = async {
            match state.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
                Ok(State::Ended(failure)) => failure.clone(),
                _ => None,
            }
        };
        // It takes a moment until the worker has looked.
        let until = until.max(open.handle.clock.elapsed() + LEAST_WAIT);
        tokio::select! { biased;
            taken = demand.take() => Ok(Some(taken)),
            failure = failure => match failure {
                // Where the group is gone, that is the answer.
                Some(error) if definition::find(&*open.handle.store, group).await?.is_some() => Err(error.into()),
                _ => Ok(None),
            },
            () = open.handle.clock.sleep_until(until) => Ok(Some(Vec::new())),
        }
    }

    /// Runs the worker of a group until nobody asks for its events any more, unless it runs.
    pub async fn work(&self, open: &OpenBus, url: &str, group: &GroupName, settings: &PullSettings) {
        let Some(pulled) = self.get(group) else { return };
        let begins = pulled.state.send_if_modified(|state| {
            let is_new = matches!(state, State::New);
            if is_new {
                *state = State::Works;
            }
            is_new
        });
        if !begins {
            return;
        }
        let ended = pulled.run_worker(open, url, group, settings).await;
        // Whoever asks from now on begins anew.
        self.0.borrow_mut().remove(group);
        pulled.state.send_replace(State::Ended(ended.err()));
    }

    /// Takes back events whose member has gone.
    pub fn take_back(&self, group: &GroupName, unsent: &[HandedOut]) {
        if let Some(pulled) = self.get(group) {
            pulled.locks.take_back(unsent);
        }
    }
}
