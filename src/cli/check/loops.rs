//! Handlers that emit what they want themselves, as far as their commands show it.

use crate::config::Watcher;
use crate::event::Filter;

/// The types that a watcher's command emits and that the watcher wants: each run would cause another.
pub(super) fn own_types(watcher: &Watcher, filter: &Filter) -> Vec<String> {
    let command = watcher.action.argv().unwrap_or_default().join(" ");
    emitted(&command).into_iter().filter(|type_| filter.types.matches(type_)).map(str::to_owned).collect()
}

/// The types after `evbus emit` in a command.
fn emitted(command: &str) -> Vec<&str> {
    let is_between = |c: char| c.is_whitespace() || ";|&()'\"`".contains(c);
    let words: Vec<&str> = command.split(is_between).filter(|word| !word.is_empty()).collect();
    words
        .windows(3)
        .filter(|words| words[0].ends_with("evbus") || words[0] == "$EVBUS")
        .filter(|words| words[1] == "emit" && !words[2].starts_with(['-', '$']))
        .map(|words| words[2])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitted_types_are_read_off_a_command() {
        let of = emitted;
        assert_eq!(
            of("x && /usr/bin/evbus emit order.paid '{}'; evbus emit \"mail.sent\""),
            ["order.paid", "mail.sent"]
        );
        assert_eq!(of("evbus emit --ndjson; evbus emit $TYPE; evbus ls order; emit x"), Vec::<&str>::new());
    }
}
