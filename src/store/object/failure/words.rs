//! How the crate's errors and the servers' answers are read. The crate gives most details only in
//! its text.

use std::error::Error as _;

use object_store::Error;

use super::is_of_the_line;
use crate::store::BucketProblem;

/// The error with all its causes.
pub(super) fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Without line breaks and control characters, and not too long.
pub(super) fn one_line(error: &Error) -> String {
    clean(&error.to_string())
}

pub(super) fn clean(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    Some(&rest[..rest.find(to)?])
}

/// The service's error code (Amazon S3 API reference, Error responses).
pub(super) fn code(text: &str) -> Option<&str> {
    between(text, "<Code>", "</Code>")
}

/// The HTTP status in the crate's text.
pub(super) fn status(text: &str) -> Option<u16> {
    let rest = &text[text.find("status code: ")? + "status code: ".len()..];
    rest.get(..3)?.parse().ok()
}

/// The server in the crate's "Error performing GET https://host/path in 2s".
pub(super) fn server_asked(text: &str) -> Option<String> {
    let url = text.split_whitespace().find(|word| word.starts_with("http://") || word.starts_with("https://"))?;
    let (scheme, rest) = url.split_once("://")?;
    Some(format!("{scheme}://{}", rest.split(['/', '?']).next()?.rsplit('@').next()?))
}

/// Why evbus does not understand an answer, and the problem; none if there was no answer.
pub(super) fn understood(error: &Error, text: &str) -> Option<(String, Option<BucketProblem>)> {
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return Some(("it does not speak TLS".to_owned(), Some(BucketProblem::PlainHttp)));
    }
    let lower = text.to_lowercase();
    if lower.contains("invalid http") || lower.contains("http version") {
        return Some(("it does not speak HTTP".to_owned(), Some(BucketProblem::OnlyTls)));
    }
    if is_of_the_line(error) {
        return None;
    }
    let innermost = text.rsplit(": ").next().unwrap_or(text);
    let about = between(text, "Got invalid ", ": ").unwrap_or("the answer");
    Some((clean(&format!("{about}: {innermost}")), None))
}
