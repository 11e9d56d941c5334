//! Virtual routers whose settings change while they run.

use std::time::Duration;

use crate::harness::backend::{Backend, echo, listener_on};
use crate::harness::stream::{self, Ended};
use crate::harness::{Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, router, start, states};
use crate::onlooker::Onlooker;

fn file(router: &str) -> String {
    format!(
        "global: {{workers: 2}}\n\
         listeners: [{{name: in, bind: \"*:7000\", pool: pg}}]\n\
         pools: {{pg: {{backends: [\"127.0.0.1:7001\"], probe: none}}}}\n\
         vrrp: [{{name: vip, interface: eth0, vrid: 51, preempt_delay: 500ms, {router}}}]\n"
    )
}

#[track_caller]
pub fn reload(ringway: &Ringway, text: &str) -> String {
    std::fs::write(ringway.folder().join("ringway.yaml"), text).unwrap();
    let (code, out, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(0), "{out}{said}");
    out
}

#[test]
fn an_active_node_takes_other_settings_over_without_a_gap_or_a_change_of_state() {
    let Some(lan) = Lan::new("other", 3) else {
        return;
    };
    let _backend = lan.node(1).run(|| {
        let listener = listener_on("127.0.0.1:7001".parse().unwrap(), 128);
        Backend::scripted_on(listener, |stream, _| echo(stream))
    });
    let first = start(&lan, 1, &file("addresses: 10.77.0.100/32, priority: 200"));
    becomes(&first, "active");
    let second = start(&lan, 2, &file("addresses: 10.77.0.100/32, priority: 150"));
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    let connect = |address: &str| {
        lan.node(3).run(|| {
            let mut client = stream::connect(address.parse().unwrap());
            stream::exchange(&mut client, b"hello");
            client
        })
    };
    let onlooker = Onlooker::on(&lan, 3);
    let mut client = connect("10.77.0.100:7000");

    let both = "addresses: [10.77.0.100/32, 10.77.0.101/32]";
    let out = reload(&first, &file(&format!("{both}, priority: 210")));
    assert!(out.contains("vrrp.vip.priority 200 -> 210"), "{out}");
    assert!(out.contains("vrrp.vip.addresses"), "{out}");
    assert!(!out.contains("restart"), "{out}");
    eventually(SOON, "the new address is there", || {
        lan.holders("10.77.0.101") == [1]
    });
    let mut other = connect("10.77.0.101:7000");
    let says = |priority: u8, addresses: usize| {
        let heard = onlooker.from(1);
        let last = heard.last().unwrap();
        last.advertisement.priority == priority
            && last.advertisement.body.addresses().count() == addresses
    };
    eventually(SOON, "both are advertised", || says(210, 2));

    let slow = "priority: 210, advert_interval: 300ms";
    let out = reload(&first, &file(&format!("{both}, {slow}")));
    assert!(out.contains("vrrp.vip.advert_interval"), "{out}");
    let slows = onlooker.all().len();
    eventually(SOON, "some at the longer interval", || {
        onlooker.all().len() > slows + 10
    });

    let out = reload(&first, &file(&format!("addresses: 10.77.0.100/32, {slow}")));
    assert!(out.contains("vrrp.vip.addresses"), "{out}");
    assert_eq!(stream::ended(&mut other), Ended::Reset);
    eventually(SOON, "the address is gone", || {
        lan.holders("10.77.0.101").is_empty()
    });
    eventually(SOON, "one is advertised", || says(210, 1));
    stream::exchange(&mut client, b"still here");
    assert_eq!(lan.holders(VIP), [1]);
    assert_eq!(states(&first), ["backup", "active"]);
    assert_eq!(states(&second), ["backup"]);
    assert!(onlooker.from(2).is_empty(), "the Backup never spoke");
    let silence = onlooker.longest_silence();
    assert!(silence < Duration::from_millis(700), "{silence:?}");

    let out = reload(
        &first,
        &file(&format!("addresses: 10.77.0.100/32, {slow}")).replace("vrid: 51", "vrid: 52"),
    );
    assert!(
        out.contains("needs a restart: vrrp.vip.vrid 51 -> 52"),
        "{out}"
    );
    assert_eq!(router(&first, "vip")["vrid"], 51);

    let track = "track: {interfaces: [absent0]}";
    let out = reload(
        &first,
        &file(&format!("addresses: 10.77.0.100/32, {slow}, {track}")),
    );
    assert!(!out.contains("restart"), "{out}");
    becomes(&second, "active");
    let why = router(&first, "vip")["why"].to_string();
    assert!(why.contains("no link on absent0"), "{why}");
    reload(&first, &file(&format!("addresses: 10.77.0.100/32, {slow}")));
    eventually(SOON, "nobody keeps it out", || {
        router(&first, "vip")["fault"].is_null()
    });
}
