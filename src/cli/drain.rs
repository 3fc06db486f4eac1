//! `evbus drain`: runs what is due now, then ends; made for cron.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::relays::{self, RelayPlan};
use super::schedules;
use super::session::{Needs, Opened, Session, block_on};
use super::sources;
use super::watchers::{self, Ended, HandlerParts, HistoryKeeper, Ready, RunArgs, Workers};
use super::{style, times};
use crate::bus::read;
use crate::cli::colour::NOTE;
use crate::cli::help_line::command;
use crate::config::{Action, Config, Environment, Watcher};
use crate::event::EventTime;
use crate::event::id_of;
use crate::group::read_marker;
use crate::group::worker::{Mode, Stop, Summary};
use crate::group::worker_event::Reporter;
use crate::handler::Stream;
use crate::store::dir::{Durability, Execution};

/// Run what is due now, then end
///
/// Does once what watch does, for cron and for scripts. Overlapping runs are harmless. Without
/// --wait, drain waits neither for another worker nor for a later retry.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  * * * * *  evbus drain -q                          # crontab: all watchers of evbus.toml
  evbus drain -g mail -t 'order.*' -- ./send-mail
  evbus drain --strict --for 50s mail                # 3 unless everything it took ended done")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Also wait for later retries and for other workers
    #[arg(long)]
    wait: bool,
    /// Start at most N handlers
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Start no handler after this time
    #[arg(long = "for", value_name = "DURATION")]
    span: Option<String>,
    /// Exit 3 unless every event that was run ended done
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: DrainArgs, session: Session) -> Result<Code, Failure> {
    watchers::ignore_terminal_stops();
    let watchers = args.run.watchers(&session, "drain")?;
    let span = args.span.as_deref().map(times::parse_duration).transpose()?;
    let mode = Mode::Drain { wait: args.wait, most: args.max, span };
    let mut address = session.address()?;
    if let Some(span) = span {
        address.limit_timeout(span);
    }
    let drained = block_on(Needs::Everything, async {
        let opened = session.open_at(address, Execution::Threaded, Durability::Full).await?;
        if args.run.dry_run {
            return dry_run(watchers, &opened, &session).await;
        }
        let (is_alone, mut ready, mut started) = (watchers.len() == 1, Vec::new(), Code::Done);
        for watcher in watchers {
            let label = format!("watcher '{}' is not run", watcher.name);
            let start = async {
                watchers::check_action(&watcher, &session)?;
                let ready = watchers::prepare(watcher, &opened, false).await?;
                args.run.note_start(&ready);
                Ok::<_, Failure>(ready)
            };
            match start.await {
                Ok(one) => ready.push(one),
                Err(failure) if is_alone || failure.code() == Code::TryAgain => return Err(failure),
                Err(failure) if started == Code::Done => started = failure.context(&label).report(),
                Err(failure) => _ = failure.context(&label).report(),
            }
        }
        let config = if args.run.takes_all() { session.config_quietly()? } else { Config::default() };
        let relayed = relays::once_all(&RelayPlan::of(&config)?, &opened, &session, args.run.quiet).await;
        let served = schedules::once_all(&config.schedules, &opened, args.run.quiet).await;
        config.sources.iter().try_for_each(|source| sources::refuse_bus(source, &opened.address))?;
        let (mut sources, sourced) = sources::once_all(&config.sources, &opened, &session).await;
        let started = if relayed && served && sourced { started } else { Code::Failed };
        let begun = session.clock.elapsed();
        let (stop, stopped) = tokio::sync::watch::channel(Stop::No);
        let printer = args.run.printer(&session, false);
        let history = HistoryKeeper::new(Rc::clone(&printer) as _, &opened);
        ready.iter().for_each(|ready| history.keep_for(&ready.watcher, &opened));
        let reporter = Rc::clone(&history) as Rc<dyn Reporter>;
        let shares_polls = ready.len() > 1;
        let workers = Workers::new(&opened, mode, HandlerParts::new(&session, &printer));
        let ended = tokio::select! {
            biased;
            ended = join_all(ready.into_iter().map(|ready| workers.run(ready, &reporter, shares_polls, stopped.clone()))) => ended,
            failure = watchers::on_signals(stop) => {
                failure?;
                return Ok(Code::Done);
            }
            never = history.keep() => match never {},
            never = watchers::reap_as_first_process() => match never {},
        };
        history.write().await;
        let took = session.clock.elapsed().saturating_sub(begun);
        let worth_reporting = ended.iter().any(|ended| ended.outcome.as_ref().is_ok_and(|summary| summary.done > 0));
        // The two streams have threads of their own: what handlers wrote comes before the summary.
        output::pump::flush(Stream::Out);
        let started = if sources::end_all(&mut sources).await { started } else { Code::Failed };
        let code = report(ended, started, &args, took, &session.environment);
        if let Some(requests) = opened.bus_handle().store.requests().filter(|_| worth_reporting && !args.run.quiet) {
            output::note(&format!("requests: {}", style::cost(requests)));
        }
        Ok(code)
    });
    drained.map_err(Failure::of_a_worker)
}

/// Prints one line for each watcher that did something, and returns the exit code for all.
fn report(ended: Vec<Ended>, mut code: Code, args: &DrainArgs, took: Duration, environment: &Environment) -> Code {
    for Ended { watcher, outcome } in ended {
        match outcome {
            Err(failed) => code = failed,
            Ok(summary) => {
                let failed = summary.retries + summary.dead > 0 || summary.stalled.is_some();
                let worth_reporting = summary.done > 0
                    || summary.skipped > 0
                    || summary.superseded > 0
                    || failed
                    || output::notes_on_terminal()
                    || summary.paused;
                if worth_reporting && (!args.run.quiet || failed) {
                    let took = times::format_duration(took);
                    output::note(&format!("{}: {} · {took}", watcher.group, summary_text(&summary, environment)));
                    if summary.paused {
                        output::note_labelled(
                            NOTE,
                            "help",
                            &command("group", format_args!("resume {}", watcher.group)).to_string(),
                        );
                    }
                    if summary.dead > 0 {
                        output::note_labelled(
                            NOTE,
                            "help",
                            &command("dead", format_args!("show {}", watcher.group)).to_string(),
                        );
                    }
                }
                match code {
                    Code::Done if summary.stalled.as_ref().is_some_and(|obstacle| obstacle.is_temporary) => {
                        code = Code::TryAgain;
                    }
                    Code::Done if summary.stalled.is_some() => code = Code::Failed,
                    Code::Done if args.strict && failed => code = Code::Threshold,
                    _ => {}
                }
            }
        }
    }
    code
}

fn summary_text(summary: &Summary, environment: &Environment) -> String {
    if summary.paused && summary.done == 0 {
        return "paused: nothing was run".to_owned();
    }
    let mut parts = vec![format!("{} done", style::thousands(summary.done))];
    if summary.retries > 0 || summary.next_retry.is_some() {
        let at = summary
            .next_retry
            .map(|next| format!(" at {}", times::clock_text(next, environment.now, &environment.zone())));
        parts.push(format!("{}{}", style::plural(summary.retries, "retry"), at.unwrap_or_default()));
    }
    if summary.dead > 0 {
        parts.push(format!("{} dead", style::thousands(summary.dead)));
    }
    if summary.superseded > 0 {
        parts.push(format!("{} superseded", style::thousands(summary.superseded)));
    }
    if summary.skipped > 0 {
        parts.push(format!("{} passed over", style::thousands(summary.skipped)));
    }
    parts.push(match summary.held_elsewhere {
        true if summary.left == 0 => "the rest is with another worker".to_owned(),
        true => format!("{} left, more with another worker", style::thousands(summary.left)),
        false => format!("{} left", style::thousands(summary.left)),
    });
    if summary.paused {
        parts.push("paused".to_owned());
    }
    parts.join(", ")
}

/// Prints what would run, without changes.
pub(super) async fn dry_run(watchers: Vec<Watcher>, opened: &Opened, session: &Session) -> Result<Code, Failure> {
    let mut out = Out::new();
    for watcher in watchers {
        watchers::check_action(&watcher, session)?;
        let ready = watchers::prepare(watcher, opened, true).await?;
        for line in would_run(&ready, opened).await? {
            out.line(&line)?;
        }
    }
    out.flush()?;
    Ok(Code::Done)
}

async fn would_run(ready: &Ready, opened: &Opened) -> Result<Vec<String>, Failure> {
    let (definition, group) = (&ready.registered.definition, &ready.watcher.group);
    let filter = definition.type_filter(group)?;
    let would = match &ready.watcher.action {
        Action::Webhook(target) => format!("post to {}", target.shown()),
        action => format!("run {}", action.argv().unwrap_or_default().join(" ")),
    };
    let mut lines = Vec::new();
    for shard in 0..definition.shards {
        let (marker, _) = read_marker(opened.bus_handle(), group, shard, definition).await?;
        let range = read::Range { since: marker.through.time(), until: EventTime::MAX, filter: filter.clone() };
        let (names, is_truncated) = read::names(opened.bus_handle(), &range, 10_000).await?;
        let open = marker.pending.keys().filter(|name| !names.contains(name));
        let fresh = names
            .iter()
            .filter(|name| name.hash_slot().shard(definition.shards) == shard && marker.is_unprocessed(name));
        for name in open.chain(fresh) {
            lines.push(format!("{group}: would {would} for {} {}", id_of(name), name.slug()));
        }
        if is_truncated {
            lines.push(format!("{group}: and more"));
        }
    }
    Ok(lines)
}
