//! Kinds of addresses on both sides, several listeners and pools, and what is said when an address cannot be had.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use crate::harness::backend::{self, Backend, echo, listener_on};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Ended, Pattern};
use crate::harness::{Folder, Launch, Ringway, SOON, Tier, assert_ends, join, one_pool, skip};

both_tiers! {
    families_of_addresses_mix,
    star_listens_to_both_families,
    unix_sockets_work_on_both_sides,
    half_close_works_over_unix_sockets,
    listeners_lead_to_their_pools,
    listener_with_several_addresses_answers_on_each,
    source_is_the_address_that_the_backend_sees,
    backends_take_turns,
}

/// A megabyte there and back, and both FINs.
#[track_caller]
fn assert_echoes(mut client: TcpStream) {
    const BYTES: u64 = 1 << 20;
    let pattern = Pattern::new(20);
    let mut writing = client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        stream::send_pattern(&mut writing, pattern, BYTES, 50_000).unwrap();
        stream::finish_writing(&writing);
    });
    assert_eq!(
        stream::receive_pattern(&mut client, pattern),
        (BYTES, Ended::Fin)
    );
    join(writer);
}

fn echo_on(address: SocketAddr) -> Backend {
    Backend::scripted_on(listener_on(address, 128), |stream, _| echo(stream))
}

const LOOPBACK_4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LOOPBACK_6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

fn families_of_addresses_mix(tier: Tier) {
    for listen in [LOOPBACK_4, LOOPBACK_6] {
        for backend in [LOOPBACK_4, LOOPBACK_6] {
            let backend = echo_on(backend);
            let ringway = Launch::listening(&listen.to_string(), [backend.address()])
                .tier(tier)
                .start();
            assert_eq!(ringway.address().ip(), listen.ip());
            assert_echoes(ringway.connect());
            ringway.finish();
        }
    }
}

fn star_listens_to_both_families(tier: Tier) {
    let backend = Backend::echo();
    let ringway = Launch::listening("*:0", [backend.address()])
        .tier(tier)
        .start();
    let port = ringway.address().port();
    assert_echoes(stream::connect((Ipv4Addr::LOCALHOST, port).into()));
    assert_echoes(stream::connect((Ipv6Addr::LOCALHOST, port).into()));
    assert_ends(&ringway.finish(), &[("client_closed", 2)]);
}

/// Starts with a listener and a backend; either may be `unix:` and a path.
fn start(tier: Tier, bind: &str, backend: &str) -> Ringway {
    let config = format!(
        "listeners: [{{name: in, bind: \"{bind}\", pool: p}}]\npools: {{p: [\"{backend}\"]}}\n"
    );
    Launch::config(config).tier(tier).start()
}

fn unix_address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn unix_sockets_work_on_both_sides(tier: Tier) {
    let folder = Folder::new();
    let (listen, serve) = (
        folder.path().join("listen.sock"),
        folder.path().join("serve.sock"),
    );
    let over_unix = Backend::scripted_unix(&serve, |stream, _| echo(stream));
    let over_tcp = Backend::echo();

    let ringway = start(
        tier,
        &unix_address(&listen),
        &over_tcp.address().to_string(),
    );
    assert_eq!(ringway.listeners()[0].1, unix_address(&listen));
    // Several, so that every worker that accepts from the one socket gets some.
    (0..8).for_each(|_| assert_echoes(stream::connect_unix(&listen)));
    assert_ends(&ringway.finish(), &[("client_closed", 8)]);

    let ringway = start(tier, "127.0.0.1:0", &unix_address(&serve));
    assert_echoes(ringway.connect());
    ringway.finish();

    let listen = folder.path().join("second.sock");
    let ringway = start(tier, &unix_address(&listen), &unix_address(&serve));
    assert_echoes(stream::connect_unix(&listen));
    ringway.finish();
    assert_eq!(over_unix.accepted(), 2);
}

fn half_close_works_over_unix_sockets(tier: Tier) {
    const BYTES: u64 = 8 << 20;
    let folder = Folder::new();
    let (listen, serve) = (
        folder.path().join("listen.sock"),
        folder.path().join("serve.sock"),
    );
    let pattern = Pattern::new(21);
    let _backend = Backend::scripted_unix(&serve, move |mut stream, _| {
        assert_eq!(
            stream::read_to_end(&mut stream),
            (b"all of it".to_vec(), Ended::Fin)
        );
        stream::send_pattern(&mut stream, pattern, BYTES, 64 * 1024).unwrap();
    });
    let ringway = start(tier, &unix_address(&listen), &unix_address(&serve));
    let mut client = stream::connect_unix(&listen);
    client.write_all(b"all of it").unwrap();
    stream::finish_writing(&client);
    assert_eq!(
        stream::receive_pattern(&mut client, pattern),
        (BYTES, Ended::Fin)
    );
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}

/// A backend that says its name and closes.
fn named(name: &'static str) -> Backend {
    Backend::scripted(move |mut stream| stream.write_all(name.as_bytes()).unwrap())
}

#[track_caller]
fn said_by(address: SocketAddr) -> String {
    let (said, ended) = stream::read_to_end(&mut stream::connect(address));
    assert_eq!(ended, Ended::Fin);
    String::from_utf8(said).unwrap()
}

fn listeners_lead_to_their_pools(tier: Tier) {
    let (red, green, blue) = (named("red"), named("green"), named("blue"));
    let config = format!(
        r#"
listeners:
  - {{name: to-red, bind: "127.0.0.1:0", pool: red}}
  - {{name: to-green, bind: "127.0.0.1:0", pool: green}}
  - {{name: also-green, bind: "[::1]:0", pool: green}}
  - {{name: to-blue, bind: "127.0.0.1:0", pool: blue}}
pools:
  red: ["{}"]
  green: ["{}"]
  blue: {{backends: [{{name: b, address: "{}"}}]}}
"#,
        red.address(),
        green.address(),
        blue.address()
    );
    let ringway = Launch::config(config).tier(tier).start();
    let expected = [
        ("to-red", "red"),
        ("to-green", "green"),
        ("also-green", "green"),
        ("to-blue", "blue"),
    ];
    for _ in 0..4 {
        for (listener, name) in expected {
            assert_eq!(
                said_by(ringway.address_of(listener)),
                name,
                "through {listener}"
            );
        }
    }
    let ports: Vec<u16> = expected
        .iter()
        .map(|(name, _)| ringway.address_of(name).port())
        .collect();
    assert!(
        ports.iter().all(|port| *port != 0),
        "actual ports are printed: {ports:?}"
    );
    ringway.finish();
}

fn listener_with_several_addresses_answers_on_each(tier: Tier) {
    let backend = named("me");
    let config = format!(
        "listeners: [{{name: in, bind: [\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"], pool: p}}]\npools: {{p: \
         [\"{}\"]}}\n",
        backend.address()
    );
    let ringway = Launch::config(config).tier(tier).start();
    let listeners = ringway.listeners();
    assert_eq!(listeners.len(), 3, "{listeners:?}");
    for (name, address) in listeners {
        assert_eq!(name, "in");
        assert_eq!(said_by(address.parse().unwrap()), "me", "at {address}");
    }
    ringway.finish();
}

fn source_is_the_address_that_the_backend_sees(tier: Tier) {
    let backend = Backend::scripted(|mut stream| {
        let peer = stream.peer_addr().unwrap();
        stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
    });
    let pool = format!("backends: [\"{}\"], source: 127.0.0.77", backend.address());
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    (0..3).for_each(|_| assert_eq!(said_by(ringway.address()), "127.0.0.77"));
    ringway.finish();
}

fn backends_take_turns(tier: Tier) {
    let backends = [named("a"), named("b"), named("c")];
    let addresses: Vec<String> = backends
        .iter()
        .map(|backend| format!("\"{}\"", backend.address()))
        .collect();
    let pool = format!("backends: [{}]", addresses.join(", "));
    let ringway = Launch::config(one_pool("workers: 1", &pool))
        .tier(tier)
        .start();
    let said: Vec<String> = (0..9).map(|_| said_by(ringway.address())).collect();
    for turn in said.windows(3) {
        let mut turn = turn.to_vec();
        turn.sort();
        assert_eq!(turn, ["a", "b", "c"], "of {said:?}");
    }
    ringway.finish();
}

#[track_caller]
fn assert_refuses_to_start(launch: Launch, code: i32, says: &[&str]) {
    let (exit_code, log) = launch.run_to_end();
    assert_eq!(exit_code, Some(code), "exit code; it said:\n{log}");
    let lower = log.to_lowercase();
    for words in says {
        assert!(
            lower.contains(&words.to_lowercase()),
            "it does not say {words:?}:\n{log}"
        );
    }
}

/// An address that moves between hosts, or an interface that comes up late.
#[test]
fn address_that_the_host_gets_later_is_served_then() {
    let Some(namespace) = Namespace::new("later") else {
        return;
    };
    namespace.run(|| {
        let backend = named("me");
        for address in ["10.98.0.1", "[2001:db8::98]"] {
            let config = format!(
                "listeners: [{{name: in, bind: \"{address}:5432\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
                backend.address()
            );
            let ringway = Launch::config(config).start();
            let log = ringway.log();
            assert!(log.contains("does not have the address"), "{log}");
            let plain = address.trim_matches(['[', ']']);
            let arguments = match plain.contains(':') {
                true => ["address", "add", plain, "dev", "lo", "nodad"].to_vec(),
                false => ["address", "add", plain, "dev", "lo"].to_vec(),
            };
            namespace.ip(&arguments);
            assert_eq!(said_by(ringway.address()), "me");
            ringway.finish();
        }
    });
}

#[test]
fn address_that_the_host_must_have_is_a_clear_error() {
    let Some(namespace) = Namespace::new("missing") else {
        return;
    };
    namespace.run(|| {
        let config = "listeners: [{bind: {address: 10.98.0.1:5432, freebind: false}, pool: p}]\n\
                      pools: {p: [\"127.0.0.1:9\"]}\n";
        let says = ["10.98.0.1:5432", "does not have", "freebind: false"];
        assert_refuses_to_start(Launch::config(config), 69, &says);
    });
}

#[test]
fn port_of_another_process_is_a_clear_error() {
    let other = TcpListener::bind(LOOPBACK_4).unwrap();
    let address = other.local_addr().unwrap().to_string();
    let launch = Launch::listening(&address, ["127.0.0.1:9"]);
    assert_refuses_to_start(launch, 69, &[&address, "already"]);
}

/// Both could have the port by SO_REUSEPORT, and would then take each other's clients.
#[test]
fn port_of_another_ringway_is_a_clear_error() {
    let backend = Backend::echo();
    let first = Launch::to([backend.address()]).start();
    let address = first.address().to_string();
    let launch = Launch::listening(&address, [backend.address()]);
    assert_refuses_to_start(launch, 69, &[&address, "already"]);
    for _ in 0..20 {
        assert_echoes(first.connect());
    }
    first.finish();
}

#[test]
fn unix_socket_of_another_process_is_a_clear_error() {
    let folder = Folder::new();
    let path = folder.path().join("taken.sock");
    let _other = Backend::scripted_unix(&path, |stream, _| echo(stream));
    let launch = Launch::listening(&unix_address(&path), ["127.0.0.1:9"]);
    assert_refuses_to_start(launch, 69, &[&path.display().to_string(), "already"]);
    assert_echoes(stream::connect_unix(&path));
}

#[test]
fn port_that_needs_a_permission_is_a_clear_error() {
    const PORT: u32 = 81;
    const NOBODY: u32 = 65_534;
    let setting = |path: &str| -> u32 {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    if setting("/proc/sys/net/ipv4/ip_unprivileged_port_start") <= PORT {
        return skip("every port is free for all here");
    }
    if setting("/proc/sys/kernel/io_uring_disabled") > 0 {
        return skip("io_uring is not for everybody here");
    }
    let mut launch = Launch::listening(&format!("127.0.0.1:{PORT}"), ["127.0.0.1:9"]);
    if nix::unistd::geteuid().is_root() {
        launch = launch.user(NOBODY);
    }
    assert_refuses_to_start(launch, 77, &["127.0.0.1:81", "CAP_NET_BIND_SERVICE"]);
}

#[test]
fn key_that_does_not_exist_is_a_clear_error() {
    let launch = Launch::config(one_pool("worker: 1", "backends: [\"127.0.0.1:9\"]"));
    assert_refuses_to_start(
        launch,
        78,
        &["ringway.yaml:1:10", "`worker`", "did you mean `workers`"],
    );
}

#[test]
fn listener_to_a_pool_that_does_not_exist_is_a_clear_error() {
    let config =
        "listeners: [{bind: \"127.0.0.1:0\", pool: pgg}]\npools: {pg: [\"127.0.0.1:9\"]}\n";
    assert_refuses_to_start(
        Launch::config(config),
        78,
        &["ringway.yaml:1:41", "`pgg`", "did you mean `pg`"],
    );
}

#[test]
fn command_line_that_makes_no_sense_is_a_usage_error() {
    let launch = Launch::listening("127.0.0.1:0", ["127.0.0.1:9"]).arguments(["--no-such-option"]);
    assert_refuses_to_start(launch, 64, &["--no-such-option"]);
}

/// It may run as anybody, and finds its listener's port in the log.
#[test]
fn ordinary_user_can_run_it() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return skip("every other test already runs it as an ordinary user");
    }
    let backend = Backend::scripted_on(backend::listener(), |mut stream, _| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    });
    let ringway = Launch::to([backend.address()]).user(NOBODY).start();
    let mut client = ringway.connect();
    client.set_read_timeout(Some(SOON)).unwrap();
    stream::exchange(&mut client, b"x");
    drop(client);
    ringway.finish();
}
