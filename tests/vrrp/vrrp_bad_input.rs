//! What arrives on the link and is wrong changes nothing but counters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ringway::vrrp::frames;
use ringway::vrrp::machine::VirtualRouter;
use ringway::vrrp::packet::{
    AddressList, Addresses, Body, Centiseconds, ChecksumForm, Ends, GROUP_V4, GROUP_V6, PROTOCOL,
    Vrid,
};

use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP, VIP6};
use crate::node::{becomes, config, router, start, states, with_routers};
use crate::onlooker::{Onlooker, send_frame, socket};

#[test]
fn a_flood_of_nonsense_moves_nothing_and_delays_nothing() {
    let Some(lan) = Lan::new("bad", 3) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 100"));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let (group, source): (IpAddr, IpAddr) = (GROUP_V4.into(), "10.77.0.3".parse().unwrap());
    let raw = socket(&lan, 3, group);
    let onlooker = Onlooker::on(&lan, 2);
    let mut random = fastrand_like(7);
    let end = Instant::now() + Duration::from_secs(3);
    let mut sent = 0_u64;
    while Instant::now() < end {
        let len = usize::try_from(random() % 80).unwrap();
        let mut bytes: Vec<u8> = (0..len).map(|_| random().to_le_bytes()[0]).collect();
        // Close to a real one: version 3, our number, a priority that would win.
        for (at, byte) in [0x31, 51, 255, 1].into_iter().enumerate().take(len) {
            if !random().is_multiple_of(4) {
                bytes[at] = byte;
            }
        }
        // A checksum that fits by chance would be a valid advertisement.
        if len == 12 && bytes[..4] == [0x31, 51, 255, 1] {
            bytes[4..6].copy_from_slice(&[0, 0]);
        }
        sent += u64::from(raw.send(&bytes, source, group).is_ok());
        if sent.is_multiple_of(50) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let counters = &router(&first, "vip")["counters"];
    println!(
        "{sent} datagrams of nonsense; longest silence {:?}",
        onlooker.longest_silence()
    );
    let rejected = counters["rejected"].as_object().unwrap().values();
    let rejected: u64 = rejected.map(|count| count.as_u64().unwrap()).sum();
    assert!(rejected > 100, "{counters}");
    assert!(counters["unknown_vrid"].as_u64() > Some(100), "{counters}");
    assert_eq!(states(&first), ["backup", "active"]);
    let own: Vec<Instant> = onlooker.from(1).iter().map(|one| one.at).collect();
    let longest = own.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(
        longest < Duration::from_millis(300),
        "no advertisement for {longest:?}"
    );
}

/// A small generator: the same every time.
fn fastrand_like(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[test]
fn somebody_else_with_our_address_is_an_alarm() {
    let Some(lan) = Lan::new("owner", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 254"));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let frame = frames::gratuitous_arp([2, 0, 0, 0, 0, 99], VIP.parse().unwrap());
    send_frame(&lan, 2, &frame);
    eventually(SOON, "it says so", || {
        let alarms = router(&first, "vip")["alarms"].to_string();
        alarms.contains("somebody else answers for 10.77.0.100")
    });
    assert_eq!(states(&first), ["backup", "active"]);
}

/// The checksum of the Internet over all of it.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts
        .iter()
        .flat_map(|part| part.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = u16::try_from(0xffff - (folded & 0xffff) - (folded >> 16)).unwrap();
    checksum.to_be_bytes()
}

/// The IPv4 header of a frame, changed and with a right checksum again.
fn with_header(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header = &mut frame[14..34];
    change(header);
    header[10..12].fill(0);
    let right = checksum(&[header]);
    header[10..12].copy_from_slice(&right);
    frame
}

/// A payload, changed and with a right checksum again: over itself, and over the ends if it is one of IPv6.
fn with_payload(ends: &Ends, payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = payload.to_vec();
    change(&mut payload);
    payload[6..8].fill(0);
    let right = match ends {
        Ends::V4 { .. } => checksum(&[&payload]),
        Ends::V6 {
            source,
            destination,
        } => {
            let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let protocol = [0, PROTOCOL];
            let (source, destination) = (source.octets(), destination.octets());
            checksum(&[&source, &destination, &len, &protocol, &payload])
        }
    };
    payload[6..8].copy_from_slice(&right);
    payload
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What a router says that is better than one with priority 100.
fn better(ends: &Ends) -> Vec<u8> {
    let addresses = match ends {
        Ends::V4 { .. } => Addresses::V4(AddressList::new(vec![VIP.parse().unwrap()]).unwrap()),
        Ends::V6 { .. } => Addresses::V6(AddressList::new(vec![VIP6.parse().unwrap()]).unwrap()),
    };
    let router = VirtualRouter {
        vrid: Vrid::new(51).unwrap(),
        priority: 254,
        body: Body::V3 {
            interval: Centiseconds::new(10).unwrap(),
            addresses,
        },
        checksum: ChecksumForm::Message,
        peers: Vec::new(),
        preempt: false,
        preempt_delay: Duration::ZERO,
        lease: None,
    };
    router
        .advertisement(254)
        .encode(ends, ChecksumForm::Message)
}

/// What is wrong with the bytes themselves, whatever the address family: by the reason that is counted.
fn wrong_payloads(ends: &Ends, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| with_payload(ends, good, |one| change(one));
    let address_len = good.len() - 8;
    vec![
        ("checksum", {
            let mut bad = good.to_vec();
            bad[7] ^= 1;
            bad
        }),
        ("version", changed(&|one| one[0] = 0x41)),
        ("type", changed(&|one| one[0] = 0x32)),
        ("no_address", changed(&|one| one[3] = 0)),
        ("length", changed(&|one| one[3] = 2)),
        ("length", changed(&|one| one.extend(vec![0; address_len]))),
        ("length", changed(&|one| one.truncate(8))),
        ("interval_zero", changed(&|one| one[4..6].fill(0))),
    ]
}

/// None of the frames is heard, but the good one is: what is seen before is due to the faults.
#[track_caller]
fn are_not_heard(lan: &Lan, first: &Ringway, frames: &[(&str, Vec<u8>)], good: &[u8]) {
    let counter = |name: &str| {
        let counters = router(first, "vip")["counters"].clone();
        (
            counters["rejected"][name].as_u64().unwrap(),
            counters["accepted"].as_u64().unwrap(),
        )
    };
    for (name, frame) in frames {
        let (before, _) = counter(name);
        for _ in 0..3 {
            send_frame(lan, 2, frame);
        }
        // A source that cannot be is dropped by the kernel itself.
        if !name.starts_with("source") {
            eventually(SOON, name, || counter(name).0 == before + 3);
        }
        assert_eq!(counter(name).1, 0, "{name} was heard");
    }
    assert_eq!(states(first), ["backup", "active"]);
    send_frame(lan, 2, good);
    eventually(SOON, "it gives way", || {
        states(first).starts_with(&["backup".into(), "active".into(), "backup".into()])
    });
}

#[test]
fn every_check_alone_keeps_a_better_router_from_being_heard() {
    let Some(lan) = Lan::new("check", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 100"));
    becomes(&first, "active");
    let from = |source: [u8; 4], destination: [u8; 4], payload: &[u8]| {
        let ends = Ends::V4 {
            source: source.into(),
            destination: destination.into(),
        };
        frames::advertisement(MAC, &ends, payload)
    };
    let (group, other) = (GROUP_V4.octets(), [10, 77, 0, 2]);
    let ends = Ends::to_group(IpAddr::from(other));
    let good = better(&ends);
    let whole = |payload: &[u8]| from(other, group, payload);
    let mut all: Vec<(&str, Vec<u8>)> = wrong_payloads(&ends, &good)
        .into_iter()
        .map(|(name, payload)| (name, whole(&payload)))
        .collect();
    all.extend([
        (
            "hop_limit",
            with_header(whole(&good), |header| header[8] = 254),
        ),
        ("version_differs", {
            let mut second = vec![0x21, 51, 254, 1, 0, 1, 0, 0];
            second.extend(VIP.parse::<Ipv4Addr>().unwrap().octets());
            second.extend([0; 8]);
            whole(&with_payload(&ends, &second, |_| {}))
        }),
        ("source_unspecified", from([0; 4], group, &good)),
        ("source_ours", from([10, 77, 0, 1], group, &good)),
        ("not_a_peer", from(other, [10, 77, 0, 1], &good)),
        ("carp", {
            let mut carp = vec![0x21, 51, 0, 7, 0, 1, 0, 0];
            carp.resize(36, 7);
            whole(&carp)
        }),
    ]);
    are_not_heard(&lan, &first, &all, &whole(&good));
}

#[test]
fn every_check_alone_keeps_a_better_router_of_ipv6_from_being_heard() {
    let Some(lan) = Lan::new("check6", 2) else {
        return;
    };
    let file = with_routers(
        "[{name: vip, interface: eth0, vrid: 51, addresses: \"fd77::100/128\", priority: 100}]",
    );
    let first = start(&lan, 1, &file);
    becomes(&first, "active");
    let own = router(&first, "vip")["active_router"].clone();
    let own: Ipv6Addr = own.as_str().unwrap().parse().unwrap();
    let other = "fe80::2".parse().unwrap();
    // As it would be right from there to there.
    let from = |source: Ipv6Addr, destination: Ipv6Addr| {
        let ends = Ends::V6 {
            source,
            destination,
        };
        frames::advertisement(MAC, &ends, &better(&ends))
    };
    let ends = Ends::to_group(IpAddr::V6(other));
    let payload = better(&ends);
    let mut all: Vec<(&str, Vec<u8>)> = wrong_payloads(&ends, &payload)
        .into_iter()
        .map(|(name, payload)| (name, frames::advertisement(MAC, &ends, &payload)))
        .collect();
    let good = from(other, GROUP_V6);
    let version_2 = with_payload(&ends, &payload, |one| one[0] = 0x21);
    all.extend([
        ("hop_limit", {
            let mut frame = good.clone();
            frame[21] = 254;
            frame
        }),
        ("version", frames::advertisement(MAC, &ends, &version_2)),
        ("source_unspecified", from(Ipv6Addr::UNSPECIFIED, GROUP_V6)),
        ("source_ours", from(own, GROUP_V6)),
        ("not_a_peer", from(other, "fd77::1".parse().unwrap())),
        ("destination", from(other, frames::ALL_NODES)),
    ]);
    are_not_heard(&lan, &first, &all, &good);
}

#[test]
fn somebody_else_with_our_address_of_ipv6_is_an_alarm_too() {
    let Some(lan) = Lan::new("owner6", 2) else {
        return;
    };
    let file = with_routers(
        "[{name: vip, interface: eth0, vrid: 51, addresses: \"fd77::100/128\", priority: 254}]",
    );
    let first = start(&lan, 1, &file);
    becomes(&first, "active");
    lan.moves_to(1, VIP6);
    std::thread::sleep(Duration::from_millis(500));
    let alarms = || router(&first, "vip")["alarms"].to_string();
    assert_eq!(alarms(), "[]", "its own announcements are no alarm");
    let frame = frames::unsolicited_advertisement([2, 0, 0, 0, 0, 99], VIP6.parse().unwrap());
    send_frame(&lan, 2, &frame);
    eventually(SOON, "it says so", || {
        alarms().contains("somebody else answers for fd77::100")
    });
    assert_eq!(states(&first), ["backup", "active"]);
}
