//! The wire against captured frames of keepalived, against every single change of a byte, and against itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// Captured datagrams: a line each, the capture's name and the bytes in hex.
const FRAMES: &str = include_str!("../../../tests/data/vrrp/frames.txt");

struct Frame {
    capture: &'static str,
    bytes: Vec<u8>,
}

impl Frame {
    fn all() -> Vec<Frame> {
        let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
        lines.map(Frame::from_line).collect()
    }

    fn of(capture: &str) -> Frame {
        let mut frames = Frame::all().into_iter();
        frames.find(|frame| frame.capture == capture).unwrap()
    }

    fn from_line(line: &'static str) -> Frame {
        let (capture, hex) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes = (0..hex.len()).step_by(2).map(byte).collect();
        Frame { capture, bytes }
    }

    fn datagram(&self) -> Result<Datagram<'_>, Rejection> {
        if self.bytes[0] >> 4 == 4 {
            return Datagram::from_ipv4(&self.bytes);
        }
        let address = |at: usize| {
            let octets: [u8; 16] = self.bytes[at..at + 16].try_into().unwrap();
            Ipv6Addr::from(octets)
        };
        Ok(Datagram {
            ends: Ends::V6 {
                source: address(8),
                destination: address(24),
            },
            hop_limit: self.bytes[7],
            payload: &self.bytes[40..],
        })
    }

    /// Rules under which a virtual router listens to it.
    fn rules(&self) -> Rules {
        let datagram = self.datagram().unwrap();
        let (advertisement, _) = Advertisement::decode(&datagram).unwrap();
        let is_unicast = self.capture.contains("unicast");
        Rules {
            vrid: advertisement.vrid,
            version: advertisement.version(),
            interval: advertisement.interval(),
            authentication: match advertisement.body {
                Body::V2 { authentication, .. } => authentication,
                Body::V3 { .. } => Authentication::None,
            },
            peers: is_unicast
                .then(|| datagram.ends.source())
                .into_iter()
                .collect(),
        }
    }
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, last))
}

#[test]
fn captured_frames_are_read_and_written_to_the_same_bytes() {
    let mut forms = Vec::new();
    for frame in Frame::all() {
        let datagram = match frame.datagram() {
            Err(Rejection::AuthenticationHeader) if frame.capture == "v2_ah" => continue,
            other => other.unwrap(),
        };
        let (advertisement, form) = Advertisement::decode(&datagram).unwrap();
        let written = advertisement.encode(&datagram.ends, form);
        assert_eq!(written, datagram.payload, "{}", frame.capture);
        let accepted = frame.rules().accept(&datagram, Some(v4(2)));
        assert_eq!(accepted.unwrap().advertisement, advertisement);
        forms.push((frame.capture, form));
    }
    for (capture, form) in forms {
        let expected = match capture {
            "v3_ip4_unicast_oldck" => ChecksumForm::PseudoHeaderOfGroup,
            _ if capture.starts_with("v3") => ChecksumForm::PseudoHeader,
            _ => ChecksumForm::Message,
        };
        assert_eq!(form, expected, "{capture}");
    }
}

#[test]
fn captured_frames_say_what_their_configurations_say() {
    let decode = |capture: &str| {
        let frame = Frame::of(capture);
        let (advertisement, _) = Advertisement::decode(&frame.datagram().unwrap()).unwrap();
        advertisement
    };
    let millis = |capture: &str| decode(capture).interval().as_millis();
    assert_eq!(millis("v2_noauth"), 1_000);
    assert_eq!(millis("v3_ip4"), 1_000);
    assert_eq!(millis("v3_ip4_10cs"), 100);
    assert_eq!(millis("v3_ip4_1cs"), 10);
    assert_eq!(millis("v3_ip4_4095cs"), 40_950);
    assert_eq!(decode("v3_ip4").priority, 200);
    assert_eq!(decode("v3_ip4_owner255").priority, 255);
    let addresses: Vec<_> = decode("v2_3vips").addresses().collect();
    assert_eq!(addresses, [v4(100), v4(101), v4(102)]);
    let addresses: Vec<_> = decode("v3_ip6").addresses().collect();
    let expected: [IpAddr; 2] = [
        "fe80::5eff:fe00:233".parse().unwrap(),
        "fd99::100".parse().unwrap(),
    ];
    assert_eq!(addresses, expected);
    let password = |capture: &str| match decode(capture).body {
        Body::V2 { authentication, .. } => authentication,
        Body::V3 { .. } => unreachable!("a version 2 capture"),
    };
    let secret = |text: &[u8]| Authentication::Password(Password::new(text).unwrap());
    assert_eq!(password("v2_noauth"), Authentication::None);
    assert_eq!(password("v2_pass"), secret(b"secret12"));
    assert_eq!(password("v2_pass_short"), secret(b"1234"));
    assert_ne!(password("v2_pass_short"), secret(b"12345"));
}

#[test]
fn the_form_of_rfc_9568_is_read_and_written() {
    let frame = Frame::of("v3_ip4");
    let datagram = frame.datagram().unwrap();
    let (advertisement, _) = Advertisement::decode(&datagram).unwrap();
    let written = advertisement.encode(&datagram.ends, ChecksumForm::Message);
    assert_ne!(written, datagram.payload);
    let datagram = Datagram {
        payload: &written,
        ..datagram
    };
    let (again, form) = Advertisement::decode(&datagram).unwrap();
    assert_eq!((again, form), (advertisement, ChecksumForm::Message));
}

/// What is changed about a good datagram, and why it is then not listened to.
type Spoiled = (&'static str, fn(&mut Vec<u8>), Kind);

/// Makes the checksum right again, so that another check has to find it.
fn mend(bytes: &mut [u8]) {
    bytes[26..28].fill(0);
    let ends = Datagram::from_ipv4(bytes).unwrap().ends;
    let version = if bytes[20] >> 4 == 2 {
        Version::V2
    } else {
        Version::V3
    };
    let form = ChecksumForm::PseudoHeader.for_version(version, &ends);
    let checksum = form.over(&ends, &bytes[20..]);
    bytes[26..28].copy_from_slice(&checksum);
}

const SPOILED: &[Spoiled] = &[
    ("v3_ip4", |bytes| bytes.truncate(12), Kind::IpHeader),
    ("v3_ip4", |bytes| bytes.truncate(31), Kind::IpHeader),
    ("v3_ip4", |bytes| bytes[0] = 0x44, Kind::IpHeader),
    ("v3_ip4", |bytes| bytes[0] = 0x4f, Kind::IpHeader),
    ("v3_ip4", |bytes| bytes[0] = 0x65, Kind::IpHeader),
    ("v3_ip4", |bytes| bytes[3] = 19, Kind::IpHeader),
    ("v3_ip4", |bytes| bytes[6] = 0x20, Kind::Fragment),
    ("v3_ip4", |bytes| bytes[7] = 1, Kind::Fragment),
    ("v3_ip4", |bytes| bytes[9] = 17, Kind::Protocol),
    ("v2_ah", |_| {}, Kind::AuthenticationHeader),
    (
        "v3_ip4",
        |bytes| bytes[12..16].fill(0),
        Kind::SourceUnspecified,
    ),
    ("v3_ip4", |bytes| bytes[15] = 2, Kind::SourceOurs),
    ("v3_ip4_unicast", |bytes| bytes[15] = 9, Kind::NotAPeer),
    (
        "v3_ip4",
        |bytes| bytes[16..20].copy_from_slice(&[10, 99, 0, 2]),
        Kind::NotAPeer,
    ),
    ("v3_ip4", |bytes| bytes[19] = 13, Kind::Destination),
    (
        "v3_ip4_unicast",
        |bytes| bytes[16..20].copy_from_slice(&[224, 0, 0, 18]),
        Kind::Destination,
    ),
    ("v3_ip4", |bytes| bytes[8] = 254, Kind::HopLimit),
    ("v3_ip4", |bytes| bytes[3] = 27, Kind::Length),
    ("v3_ip4", |bytes| bytes[3] = 28, Kind::Length),
    ("v3_ip4", |bytes| bytes[23] = 2, Kind::Length),
    ("v2_noauth", |bytes| bytes[3] = 32, Kind::Length),
    ("v3_ip4", |bytes| bytes[20] = 0x41, Kind::Version),
    ("v3_ip4", |bytes| bytes[20] = 0x11, Kind::Version),
    ("v3_ip4", |bytes| bytes[20] = 0x32, Kind::Type),
    ("v2_noauth", |bytes| bytes[20] = 0x22, Kind::Type),
    (
        "v3_ip4",
        |bytes| {
            bytes[21] = 52;
            mend(bytes);
        },
        Kind::Vrid,
    ),
    (
        "v3_ip4",
        |bytes| {
            bytes[21] = 0;
            mend(bytes);
        },
        Kind::Vrid,
    ),
    (
        "v3_ip4",
        |bytes| {
            bytes[23] = 0;
            bytes[3] = 28;
        },
        Kind::NoAddress,
    ),
    ("v3_ip4", |bytes| bytes[22] ^= 1, Kind::Checksum),
    (
        "v3_ip4",
        |bytes| {
            bytes[24..26].fill(0);
            mend(bytes);
        },
        Kind::IntervalZero,
    ),
    (
        "v3_ip4",
        |bytes| {
            bytes[24] = 0xf0;
            bytes[25] = 0;
            mend(bytes);
        },
        Kind::IntervalZero,
    ),
    (
        "v2_noauth",
        |bytes| {
            bytes[25] = 0;
            mend(bytes);
        },
        Kind::IntervalZero,
    ),
    (
        "v2_noauth",
        |bytes| {
            bytes[25] = 2;
            mend(bytes);
        },
        Kind::IntervalDiffers,
    ),
    (
        "v2_noauth",
        |bytes| {
            bytes[24] = 2;
            mend(bytes);
        },
        Kind::AuthenticationHeader,
    ),
    (
        "v2_noauth",
        |bytes| {
            bytes[24] = 3;
            mend(bytes);
        },
        Kind::AuthenticationType,
    ),
    (
        "v2_noauth",
        |bytes| {
            bytes[24] = 1;
            mend(bytes);
        },
        Kind::AuthenticationDiffers,
    ),
    (
        "v2_pass",
        |bytes| {
            bytes[24] = 0;
            mend(bytes);
        },
        Kind::AuthenticationDiffers,
    ),
    (
        "v2_pass",
        |bytes| {
            bytes[32] ^= 1;
            mend(bytes);
        },
        Kind::Password,
    ),
    (
        "v2_pass",
        |bytes| {
            bytes[39] ^= 1;
            mend(bytes);
        },
        Kind::Password,
    ),
];

#[test]
fn every_check_finds_what_it_is_there_for() {
    for (number, (capture, spoil, expected)) in SPOILED.iter().enumerate() {
        let mut frame = Frame::of(capture);
        let rules = match *capture {
            "v2_ah" => Frame::of("v2_noauth").rules(),
            _ => frame.rules(),
        };
        spoil(&mut frame.bytes);
        let found = Datagram::from_ipv4(&frame.bytes)
            .and_then(|datagram| rules.accept(&datagram, Some(v4(2))))
            .unwrap_err();
        assert_eq!(found.kind(), *expected, "row {number}, {capture}: {found}");
    }
}

#[test]
fn every_kind_of_rejection_can_happen_to_a_datagram() {
    // These two do not come from one changed frame; the tests below have them.
    let elsewhere = [Kind::Carp, Kind::VersionDiffers];
    for kind in Kind::ALL {
        let is_found = SPOILED.iter().any(|(_, _, expected)| expected == kind);
        assert!(is_found != elsewhere.contains(kind), "{kind:?}");
    }
}

#[test]
fn another_version_is_told_apart_from_an_unknown_one() {
    let rules = Frame::of("v2_noauth").rules();
    let frame = Frame::of("v3_ip4");
    let found = rules.accept(&frame.datagram().unwrap(), None);
    assert_eq!(found.unwrap_err().kind(), Kind::VersionDiffers);
    let frame = Frame::of("v3_ip6");
    let mut spoiled = frame.bytes.clone();
    spoiled[40] = 0x21;
    let datagram = Datagram {
        payload: &spoiled[40..],
        ..frame.datagram().unwrap()
    };
    let found = frame.rules().accept(&datagram, None);
    assert_eq!(found.unwrap_err(), Rejection::Version(2));
}

#[test]
fn carp_is_told_apart_although_its_header_is_the_same() {
    let frame = Frame::of("v2_noauth");
    let mut payload = [0x5a_u8; CARP_LEN];
    payload[..8].copy_from_slice(&[0x21, 51, 0, 7, 0, 1, 0, 0]);
    let datagram = Datagram {
        payload: &payload,
        ..frame.datagram().unwrap()
    };
    assert_eq!(
        frame.rules().accept(&datagram, None).unwrap_err(),
        Rejection::Carp
    );
}

#[test]
fn ip_options_do_not_confuse_it() {
    let frame = Frame::of("v3_ip4");
    let mut bytes = frame.bytes.clone();
    bytes[0] = 0x46;
    bytes[3] += 4;
    bytes.splice(20..20, [0x94, 4, 0, 0]);
    let datagram = Datagram::from_ipv4(&bytes).unwrap();
    assert_eq!(datagram, frame.datagram().unwrap());
}

#[test]
fn what_follows_the_datagram_is_not_part_of_it() {
    let frame = Frame::of("v3_ip4");
    let mut bytes = frame.bytes.clone();
    bytes.extend([0; 14]);
    assert_eq!(
        Datagram::from_ipv4(&bytes).unwrap(),
        frame.datagram().unwrap()
    );
}

#[test]
fn what_cannot_be_taken_apart_may_still_say_whom_it_is_for() {
    /// An IPv4 header from 10.99.0.2 to the group, without a checksum, and what it carries.
    fn datagram(protocol: u8, fragment: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(20 + payload.len()).unwrap();
        let mut bytes = vec![
            0x45, 0xc0, 0, len, 0, 1, 0x20, fragment, 255, protocol, 0, 0,
        ];
        bytes.extend([10, 99, 0, 2, 224, 0, 0, 18]);
        bytes.extend(payload);
        bytes
    }
    /// Next header, length, and the rest of an authentication header with twelve bytes of proof.
    fn authenticated(next: u8, words: u8) -> Vec<u8> {
        let mut bytes = vec![next, words];
        bytes.resize(24, 0);
        bytes.extend([0x21, 51, 250, 1]);
        bytes
    }
    let own = Some((v4(2), Vrid::new(51).unwrap()));
    for (bytes, expected) in [
        (datagram(112, 0, &[0x31, 51, 250, 1]), own),
        (datagram(112, 0, &[0x31, 0]), None),
        (datagram(112, 0, &[0x31]), None),
        (datagram(112, 9, &[0x31, 51, 250, 1]), None),
        (datagram(51, 0, &authenticated(112, 4)), own),
        (datagram(51, 0, &authenticated(50, 4)), None),
        (datagram(51, 0, &authenticated(112, 255)), None),
        (datagram(51, 0, &[112]), None),
        (vec![0x45], None),
    ] {
        assert_eq!(Datagram::addressee(&bytes), expected, "{bytes:?}");
    }
}

#[test]
fn unicast_is_taken_from_a_peer_with_any_hop_limit() {
    let frame = Frame::of("v3_ip6_unicast");
    let datagram = frame.datagram().unwrap();
    assert_eq!(datagram.hop_limit, 64);
    assert!(frame.rules().accept(&datagram, None).is_ok());
}

#[test]
fn the_reserved_bits_are_ignored() {
    let mut frame = Frame::of("v3_ip4");
    let rules = frame.rules();
    frame.bytes[24] |= 0xf0;
    mend(&mut frame.bytes);
    let accepted = rules.accept(&frame.datagram().unwrap(), None).unwrap();
    assert_eq!(accepted.advertisement.interval(), rules.interval);
}

#[test]
fn any_changed_byte_of_a_message_is_found_or_harmless() {
    for frame in Frame::all() {
        let Ok(good) = frame.datagram() else { continue };
        let rules = frame.rules();
        for at in 0..good.payload.len() {
            for flip in 1..=255 {
                let mut payload = good.payload.to_vec();
                payload[at] ^= flip;
                let datagram = Datagram {
                    payload: &payload,
                    ..good
                };
                let found = rules.accept(&datagram, None);
                assert!(found.is_err(), "{}: byte {at} ^ {flip}", frame.capture);
            }
        }
    }
}

#[test]
fn a_password_has_one_to_eight_bytes_and_is_not_shown() {
    assert_eq!(Password::new(b""), None);
    assert_eq!(Password::new(b"123456789"), None);
    let password = Password::new(b"12345678").unwrap();
    assert_eq!(format!("{password:?}"), "Password(..)");
}

fn list<A: std::fmt::Debug + Clone>(
    address: impl Strategy<Value = A>,
) -> impl Strategy<Value = AddressList<A>> {
    prop::collection::vec(address, 1..=ADDRESSES_MAX).prop_map(|all| AddressList::new(all).unwrap())
}

fn bodies_v4() -> impl Strategy<Value = Body> {
    let authentication = prop_oneof![
        Just(Authentication::None),
        prop::collection::vec(any::<u8>(), 1..=8)
            .prop_map(|bytes| Authentication::Password(Password::new(&bytes).unwrap())),
    ];
    let v2 = (1_u8.., authentication, list(any::<Ipv4Addr>())).prop_map(
        |(seconds, authentication, addresses)| Body::V2 {
            seconds: NonZeroU8::new(seconds).unwrap(),
            authentication,
            addresses,
        },
    );
    let v3 = (1_u16..4096, list(any::<Ipv4Addr>())).prop_map(|(interval, addresses)| Body::V3 {
        interval: Centiseconds::new(interval).unwrap(),
        addresses: Addresses::V4(addresses),
    });
    prop_oneof![v2, v3]
}

fn messages() -> impl Strategy<Value = (Ends, Body)> {
    let v4 = (any::<Ipv4Addr>(), any::<Ipv4Addr>(), bodies_v4());
    let v6 = (
        any::<Ipv6Addr>(),
        any::<Ipv6Addr>(),
        1_u16..4096,
        list(any::<Ipv6Addr>()),
    );
    prop_oneof![
        v4.prop_map(|(source, destination, body)| (
            Ends::V4 {
                source,
                destination
            },
            body
        )),
        v6.prop_map(|(source, destination, interval, addresses)| (
            Ends::V6 {
                source,
                destination
            },
            Body::V3 {
                interval: Centiseconds::new(interval).unwrap(),
                addresses: Addresses::V6(addresses),
            }
        )),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        (ends, body) in messages(),
        vrid in 1_u8..,
        priority: u8,
        form in prop::sample::select(&ChecksumForm::ALL[..]),
    ) {
        let advertisement = Advertisement { vrid: Vrid::new(vrid).unwrap(), priority, body };
        let written = advertisement.encode(&ends, form);
        prop_assert!(written.len() <= LEN_MAX);
        let datagram = Datagram { ends, hop_limit: HOP_LIMIT, payload: &written };
        let (read, _) = Advertisement::decode(&datagram).unwrap();
        prop_assert_eq!(&read, &advertisement);
        prop_assert_eq!(read.addresses().count(), usize::from(written[3]));
    }

    #[test]
    fn whatever_arrives_is_read_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Datagram::addressee(&bytes);
        let _ = Datagram::from_ipv4(&bytes).and_then(|datagram| Advertisement::decode(&datagram).map(drop));
    }
}
