//! Answers of UDP backends that reach nobody: each is counted.

use std::net::UdpSocket;
use std::sync::mpsc;

use nix::sys::signal::Signal;

use crate::harness::datagram::{Responder, any_port, ask, client};
use crate::harness::{Launch, SOON, eventually};
use crate::udp::{backends, config, finish, lost};

#[test]
fn answers_that_come_after_their_flow_has_ended_are_counted() {
    // One more than is expected.
    let backend = Responder::answering(any_port(), |_, _| vec![b"a".to_vec(); 2]);
    let pool = backends([&backend]) + ", udp: {responses: 1}";
    let ringway = Launch::config(config("workers: 1", "", &pool)).start();
    let client = client(ringway.address());
    // It may also find the socket closed.
    eventually(SOON, "one is late", || {
        assert_eq!(ask(&client, b"q"), b"a");
        lost(&ringway.counters(), "late") > 0
    });
    finish(ringway);
}

#[test]
fn answers_that_do_not_fit_into_the_socket_of_their_flow_are_counted_with_its_end() {
    const ANSWERS: usize = 5_000;
    let (sender, receiver) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel::<()>();
    let socket = UdpSocket::bind(any_port()).unwrap();
    let own = socket.try_clone().unwrap();
    let backend = Responder::on(socket, move |datagram, from| {
        if datagram == b"many" {
            receiver.recv().unwrap();
            for _ in 0..ANSWERS {
                own.send_to(&[0; 1_000], from).unwrap();
            }
            done.send(()).unwrap();
        }
        Vec::new()
    });
    let pool = backends([&backend]) + ", udp: {idle: 300ms}";
    let ringway = Launch::config(config("workers: 1", "", &pool)).start();
    let client = client(ringway.address());
    client.send(b"many").unwrap();
    eventually(SOON, "the backend has it", || backend.received() == 1);
    ringway.signal(Signal::SIGSTOP);
    sender.send(()).unwrap();
    is_done.recv_timeout(SOON).unwrap();
    ringway.signal(Signal::SIGCONT);
    ringway.counters_become("what overflowed is counted", |counters| {
        lost(counters, "reply_overflow") > 1_000
    });
    finish(ringway);
}
