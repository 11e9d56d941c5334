//! Who gets a session in the real process: weights, hashing, backups, limits and splits, and counts that are exact
//! after every kind of end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use ringway::balance::{Algorithm, Arrival, HashKey, Member, Picker, Plan, View};
use ringway::time::Time;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::backend::Backend;
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, Tier, assert_ends, number, one_pool, refusing_address};

both_tiers! {
    counts_are_exact_after_every_kind_of_end,
}

fn named(name: &str, backend: &Backend, more: &str) -> String {
    format!("{{name: {name}, address: \"{}\"{more}}}", backend.address())
}

fn start(pool: &str) -> Ringway {
    Launch::config(one_pool("workers: 2", &format!("probe: none, {pool}"))).start()
}

/// Sessions that each backend has had.
fn shares(ringway: &Ringway) -> BTreeMap<String, u64> {
    let status = ringway.status();
    let pools = status["pools"].as_array().unwrap();
    let backends = pools
        .iter()
        .flat_map(|pool| pool["backends"].as_array().unwrap());
    let share = |backend: &Value| {
        let name = backend["name"].as_str().unwrap().to_owned();
        (name, backend["sessions_total"].as_u64().unwrap())
    };
    backends.map(share).collect()
}

fn open(ringway: &Ringway, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut client = ringway.connect();
        stream::exchange(&mut client, b"hello");
        client
    };
    (0..count).map(one).collect()
}

#[test]
fn shares_follow_weights() {
    let (a, b, c) = (Backend::echo(), Backend::echo(), Backend::echo());
    for algorithm in ["round_robin", "least_connections", "random"] {
        let backends = [
            named("a", &a, ", weight: 6"),
            named("b", &b, ", weight: 3"),
            named("c", &c, ", weight: 1"),
        ];
        let ringway = start(&format!(
            "balance: {algorithm}, backends: [{}]",
            backends.join(", ")
        ));
        let _clients = open(&ringway, 200);
        let shares = shares(&ringway);
        for (name, expected, slack) in [("a", 120, 35), ("b", 60, 30), ("c", 20, 18)] {
            let share = shares[name];
            assert!(
                share.abs_diff(expected) <= slack,
                "{algorithm}: {name} got {share} of 200: {shares:?}"
            );
        }
    }
}

/// Sessions that each worker has now.
fn sessions_of_workers(ringway: &Ringway) -> Vec<u64> {
    let metrics = ringway.get("/metrics").body;
    let lines = metrics.lines();
    let of_workers = lines.filter(|line| line.starts_with("ringway_worker_sessions_active{"));
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse().unwrap();
    of_workers.map(value).collect()
}

#[test]
fn both_workers_take_sessions_and_least_connections_is_exact_across_them() {
    let all = [(); 4].map(|()| Backend::echo());
    let backends: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(number, backend)| named(&format!("b{number}"), backend, ""))
        .collect();
    let ringway = start(&format!(
        "balance: least_connections, backends: [{}]",
        backends.join(", ")
    ));
    let _clients = open(&ringway, 200);
    let shares = shares(&ringway);
    assert!(shares.values().all(|share| *share == 50), "{shares:?}");
    let workers = sessions_of_workers(&ringway);
    // The kernel chooses by a hash of ports: fewer than 50 of 200 come once in 10^12 runs.
    assert!(
        workers.len() == 2 && workers.iter().all(|sessions| *sessions >= 50),
        "{workers:?}"
    );
    assert_eq!(workers.iter().sum::<u64>(), 200);
}

#[test]
fn clients_go_to_the_same_backend_by_hash() {
    let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
    let list: Vec<String> = (0..)
        .zip(&backends)
        .map(|(n, backend): (usize, _)| named(&format!("b{n}"), backend, ""))
        .collect();
    let ringway = start(&format!("balance: hash, backends: [{}]", list.join(", ")));
    open(&ringway, 20);
    let shares = shares(&ringway);
    assert_eq!(
        shares.values().filter(|share| **share == 20).count(),
        1,
        "one client, one backend: {shares:?}"
    );
}

#[test]
fn first_fills_the_first_up_to_its_limit_then_the_next_then_resets() {
    let (a, b) = (Backend::echo(), Backend::echo());
    let backends = [
        named("a", &a, ", max_sessions: 3"),
        named("b", &b, ", max_sessions: 2"),
    ];
    let ringway = start(&format!(
        "balance: first, backends: [{}]",
        backends.join(", ")
    ));
    let mut clients = open(&ringway, 5);
    let shares = shares(&ringway);
    assert_eq!((shares["a"], shares["b"]), (3, 2));
    assert_eq!(stream::connect_to_end(ringway.address()), Ended::Reset);
    drop(clients.pop());
    ringway.counters_become("there is room again", |counters| {
        number(counters, "sessions_active") == 4
    });
    clients.extend(open(&ringway, 1));
    drop(clients);
    assert_ends(&ringway.finish(), &[("client_closed", 6), ("limit", 1)]);
}

#[test]
fn listener_has_a_limit_of_its_own() {
    let backend = Backend::echo();
    let config = format!(
        "listeners: [{{name: small, bind: \"127.0.0.1:0\", pool: p, max_sessions: 2}}, \
         {{name: large, bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
        backend.address()
    );
    let ringway = Launch::config(config).start();
    let held = open(&ringway, 2);
    assert_eq!(
        stream::connect_to_end(ringway.address_of("small")),
        Ended::Reset
    );
    stream::exchange(&mut stream::connect(ringway.address_of("large")), b"hello");
    assert_eq!(ringway.status()["listeners"][0]["sessions_active"], 2);
    drop(held);
    ringway.counters_become("all have left", |counters| {
        number(counters, "sessions_active") == 0
    });
    open(&ringway, 1);
    assert_ends(&ringway.finish(), &[("client_closed", 4), ("limit", 1)]);
}

#[test]
fn backup_is_used_only_when_no_other_is_usable() {
    let (normal, backup) = (Backend::echo(), Backend::echo());
    let backends = [
        named("normal", &normal, ""),
        named("backup", &backup, ", backup: true"),
    ];
    let ringway = start(&format!("backends: [{}]", backends.join(", ")));
    open(&ringway, 10);
    assert_eq!(shares(&ringway)["backup"], 0);
    ringway.command(&["backend", "p/normal", "drain"]);
    open(&ringway, 10);
    assert_eq!(shares(&ringway)["backup"], 10);
    ringway.command(&["backend", "p/normal", "ready"]);
    open(&ringway, 10);
    let shares = shares(&ringway);
    assert_eq!((shares["normal"], shares["backup"]), (20, 10));
}

#[test]
fn listener_splits_its_sessions_by_weight_between_pools() {
    let (blue, green) = (Backend::echo(), Backend::echo());
    let config = format!(
        "global: {{workers: 1}}\nlisteners: [{{name: in, bind: \"127.0.0.1:0\", \
         split: [{{pool: blue, weight: 9}}, {{pool: green, weight: 1}}]}}]\n\
         pools: {{blue: [{}], green: [{}]}}\n",
        named("blue", &blue, ""),
        named("green", &green, "")
    );
    let ringway = Launch::config(config).start();
    open(&ringway, 100);
    let before = shares(&ringway);
    assert_eq!(
        (before["blue"], before["green"]),
        (90, 10),
        "exact over full cycles of one worker"
    );
    ringway.command(&["backend", "blue/blue", "drain"]);
    open(&ringway, 10);
    assert_eq!(
        shares(&ringway)["green"],
        20,
        "a pool that takes nobody gets nobody"
    );
}

fn counts_are_exact_after_every_kind_of_end(tier: Tier) {
    let (echoing, refusing) = (Backend::echo(), refusing_address());
    let pool = format!(
        "probe: none, passive: {{failures: none}}, balance: least_connections, \
         backends: [{}, {{name: dead, address: \"{refusing}\"}}]",
        named("live", &echoing, "")
    );
    let ringway = Launch::config(one_pool("workers: 2", &pool))
        .tier(tier)
        .start();
    let address = ringway.address();
    let clients: Vec<_> = (0..60)
        .map(|number| {
            thread::spawn(move || {
                let mut client = stream::connect(address);
                stream::exchange(&mut client, b"hello");
                match number % 3 {
                    0 => drop(client),
                    1 => stream::abort(client),
                    _ => {
                        client.shutdown(std::net::Shutdown::Write).unwrap();
                        assert_eq!(stream::ended(&mut client), Ended::Fin);
                    }
                }
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    ringway.counters_become("all are gone", |counters| {
        number(counters, "sessions_active") == 0
    });
    let status = ringway.status();
    for backend in status["pools"][0]["backends"].as_array().unwrap() {
        assert_eq!(backend["sessions_placed"], 0, "{backend}");
        assert_eq!(backend["sessions_active"], 0, "{backend}");
    }
    assert_eq!(status["listeners"][0]["sessions_active"], 0);
    assert!(number(&ringway.counters(), "connect_failures_total") > 0);
}

/// Backends of a plan of which some may be down.
struct Usable<'a>(&'a [bool]);

impl View for Usable<'_> {
    fn is_usable(&self, place: usize) -> bool {
        self.0[place]
    }

    fn active(&self, _: usize) -> u32 {
        0
    }
}

const HASHING: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

fn hash_plan() -> Plan {
    let member = |name| Member {
        name,
        weight: 1,
        backup: false,
    };
    Plan::new(Algorithm::Hash, HashKey::SourceIp, &HASHING.map(member))
}

fn arrival(client: Ipv4Addr) -> Arrival {
    Arrival {
        client: Some(SocketAddr::from((client, 1))),
        now: Time::ZERO,
    }
}

/// The pickers of two nodes with other numbers of workers, which have seen backends go and come at other times and
/// clients in another order.
#[test]
fn two_nodes_agree_by_hash_on_a_hundred_thousand_clients() {
    const CLIENTS: u32 = 100_000;
    let (one, other) = (hash_plan(), hash_plan());
    let mut first: Vec<Picker> = (0..2).map(|worker| Picker::new(&one, worker)).collect();
    let mut second: Vec<Picker> = (0..5).map(|worker| Picker::new(&other, worker)).collect();
    let client = |number: u32| Ipv4Addr::from_bits(0x0A00_0000 | number.wrapping_mul(48_271) >> 8);
    let all = [true; HASHING.len()];
    let mut without = all;
    without[3] = false;
    // The second node has had two backends down for a while, and its clients came the other way round.
    for number in 0..1000 {
        second[number as usize % 5].pick(
            &arrival(client(number)),
            &Usable(&[true, false, true, true, false, true, true]),
        );
    }
    for usable in [all, without, all] {
        let mut picked: Vec<Option<usize>> = (0..CLIENTS)
            .map(|number| {
                first[number as usize % 2].pick(&arrival(client(number)), &Usable(&usable))
            })
            .collect();
        for number in (0..CLIENTS).rev() {
            let place =
                second[number as usize % 5].pick(&arrival(client(number)), &Usable(&usable));
            assert_eq!(place, picked.pop().unwrap(), "client {}", client(number));
            assert!(place.is_some_and(|place| usable[place]));
        }
    }
}

/// The name of the backend that a client with this address gets.
fn asked_from(source: Ipv4Addr, address: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut name = String::new();
    client.read_to_string(&mut name).unwrap();
    name
}

#[test]
fn two_processes_with_the_same_file_agree_by_hash() {
    let backends = HASHING.map(|name| {
        Backend::scripted(move |mut stream| stream.write_all(name.as_bytes()).unwrap())
    });
    let list: Vec<String> = HASHING
        .iter()
        .zip(&backends)
        .map(|(name, backend)| named(name, backend, ""))
        .collect();
    let pool = format!(
        "probe: none, balance: hash, backends: [{}]",
        list.join(", ")
    );
    let nodes = [3, 1]
        .map(|workers| Launch::config(one_pool(&format!("workers: {workers}"), &pool)).start());
    let (plan, mut shares) = (hash_plan(), BTreeMap::new());
    let mut picker = Picker::new(&plan, 0);
    for number in 0..500_u32 {
        let source = Ipv4Addr::from_bits(0x7F10_0001 + number * 977);
        let [one, other] = nodes
            .each_ref()
            .map(|node| asked_from(source, node.address()));
        assert_eq!(one, other, "client {source}");
        let place = picker.pick(&arrival(source), &Usable(&[true; HASHING.len()]));
        assert_eq!(one, HASHING[place.unwrap()], "client {source}");
        *shares.entry(one).or_insert(0) += 1;
    }
    println!("{shares:?}");
    assert_eq!(
        shares.len(),
        HASHING.len(),
        "everybody has clients: {shares:?}"
    );
}
