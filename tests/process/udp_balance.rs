//! Who gets a flow: every algorithm by flow, splits, limits, and hashing by several processes.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::datagram::{Responder, any_port, ask, ask_until_answered, client};
use crate::harness::{Launch, Ringway, SOON, number};
use crate::udp::{config, finish, lost};

fn named(name: &str, backend: &Responder, more: &str) -> String {
    format!("{{name: {name}, address: \"{}\"{more}}}", backend.address())
}

fn start(listener: &str, pool: &str) -> Ringway {
    Launch::config(config("workers: 1", listener, pool)).start()
}

/// Clients that each have a flow.
fn open(ringway: &Ringway, count: usize) -> Vec<UdpSocket> {
    let one = |_| {
        let client = client(ringway.address());
        ask(&client, b"hello");
        client
    };
    (0..count).map(one).collect()
}

/// What each backend has, by its name.
fn each(ringway: &Ringway, what: &str) -> BTreeMap<String, u64> {
    let status = ringway.status();
    let pools = status["pools"].as_array().unwrap();
    let backends = pools
        .iter()
        .flat_map(|pool| pool["backends"].as_array().unwrap());
    let one = |backend: &Value| {
        let name = backend["name"].as_str().unwrap().to_owned();
        (name, number(backend, what))
    };
    backends.map(one).collect()
}

fn operate(ringway: &Ringway, backend: &str, state: &str) {
    let (code, _, error) = ringway.command(&["backend", backend, state]);
    assert_eq!(code, Some(0), "{error}");
}

#[test]
fn shares_of_flows_follow_weights() {
    let all = ["a", "b", "c"].map(Responder::named);
    for algorithm in ["round_robin", "least_connections", "random"] {
        let [a, b, c] = &all;
        let backends = [
            named("a", a, ", weight: 6"),
            named("b", b, ", weight: 3"),
            named("c", c, ", weight: 1"),
        ];
        let pool = format!("balance: {algorithm}, backends: [{}]", backends.join(", "));
        let ringway = start("", &pool);
        let _clients = open(&ringway, 200);
        let shares = each(&ringway, "flows_total");
        for (name, expected, slack) in [("a", 120, 35), ("b", 60, 30), ("c", 20, 18)] {
            let share = shares[name];
            assert!(
                share.abs_diff(expected) <= slack,
                "{algorithm}: {name} got {share} of 200: {shares:?}"
            );
        }
        finish(ringway);
    }
}

#[test]
fn a_flow_goes_to_the_backend_with_the_fewest_flows() {
    let all = ["a", "b", "c"].map(Responder::named);
    let [a, b, c] = &all;
    let backends = [named("a", a, ""), named("b", b, ""), named("c", c, "")];
    let pool = format!(
        "balance: least_connections, backends: [{}]",
        backends.join(", ")
    );
    let ringway = start("", &pool);
    let _even = open(&ringway, 9);
    let active = |ringway: &Ringway| each(ringway, "flows_active").into_values().collect();
    let shares: Vec<u64> = active(&ringway);
    assert_eq!(shares, [3, 3, 3]);
    operate(&ringway, "p/a", "drain");
    let _uneven = open(&ringway, 6);
    let shares: Vec<u64> = active(&ringway);
    assert_eq!(shares, [3, 6, 6]);
    operate(&ringway, "p/a", "ready");
    let late = open(&ringway, 3);
    let shares: Vec<u64> = active(&ringway);
    assert_eq!(shares, [6, 6, 6], "all of them go where the fewest are");
    drop(late);
    finish(ringway);
}

#[test]
fn a_flow_goes_to_the_backend_that_answers_first() {
    let quick = Responder::named("quick");
    let slow = Responder::answering(any_port(), |_, _| {
        thread::sleep(Duration::from_millis(200));
        vec![b"slow".to_vec()]
    });
    let pool = format!(
        "balance: least_time, backends: [{}, {}]",
        named("slow", &slow, ""),
        named("quick", &quick, "")
    );
    let ringway = start("", &(pool + ", udp: {responses: 1}"));
    // No flow lives while the next one begins, so nothing but time speaks for either.
    for _ in 0..100 {
        open(&ringway, 1);
    }
    let shares = each(&ringway, "flows_total");
    assert!(shares["slow"] >= 1, "it has been tried: {shares:?}");
    assert!(shares["quick"] >= 80, "{shares:?}");
    finish(ringway);
}

#[test]
fn a_listener_splits_its_flows_by_weight_between_pools() {
    let (blue, green) = (Responder::named("blue"), Responder::named("green"));
    let text = format!(
        "global: {{workers: 1}}\nlisteners: [{{name: in, bind: \"127.0.0.1:0\", protocol: udp, \
         split: [{{pool: blue, weight: 9}}, {{pool: green, weight: 1}}]}}]\n\
         pools: {{blue: [{}], green: [{}]}}\n",
        named("blue", &blue, ""),
        named("green", &green, "")
    );
    let ringway = Launch::config(text).start();
    let clients = open(&ringway, 100);
    let shares = each(&ringway, "flows_total");
    assert_eq!((shares["blue"], shares["green"]), (90, 10));
    for client in &clients {
        let first = ask(client, b"q");
        assert_eq!(ask(client, b"q"), first, "a flow stays where it is");
    }
    operate(&ringway, "blue/blue", "drain");
    let _more = open(&ringway, 10);
    let shares = each(&ringway, "flows_total");
    assert_eq!(shares["green"], 20, "a pool that takes nobody gets nobody");
    finish(ringway);
}

#[test]
fn a_backend_has_no_more_flows_than_it_may_have() {
    let (a, b) = (Responder::named("a"), Responder::named("b"));
    let backends = [
        named("a", &a, ", max_sessions: 3"),
        named("b", &b, ", max_sessions: 2"),
    ];
    let pool = format!(
        "balance: first, udp: {{idle: 1s}}, backends: [{}]",
        backends.join(", ")
    );
    let ringway = start("", &pool);
    let held = open(&ringway, 5);
    let active = each(&ringway, "flows_active");
    assert_eq!((active["a"], active["b"]), (3, 2));
    let late = client(ringway.address());
    late.send(b"q").unwrap();
    ringway.counters_become("it is lost", |counters| lost(counters, "limit") == 1);
    drop(held);
    let (answer, _) = ask_until_answered(&late, b"once others are idle");
    assert_eq!(answer, b"a");
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 6);
}

/// A socket that talks from this address.
fn client_at(source: Ipv4Addr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn processes_with_the_same_file_lead_the_flows_of_a_client_to_the_same_backend() {
    let all = ["one", "two", "three", "four"].map(Responder::named);
    let names = ["one", "two", "three", "four"].into_iter().zip(&all);
    let list: Vec<String> = names
        .map(|(name, backend)| named(name, backend, ""))
        .collect();
    let pool = format!(
        "balance: hash, udp: {{idle: 200ms}}, backends: [{}]",
        list.join(", ")
    );
    let nodes = [3, 1].map(|workers| {
        let global = format!("workers: {workers}");
        Launch::config(config(&global, "", &pool)).start()
    });
    let sources: Vec<Ipv4Addr> = (0..200_u32)
        .map(|number| Ipv4Addr::from_bits(0x7F10_0001 + number * 977))
        .collect();
    let answers = |node: &Ringway| -> Vec<Vec<u8>> {
        let all = sources.iter();
        all.map(|source| ask(&client_at(*source, node.address()), b"q"))
            .collect()
    };
    let first = answers(&nodes[0]);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(answers(&nodes[1]), first, "at the other node");
    nodes[0].counter_becomes("flows_active", 0);
    assert_eq!(answers(&nodes[0]), first, "when they have expired");
    nodes.into_iter().for_each(|node| drop(finish(node)));
}

#[test]
fn a_flow_of_a_draining_backend_lasts_until_its_client_is_silent() {
    let (one, two) = (Responder::named("one"), Responder::named("two"));
    let backends = [named("one", &one, ""), named("two", &two, "")];
    let pool = format!(
        "balance: first, udp: {{idle: 500ms}}, backends: [{}]",
        backends.join(", ")
    );
    let ringway = start("", &pool);
    let (busy, silent) = (client(ringway.address()), client(ringway.address()));
    ask(&busy, b"q");
    ask(&silent, b"q");
    operate(&ringway, "p/one", "drain");
    // Far longer than it may be silent.
    let counters = (0..).find_map(|_| {
        assert_eq!(ask(&busy, b"q"), b"one");
        thread::sleep(Duration::from_millis(20));
        Some(ringway.counters()).filter(|counters| number(counters, "flows_active") == 1)
    });
    assert_eq!(counters.unwrap()["flow_ends"]["idle_timeout"], 1);
    assert_eq!(ask(&silent, b"q"), b"two", "it has begun another one");
    assert_eq!(ask(&busy, b"q"), b"one");
    finish(ringway);
}
