//! The access log: one line for each session and each UDP flow that ended. Workers put plain records into a bounded
//! channel and never wait; a thread of its own makes lines of them ([`writer`]). What finds no place is lost, and
//! counted. It measures nothing: what a record holds, its worker knows.

mod line;
pub mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::session::CloseReason;

pub use line::Style;

/// Records that wait to be written.
const RECORDS_MAX: usize = 8192;

/// What is known of a session or flow at its end.
#[derive(Clone, Debug)]
pub struct Record {
    /// When that was.
    pub ended: SystemTime,
    /// Where it came in.
    pub listener: Arc<str>,
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// Where it went.
    pub pool: Arc<str>,
    /// The last backend that was tried; none if there was none to try.
    pub backend: Option<Arc<str>>,
    /// Why it ended.
    pub reason: CloseReason,
    /// How long it lived.
    pub duration: Duration,
    /// Bytes given to the backend, and to the client.
    pub bytes: [u64; 2],
    /// The rest.
    pub kind: Kind,
}

/// What there is to tell of one kind only.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A TCP session.
    Session {
        /// How long the connect took that succeeded; none if none did.
        connect: Option<Duration>,
        /// From the client's first bytes, or from the connect if it has said nothing, to the backend's first bytes.
        first_byte: Option<Duration>,
        /// Other backends that were tried.
        retries: usize,
        /// What the kernel says of the connection with the client, and of that with the backend; none for a unix
        /// socket, and where there is no connection.
        paths: [Option<Path>; 2],
    },
    /// A UDP flow, for as long as it led to one backend.
    Flow {
        /// Datagrams sent to the backend, and to the client.
        datagrams: [u64; 2],
    },
}

/// What the kernel says about a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Smoothed time from a segment to its acknowledgement.
    pub rtt: Duration,
    /// Segments sent again.
    pub retransmits: u32,
}

/// Where workers put records. Cloned freely.
#[derive(Clone, Debug)]
pub struct Sink {
    records: Sender<Record>,
    lost: Lost,
}

impl Sink {
    /// Both ends.
    fn new() -> (Sink, Receiver<Record>) {
        let (records, taken) = bounded(RECORDS_MAX);
        let lost = Lost::default();
        (Sink { records, lost }, taken)
    }

    /// Never waits.
    pub fn put(&self, record: Record) {
        if self.records.try_send(record).is_err() {
            self.lost.add(1);
        }
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> &Lost {
        &self.lost
    }
}

/// Lines that nobody got.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_place_is_counted_and_nobody_waits() {
        let (sink, taken) = Sink::new();
        for _ in 0..RECORDS_MAX + 3 {
            sink.put(line::tests::session());
        }
        assert_eq!(sink.lost().get(), 3);
        assert_eq!(taken.len(), RECORDS_MAX);
        drop(taken);
        sink.put(line::tests::session());
        assert_eq!(sink.lost().get(), 4);
    }
}
