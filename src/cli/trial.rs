//! Runs of a handler outside of any group, of which nothing is recorded.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::watch;

use super::failure::Failure;
use super::output::pump;
use super::reporter::Printer;
use super::session::{Opened, Session};
use super::watchers::{self, HandlerParts};
use crate::config::Watcher;
use crate::event::{Event, EventName};
use crate::group::event_vars;
use crate::group::worker::Stop;
use crate::handler::{Handler, Job, Permit, RunReport, Stream};

/// A handler that runs for events by themselves.
pub(super) struct Trial {
    watcher: Watcher,
    handler: Rc<dyn Handler>,
    url: String,
    /// Whether a signal has come: nothing is run any more.
    stopped: Cell<bool>,
}

impl Trial {
    pub(super) fn new(
        mut watcher: Watcher,
        opened: &Opened,
        session: &Session,
        printer: &Rc<Printer>,
    ) -> Result<Self, Failure> {
        watchers::check_action(&watcher, session)?;
        // An event is no batch that waits for others.
        watcher.batch = None;
        let handler = HandlerParts::new(session, printer).handler(&watcher);
        Ok(Self { watcher, handler, url: opened.url(), stopped: Cell::new(false) })
    }

    /// Whether nothing is run any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Runs it for one event.
    pub(super) async fn run(&self, name: &EventName, event: &Event, document: Bytes) -> RunReport {
        if self.is_stopped() {
            return RunReport::stopped();
        }
        let mut vars = event_vars(event, name);
        vars.extend([
            ("EVBUS_GROUP", self.watcher.group.to_string().into()),
            ("EVBUS_ATTEMPT", "1".into()),
            ("EVBUS_MAX_ATTEMPTS", self.watcher.retry.max_attempts.to_string().into()),
            ("EVBUS_EPOCH", "0".into()),
            ("EVBUS_URL", self.url.clone().into()),
        ]);
        let (file, permit) = (name.text(), Permit::new(|| true));
        let job = Job { event: document, file, vars: Rc::new(vars), likeness: None, attempt: 1, epoch: 0, permit };
        self.handler.run(job).await
    }

    /// Does some work; a signal ends the runs in it.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let (stop, mut stopped) = watch::channel(Stop::No);
        let stopping = async {
            while stopped.changed().await.is_ok() {
                self.stopped.set(true);
                self.handler.terminate();
            }
            std::future::pending::<()>().await;
        };
        let nothing = || Failure::failed("stopped");
        let done = tokio::select! { biased;
            done = work => done,
            failure = watchers::on_signals(stop) => {
                failure?;
                return Err(nothing());
            }
            () = stopping => return Err(nothing()),
        };
        // The two streams have threads of their own: what the handlers wrote comes before the result.
        pump::flush(Stream::Out);
        pump::flush(Stream::Err);
        if self.is_stopped() { Err(nothing()) } else { Ok(done) }
    }
}
