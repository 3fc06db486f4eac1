//! The options of `watch` and `drain`, and the watchers that they select.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::Ready;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::output;
use crate::cli::reporter::{LogFormat, Printer};
use crate::cli::session::Session;
use crate::cli::times;
use crate::config::{
    Action, BatchSettings, KeptHistory, LINGER, MAX_CONCURRENCY, StartFrom, Watcher, parse_format, parse_secret,
    parse_url,
};
use crate::group::GroupName;
use crate::group::definition::MOST_SHARDS;
use crate::group::latest::{Latest, LatestKey};
use crate::handler::WebhookTarget;

/// Options of `watch` and `drain`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RunArgs {
    /// Watchers of the config (default: all)
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Run the command after '--' as this group, without the config
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Select these types, such as 'order.*' or 'backup.**' (repeat, or separate by commas)
    #[arg(short = 't', long = "type", value_name = "PATTERN", requires = "group")]
    types: Vec<String>,
    /// Exclude these types
    #[arg(long, value_name = "PATTERN", requires = "group")]
    not: Vec<String>,
    /// Select events by a CEL condition on the event, such as 'data.width > 256'
    #[arg(long = "where", value_name = "CEL", allow_hyphen_values = true, requires = "group")]
    condition: Option<String>,
    /// Start a new group here: earliest, now, or a time
    #[arg(long, value_name = "START", requires = "group")]
    from: Option<String>,
    /// Set a new group's shards, fixed at creation; at most this many workers can share the group
    #[arg(long, value_name = "N", requires = "group", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SHARDS)))]
    shards: Option<u16>,
    /// Run at most N handlers at a time
    #[arg(short = 'j', long, value_name = "N", requires = "group")]
    concurrency: Option<usize>,
    /// Pass up to N events to one run of the handler, as NDJSON on stdin
    #[arg(long, value_name = "N", requires = "group")]
    batch: Option<usize>,
    /// Let a batch's first event wait this long for others [default: 1s]
    #[arg(long, value_name = "DURATION", requires = "batch")]
    linger: Option<String>,
    /// Run events of one ordering key one at a time, in the order of emission; -j N runs N keys
    /// side by side
    #[arg(long, requires = "group")]
    ordered: bool,
    /// Of events of one key that wait, run only the last: subject, key, type, or an expression
    /// in CEL
    #[arg(long, value_name = "KEY", requires = "group")]
    latest: Option<String>,
    /// Run it once no other has followed for this time
    #[arg(long, value_name = "DURATION", requires = "latest")]
    settle: Option<String>,
    /// Keep no history of the runs (see history)
    #[arg(long, requires = "group")]
    no_history: bool,
    /// Limit the time of a handler
    #[arg(long, value_name = "DURATION", requires = "group")]
    timeout: Option<String>,
    /// Make an event a dead letter after N failed attempts
    #[arg(long, value_name = "N", requires = "group")]
    max_attempts: Option<u32>,
    /// Wait at least MIN and at most MAX between attempts
    #[arg(long, value_name = "MIN..MAX", requires = "group")]
    backoff: Option<String>,
    /// Make an event a dead letter at once on these exit codes, or with --url on these statuses
    #[arg(long, value_name = "CODE", value_delimiter = ',', requires = "group")]
    dead_on: Vec<i32>,
    /// Run this shell line instead of '-- CMD'
    #[arg(long, value_name = "CMD", requires = "group", conflicts_with = "command")]
    shell: Option<String>,
    /// POST each event to this URL instead of running '-- CMD'; env:NAME or file:PATH says where it is
    #[arg(long, value_name = "URL", requires = "group", conflicts_with_all = ["command", "shell", "cwd"])]
    url: Option<String>,
    /// Sign each request (Standard Webhooks) by the secret at env:NAME or file:PATH; repeat to
    /// replace one by another
    #[arg(long, value_name = "WHERE", requires = "url")]
    secret: Vec<String>,
    /// Send the event as one JSON document, or its data with its attributes as headers
    /// [default: structured]
    #[arg(long, value_name = "structured|binary", requires = "url")]
    format: Option<String>,
    /// Run the command in this folder
    #[arg(long, value_name = "DIR", requires = "group")]
    cwd: Option<PathBuf>,
    /// Look this often if the file system gives no hints
    #[arg(long, value_name = "DURATION")]
    poll: Option<String>,
    /// Do not use inotify
    #[arg(long)]
    no_hints: bool,
    /// Let running handlers go on this long after a stop
    #[arg(long, value_name = "DURATION")]
    stop_timeout: Option<String>,
    /// Show what would run, without changes
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Print only failures
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
    /// Set the format of the log on stderr
    #[arg(long, value_enum, default_value = "human", value_name = "FORMAT")]
    pub(in crate::cli) log: LogFormat,
    /// The handler; it gets the event on stdin
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Parses a duration longer than zero.
fn positive(option: &str, text: &str) -> Result<Duration, Failure> {
    match times::parse_duration(text).map_err(|error| Failure::from(error).context(option))? {
        Duration::ZERO => Err(Failure::usage(format!("{option} 0s is no time at all")).help(format!("{option} 5s"))),
        duration => Ok(duration),
    }
}

impl RunArgs {
    /// The watchers to run: the one of the options, or those of the config.
    pub(in crate::cli) fn watchers(&self, session: &Session, verb: &'static str) -> Result<Vec<Watcher>, Failure> {
        let mut watchers = match &self.group {
            Some(group) => vec![self.ad_hoc(group, session, verb)?],
            None => self.configured(session, verb)?,
        };
        for watcher in &mut watchers {
            if let Some(poll) = &self.poll {
                watcher.poll = Some(positive("--poll", poll)?);
            }
            if let Some(stop_timeout) = &self.stop_timeout {
                watcher.stop_timeout = times::parse_duration(stop_timeout)?;
            }
            watcher.hints &= !self.no_hints;
        }
        Ok(watchers)
    }

    /// A command may stand without a group, which would remember what it has processed.
    pub(in crate::cli) fn needs_no_group(&mut self) {
        if self.group.is_none() && !self.command.is_empty() {
            self.group = Some("once".to_owned());
        }
    }

    /// Whether all watchers of the config are to run, and with them its relays and
    /// schedules.
    pub(in crate::cli) fn takes_all(&self) -> bool {
        self.group.is_none() && self.names.is_empty()
    }

    /// Whether the watchers come from the config.
    pub(in crate::cli) fn in_config(&self) -> bool {
        self.group.is_none()
    }

    fn ad_hoc(&self, group: &str, session: &Session, verb: &'static str) -> Result<Watcher, Failure> {
        let group = GroupName::parse(group)?;
        if let Some(name) = self.names.first() {
            let what = format!("'{name}' is no option: a command comes after '--'");
            let eaten = !self.command.is_empty() && session.environment.cwd.join(name).exists();
            return Err(Failure::usage(what).help(match eaten {
                true => format!("did the shell put '{name}' in the place of a pattern? quote it: -t 'order.*'"),
                false => format!("evbus {verb} -g {group} … -- {}", self.names.join(" ")),
            }));
        }
        // The parser does not require what the command excludes.
        let of_url = [("--secret", !self.secret.is_empty()), ("--format", self.format.is_some())];
        if let Some((option, _)) = of_url.iter().find(|(_, given)| *given && self.url.is_none()) {
            return Err(Failure::usage(format!("{option} is for --url"))
                .help(command(verb, format_args!("-g {group} --url https://HOST/PATH {option} …"))));
        }
        let action = match (&self.shell, &self.url) {
            (Some(line), _) if line.trim().is_empty() => {
                return Err(Failure::usage("--shell has no command: it is empty").help("--shell 'PROGRAM ARG | …'"));
            }
            (Some(line), _) => Action::Shell(line.clone()),
            (None, Some(url)) => Action::Webhook(Box::new(self.target(url, session)?)),
            (None, None) if self.command.is_empty() => {
                let what = format!("no command to run for the events of group '{group}'");
                return Err(Failure::usage(what).help(command(verb, format_args!("-g {group} -t 'TYPE' -- CMD ARG…"))));
            }
            (None, None) => Action::Command(self.command.clone()),
        };
        let mut watcher = Watcher::new(group.to_string(), group, action);
        watcher.types.clone_from(&self.types);
        watcher.not.clone_from(&self.not);
        watcher.condition.clone_from(&self.condition);
        watcher.from = self.from.as_deref().map(|text| StartFrom::parse(text, &session.environment)).transpose()?;
        watcher.shards = self.shards;
        watcher.cwd.clone_from(&self.cwd);
        watcher.ordered = self.ordered;
        watcher.history = self.no_history.then_some(KeptHistory::None);
        if let Some(text) = &self.latest {
            let by = LatestKey::parse(text)
                .map_err(|error| Failure::usage(error.to_string().replacen("where", "--latest", 1)))?;
            let settle = self.settle.as_deref().map(times::parse_duration).transpose()?.unwrap_or_default();
            watcher.latest = Some(Latest { by, settle });
            watcher.check_latest().map_err(|why| Failure::usage(format!("--latest {why}")))?;
        }
        self.limits(&mut watcher)?;
        Ok(watcher)
    }

    fn target(&self, url: &str, session: &Session) -> Result<WebhookTarget, Failure> {
        let (environment, folder) = (&session.environment, &session.environment.cwd);
        let refuse = |option: &str, why: &str| Failure::usage(format!("{option} {why}"));
        let url = parse_url(url, environment, folder).map_err(|why| refuse("--url", why))?;
        let mut target = WebhookTarget::new(url);
        let secrets = self.secret.iter().map(|text| parse_secret(text, environment, folder));
        target.secrets = secrets.collect::<Result<_, _>>().map_err(|why| refuse("--secret", why))?;
        if let Some(format) = &self.format {
            target.format = parse_format(format).map_err(|why| refuse("--format", why))?;
        }
        Ok(target)
    }

    fn limits(&self, watcher: &mut Watcher) -> Result<(), Failure> {
        if let Some(concurrency) = self.concurrency {
            if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
                return Err(Failure::usage(format!("-j {concurrency} is not between 1 and {MAX_CONCURRENCY}")));
            }
            watcher.concurrency = concurrency;
        }
        if let Some(size) = self.batch {
            let linger = self.linger.as_deref().map_or(Ok(LINGER), times::parse_duration)?;
            if !(1..=MAX_CONCURRENCY).contains(&size) {
                return Err(Failure::usage(format!("--batch {size} is not between 1 and {MAX_CONCURRENCY}")));
            }
            watcher.batch = Some(BatchSettings { size, linger });
            watcher.capacity().map_err(Failure::usage)?;
            watcher.check_batch().map_err(Failure::usage)?;
        }
        if let Some(timeout) = &self.timeout {
            watcher.timeout = positive("--timeout", timeout)?;
        }
        if let Some(backoff) = &self.backoff {
            (watcher.retry.min, watcher.retry.max) = times::parse_range(backoff)?;
        }
        if let Some(max_attempts) = self.max_attempts {
            if max_attempts == 0 {
                return Err(Failure::usage("--max-attempts 0 would run nothing").help("--max-attempts 1: no retry"));
            }
            watcher.retry.max_attempts = max_attempts;
        }
        let codes = watcher.codes();
        if let Some(code) = self.dead_on.iter().find(|code| !codes.contains(*code)) {
            let what = if self.url.is_some() { "HTTP status" } else { "exit code" };
            let (least, most) = codes.into_inner();
            return Err(Failure::usage(format!("--dead-on {code} is not the {what} of a failure: {least} to {most}")));
        }
        if !self.dead_on.is_empty() {
            watcher.retry.dead_on.clone_from(&self.dead_on);
        }
        Ok(())
    }

    fn configured(&self, session: &Session, verb: &'static str) -> Result<Vec<Watcher>, Failure> {
        if !self.command.is_empty() {
            let what = "a command needs a group, which remembers what it has processed";
            return Err(
                Failure::usage(what).help(command(verb, format_args!("-g GROUP -- {}", self.command.join(" "))))
            );
        }
        let config = session.config()?;
        if !self.names.is_empty() {
            return self.names.iter().map(|name| Ok(config.watcher(name)?.clone())).collect();
        }
        let has_others = !(config.relays.is_empty() && config.schedules.is_empty() && config.sources.is_empty());
        if config.watchers.is_empty() && !has_others {
            let what = "no watchers: there is no config, or it has no [watchers.NAME]";
            return Err(Failure::usage(what).help(command(verb, "-g GROUP -t 'TYPE' -- CMD ARG…")));
        }
        Ok(config.watchers)
    }

    /// Notes on a terminal that --from had no effect, because the group exists: a replay may be
    /// expected.
    pub(in crate::cli) fn note_start(&self, ready: &Ready) {
        let Some(from) = self.from.as_ref().filter(|_| ready.found && !self.quiet && output::notes_on_terminal())
        else {
            return;
        };
        let group = &ready.watcher.group;
        output::note(&format!(
            "group '{group}' goes on where it was: --from is for a new one   {}",
            command("group", format_args!("reset {group} --to '{from}'"))
        ));
    }

    /// The printer for the workers' reports.
    pub(in crate::cli) fn printer(&self, session: &Session, watching: bool) -> Rc<Printer> {
        output::pump::begin();
        Rc::new(Printer::new(self.log, self.quiet, watching, &session.environment, &session.clock))
    }
}
