//! Handlers that emit what they want themselves, as far as their commands show it.

use crate::config::Watcher;
use crate::event::Filter;

/// The types that a watcher's command emits and that the watcher wants: each run would cause another.
pub(super) fn own_types(watcher: &Watcher, filter: &Filter) -> Vec<String> {
    let command = watcher.action.argv().unwrap_or_default().join(" ");
    emitted(&command).into_iter().filter(|type_| filter.types.matches(type_)).collect()
}

/// The types after `evbus emit` in a command of a shell.
fn emitted(command: &str) -> Vec<String> {
    let evbus = crate::cli::command();
    let emit = evbus.find_subcommand("emit");
    let argument_of = |word: &str, of: Option<&clap::Command>| {
        let is_meant = |argument: &&clap::Arg| match word.strip_prefix("--") {
            Some(long) => argument.get_long() == Some(long),
            // Of flags in one word the last may have a value.
            None => argument.get_short().is_some_and(|short| word.ends_with(short)),
        };
        let argument = of.and_then(|of| of.get_arguments().find(is_meant)).cloned();
        argument.filter(|argument| argument.get_action().takes_values())
    };
    let mut types = Vec::new();
    for words in commands(command) {
        let is_evbus = |word: &String| word.ends_with("evbus") || word == "$EVBUS" || word == "${EVBUS}";
        let Some(at) = words.iter().position(is_evbus) else { continue };
        if words[..at].iter().any(|word| ["echo", "printf"].contains(&&**word)) {
            continue;
        }
        let (mut rest, mut of) = (words[at + 1..].iter().peekable(), Some(&evbus));
        while let Some(word) = rest.next() {
            match word.as_str() {
                option if option.starts_with('-') => {
                    if let Some(argument) = argument_of(option, of) {
                        let is_optional = argument.get_num_args().is_some_and(|values| values.min_values() == 0);
                        // As the command line takes it: see `EmitArgs::take_type_from_ndjson`.
                        rest.next_if(|value| !is_optional || value.starts_with('@'));
                    }
                }
                "emit" if of.is_some_and(|of| of.get_name() == "evbus") => of = emit,
                other => {
                    let is_type = of.is_some_and(|of| of.get_name() == "emit") && !other.contains('$');
                    types.extend(is_type.then(|| other.to_owned()));
                    break;
                }
            }
        }
    }
    types
}

/// The words of the commands in a shell's text, without their quotes; about, and no more is needed for a warning.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    // The quotes around commands that stand in another one's words.
    let mut outer = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('(', None | Some('"')) | (')' | ';' | '|' | '&' | '\n' | '`', None) | ('`', Some('"')) => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
                match c {
                    '(' => outer.push(quote.take()),
                    ')' => quote = outer.pop().flatten(),
                    _ => quote = None,
                }
            }
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            ('\\', None) => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitted_types_are_read_off_a_command() {
        for (command, types) in [
            ("x && /usr/bin/evbus emit order.paid '{}'; evbus emit \"mail.sent\"", &["order.paid", "mail.sent"][..]),
            ("evbus emit --ndjson; evbus emit $TYPE; evbus ls order; emit x", &[]),
            ("x=$(evbus emit ping); if a; then evbus emit pong; fi", &["ping", "pong"]),
            ("say \"$(evbus emit ping)\" `evbus emit pong`", &["ping", "pong"]),
            ("evbus emit -q ping; evbus emit --subject \"a b\" ping", &["ping", "ping"]),
            ("evbus emit --subject=x -qf k=v --key k q.r", &["q.r"]),
            ("evbus --bus $EVBUS_URL emit \\\n  --if-exists ok img.done", &["img.done"]),
            ("seq 3 | evbus emit --ndjson img.z", &["img.z"]),
            ("echo evbus emit q.r", &[]),
            ("$EVBUS emit a.b '{\"x\": \"evbus emit c.d\"}'", &["a.b"]),
        ] {
            assert_eq!(emitted(command), types, "{command}");
        }
    }
}
