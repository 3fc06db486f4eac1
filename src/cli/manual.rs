//! The manual pages, made from the command line's definition, in man(7) roff.

use std::fmt::Write;

use clap::{Arg, Command};

/// The last section of every page.
const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "Success, also if there was nothing to do or the reader closed the pipe."),
    ("1", "Failure."),
    ("2", "Wrong usage or config."),
    ("3", "A threshold was crossed: drain --strict, status --max-lag, status --max-dead."),
    ("75", "Try again later: the store cannot be reached or did not answer in time, or no process is available."),
];

const ENVIRONMENT: [(&str, &str); 5] = [
    ("EVBUS_URL", "The bus, unless --bus names it."),
    ("EVBUS_CONFIG", "The config file, unless --config names it."),
    ("EVBUS_LOG", "Further logs, of libraries: debug, or object_store=debug."),
    ("XDG_DATA_HOME", "The folder of the default bus (default: ~/.local/share)."),
    ("NO_COLOR", "If set, output has no colours."),
];

/// All pages: the file name, such as `evbus-emit.1`, and the content.
pub fn pages() -> Vec<(String, String)> {
    let mut root = super::command();
    root.build();
    let verbs: Vec<Command> = root.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let mut pages = vec![("evbus.1".to_owned(), page(&root, "evbus", &verbs))];
    for verb in &verbs {
        let name = format!("evbus-{}", verb.get_name());
        pages.push((format!("{name}.1"), page(verb, &name, &verbs)));
    }
    pages
}

fn page(command: &Command, name: &str, verbs: &[Command]) -> String {
    let mut page = String::from(".\\\" Made from the definitions of the command line; see src/cli/manual.rs.\n");
    let _ =
        writeln!(page, ".TH {} 1 \"\" \"evbus {}\" \"evbus manual\"", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, ".SH NAME\n{name} \\- {}", text(&about));
    page.push_str(".SH SYNOPSIS\n");
    synopsis(&mut page, command, &name.replace('-', " "));
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let described = long.split_once("\n\n").map_or(about.as_str(), |(_, rest)| rest);
    page.push_str(".SH DESCRIPTION\n");
    paragraphs(&mut page, described);
    if name == "evbus" {
        page.push_str(".SH VERBS\n");
        for verb in verbs {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(page, ".TP\n.BR evbus\\-{} (1)\n{}", text(verb.get_name()), text(&about));
        }
    }
    let inner: Vec<&Command> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
    if name != "evbus" && !inner.is_empty() {
        page.push_str(".SH COMMANDS\n");
        inner.into_iter().for_each(|inner| inner_command(&mut page, inner, name));
    }
    options(&mut page, ".SH OPTIONS\n", command);
    endings(&mut page, command, name, verbs);
    page
}

/// A subcommand of a command, such as `group reset`.
fn inner_command(page: &mut String, command: &Command, of: &str) {
    let whole = format!("{} {}", of.replace('-', " "), command.get_name());
    let _ = writeln!(page, ".SS {}", text(&whole));
    synopsis(page, command, &whole);
    page.push_str(".PP\n");
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    paragraphs(page, &about);
    options(page, "", command);
    examples(page, command, ".PP\n");
}

fn synopsis(page: &mut String, command: &Command, name: &str) {
    let usage = command.clone().bin_name(name.to_owned()).render_usage().to_string();
    for line in usage.lines() {
        let line = line.trim().trim_start_matches("Usage:").trim();
        let rest = line.strip_prefix(name).unwrap_or(line);
        let _ = writeln!(page, ".B {}\n{}", text(name), text(rest.trim()));
    }
}

fn options(page: &mut String, heading: &str, command: &Command) {
    let own = |argument: &&Arg| !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str());
    let is_shown = |argument: &&Arg| heading.starts_with(".SH") || !argument.is_global_set();
    let arguments: Vec<&Arg> = command.get_arguments().filter(own).filter(is_shown).collect();
    if !arguments.is_empty() {
        page.push_str(heading);
    }
    for argument in arguments {
        let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, ".TP\n{}\n{}", label(argument), text(&help));
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if argument.get_action().takes_values() && !argument.is_hide_default_value_set() && !defaults.is_empty() {
            let _ = writeln!(page, "[default: {}]", text(&defaults.join(" ")));
        }
    }
}

/// `-t, --type PATTERN`.
fn label(argument: &Arg) -> String {
    let names: Vec<String> = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| names.iter().map(|name| format!("\\fI{}\\fR", text(name))).collect())
        .unwrap_or_default();
    let short = argument.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = argument.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", text(long)));
    let flags: Vec<String> = short.into_iter().chain(long).collect();
    [flags.join(", "), names.join(" ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn endings(page: &mut String, command: &Command, name: &str, verbs: &[Command]) {
    examples(page, command, ".SH EXAMPLES\n");
    let table = |page: &mut String, heading: &str, rows: &[(&str, &str)]| {
        let _ = writeln!(page, ".SH {heading}");
        for (term, meaning) in rows {
            let _ = writeln!(page, ".TP\n.B {term}\n{}", text(meaning));
        }
    };
    table(page, "EXIT STATUS", &EXIT_STATUS);
    table(page, "ENVIRONMENT", &ENVIRONMENT);
    page.push_str(".SH SEE ALSO\n");
    let mut others: Vec<String> = Vec::new();
    if name != "evbus" {
        others.push(".BR evbus (1)".to_owned());
    } else {
        others.extend(verbs.iter().map(|verb| format!(".BR evbus\\-{} (1)", text(verb.get_name()))));
    }
    others.extend([".BR evbus.toml (5)".to_owned(), ".BR evbus\\-handler (7)".to_owned()]);
    let _ = writeln!(page, "{}", others.join(",\n"));
}

/// The end of a command's `--help`: examples verbatim, then notes.
fn examples(page: &mut String, command: &Command, heading: &str) {
    let Some(after) = command.get_after_help().map(ToString::to_string) else { return };
    let (examples, notes) = after.split_once("\n\n").unwrap_or((&after, ""));
    page.push_str(heading);
    page.push_str(".EX\n");
    for line in examples.lines().filter(|line| *line != "Examples:") {
        let _ = writeln!(page, "{}", text(line.strip_prefix("  ").unwrap_or(line)));
    }
    page.push_str(".EE\n");
    if !notes.is_empty() {
        page.push_str(".PP\n");
        paragraphs(page, notes);
    }
}

fn paragraphs(page: &mut String, prose: &str) {
    for (place, paragraph) in prose.split("\n\n").enumerate() {
        if place > 0 {
            page.push_str(".PP\n");
        }
        for line in paragraph.lines() {
            let _ = writeln!(page, "{}", text(line.trim()));
        }
    }
}

/// Escapes text so that roff prints it unchanged (groff_char(7)).
fn text(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len() + 8);
    for c in plain.chars() {
        match c {
            '\\' => safe.push_str("\\e"),
            '-' => safe.push_str("\\-"),
            '\'' => safe.push_str("\\(aq"),
            '`' => safe.push_str("\\(ga"),
            '^' => safe.push_str("\\(ha"),
            '~' => safe.push_str("\\(ti"),
            '"' => safe.push_str("\\(dq"),
            '…' => safe.push_str("..."),
            c => safe.push(c),
        }
    }
    if safe.starts_with('.') { format!("\\&{safe}") } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_for_roff() {
        assert_eq!(text("./x 'a' -b ~"), "\\&./x \\(aqa\\(aq \\-b \\(ti");
        assert_eq!(text("'x"), "\\(aqx");
        assert_eq!(text("a\\b"), "a\\eb");
    }

    #[test]
    fn every_verb_has_a_page_with_examples() {
        let pages = pages();
        assert!(pages.iter().any(|(name, _)| name == "evbus-group.1"));
        for (name, page) in &pages {
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
                assert!(page.contains(&format!(".SH {section}\n")), "{name} has no {section}");
            }
            assert!(page.contains(".EX\nevbus ") || page.contains("evbus "), "{name}");
        }
    }
}
