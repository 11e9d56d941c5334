//! The interfaces of this host and their addresses, as the kernel has told, and what follows from them for a virtual
//! router. It asks nothing itself.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

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
            Change::Address(new) => {
                let is_same =
                    |old: &&mut Address| (old.index, old.address) == (new.index, new.address);
                match self.addresses.iter_mut().find(is_same) {
                    Some(known) => *known = *new,
                    None => self.addresses.push(*new),
                }
            }
            Change::AddressGone(gone) => self
                .addresses
                .retain(|old| (old.index, old.address) != (gone.index, gone.address)),
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

    /// Where the advertisements of a virtual router come from, if its interface can be used: the address that the file
    /// has, or the first one that is not virtual. To a group of IPv6 that is a link-local one. The present one stays
    /// for as long as it can.
    pub(super) fn source(
        &self,
        settings: &Settings,
        present: Option<IpAddr>,
        is_virtual: &HashSet<IpAddr>,
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
                && !is_virtual.contains(&address.address)
        };
        let fitting = self.addresses.iter().filter(fits);
        let mut fitting = fitting.map(|found| found.address);
        let is_present = |address: &IpAddr| Some(*address) == present;
        fitting.clone().find(is_present).or_else(|| fitting.next())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::packet::{ChecksumForm, Version, Vrid};
    use super::super::settings::{Interval, Track};
    use super::*;

    fn settings(vip: &str, peers: &[&str]) -> Settings {
        Settings {
            name: Arc::from("vip"),
            interface: Arc::from("eth0"),
            vrid: Vrid::new(51).unwrap(),
            version: Version::V3,
            priority: 254,
            addresses: vec![vip.parse().unwrap()],
            interval: Interval::Seconds(NonZeroU8::MIN),
            source: None,
            preempt: false,
            preempt_delay: Duration::ZERO,
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            checksum: ChecksumForm::PseudoHeader,
            password_file: None,
            virtual_mac: false,
            lease: None,
            progress_timeout: Duration::from_secs(2),
            track: Track::default(),
            group: None,
            notify: None,
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
                is_usable: true,
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
            let source =
                |is_up| interfaces(is_up, &all).source(&settings, address(present), &is_virtual);
            assert_eq!(
                source(true),
                address(expected),
                "{vip} {peers:?} {present:?}"
            );
            assert_eq!(source(false), None);
        }
    }
}
