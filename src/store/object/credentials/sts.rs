//! Roles, which AWS STS gives for a signature or for a web identity token.

use std::path::Path;

use object_store::aws::{AwsAuthorizer, AwsCredential};
use reqwest::Method;

use super::ask::{between, encoded, request, secret_file, set, time};
use super::files::keys;
use super::role::Role;
use super::{CredentialsFailure, CredentialsResult, Fetch, FetchedCredential};

impl Fetch<'_> {
    /// The credentials of a role, given for the credentials `signer`.
    pub(super) async fn assumed(&self, role: &Role, signer: &AwsCredential) -> CredentialsResult<FetchedCredential> {
        let mut form = vec![("Action", "AssumeRole"), ("RoleArn", &role.arn), ("RoleSessionName", &role.session)];
        form.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
        form.extend(role.seconds.as_deref().map(|seconds| ("DurationSeconds", seconds)));
        self.sts(role, form, Some(signer)).await
    }

    /// The credentials of a role, given for a token in a file.
    pub(super) async fn with_token(&self, role: &Role, file: &Path) -> CredentialsResult<FetchedCredential> {
        let token = secret_file("web identity token", file)?;
        let form = vec![
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", role.arn.as_str()),
            ("RoleSessionName", &role.session),
            ("WebIdentityToken", &token),
        ];
        self.sts(role, form, None).await
    }

    async fn sts(
        &self,
        role: &Role,
        form: Vec<(&str, &str)>,
        signer: Option<&AwsCredential>,
    ) -> CredentialsResult<FetchedCredential> {
        let form = form.into_iter().chain([("Version", "2011-06-15")]);
        let body: Vec<String> = form.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let url = format!("{}/", role.endpoint.trim_end_matches('/'));
        let mut request = request(Method::POST, &url, body.join("&").into())?;
        set(&mut request, "content-type", "application/x-www-form-urlencoded");
        if let Some(signer) = signer {
            let signing = AwsAuthorizer::new(signer, "sts", &role.region).try_authorize(&mut request, None);
            signing.map_err(|error| CredentialsFailure::of(format!("cannot sign for {url}: {error}")))?;
        }
        let server = format!("AWS STS at {}", role.endpoint);
        let answer = self.ask(&server, request, false).await?;
        if answer.status != 200 {
            let what = between(&answer.text, "<Code>", "</Code>").unwrap_or("no code");
            let why = between(&answer.text, "<Message>", "</Message>").unwrap_or_default();
            return Err(answer.failure(&server, &format!("{} is refused: {what} {why}", role.shown)));
        }
        let get = |name: &str| {
            let value = between(&answer.text, &format!("<{name}>"), &format!("</{name}>"));
            value.map(str::to_owned).ok_or_else(|| CredentialsFailure::of(format!("{server} answers without {name}")))
        };
        let (key, secret) = (get("AccessKeyId")?, get("SecretAccessKey")?);
        let credential = keys(&key, &secret, Some(&get("SessionToken")?), &server)?;
        Ok(FetchedCredential { credential, expires: Some(time(&get("Expiration")?, &server)?) })
    }
}
