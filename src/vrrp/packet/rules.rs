//! What one virtual router listens to: the checks that need its configuration.

use std::net::IpAddr;
use std::time::Duration;

use super::{
    Advertisement, Authentication, Body, ChecksumForm, Datagram, GROUP_V4, GROUP_V6, HOP_LIMIT,
    Rejection, Version, Vrid,
};

/// What one virtual router listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Its number.
    pub vrid: Vrid,
    /// The version that it speaks.
    pub version: Version,
    /// Its own advertisement interval, which in version 2 must be everybody's.
    pub interval: Duration,
    /// In version 2.
    pub authentication: Authentication,
    /// Whom it exchanges unicast with; empty: multicast.
    pub peers: Vec<IpAddr>,
}

/// An advertisement that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What it says.
    pub advertisement: Advertisement,
    /// Who sent it.
    pub source: IpAddr,
    /// In which form its checksum was right.
    pub checksum: ChecksumForm,
}

impl Rules {
    /// Reads a datagram. `own` is the address that our advertisements come from.
    ///
    /// # Errors
    /// The first check that it does not pass.
    pub fn accept(&self, datagram: &Datagram, own: Option<IpAddr>) -> Result<Accepted, Rejection> {
        let source = datagram.ends.source();
        if source.is_unspecified() {
            return Err(Rejection::SourceUnspecified(source));
        }
        if own == Some(source) {
            return Err(Rejection::SourceOurs(source));
        }
        self.check_way(datagram)?;
        let (advertisement, checksum) = Advertisement::decode(datagram)?;
        self.check_agreement(&advertisement)?;
        Ok(Accepted {
            advertisement,
            source,
            checksum,
        })
    }

    /// How it came here. The hop limit of unicast says nothing: keepalived sends IPv6 unicast with 64.
    fn check_way(&self, datagram: &Datagram) -> Result<(), Rejection> {
        let (source, destination) = (datagram.ends.source(), datagram.ends.destination());
        let is_group = destination == IpAddr::V4(GROUP_V4) || destination == IpAddr::V6(GROUP_V6);
        if destination.is_multicast() && !(is_group && self.peers.is_empty()) {
            return Err(Rejection::Destination(destination));
        }
        if !is_group && !self.peers.contains(&source) {
            return Err(Rejection::NotAPeer(source));
        }
        if is_group && datagram.hop_limit != HOP_LIMIT {
            return Err(Rejection::HopLimit(datagram.hop_limit));
        }
        Ok(())
    }

    /// Whether it speaks of the same virtual router, and in the same way.
    fn check_agreement(&self, advertisement: &Advertisement) -> Result<(), Rejection> {
        if advertisement.vrid != self.vrid {
            return Err(Rejection::Vrid(advertisement.vrid.number()));
        }
        if advertisement.version() != self.version {
            return Err(Rejection::VersionDiffers {
                theirs: advertisement.version(),
                ours: self.version,
            });
        }
        let Body::V2 { authentication, .. } = advertisement.body else {
            return Ok(());
        };
        match (authentication, self.authentication) {
            (Authentication::None, Authentication::None) => {}
            (Authentication::Password(theirs), Authentication::Password(ours)) => {
                if theirs != ours {
                    return Err(Rejection::Password);
                }
            }
            (Authentication::None, Authentication::Password(_))
            | (Authentication::Password(_), Authentication::None) => {
                return Err(Rejection::AuthenticationDiffers);
            }
        }
        if advertisement.interval() != self.interval {
            return Err(Rejection::IntervalDiffers {
                theirs: advertisement.interval(),
                ours: self.interval,
            });
        }
        Ok(())
    }
}
