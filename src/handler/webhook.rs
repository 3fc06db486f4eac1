//! A webhook as a handler: one POST for an event, or for a batch.
//!
//! `request` makes what is sent, `signature` signs it, `guard` says where it may not go, and `answer`
//! says what came back.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Proxy, Response, Url};
use tokio::sync::Notify;

use super::{Handler, Job, Obstacle, Outcome, RunReport, named_digest};
use crate::clock::{Clock, Fut};
use crate::secret::{MaybeSecret, SecretSource, read_private, read_public};
use crate::store::system_words;
use crate::threads;

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
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
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
        named_digest(&name, &[whole])
    }
}

/// How a watcher sends.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Whether a run is for many events, a line each, as [`super::Batches`] makes them.
    pub in_batches: bool,
    /// How long a request waits for its answer.
    pub timeout: Duration,
    /// Statuses that make an event dead at once: with 410 among them, the receiver is not gone.
    pub dead_on: Vec<i32>,
}

/// Sends each event to a [`WebhookTarget`].
pub struct Webhook {
    target: WebhookTarget,
    settings: WebhookSettings,
    clock: Rc<dyn Clock>,
    stop: Notify,
    /// The URL that was used last, and its text.
    url: RefCell<Option<(String, Url)>>,
    /// Made at the first request, and used for all that follow, as long as the scheme is the same.
    client: RefCell<Option<(String, Client)>>,
}

/// Whether a client speaks TLS, to the receiver or to a proxy: one that does not needs no certificates,
/// and there may be none.
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

/// An answer that has come so far.
struct BegunAnswer {
    status: u16,
    retry_after: Option<Duration>,
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
    /// A handler that sends one request for each run.
    pub fn new(target: WebhookTarget, settings: WebhookSettings, clock: Rc<dyn Clock>) -> Self {
        Self { target, settings, clock, stop: Notify::new(), url: RefCell::default(), client: RefCell::default() }
    }

    async fn answer(&self, job: &Job) -> Answer {
        let stop = self.stop.notified();
        let limit = self.clock.elapsed() + self.settings.timeout;
        let content = match self.settings.in_batches {
            true => request::batch(&job.event),
            false => match request::content(&job.event, self.target.format) {
                Ok(content) => content,
                Err(why) => return Outcome::Unfit(why.into()).into(),
            },
        };
        let prepared = match self.prepare(&job.file, content) {
            Ok(prepared) => prepared,
            Err(obstacle) => return obstacle.into(),
        };
        let server = self.server_of(&prepared.url);
        let host = host_of(&prepared.url);
        // What has come of the answer: a body that never ends takes nothing from it.
        let begun = RefCell::new(None::<BegunAnswer>);
        let exchange = async {
            let request = prepared.client.post(prepared.url).headers(prepared.headers).body(prepared.body);
            let mut response = request.send().await?;
            begun.replace(Some(self.begin(&response)));
            // The body of a success is read, too, so that its connection can be used again.
            while let Ok(Some(chunk)) = response.chunk().await {
                let mut begun = begun.borrow_mut();
                let Some(begun) = begun.as_mut() else { break };
                begun.body.extend_from_slice(&chunk);
                if begun.body.len() >= ANSWER_BYTES {
                    break;
                }
            }
            Ok::<(), reqwest::Error>(())
        };
        let unanswered = tokio::select! { biased;
            ended = exchange => match ended {
                Ok(()) => Outcome::Stopped,
                // The URL may be a secret, and so may its host.
                Err(error) => self.broken(&error.without_url(), &server, &host),
            },
            () = stop => Outcome::Stopped,
            () = self.clock.sleep_until(limit) => {
                let seconds = self.settings.timeout.as_secs_f64();
                Outcome::NoAnswer(format!("no answer from {server} within {seconds} s").into())
            }
        };
        match begun.into_inner() {
            Some(begun) => self.judged(begun, &server),
            None => unanswered.into(),
        }
    }

    fn begin(&self, response: &Response) -> BegunAnswer {
        let status = response.status().as_u16();
        BegunAnswer { status, retry_after: self.retry_after(response), body: Vec::new() }
    }

    /// What an answer means. That the receiver is gone is so for every event, and costs none of them an
    /// attempt.
    fn judged(&self, begun: BegunAnswer, server: &str) -> Answer {
        let BegunAnswer { status, retry_after, mut body } = begun;
        if status == answer::GONE && !self.settings.dead_on.contains(&i32::from(status)) {
            return passing(format!("{server} answers 410 Gone: it wants no more events")).into();
        }
        body.truncate(if (200..=299).contains(&status) { 0 } else { ANSWER_BYTES });
        Answer { outcome: Outcome::Status(status), text: String::from_utf8_lossy(&body).into_owned(), retry_after }
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
        if let Some((_, url)) = self.url.borrow().as_ref().filter(|(known, _)| *known == text) {
            return Ok(url.clone());
        }
        let url = WebhookTarget::parse_url(&text).map_err(|why| format!("the url {} {why}", self.target.shown()))?;
        // A name is checked when it is looked up.
        if let Ok(address) = host_of(&url).parse::<IpAddr>() {
            Guard::new(&self.target.deny).check(address).map_err(|refused| refused.to_string())?;
        }
        self.url.replace(Some((text, url.clone())));
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
        if let Some((_, client)) = self.client.borrow().as_ref().filter(|(scheme, _)| scheme == url.scheme()) {
            return Ok(client.clone());
        }
        let proxy = self.proxy()?;
        let is_plain = url.scheme() == "http" && proxy.as_ref().is_none_or(|proxy| proxy.scheme() == "http");
        let client = self.make_client(if is_plain { Transport::Plain } else { Transport::Tls }, proxy)?;
        self.client.replace(Some((url.scheme().to_owned(), client.clone())));
        Ok(client)
    }

    /// The proxy that requests go through; of the environment's, one that is spoken to over TLS.
    fn proxy(&self) -> Result<Option<Url>, Obstacle> {
        match &self.target.proxy {
            WebhookProxy::None => Ok(None),
            WebhookProxy::Environment => Ok(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
                .into_iter()
                .filter_map(|name| parse_http(&std::env::var(name).ok()?))
                .find(|url| url.scheme() == "https")),
            WebhookProxy::Url(url) => {
                let url = url.read().map_err(|error| format!("the proxy: {error}"))?;
                let url = parse_http(&url).ok_or_else(|| "the proxy: what is there is no URL of one".to_owned())?;
                if let Ok(address) = host_of(&url).parse::<IpAddr>() {
                    Guard::default().check(address).map_err(|refused| format!("the proxy: {refused}"))?;
                }
                Ok(Some(url))
            }
        }
    }

    fn make_client(&self, transport: Transport, proxy: Option<Url>) -> Result<Client, Obstacle> {
        crate::store::object::choose_cryptography();
        threads::start_resolver().map_err(|error| format!("{}: {}", threads::NO_RESOLVER, system_words(&error)))?;
        let WebhookTarget { ca, identity, deny, .. } = &self.target;
        let mut guard = Guard::new(deny);
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(self.settings.timeout / 2));
        match (&self.target.proxy, proxy) {
            (WebhookProxy::Environment, _) => {}
            (WebhookProxy::Url(_), Some(url)) => {
                guard = guard.with_proxy(&host_of(&url));
                client = client.proxy(Proxy::all(url).map_err(|_| "the proxy: it has no URL of one".to_owned())?);
            }
            _ => client = client.no_proxy(),
        }
        client = client.dns_resolver(Arc::new(guard));
        if transport == Transport::Plain {
            client = client.tls_certs_only([]);
        } else if let Some(path) = ca {
            let pem = read_public(path, PEM_BYTES).map_err(|why| format!("{} {why}", path.display()))?;
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(format!("no certificates in {}", path.display()).into());
            }
            client = client.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = identity.as_ref().filter(|_| transport == Transport::Tls) {
            let unreadable = |path: &PathBuf, why: String| format!("{} {why}", path.display());
            let mut pem = read_public(certificate, PEM_BYTES).map_err(|why| unreadable(certificate, why))?;
            pem.push(b'\n');
            pem.extend(read_private(key, PEM_BYTES).map_err(|why| unreadable(key, why))?);
            let unfit = |_| format!("no certificate and key in {} and {}", certificate.display(), key.display());
            client = client.identity(Identity::from_pem(&pem).map_err(unfit)?);
        }
        client.build().map_err(|error| format!("cannot speak TLS: {}", cause(&error)).into())
    }

    /// `https://crm.example:8443`; where the URL is, if it is a secret.
    fn server_of(&self, url: &Url) -> String {
        match &self.target.url {
            MaybeSecret::Plain(_) => {
                let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
                format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
            }
            MaybeSecret::Secret(source) => source.to_string(),
        }
    }

    /// How a run ended that got no answer. A receiver that cannot be reached is so for every event, and so
    /// is one that refuses this client's certificate, which it may say after the request.
    fn broken(&self, error: &reqwest::Error, server: &str, host: &str) -> Outcome {
        let cause = match &self.target.url {
            MaybeSecret::Plain(_) => cause(error),
            MaybeSecret::Secret(_) => cause(error).replace(host, "…"),
        };
        if error.is_connect() || is_refused_by_tls(error) {
            let why = if error.is_timeout() { "no connection in time".to_owned() } else { cause };
            return Outcome::NotStarted(Box::new(passing(format!("cannot reach {server}: {why}"))));
        }
        Outcome::NoAnswer(format!("no answer from {server}: {cause}").into())
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

/// Whether the two sides refuse each other's certificates, or agree on nothing.
fn is_refused_by_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let own = error.downcast_ref::<rustls::Error>();
        if let Some(error) = own.or_else(|| within.and_then(|error| error.downcast_ref::<rustls::Error>())) {
            return is_refusal(error);
        }
        next = error.source();
    }
    false
}

fn is_refusal(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    match error {
        InvalidCertificate(_) | NoCertificatesPresented => true,
        AlertReceived(alert) => matches!(
            alert,
            Alert::HandshakeFailure
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::ProtocolVersion
        ),
        _ => false,
    }
}

/// The host, an IPv6 address without its brackets.
fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
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
