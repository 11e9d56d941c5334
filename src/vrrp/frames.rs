//! The frames that tell a link where a virtual address is, and those in which somebody else says that it has one. Bytes
//! in, bytes out.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType, Ethernet2Header,
    Ethernet2HeaderSlice, Icmpv6Header, Icmpv6Type, IpNumber, Ipv6FlowLabel, Ipv6Header,
};

/// Of Ethernet.
pub type Mac = [u8; 6];

/// The type of frames with ARP in them.
pub const ETHER_TYPE_ARP: u16 = EtherType::ARP.0;

const EVERYBODY: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// The option that has the link-layer address of the target: type 2, one unit of eight bytes.
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];

/// A gratuitous ARP request: the sender asks for the address that it says it has (RFC 5227, section 3).
#[must_use]
pub fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let ethernet = Ethernet2Header {
        source: mac,
        destination: EVERYBODY,
        ether_type: EtherType::ARP,
    };
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac,
        sender_ipv4: address.octets(),
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    [&ethernet.to_bytes()[..], &arp.to_bytes()].concat()
}

/// An unsolicited neighbour advertisement with the override flag (RFC 4861, section 7.2.6).
#[must_use]
pub fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut payload = address.octets().to_vec();
    payload.extend(TARGET_LINK_LAYER);
    payload.extend(mac);
    let kind = Icmpv6Type::NeighborAdvertisement(NeighborAdvertisementHeader {
        router: false,
        solicited: false,
        r#override: true,
    });
    let (source, destination) = (address.octets(), ALL_NODES.octets());
    let icmp = Icmpv6Header::with_checksum(kind, source, destination, &payload)
        .expect("a few bytes have a checksum");
    let icmp = icmp.to_bytes();
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(icmp.len() + payload.len()).expect("a few bytes"),
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source,
        destination,
    };
    let ethernet = Ethernet2Header {
        source: mac,
        destination: ALL_NODES_MAC,
        ether_type: EtherType::IPV6,
    };
    [&ethernet.to_bytes()[..], &ip.to_bytes(), &icmp, &payload].concat()
}

/// Who says in a frame that it has which address.
#[must_use]
pub fn arp_claim(frame: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let rest = frame.get(ethernet.slice().len()..)?;
    let arp = ArpPacketSlice::from_slice(rest).ok()?.to_packet();
    let arp = arp.try_eth_ipv4().ok()?;
    Some((arp.sender_mac, arp.sender_ipv4_addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_claims_what_it_asks_for() {
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let frame = gratuitous_arp(MAC, address);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[28..32], frame[38..42], "sender and target are one");
        assert_eq!(arp_claim(&frame), Some((MAC, address)));
        for len in 0..frame.len() {
            assert_eq!(arp_claim(&frame[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_has_a_right_checksum() {
        let frame = unsolicited_advertisement(MAC, "2001:db8::100".parse().unwrap());
        let packet = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::TransportHeader::Icmpv6(icmp)) = packet.transport else {
            panic!("no ICMPv6: {packet:?}");
        };
        assert!(matches!(
            icmp.icmp_type,
            Icmpv6Type::NeighborAdvertisement(header) if header.r#override && !header.solicited
        ));
        let (source, payload) = (&frame[22..38], &frame[62..]);
        let expected =
            icmp.icmp_type
                .calc_checksum(source.try_into().unwrap(), ALL_NODES.octets(), payload);
        assert_eq!(icmp.checksum, expected.unwrap());
        assert_eq!(payload[16..], [2, 1, 2, 0, 0, 0, 0, 7]);
    }
}
