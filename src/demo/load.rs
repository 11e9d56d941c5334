//! The load: clients that connect, send some requests one after the other, close and connect again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::backends::MESSAGE;

/// Clients at a time.
pub(super) const CLIENTS: usize = 24;
/// Requests of one connection, and the pause between two.
const REQUESTS: u64 = 40;
const PAUSE: Duration = Duration::from_millis(4);

/// What was counted so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// By backend.
    pub(super) answered: Vec<u64>,
    pub(super) connects: u64,
    /// Connects that failed.
    pub(super) refused: u64,
    /// Requests that were in flight when their connection was reset.
    pub(super) cut: u64,
}

impl Totals {
    pub(super) fn failed(&self) -> u64 {
        self.refused + self.cut
    }
}

/// See the module's text.
pub(super) struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

struct Counts {
    answered: Vec<AtomicU64>,
    connects: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    /// Microseconds of the answers since the last look, by backend.
    recent: Mutex<Vec<Histogram<u64>>>,
    is_over: AtomicBool,
}

impl Counts {
    fn note(&self, backend: usize, took: Duration) {
        self.answered[backend].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent[backend].saturating_record(micros);
    }
}

impl Load {
    pub(super) fn start(address: &str, backends: usize) -> Load {
        let histogram = || Histogram::new_with_max(60_000_000, 2).expect("valid bounds");
        let counts = Arc::new(Counts {
            answered: (0..backends).map(|_| AtomicU64::new(0)).collect(),
            connects: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            recent: Mutex::new((0..backends).map(|_| histogram()).collect()),
            is_over: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(address.to_owned(), Arc::clone(&counts)));
        }
        Load { counts, clients }
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            answered: self.counts.answered.iter().map(read).collect(),
            connects: read(&self.counts.connects),
            refused: read(&self.counts.refused),
            cut: read(&self.counts.cut),
        }
    }

    /// Median and 99th percentile of each backend since the last call; zero if it answered nothing.
    pub(super) fn take_recent(&self) -> Vec<(Duration, Duration)> {
        let mut recent = self
            .counts
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for histogram in recent.iter_mut() {
            let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
            taken.push((at(0.5), at(0.99)));
            histogram.reset();
        }
        taken
    }

    /// Lets every client finish its request.
    pub(super) async fn stop(&mut self) {
        self.counts.is_over.store(true, Ordering::Relaxed);
        let all = async { while self.clients.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }
}

async fn client(address: String, counts: Arc<Counts>) {
    while !counts.is_over.load(Ordering::Relaxed) {
        counts.connects.fetch_add(1, Ordering::Relaxed);
        match TcpStream::connect(&address).await {
            Ok(stream) => converse(stream, &counts).await,
            Err(_) => drop(counts.refused.fetch_add(1, Ordering::Relaxed)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn converse(mut stream: TcpStream, counts: &Counts) {
    let _ = stream.set_nodelay(true);
    for request in 0..REQUESTS {
        if counts.is_over.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let mut message = [0; MESSAGE];
        let exchange = async {
            stream.write_all(&message).await?;
            stream.read_exact(&mut message).await
        };
        if exchange.await.is_err() {
            // Before its first answer a connection never had a backend, as far as its client knows.
            let failed = if request == 0 {
                &counts.refused
            } else {
                &counts.cut
            };
            failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let backend = usize::from(message[0]).min(counts.answered.len() - 1);
        counts.note(backend, begun.elapsed());
        // Not all in step: the pause differs a little from client to client and from request to request.
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}
