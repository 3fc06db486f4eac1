//! The data of one event, from the arguments.

use serde_json::{Map, Value};

use super::{Args, read_source};
use crate::cli::failure::Failure;
use crate::config::World;
use crate::event::Data;

/// The data and the media type that goes with it.
pub(super) fn from_args(args: &Args, world: &World) -> Result<(Data, Option<&'static str>), Failure> {
    if let Some(source) = &args.binary {
        if source != "-" && !source.starts_with('@') {
            let what = format!("--binary takes a file, not '{source}'");
            return Err(Failure::usage(what).help(format!("--binary @{source}, or --binary - for stdin")));
        }
        return Ok((Data::binary(&read_source(source, &world.cwd)?), Some("application/octet-stream")));
    }
    let fields = !(args.string_field.is_empty() && args.json_field.is_empty());
    match (&args.data, fields) {
        (Some(data), true) => {
            let what = format!("both DATA '{}' and fields", shorten(data));
            Err(Failure::usage(what).help("give -f and -F, or DATA, not both"))
        }
        (None, true) => object(args),
        (None, false) if args.text => {
            Err(Failure::usage("--text without DATA").help("evbus emit TYPE --text 'some text'"))
        }
        (None, false) => Ok((Data::Absent, None)),
        (Some(data), false) => given(args, data, world),
    }
}

/// DATA itself, or what it points to.
fn given(args: &Args, data: &str, world: &World) -> Result<(Data, Option<&'static str>), Failure> {
    let bytes = if data == "-" || (data.starts_with('@') && data.len() > 1) {
        read_source(data, &world.cwd)?
    } else {
        data.as_bytes().to_vec()
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("the data in '{}' is not UTF-8", shorten(data))).help("--binary @FILE takes any bytes")
    })?;
    if args.text {
        return Ok((Data::text(&text), Some("text/plain")));
    }
    json(&text, data)
}

/// JSON text, kept byte for byte.
fn json(text: &str, shown: &str) -> Result<(Data, Option<&'static str>), Failure> {
    let data = Data::json(text.trim()).map_err(|error| {
        Failure::usage(format!("DATA '{}' is not JSON: {error}", shorten(shown))).help("--text, if it is meant as text")
    })?;
    Ok((data, Some("application/json")))
}

/// One line of `--ndjson` with a type.
pub(super) fn line(args: &Args, line: &str) -> Result<(Data, Option<&'static str>), Failure> {
    if args.text { Ok((Data::text(line), Some("text/plain"))) } else { json(line, line) }
}

/// The object that `-f` and `-F` build, in the order given within each kind.
fn object(args: &Args) -> Result<(Data, Option<&'static str>), Failure> {
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
