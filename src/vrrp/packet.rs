//! VRRP on the wire: version 2 (RFC 3768: no authentication, simple password) and version 3 (RFC 9568, RFC 5798), over
//! IPv4 and IPv6. Bytes in, an [`Advertisement`] or a [`Rejection`] out, and back. What one virtual router accepts is
//! in [`Rules`]. No sockets, and no state.

mod address;
mod checksum;
mod rejection;
mod rules;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use etherparse::{IpNumber, Ipv4HeaderSlice};

pub use address::{ADDRESSES_MAX, AddressList, Addresses};
pub use checksum::ChecksumForm;
pub use rejection::{Kind, Rejection};
pub use rules::{Accepted, Rules};

/// The IP protocol number.
pub const PROTOCOL: u8 = 112;

/// The TTL or hop limit that advertisements are sent with: whoever is not on the link cannot reach it.
pub const HOP_LIMIT: u8 = 255;

/// Where advertisements go over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where advertisements go over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The longest advertisement in bytes: version 3 with as many IPv6 addresses as can be counted.
pub const LEN_MAX: usize = HEADER_LEN + ADDRESSES_MAX * 16;

const HEADER_LEN: usize = 8;
const PASSWORD_LEN: usize = 8;
const TYPE_ADVERTISEMENT: u8 = 1;
/// CARP has the same protocol number and, but for two fields, the same header.
const CARP_LEN: usize = 36;
const CARP_WORDS: u8 = 7;

/// Of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4 only, intervals of whole seconds.
    V2,
    /// RFC 9568: both families, intervals of centiseconds.
    V3,
}

impl Version {
    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "version {}", self.number())
    }
}

/// The number of a virtual router: one per interface and address family, 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// None for 0, which no virtual router has.
    #[must_use]
    pub fn new(number: u8) -> Option<Vrid> {
        NonZeroU8::new(number).map(Vrid)
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0.get()
    }
}

/// An interval of version 3: 1 to 4095 centiseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Centiseconds(u16);

impl Centiseconds {
    /// The most that the field can say.
    pub const MAX: Centiseconds = Centiseconds(0x0fff);

    /// None if the field cannot say it, or if it is 0.
    #[must_use]
    pub fn new(count: u16) -> Option<Centiseconds> {
        (1..=Centiseconds::MAX.0)
            .contains(&count)
            .then_some(Centiseconds(count))
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 10)
    }
}

/// A simple password of version 2: eight bytes, padded with zeros. It travels in the clear and keeps out mistakes, not
/// attackers.
#[derive(Clone, Copy)]
pub struct Password([u8; PASSWORD_LEN]);

impl Password {
    /// None if it is empty or longer than eight bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Password> {
        let mut padded = [0; PASSWORD_LEN];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (!bytes.is_empty()).then_some(Password(padded))
    }
}

impl PartialEq for Password {
    /// As one machine word: it takes the same time wherever the two differ.
    fn eq(&self, other: &Password) -> bool {
        u64::from_ne_bytes(self.0) == u64::from_ne_bytes(other.0)
    }
}

impl Eq for Password {}

impl std::fmt::Debug for Password {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Password(..)")
    }
}

/// What version 2 says to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    None,
    /// A password.
    Password(Password),
}

/// Where a datagram comes from and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// IPv4.
    V4 {
        /// From.
        source: Ipv4Addr,
        /// To.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// From.
        source: Ipv6Addr,
        /// To.
        destination: Ipv6Addr,
    },
}

impl Ends {
    /// From `source` to `destination`; none if they are not of one family.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr) -> Option<Ends> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Ends::V4 {
                source,
                destination,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Ends::V6 {
                source,
                destination,
            }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// From `source` to everybody on the link.
    #[must_use]
    pub fn to_group(source: IpAddr) -> Ends {
        match source {
            IpAddr::V4(source) => Ends::V4 {
                source,
                destination: GROUP_V4,
            },
            IpAddr::V6(source) => Ends::V6 {
                source,
                destination: GROUP_V6,
            },
        }
    }

    /// From where.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match *self {
            Ends::V4 { source, .. } => source.into(),
            Ends::V6 { source, .. } => source.into(),
        }
    }

    /// To where.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match *self {
            Ends::V4 { destination, .. } => destination.into(),
            Ends::V6 { destination, .. } => destination.into(),
        }
    }
}

/// An IP datagram of the protocol, its header taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// From where to where.
    pub ends: Ends,
    /// TTL or hop limit, as it arrived.
    pub hop_limit: u8,
    /// What the IP header carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// What a raw socket gave: a whole datagram of IPv4, or the payload of one of IPv6 with source, destination and hop
    /// limit beside it.
    ///
    /// # Errors
    /// As of [`Self::from_ipv4`].
    pub fn from_raw(
        ends: Option<(Ipv6Addr, Ipv6Addr, u8)>,
        bytes: &'a [u8],
    ) -> Result<Datagram<'a>, Rejection> {
        let Some((source, destination, hop_limit)) = ends else {
            return Datagram::from_ipv4(bytes);
        };
        Ok(Datagram {
            ends: Ends::V6 {
                source,
                destination,
            },
            hop_limit,
            payload: bytes,
        })
    }

    /// Takes apart what a raw IPv4 socket gives: the datagram with its header and options. (A raw IPv6 socket gives
    /// the payload, and the rest as ancillary data.)
    ///
    /// # Errors
    /// If it is no whole datagram of the protocol.
    pub fn from_ipv4(bytes: &'a [u8]) -> Result<Datagram<'a>, Rejection> {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| Rejection::IpHeader)?;
        let payload = bytes
            .get(header.slice().len()..usize::from(header.total_len()))
            .ok_or(Rejection::IpHeader)?;
        if header.is_fragmenting_payload() {
            return Err(Rejection::Fragment);
        }
        match header.protocol() {
            IpNumber(PROTOCOL) => Ok(Datagram {
                ends: Ends::V4 {
                    source: header.source_addr(),
                    destination: header.destination_addr(),
                },
                hop_limit: header.ttl(),
                payload,
            }),
            IpNumber::AUTHENTICATION_HEADER => Err(Rejection::AuthenticationHeader),
            IpNumber(other) => Err(Rejection::Protocol(other)),
        }
    }

    /// From whom a datagram of IPv4 is that could not be taken apart, and for which virtual router, as far as it says
    /// so; also one with an authentication header (RFC 2402). Nothing of it has been checked.
    #[must_use]
    pub fn addressee(bytes: &[u8]) -> Option<(IpAddr, Vrid)> {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let mut payload = bytes.get(header.slice().len()..)?;
        if header.fragments_offset().value() != 0 {
            return None;
        }
        if header.protocol() == IpNumber::AUTHENTICATION_HEADER {
            let [next, words] = *payload.first_chunk()?;
            payload = payload.get(8 + 4 * usize::from(words)..)?;
            if next != PROTOCOL {
                return None;
            }
        }
        let vrid = payload.get(1).copied().and_then(Vrid::new)?;
        Some((header.source_addr().into(), vrid))
    }

    /// Whom it is for, unless it is too short to say. Nothing else of it has been looked at.
    #[must_use]
    pub fn vrid(&self) -> Option<Vrid> {
        self.payload.get(1).copied().and_then(Vrid::new)
    }
}

/// What differs between the versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Version 2.
    V2 {
        /// The interval between two advertisements.
        seconds: NonZeroU8,
        /// What it says to prove itself.
        authentication: Authentication,
        /// The virtual addresses.
        addresses: AddressList<Ipv4Addr>,
    },
    /// Version 3.
    V3 {
        /// The interval between two advertisements.
        interval: Centiseconds,
        /// The virtual addresses.
        addresses: Addresses,
    },
}

/// "I hold these addresses, and with this priority."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Of which virtual router.
    pub vrid: Vrid,
    /// 0: the sender leaves. 255: it is the owner of the addresses.
    pub priority: u8,
    /// The rest, by version.
    pub body: Body,
}

impl Advertisement {
    /// Of the protocol.
    #[must_use]
    pub fn version(&self) -> Version {
        match self.body {
            Body::V2 { .. } => Version::V2,
            Body::V3 { .. } => Version::V3,
        }
    }

    /// Between two advertisements of this sender.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.body.interval()
    }

    /// The virtual addresses, in the order in which they are written.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.body.addresses()
    }

    /// Reads one, and says in which form its checksum was right. Everything that can be wrong with the bytes
    /// themselves is found here. At most [`ADDRESSES_MAX`] addresses are allocated.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(datagram: &Datagram) -> Result<(Advertisement, ChecksumForm), Rejection> {
        let payload = datagram.payload;
        let too_short = Rejection::Length {
            found: payload.len(),
            expected: HEADER_LEN,
        };
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN>().ok_or(too_short)?;
        let [kind, vrid, priority, count, timing @ .., _, _] = *header;
        let version = match (kind >> 4, datagram.ends) {
            (2, Ends::V4 { .. }) => Version::V2,
            (3, _) => Version::V3,
            (other, _) => return Err(Rejection::Version(other)),
        };
        if version == Version::V2 && count == CARP_WORDS && payload.len() == CARP_LEN {
            return Err(Rejection::Carp);
        }
        if kind & 0x0f != TYPE_ADVERTISEMENT {
            return Err(Rejection::Type(kind & 0x0f));
        }
        let vrid = Vrid::new(vrid).ok_or(Rejection::Vrid(0))?;
        let form = check_frame(datagram, version, count)?;
        let body = match version {
            Version::V2 => Body::decode_v2(timing, count, rest)?,
            Version::V3 => Body::decode_v3(timing, datagram.ends, rest)?,
        };
        let advertisement = Advertisement {
            vrid,
            priority,
            body,
        };
        Ok((advertisement, form))
    }

    /// Writes it for a datagram with these `ends`. The form of the checksum is a choice in version 3 over IPv4 only.
    #[must_use]
    pub fn encode(&self, ends: &Ends, form: ChecksumForm) -> Vec<u8> {
        let count = match &self.body {
            Body::V2 { addresses, .. } => addresses.count(),
            Body::V3 { addresses, .. } => addresses.count(),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN + usize::from(count) * 16 + PASSWORD_LEN);
        let kind = self.version().number() << 4 | TYPE_ADVERTISEMENT;
        bytes.extend([kind, self.vrid.number(), self.priority, count]);
        match &self.body {
            Body::V2 {
                seconds,
                authentication,
                addresses,
            } => {
                let (kind, proof) = match authentication {
                    Authentication::None => (0, [0; PASSWORD_LEN]),
                    Authentication::Password(password) => (1, password.0),
                };
                bytes.extend([kind, seconds.get(), 0, 0]);
                addresses.encode(&mut bytes);
                bytes.extend(proof);
            }
            Body::V3 {
                interval,
                addresses,
            } => {
                bytes.extend(interval.0.to_be_bytes());
                bytes.extend([0, 0]);
                addresses.encode(&mut bytes);
            }
        }
        let form = form.for_version(self.version(), ends);
        let checksum = form.over(ends, &bytes);
        bytes[6..8].copy_from_slice(&checksum);
        bytes
    }
}

/// The checks that every version has: how many addresses, how long, and the checksum.
fn check_frame(
    datagram: &Datagram,
    version: Version,
    count: u8,
) -> Result<ChecksumForm, Rejection> {
    if count == 0 {
        return Err(Rejection::NoAddress);
    }
    let expected = match (version, datagram.ends) {
        (Version::V2, _) => HEADER_LEN + usize::from(count) * 4 + PASSWORD_LEN,
        (Version::V3, Ends::V4 { .. }) => HEADER_LEN + usize::from(count) * 4,
        (Version::V3, Ends::V6 { .. }) => HEADER_LEN + usize::from(count) * 16,
    };
    if datagram.payload.len() != expected {
        return Err(Rejection::Length {
            found: datagram.payload.len(),
            expected,
        });
    }
    ChecksumForm::found(version, &datagram.ends, datagram.payload).ok_or(Rejection::Checksum)
}

impl Body {
    /// Between two advertisements of one sender.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self {
            Body::V2 { seconds, .. } => Duration::from_secs(seconds.get().into()),
            Body::V3 { interval, .. } => interval.duration(),
        }
    }

    /// The virtual addresses, in the order in which they are written.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (v4, v6) = match self {
            Body::V2 { addresses, .. }
            | Body::V3 {
                addresses: Addresses::V4(addresses),
                ..
            } => (addresses.as_slice(), [].as_slice()),
            Body::V3 {
                addresses: Addresses::V6(addresses),
                ..
            } => ([].as_slice(), addresses.as_slice()),
        };
        let v4 = v4.iter().copied().map(IpAddr::V4);
        v4.chain(v6.iter().copied().map(IpAddr::V6))
    }

    fn decode_v2([kind, seconds]: [u8; 2], count: u8, rest: &[u8]) -> Result<Body, Rejection> {
        let seconds = NonZeroU8::new(seconds).ok_or(Rejection::IntervalZero)?;
        let (addresses, proof) = rest.split_at(usize::from(count) * 4);
        let authentication = match kind {
            0 => Authentication::None,
            1 => Authentication::Password(Password(
                proof.try_into().expect("its length was checked"),
            )),
            2 => return Err(Rejection::AuthenticationHeader),
            other => return Err(Rejection::AuthenticationType(other)),
        };
        Ok(Body::V2 {
            seconds,
            authentication,
            addresses: AddressList::decode_v4(addresses).ok_or(Rejection::NoAddress)?,
        })
    }

    fn decode_v3(timing: [u8; 2], ends: Ends, rest: &[u8]) -> Result<Body, Rejection> {
        let interval = u16::from_be_bytes(timing) & Centiseconds::MAX.0;
        let addresses = match ends {
            Ends::V4 { .. } => AddressList::decode_v4(rest).map(Addresses::V4),
            Ends::V6 { .. } => AddressList::decode_v6(rest).map(Addresses::V6),
        };
        Ok(Body::V3 {
            interval: Centiseconds::new(interval).ok_or(Rejection::IntervalZero)?,
            addresses: addresses.ok_or(Rejection::NoAddress)?,
        })
    }
}
