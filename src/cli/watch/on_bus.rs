//! `evbus watch` on the bus itself: workers, and what emits beside them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::{OnceCell, watch as signal};

use super::metrics::{self, CountingReporter};
use super::units::{Unit, Units};
use super::{End, Runs, WatchArgs};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::session::{Needs, Opened, Session, block_on};
use crate::cli::watchers::{self, HandlerParts, HistoryKeeper, Ready, Starting, Workers};
use crate::cli::{drain, output, relays, schedules, sources, style};
use crate::config::{Location, Watcher};
use crate::group::worker::{Mode, Stop};
use crate::group::worker_event::Reporter;
use crate::store::dir::{Durability, Execution};

/// Runs units on the bus until a signal ends them.
pub(super) fn watch(args: &WatchArgs, session: &Session, wanted: Vec<Unit>) -> Result<End, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Threaded).await?;
        if args.run.dry_run {
            let watchers = wanted.into_iter().filter_map(Unit::into_watcher).collect();
            return drain::dry_run(watchers, &opened, session).await.map(End::Ended);
        }
        let listener = match &args.metrics {
            Some(address) => Some(metrics::listen(address).await?),
            None => None,
        };
        let printer = args.run.printer(session, true);
        let tally = Rc::new(CountingReporter::new(Rc::clone(&printer) as _));
        let history = HistoryKeeper::new(Rc::clone(&tally) as _, &opened);
        let reporter = Rc::clone(&history) as Rc<dyn Reporter>;
        let shares_polls = args.run.in_config();
        let runs = OnBus {
            args,
            session,
            opened: &opened,
            emitting: OnceCell::new(),
            workers: Workers::new(
                &opened,
                Mode::Watch,
                (HandlerParts::new(session, &printer), &reporter),
                shares_polls,
            ),
            tally: &tally,
            history: &history,
            ready: RefCell::default(),
        };
        let Starting { ready, code, .. } = super::prepared(&runs, wanted).await?;
        let units = Units::new(ready);
        let beside = async {
            let served = async {
                let Some(listener) = listener else { return std::future::pending().await };
                if let Ok(address) = listener.local_addr() {
                    output::note(&format!("metrics on http://{address}/metrics"));
                }
                metrics::serve(listener, (&opened, session), &tally, &units).await
            };
            tokio::select! {
                never = served => never,
                never = history.keep() => never,
                never = watchers::reap_as_first_process() => never,
            }
        };
        let ended = super::run_until_stopped((args, session, &opened.address), &units, &runs, beside).await?;
        history.write().await;
        Ok(match ended {
            End::Ended(Code::Done) => End::Ended(code),
            ended => ended,
        })
    })
}

struct OnBus<'a> {
    args: &'a WatchArgs,
    session: &'a Session,
    opened: &'a Opened,
    /// The bus once more, for what emits.
    emitting: OnceCell<Option<Opened>>,
    workers: Workers<'a>,
    tally: &'a CountingReporter,
    history: &'a HistoryKeeper,
    /// Watchers that have their group and do not run yet, by their names.
    ready: RefCell<BTreeMap<String, Ready>>,
}

impl OnBus<'_> {
    /// The bus for what emits. A store may pass over its own notices, as a database does: the workers of this process
    /// would find the events by their polls alone, so that the bus is opened once more there.
    async fn emitting(&self) -> Result<&Opened, Failure> {
        let passes_over_own = match &self.opened.address.location {
            #[cfg(feature = "postgres")]
            Location::Postgres(..) => true,
            _ => false,
        };
        let open = async || {
            if !passes_over_own {
                return Ok(None);
            }
            let address = self.opened.address.clone();
            self.session.open_at(address, Execution::Threaded, Durability::Full).await.map(Some)
        };
        Ok(self.emitting.get_or_try_init(open).await?.as_ref().unwrap_or(self.opened))
    }

    async fn make_ready(&self, watcher: &Watcher) -> Result<Ready, Failure> {
        let ready = watchers::prepare(watcher.clone(), self.opened, false).await?;
        self.args.run.note_start(&ready);
        if !self.args.run.quiet {
            announce(&ready, self.opened).await?;
        }
        Ok(ready)
    }

    async fn run_watcher(&self, watcher: &Watcher, stop: signal::Receiver<Stop>) -> Result<Code, Failure> {
        let ready = self.ready.borrow_mut().remove(&watcher.name);
        let ready = match ready {
            Some(ready) => ready,
            None => self.make_ready(watcher).await?,
        };
        self.tally.count_for(&watcher.group);
        self.history.keep_for(watcher, self.opened);
        Ok(self.workers.run(ready, stop).await.outcome.err().unwrap_or(Code::Done))
    }
}

impl Runs for OnBus<'_> {
    async fn check(&self, unit: &Unit) -> Result<(), Failure> {
        match unit {
            Unit::Watcher(watcher) => {
                watchers::check_action(watcher, self.session)?;
                watchers::prepare((**watcher).clone(), self.opened, true).await.map(drop)
            }
            Unit::Relay(plan) => plan.check(),
            Unit::Schedule(_) | Unit::Source(_) => Ok(()),
        }
    }

    async fn prepare(&self, unit: &Unit) -> Result<(), Failure> {
        match unit {
            Unit::Watcher(watcher) => {
                let ready = self.make_ready(watcher).await?;
                self.ready.borrow_mut().insert(watcher.name.clone(), ready);
                Ok(())
            }
            Unit::Relay(_) | Unit::Schedule(_) | Unit::Source(_) => self.emitting().await.map(drop),
        }
    }

    async fn run(&self, unit: Unit, stop: signal::Receiver<Stop>) -> Code {
        let label = unit.label();
        let ran = async {
            match unit {
                Unit::Watcher(watcher) => return self.run_watcher(&watcher, stop).await,
                Unit::Relay(plan) => relays::follow_planned(&plan, self.emitting().await?, self.session, stop).await,
                Unit::Schedule(one) => schedules::follow(&one, self.emitting().await?, self.session, stop).await,
                Unit::Source(source) => {
                    let _ = sources::follow(&source, self.emitting().await?, self.session, stop).await;
                }
            }
            Ok(Code::Done)
        };
        ran.await.unwrap_or_else(|failure: Failure| failure.context(&format!("{label} is not run")).report())
    }
}

/// Prints the first line: what is watched, how much waits, and which events the patterns narrowly
/// miss.
async fn announce(ready: &Ready, opened: &Opened) -> Result<(), Failure> {
    let definition = &ready.registered.definition;
    let filter = definition.filter(&ready.watcher.group)?;
    let (waiting, through) = watchers::backlog(ready, opened).await?;
    let near = watchers::near_misses(ready, through, opened).await?;
    let near = near.map_or_else(String::new, |near| format!(" ({near})"));
    let paused = if definition.paused.is_some() { ", paused" } else { "" };
    output::note(&format!(
        "watching {}: group '{}', {}, {} waiting{near}{paused}",
        opened.address,
        ready.watcher.group,
        style::wanted(&filter),
        style::thousands(waiting),
    ));
    Ok(())
}
