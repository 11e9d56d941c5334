//! The keys of `vrrp`, as [`super::document`] has those of the rest. What they mean together is
//! [`super::resolve`]'s business.

use super::address::Source;
use super::items::{Items, VirtualAddress};
use super::kind::{Auto, List, Nothing, Number, OneOrMore, Or, Text, words};
use super::section::section;
use super::units::{Name, Period};

words! {
    /// How checksums of version 3 over IPv4 are made.
    pub(super) enum Checksum("choice") {
        PseudoHeader = "pseudo_header",
        Rfc9568 = "rfc9568",
    }
}

words! {
    /// What a virtual router does while something that it tracks fails.
    pub(super) enum OnFail("choice") {
        GiveWay = "give_way",
    }
}

section! {
    /// A virtual router: addresses that move between the nodes that have it, of one address family.
    pub(super) struct VirtualRouter {
        /// What it is called, in the log and on the command line.
        name: Name,
        /// The interface that its addresses are on.
        interface: Text,
        /// Its number, the same on all nodes; one number for each service on a link.
        vrid: Number<1, 255>,
        /// The node with the highest one is preferred: 100 to 254, different on each node, as in
        /// `{lb1: 254, lb2: 250}`. 255 is for a node that owns the addresses anyway: those that its interface has for
        /// good are neither set nor removed, so they stay there also when another node takes over. Give such an
        /// interface a second address: what comes from the first one is not heard where it has been taken over.
        /// Priorities below 100 are used by nodes that are not well.
        priority: Number<100, 255>,
        /// The virtual addresses, with prefix lengths, as in `10.0.0.100/32` and `2001:db8::100/128`.
        addresses: List<VirtualAddress>,
        /// Of the protocol: 3, or 2 (IPv4 only, intervals of whole seconds) for old neighbours.
        version: Number<2, 3> = "3",
        /// Between two advertisements, the same on all nodes; `auto` is 100ms with version 3 and 1s with version 2.
        /// After three of them (and a bit) without a word another node takes over.
        advert_interval: Or<Auto, Period> = "auto",
        /// Address of this node that advertisements come from; `auto` is the first one of the interface that is not
        /// virtual. With priority 255 it may be one that is.
        source: Or<Auto, Source> = "auto",
        /// Whether a node with a higher priority takes over from one that is well. Every move cuts sessions.
        preempt: bool = "false",
        /// How long it waits with that after its start, and how long it counts as not well after a fault.
        preempt_delay: Period = "60s",
        /// Addresses of the other nodes, where multicast does not work. Empty = multicast.
        peers: Items<Source> = "[]",
        /// What checksums cover in version 3 over IPv4: `pseudo_header` as keepalived has it, `rfc9568` as the standard
        /// has it. Both are accepted.
        checksum: Checksum = "pseudo_header",
        /// A password of version 2, which keeps out mistakes, not attackers.
        auth: Or<Nothing, Auth> = "none",
        /// A MAC address that moves with the addresses (00:00:5e:00:01:XX, of IPv6 00:00:5e:00:02:XX), on a macvlan
        /// interface that is there while this node is active. For links whose neighbours do not learn from gratuitous
        /// ARP; all nodes have it or none. It sets `arp_ignore` and `arp_announce` of the interface, until it ends.
        virtual_mac: bool = "false",
        /// The kernel removes the addresses by itself so long after this process has stopped to renew them: it was
        /// killed, or it hangs. Whole seconds; `auto` is 1s with intervals below a second, else 3s; `none` is never.
        lease: Or<Auto, Or<Nothing, Period>> = "auto",
        /// A worker or the control plane that does nothing for so long is a fault: the addresses are given up.
        progress_timeout: Period = "2s",
        /// What must be well for this node to be preferred.
        track: Track = "{}",
        /// Virtual routers of one group move together, such as IPv4 and IPv6 of one service.
        group: Or<Nothing, Name> = "none",
        /// A command that runs at each change of state, one at a time, with the name, the old state, the new state
        /// and the priority as further arguments.
        notify: Or<Nothing, OneOrMore<Text>> = "none",
    }
}

section! {
    /// A password of version 2.
    pub(super) struct Auth short password_file {
        /// The file that it is in: one to eight bytes; white space around it does not count.
        password_file: Text,
    }
}

section! {
    /// What must be well for this node to be preferred. While something of it fails, the node still holds the addresses
    /// unless another one is well.
    pub(super) struct Track {
        /// Interfaces that must be up.
        interfaces: Items<Text> = "[]",
        /// Pools that must have backends that take new sessions.
        pools: Items<TrackedPool> = "[]",
        /// Commands that must succeed.
        scripts: Items<TrackedScript> = "[]",
        /// `give_way`: another node takes over if that one is well, whatever `preempt` says.
        on_fail: OnFail = "give_way",
    }
}

section! {
    /// A pool that must have backends that take new sessions.
    pub(super) struct TrackedPool short pool {
        /// The pool.
        pool: Text,
        /// So many backends at least.
        min_usable: Number<1, 1_000_000> = "1",
    }
}

section! {
    /// A command that must succeed (exit code 0).
    pub(super) struct TrackedScript short command {
        /// The program, with its whole path, and its arguments. No shell is started.
        command: OneOrMore<Text>,
        /// From one run to the next.
        interval: Period = "2s",
        /// A run that takes longer has failed, and is killed.
        timeout: Period = "1s",
        /// So many failures in a row make it fail.
        fall: Number<1, 1000> = "2",
        /// So many successes in a row end that.
        rise: Number<1, 1000> = "2",
    }
}
