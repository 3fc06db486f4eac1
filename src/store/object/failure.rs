//! What went wrong, in one line that says which of the usual things it is.

use std::error::Error as _;

use object_store::Error;

use super::Bucket;
use crate::store::{ErrorKind, StoreError};

/// How a bucket is called in messages.
pub(super) struct Shown {
    bucket: String,
    server: String,
}

impl Shown {
    pub(super) fn of(bucket: &Bucket) -> Self {
        let server = bucket.endpoint().map_or_else(|| format!("the {} service", bucket.kind.scheme()), without_secrets);
        Self { bucket: bucket.name.clone(), server }
    }

    /// Whether a condition was refused: the key is there, or has another version, or nobody has won.
    pub(super) fn refusal(&self, error: &Error) -> bool {
        match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
                !matches!(code(&text(error)), Some("NoSuchBucket"))
            }
            _ => false,
        }
    }

    /// Whether an object is not there; a missing bucket is something else.
    pub(super) fn missing(&self, error: &Error) -> bool {
        matches!(error, Error::NotFound { .. }) && code(&text(error)) != Some("NoSuchBucket")
    }

    /// The error as a user reads it. `doing` is a verb: read, write, list, delete.
    pub(super) fn failure(&self, doing: &str, key: &str, error: &Error) -> StoreError {
        let text = text(error);
        let (bucket, server) = (&self.bucket, &self.server);
        let of = |kind, what: String| StoreError::new(kind, what);
        if let Some((kind, what, help)) = code(&text).and_then(|code| self.usual(code)) {
            return of(kind, what).with_help(help);
        }
        if text.contains("169.254.169.254") || text.contains("169.254.170.2") {
            return no_credentials(bucket);
        }
        let on = format!("cannot {doing} {key} in bucket '{bucket}'");
        let passing = ["RequestTimeout", "SlowDown", "OperationAborted", "InternalError", "ServiceUnavailable"];
        if let Some(code) = code(&text).filter(|code| passing.contains(code)) {
            return of(ErrorKind::Unavailable, format!("{on}: {server} answers {code}"));
        }
        match (error, status(&text)) {
            // The rest of a body that had broken off is asked for, and by then another version is there.
            (Error::Precondition { .. }, _) | (_, Some(409 | 412 | 416)) => {
                of(ErrorKind::Unavailable, format!("{on}: it has just been changed"))
            }
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) | (_, Some(401 | 403)) => {
                of(ErrorKind::Denied, format!("{on}: no permission"))
                    .with_help("evbus doctor tells which permissions are missing")
            }
            (_, Some(501)) => of(ErrorKind::Unfit, format!("{on}: {server} does not support it")),
            (_, Some(507)) => of(ErrorKind::Full, format!("{on}: no room")),
            (_, Some(status @ (408 | 429 | 500..600))) => {
                of(ErrorKind::Unavailable, format!("{on}: {server} answers {status}"))
            }
            (_, Some(status)) => {
                let why = between(&text, "<Message>", "</Message>").unwrap_or_default();
                of(ErrorKind::Other, format!("{on}: {server} answers {status} {}", clean(why)))
            }
            (Error::Generic { .. }, None) => self.unreachable(&text),
            _ => of(ErrorKind::Other, format!("{on}: {}", one_line(error))),
        }
    }

    /// What the service's own word for it means, where there is an only cure.
    fn usual(&self, code: &str) -> Option<(ErrorKind, String, &'static str)> {
        let (bucket, server) = (&self.bucket, &self.server);
        Some(match code {
            "NoSuchBucket" => {
                (ErrorKind::Unfit, format!("no bucket '{bucket}' at {server}"), "make it, or name another one")
            }
            "InvalidAccessKeyId" => (
                ErrorKind::Denied,
                format!("{server} does not know this access key"),
                "AWS_ACCESS_KEY_ID or AWS_PROFILE names another",
            ),
            "SignatureDoesNotMatch" => (
                ErrorKind::Denied,
                format!("{server} refuses the signature: the secret key is wrong"),
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE names another",
            ),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                (ErrorKind::Denied, format!("{server} says that the session token has expired"), "log in again")
            }
            "RequestTimeTooSkewed" => (
                ErrorKind::Denied,
                format!("{server} says that this machine's clock is wrong"),
                "set the clock: timedatectl status",
            ),
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => (
                ErrorKind::Unfit,
                format!("bucket '{bucket}' is in another region"),
                "name it: s3://bucket/prefix?region=REGION, or AWS_REGION",
            ),
            _ => return None,
        })
    }

    fn unreachable(&self, text: &str) -> StoreError {
        let lower = text.to_lowercase();
        let usual = [
            ("connection refused", "connection refused"),
            ("dns error", "its name is not known"),
            ("failed to lookup", "its name is not known"),
            ("certificate", "its certificate is not trusted"),
            ("network is unreachable", "no network"),
            ("no route to host", "no route to it"),
            ("connection reset", "it broke off the connection"),
            ("incomplete", "it broke off the connection"),
            ("timed out", "no answer in time"),
        ];
        let why = usual.into_iter().find(|(sign, _)| lower.contains(sign)).map_or("no answer", |(_, why)| why);
        StoreError::new(ErrorKind::Unavailable, format!("cannot reach {}: {why}", self.server))
    }
}

/// Neither environment nor file nor machine has any.
pub(super) fn no_credentials(bucket: &str) -> StoreError {
    StoreError::new(ErrorKind::Denied, format!("no credentials for bucket '{bucket}'"))
        .with_help("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
}

/// An endpoint without what may stand before its `@`.
fn without_secrets(endpoint: &str) -> String {
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => endpoint.to_owned(),
    }
}

/// The error with all its causes.
fn text(error: &Error) -> String {
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

fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    Some(&rest[..rest.find(to)?])
}

/// The service's own word for what is wrong (Amazon S3 API reference, Error responses).
fn code(text: &str) -> Option<&str> {
    between(text, "<Code>", "</Code>")
}

/// The HTTP status in the crate's words.
fn status(text: &str) -> Option<u16> {
    let rest = &text[text.find("status code: ")? + "status code: ".len()..];
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(answer: &str) -> ErrorKind {
        let shown = Shown { bucket: "acme".to_owned(), server: "http://here".to_owned() };
        let error = Error::Generic { store: "S3", source: answer.to_owned().into() };
        shown.failure("read", "frontier", &error).kind()
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_told() {
        let of_status = |status: u16| kind(&format!("Server returned non-2xx status code: {status} Text: "));
        for status in [408, 409, 412, 416, 429, 500, 502, 503, 504] {
            assert_eq!(of_status(status), ErrorKind::Unavailable, "{status}");
        }
        let of_code = |code: &str| kind(&format!("status code: 400 Bad Request: <Error><Code>{code}</Code></Error>"));
        for code in ["RequestTimeout", "SlowDown", "OperationAborted", "InternalError"] {
            assert_eq!(of_code(code), ErrorKind::Unavailable, "{code}");
        }
        assert_eq!([of_status(400), of_status(404)], [ErrorKind::Other; 2]);
        assert_eq!([of_status(401), of_status(403)], [ErrorKind::Denied; 2]);
        assert_eq!([of_status(501), of_code("NoSuchBucket")], [ErrorKind::Unfit; 2]);
        assert_eq!([of_status(507), of_code("ExpiredToken")], [ErrorKind::Full, ErrorKind::Denied]);
    }
}
