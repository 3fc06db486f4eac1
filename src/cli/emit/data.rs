//! Builds the data of one event from the arguments.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::args::EmitArgs;
use super::source;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::config::Environment;
use crate::event::Data;

/// The data and its media type.
pub(super) fn from_args(
    args: &EmitArgs,
    environment: &Environment,
    limit: usize,
) -> Result<(Data, Option<&'static str>), Failure> {
    if let Some(source) = &args.binary {
        if source != "-" && !source.starts_with('@') {
            let what = format!("--binary takes a file, not '{source}'");
            return Err(Failure::usage(what).help(format!("--binary @{source}, or --binary - for stdin")));
        }
        return Ok((Data::binary(&source::read(source, &environment.cwd, limit)?), Some("application/octet-stream")));
    }
    let fields = !(args.string_field.is_empty() && args.json_field.is_empty());
    match (&args.data, fields) {
        (Some(data), true) => {
            let what = format!("both DATA '{}' and fields", shorten(data));
            Err(Failure::usage(what).help("give -f and -F, or DATA, not both"))
        }
        (None, true) => object(args),
        (None, false) if args.text => {
            Err(Failure::usage("--text without DATA").help(command("emit", "TYPE --text 'some text'")))
        }
        (None, false) => Ok((Data::Absent, None)),
        (Some(data), false) => argument(args, data, environment, limit),
    }
}

/// DATA itself, or the content it refers to.
fn argument(
    args: &EmitArgs,
    data: &str,
    environment: &Environment,
    limit: usize,
) -> Result<(Data, Option<&'static str>), Failure> {
    let bytes = if data == "-" || (data.starts_with('@') && data.len() > 1) {
        source::read(data, &environment.cwd, limit)?
    } else {
        data.as_bytes().to_vec()
    };
    let text = text(args, &bytes).map_err(|failure| failure.context(&format!("the data in '{}'", shorten(data))))?;
    if args.text {
        return Ok((Data::text(&text), Some("text/plain")));
    }
    json(&text, data)
}

/// Bytes as text; with `--lossy`, bytes that are not UTF-8 are replaced.
fn text<'a>(args: &EmitArgs, bytes: &'a [u8]) -> Result<Cow<'a, str>, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(_) if args.lossy => Ok(String::from_utf8_lossy(bytes)),
        Err(error) => {
            let what = format!("it is not UTF-8 (at byte {})", error.valid_up_to() + 1);
            Err(Failure::usage(what).help("--text --lossy replaces such bytes; --binary @FILE takes a file of any"))
        }
    }
}

/// JSON text, kept byte for byte.
fn json(text: &str, shown: &str) -> Result<(Data, Option<&'static str>), Failure> {
    let data = Data::json(text.trim()).map_err(|error| {
        let field = shown.split_once('=').filter(|(key, _)| !key.is_empty() && !key.contains([' ', '"', '{']));
        let cure = match field {
            Some((key, value)) if key.ends_with(':') => {
                format!("-F {}={value}, for a field of the data", key.trim_end_matches(':'))
            }
            Some(_) => format!("-f {shown}, for a field of the data; --text, if it is meant as text"),
            None => "--text, if it is meant as text".to_owned(),
        };
        Failure::usage(format!("DATA '{}' is not JSON: {error}", shorten(shown))).help(cure)
    })?;
    Ok((data, Some("application/json")))
}

/// The data in one line of `--ndjson TYPE`.
pub(super) fn line(args: &EmitArgs, line: &[u8]) -> Result<(Data, Option<&'static str>), Failure> {
    let text = text(args, line)?;
    let line = text.trim_end_matches(['\n', '\r']);
    if args.text { Ok((Data::text(line), Some("text/plain"))) } else { json(line, line) }
}

/// The object from `-f` and `-F`, each kind in the order given.
fn object(args: &EmitArgs) -> Result<(Data, Option<&'static str>), Failure> {
    let mut fields = Map::new();
    for field in &args.string_field {
        let (key, value) = pair("-f", field)?;
        fields.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    for field in &args.json_field {
        let (key, value) = pair("-F", field)?;
        let value = serde_json::from_str(value).map_err(|_| {
            Failure::usage(format!("-F {field}: '{value}' is not JSON")).help(format!("-f {field}, for a string"))
        })?;
        fields.insert(key.to_owned(), value);
    }
    let text = Value::Object(fields).to_string();
    json(&text, &text)
}

fn pair<'a>(flag: &str, field: &'a str) -> Result<(&'a str, &'a str), Failure> {
    let split = field.split_once('=').filter(|(key, _)| !key.is_empty());
    split.ok_or_else(|| Failure::usage(format!("{flag} '{field}' is not KEY=VALUE")).help(format!("{flag} name=value")))
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
