//! What the director tells the other roles and what they answer: JSON in an argument, JSON on a line.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The work of one load generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// `active` sessions each send a request, wait for its answer, send the next; `idle` more are open and silent.
    Requests { active: usize, idle: usize },
    /// Connect, one request, its answer, close; `at_once` at a time.
    Connects { at_once: usize },
    /// `clients` each send a datagram, wait for its answer, send the next.
    Datagrams { clients: usize },
    /// The same, to balancers whose flows end with their answers.
    Questions { clients: usize },
    /// Streams that carry as much as they can, client to backend.
    Upload { streams: usize },
    /// Streams that carry as much as they can, backend to client.
    Download { streams: usize },
    /// Sockets connected to this very process, in no epoll set: what sockets by themselves take.
    Bare { pairs: usize },
}

/// One load generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generate {
    pub(crate) load: Load,
    pub(crate) sizes: Sizes,
    /// Where to connect; used in turn.
    pub(crate) targets: Vec<SocketAddrV4>,
    /// Where to connect from; used in turn.
    pub(crate) sources: Vec<Ipv4Addr>,
    /// Length of the measured interval.
    pub(crate) measure: Duration,
}

/// Bytes of a request and of its answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sizes {
    pub(crate) request: usize,
    pub(crate) answer: usize,
}

/// One process that plays all backends for some services.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Serve {
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) services: Vec<(Service, u16)>,
    pub(crate) sizes: Sizes,
}

/// What a backend does with a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Service {
    /// Answers requests.
    Answer,
    /// Throws away what it gets.
    Swallow,
    /// Sends without end.
    Pour,
    /// Answers datagrams.
    Datagrams,
}

/// One port per kind of service; the balancer listens on the same three on its own address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) small: u16,
    pub(crate) upload: u16,
    pub(crate) download: u16,
    /// UDP; balancers listen there only where it is measured.
    pub(crate) datagrams: u16,
}

/// What a load generator measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Requests, connections or bytes.
    pub(crate) units: u64,
    /// Sessions that ended or failed when they should not have.
    pub(crate) errors: u64,
    pub(crate) balancer_cpu_ns: u64,
    /// How long the balancer was ready to run and somebody else had its core.
    pub(crate) balancer_wait_ns: u64,
    /// Network work that the kernel took out of the balancer's time into its own thread.
    pub(crate) softirq_ns: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}
