//! Neighbours that speak what is not listened to: people are told who, and what to do; and how long a hand-over to
//! nobody may take.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use ringway::sys::raw::{Device, RawSocket};
use ringway::vrrp::packet::{
    AddressList, Advertisement, Authentication, Body, ChecksumForm, Ends, GROUP_V4, PROTOCOL, Vrid,
};

use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, router, start, states};
use crate::program::find;
use crate::vrrp_with_keepalived::Keepalived;

/// The protocol number of authentication headers.
const AH: u8 = 51;

/// What an instance of version 2 says.
fn second_version(source: IpAddr) -> Vec<u8> {
    let addresses = vec![VIP.parse::<Ipv4Addr>().unwrap()];
    let advertisement = Advertisement {
        vrid: Vrid::new(51).unwrap(),
        priority: 250,
        body: Body::V2 {
            seconds: NonZeroU8::MIN,
            authentication: Authentication::None,
            addresses: AddressList::new(addresses).unwrap(),
        },
    };
    advertisement.encode(&Ends::to_group(source), ChecksumForm::Message)
}

fn alarms(ringway: &Ringway) -> String {
    router(ringway, "vip")["alarms"].to_string()
}

#[test]
fn a_neighbour_with_another_version_or_authentication_is_an_alarm_that_says_what_to_do() {
    let Some(lan) = Lan::new("deaf", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 254"));
    becomes(&first, "active");
    let (group, source): (IpAddr, IpAddr) = (GROUP_V4.into(), "10.77.0.2".parse().unwrap());
    let send = |protocol: u8, payload: &[u8]| {
        lan.node(2).run(|| {
            let device = Device {
                name: "eth0".to_owned(),
                index: if_nametoindex("eth0").unwrap(),
            };
            let socket = RawSocket::open(&device, protocol, group).unwrap();
            socket.send(payload, source, group).unwrap();
        });
    };
    let plain = second_version(source);
    send(PROTOCOL, &plain);
    let text = "10.77.0.2 speaks version 2, here it is version 3";
    eventually(SOON, text, || alarms(&first).contains(text));
    assert!(alarms(&first).contains("give both the same `version`"));

    // Next header, length, twelve bytes of proof, and what is authenticated.
    let mut authenticated = vec![PROTOCOL, 4];
    authenticated.resize(24, 0);
    authenticated.extend(&plain);
    send(AH, &authenticated);
    let text = "10.77.0.2 authenticates by AH";
    eventually(SOON, text, || alarms(&first).contains(text));
    assert!(alarms(&first).contains("`auth_type PASS` there"));

    let rejected = &router(&first, "vip")["counters"]["rejected"];
    assert_eq!(rejected["version_differs"], 1, "{rejected}");
    assert_eq!(rejected["authentication_header"], 1, "{rejected}");
    let (_, text, _) = first.command(&["status"]);
    for part in [
        "alarm for",
        "not listened to: 1 authentication_header, 1 version_differs",
        "ago: backup, the interface can be used",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn a_keepalived_that_authenticates_by_ah_is_an_alarm() {
    let Some([program]) = find(["keepalived"]) else {
        return;
    };
    let Some(lan) = Lan::new("seal", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 254, version: 2"));
    becomes(&first, "active");
    let instance = format!(
        " state BACKUP\n priority 150\n version 2\n authentication {{ auth_type AH\n auth_pass secret }}\n \
         virtual_ipaddress {{ {VIP} }}"
    );
    let _keepalived = Keepalived::start(&lan, 2, &program, &instance);
    let text = "10.77.0.2 authenticates by AH";
    eventually(SOON, text, || alarms(&first).contains(text));
}

#[test]
fn two_nodes_with_different_versions_both_say_so() {
    let Some(lan) = Lan::new("ages", 2) else {
        return;
    };
    let first = start(&lan, 1, &config("priority: 254"));
    let second = start(&lan, 2, &config("priority: 250, version: 2"));
    becomes(&first, "active");
    becomes(&second, "active");
    for (one, text) in [
        (&first, "10.77.0.2 speaks version 2, here it is version 3"),
        (&second, "10.77.0.1 speaks version 3, here it is version 2"),
    ] {
        eventually(SOON, text, || alarms(one).contains(text));
        one.wait_line(text);
    }
}

#[test]
fn a_hand_over_is_waited_for_as_long_as_it_may_take() {
    let Some(lan) = Lan::new("slow", 1) else {
        return;
    };
    // An owner is active at once.
    let first = start(&lan, 1, &config("priority: 255, advert_interval: 3500ms"));
    becomes(&first, "active");
    let began = Instant::now();
    let (code, out, said) = first.command(&["failover"]);
    let took = began.elapsed();
    println!("nobody took over within {took:?}");
    assert_eq!(code, Some(1), "{out}{said}");
    assert_eq!(out, "vip: nobody took over; serving on\n");
    assert!(took > Duration::from_secs(10), "{took:?}");
    assert_eq!(states(&first), ["active"]);
}
