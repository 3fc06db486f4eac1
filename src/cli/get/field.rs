//! One field of an event, by its path: `data.customer.name`, `data.tags.0`, `subject`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The value at `path` in a JSON document: a string as text, anything else as written in the
/// document.
///
/// # Errors
/// What the document has instead, to follow "the event has no field …".
pub(super) fn at(document: &str, path: &str) -> Result<String, String> {
    let mut value: &RawValue = serde_json::from_str(document).map_err(|error| format!(": {error}"))?;
    let mut rest = path;
    let mut passed = "the event";
    while !rest.is_empty() {
        let (next, left) = step(value, rest).ok_or_else(|| match names(value) {
            names if names.is_empty() => format!("; {passed} is {}", kind(value)),
            names => format!("; {passed} has {}", names.join(", ")),
        })?;
        passed = path[..path.len() - left.len()].trim_end_matches('.');
        (value, rest) = (next, left);
    }
    Ok(match serde_json::from_str::<String>(value.get()) {
        Ok(text) => text,
        Err(_) => value.get().to_owned(),
    })
}

/// The member or item that the start of `path` names, and the rest of the path. Names may contain
/// dots: the longest one that exists is taken.
fn step<'a, 'p>(value: &'a RawValue, path: &'p str) -> Option<(&'a RawValue, &'p str)> {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let parts = ends.map(|end| (&path[..end], path.get(end + 1..).unwrap_or_default()));
    if let Some(members) = members(value) {
        let mut found = parts.filter_map(|(name, left)| Some((*members.get(name)?, left)));
        return found.next_back();
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    let (number, left) = path.split_once('.').unwrap_or((path, ""));
    Some((items.get(number.parse::<usize>().ok()?)?, left))
}

fn members(value: &RawValue) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(value.get()).ok()
}

fn names(value: &RawValue) -> Vec<String> {
    members(value).unwrap_or_default().into_keys().take(20).collect()
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an empty object",
        Some(b'[') => "an array: give a number from 0",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type": "t", "data": {"n": 1.50, "big": 123456789012345678901, "s": "a\n\"b\"", "a.b": {"c": 1},
        "a": {"b": 2}, "list": [{"x": null}, [7]], "empty": {}}}"#;

    #[test]
    fn a_field_is_printed_as_written() {
        let is = |path: &str, value: &str| assert_eq!(at(EVENT, path).as_deref(), Ok(value), "{path}");
        is("type", "t");
        is("data.n", "1.50");
        is("data.big", "123456789012345678901");
        is("data.s", "a\n\"b\"");
        is("data.a.b.c", "1");
        is("data.list.0.x", "null");
        is("data.list.1.0", "7");
        is("data.list.1", "[7]");
        is("data.a", r#"{"b": 2}"#);
    }

    #[test]
    fn a_missing_field_is_reported_with_the_existing_ones() {
        let has = |path: &str, what: &str| assert_eq!(at(EVENT, path), Err(what.to_owned()), "{path}");
        has("subject", "; the event has data, type");
        has("data.a.x", "; data.a has b");
        has("data.n.x", "; data.n is a number");
        has("data.list.9", "; data.list is an array: give a number from 0");
        has("data.empty.x", "; data.empty is an empty object");
    }
}
