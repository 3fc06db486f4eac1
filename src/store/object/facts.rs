//! What a bucket is set up to do with what is put into it: asked of S3, where doctor wants to know. The crate has no
//! words for it.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{CredentialProvider as _, HttpConnector as _, HttpRequest, ReqwestConnector};

use super::{Bucket, Kind};

/// No answer about a bucket is larger.
const LARGEST_BYTES: usize = 1 << 20;

/// An answer about a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The server's document.
    Told(String),
    /// There is nothing of this kind.
    None,
    /// These credentials may not see it.
    Denied,
    /// The server does not tell.
    Unknown,
}

/// What a bucket says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// A `VersioningConfiguration`.
    pub versioning: Fact,
    /// A `LifecycleConfiguration`.
    pub lifecycle: Fact,
    /// A `LocationConstraint`.
    pub location: Fact,
}

impl Bucket {
    /// Asks S3 what it does with what is put there; none: another kind of bucket.
    pub async fn facts(&self) -> Option<Facts> {
        if self.kind != Kind::S3 {
            return None;
        }
        Some(Facts {
            versioning: self.fact("versioning").await,
            lifecycle: self.fact("lifecycle").await,
            location: self.fact("location").await,
        })
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        self.setting("aws_region").unwrap_or("us-east-1")
    }

    async fn fact(&self, name: &str) -> Fact {
        match self.asked_of(name).await {
            Some((200, text)) => Fact::Told(text),
            Some((403, _)) => Fact::Denied,
            Some((404, text)) if text.contains("NoSuchLifecycleConfiguration") => Fact::None,
            _ => Fact::Unknown,
        }
    }

    /// Status and text of the answer; none: there was none.
    async fn asked_of(&self, name: &str) -> Option<(u16, String)> {
        let region = self.region();
        let server = self.endpoint().map_or_else(|| format!("https://s3.{region}.amazonaws.com"), str::to_owned);
        let mut request = HttpRequest::new(Vec::new().into());
        *request.uri_mut() = format!("{}/{}?{name}", server.trim_end_matches('/'), self.name).parse().ok()?;
        let credential = self.credential().await?;
        AwsAuthorizer::new(&credential, "s3", region).try_authorize(&mut request, None).ok()?;
        let plain = self.plain_http();
        let options = self.options().ok()?.with_allow_http(plain);
        let options = if plain { options.with_no_system_certificates(true) } else { options };
        let response = ReqwestConnector::default().connect(&options).ok()?.execute(request).await.ok()?;
        let status = response.status().as_u16();
        let mut chunks = response.into_body().bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await.ok()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_BYTES {
                return None;
            }
        }
        Some((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn credential(&self) -> Option<Arc<AwsCredential>> {
        if let Some(credentials) = self.credentials().ok()? {
            return credentials.get_credential().await.ok();
        }
        let get = |name: &str| self.setting(name).map(str::to_owned);
        let (key_id, secret_key) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
        Some(Arc::new(AwsCredential { key_id, secret_key, token: get("aws_session_token") }))
    }
}
