//! Colours, where the terminal has them and NO_COLOR does not forbid them.

use std::fmt::Display;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use clap::builder::StyledStr;

/// Success, or nothing to do.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Something to look at.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Something to repair.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something that was asked for, or may be typed.
pub(super) const NOTE: Style = AnsiColor::Cyan.on_default();

/// Whether a stream has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours(bool);

impl Colours {
    /// None, whatever the terminal.
    #[cfg(test)]
    pub(super) const NONE: Self = Self(false);

    /// Of stdout.
    pub(super) fn of_stdout() -> Self {
        Self(io::stdout().is_terminal() && are_wanted())
    }

    /// Of stderr.
    pub(super) fn of_stderr() -> Self {
        Self(io::stderr().is_terminal() && are_wanted())
    }

    /// A text of clap's.
    pub(super) fn render(self, text: &StyledStr) -> String {
        if self.0 { text.ansi().to_string() } else { text.to_string() }
    }

    /// Text in a colour, or plain.
    pub(super) fn paint(self, style: Style, text: impl Display) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Whether the user and the terminal want colours (no-color.org; term(7)).
fn are_wanted() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_painted_only_where_there_are_colours() {
        assert_eq!(Colours(true).paint(BAD, "x"), "\u{1b}[1m\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Colours::NONE.paint(BAD, "x"), "x");
    }
}
