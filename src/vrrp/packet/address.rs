//! The list of virtual addresses in an advertisement: at least one, as many as a byte can count, all of one family.

use std::net::{Ipv4Addr, Ipv6Addr};

/// As many as the count in the header can say.
pub const ADDRESSES_MAX: usize = 255;

/// 1 to [`ADDRESSES_MAX`] addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressList<A>(Vec<A>);

impl<A> AddressList<A> {
    /// None if there are too few or too many.
    #[must_use]
    pub fn new(addresses: Vec<A>) -> Option<AddressList<A>> {
        (1..=ADDRESSES_MAX)
            .contains(&addresses.len())
            .then_some(AddressList(addresses))
    }

    /// In their order.
    #[must_use]
    pub fn as_slice(&self) -> &[A] {
        &self.0
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u8 {
        u8::try_from(self.0.len()).expect("no more than a byte counts")
    }
}

impl AddressList<Ipv4Addr> {
    pub(super) fn decode_v4(bytes: &[u8]) -> Option<AddressList<Ipv4Addr>> {
        let (chunks, _) = bytes.as_chunks::<4>();
        AddressList::new(chunks.iter().copied().map(Ipv4Addr::from).collect())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.0.iter().flat_map(Ipv4Addr::octets));
    }
}

impl AddressList<Ipv6Addr> {
    pub(super) fn decode_v6(bytes: &[u8]) -> Option<AddressList<Ipv6Addr>> {
        let (chunks, _) = bytes.as_chunks::<16>();
        AddressList::new(chunks.iter().copied().map(Ipv6Addr::from).collect())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.0.iter().flat_map(Ipv6Addr::octets));
    }
}

/// The addresses of version 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4(AddressList<Ipv4Addr>),
    /// IPv6; the first one is link-local.
    V6(AddressList<Ipv6Addr>),
}

impl Addresses {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u8 {
        match self {
            Addresses::V4(list) => list.count(),
            Addresses::V6(list) => list.count(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Addresses::V4(list) => list.encode(out),
            Addresses::V6(list) => list.encode(out),
        }
    }
}
