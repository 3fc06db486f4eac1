//! Connections: how many there may be, how long they may take, and how they end.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use futures_util::future::join_all;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::listen::{Listener, Listeners, Tls};
use super::{Peer, Reach};
use crate::clock::{Clock, SystemClock};

/// How long the head of a request may take, from the connection or from the answer before it.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long a client may take nothing of what is written to it.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// Most bytes in the head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// How long what is under way may take once the server stops.
const STOP_TIME: Duration = Duration::from_secs(30);

/// How long an answer may take to be written once the server stops.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The pause after the system gave no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers connections until `stop` says so, and then for as long as some are under way.
pub(super) async fn serve(router: Router, listeners: Listeners, most: usize, stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(most));
    // Every connection holds a sender; once all are dropped, all have ended.
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let Listeners { all, tls, behind_proxy } = listeners;
    let accepting = all.into_iter().map(|listener| {
        let acceptor = Acceptor {
            router: router.clone(),
            tls: tls.clone().filter(|_| matches!(listener, Listener::Tcp(_))),
            behind_proxy,
            room: Arc::clone(&room),
            alive: alive.clone(),
            stop: stop.clone(),
        };
        acceptor.accept_all(listener)
    });
    join_all(accepting).await;
    drop(alive);
    let _ = tokio::time::timeout(STOP_TIME, ended.recv()).await;
}

struct Acceptor {
    router: Router,
    tls: Option<Tls>,
    behind_proxy: bool,
    room: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
    stop: watch::Receiver<bool>,
}

/// What a connection holds while it lasts, and a WebSocket that it has become.
pub(super) struct Held {
    _room: OwnedSemaphorePermit,
    _alive: mpsc::Sender<()>,
}

impl Acceptor {
    async fn accept_all(self, listener: Listener) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = async {
                let stream = match &listener {
                    Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                        let _ = stream.set_nodelay(true);
                        let local = stream.local_addr().map_or(peer.ip(), |local| local.ip());
                        (Stream::Tcp(stream), Some(local))
                    }),
                    Listener::Unix(listener, _) => {
                        listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), None))
                    }
                };
                // Without room, this one waits here, and others in the system's queue.
                (Arc::clone(&self.room).acquire_owned().await, stream)
            };
            let accepted = tokio::select! { biased;
                () = stopped(&mut stop) => return,
                accepted = accepted => accepted,
            };
            match accepted {
                (Ok(room), Ok((stream, local))) => self.begin(stream, local, room),
                // No descriptor is available until a connection ends.
                (_, Err(_)) => SystemClock.sleep_until(SystemClock.elapsed() + PAUSE).await,
                (Err(_), _) => return,
            }
        }
    }

    fn begin(&self, stream: Stream, local: Option<IpAddr>, room: OwnedSemaphorePermit) {
        let reach = match local {
            None => Reach::Unix,
            Some(local) if local.to_canonical().is_loopback() => Reach::Loopback,
            Some(_) => Reach::Network,
        };
        let peer = Peer { reach, is_tls: self.tls.is_some() || self.behind_proxy };
        let held = Arc::new(Held { _room: room, _alive: self.alive.clone() });
        let router = self.router.clone();
        let stop = self.stop.clone();
        match (stream, self.tls.clone()) {
            (Stream::Tcp(stream), Some(Tls(acceptor))) => {
                tokio::spawn(async move {
                    let mut stopping = stop.clone();
                    let handshake = tokio::select! { biased;
                        () = stopped(&mut stopping) => return,
                        handshake = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)) => handshake,
                    };
                    // A client that does not speak TLS is not worth a message.
                    if let Ok(Ok(stream)) = handshake {
                        answer(stream, router, stop, peer, held).await;
                    }
                });
            }
            (Stream::Tcp(stream), None) => drop(tokio::spawn(answer(stream, router, stop, peer, held))),
            (Stream::Unix(stream), _) => drop(tokio::spawn(answer(stream, router, stop, peer, held))),
        }
    }
}

/// Completes once the server stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody can stop it any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// Answers the requests of one connection.
async fn answer<S>(stream: S, router: Router, mut stop: watch::Receiver<bool>, peer: Peer, held: Arc<Held>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    let asked = Arc::new(AtomicUsize::new(0));
    let routes = TowerToHyperService::new(router);
    let service = {
        let (asked, held) = (Arc::clone(&asked), Arc::clone(&held));
        service_fn(move |mut request: Request<_>| {
            let under_way = UnderWay::new(&asked);
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(Arc::clone(&held));
            let answering = routes.call(request);
            async move {
                let answer = answering.await;
                drop(under_way);
                answer
            }
        })
    };
    let connection = http.serve_connection(TokioIo::new(Steady::new(stream)), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that does not speak HTTP is not worth a message.
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            // Requests under way are answered; one whose head is not there yet is none.
            while tokio::time::timeout(GRACE, connection.as_mut()).await.is_err() && asked.load(Ordering::Relaxed) > 0 {}
        }
    }
    drop(held);
}

/// A request that is not answered yet.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that fails if its other end takes nothing for too long.
struct Steady<S> {
    stream: S,
    /// Set while a write waits.
    until: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Steady<S> {
    fn new(stream: S) -> Self {
        Self { stream, until: None }
    }

    /// Passes on what a write has answered, or fails after the time that it may wait.
    fn limited<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        #[allow(clippy::disallowed_methods, reason = "a connection is not part of what is simulated")]
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIME)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Steady<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Steady<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.limited(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.limited(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limited(context, shut)
    }
}
