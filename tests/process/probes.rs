//! Backends that are probed: what probes find, what becomes of sessions, and that nobody is let in before it is known.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, SOON, eventually, one_pool, refusing_address};

/// Fast enough for a test, with wide margins on a slow machine.
pub(crate) const FAST: &str =
    "interval: 200ms, fast_interval: 50ms, down_interval: 100ms, timeout: 200ms";

fn probed(probe: &str, pool: &str) -> Ringway {
    let pool = format!("balance: round_robin, probe: {{{probe}}}, {pool}");
    Launch::config(one_pool("workers: 2", &pool)).start()
}

#[track_caller]
pub(crate) fn health(ringway: &Ringway, name: &str) -> Value {
    let status = ringway.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    let found = backends.iter().find(|backend| backend["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status}"))["health"].clone()
}

#[track_caller]
pub(crate) fn becomes(ringway: &Ringway, name: &str, state: &str) -> Value {
    eventually(SOON, &format!("{name} is {state}"), || {
        health(ringway, name)["state"] == state
    });
    health(ringway, name)
}

/// A backend that comes and goes at one address.
pub(crate) struct Flapping {
    pub(crate) address: SocketAddr,
}

impl Flapping {
    pub(crate) fn new() -> Flapping {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        Flapping { address }
    }

    pub(crate) fn up(&self) -> Backend {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(128).unwrap();
        Backend::scripted_on(socket.into(), |stream, _| {
            crate::harness::backend::echo(stream)
        })
    }
}

#[test]
fn backend_that_refuses_is_known_to_be_down_before_the_first_client() {
    let (refusing, echoing) = (refusing_address(), Backend::echo());
    let ringway = probed(
        FAST,
        &format!("backends: [\"{refusing}\", \"{}\"]", echoing.address()),
    );
    let down = health(&ringway, &refusing.to_string());
    assert_eq!(down["state"], "down");
    assert!(
        down["why"].as_str().unwrap().contains("connection refused"),
        "{down}"
    );
    for _ in 0..10 {
        stream::exchange(&mut ringway.connect(), b"hello");
    }
    let counters = ringway.finish();
    assert_eq!(
        counters["connect_failures_total"], 0,
        "nobody was sent to the dead one"
    );
}

#[test]
fn backend_goes_down_and_comes_back_and_status_says_why() {
    let flapping = Flapping::new();
    let ringway = probed(
        FAST,
        &format!(
            "backends: [{{name: it, address: \"{}\"}}]",
            flapping.address
        ),
    );
    assert_eq!(health(&ringway, "it")["state"], "down");
    stream::assert_refused(ringway.address());
    for _ in 0..3 {
        let backend = flapping.up();
        becomes(&ringway, "it", "up");
        stream::exchange(&mut ringway.connect(), b"hello");
        drop(backend);
        let down = becomes(&ringway, "it", "down");
        assert!(down["why"].as_str().unwrap().contains("refused"), "{down}");
    }
    let history = health(&ringway, "it")["history"].as_array().unwrap().len();
    assert_eq!(history, 7, "down at first, then three times up and down");
    let (_, text, _) = ringway.command(&["status"]);
    assert!(text.contains("down") && text.contains("refused"), "{text}");
}

/// A backend whose sessions the test holds, and which stops answering without closing any of them.
fn silent_and_talking(on_down: &str) -> (Ringway, TcpStream, TcpStream) {
    let (backend, accepted) = Backend::handing_over();
    let check = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = format!("{FAST}, port: {}", check.local_addr().unwrap().port());
    let pool = format!(
        "on_down: {on_down}, backends: [{{name: it, address: \"{}\"}}]",
        backend.address()
    );
    let ringway = probed(&probe, &pool);
    let mut silent = ringway.connect();
    silent.write_all(b"x").unwrap();
    let silent_end = accepted.recv_timeout(SOON).unwrap();
    let mut talking = ringway.connect();
    talking.write_all(b"x").unwrap();
    let mut talking_end = accepted.recv_timeout(SOON).unwrap();
    drop(check);
    // It goes on talking to one of the two for as long as it takes, although the probe says that it is down.
    let down = Arc::new(AtomicUsize::new(0));
    let stop = Arc::clone(&down);
    thread::spawn(move || {
        let until = Instant::now() + SOON;
        while stop.load(Ordering::Relaxed) == 0
            && Instant::now() < until
            && talking_end.write_all(b"y").is_ok()
        {
            thread::sleep(Duration::from_millis(5));
        }
        let _ends_here = silent_end;
        thread::sleep(Duration::from_secs(2));
    });
    becomes(&ringway, "it", "down");
    down.store(1, Ordering::Relaxed);
    drop(backend);
    (ringway, silent, talking)
}

#[test]
fn only_silent_sessions_end_with_their_backend_by_default() {
    let (ringway, mut silent, mut talking) = silent_and_talking("close_silent");
    assert_eq!(stream::ended(&mut silent), Ended::Reset);
    let mut some = [0; 1];
    talking.read_exact(&mut some).unwrap();
    ringway.counters_become("one has ended", |counters| {
        counters["ends"]["backend_down"] == 1
    });
    assert_eq!(ringway.status()["sessions_active"], 1);
}

#[test]
fn all_sessions_or_none_end_with_their_backend_as_the_pool_says() {
    let (ringway, mut silent, mut talking) = silent_and_talking("close");
    assert_eq!(stream::ended(&mut silent), Ended::Reset);
    let _ = talking.read_to_end(&mut Vec::new());
    ringway.counters_become("both have ended", |counters| {
        counters["ends"]["backend_down"] == 2
    });
    drop(ringway);
    let (ringway, _silent, _talking) = silent_and_talking("keep");
    assert_eq!(ringway.status()["sessions_active"], 2);
    assert_eq!(ringway.counters()["ends"]["backend_down"], Value::Null);
}

/// A tiny HTTP endpoint whose status the test chooses.
fn http(status: &Arc<AtomicUsize>) -> SocketAddr {
    http_on(TcpListener::bind("127.0.0.1:0").unwrap(), status)
}

pub(crate) fn http_on(listener: TcpListener, status: &Arc<AtomicUsize>) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let status = Arc::clone(status);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0; 1];
            while !request.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read == 1)
            {
                request.push(byte[0]);
            }
            let asked = String::from_utf8_lossy(&request).to_lowercase();
            let status = if asked.starts_with("get /primary http/1.1")
                && asked.contains("host: db.example")
            {
                status.load(Ordering::Relaxed)
            } else {
                400
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-length: 17\r\n\r\nrole: leader now\n"
            );
        }
    });
    address
}

#[test]
fn http_endpoint_decides_as_patroni_does() {
    let status = Arc::new(AtomicUsize::new(200));
    let endpoint = http(&status);
    let echoing = Backend::echo();
    let probe = format!(
        "type: http, port: {}, {FAST}, \
         http: {{path: /primary, host: db.example, status: 200, body: /role:\\s+leader/}}",
        endpoint.port()
    );
    let ringway = probed(
        &probe,
        &format!(
            "backends: [{{name: it, address: \"{}\"}}]",
            echoing.address()
        ),
    );
    assert_eq!(health(&ringway, "it")["state"], "up");
    for _ in 0..2 {
        status.store(503, Ordering::Relaxed);
        let down = becomes(&ringway, "it", "down");
        assert!(down["why"].as_str().unwrap().contains("503"), "{down}");
        stream::assert_refused(ringway.address());
        status.store(200, Ordering::Relaxed);
        becomes(&ringway, "it", "up");
        stream::exchange(&mut ringway.connect(), b"hello");
    }
}

#[test]
fn answer_has_to_be_the_expected_one() {
    let answering = |answer: &'static [u8]| {
        Backend::scripted_on(
            TcpListener::bind("127.0.0.1:0").unwrap(),
            move |mut stream, _| {
                let mut asked = [0; 6];
                if stream.read_exact(&mut asked).is_ok() && &asked == b"PING\r\n" {
                    let _ = stream.write_all(answer);
                }
            },
        )
    };
    let (good, bad) = (answering(b"+PONG\r\n"), answering(b"-LOADING\r\n"));
    let probe = format!("type: send_expect, send: 'PING\\r\\n', expect: +PONG, {FAST}");
    let backend =
        |name: &str, at: &Backend| format!("{{name: {name}, address: \"{}\"}}", at.address());
    let pool = format!(
        "backends: [{}, {}]",
        backend("good", &good),
        backend("bad", &bad)
    );
    let ringway = probed(&probe, &pool);
    assert_eq!(health(&ringway, "good")["state"], "up");
    let down = health(&ringway, "bad");
    assert_eq!(down["state"], "down");
    assert!(down["why"].as_str().unwrap().contains("LOADING"), "{down}");
}

#[test]
fn one_that_swallows_is_down_after_its_timeout() {
    // It accepts into its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = format!("type: send_expect, expect: /./, {FAST}");
    let ringway = probed(
        &probe,
        &format!(
            "backends: [{{name: it, address: \"{}\"}}]",
            silent.local_addr().unwrap()
        ),
    );
    let down = becomes(&ringway, "it", "down");
    assert!(
        down["why"]
            .as_str()
            .unwrap()
            .contains("no answer within 200ms"),
        "{down}"
    );
}

#[test]
fn failed_connects_of_sessions_ask_the_prober_at_once() {
    let flapping = Flapping::new();
    let backend = flapping.up();
    let echoing = Backend::echo();
    // By itself the prober would look again after an hour.
    let probe = "interval: 1h, fast_interval: 1h, down_interval: 1h, timeout: 200ms";
    let pool = format!(
        "backends: [{{name: it, address: \"{}\"}}, \"{}\"]",
        flapping.address,
        echoing.address()
    );
    let ringway = probed(probe, &pool);
    // The second probe is made at a random time of the first interval.
    assert_eq!(health(&ringway, "it")["state"], "up");
    drop(backend);
    eventually(SOON, "sessions and a probe have taken it down", || {
        stream::exchange(&mut ringway.connect(), b"hello");
        health(&ringway, "it")["state"] == "down"
    });
}

#[test]
fn backend_in_maintenance_is_not_probed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let backend = Backend::scripted_on(TcpListener::bind("127.0.0.1:0").unwrap(), move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let pool = format!(
        "backends: [{{name: it, address: \"{}\"}}]",
        backend.address()
    );
    let ringway = probed(
        "interval: 20ms, fast_interval: 20ms, down_interval: 20ms, timeout: 20ms",
        &pool,
    );
    eventually(SOON, "it is probed again and again", || {
        asked.load(Ordering::Relaxed) > 5
    });
    let (code, _, said) = ringway.command(&["backend", "p/it", "maintenance"]);
    assert_eq!(code, Some(0), "{said}");
    // One may be on its way.
    thread::sleep(Duration::from_millis(100));
    let before = asked.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert_eq!(health(&ringway, "it")["probed"], false);
    ringway.command(&["backend", "p/it", "ready"]);
    eventually(SOON, "it is probed again", || {
        asked.load(Ordering::Relaxed) > before
    });
}
