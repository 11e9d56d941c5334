//! UDP over real paths: links and routers that take less than the sender thinks, networks that nobody leads to,
//! addresses of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::harness::datagram::{
    Burst, Responder, any_port, ask, ask_until_answered, client, receive,
};
use crate::harness::namespace::Namespace;
use crate::harness::{Launch, Ringway, number};
use crate::udp::{backends, config, finish, lost};

/// The addresses of three hosts in a row: those of the first link, and of the second one, whose network is the last.
struct Addresses([&'static str; 2], [&'static str; 2], &'static str);

const V4: Addresses = Addresses(
    ["10.79.0.1/24", "10.79.0.2/24"],
    ["10.79.1.1/24", "10.79.1.2/24"],
    "10.79.1.0/24",
);
const V6: Addresses = Addresses(
    ["fd79::1/64", "fd79::2/64"],
    ["fd79:1::1/64", "fd79:1::2/64"],
    "fd79:1::/64",
);

/// Three hosts in a row. The first one runs Ringway; the link beyond the router takes packets of `mtu` bytes only.
struct Path {
    host: Namespace,
    router: Namespace,
    outside: Namespace,
    middle: SocketAddr,
    beyond: IpAddr,
}

impl Path {
    fn new(Addresses(near, far, network): Addresses, mtu: &str) -> Option<Self> {
        let ip = |address: &str| -> IpAddr { address.split('/').next().unwrap().parse().unwrap() };
        let path = Self {
            host: Namespace::new("host")?,
            router: Namespace::new("router")?,
            outside: Namespace::new("outside")?,
            middle: (ip(near[0]), 5354).into(),
            beyond: ip(far[1]),
        };
        path.host.link(near[0], &path.router, near[1]);
        path.router.link(far[0], &path.outside, far[1]);
        let forwarding = if path.beyond.is_ipv6() {
            "ipv6/conf/all/forwarding"
        } else {
            "ipv4/ip_forward"
        };
        path.router.set(forwarding, "1");
        path.narrow(mtu);
        let via = |address| ip(address).to_string();
        path.host
            .ip(&["route", "add", network, "via", &via(near[1])]);
        path.outside
            .ip(&["route", "add", "default", "via", &via(far[0])]);
        path.wait();
        Some(path)
    }

    /// Waits until the path carries datagrams both ways. A router of IPv6 asks for nobody's hardware address, and so
    /// drops what it is to forward, as long as its own link-local addresses are new (RFC 4862 section 5.4).
    fn wait(&self) {
        let here = SocketAddr::new(self.middle.ip(), 0);
        let there = (self.host).run(|| Responder::answering(here, |_, _| vec![b"yes".to_vec()]));
        self.outside
            .run(|| ask_until_answered(&client(there.address()), b"is anybody there?"));
    }

    /// The link beyond the router takes this much from now on.
    fn narrow(&self, mtu: &str) {
        self.router.ip(&["link", "set", "a0", "mtu", mtu]);
        self.outside.ip(&["link", "set", "b0", "mtu", mtu]);
    }

    /// A backend beyond the router that says what it got whole.
    fn backend(&self) -> Responder {
        let beyond = self.beyond;
        self.outside.run(|| {
            let socket = UdpSocket::bind((beyond, 0)).unwrap();
            Responder::on(socket, |_, _| vec![b"whole".to_vec()])
        })
    }

    fn launch(&self, pool: &str) -> Ringway {
        let text = config("workers: 1", "", pool);
        let text = text.replace("127.0.0.1:0", &self.middle.to_string());
        self.host.run(|| Launch::config(text).start())
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn a_router_that_takes_less_on_the_way_to_a_backend_costs_one_datagram_which_is_counted() {
    // Below 1,200 bytes even what fits elsewhere is too large.
    for (addresses, mtu, sizes) in [
        (V4, "1280", &[1_200, 1_300, 9_000, 1_253][..]),
        (V4, "700", &[600, 1_100, 20_000, 673]),
        (V6, "1280", &[1_200, 1_300, 9_000, 1_233]),
    ] {
        let Some(path) = Path::new(addresses, mtu) else {
            return;
        };
        let backend = path.backend();
        let ringway = path.launch(&backends([&backend]));
        path.host.run(|| {
            let client = client(path.middle);
            let (small, rest) = sizes.split_first().unwrap();
            ask(&client, &pattern(*small));
            let (_, unanswered) = ask_until_answered(&client, &pattern(rest[0]));
            assert_eq!(unanswered, 1, "MTU {mtu}: the router says it once");
            for size in rest {
                assert_eq!(ask(&client, &pattern(*size)), b"whole", "{size} bytes");
            }
            // Several that together would be too large for the path as they are.
            for _ in 0..10 {
                client.send(&pattern(1_100)).unwrap();
            }
            for _ in 0..10 {
                assert_eq!(receive(&client).unwrap(), b"whole");
            }
        });
        let counters = finish(ringway);
        assert_eq!(lost(&counters, "too_big"), 1, "MTU {mtu}: {counters}");
        assert_eq!(number(&counters, "flows_total"), 1);
        assert_eq!(number(&counters, "flows_moved_total"), 0);
        assert_eq!(number(&counters, "connect_failures_total"), 0);
    }
}

#[test]
fn a_path_that_takes_less_than_before_costs_one_datagram_and_no_other_that_came_with_it() {
    let Some(path) = Path::new(V4, "1280") else {
        return;
    };
    let backend = path.backend();
    let ringway = path.launch(&backends([&backend]));
    path.host.run(|| {
        let client = client(path.middle);
        // From here on what is too large leaves in fragments of what the path is known to take.
        ask_until_answered(&client, &pattern(1_300));
        assert_eq!(ask(&client, &pattern(1_400)), b"whole");
        path.narrow("700");
        // They are forwarded in one go; each is longer than the one before, so that it leaves by itself.
        ringway.freeze();
        for len in 1_000..1_010 {
            client.send(&pattern(len)).unwrap();
        }
        ringway.signal(Signal::SIGCONT);
        for answer in 0..9 {
            assert_eq!(receive(&client).unwrap(), b"whole", "answer {answer}");
        }
    });
    let counters = finish(ringway);
    assert_eq!(
        lost(&counters, "too_big"),
        2,
        "once for each change: {counters}"
    );
    assert_eq!(number(&counters, "flows_moved_total"), 0);
}

#[test]
fn a_flow_whose_datagrams_this_host_does_not_send_any_more_goes_on_elsewhere() {
    let (Some(host), Some(outside)) = (Namespace::new("host"), Namespace::new("outside")) else {
        return;
    };
    host.link("10.78.0.1/24", &outside, "10.78.0.2/24");
    let far = outside.run(|| {
        let socket = UdpSocket::bind("10.78.0.2:0").unwrap();
        Responder::on(socket, |_, _| vec![b"far".to_vec()])
    });
    host.run(|| {
        let near = Responder::named("near");
        let pool = backends([&far, &near]) + ", balance: first";
        let ringway = Launch::config(config("workers: 1", "", &pool)).start();
        let client = client(ringway.address());
        assert_eq!(ask(&client, b"q"), b"far");
        // The kernel says EINVAL to what is sent there from now on.
        host.ip(&["route", "add", "blackhole", "10.78.0.2/32"]);
        client.send(b"q").unwrap();
        ringway.counters_become("it is lost", |counters| lost(counters, "send_failed") == 1);
        assert_eq!(ask(&client, b"q"), b"near");
        let counters = finish(ringway);
        assert_eq!(number(&counters, "flows_total"), 1, "it is the same flow");
        assert_eq!(number(&counters, "flows_moved_total"), 1);
        assert!(number(&counters["backends"][0], "connect_failures_total") > 0);
    });
}

#[test]
fn a_router_that_takes_less_on_the_way_to_a_client_costs_one_answer() {
    for (addresses, mtu, first) in [(V4, "1280", 1_300), (V4, "700", 1_100), (V6, "1280", 1_300)] {
        let Some(path) = Path::new(addresses, mtu) else {
            return;
        };
        let backend = path.host.run(|| {
            Responder::answering(any_port(), |datagram, _| {
                let len = std::str::from_utf8(datagram).unwrap().parse().unwrap();
                vec![pattern(len)]
            })
        });
        let ringway = path.launch(&backends([&backend]));
        path.outside.run(|| {
            let client = client(path.middle);
            assert_eq!(ask(&client, b"600"), pattern(600));
            let (answer, unanswered) = ask_until_answered(&client, first.to_string().as_bytes());
            assert_eq!((answer, unanswered), (pattern(first), 1), "MTU {mtu}");
            for len in [1_200, 1_400, 65_507, 1_253, 673] {
                assert!(ask(&client, len.to_string().as_bytes()) == pattern(len));
            }
        });
        finish(ringway);
    }
}

#[test]
fn answers_that_cannot_leave_together_on_their_path_leave_one_by_one() {
    let Some(path) = Path::new(V4, "700") else {
        return;
    };
    let burst = path.host.run(|| {
        let socket = UdpSocket::bind(any_port()).unwrap();
        Burst::on(
            socket,
            1,
            (0..40).map(|number| vec![number; 1_100]).collect(),
        )
    });
    let ringway = path.launch(&backends([&burst.backend]));
    let client = path.outside.run(|| client(path.middle));
    for round in 1..=2 {
        client.send(b"burst").unwrap();
        burst.answer_at_once(&ringway);
        ringway.counters_become("they have left", |counters| {
            number(&counters["listeners"][0], "datagrams_sent") == round * 40
        });
    }
    // The first one of the first round was the one that showed how much the path takes.
    while receive(&client).unwrap() != [0; 1_100] {}
    for number in 1..40 {
        assert!(receive(&client).unwrap() == [number; 1_100], "{number}");
    }
    let counters = finish(ringway);
    let listener = &counters["listeners"][0];
    assert_eq!(number(listener, "datagrams_sent"), 80);
    assert_eq!(listener["datagrams_lost"], serde_json::json!({}));
}

#[test]
fn a_backend_that_no_route_leads_to_costs_no_datagram_and_no_other_flow() {
    let Some(host) = Namespace::new("lonely") else {
        return;
    };
    host.run(|| {
        let backend = Responder::echo();
        let pool = format!(
            "backends: [\"198.51.100.7:53\", \"{}\"], balance: first",
            backend.address()
        );
        let ringway = Launch::config(config("workers: 1", "", &pool)).start();
        let clients: Vec<UdpSocket> = (0..5).map(|_| client(ringway.address())).collect();
        for client in clients.iter().chain(&clients) {
            assert_eq!(ask(client, b"q"), b"q");
        }
        let counters = ringway.counters();
        assert_eq!(number(&counters, "flows_active"), 5, "none was evicted");
        assert_eq!(
            number(&counters["backends"][0], "connect_failures_total"),
            5
        );
        assert_eq!(
            counters["listeners"][0]["datagrams_lost"],
            serde_json::json!({})
        );
        finish(ringway);

        // Without another one it is lost, and said so.
        let pool = "backends: [\"198.51.100.7:53\"]";
        let ringway = Launch::config(config("workers: 1", "", pool)).start();
        client(ringway.address()).send(b"q").unwrap();
        ringway.counters_become("it is lost", |counters| lost(counters, "send_failed") == 1);
        finish(ringway);
    });
}

#[test]
fn clients_and_backends_of_both_families_meet_on_a_range_of_ports() {
    let Some(host) = Namespace::new("families") else {
        return;
    };
    host.run(|| {
        let four = Responder::named("four");
        let six = Responder::on(
            UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
            |datagram, _| vec![datagram.to_vec()],
        );
        let text = format!(
            "listeners:\n- {{name: a, bind: \"*:5300-5303\", protocol: udp, pool: six}}\n\
             - {{name: b, bind: [\"127.0.0.1:5310-5311\", \"[::1]:5310\"], protocol: udp, pool: four}}\n\
             pools: {{six: [\"{}\"], four: [\"{}\"]}}\n",
            six.address(),
            four.address()
        );
        let ringway = Launch::config(text).start();
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let clients: Vec<(UdpSocket, SocketAddr)> = both
            .iter()
            .flat_map(|ip| (5300..5304).map(|port| SocketAddr::from((*ip, port))))
            .map(|address| (client(address), address))
            .collect();
        for (client, address) in &clients {
            assert_eq!(ask(client, b"over there"), b"over there", "{address}");
        }
        for address in ["127.0.0.1:5310", "127.0.0.1:5311", "[::1]:5310"] {
            assert_eq!(ask(&client(address.parse().unwrap()), b"q"), b"four");
        }
        // IPv6 has room for a little more, which IPv4 cannot carry on.
        let (large, _) = &clients[4];
        assert!(ask(large, &pattern(65_507)) == pattern(65_507));
        let status = ringway.status();
        let [a, b] = [0, 1].map(|place| status["listeners"][place].clone());
        assert_eq!(a["protocol"], "udp");
        assert_eq!(a["addresses"], serde_json::json!(["*:5300", "*:5301", "*:5302", "*:5303"]));
        assert_eq!((&a["flows_active"], &b["flows_active"]), (&8.into(), &3.into()));
        assert_eq!(a["sessions_active"], 0);
        assert_eq!(a["datagrams"]["datagrams_received"], 9);
        assert_eq!(a["datagrams"]["flows_total"], 8);
        let backend = &status["pools"][0]["backends"][0];
        for (key, expected) in [
            ("flows_active", 8),
            ("flows_total", 8),
            ("flows_expired_total", 0),
            ("datagrams_sent", 9),
            ("datagrams_received", 9),
        ] {
            assert_eq!(backend[key], expected, "{key}");
        }
        let (code, shown, _) = ringway.command(&["status"]);
        assert_eq!(code, Some(0));
        assert!(shown.contains("udp: 8 flows, 9 datagrams from clients, 9 to clients"), "{shown}");
        finish(ringway);
    });
}

#[test]
fn what_only_ipv6_can_carry_is_counted_where_it_cannot_go_on() {
    const MOST: usize = 65_527;
    let four = Responder::echo();
    let text = config("workers: 1", "", &backends([&four])).replace("127.0.0.1:0", "[::1]:0");
    let ringway = Launch::config(text).start();
    let asking = client(ringway.address());
    asking.send(&pattern(MOST)).unwrap();
    ringway.counters_become("it is lost", |counters| lost(counters, "too_big") == 1);
    assert!(ask(&asking, &pattern(65_507)) == pattern(65_507));
    finish(ringway);

    // The same on the way back.
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let six = Responder::on(socket, |datagram, _| {
        let most = if datagram == b"most" { MOST } else { 65_507 };
        vec![pattern(most)]
    });
    let ringway = Launch::config(config("workers: 1", "", &backends([&six]))).start();
    let asking = client(ringway.address());
    asking.send(b"most").unwrap();
    ringway.counters_become("it is lost", |counters| lost(counters, "too_big") == 1);
    assert!(ask(&asking, b"less") == pattern(65_507));
    let counters = finish(ringway);
    let received = number(&counters["backends"][0], "datagrams_received");
    let sent = number(&counters["listeners"][0], "datagrams_sent");
    assert_eq!((received, sent), (2, 1));
}
