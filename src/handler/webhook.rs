//! A webhook as a handler: one POST for an event, or for a batch.
//!
//! `target` says where it goes and `guard` where it may not, `request` makes what is sent, `signature`
//! signs it, `client` sends it, and `answer` says what came back.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use tokio::sync::Notify;

use super::{Handler, Job, Obstacle, Outcome, RunReport};
use crate::clock::{Clock, Fut};
use crate::secret::{MaybeSecret, SecretSource};

mod answer;
mod client;
mod guard;
mod request;
pub(super) mod signature;
mod target;

pub use guard::{Network, NetworkError};
pub use request::WebhookFormat;
pub use target::{WebhookProxy, WebhookTarget};

#[cfg(feature = "cli")]
pub(crate) use client::cause as http_cause;
use client::{cause, is_refused_by_tls};
use guard::Guard;
use target::host_of;

/// A client for requests to URLs with this one's scheme, with the defaults of a webhook's. What is sent in
/// clear text goes by no proxy.
#[cfg(feature = "cli")]
pub(crate) fn http_client(url: &Url, timeout: Duration) -> Result<Client, Obstacle> {
    let mut target = WebhookTarget::new(MaybeSecret::Plain(url.to_string()));
    if url.scheme() == "http" {
        target.proxy = WebhookProxy::None;
    }
    client::client(&target, timeout, url)
}

/// How much of an answer is read.
const ANSWER_BYTES: usize = 4 * 1024;

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
        let url = prepared.url.clone();
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
                Err(error) => self.broken(&error.without_url(), &url),
            },
            () = stop => Outcome::Stopped,
            () = self.clock.sleep_until(limit) => {
                let (server, seconds) = (self.server_of(&url), self.settings.timeout.as_secs_f64());
                Outcome::NoAnswer(format!("no answer from {server} within {seconds} s").into())
            }
        };
        match begun.into_inner() {
            Some(begun) => self.judged(begun, &url),
            None => unanswered.into(),
        }
    }

    fn begin(&self, response: &Response) -> BegunAnswer {
        let status = response.status().as_u16();
        BegunAnswer { status, retry_after: self.retry_after(response), body: Vec::new() }
    }

    /// What an answer means. That the receiver is gone is so for every event, and costs none of them an
    /// attempt.
    fn judged(&self, begun: BegunAnswer, url: &Url) -> Answer {
        let BegunAnswer { status, retry_after, mut body } = begun;
        if status == answer::GONE && !self.settings.dead_on.contains(&i32::from(status)) {
            return passing(format!("{} answers 410 Gone: it wants no more events", self.server_of(url))).into();
        }
        let outcome = Outcome::Status(status);
        body.truncate(if outcome.is_success() { 0 } else { ANSWER_BYTES });
        Answer { outcome, text: String::from_utf8_lossy(&body).into_owned(), retry_after }
    }

    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
        answer::retry_after(value, self.clock.now())
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
        let client = client::client(&self.target, self.settings.timeout, url)?;
        self.client.replace(Some((url.scheme().to_owned(), client.clone())));
        Ok(client)
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
    fn broken(&self, error: &reqwest::Error, url: &Url) -> Outcome {
        let server = self.server_of(url);
        let cause = match &self.target.url {
            MaybeSecret::Plain(_) => cause(error),
            MaybeSecret::Secret(_) => cause(error).replace(&host_of(url), "…"),
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

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Obstacle> {
    let unfit = || format!("header {name} is none that HTTP can carry");
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}
