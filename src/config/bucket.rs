//! The address of a bucket and its credentials: from the URL, the environment, and the files of the
//! providers' tools.
//!
//! The URL comes before the environment, the environment before the files. The URL alone decides
//! which bucket it is and where in it the bus lies: of the environment only the variables of a list
//! are read (`environment`), none of which names a place. No server is asked here. A text that may
//! hold a secret is never shown.

use super::Environment;
use super::nearest::did_you_mean;
use super::parts::{Problem, percent_decoded};
use crate::config::ConfigDetail;
use crate::store::object::{Bucket, CredentialInputs, Kind};

mod environment;
#[cfg(test)]
mod tests;

/// The parameters of a bucket's URL, and the setting that each one sets.
const fn known(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::S3 => &[("endpoint", "aws_endpoint_url_s3"), ("region", "aws_region"), ("profile", "profile")],
        Kind::Gcs => &[("endpoint", "google_base_url")],
        Kind::Azure => &[("endpoint", "azure_endpoint")],
    }
}

/// Settings under the names of the provider's variables, in lower case.
type ProviderSettings = Vec<(String, String)>;

/// The bucket of `scheme://bucket/prefix?endpoint=…&region=…&profile=…`; `rest` is the text after
/// `//`.
pub(super) fn parse(kind: Kind, rest: &str, environment: &Environment) -> Result<Bucket, Problem> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    checked_name(kind, name)?;
    let prefix = checked_prefix(kind, prefix)?;
    let mut settings = parameters(kind, query)?;
    let profile = settings.iter().position(|(name, _)| name == "profile").map(|at| settings.remove(at).1);
    let identity = match kind {
        Kind::S3 => {
            CredentialInputs { vars: environment.vars.clone(), home: environment.home.clone(), profile, region: None }
        }
        Kind::Gcs | Kind::Azure => CredentialInputs::default(),
    };
    let in_environment = environment::settings(kind, environment, &identity)?;
    let unset: Vec<_> =
        in_environment.into_iter().filter(|(name, _)| !settings.iter().any(|(set, _)| set == name)).collect();
    settings.extend(unset);
    let mut bucket = Bucket { kind, name: name.to_owned(), prefix, settings, identity };
    bucket.identity.region = bucket.setting("aws_region").map(str::to_owned);
    Ok(bucket)
}

fn refused(kind: Kind, what: impl std::fmt::Display) -> Problem {
    (format!("the {}:// URL {what}", kind.scheme()), None)
}

fn checked_name(kind: Kind, name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(refused(kind, format_args!("has no bucket (write {}://bucket/prefix)", kind.scheme())));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let Some(odd) = name.chars().find(|c| !is_name(*c)) else { return Ok(()) };
    if "@:%".contains(odd) {
        let what = "has something before its bucket that may be a secret";
        return Err((refused(kind, what).0, Some(ConfigDetail::CredentialsInUrl(kind))));
    }
    Err(refused(kind, format_args!("has a '{}' in its bucket (letters, digits, '.', '-', '_')", odd.escape_debug())))
}

fn checked_prefix(kind: Kind, prefix: &str) -> Result<String, Problem> {
    let prefix = decoded(prefix.trim_end_matches('/')).ok_or_else(|| refused(kind, "has a broken % in its path"))?;
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err(refused(kind, "has an empty or odd part in its path"));
    }
    if prefix.contains('@') {
        return Err((refused(kind, "has an '@' in its path").0, Some(ConfigDetail::CredentialsInUrl(kind))));
    }
    Ok(prefix)
}

fn decoded(text: &str) -> Option<String> {
    percent_decoded(text).and_then(|bytes| String::from_utf8(bytes).ok())
}

fn parameters(kind: Kind, query: &str) -> Result<ProviderSettings, Problem> {
    let mut found: ProviderSettings = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some((_, setting)) = known(kind).iter().find(|(known, _)| *known == name) else {
            return Err(unknown_parameter(kind, name));
        };
        let value = decoded(value).ok_or_else(|| refused(kind, format_args!("has a broken % in its {name}")))?;
        match name {
            "endpoint" => checked_endpoint(&value).map_err(|what| {
                (refused(kind, format_args!("has an endpoint that {what}")).0, Some(ConfigDetail::EndpointParameter))
            })?,
            "region" if !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
                return Err(refused(kind, "has a region that is none"));
            }
            _ => {}
        }
        found.retain(|(set, _)| set != setting);
        found.push(((*setting).to_owned(), value));
    }
    Ok(found)
}

/// Shows the parameter only if it looks like a name: anything else may be the rest of a secret.
fn unknown_parameter(kind: Kind, name: &str) -> Problem {
    let is_name = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
    let near = did_you_mean(name, known(kind).iter().map(|(known, _)| *known));
    let shown = if is_name { format!(" '{name}'{near}") } else { String::new() };
    let secret = ["secret", "key", "token", "sas", "sig", "pass", "cred"].iter().any(|word| name.contains(word));
    let detail = (secret || !is_name).then_some(ConfigDetail::CredentialsInUrl(kind));
    (refused(kind, format_args!("has an unknown parameter{shown}")).0, detail)
}

/// Accepts the address of a server, and nothing that may be a secret.
fn checked_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let is_url =
        ["http://", "https://"].iter().any(|scheme| endpoint.len() > scheme.len() && endpoint.starts_with(scheme));
    if endpoint.contains('@') || endpoint.to_ascii_lowercase().contains("%40") {
        return Err("has an '@' in it, before which credentials would stand");
    }
    if endpoint.contains(['?', '#']) || endpoint.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is more than a server's address");
    }
    if is_url { Ok(()) } else { Err("is no http:// or https:// URL") }
}
