//! Serves HTTP on a unix listener to a bounded number of connections at a time, each for one request and a bounded
//! time: somebody who connects and says nothing keeps nobody out for long. More connections wait in the kernel's queue.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take, from the first byte of the request to the last one of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// After an accept that failed: mostly for want of files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let exchange = exchange(stream, router.clone());
                tokio::spawn(async move {
                    // Who is late, or says what makes no sense, is left without an answer.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, exchange).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// One request and its answer.
async fn exchange(stream: UnixStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
