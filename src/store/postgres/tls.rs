//! TLS to a PostgreSQL server, as libpq's `sslmode` has it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::database::{Ssl, SslMode};
use super::failure::DatabaseProblem;
use crate::store::{ErrorDetail, ErrorKind, StoreError, StoreResult};

/// Checks as much of a certificate as the mode asks for.
#[derive(Debug)]
struct Checked {
    /// The certificates' check; none where every certificate will do.
    chain: Option<Arc<dyn ServerCertVerifier>>,
    /// The certificates of `sslrootcert`.
    roots: Vec<CertificateDer<'static>>,
    /// Whether the certificate must name the host.
    names_host: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names_host => Ok(ServerCertVerified::assertion()),
            // Refused as a server's because it is an authority's, too, as `openssl req -x509` makes them; libpq takes it
            // where it is named itself. An expired one is refused for that.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.roots.iter().any(|root| root == end_entity) =>
            {
                if self.names_host {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn unfit(what: String) -> StoreError {
    StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::Database(DatabaseProblem::CertificateFile))
}

fn certificates(path: &Path) -> StoreResult<Vec<CertificateDer<'static>>> {
    let refused = |why: String| unfit(format!("no certificates can be had from {}: {why}", path.display()));
    let all = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| refused(error.to_string()))?;
    if all.is_empty() { Err(refused("it has none".to_owned())) } else { Ok(all) }
}

/// What connects by TLS with these settings.
pub(super) fn connector(ssl: &Ssl) -> StoreResult<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let broken = |error: rustls::Error| unfit(format!("TLS cannot be used: {error}"));
    let mut named = Vec::new();
    let chain: Option<Arc<dyn ServerCertVerifier>> = match (&ssl.root, ssl.mode) {
        (_, SslMode::Disable | SslMode::Prefer) | (None, SslMode::Require) => None,
        (Some(root), _) => {
            let mut roots = RootCertStore::empty();
            named = certificates(root)?;
            roots.add_parsable_certificates(named.iter().cloned());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            Some(verifier.map_err(|error| unfit(format!("{}: {error}", root.display())))?)
        }
        (None, _) => Some(Arc::new(Verifier::new(Arc::clone(&provider)).map_err(broken)?)),
    };
    let names_host = ssl.mode == SslMode::VerifyFull;
    let verifier = Checked { chain, roots: named, names_host, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &ssl.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unfit(format!("no private key can be had from {}: {error}", key.display())))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(broken)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}
