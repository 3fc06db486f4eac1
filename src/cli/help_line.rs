//! Help lines for the details of store, config and program errors; a command sets its own with
//! `Failure::help`.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::sync::OnceLock;

use super::style;

mod config;
mod program;
pub(super) mod store;

pub(super) use program::obstacle_text;

/// The value of `--bus`, which every command in a help line repeats: without it, a command that is
/// typed after it would work on another bus.
static BUS: OnceLock<String> = OnceLock::new();

/// The verbs that take no bus, or name it themselves.
const WITHOUT_BUS: [&str; 3] = ["check", "completions", "init"];

/// One part of a help line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HelpPart {
    /// A command of evbus.
    Command {
        /// Its verb.
        verb: &'static str,
        /// The rest of the line, quoted for a shell where that is needed.
        args: String,
    },
    /// Anything else.
    Text(Cow<'static, str>),
}

/// Sets the bus that all commands in help lines name.
pub(super) fn name_bus(bus: &str) {
    // A help line may end up in a mail or a log.
    let bus = &*crate::config::without_password(bus);
    let plain = bus.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte));
    let _ = BUS.set(if plain { bus.to_owned() } else { style::quoted(bus) });
}

/// The command `evbus VERB ARGS`.
pub(super) fn command(verb: &'static str, args: impl Display) -> HelpPart {
    HelpPart::Command { verb, args: args.to_string() }
}

/// Text without a command.
pub(super) fn text(text: impl Into<Cow<'static, str>>) -> HelpPart {
    HelpPart::Text(text.into())
}

impl HelpPart {
    fn write(&self, f: &mut Formatter<'_>, bus: Option<&str>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Command { verb, args } => {
                f.write_str("evbus ")?;
                if let Some(bus) = bus.filter(|_| !WITHOUT_BUS.contains(verb)) {
                    write!(f, "--bus {bus} ")?;
                }
                f.write_str(verb)?;
                if args.is_empty() { Ok(()) } else { write!(f, " {args}") }
            }
        }
    }
}

impl Display for HelpPart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, BUS.get().map(String::as_str))
    }
}

/// The text after `help:`: its parts, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HelpLine(Vec<HelpPart>);

impl Display for HelpLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|help| help.fmt(f))
    }
}

impl From<&'static str> for HelpLine {
    fn from(words: &'static str) -> Self {
        text(words).into()
    }
}

impl From<String> for HelpLine {
    fn from(words: String) -> Self {
        text(words).into()
    }
}

impl From<HelpPart> for HelpLine {
    fn from(help: HelpPart) -> Self {
        Self(vec![help])
    }
}

impl<const N: usize> From<[HelpPart; N]> for HelpLine {
    fn from(help: [HelpPart; N]) -> Self {
        Self(help.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_on_a_bus_names_the_bus() {
        struct On(HelpPart, &'static str);
        impl Display for On {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.0.write(f, Some(self.1))
            }
        }
        let shown = |help, bus| On(help, bus).to_string();
        assert_eq!(shown(command("dead", "show g"), "./b"), "evbus --bus ./b dead show g");
        assert_eq!(shown(command("watch", ""), "'/b c'"), "evbus --bus '/b c' watch");
        assert_eq!(shown(command("init", "/srv/bus"), "./b"), "evbus init /srv/bus");
        assert_eq!(shown(text("an evbus newer than this"), "./b"), "an evbus newer than this");
    }

    #[test]
    fn the_parts_of_a_help_line_follow_each_other() {
        let help = HelpLine::from([text("make room, or: "), command("prune", "--keep 7d")]);
        assert_eq!(help.to_string(), "make room, or: evbus prune --keep 7d");
    }
}
