//! Reads the plain forms of `emit` without clap: to build the parser takes longer than to write the
//! event's file, and scripts use these forms. Every other form is left to clap; the tests compare
//! both.

use std::ffi::OsString;

use super::args::{EmitArgs, FULL, TIMEOUT};

/// Reads `[--bus BUS] emit TYPE [DATA] [-q] [-f K=V]… [-F K=JSON]…` into the bus and the arguments;
/// none for any other form.
pub(in crate::cli) fn plain(args: impl IntoIterator<Item = OsString>) -> Option<(Option<OsString>, EmitArgs)> {
    let mut args = args.into_iter();
    let mut bus = None;
    let mut first = args.next()?;
    if first == "--bus" {
        bus = Some(args.next().filter(|bus| !bus.is_empty() && !bus.as_encoded_bytes().starts_with(b"-"))?);
        first = args.next()?;
    }
    if first != "emit" {
        return None;
    }
    let mut plain = EmitArgs { timeout: TIMEOUT.to_owned(), durability: FULL.to_owned(), ..EmitArgs::default() };
    while let Some(arg) = args.next() {
        let arg = arg.into_string().ok()?;
        let mut value = || args.next()?.into_string().ok().filter(|value| !value.starts_with('-'));
        match &*arg {
            "-q" if !plain.quiet => plain.quiet = true,
            "-f" => plain.string_field.push(value()?),
            "-F" => plain.json_field.push(value()?),
            _ if arg.starts_with('-') => return None,
            _ if plain.type_.is_none() => plain.type_ = Some(arg),
            _ if plain.data.is_none() => plain.data = Some(arg),
            _ => return None,
        }
    }
    Some((bus, plain))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;
    use crate::cli::{Cli, Verb};

    const WORDS: [&str; 16] = [
        "emit",
        "--bus",
        "--bus=/b",
        "/b",
        "order.created",
        "{\"a\":1}",
        "-q",
        "-f",
        "-F",
        "k=v",
        "n=-1",
        "-1",
        "-",
        "--",
        "",
        "--id",
    ];

    /// The result of clap: the bus and the arguments of an emit; none for anything else.
    fn parsed(args: &[&str]) -> Option<String> {
        let cli = Cli::try_parse_from(std::iter::once("evbus").chain(args.iter().copied())).ok()?;
        match cli.verb {
            Verb::Emit(args) => Some(format!("{:?} {args:?}", cli.bus.bus)),
            _ => None,
        }
    }

    fn read(args: &[&str]) -> Option<String> {
        plain(args.iter().map(OsString::from)).map(|(bus, args)| format!("{bus:?} {args:?}"))
    }

    #[test]
    fn common_command_lines_are_plain() {
        for line in [
            "emit order.created {} -q",
            "--bus /b emit order.created {}",
            "emit backup.done -F rc=0 -f host=db1",
            "emit backup.done",
        ] {
            let args: Vec<&str> = line.split(' ').collect();
            assert!(read(&args).is_some(), "{line}");
            assert_eq!(read(&args), parsed(&args), "{line}");
        }
        assert!(read(&["emit", "t", "--id", "x"]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_plain_line_reads_as_the_parser_does(args in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..7)) {
            for args in [args.clone(), [vec!["emit"], args.clone()].concat(), [vec!["--bus", "/b", "emit"], args].concat()] {
                if let Some(read) = read(&args) {
                    prop_assert_eq!(Some(read), parsed(&args), "{:?}", args);
                }
            }
        }
    }
}
