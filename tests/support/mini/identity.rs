//! The services that give out credentials: the EC2 metadata service, a container's agent, STS and
//! the single sign-on. Each gives its own key, so that a test sees which credentials reach the
//! bucket.

use super::MiniOptions;
use super::http::{HttpRequest, HttpResponse, iso_date, now};

/// The token of a session with the metadata service.
const SESSION: &str = "SESSION";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// A service that gives out credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityService {
    /// `AWS_METADATA_ENDPOINT`, `AWS_EC2_METADATA_SERVICE_ENDPOINT`: gives `IMDSKEY`.
    Metadata,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` with the path `/creds`: gives `CONTAINERKEY`.
    Container,
    /// `AWS_ENDPOINT_URL_STS`: gives `ASSUMEDKEY` for a signed request, `WEBKEY` for a web
    /// identity.
    Sts,
    /// The portal of the single sign-on: gives `SSOKEY`.
    SignOn,
}

impl IdentityService {
    /// The service that a request is for; none for a bucket.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        match request.path.as_str() {
            "/creds" => Some(Self::Container),
            "/federation/credentials" => Some(Self::SignOn),
            "/" if request.parameter("Action").is_some() => Some(Self::Sts),
            path => path.starts_with("/latest/").then_some(Self::Metadata),
        }
    }

    pub fn answer(self, request: &HttpRequest, options: &MiniOptions) -> HttpResponse {
        let expires = now() + options.ahead_secs + options.credentials_secs;
        match self {
            Self::Metadata => metadata(request, options.role.as_deref(), expires),
            Self::Container => container(request, options.authorization.as_deref(), expires),
            Self::Sts => sts(request, expires),
            Self::SignOn => sign_on(request, expires),
        }
    }

    /// The service's answer when it gives nothing.
    pub fn denial(self) -> HttpResponse {
        match self {
            Self::Metadata | Self::Container => HttpResponse::text(403, "text/plain", "Forbidden"),
            Self::Sts => sts_error(403, "AccessDenied", "User is not authorized to perform: sts:AssumeRole"),
            Self::SignOn => portal_error(403, "ForbiddenException", "No access"),
        }
    }
}

/// A JSON object of strings.
fn object(members: &[(&str, &str)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, text)| format!("\"{name}\":\"{text}\"")).collect();
    format!("{{{}}}", members.join(","))
}

fn json(status: u16, text: &str) -> HttpResponse {
    HttpResponse::text(status, "application/json", text)
}

fn has(request: &HttpRequest, name: &str) -> bool {
    request.parameter(name).is_some_and(|value| !value.is_empty())
}

/// The second version of the service, which requires a session (EC2 user guide, Instance Metadata
/// Service).
fn metadata(request: &HttpRequest, role: Option<&str>, expires: i64) -> HttpResponse {
    if request.path == "/latest/api/token" {
        let life = request.header("x-aws-ec2-metadata-token-ttl-seconds");
        return match life {
            Some(life) if request.method == "PUT" => {
                HttpResponse::text(200, "text/plain", SESSION).with("x-aws-ec2-metadata-token-ttl-seconds", life)
            }
            _ => HttpResponse::new(400),
        };
    }
    if request.header("x-aws-ec2-metadata-token") != Some(SESSION) {
        return HttpResponse::new(401);
    }
    match (request.path.strip_prefix(ROLES), role) {
        (Some(""), Some(role)) => HttpResponse::text(200, "text/plain", role),
        (Some(asked), Some(role)) if asked == role => json(200, &flat("IMDS", expires)),
        _ => HttpResponse::text(404, "text/html", "Not Found"),
    }
}

/// Credentials in the form of the metadata service and of containers' agents.
fn flat(who: &str, expires: i64) -> String {
    object(&[
        ("Code", "Success"),
        ("Type", "AWS-HMAC"),
        ("AccessKeyId", &format!("{who}KEY")),
        ("SecretAccessKey", &format!("{who}SECRET")),
        ("Token", &format!("{who}TOKEN")),
        ("LastUpdated", &iso_date(now())),
        ("Expiration", &iso_date(expires)),
    ])
}

fn container(request: &HttpRequest, authorization: Option<&str>, expires: i64) -> HttpResponse {
    if authorization.is_some() && request.header("authorization") != authorization {
        return json(401, &object(&[("code", "InvalidAuthorization"), ("message", "no such token")]));
    }
    json(200, &flat("CONTAINER", expires))
}

/// AWS Security Token Service API reference, `AssumeRole` and `AssumeRoleWithWebIdentity`.
fn sts(request: &HttpRequest, expires: i64) -> HttpResponse {
    let action = request.parameter("Action").unwrap_or_default();
    match action {
        "AssumeRole" if request.access_key().is_none() => {
            sts_error(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        }
        "AssumeRoleWithWebIdentity" if !has(request, "WebIdentityToken") => {
            sts_error(400, "InvalidIdentityToken", "No OpenIDConnect token")
        }
        _ if !has(request, "RoleArn") || !has(request, "RoleSessionName") => {
            sts_error(400, "ValidationError", "RoleArn and RoleSessionName must be there")
        }
        "AssumeRole" => assumed(action, "ASSUMED", expires),
        "AssumeRoleWithWebIdentity" => assumed(action, "WEB", expires),
        _ => sts_error(400, "InvalidAction", "Could not find operation"),
    }
}

fn assumed(action: &str, who: &str, expires: i64) -> HttpResponse {
    let expires = iso_date(expires);
    let credentials = format!(
        "<Credentials><AccessKeyId>{who}KEY</AccessKeyId><SecretAccessKey>{who}SECRET</SecretAccessKey>\
         <SessionToken>{who}TOKEN</SessionToken><Expiration>{expires}</Expiration></Credentials>"
    );
    let result = format!("<{action}Result>{credentials}</{action}Result>");
    let namespace = "https://sts.amazonaws.com/doc/2011-06-15/";
    HttpResponse::xml(200, &format!("<{action}Response xmlns=\"{namespace}\">{result}</{action}Response>"))
}

fn sts_error(status: u16, code: &str, message: &str) -> HttpResponse {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    HttpResponse::xml(status, &format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}

/// AWS SSO portal API reference, `GetRoleCredentials`: milliseconds.
fn sign_on(request: &HttpRequest, expires: i64) -> HttpResponse {
    if request.header("x-amz-sso_bearer_token").is_none() {
        return portal_error(401, "UnauthorizedException", "Session token not found or invalid");
    }
    if !has(request, "role_name") || !has(request, "account_id") {
        return portal_error(400, "InvalidRequestException", "role_name and account_id must be there");
    }
    let texts = object(&[("accessKeyId", "SSOKEY"), ("secretAccessKey", "SSOSECRET"), ("sessionToken", "SSOTOKEN")]);
    let texts = texts.trim_end_matches('}');
    json(200, &format!("{{\"roleCredentials\":{texts},\"expiration\":{}}}}}", expires * 1_000))
}

fn portal_error(status: u16, kind: &str, message: &str) -> HttpResponse {
    let kind = format!("com.amazonaws.switchboard.portal#{kind}");
    json(status, &object(&[("message", message), ("__type", &kind)]))
}
