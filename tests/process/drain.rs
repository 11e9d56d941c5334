//! `drain_timeout` of a pool: how long the sessions of a backend that drains may go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::backend::{Backend, FullBacklog};
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, assert_ends, eventually, one_pool};

/// Two backends that take turns.
fn start(first: &Backend, second: &Backend, drain_timeout: &str) -> Ringway {
    let pool = format!(
        "drain_timeout: {drain_timeout}, backends: [{{name: one, address: \"{}\"}}, \
         {{name: two, address: \"{}\"}}]",
        first.address(),
        second.address()
    );
    Launch::config(one_pool("workers: 1", &pool)).start()
}

#[track_caller]
fn operate(ringway: &Ringway, backend: &str, state: &str) {
    let (code, _, said) = ringway.command(&["backend", backend, state]);
    assert_eq!(code, Some(0), "{said}");
}

fn drain_until(ringway: &Ringway, backend: usize) -> Value {
    ringway.status()["pools"][0]["backends"][backend]["drain_until"].clone()
}

/// Sessions by turns on the one and on the other, in use.
fn sessions(ringway: &Ringway, pairs: usize) -> [Vec<TcpStream>; 2] {
    let mut sessions = [Vec::new(), Vec::new()];
    for session in 0..2 * pairs {
        let mut client = ringway.connect();
        stream::exchange(&mut client, b"hello");
        sessions[session % 2].push(client);
    }
    sessions
}

#[test]
fn sessions_of_a_backend_that_drains_end_after_its_timeout_and_others_go_on() {
    const PAIRS: usize = 300;
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = start(&first, &second, "3s");
    let [mut on_one, mut on_two] = sessions(&ringway, PAIRS);
    assert_eq!(drain_until(&ringway, 0), Value::Null);
    let begun = Instant::now();
    operate(&ringway, "p/one", "drain");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = drain_until(&ringway, 0).as_u64().unwrap();
    assert!(until.abs_diff(now.as_secs() + 3) <= 2, "{until}, {now:?}");
    let (_, text, _) = ringway.command(&["status"]);
    assert!(text.contains("s left"), "{text}");
    stream::exchange(&mut on_one[0], b"it goes on");
    for client in &mut on_one {
        assert_eq!(stream::ended(client), Ended::Reset);
    }
    let lived = begun.elapsed();
    assert!(lived > Duration::from_millis(2_900), "{lived:?}");
    for client in &mut on_two {
        stream::exchange(client, b"and on");
    }
    assert_eq!(drain_until(&ringway, 0), Value::Null, "it is over");
    ringway.wait_line("drain_timeout: ending what is left");
    drop(on_two);
    let pairs = PAIRS as u64;
    assert_ends(
        &ringway.finish(),
        &[("client_closed", pairs), ("drain_timeout", pairs)],
    );
}

#[test]
fn drain_that_is_taken_back_ends_nobody() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = start(&first, &second, "1s");
    let [mut on_one, mut on_two] = sessions(&ringway, 1);
    operate(&ringway, "p/one", "drain");
    operate(&ringway, "p/one", "ready");
    assert_eq!(drain_until(&ringway, 0), Value::Null);
    // The other one's time is over later than the first one's would have been.
    operate(&ringway, "p/two", "maintenance");
    assert_eq!(stream::ended(&mut on_two[0]), Ended::Reset);
    stream::exchange(&mut on_one[0], b"it goes on");
    // Drained once, it drains again like the first time.
    operate(&ringway, "p/one", "maintenance");
    assert_eq!(stream::ended(&mut on_one[0]), Ended::Reset);
    operate(&ringway, "p/one", "ready");
    let mut again = ringway.connect();
    stream::exchange(&mut again, b"hello");
    operate(&ringway, "p/one", "drain");
    assert_eq!(stream::ended(&mut again), Ended::Reset);
    assert_ends(&ringway.finish(), &[("drain_timeout", 3)]);
}

#[test]
fn time_goes_on_from_drain_to_maintenance_and_without_a_timeout_there_is_none() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = start(&first, &second, "1h");
    operate(&ringway, "p/one", "drain");
    let until = drain_until(&ringway, 0).as_u64().unwrap();
    eventually(Duration::from_secs(10), "two seconds pass", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() >= until - 3_600 + 3
    });
    operate(&ringway, "p/one", "maintenance");
    let still = drain_until(&ringway, 0).as_u64().unwrap();
    assert!(still.abs_diff(until) <= 1, "{still}, {until}");
    drop(ringway);
    let ringway = start(&first, &second, "none");
    operate(&ringway, "p/one", "drain");
    assert_eq!(drain_until(&ringway, 0), Value::Null);
    ringway.finish();
}

#[test]
fn session_that_still_connects_when_the_time_is_over_goes_to_another_backend() {
    let (never, echoing) = (FullBacklog::new(), Backend::echo());
    let pool = format!(
        "drain_timeout: 500ms, balance: first, timeouts: {{connect: 1m}}, probe: none, \
         backends: [{{name: one, address: \"{}\"}}, \"{}\"]",
        never.address(),
        echoing.address()
    );
    let ringway = Launch::config(one_pool("workers: 2", &pool)).start();
    let mut client = ringway.connect();
    client.write_all(b"early").unwrap();
    ringway.counter_becomes("connects_total", 1);
    operate(&ringway, "p/one", "drain");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
    drop(client);
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}
