//! Requests to the services that give credentials, and their answers.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use reqwest::Method;
use serde_json::Value;

use super::files::keys;
use super::{CredentialsFailure, CredentialsResult, Fetch, FetchedCredential};

/// How long the machine's own service and the container's may take.
const NEAR_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer of these services, in bytes.
const LARGEST_BYTES: usize = 1 << 20;

impl Fetch<'_> {
    /// `near` says that the server is this machine, or beside it.
    pub(super) async fn ask(&self, server: &str, request: HttpRequest, near: bool) -> CredentialsResult<TextResponse> {
        let unfit = |error: &dyn fmt::Display| CredentialsFailure::of(format!("cannot speak to {server}: {error}"));
        let plain = request.uri().scheme_str() == Some("http");
        let client = if near {
            // Neither through a proxy nor with the timeout that a bucket needs.
            let client = reqwest::Client::builder().no_proxy().connect_timeout(NEAR_TIMEOUT).timeout(NEAR_TIMEOUT);
            let client = client.redirect(reqwest::redirect::Policy::none());
            // Plain HTTP needs no certificates, and there may be none.
            let client = if plain { client.tls_certs_only([]) } else { client };
            HttpClient::new(client.build().map_err(|error| unfit(&error))?)
        } else {
            let options = self.options.clone().with_allow_http(plain);
            let options = if plain { options.with_no_system_certificates(true) } else { options };
            ReqwestConnector::default().connect(&options).map_err(|error| unfit(&error))?
        };
        let broken = |error: object_store::client::HttpError| {
            CredentialsFailure::passing(format!("cannot reach {server}: {}", why(&error)))
        };
        let response = client.execute(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut chunks = response.into_body().bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_BYTES {
                return Err(CredentialsFailure::of(format!("{server} answers too much")));
            }
        }
        Ok(TextResponse { status, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// An answer that came.
pub(super) struct TextResponse {
    pub(super) status: u16,
    pub(super) text: String,
}

impl TextResponse {
    pub(super) fn is_passing(&self) -> bool {
        let throttled = ["Throttling", "TooManyRequests", "SlowDown"].iter().any(|word| self.text.contains(word));
        matches!(self.status, 408 | 429 | 500..) || throttled
    }

    pub(super) fn failure(&self, server: &str, what: &str) -> CredentialsFailure {
        let what = clean(&format!("{server} answers {}: {what}", self.status));
        if self.is_passing() { CredentialsFailure::passing(what) } else { CredentialsFailure::of(what) }
    }
}

pub(super) fn request(method: Method, url: &str, body: HttpRequestBody) -> CredentialsResult<HttpRequest> {
    // The part before an '@' may be a secret, and is not shown.
    let shown = if url.contains('@') { url.rsplit('@').next().unwrap_or_default() } else { url };
    let refused = |why: &str| CredentialsFailure::of(format!("'{}' {why}", clean(shown)));
    let no_url = || refused("is no URL of a server");
    let parsed = reqwest::Url::parse(url).map_err(|_| no_url())?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(no_url());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refused("has credentials before it, which no address of a service that gives some has"));
    }
    let mut request = HttpRequest::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = parsed.as_str().parse().map_err(|_| no_url())?;
    Ok(request)
}

/// A value that cannot be a header is left out: the server says what is missing.
pub(super) fn set(request: &mut HttpRequest, name: &'static str, value: &str) {
    if let Ok(mut value) = reqwest::header::HeaderValue::from_str(value) {
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
}

/// Credentials as a program, a container's service and a machine's write them.
pub(super) fn json_keys(answer: &Value, token: &str, at: &str) -> CredentialsResult<FetchedCredential> {
    let get = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    let need = |name: &str| get(name).ok_or_else(|| CredentialsFailure::of(format!("{at} answers without {name}")));
    if let Some(code) = get("Code").filter(|code| code != "Success") {
        return Err(CredentialsFailure::of(format!("{at} answers {}", clean(&code))));
    }
    let credential = keys(&need("AccessKeyId")?, &need("SecretAccessKey")?, get(token).as_deref(), at)?;
    let expires = get("Expiration").map(|expires| time(&expires, at)).transpose()?;
    Ok(FetchedCredential { credential, expires })
}

pub(super) fn object(text: &str, at: &str) -> CredentialsResult<Value> {
    let text = text.trim_start_matches('\u{feff}').trim();
    // The parser's message would quote what it has read.
    let parsed = serde_json::from_str(text).ok().filter(Value::is_object);
    parsed.ok_or_else(|| CredentialsFailure::of(format!("{at}: not a JSON object")))
}

/// A time, in the form of older tools too.
pub(super) fn time(text: &str, at: &str) -> CredentialsResult<Timestamp> {
    let iso = text.trim().replace("UTC", "Z");
    iso.parse().map_err(|_| CredentialsFailure::of(format!("{at}: '{}' is no time", clean(text))))
}

/// A file that holds one secret, perhaps with white space that an editor adds.
pub(super) fn secret_file(what: &str, path: &Path) -> CredentialsResult<String> {
    let shown = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| CredentialsFailure::of(format!("cannot read the {what} {shown}: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}').trim();
    match text {
        "" => Err(CredentialsFailure::of(format!("the {what} {shown} is empty"))),
        text if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => Ok(text.to_owned()),
        _ => Err(CredentialsFailure::of(format!("the {what} {shown} has more than one line"))),
    }
}

/// Percent-encodes (`%`) every character that is not safe everywhere.
pub(super) fn encoded(text: &str) -> String {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if safe(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let rest = &text[text.find(from)? + from.len()..];
    Some(rest[..rest.find(to)?].trim())
}

pub(super) fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The usual reason, found in an error's long text.
fn why(error: &(dyn Error + 'static)) -> &'static str {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    reason(&text)
}

/// The reason where a request's time has run out.
pub(in super::super) const NO_ANSWER_IN_TIME: &str = "no answer in time";

/// The same, from a text.
pub(in super::super) fn reason(text: &str) -> &'static str {
    let text = text.to_lowercase();
    let usual = [
        ("connection refused", "connection refused"),
        ("dns error", "its name is not known"),
        ("failed to lookup", "its name is not known"),
        ("certificate", "its certificate is not trusted"),
        ("network is unreachable", "no network"),
        ("no route to host", "no route to it"),
        ("timed out", NO_ANSWER_IN_TIME),
        ("connection reset", "it broke off the connection"),
        ("incomplete", "it broke off the connection"),
        ("connection closed", "it broke off the connection"),
    ];
    usual.into_iter().find(|(sign, _)| text.contains(sign)).map_or("no answer", |(_, why)| why)
}
