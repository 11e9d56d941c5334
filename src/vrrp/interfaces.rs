//! The interfaces of this host and their addresses, as the kernel has told, and what follows from them for a virtual
//! router. It asks nothing itself.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use super::machine::PRIORITY_OWNER;
use super::settings::Settings;
use crate::sys::netlink::{Address, Change, Link};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    links: BTreeMap<u32, Link>,
    /// In the order in which they were told.
    addresses: Vec<Address>,
}

impl Interfaces {
    /// Everything there is.
    pub(super) fn new(everything: &[Change]) -> Interfaces {
        let mut interfaces = Interfaces::default();
        for change in everything {
            interfaces.apply(change);
        }
        interfaces
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(link) => {
                self.links.insert(link.index, link.clone());
            }
            Change::LinkGone(index) => {
                self.links.remove(index);
                self.addresses.retain(|address| address.index != *index);
            }
            Change::Address(new) => match self.addresses.iter_mut().find(|old| is_same(old, new)) {
                Some(known) => *known = *new,
                None => self.addresses.push(*new),
            },
            Change::AddressGone(gone) => self.addresses.retain(|old| !is_same(old, gone)),
        }
    }

    /// The interface that has this name now.
    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    pub(super) fn is_up(&self, name: &str) -> bool {
        self.named(name).is_some_and(|link| link.is_up)
    }

    pub(super) fn has(&self, index: u32, address: IpAddr) -> bool {
        let is_it = |known: &Address| (known.index, known.address) == (index, address);
        self.addresses.iter().any(is_it)
    }

    /// The addresses of a virtual router that its interface owns, if it has the priority of an owner: they were given
    /// to the interface for good.
    pub(super) fn owned(&self, settings: &Settings) -> Vec<IpAddr> {
        let link = self.named(&settings.interface);
        let link = link.filter(|_| settings.priority == PRIORITY_OWNER);
        let is_owned = |address: &IpAddr| {
            let is_it = |known: &Address| {
                Some(known.index) == link.map(|link| link.index)
                    && known.address == *address
                    && known.is_permanent
            };
            self.addresses.iter().any(is_it)
        };
        settings.addresses().filter(is_owned).collect()
    }

    /// Where the advertisements of a virtual router come from, if its interface can be used: the address that the file
    /// has, or the first one that is not virtual. To a group of IPv6 that is a link-local one. The present one stays
    /// for as long as it can. One that is virtual, but this interface's own, is the last choice: whoever has taken it
    /// over does not hear what comes from it.
    pub(super) fn source(
        &self,
        settings: &Settings,
        present: Option<IpAddr>,
        is_virtual: &HashSet<IpAddr>,
        is_owned: &HashSet<IpAddr>,
    ) -> Option<IpAddr> {
        let link = self.named(&settings.interface).filter(|link| link.is_up)?;
        if let Some(source) = settings.source {
            return self.has(link.index, source).then_some(source);
        }
        let is_local = |address: &IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let wants_local = !settings.is_ipv4() && settings.peers.iter().all(is_local);
        let fits = |address: &&Address| {
            address.index == link.index
                && address.is_usable
                && address.address.is_ipv4() == settings.is_ipv4()
                && is_local(&address.address) == wants_local
        };
        let fitting = self.addresses.iter().filter(fits);
        let fitting = fitting.map(|found| found.address);
        let mut own = fitting.clone().filter(|one| !is_virtual.contains(one));
        let is_present = |address: &IpAddr| Some(*address) == present;
        let best = own.clone().find(is_present).or_else(|| own.next());
        best.or_else(|| fitting.clone().find(|address| is_owned.contains(address)))
    }
}

fn is_same(one: &Address, other: &Address) -> bool {
    let key = |address: &Address| (address.index, address.address, address.prefix_len);
    key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vip: &str, peers: &[&str]) -> Settings {
        Settings {
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            ..Settings::example(vip)
        }
    }

    fn interfaces(is_up: bool, addresses: &[&str]) -> Interfaces {
        let link = Change::Link(Link {
            index: 7,
            name: "eth0".to_owned(),
            is_up,
            mac: None,
        });
        let address = |text: &&str| {
            Change::Address(Address {
                index: 7,
                address: text.parse().unwrap(),
                prefix_len: 24,
                is_usable: true,
                is_permanent: true,
            })
        };
        let addresses: Vec<Change> = addresses.iter().map(address).collect();
        Interfaces::new(&[vec![link], addresses].concat())
    }

    #[test]
    fn advertisements_come_from_the_first_address_that_is_not_virtual_and_stay_there() {
        let all = [
            "10.0.0.100",
            "10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "fe80::1",
        ];
        let (v4, v6) = (("10.0.0.100/32", &[][..]), ("2001:db8::100/128", &[][..]));
        let far = ("2001:db8::100/128", &["2001:db8::2"][..]);
        for ((vip, peers), present, expected) in [
            (v4, None, Some("10.0.0.1")),
            (v4, Some("10.0.0.2"), Some("10.0.0.2")),
            (v4, Some("10.0.0.9"), Some("10.0.0.1")),
            (v6, None, Some("fe80::1")),
            (far, None, Some("2001:db8::1")),
        ] {
            let settings = settings(vip, peers);
            let is_virtual = settings.addresses().collect();
            let address = |text: Option<&str>| text.map(|text| text.parse::<IpAddr>().unwrap());
            let none = HashSet::new();
            let source = |is_up| {
                let interfaces = interfaces(is_up, &all);
                interfaces.source(&settings, address(present), &is_virtual, &none)
            };
            assert_eq!(
                source(true),
                address(expected),
                "{vip} {peers:?} {present:?}"
            );
            assert_eq!(source(false), None);
        }
    }

    #[test]
    fn an_owner_owns_what_is_there_for_good_and_speaks_from_it_only_if_there_is_nothing_else() {
        let vip: IpAddr = "10.0.0.100".parse().unwrap();
        let owner = Settings {
            priority: PRIORITY_OWNER,
            ..settings("10.0.0.100/32", &[])
        };
        let owned = |interfaces: &Interfaces, settings: &Settings| interfaces.owned(settings);
        let mut there = interfaces(true, &["10.0.0.100"]);
        assert_eq!(owned(&there, &owner), [vip]);
        assert!(owned(&there, &settings("10.0.0.100/32", &[])).is_empty());
        assert!(owned(&interfaces(true, &["10.0.0.1"]), &owner).is_empty());

        let all: HashSet<IpAddr> = HashSet::from([vip]);
        let source =
            |interfaces: &Interfaces, present| interfaces.source(&owner, present, &all, &all);
        assert_eq!(source(&there, None), Some(vip));
        let (more, gone) = (
            interfaces(true, &["10.0.0.100", "10.0.0.1"]),
            HashSet::new(),
        );
        let other = Some("10.0.0.1".parse().unwrap());
        assert_eq!(source(&more, Some(vip)), other);
        assert_eq!(there.source(&owner, None, &all, &gone), None);

        // Leased, and there a second time with another prefix.
        let lease = Address {
            index: 7,
            address: vip,
            prefix_len: 32,
            is_usable: true,
            is_permanent: false,
        };
        there.apply(&Change::Address(lease));
        assert_eq!(owned(&there, &owner), [vip]);
        there.apply(&Change::AddressGone(lease));
        assert!(there.has(7, vip));
        let mut leased = interfaces(true, &[]);
        leased.apply(&Change::Address(lease));
        assert!(owned(&leased, &owner).is_empty());
    }
}
