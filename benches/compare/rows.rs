//! The workloads, what is counted in each, and the bars that they are held against.
//!
//! What a row's load is made of is a kind of `Work` here, a driver beside `requests` and `bulk`, and a case in
//! `director::Turn`; nothing else knows which kinds there are.

use crate::spec::{Load, Sizes};

/// One line of the table of bars.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    pub(crate) sizes: Sizes,
    pub(crate) unit: Unit,
    pub(crate) link: Link,
    pub(crate) bars: &'static [Bar],
    /// What our own figure may be at most, whatever the others' are.
    pub(crate) most: Option<f64>,
}

/// What is between the balancer and everybody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Loopback,
    /// A pair of interfaces with MTU 1500; the balancer has a network namespace of its own.
    Veth,
}

impl Row {
    /// Whether its load is UDP, which not everybody forwards.
    pub(crate) fn is_udp(&self) -> bool {
        matches!(
            self.work,
            Work::Single(Load::Datagrams { .. } | Load::Questions { .. })
        )
    }

    /// Whether a flow is to end with its answer.
    pub(crate) fn ends_flows(&self) -> bool {
        matches!(self.work, Work::Single(Load::Questions { .. }))
    }
}

/// What the load of a row is made of.
pub(crate) enum Work {
    Single(Load),
    /// Sessions of which most are idle; each of our binaries is also measured without the idle ones.
    MostlyIdle {
        active: usize,
        idle: usize,
    },
    /// Small sessions, measured, beside bulk streams from the backends.
    Mixed {
        active: usize,
        streams: usize,
    },
    /// Sessions that are only held open.
    Memory {
        sessions: usize,
    },
    /// A start with a large configuration.
    Start {
        listeners: usize,
        backends: usize,
    },
}

/// What the figure of a row is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Request,
    Connection,
    Gigabyte,
    SmallLatency,
    SessionMemory,
    Start,
}

/// How our figure relates to another one: ours divided by it is at most `limit`, or even `stretch`.
pub(crate) struct Bar {
    /// A contender's label.
    pub(crate) against: &'static str,
    pub(crate) limit: f64,
    pub(crate) stretch: f64,
}

impl Unit {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Request => "us of balancer CPU per request",
            Self::Connection => "us of balancer CPU per connection",
            Self::Gigabyte => "ms of balancer CPU per GB",
            Self::SmallLatency => "p99 of the small sessions, us",
            Self::SessionMemory => "bytes per idle session, sockets not counted",
            Self::Start => "ms from its start until it accepts on every listener",
        }
    }
}

/// The label of the contender that a row with idle sessions adds.
pub(crate) const WITHOUT_IDLE: &str = "without idle";

const SMALL: Sizes = Sizes {
    request: 64,
    answer: 64,
};

const fn haproxy(limit: f64, stretch: f64) -> Bar {
    Bar {
        against: "haproxy-splice",
        limit,
        stretch,
    }
}

const fn nginx(limit: f64, stretch: f64) -> Bar {
    Bar {
        against: "nginx",
        limit,
        stretch,
    }
}

const fn requests(active: usize) -> Work {
    Work::Single(Load::Requests { active, idle: 0 })
}

/// All rows, in the order in which they run.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "rr-64-100",
        what: "request/response, 64 B, 100 sessions",
        work: requests(100),
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.88, 0.78), nginx(0.92, 0.85)],
        most: None,
    },
    Row {
        name: "rr-64-1000",
        what: "request/response, 64 B, 1,000 sessions",
        work: requests(1000),
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.72, 0.60)],
        most: None,
    },
    Row {
        name: "rr-64-6000",
        what: "request/response, 64 B, 6,000 sessions",
        work: requests(6000),
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.75, 0.60)],
        most: None,
    },
    Row {
        name: "idle-6000-active-100",
        what: "6,000 sessions open, 100 of them active",
        work: Work::MostlyIdle {
            active: 100,
            idle: 5900,
        },
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[Bar {
            against: WITHOUT_IDLE,
            limit: 1.1,
            stretch: 1.05,
        }],
        most: None,
    },
    Row {
        name: "rr-4k-100",
        what: "request/response, 4 KiB, 100 sessions",
        work: requests(100),
        sizes: Sizes {
            request: 4096,
            answer: 4096,
        },
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.90, 0.80)],
        most: None,
    },
    Row {
        name: "rr-16k-100",
        what: "request/response, 16 KiB, 100 sessions",
        work: requests(100),
        sizes: Sizes {
            request: 16_384,
            answer: 16_384,
        },
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.95, 0.85)],
        most: None,
    },
    Row {
        name: "rr-64-64k-20",
        what: "64 B request, 64 KiB answer, 20 sessions",
        work: requests(20),
        sizes: Sizes {
            request: 64,
            answer: 65_536,
        },
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[haproxy(0.90, 0.80)],
        most: None,
    },
    Row {
        name: "connect",
        what: "connect, one request, close; 32 at once",
        work: Work::Single(Load::Connects { at_once: 32 }),
        sizes: SMALL,
        unit: Unit::Connection,
        link: Link::Loopback,
        bars: &[haproxy(0.80, 0.70), nginx(0.95, 0.88)],
        most: None,
    },
    Row {
        name: "bulk-up",
        what: "bulk, 4 streams, client to backend",
        work: Work::Single(Load::Upload { streams: 4 }),
        sizes: SMALL,
        unit: Unit::Gigabyte,
        link: Link::Loopback,
        bars: &[haproxy(0.65, 0.50)],
        most: None,
    },
    Row {
        name: "bulk-down",
        what: "bulk, 4 streams, backend to client",
        work: Work::Single(Load::Download { streams: 4 }),
        sizes: SMALL,
        unit: Unit::Gigabyte,
        link: Link::Loopback,
        bars: &[haproxy(0.65, 0.50)],
        most: None,
    },
    Row {
        name: "bulk-veth",
        what: "bulk, 4 streams, client to backend, over veth with MTU 1500",
        work: Work::Single(Load::Upload { streams: 4 }),
        sizes: SMALL,
        unit: Unit::Gigabyte,
        link: Link::Veth,
        bars: &[haproxy(0.90, 0.80)],
        most: None,
    },
    Row {
        name: "mixed",
        what: "100 small sessions beside 2 bulk streams to the client",
        work: Work::Mixed {
            active: 100,
            streams: 2,
        },
        sizes: SMALL,
        unit: Unit::SmallLatency,
        link: Link::Loopback,
        bars: &[haproxy(1.0, 0.5)],
        most: None,
    },
    Row {
        name: "udp-64-100",
        what: "UDP request/response, 64 B, 100 clients",
        work: Work::Single(Load::Datagrams { clients: 100 }),
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[nginx(0.70, 0.55)],
        most: None,
    },
    Row {
        name: "udp-flows-100",
        what: "UDP, a flow for each request and its answer, 64 B, 100 clients",
        work: Work::Single(Load::Questions { clients: 100 }),
        sizes: SMALL,
        unit: Unit::Request,
        link: Link::Loopback,
        bars: &[nginx(0.70, 0.55)],
        most: None,
    },
    Row {
        name: "memory",
        what: "6,000 idle sessions",
        work: Work::Memory { sessions: 6000 },
        sizes: SMALL,
        unit: Unit::SessionMemory,
        link: Link::Loopback,
        bars: &[haproxy(0.5, 0.35)],
        most: None,
    },
    Row {
        name: "start",
        what: "start with 1,000 listeners and 10,000 backends",
        work: Work::Start {
            listeners: 1_000,
            backends: 10_000,
        },
        sizes: SMALL,
        unit: Unit::Start,
        link: Link::Loopback,
        bars: &[],
        most: Some(1_000.0),
    },
];
