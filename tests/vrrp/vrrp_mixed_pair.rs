//! A Ringway and a keepalived as one pair: who has the address when one of them fails, when both think that they have
//! it, and when their files differ.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Folder, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, one_of_three, router, start, state, states, with_routers};
use crate::onlooker::Onlooker;
use crate::program;
use crate::vrrp_pair::takes_over;
use crate::vrrp_reload::reload;
use crate::vrrp_with_keepalived::Keepalived;

const RINGWAY: usize = 1;
const KEEPALIVED: usize = 2;
const ONLOOKER: usize = 3;

const V3: &str = "version 3\n advert_int 0.1";
/// Of an address on a lease of a second.
const LEASE_MAX: Duration = Duration::from_millis(3500);

fn link(label: &str) -> Option<(PathBuf, Lan)> {
    let [program] = program::find(["keepalived"])?;
    Some((program, Lan::new(label, 3)?))
}

fn instance(priority: u8, more: &str) -> String {
    format!(" state BACKUP\n priority {priority}\n {more}\n virtual_ipaddress {{ {VIP} }}")
}

/// What a node says nothing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    CablePulled,
    InterfaceDown,
    InterfaceDeleted,
    CutOff,
    StandsStill,
    Killed,
}

/// The last one is for good.
const FAULTS: [Fault; 6] = [
    Fault::CablePulled,
    Fault::InterfaceDown,
    Fault::InterfaceDeleted,
    Fault::CutOff,
    Fault::StandsStill,
    Fault::Killed,
];

impl Fault {
    fn begin(self, lan: &Lan, number: usize, signal: impl Fn(Signal)) {
        match self {
            Fault::CablePulled => lan.pull(number),
            Fault::InterfaceDown => lan.node(number).ip(&["link", "set", "eth0", "down"]),
            Fault::InterfaceDeleted => lan.node(number).ip(&["link", "del", "eth0"]),
            Fault::CutOff => lan.cut(number),
            Fault::StandsStill => signal(Signal::SIGSTOP),
            Fault::Killed => signal(Signal::SIGKILL),
        }
    }

    fn end(self, lan: &Lan, number: usize, signal: impl Fn(Signal)) {
        match self {
            Fault::CablePulled => lan.plug(number),
            Fault::InterfaceDown => lan.node(number).ip(&["link", "set", "eth0", "up"]),
            Fault::InterfaceDeleted => lan.connect(number),
            Fault::CutOff => lan.heal(number),
            Fault::StandsStill => signal(Signal::SIGCONT),
            Fault::Killed => {}
        }
    }
}

#[test]
fn keepalived_takes_over_from_a_ringway_that_fails_and_gives_the_address_back() {
    let Some((program, lan)) = link("rfail") else {
        return;
    };
    let onlooker = Onlooker::on(&lan, ONLOOKER);
    let keys = "priority: 254, preempt: true, preempt_delay: 100ms";
    let ringway = start(&lan, RINGWAY, &config(keys));
    becomes(&ringway, "active");
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, V3));
    for fault in FAULTS {
        lan.moves_to(RINGWAY, VIP);
        keepalived.becomes("BACKUP");
        let from = Instant::now();
        fault.begin(&lan, RINGWAY, |signal| ringway.signal(signal));
        takes_over(&onlooker, KEEPALIVED, from, &format!("{fault:?}"));
        if fault == Fault::CutOff {
            eventually(SOON, "each thinks that it is alone", || {
                lan.holders(VIP) == [RINGWAY, KEEPALIVED]
            });
        } else {
            lan.moves_to(KEEPALIVED, VIP);
            let gone = from.elapsed();
            assert!(gone < LEASE_MAX, "{fault:?}: gone after {gone:?}");
        }
        fault.end(&lan, RINGWAY, |signal| ringway.signal(signal));
    }
}

#[test]
fn a_ringway_takes_over_from_a_keepalived_that_fails_and_gives_the_address_back() {
    let Some((program, lan)) = link("kfail") else {
        return;
    };
    let onlooker = Onlooker::on(&lan, ONLOOKER);
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(254, V3));
    keepalived.becomes("MASTER");
    let ringway = start(&lan, RINGWAY, &config("priority: 150"));
    for fault in FAULTS {
        lan.moves_to(KEEPALIVED, VIP);
        becomes(&ringway, "backup");
        eventually(SOON, "it hears keepalived", || {
            router(&ringway, "vip")["active_router"] == "10.77.0.2"
        });
        let from = Instant::now();
        fault.begin(&lan, KEEPALIVED, |signal| keepalived.signal_all(signal));
        takes_over(&onlooker, RINGWAY, from, &format!("{fault:?}"));
        becomes(&ringway, "active");
        // A keepalived that is not there any more, or does nothing, leaves its own behind.
        eventually(SOON, "it has the address", || lan.has(RINGWAY, VIP));
        fault.end(&lan, KEEPALIVED, |signal| keepalived.signal_all(signal));
    }
    let turns: Vec<String> = FAULTS
        .iter()
        .flat_map(|_| ["backup".to_owned(), "active".to_owned()])
        .collect();
    assert_eq!(states(&ringway), turns);
}

#[test]
fn of_equal_priority_the_higher_address_is_left_whoever_has_it() {
    let Some((program, lan)) = link("kequal") else {
        return;
    };
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(200, V3));
    keepalived.becomes("MASTER");
    for number in [1, 3] {
        let mut ringway = start(&lan, number, &config("priority: 200"));
        becomes(&ringway, "backup");
        lan.cut(number);
        becomes(&ringway, "active");
        lan.heal(number);
        lan.moves_to(number.max(KEEPALIVED), VIP);
        let (ours, theirs) = match number > KEEPALIVED {
            true => ("active", "BACKUP"),
            false => ("backup", "MASTER"),
        };
        keepalived.becomes(theirs);
        assert_eq!(state(&ringway), ours);
        ringway.signal(Signal::SIGTERM);
        ringway.wait_exit(SOON);
    }
    lan.moves_to(KEEPALIVED, VIP);
}

#[test]
fn each_learns_the_longer_interval_of_the_other() {
    let Some((program, lan)) = link("klearn") else {
        return;
    };
    let onlooker = Onlooker::on(&lan, ONLOOKER);
    let file = |priority: u8, interval: &str| {
        config(&format!(
            "priority: {priority}, advert_interval: {interval}"
        ))
    };
    let mut slow = start(&lan, RINGWAY, &file(254, "200ms"));
    becomes(&slow, "active");
    // Of its own, it waits 683 ms.
    let more = "version 3\n advert_int 0.2";
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, more));
    keepalived.becomes("BACKUP");
    reload(&slow, &file(254, "900ms"));
    eventually(SOON, "it has been slow for a while", || {
        let heard = onlooker.all();
        let pairs = heard.windows(2);
        let gaps = pairs.map(|pair| pair[1].at - pair[0].at);
        gaps.filter(|gap| *gap > Duration::from_millis(800)).count() > 2
    });
    assert!(onlooker.from(KEEPALIVED).is_empty(), "keepalived waited");
    assert_eq!(lan.holders(VIP), [RINGWAY]);
    slow.signal(Signal::SIGTERM);
    slow.wait_exit(SOON);
    lan.moves_to(KEEPALIVED, VIP);

    let fast = start(&lan, RINGWAY, &file(120, "200ms"));
    let accepted = || {
        router(&fast, "vip")["counters"]["accepted"]
            .as_u64()
            .unwrap()
    };
    eventually(SOON, "it hears keepalived", || accepted() > 0);
    reload(&fast, &file(120, "20ms"));
    let before = accepted();
    eventually(SOON, "it has heard it for a while", || {
        accepted() > before + 5
    });
    // Of its own, it waits 71 ms.
    assert_eq!(states(&fast), ["backup"]);
    let alarms = router(&fast, "vip")["alarms"].to_string();
    assert!(
        alarms.contains("10.77.0.2 advertises every 200ms, here it is 20ms"),
        "{alarms}"
    );
    let killed = Instant::now();
    keepalived.signal_all(Signal::SIGKILL);
    let after = takes_over(&onlooker, RINGWAY, killed, "three of the longer interval");
    assert!(after > Duration::from_millis(350), "{after:?}");
}

#[test]
fn a_better_ringway_preempts_keepalived_after_its_delay_and_only_if_it_may() {
    let Some((program, lan)) = link("kpre") else {
        return;
    };
    let onlooker = Onlooker::on(&lan, ONLOOKER);
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, V3));
    keepalived.becomes("MASTER");
    let mut modest = start(&lan, RINGWAY, &config("priority: 254"));
    eventually(SOON, "it has heard keepalived for a second", || {
        router(&modest, "vip")["counters"]["accepted"].as_u64() > Some(10)
    });
    assert_eq!(states(&modest), ["backup"]);
    modest.signal(Signal::SIGTERM);
    modest.wait_exit(SOON);
    let began = Instant::now();
    let keys = "priority: 254, preempt: true, preempt_delay: 1s";
    let ringway = start(&lan, RINGWAY, &config(keys));
    becomes(&ringway, "active");
    lan.moves_to(RINGWAY, VIP);
    keepalived.becomes("BACKUP");
    let after = onlooker.first_after(RINGWAY, began).unwrap();
    assert!(after > Duration::from_secs(1), "{after:?}");
    assert_eq!(states(&ringway), ["backup", "active"]);
}

#[test]
fn a_failover_hands_over_to_a_keepalived_which_hands_back_when_it_stops() {
    let Some((program, lan)) = link("kmove") else {
        return;
    };
    let ringway = start(&lan, RINGWAY, &config("priority: 254"));
    becomes(&ringway, "active");
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, V3));
    keepalived.becomes("BACKUP");
    let (code, out, said) = ringway.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    lan.moves_to(KEEPALIVED, VIP);
    keepalived.becomes("MASTER");
    assert_eq!(router(&ringway, "vip")["held_back"], true);
    keepalived.stop();
    lan.moves_to(RINGWAY, VIP);
    assert_eq!(states(&ringway), ["backup", "active", "backup", "active"]);
}

#[test]
fn other_addresses_of_a_keepalived_are_an_alarm_and_move_nothing() {
    let Some((program, lan)) = link("klist") else {
        return;
    };
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, V3));
    keepalived.becomes("MASTER");
    let routers = "[{name: vip, interface: eth0, vrid: 51, addresses: [10.77.0.100/32, 10.77.0.101/32], \
                   priority: 120}]";
    let ringway = start(&lan, RINGWAY, &with_routers(routers));
    let said = || router(&ringway, "vip");
    eventually(SOON, "it has heard keepalived for a second", || {
        said()["counters"]["accepted"].as_u64() > Some(10)
    });
    let alarms = said()["alarms"].to_string();
    assert!(
        alarms.contains("10.77.0.2 advertises other addresses: not [10.77.0.101]"),
        "{alarms}"
    );
    assert_eq!(states(&ringway), ["backup"]);
    assert_eq!(lan.holders(VIP), [KEEPALIVED]);
}

#[test]
fn with_another_password_each_is_alone_and_ringway_says_why() {
    let Some((program, lan)) = link("kpass") else {
        return;
    };
    let folder = Folder::new();
    let path = folder.path().join("password");
    std::fs::write(&path, "secret\n").unwrap();
    let keys = format!(
        "priority: 254, version: 2, auth: {{password_file: {}}}",
        path.display()
    );
    let ringway = start(&lan, RINGWAY, &config(&keys));
    becomes(&ringway, "active");
    let more = "advert_int 1\n authentication { auth_type PASS\n auth_pass other\n }";
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, more));
    keepalived.becomes("MASTER");
    eventually(SOON, "it says why", || {
        let router = router(&ringway, "vip");
        let alarms = router["alarms"].to_string();
        alarms.contains("10.77.0.2 has another password")
            && router["counters"]["rejected"]["password"].as_u64() > Some(0)
    });
    assert_eq!(lan.holders(VIP), [RINGWAY, KEEPALIVED]);
    assert_eq!(states(&ringway), ["backup", "active"]);
}

#[test]
fn three_nodes_by_unicast_take_over_from_each_other_in_the_order_of_their_priorities() {
    let Some((program, lan)) = link("kuni") else {
        return;
    };
    let first = start(&lan, 1, &one_of_three(1, 254));
    becomes(&first, "active");
    let more =
        format!("{V3}\n unicast_src_ip 10.77.0.2\n unicast_peer {{ 10.77.0.1\n 10.77.0.3 }}");
    let keepalived = Keepalived::start(&lan, KEEPALIVED, &program, &instance(150, &more));
    keepalived.becomes("BACKUP");
    let last = start(&lan, 3, &one_of_three(3, 120));
    eventually(SOON, "the last one hears the first", || {
        router(&last, "vip")["active_router"] == "10.77.0.1"
    });
    assert_eq!(lan.holders(VIP), [1]);
    first.signal(Signal::SIGKILL);
    lan.moves_to(KEEPALIVED, VIP);
    eventually(SOON, "the last one hears keepalived", || {
        router(&last, "vip")["active_router"] == "10.77.0.2"
    });
    assert_eq!(states(&last), ["backup"]);
    keepalived.stop();
    lan.moves_to(3, VIP);
    assert_eq!(states(&last), ["backup", "active"]);
}
