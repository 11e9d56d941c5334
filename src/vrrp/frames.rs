//! The frames that tell a link where a virtual address is, and those in which somebody else says that it has one. Bytes
//! in, bytes out.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType, Ethernet2Header,
    Ethernet2HeaderSlice, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel,
    Ipv6Header,
};

use super::packet::{Ends, HOP_LIMIT, PROTOCOL, Vrid};

/// Of Ethernet.
pub type Mac = [u8; 6];

/// The type of frames with ARP in them.
pub const ETHER_TYPE_ARP: u16 = EtherType::ARP.0;

/// Of ICMPv6: neighbour advertisements.
pub const ICMP_TYPE_ADVERTISEMENT: u8 = 136;

/// Of advertisements: network control, as RFC 791 has it.
const TRAFFIC_CLASS: u8 = 0xc0;
const EVERYBODY: Mac = [0xff; 6];
/// Everybody on a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// The option that has the link-layer address of the target: type 2, one unit of eight bytes.
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];

/// The MAC address of a virtual router (RFC 9568, section 7.3).
#[must_use]
pub fn virtual_mac(vrid: Vrid, is_ipv4: bool) -> Mac {
    let family = if is_ipv4 { 1 } else { 2 };
    [0, 0, 0x5e, 0, family, vrid.number()]
}

/// An advertisement in a frame of its own, from this MAC address to the group that it is for: so that switches learn
/// where the address is.
#[must_use]
pub fn advertisement(mac: Mac, ends: &Ends, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("an advertisement is shorter than a datagram");
    let (destination, ether_type, ip) = match *ends {
        Ends::V4 {
            source,
            destination,
        } => {
            let (from, to) = (source.octets(), destination.octets());
            let mut ip = Ipv4Header::new(len, HOP_LIMIT, IpNumber(PROTOCOL), from, to)
                .expect("an advertisement is shorter than a datagram");
            ip.dscp = (TRAFFIC_CLASS >> 2).try_into().expect("six bits");
            ip.header_checksum = ip.calc_header_checksum();
            let mac = [0x01, 0x00, 0x5e, to[1] & 0x7f, to[2], to[3]];
            (mac, EtherType::IPV4, ip.to_bytes().to_vec())
        }
        Ends::V6 {
            source,
            destination,
        } => {
            let to = destination.octets();
            let ip = Ipv6Header {
                traffic_class: TRAFFIC_CLASS,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: len,
                next_header: IpNumber(PROTOCOL),
                hop_limit: HOP_LIMIT,
                source: source.octets(),
                destination: to,
            };
            let mac = [0x33, 0x33, to[12], to[13], to[14], to[15]];
            (mac, EtherType::IPV6, ip.to_bytes().to_vec())
        }
    };
    let ethernet = Ethernet2Header {
        source: mac,
        destination,
        ether_type,
    };
    [&ethernet.to_bytes()[..], &ip, payload].concat()
}

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

/// Who says in a neighbour advertisement, given without its IP header, that it has which address. The kernel has
/// checked its checksum.
#[must_use]
pub fn neighbour_claim(message: &[u8], hop_limit: u8) -> Option<(Mac, Ipv6Addr)> {
    let (head, options) = message.split_first_chunk::<24>()?;
    if head[0] != ICMP_TYPE_ADVERTISEMENT || head[1] != 0 || hop_limit != 255 {
        return None;
    }
    let target: [u8; 16] = head[8..].try_into().ok()?;
    let mut rest = options;
    while let Some(len) = rest.get(1).map(|units| usize::from(*units) * 8) {
        let option = rest.get(..len).filter(|_| len > 0)?;
        if option[..2] == TARGET_LINK_LAYER {
            return Some((option[2..].try_into().ok()?, Ipv6Addr::from(target)));
        }
        rest = &rest[len..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::packet::{GROUP_V4, GROUP_V6};
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
        let (message, address) = (&frame[54..], "2001:db8::100".parse().unwrap());
        assert_eq!(neighbour_claim(message, 255), Some((MAC, address)));
        assert_eq!(neighbour_claim(message, 254), None, "from elsewhere");
        for len in 0..message.len() {
            assert_eq!(neighbour_claim(&message[..len], 255), None, "{len} bytes");
        }
        let endless = [&message[..24], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(neighbour_claim(&endless, 255), None);
    }

    #[test]
    fn an_advertisement_goes_to_the_group_from_the_virtual_mac() {
        let vrid = Vrid::new(51).unwrap();
        let v4 = Ends::V4 {
            source: Ipv4Addr::new(10, 99, 0, 1),
            destination: GROUP_V4,
        };
        let frame = advertisement(virtual_mac(vrid, true), &v4, &[7; 12]);
        assert_eq!(frame[..6], [0x01, 0, 0x5e, 0, 0, 0x12]);
        assert_eq!(frame[6..14], [0, 0, 0x5e, 0, 1, 51, 8, 0]);
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..34]).unwrap();
        let checksum = ip.to_header().calc_header_checksum();
        assert_eq!((ip.ttl(), frame[15]), (255, 0xc0));
        assert_eq!(ip.header_checksum(), checksum);
        assert_eq!(frame.len(), 14 + usize::from(ip.total_len()));
        let v6 = Ends::V6 {
            source: "fe80::1".parse().unwrap(),
            destination: GROUP_V6,
        };
        let frame = advertisement(virtual_mac(vrid, false), &v6, &[7; 24]);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        assert_eq!(frame[6..14], [0, 0, 0x5e, 0, 2, 51, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x6c, 0, 0, 0, 0, 24, 112, 255]);
    }
}
