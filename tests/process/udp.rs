//! UDP through the real process: flows, their ends and their bounds, addresses, failures, and the end of it all.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringway::admin::{Change, client as admin};
use ringway::control::snapshot::OperatorState;

use crate::harness::datagram::{
    Responder, any_port, ask, ask_until_answered, client, receive, refusing,
};
use crate::harness::namespace::Namespace;
use crate::harness::{Launch, Ringway, SOON, eventually, facts, number};

/// A UDP listener on a free port in front of these backends; the texts are the inside of flow mappings.
pub(crate) fn config(global: &str, listener: &str, pool: &str) -> String {
    format!(
        "global: {{{global}}}\n\
         listeners: [{{name: in, bind: \"127.0.0.1:0\", protocol: udp, pool: p{listener}}}]\n\
         pools: {{p: {{{pool}}}}}\n"
    )
}

pub(crate) fn launch(pool: &str) -> Ringway {
    Launch::config(config("workers: 2", "", pool)).start()
}

pub(crate) fn backends<'a>(all: impl IntoIterator<Item = &'a Responder>) -> String {
    backends_at(all.into_iter().map(Responder::address))
}

pub(crate) fn backends_at(all: impl IntoIterator<Item = SocketAddr>) -> String {
    let each = all.into_iter().map(|address| format!("\"{address}\""));
    format!("backends: [{}]", each.collect::<Vec<_>>().join(", "))
}

/// Nothing is left, and nothing came for what was gone.
#[track_caller]
pub(crate) fn finish(ringway: Ringway) -> serde_json::Value {
    let counters = ringway.stop();
    for path in ["flows_active", "lines_used", "stale_completions_total"] {
        assert_eq!(number(&counters, path), 0, "{path}: {counters}");
    }
    assert_eq!(
        number(&counters, "datagram_buffers_free"),
        number(&counters, "datagram_buffers_total")
    );
    counters
}

pub(crate) fn lost(counters: &serde_json::Value, reason: &str) -> u64 {
    counters["listeners"][0]["datagrams_lost"][reason]
        .as_u64()
        .unwrap_or(0)
}

pub(crate) fn flow_ends(counters: &serde_json::Value, reason: &str) -> u64 {
    counters["flow_ends"][reason].as_u64().unwrap_or(0)
}

#[test]
fn datagrams_go_there_and_back_and_are_counted() {
    let backend = Responder::echo();
    let ringway = launch(&backends([&backend]));
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(ringway.address())).collect();
    for round in 0_u8..10 {
        for (number, client) in (0_u8..).zip(&clients) {
            assert_eq!(ask(client, &[number, round]), [number, round]);
        }
    }
    let status = ringway.status();
    assert_eq!(status["listeners"][0]["flows_active"], 20, "{status}");
    assert_eq!(status["flows_active"], 20);
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 20);
    let listener = &counters["listeners"][0];
    for key in ["datagrams_received", "datagrams_sent"] {
        assert_eq!(number(listener, key), 200, "{key}");
    }
    assert_eq!(number(listener, "bytes_sent"), 400);
    assert_eq!(listener["datagrams_lost"], serde_json::json!({}));
    assert_eq!(flow_ends(&counters, "shutdown"), 20);
}

#[test]
fn run_takes_udp_from_the_command_line() {
    let backend = Responder::echo();
    let ringway = Launch::flags([backend.address()])
        .arguments(["--udp"])
        .start();
    assert_eq!(ask(&client(ringway.address()), b"x"), b"x");
    finish(ringway);
}

#[test]
fn datagrams_of_every_size_pass_whole() {
    let backend = Responder::echo();
    let ringway = launch(&backends([&backend]));
    let client = client(ringway.address());
    for len in [1, 0, 1472, 1473, 9000, 16_384, 65_506, 65_507, 0, 5] {
        let sent: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let answer = ask(&client, &sent);
        assert!(answer == sent, "{len} bytes became {}", answer.len());
    }
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 1);
}

#[test]
fn what_comes_at_once_arrives_in_order_and_each_for_itself() {
    let (sender, receiver) = mpsc::channel();
    let backend = Responder::answering(any_port(), move |datagram, _| {
        sender.send(datagram.to_vec()).unwrap();
        Vec::new()
    });
    // With `requests` a part of them begins another flow.
    for flows in ["", ", udp: {requests: 7}", ", udp: {responses: 0}"] {
        let pool = backends([&backend]) + flows;
        let ringway = Launch::config(config("workers: 1", "", &pool)).start();
        let client = client(ringway.address());
        let lengths = [5, 0, 1_200, 1_201, 64, 3_000, 1];
        let sent: Vec<Vec<u8>> = (0..350_usize)
            .map(|number| {
                let each = [u8::try_from(number % 256).unwrap()];
                each.repeat(lengths[number / 25 % lengths.len()])
            })
            .collect();
        for datagrams in sent.chunks(50) {
            for datagram in datagrams {
                client.send(datagram).unwrap();
            }
            for expected in datagrams {
                let arrived = receiver.recv_timeout(SOON).unwrap();
                assert!(arrived == *expected, "{arrived:?} for {expected:?}");
            }
        }
        let counters = finish(ringway);
        assert_eq!(number(&counters["backends"][0], "datagrams_sent"), 350);
        assert_eq!(
            counters["listeners"][0]["datagrams_lost"],
            serde_json::json!({})
        );
    }
}

#[test]
fn large_datagrams_pass_whole_over_a_link_that_takes_less() {
    let (Some(host), Some(outside)) = (Namespace::new("host"), Namespace::new("outside")) else {
        return;
    };
    // With an MTU of 1,500, as it is for veth.
    host.link("10.78.0.1/24", &outside, "10.78.0.2/24");
    let backend = outside.run(|| {
        let socket = UdpSocket::bind("10.78.0.2:0").unwrap();
        Responder::on(socket, |datagram, _| vec![datagram.to_vec()])
    });
    let text = config("workers: 1", "", &backends([&backend]));
    let text = text.replace("127.0.0.1:0", "10.78.0.1:5354");
    let ringway = host.run(|| Launch::config(text).start());
    outside.run(|| {
        let client = client("10.78.0.1:5354".parse().unwrap());
        for len in [100, 1_200, 1_201, 1_472, 1_473, 9_000, 65_507, 100] {
            let sent: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            assert!(ask(&client, &sent) == sent, "{len} bytes");
        }
    });
    finish(ringway);
}

#[test]
fn probes_by_datagram_tell_who_answers() {
    let good = Responder::answering(any_port(), |_, _| vec![b"+alive".to_vec()]);
    let bad = Responder::answering(any_port(), |datagram, _| match datagram {
        b"how?" => vec![b"-ill".to_vec()],
        _ => vec![b"wrong one".to_vec()],
    });
    let pool = format!(
        "backends: [{{name: bad, address: \"{}\"}}, {{name: good, address: \"{}\"}}, \
         {{name: gone, address: \"{}\"}}], balance: first, \
         probe: {{type: send_expect, send: how?, expect: '/^\\+/', interval: 100ms, timeout: 100ms}}",
        bad.address(),
        good.address(),
        refusing()
    );
    let ringway = launch(&pool);
    assert_eq!(ask(&client(ringway.address()), b"q"), b"+alive");
    let status = ringway.status();
    let why = |place: usize| status["pools"][0]["backends"][place]["health"]["why"].clone();
    assert_eq!(why(0), "first probe failed: unexpected answer \"-ill\"");
    assert_eq!(why(2), "first probe failed: receive: connection refused");
    finish(ringway);
}

#[test]
fn answers_come_from_the_address_that_was_asked_on_a_host_with_several() {
    let Some(host) = Namespace::new("many") else {
        return;
    };
    for address in ["10.77.0.1/24", "10.77.0.2/24", "fd77::1/64", "fd77::2/64"] {
        let nodad: &[&str] = if address.contains(':') {
            &["nodad"]
        } else {
            &[]
        };
        let add = ["address", "add", address, "dev", "lo"];
        host.ip(&[&add, nodad].concat());
    }
    host.run(|| {
        let backend = Responder::echo();
        for (bind, addresses) in [
            ("0.0.0.0:5353", &["10.77.0.1", "10.77.0.2", "127.0.0.1"][..]),
            ("[::]:5353", &["fd77::1", "fd77::2", "::1"]),
            (
                "*:5353",
                &["10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2", "::1"],
            ),
        ] {
            let text = config("workers: 2", "", &backends([&backend]));
            let ringway = Launch::config(text.replace("127.0.0.1:0", bind)).start();
            for address in addresses {
                let ip: std::net::IpAddr = address.parse().unwrap();
                // It is connected: an answer from elsewhere would not arrive.
                let client = client((ip, 5353).into());
                for _ in 0..3 {
                    assert_eq!(ask(&client, b"who?"), b"who?", "{bind} at {address}");
                }
            }
            // One socket that asks two addresses has a flow with each.
            let any = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            any.set_read_timeout(Some(SOON)).unwrap();
            if !bind.starts_with("[::]") {
                for ip in ["10.77.0.1", "10.77.0.2", "10.77.0.1"] {
                    any.send_to(b"x", (ip, 5353)).unwrap();
                    let from = any.recv_from(&mut [0; 10]).unwrap().1;
                    assert_eq!(from.ip().to_string(), ip);
                }
            }
            finish(ringway);
        }
    });
}

#[test]
fn a_flow_ends_with_its_answers_or_when_it_is_idle() {
    let backend = Responder::echo();
    let pool = backends([&backend]);
    let ringway = launch(&format!("{pool}, udp: {{responses: 1}}"));
    let asking = client(ringway.address());
    for _ in 0..10 {
        ask(&asking, b"q");
    }
    let counters = ringway.counters_become("all flows are done", |counters| {
        number(counters, "flows_active") == 0 && number(counters, "lines_used") == 0
    });
    assert_eq!(flow_ends(&counters, "flow_done"), 10);
    finish(ringway);

    let ringway = launch(&format!("{pool}, udp: {{idle: 200ms}}"));
    ask(&client(ringway.address()), b"q");
    let begun = Instant::now();
    let counters = ringway.counter_becomes("flows_active", 0);
    assert_eq!(flow_ends(&counters, "idle_timeout"), 1);
    assert_eq!(counters["listeners"][0]["flow_ends"], counters["flow_ends"]);
    assert_eq!(number(&counters["backends"][0], "flows_expired_total"), 1);
    assert!(begun.elapsed() > Duration::from_millis(100), "not at once");
    finish(ringway);
}

#[test]
fn with_one_request_each_datagram_is_balanced() {
    let all = ["one", "two", "three"].map(Responder::named);
    let pool = backends(&all);
    let text = config(
        "workers: 1",
        "",
        &format!("{pool}, balance: round_robin, udp: {{requests: 1, responses: 1}}"),
    );
    let ringway = Launch::config(text).start();
    let client = client(ringway.address());
    for _ in 0..10 {
        for _ in 0..3 {
            ask(&client, b"q");
        }
    }
    assert_eq!(all.each_ref().map(Responder::received), [10, 10, 10]);
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 30);
}

#[test]
fn by_hash_a_client_finds_its_backend_again_without_any_state() {
    let all = ["one", "two", "three", "four"].map(Responder::named);
    let pool = format!(
        "{}, balance: hash, hash_key: source, udp: {{responses: 1}}",
        backends(&all)
    );
    let ringway = launch(&pool);
    let clients: Vec<UdpSocket> = (0..40).map(|_| client(ringway.address())).collect();
    let first: Vec<_> = clients.iter().map(|client| ask(client, b"q")).collect();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 4);
    for _ in 0..3 {
        let again: Vec<_> = clients.iter().map(|client| ask(client, b"q")).collect();
        assert_eq!(first, again);
    }
    finish(ringway);
}

#[test]
fn a_refusal_moves_the_flow_to_another_backend_with_the_next_datagram() {
    let alive = Responder::named("alive");
    let dead = refusing();
    let pool = format!(
        "backends: [\"{dead}\", \"{}\"], balance: first",
        alive.address()
    );
    let ringway = launch(&pool);
    let client = client(ringway.address());
    client.send(b"lost").unwrap();
    ringway.counters_become("the refusal has come", |counters| {
        number(counters, "connect_failures_total") == 1
    });
    assert_eq!(ask(&client, b"q"), b"alive");
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 1, "it is the same flow");
    assert_eq!(number(&counters, "flows_moved_total"), 1);
}

#[test]
fn a_datagram_that_only_hears_of_the_refusal_of_an_earlier_one_goes_another_way() {
    let alive = Responder::silent();
    let pool = format!(
        "backends: [\"{}\", \"{}\"], balance: round_robin",
        refusing(),
        alive.address()
    );
    let ringway = Launch::config(config("workers: 1", "", &pool)).start();
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(ringway.address())).collect();
    for client in &clients {
        // One after the other, without a moment for the refusal to be heard of.
        for _ in 0..5 {
            client.send(b"q").unwrap();
        }
    }
    let counters = ringway.counters_become("all have left", |counters| {
        number(&counters["listeners"][0], "datagrams_received") == 100
    });
    let sent = |place: usize| number(&counters["backends"][place], "datagrams_sent");
    assert_eq!(sent(0) + sent(1), 100, "{counters}");
    assert!(sent(0) > 0, "some were on their way to it: {counters}");
    assert_eq!(
        counters["listeners"][0]["datagrams_lost"],
        serde_json::json!({})
    );
    eventually(SOON, "the others arrive", || alive.received() == sent(1));
    finish(ringway);
}

#[test]
fn once_no_backend_is_left_the_kernel_refuses_whoever_had_a_flow() {
    let backend = Responder::echo();
    let health = std::net::TcpListener::bind(any_port()).unwrap();
    let port = health.local_addr().unwrap().port();
    let pool = format!(
        "{}, probe: {{type: tcp, port: {port}, interval: 50ms, fast_interval: 20ms, down_interval: 50ms, \
         timeout: 50ms, fall: 2, rise: 1}}, udp: {{idle: 10m}}",
        backends([&backend])
    );
    let ringway = launch(&pool);
    let client = client(ringway.address());
    ask(&client, b"q");
    drop(health);
    ringway.wait_line("datagrams are refused");
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    eventually(SOON, "the kernel refuses", || {
        let answer = client.send(b"q").and_then(|_| receive(&client));
        answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let counters = ringway.counters();
    assert_eq!(number(&counters, "flows_active"), 1, "its place is kept");
    assert_eq!(number(&counters, "lines_used"), 0, "its socket is not");
    assert_eq!(ringway.status()["listeners"][0]["flows_active"], 0);
    let _health = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    ringway.wait_line("listening again");
    let (answer, _) = ask_until_answered(&client, b"again");
    assert_eq!(answer, b"again");
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 1);
}

#[test]
fn flows_leave_the_files_that_connections_need() {
    let stream = crate::harness::backend::Backend::echo();
    let backend = Responder::echo();
    let text = format!(
        "global: {{workers: 1}}\nlisteners:\n- {{name: t, bind: \"127.0.0.1:0\", pool: t}}\n\
         - {{name: u, bind: \"127.0.0.1:0\", pool: u, protocol: udp}}\n\
         pools: {{t: [\"{}\"], u: [\"{}\"]}}\n",
        stream.address(),
        backend.address()
    );
    let ringway = Launch::config(text).files_limit(1_000).start();
    let most = number(&ringway.status(), "max_sessions");
    let flows = number(&ringway.status(), "max_flows");
    assert!(most > 50 && flows > 50, "{most} sessions, {flows} flows");
    let clients: Vec<UdpSocket> = (0..2 * flows)
        .map(|_| client(ringway.address_of("u")))
        .collect();
    clients.iter().for_each(|client| drop(ask(client, b"q")));
    assert_eq!(number(&ringway.counters(), "flows_active"), flows);
    let mut connected: Vec<_> = (0..most)
        .map(|_| crate::harness::stream::connect(ringway.address_of("t")))
        .collect();
    for connection in &mut connected {
        crate::harness::stream::exchange(connection, b"stream");
    }
    drop(connected);
    let counters = finish(ringway);
    assert_eq!(counters["accept_errors"]["EMFILE"], 0, "{counters}");
    assert_eq!(lost(&counters, "out_of_resources"), 0);
}

#[test]
fn a_probe_asks_name_servers_and_judges_their_answers() {
    // The query as the answer, with its response code.
    let answering = |code: u8| {
        Responder::answering(any_port(), move |query, _| {
            let mut answer = query.to_vec();
            answer[2] |= 0x80;
            answer[3] = code;
            vec![answer]
        })
    };
    let (fails, knows) = (answering(2), answering(0));
    let pool = format!(
        "backends: [{{name: fails, address: \"{}\"}}, {{name: gone, address: \"{}\"}}, \
         {{name: knows, address: \"{}\"}}], balance: first, \
         probe: {{type: dns, dns: {{name: example.test, type: SOA, rcodes: NOERROR}}, interval: 100ms, \
         timeout: 100ms}}",
        fails.address(),
        refusing(),
        knows.address()
    );
    let ringway = launch(&pool);
    ask(&client(ringway.address()), &[0; 12]);
    let status = ringway.status();
    let why = |place: usize| {
        let health = &status["pools"][0]["backends"][place]["health"];
        health["why"].as_str().unwrap_or_default().to_owned()
    };
    assert!(why(0).contains("SERVFAIL"), "{}", why(0));
    assert!(why(1).contains("refused"), "{}", why(1));
    let flows = |place: usize| status["pools"][0]["backends"][place]["flows_total"].clone();
    assert_eq!([0, 1, 2].map(flows), [0, 0, 1]);
    finish(ringway);
}

#[test]
fn flows_of_a_backend_that_goes_down_go_on_elsewhere_and_those_of_a_draining_one_stay() {
    let (one, two) = (Responder::named("one"), Responder::named("two"));
    let health = std::net::TcpListener::bind(any_port()).unwrap();
    let port = health.local_addr().unwrap().port();
    let pool = format!(
        "backends: [{{name: one, address: \"{}\"}}, {{name: two, address: \"{}\", backup: true}}], \
         probe: {{type: tcp, port: {port}, interval: 50ms, fast_interval: 20ms, timeout: 50ms, fall: 2}}",
        one.address(),
        two.address()
    );
    let ringway = launch(&pool);
    let old = client(ringway.address());
    assert_eq!(ask(&old, b"q"), b"one");
    let drain = Change {
        state: Some(OperatorState::Drain),
        ..Change::default()
    };
    admin::operate(&ringway.admin_socket(), "p", "one", &drain).unwrap();
    assert_eq!(ask(&client(ringway.address()), b"q"), b"two");
    assert_eq!(ask(&old, b"q"), b"one", "draining keeps its flows");
    let ready = Change {
        state: Some(OperatorState::Ready),
        ..Change::default()
    };
    admin::operate(&ringway.admin_socket(), "p", "one", &ready).unwrap();
    drop(one);
    let (answer, _) = ask_until_answered(&old, b"q");
    assert_eq!(answer, b"two");
    drop(health);
    finish(ringway);
}

#[test]
fn refusals_do_not_add_up_while_datagrams_are_taken_in_between() {
    let address = refusing();
    for (is_taken, is_avoided) in [(true, false), (false, true)] {
        let pool = format!(
            "backends: [\"{address}\"], passive: {{failures: 2, retry_after: 10m}}, udp: {{idle: 1s}}"
        );
        let ringway = Launch::config(config("workers: 1", "", &pool)).start();
        let refused = |times, is_avoided| {
            client(ringway.address()).send(b"log").unwrap();
            ringway.counters_become("it is refused", |counters| {
                let backend = &counters["backends"][0];
                number(backend, "connect_failures_total") == times
                    && backend["avoided"] == u64::from(is_avoided)
            });
        };
        refused(1, false);
        if is_taken {
            let backend = Responder::answering(address, |_, _| Vec::new());
            client(ringway.address()).send(b"log").unwrap();
            ringway.counters_become("nothing has come for a second", |counters| {
                number(&counters["backends"][0], "flows_expired_total") == 1
            });
            drop(backend);
        }
        refused(2, is_avoided);
        finish(ringway);
    }
}

#[test]
fn the_flows_of_a_backend_that_goes_down_all_go_on_elsewhere_however_many_they_are() {
    const FLOWS: u64 = 1_500;
    let one = Responder::named("one");
    let two = Responder::answering("127.0.0.2:0".parse().unwrap(), |_, _| vec![b"two".to_vec()]);
    let health = std::net::TcpListener::bind(any_port()).unwrap();
    let port = health.local_addr().unwrap().port();
    let _other_health = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    let pool = format!(
        "{}, balance: first, udp: {{idle: 10m}}, \
         probe: {{type: tcp, port: {port}, interval: 200ms, fast_interval: 50ms, timeout: 200ms, fall: 2}}",
        backends([&one, &two])
    );
    let ringway = Launch::config(config("workers: 1", "", &pool)).start();
    let clients: Vec<UdpSocket> = (0..FLOWS).map(|_| client(ringway.address())).collect();
    for client in &clients {
        assert_eq!(ask(client, b"q"), b"one");
    }
    drop(health);
    ringway.counter_becomes("lines_used", 0);
    for client in &clients {
        assert_eq!(ask(client, b"q"), b"two");
    }
    let counters = ringway.counter_becomes("lines_used", FLOWS);
    assert_eq!(number(&counters, "flows_moved_total"), FLOWS);
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), FLOWS);
    assert_eq!(flow_ends(&counters, "shutdown"), FLOWS);
}

#[test]
fn without_a_usable_backend_the_kernel_refuses_or_nobody_answers() {
    let backend = Responder::echo();
    let address = backend.address();
    let pool = format!("backends: [{{name: it, address: \"{address}\"}}]");
    let drain = |state| Change {
        state: Some(state),
        ..Change::default()
    };
    for (when_empty, refused) in [("refuse", true), ("drop", false)] {
        let listener = format!(", when_empty: {when_empty}");
        let ringway = Launch::config(config("workers: 2", &listener, &pool)).start();
        let socket = ringway.admin_socket();
        let first = client(ringway.address());
        assert_eq!(ask(&first, b"q"), b"q");
        admin::operate(&socket, "p", "it", &drain(OperatorState::Drain)).unwrap();
        assert_eq!(ask(&first, b"still"), b"still", "its flow goes on");
        let second = client(ringway.address());
        second.send(b"q").unwrap();
        ringway.counters_become("nobody takes it", |counters| {
            lost(counters, "no_backend") == 1
        });
        finish(ringway);

        let udp = format!("{pool}, udp: {{responses: 1}}");
        let ringway = Launch::config(config("workers: 2", &listener, &udp)).start();
        let socket = ringway.admin_socket();
        let client = client(ringway.address());
        for _ in 0..3 {
            assert_eq!(ask(&client, b"q"), b"q");
            admin::operate(&socket, "p", "it", &drain(OperatorState::Drain)).unwrap();
            if refused {
                ringway.wait_line("datagrams are refused");
                let short = Some(Duration::from_millis(50));
                client.set_read_timeout(short).unwrap();
                eventually(SOON, "the kernel refuses", || {
                    client
                        .send(b"q")
                        .and_then(|_| receive(&client))
                        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
                });
                assert_eq!(
                    ringway.status()["listeners"][0]["refuses"]["why"],
                    "no backend is usable: 1 draining"
                );
            }
            admin::operate(&socket, "p", "it", &drain(OperatorState::Ready)).unwrap();
            let (answer, _) = ask_until_answered(&client, b"again");
            assert_eq!(answer, b"again");
        }
        finish(ringway);
    }
}

#[test]
fn a_flood_of_new_clients_evicts_no_proven_flow_and_takes_no_more_than_its_bound() {
    let backend = Responder::echo();
    let pool = backends([&backend]);
    let ringway = Launch::config(config("workers: 2, max_flows: 400", "", &pool)).start();
    let proven: Vec<UdpSocket> = (0..50).map(|_| client(ringway.address())).collect();
    for client in &proven {
        ask(client, b"1");
        ask(client, b"2");
    }
    let before = facts::open_files(ringway.pid());
    for round in 0..40 {
        // Sources that get an answer, and never come again.
        let newcomers: Vec<UdpSocket> = (0..100).map(|_| client(ringway.address())).collect();
        for newcomer in &newcomers {
            ask(newcomer, b"new");
        }
        for client in &proven {
            assert_eq!(ask(client, b"still here"), b"still here", "round {round}");
        }
        let files = facts::open_files(ringway.pid());
        assert!(files < before + 400 + 50, "{files} open files");
    }
    let counters = ringway.counters();
    // Some newcomers got the port of an earlier one.
    let total = number(&counters, "flows_total");
    assert!(total > 3_000, "{total} flows");
    assert!(number(&counters, "flows_active") <= 400);
    assert!(flow_ends(&counters, "evicted") >= total - 400);
    finish(ringway);
}

#[test]
fn when_all_flows_are_proven_a_newcomer_is_not_served() {
    let backend = Responder::echo();
    let pool = backends([&backend]);
    let text = config(
        "workers: 1, max_flows: 10",
        "",
        &format!("{pool}, udp: {{idle: 1s}}"),
    );
    let ringway = Launch::config(text).start();
    let proven: Vec<UdpSocket> = (0..10).map(|_| client(ringway.address())).collect();
    for client in &proven {
        ask(client, b"1");
        ask(client, b"2");
    }
    let late = client(ringway.address());
    late.send(b"q").unwrap();
    ringway.counters_become("it is lost", |counters| lost(counters, "full") == 1);
    let (answer, _) = ask_until_answered(&late, b"once others are idle");
    assert_eq!(answer, b"once others are idle");
    finish(ringway);
}

#[test]
fn a_stop_gives_a_moment_for_answers_and_takes_nothing_new() {
    let (sender, receiver) = mpsc::channel::<()>();
    let backend = Responder::answering(any_port(), move |datagram, _| {
        if datagram == b"slow" {
            receiver.recv().unwrap();
        }
        vec![datagram.to_vec()]
    });
    let mut ringway = launch(&backends([&backend]));
    let (quick, slow) = (client(ringway.address()), client(ringway.address()));
    ask(&quick, b"quick");
    slow.send(b"slow").unwrap();
    eventually(SOON, "the backend has it", || backend.received() == 2);
    ringway.signal(Signal::SIGTERM);
    ringway.counter_becomes("flows_active", 1);
    sender.send(()).unwrap();
    assert_eq!(receive(&slow).unwrap(), b"slow");
    let counters = ringway.exit_in_order(SOON);
    assert_eq!(flow_ends(&counters, "shutdown"), 2);
}

#[test]
fn an_idle_process_with_flows_does_nothing() {
    let backend = Responder::echo();
    let ringway = launch(&backends([&backend]));
    let clients: Vec<UdpSocket> = (0..50).map(|_| client(ringway.address())).collect();
    for client in &clients {
        ask(client, b"q");
    }
    ringway.assert_idle(Duration::from_millis(60));
    finish(ringway);
}

#[test]
fn tcp_and_udp_listeners_share_a_port_and_a_pool() {
    let stream = crate::harness::backend::Backend::echo();
    let backend = Responder::on(UdpSocket::bind(stream.address()).unwrap(), |datagram, _| {
        vec![datagram.to_vec()]
    });
    let port = crate::harness::free_port();
    let text = format!(
        "listeners:\n- {{name: t, bind: \"*:{port}\", pool: p}}\n\
         - {{name: u, bind: \"*:{port}\", pool: p, protocol: udp}}\n\
         pools: {{p: [\"{}\"]}}\n",
        backend.address()
    );
    let ringway = Launch::config(text).start();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(ask(&client(address), b"datagram"), b"datagram");
    let mut connected = crate::harness::stream::connect(address);
    crate::harness::stream::exchange(&mut connected, b"stream");
    drop(connected);
    finish(ringway);
}

#[test]
fn a_range_of_ports_is_a_place_for_each() {
    let backend = Responder::echo();
    let base = (30_000..32_000)
        .step_by(8)
        .find(|base| (0..4).all(|at| UdpSocket::bind(("127.0.0.1", base + at)).is_ok()))
        .unwrap();
    let text = config("workers: 2", "", &backends([&backend]));
    let range = format!("127.0.0.1:{base}-{}", base + 3);
    let ringway = Launch::config(text.replace("127.0.0.1:0", &range)).start();
    for at in 0..4 {
        let address = SocketAddr::from(([127, 0, 0, 1], base + at));
        assert_eq!(ask(&client(address), b"q"), b"q");
    }
    let counters = finish(ringway);
    assert_eq!(number(&counters, "flows_total"), 4);
}
