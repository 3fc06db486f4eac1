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
use std::path::Path;
use std::process::{Command, Stdio};

/// Checks that the committed file equals the generated one, or writes it if asked to.
fn check(path: &Path, made: &[u8]) {
    if std::env::var_os("EVBUS_BLESS").is_some() {
        fs::write(path, made).unwrap();
    }
    let committed = fs::read(path).unwrap_or_default();
    assert!(committed == made, "{} is out of date: EVBUS_BLESS=1 cargo test --test manual", path.display());
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

#[test]
fn the_committed_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let pages = evbus::cli::manual::pages();
    for (name, page) in &pages {
        check(&folder.join(name), page.as_bytes());
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known = !name.ends_with(".1") || pages.iter().any(|(page, _)| *page == name);
        assert!(is_known, "man/{name} is the page of no verb");
    }
}
