//! evbus's credentials for AWS: keys from the environment, a profile, a role, a login, a program or
//! the machine.
//!
//! The order is that of the AWS tools (AWS SDKs and Tools Reference Guide, Credential provider
//! chain): a profile that the URL names; keys in the environment; the profile of `AWS_PROFILE`,
//! else `default`; a web identity token; the container; the machine. Key, secret and token are
//! always of one source. What a profile says is followed or refused, never passed over: only a
//! profile that says nothing about credentials leaves them to the container or the machine.
//!
//! No request is sent to any server and no client is made before the first credential is needed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use object_store::aws::AwsCredential;
use object_store::client::{ClientOptions, CredentialProvider};

use crate::clock::{Clock, SystemClock};

mod ask;
mod failure;
mod files;
mod identity;
mod machine;
mod plan;
mod process;
mod role;
mod sso;
mod sts;
#[cfg(test)]
mod tests;

pub(super) use ask::{NO_ANSWER_IN_TIME, reason};
pub use failure::CredentialsFailure;
pub use identity::CredentialInputs;
use plan::{CredentialPlan, CredentialSource};

/// How long before they expire credentials are fetched anew.
const EARLY: Duration = Duration::from_secs(60);
/// How long credentials that are already stale when they come, as a machine's can be, are used
/// before the next try; the same holds for credentials that could not be renewed.
const PAUSE: Duration = Duration::from_secs(10);

type CredentialsResult<T> = Result<T, CredentialsFailure>;

/// The machine's time. The crate asks for credentials without a clock.
fn now() -> Timestamp {
    Timestamp::from_microsecond(SystemClock.now().as_micros()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What a source gives.
struct FetchedCredential {
    credential: AwsCredential,
    expires: Option<Timestamp>,
}

/// Credentials that are fetched when they are first needed, and again before they expire.
#[derive(Debug)]
pub(super) struct AwsCredentials {
    identity: CredentialInputs,
    /// The client's options for requests to servers.
    options: ClientOptions,
    cached: Mutex<Option<Cached>>,
    /// One fetches, the others wait for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Cached {
    credential: Arc<AwsCredential>,
    expires: Option<Timestamp>,
    fetched: Timestamp,
    refused: bool,
}

impl Cached {
    fn is_fresh(&self, now: Timestamp) -> bool {
        !self.refused && (self.expires.is_none_or(|expires| now + EARLY < expires) || now < self.fetched + PAUSE)
    }

    /// Whether credentials that are not fresh any more may still be used.
    fn may_still_do(&self, now: Timestamp) -> bool {
        !self.refused && self.expires.is_some_and(|expires| now < expires)
    }
}

impl AwsCredentials {
    /// The credentials of an identity; nothing is read yet.
    pub(super) const fn new(identity: CredentialInputs, options: ClientOptions) -> Self {
        Self { identity, options, cached: Mutex::new(None), fetching: tokio::sync::Mutex::const_new(()) }
    }

    /// The credentials that are in use.
    pub(super) fn current(&self) -> Option<Arc<AwsCredential>> {
        self.cached().as_ref().map(|cached| Arc::clone(&cached.credential))
    }

    /// Fetches the credentials anew, from files read anew, after the server has refused the ones in
    /// use. Returns whether another try is worthwhile: there are others now, or a reason why there
    /// are none.
    pub(super) async fn renewed(&self, refused: Option<Arc<AwsCredential>>) -> bool {
        let is_same = |now: &Arc<AwsCredential>| refused.as_ref().is_none_or(|refused| Arc::ptr_eq(refused, now));
        match self.cached().as_mut().filter(|cached| is_same(&cached.credential)) {
            Some(cached) => cached.refused = true,
            None => return true,
        }
        let before = self.current();
        match (before, self.get().await) {
            (Some(before), Ok(found)) => *before != *found,
            _ => true,
        }
    }

    fn cached(&self) -> MutexGuard<'_, Option<Cached>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Arc<AwsCredential>> {
        let cached = self.cached();
        cached.as_ref().filter(|cached| cached.is_fresh(now())).map(|cached| Arc::clone(&cached.credential))
    }

    async fn get(&self) -> CredentialsResult<Arc<AwsCredential>> {
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let _one = self.fetching.lock().await;
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let again = self.cached().is_some();
        let fetched = Fetch { who: &self.identity, options: &self.options }.fetch(again).await;
        let now = now();
        let mut cached = self.cached();
        match fetched {
            Ok(FetchedCredential { credential, expires }) => {
                let credential = Arc::new(credential);
                let found = Cached { credential: Arc::clone(&credential), expires, fetched: now, refused: false };
                *cached = Some(found);
                Ok(credential)
            }
            Err(failure) => {
                let old = cached.as_mut().filter(|old| old.may_still_do(now)).ok_or(failure)?;
                old.fetched = now;
                Ok(Arc::clone(&old.credential))
            }
        }
    }
}

impl CredentialProvider for AwsCredentials {
    type Credential = AwsCredential;

    fn get_credential<'this, 'answer>(
        &'this self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'answer>>
    where
        'this: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let failed = |failure| object_store::Error::Generic { store: "S3", source: Box::new(failure) };
            self.get().await.map_err(failed)
        })
    }
}

/// One fetch of credentials.
#[derive(Clone, Copy)]
struct Fetch<'a> {
    who: &'a CredentialInputs,
    options: &'a ClientOptions,
}

impl Fetch<'_> {
    /// `again` says that there were credentials before, so that a machine's service that does not
    /// answer is only away.
    async fn fetch(&self, again: bool) -> CredentialsResult<FetchedCredential> {
        let CredentialPlan { base, roles } = self.who.plan()?;
        let mut found = match base {
            CredentialSource::Keys(credential) => FetchedCredential { credential, expires: None },
            CredentialSource::Token { role, file } => self.with_token(&role, &file).await?,
            CredentialSource::Login(login) => self.login(&login).await?,
            CredentialSource::Process { command, profile } => self.process(&command, &profile).await?,
            CredentialSource::Container => self.container().await?,
            CredentialSource::Machine => self.machine(again).await?,
        };
        for role in roles {
            found = self.assumed(&role, &found.credential).await?;
        }
        Ok(found)
    }
}
