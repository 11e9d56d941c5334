//! What becomes of sessions on a virtual address that goes away, and of a stop that is asked for twice.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::backend::{Backend, echo, listener_on};
use crate::harness::stream::{self, Ended};
use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, router, start, states};
use crate::onlooker::Onlooker;

/// No pool is tracked; the operator's word decides which of them have a usable backend.
fn file(keys: &str) -> String {
    format!(
        "global: {{workers: 1, drain_timeout: 30s}}\n\
         listeners:\n\
         - {{name: in, bind: \"10.77.0.100:7000\", pool: pg}}\n\
         - {{name: other, bind: \"10.77.0.100:7002\", pool: spare}}\n\
         - {{name: names, protocol: udp, bind: \"10.77.0.100:53\", pool: dns}}\n\
         pools:\n\
         \u{20} pg: {{probe: none, backends: [\"127.0.0.1:7001\"]}}\n\
         \u{20} spare: {{probe: none, backends: [{{name: s1, address: \"127.0.0.1:7003\"}}]}}\n\
         \u{20} dns: {{probe: none, backends: [{{name: d1, address: \"127.0.0.1:7004\"}}]}}\n\
         vrrp: [{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, preempt_delay: 500ms, {keys}}}]\n"
    )
}

fn backend(lan: &Lan, number: usize) -> Backend {
    lan.node(number).run(|| {
        let listener = listener_on("127.0.0.1:7001".parse().unwrap(), 128);
        Backend::scripted_on(listener, |stream, _| echo(stream))
    })
}

/// A client on the third node, in the middle of a session.
#[track_caller]
fn client(lan: &Lan) -> TcpStream {
    lan.node(3).run(|| {
        let mut client = stream::connect("10.77.0.100:7000".parse().unwrap());
        stream::exchange(&mut client, b"hello");
        client
    })
}

#[track_caller]
fn operate(ringway: &Ringway, backend: &str, word: &str) {
    let (code, out, said) = ringway.command(&["backend", backend, word]);
    assert_eq!(code, Some(0), "{out}{said}");
}

/// Whether each listener turns clients away, in the order of the file.
fn refuses(ringway: &Ringway) -> Vec<bool> {
    let status = ringway.status();
    let listeners = status["listeners"].as_array().unwrap().iter();
    listeners.map(|one| !one["refuses"].is_null()).collect()
}

#[test]
fn a_listener_closed_on_purpose_keeps_the_address_and_one_that_cannot_open_again_gives_it_up() {
    let Some(lan) = Lan::new("open", 3) else {
        return;
    };
    let _backends = [backend(&lan, 1), backend(&lan, 2)];
    let onlooker = Onlooker::on(&lan, 3);
    let first = start(&lan, 1, &file("priority: 254, preempt: true"));
    becomes(&first, "active");
    let second = start(&lan, 2, &file("priority: 250"));
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    let mut session = client(&lan);

    operate(&first, "spare/s1", "drain");
    operate(&first, "dns/d1", "drain");
    eventually(SOON, "two of the listeners are closed", || {
        refuses(&first) == [false, true, true]
    });
    let said = onlooker.from(1).len();
    eventually(SOON, "it says on who is Active", || {
        onlooker.from(1).len() > said + 5
    });
    let priorities = onlooker.from(1).into_iter().skip(said);
    assert!(
        priorities
            .map(|one| one.advertisement.priority)
            .all(|one| one == 254)
    );
    assert!(router(&first, "vip")["fault"].is_null());
    assert_eq!(states(&second), ["backup"]);
    stream::exchange(&mut session, b"still here");

    let squatter = lan
        .node(1)
        .run(|| UdpSocket::bind("10.77.0.100:53").unwrap());
    operate(&first, "dns/d1", "ready");
    becomes(&first, "initialize");
    lan.moves_to(2, VIP);
    assert_eq!(stream::ended(&mut session), Ended::Reset);
    first.counter_becomes("ends.address_lost", 1);
    let router = router(&first, "vip");
    let why = router["why"].to_string();
    assert!(
        why.contains("a listener that should be open is not"),
        "{router}"
    );
    let last = onlooker.from(1).pop().unwrap();
    assert_eq!(last.advertisement.priority, 0, "its last word");

    drop(squatter);
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    assert_eq!(refuses(&first), [false, true, false]);
}

#[test]
fn sessions_end_at_once_with_the_link_and_their_clients_learn_it_from_the_next_node() {
    let Some(lan) = Lan::new("cable", 3) else {
        return;
    };
    let _backends = [backend(&lan, 1), backend(&lan, 2)];
    let first = start(&lan, 1, &file("priority: 254"));
    becomes(&first, "active");
    let second = start(&lan, 2, &file("priority: 250"));
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    let mut session = client(&lan);
    lan.pull(1);
    becomes(&first, "initialize");
    first.counter_becomes("ends.address_lost", 1);
    lan.moves_to(2, VIP);
    let counters = first.counter_becomes("sessions_active", 0);
    assert_eq!(counters["ends"]["address_lost"], 1, "{counters}");
    session.write_all(b"is anybody there?").unwrap();
    assert_eq!(stream::ended(&mut session), Ended::Reset);
    let mut session = client(&lan);
    stream::exchange(&mut session, b"hello there");
}

#[test]
fn a_second_signal_to_stop_waits_for_no_other_node() {
    let Some(lan) = Lan::new("twice", 3) else {
        return;
    };
    let _backend = backend(&lan, 1);
    // Alone, it would wait for three seconds and then end.
    let mut first = start(&lan, 1, &file("priority: 254, advert_interval: 1s"));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let mut session = client(&lan);
    first.signal(Signal::SIGTERM);
    first.wait_line("handing the virtual addresses over");
    stream::exchange(&mut session, b"it serves on");
    let again = Instant::now();
    first.signal(Signal::SIGTERM);
    assert_eq!(stream::ended(&mut session), Ended::Reset);
    first.exit_in_order(SOON);
    let took = again.elapsed();
    println!("ended {took:?} after the second signal");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(!lan.has(1, VIP), "nothing is left behind");
}
