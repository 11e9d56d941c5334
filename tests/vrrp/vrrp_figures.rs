//! The time from a fault to the first answer of the other node, for Ringway and for keepalived, as a table. Only on
//! request: `scripts/bench-failover`.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, start, with_routers};
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

/// What a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// From the fault to the first answer of the second node.
    Takeover(Fault),
    /// From the removal of the address to the moment at which it is there again.
    Deletion,
    /// From a kill of the first node to the moment at which the second one has every address of 255 virtual routers.
    KillOfMany,
}

const ROWS: [(Row, &str); 7] = [
    (Row::Takeover(Fault::Kill), "kill -9"),
    (Row::Takeover(Fault::Stop), "SIGTERM"),
    (Row::Takeover(Fault::Cable), "cable pulled"),
    (Row::Takeover(Fault::Interface), "interface down"),
    (Row::Takeover(Fault::Heal), "split brain heals"),
    (Row::Deletion, "address deleted by hand"),
    (Row::KillOfMany, "kill -9, 255 virtual routers"),
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
    node_of(lan, number, keepalived, form, &[(51, VIP.to_owned())])
}

/// With virtual routers of these numbers and addresses; the first one is called `vip`.
fn node_of(
    lan: &Lan,
    number: usize,
    keepalived: Option<&PathBuf>,
    form: usize,
    routers: &[(usize, String)],
) -> Node {
    let priority = if number == 1 { 254 } else { 250 };
    let (_, ringway, other) = FORMS[form];
    let name = |vrid: usize| match vrid == routers[0].0 {
        true => "vip".to_owned(),
        false => format!("v{vrid}"),
    };
    match keepalived {
        None => {
            let all = routers.iter().map(|(vrid, address)| {
                format!(
                    "{{name: {}, interface: eth0, vrid: {vrid}, addresses: {address}/32, \
                     priority: {priority}, {ringway}}}",
                    name(*vrid)
                )
            });
            let all: Vec<String> = all.collect();
            let file = with_routers(&format!("[{}]", all.join(", ")));
            Node::Ringway(start(lan, number, &file))
        }
        Some(program) => {
            let all = routers.iter().map(|(vrid, address)| {
                format!(
                    "vrrp_instance {} {{\n interface eth0\n virtual_router_id {vrid}\n state BACKUP\n nopreempt\n \
                     priority {priority}\n{other}\n virtual_ipaddress {{ {address} }}\n}}\n",
                    name(*vrid)
                )
            });
            let text: String = all.collect();
            Node::Keepalived(Keepalived::of_file(lan, number, program, &text))
        }
    }
}

fn measure(row: Row, keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    match row {
        Row::Takeover(fault) => measure_takeover(fault, keepalived, form),
        Row::Deletion => {
            let lan = Lan::new("bench", 1)?;
            let _node = first_node(&lan, keepalived, form);
            Some(lan.gap_after_removal(1, VIP))
        }
        Row::KillOfMany => measure_many(keepalived, form),
    }
}

/// The one that has the address.
fn first_node(lan: &Lan, keepalived: Option<&PathBuf>, form: usize) -> Node {
    let first = node(lan, 1, keepalived, form);
    if let Node::Ringway(node) = &first {
        becomes(node, "active");
    }
    lan.moves_to(1, VIP);
    first
}

fn measure_many(keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    let lan = Lan::new("bench", 2)?;
    let routers: Vec<(usize, String)> = (1..=255)
        .map(|vrid| (vrid, format!("10.78.0.{vrid}")))
        .collect();
    let count = |number: usize| lan.count(number, "10.78.0.");
    let first = node_of(&lan, 1, keepalived, form, &routers);
    eventually(SOON, "the first one has all", || count(1) == routers.len());
    let second = node_of(&lan, 2, keepalived, form, &routers);
    // Longer than it waits for a word.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(count(2), 0, "it hears the first one");
    let from = Instant::now();
    first.signal(Signal::SIGKILL);
    eventually(SOON, "the second one has all", || count(2) == routers.len());
    let after = from.elapsed();
    drop((first, second));
    Some(after)
}

fn measure_takeover(fault: Fault, keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    let lan = Lan::new("bench", 3)?;
    (1..=2).for_each(|number| sayer(&lan, number));
    let first = first_node(&lan, keepalived, form);
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

fn median(row: Row, keepalived: Option<&PathBuf>, form: usize) -> Option<Duration> {
    let runs = program::setting("RINGWAY_BENCH_RUNS", 5);
    let mut all: Vec<Duration> = (0..runs)
        .map(|_| measure(row, keepalived, form))
        .collect::<Option<_>>()?;
    all.sort();
    Some(all[all.len() / 2])
}

/// In milliseconds; what is short with its first decimal.
fn written(one: Duration) -> String {
    match one.as_millis() {
        0..10 => format!("{:.1}", one.as_secs_f64() * 1000.0),
        millis => millis.to_string(),
    }
}

#[test]
#[ignore = "minutes; scripts/bench-failover runs it"]
fn figures() {
    let keepalived = program::find(["keepalived"]).map(|[program]| program);
    println!("| fault | form | Ringway, ms | keepalived, ms |");
    println!("|---|---|---|---|");
    let wanted = std::env::var("RINGWAY_BENCH_ROWS").unwrap_or_default();
    let rows = ROWS.into_iter().filter(|(_, name)| name.contains(&wanted));
    for (row, name) in rows {
        // So many of them are for long intervals.
        let forms = if row == Row::KillOfMany {
            1
        } else {
            FORMS.len()
        };
        for (form, (label, ..)) in FORMS.iter().enumerate().take(forms) {
            let Some(ours) = median(row, None, form) else {
                return;
            };
            let theirs = keepalived
                .as_ref()
                .and_then(|program| median(row, Some(program), form));
            let theirs = theirs.map_or("not installed".to_owned(), written);
            println!("| {name} | {label} | {} | {theirs} |", written(ours));
        }
    }
}
