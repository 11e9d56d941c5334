//! Network namespaces for what loopback cannot show: packets that get lost, addresses that answer nothing, segments
//! of an ordinary size. Needs root and the `ip` program; where a namespace cannot be made the test is skipped.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::skip;

/// A network namespace with a name that is unique in the system; removed on drop. What runs in it must end before.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace with its loopback up, or `None` after saying why the test is skipped.
    pub fn new(label: &str) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        if !nix::unistd::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        let name = format!(
            "rw{}-{}-{label}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        if let Err(error) = try_ip(&["netns", "add", &name]) {
            skip(&format!("no network namespace can be made: {error}"));
            return None;
        }
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside the namespace.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        let inside: Vec<&str> = ["-n", &self.name]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        try_ip(&inside).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs the closure inside, on a thread of its own; processes that it starts stay inside. Threads that it starts
    /// too.
    #[track_caller]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file =
            File::open(format!("/run/netns/{}", self.name)).expect("ip has made the namespace");
        let result = thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Sets a network setting of the namespace, such as `ipv4/tcp_wmem`.
    #[track_caller]
    pub fn set(&self, setting: &str, value: &str) {
        let path = format!("/proc/sys/net/{setting}");
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{setting}: {error}"));
    }

    /// Connects two namespaces by a veth pair: `a0` here with one address, `b0` there with the other. Addresses of
    /// IPv6, the link-local ones included, are not looked for on the link before they are used.
    #[track_caller]
    pub fn link(&self, address: &str, other: &Self, other_address: &str) {
        for namespace in [self, other] {
            namespace.set("ipv6/conf/all/accept_dad", "0");
            namespace.set("ipv6/conf/default/accept_dad", "0");
        }
        try_ip(&[
            "link",
            "add",
            "a0",
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            "b0",
            "netns",
            &other.name,
        ])
        .unwrap_or_else(|error| panic!("{error}"));
        for (namespace, device, address) in [(self, "a0", address), (other, "b0", other_address)] {
            namespace.ip(&["address", "add", address, "dev", device]);
            namespace.ip(&["link", "set", device, "up"]);
        }
    }

    /// Makes an IPv4 address behind `a0` swallow everything: packets arrive at the other namespace, which has no such
    /// address and does not forward. [`Self::give`] ends that.
    #[track_caller]
    pub fn swallow(&self, address: &str, other: &Self) {
        let hardware = other.hardware_address("b0");
        self.ip(&[
            "neighbour",
            "replace",
            address,
            "lladdr",
            &hardware,
            "dev",
            "a0",
            "nud",
            "permanent",
        ]);
    }

    /// Gives an address to `b0` of this namespace.
    #[track_caller]
    pub fn give(&self, address: &str) {
        self.ip(&["address", "add", &format!("{address}/32"), "dev", "b0"]);
    }

    fn hardware_address(&self, device: &str) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name, "-o", "link", "show", device])
            .output();
        let text = String::from_utf8_lossy(&output.expect("ip runs").stdout).into_owned();
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .skip(1);
        words.next().expect("a hardware address").to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = try_ip(&["netns", "del", &self.name]) {
            eprintln!("a namespace is left: {error}");
        }
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("the program ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
