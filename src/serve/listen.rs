//! Where connections come from: addresses, Unix sockets, and the sockets that systemd hands over.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::config::{ListenAddress, ServeSettings};
use crate::secret::{PEM_BYTES, read_private, read_public};
use crate::store::system_words;

/// Why it cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address is taken, or not of this machine.
    #[error("cannot listen on {address}: {}", system_words(.error))]
    Bind {
        /// The address.
        address: ListenAddress,
        /// Why.
        error: io::Error,
    },
    /// A socket that was handed over cannot be used.
    #[error("socket {0} that was handed over (sd_listen_fds(3)): {1}")]
    Inherited(usize, String),
    /// The certificate or its key is no good.
    #[error("{0}")]
    Tls(String),
}

/// What is listened on.
#[derive(Debug)]
pub struct Listeners {
    pub(super) all: Vec<Listener>,
    pub(super) tls: Option<Tls>,
    pub(super) behind_proxy: bool,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "held for its drop")] Option<SocketFile>),
}

/// Speaks TLS.
#[derive(Clone)]
pub(super) struct Tls(pub TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The file of a socket, which goes with it, by its path and its inode.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf, Option<(u64, u64)>);

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self(path.to_owned(), inode(path))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have taken the path meanwhile.
        if self.1.is_some() && inode(&self.0) == self.1 {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Listeners {
    /// Takes the sockets that systemd hands over (`sd_listen_fds(3)`), or else opens those of the settings.
    ///
    /// # Errors
    /// An address cannot be listened on, or the certificate is no good.
    pub async fn open(settings: &ServeSettings) -> Result<Self, ListenError> {
        let tls = settings.tls.as_ref().map(|(certificate, key)| tls(certificate, key).map(Tls)).transpose();
        let tls = tls.map_err(ListenError::Tls)?;
        let mut all = inherited()?;
        if all.is_empty() {
            for address in &settings.listen {
                let failed = |error| ListenError::Bind { address: address.clone(), error };
                all.push(bind(address).await.map_err(failed)?);
            }
        }
        Ok(Self { all, tls, behind_proxy: settings.behind_proxy })
    }

    /// The addresses, with the ports that the system has chosen.
    ///
    /// # Errors
    /// The system does not tell one.
    pub fn addresses(&self) -> Result<Vec<ListenAddress>, ListenError> {
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Listener::Unix(listener, _) => {
                let path = |address: tokio::net::unix::SocketAddr| address.as_pathname().map(Path::to_owned);
                listener.local_addr().map(|address| ListenAddress::Unix(path(address).unwrap_or_default()))
            }
        };
        let failed = |(at, error): (usize, io::Error)| ListenError::Inherited(at, error.to_string());
        let all = self.all.iter().enumerate();
        all.map(|(at, listener)| address(listener).map_err(|error| failed((at, error)))).collect()
    }
}

async fn bind(address: &ListenAddress) -> io::Result<Listener> {
    match address {
        ListenAddress::Tcp(address) => {
            let socket = match address.is_ipv4() {
                true => tokio::net::TcpSocket::new_v4()?,
                false => tokio::net::TcpSocket::new_v6()?,
            };
            // A restart need not wait for the connections of before.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            Ok(Listener::Tcp(socket.listen(1_024)?))
        }
        ListenAddress::Unix(path) => {
            remove_stale(path).await?;
            let listener = UnixListener::bind(path)?;
            Ok(Listener::Unix(listener, Some(SocketFile::new(path))))
        }
    }
}

/// Removes a socket that a killed server has left: one that nothing listens on.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).await.is_err_and(|error| refused(&error)) {
        return std::fs::remove_file(path);
    }
    Ok(())
}

/// The sockets that systemd has opened for this process.
fn inherited() -> Result<Vec<Listener>, ListenError> {
    let mut handed = listenfd::ListenFd::from_env();
    let mut all = Vec::new();
    for at in 0..handed.len() {
        let failed = |error: io::Error| ListenError::Inherited(at, error.to_string());
        let listener = match (handed.take_tcp_listener(at), handed.take_unix_listener(at)) {
            (Ok(Some(listener)), _) => {
                listener.set_nonblocking(true).map_err(failed)?;
                TcpListener::from_std(listener).map(Listener::Tcp)
            }
            (_, Ok(Some(listener))) => {
                listener.set_nonblocking(true).map_err(failed)?;
                UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, None))
            }
            _ => return Err(ListenError::Inherited(at, "is no listening stream socket".to_owned())),
        };
        all.push(listener.map_err(failed)?);
    }
    Ok(all)
}

fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let of = |path: &Path, why: String| format!("{} {why}", path.display());
    let chain = read_public(certificate, PEM_BYTES).map_err(|why| of(certificate, why))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| of(certificate, format!("is no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(of(certificate, "holds no certificate".to_owned()));
    }
    let private = read_private(key, PEM_BYTES).map_err(|why| of(key, why))?;
    let private =
        PrivateKeyDer::from_pem_slice(&private).map_err(|_| of(key, "holds no private key in PEM".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| of(certificate, format!("and its key do not fit: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
