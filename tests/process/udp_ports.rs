//! Source ports of UDP flows: what happens where there are none, or not the address that they are to come from. In
//! namespaces with few ports.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::harness::datagram::{Responder, ask, ask_until_answered, receive};
use crate::harness::namespace::Namespace;
use crate::harness::{Launch, Ringway, SOON, number};
use crate::udp::{config, finish, lost};

/// Outside of the range.
const LISTENER: &str = "127.0.0.1:7000";
const BACKEND: &str = "10.77.0.9:8000";
const PORTS: u64 = 20;

/// A namespace where flows have 20 ports at each source.
fn narrow(label: &str) -> Option<Namespace> {
    let namespace = Namespace::new(label)?;
    namespace.set("ipv4/ip_local_port_range", "39999 40020");
    namespace.set("ipv4/ip_local_reserved_ports", "39000-39999,40020");
    namespace.ip(&["address", "add", "10.77.0.9/32", "dev", "lo"]);
    Some(namespace)
}

fn have(namespace: &Namespace, source: &str) {
    namespace.ip(&["address", "add", source, "dev", "lo"]);
}

/// Says where a datagram comes from.
fn telling_backend() -> Responder {
    Responder::answering(BACKEND.parse().unwrap(), |_, from| {
        vec![from.ip().to_string().into_bytes()]
    })
}

fn launch(global: &str, sources: &str) -> Ringway {
    let pool = format!("backends: [\"{BACKEND}\"], source: [{sources}]");
    let text = config(&format!("workers: 1{global}"), "", &pool);
    Launch::config(text.replace("127.0.0.1:0", LISTENER)).start()
}

/// Clients need no port of the range.
fn client(number: u16) -> UdpSocket {
    let here = SocketAddr::from((IpAddr::from([127, 0, 0, 1]), 10_000 + number));
    let socket = UdpSocket::bind(here).unwrap();
    socket.connect(LISTENER).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn assert_nobody_is_blamed(counters: &serde_json::Value) {
    assert_eq!(number(counters, "connect_failures_total"), 0, "{counters}");
    let backend = &counters["backends"][0];
    assert_eq!(number(backend, "connect_failures_total"), 0);
}

#[test]
fn a_source_that_the_host_does_not_have_is_counted_and_told_while_others_work() {
    let Some(namespace) = narrow("absent") else {
        return;
    };
    namespace.run(|| {
        let _backend = telling_backend();
        let ringway = launch("", "10.77.0.1, 10.77.0.2");
        let first = client(0);
        first.send(b"q").unwrap();
        let counters = ringway.counters_become("it is lost", |counters| {
            lost(counters, "out_of_resources") == 1
        });
        assert_eq!(number(&counters, "sources_absent_total"), 2, "both");
        assert_eq!(number(&counters, "sources_exhausted_total"), 0);
        ringway.wait_line("connections come from its others");

        have(&namespace, "10.77.0.2/32");
        for number in 1..5 {
            assert_eq!(ask(&client(number), b"q"), b"10.77.0.2");
        }
        assert_nobody_is_blamed(&finish(ringway));
    });
}

#[test]
fn without_a_free_port_newcomers_are_lost_and_push_out_few() {
    let Some(namespace) = narrow("few") else {
        return;
    };
    have(&namespace, "10.77.0.1/32");
    namespace.run(|| {
        let _backend = telling_backend();
        let ringway = launch(", max_flows: 100", "10.77.0.1");
        ringway.wait_line("global.max_flows is more than");
        // Flows that have an answer, and are not proven.
        let served: Vec<UdpSocket> = (0..20).map(client).collect();
        for client in &served {
            assert_eq!(ask(client, b"q"), b"10.77.0.1");
        }
        assert_eq!(number(&ringway.counters(), "flows_active"), PORTS);
        let newcomers: Vec<UdpSocket> = (20..30).map(client).collect();
        ringway.signal(Signal::SIGSTOP);
        for newcomer in &newcomers {
            newcomer.send(b"all at once").unwrap();
        }
        ringway.signal(Signal::SIGCONT);
        let counters = ringway.counters_become("most are lost", |counters| {
            number(&counters["listeners"][0], "datagrams_received") == PORTS + 10
                && lost(counters, "out_of_resources") >= 5
        });
        let evicted = counters["flow_ends"]["evicted"].as_u64().unwrap_or(0);
        assert!((1..=5).contains(&evicted), "{evicted} made way: {counters}");
        assert!(number(&counters, "sources_exhausted_total") >= 1);
        ringway.wait_line("no source port is free");
        // One has made way, so somebody finds a port soon.
        let (answer, _) = ask_until_answered(&client(40), b"q");
        assert_eq!(answer, b"10.77.0.1");
        assert_nobody_is_blamed(&finish(ringway));
    });
}

#[test]
fn by_default_flows_leave_ports_to_others() {
    let Some(namespace) = narrow("left") else {
        return;
    };
    have(&namespace, "10.77.0.1/32");
    namespace.run(|| {
        let _backend = telling_backend();
        let ringway = launch("", "10.77.0.1");
        assert_eq!(number(&ringway.status(), "max_flows"), PORTS / 2);
        for number in 0..30 {
            assert_eq!(ask(&client(number), b"q"), b"10.77.0.1");
        }
        let others: Vec<UdpSocket> = (0..PORTS / 4)
            .map(|_| UdpSocket::bind("10.77.0.1:0").unwrap())
            .collect();
        let late = client(50);
        late.send(b"q").unwrap();
        assert_eq!(receive(&late).unwrap(), b"10.77.0.1");
        drop(others);
        let counters = finish(ringway);
        assert_eq!(number(&counters, "sources_exhausted_total"), 0);
        assert_nobody_is_blamed(&counters);
    });
}
