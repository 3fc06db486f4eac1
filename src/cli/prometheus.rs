//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// Metrics as text: for each its head, then its samples.
#[derive(Debug, Default)]
pub(super) struct Metrics(String);

impl Metrics {
    /// Begins a metric; returns a function that adds one sample: its labels and its value.
    pub(super) fn metric<'a>(&'a mut self, name: &'a str, kind: MetricKind, help: &str) -> Samples<'a> {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples { text: &mut self.0, name }
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// The samples of one metric.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Samples<'_> {
    /// Adds a sample. Values of labels hold no quotes: they are names of groups and of states.
    pub(super) fn add(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_head_and_its_samples() {
        let mut metrics = Metrics::default();
        metrics.metric("evbus_events", MetricKind::Gauge, "Events.").add(&[], 3);
        let mut samples = metrics.metric("evbus_group_state", MetricKind::Counter, "States.");
        samples.add(&[("group", &"mail"), ("state", &"ok")], 0.5);
        samples.add(&[("group", &"crm"), ("state", &"ok")], 1);
        let expected = "# HELP evbus_events Events.\n# TYPE evbus_events gauge\nevbus_events 3\n\
                        # HELP evbus_group_state States.\n# TYPE evbus_group_state counter\n\
                        evbus_group_state{group=\"mail\",state=\"ok\"} 0.5\n\
                        evbus_group_state{group=\"crm\",state=\"ok\"} 1\n";
        assert_eq!(metrics.into_text(), expected);
    }
}
