//! What arrives on the link and is wrong changes nothing but counters.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringway::vrrp::frames;
use ringway::vrrp::packet::GROUP_V4;

use crate::harness::{SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, router, start, states};
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
