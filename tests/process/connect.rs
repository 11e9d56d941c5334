//! Connecting to backends: what happens when one refuses, swallows or is slow, and that no byte of a client that talks
//! first gets lost on the way to another.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::{Backend, FullBacklog, echo, listener_on};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Ended, Pattern};
use crate::harness::{
    Launch, Ringway, SOON, Tier, assert_ends, eventually, free_address, number, one_pool,
    refusing_address,
};

both_tiers! {
    early_bytes_arrive_at_the_second_backend_when_the_first_refuses,
    client_is_reset_when_all_backends_refuse,
    backend_that_keeps_failing_is_avoided_and_comes_back,
    when_all_backends_are_avoided_they_are_still_tried,
    backend_that_swallows_is_given_up_for_another,
    client_is_reset_when_nobody_answers,
    backend_that_never_accepts_is_given_up_for_another,
    backend_that_is_slow_to_accept_gets_the_early_bytes,
    client_gone_during_a_connect_that_is_swallowed,
    client_gone_during_a_retry,
    retries_are_as_many_as_the_pool_says,
    retries_survive_freezing,
    network_without_a_route_is_not_held_against_the_backend,
}

const EARLY: u64 = 40_000;

/// A client that talks first and at once, to an echoing backend.
#[track_caller]
fn assert_served_from_the_first_byte(address: SocketAddr, seed: u64) {
    let mut client = stream::connect(address);
    let pattern = Pattern::new(seed);
    stream::send_pattern(&mut client, pattern, EARLY, 1000).unwrap();
    stream::finish_writing(&client);
    assert_eq!(
        stream::receive_pattern(&mut client, pattern),
        (EARLY, Ended::Fin)
    );
}

#[track_caller]
fn backend_counters(counters: &Value, address: SocketAddr) -> Value {
    let backends = counters["backends"].as_array().unwrap();
    let name = address.to_string();
    let found = backends
        .iter()
        .find(|backend| backend["name"] == name.as_str());
    found
        .unwrap_or_else(|| panic!("no backend {name} in {counters}"))
        .clone()
}

#[track_caller]
fn is_avoided(ringway: &Ringway, address: SocketAddr) -> bool {
    let avoided = &backend_counters(&ringway.counters(), address)["avoided"];
    avoided
        .as_bool()
        .unwrap_or_else(|| avoided.as_u64().unwrap() != 0)
}

fn early_bytes_arrive_at_the_second_backend_when_the_first_refuses(tier: Tier) {
    let echoing = Backend::echo();
    let ringway = Launch::to([refusing_address(), echoing.address()])
        .tier(tier)
        .start();
    for seed in 0..8 {
        assert_served_from_the_first_byte(ringway.address(), seed);
    }
    let counters = ringway.finish();
    assert!(
        number(&counters, "connect_retries_total") > 0,
        "nothing was retried: {counters}"
    );
    assert_eq!(number(&counters, "bytes_to_backend"), 8 * EARLY);
    assert_ends(&counters, &[("client_closed", 8)]);
}

fn client_is_reset_when_all_backends_refuse(tier: Tier) {
    let refusing = [refusing_address(), refusing_address(), refusing_address()];
    let ringway = Launch::to(refusing)
        .resetting_when_empty()
        .tier(tier)
        .start();
    for _ in 0..5 {
        // The reset may already be there, even before `connect` returns, and is told only once.
        let early = stream::try_connect(ringway.address()).and_then(|mut client| {
            client.write_all(b"early")?;
            Ok(client)
        });
        match early {
            Ok(mut client) => assert_eq!(stream::ended(&mut client), Ended::Reset),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    let counters = ringway.finish();
    assert_ends(&counters, &[("connect_refused", 5)]);
    assert_eq!(
        number(&counters, "connect_failures_total"),
        15,
        "each of the three was tried"
    );
    assert_eq!(number(&counters, "connect_retries_total"), 10);
}

fn backend_that_keeps_failing_is_avoided_and_comes_back(tier: Tier) {
    const RETRY_AFTER: Duration = Duration::from_secs(3);
    let (failing, echoing) = (free_address(), Backend::echo());
    let pool = format!(
        "backends: [\"{failing}\", \"{}\"], passive: {{failures: 3, retry_after: 3s}}",
        echoing.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    eventually(SOON, "the failing backend is avoided", || {
        assert_served_from_the_first_byte(ringway.address(), 1);
        is_avoided(&ringway, failing)
    });
    let avoided_since = Instant::now();
    let failures = ringway.counter("connect_failures_total");
    assert_eq!(failures, 3, "failures until it was avoided");
    for seed in 0..10 {
        assert_served_from_the_first_byte(ringway.address(), seed);
    }
    if avoided_since.elapsed() < RETRY_AFTER / 2 {
        assert_eq!(
            ringway.counter("connect_failures_total"),
            failures,
            "it was tried while avoided"
        );
    }
    let returned = Backend::scripted_on(listener_on(failing, 128), |stream, _| echo(stream));
    eventually(SOON, "the backend gets sessions again", || {
        assert_served_from_the_first_byte(ringway.address(), 2);
        returned.accepted() > 0
    });
    let away = avoided_since.elapsed();
    assert!(
        away > RETRY_AFTER - Duration::from_millis(700),
        "it was back after {away:?} only"
    );
    assert!(
        !is_avoided(&ringway, failing),
        "it is still avoided after a success"
    );
    ringway.finish();
}

fn when_all_backends_are_avoided_they_are_still_tried(tier: Tier) {
    let (first, second) = (free_address(), free_address());
    let ringway = Launch::to([first, second])
        .resetting_when_empty()
        .tier(tier)
        .start();
    for _ in 0..12 {
        assert_eq!(stream::connect_to_end(ringway.address()), Ended::Reset);
    }
    let _returned = Backend::scripted_on(listener_on(second, 128), |stream, _| echo(stream));
    let start = Instant::now();
    assert_served_from_the_first_byte(ringway.address(), 3);
    let waited = start.elapsed();
    assert!(
        waited < Duration::from_secs(5),
        "a usable backend was left out for {waited:?}"
    );
    ringway.finish();
}

/// A namespace for the process and its clients, linked to one for a backend; 10.81.0.66 swallows every packet.
fn swallowing_network() -> Option<(Namespace, Namespace)> {
    let (inside, outside) = (Namespace::new("lb")?, Namespace::new("back")?);
    inside.link("10.81.0.1/24", &outside, "10.81.0.2/24");
    inside.swallow("10.81.0.66", &outside);
    Some((inside, outside))
}

const SWALLOWING: &str = "10.81.0.66:4000";

fn backend_that_swallows_is_given_up_for_another(tier: Tier) {
    let Some((inside, outside)) = swallowing_network() else {
        return;
    };
    let echoing = outside.run(|| {
        let listener = listener_on("10.81.0.2:4000".parse().unwrap(), 128);
        Backend::scripted_on(listener, |stream, _| echo(stream))
    });
    inside.run(|| {
        let pool = format!(
            "backends: [\"{SWALLOWING}\", \"{}\"], timeouts: {{connect: 300ms}}",
            echoing.address()
        );
        let ringway = Launch::config(one_pool("workers: 1", &pool))
            .tier(tier)
            .start();
        for seed in 0..4 {
            assert_served_from_the_first_byte(ringway.address(), seed);
        }
        let counters = ringway.finish();
        assert!(
            number(&counters, "connect_retries_total") >= 1,
            "nothing was retried: {counters}"
        );
        assert_ends(&counters, &[("client_closed", 4)]);
    });
}

fn client_is_reset_when_nobody_answers(tier: Tier) {
    let Some((inside, _outside)) = swallowing_network() else {
        return;
    };
    inside.run(|| {
        let pool = format!("backends: [\"{SWALLOWING}\"], timeouts: {{connect: 300ms}}");
        let ringway = Launch::config(one_pool("workers: 1", &pool))
            .tier(tier)
            .start();
        let start = Instant::now();
        let mut client = ringway.connect();
        client.write_all(b"early").unwrap();
        assert_eq!(stream::ended(&mut client), Ended::Reset);
        let waited = start.elapsed();
        assert!(
            waited > Duration::from_millis(250),
            "it was given up after {waited:?}"
        );
        assert!(
            waited < Duration::from_secs(5),
            "it was given up only after {waited:?}"
        );
        assert_ends(&ringway.finish(), &[("connect_timeout", 1)]);
    });
}

fn backend_that_never_accepts_is_given_up_for_another(tier: Tier) {
    let (full, echoing) = (FullBacklog::new(), Backend::echo());
    let pool = format!(
        "backends: [\"{}\", \"{}\"], timeouts: {{connect: 300ms}}",
        full.address(),
        echoing.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    for seed in 0..4 {
        assert_served_from_the_first_byte(ringway.address(), seed);
    }
    let counters = ringway.finish();
    assert!(
        number(&counters, "connect_retries_total") >= 1,
        "nothing was retried: {counters}"
    );
    assert_ends(&counters, &[("client_closed", 4)]);
}

/// The client sends more than fits anywhere while nobody is there to take it.
fn backend_that_is_slow_to_accept_gets_the_early_bytes(tier: Tier) {
    const BYTES: u64 = 16 << 20;
    let full = FullBacklog::new();
    let ringway = Launch::to([full.address()]).tier(tier).start();
    let mut client = ringway.connect();
    let pattern = Pattern::new(4);
    let writer = thread::spawn(move || {
        stream::send_pattern(&mut client, pattern, BYTES, 64 * 1024).unwrap();
        stream::finish_writing(&client);
        stream::ended(&mut client)
    });
    ringway.counter_becomes("sessions_active", 1);
    assert_eq!(ringway.counter("bytes_to_backend"), 0);
    let (mut served, _) = full.open().accept().unwrap();
    assert_eq!(
        stream::receive_pattern(&mut served, pattern),
        (BYTES, Ended::Fin)
    );
    drop(served);
    assert_eq!(writer.join().unwrap(), Ended::Fin);
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}

fn client_gone_during_a_connect_that_is_swallowed(tier: Tier) {
    let Some((inside, _outside)) = swallowing_network() else {
        return;
    };
    inside.run(|| {
        let ringway = Launch::to([SWALLOWING]).tier(tier).start();
        let clients: Vec<TcpStream> = (0..20).map(|_| ringway.connect()).collect();
        ringway.counter_becomes("sessions_active", 20);
        let start = Instant::now();
        clients.into_iter().for_each(stream::abort);
        let counters = ringway.counter_becomes("sessions_active", 0);
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(3),
            "the resets were seen only after {waited:?}"
        );
        assert_ends(&counters, &[("client_reset", 20)]);
        ringway.finish();
    });
}

fn client_gone_during_a_retry(tier: Tier) {
    let (first, second) = (FullBacklog::new(), FullBacklog::new());
    let pool = format!(
        "backends: [\"{}\", \"{}\"], timeouts: {{connect: 1500ms}}",
        first.address(),
        second.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    let mut client = ringway.connect();
    client.write_all(b"early").unwrap();
    ringway.counter_becomes("connect_retries_total", 1);
    stream::abort(client);
    let counters = ringway.counter_becomes("sessions_active", 0);
    assert_ends(&counters, &[("client_reset", 1)]);
    ringway.finish();
}

fn retries_are_as_many_as_the_pool_says(tier: Tier) {
    for retries in [0, 1] {
        let refusing: Vec<String> = (0..3)
            .map(|_| format!("\"{}\"", refusing_address()))
            .collect();
        let pool = format!("backends: [{}], retries: {retries}", refusing.join(", "));
        let ringway = Launch::config(one_pool("workers: 1", &pool))
            .tier(tier)
            .start();
        assert_eq!(stream::connect_to_end(ringway.address()), Ended::Reset);
        let counters = ringway.finish();
        assert_eq!(number(&counters, "connect_retries_total"), retries);
        assert_eq!(number(&counters, "connect_failures_total"), retries + 1);
    }
}

fn retries_survive_freezing(tier: Tier) {
    let (full, echoing) = (FullBacklog::new(), Backend::echo());
    let pool = format!(
        "backends: [\"{}\", \"{}\", \"{}\"], timeouts: {{connect: 300ms}}",
        refusing_address(),
        full.address(),
        echoing.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .arguments(["--freeze-every", "7ms"])
        .start();
    for seed in 0..9 {
        assert_served_from_the_first_byte(ringway.address(), seed);
    }
    let counters = ringway.finish();
    assert!(
        number(&counters, "connect_retries_total") >= 2,
        "nothing was retried: {counters}"
    );
    assert_ends(&counters, &[("client_closed", 9)]);
}

/// Nothing was sent to the backend, so nothing is known about it.
fn network_without_a_route_is_not_held_against_the_backend(tier: Tier) {
    let Some(namespace) = Namespace::new("noroute") else {
        return;
    };
    namespace.run(|| {
        let unroutable: SocketAddr = "10.99.0.1:4000".parse().unwrap();
        let error = TcpStream::connect(unroutable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        let echoing = Backend::echo();
        let pool = format!("backends: [\"{unroutable}\", \"{}\"]", echoing.address());
        let ringway = Launch::config(one_pool("workers: 1", &pool))
            .tier(tier)
            .start();
        for seed in 0..12 {
            assert_served_from_the_first_byte(ringway.address(), seed);
        }
        assert!(
            !is_avoided(&ringway, unroutable),
            "our own error was held against it"
        );
        assert_ends(&ringway.finish(), &[("client_closed", 12)]);
    });
}
