//! Adds `--bus` to the commands that a message advises: a command typed with `--bus` must not lead
//! to another bus.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::style;

/// The value of `--bus`, once it is known.
static GIVEN: OnceLock<String> = OnceLock::new();

/// The verbs that work on a bus.
const VERBS: [&str; 12] =
    ["emit", "watch", "drain", "tail", "ls", "get", "cancel", "status", "group", "dead", "prune", "doctor"];

/// Sets the bus that all later advice names.
pub(super) fn about(bus: &str) {
    let _ = GIVEN.set(bus.to_owned());
}

/// Returns the text with the bus in each command that needs it.
pub(super) fn complete(text: &str) -> Cow<'_, str> {
    GIVEN.get().map_or(Cow::Borrowed(text), |bus| naming(text, bus))
}

fn naming<'a>(text: &'a str, bus: &str) -> Cow<'a, str> {
    let mut parts = text.split("evbus ");
    let Some(first) = parts.next() else { return text.into() };
    let plain = bus.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte));
    let bus = if plain { bus.to_owned() } else { style::quoted(bus) };
    let mut named = first.to_owned();
    for part in parts {
        let verb = part.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        named.push_str("evbus ");
        if VERBS.contains(&verb) && !part.contains("--bus ") {
            named.push_str(&format!("--bus {bus} "));
        }
        named.push_str(part);
    }
    named.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_names_the_bus() {
        let is = |text: &str, bus: &str, named: &str| assert_eq!(naming(text, bus), named);
        is("help: evbus dead show g", "./b", "help: evbus --bus ./b dead show g");
        is(
            "evbus drain -g g -- CMD, or evbus watch",
            "/b c",
            "evbus --bus '/b c' drain -g g -- CMD, or evbus --bus '/b c' watch",
        );
        is("evbus init /srv/bus", "./b", "evbus init /srv/bus");
        is("an evbus newer than this", "./b", "an evbus newer than this");
        is("evbus doctor --bus ./c tries again", "./b", "evbus doctor --bus ./c tries again");
        is("no advice", "./b", "no advice");
    }
}
