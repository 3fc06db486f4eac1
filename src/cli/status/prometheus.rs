//! Status as metrics.

use super::{GroupRow, RelayRow, StatusReport};
use crate::cli::prometheus::{MetricKind, Metrics};
use crate::group::status::GroupState;

#[allow(clippy::cast_precision_loss, reason = "a metric is a 64-bit float")]
pub(super) fn text(report: &StatusReport) -> String {
    let mut metrics = Metrics::default();
    let mut bus = |name, help, value: f64| metrics.metric(name, MetricKind::Gauge, help).add(&[], value);
    bus("evbus_events", "Events on the bus.", report.events as f64);
    let age = report.oldest.map_or(0.0, |oldest| report.now.since(oldest).as_secs_f64());
    bus("evbus_oldest_event_age_seconds", "Age of the oldest event on the bus.", age);
    let overdue = report.overdue().map_or(0.0, |overdue| overdue.as_secs_f64());
    bus("evbus_overdue_seconds", "How long an event has been due without a release.", overdue);
    let mut each = |name, help, value: &dyn Fn(&GroupRow) -> Option<f64>| {
        let mut samples = metrics.metric(name, MetricKind::Gauge, help);
        for row in &report.groups {
            if let Some(value) = value(row) {
                samples.add(&[("group", &row.status.group)], value);
            }
        }
    };
    each("evbus_group_lag_events", "Wanted events that are not done.", &|row| Some(row.lag.events as f64));
    each("evbus_group_lag_seconds", "Age of the oldest event that is not done.", &|row| {
        Some(row.age(report.now).map_or(0.0, |age| age.as_secs_f64()))
    });
    each("evbus_group_retrying_events", "Events that failed and will be tried again.", &|row| {
        Some(row.status.retrying().len() as f64)
    });
    each("evbus_group_dead_letters", "Dead letters.", &|row| Some(row.dead() as f64));
    each("evbus_group_owned_shards", "Shards that a worker owns.", &|row| Some(row.status.owners.len() as f64));
    each("evbus_group_shards", "Shards.", &|row| {
        row.status.definition.as_ref().map(|definition| f64::from(definition.shards))
    });
    if report.groups.iter().any(|row| row.rate.is_some()) {
        each("evbus_group_rate_events", "Events processed per second.", &|row| row.rate);
    }
    states(&mut metrics, report);
    relays(&mut metrics, report);
    schedules(&mut metrics, report);
    sources(&mut metrics, report);
    metrics.into_text()
}

/// One sample for each state, as Prometheus represents enumerations.
fn states(metrics: &mut Metrics, report: &StatusReport) {
    let help = "1 for the state that the group is in.";
    let mut samples = metrics.metric("evbus_group_state", MetricKind::Gauge, help);
    for row in &report.groups {
        for state in GroupState::ALL {
            samples.add(&[("group", &row.status.group), ("state", &state)], u8::from(row.state == state));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a metric is a 64-bit float")]
fn relays(metrics: &mut Metrics, report: &StatusReport) {
    if report.relays.is_empty() {
        return;
    }
    let mut each = |name, help, value: &dyn Fn(&RelayRow) -> Option<f64>| {
        let mut samples = metrics.metric(name, MetricKind::Gauge, help);
        for row in &report.relays {
            if let Some(value) = value(row) {
                samples.add(&[("relay", &row.name)], value);
            }
        }
    };
    let counts = |row: &RelayRow| row.counts.as_ref().ok().copied();
    each("evbus_relay_up", "1 if the relay's database answers.", &|row| Some(f64::from(u8::from(row.counts.is_ok()))));
    each("evbus_relay_rows", "Rows that wait to be moved.", &|row| counts(row).map(|of| of.waiting as f64));
    each("evbus_relay_parked_rows", "Rows that are no events.", &|row| counts(row).map(|of| of.parked as f64));
}

fn schedules(metrics: &mut Metrics, report: &StatusReport) {
    if report.schedules.is_empty() {
        return;
    }
    let help = "How long a time of the schedule has waited to be served.";
    let mut samples = metrics.metric("evbus_schedule_late_seconds", MetricKind::Gauge, help);
    for row in report.schedules.iter().filter(|row| row.error.is_none()) {
        samples.add(&[("schedule", &row.name)], row.late.unwrap_or_default().as_secs_f64());
    }
}

fn sources(metrics: &mut Metrics, report: &StatusReport) {
    if report.sources.is_empty() {
        return;
    }
    let help = "1 if the source's folder can be looked into from here.";
    let mut samples = metrics.metric("evbus_source_up", MetricKind::Gauge, help);
    for row in &report.sources {
        samples.add(&[("source", &row.name)], u8::from(row.error.is_none()));
    }
    let mut samples = metrics.metric("evbus_source_files", MetricKind::Gauge, "Files of the source with their events.");
    for row in &report.sources {
        if let Some(files) = row.files {
            samples.add(&[("source", &row.name)], files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventTime;

    #[test]
    fn an_empty_bus_has_metrics_too() {
        let report = StatusReport {
            bus: "/b".to_owned(),
            origin: "--bus".to_owned(),
            events: 0,
            objects: 1,
            is_charged: false,
            oldest: None,
            scheduled: None,
            now: EventTime::from_micros(0),
            groups: Vec::new(),
            relays: Vec::new(),
            schedules: Vec::new(),
            sources: Vec::new(),
        };
        let text = text(&report);
        assert!(text.contains("# TYPE evbus_events gauge\nevbus_events 0\n"), "{text}");
        let sample = |line: &&str| !line.starts_with('#');
        assert_eq!(text.lines().filter(sample).count(), 3, "no group, no sample: {text}");
        assert!(text.ends_with('\n'));
    }
}
