//! Which ports and paths listeners have claimed, so that two of them do not want the same. It reports nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::address::Ports;
use super::yaml::Place;

/// The ports and paths that listeners of one protocol have.
#[derive(Default)]
pub(super) struct Taken {
    by_port: HashMap<u16, Vec<Claim>>,
    pub(super) paths: HashMap<PathBuf, (String, Option<Place>)>,
}

#[derive(Clone)]
pub(super) struct Claim {
    pub(super) host: Option<IpAddr>,
    pub(super) place: Option<Place>,
    /// Which one it is, and what it is called.
    pub(super) listener: usize,
    pub(super) name: String,
}

impl Taken {
    /// Takes the ports; the first that somebody else has, and who.
    pub(super) fn add(
        &mut self,
        host: Option<IpAddr>,
        ports: Ports,
        place: Option<Place>,
        listener: usize,
        name: &str,
    ) -> Option<(u16, Claim)> {
        let mut clash = None;
        // A port that the kernel chooses is nobody's.
        for port in (ports.first..=ports.last).filter(|port| *port != 0) {
            let claims = self.by_port.entry(port).or_default();
            let other = claims.iter().find(|other| overlap(other.host, host));
            clash = clash.or_else(|| other.map(|other| (port, other.clone())));
            claims.push(Claim {
                host,
                place,
                listener,
                name: name.to_owned(),
            });
        }
        clash
    }

    pub(super) fn listening_at(&self, address: SocketAddr) -> Option<&str> {
        let claims = self.by_port.get(&address.port())?;
        let local = address.ip().is_loopback();
        let same = |claim: &&Claim| match claim.host {
            Some(host) => {
                host == address.ip()
                    || (host.is_unspecified() && local && host.is_ipv4() == address.is_ipv4())
            }
            None => local,
        };
        claims.iter().find(same).map(|claim| claim.name.as_str())
    }
}

/// Whether two hosts share an address; none is every one.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return true;
    };
    let all_of_family = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    one == other
        || (one.is_ipv4() == other.is_ipv4()
            && (all_of_family.contains(&one) || all_of_family.contains(&other)))
}
