//! What CloudEvents 1.0.2 asks of attributes (spec.md, "Context Attributes").

use std::borrow::Cow;

use serde_json::Value;

use base64::alphabet::STANDARD;
use base64::engine::{Engine, GeneralPurpose, GeneralPurposeConfig};

use super::super::EventTime;
use super::EventError;

/// The only version there is for this format.
pub(super) const SPEC_VERSION: &str = "1.0";
/// The attribute of the extension "Partitioning".
pub(super) const PARTITION_KEY: &str = "partitionkey";

/// The extensions that a handler finds in its environment.
const VARIABLES: [&str; 4] = [PARTITION_KEY, "correlationid", "traceparent", "tracestate"];
/// The longest attribute that becomes a variable, in bytes.
const MOST_BYTES: usize = 16 << 10;

/// The standard alphabet, padded (RFC 4648 § 4). Unused bits of the last letter may be set, as most
/// decoders allow.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The member for bytes; the only member whose name is not an attribute's.
pub(super) const DATA_BASE64: &str = "data_base64";

/// The attributes that every event may have (CloudEvents 1.0.2 § Context Attributes); its extensions
/// are not among them.
pub const CORE_ATTRIBUTES: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

type AttributeProblem = Option<&'static str>;

/// What is checked of an event.
pub(super) struct Attributes<'a, Extensions> {
    pub id: &'a str,
    pub source: &'a str,
    pub type_: &'a str,
    pub subject: Option<&'a str>,
    pub time: Option<&'a str>,
    pub datacontenttype: Option<&'a str>,
    pub dataschema: Option<&'a str>,
    pub extensions: Extensions,
    pub base64: Option<&'a str>,
}

/// Finds the first attribute that is not as it should be.
pub(super) fn check<'a>(
    event: &Attributes<'a, impl Iterator<Item = (&'a str, &'a Value)> + Clone>,
) -> Result<(), EventError> {
    one("id", event.id, text_problem)?;
    one("source", event.source, uri_reference_problem)?;
    one("type", event.type_, text_problem)?;
    optional("subject", event.subject, text_problem)?;
    optional("time", event.time, time_problem)?;
    optional("datacontenttype", event.datacontenttype, media_type_problem)?;
    optional("dataschema", event.dataschema, uri_problem)?;
    for (name, value) in event.extensions.clone() {
        check_extension(name, value)?;
        if let (true, Value::String(text)) = (VARIABLES.contains(&name), value) {
            one(name, text, length_problem)?;
        }
    }
    match event.base64 {
        Some(text) if BASE64.decode(text).is_err() => {
            Err(EventError::attribute(DATA_BASE64, " is not base64 (RFC 4648, with padding)"))
        }
        _ => Ok(()),
    }
}

/// Whether a text may be an event's id.
pub(super) fn is_id(text: &str) -> bool {
    text_problem(text).is_none()
}

/// Whether a text may be an event's time.
pub(super) fn is_time(text: &str) -> bool {
    time_problem(text).is_none()
}

/// Whether a name is one of the specification's own.
pub(super) fn is_core(name: &str) -> bool {
    CORE_ATTRIBUTES.contains(&name)
}

fn one(name: &str, value: &str, problem_of: fn(&str) -> AttributeProblem) -> Result<(), EventError> {
    problem_of(value).map_or(Ok(()), |problem| Err(EventError::attribute(name, problem)))
}

fn optional(name: &str, value: Option<&str>, problem_of: fn(&str) -> AttributeProblem) -> Result<(), EventError> {
    value.map_or(Ok(()), |value| one(name, value, problem_of))
}

fn check_extension(name: &str, value: &Value) -> Result<(), EventError> {
    let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let problem: Option<Cow<'static, str>> = if !named {
        Some(": extension names are lower-case letters and digits".into())
    } else if name == "data" || is_core(name) {
        Some(" is not an extension: the specification has taken the name".into())
    } else {
        value_problem(name, value).map(Cow::Borrowed)
    };
    problem.map_or(Ok(()), |problem| Err(EventError::attribute(name, problem)))
}

fn value_problem(name: &str, value: &Value) -> AttributeProblem {
    match value {
        Value::String(text) if name == PARTITION_KEY => text_problem(text),
        Value::String(text) => character_problem(text),
        Value::Null => None,
        _ if name == PARTITION_KEY => Some(" must be a string"),
        Value::Bool(_) => None,
        Value::Number(number) => {
            let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            (!fits).then_some(" must be a whole number of 32 bits (or a string)")
        }
        Value::Array(_) | Value::Object(_) => Some(" must be a string, a whole number, true or false"),
    }
}

fn text_problem(text: &str) -> AttributeProblem {
    if text.is_empty() { Some(" is empty") } else { length_problem(text).or_else(|| character_problem(text)) }
}

/// No attribute that becomes a variable may keep a program from being started, nor may all of them
/// together (execve(2)).
fn length_problem(text: &str) -> AttributeProblem {
    (text.len() > MOST_BYTES).then_some(" is longer than 16,384 bytes")
}

/// What the type String may not hold: control characters (C0, DEL, C1) and Unicode's noncharacters.
fn character_problem(text: &str) -> AttributeProblem {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return None;
    }
    text.chars().find_map(|character| match u32::from(character) {
        _ if character.is_control() => Some(" holds a control character"),
        0xfdd0..=0xfdef => Some(" holds a Unicode noncharacter"),
        code if code & 0xfffe == 0xfffe => Some(" holds a Unicode noncharacter"),
        _ => None,
    })
}

/// A URI reference is nearly anything; white space is what tells a mistake.
fn uri_reference_problem(text: &str) -> AttributeProblem {
    text_problem(text).or_else(|| text.contains(char::is_whitespace).then_some(" holds a space, which no URI does"))
}

fn uri_problem(text: &str) -> AttributeProblem {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let absolute = text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty());
    uri_reference_problem(text).or((!absolute).then_some(" must be an absolute URI"))
}

fn time_problem(text: &str) -> AttributeProblem {
    EventTime::from_rfc3339(text).is_none().then_some(" is not an RFC 3339 time like 2026-11-23T02:15:30Z")
}

/// `type/subtype`, perhaps with parameters (RFC 2046), which are not looked into.
fn media_type_problem(text: &str) -> AttributeProblem {
    // The characters of a token in RFC 2045 §5.1.
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
    };
    if text == "application/json" {
        return None;
    }
    let full_type = text.split_once(';').map_or(text, |(full_type, _)| full_type).trim_end();
    let plausible = full_type.split_once('/').is_some_and(|(main, sub)| is_token(main) && is_token(sub));
    text_problem(text).or((!plausible).then_some(" is not a media type like application/json"))
}
