//! Turns the many lines of a clap error into one line and a cure.

use std::error::Error;
use std::num::ParseIntError;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Failure;
use crate::cli::colour::Colours;
use crate::cli::exit::Code;
use crate::cli::help_line::HelpLine;

/// Words of other tools, and the evbus command for each.
const OTHER_WORDS: [(&[&str], &str); 12] = [
    (&["pause", "stop"], "evbus group pause GROUP"),
    (&["resume", "unpause", "continue"], "evbus group resume GROUP"),
    (&["create", "add"], "evbus group create GROUP -t 'PATTERN'"),
    (&["set"], "evbus group set GROUP -t 'PATTERN'"),
    (&["reset", "rewind", "seek"], "evbus group reset GROUP --to TIME"),
    (&["groups", "consumers", "subscriptions"], "evbus group ls"),
    (&["rm", "remove", "delete"], "evbus group rm GROUP, evbus dead rm GROUP ID, or evbus prune --keep 7d"),
    (&["redrive", "retry", "requeue"], "evbus dead redrive GROUP ID, or --all"),
    (&["publish", "pub", "send", "push", "put", "post"], "evbus emit TYPE [DATA]"),
    (&["subscribe", "sub", "consume", "listen", "run"], "evbus watch -g GROUP -t 'PATTERN' -- CMD"),
    (&["show", "cat", "read"], "evbus get ID, or evbus dead show GROUP"),
    (&["clean", "cleanup", "gc", "purge"], "evbus prune --keep 7d"),
];

impl Failure {
    /// A clap error, or the help or version text that clap returns as one.
    pub(in crate::cli) fn from_clap(error: clap::Error) -> Self {
        let text = error.render().to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let text = Colours::of_stdout().render(&error.render());
                return Self { code: Code::Done, message: text, help: None, verbatim: true, is_temporary: false };
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let text = Colours::of_stderr().render(&error.render());
                return Self { code: Code::Usage, message: text, help: None, verbatim: true, is_temporary: false };
            }
            _ => {}
        }
        // clap's tip about '--' would turn a misspelt flag into an operand.
        let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).filter(|tip| !tip.contains("'-- "));
        let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
        let help = tip.map(str::to_owned).or_else(|| usage.map(|usage| format!("usage: {usage}")));
        let refused = Self { help: help.map(HelpLine::from), ..Self::usage(first_paragraph(&text)) };
        clearer_message(&error, &text, refused)
    }
}

/// clap's message, on one line.
fn first_paragraph(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A clearer message where one is known; `text` is clap's full text.
fn clearer_message(error: &clap::Error, text: &str, refused: Failure) -> Failure {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = named(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = named(ContextKind::InvalidSubcommand).unwrap_or_default();
            let refused = Failure { message: format!("there is no verb '{word}'"), ..refused };
            match OTHER_WORDS.iter().find(|(words, _)| words.contains(&word)) {
                Some((_, ours)) => refused.help(*ours),
                None if word == "version" => refused.help("evbus --version"),
                None => refused,
            }
        }
        // Durations, counts and times have no sign, and clap's advice, '--', would turn one into an
        // operand.
        ErrorKind::UnknownArgument if looks_negative(argument) => Failure::usage(format!(
            "unexpected '{argument}': a value may not begin with '-' (durations, counts and times have no sign)"
        )),
        ErrorKind::UnknownArgument if argument.contains('*') => {
            refused.help(format!("a pattern is given with -t: -t '{argument}'"))
        }
        ErrorKind::UnknownArgument if text.contains("evbus emit") && ["--type", "-t", "--data"].contains(&argument) => {
            refused.help("type and data stand by themselves: evbus emit TYPE [DATA]")
        }
        ErrorKind::ValueValidation if error.source().is_some_and(|source| source.is::<ParseIntError>()) => {
            let value = named(ContextKind::InvalidValue).unwrap_or_default();
            let flag = argument.split(' ').next().unwrap_or_default();
            Failure::usage(format!("{flag} '{value}' is not a whole number from 0 on"))
        }
        ErrorKind::MissingRequiredArgument => {
            let what = refused.message.replacen("the following required arguments were not provided", "missing", 1);
            Failure { message: what, ..refused }
        }
        _ => refused,
    }
}

fn looks_negative(argument: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn refused(line: &str) -> (String, Option<String>) {
        let error = Cli::try_parse_from(std::iter::once("evbus").chain(line.split(' '))).unwrap_err();
        let failure = Failure::from_clap(error);
        assert_eq!(failure.code, Code::Usage, "{line}");
        (failure.message, failure.help.map(|help| help.to_string()))
    }

    #[test]
    fn verbs_of_other_tools_suggest_evbus_commands() {
        let is = |line: &str, help: &str| assert_eq!(refused(line).1.as_deref(), Some(help), "{line}");
        is("pause mail", "evbus group pause GROUP");
        is("redrive mail", "evbus dead redrive GROUP ID, or --all");
        is("publish x", "evbus emit TYPE [DATA]");
        is("version", "evbus --version");
        is("statsu", "a similar subcommand exists: 'status'");
        is("emit --type a", "type and data stand by themselves: evbus emit TYPE [DATA]");
        is("emit a --data {}", "type and data stand by themselves: evbus emit TYPE [DATA]");
        is("ls a.*", "a pattern is given with -t: -t 'a.*'");
        assert!(refused("status --watch").1.unwrap().starts_with("usage: evbus status"));
        assert_eq!(refused("pause mail").0, "there is no verb 'pause'");
    }

    #[test]
    fn every_suggested_command_exists() {
        for (words, ours) in OTHER_WORDS {
            let verb: Vec<&str> = ours.split(' ').skip(1).take(2).collect();
            let known = |name: &str| crate::cli::command().find_subcommand(name).cloned();
            let command = known(verb[0]).unwrap_or_else(|| panic!("{ours}"));
            if command.has_subcommands() {
                assert!(command.find_subcommand(verb[1]).is_some(), "{ours}");
            }
            assert!(words.iter().all(|word| known(word).is_none()), "{words:?}");
        }
    }

    #[test]
    fn an_invalid_number_is_reported() {
        let says = |line: &str, what: &str| assert_eq!(refused(line).0, what, "{line}");
        says("drain -g g --batch abc -- true", "--batch 'abc' is not a whole number from 0 on");
        says("status --max-dead x", "--max-dead 'x' is not a whole number from 0 on");
        let sign = "a value may not begin with '-' (durations, counts and times have no sign)";
        assert_eq!(refused("emit a --delay -5m"), (format!("unexpected '-5': {sign}"), None));
        says("group create g --shards 257", "invalid value '257' for '--shards <N>': 257 is not in 1..=256");
    }

    #[test]
    fn a_missing_argument_is_named() {
        let (what, help) = refused("dead show");
        assert_eq!(what, "missing: <GROUP>");
        assert!(help.unwrap().starts_with("usage: evbus dead show <GROUP>"));
        assert_eq!(refused("drain -g g --linger 1s -- true").0, "missing: --batch <N>");
    }
}
