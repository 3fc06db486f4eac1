//! Writes `tracing` events to stderr, as lines or as JSON. `EVBUS_LOG` adds the logs of libraries.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::LogFormat;
use crate::cli::failure::Failure;
use crate::cli::output::pump::Stderr;
use crate::clock::{Clock, SystemClock};

/// The variable that selects further logs: `debug`, or `object_store=debug,hyper=trace`.
pub(in crate::cli) const EVBUS_LOG: &str = "EVBUS_LOG";

/// Starts the log, with the further logs that `selected` names.
pub(in crate::cli) fn begin(format: LogFormat, selected: Option<&str>) -> Result<(), Failure> {
    let selected: Targets = selected.unwrap_or("off").parse().map_err(|_| {
        Failure::usage(format!("{EVBUS_LOG}: '{}' selects no logs", selected.unwrap_or_default().escape_debug()))
            .help(format!("{EVBUS_LOG}=debug, or {EVBUS_LOG}=object_store=debug"))
    })?;
    let targets = selected.with_target("evbus", LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Stderr);
    let layer = match format {
        LogFormat::Human => lines.event_format(LogLines).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).with_timer(LogTimer).boxed(),
    };
    // Fails if a log was started before, as by a test in this process; that log stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
    Ok(())
}

/// Timestamps in RFC 3339, from the clock of this machine.
struct LogTimer;

impl FormatTime for LogTimer {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&SystemClock.now().to_rfc3339())
    }
}

/// Lines: evbus's own verbatim, those of libraries with level and target.
struct LogLines;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for LogLines {
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target().starts_with("evbus") {
            let mut message = Message(String::new());
            event.record(&mut message);
            return writeln!(writer, "{}", message.0);
        }
        write!(writer, "{} {}: ", metadata.level().as_str().to_lowercase(), metadata.target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The message of an event, without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
