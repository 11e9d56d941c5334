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
    /// has, or the first one that is not virtual. To a group of IPv6 that is a link-local one.
    pub(super) fn source(
        &self,
        settings: &Settings,
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
        let found = self.addresses.iter().find(fits)?;
        Some(found.address)
    }
}
