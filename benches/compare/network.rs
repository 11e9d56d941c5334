//! The network that everything runs on: as root a namespace of its own, so that neither this machine's settings nor
//! its other traffic are measured, and nothing is left behind; else the machine's own loopback.

use std::fs;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::Outcome;

/// What a namespace gets. Programs that cannot set keepalive's times take them from here. The last congestion
/// control that the kernel accepts is used; one that paces (as bbr does) would have its timers measured on loopback.
const SETTINGS: &[(&str, &str)] = &[
    ("tcp_keepalive_time", "60"),
    ("tcp_keepalive_intvl", "10"),
    ("tcp_keepalive_probes", "6"),
    ("tcp_congestion_control", "reno"),
    ("tcp_congestion_control", "cubic"),
];

/// Moves this process, and with it all its children, to a network of its own if that is permitted. Returns what it
/// is on now.
pub(crate) fn isolate() -> Outcome<String> {
    let place = if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        bring_loopback_up()?;
        for (name, value) in SETTINGS {
            // What the kernel does not accept stays as it was, and is printed.
            let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
        }
        "network namespace of its own"
    } else {
        "this machine's network (not root)"
    };
    let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(format!("{place}, congestion control {}", congestion.trim()))
}

fn bring_loopback_up() -> Outcome<()> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("`ip link set lo up` failed: is the package iproute2 installed?".into());
    }
    Ok(())
}
