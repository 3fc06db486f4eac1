//! What a server does for members of a group: hands events out under locks, and changes these.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::thread::{ThreadState, WantedGroup};
use super::{Bus, Error};
use crate::clock::{Clock, SystemClock};
use crate::config::PullSettings;
use crate::group::GroupName;
use crate::group::definition::{self, Definition};
use crate::handler::LockError;

pub(crate) use crate::handler::{HandedOut, Settlement, SettlementKind};

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
            self.thread
                .call(|local| Box::pin(async move { local.pulled.add(&local.bus, &there.0, &there.1).await }))
                .await??;
            self.thread.run(|local| {
                Box::pin(async move { local.pulled.work(&local.bus, &local.url, &to_run.0, &to_run.1).await })
            })?;
            let (mut sender, received) = oneshot::channel();
            self.thread.run(move |local| {
                Box::pin(async move {
                    let group = &to_take.0;
                    let taken = tokio::select! { biased;
                        // The client has gone.
                        () = sender.closed() => return,
                        taken = local.pulled.take(&local.bus, group, most, until) => taken,
                    };
                    if let Err(Ok(Some(unsent))) = sender.send(taken) {
                        local.pulled.take_back(group, &unsent);
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
            let locks = local.pulled.locks(&group);
            let one = |token: String| {
                let changed = match (&locks, &change) {
                    // That this worker has never given a lock is as good as another's.
                    (None, _) => Err(LockError::OtherWorker),
                    (Some(locks), LockChange::Settle(settlement)) => locks.settle(&token, settlement.clone()),
                    (Some(locks), LockChange::Renew) => locks.renew(&token),
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
                local.pulled.stop().await;
            })
        });
        // A thread that has ended has nothing to give back.
        let _ = stopped.await;
    }
}
