//! Sessions that are still connecting when their backend goes down: they try the next one at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use crate::harness::backend::{Backend, FullBacklog, echo, listener_on};
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, SOON, assert_ends, number, one_pool};

/// Whoever waits for a connect to time out waits too long for a test.
const CONNECT_TIMEOUT: &str = "timeouts: {connect: 1m}, balance: first";

/// A backend that never accepts, and one that serves, each with a port for its probes.
struct Two {
    never: FullBacklog,
    never_probed: TcpListener,
    serving: Backend,
    _serving_probed: TcpListener,
}

impl Two {
    fn new() -> Two {
        let never = FullBacklog::new();
        let never_probed = TcpListener::bind("127.0.0.1:0").unwrap();
        let probed = SocketAddr::from(([127, 0, 0, 2], never_probed.local_addr().unwrap().port()));
        let serving = listener_on("127.0.0.2:0".parse().unwrap(), 128);
        Two {
            never,
            never_probed,
            serving: Backend::scripted_on(serving, |stream, _| echo(stream)),
            _serving_probed: TcpListener::bind(probed).unwrap(),
        }
    }

    fn start(&self, pool: &str) -> Ringway {
        let pool = format!(
            "{CONNECT_TIMEOUT}, {pool}, backends: [\"{}\", \"{}\"], probe: {{port: {}, \
             interval: 200ms, fast_interval: 50ms, down_interval: 100ms, timeout: 200ms}}",
            self.never.address(),
            self.serving.address(),
            self.never_probed.local_addr().unwrap().port()
        );
        Launch::config(one_pool("workers: 2", &pool)).start()
    }
}

fn connect_early(ringway: &Ringway) -> TcpStream {
    let mut client = ringway.connect();
    client.write_all(b"early").unwrap();
    client
}

#[track_caller]
fn assert_served(client: &mut TcpStream) {
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
    stream::exchange(client, b"and more");
}

#[test]
fn sessions_that_connect_to_a_backend_that_goes_down_are_served_by_the_next() {
    const CLIENTS: u64 = 100;
    let two = Two::new();
    let ringway = two.start("on_down: keep");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect_early(&ringway)).collect();
    ringway.counter_becomes("connects_total", CLIENTS);
    assert_eq!(ringway.counter("connects_established_total"), 0);
    drop(two.never_probed);
    let begun = Instant::now();
    clients.iter_mut().for_each(assert_served);
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    clients.clear();
    let counters = ringway.finish();
    assert_ends(&counters, &[("client_closed", CLIENTS)]);
    assert_eq!(number(&counters, "connect_retries_total"), CLIENTS);
    assert_eq!(number(&counters, "connect_failures_total"), CLIENTS);
    assert_eq!(
        counters["backends"][0]["avoided"], 0,
        "what we gave up ourselves says nothing about the backend"
    );
}

#[test]
fn session_without_a_retry_left_ends_with_its_backend() {
    let two = Two::new();
    let ringway = two.start("retries: 0");
    let mut client = connect_early(&ringway);
    ringway.counter_becomes("connects_total", 1);
    drop(two.never_probed);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    stream::exchange(&mut ringway.connect(), b"the other one");
    assert_ends(
        &ringway.finish(),
        &[("backend_down", 1), ("client_closed", 1)],
    );
}
