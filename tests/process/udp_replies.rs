//! Answers of UDP backends: those that come at once, and those that reach nobody, each of which is counted.

use std::net::{IpAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::datagram::{Burst, Responder, any_port, ask, client, receive};
use crate::harness::{Launch, Ringway, SOON, eventually, number};
use crate::udp::{backends, config, finish, flow_ends, lost};

fn burst(clients: usize, answers: Vec<Vec<u8>>) -> Burst {
    Burst::on(UdpSocket::bind(any_port()).unwrap(), clients, answers)
}

/// What a listener is bound to, and where a client asks it.
const PLACES: [(&str, &str); 6] = [
    ("127.0.0.1:0", "127.0.0.1"),
    ("0.0.0.0:0", "127.0.0.2"),
    ("[::1]:0", "::1"),
    ("[::]:0", "::1"),
    ("*:0", "127.0.0.2"),
    ("*:0", "::1"),
];

/// A process that listens there, before a pool, and a client that hears nobody but who it asks.
fn launch_at((bind, asked): (&str, &str), pool: &str) -> (Ringway, UdpSocket) {
    let text = config("workers: 1", "", pool).replace("127.0.0.1:0", bind);
    let ringway = Launch::config(text).start();
    let asked: IpAddr = asked.parse().unwrap();
    let client = client((asked, ringway.address().port()).into());
    (ringway, client)
}

#[test]
fn answers_that_come_at_once_arrive_in_order_and_each_for_itself() {
    let lengths = [
        &[700; 20][..],
        &[3, 700, 700, 699, 0, 0, 64, 65, 65],
        &[1_200, 1_200, 1_200, 1_201, 1_201, 1_200, 3_000, 1, 1],
    ];
    let answers: Vec<Vec<u8>> = (0_u8..)
        .zip(lengths.concat())
        .map(|(number, len)| vec![number; len])
        .collect();
    for place in PLACES {
        let burst = burst(1, answers.clone());
        let (ringway, client) = launch_at(place, &backends([&burst.backend]));
        for _ in 0..2 {
            client.send(b"burst").unwrap();
            burst.answer_at_once(&ringway);
            for expected in &answers {
                let arrived = receive(&client).unwrap();
                assert!(
                    arrived == *expected,
                    "{place:?}: {arrived:?} for {expected:?}"
                );
            }
        }
        let counters = finish(ringway);
        let listener = &counters["listeners"][0];
        assert_eq!(number(listener, "datagrams_sent"), 2 * answers.len() as u64);
        let bytes: usize = answers.iter().map(Vec::len).sum();
        assert_eq!(number(listener, "bytes_sent"), 2 * bytes as u64);
        assert_eq!(listener["datagrams_lost"], serde_json::json!({}));
    }
}

#[test]
fn answers_of_one_length_that_come_at_once_leave_together() {
    const LEN: usize = 700;
    const ANSWERS: usize = 32;
    for place in PLACES {
        let burst = burst(1, vec![vec![7; LEN]; ANSWERS]);
        let (ringway, client) = launch_at(place, &backends([&burst.backend]));
        // What was sent together is received together.
        setsockopt(&client, sockopt::UdpGroSegment, &true).unwrap();
        client.send(b"burst").unwrap();
        burst.answer_at_once(&ringway);
        let (mut received, mut times) = (0, 0);
        while received < ANSWERS * LEN {
            received += receive(&client).unwrap().len();
            times += 1;
        }
        assert_eq!(received, ANSWERS * LEN);
        assert!(times <= ANSWERS / 4, "{place:?}: in {times} pieces");
        finish(ringway);
    }
}

#[test]
fn a_flow_that_its_last_answer_ends_delivers_all_that_came_with_it() {
    let burst = burst(1, (0..20).map(|number| vec![number; 100]).collect());
    let pool = backends([&burst.backend]) + ", udp: {responses: 20}";
    let (ringway, client) = launch_at(PLACES[0], &pool);
    for _ in 0..3 {
        client.send(b"burst").unwrap();
        burst.answer_at_once(&ringway);
        for number in 0..20 {
            assert_eq!(receive(&client).unwrap(), [number; 100]);
        }
    }
    let counters = ringway.counter_becomes("flows_active", 0);
    assert_eq!(flow_ends(&counters, "flow_done"), 3);
    finish(ringway);
}

#[test]
fn receives_that_found_no_buffer_go_on_and_nothing_is_lost() {
    // 1,000 at hand at once, and 200 the other way, for 256 buffers.
    const CLIENTS: usize = 40;
    const ANSWERS: u8 = 25;
    let answers = (0..ANSWERS).map(|number| vec![number]).collect();
    let burst = burst(CLIENTS, answers);
    let (ringway, first) = launch_at(PLACES[0], &backends([&burst.backend]));
    let others = (1..CLIENTS).map(|_| client(ringway.address()));
    let clients: Vec<UdpSocket> = std::iter::once(first).chain(others).collect();
    let send = |datagram: &[u8]| {
        for client in &clients {
            client.send(datagram).unwrap();
        }
    };
    send(b"burst");
    burst.answer_while(&ringway, || (0..5).for_each(|_| send(b"more")));
    for client in &clients {
        for number in 0..ANSWERS {
            assert_eq!(receive(client).unwrap(), [number]);
        }
    }
    eventually(SOON, "the backend has the others", || {
        burst.backend.received() == 6 * CLIENTS as u64
    });
    let counters = finish(ringway);
    assert!(
        number(&counters, "datagrams_starved_total") > 0,
        "{counters}"
    );
    let losses = &counters["listeners"][0]["datagrams_lost"];
    assert_eq!(*losses, serde_json::json!({}));
}

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
    let burst = burst(1, vec![vec![0; 1_000]; 5_000]);
    let pool = backends([&burst.backend]) + ", udp: {idle: 300ms}";
    let (ringway, client) = launch_at(PLACES[0], &pool);
    client.send(b"burst").unwrap();
    burst.answer_at_once(&ringway);
    ringway.counters_become("what overflowed is counted", |counters| {
        lost(counters, "reply_overflow") > 1_000
    });
    finish(ringway);
}
