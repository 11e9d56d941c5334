//! The first moments: what is somebody else's stays theirs, and nobody is let in before it is known who can serve.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::harness::backend::{Backend, FullBacklog};
use crate::harness::stream::{self, Ended};
use crate::harness::{Folder, Launch, SOON, eventually, free_address, one_pool};
use crate::probes::health;

/// A probe of a backend whose backlog is full takes all its time, and so does the first round.
const SLOW: &str = "{interval: 4s, timeout: 3s}";

/// It has its sockets then, but listens on none.
fn waiting_for_its_first_round(bind: &str, slow: &FullBacklog) -> Launch {
    Launch::config(format!(
        "listeners: [{{name: in, bind: \"{bind}\", pool: p}}]\n\
         pools: {{p: {{backends: [\"{}\"], probe: {SLOW}}}}}\n",
        slow.address()
    ))
}

#[test]
fn port_of_a_process_that_waits_for_its_first_round_is_taken() {
    let slow = FullBacklog::new();
    let address = free_address();
    let first = waiting_for_its_first_round(&address.to_string(), &slow).spawn();
    eventually(SOON, "it is bound", || TcpListener::bind(address).is_err());
    let (code, log) = waiting_for_its_first_round(&address.to_string(), &slow).run_to_end();
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("already"), "{log}");
    first.signal(Signal::SIGTERM);
}

#[test]
fn unix_socket_of_a_process_that_waits_for_its_first_round_is_taken() {
    let (slow, folder) = (FullBacklog::new(), Folder::new());
    let path = folder.path().join("in.sock");
    let bind = format!("unix:{}", path.display());
    let first = waiting_for_its_first_round(&bind, &slow).spawn();
    eventually(SOON, "it is bound", || path.exists());
    let (code, log) = waiting_for_its_first_round(&bind, &slow).run_to_end();
    assert_eq!(code, Some(69), "{log}");
    assert!(path.exists(), "it is the first one's");
    first.signal(Signal::SIGTERM);
}

/// Connecting fails, but not because nobody has it.
#[test]
fn socket_of_another_type_is_nobodys_left_over() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let path = folder.path().join("log.sock");
    let other = UnixDatagram::bind(&path).unwrap();
    let launch = Launch::listening(&format!("unix:{}", path.display()), [backend.address()]);
    let (code, log) = launch.run_to_end();
    assert_eq!(code, Some(69), "{log}");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"still there", &path).unwrap();
    let mut text = [0; 32];
    assert_eq!(other.recv(&mut text).unwrap(), 11);
}

#[test]
fn signals_that_have_nothing_to_do_end_nothing() {
    let backend = Backend::echo();
    let ringway = Launch::flags([backend.address()]).start();
    let mut client = ringway.connect();
    for (signal, said) in [
        (Signal::SIGHUP, "there is nothing to reload"),
        (Signal::SIGUSR2, "SIGUSR2"),
    ] {
        ringway.signal(signal);
        ringway.wait_line(said);
        stream::exchange(&mut client, b"hello");
    }
    drop(client);
    ringway.finish();
}

/// The name is looked up while the other one's probe is under way: neither makes up for the other.
#[test]
fn clients_are_let_in_when_every_backend_is_known_also_those_with_a_name() {
    let (slow, backend) = (FullBacklog::new(), Backend::echo());
    let pool = format!(
        "backends: [{{name: named, address: \"localhost:{}\"}}, {{name: slow, address: \"{}\"}}], \
         probe: {{interval: 2s, timeout: 1s}}",
        backend.address().port(),
        slow.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool)).start();
    assert_eq!(health(&ringway, "named")["state"], "up");
    assert_eq!(health(&ringway, "slow")["state"], "down");
    stream::exchange(&mut ringway.connect(), b"hello");
    ringway.finish();
}

/// What was known before the maintenance is not known any more.
#[test]
fn backend_that_comes_from_maintenance_is_probed_before_it_is_used() {
    let [steady, kept] = [Backend::echo(), Backend::echo()];
    let pool = format!(
        "backends: [{{name: steady, address: \"{}\"}}, {{name: kept, address: \"{}\"}}], \
         balance: round_robin, slow_start: none, \
         probe: {{interval: 200ms, timeout: 200ms, fast_interval: 50ms}}",
        steady.address(),
        kept.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool)).start();
    let operate = |what: &str| assert_eq!(ringway.command(&["backend", "p/kept", what]).0, Some(0));
    operate("maintenance");
    assert_eq!(health(&ringway, "kept")["state"], "unknown");
    drop(kept);
    operate("ready");
    for _ in 0..50 {
        stream::exchange(&mut ringway.connect(), b"hello");
    }
    eventually(SOON, "it is found to be gone", || {
        health(&ringway, "kept")["state"] == "down"
    });
    let counters = ringway.finish();
    assert_eq!(
        crate::harness::number(&counters, "connect_failures_total"),
        0,
        "no session was sent there"
    );
}

#[test]
fn backup_sessions_end_when_the_operator_brings_a_normal_backend_back() {
    let [normal, backup] = [Backend::echo(), Backend::echo()];
    let pool = format!(
        "backends: [{{name: normal, address: \"{}\"}}, {{name: spare, address: \"{}\", backup: true}}], \
         on_up: close_backup, probe: none",
        normal.address(),
        backup.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool)).start();
    let operate =
        |what: &str| assert_eq!(ringway.command(&["backend", "p/normal", what]).0, Some(0));
    operate("drain");
    let mut on_backup = ringway.connect();
    stream::exchange(&mut on_backup, b"hello");
    assert_eq!(backup.accepted(), 1);
    operate("ready");
    assert_eq!(stream::ended(&mut on_backup), Ended::Reset);
    let mut on_normal = ringway.connect();
    stream::exchange(&mut on_normal, b"hello");
    assert_eq!(normal.accepted(), 1);
    drop(on_normal);
    ringway.finish();
}
