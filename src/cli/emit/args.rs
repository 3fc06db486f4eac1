//! The options of `evbus emit`.

use super::acks::Print;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::times;
use crate::config::Environment;
use crate::event::EventTime;

/// The default time-out for a store that does not answer.
pub(super) const TIMEOUT: &str = "30s";
/// The default durability: on disk before the acknowledgement.
pub(super) const FULL: &str = "full";

/// Write one event, or with --ndjson one per line
///
/// Prints the id once the event is safe: on the disk, and visible to every group.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  evbus emit backup.done -F rc=0 -f host=db1
  evbus emit order.created '{\"id\":42,\"total\":99.5}' --subject order/42
  pg_dump app > app.sql; rc=$?; evbus emit dump.done -F rc=$rc --id \"dump-$(date +%F)-$rc\"
  evbus emit --ndjson @events.ndjson           # each line a CloudEvent
  tail -f access.log | evbus emit log.line --text --ndjson -q
  evbus emit report.due --at 02:00             # evbus ls --scheduled; evbus cancel ID

DATA is JSON. '-' reads it from stdin, '@file' from a file. Otherwise only --ndjson reads stdin.")]
pub(in crate::cli) struct EmitArgs {
    /// The event's type, such as order.created
    #[arg(value_name = "TYPE")]
    pub type_: Option<String>,
    /// The data: JSON, '-' for stdin, or @FILE
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    pub data: Option<String>,
    /// Add a string field to the data
    #[arg(short = 'f', value_name = "KEY=VALUE")]
    pub string_field: Vec<String>,
    /// Add a field of any JSON type to the data
    #[arg(short = 'F', value_name = "KEY=JSON")]
    pub json_field: Vec<String>,
    /// Take DATA as text, not as JSON
    #[arg(long)]
    pub text: bool,
    /// Take the data from a file's bytes ('@FILE', or '-' for stdin)
    #[arg(long, value_name = "@FILE", conflicts_with_all = ["text", "data", "ndjson"])]
    pub binary: Option<String>,
    /// Emit one event per line, or per element of a JSON array, gzipped or not, from stdin or
    /// @FILE: CloudEvents, or with TYPE only their data
    #[arg(long, value_name = "@FILE", num_args = 0..=1)]
    pub ndjson: Option<Option<String>>,
    /// Set the id; a repeat with the same id and source is harmless
    #[arg(long)]
    pub id: Option<String>,
    /// Set the source, a URI reference (default: //HOST)
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// Set the subject: what the event is about
    #[arg(long)]
    pub subject: Option<String>,
    /// Set the ordering key (default: the subject)
    #[arg(long)]
    pub key: Option<String>,
    /// Set when it happened (default: now): 10m ago, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Deliver at this time: 02:00 (next), 2026-12-24, '2026-12-24 09:30', RFC 3339; a past time
    /// means now
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    pub at: Option<String>,
    /// Deliver after this long, by this machine's clock: 5m, 12h
    #[arg(long, value_name = "DURATION")]
    pub delay: Option<String>,
    /// Add an extension attribute
    #[arg(long, value_name = "NAME=VALUE")]
    pub attr: Vec<String>,
    /// Set the data's media type
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Set the data's schema, a URI
    #[arg(long, value_name = "URI")]
    pub schema: Option<String>,
    /// Fail if the store does not answer for this long
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT)]
    pub timeout: String,
    /// Survive a power cut ('full') or only the process's end ('none')
    #[arg(long, value_name = "LEVEL", default_value = FULL, value_parser = [FULL, "none"])]
    pub durability: String,
    /// Handle an id that another event has: fail ('error') or ignore it ('ok') (default: error)
    #[arg(long, value_name = "WHAT", value_parser = ["error", "ok"])]
    pub if_exists: Option<String>,
    /// Handle a line that is not an event: 'stop', or 'skip' it (default: stop)
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "skip"], requires = "ndjson")]
    pub on_error: Option<String>,
    /// Make a file for each event, instead of one for many
    #[arg(long, requires = "ndjson")]
    pub each: bool,
    /// Append the lines that --on-error skip skips to this file
    #[arg(long, value_name = "FILE", requires = "on_error")]
    pub rejects: Option<String>,
    /// With --text, replace bytes that are not UTF-8 by U+FFFD
    #[arg(long, requires = "text")]
    pub lossy: bool,
    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the event instead of its id
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print the event as it would be, and emit nothing; whether its id is taken is not looked up
    #[arg(long, conflicts_with = "quiet")]
    pub dry_run: bool,
}

impl EmitArgs {
    /// The time from `--at` or `--delay`; none for events without a delay.
    pub fn due(&self, environment: &Environment) -> Result<Option<EventTime>, Failure> {
        match (&self.at, &self.delay) {
            (Some(at), _) => times::parse_coming(at, environment.now, &environment.zone()).map(Some).map_err(|error| {
                Failure::usage(format!("--at {error}")).help("--delay DURATION, if it is to wait for a while")
            }),
            (None, Some(delay)) => Ok(Some(environment.now.plus(times::parse_duration(delay)?))),
            (None, None) => Ok(None),
        }
    }

    /// Whether lines that are not events are skipped.
    pub fn skips(&self) -> bool {
        self.on_error.as_deref() == Some("skip")
    }

    pub(super) fn print(&self) -> Print {
        match (self.quiet, self.json || self.dry_run) {
            (true, _) => Print::Nothing,
            (false, true) => Print::Event,
            (false, false) => Print::Id,
        }
    }

    /// Reads `--ndjson TYPE` as the flag and a type: only '@file' and '-' are values of the flag.
    pub fn take_type_from_ndjson(&mut self) -> Result<(), Failure> {
        let Some(value) = &mut self.ndjson else { return Ok(()) };
        if let Some(text) = value.take_if(|text| !text.starts_with('@') && text != "-")
            && let Some(other) = self.type_.replace(text)
        {
            self.data = Some(other);
        }
        // '--ndjson -q @file' means '--ndjson @file': no type begins so.
        if value.is_none() {
            let last = if self.data.is_some() { &mut self.data } else { &mut self.type_ };
            *value = last.take_if(|text| text.starts_with('@'));
        }
        if let Some(data) = &self.data {
            let what = format!("with --ndjson each line is an event; DATA '{data}' has no place");
            return Err(Failure::usage(what).help(command("emit", "TYPE --ndjson @FILE")));
        }
        if !(self.string_field.is_empty() && self.json_field.is_empty() && self.id.is_none()) {
            return Err(Failure::usage("with --ndjson the lines are the events: -f, -F and --id have no place"));
        }
        Ok(())
    }
}
