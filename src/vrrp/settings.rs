//! A virtual router as the file has it: names resolved, defaults applied, everything checked. Nothing here has looked
//! at this host: whether the interface is there and the password can be read shows once it runs.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::frames::{self, Mac};
use super::machine::VirtualRouter;
use super::packet::{
    AddressList, Addresses, Authentication, Body, Centiseconds, ChecksumForm, Password, Version,
    Vrid,
};
use crate::ids::PoolId;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What people call it.
    pub name: Arc<str>,
    /// The interface that its addresses are on.
    pub interface: Arc<str>,
    /// Its number on that interface.
    pub vrid: Vrid,
    /// Of the protocol.
    pub version: Version,
    /// 100 to 255.
    pub priority: u8,
    /// The virtual addresses with their prefix lengths: at least one, all of one family.
    pub addresses: Vec<IpNet>,
    /// Between two advertisements, as the version can say it.
    pub interval: Interval,
    /// Where advertisements come from; none = the interface's own address.
    pub source: Option<IpAddr>,
    /// Whether it takes over from a router that is well and has a lower priority.
    pub preempt: bool,
    /// How long it waits with that, and how long it counts as ill after a fault.
    pub preempt_delay: Duration,
    /// Unicast peers; empty = multicast.
    pub peers: Vec<IpAddr>,
    /// How checksums are sent where there is a choice.
    pub checksum: ChecksumForm,
    /// The file that has the password of version 2.
    pub password_file: Option<PathBuf>,
    /// Whether its addresses have a MAC address of their own, on an interface that is made for them.
    pub virtual_mac: bool,
    /// After so long without renewal the kernel removes the addresses, in whole seconds; none = never.
    pub lease: Option<Duration>,
    /// Workers or control that do nothing for so long are a hard fault.
    pub progress_timeout: Duration,
    /// What makes it give way.
    pub track: Track,
    /// Virtual routers of one group move together.
    pub group: Option<Arc<str>>,
    /// A command that is told of every change of state.
    pub notify: Option<Arc<[String]>>,
}

/// Between two advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Of version 2.
    Seconds(NonZeroU8),
    /// Of version 3.
    Centiseconds(Centiseconds),
}

/// What makes a virtual router give way while it fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Interfaces that must be up.
    pub interfaces: Vec<Arc<str>>,
    /// Pools, and how many of their backends must take new sessions.
    pub pools: Vec<(PoolId, u32)>,
    /// Commands that must succeed.
    pub scripts: Vec<Script>,
}

/// A command that must succeed (exit code 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The program and its arguments; no shell.
    pub command: Arc<[String]>,
    /// From one run to the next.
    pub interval: Duration,
    /// A run that takes longer is a failure, and is killed.
    pub timeout: Duration,
    /// So many failures in a row make it fail.
    pub fall: u32,
    /// So many successes in a row end that.
    pub rise: u32,
}

impl Settings {
    /// Whether a virtual router that runs with these can go on with others: not where its sockets, its sender, its MAC
    /// address or what others expect of version 2 would be another one, nor where others move with it.
    #[must_use]
    pub fn becomes(&self, other: &Settings) -> bool {
        let is_same_interval = self.interval == other.interval || self.version == Version::V3;
        let one = |settings: &Settings| Settings {
            priority: 0,
            addresses: Vec::new(),
            interval: self.interval,
            preempt: false,
            preempt_delay: Duration::ZERO,
            lease: None,
            progress_timeout: Duration::ZERO,
            track: Track::default(),
            notify: None,
            ..settings.clone()
        };
        is_same_interval && self.is_ipv4() == other.is_ipv4() && one(self) == one(other)
    }

    /// The virtual addresses without their prefix lengths.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr)
    }

    /// Whether it is one of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.addresses().all(|address| address.is_ipv4())
    }

    /// The MAC address that moves with the addresses, if one does.
    #[must_use]
    pub fn virtual_mac(&self) -> Option<Mac> {
        self.virtual_mac
            .then(|| frames::virtual_mac(self.vrid, self.is_ipv4()))
    }

    /// What the machine needs to know of it.
    #[must_use]
    pub fn virtual_router(&self, password: Option<Password>) -> VirtualRouter {
        let body = match self.interval {
            Interval::Seconds(seconds) => Body::V2 {
                seconds,
                authentication: password.map_or(Authentication::None, Authentication::Password),
                addresses: self.listed(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
            },
            Interval::Centiseconds(interval) => Body::V3 {
                interval,
                addresses: if self.is_ipv4() {
                    Addresses::V4(self.listed(|address| match address {
                        IpAddr::V4(address) => Some(address),
                        IpAddr::V6(_) => None,
                    }))
                } else {
                    Addresses::V6(self.listed(|address| match address {
                        IpAddr::V6(address) => Some(address),
                        IpAddr::V4(_) => None,
                    }))
                },
            },
        };
        VirtualRouter {
            vrid: self.vrid,
            priority: self.priority,
            body,
            checksum: self.checksum,
            peers: self.peers.clone(),
            preempt: self.preempt,
            preempt_delay: self.preempt_delay,
            lease: self.lease,
        }
    }

    /// The longest that a router which is told to hand over waits for another one.
    #[must_use]
    pub fn move_max(&self) -> Duration {
        let router = self.virtual_router(None);
        router.down_interval(router.priority_ill(), router.interval())
    }

    fn listed<A>(&self, of_family: impl Fn(IpAddr) -> Option<A>) -> AddressList<A> {
        let addresses = self.addresses().filter_map(of_family).collect();
        AddressList::new(addresses).expect("the file's addresses were counted, and of one family")
    }
}

#[cfg(test)]
impl Settings {
    /// Of version 3, number 51 on `eth0`, priority 254, an interval of 100 ms.
    pub(super) fn example(address: &str) -> Settings {
        Settings {
            name: Arc::from("vip"),
            interface: Arc::from("eth0"),
            vrid: Vrid::new(51).expect("not 0"),
            version: Version::V3,
            priority: 254,
            addresses: vec![address.parse().expect("an address with its prefix length")],
            interval: Interval::Centiseconds(Centiseconds::new(10).expect("within range")),
            source: None,
            preempt: false,
            preempt_delay: Duration::ZERO,
            peers: Vec::new(),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_may_take_three_intervals_and_the_skew_of_one_that_is_ill() {
        let mut settings = Settings::example("10.0.0.100/32");
        // Its priority is 98 then: 158/256 of an interval.
        assert_eq!(settings.move_max(), Duration::from_micros(361_718));
        settings.version = Version::V2;
        settings.interval = Interval::Seconds(NonZeroU8::new(3).expect("not 0"));
        assert_eq!(settings.move_max(), Duration::from_micros(9_617_187));
    }
}
