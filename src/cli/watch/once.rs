//! `watch --once ID`: runs a handler for one event, outside of its group, so that it can be tried.

use super::WatchArgs;
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::session::{Needs, Session, block_on};
use crate::cli::trial::Trial;
use crate::cli::{get, times};
use crate::config::Watcher;
use crate::event::{Event, FilterResult};
use crate::store::dir::Execution;

pub(super) fn run(id: &str, watchers: Vec<Watcher>, args: &WatchArgs, session: &Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Threaded).await?;
        let (name, document) = get::one(&opened, id).await?;
        let event = Event::parse(&document, opened.bus.max_event_bytes())
            .map_err(|error| Failure::failed(format!("{} {error}", name.key())))?;
        let printer = args.run.printer(session, true);
        let trial = Trial::new(chosen(watchers, &event)?, &opened, session, &printer)?;
        let report = trial.unless_stopped(trial.run(&name, &event, document)).await?;
        let took = times::format_duration(report.took);
        if !report.succeeded() {
            return Err(Failure::failed(format!("{}: {} after {took}", event.id(), report.why())));
        }
        output::note(&format!("{}: done in {took}; no group has recorded it", event.id()));
        Ok(Code::Done)
    })
}

/// The only watcher, or the only one that wants the event.
fn chosen(watchers: Vec<Watcher>, event: &Event) -> Result<Watcher, Failure> {
    if let [only] = &watchers[..] {
        return Ok(only.clone());
    }
    let wants =
        |watcher: &&Watcher| watcher.filter().is_ok_and(|filter| filter.evaluate(event) == FilterResult::Wanted);
    let wanting: Vec<&Watcher> = watchers.iter().filter(wants).collect();
    match &wanting[..] {
        [only] => Ok((*only).clone()),
        [] => Err(Failure::usage(format!("no watcher wants {}", event.type_())).help("name the one to be tried")),
        several => {
            let names: Vec<&str> = several.iter().map(|watcher| watcher.name.as_str()).collect();
            let what = format!("several watchers want {}: {}", event.type_(), names.join(", "));
            Err(Failure::usage(what).help("name the one to be tried"))
        }
    }
}
