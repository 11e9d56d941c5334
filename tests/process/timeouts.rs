//! Sessions that end because time has passed: each timeout resets both sides and leaves its reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::backend::{Backend, listener_on};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, SOON, Tier, assert_ends, eventually, one_pool};

both_tiers! {
    idle_session_is_reset_on_both_sides,
    idle_session_that_never_said_anything_is_reset,
    traffic_in_one_direction_keeps_a_session_from_being_idle,
    half_closed_session_is_reset_when_the_other_side_stays_silent,
    half_closed_session_lives_on_while_bytes_flow,
    session_timeout_ends_a_busy_session,
    session_that_rests_goes_on_with_the_next_byte,
    session_that_rests_ends_like_any_other,
    vanished_client_is_found_by_keepalive,
    vanished_backend_is_found_by_keepalive,
    vanished_client_that_owes_acknowledgements_is_found_by_user_timeout,
}

fn start(tier: Tier, timeouts: &str) -> (Ringway, Backend, Receiver<TcpStream>) {
    let (backend, accepted) = Backend::handing_over();
    let pool = format!(
        "backends: [\"{}\"], timeouts: {{{timeouts}}}",
        backend.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    (ringway, backend, accepted)
}

fn pair(address: SocketAddr, accepted: &Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    (stream::connect(address), next(accepted))
}

fn next(accepted: &Receiver<TcpStream>) -> TcpStream {
    let served = accepted.recv_timeout(SOON).unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    served
}

#[track_caller]
fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"tick").unwrap();
    let mut received = [0; 4];
    to.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"tick");
}

#[track_caller]
fn assert_after(start: Instant, at_least: Duration) {
    let waited = start.elapsed();
    assert!(
        waited >= at_least,
        "it was ended after {waited:?}, before {at_least:?}"
    );
    assert!(
        waited < at_least + Duration::from_secs(5),
        "it was ended only after {waited:?}"
    );
}

fn idle_session_is_reset_on_both_sides(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "idle: 600ms");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    for _ in 0..6 {
        pass(&mut client, &mut served);
        thread::sleep(Duration::from_millis(150));
        pass(&mut served, &mut client);
    }
    let start = Instant::now();
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_after(start, Duration::from_millis(550));
    assert_ends(&ringway.finish(), &[("idle_timeout", 1)]);
}

fn idle_session_that_never_said_anything_is_reset(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "idle: 400ms");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ends(&ringway.finish(), &[("idle_timeout", 1)]);
}

fn traffic_in_one_direction_keeps_a_session_from_being_idle(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "idle: 800ms");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        pass(&mut served, &mut client);
        thread::sleep(Duration::from_millis(100));
    }
    drop((client, served));
    assert_ends_in_order(ringway);
}

/// Which of the two FINs was first is not known.
#[track_caller]
fn assert_ends_in_order(ringway: Ringway) {
    let counters = ringway.finish();
    let ends = counters["ends"].as_object().unwrap();
    let other = ends.iter().find(|(reason, count)| {
        !matches!(reason.as_str(), "client_closed" | "backend_closed") && count.as_u64() != Some(0)
    });
    assert!(other.is_none(), "a session ended otherwise: {other:?}");
}

fn half_closed_session_is_reset_when_the_other_side_stays_silent(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "half_close: 500ms");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    pass(&mut client, &mut served);
    let start = Instant::now();
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_after(start, Duration::from_millis(450));
    stream::wait_reset_after_fin(&served);

    let (mut client, mut served) = pair(ringway.address(), &accepted);
    stream::finish_writing(&served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    stream::wait_reset_after_fin(&client);
    assert_ends(&ringway.finish(), &[("half_close_timeout", 2)]);
}

fn half_closed_session_lives_on_while_bytes_flow(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "half_close: 700ms");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        pass(&mut served, &mut client);
        thread::sleep(Duration::from_millis(100));
    }
    drop(served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}

fn session_timeout_ends_a_busy_session(tier: Tier) {
    let (ringway, _backend, accepted) = start(tier, "session: 700ms");
    let (mut client, served) = pair(ringway.address(), &accepted);
    let start = Instant::now();
    let mut echoing = served.try_clone().unwrap();
    let echo = thread::spawn(move || {
        let mut bytes = [0; 4];
        while echoing.read_exact(&mut bytes).is_ok() && echoing.write_all(&bytes).is_ok() {}
    });
    let mut answer = [0; 4];
    let error = loop {
        let exchanged = client
            .write_all(b"busy")
            .and_then(|()| client.read_exact(&mut answer));
        if let Err(error) = exchanged {
            break error;
        }
        assert!(start.elapsed() < SOON, "the session has no end");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_after(start, Duration::from_millis(650));
    echo.join().unwrap();
    assert_ends(&ringway.finish(), &[("session_timeout", 1)]);
}

/// A client in a namespace of its own, which can vanish without a packet.
struct Remote {
    inside: Namespace,
    outside: Namespace,
}

impl Remote {
    fn new() -> Option<Self> {
        let (inside, outside) = (Namespace::new("lb")?, Namespace::new("client")?);
        inside.link("10.82.0.1/24", &outside, "10.82.0.2/24");
        Some(Self { inside, outside })
    }

    fn start(&self, tier: Tier, backend: &Backend, keepalive: &str) -> Ringway {
        let config = format!(
            "listeners: [{{name: in, bind: \"10.82.0.1:0\", pool: p}}]\npools: {{p: {{backends: [\"{}\"], probe: none, \
             keepalive: {{{keepalive}}}}}}}\n",
            backend.address()
        );
        self.inside
            .run(|| Launch::config(config).tier(tier).start())
    }

    /// Its kernel no longer knows the address: what is sent to it gets lost, and it sends nothing.
    fn vanish(&self) {
        self.inside.swallow("10.82.0.2", &self.outside);
        self.outside
            .ip(&["address", "del", "10.82.0.2/24", "dev", "b0"]);
    }
}

fn vanished_client_is_found_by_keepalive(tier: Tier) {
    let Some(remote) = Remote::new() else { return };
    let (backend, accepted) = remote.inside.run(Backend::handing_over);
    let ringway = remote.start(tier, &backend, "idle: 1s, interval: 1s, count: 2");
    let mut client = remote.outside.run(|| ringway.connect());
    let mut served = next(&accepted);
    pass(&mut client, &mut served);
    remote.vanish();
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ends(&ringway.finish(), &[("client_unreachable", 1)]);
}

fn vanished_backend_is_found_by_keepalive(tier: Tier) {
    let Some(remote) = Remote::new() else { return };
    let (sender, accepted) = mpsc::channel();
    let backend = remote.outside.run(|| {
        let listener = listener_on("10.82.0.2:0".parse().unwrap(), 16);
        Backend::scripted_on(listener, move |stream, _| sender.send(stream).unwrap())
    });
    let ringway = remote.start(tier, &backend, "idle: 1s, interval: 1s, count: 2");
    let mut client = remote.inside.run(|| ringway.connect());
    let mut served = next(&accepted);
    pass(&mut client, &mut served);
    remote.vanish();
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_ends(&ringway.finish(), &[("backend_unreachable", 1)]);
}

fn vanished_client_that_owes_acknowledgements_is_found_by_user_timeout(tier: Tier) {
    let Some(remote) = Remote::new() else { return };
    let (backend, accepted) = remote.inside.run(Backend::handing_over);
    let ringway = remote.start(tier, &backend, "user_timeout: 1s");
    let mut client = remote.outside.run(|| ringway.connect());
    let mut served = next(&accepted);
    pass(&mut client, &mut served);
    remote.vanish();
    served.write_all(b"into the void").unwrap();
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ends(&ringway.finish(), &[("client_unreachable", 1)]);
}

/// Without traffic a session takes less memory after a few seconds; nobody may notice that.
fn resting(tier: Tier) -> (Ringway, Backend, TcpStream, TcpStream) {
    let (ringway, backend, accepted) = start(tier, "connect: 5s");
    let (mut client, mut served) = pair(ringway.address(), &accepted);
    pass(&mut client, &mut served);
    pass(&mut served, &mut client);
    eventually(SOON, "both relays rest", || {
        ringway.counter("rests_total") == 2
    });
    (ringway, backend, client, served)
}

fn session_that_rests_goes_on_with_the_next_byte(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = resting(tier);
    for _ in 0..3 {
        pass(&mut served, &mut client);
        pass(&mut client, &mut served);
    }
    // The other way round, and again.
    eventually(SOON, "both relays rest again", || {
        ringway.counter("rests_total") == 4
    });
    pass(&mut client, &mut served);
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    pass(&mut served, &mut client);
    drop(served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}

fn session_that_rests_ends_like_any_other(tier: Tier) {
    let (ringway, _backend, client, mut served) = resting(tier);
    stream::abort(client);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ends(&ringway.finish(), &[("client_reset", 1)]);
}
