//! Why a datagram is not listened to: one word per reason for counters, and a sentence with the values for the log.

use std::net::IpAddr;
use std::time::Duration;

use super::{HOP_LIMIT, Version};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident => $word:literal),+ $(,)?) => {
        /// The reason without its values, as it is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $variant),+ }

        impl Kind {
            /// Every kind, in the order of the discriminants.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant),+];

            /// The word that counters, logs and the API use.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$variant => $word),+ }
            }
        }
    };
}

kinds! {
    /// See [`Rejection::IpHeader`].
    IpHeader => "ip_header",
    /// See [`Rejection::Fragment`].
    Fragment => "fragment",
    /// See [`Rejection::Protocol`].
    Protocol => "protocol",
    /// See [`Rejection::AuthenticationHeader`].
    AuthenticationHeader => "authentication_header",
    /// See [`Rejection::SourceUnspecified`].
    SourceUnspecified => "source_unspecified",
    /// See [`Rejection::SourceOurs`].
    SourceOurs => "source_ours",
    /// See [`Rejection::NotAPeer`].
    NotAPeer => "not_a_peer",
    /// See [`Rejection::Destination`].
    Destination => "destination",
    /// See [`Rejection::HopLimit`].
    HopLimit => "hop_limit",
    /// See [`Rejection::Length`].
    Length => "length",
    /// See [`Rejection::Version`].
    Version => "version",
    /// See [`Rejection::VersionDiffers`].
    VersionDiffers => "version_differs",
    /// See [`Rejection::Carp`].
    Carp => "carp",
    /// See [`Rejection::Type`].
    Type => "type",
    /// See [`Rejection::Vrid`].
    Vrid => "vrid",
    /// See [`Rejection::NoAddress`].
    NoAddress => "no_address",
    /// See [`Rejection::Checksum`].
    Checksum => "checksum",
    /// See [`Rejection::IntervalZero`].
    IntervalZero => "interval_zero",
    /// See [`Rejection::IntervalDiffers`].
    IntervalDiffers => "interval_differs",
    /// See [`Rejection::AuthenticationType`].
    AuthenticationType => "authentication_type",
    /// See [`Rejection::AuthenticationDiffers`].
    AuthenticationDiffers => "authentication_differs",
    /// See [`Rejection::Password`].
    Password => "password",
}

impl Kind {
    /// The position in a table of all kinds.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why a datagram is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The IP header does not fit what arrived.
    #[error("not a whole IP datagram")]
    IpHeader,
    /// No advertisement is so long that it must be in pieces.
    #[error("a fragment")]
    Fragment,
    /// It is another protocol.
    #[error("IP protocol {0}, not VRRP")]
    Protocol(u8),
    /// Authentication by AH went with RFC 2338 and is not spoken.
    #[error("authenticated by AH, which is not supported: use `auth_type PASS` or none there")]
    AuthenticationHeader,
    /// The sender has no address.
    #[error("source {0}")]
    SourceUnspecified(IpAddr),
    /// Somebody else has our address, or the network gives us back what we send.
    #[error("source {0} is our own address: somebody else has it, or there is a loop")]
    SourceOurs(IpAddr),
    /// It was sent to us alone, by somebody who is not in `peers`.
    #[error("unicast from {0}, which is not in `peers`")]
    NotAPeer(IpAddr),
    /// It was sent to a multicast group: to any while there are `peers`, else to another than VRRP's.
    #[error("sent to {0}, where this virtual router does not listen")]
    Destination(IpAddr),
    /// It came through a router.
    #[error("TTL or hop limit {0}, not {HOP_LIMIT}: not sent on this link")]
    HopLimit(u8),
    /// It is too short, or longer than its count of addresses says.
    #[error("{found} bytes, expected {expected}")]
    Length {
        /// Bytes that arrived.
        found: usize,
        /// Bytes that the header stands for, or the header's own.
        expected: usize,
    },
    /// There is no such version in this address family.
    #[error("VRRP version {0}")]
    Version(u8),
    /// Another version than the virtual router's.
    #[error("{theirs}, here it is {ours}")]
    VersionDiffers {
        /// The sender's.
        theirs: Version,
        /// The virtual router's.
        ours: Version,
    },
    /// It is CARP, which has the same protocol number.
    #[error("CARP, not VRRP")]
    Carp,
    /// It is not an advertisement; there is nothing else.
    #[error("type {0}, not an advertisement")]
    Type(u8),
    /// It is for another virtual router, or for none.
    #[error("virtual router {0} is not ours")]
    Vrid(u8),
    /// It advertises nothing.
    #[error("no virtual address in it")]
    NoAddress,
    /// The checksum is wrong in every form that is in use.
    #[error("wrong checksum")]
    Checksum,
    /// Taken at its word it would make the sender dead at once.
    #[error("an advertisement interval of 0")]
    IntervalZero,
    /// In version 2 all must have the same interval.
    #[error("interval {theirs:?}, here it is {ours:?}; in version 2 they must be equal")]
    IntervalDiffers {
        /// The sender's.
        theirs: Duration,
        /// The virtual router's.
        ours: Duration,
    },
    /// There is no such type of authentication.
    #[error("authentication type {0}")]
    AuthenticationType(u8),
    /// One of the two has a password and the other has none.
    #[error("one side has a password and the other has none")]
    AuthenticationDiffers,
    /// Another password than ours.
    #[error("the password differs")]
    Password,
}

impl Rejection {
    /// The reason without its values.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Rejection::IpHeader => Kind::IpHeader,
            Rejection::Fragment => Kind::Fragment,
            Rejection::Protocol(_) => Kind::Protocol,
            Rejection::AuthenticationHeader => Kind::AuthenticationHeader,
            Rejection::SourceUnspecified(_) => Kind::SourceUnspecified,
            Rejection::SourceOurs(_) => Kind::SourceOurs,
            Rejection::NotAPeer(_) => Kind::NotAPeer,
            Rejection::Destination(_) => Kind::Destination,
            Rejection::HopLimit(_) => Kind::HopLimit,
            Rejection::Length { .. } => Kind::Length,
            Rejection::Version(_) => Kind::Version,
            Rejection::VersionDiffers { .. } => Kind::VersionDiffers,
            Rejection::Carp => Kind::Carp,
            Rejection::Type(_) => Kind::Type,
            Rejection::Vrid(_) => Kind::Vrid,
            Rejection::NoAddress => Kind::NoAddress,
            Rejection::Checksum => Kind::Checksum,
            Rejection::IntervalZero => Kind::IntervalZero,
            Rejection::IntervalDiffers { .. } => Kind::IntervalDiffers,
            Rejection::AuthenticationType(_) => Kind::AuthenticationType,
            Rejection::AuthenticationDiffers => Kind::AuthenticationDiffers,
            Rejection::Password => Kind::Password,
        }
    }
}
