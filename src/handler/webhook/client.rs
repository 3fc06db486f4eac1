//! The HTTP client of a webhook: its proxy, its TLS, and what their errors mean.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Proxy, Url};

use super::guard::Guard;
use super::target::{WebhookProxy, WebhookTarget, host_of, parse_http};
use crate::handler::Obstacle;
use crate::secret::{PEM_BYTES, read_private, read_public};
use crate::store::system_words;
use crate::threads;

/// How long a connection may take at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const USER_AGENT: &str = concat!("evbus/", env!("CARGO_PKG_VERSION"));

/// Whether a client speaks TLS, to the receiver or to a proxy: one that does not needs no certificates,
/// and there may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
}

/// A client for requests to URLs with this one's scheme.
pub(super) fn client(target: &WebhookTarget, timeout: Duration, url: &Url) -> Result<Client, Obstacle> {
    let proxy = proxy(target)?;
    let is_plain = url.scheme() == "http" && proxy.as_ref().is_none_or(|proxy| proxy.scheme() == "http");
    build(target, timeout, if is_plain { Transport::Plain } else { Transport::Tls }, proxy)
}

/// The proxy that requests go through; of the environment's, one that is spoken to over TLS.
fn proxy(target: &WebhookTarget) -> Result<Option<Url>, Obstacle> {
    match &target.proxy {
        WebhookProxy::None => Ok(None),
        WebhookProxy::Environment => Ok(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
            .into_iter()
            .filter_map(|name| parse_http(&std::env::var(name).ok()?))
            .find(|url| url.scheme() == "https")),
        WebhookProxy::Url(url) => {
            let url = url.read().map_err(|error| format!("the proxy: {error}"))?;
            let url = parse_http(&url).ok_or_else(|| "the proxy: what is there is no URL of one".to_owned())?;
            if let Ok(address) = host_of(&url).parse::<IpAddr>() {
                Guard::default().check(address).map_err(|refused| format!("the proxy: {refused}"))?;
            }
            Ok(Some(url))
        }
    }
}

fn build(
    target: &WebhookTarget,
    timeout: Duration,
    transport: Transport,
    proxy: Option<Url>,
) -> Result<Client, Obstacle> {
    crate::store::object::choose_cryptography();
    threads::start_resolver().map_err(|error| format!("{}: {}", threads::NO_RESOLVER, system_words(&error)))?;
    let WebhookTarget { ca, identity, deny, .. } = target;
    let mut guard = Guard::new(deny);
    let mut client = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2));
    match (&target.proxy, proxy) {
        (WebhookProxy::Environment, _) => {}
        (WebhookProxy::Url(_), Some(url)) => {
            guard = guard.with_proxy(&host_of(&url));
            client = client.proxy(Proxy::all(url).map_err(|_| "the proxy: it has no URL of one".to_owned())?);
        }
        _ => client = client.no_proxy(),
    }
    client = client.dns_resolver(Arc::new(guard));
    if transport == Transport::Plain {
        client = client.tls_certs_only([]);
    } else if let Some(path) = ca {
        let pem = read_pem(path, read_public)?;
        let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("no certificates in {}", path.display()).into());
        }
        client = client.tls_certs_only(certificates);
    }
    if let Some((certificate, key)) = identity.as_ref().filter(|_| transport == Transport::Tls) {
        let mut pem = read_pem(certificate, read_public)?;
        pem.push(b'\n');
        pem.extend(read_pem(key, read_private)?);
        let unfit = |_| format!("no certificate and key in {} and {}", certificate.display(), key.display());
        client = client.identity(Identity::from_pem(&pem).map_err(unfit)?);
    }
    client.build().map_err(|error| format!("cannot speak TLS: {}", cause(&error)).into())
}

/// Reads a file of certificates or keys; an error names it.
fn read_pem(path: &Path, read: fn(&Path, u64) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    read(path, PEM_BYTES).map_err(|why| format!("{} {why}", path.display()))
}

/// Whether the two sides refuse each other's certificates, or agree on nothing.
pub(super) fn is_refused_by_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let own = error.downcast_ref::<rustls::Error>();
        if let Some(error) = own.or_else(|| within.and_then(|error| error.downcast_ref::<rustls::Error>())) {
            return is_refusal(error);
        }
        next = error.source();
    }
    false
}

fn is_refusal(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    match error {
        InvalidCertificate(_) | NoCertificatesPresented => true,
        AlertReceived(alert) => matches!(
            alert,
            Alert::HandshakeFailure
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::ProtocolVersion
        ),
        _ => false,
    }
}

/// The innermost error, in the system's words where it is the system's.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the connection is closed".to_owned(),
        Some(error) => system_words(error),
        None => innermost.to_string(),
    }
}
