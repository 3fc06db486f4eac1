//! Credentials of the container or the machine that evbus runs in.

use std::net::IpAddr;

use object_store::client::HttpRequestBody;
use reqwest::Method;

use super::ask::{clean, json_keys, object, request, secret_file, set};
use super::{CredentialsFailure, CredentialsResult, Fetch, FetchedCredential};
use crate::store::BucketProblem;

impl Fetch<'_> {
    pub(super) async fn container(&self) -> CredentialsResult<FetchedCredential> {
        let (url, variable) = match (
            self.who.var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            self.who.var("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => (format!("http://169.254.170.2{path}"), "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            (None, Some(url)) => (url.to_owned(), "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            (None, None) => {
                return Err(CredentialsFailure::of(
                    "no container's credentials: AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
                ));
            }
        };
        let mut request = request(Method::GET, &url, HttpRequestBody::empty())?;
        if !near(&url) {
            let what = format!("{variable} is '{}', plain HTTP to another machine", clean(&url));
            return Err(CredentialsFailure::of(what).because(BucketProblem::PlainCredentials));
        }
        let token = match self.who.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(secret_file("container authorization token", &self.who.path(file))?),
            None => self.who.var("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned),
        };
        if let Some(token) = token {
            set(&mut request, "authorization", &token);
        }
        let server = format!("the container's credentials service at {}", clean(&url));
        let answer = self.ask(&server, request, true).await?;
        if answer.status != 200 {
            return Err(answer.failure(&server, "no credentials"));
        }
        json_keys(&object(&answer.text, &server)?, "Token", &server)
    }

    pub(super) async fn machine(&self, again: bool) -> CredentialsResult<FetchedCredential> {
        let none = |why: &str| {
            CredentialsFailure::of(format!("no AWS credentials{why}")).because(BucketProblem::NoCredentials)
        };
        if self.who.var("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(none(" (AWS_EC2_METADATA_DISABLED)"));
        }
        let names = ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"];
        let endpoint = names.into_iter().find_map(|name| self.who.var(name));
        let six = self
            .who
            .var("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
            .is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let usual = if six { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
        let endpoint = endpoint.unwrap_or(usual).trim_end_matches('/');
        let server = format!("the machine's metadata service at {endpoint}");
        let mut hello = request(Method::PUT, &format!("{endpoint}/latest/api/token"), HttpRequestBody::empty())?;
        set(&mut hello, "x-aws-ec2-metadata-token-ttl-seconds", "600");
        // Where there is no such service, this is not a machine of AWS.
        let token = self.ask(&server, hello, true).await;
        let token = token.map_err(|failure| if again { failure } else { none(&format!(" ({failure})")) })?;
        if token.status != 200 {
            return Err(token.failure(&server, "no token"));
        }
        let get = async |path: &str| {
            let url = format!("{endpoint}/latest/meta-data/iam/security-credentials/{path}");
            let mut request = request(Method::GET, &url, HttpRequestBody::empty())?;
            set(&mut request, "x-aws-ec2-metadata-token", token.text.trim());
            self.ask(&server, request, true).await
        };
        let roles = get("").await?;
        let role = roles.text.lines().next().unwrap_or_default().trim();
        if roles.status == 404 || (roles.status == 200 && role.is_empty()) {
            return Err(none(", and this machine has no role"));
        }
        if roles.status != 200 {
            return Err(roles.failure(&server, "no role"));
        }
        let answer = get(role).await?;
        if answer.status != 200 {
            return Err(answer.failure(&server, "no credentials"));
        }
        json_keys(&object(&answer.text, &server)?, "Token", &server)
    }
}

/// Whether a container's service at this URL may be asked (the tools' guide, Container credential
/// provider).
pub(super) fn near(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let services = ["localhost", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
    let loopback = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || loopback || services.contains(&host)
}
