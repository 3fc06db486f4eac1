//! `evbus source`: each file that arrives in a folder becomes an event.

use std::ffi::OsString;

use tokio::sync::watch;

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::session::{Needs, Session, block_on};
use super::sources;
use super::style;
use super::times;
use super::watchers;
use crate::config::{Environment, SOURCE_TYPE, after_of, place_of};
use crate::event::odd_type;
use crate::group::GroupName;
use crate::group::worker::Stop;
use crate::source::{After, Change, Patterns, Place, SETTLE, Source};
use crate::store::dir::{Durability, Execution};

/// Emit an event for each file that has finished arriving in a folder, or in a bucket
///
/// A file has arrived once its writer has closed it, or it was moved in; where that is not told, once it has
/// stood still. Each version of a file is emitted once, whatever is restarted and however many hosts look.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus source /srv/inbox                            # file.arrived, with data.path, until stopped
  evbus source /srv/inbox -t scan.arrived --match '*.pdf' --recursive
  evbus source /srv/inbox --once                     # from cron
  evbus source /srv/inbox --after move:/srv/done -g ocr
  evbus source s3://bucket/incoming -t upload.arrived

Names that programs give to files they are still writing are passed over: .*, *~, *.part, *.tmp and
the like. Handlers get the file's path as EVBUS_PATH. In a config: [sources.NAME], see
evbus.toml(5).")]
pub(super) struct SourceArgs {
    /// The folder, or the URL of a place in a bucket
    #[arg(value_name = "FOLDER")]
    folder: OsString,
    /// The events' type
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = SOURCE_TYPE)]
    type_: String,
    /// Only files that match, in the syntax of gitignore(5)
    #[arg(long = "match", value_name = "PATTERN")]
    wanted: Vec<String>,
    /// Not files that match; !PATTERN takes back an earlier one
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,
    /// Look into the folders below it, too
    #[arg(short, long)]
    recursive: bool,
    /// How long a file must stand still whose writer does not tell [default: 2s]
    #[arg(long, value_name = "DURATION")]
    settle: Option<String>,
    /// Look through it as often, and do not rely on what the kernel tells
    #[arg(long, value_name = "DURATION", conflicts_with = "once")]
    poll: Option<String>,
    /// Know a version by its content: what is written once more is no other
    #[arg(long)]
    sha256: bool,
    /// Which changes become events: arrived, changed, removed [default: arrived]
    #[arg(long, value_name = "CHANGES", value_delimiter = ',')]
    events: Vec<String>,
    /// What is done with a file once the groups are done with its event: leave, delete, move:FOLDER
    #[arg(long, value_name = "WHAT", requires = "group")]
    after: Option<String>,
    /// A group that must be done with the event before
    #[arg(short, long, value_name = "GROUP", requires = "after")]
    group: Vec<String>,
    /// The source's name, by which what was emitted is known [default: made of the folder's path]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Emit what is there, then end
    #[arg(long)]
    once: bool,
    /// Print no summary
    #[arg(short, long)]
    quiet: bool,
}

/// A name for a folder that has none: its path, with what a name cannot hold replaced.
fn name_of(place: &Place) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let text: String = place.to_string().chars().map(plain).collect();
    let words: Vec<&str> = text.split('-').filter(|word| !word.is_empty()).collect();
    let name = words.join("-");
    // The end tells most.
    let from = name.len().saturating_sub(60);
    name.get(from..).unwrap_or_default().trim_matches(['-', '.']).to_owned()
}

impl SourceArgs {
    fn source(&self, environment: &Environment) -> Result<Source, Failure> {
        let place = place_of(&self.folder, environment, &environment.cwd).map_err(Failure::usage)?;
        let is_bucket = matches!(place, Place::Bucket(..));
        let duration = |flag: &str, text: &Option<String>| {
            let duration = text.as_deref().map(times::parse_duration).transpose()?;
            match duration.filter(std::time::Duration::is_zero) {
                Some(_) => Err(Failure::usage(format!("{flag} must be longer than 0s"))),
                None => Ok(duration),
            }
        };
        if let Some(what) = odd_type(&self.type_) {
            return Err(Failure::usage(format!("--type '{}' {what}, so no pattern could name it", self.type_)));
        }
        let change = |text: &String| {
            let known = Change::ALL.into_iter().find(|change| change.as_str() == text);
            known.ok_or_else(|| Failure::usage(format!("--events '{text}' is none of arrived, changed and removed")))
        };
        let changes = match self.events.is_empty() {
            true => vec![Change::Arrived],
            false => self.events.iter().map(change).collect::<Result<_, _>>()?,
        };
        let after = self.after.as_deref().map(|text| after_of(text, is_bucket, environment, &environment.cwd));
        let group = |text: &String| GroupName::parse(text).map_err(|error| Failure::usage(error.to_string()));
        let name = self.name.clone().unwrap_or_else(|| name_of(&place));
        GroupName::parse(&name).map_err(|error| Failure::usage(error.to_string().replace("group name", "--name")))?;
        let source = Source {
            name,
            place,
            type_: self.type_.clone(),
            changes,
            patterns: Patterns::new(self.wanted.clone(), self.ignore.clone()).map_err(Failure::usage)?,
            recursive: self.recursive || is_bucket,
            settle: duration("--settle", &self.settle)?.unwrap_or(SETTLE),
            poll: duration("--poll", &self.poll)?,
            sha256: self.sha256,
            after: after
                .transpose()
                .map_err(|error| Failure::usage(format!("--after {error}")))?
                .unwrap_or(After::Leave),
            groups: self.group.iter().map(group).collect::<Result<_, _>>()?,
        };
        source.validate().map_err(|(setting, error)| Failure::usage(format!("--{setting} {error}")))?;
        Ok(source)
    }
}

pub(super) fn run(args: SourceArgs, session: Session) -> Result<Code, Failure> {
    let source = args.source(&session.environment)?;
    block_on(Needs::Everything, async {
        let opened = session.open_at(session.address()?, Execution::Threaded, Durability::Full).await?;
        sources::refuse_bus(&source, &opened.address)?;
        if args.once {
            let (mut runner, pass) = sources::once(&source, &opened, &session).await?;
            let all_well = sources::end_all(std::slice::from_mut(&mut runner)).await;
            opened.bus_handle().store.send_hints().await;
            if !args.quiet {
                output::note(&format!("{} to {}", style::plural(pass.emitted, "event"), opened.address));
            }
            return Ok(if all_well { Code::Done } else { Code::Failed });
        }
        if !args.quiet {
            output::note(&format!("emitting {} for files in {} to {}", source.type_, source.place, opened.address));
        }
        let (stop, stopped) = watch::channel(Stop::No);
        let emitted = tokio::select! { biased;
            emitted = sources::follow(&source, &opened, &session, stopped) => emitted,
            failure = watchers::on_signals(stop) => {
                failure?;
                return Ok(Code::Done);
            }
        };
        opened.bus_handle().store.send_hints().await;
        if !args.quiet {
            output::note(&format!("{} to {}", style::plural(emitted, "event"), opened.address));
        }
        Ok(Code::Done)
    })
}
