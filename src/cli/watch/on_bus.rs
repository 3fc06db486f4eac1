//! `evbus watch` on the bus itself: workers, and what emits beside them.

use std::rc::Rc;

use tokio::sync::{OnceCell, watch as signal};

use super::metrics::{self, CountingReporter};
use super::units::{Prepared, Runs, Unit, Units};
use super::{End, Preparing, WatchArgs};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::session::{Needs, Opened, Session, block_on};
use crate::cli::watchers::{self, ConfigWatch, HandlerParts, HistoryKeeper, Ready, Workers};
use crate::cli::{drain, output, relays, schedules, sources, style};
use crate::config::{BusAddress, Location, Watcher};
use crate::group::definition::{self, Registered};
use crate::group::worker::{Mode, Stop};
use crate::group::worker_event::Reporter;
use crate::store::dir::{Durability, Execution};

/// Runs units on the bus until a signal ends them.
pub(super) fn watch(
    args: &WatchArgs,
    session: &Session,
    (wanted, config): (Vec<Unit>, Option<ConfigWatch>),
    address: &BusAddress,
) -> Result<End, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open_at(address.clone(), Execution::Threaded, Durability::Full).await?;
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
        let units = Units::new();
        let runs = OnBus {
            args,
            session,
            opened: &opened,
            emitting: OnceCell::new(),
            workers: Workers::new(&opened, Mode::Watch, HandlerParts::new(session, &printer)),
            tally: &tally,
            history: &history,
            units: &units,
        };
        super::begin(&runs, &units, wanted).await?;
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
        let ended = super::run_until_stopped((args, session, address), config, (&runs, &units), beside).await;
        history.write().await;
        ended
    })
}

/// Refuses another bus on which watchers could not run.
pub(super) async fn try_out(
    session: &Session,
    watchers: impl Iterator<Item = &Watcher>,
    address: &BusAddress,
) -> Result<(), Failure> {
    let opened = session.open_at(address.clone(), Execution::Threaded, Durability::Full).await?;
    for watcher in watchers {
        let fits = ready(watcher, &opened, session, true).await;
        fits.map_err(|failure| failure.context(&format!("watcher '{}'", watcher.name)))?;
    }
    Ok(())
}

/// Refuses a watcher that cannot run here, or makes its group ready; with `dry`, changes nothing.
async fn ready(watcher: &Watcher, opened: &Opened, session: &Session, dry: bool) -> Result<Ready, Failure> {
    watchers::check_action(watcher, session)?;
    watchers::prepare(watcher.clone(), opened, dry).await
}

struct OnBus<'a> {
    args: &'a WatchArgs,
    session: &'a Session,
    opened: &'a Opened,
    /// The bus once more, for what emits.
    emitting: OnceCell<Option<Opened>>,
    workers: Workers<'a>,
    tally: &'a Rc<CountingReporter>,
    history: &'a Rc<HistoryKeeper>,
    units: &'a Units<Option<Registered>>,
}

impl OnBus<'_> {
    /// The bus for what emits. A store may pass over its own notices, which would leave the events to the polls of this
    /// process's workers: there the bus is opened once more.
    async fn emitting(&self) -> Result<&Opened, Failure> {
        let passes_over_own = match &self.opened.address.location {
            Location::Dir(_) => true,
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

    async fn run_watcher(
        &self,
        watcher: Watcher,
        mut registered: Registered,
        has_waited: bool,
        stop: signal::Receiver<Stop>,
    ) -> Code {
        let store = &*self.opened.bus_handle().store;
        // The group may have been paused, or have got another filter, while the one before was still to end.
        if has_waited && let Ok(Some(now)) = definition::find_durable(store, &watcher.group).await {
            registered = now;
        }
        let next = Rc::clone(self.history) as Rc<dyn Reporter>;
        let reporter = CountingReporter::for_watcher(self.tally, &watcher, next);
        self.history.keep_for(&watcher, self.opened);
        let shares_polls = self.units.wanted().iter().filter(|unit| unit.is_watcher()).count() > 1;
        let ready = Ready { watcher, registered, found: true };
        self.workers.run(ready, &reporter, shares_polls, stop).await.outcome.err().unwrap_or(Code::Done)
    }
}

impl Runs for OnBus<'_> {
    /// A watcher's group.
    type With = Option<Registered>;

    async fn run(&self, of: Prepared<Self::With>, has_waited: bool, stop: signal::Receiver<Stop>) -> Code {
        let label = of.unit.label();
        let ran = async {
            match (of.unit, of.with) {
                (Unit::Watcher(watcher), Some(registered)) => {
                    return Ok(self.run_watcher(*watcher, registered, has_waited, stop).await);
                }
                (Unit::Watcher(_), None) => {}
                (Unit::Relay(plan), _) => {
                    relays::follow_planned(&plan, self.emitting().await?, self.session, stop).await;
                }
                (Unit::Schedule(one), _) => {
                    schedules::follow(&one, self.emitting().await?, self.session, stop).await;
                }
                (Unit::Source(source), _) => {
                    let _ = sources::follow(&source, self.emitting().await?, self.session, stop).await;
                }
            }
            Ok(Code::Done)
        };
        ran.await.unwrap_or_else(|failure: Failure| failure.context(&format!("{label} is not run")).report())
    }
}

impl Preparing for OnBus<'_> {
    async fn prepare(&self, unit: &Unit, dry: bool) -> Result<Self::With, Failure> {
        let Unit::Watcher(watcher) = unit else {
            if let Unit::Relay(plan) = unit {
                plan.check()?;
            }
            if !dry {
                self.emitting().await?;
            }
            return Ok(None);
        };
        let ready = ready(watcher, self.opened, self.session, dry).await?;
        if !dry {
            self.args.run.note_start(&ready);
            if !self.args.run.quiet {
                announce(&ready, self.opened).await?;
            }
        }
        Ok(Some(ready.registered))
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
