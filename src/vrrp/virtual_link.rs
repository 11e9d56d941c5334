//! Interfaces that have the MAC address of a virtual router: each is made when its addresses are wanted, on the
//! interface that the file names, and removed with them. ARP is to know nothing of two interfaces on one link, so both
//! are told to keep to their own addresses. These are the only settings of this host that Ringway changes; /proc/sys
//! must be writable for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nix::net::if_::if_nametoindex;

use super::frames::Mac;
use super::settings::Settings;
use crate::sys::netlink::{Link, Netlink};

/// Answer in ARP only for addresses of the interface that was asked on.
const ARP_IGNORE: (&str, &str) = ("arp_ignore", "1");
/// Ask in ARP only as an address of the interface that is asked on: who is asked learns from the question.
const ARP_ANNOUNCE: (&str, &str) = ("arp_announce", "2");

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct VirtualLinks {
    /// Interfaces and settings that were changed so that they keep to their own addresses, and what they were before.
    before: BTreeMap<(String, &'static str), String>,
}

/// The same for every process that has this file, so that what a crash has left behind is found again.
fn name(lower: &Link, settings: &Settings) -> String {
    let family = if settings.is_ipv4() { 4 } else { 6 };
    format!("rw{}-{}-{family}", lower.index, settings.vrid.number())
}

impl VirtualLinks {
    /// Sees that there is one for this virtual router, switched on; its number. `present` is the one of last time.
    ///
    /// # Errors
    /// The kernel's: not permitted, no macvlan, settings that cannot be written.
    pub(super) fn make(
        &mut self,
        netlink: &mut Netlink,
        lower: &Link,
        settings: &Settings,
        (mac, present): (Mac, Option<u32>),
    ) -> io::Result<u32> {
        let name = name(lower, settings);
        let found = if_nametoindex(name.as_str()).ok();
        if let Some(index) = found.filter(|_| found == present) {
            netlink.switch_on(index)?;
            return Ok(index);
        }
        if let Some(leftover) = found {
            netlink.remove_link(leftover)?;
        }
        netlink.add_macvlan(lower.index, &name, mac)?;
        let index = if_nametoindex(name.as_str())?;
        set(4, &name, ARP_IGNORE.0, ARP_IGNORE.1)?;
        // What clients send comes in here, and the way back to them is by the other interface: that is no forgery.
        set(4, &name, "rp_filter", "2")?;
        if !settings.is_ipv4() {
            // It has the virtual addresses alone: no link-local one of its own, and none by advertised prefixes.
            set(6, &name, "addr_gen_mode", "1")?;
            set(6, &name, "accept_ra", "0")?;
        }
        self.keep_to_itself(&lower.name)?;
        netlink.switch_on(index)?;
        Ok(index)
    }

    /// The interface below says in ARP nothing about the addresses on top of it.
    fn keep_to_itself(&mut self, lower: &str) -> io::Result<()> {
        for (setting, wanted) in [ARP_IGNORE, ARP_ANNOUNCE] {
            let before = fs::read_to_string(path(4, lower, setting))?;
            let before = before.trim();
            if before < wanted {
                set(4, lower, setting, wanted)?;
                let key = (lower.to_owned(), setting);
                self.before.entry(key).or_insert_with(|| before.to_owned());
            }
        }
        Ok(())
    }

    /// Removes the one of this virtual router, if there is one, and with it its addresses.
    ///
    /// # Errors
    /// The kernel's: not permitted.
    pub(super) fn remove(
        netlink: &mut Netlink,
        lower: &Link,
        settings: &Settings,
    ) -> io::Result<()> {
        match if_nametoindex(name(lower, settings).as_str()) {
            Ok(index) => netlink.remove_link(index),
            Err(_) => Ok(()),
        }
    }

    /// Nothing of ours is on any interface any more: they answer again as before.
    pub(super) fn let_go(&mut self) {
        for ((name, setting), before) in std::mem::take(&mut self.before) {
            // It may be gone.
            let _ = set(4, &name, setting, &before);
        }
    }
}

fn path(version: u8, interface: &str, setting: &str) -> String {
    format!("/proc/sys/net/ipv{version}/conf/{interface}/{setting}")
}

fn set(version: u8, interface: &str, setting: &str, value: &str) -> io::Result<()> {
    let path = path(version, interface, setting);
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
