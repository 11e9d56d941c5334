//! Busy sessions: requests and answers one after the other on threads, with the time that each took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{join, stream};

/// Sessions to an echoing backend that exchange messages without a pause until they are told to stop.
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
}

impl Busy {
    pub fn start(address: SocketAddr, sessions: usize, message_size: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |number: usize| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || exchange_until(address, number, message_size, &stop))
        };
        let threads = (0..sessions).map(one).collect();
        Self { stop, threads }
    }

    /// Stops them; any exchange that failed fails the test here.
    #[track_caller]
    pub fn finish(self) -> Latencies {
        self.stop.store(true, Ordering::Relaxed);
        let mut sorted: Vec<Duration> = self.threads.into_iter().flat_map(join).collect();
        sorted.sort_unstable();
        Latencies { sorted }
    }

    /// Lets such sessions run for a while.
    #[track_caller]
    pub fn run_for(
        duration: Duration,
        address: SocketAddr,
        sessions: usize,
        message_size: usize,
    ) -> Latencies {
        let busy = Self::start(address, sessions, message_size);
        thread::sleep(duration);
        busy.finish()
    }
}

/// How long the exchanges took.
#[derive(Debug)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The value that 99 of 100 stay below.
    #[track_caller]
    pub fn p99(&self) -> Duration {
        assert!(!self.sorted.is_empty(), "no exchange was finished");
        self.sorted[(self.sorted.len() - 1) * 99 / 100]
    }

    #[track_caller]
    pub fn worst(&self) -> Duration {
        *self.sorted.last().expect("an exchange was finished")
    }
}

fn exchange_until(
    address: SocketAddr,
    number: usize,
    message_size: usize,
    stop: &AtomicBool,
) -> Vec<Duration> {
    let mut stream = stream::connect(address);
    let message = vec![u8::try_from(number % 251).expect("less than 251"); message_size];
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream::exchange(&mut stream, &message);
        latencies.push(start.elapsed());
    }
    latencies
}
