//! A MAC address that moves with the addresses.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringway::sys::netlink::{Change, Netlink};

use crate::harness::{SOON, eventually};
use crate::lan::{Lan, VIP, VIP6};
use crate::node::{becomes, router, start, states, with_routers};
use crate::onlooker::{Onlooker, advertising_macs};
use crate::program;

const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
const MAC6: [u8; 6] = [0, 0, 0x5e, 0, 2, 51];

fn file(priority: u8) -> String {
    let more = format!("priority: {priority}, group: g, virtual_mac: true");
    with_routers(&format!(
        "[{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, {more}}}, \
         {{name: vip6, interface: eth0, vrid: 51, addresses: \"fd77::100/128\", {more}}}]"
    ))
    .replace(
        "bind: \"10.77.0.100:7000\"",
        "bind: [\"10.77.0.100:7000\", \"[fd77::100]:7000\"]",
    )
}

/// The MAC addresses of a node's interfaces.
fn macs(lan: &Lan, number: usize) -> Vec<[u8; 6]> {
    let all = lan
        .node(number)
        .run(|| Netlink::open().unwrap().everything().unwrap());
    let macs = all.into_iter().filter_map(|one| match one {
        Change::Link(link) => link.mac,
        Change::LinkGone(_) | Change::Address(_) | Change::AddressGone(_) => None,
    });
    macs.collect()
}

/// What the third node believes about an address, and that it is served there.
#[track_caller]
fn is_served_from(lan: &Lan, address: &str, mac: &str) {
    let to: SocketAddr = match address.contains(':') {
        true => format!("[{address}]:7000").parse().unwrap(),
        false => format!("{address}:7000").parse().unwrap(),
    };
    lan.node(3).run(|| {
        eventually(SOON, "it takes connections", || {
            TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok()
        });
        let mut command = Command::new("ip");
        let known = program::run(command.args(["neighbour", "show", address]), SOON);
        assert!(known.contains(mac), "{address}: {known}");
    });
}

#[test]
fn the_mac_address_moves_with_the_addresses_and_neighbours_learn_nothing_new() {
    let Some(lan) = Lan::new("vmac", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let mut first = start(&lan, 1, &file(254));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    lan.moves_to(1, VIP6);
    let second = start(&lan, 2, &file(250));
    becomes(&second, "backup");
    assert!(macs(&lan, 1).contains(&MAC) && macs(&lan, 1).contains(&MAC6));
    assert!(!macs(&lan, 2).contains(&MAC), "while it is active only");
    assert_eq!(advertising_macs(&lan, 3), [MAC]);
    is_served_from(&lan, VIP, "00:00:5e:00:01:33");
    is_served_from(&lan, VIP6, "00:00:5e:00:02:33");
    let killed = Instant::now();
    first.signal(Signal::SIGKILL);
    first.wait_exit(SOON);
    lan.moves_to(2, VIP);
    lan.moves_to(2, VIP6);
    println!(
        "moved, and gone by itself, {:?} after kill -9",
        killed.elapsed()
    );
    is_served_from(&lan, VIP, "00:00:5e:00:01:33");
    is_served_from(&lan, VIP6, "00:00:5e:00:02:33");
    assert!(macs(&lan, 1).contains(&MAC), "a crash leaves it behind");
    let first = start(&lan, 1, &file(254));
    becomes(&first, "backup");
    eventually(SOON, "a start removes what a crash has left", || {
        !macs(&lan, 1).contains(&MAC) && !macs(&lan, 1).contains(&MAC6)
    });
    let (code, out, said) = second.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    lan.moves_to(1, VIP);
    lan.moves_to(1, VIP6);
    is_served_from(&lan, VIP, "00:00:5e:00:01:33");
    for node in [&first, &second] {
        for name in ["vip", "vip6"] {
            assert_eq!(router(node, name)["alarms"].to_string(), "[]");
        }
    }
    assert_eq!(states(&second), ["backup", "active", "backup"]);
    assert!(onlooker.all().len() > 10);
}

#[test]
fn a_virtual_link_that_somebody_deletes_is_made_again() {
    let Some(lan) = Lan::new("vdel", 2) else {
        return;
    };
    let first = start(&lan, 1, &file(254));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let links = lan.node(1).run(|| {
        let mut command = Command::new("ip");
        program::run(
            command.args(["-o", "link", "show", "type", "macvlan"]),
            SOON,
        )
    });
    let name = links.split_whitespace().nth(1).unwrap();
    let name = name.split_once('@').unwrap().0;
    lan.node(1).ip(&["link", "del", name]);
    eventually(SOON, "both are back", || {
        macs(&lan, 1).contains(&MAC)
            && macs(&lan, 1).contains(&MAC6)
            && lan.has(1, VIP)
            && lan.has(1, VIP6)
    });
    assert_eq!(states(&first), ["backup", "active"]);
    let ignores = || {
        let path = "/proc/sys/net/ipv4/conf/eth0/arp_ignore";
        lan.node(1).run(|| std::fs::read_to_string(path).unwrap())
    };
    assert_eq!(ignores().trim(), "1");
    let mut first = first;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_exit(SOON).code(), Some(0), "{}", first.log());
    assert!(!macs(&lan, 1).contains(&MAC) && !macs(&lan, 1).contains(&MAC6));
    assert_eq!(ignores().trim(), "0", "as it was before");
}

#[test]
fn two_active_ones_with_the_same_mac_address_hear_each_other_when_a_partition_heals() {
    let Some(lan) = Lan::new("vsplit", 2) else {
        return;
    };
    let first = start(&lan, 1, &file(254));
    becomes(&first, "active");
    let second = start(&lan, 2, &file(250));
    becomes(&second, "backup");
    lan.cut(2);
    becomes(&second, "active");
    eventually(SOON, "both have them", || {
        lan.holders(VIP) == [1, 2] && lan.holders(VIP6) == [1, 2]
    });
    lan.heal(2);
    lan.moves_to(1, VIP);
    lan.moves_to(1, VIP6);
    becomes(&second, "backup");
    assert_eq!(states(&first), ["backup", "active"]);
}
