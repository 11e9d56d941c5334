//! A Ringway and a keepalived in one pair: both understand each other in both roles, for every form of the protocol.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Folder, SOON, eventually};
use crate::lan::{Lan, VIP, VIP6};
use crate::node::{becomes, config, router, start, state, states, with_routers};
use crate::program;

/// A keepalived on a node; ended on drop.
pub struct Keepalived {
    child: Child,
    folder: Folder,
}

impl Keepalived {
    /// With one instance called `vip`.
    pub fn start(lan: &Lan, number: usize, program: &PathBuf, instance: &str) -> Keepalived {
        let text = format!(
            "vrrp_instance vip {{\n interface eth0\n virtual_router_id 51\n{instance}\n}}\n"
        );
        Self::of_file(lan, number, program, &text)
    }

    pub fn of_file(lan: &Lan, number: usize, program: &PathBuf, text: &str) -> Keepalived {
        let folder = Folder::new();
        let path = folder.path().join("keepalived.conf");
        std::fs::write(&path, text).unwrap();
        let file = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(file("log")).unwrap();
        let child = lan.node(number).run(|| {
            Command::new(program)
                .args(["--dont-fork", "--log-console", "--vrrp", "--use-file"])
                .arg(&path)
                .arg("--pid")
                .arg(file("pid"))
                .arg("--vrrp_pid")
                .arg(file("vrrp.pid"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap()
        });
        Keepalived { child, folder }
    }

    /// Waits until `vip` is in this state, as its log has it.
    #[track_caller]
    pub fn becomes(&self, wanted: &str) {
        eventually(SOON, &format!("keepalived is {wanted}"), || {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            let mut states = log.lines().filter_map(|line| line.split_once("Entering "));
            states
                .next_back()
                .is_some_and(|(_, state)| state.starts_with(wanted))
        });
    }

    /// In order: it says that it leaves.
    pub fn stop(mut self) {
        self.terminate();
    }

    /// It and the process that it has started.
    pub fn signal_all(&self, signal: Signal) {
        let own = i32::try_from(self.child.id()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        // In order it is told to stop alone, and tells its child.
        let is_told_alone = signal == Signal::SIGTERM;
        let children = children.filter(|_: &i32| !is_told_alone);
        let all: Vec<i32> = std::iter::once(own).chain(children).collect();
        for pid in all {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn terminate(&mut self) {
        // One that stands still would not hear it.
        self.signal_all(Signal::SIGCONT);
        self.signal_all(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.terminate();
        }
    }
}

/// One form of the protocol, as both have it.
struct Form {
    label: &'static str,
    ringway: &'static str,
    keepalived: &'static str,
    vip: &'static str,
}

impl Form {
    /// Longer than a keepalived with this form that hears nothing waits before it takes over.
    fn patience(&self) -> Duration {
        match self.keepalived.contains("version 3") {
            true => Duration::from_secs(1),
            false => Duration::from_secs(4),
        }
    }
}

/// Both roles: Ringway is the better one first, hands over by stopping, and is the lesser one then.
#[track_caller]
fn understand_each_other(form: &Form) {
    let Some([program]) = program::find(["keepalived"]) else {
        return;
    };
    let Some(lan) = Lan::new(form.label, 3) else {
        return;
    };
    let file = |priority: u8| {
        let keys = format!("priority: {priority}, {}", form.ringway);
        if form.vip == VIP {
            config(&keys)
        } else {
            with_routers(&format!(
                "[{{name: vip, interface: eth0, vrid: 51, addresses: \"{}/128\", {keys}}}]",
                form.vip
            ))
        }
    };
    let capture = Capture::start(&lan);
    let mut first = start(&lan, 1, &file(254));
    becomes(&first, "active");
    lan.moves_to(1, form.vip);
    let keepalived = Keepalived::start(
        &lan,
        2,
        &program,
        &format!(
            " state BACKUP\n priority 150\n{}\n virtual_ipaddress {{ {} }}",
            form.keepalived, form.vip
        ),
    );
    keepalived.becomes("BACKUP");
    std::thread::sleep(form.patience());
    assert_eq!(lan.holders(form.vip), [1], "keepalived hears it");
    assert_eq!(states(&first), ["backup", "active"]);
    let stopped = Instant::now();
    first.signal(Signal::SIGTERM);
    lan.moves_to(2, form.vip);
    println!(
        "{}: keepalived has taken over {:?} after SIGTERM",
        form.label,
        stopped.elapsed()
    );
    assert_eq!(first.wait_exit(SOON).code(), Some(0));
    let second = start(&lan, 1, &file(120));
    becomes(&second, "backup");
    eventually(SOON, "it hears keepalived", || {
        let router = router(&second, "vip");
        router["counters"]["accepted"].as_u64() > Some(2) && router["active_router"].is_string()
    });
    assert_eq!(state(&second), "backup");
    assert_eq!(router(&second, "vip")["alarms"].to_string(), "[]");
    keepalived.stop();
    lan.moves_to(1, form.vip);
    assert_eq!(states(&second), ["backup", "active"]);
    capture.has_no_bad_checksum();
}

/// tcpdump on the link, which checks every checksum.
struct Capture {
    child: Child,
    folder: Folder,
}

impl Capture {
    fn start(lan: &Lan) -> Option<Capture> {
        let [program] = program::find(["tcpdump"])?;
        let folder = Folder::new();
        let out = std::fs::File::create(folder.path().join("out")).unwrap();
        let child = lan.node(2).run(|| {
            Command::new(program)
                .args([
                    "-i",
                    "eth0",
                    "-n",
                    "-l",
                    "-vv",
                    "proto 112 or ip6 proto 112",
                ])
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        Some(Capture { child, folder })
    }
}

trait Checked {
    fn has_no_bad_checksum(self);
}

impl Checked for Option<Capture> {
    fn has_no_bad_checksum(self) {
        let Some(mut capture) = self else { return };
        let pid = Pid::from_raw(i32::try_from(capture.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        capture.child.wait().unwrap();
        let text = std::fs::read_to_string(capture.folder.path().join("out")).unwrap();
        let advertisements: Vec<&str> =
            text.lines().filter(|line| line.contains("VRRPv")).collect();
        println!("tcpdump has seen {} advertisements", advertisements.len());
        let senders: BTreeSet<&str> = advertisements
            .iter()
            .filter_map(|line| line.split_once(" > "))
            .filter_map(|(before, _)| before.split_whitespace().last())
            .collect();
        assert_eq!(senders.len(), 2, "of both nodes: {senders:?}");
        let bad: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("bad vrrp"))
            .collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}

#[test]
fn a_node_that_is_not_well_is_relieved_by_a_keepalived_that_preempts() {
    let Some([program]) = program::find(["keepalived"]) else {
        return;
    };
    let Some(lan) = Lan::new("ill", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 254, track: {interfaces: [lo]}"));
    becomes(&first, "active");
    let instance = format!(
        " state BACKUP\n priority 150\n version 3\n advert_int 0.1\n virtual_ipaddress {{ {VIP} }}"
    );
    let keepalived = Keepalived::start(&lan, 2, &program, &instance);
    keepalived.becomes("BACKUP");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lan.holders(VIP), [1], "keepalived hears it");
    lan.node(1).ip(&["link", "set", "lo", "down"]);
    lan.moves_to(2, VIP);
    let why = router(&first, "vip")["why"].to_string();
    assert!(why.contains("no link on lo"), "{why}");
    keepalived.stop();
    lan.moves_to(1, VIP);
    assert_eq!(states(&first), ["backup", "active", "backup", "active"]);
}

#[test]
fn in_version_2() {
    understand_each_other(&Form {
        label: "k2",
        ringway: "version: 2",
        keepalived: " advert_int 1",
        vip: VIP,
    });
}

#[test]
fn in_version_2_with_a_password() {
    let folder = Folder::new();
    let path = folder.path().join("password");
    std::fs::write(&path, "secret").unwrap();
    let keys = format!("version: 2, auth: {{password_file: {}}}", path.display());
    understand_each_other(&Form {
        label: "k2p",
        ringway: keys.leak(),
        keepalived: " advert_int 1\n authentication { auth_type PASS\n auth_pass secret\n }",
        vip: VIP,
    });
}

#[test]
fn in_version_2_by_unicast() {
    understand_each_other(&Form {
        label: "k2u",
        ringway: "version: 2, peers: [10.77.0.2]",
        keepalived: " advert_int 1\n unicast_src_ip 10.77.0.2\n unicast_peer { 10.77.0.1 }",
        vip: VIP,
    });
}

#[test]
fn in_version_3_over_ipv4() {
    understand_each_other(&Form {
        label: "k3",
        ringway: "version: 3",
        keepalived: " version 3\n advert_int 0.1",
        vip: VIP,
    });
}

#[test]
fn in_version_3_over_ipv4_with_a_virtual_mac() {
    understand_each_other(&Form {
        label: "k3m",
        ringway: "version: 3, virtual_mac: true",
        keepalived: " use_vmac\n version 3\n advert_int 0.1",
        vip: VIP,
    });
}

#[test]
fn in_version_3_over_ipv4_by_unicast() {
    understand_each_other(&Form {
        label: "k3u",
        ringway: "version: 3, peers: [10.77.0.2]",
        keepalived: " version 3\n advert_int 0.1\n unicast_src_ip 10.77.0.2\n unicast_peer { 10.77.0.1 }",
        vip: VIP,
    });
}

#[test]
fn in_version_3_over_ipv6() {
    understand_each_other(&Form {
        label: "k36",
        ringway: "version: 3",
        keepalived: " version 3\n advert_int 0.1",
        vip: VIP6,
    });
}

#[test]
fn in_version_3_over_ipv6_by_unicast() {
    understand_each_other(&Form {
        label: "k36u",
        ringway: "version: 3, peers: [\"fd77::2\"]",
        keepalived: " version 3\n advert_int 0.1\n unicast_src_ip fd77::2\n unicast_peer { fd77::1 }",
        vip: VIP6,
    });
}
