//! The command line: one file per verb, with a folder where it is long: its arguments
//! and its function.
//!
//! Arguments are parsed first; [`session`] resolves environment, config and bus once; [`output`]
//! prints everything; [`failure`] turns every failure into an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod cancel;
mod check;
mod colour;
pub mod completions;
mod copy;
mod cost;
mod dead;
mod doctor;
mod drain;
mod emit;
pub mod exit;
mod failure;
mod get;
mod group;
mod help_line;
mod history;
mod init;
mod ls;
mod output;
mod progress;
mod prometheus;
mod prune;
mod relay;
mod relays;
mod replay;
mod reporter;
mod schedules;
mod serve;
mod service;
mod session;
mod source;
mod sources;
mod status;
pub mod style;
mod tail;
pub mod times;
mod trial;
mod upgrade;
mod watch;
mod watchers;

use crate::handler::ORPHAN_REAPER_ARGUMENT;
use failure::Failure;
use reporter::{EVBUS_LOG, LogFormat, begin};
use session::{BusArgs, Session};

/// An event bus without a broker: events are files in a directory, objects in a bucket, or rows in a database.
#[derive(Debug, Parser)]
#[command(name = "evbus", version, disable_help_subcommand = true, propagate_version = false)]
#[command(after_help = "\
Examples:
  evbus init /srv/bus
  evbus emit backup.done -F rc=0 -f host=db1
  evbus watch -g mail -t 'order.*' -- ./send-mail
  evbus status

The bus is --bus, else EVBUS_URL, else the config's [bus] url, else ~/.local/share/evbus.")]
pub struct Cli {
    #[command(flatten)]
    bus: BusArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::InitArgs),
    Emit(Box<emit::EmitArgs>),
    Watch(Box<watch::WatchArgs>),
    Drain(Box<drain::DrainArgs>),
    Serve(serve::ServeArgs),
    Tail(tail::TailArgs),
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Get(get::GetArgs),
    Cancel(cancel::CancelArgs),
    Status(status::StatusArgs),
    Group(group::GroupArgs),
    History(history::HistoryArgs),
    #[command(alias = "dlq")]
    Dead(dead::DeadArgs),
    Prune(prune::PruneArgs),
    Replay(replay::ReplayArgs),
    Relay(relay::RelayArgs),
    Source(Box<source::SourceArgs>),
    Copy(copy::CopyArgs),
    Doctor(doctor::DoctorArgs),
    Upgrade(upgrade::UpgradeArgs),
    Check(check::CheckArgs),
    Completions(completions::CompletionsArgs),
}

/// The command line with `emit` alone. Scripts run it for every event, and to define all commands
/// takes longer than to emit.
#[derive(Debug, Parser)]
#[command(name = "evbus")]
struct EmitOnly {
    #[command(flatten)]
    bus: BusArgs,
    #[command(subcommand)]
    verb: EmitVerb,
}

#[derive(Debug, Subcommand)]
enum EmitVerb {
    Emit(Box<emit::EmitArgs>),
}

/// The definition of the command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs evbus with the process's arguments.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ORPHAN_REAPER_ARGUMENT) {
        return crate::handler::orphan_reaper_main();
    }
    let answer = parse().and_then(|cli| run(cli.verb, Session::new(cli.bus)));
    let code = answer.unwrap_or_else(Failure::report);
    output::pump::flush_all();
    code.into()
}

fn parse() -> Result<Cli, Failure> {
    if let Some((bus, args)) = emit::plain(std::env::args_os().skip(1)) {
        return Ok(Cli { bus: BusArgs { bus, config: None }, verb: Verb::Emit(Box::new(args)) });
    }
    let emits = std::env::args_os().skip(1).take(3).any(|argument| argument == "emit");
    // Anything else that mentions emit, such as a call for help, needs the full definition.
    if let Some(Ok(EmitOnly { bus, verb: EmitVerb::Emit(args) })) = emits.then(EmitOnly::try_parse) {
        return Ok(Cli { bus, verb: Verb::Emit(args) });
    }
    let mut args: Vec<OsString> = std::env::args_os().collect();
    // `evbus help emit` is `evbus emit --help`.
    if args.get(1).is_some_and(|argument| argument == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    let matches = Cli::command().try_get_matches_from(args).map_err(Failure::from_clap)?;
    Cli::from_arg_matches(&matches).map_err(Failure::from_clap)
}

fn run(verb: Verb, session: Session) -> Result<exit::Code, Failure> {
    let selected = session.environment.var(EVBUS_LOG);
    // Commands that run handlers always log, in the format of a flag.
    let format = match &verb {
        Verb::Watch(args) => Some(args.run.log),
        Verb::Drain(args) => Some(args.run.log),
        Verb::Serve(_) => Some(LogFormat::Human),
        _ => selected.map(|_| LogFormat::Human),
    };
    if let Some(format) = format {
        begin(format, selected.and_then(|selected| selected.to_str()))?;
    }
    match verb {
        Verb::Init(args) => init::run(args, session),
        Verb::Emit(args) => emit::run(*args, session),
        Verb::Watch(args) => watch::run(*args, session),
        Verb::Drain(args) => drain::run(*args, session),
        Verb::Serve(args) => serve::run(args, session),
        Verb::Tail(args) => tail::run(args, session),
        Verb::Ls(args) => ls::run(args, session),
        Verb::Get(args) => get::run(args, session),
        Verb::Cancel(args) => cancel::run(args, session),
        Verb::Status(args) => status::run(args, session),
        Verb::History(args) => history::run(args, session),
        Verb::Group(args) => group::run(args, session),
        Verb::Dead(args) => dead::run(args, session),
        Verb::Prune(args) => prune::run(args, session),
        Verb::Replay(args) => replay::run(args, session),
        Verb::Relay(args) => relay::run(args, session),
        Verb::Source(args) => source::run(*args, session),
        Verb::Copy(args) => copy::run(args, session),
        Verb::Doctor(args) => doctor::run(args, session),
        Verb::Upgrade(args) => upgrade::run(args, session),
        Verb::Check(args) => check::run(args, session),
        Verb::Completions(args) => completions::run(args),
    }
}
