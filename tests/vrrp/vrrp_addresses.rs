//! The addresses on a real link: without a lease, left over from before, on an interface that gets another name, and
//! when the kernel could not tell what has become of them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{Folder, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, pair, router, start, states};
use crate::program;
use crate::vrrp_disturbed::compiled;

const FOREVER: &str = "valid_lft forever";

/// What `ip` says about the address on a node.
fn shown(lan: &Lan, number: usize) -> String {
    lan.node(number).run(|| {
        let mut command = Command::new("ip");
        program::run(command.args(["address", "show", "to", VIP]), SOON)
    })
}

#[test]
fn what_a_killed_node_without_a_lease_leaves_behind_is_removed_by_its_next_start() {
    let Some(lan) = Lan::new("lease", 2) else {
        return;
    };
    let file = |priority: u8, lease: &str| config(&format!("priority: {priority}, lease: {lease}"));
    let mut first = start(&lan, 1, &file(254, "none"));
    becomes(&first, "active");
    let second = start(&lan, 2, &file(250, "auto"));
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    let of_first = shown(&lan, 1);
    assert!(of_first.contains(FOREVER), "{of_first}");
    first.signal(Signal::SIGKILL);
    first.wait_exit(SOON);
    becomes(&second, "active");
    eventually(SOON, "the second one has it, too", || {
        lan.holders(VIP) == [1, 2]
    });
    let of_second = shown(&lan, 2);
    assert!(!of_second.contains(FOREVER), "{of_second}");
    let again = start(&lan, 1, &file(254, "none"));
    lan.moves_to(2, VIP);
    assert_eq!(states(&again), ["backup"]);
    assert_eq!(states(&second), ["backup", "active"]);
}

#[test]
fn an_interface_with_another_name_is_gone_until_it_has_its_own_again() {
    let Some(lan) = Lan::new("name", 2) else {
        return;
    };
    let (first, _second) = pair(&lan, "");
    let rename = |from: &str, to: &str| {
        let node = lan.node(1);
        node.ip(&["link", "set", from, "name", to]);
    };
    rename("eth0", "lan0");
    becomes(&first, "initialize");
    lan.moves_to(2, VIP);
    rename("lan0", "eth0");
    becomes(&first, "backup");
    eventually(SOON, "it hears the second one", || {
        router(&first, "vip")["active_router"] == "10.77.0.2"
    });
    lan.pull(2);
    becomes(&first, "active");
    eventually(SOON, "it has the address again", || lan.has(1, VIP));
    assert_eq!(
        states(&first),
        ["backup", "active", "initialize", "backup", "active"]
    );
}

/// How many messages of the kernel found no room, by what the sockets of a node's namespace have counted.
fn netlink_drops(lan: &Lan) -> u64 {
    let table = lan
        .node(1)
        .run(|| std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
    let drops = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(8));
    drops.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// Makes the kernel tell more about addresses than fits into a socket that nobody reads.
fn flood(lan: &Lan) {
    for third in 0..100 {
        let mut batch = Command::new("ip");
        batch.args(["-n", lan.node(1).name(), "-batch", "-"]);
        let mut child = batch.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for fourth in 1..=250 {
            writeln!(input, "address add 10.99.{third}.{fourth}/32 dev lo").unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
        if netlink_drops(lan) > 0 {
            return;
        }
    }
    panic!("everything fitted in");
}

#[test]
fn an_address_whose_removal_the_kernel_could_not_tell_is_put_back() {
    let folder = Folder::new();
    let Some(freezer) = compiled("freeze_thread", &folder) else {
        return;
    };
    let Some(lan) = Lan::new("lost", 1) else {
        return;
    };
    // Nothing but asking again tells it that the address is gone: without a lease there is nothing to renew.
    let first = start(&lan, 1, &config("priority: 254, lease: none"));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let thread = crate::harness::facts::thread_named(first.pid(), "vrrp-kernel");
    let mut command = program::mortal(&freezer);
    command.args([&thread.to_string(), "15000"]);
    let mut frozen = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(frozen.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "frozen");
    assert_eq!(netlink_drops(&lan), 0);
    flood(&lan);
    let before = netlink_drops(&lan);
    let address = format!("{VIP}/32");
    lan.node(1).ip(&["address", "del", &address, "dev", "eth0"]);
    assert!(netlink_drops(&lan) > before, "the kernel told it");
    frozen.kill().unwrap();
    frozen.wait().unwrap();
    eventually(SOON, "the address is back", || lan.has(1, VIP));
    assert_eq!(states(&first), ["backup", "active"]);
}
