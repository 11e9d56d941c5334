//! Listeners without a usable backend: the kernel refuses connects, and lets clients in again at once.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway::admin::{Change, client};
use ringway::control::snapshot::OperatorState;
use serde_json::Value;

use crate::harness::backend::{Backend, echo, listener_on};
use crate::harness::stream::{self, Ended};
use crate::harness::{
    Launch, Ringway, SOON, assert_ends, eventually, facts, free_address, number, one_pool,
    refusing_address,
};

#[track_caller]
fn operate(ringway: &Ringway, backend: &str, change: &Change) {
    client::operate(&ringway.admin_socket(), "p", backend, change)
        .unwrap_or_else(|error| panic!("{backend}, {change:?}: {error}"));
}

fn state(state: OperatorState) -> Change {
    Change {
        state: Some(state),
        ..Change::default()
    }
}

fn weight(weight: u16) -> Change {
    Change {
        weight: Some(weight),
        ..Change::default()
    }
}

fn named(name: &str, address: SocketAddr) -> String {
    format!("{{name: {name}, address: \"{address}\"}}")
}

fn listener(ringway: &Ringway) -> Value {
    ringway.status()["listeners"][0].clone()
}

#[test]
fn whatever_the_operator_takes_the_last_backend_away_with_connects_are_refused_until_it_is_back() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let backends = [named("one", one.address()), named("two", two.address())].join(", ");
    let ringway =
        Launch::config(one_pool("workers: 2", &format!("backends: [{backends}]"))).start();
    let away = [
        (state(OperatorState::Drain), state(OperatorState::Ready)),
        (
            state(OperatorState::Maintenance),
            state(OperatorState::Ready),
        ),
        (weight(0), weight(1)),
    ];
    for (take, give) in &away {
        operate(&ringway, "one", take);
        stream::exchange(&mut ringway.connect(), b"the other one");
        operate(&ringway, "two", take);
        for _ in 0..20 {
            stream::assert_refused(ringway.address());
        }
        operate(&ringway, "two", give);
        for _ in 0..20 {
            stream::exchange(&mut ringway.connect(), b"at once");
        }
        operate(&ringway, "one", give);
    }
    assert_eq!(listener(&ringway)["shut_total"], 3);
    let counters = ringway.finish();
    assert_ends(&counters, &[("client_closed", 63)]);
    assert_eq!(
        number(&counters, "accept_errors.other"),
        0,
        "an accept on a socket that was shut on purpose is no error"
    );
}

#[test]
fn status_and_log_say_since_when_and_why_connects_are_refused() {
    let one = Backend::echo();
    let pool = format!("backends: [{}]", named("one", one.address()));
    let ringway = Launch::config(one_pool("workers: 2", &pool)).start();
    assert_eq!(listener(&ringway)["refuses"], Value::Null);
    operate(&ringway, "one", &state(OperatorState::Drain));
    let refuses = listener(&ringway)["refuses"].clone();
    assert!(refuses["since"].as_u64().unwrap() > 1_000_000_000);
    let why = "no backend is usable: 1 draining";
    assert_eq!(refuses["why"], why);
    let (_, text, _) = ringway.command(&["status"]);
    assert!(
        text.contains("refuses connects for ") && text.contains(why),
        "{text}"
    );
    assert!(ringway.wait_line("connects are refused").contains(why));
    operate(&ringway, "one", &state(OperatorState::Ready));
    ringway.wait_line("listening again");
    assert_eq!(listener(&ringway)["refuses"], Value::Null);
    ringway.finish();
}

#[test]
fn listener_whose_backends_are_down_from_the_start_refuses_until_one_is_up() {
    let address = free_address();
    let pool = format!(
        "backends: [{}], slow_start: none, \
         probe: {{interval: 200ms, fast_interval: 50ms, down_interval: 100ms, timeout: 200ms}}",
        named("it", address)
    );
    let ringway = Launch::config(one_pool("workers: 2", &pool)).start();
    stream::assert_refused(ringway.address());
    assert_eq!(
        listener(&ringway)["refuses"]["why"],
        "no backend is usable: 1 down"
    );
    for _ in 0..3 {
        let backend = Backend::scripted_on(listener_on(address, 128), |stream, _| echo(stream));
        eventually(SOON, "clients are let in", || {
            listener(&ringway)["refuses"] == Value::Null
        });
        stream::exchange(&mut ringway.connect(), b"hello");
        drop(backend);
        eventually(SOON, "clients are refused", || {
            listener(&ringway)["refuses"] != Value::Null
        });
        stream::assert_refused(ringway.address());
    }
    ringway.finish();
}

#[test]
fn listener_that_resets_goes_on_accepting() {
    let one = Backend::echo();
    let text = format!(
        "listeners: [{{bind: \"127.0.0.1:0\", pool: p, when_empty: reset}}]\npools: {{p: [{}]}}\n",
        named("one", one.address())
    );
    let ringway = Launch::config(text).start();
    operate(&ringway, "one", &state(OperatorState::Maintenance));
    for _ in 0..10 {
        assert_eq!(stream::connect_to_end(ringway.address()), Ended::Reset);
    }
    assert_eq!(listener(&ringway)["shut_total"], 0);
    assert_ends(&ringway.finish(), &[("no_backend", 10)]);
}

/// The kernel cannot open a unix socket again that has been shut.
#[test]
fn listener_on_a_unix_socket_resets_while_its_other_addresses_are_refused() {
    let one = Backend::echo();
    let folder = crate::harness::Folder::new();
    let path = folder.path().join("in.sock");
    let text = format!(
        "listeners: [{{bind: [\"127.0.0.1:0\", \"unix:{}\"], pool: p}}]\npools: {{p: [{}]}}\n",
        path.display(),
        named("one", one.address())
    );
    let ringway = Launch::config(text).start();
    for _ in 0..3 {
        operate(&ringway, "one", &state(OperatorState::Drain));
        stream::assert_refused(ringway.address());
        let ended = stream::read_to_end(&mut stream::connect_unix(&path)).1;
        // A unix socket knows no reset unless something was left unread.
        assert!(matches!(ended, Ended::Fin | Ended::Reset));
        operate(&ringway, "one", &state(OperatorState::Ready));
        stream::exchange(&mut stream::connect_unix(&path), b"hello");
        stream::exchange(&mut ringway.connect(), b"hello");
    }
    assert_ends(
        &ringway.finish(),
        &[("client_closed", 6), ("no_backend", 3)],
    );
}

/// What failed connects say never takes the last usable backend: it is tried again for every client.
#[test]
fn listener_whose_unprobed_backends_refuse_stays_open_and_serves_at_once_when_one_is_back() {
    let address = free_address();
    let backends = [named("one", address), named("two", refusing_address())].join(", ");
    let pool =
        format!("backends: [{backends}], passive: {{failures: 2, retry_after: 60s}}, probe: none");
    let ringway = Launch::config(one_pool("workers: 2", &pool)).start();
    for _ in 0..20 {
        assert_eq!(stream::connect_to_end(ringway.address()), Ended::Reset);
    }
    assert_eq!(listener(&ringway)["refuses"], Value::Null);
    let _returned = Backend::scripted_on(listener_on(address, 128), |stream, _| echo(stream));
    for _ in 0..20 {
        stream::exchange(&mut ringway.connect(), b"hello");
    }
    ringway.finish();
}

/// A short session that leaves no port behind.
fn exchange(address: SocketAddr) -> io::Result<()> {
    let mut stream = stream::try_connect(address)?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello");
    stream::abort(stream);
    Ok(())
}

/// What the operator has brought about: the number is odd while it is changing.
struct Situation {
    number: AtomicU64,
    is_open: AtomicBool,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    served: u64,
    refused: u64,
    /// Others, all of which raced a change.
    reset: u64,
}

/// Connects for as long as it takes. Whoever comes and goes while nothing changes has to find what the operator says.
fn keep_connecting(address: SocketAddr, situation: &Situation) -> Seen {
    let mut seen = Seen::default();
    while !situation.over.load(Ordering::SeqCst) {
        let number = situation.number.load(Ordering::SeqCst);
        let is_open = situation.is_open.load(Ordering::SeqCst);
        let outcome = exchange(address);
        let is_settled =
            number.is_multiple_of(2) && situation.number.load(Ordering::SeqCst) == number;
        match outcome {
            Ok(()) => {
                assert!(is_open || !is_settled, "served without a backend");
                seen.served += 1;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                assert!(!is_open || !is_settled, "refused with a usable backend");
                seen.refused += 1;
            }
            Err(error) => {
                let raced = matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                );
                assert!(raced, "{error}");
                assert!(!is_settled, "let in and reset, open: {is_open}");
                seen.reset += 1;
            }
        }
    }
    seen
}

#[test]
fn after_a_thousand_times_shut_and_open_nobody_was_lost_and_nothing_is_left() {
    const TIMES: u64 = 1000;
    let (one, two) = (Backend::echo(), Backend::echo());
    let backends = [named("one", one.address()), named("two", two.address())].join(", ");
    let ringway =
        Launch::config(one_pool("workers: 2", &format!("backends: [{backends}]"))).start();
    exchange(ringway.address()).unwrap();
    ringway.counter_becomes("sessions_active", 0);
    let files = facts::open_files(ringway.pid());
    let situation = Situation {
        number: AtomicU64::new(0),
        is_open: AtomicBool::new(true),
        over: AtomicBool::new(false),
    };
    let change = |is_open: bool, backend: &str, to: OperatorState| {
        situation.number.fetch_add(1, Ordering::SeqCst);
        situation.is_open.store(is_open, Ordering::SeqCst);
        operate(&ringway, backend, &state(to));
        situation.number.fetch_add(1, Ordering::SeqCst);
    };
    let seen: Vec<Seen> = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| keep_connecting(ringway.address(), &situation)))
            .collect();
        let begun = Instant::now();
        for round in 0..TIMES {
            let (first, last) = if round % 2 == 0 {
                ("one", "two")
            } else {
                ("two", "one")
            };
            // Both, one, none, the other one, both.
            operate(&ringway, first, &state(OperatorState::Drain));
            change(false, last, OperatorState::Drain);
            change(true, first, OperatorState::Ready);
            operate(&ringway, last, &state(OperatorState::Ready));
        }
        println!("{TIMES} times in {:?}", begun.elapsed());
        situation.over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    println!("{seen:?}");
    assert!(seen.iter().any(|seen| seen.served > 0));
    assert!(seen.iter().any(|seen| seen.refused > 0));
    assert_eq!(listener(&ringway)["shut_total"], TIMES);
    exchange(ringway.address()).unwrap();
    ringway.counter_becomes("sessions_active", 0);
    eventually(SOON, "no file descriptor is left", || {
        facts::open_files(ringway.pid()) <= files
    });
    ringway.assert_idle(Duration::from_millis(200));
    ringway.finish();
}
