//! A virtual router as it is configured, and the times that follow from that.

use std::net::IpAddr;
use std::time::Duration;

use super::super::packet::{
    Advertisement, Authentication, Body, ChecksumForm, Rules, Version, Vrid,
};

/// The lowest priority of a router that is well; those below are kept for routers that are not.
pub const PRIORITY_WELL: u8 = 100;

/// The priority of a router that owns the addresses.
pub const PRIORITY_OWNER: u8 = 255;

/// The interval of another router is believed up to so many times our own.
pub const LEARNED_MAX: u32 = 10;

/// A virtual router as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    /// Its number.
    pub vrid: Vrid,
    /// 100 to 254 of one that is well, or [`PRIORITY_OWNER`].
    pub priority: u8,
    /// What it advertises: version, interval, addresses, password.
    pub body: Body,
    /// How checksums are sent, where there is a choice.
    pub checksum: ChecksumForm,
    /// Whom it exchanges unicast with; empty: multicast.
    pub peers: Vec<IpAddr>,
    /// Whether it takes over from an Active router that is well and has a lower priority.
    pub preempt: bool,
    /// So long it waits with that after its start, and so long it counts as ill after a fault.
    pub preempt_delay: Duration,
    /// After so long without renewal the kernel removes the addresses; none: never.
    pub lease: Option<Duration>,
}

impl VirtualRouter {
    /// What it sends with this priority.
    #[must_use]
    pub fn advertisement(&self, priority: u8) -> Advertisement {
        Advertisement {
            vrid: self.vrid,
            priority,
            body: self.body.clone(),
        }
    }

    /// Between two of its advertisements.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.body.interval()
    }

    /// What it listens to.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let (version, authentication) = match self.body {
            Body::V2 { authentication, .. } => (Version::V2, authentication),
            Body::V3 { .. } => (Version::V3, Authentication::None),
        };
        Rules {
            vrid: self.vrid,
            version,
            interval: self.interval(),
            authentication,
            peers: self.peers.clone(),
        }
    }

    /// The priority while it is not well: 1 to 99, in the order of the configured ones.
    #[must_use]
    pub fn priority_ill(&self) -> u8 {
        let above = u16::from(self.priority.saturating_sub(PRIORITY_WELL));
        let range = u16::from(PRIORITY_OWNER - PRIORITY_WELL);
        u8::try_from(1 + above * 98 / range).expect("at most 99")
    }

    /// How much later than the best one a router with this priority takes over (RFC 9568 and RFC 3768, section 6.1).
    /// `interval` is the Active router's; in version 2 it does not matter.
    #[must_use]
    pub fn skew(&self, priority: u8, interval: Duration) -> Duration {
        let unit = match self.body {
            Body::V2 { .. } => Duration::from_secs(1),
            Body::V3 { .. } => interval,
        };
        let micros = unit.as_micros() * (256 - u128::from(priority)) / 256;
        Duration::from_micros(u64::try_from(micros).expect("no longer than an interval"))
    }

    /// After so long without an advertisement the Active router is dead.
    #[must_use]
    pub fn down_interval(&self, priority: u8, interval: Duration) -> Duration {
        3 * interval + self.skew(priority, interval)
    }

    /// The interval that a router is believed which says it has this one.
    pub(super) fn believed(&self, theirs: Duration) -> Duration {
        theirs.min(self.interval() * LEARNED_MAX)
    }
}
