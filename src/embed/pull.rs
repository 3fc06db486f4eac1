//! Groups whose members fetch their events: the group's worker runs here, and hands out what is asked
//! for under locks.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::thread::{ThreadState, WantedGroup};
use super::{Bus, Error};
use crate::clock::{Clock, SystemClock};
use crate::config::PullSettings;
use crate::group::definition::{self, Definition, Registered};
use crate::group::owner::{process_of, this_process};
use crate::group::worker::{Mode, Stop, Worker, WorkerParts, WorkerSettings};
use crate::group::worker_event::Silent;
use crate::group::{GroupName, ShardBounds};
use crate::handler::{Handler, LockError, Locks};
use crate::store::StoreError;

pub(crate) use crate::handler::{HandedOut, Settlement, SettlementKind};

/// The most events of a group that are under way at a time: as many as a marker holds.
const MOST_LOCKS: usize = 1_000;

/// After this time without members the group's shards are left to other workers.
const IDLE: Duration = Duration::from_secs(30);

/// The groups that are pulled from, by their names.
#[derive(Default)]
pub(super) struct PulledGroups(std::cell::RefCell<HashMap<GroupName, Rc<PulledGroup>>>);

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

/// What is done to a lock.
#[derive(Debug, Clone)]
pub(crate) enum LockChange {
    /// It ends.
    Settle(Settlement),
    /// It holds for its full time from now on.
    Renew,
}

impl Bus {
    /// Hands out up to so many events of a group under locks. Where there are none, waits for one.
    ///
    /// # Errors
    /// There is no such group, or the store does not answer.
    pub(crate) async fn receive(
        &self,
        group: GroupName,
        settings: Arc<PullSettings>,
        most: usize,
        wait: Duration,
    ) -> Result<Vec<HandedOut>, Error> {
        let asked = Arc::new((group, settings));
        let until = SystemClock.elapsed() + wait;
        loop {
            let (there, to_run, to_take) = (Arc::clone(&asked), Arc::clone(&asked), Arc::clone(&asked));
            self.thread.call(|local| Box::pin(async move { local.add_pulled(&there.0, &there.1).await })).await??;
            self.thread.run(|local| Box::pin(async move { local.work(&to_run.0, &to_run.1).await }))?;
            let (mut sender, received) = oneshot::channel();
            self.thread.run(move |local| {
                Box::pin(async move {
                    let group = &to_take.0;
                    let taken = tokio::select! { biased;
                        // The client has gone.
                        () = sender.closed() => return,
                        taken = local.take(group, most, until) => taken,
                    };
                    if let Err(Ok(Some(unsent))) = sender.send(taken) {
                        local.take_back(group, &unsent);
                    }
                })
            })?;
            // The worker may have ended because nobody had asked for long.
            if let Some(taken) = received.await.map_err(|_| Error::Closed)?? {
                return Ok(taken);
            }
        }
    }

    /// Changes locks of a group, by their tokens.
    ///
    /// # Errors
    /// The thread has ended.
    pub(crate) async fn change_locks(
        &self,
        group: GroupName,
        tokens: Vec<String>,
        change: LockChange,
    ) -> Result<Vec<(String, Result<(), LockError>)>, Error> {
        let change = move |local: Rc<ThreadState>| {
            let pulled = local.pulled.get(&group);
            let one = |token: String| {
                let changed = match (&pulled, &change) {
                    // That this worker has never given a lock is as good as another's.
                    (None, _) => Err(LockError::OtherWorker),
                    (Some(pulled), LockChange::Settle(settlement)) => pulled.locks.settle(&token, settlement.clone()),
                    (Some(pulled), LockChange::Renew) => pulled.locks.renew(&token),
                };
                (token, changed)
            };
            tokens.into_iter().map(one).collect()
        };
        self.thread.call(|local| Box::pin(async move { change(local) })).await
    }

    /// A group that is there.
    ///
    /// # Errors
    /// There is none, or the store does not answer.
    pub(crate) async fn find_group(&self, group: GroupName) -> Result<Definition, Error> {
        self.thread
            .call(|local| {
                Box::pin(async move {
                    let found = definition::find(&*local.bus.handle.store, &group).await?;
                    found.map(|found| found.definition).ok_or(Error::NoGroup { group: group.to_string() })
                })
            })
            .await?
    }

    /// Finds or makes a group; whether it was made.
    ///
    /// # Errors
    /// It is there and is another, or where it is to start must be told; or the store does not answer.
    pub(crate) async fn ensure_group(
        &self,
        group: GroupName,
        wanted: WantedGroup,
    ) -> Result<(Definition, bool), Error> {
        let (found, is_new) =
            self.thread.call(move |local| Box::pin(async move { local.find_or_make(&group, &wanted).await })).await??;
        Ok((found.definition, is_new))
    }

    /// Gives back all that was handed out, and the groups' shards.
    pub(crate) async fn stop_pulls(&self) {
        let stopped = self.thread.call(|local| {
            Box::pin(async move {
                let all: Vec<_> = local.pulled.0.borrow().values().cloned().collect();
                for pulled in &all {
                    pulled.stop.send_replace(Stop::Handlers);
                }
                for pulled in all {
                    let mut state = pulled.state.subscribe();
                    let _ = state.wait_for(|state| !matches!(state, State::Works)).await;
                }
            })
        });
        // A thread that has ended has nothing to give back.
        let _ = stopped.await;
    }
}

impl PulledGroups {
    fn get(&self, group: &GroupName) -> Option<Rc<PulledGroup>> {
        self.0.borrow().get(group).cloned()
    }
}

impl ThreadState {
    /// Adds a group that is there.
    async fn add_pulled(&self, group: &GroupName, settings: &PullSettings) -> Result<(), Error> {
        if self.pulled.get(group).is_some() {
            return Ok(());
        }
        let bus = &self.bus.handle;
        if definition::find_durable(&*bus.store, group).await?.is_none() {
            return Err(Error::NoGroup { group: group.to_string() });
        }
        let mut all = self.pulled.0.borrow_mut();
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
    async fn take(&self, group: &GroupName, most: usize, until: Duration) -> Result<Option<Vec<HandedOut>>, Error> {
        let Some(pulled) = self.pulled.get(group) else { return Ok(None) };
        let demand = pulled.locks.demand(most);
        let mut state = pulled.state.subscribe();
        let failure = async {
            match state.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
                Ok(State::Ended(failure)) => failure.clone(),
                _ => None,
            }
        };
        tokio::select! { biased;
            taken = demand.take() => Ok(Some(taken)),
            failure = failure => failure.map_or(Ok(None), |error| Err(error.into())),
            () = self.bus.handle.clock.sleep_until(until) => Ok(Some(Vec::new())),
        }
    }

    /// Runs the worker of a group until nobody asks for its events any more, unless it runs.
    async fn work(&self, group: &GroupName, settings: &PullSettings) {
        let Some(pulled) = self.pulled.get(group) else { return };
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
        let ended = self.run_worker(group, settings, &pulled).await;
        // Whoever asks from now on begins anew.
        self.pulled.0.borrow_mut().remove(group);
        pulled.state.send_replace(State::Ended(ended.err()));
    }

    async fn run_worker(
        &self,
        group: &GroupName,
        settings: &PullSettings,
        pulled: &PulledGroup,
    ) -> Result<(), StoreError> {
        let bus = self.bus.handle.clone();
        // It may have been deleted since.
        let Some(registered) = definition::find_durable(&*bus.store, group).await? else { return Ok(()) };
        let worker = self.worker(group, registered, settings, pulled)?;
        let idle = async {
            pulled.locks.idle(IDLE).await;
            pulled.stop.send_if_modified(|stop| *stop == Stop::No && std::mem::replace(stop, Stop::Starts) == Stop::No);
            std::future::pending::<()>().await;
        };
        tokio::select! { biased;
            ended = worker.run() => ended.map(drop),
            () = pulled.locks.expire() => Ok(()),
            () = idle => Ok(()),
        }
    }

    fn worker(
        &self,
        group: &GroupName,
        registered: Registered,
        settings: &PullSettings,
        pulled: &PulledGroup,
    ) -> Result<Worker, StoreError> {
        let bus = self.bus.handle.clone();
        let parts = WorkerParts {
            me: this_process(&bus, "members over HTTP".to_owned()),
            bus,
            group: group.clone(),
            registered,
            handler: Rc::clone(&pulled.locks) as Rc<dyn Handler>,
            on_dead: None,
            reporter: Rc::new(Silent),
            alive: Rc::new(process_of),
            stop: pulled.stop.subscribe(),
            polls: None,
        };
        let settings = WorkerSettings {
            concurrency: MOST_LOCKS,
            ordered: settings.ordered,
            retry: settings.retry.clone(),
            stop_timeout: Duration::ZERO,
            bounds: ShardBounds::for_concurrency(MOST_LOCKS),
            url: self.url.clone(),
            max_event_bytes: self.bus.max_event_bytes(),
            ..WorkerSettings::new(Mode::Watch)
        };
        Worker::new(parts, settings)
    }

    fn take_back(&self, group: &GroupName, unsent: &[HandedOut]) {
        if let Some(pulled) = self.pulled.get(group) {
            pulled.locks.take_back(unsent);
        }
    }
}
