//! Two Ringways in the forms of the protocol that the other tests do not use: they agree on one, each goes on alone
//! while the link is parted, one is left when it heals, and takes over for good from one that is killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{SOON, eventually};
use crate::lan::{Lan, VIP, VIP6};
use crate::node::{becomes, router, start, states, with_routers};

/// Of the address of a node that was killed, with a lease of up to three seconds.
const GONE_MAX: Duration = Duration::from_millis(3500);

struct Form {
    label: &'static str,
    version: u8,
    vip: &'static str,
    /// All addresses of nodes begin with this, where they send to each other alone.
    unicast: Option<&'static str>,
}

impl Form {
    fn file(&self, number: usize) -> String {
        let (own, peer) = (number, 3 - number);
        let priority = [254, 250][own - 1];
        let peers = self.unicast.map_or(String::new(), |prefix| {
            format!(", peers: [\"{prefix}{peer}\"]")
        });
        with_routers(&format!(
            "[{{name: vip, interface: eth0, vrid: 51, version: {}, addresses: \"{}\", priority: {priority}{peers}}}]",
            self.version, self.vip
        ))
    }
}

#[track_caller]
fn survives_a_partition_and_a_kill(form: &Form) {
    let Some(lan) = Lan::new(form.label, 2) else {
        return;
    };
    let mut first = start(&lan, 1, &form.file(1));
    becomes(&first, "active");
    let second = start(&lan, 2, &form.file(2));
    eventually(SOON, "the second one hears the first", || {
        router(&second, "vip")["active_router"].is_string()
    });
    assert_eq!(router(&second, "vip")["alarms"].to_string(), "[]");
    lan.cut(2);
    becomes(&second, "active");
    eventually(SOON, "each thinks that it is alone", || {
        lan.holders(form.vip) == [1, 2]
    });
    lan.heal(2);
    becomes(&second, "backup");
    lan.moves_to(1, form.vip);
    assert_eq!(states(&first), ["backup", "active"]);
    let killed = Instant::now();
    first.signal(Signal::SIGKILL);
    first.wait_exit(SOON);
    becomes(&second, "active");
    println!(
        "{}: active {:?} after kill -9",
        form.label,
        killed.elapsed()
    );
    lan.moves_to(2, form.vip);
    let gone = killed.elapsed();
    println!("{}: the address is gone after {gone:?}", form.label);
    assert!(gone < GONE_MAX, "{gone:?}");
    assert_eq!(states(&second), ["backup", "active", "backup", "active"]);
}

#[test]
fn version_2_by_unicast_survives_a_partition_and_a_kill() {
    survives_a_partition_and_a_kill(&Form {
        label: "two",
        version: 2,
        vip: VIP,
        unicast: Some("10.77.0."),
    });
}

#[test]
fn version_3_over_ipv6_survives_a_partition_and_a_kill() {
    survives_a_partition_and_a_kill(&Form {
        label: "six",
        version: 3,
        vip: VIP6,
        unicast: None,
    });
}

#[test]
fn version_3_over_ipv6_by_unicast_survives_a_partition_and_a_kill() {
    survives_a_partition_and_a_kill(&Form {
        label: "sixu",
        version: 3,
        vip: VIP6,
        unicast: Some("fd77::"),
    });
}

#[test]
fn an_interface_of_ipv6_that_was_down_is_used_again_once_its_address_is_known_to_be_its_own() {
    let Some(lan) = Lan::new("sixup", 2) else {
        return;
    };
    let form = Form {
        label: "sixup",
        version: 3,
        vip: VIP6,
        unicast: None,
    };
    let node = lan.node(1);
    let first = start(&lan, 1, &form.file(1));
    becomes(&first, "active");
    let second = start(&lan, 2, &form.file(2));
    becomes(&second, "backup");
    node.ip(&["link", "set", "eth0", "down"]);
    becomes(&first, "initialize");
    lan.moves_to(2, form.vip);
    // The kernel looks for somebody with its address before it lets anybody use it.
    node.set("ipv6/conf/eth0/accept_dad", "1");
    node.ip(&["link", "set", "eth0", "up"]);
    becomes(&first, "backup");
    eventually(SOON, "it hears the second one", || {
        router(&first, "vip")["active_router"].is_string()
    });
    assert_eq!(states(&first), ["backup", "active", "initialize", "backup"]);
    assert_eq!(states(&second), ["backup", "active"]);
}
