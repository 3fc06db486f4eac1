//! A failure in one line, which says which of the usual causes it has, and names the server that it
//! is about: the bucket's, or one that was to give credentials.

use std::sync::Arc;
use std::time::Duration;

use object_store::Error;
use object_store::client::HttpError;

use super::credentials::{CredentialsFailure, NO_ANSWER_IN_TIME, reason};
use super::meter::Meter;
use super::{Bucket, Kind};
use crate::store::{BucketProblem, ErrorDetail, ErrorKind, StoreError};

mod cloud;
#[cfg(test)]
mod tests;
mod words;

use words::{between, clean, code, one_line, server_asked, status, text, understood};

/// A bucket's name in messages.
pub(super) struct ErrorContext {
    kind: Kind,
    bucket: String,
    server: String,
    /// How long a request waits for its answer.
    timeout: Duration,
    meter: Arc<Meter>,
}

impl ErrorContext {
    pub(super) fn of(bucket: &Bucket, meter: Arc<Meter>) -> Self {
        let server = bucket.endpoint().map_or_else(|| format!("the {} service", bucket.kind.scheme()), without_secrets);
        Self { kind: bucket.kind, bucket: bucket.name.clone(), server, timeout: bucket.timeout(), meter }
    }

    /// Whether a condition was refused: the key is there, or has another version, or no writer has
    /// won.
    pub(super) fn refusal(&self, error: &Error) -> bool {
        match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => !no_bucket(error),
            _ => false,
        }
    }

    fn detail(&self, problem: BucketProblem) -> ErrorDetail {
        ErrorDetail::Bucket(self.kind, problem)
    }

    /// Whether an object is not there; a missing bucket is something else.
    pub(super) fn missing(&self, error: &Error) -> bool {
        matches!(error, Error::NotFound { .. }) && !no_bucket(error)
    }

    /// Whether the credentials were refused, and others might not be.
    pub(super) fn refuses_credentials(&self, error: &Error) -> bool {
        let stale = ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired"];
        code(&text(error)).is_some_and(|code| stale.contains(&code))
    }

    /// The error as a user reads it. `doing` is a verb: read, write, list, delete.
    pub(super) fn failure(&self, doing: &str, key: &str, error: Error) -> StoreError {
        self.explained(doing, key, &error).with_source(error)
    }

    fn explained(&self, doing: &str, key: &str, error: &Error) -> StoreError {
        if let Some(failure) = CredentialsFailure::within(error) {
            return of_credentials(failure);
        }
        let text = text(error);
        let usual = code(&text).and_then(|code| self.usual(code, &text));
        if let Some(error) = usual.or_else(|| self.of_identity(&text)) {
            return error;
        }
        let (server, kind) = (&self.server, self.kind);
        let on = format!("cannot {doing} {key} in {} '{}'", kind.bucket_word(), self.bucket);
        let of = |kind, what: String| StoreError::new(kind, what);
        let passing = ["RequestTimeout", "SlowDown", "OperationAborted", "InternalError", "ServiceUnavailable"];
        if let Some(code) = code(&text).filter(|code| passing.contains(code)) {
            return of(ErrorKind::Unavailable, format!("{on}: {server} answers {code}"));
        }
        let message = between(&text, "<Message>", "</Message>").map(clean).unwrap_or_default();
        match (error, status(&text)) {
            // The rest of an interrupted body was requested, and by then another version was there.
            (Error::Precondition { .. }, _) | (_, Some(409 | 412 | 416)) => {
                of(ErrorKind::Unavailable, format!("{on}: it has just been changed"))
            }
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) | (_, Some(401 | 403)) => {
                of(ErrorKind::Denied, format!("{on}: no permission{}", more(&message)))
                    .with_detail(self.detail(denied(&message)))
            }
            (_, Some(501)) => of(ErrorKind::Unfit, format!("{on}: {server} does not support it")),
            (_, Some(507)) => of(ErrorKind::Full, format!("{on}: no room")),
            (_, Some(status @ (408 | 429 | 500..600))) => {
                of(ErrorKind::Unavailable, format!("{on}: {server} answers {status}"))
            }
            (_, Some(status)) => of(ErrorKind::Other, format!("{on}: {server} answers {status}{}", more(&message))),
            (Error::Generic { .. }, None) => self.without_status(error, &text),
            _ => of(ErrorKind::Other, format!("{on}: {}", one_line(error))),
        }
    }

    /// The meaning of the service's error code, where there is a single cure.
    fn usual(&self, code: &str, text: &str) -> Option<StoreError> {
        let (bucket, server, kind) = (&self.bucket, &self.server, self.kind);
        let denied = |what: String, detail| Some(StoreError::new(ErrorKind::Denied, what).with_detail(detail));
        let of = |problem| self.detail(problem);
        match code {
            "NoSuchBucket" | "ContainerNotFound" => {
                let what = format!("no {} '{bucket}' at {server}", kind.bucket_word());
                Some(StoreError::new(ErrorKind::Unfit, what).with_detail(of(BucketProblem::Missing)))
            }
            "InvalidAccessKeyId" => {
                denied(format!("{server} does not know this access key"), of(BucketProblem::UnknownKey))
            }
            "SignatureDoesNotMatch" | "AuthenticationFailed" => denied(
                format!("{server} refuses the signature: the secret key is wrong"),
                of(BucketProblem::WrongSecret),
            ),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                denied(format!("{server} says that the session token has expired"), of(BucketProblem::Expired))
            }
            "RequestTimeTooSkewed" => {
                denied(format!("{server} says that this machine's clock is wrong"), ErrorDetail::Clock)
            }
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                Some(self.elsewhere(text))
            }
            _ => None,
        }
    }

    /// The bucket is in another region, which the answer's header or its text may name.
    fn elsewhere(&self, text: &str) -> StoreError {
        let region = self.meter.other_region().or_else(|| {
            let region = between(text, "<Region>", "</Region>").or_else(|| between(text, "expecting '", "'"));
            region.map(str::to_owned)
        });
        let bucket = &self.bucket;
        let region = region.filter(|region| region.len() < 40).map(|region| clean(&region));
        let which = region.as_ref().map_or_else(String::new, |region| format!(": {region}"));
        StoreError::new(ErrorKind::Unfit, format!("bucket '{bucket}' is in another region{which}"))
            .with_detail(self.detail(BucketProblem::OtherRegion { bucket: bucket.clone(), region }))
    }

    /// An error about the caller's identity, and not about the bucket: Google's and Azure's tokens.
    fn of_identity(&self, text: &str) -> Option<StoreError> {
        let machines = ["169.254.169.254", "169.254.170.2", "metadata.google.internal", "metadata/computeMetadata"];
        if machines.iter().any(|machine| text.contains(machine)) {
            return Some(no_credentials(self.kind, &self.bucket));
        }
        if text.contains("federated token file") {
            let what = "cannot read the federated token file (AZURE_FEDERATED_TOKEN_FILE)";
            return Some(StoreError::new(ErrorKind::Denied, what));
        }
        if !text.contains("token request") && !text.contains("token response") {
            return None;
        }
        let server = server_asked(text).unwrap_or_else(|| "the service that gives tokens".to_owned());
        Some(match status(text) {
            Some(status @ (408 | 429 | 500..600)) => {
                StoreError::new(ErrorKind::Unavailable, format!("{server} gives no token: it answers {status}"))
            }
            Some(status) => StoreError::new(ErrorKind::Denied, format!("{server} gives no token: it answers {status}"))
                .with_detail(self.detail(BucketProblem::UnknownKey)),
            None => StoreError::new(ErrorKind::Unavailable, format!("cannot reach {server}: {}", reason(text))),
        })
    }

    /// There was no answer, or one that evbus does not understand.
    fn without_status(&self, error: &Error, text: &str) -> StoreError {
        let server = &self.server;
        if text.contains("Received redirect without LOCATION") {
            return match self.kind {
                Kind::S3 => self.elsewhere(text),
                _ => StoreError::new(ErrorKind::Unfit, format!("{server} sends us elsewhere, and not where")),
            };
        }
        if let Some((why, problem)) = understood(error, text) {
            let what = format!("{server} answers what is not understood: {why}");
            return with_problem(StoreError::new(ErrorKind::Other, what), self.kind, problem);
        }
        let why = match reason(text) {
            NO_ANSWER_IN_TIME => format!("no answer within {} s", self.timeout.as_secs_f64()),
            why => why.to_owned(),
        };
        let error = StoreError::new(ErrorKind::Unavailable, format!("cannot reach {server}: {why}"));
        let problem = why.contains("certificate").then_some(BucketProblem::Certificate);
        with_problem(error, self.kind, problem)
    }
}

fn with_problem(error: StoreError, kind: Kind, problem: Option<BucketProblem>) -> StoreError {
    match problem {
        Some(problem) => error.with_detail(ErrorDetail::Bucket(kind, problem)),
        None => error,
    }
}

/// The usual cause of an explicit deny is a policy that demands encryption.
fn denied(said: &str) -> BucketProblem {
    let said = said.to_lowercase();
    match ["explicit deny", "kms", "encrypt"].iter().any(|sign| said.contains(sign)) {
        true => BucketProblem::Unencrypted,
        false => BucketProblem::Denied,
    }
}

/// `: what it says`, unless that says nothing.
fn more(message: &str) -> String {
    let nothing = ["", "access denied", "accessdenied", "access denied.", "forbidden"];
    if nothing.contains(&message.to_lowercase().as_str()) { String::new() } else { format!(": {message}") }
}

fn no_bucket(error: &Error) -> bool {
    matches!(code(&text(error)), Some("NoSuchBucket" | "ContainerNotFound"))
}

fn of_credentials(failure: &CredentialsFailure) -> StoreError {
    let kind = if failure.passing { ErrorKind::Unavailable } else { ErrorKind::Denied };
    let error = StoreError::new(kind, failure.what.clone());
    // Only AWS's credentials are found by evbus itself.
    with_problem(error, Kind::S3, failure.problem.clone())
}

/// Why no client could be made.
pub(super) fn not_built(bucket: &Bucket, error: &Error) -> StoreError {
    let (kind, text) = (bucket.kind, text(error));
    if lacks_certificates(error) {
        let what = format!("no CA certificates here, and {} is spoken to over TLS", kind.service());
        return StoreError::new(ErrorKind::Unfit, what)
            .with_detail(ErrorDetail::Bucket(kind, BucketProblem::Certificate));
    }
    if text.contains("Missing AccessKeyId") || text.contains("Missing SecretAccessKey") {
        return no_credentials(kind, &bucket.name);
    }
    if text.contains("Account must be specified") {
        let what = format!("no account for container '{}'", bucket.name);
        return StoreError::new(ErrorKind::Denied, what)
            .with_detail(ErrorDetail::Bucket(kind, BucketProblem::UnknownKey));
    }
    StoreError::new(ErrorKind::Unfit, format!("{}://{}: {}", kind.scheme(), bucket.name, one_line(error)))
}

/// Whether the machine has no certificates at all.
pub(super) fn lacks_certificates(error: &Error) -> bool {
    text(error).contains("No CA certificates were loaded")
}

/// Neither the environment nor a file nor the machine has credentials.
fn no_credentials(kind: Kind, bucket: &str) -> StoreError {
    StoreError::new(ErrorKind::Denied, format!("no credentials for {} '{bucket}'", kind.bucket_word()))
        .with_detail(ErrorDetail::Bucket(kind, BucketProblem::NoCredentials))
}

/// An endpoint without what may stand before its `@`.
fn without_secrets(endpoint: &str) -> String {
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => endpoint.to_owned(),
    }
}

/// Whether the failure is of the connection: something came over it, or should have.
fn is_of_the_line(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<HttpError>() || error.source().is_some_and(is_of_the_line)
}
