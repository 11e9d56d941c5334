//! Source ports: how many connections to a backend there can be, and that running out of them harms nobody but the
//! sessions that would have needed one. In namespaces with few ports.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::backend::{Backend, echo, listener_on};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Ended};
use crate::harness::{Launch, Ringway, SOON, Tier, assert_ends, eventually, number};

both_tiers! {
    sessions_beyond_the_ports_are_reset_and_nobody_else_is_harmed,
    two_sources_give_twice_as_many_ports_and_stand_in_for_each_other,
    sources_that_the_host_does_not_have_are_skipped_while_others_work,
}

const PORTS: u64 = 20;
/// Outside of the range.
const LISTENER: u16 = 7000;
const BACKEND: &str = "127.0.0.1:8000";

const EXHAUSTED: &str = "no source port is free";
const ABSENT: &str = "connections come from its others";
const ABSENT_AT_START: &str = "no connection can come from it";

/// A namespace whose connections have 20 ports for each pair of source and destination.
fn narrow(label: &str) -> Option<Namespace> {
    let namespace = Namespace::new(label)?;
    namespace.set("ipv4/ip_local_port_range", "39999 40020");
    namespace.set("ipv4/ip_local_reserved_ports", "39000-39999,40020");
    Some(namespace)
}

/// Tells each client where its connection comes from, then echoes.
fn telling_backend(address: &str) -> Backend {
    let listener = listener_on(address.parse().unwrap(), 128);
    Backend::scripted_on(listener, |mut stream, _| {
        let Ok(SocketAddr::V4(source)) = stream.peer_addr() else {
            return;
        };
        if stream.write_all(&source.ip().octets()).is_ok() {
            echo(stream);
        }
    })
}

fn launch(tier: Tier, pool: &str) -> Ringway {
    let config = format!(
        "global: {{workers: 2}}\nlisteners: [{{name: in, bind: \"0.0.0.0:{LISTENER}\", pool: p}}]\n\
         pools: {{p: {{{pool}}}}}\n"
    );
    Launch::config(config).tier(tier).start()
}

/// Clients have few ports, too, but for each of many addresses of the listener.
fn listener(client: usize) -> SocketAddr {
    let last = u8::try_from(2 + client / 10).unwrap();
    SocketAddr::from((Ipv4Addr::new(127, 0, 9, last), LISTENER))
}

/// A client that is served, and where its connection to the backend comes from; or none if it was reset.
fn try_client(number: usize) -> Option<(TcpStream, IpAddr)> {
    let mut client = stream::try_connect(listener(number)).ok()?;
    let mut source = [0; 4];
    client.read_exact(&mut source).ok()?;
    stream::exchange(&mut client, b"hello");
    Some((client, IpAddr::from(source)))
}

#[track_caller]
fn clients(numbers: std::ops::Range<usize>) -> Vec<(TcpStream, IpAddr)> {
    numbers
        .map(|number| try_client(number).unwrap_or_else(|| panic!("client {number} is reset")))
        .collect()
}

fn backend_status(ringway: &Ringway) -> Value {
    ringway.status()["pools"][0]["backends"][0].clone()
}

#[track_caller]
fn assert_unharmed(ringway: &Ringway) {
    let backend = &ringway.counters()["backends"][0];
    assert_eq!(backend["avoided"], 0, "our own error was held against it");
    let status = backend_status(ringway);
    assert_eq!(status["health"]["state"], "up", "{status}");
    assert_eq!(status["takes_sessions"], true, "{status}");
}

fn warnings(ringway: &Ringway, what: &str) -> usize {
    ringway.log().matches(what).count()
}

fn sessions_beyond_the_ports_are_reset_and_nobody_else_is_harmed(tier: Tier) {
    let Some(namespace) = narrow("ports") else {
        return;
    };
    namespace.run(|| {
        let _backend = telling_backend(BACKEND);
        let ringway = launch(tier, &format!("probe: none, backends: [\"{BACKEND}\"]"));
        let mut served = clients(0..9);
        let ports = &backend_status(&ringway)["source_ports"];
        assert_eq!(ports, &json!({"used": 9, "of": PORTS}));
        let (_, text, _) = ringway.command(&["status"]);
        assert!(!text.contains("source ports"), "{text}");

        served.extend(clients(9..20));
        for client in 20..70 {
            assert_eq!(stream::connect_to_end(listener(client)), Ended::Reset);
        }
        let counters = ringway.counter_becomes("sessions_active", PORTS);
        assert_ends(&counters, &[("out_of_resources", 50)]);
        let asked = number(&counters, "sources_exhausted_total");
        assert!(
            (1..50).contains(&asked),
            "the kernel was asked {asked} times"
        );
        assert_eq!(number(&counters, "connect_failures_total"), 50);
        assert_unharmed(&ringway);
        let ports = &backend_status(&ringway)["source_ports"];
        assert_eq!(ports, &json!({"used": PORTS, "of": PORTS}));
        let (_, text, _) = ringway.command(&["status"]);
        assert!(text.contains("20 of 20 source ports used"), "{text}");
        ringway.wait_line(EXHAUSTED);
        assert_eq!(warnings(&ringway, EXHAUSTED), 1, "{}", ringway.log());
        ringway.assert_idle(Duration::from_millis(60));

        for (client, _) in &mut served {
            stream::exchange(client, b"still here");
        }
        // With a reset no port is kept for a connection that is over.
        for (client, _) in served.drain(..10) {
            stream::abort(client);
        }
        ringway.counter_becomes("sessions_active", PORTS - 10);
        served.extend(clients(70..80));
        drop(served);
        ringway.finish();
    });
}

fn two_sources_give_twice_as_many_ports_and_stand_in_for_each_other(tier: Tier) {
    let Some(namespace) = narrow("sources") else {
        return;
    };
    namespace.run(|| {
        let _backend = telling_backend(BACKEND);
        let sources = ["127.0.1.1", "127.0.1.2"].map(|source| source.parse::<IpAddr>().unwrap());
        let ringway = launch(
            tier,
            &format!(
                "probe: none, backends: [\"{BACKEND}\"], source: [{}, {}]",
                sources[0], sources[1]
            ),
        );
        let served = clients(0..40);
        for source in sources {
            let from = |client: &&(TcpStream, IpAddr)| client.1 == source;
            assert_eq!(served.iter().filter(from).count() as u64, PORTS, "{source}");
        }
        let ports = &backend_status(&ringway)["source_ports"];
        assert_eq!(ports, &json!({"used": 2 * PORTS, "of": 2 * PORTS}));
        assert_eq!(stream::connect_to_end(listener(40)), Ended::Reset);

        // The turns go on with both, but only one has ports.
        let (first, second): (Vec<_>, Vec<_>) = served
            .into_iter()
            .partition(|client| client.1 == sources[0]);
        first
            .into_iter()
            .for_each(|(client, _)| stream::abort(client));
        ringway.counter_becomes("sessions_active", PORTS);
        let mut again = Vec::new();
        eventually(SOON, "the ports that are free find clients", || {
            again.extend(try_client(41 + again.len()));
            again.len() as u64 == PORTS
        });
        assert!(again.iter().all(|client| client.1 == sources[0]));
        assert_unharmed(&ringway);
        drop((second, again));
        ringway.finish();
    });
}

fn sources_that_the_host_does_not_have_are_skipped_while_others_work(tier: Tier) {
    let Some(namespace) = narrow("absent") else {
        return;
    };
    namespace.ip(&["address", "add", "10.77.0.9/32", "dev", "lo"]);
    namespace.run(|| {
        let _backend = telling_backend("10.77.0.9:8000");
        let sources = ["10.77.0.1", "10.77.0.2"].map(|source| source.parse::<IpAddr>().unwrap());
        let pool = "probe: none, backends: [\"10.77.0.9:8000\"], source: [10.77.0.1, 10.77.0.2]";
        let ringway = launch(tier, pool);
        for client in 0..6 {
            assert_eq!(stream::connect_to_end(listener(client)), Ended::Reset);
        }
        let counters = ringway.counter_becomes("sessions_active", 0);
        assert_ends(&counters, &[("out_of_resources", 6)]);
        assert_eq!(
            number(&counters, "sources_absent_total"),
            12,
            "both each time"
        );
        assert_eq!(number(&counters, "sources_exhausted_total"), 0);
        assert_unharmed(&ringway);

        namespace.ip(&["address", "add", "10.77.0.2/32", "dev", "lo"]);
        let served = clients(10..30);
        assert!(served.iter().all(|client| client.1 == sources[1]));
        let counters = ringway.counters();
        assert!(number(&counters, "sources_absent_total") > 12, "{counters}");
        assert_eq!(number(&counters, "connect_failures_total"), 6);
        assert_eq!(stream::connect_to_end(listener(30)), Ended::Reset);

        namespace.ip(&["address", "add", "10.77.0.1/32", "dev", "lo"]);
        let more = clients(31..51);
        assert!(more.iter().all(|client| client.1 == sources[0]));
        assert_unharmed(&ringway);
        ringway.wait_line(ABSENT);
        assert_eq!(warnings(&ringway, ABSENT), 1, "{}", ringway.log());
        assert_eq!(warnings(&ringway, ABSENT_AT_START), 2, "{}", ringway.log());
        drop((served, more));
        ringway.finish();
    });
}

/// Probes come from the sessions' source, so that they find no port where sessions have all of them; and only there.
#[test]
fn probes_that_find_no_port_say_nothing_about_a_backend() {
    const TOGETHER: &str = "10.77.0.1";
    let Some(namespace) = narrow("probes") else {
        return;
    };
    namespace.ip(&["address", "add", "10.77.0.1/32", "dev", "lo"]);
    namespace.run(|| {
        let first = telling_backend(BACKEND);
        let closing = listener_on("127.0.0.1:8001".parse().unwrap(), 128);
        let _second = Backend::scripted_on(closing, |_, _| {});
        let ringway = launch(
            Tier::Limited,
            &format!(
                "balance: first, backends: [\"{BACKEND}\", \"127.0.0.1:8001\"], source: {TOGETHER}, probe: {{source: \
                 {TOGETHER}, interval: 200ms, fast_interval: 50ms, down_interval: 100ms, timeout: 200ms}}"
            ),
        );
        // The ports of the first probes are kept for a while; until then sessions go on to the other backend.
        let (mut served, mut client) = (Vec::new(), 0);
        eventually(SOON, "sessions have all ports", || {
            served.extend(try_client(client % 200));
            client += 1;
            served.len() as u64 == PORTS
        });
        let hindered = || backend_status(&ringway)["health"]["probes_hindered"].clone();
        eventually(SOON, "no probe has been made for two seconds", || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let since = hindered()["since"].as_u64();
            since.is_some_and(|since| now.as_secs() > since + 2)
        });
        assert_eq!(hindered()["why"], "connect: no source port is free");
        assert_unharmed(&ringway);
        let status = ringway.status();
        for backend in status["pools"][0]["backends"].as_array().unwrap() {
            let history = backend["health"]["history"].as_array().unwrap();
            assert_eq!(history.len(), 1, "up at first and ever since: {backend}");
        }
        let other = &status["pools"][0]["backends"][1]["health"];
        assert_eq!(other["probes_hindered"], Value::Null, "{status}");
        let (_, text, _) = ringway.command(&["status"]);
        assert!(text.contains("no probes for"), "{text}");
        assert_eq!(warnings(&ringway, "a probe cannot be made"), 1);

        served.drain(..).for_each(|(client, _)| stream::abort(client));
        eventually(SOON, "probes are made again", || hindered() == Value::Null);
        assert_unharmed(&ringway);
        drop(first);
        eventually(SOON, "a probe finds that it is gone", || {
            backend_status(&ringway)["health"]["state"] == "down"
        });
        ringway.finish();
    });
}
