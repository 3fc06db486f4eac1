//! A webhook as a handler: one POST for an event, or for a batch.
//!
//! `request` makes what is sent, `signature` signs it, `guard` says where it may not go, and `answer`
//! says what came back.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Proxy, Response, Url};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{Handler, Job, Obstacle, Outcome, RunReport};
use crate::clock::{Clock, Fut};
use crate::secret::{MaybeSecret, SecretSource};
use crate::store::system_words;

mod answer;
mod guard;
mod request;
mod signature;

pub use guard::{Network, NetworkError};
pub use request::WebhookFormat;

use guard::Guard;

/// How much of an answer is read.
const ANSWER_BYTES: usize = 4 * 1024;

/// How long a connection may take at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest file of certificates or keys, in bytes.
const PEM_BYTES: u64 = 1 << 20;

const USER_AGENT: &str = concat!("evbus/", env!("CARGO_PKG_VERSION"));

/// Where requests go by way of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WebhookProxy {
    /// What `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None.
    None,
    /// This one.
    Url(MaybeSecret),
}

/// Where the events go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The receiver; `http` or `https`.
    pub url: MaybeSecret,
    /// In which form an event is sent; a batch is always JSON.
    pub format: WebhookFormat,
    /// By which each request is signed; none: it is not.
    pub secrets: Vec<SecretSource>,
    /// Headers added to each request.
    pub headers: Vec<(String, MaybeSecret)>,
    /// The certificates of the authorities that are trusted, in place of the system's: a PEM file.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key, PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The proxy.
    pub proxy: WebhookProxy,
    /// Addresses that are refused, besides link-local ones and those of metadata services.
    pub deny: Vec<Network>,
}

impl WebhookTarget {
    /// A target with defaults for everything but its URL.
    pub fn new(url: MaybeSecret) -> Self {
        let (format, secrets, headers, ca) = Default::default();
        let (identity, proxy, deny) = Default::default();
        Self { url, format, secrets, headers, ca, identity, proxy, deny }
    }

    /// Checks a URL of a receiver.
    ///
    /// # Errors
    /// Why it is none, to be read after it; without any of it, for it may be a secret.
    pub fn parse_url(text: &str) -> Result<Url, &'static str> {
        let url = parse_http(text).ok_or("is no URL of a web server (write \"https://HOST/PATH\")")?;
        if has_password(&url) {
            return Err("has a password in it (put it into a header, such as Authorization = \"env:NAME\")");
        }
        if url.fragment().is_some() {
            return Err("has a '#' part, which is never sent");
        }
        Ok(url)
    }

    /// Checks a URL of a proxy that stands in the settings.
    ///
    /// # Errors
    /// Why it is none, to be read after it.
    pub fn parse_proxy(text: &str) -> Result<(), &'static str> {
        match parse_http(text) {
            Some(url) if has_password(&url) => Err("has a password in it (write \"env:NAME\", and the URL there)"),
            Some(_) => Ok(()),
            None => Err("is no URL of a proxy (write \"http://HOST:PORT\" or \"none\")"),
        }
    }

    /// The URL as it may be shown: where it is if it is a secret, and without its query, which often
    /// holds one.
    pub fn shown(&self) -> String {
        match &self.url {
            MaybeSecret::Plain(url) => match url.split_once('?') {
                Some((url, _)) => format!("{url}?…"),
                None => url.clone(),
            },
            MaybeSecret::Secret(source) => source.to_string(),
        }
    }

    /// The receiver, and a digest by which two workers can tell whether they send to the same:
    /// `crm.example 5f2b11c0`.
    pub fn digest(&self) -> String {
        let (name, whole) = match &self.url {
            MaybeSecret::Plain(text) => {
                let host = Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
                (host.unwrap_or_default(), text.clone())
            }
            MaybeSecret::Secret(source) => (source.to_string(), source.to_string()),
        };
        let hash = Sha256::digest(whole);
        format!("{name} {:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
    }
}

/// Sends each event to a [`WebhookTarget`].
pub struct Webhook {
    target: WebhookTarget,
    /// Whether a run is for many events, a line each.
    in_batches: bool,
    timeout: Duration,
    clock: Rc<dyn Clock>,
    stop: Notify,
    /// Made at the first request, and used for all that follow.
    client: RefCell<Option<(Transport, Client)>>,
}

/// Whether a client speaks TLS: one that does not needs no certificates, and there may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
}

/// A request that can be sent.
struct Prepared {
    url: Url,
    client: Client,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What came of a request.
struct Answer {
    outcome: Outcome,
    /// The beginning of its body, if it is no success.
    text: String,
    retry_after: Option<Duration>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, text: String::new(), retry_after: None }
    }
}

impl From<Obstacle> for Answer {
    fn from(obstacle: Obstacle) -> Self {
        Outcome::NotStarted(obstacle.into()).into()
    }
}

impl Webhook {
    /// A handler that sends one request for each run, and waits `timeout` for its answer. `in_batches`:
    /// a run is for many events, as [`super::Batches`] makes them.
    pub fn new(target: WebhookTarget, in_batches: bool, timeout: Duration, clock: Rc<dyn Clock>) -> Self {
        Self { target, in_batches, timeout, clock, stop: Notify::new(), client: RefCell::default() }
    }

    async fn answer(&self, job: &Job) -> Answer {
        let stop = self.stop.notified();
        let limit = self.clock.elapsed() + self.timeout;
        let content = match self.in_batches {
            true => request::batch(&job.event),
            false => match request::content(&job.event, self.target.format) {
                Ok(content) => content,
                // The worker has read it before.
                Err(error) => return Outcome::NoAnswer(format!("the event {error}").into()).into(),
            },
        };
        let prepared = match self.prepare(&job.file, content) {
            Ok(prepared) => prepared,
            Err(obstacle) => return obstacle.into(),
        };
        let server = server_of(&prepared.url);
        let mut answered = None;
        let exchange = async {
            let request = prepared.client.post(prepared.url).headers(prepared.headers).body(prepared.body);
            match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    let outcome = answer::outcome(status.as_u16(), &server);
                    answered = Some(outcome.clone());
                    let retry_after = self.retry_after(&response);
                    // That of a success is read so that its connection can be used again.
                    let text = beginning(response).await;
                    Answer { outcome, text: if status.is_success() { String::new() } else { text }, retry_after }
                }
                Err(error) => broken(&error, &server).into(),
            }
        };
        tokio::select! { biased;
            answer = exchange => return answer,
            () = stop => {}
            () = self.clock.sleep_until(limit) => {
                // A body that never ends takes nothing from an answer that was given.
                return answered.unwrap_or(Outcome::TimedOut).into();
            }
        }
        answered.unwrap_or(Outcome::Stopped).into()
    }

    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
        answer::retry_after(value, self.clock.now()).filter(|_| !response.status().is_success())
    }

    fn prepare(&self, name: &str, content: request::Content) -> Result<Prepared, Obstacle> {
        let url = self.url()?;
        let client = self.client(&url)?;
        let request::Content { headers: of_event, body } = content;
        let mut headers = HeaderMap::new();
        for (name, value) in of_event {
            insert(&mut headers, &name, &value)?;
        }
        for (name, value) in &self.target.headers {
            let value = value.read().map_err(|error| format!("header {name}: {error}"))?;
            insert(&mut headers, name, &value)?;
        }
        if body.is_empty() {
            // It is said that there is none (RFC 9110, 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let id = request::id(name, &body);
        insert(&mut headers, "webhook-id", &id)?;
        let timestamp = self.clock.now().as_micros().div_euclid(1_000_000);
        insert(&mut headers, "webhook-timestamp", &timestamp.to_string())?;
        let keys = self.keys()?;
        if !keys.is_empty() {
            insert(&mut headers, "webhook-signature", &signature::sign(&keys, &id, timestamp, &body))?;
        }
        Ok(Prepared { url, client, headers, body })
    }

    fn url(&self) -> Result<Url, Obstacle> {
        let text = self.target.url.read().map_err(|error| error.to_string())?;
        let url = WebhookTarget::parse_url(&text).map_err(|why| format!("the url {} {why}", self.target.shown()))?;
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        // A name is checked when it is looked up.
        if let Ok(address) = host.parse::<IpAddr>() {
            Guard::new(&self.target.deny).check(address).map_err(|refused| refused.to_string())?;
        }
        Ok(url)
    }

    fn keys(&self) -> Result<Vec<ring::hmac::Key>, Obstacle> {
        let key = |source: &SecretSource| {
            let secret = source.read().map_err(|error| error.to_string())?;
            signature::key(&secret).map_err(|error| format!("the secret {source} {error}").into())
        };
        self.target.secrets.iter().map(key).collect()
    }

    fn client(&self, url: &Url) -> Result<Client, Obstacle> {
        let transport = if url.scheme() == "http" { Transport::Plain } else { Transport::Tls };
        if let Some((made_for, client)) = &*self.client.borrow()
            && *made_for == transport
        {
            return Ok(client.clone());
        }
        let client = self.make_client(transport)?;
        self.client.replace(Some((transport, client.clone())));
        Ok(client)
    }

    fn make_client(&self, transport: Transport) -> Result<Client, Obstacle> {
        crate::store::object::choose_cryptography();
        let WebhookTarget { ca, identity, proxy, deny, .. } = &self.target;
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout / 2))
            .dns_resolver(std::sync::Arc::new(Guard::new(deny)));
        client = match proxy {
            WebhookProxy::Environment => client,
            WebhookProxy::None => client.no_proxy(),
            WebhookProxy::Url(url) => {
                let url = url.read().map_err(|error| format!("the proxy: {error}"))?;
                client.proxy(Proxy::all(url).map_err(|_| "the proxy: it has no URL of one".to_owned())?)
            }
        };
        if transport == Transport::Plain {
            client = client.tls_certs_only([]);
        } else if let Some(path) = ca {
            let unfit = |error: &reqwest::Error| format!("no certificates in {}: {}", path.display(), cause(error));
            let certificates = Certificate::from_pem_bundle(&read_pem(path)?).map_err(|error| unfit(&error))?;
            if certificates.is_empty() {
                return Err(format!("no certificates in {}", path.display()).into());
            }
            client = client.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = identity.as_ref().filter(|_| transport == Transport::Tls) {
            let mut pem = read_pem(certificate)?;
            pem.push(b'\n');
            pem.extend(read_pem(key)?);
            let unfit = |error: reqwest::Error| {
                format!("no certificate and key in {} and {}: {}", certificate.display(), key.display(), cause(&error))
            };
            client = client.identity(Identity::from_pem(&pem).map_err(unfit)?);
        }
        client.build().map_err(|error| format!("cannot speak TLS: {}", cause(&error)).into())
    }
}

impl Handler for Webhook {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let start = self.clock.elapsed();
            let Answer { outcome, text, retry_after } = self.answer(&job).await;
            let took = self.clock.elapsed().saturating_sub(start);
            RunReport { retry_after, ..RunReport::new(outcome, text, took) }
        })
    }

    fn terminate(&self) {
        self.stop.notify_waiters();
    }

    fn check(&self) -> Result<(), Obstacle> {
        let content = request::Content { headers: Vec::new(), body: Vec::new() };
        self.prepare("", content).map(drop)
    }
}

/// An obstacle that passes without a change here.
fn passing(why: String) -> Obstacle {
    Obstacle { is_temporary: true, ..why.into() }
}

/// How a run ended that got no answer. A receiver that cannot be reached is so for every event, and so
/// is one that speaks no TLS with this client, which it may say after the request.
fn broken(error: &reqwest::Error, server: &str) -> Outcome {
    let cause = cause(error);
    if error.is_connect() || is_tls(error) {
        let why = if error.is_timeout() { "no connection in time".to_owned() } else { cause };
        return Outcome::NotStarted(Box::new(passing(format!("cannot reach {server}: {why}"))));
    }
    Outcome::NoAnswer(format!("no answer from {server}: {cause}").into())
}

/// The beginning of an answer's body, as text.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(ANSWER_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `https://crm.example:8443`: what may be shown of any URL.
fn server_of(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Whether the error is one of TLS.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || within.is_some_and(|error| error.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// A URL of a web server.
fn parse_http(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The innermost error, in the system's words where it is the system's.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(error) => system_words(error),
        None => innermost.to_string(),
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Obstacle> {
    let unfit = || format!("header {name} is none that HTTP can carry");
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot read {}: {}", path.display(), system_words(&error));
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path).map_err(unreadable)?, PEM_BYTES), &mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}
