//! Serves HTTP to a bounded number of connections at a time, each for one request and a bounded time: somebody who
//! connects and says nothing keeps nobody out for long. More connections wait in the kernel's queue. Streams of events
//! and hand-overs of addresses may last, and are bounded in number.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// Connections at a time, of each address.
const CONNECTIONS_MAX: usize = 32;
/// Of those, the ones that last.
const STREAMS_MAX: usize = 16;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take, from the first byte of the request to the last one of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// After an accept that failed: mostly for want of files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where connections come in.
pub(super) enum Entrance {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
}

/// One that has come.
enum Arrival {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(TcpStream, TlsAcceptor),
}

impl Entrance {
    async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Entrance::Unix(listener) => listener.accept().await.map(|(one, _)| Arrival::Unix(one)),
            Entrance::Tcp(listener) => listener.accept().await.map(|(one, _)| Arrival::Tcp(one)),
            Entrance::Tls(listener, acceptor) => {
                let (stream, _) = listener.accept().await?;
                Ok(Arrival::Tls(stream, acceptor.clone()))
            }
        }
    }
}

/// What a connection needs to be a stream: an answer that lasts. Part of each request.
#[derive(Clone)]
pub(super) struct Stay {
    streams: Arc<Semaphore>,
    is_stream: Arc<AtomicBool>,
}

impl Stay {
    /// From now on the connection is a stream, for as long as the permit is kept; none if there are enough.
    pub(super) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        self.is_stream.store(true, Ordering::Relaxed);
        Some(permit)
    }
}

/// Serves for as long as it is polled.
pub(super) async fn serve(entrance: Entrance, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match entrance.accept().await {
            Ok(arrival) => {
                let stay = Stay {
                    streams: Arc::clone(&streams),
                    is_stream: Arc::default(),
                };
                let router = router.clone().layer(Extension(stay.clone()));
                tokio::spawn(async move {
                    bounded(exchange(arrival, router), &stay).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// Who is late, or says what makes no sense, is left without an answer.
async fn bounded(exchange: impl Future<Output = ()>, stay: &Stay) {
    tokio::pin!(exchange);
    let is_late = tokio::time::timeout(CONNECTION_TIMEOUT, &mut exchange)
        .await
        .is_err();
    if is_late && stay.is_stream.load(Ordering::Relaxed) {
        exchange.await;
    }
}

/// One request and its answer.
async fn exchange(arrival: Arrival, router: Router) {
    match arrival {
        Arrival::Unix(stream) => answer(stream, router).await,
        Arrival::Tcp(stream) => answer(stream, router).await,
        Arrival::Tls(stream, acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, router).await;
            }
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    // There is nobody to tell of a connection that breaks.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
}
