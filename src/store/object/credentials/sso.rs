//! A login (AWS IAM Identity Center), whose token `aws sso login` has left in a file.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use object_store::client::HttpRequestBody;
use reqwest::Method;
use serde_json::{Value, json};

use super::ask::{encoded, object, request, set, time};
use super::files::keys;
use super::role::{Login, service};
use super::{CredentialsFailure, CredentialsResult, Fetch, FetchedCredential, now};
use crate::event::hex;
use crate::store::BucketProblem;

/// How long before it expires the token is renewed; few other programs renew it.
const LOGIN_EARLY: Duration = Duration::from_secs(300);

impl Fetch<'_> {
    /// The credentials of a role, given for a login.
    pub(super) async fn login(&self, login: &Login) -> CredentialsResult<FetchedCredential> {
        let token = self.token(login).await?;
        let endpoint = self.who.var("AWS_ENDPOINT_URL_SSO").map(str::to_owned);
        let endpoint = endpoint.unwrap_or_else(|| service("portal.sso", &login.region));
        let (role, account) = (encoded(&login.role), encoded(&login.account));
        let path = format!("federation/credentials?role_name={role}&account_id={account}");
        let url = format!("{}/{path}", endpoint.trim_end_matches('/'));
        let mut request = request(Method::GET, &url, HttpRequestBody::empty())?;
        set(&mut request, "x-amz-sso_bearer_token", &token);
        let server = format!("AWS SSO at {endpoint}");
        let answer = self.ask(&server, request, false).await?;
        match answer.status {
            200 => role_credentials(&answer.text, &server),
            401 => Err(login.expired()),
            status => {
                let refused = format!("role {} in account {} is refused ({status})", login.role, login.account);
                Err(answer.failure(&server, &format!("AWS profile '{}': {refused}", login.profile)))
            }
        }
    }

    /// The token of a login, renewed if that is due and possible.
    async fn token(&self, login: &Login) -> CredentialsResult<String> {
        let name = hex(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, login.key.as_bytes()).as_ref());
        let path = self.who.aws_folder().join("sso").join("cache").join(format!("{name}.json"));
        let mut cache = login.read(&path)?;
        let expires = login.until(&cache)?;
        if expires < now() + LOGIN_EARLY {
            match self.renewed(&cache, &login.region).await {
                Ok(Some(renewed)) => {
                    cache = renewed;
                    // Other programs use the file too: the old refresh token may be void by now.
                    if let Err(error) = replace(&path, &cache) {
                        tracing::warn!("cannot write {}: {error}", path.display());
                    }
                }
                // Another program may have been first: a refresh token is good for one time.
                Ok(None) if expires <= now() => {
                    cache = login.read(&path)?;
                    if login.until(&cache)? <= now() {
                        return Err(login.expired());
                    }
                }
                Err(failure) if expires <= now() => return Err(failure),
                _ => {}
            }
        }
        text_of(&cache, "accessToken").ok_or_else(|| login.expired())
    }

    /// The login's file with a new token; none if there is no new token to be had.
    async fn renewed(&self, cache: &Value, region: &str) -> CredentialsResult<Option<Value>> {
        let get = |name: &str| cache.get(name).and_then(Value::as_str);
        let (Some(id), Some(secret), Some(refresh)) = (get("clientId"), get("clientSecret"), get("refreshToken"))
        else {
            return Ok(None);
        };
        let endpoint = self.who.var("AWS_ENDPOINT_URL_SSO_OIDC").map(str::to_owned);
        let endpoint = endpoint.unwrap_or_else(|| service("oidc", region));
        let body =
            json!({"clientId": id, "clientSecret": secret, "grantType": "refresh_token", "refreshToken": refresh});
        let url = format!("{}/token", endpoint.trim_end_matches('/'));
        let mut request = request(Method::POST, &url, body.to_string().into())?;
        set(&mut request, "content-type", "application/json");
        let server = format!("AWS SSO at {endpoint}");
        let answer = self.ask(&server, request, false).await?;
        if answer.status != 200 {
            return if answer.is_passing() { Err(answer.failure(&server, "no new token")) } else { Ok(None) };
        }
        let renewed_token = object(&answer.text, &server)?;
        let (Some(token), Some(seconds)) =
            (renewed_token.get("accessToken"), renewed_token.get("expiresIn").and_then(Value::as_u64))
        else {
            return Ok(None);
        };
        let mut renewed = cache.clone();
        renewed["accessToken"] = token.clone();
        let expires = now() + Duration::from_secs(seconds.min(1 << 30));
        renewed["expiresAt"] = format!("{expires:.0}").into();
        if let Some(refresh) = renewed_token.get("refreshToken") {
            renewed["refreshToken"] = refresh.clone();
        }
        Ok(Some(renewed))
    }
}

impl Login {
    fn again(&self, what: String) -> CredentialsFailure {
        CredentialsFailure::of(what).because(BucketProblem::LoginExpired { profile: self.profile.clone() })
    }

    fn expired(&self) -> CredentialsFailure {
        self.again(format!("the SSO login of AWS profile '{}' has expired", self.profile))
    }

    fn read(&self, path: &Path) -> CredentialsResult<Value> {
        let at = path.display();
        let none = |error| format!("AWS profile '{}' is not logged in: cannot read {at}: {error}", self.profile);
        let bytes = std::fs::read(path).map_err(|error| self.again(none(error)))?;
        object(&String::from_utf8_lossy(&bytes), &at.to_string())
    }

    /// When the token expires.
    fn until(&self, cache: &Value) -> CredentialsResult<Timestamp> {
        let expires = text_of(cache, "expiresAt").ok_or_else(|| self.expired())?;
        time(&expires, &format!("the SSO login of AWS profile '{}'", self.profile))
    }
}

fn text_of(object: &Value, name: &str) -> Option<String> {
    object.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// The credentials in the portal's answer; it tells their end in milliseconds.
fn role_credentials(text: &str, server: &str) -> CredentialsResult<FetchedCredential> {
    let answer = object(text, server)?;
    let credentials = answer.get("roleCredentials").cloned().unwrap_or_default();
    let need = |name: &str| {
        text_of(&credentials, name)
            .ok_or_else(|| CredentialsFailure::of(format!("{server} answers without credentials")))
    };
    let (key, secret, token) = (need("accessKeyId")?, need("secretAccessKey")?, text_of(&credentials, "sessionToken"));
    let expires = credentials.get("expiration").and_then(Value::as_i64);
    let expires = expires.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    Ok(FetchedCredential { credential: keys(&key, &secret, token.as_deref(), server)?, expires })
}

/// Replaces a file as a whole or not at all, readable by its owner alone.
fn replace(path: &Path, value: &Value) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = path.with_extension(format!("evbus-{}", std::process::id()));
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let done = open.and_then(|mut file| file.write_all(value.to_string().as_bytes()));
    let done = done.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    done
}
