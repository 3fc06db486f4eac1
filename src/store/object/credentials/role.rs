//! A role and a login, as a profile names them.

use super::files::Files;
use super::{CredentialInputs, CredentialsFailure, CredentialsResult};

/// A role that is to be assumed.
#[derive(Clone, PartialEq)]
pub(super) struct Role {
    /// Its name in messages, as in "role arn:… of profile 'x'".
    pub(super) shown: String,
    pub(super) arn: String,
    pub(super) session: String,
    pub(super) external_id: Option<String>,
    pub(super) seconds: Option<String>,
    pub(super) region: String,
    pub(super) endpoint: String,
}

/// A login whose token lies in a file.
#[derive(PartialEq)]
pub(super) struct Login {
    pub(super) profile: String,
    /// The key from which the name of its token's file is made: the session's name, or, in the
    /// older form, the URL.
    pub(super) key: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) role: String,
}

impl CredentialInputs {
    pub(super) fn role(&self, files: &Files, profile: &str, arn: &str, shown: &str) -> CredentialsResult<Role> {
        let get = |name: &str| files.get(profile, name).map(str::to_owned);
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| self.var(name));
        let region = region.map(str::to_owned).or_else(|| get("region")).or_else(|| self.region.clone());
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        checked_region(&region)?;
        let endpoint = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| self.var(name));
        let endpoint = endpoint.map(str::to_owned).or_else(|| get("endpoint_url"));
        let session = get("role_session_name").or_else(|| self.var("AWS_ROLE_SESSION_NAME").map(str::to_owned));
        Ok(Role {
            shown: shown.to_owned(),
            arn: arn.to_owned(),
            session: session.unwrap_or_else(|| "evbus".to_owned()),
            external_id: get("external_id"),
            seconds: get("duration_seconds"),
            endpoint: endpoint.unwrap_or_else(|| service("sts", &region)),
            region,
        })
    }
}

pub(super) fn login(files: &Files, profile: &str) -> CredentialsResult<Login> {
    let session = files.get(profile, "sso_session");
    let lines = session.map(|session| files.session(session)).transpose();
    let lines = lines.map_err(|failure| CredentialsFailure::of(format!("AWS profile '{profile}': {failure}")))?;
    let need = |name: &str| {
        let found = lines.and_then(|lines| lines.get(name)).cloned();
        let found = found.or_else(|| files.get(profile, name).map(str::to_owned));
        found.ok_or_else(|| CredentialsFailure::of(format!("AWS profile '{profile}' uses SSO, but has no {name}")))
    };
    let (url, region) = (need("sso_start_url")?, need("sso_region")?);
    checked_region(&region)?;
    Ok(Login {
        profile: profile.to_owned(),
        key: session.map_or(url, str::to_owned),
        region,
        account: need("sso_account_id")?,
        role: need("sso_role_name")?,
    })
}

/// Checks a region, which becomes part of the name of a server that receives secrets.
fn checked_region(region: &str) -> CredentialsResult<()> {
    match region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        true => Ok(()),
        false => Err(CredentialsFailure::of(format!("'{}' is no AWS region", region.escape_debug()))),
    }
}

/// The address of a service of AWS.
pub(super) fn service(name: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{name}.{region}.{domain}")
}
