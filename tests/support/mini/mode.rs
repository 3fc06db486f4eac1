//! How the server misbehaves, and the answers it then gives.

use super::http::{HttpRequest, HttpResponse};

/// A fault; several may be set, and the first that refuses a request does. Unless a mode names the
/// identity services, it is about the bucket alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMode {
    /// Takes requests, and answers none while it is set; a request whose client leaves is not
    /// applied.
    Hang,
    /// Closes the port and all connections, for all services.
    Refuse,
    /// Takes requests, and closes the connection without an answer; nothing is applied.
    BreakOff,
    /// Refuses every session token as too old.
    ExpiredToken,
    /// Refuses the client's clock as wrong.
    RequestTimeTooSkewed,
    /// The bucket is in this region, which the message names; requests signed for it pass.
    OtherRegion(String),
    /// The same, as S3 answers at another region's endpoint: a redirect without a Location, which
    /// may name the region in a header.
    Redirect(Option<String>),
    /// Refuses this many of a hundred requests with a 503.
    SlowDown(u64),
    /// Refuses this many of a hundred PUTs with a 409, without a winner.
    Busy409(u64),
    /// A policy that demands an encryption header on every PUT.
    DenyUnencrypted,
    /// Denies the versioning, the lifecycle and the location of a bucket.
    DenyFacts,
    /// Leaves the keys out of the answer to a bulk delete, which is applied.
    BadBulkDelete,
    /// Lists from the prefix on, whatever start a request has.
    IgnoreStartAfter,
    /// Lists without ETags.
    NoListEtags,
    /// Answers listings with text that is not XML.
    Garbage,
    /// Knows only these access keys; other keys that begin with `OLD` have expired.
    OnlyKeys(Vec<String>),
    /// Lets the identity services answer nothing while it is set.
    HangIdentity,
    /// Lets the identity services refuse all credentials.
    DenyIdentity,
}

impl ServerMode {
    /// The answer to a request that this mode refuses. `chance` is a number below a hundred.
    pub(super) fn refusal(&self, request: &HttpRequest, chance: u64) -> Option<HttpResponse> {
        let put = request.method == "PUT";
        let error = |status, code, message: &str| Some(HttpResponse::error(status, code, message));
        match self {
            Self::ExpiredToken => error(400, "ExpiredToken", "The provided token has expired."),
            Self::RequestTimeTooSkewed => {
                let why = "The difference between the request time and the current time is too large.";
                error(403, "RequestTimeTooSkewed", why)
            }
            Self::OtherRegion(region) => wrong_region(request, region),
            Self::Redirect(region) => redirect(request, region.as_deref()),
            Self::SlowDown(share) if chance < *share => error(503, "SlowDown", "Please reduce your request rate."),
            Self::Busy409(share) if put && chance < *share => {
                let why = "A conflicting conditional operation is currently in progress against this resource.";
                error(409, "ConditionalRequestConflict", why)
            }
            Self::DenyUnencrypted if put && request.sse().is_none() => {
                error(403, "AccessDenied", "explicit deny in a resource-based policy")
            }
            Self::DenyFacts if is_of_facts(request) => error(403, "AccessDenied", "Access Denied"),
            Self::Garbage if request.parameter("list-type").is_some() => {
                Some(HttpResponse::text(200, "text/html", "It works! <br> & that is all"))
            }
            Self::OnlyKeys(known) => stranger(request, known),
            _ => None,
        }
    }
}

fn is_of_facts(request: &HttpRequest) -> bool {
    ["versioning", "lifecycle", "location"].iter().any(|name| request.parameter(name).is_some())
}

fn wrong_region(request: &HttpRequest, region: &str) -> Option<HttpResponse> {
    let signed = request.region().unwrap_or_default();
    let why = format!("The authorization header is malformed; the region '{signed}' is wrong; expecting '{region}'");
    (signed != region).then(|| HttpResponse::error(400, "AuthorizationHeaderMalformed", &why))
}

fn redirect(request: &HttpRequest, region: Option<&str>) -> Option<HttpResponse> {
    if region.is_some() && request.region() == region {
        return None;
    }
    let why = "The bucket you are attempting to access must be addressed using the specified endpoint.";
    let answer = HttpResponse::error(301, "PermanentRedirect", why);
    Some(match region {
        Some(region) => answer.with("x-amz-bucket-region", region),
        None => answer,
    })
}

fn stranger(request: &HttpRequest, known: &[String]) -> Option<HttpResponse> {
    let why = "The AWS Access Key Id you provided does not exist in our records.";
    match request.access_key() {
        None => Some(HttpResponse::error(403, "AccessDenied", "Access Denied")),
        Some(key) if known.iter().any(|known| known == key) => None,
        Some(key) if key.starts_with("OLD") => {
            Some(HttpResponse::error(400, "ExpiredToken", "The provided token has expired."))
        }
        Some(_) => Some(HttpResponse::error(403, "InvalidAccessKeyId", why)),
    }
}
