//! `evbus status`: shows the state of every group, its obstacles and their cures.

use std::time::Duration;

use futures_util::future::join_all;

use super::exit::Code;
use super::failure::Failure;
use super::group;
use super::output::{self, Out};
use super::relays::RelayPlan;
use super::schedules::{self, ScheduleRow};
use super::session::{Needs, Opened, Session, block_on};
use super::sources::{self, SourceRow};
use super::times;
use crate::bus::{BusHandle, schedule};
use crate::cli::colour::Colours;
use crate::config::Config;
use crate::event::{EventName, EventTime};
use crate::group::owner::process_of;
use crate::group::status::{self, GroupState, GroupStatus, Lag, Tally};
use crate::recurring::Recurring;
use crate::relay::OutboxCounts;
use crate::source::Source;
use crate::store::Requests;
use crate::store::dir::Execution;

mod document;
mod prometheus;
mod text;

/// Show each group's state, lag, retries, dead letters and owner
///
/// LAG counts wanted events that are not done; OLDEST is the age of the oldest of them. RATE is
/// processed events per second, measured for as long as --rate says, and '-' without --rate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus status
  evbus status mail --rate=5s
  evbus status --max-lag 10m --max-dead 0 || echo 'look after the bus'
  evbus status --prom > /var/lib/node_exporter/evbus.prom

States: ok, working, waiting (no worker), failing, stalled, paused, damaged.")]
pub(super) struct StatusArgs {
    /// Show only this group
    #[arg(value_name = "GROUP")]
    group: Option<String>,
    /// Measure RATE for this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "1s")]
    rate: Option<String>,
    /// Exit 3 if a group's oldest event that is not done is older
    #[arg(long, value_name = "DURATION")]
    max_lag: Option<String>,
    /// Exit 3 if a group has more dead letters, or a relay more parked rows
    #[arg(long, value_name = "N")]
    max_dead: Option<u64>,
    /// Also show the requests to a bucket, and about what they cost: of the events that are there, and
    /// of the groups' workers
    #[arg(long)]
    cost: bool,
    /// Print one JSON document
    #[arg(long, conflicts_with = "prom")]
    json: bool,
    /// Print metrics in the Prometheus text format
    #[arg(long)]
    prom: bool,
}

/// Everything that is shown.
struct StatusReport {
    /// The bus's address, as shown.
    bus: String,
    /// Where the address came from.
    origin: String,
    events: u64,
    /// The objects that they lie in.
    objects: u64,
    /// Whether the store charges for requests.
    is_charged: bool,
    oldest: Option<EventTime>,
    /// When the next scheduled entry is due.
    scheduled: Option<EventTime>,
    now: EventTime,
    groups: Vec<GroupRow>,
    /// The relays of the config.
    relays: Vec<RelayRow>,
    /// Its schedules.
    schedules: Vec<ScheduleRow>,
    /// Its sources.
    sources: Vec<SourceRow>,
}

impl StatusReport {
    /// What the emits of the events that are there have asked for at least: a put and a check for each
    /// object.
    fn emit_cost(&self) -> Requests {
        match self.is_charged {
            true => Requests { puts: self.objects, gets: self.objects, ..Requests::default() },
            false => Requests::default(),
        }
    }

    /// How long a scheduled entry has been due without a release, which needs a worker.
    fn overdue(&self) -> Option<Duration> {
        self.scheduled.filter(|due| *due < self.now).map(|due| self.now.since(due))
    }
}

/// The data for one relay.
struct RelayRow {
    name: String,
    /// Where its rows come from, as shown.
    from: String,
    /// What its outbox has, or why that is not known.
    counts: Result<OutboxCounts, String>,
}

impl RelayRow {
    fn parked(&self) -> u64 {
        self.counts.as_ref().map_or(0, |counts| counts.parked)
    }
}

/// The data for one group.
struct GroupRow {
    status: GroupStatus,
    lag: Lag,
    state: GroupState,
    /// Processed events per second, if measured.
    rate: Option<f64>,
}

impl GroupRow {
    /// The age of the oldest event that is not done.
    fn age(&self, now: EventTime) -> Option<Duration> {
        self.lag.oldest.map(|oldest| now.since(oldest))
    }

    /// The requests that the group's workers have made, as of their last commits.
    fn cost(&self) -> Requests {
        let markers = self.status.markers.iter().map(|marker| marker.requests);
        markers.fold(Requests::default(), Requests::plus)
    }

    fn dead(&self) -> u64 {
        u64::try_from(self.status.dead_letters.len()).unwrap_or(u64::MAX)
    }
}

pub(super) fn run(args: StatusArgs, session: Session) -> Result<Code, Failure> {
    let max_lag = args.max_lag.as_deref().map(times::parse_duration).transpose()?;
    let span = args.rate.as_deref().map(times::parse_duration).transpose()?;
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        // A broken config stops no look at a bus that it does not name.
        let config = match args.group {
            Some(_) => None,
            None => session.config_or_warning(),
        };
        let emitters = config.map(Emitters::of).unwrap_or_default();
        let report = report(&opened, &session, args.group.as_deref(), &emitters, span).await?;
        let mut out = Out::new();
        if args.json {
            out.json(&document::document(&report))?;
            out.flush()?;
        } else if args.prom {
            out.text(&prometheus::text(&report))?;
        } else {
            out.text(&text::text(&report, &session.environment.zone(), Colours::of_stdout()))?;
            if args.cost {
                out.text(&text::costs(&report))?;
            }
        }
        let crossed = crossed(&report, max_lag, args.max_dead);
        for line in &crossed {
            output::note(line);
        }
        Ok(if crossed.is_empty() { Code::Done } else { Code::Threshold })
    })
}

/// What emits by itself, as a config has it.
#[derive(Default)]
pub(super) struct Emitters {
    pub(super) relays: Vec<RelayPlan>,
    pub(super) schedules: Vec<Recurring>,
    pub(super) sources: Vec<Source>,
}

impl Emitters {
    fn of(config: Config) -> Self {
        let relays = RelayPlan::of(&config).unwrap_or_default();
        Self { relays, schedules: config.schedules, sources: config.sources }
    }
}

/// The status of every group, and of what emits by itself, as Prometheus metrics.
pub(super) async fn metrics(opened: &Opened, session: &Session, emitters: &Emitters) -> Result<String, Failure> {
    Ok(prometheus::text(&report(opened, session, None, emitters, None).await?))
}

async fn report(
    opened: &Opened,
    session: &Session,
    name: Option<&str>,
    emitters: &Emitters,
    span: Option<Duration>,
) -> Result<StatusReport, Failure> {
    let bus = opened.bus_handle();
    let first = statuses(bus, name).await?;
    let after: Vec<EventTime> = first.iter().map(|status| status.floor().time()).collect();
    let earlier = match span {
        None => None,
        Some(span) => {
            let begun = bus.clock.elapsed();
            let tally = status::tally(bus, &first, &after).await?;
            bus.clock.sleep_until(begun + span).await;
            Some((tally, begun))
        }
    };
    let statuses = if earlier.is_some() { statuses(bus, name).await? } else { first };
    let tally = status::tally(bus, &statuses, &after).await?;
    let took = earlier.as_ref().map(|(_, begun)| bus.clock.elapsed().saturating_sub(*begun));
    // If a group was created or removed between the two measurements, no group has a comparison.
    let mut before = earlier.iter().flat_map(|(tally, _)| tally.lags()).collect::<Vec<_>>().into_iter();
    let comparable = before.len() == statuses.len();
    let groups = statuses.into_iter().zip(tally.lags()).map(|(status, lag)| {
        let rate = before.next().zip(took).filter(|_| comparable).map(|(before, took)| rate(&before, &lag, took));
        let state = status.state(&lag, process_of);
        GroupRow { status, lag, state, rate }
    });
    let groups = groups.collect();
    let scheduled = schedule::entries(&*bus.store, 1, |_| true).await?.0.first().map(EventName::time);
    let relays = join_all(emitters.relays.iter().map(|plan| relay_row(plan, session))).await;
    let schedules = schedules::rows(&emitters.schedules, opened).await;
    let sources = sources::rows(&emitters.sources, opened).await;
    let now = bus.clock.now();
    let is_charged = bus.store.requests().is_some();
    let (bus, origin) = (opened.address.display.clone(), opened.address.origin.to_string());
    let Tally { events, objects, oldest, .. } = tally;
    Ok(StatusReport {
        bus,
        origin,
        events,
        objects,
        is_charged,
        oldest,
        scheduled,
        now,
        groups,
        relays,
        schedules,
        sources,
    })
}

async fn relay_row(plan: &RelayPlan, session: &Session) -> RelayRow {
    let counts = async { Ok::<_, Failure>(plan.outbox(session).await?.counts().await?) };
    let counts = counts.await.map_err(|failure| failure.message().to_owned());
    RelayRow { name: plan.name.clone(), from: plan.from.display.clone(), counts }
}

async fn statuses(bus: &BusHandle, name: Option<&str>) -> Result<Vec<GroupStatus>, Failure> {
    match name {
        Some(name) => Ok(vec![group::status(bus, name).await?]),
        None => group::all(bus).await,
    }
}

/// Events per second that left the backlog: its decrease, plus the events that came in meanwhile.
#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn rate(before: &Lag, now: &Lag, took: Duration) -> f64 {
    let came = now.wanted.saturating_sub(before.wanted);
    let done = (before.events + came).saturating_sub(now.events);
    done as f64 / took.as_secs_f64().max(0.001)
}

/// The thresholds that are crossed, one line each.
fn crossed(report: &StatusReport, max_lag: Option<Duration>, max_dead: Option<u64>) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(overdue), Some(max)) = (report.overdue(), max_lag)
        && overdue > max
    {
        let (overdue, max) = (times::format_duration(overdue), times::format_duration(max));
        lines.push(format!("an event has been due for {overdue}, over {max}, and no worker has released it"));
    }
    for row in &report.groups {
        let group = &row.status.group;
        if let (Some(age), Some(max)) = (row.age(report.now), max_lag)
            && age > max
        {
            let age = times::format_duration(age);
            lines.push(format!(
                "{group}: the oldest event that is not done is {age} old, over {}",
                times::format_duration(max)
            ));
        }
        if let Some(max) = max_dead.filter(|max| row.dead() > *max) {
            lines.push(format!("{group}: {}, over {max}", super::style::plural(row.dead(), "dead letter")));
        }
        // A group that cannot be counted crosses every threshold.
        if let Some(error) = row.status.damage.as_ref().filter(|_| max_lag.is_some() || max_dead.is_some()) {
            lines.push(format!("{group}: {}", super::style::escape(&error.to_string())));
        }
    }
    for schedule in &report.schedules {
        if let (Some(late), Some(max)) = (schedule.late, max_lag)
            && late > max
        {
            let (late, max) = (times::format_duration(late), times::format_duration(max));
            lines.push(format!("schedule '{}' has been due for {late}, over {max}", schedule.name));
        }
    }
    for relay in &report.relays {
        let name = &relay.name;
        match (&relay.counts, max_dead) {
            (Err(error), Some(_)) => lines.push(format!("relay '{name}': {}", super::style::escape(error))),
            (Ok(counts), Some(max)) if counts.parked > max => {
                lines
                    .push(format!("relay '{name}': {} parked, over {max}", super::style::plural(counts.parked, "row")));
            }
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_events_that_arrived_and_were_processed() {
        let lag = |events, wanted| Lag { events, wanted, oldest: None };
        let second = Duration::from_secs(2);
        assert!((rate(&lag(10, 10), &lag(4, 10), second) - 3.0).abs() < 1e-9);
        assert!((rate(&lag(10, 10), &lag(10, 18), second) - 4.0).abs() < 1e-9, "as many came as went");
        assert!(rate(&lag(0, 0), &lag(5, 5), second).abs() < 1e-9);
        assert!(rate(&lag(0, 9), &lag(5, 2), second).abs() < 1e-9, "a prune in between is no work");
    }
}
