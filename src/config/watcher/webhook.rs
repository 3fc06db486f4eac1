//! The keys of a watcher that sends its events to a URL.

use std::path::Path;
use std::time::Duration;

use crate::config::section::{Field, Section};
use crate::config::{ConfigError, Environment};
use crate::handler::{Network, WebhookFormat, WebhookProxy, WebhookTarget};
use crate::secret::MaybeSecret;

/// How long a request waits for its answer unless a setting says otherwise.
pub(super) const URL_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const WEBHOOK_KEYS: [&str; 9] = ["url", "format", "secret", "headers", "ca", "cert", "key", "proxy", "deny"];

/// Headers that evbus sets itself, or HTTP does.
const OWN_HEADERS: [&str; 8] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// Reads a URL, or where one is; a relative path starts from `folder`.
///
/// # Errors
/// It is no URL of a receiver; what to write.
pub fn parse_url(text: &str, environment: &Environment, folder: &Path) -> Result<MaybeSecret, &'static str> {
    let url = MaybeSecret::parse(text, |path| environment.expand(path, folder));
    if let MaybeSecret::Plain(text) = &url {
        WebhookTarget::parse_url(text)?;
    }
    Ok(url)
}

/// Reads `structured` or `binary`.
///
/// # Errors
/// It is neither.
pub fn parse_format(text: &str) -> Result<WebhookFormat, &'static str> {
    match text {
        "structured" => Ok(WebhookFormat::Structured),
        "binary" => Ok(WebhookFormat::Binary),
        _ => Err("must be structured or binary"),
    }
}

/// Reads the keys of a watcher with a `url`.
pub(super) fn read(
    url: &Field<'_>,
    section: &Section<'_>,
    environment: &Environment,
    folder: &Path,
) -> Result<WebhookTarget, ConfigError> {
    let target = parse_url(url.text()?, environment, folder).map_err(|why| url.error(why))?;
    let mut target = WebhookTarget::new(target);
    if let Some(field) = section.field("format") {
        target.format = parse_format(field.text()?).map_err(|why| field.error(why))?;
    }
    if let Some(field) = section.field("secret") {
        target.secrets = field.secrets(environment, folder)?;
    }
    if let Some(field) = section.field("headers") {
        let headers = field.section()?.fields();
        target.headers =
            headers.iter().map(|header| read_header(header, environment, folder)).collect::<Result<_, _>>()?;
    }
    target.ca = section.field("ca").map(|field| field.path(environment, folder)).transpose()?;
    target.identity = section.certificate(environment, folder)?;
    if let Some(field) = section.field("proxy") {
        target.proxy = match field.text()? {
            "none" => WebhookProxy::None,
            text => {
                let url = MaybeSecret::parse(text, |path| environment.expand(path, folder));
                if let MaybeSecret::Plain(text) = &url {
                    WebhookTarget::parse_proxy(text).map_err(|why| field.error(why))?;
                }
                WebhookProxy::Url(url)
            }
        };
    }
    if let Some(field) = section.field("deny") {
        for item in field.items()? {
            let networks = Network::parse_entry(item.text);
            target.deny.extend(networks.map_err(|error| {
                field.error_at(item.offset, format_args!("'{}' {error}", item.text.escape_debug()))
            })?);
        }
    }
    Ok(target)
}

fn read_header(
    header: &Field<'_>,
    environment: &Environment,
    folder: &Path,
) -> Result<(String, MaybeSecret), ConfigError> {
    let name = header.name.to_ascii_lowercase();
    if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(header.error("is not the name of a header"));
    }
    if OWN_HEADERS.contains(&&*name) || name.starts_with("ce-") {
        return Err(header.error("is a header that evbus sets itself"));
    }
    let value = MaybeSecret::parse(header.text()?, |path| environment.expand(path, folder));
    if let MaybeSecret::Plain(text) = &value
        && reqwest::header::HeaderValue::from_str(text).is_err()
    {
        return Err(header.error("is no value that a header can have"));
    }
    Ok((name, value))
}
