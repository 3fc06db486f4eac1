//! The manual pages in `man/` must match the command line's definitions. `EVBUS_BLESS=1` writes
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use evbus::cli::exit::Code;

/// Checks that the committed file equals the generated one, or writes it if asked to.
fn check(path: &Path, made: &[u8]) {
    if std::env::var_os("EVBUS_BLESS").is_some() {
        fs::write(path, made).unwrap();
    }
    let committed = fs::read(path).unwrap_or_default();
    assert!(committed == made, "{} is out of date: EVBUS_BLESS=1 cargo test --test manual", path.display());
}

#[test]
fn the_book_has_the_exit_codes_of_the_program() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/operations.md");
    let page = fs::read_to_string(page).unwrap();
    for code in Code::ALL {
        let row = format!("| {} | {} |\n", code as u8, code.meaning());
        assert!(page.contains(&row), "docs/src/operations.md lacks {row}");
    }
}

#[test]
fn the_committed_completions_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/completions");
    for (name, script) in evbus::cli::completions::scripts() {
        check(&folder.join(name), &script);
    }
}

/// The completions that a shell offers for `typed`.
fn offered(program: &str, args: &[&str]) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/man/completions");
    let output = Command::new(program).args(args).env("COMPLETIONS", folder).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is not there ({error}): ./test installs it"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn the_shells_complete_verbs_and_options() {
    let bash = "source $COMPLETIONS/evbus.bash; complete -p evbus >&2; COMP_WORDS=(evbus em); COMP_CWORD=1; \
                _evbus evbus em evbus; echo ${COMPREPLY[@]}; \
                COMP_WORDS=(evbus emit --del); COMP_CWORD=2; _evbus evbus --del emit; echo ${COMPREPLY[@]}";
    let said = offered("bash", &["--norc", "-c", bash]);
    assert!(said.contains("emit\n") && said.contains("--delay"), "{said}");

    let fish = "source $COMPLETIONS/evbus.fish; complete -C 'evbus em'; complete -C 'evbus emit --del'";
    let said = offered("fish", &["--no-config", "-c", fish]);
    assert!(said.contains("emit\t") && said.contains("--delay\t"), "{said}");

    // A second shell on its own terminal asks for the completions.
    let zsh = "zmodload zsh/zpty; zpty z zsh -f -i; \
               zpty -w z \"PS1=; fpath=($COMPLETIONS \\$fpath); autoload -Uz compinit; compinit -D -u; print READY\"; \
               zpty -r -m z line '*READY*READY*'; zpty -w -n z $'evbus emit --del\\t'; \
               zpty -r -m z line '*--delay*'; print -r -- $line";
    let said = offered("zsh", &["-f", "-c", zsh]);
    assert!(said.contains("--delay"), "{said}");
}

const ENVIRONMENT: [(&str, &str); 6] = [
    ("EVBUS_URL", "The bus, unless --bus names it."),
    ("EVBUS_TOKEN", "The token for a bus that is a server: https://bus.example."),
    ("EVBUS_CONFIG", "The config file, unless --config names it."),
    ("EVBUS_LOG", "Further logs, of libraries: debug, or object_store=debug."),
    ("XDG_DATA_HOME", "The folder of the default bus (default: ~/.local/share)."),
    ("NO_COLOR", "If set, output has no colours."),
];

/// All pages: the file name, such as `evbus-emit.1`, and the content.
fn pages() -> Vec<(String, String)> {
    let mut root = evbus::cli::command().disable_help_subcommand(true);
    root.build();
    let mut names = Vec::new();
    collect(&root, "evbus", &mut names);
    let of = |(name, command): &(String, clap::Command)| (format!("{name}.1"), page(command, name, &names));
    names.iter().map(of).collect()
}

/// The name of each page and its command: the verbs, and the verbs of `group` and `dead`.
fn collect(command: &clap::Command, name: &str, names: &mut Vec<(String, clap::Command)>) {
    names.push((name.to_owned(), command.clone()));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        collect(inner, &format!("{name}-{}", inner.get_name()), names);
    }
}

/// The page of one command.
fn page(command: &clap::Command, name: &str, all: &[(String, clap::Command)]) -> String {
    let spoken = name.replace('-', " ");
    let usage = command.clone().bin_name(&spoken).render_usage().to_string();
    let command = command.clone().override_usage(usage.trim_start_matches("Usage:").trim().to_owned()).bin_name(spoken);
    let man = Man::new(command.clone());
    let mut page = b".\\\" Made from the definitions of the command line; see tests/manual.rs.\n".to_vec();
    // The library would leave out the empty date, and with it the place of the rest.
    let title = name.to_uppercase();
    writeln!(page, ".TH {title} 1 \"\" \"evbus {}\" \"evbus manual\"", env!("CARGO_PKG_VERSION")).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page).unwrap();
    }
    let mut rest = Roff::new();
    table(&mut rest, "COMMANDS", &inner_commands(name, all));
    examples(&mut rest, &command);
    let codes = Code::ALL.map(|code| (vec![bold((code as u8).to_string())], code.meaning().to_owned()));
    table(&mut rest, "EXIT STATUS", &codes);
    table(&mut rest, "ENVIRONMENT", &ENVIRONMENT.map(|(name, meaning)| (vec![bold(name)], meaning.to_owned())));
    see_also(&mut rest, name);
    rest.to_writer(&mut page).unwrap();
    // Only groff's own escapes are read alike everywhere (groff_char(7)).
    String::from_utf8(page).unwrap().replace('…', "\\[u2026]")
}

/// The commands right below one, and what each is for.
fn inner_commands(of: &str, all: &[(String, clap::Command)]) -> Vec<(Vec<Inline>, String)> {
    let below = all.iter().filter(|(name, _)| name.rsplit_once('-').is_some_and(|(parent, _)| parent == of));
    let about = |command: &clap::Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    below.map(|(name, command)| (vec![bold(name.clone()), roman("(1)")], about(command))).collect()
}

fn table(roff: &mut Roff, heading: &str, rows: &[(Vec<Inline>, String)]) {
    if rows.is_empty() {
        return;
    }
    roff.control("SH", [heading]);
    for (term, meaning) in rows {
        roff.control("TP", []);
        roff.text(term.clone());
        roff.text([roman(meaning.clone())]);
    }
}

/// The end of a command's `--help`: examples verbatim, then notes.
fn examples(roff: &mut Roff, command: &clap::Command) {
    let Some(after) = command.get_after_help().map(ToString::to_string) else { return };
    let (examples, notes) = after.split_once("\n\n").unwrap_or((&after, ""));
    roff.control("SH", ["EXAMPLES"]);
    roff.control("EX", []);
    for line in examples.lines().filter(|line| *line != "Examples:") {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("EE", []);
    for paragraph in notes.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
}

fn see_also(roff: &mut Roff, name: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let parent = name.rsplit_once('-').map(|(parent, _)| (parent, "1"));
    let others: Vec<_> = parent.into_iter().chain([("evbus.toml", "5"), ("evbus-handler", "7")]).collect();
    for (place, (page, section)) in others.iter().enumerate() {
        let comma = if place + 1 < others.len() { "," } else { "" };
        roff.text([bold(*page), roman(format!("({section}){comma}"))]);
    }
}

#[test]
fn every_page_has_its_sections() {
    let pages = pages();
    assert!(pages.iter().any(|(name, _)| name == "evbus-group-reset.1"));
    for (name, page) in &pages {
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(heading.iter().any(|heading| page.contains(heading)), "{name} has no {section}");
        }
        let title = format!("\n.TH {} 1 \"\" \"evbus ", name.trim_end_matches(".1").to_uppercase());
        assert!(page.contains(&title) && page.is_ascii(), "{name}");
    }
}

#[test]
fn the_committed_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let pages = pages();
    for (name, page) in &pages {
        check(&folder.join(name), page.as_bytes());
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known = !name.ends_with(".1") || pages.iter().any(|(page, _)| *page == name);
        assert!(is_known, "man/{name} is the page of no verb");
    }
}
