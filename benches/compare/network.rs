//! The network that everything runs on: as root a namespace of its own, so that neither this machine's settings nor
//! its other traffic are measured, and nothing is left behind; else the machine's own loopback.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, id};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

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
        settle()?;
        "network namespace of its own"
    } else {
        "this machine's network (not root)"
    };
    let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(format!("{place}, congestion control {}", congestion.trim()))
}

/// The balancer's end of a pair of interfaces, in a namespace of its own; the other end is in ours.
pub(crate) struct Veth {
    namespace: File,
}

impl Veth {
    /// Where a balancer listens there.
    pub(crate) const LISTEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    /// Makes it. Ours is every address from 10.77.128.0 on, so that each turn can have its own.
    pub(crate) fn new() -> Outcome<Veth> {
        let made = thread::spawn(|| -> Result<File, String> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                format!("a network namespace for the balancer needs root: {errno}")
            })?;
            settle().map_err(|error| error.to_string())?;
            File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())
        });
        let namespace = made
            .join()
            .map_err(|_| "the namespace's thread panicked")??;
        let veth = Veth { namespace };
        let theirs = veth.path();
        ip(&format!(
            "link add veth-ours mtu 1500 type veth peer name veth-theirs mtu 1500 netns {theirs}"
        ))?;
        ip("address add 10.77.0.1/16 dev veth-ours")?;
        ip("link set veth-ours up")?;
        ip("route add local 10.77.128.0/17 dev lo")?;
        veth.within(|| {
            ip(&format!("address add {}/16 dev veth-theirs", Veth::LISTEN))?;
            ip("link set veth-theirs up")
        })?;
        Ok(veth)
    }

    /// Under which others can enter it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.namespace.as_raw_fd())
    }

    fn within(&self, act: impl FnOnce() -> Outcome<()> + Send) -> Outcome<()> {
        let path = self.path();
        thread::scope(|scope| {
            let acting = scope.spawn(|| -> Result<(), String> {
                enter(&path).map_err(|error| error.to_string())?;
                act().map_err(|error| error.to_string())
            });
            acting.join().map_err(|_| "a thread panicked")?
        })?;
        Ok(())
    }
}

/// Moves this thread to the network namespace at a path.
pub(crate) fn enter(path: &str) -> Outcome<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Gives a new namespace a loopback and the settings that all have.
fn settle() -> Outcome<()> {
    ip("link set lo up")?;
    for (name, value) in SETTINGS {
        // What the kernel does not accept stays as it was, and is printed.
        let _ = fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    }
    Ok(())
}

fn ip(arguments: &str) -> Outcome<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("`ip {arguments}`: {}", said.trim()).into())
        }
        Err(error) => Err(format!("`ip`: {error}: is the package iproute2 installed?").into()),
    }
}
