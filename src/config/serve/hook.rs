//! `[serve.hooks.NAME]`: a webhook of another service, and the event that it becomes.

use std::path::Path;
use std::time::Duration;

use super::template::{Template, is_header};
use super::{fields_of, read_secrets};
use crate::config::section::{Field, Section};
use crate::config::{ConfigError, Environment};
use crate::secret::SecretSource;

/// How old a signed time may be unless told otherwise.
const TOLERANCE: Duration = Duration::from_mins(5);

const KEYS: [&str; 14] = [
    "verify",
    "secret",
    "type",
    "id",
    "subject",
    "source",
    "attributes",
    "header",
    "encoding",
    "prefix",
    "hash",
    "timestamp_header",
    "tolerance",
    "redirect",
];

/// The keys that only `verify = "hmac"` has.
const HMAC_KEYS: [&str; 5] = ["header", "encoding", "prefix", "hash", "timestamp_header"];

/// A webhook that is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// How its sender proves that it is the sender.
    pub verify: Verify,
    /// Each of them is good.
    pub secrets: Vec<SecretSource>,
    /// How old a signed time may be.
    pub tolerance: Duration,
    /// The event's type.
    pub type_: Template,
    /// The event's id: a redelivery is a repeat.
    pub id: Option<Template>,
    /// What the event is about.
    pub subject: Option<Template>,
    /// Where the event comes from.
    pub source: Template,
    /// Further attributes of the event.
    pub attributes: Vec<(String, Template)>,
    /// Where a browser goes that has sent a form.
    pub redirect: Option<String>,
}

/// How the sender of a webhook proves that it is the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Not at all.
    None,
    /// `X-Hub-Signature-256`.
    Github,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Slack-Signature` and `X-Slack-Request-Timestamp`.
    Slack,
    /// Standard Webhooks.
    Standard,
    /// Another HMAC.
    Hmac(HmacScheme),
}

/// An HMAC over the body, or over a time, a dot and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacScheme {
    /// The header that holds it.
    pub header: String,
    /// How it is written there.
    pub encoding: HmacEncoding,
    /// What stands before it, such as `sha256=`.
    pub prefix: String,
    /// Whether it is SHA-1, as in older services, and not SHA-256.
    pub is_sha1: bool,
    /// The header that holds the signed time, in seconds since 1970.
    pub timestamp_header: Option<String>,
}

/// How the bytes of a signature are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacEncoding {
    /// In hex digits.
    Hex,
    /// In base64.
    Base64,
}

impl Hook {
    /// Parses one `[serve.hooks.NAME]`; relative paths start from `folder`.
    pub(super) fn read(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Self, ConfigError> {
        let section = field.section()?;
        section.refuse_unknown(&KEYS)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if field.name.is_empty() || field.name.starts_with('.') || !field.name.bytes().all(is_name) {
            return Err(field.error("is not a name for a path: use letters, digits, '-', '_' and '.'"));
        }
        let verify = read_verify(field, &section)?;
        let secrets = match (section.field("secret"), &verify) {
            (None, Verify::None) => Vec::new(),
            (Some(secret), Verify::None) => return Err(secret.error("is for a hook that verifies something")),
            (Some(secret), _) => read_secrets(&secret, environment, folder)?,
            (None, _) => return Err(field.error("has no secret (add secret = \"env:NAME\")")),
        };
        let template = |key: &str| section.field(key).as_ref().map(read_template).transpose();
        let fixed = |text: String| Template::parse(&text).map_err(|why| field.error(why));
        let (type_, id) = match (template("type")?, &verify) {
            (Some(type_), _) => (type_, template("id")?),
            (None, Verify::Github) => (fixed("github.{x-github-event}.{body.action}".to_owned())?, template("id")?),
            (None, Verify::Stripe) => (fixed("stripe.{body.type}".to_owned())?, template("id")?),
            (None, Verify::Slack) => (fixed("slack.{body.event.type}".to_owned())?, template("id")?),
            (None, _) => return Err(field.error("has no type (add type = \"order.{body.status}\")")),
        };
        let id = match (id, &verify) {
            (Some(id), _) => Some(id),
            (None, Verify::Github) => Some(fixed("{x-github-delivery}".to_owned())?),
            (None, Verify::Stripe) => Some(fixed("{body.id}".to_owned())?),
            (None, Verify::Slack) => Some(fixed("{body.event_id}".to_owned())?),
            (None, Verify::Standard) => Some(fixed("{webhook-id}".to_owned())?),
            (None, Verify::None | Verify::Hmac(_)) => None,
        };
        let mut attributes = Vec::new();
        for attribute in fields_of(&section, "attributes")? {
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if attribute.name.is_empty() || !attribute.name.bytes().all(is_name) {
                return Err(attribute.error("is not the name of an attribute: use a to z and digits"));
            }
            if crate::event::CORE_ATTRIBUTES.contains(&attribute.name) || attribute.name.starts_with("data") {
                return Err(attribute.error("is not an attribute that can be set here"));
            }
            attributes.push((attribute.name.to_owned(), read_template(&attribute)?));
        }
        let tolerance = section.field("tolerance").map(|field| field.positive_duration()).transpose()?;
        let redirect = section.field("redirect").map(|field| read_redirect(&field)).transpose()?;
        Ok(Self {
            verify,
            secrets,
            tolerance: tolerance.unwrap_or(TOLERANCE),
            type_,
            id,
            subject: template("subject")?,
            source: match template("source")? {
                Some(source) => source,
                None => fixed(format!("/hooks/{}", field.name))?,
            },
            attributes,
            redirect,
        })
    }
}

fn read_template(field: &Field<'_>) -> Result<Template, ConfigError> {
    Template::parse(field.text()?).map_err(|why| field.error(why))
}

fn read_redirect(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    let is_url = text.starts_with("https://") || text.starts_with("http://") || text.starts_with('/');
    if !is_url || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(field.error("is not a URL, such as https://example.org/thanks"));
    }
    Ok(text.to_owned())
}

fn read_verify(hook: &Field<'_>, section: &Section<'_>) -> Result<Verify, ConfigError> {
    let Some(field) = section.field("verify") else {
        return Err(hook.error(
            "has no verify (github, stripe, slack, standard or hmac; \"none\" lets everyone call it who reaches it)",
        ));
    };
    let kind = field.text()?;
    if kind != "hmac"
        && let Some(other) = HMAC_KEYS.iter().find_map(|key| section.field(key))
    {
        return Err(other.error("is for verify = \"hmac\""));
    }
    Ok(match kind {
        "none" => Verify::None,
        "github" => Verify::Github,
        "stripe" => Verify::Stripe,
        "slack" => Verify::Slack,
        "standard" => Verify::Standard,
        "hmac" => Verify::Hmac(read_hmac(&field, section)?),
        _ => return Err(field.error("must be github, stripe, slack, standard, hmac or none")),
    })
}

fn read_hmac(verify: &Field<'_>, section: &Section<'_>) -> Result<HmacScheme, ConfigError> {
    let header = |field: &Field<'_>| match field.text()? {
        text if is_header(text) => Ok(text.to_ascii_lowercase()),
        _ => Err(field.error("is not the name of a header")),
    };
    let named = section.field("header");
    let named = named.ok_or_else(|| verify.error("needs the header of the signature: header = \"X-Signature\""))?;
    let encoding = match section.field("encoding") {
        None => HmacEncoding::Hex,
        Some(field) => match field.text()? {
            "hex" => HmacEncoding::Hex,
            "base64" => HmacEncoding::Base64,
            _ => return Err(field.error("must be hex or base64")),
        },
    };
    let is_sha1 = match section.field("hash") {
        None => false,
        Some(field) => match field.text()? {
            "sha256" => false,
            "sha1" => true,
            _ => return Err(field.error("must be sha256 or sha1")),
        },
    };
    let prefix = section.field("prefix").map(|field| field.text().map(str::to_owned)).transpose()?;
    Ok(HmacScheme {
        header: header(&named)?,
        encoding,
        prefix: prefix.unwrap_or_default(),
        is_sha1,
        timestamp_header: section.field("timestamp_header").as_ref().map(header).transpose()?,
    })
}
