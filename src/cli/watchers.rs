//! Shared by `watch` and `drain`: which watchers to run, their groups, and the workers that run them.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::exit::Code;
use super::failure::Failure;
use super::reporter::{LogFormat, Printer};
use super::session::{Opened, Session};
use crate::cli::help_line::HelpLine;
use crate::clock::Clock;
use crate::config::{Action, COMMAND_TIMEOUT, Watcher};
use crate::group::ShardBounds;
use crate::group::lease::Lease;
use crate::group::owner::{process_of, this_process};
use crate::group::polls::Polls;
use crate::group::worker::{Mode, Stop, Summary, Worker, WorkerParts, WorkerSettings};
use crate::group::worker_event::{Reporter, WorkerEvent};
use crate::handler::Obstacle;
use crate::handler::{
    BatchBounds, BatchOutcome, Batches, CommandHandler, CommandSpec, Handler, OrphanReaper, RunReport, Webhook,
    WebhookSettings, WebhookTarget, reap_inherited,
};

mod args;
mod config_watch;
mod history;
mod registry;
mod stop;

pub(super) use args::RunArgs;
pub(super) use config_watch::ConfigWatch;
pub(super) use history::HistoryKeeper;
pub(super) use registry::{Ready, agree, backlog, near_misses, prepare, set_command};
pub(super) use stop::{
    HangUp, Reloads, ignore_terminal_stops, is_ignored, on_signals, on_signals_or_reloads, received,
};

/// Time between TERM and KILL at a handler's time limit.
const GRACE: Duration = Duration::from_secs(10);

/// How one watcher ended: its summary, or the exit code of its failure, which was printed already.
pub(super) struct Ended {
    pub(super) watcher: Watcher,
    pub(super) outcome: Result<Summary, Code>,
}

/// Checks a watcher's command or receiver before any worker starts.
pub(super) fn check_action(watcher: &Watcher, session: &Session) -> Result<(), Failure> {
    let printer = Printer::new(LogFormat::Human, true, false, &session.environment, &session.clock);
    let parts = HandlerParts::new(session, &Rc::new(printer));
    let failure = |obstacle: Obstacle| {
        let failure = Failure::usage(&obstacle.why);
        match HelpLine::of_obstacle(&obstacle) {
            Some(help) => failure.help(help),
            None => failure,
        }
    };
    parts.single(watcher).check().map_err(failure)?;
    let on_dead = watcher.on_dead.as_deref().map(|argv| parts.command(watcher, argv).check());
    on_dead.unwrap_or(Ok(())).map_err(|obstacle| failure(obstacle).context("on_dead"))
}

/// What handlers of one process share.
pub(super) struct HandlerParts {
    clock: Rc<dyn Clock>,
    reaper: Rc<OrphanReaper>,
    printer: Rc<Printer>,
}

impl HandlerParts {
    pub(super) fn new(session: &Session, printer: &Rc<Printer>) -> Self {
        let (clock, printer) = (Rc::clone(&session.clock), Rc::clone(printer));
        Self { reaper: Rc::new(OrphanReaper::new(clock.random())), clock, printer }
    }

    /// The handler for a run of a watcher.
    fn single(&self, watcher: &Watcher) -> Rc<dyn Handler> {
        match &watcher.action {
            Action::Webhook(target) => {
                let settings = WebhookSettings {
                    in_batches: watcher.batch.is_some(),
                    timeout: watcher.timeout,
                    dead_on: watcher.retry.dead_on.clone(),
                };
                Rc::new(Webhook::new(WebhookTarget::clone(target), settings, Rc::clone(&self.clock)))
            }
            action => self.command(watcher, &action.argv().unwrap_or_default()),
        }
    }

    fn command(&self, watcher: &Watcher, argv: &[String]) -> Rc<dyn Handler> {
        let (clock, output, reaper) = (Rc::clone(&self.clock), Rc::clone(&self.printer) as _, Rc::clone(&self.reaper));
        Rc::new(CommandHandler::with_reaper(command(watcher, argv), clock, output, reaper))
    }

    /// The handler for a watcher's events.
    pub(super) fn handler(&self, watcher: &Watcher) -> Rc<dyn Handler> {
        let handler = self.single(watcher);
        let Some(batch) = watcher.batch else { return handler };
        let bounds = BatchBounds { size: batch.size, linger: batch.linger, concurrency: watcher.concurrency };
        let (printer, group) = (Rc::clone(&self.printer), watcher.group.clone());
        let on_batch = move |outcome, report: &RunReport| {
            let events = report.events;
            match outcome {
                BatchOutcome::Done => printer.report(&group, &WorkerEvent::DoneTogether { events, took: report.took }),
                BatchOutcome::Halved => printer.report(&group, &WorkerEvent::Halved { events, why: report.why() }),
            }
        };
        let dead_on = watcher.retry.dead_on.clone();
        Rc::new(Batches::with_dead_on(handler, Rc::clone(&self.clock), bounds, dead_on, Box::new(on_batch)))
    }
}

/// The settings for `argv`: the watcher's own command or another, such as `on_dead`.
fn command(watcher: &Watcher, argv: &[String]) -> CommandSpec {
    CommandSpec {
        argv: argv.to_vec(),
        cwd: watcher.cwd.clone(),
        env: watcher.env.clone(),
        timeout: Some(match watcher.action {
            // That is for a request, and this is the command for dead letters.
            Action::Webhook(_) => COMMAND_TIMEOUT,
            Action::Command(_) | Action::Shell(_) => watcher.timeout,
        }),
        grace: GRACE,
        label: watcher.group.to_string(),
    }
}

/// By which two workers can tell whether they do the same with their events.
fn digest(watcher: &Watcher) -> String {
    match &watcher.action {
        Action::Webhook(target) => target.digest(),
        action => command(watcher, &action.argv().unwrap_or_default()).digest(),
    }
}

/// What the workers of one process share.
pub(super) struct Workers<'a> {
    opened: &'a Opened,
    mode: Mode,
    parts: HandlerParts,
    polls: Option<Rc<Polls>>,
}

impl<'a> Workers<'a> {
    pub(super) fn new(opened: &'a Opened, mode: Mode, parts: HandlerParts) -> Self {
        let costs = opened.bus_handle().store.requests().is_some();
        Self { opened, mode, parts, polls: costs.then(Rc::<Polls>::default) }
    }

    /// Runs one watcher until it has ended. Its failure is reported at once, because others may run for months. With
    /// `shares_polls`, it polls together with others, where listings cost something.
    pub(super) async fn run(
        &self,
        ready: Ready,
        reporter: &Rc<dyn Reporter>,
        shares_polls: bool,
        stop: watch::Receiver<Stop>,
    ) -> Ended {
        let Ready { watcher, registered, .. } = ready;
        let bus = self.opened.bus_handle().clone();
        let me = this_process(&bus, digest(&watcher));
        let parts = WorkerParts {
            bus,
            group: watcher.group.clone(),
            registered,
            handler: self.parts.handler(&watcher),
            on_dead: watcher.on_dead.as_deref().map(|argv| self.parts.command(&watcher, argv)),
            reporter: Rc::clone(reporter),
            me,
            alive: Rc::new(process_of),
            stop,
            polls: self.polls.clone().filter(|_| shares_polls),
        };
        let outcome = match Worker::new(parts, settings(&watcher, self.mode.clone(), self.opened)) {
            Ok(worker) => worker.run().await,
            Err(error) => Err(error),
        };
        let report = |error| {
            reporter.report(&watcher.group, &WorkerEvent::Ended);
            Failure::from(error).context(&format!("watcher '{}' ended", watcher.name)).report()
        };
        let outcome = outcome.map_err(report);
        Ended { watcher, outcome }
    }
}

/// Reaps what other processes have left to this one, if it is the first of its container; never completes.
pub(super) async fn reap_as_first_process() -> Infallible {
    if std::process::id() == 1 {
        reap_inherited().await;
    }
    std::future::pending().await
}

fn settings(watcher: &Watcher, mode: Mode, opened: &Opened) -> WorkerSettings {
    WorkerSettings {
        mode,
        concurrency: watcher.taken(),
        ordered: watcher.ordered,
        latest: watcher.latest.clone(),
        retry: watcher.retry.clone(),
        stop_timeout: watcher.stop_timeout,
        lease: Lease::default(),
        bounds: ShardBounds::for_concurrency(watcher.taken()),
        poll: watcher.poll,
        hints: watcher.hints,
        url: opened.url(),
        runs_elsewhere: false,
        reports_runs: history::is_kept(watcher, opened),
        max_event_bytes: opened.bus.max_event_bytes(),
    }
}
