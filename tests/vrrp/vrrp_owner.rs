//! A node whose interface has the virtual address for good (priority 255).

use nix::sys::signal::Signal;
use ringway::sys::netlink::{Change, Netlink};

use crate::harness::{SOON, eventually};
use crate::lan::Lan;
use crate::node::{becomes, router, start, states};
use crate::onlooker::Onlooker;

/// The first node's own address.
const OWNED: &str = "10.77.0.1";

fn config(keys: &str) -> String {
    format!(
        "global: {{workers: 1, drain_timeout: 1s}}\n\
         listeners: [{{name: in, bind: \"{OWNED}:7000\", pool: pg}}]\n\
         pools: {{pg: {{probe: none, backends: [\"127.0.0.1:7001\"]}}}}\n\
         vrrp: [{{name: vip, interface: eth0, vrid: 51, addresses: {OWNED}/24, {keys}}}]\n"
    )
}

/// How often a node has it: for good, and on a lease.
fn had(lan: &Lan, number: usize) -> (usize, usize) {
    let all = lan
        .node(number)
        .run(|| Netlink::open().unwrap().everything().unwrap());
    let owned = all.iter().filter_map(|one| match one {
        Change::Address(one) if one.address.to_string() == OWNED => Some(one.is_permanent),
        Change::Address(_) | Change::AddressGone(_) | Change::Link(_) | Change::LinkGone(_) => None,
    });
    let (permanent, leased): (Vec<bool>, Vec<bool>) = owned.partition(|is_permanent| *is_permanent);
    (permanent.len(), leased.len())
}

#[test]
fn an_owner_keeps_the_address_of_its_interface_and_takes_over_again_when_it_is_back() {
    let Some(lan) = Lan::new("own", 2) else {
        return;
    };
    lan.node(1)
        .ip(&["address", "add", "10.77.0.11/24", "dev", "eth0"]);
    let mut first = start(&lan, 1, &config("priority: 255"));
    becomes(&first, "active");
    assert_eq!(states(&first), ["active"], "an owner waits for nobody");
    let line = first.wait_line("the interface's own");
    assert!(
        line.contains("10.77.0.1 is the interface's own (priority 255)"),
        "{line}"
    );
    let mut second = start(&lan, 2, &config("priority: 250"));
    becomes(&second, "backup");
    let active = || router(&second, "vip")["active_router"].to_string();
    eventually(SOON, "it hears the owner", || active() == "\"10.77.0.11\"");
    assert_eq!((had(&lan, 1), had(&lan, 2)), ((1, 0), (0, 0)));

    first.signal(Signal::SIGKILL);
    becomes(&second, "active");
    eventually(SOON, "the other one has it", || had(&lan, 2) == (0, 1));
    first.wait_exit(SOON);
    assert_eq!(had(&lan, 1), (1, 0), "it is the interface's");

    let mut first = start(&lan, 1, &config("priority: 255"));
    becomes(&first, "active");
    becomes(&second, "backup");
    eventually(SOON, "the other one has let go", || had(&lan, 2) == (0, 0));
    let (code, out, said) = first.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    becomes(&second, "active");
    assert_eq!(had(&lan, 1), (1, 0), "not removed by a hand-over");
    let (code, ..) = first.command(&["failover", "--release"]);
    assert_eq!(code, Some(0));
    becomes(&first, "active");
    becomes(&second, "backup");
    for node in [&mut second, &mut first] {
        node.signal(Signal::SIGTERM);
        node.exit_in_order(SOON);
    }
    assert_eq!(had(&lan, 1), (1, 0), "not removed by a stop");
}

#[test]
fn an_owner_with_nothing_else_speaks_from_its_address_and_leaves_it_to_others_to_give_it_back() {
    let Some(lan) = Lan::new("sole", 2) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 2);
    let first = start(&lan, 1, &config("priority: 255"));
    becomes(&first, "active");
    first.wait_line("give the interface a second address");
    eventually(SOON, "it is heard", || !onlooker.from(1).is_empty());
    let address = |action: &str| {
        let net = format!("{OWNED}/24");
        lan.node(1).ip(&["address", action, &net, "dev", "eth0"]);
    };
    address("del");
    becomes(&first, "initialize");
    assert_eq!(had(&lan, 1), (0, 0));
    address("add");
    becomes(&first, "active");
    assert_eq!(had(&lan, 1), (1, 0));
    assert_eq!(states(&first), ["active", "initialize", "active"]);
}
