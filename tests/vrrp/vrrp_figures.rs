//! The time from a fault to the first answer of the other node, for Ringway and for keepalived, as a table. Only on
//! request: `scripts/bench-failover`.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, start};
use crate::program;
use crate::vrrp_with_keepalived::Keepalived;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Cable,
    Interface,
    Heal,
}

const FAULTS: [(Fault, &str); 5] = [
    (Fault::Kill, "kill -9"),
    (Fault::Stop, "SIGTERM"),
    (Fault::Cable, "cable pulled"),
    (Fault::Interface, "interface down"),
    (Fault::Heal, "split brain heals"),
];

/// For Ringway and for keepalived.
const FORMS: [(&str, &str, &str); 3] = [
    ("v2, 1 s", "version: 2", " advert_int 1"),
    ("v3, 100 ms", "version: 3", " version 3\n advert_int 0.1"),
    (
        "v3, 10 ms",
        "version: 3, advert_interval: 10ms",
        " version 3\n advert_int 0.01",
    ),
];

/// What says its number to whoever connects.
fn sayer(lan: &Lan, number: usize) {
    lan.node(number).run(|| {
        let listener = TcpListener::bind("0.0.0.0:9000").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = std::io::Write::write_all(&mut &stream, &[u8::try_from(number).unwrap()]);
            }
        });
    });
}

fn answer() -> Option<u8> {
    let address: SocketAddr = format!("{VIP}:9000").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(5)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

enum Node {
    Ringway(Ringway),
    Keepalived(Keepalived),
}

impl Node {
    fn signal(&self, signal: Signal) {
        match self {
            Node::Ringway(node) => node.signal(signal),
            Node::Keepalived(node) => node.signal_all(signal),
        }
    }
}

fn node(lan: &Lan, number: usize, keepalived: Option<&PathBuf>, form: usize) -> Node {
    let priority = if number == 1 { 254 } else { 250 };
    let (_, ringway, other) = FORMS[form];
    match keepalived {
        None => Node::Ringway(start(
            lan,
            number,
            &config(&format!("priority: {priority}, {ringway}")),
        )),
        Some(program) => {
            let text = format!(
                " state BACKUP\n nopreempt\n priority {priority}\n{other}\n virtual_ipaddress {{ {VIP} }}"
            );
            Node::Keepalived(Keepalived::start(lan, number, program, &text))
        }
    }
}

/// From the fault to the first answer of the second node.
fn measure(fault: Fault, keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    let lan = Lan::new("bench", 3)?;
    (1..=2).for_each(|number| sayer(&lan, number));
    let first = node(&lan, 1, keepalived, form);
    if let Node::Ringway(node) = &first {
        becomes(node, "active");
    }
    lan.moves_to(1, VIP);
    let second = node(&lan, 2, keepalived, form);
    std::thread::sleep(Duration::from_millis(1500));
    if let Node::Ringway(node) = &second {
        becomes(node, "backup");
    }
    if fault == Fault::Heal {
        // The clients are on the side of the second node, which loses.
        lan.cut(1);
        eventually(SOON, "each is alone", || lan.holders(VIP) == [1, 2]);
    }
    let (before, wanted) = match fault {
        Fault::Heal => (2, 1),
        Fault::Kill | Fault::Stop | Fault::Cable | Fault::Interface => (1, 2),
    };
    let after = lan.node(3).run(|| {
        eventually(SOON, "the address answers", || answer() == Some(before));
        let from = Instant::now();
        match fault {
            Fault::Kill => first.signal(Signal::SIGKILL),
            Fault::Stop => first.signal(Signal::SIGTERM),
            Fault::Cable => lan.pull(1),
            Fault::Interface => lan.node(1).ip(&["link", "set", "eth0", "down"]),
            Fault::Heal => lan.heal(1),
        }
        // Of a heal, only the time without any answer counts.
        let mut heard = from;
        loop {
            let now = answer();
            if now == Some(wanted) {
                return heard.elapsed();
            }
            if now.is_some() && fault == Fault::Heal {
                heard = Instant::now();
            }
            assert!(from.elapsed() < SOON, "nobody takes over: {fault:?}");
        }
    });
    drop((first, second));
    Some(after)
}

fn median(fault: Fault, keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    let runs = program::setting("RINGWAY_BENCH_RUNS", 5);
    let mut all: Vec<Duration> = (0..runs)
        .map(|_| measure(fault, keepalived, form))
        .collect::<Option<_>>()?;
    all.sort();
    Some(all[all.len() / 2])
}

#[test]
#[ignore = "minutes; scripts/bench-failover runs it"]
fn figures() {
    let keepalived = program::find(["keepalived"]).map(|[program]| program);
    println!("| fault | form | Ringway, ms | keepalived, ms |");
    println!("|---|---|---|---|");
    for (fault, name) in FAULTS {
        for (form, (label, ..)) in FORMS.iter().enumerate() {
            let Some(ours) = median(fault, None, form) else {
                return;
            };
            let theirs = keepalived
                .as_ref()
                .and_then(|program| median(fault, Some(program), form));
            let theirs = theirs.map_or("not installed".to_owned(), |one| {
                one.as_millis().to_string()
            });
            println!("| {name} | {label} | {} | {theirs} |", ours.as_millis());
        }
    }
}
