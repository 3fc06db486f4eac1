//! Who may what: bearer tokens (RFC 6750), each with its permissions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::clock::{Clock, SystemClock};
use crate::config::{ListenAddress, Permissions, ServeSettings, Token};
use crate::event::TypeFilter;
use crate::group::GroupName;
use crate::secret::{SecretError, SecretSource, is_equal};

/// For how long a token's secret is taken as it was read.
const FRESH: Duration = Duration::from_secs(1);

/// The challenge where there is no token, and where there is one that is not known.
const CHALLENGE: &str = "Bearer realm=\"evbus\"";
const INVALID: &str = "Bearer realm=\"evbus\", error=\"invalid_token\"";

/// Why these settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Others than this machine could call without a token.
    #[error("{0} can be reached by others, and there is no token (add [serve.tokens.NAME])")]
    NoTokens(ListenAddress),
    /// Whoever reaches the proxy could call without a token.
    #[error("behind_proxy is set, and there is no token (add [serve.tokens.NAME])")]
    ProxyWithoutTokens,
    /// A token would cross the network in clear text.
    #[error(
        "{0} can be reached by others, and tokens would pass in clear text (add cert and key, or behind_proxy = true)"
    )]
    NoTls(ListenAddress),
    /// A secret cannot be had.
    #[error("the token '{name}': {error}")]
    Secret {
        /// Of the token.
        name: String,
        /// What is wrong.
        error: SecretError,
    },
}

/// All tokens; without any everyone may everything.
#[derive(Debug)]
pub struct Access {
    tokens: Vec<KnownToken>,
}

#[derive(Debug)]
struct KnownToken {
    token: Token,
    may: Arc<Permissions>,
    /// Of its secrets, and when they were read.
    digests: Mutex<(Duration, Vec<[u8; 32]>)>,
}

impl Access {
    /// The tokens of the settings, for a server that listens at these addresses.
    ///
    /// # Errors
    /// A listener would be open to everyone, or a secret cannot be read.
    pub fn new(settings: &ServeSettings, listen: &[ListenAddress]) -> Result<Self, AccessError> {
        if let Some(open) = listen.iter().find(|address| !address.is_local()) {
            if settings.tokens.is_empty() {
                return Err(AccessError::NoTokens(open.clone()));
            }
            if settings.tls.is_none() && !settings.behind_proxy {
                return Err(AccessError::NoTls(open.clone()));
            }
        }
        if settings.behind_proxy && settings.tokens.is_empty() {
            return Err(AccessError::ProxyWithoutTokens);
        }
        let read = |token: &Token| {
            let digests = token.secrets.iter().map(digest).collect::<Result<_, _>>();
            let digests = digests.map_err(|error| AccessError::Secret { name: token.name.clone(), error })?;
            let digests = Mutex::new((SystemClock.elapsed(), digests));
            Ok(KnownToken { token: token.clone(), may: Arc::new(token.may.clone()), digests })
        };
        Ok(Self { tokens: settings.tokens.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// What the sender of a request may do.
    pub(super) fn grant(&self, headers: &HeaderMap) -> Result<Grant, Problem> {
        if self.tokens.is_empty() {
            return Ok(Grant(Arc::new(Permissions::all())));
        }
        let unknown = || Problem::unauthorized("the token is not known", INVALID);
        let Some(bearer) = presented(headers) else {
            return Err(match headers.contains_key(header::AUTHORIZATION) {
                true => unknown(),
                false => Problem::unauthorized("a token is needed: Authorization: Bearer TOKEN", CHALLENGE),
            });
        };
        let digest: [u8; 32] = Sha256::digest(&bearer).into();
        // All are compared, and each whole: the time tells nothing.
        let mut found = None;
        for known in &self.tokens {
            if known.has(&digest) {
                found = Some(Grant(Arc::clone(&known.may)));
            }
        }
        found.ok_or_else(unknown)
    }
}

/// The cookie that holds the page's token.
const COOKIE: &str = "evbus_token";

/// The token of a request: of its `Authorization`, else of the page's cookie.
pub(super) fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, bearer) = split_scheme(authorization.as_bytes())?;
        return scheme.eq_ignore_ascii_case(b"bearer").then(|| bearer.trim_ascii().to_vec());
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    URL_SAFE_NO_PAD.decode(value).ok()
}

/// The cookie for a token.
pub(super) fn cookie_of(token: &[u8]) -> String {
    format!("{COOKIE}={}", URL_SAFE_NO_PAD.encode(token))
}

fn split_scheme(authorization: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = authorization.iter().position(|byte| *byte == b' ')?;
    Some((&authorization[..at], &authorization[at + 1..]))
}

fn digest(secret: &SecretSource) -> Result<[u8; 32], SecretError> {
    Ok(Sha256::digest(secret.read()?.as_bytes()).into())
}

impl KnownToken {
    fn has(&self, presented: &[u8; 32]) -> bool {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemClock.elapsed();
        if now.saturating_sub(known.0) >= FRESH {
            // One that cannot be read is good for nothing until it is back; the others go on.
            let read = |secret: &SecretSource| {
                let failed =
                    |error| tracing::warn!("a secret of the token '{}' is not taken: {error}", self.token.name);
                digest(secret).map_err(failed).ok()
            };
            *known = (now, self.token.secrets.iter().filter_map(read).collect());
        }
        known.1.iter().fold(false, |found, known| found | is_equal(known, presented))
    }
}

/// What the sender of a request may do.
#[derive(Debug, Clone)]
pub(super) struct Grant(Arc<Permissions>);

impl Grant {
    /// Refuses a sender that may emit no event at all.
    pub fn check_emits(&self) -> Result<(), Problem> {
        if self.0.admin || self.0.emit.is_some() { Ok(()) } else { Err(Problem::insufficient("emit")) }
    }

    /// Refuses a sender that may not emit events of a type.
    pub fn check_emit(&self, type_: &str) -> Result<(), Problem> {
        let may = self.0.admin || self.0.emit.as_ref().is_some_and(|types| types.matches(type_));
        if may { Ok(()) } else { Err(Problem::insufficient(&format!("emit:{type_}"))) }
    }

    /// Refuses a sender that may not be a member of a group.
    pub fn check_pull(&self, group: &GroupName) -> Result<(), Problem> {
        if self.0.may_pull(group) { Ok(()) } else { Err(Problem::insufficient(&format!("pull:{group}"))) }
    }

    /// Refuses a sender that may not everything.
    pub fn check_admin(&self) -> Result<(), Problem> {
        if self.0.admin { Ok(()) } else { Err(Problem::insufficient("admin")) }
    }

    /// The types of events that the sender may read; none for all. Refuses one that may read no event.
    pub fn readable(&self) -> Result<Option<TypeFilter>, Problem> {
        match &self.0.read {
            _ if self.0.admin => Ok(None),
            Some(types) => Ok(Some(types.clone())),
            None => Err(Problem::insufficient("read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};
    use axum::response::IntoResponse;

    use super::*;

    fn settings(token: &std::path::Path, may: &[&str]) -> ServeSettings {
        let secrets = vec![SecretSource::File(token.to_owned())];
        let may = Permissions::parse(may.iter().copied()).unwrap();
        ServeSettings { tokens: vec![Token { name: "ci".to_owned(), secrets, may }], ..ServeSettings::default() }
    }

    fn write(path: &std::path::Path, secret: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, secret).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())])
    }

    #[test]
    fn a_token_gives_what_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, "s3cret\n");
        let access = Access::new(&settings(&path, &["emit:order.*"]), &[]).unwrap();
        let status = |authorization| match access.grant(&headers(authorization)) {
            Ok(_) => StatusCode::OK,
            Err(problem) => problem.into_response().status(),
        };
        assert_eq!(status("Bearer s3cret"), StatusCode::OK);
        assert_eq!(status("bearer s3cret"), StatusCode::OK, "RFC 9110, 11.1");
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer ", "Basic s3cret", "s3cret", "Bearer"] {
            assert_eq!(status(wrong), StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert!(access.grant(&HeaderMap::new()).is_err());
        let cookie = |text: &str| HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(text).unwrap())]);
        assert!(access.grant(&cookie(&format!("a=b; {}", cookie_of(b"s3cret")))).is_ok());
        for wrong in ["a=b", "evbus_token=s3cret", &cookie_of(b"other"), &format!("x{}", cookie_of(b"s3cret"))] {
            assert!(access.grant(&cookie(wrong)).is_err(), "{wrong}");
        }
        let mut both = cookie(&cookie_of(b"s3cret"));
        both.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert!(access.grant(&both).is_err(), "what is said counts");
        let grant = access.grant(&headers("Bearer s3cret")).unwrap();
        assert!(grant.check_emits().is_ok() && grant.check_emit("order.created").is_ok());
        assert!(grant.check_emit("invoice.created").is_err());
        assert!(grant.readable().is_err());
    }

    #[test]
    fn a_secret_that_changes_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, "old");
        let access = Access::new(&settings(&path, &["admin"]), &[]).unwrap();
        assert!(access.grant(&headers("Bearer old")).is_ok());
        write(&path, "new");
        // As if it had been read long ago.
        access.tokens[0].digests.lock().unwrap().0 = Duration::ZERO;
        assert!(access.grant(&headers("Bearer new")).is_ok());
        assert!(access.grant(&headers("Bearer old")).is_err());
        let other = folder.path().join("other");
        write(&other, "other");
        let mut both = settings(&path, &["admin"]);
        both.tokens[0].secrets.push(SecretSource::File(other));
        let both = Access::new(&both, &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
        for access in [&access, &both] {
            access.tokens[0].digests.lock().unwrap().0 = Duration::ZERO;
            assert!(access.grant(&headers("Bearer new")).is_err());
        }
        assert!(both.grant(&headers("Bearer other")).is_ok(), "the others go on");
    }

    #[test]
    fn what_others_reach_needs_tokens_and_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, "s");
        let open = [ListenAddress::Tcp(([0, 0, 0, 0], 8787).into())];
        let local = [ListenAddress::Tcp(([127, 0, 0, 1], 8787).into()), ListenAddress::Unix("/run/x".into())];
        let none = ServeSettings::default();
        assert!(Access::new(&none, &local).is_ok());
        assert!(matches!(Access::new(&none, &open), Err(AccessError::NoTokens(_))));
        let tokens = settings(&path, &["admin"]);
        assert!(matches!(Access::new(&tokens, &open), Err(AccessError::NoTls(_))));
        let tls = Some(("c".into(), "k".into()));
        assert!(Access::new(&ServeSettings { tls: tls.clone(), ..tokens.clone() }, &open).is_ok());
        assert!(Access::new(&ServeSettings { behind_proxy: true, ..tokens.clone() }, &open).is_ok());
        let proxied = ServeSettings { behind_proxy: true, ..ServeSettings::default() };
        assert!(matches!(Access::new(&proxied, &local), Err(AccessError::ProxyWithoutTokens)));
        assert!(matches!(Access::new(&ServeSettings { tls, ..none }, &open), Err(AccessError::NoTokens(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Access::new(&tokens, &local), Err(AccessError::Secret { .. })));
    }
}
