//! A link with nodes on it: a bridge in a namespace of its own, and a namespace for each node whose `eth0` is a port.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringway::sys::netlink::{Change, Netlink, Watch};

use crate::harness::namespace::Namespace;
use crate::harness::{SOON, eventually};

pub const VIP: &str = "10.77.0.100";
pub const VIP6: &str = "fd77::100";

/// A test that disturbs all others of this process waits for them, and they for it. (`nextest.toml` sees to those of
/// other processes.)
static TURN: RwLock<()> = RwLock::new(());

enum Turn {
    Shared {
        _turn: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _turn: RwLockWriteGuard<'static, ()>,
    },
}

/// Nodes are counted from 1: `10.77.0.1` and `fd77::1` are the first one's addresses.
pub struct Lan {
    pub nodes: Vec<Namespace>,
    switch: Namespace,
    _turn: Turn,
}

impl Lan {
    pub fn new(label: &str, count: usize) -> Option<Lan> {
        let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        Self::in_turn(label, count, Turn::Shared { _turn: turn })
    }

    /// While it is there, it is the only one.
    pub fn alone(label: &str, count: usize) -> Option<Lan> {
        let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
        Self::in_turn(label, count, Turn::Alone { _turn: turn })
    }

    fn in_turn(label: &str, count: usize, turn: Turn) -> Option<Lan> {
        let switch = Namespace::new(&format!("{label}s"))?;
        switch.ip(&[
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ]);
        switch.ip(&["link", "set", "br0", "up"]);
        let mut lan = Lan {
            switch,
            nodes: Vec::new(),
            _turn: turn,
        };
        for number in 1..=count {
            let node = Namespace::new(&format!("{label}{number}"))?;
            // Addresses work at once.
            node.set("ipv6/conf/default/accept_dad", "0");
            lan.nodes.push(node);
            lan.connect(number);
        }
        Some(lan)
    }

    pub fn node(&self, number: usize) -> &Namespace {
        &self.nodes[number - 1]
    }

    /// Gives a node an `eth0` that is connected.
    pub fn connect(&self, number: usize) {
        let (port, node) = (port(number), self.node(number));
        self.switch.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            node.name(),
        ]);
        self.switch
            .ip(&["link", "set", &port, "master", "br0", "up"]);
        let (v4, v6) = (format!("10.77.0.{number}/24"), format!("fd77::{number}/64"));
        node.ip(&["address", "add", &v4, "dev", "eth0"]);
        node.ip(&["address", "add", &v6, "dev", "eth0", "nodad"]);
        node.ip(&["link", "set", "eth0", "up"]);
    }

    /// The cable is out: no carrier on either side.
    pub fn pull(&self, number: usize) {
        self.switch.ip(&["link", "set", &port(number), "down"]);
    }

    pub fn plug(&self, number: usize) {
        self.switch.ip(&["link", "set", &port(number), "up"]);
    }

    /// Nothing goes through any more, but nobody has lost a carrier.
    pub fn cut(&self, number: usize) {
        self.switch.ip(&["link", "set", &port(number), "nomaster"]);
    }

    pub fn heal(&self, number: usize) {
        self.switch
            .ip(&["link", "set", &port(number), "master", "br0"]);
    }

    pub fn has(&self, number: usize, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let all = self.everything(number);
        all.iter()
            .any(|one| matches!(one, Change::Address(one) if one.address == address))
    }

    /// How many addresses a node has that begin with this.
    pub fn count(&self, number: usize, prefix: &str) -> usize {
        let all = self.everything(number);
        all.iter()
            .filter(|one| match one {
                Change::Address(one) => one.address.to_string().starts_with(prefix),
                Change::AddressGone(_) | Change::Link(_) | Change::LinkGone(_) => false,
            })
            .count()
    }

    /// The nodes that have an address.
    pub fn holders(&self, address: &str) -> Vec<usize> {
        (1..=self.nodes.len())
            .filter(|number| self.has(*number, address))
            .collect()
    }

    /// Waits until one node alone has it.
    #[track_caller]
    pub fn moves_to(&self, number: usize, address: &str) -> Duration {
        let from = Instant::now();
        let what = format!("node {number} alone has {address}");
        eventually(SOON, &what, || self.holders(address) == [number]);
        from.elapsed()
    }

    /// How long an address is gone when somebody removes it, from before it is asked for.
    #[track_caller]
    pub fn gap_after_removal(&self, number: usize, address: &str) -> Duration {
        let wanted: IpAddr = address.parse().unwrap();
        let index = self.index_of(number, wanted);
        let (watch, mut netlink) = self
            .node(number)
            .run(|| (Watch::open().unwrap(), Netlink::open().unwrap()));
        let from = Instant::now();
        netlink.remove_address(index, wanted.into()).unwrap();
        let (mut is_gone, end) = (false, Instant::now() + SOON);
        loop {
            assert!(Instant::now() < end, "the address is not put back");
            let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(100_u16)).unwrap();
            for change in watch.changes().unwrap() {
                match change {
                    Change::AddressGone(one) => is_gone |= one.address == wanted,
                    // One that is there is also renewed.
                    Change::Address(one) if is_gone && one.address == wanted => {
                        return from.elapsed();
                    }
                    Change::Address(_) | Change::Link(_) | Change::LinkGone(_) => {}
                }
            }
        }
    }

    /// The interface of a node that has an address.
    #[track_caller]
    fn index_of(&self, number: usize, address: IpAddr) -> u32 {
        let all = self.everything(number);
        let index = all.iter().find_map(|one| match one {
            Change::Address(one) => (one.address == address).then_some(one.index),
            Change::AddressGone(_) | Change::Link(_) | Change::LinkGone(_) => None,
        });
        index.unwrap_or_else(|| panic!("node {number} does not have {address}"))
    }

    fn everything(&self, number: usize) -> Vec<Change> {
        self.node(number)
            .run(|| Netlink::open().unwrap().everything().unwrap())
    }
}

fn port(number: usize) -> String {
    format!("p{number}")
}
