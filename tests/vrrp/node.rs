//! A Ringway on a node of the link.

use serde_json::Value;

use crate::harness::{Launch, Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};

/// A configuration with one virtual router called `vip`; its keys but name, interface and addresses are given.
pub fn config(keys: &str) -> String {
    with_routers(&format!(
        "[{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, {keys}}}]"
    ))
}

/// A configuration with these virtual routers, and a pool that is always well.
pub fn with_routers(routers: &str) -> String {
    format!(
        "global: {{workers: 1, drain_timeout: 1s}}\n\
         listeners: [{{name: in, bind: \"10.77.0.100:7000\", pool: pg}}]\n\
         pools: {{pg: {{probe: none, backends: [\"127.0.0.1:7001\"]}}}}\n\
         vrrp: {routers}\n"
    )
}

pub fn start(lan: &Lan, number: usize, config: &str) -> Ringway {
    lan.node(number).run(|| Launch::config(config).start())
}

/// Nodes 1 and 2 with these further keys: the first one is active, and the other one its backup.
pub fn pair(lan: &Lan, more: &str) -> (Ringway, Ringway) {
    let first = start(lan, 1, &config(&format!("priority: 254, {more}")));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let second = start(lan, 2, &config(&format!("priority: 250, {more}")));
    becomes(&second, "backup");
    (first, second)
}

/// The configuration of one of the nodes 1 to 3, which name each other as peers.
pub fn one_of_three(number: usize, priority: u8) -> String {
    let peers = (1..=3).filter(|peer| *peer != number);
    let peers: Vec<String> = peers.map(|peer| format!("10.77.0.{peer}")).collect();
    config(&format!(
        "priority: {priority}, peers: [{}]",
        peers.join(", ")
    ))
}

/// Its virtual router of this name, as the status has it.
pub fn router(ringway: &Ringway, name: &str) -> Value {
    let status = ringway.status();
    let all = status["virtual_routers"].as_array().unwrap().iter();
    let mut own = all.filter(|one| one["name"] == name);
    own.next()
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        .clone()
}

pub fn state(ringway: &Ringway) -> String {
    router(ringway, "vip")["state"].as_str().unwrap().to_owned()
}

#[track_caller]
pub fn becomes(ringway: &Ringway, wanted: &str) {
    eventually(SOON, &format!("it is {wanted}"), || {
        state(ringway) == wanted
    });
}

/// The states that it went through, oldest first.
pub fn states(ringway: &Ringway) -> Vec<String> {
    let router = router(ringway, "vip");
    let history = router["history"].as_array().unwrap().iter();
    history
        .map(|one| one["to"].as_str().unwrap().to_owned())
        .collect()
}

/// Writes a program for the shell that can be run by its path.
pub fn executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
