//! Where the events of a watcher go, as its settings say.

use std::path::PathBuf;

use reqwest::Url;

use super::guard::Network;
use super::request::WebhookFormat;
use crate::handler::named_digest;
use crate::secret::{MaybeSecret, SecretSource};

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

/// The host, an IPv6 address without its brackets.
pub(super) fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// A URL of a web server.
pub(super) fn parse_http(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
