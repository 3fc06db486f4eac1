//! Shared by `watch` and `drain`: which watchers to run, their groups, and running them side by
//! side.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
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
    HangUp, SignalAction, ignore_terminal_stops, is_ignored, on_signals, on_signals_or_changes, received,
};

/// Time between TERM and KILL at a handler's time limit.
const GRACE: Duration = Duration::from_secs(10);

/// How one watcher ended: its summary, or the exit code of its failure, which was printed already.
pub(super) struct Ended {
    pub(super) watcher: Watcher,
    pub(super) outcome: Result<Summary, Code>,
}

/// The watchers of one process as they start. One that fails is reported, and the others still run.
pub(super) struct Starting {
    alone: bool,
    pub(super) ready: Vec<Ready>,
    /// The exit code of the first watcher that failed to start.
    pub(super) code: Code,
}

impl Starting {
    pub(super) fn new(watchers: &[Watcher]) -> Self {
        Self { alone: watchers.len() == 1, ready: Vec::new(), code: Code::Done }
    }

    /// Adds a started watcher, or reports its failure. Fails itself if no watcher can run: the
    /// failed one is the only one, or the bus cannot be reached.
    pub(super) fn take(&mut self, name: &str, started: Result<Ready, Failure>) -> Result<(), Failure> {
        match started {
            Ok(ready) => self.ready.push(ready),
            Err(failure) if self.alone || failure.code() == Code::TryAgain => return Err(failure),
            Err(failure) => {
                let code = failure.context(&format!("watcher '{name}' is not run")).report();
                if self.code == Code::Done {
                    self.code = code;
                }
            }
        }
        Ok(())
    }
}

/// Checks a watcher's command or receiver before any worker starts.
pub(super) fn check_action(watcher: &Watcher, session: &Session) -> Result<(), Failure> {
    let parts = HandlerParts {
        clock: Rc::clone(&session.clock),
        reaper: Rc::new(OrphanReaper::new(session.clock.random())),
        printer: Rc::new(Printer::new(LogFormat::Human, true, false, &session.environment, &session.clock)),
    };
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
struct HandlerParts {
    clock: Rc<dyn Clock>,
    reaper: Rc<OrphanReaper>,
    printer: Rc<Printer>,
}

impl HandlerParts {
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
}

/// The handler for a watcher's events.
fn handler(watcher: &Watcher, parts: &HandlerParts) -> Rc<dyn Handler> {
    let handler = parts.single(watcher);
    let Some(batch) = watcher.batch else { return handler };
    let bounds = BatchBounds { size: batch.size, linger: batch.linger, concurrency: watcher.concurrency };
    let (printer, group) = (Rc::clone(&parts.printer), watcher.group.clone());
    let on_batch = move |outcome, report: &RunReport| {
        let events = report.events;
        match outcome {
            BatchOutcome::Done => printer.report(&group, &WorkerEvent::DoneTogether { events, took: report.took }),
            BatchOutcome::Halved => printer.report(&group, &WorkerEvent::Halved { events, why: report.why() }),
        }
    };
    let dead_on = watcher.retry.dead_on.clone();
    Rc::new(Batches::with_dead_on(handler, Rc::clone(&parts.clock), bounds, dead_on, Box::new(on_batch)))
}

/// The handlers of watchers that run side by side.
pub(super) fn handlers(watchers: &[Watcher], session: &Session, printer: &Rc<Printer>) -> Vec<Rc<dyn Handler>> {
    let reaper = Rc::new(OrphanReaper::new(session.clock.random()));
    let parts = HandlerParts { clock: Rc::clone(&session.clock), reaper, printer: Rc::clone(printer) };
    watchers.iter().map(|watcher| handler(watcher, &parts)).collect()
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

/// Runs watchers side by side until all have ended. Output of handlers goes to the printer, events
/// of workers to the reporter.
pub(super) async fn run_all(
    ready: Vec<Ready>,
    opened: &Opened,
    mode: &Mode,
    (printer, reporter): (&Rc<Printer>, &Rc<dyn Reporter>),
    stop: &watch::Receiver<Stop>,
) -> Vec<Ended> {
    let clock = Rc::clone(&opened.bus_handle().clock);
    let reaper = Rc::new(OrphanReaper::new(clock.random()));
    let parts = &HandlerParts { clock, reaper, printer: Rc::clone(printer) };
    let costs = opened.bus_handle().store.requests().is_some();
    let polls = (ready.len() > 1 && costs).then(Rc::<Polls>::default);
    let runs = ready.into_iter().map(|ready| {
        let (stop, polls) = (stop.clone(), polls.clone());
        async move {
            let (watcher, bus) = (&ready.watcher, opened.bus_handle().clone());
            let me = this_process(&bus, digest(watcher));
            let on_dead = watcher.on_dead.as_deref().map(|argv| parts.command(watcher, argv));
            let handler = handler(watcher, parts);
            let parts = WorkerParts {
                bus,
                group: ready.watcher.group.clone(),
                registered: ready.registered,
                handler,
                on_dead,
                reporter: Rc::clone(reporter),
                me,
                alive: Rc::new(process_of),
                stop,
                polls,
            };
            let outcome = match Worker::new(parts, settings(&ready.watcher, mode.clone(), opened)) {
                Ok(worker) => worker.run().await,
                Err(error) => Err(error),
            };
            // Reported at once, because the other watchers may run for months.
            let report = |error| {
                reporter.report(&ready.watcher.group, &WorkerEvent::Ended);
                Failure::from(error).context(&format!("watcher '{}' ended", ready.watcher.name)).report()
            };
            let outcome = outcome.map_err(report);
            Ended { watcher: ready.watcher, outcome }
        }
    });
    let inherited = async {
        match std::process::id() {
            1 => reap_inherited().await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! { biased;
        ended = join_all(runs) => ended,
        () = inherited => Vec::new(),
    }
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
