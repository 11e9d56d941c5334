//! Stopping: sessions in progress may finish, new ones are refused at once, and after the time to drain, or at a second
//! signal, what is left is reset and counted.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::backend::{Backend, FullBacklog, echo};
use crate::harness::stream::{self, Ended, Pattern};
use crate::harness::{
    Launch, Ringway, SOON, Tier, assert_ends, ends_total, eventually, join, number, one_pool,
};

both_tiers! {
    without_sessions_it_stops_at_once,
    sessions_in_progress_finish_while_new_ones_are_refused,
    drain_timeout_resets_what_is_left,
    drain_timeout_ends_sessions_that_are_stuck,
    drain_timeout_ends_sessions_that_still_connect,
    clients_that_wait_for_room_do_not_hold_it_up,
    second_signal_ends_at_once,
    interrupt_is_like_terminate,
    unix_listener_stops_without_an_error,
}

fn start(tier: Tier, backend: SocketAddr, drain_timeout: &str) -> Ringway {
    let global = format!("workers: 2, drain_timeout: {drain_timeout}");
    Launch::config(one_pool(&global, &format!("backends: [\"{backend}\"]")))
        .tier(tier)
        .start()
}

/// Waits until the kernel refuses connects: the signal has been seen.
#[track_caller]
fn wait_refused(address: SocketAddr) {
    eventually(SOON, "connects are refused", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

fn without_sessions_it_stops_at_once(tier: Tier) {
    let backend = Backend::echo();
    let mut ringway = start(tier, backend.address(), "30s");
    let mut client = ringway.connect();
    stream::exchange(&mut client, b"one that has ended");
    drop(client);
    ringway.counter_becomes("sessions_active", 0);
    let start = Instant::now();
    ringway.signal(Signal::SIGTERM);
    let counters = ringway.exit_in_order(SOON);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert_ends(&counters, &[("client_closed", 1)]);
}

fn sessions_in_progress_finish_while_new_ones_are_refused(tier: Tier) {
    const SESSIONS: u64 = 8;
    let backend = Backend::echo();
    let mut ringway = start(tier, backend.address(), "60s");
    let address = ringway.address();
    let (begun, all_begun) = mpsc::channel();
    let clients: Vec<_> = (0..SESSIONS)
        .map(|seed| {
            let begun = begun.clone();
            thread::spawn(move || stream_for_a_while(address, Pattern::new(seed), &begun))
        })
        .collect();
    (0..SESSIONS).for_each(|_| all_begun.recv_timeout(SOON).unwrap());
    ringway.signal(Signal::SIGTERM);
    wait_refused(address);
    assert!(
        clients.iter().any(|client| !client.is_finished()),
        "all sessions had ended before"
    );
    let bytes: u64 = clients.into_iter().map(join).sum();
    let counters = ringway.exit_in_order(SOON);
    assert_eq!(number(&counters, "bytes_to_client"), bytes);
    // Connecting until it is refused may have got further sessions in.
    assert!(
        number(&counters, "ends.client_closed") >= SESSIONS,
        "{counters}"
    );
    assert_eq!(number(&counters, "ends.drain_timeout"), 0);
}

/// Sends for about two seconds, then its FIN, and reads everything back.
fn stream_for_a_while(address: SocketAddr, pattern: Pattern, begun: &Sender<()>) -> u64 {
    let mut client = stream::connect(address);
    let mut reader = client.try_clone().unwrap();
    let reading = thread::spawn(move || stream::receive_pattern(&mut reader, pattern));
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(2) {
        let part = pattern.bytes(sent, 100_000);
        client.write_all(part).unwrap();
        if sent == 0 {
            begun.send(()).unwrap();
        }
        sent += part.len() as u64;
        thread::sleep(Duration::from_millis(3));
    }
    stream::finish_writing(&client);
    assert_eq!(join(reading), (sent, Ended::Fin));
    sent
}

fn drain_timeout_resets_what_is_left(tier: Tier) {
    const SESSIONS: usize = 20;
    let (backend, accepted) = Backend::handing_over();
    let mut ringway = start(tier, backend.address(), "700ms");
    let mut clients: Vec<TcpStream> = (0..SESSIONS).map(|_| ringway.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| client.write_all(b"hello").unwrap());
    let mut backends: Vec<TcpStream> = (0..SESSIONS).map(|_| next_greeted(&accepted)).collect();
    let start = Instant::now();
    ringway.signal(Signal::SIGTERM);
    for stream in clients.iter_mut().chain(&mut backends) {
        assert_eq!(stream::ended(stream), Ended::Reset);
    }
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(650),
        "they were reset after {took:?}"
    );
    let counters = ringway.exit_in_order(SOON);
    assert_ends(&counters, &[("drain_timeout", SESSIONS as u64)]);
}

/// The backend's end of a session whose client has said hello.
#[track_caller]
fn next_greeted(accepted: &Receiver<TcpStream>) -> TcpStream {
    let mut served = accepted.recv_timeout(SOON).unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    served.read_exact(&mut [0; 5]).unwrap();
    served
}

/// Nothing can be sent, nothing can be received, and bytes are held in between.
fn drain_timeout_ends_sessions_that_are_stuck(tier: Tier) {
    let (backend, written) = Backend::source(Pattern::new(19), 1 << 30);
    let mut ringway = start(tier, backend.address(), "500ms");
    let clients: Vec<TcpStream> = (0..10).map(|_| ringway.connect()).collect();
    stream::wait_stuck(&written);
    ringway.signal(Signal::SIGTERM);
    let counters = ringway.exit_in_order(SOON);
    assert_ends(&counters, &[("drain_timeout", 10)]);
    for mut client in clients {
        assert_eq!(stream::discard_to_end(&mut client).1, Ended::Reset);
    }
}

fn drain_timeout_ends_sessions_that_still_connect(tier: Tier) {
    let backend = FullBacklog::new();
    let mut ringway = start(tier, backend.address(), "500ms");
    let mut client = ringway.connect();
    ringway.counter_becomes("sessions_active", 1);
    ringway.signal(Signal::SIGTERM);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    let counters = ringway.exit_in_order(SOON);
    assert_ends(&counters, &[("drain_timeout", 1)]);
}

fn clients_that_wait_for_room_do_not_hold_it_up(tier: Tier) {
    let backend = Backend::echo();
    let pool = format!("backends: [\"{}\"]", backend.address());
    let config = one_pool("workers: 2, max_sessions: 1, drain_timeout: 60s", &pool);
    let mut ringway = Launch::config(config).tier(tier).start();
    let mut live = ringway.connect();
    stream::exchange(&mut live, b"served");
    let mut waiting: Vec<TcpStream> = (0..30).map(|_| ringway.connect()).collect();
    waiting
        .iter_mut()
        .for_each(|client| client.write_all(b"waits").unwrap());
    ringway.signal(Signal::SIGTERM);
    wait_refused(ringway.address());
    stream::exchange(&mut live, b"still served");
    drop(live);
    let readers: Vec<_> = waiting
        .into_iter()
        .map(|client| thread::spawn(move || served_or_reset(client)))
        .collect();
    let counters = ringway.exit_in_order(SOON);
    readers.into_iter().for_each(join);
    assert!(number(&counters, "ends.client_closed") >= 1, "{counters}");
    assert_eq!(number(&counters, "sessions_active"), 0);
}

/// Nobody who was let in before the signal and had to wait is told that all went well.
fn served_or_reset(mut client: TcpStream) {
    let mut answer = [0; 5];
    match client.read_exact(&mut answer) {
        Ok(()) => assert_eq!(&answer, b"waits"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn second_signal_ends_at_once(tier: Tier) {
    let (backend, accepted) = Backend::handing_over();
    let mut ringway = start(tier, backend.address(), "1h");
    let mut client = ringway.connect();
    client.write_all(b"hello").unwrap();
    let mut served = next_greeted(&accepted);
    let address = ringway.address();
    ringway.signal(Signal::SIGTERM);
    wait_refused(address);
    assert!(!ringway.has_exited(), "it did not wait for the session");
    let start = Instant::now();
    ringway.signal(Signal::SIGTERM);
    let counters = ringway.exit_in_order(SOON);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    // Connecting until it is refused may have got further sessions in.
    assert!(
        ends_total(&counters) >= 1,
        "the session was not counted: {counters}"
    );
}

fn interrupt_is_like_terminate(tier: Tier) {
    let backend = Backend::scripted(echo);
    let mut ringway = start(tier, backend.address(), "60s");
    let mut client = ringway.connect();
    stream::exchange(&mut client, b"before");
    ringway.signal(Signal::SIGINT);
    wait_refused(ringway.address());
    stream::exchange(&mut client, b"a session in progress goes on");
    drop(client);
    let counters = ringway.exit_in_order(SOON);
    assert!(number(&counters, "ends.client_closed") >= 1, "{counters}");
}

fn unix_listener_stops_without_an_error(tier: Tier) {
    let backend = Backend::echo();
    let folder = crate::harness::Folder::new();
    let listen = format!("unix:{}", folder.path().join("stop.sock").display());
    let ringway = Launch::listening(&listen, [backend.address()])
        .tier(tier)
        .start();
    let counters = ringway.stop();
    for kind in ["EMFILE", "ENFILE", "MEMORY", "OTHER"] {
        assert_eq!(
            number(&counters, &format!("accept_errors.{kind}")),
            0,
            "{counters}"
        );
    }
}

/// Whoever reads the log may go away: that is no reason to end sessions.
#[test]
fn reader_of_the_log_that_goes_away_ends_nothing() {
    let backend = Backend::echo();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["run", "--listen", "127.0.0.1:0", "--to"])
        .arg(backend.address().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| {
            line.unwrap()
                .split_once(" address=")
                .map(|(_, address)| address.parse())
        })
        .unwrap()
        .unwrap();
    assert!(lines.any(|line| line.unwrap().contains(" ready ")));
    let mut client = stream::connect(address);
    stream::exchange(&mut client, b"before");
    drop((lines, child.stderr.take()));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGUSR1).unwrap();
    stream::exchange(&mut client, b"after");
    drop(client);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
