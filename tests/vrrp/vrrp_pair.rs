//! Two Ringways: who holds the addresses, and what becomes of them when one fails in every way that there is.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Ringway, SOON, eventually, eventually_some};
use crate::lan::{Lan, VIP, VIP6};
use crate::node::{becomes, config, one_of_three, router, start, state, states, with_routers};
use crate::onlooker::Onlooker;

/// Loosely: a busy machine may be late, but never by a wrong order of magnitude.
const TAKEOVER_MAX: Duration = Duration::from_millis(1500);

const BETTER: &str = "priority: 254";
const LESSER: &str = "priority: 250";

/// The first node is active, the second one its backup, the third one looks on.
fn pair(lan: &Lan, more: &str) -> (Ringway, Ringway) {
    let first = start(lan, 1, &config(&format!("{BETTER}, {more}")));
    becomes(&first, "active");
    let second = start(lan, 2, &config(&format!("{LESSER}, {more}")));
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    (first, second)
}

#[track_caller]
pub fn takes_over(onlooker: &Onlooker, number: usize, from: Instant, what: &str) -> Duration {
    let after = eventually_some(SOON, what, || onlooker.first_after(number, from));
    println!("{what}: node {number} speaks after {after:?}");
    assert!(after < TAKEOVER_MAX, "{what}: {after:?}");
    after
}

#[test]
fn the_other_node_takes_over_from_one_that_is_killed_whose_address_goes_by_itself() {
    let Some(lan) = Lan::new("kill", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let (mut first, second) = pair(&lan, "version: 3");
    let killed = Instant::now();
    first.signal(Signal::SIGKILL);
    takes_over(&onlooker, 2, killed, "kill -9");
    lan.moves_to(2, VIP);
    let gone = killed.elapsed();
    println!("the address is gone from the killed node after {gone:?}");
    assert!(gone < Duration::from_millis(3500), "{gone:?}");
    first.wait_exit(SOON);
    let again = start(&lan, 1, &config(BETTER));
    becomes(&again, "backup");
    assert_eq!(state(&second), "active", "it does not preempt");
    assert_eq!(states(&second), ["backup", "active"]);
}

#[test]
fn a_node_that_stands_still_loses_its_address_and_is_a_backup_when_it_goes_on() {
    let Some(lan) = Lan::new("halt", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let (first, second) = pair(&lan, "version: 3");
    let halted = Instant::now();
    first.signal(Signal::SIGSTOP);
    takes_over(&onlooker, 2, halted, "SIGSTOP");
    lan.moves_to(2, VIP);
    assert!(halted.elapsed() < Duration::from_millis(3500));
    first.signal(Signal::SIGCONT);
    becomes(&first, "backup");
    assert_eq!(lan.holders(VIP), [2]);
    assert_eq!(states(&second), ["backup", "active"]);
    assert_eq!(states(&first), ["backup", "active", "backup"]);
}

#[test]
fn a_node_that_stops_hands_over_before_it_lets_go() {
    let Some(lan) = Lan::new("stop", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let (mut first, second) = pair(&lan, "version: 3");
    let told = Instant::now();
    first.signal(Signal::SIGTERM);
    let after = takes_over(&onlooker, 2, told, "SIGTERM");
    let status = first.wait_exit(SOON);
    assert_eq!(status.code(), Some(0), "{}", first.log());
    assert_eq!(lan.holders(VIP), [2]);
    assert_eq!(state(&second), "active");
    let last = onlooker.from(1).pop().unwrap();
    assert_eq!(last.advertisement.priority, 0, "its last word");
    assert!(after < Duration::from_millis(500), "{after:?}");
}

#[test]
fn a_pulled_cable_moves_the_address_and_a_plugged_one_does_not() {
    let Some(lan) = Lan::new("pull", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let (first, second) = pair(&lan, "version: 3");
    let pulled = Instant::now();
    lan.pull(1);
    takes_over(&onlooker, 2, pulled, "cable pulled");
    becomes(&first, "initialize");
    lan.moves_to(2, VIP);
    lan.plug(1);
    becomes(&first, "backup");
    assert_eq!(state(&second), "active");
    lan.node(2).ip(&["link", "set", "eth0", "down"]);
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    lan.node(2).ip(&["link", "set", "eth0", "up"]);
    becomes(&second, "backup");
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_used_again() {
    let Some(lan) = Lan::new("iface", 2) else {
        return;
    };
    let (first, second) = pair(&lan, "version: 3");
    lan.node(1).ip(&["link", "del", "eth0"]);
    becomes(&second, "active");
    becomes(&first, "initialize");
    // Sockets of an interface that is gone must not keep a thread busy.
    first.assert_idle(Duration::from_millis(400));
    lan.connect(1);
    becomes(&first, "backup");
    lan.pull(2);
    becomes(&first, "active");
    assert!(lan.has(1, VIP));
}

#[test]
fn after_a_partition_heals_one_is_left_within_an_interval_and_says_so() {
    let Some(lan) = Lan::new("split", 3) else {
        return;
    };
    let (first, second) = pair(&lan, "version: 3");
    lan.cut(2);
    becomes(&second, "active");
    assert_eq!(lan.holders(VIP), [1, 2], "each thinks that it is alone");
    let onlooker = Onlooker::on(&lan, 3);
    let healed = Instant::now();
    lan.heal(2);
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    let loser = onlooker.from(2).pop().expect("the loser's last word").at;
    let answer = eventually_some(SOON, "the winner's answer", || {
        onlooker.first_after(1, loser)
    });
    println!(
        "one is left {:?} after the heal; the winner spoke {answer:?} later",
        loser - healed
    );
    assert!(answer < Duration::from_millis(250), "{answer:?}");
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn an_address_that_somebody_deletes_is_put_back_at_once() {
    let Some(lan) = Lan::new("del", 2) else {
        return;
    };
    let (first, _second) = pair(&lan, "version: 3");
    let gaps: Vec<Duration> = (0..5).map(|_| lan.gap_after_removal(1, VIP)).collect();
    println!("gone for {gaps:?}");
    let best = gaps.iter().min().unwrap();
    assert!(*best < Duration::from_millis(5), "{gaps:?}");
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn ipv6_and_ipv4_of_one_group_move_together() {
    let Some(lan) = Lan::new("group", 2) else {
        return;
    };
    let file = |priority: u8| {
        with_routers(&format!(
            "[{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, group: g, priority: {priority}}}, \
             {{name: vip6, interface: eth0, vrid: 51, addresses: \"fd77::100/128\", group: g, priority: {priority}}}]"
        ))
    };
    let first = start(&lan, 1, &file(254));
    becomes(&first, "active");
    lan.moves_to(1, VIP6);
    let second = start(&lan, 2, &file(250));
    becomes(&second, "backup");
    let (code, out, said) = first.command(&["failover", "vip6"]);
    assert_eq!(code, Some(0), "{out}{said}");
    lan.moves_to(2, VIP);
    lan.moves_to(2, VIP6);
    assert_eq!(router(&second, "vip6")["state"], "active");
    assert_eq!(state(&first), "backup");
    let gap = lan.gap_after_removal(2, VIP6);
    println!("the IPv6 address was gone for {gap:?}");
}

#[test]
fn version_2_needs_equal_passwords() {
    let Some(lan) = Lan::new("pass", 2) else {
        return;
    };
    let folder = crate::harness::Folder::new();
    let password = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("version: 2, auth: {{password_file: {}}}", path.display())
    };
    let (right, wrong) = (password("right", "secret\n"), password("wrong", "other"));
    let first = start(&lan, 1, &config(&format!("{BETTER}, {right}")));
    becomes(&first, "active");
    let mut second = start(&lan, 2, &config(&format!("{LESSER}, {right}")));
    becomes(&second, "backup");
    eventually(SOON, "it tells what the other one says", || {
        let heard = router(&second, "vip")["heard"].clone();
        heard["from"] == "10.77.0.1"
            && heard["priority"] == 254
            && heard["interval_ms"] == 1000
            && heard["addresses"] == serde_json::json!([VIP])
    });
    second.signal(Signal::SIGTERM);
    second.wait_exit(SOON);
    let second = start(&lan, 2, &config(&format!("{LESSER}, {wrong}")));
    becomes(&second, "active");
    eventually(SOON, "both say why", || {
        [&first, &second].iter().all(|one| {
            let alarms = router(one, "vip")["alarms"].to_string();
            alarms.contains("another password")
        })
    });
    assert!(router(&first, "vip")["counters"]["rejected"]["password"].as_u64() > Some(0));
}

#[test]
fn what_differs_is_an_alarm_and_moves_nothing() {
    let Some(lan) = Lan::new("differ", 2) else {
        return;
    };
    let first = start(
        &lan,
        1,
        &config(&format!("{BETTER}, advert_interval: 300ms")),
    );
    becomes(&first, "active");
    let routers = format!(
        "[{{name: vip, interface: eth0, vrid: 51, addresses: [10.77.0.100/32, 10.77.0.101/32], {LESSER}}}]"
    );
    let second = start(&lan, 2, &with_routers(&routers));
    becomes(&second, "backup");
    eventually(SOON, "both differences are told", || {
        let alarms = router(&second, "vip")["alarms"].to_string();
        alarms.contains("advertises every 300ms") && alarms.contains("10.77.0.101")
    });
    // Longer than its own interval would let it wait: it has learned the other one.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(states(&second), ["backup"]);
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn of_two_with_equal_priority_the_higher_address_is_left_when_both_are_active() {
    let Some(lan) = Lan::new("equal", 2) else {
        return;
    };
    let first = start(&lan, 1, &config(BETTER));
    becomes(&first, "active");
    let second = start(&lan, 2, &config(BETTER));
    becomes(&second, "backup");
    lan.cut(2);
    becomes(&second, "active");
    lan.heal(2);
    becomes(&first, "backup");
    lan.moves_to(2, VIP);
    assert_eq!(states(&second), ["backup", "active"]);
}

#[test]
fn unicast_works_with_three_nodes() {
    let Some(lan) = Lan::new("uni", 3) else {
        return;
    };
    let mut first = start(&lan, 1, &one_of_three(1, 254));
    becomes(&first, "active");
    let (second, third) = (
        start(&lan, 2, &one_of_three(2, 250)),
        start(&lan, 3, &one_of_three(3, 200)),
    );
    becomes(&second, "backup");
    becomes(&third, "backup");
    first.signal(Signal::SIGKILL);
    first.wait_exit(SOON);
    lan.moves_to(2, VIP);
    assert_eq!(state(&second), "active");
    assert_eq!(states(&third), ["backup"]);
}

#[test]
fn a_returning_better_node_preempts_after_its_delay_if_it_may() {
    let Some(lan) = Lan::new("preempt", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let second = start(&lan, 2, &config(LESSER));
    becomes(&second, "active");
    let more = "preempt: true, preempt_delay: 2s";
    let began = Instant::now();
    let first = start(&lan, 1, &config(&format!("{BETTER}, {more}")));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let after = onlooker.first_after(1, began).unwrap();
    println!("preempts after {after:?}");
    assert!(after > Duration::from_secs(2), "{after:?}");
    assert_eq!(states(&second), ["backup", "active", "backup"]);
}

#[test]
fn all_of_255_virtual_routers_move() {
    let Some(lan) = Lan::new("many", 2) else {
        return;
    };
    let file = |priority: u8| {
        let routers = (1..=255).map(|number| {
            format!(
                "{{name: v{number}, interface: eth0, vrid: {number}, addresses: 10.78.0.{number}/32, \
                 priority: {priority}, advert_interval: 1s}}"
            )
        });
        with_routers(&format!("[{}]", routers.collect::<Vec<_>>().join(", ")))
    };
    let active = |ringway: &Ringway| {
        let status = ringway.status();
        let all = status["virtual_routers"].as_array().unwrap().iter();
        all.filter(|one| one["state"] == "active").count()
    };
    let mut first = start(&lan, 1, &file(254));
    eventually(SOON, "all are active", || active(&first) == 255);
    let second = start(&lan, 2, &file(250));
    first.signal(Signal::SIGKILL);
    let killed = Instant::now();
    first.wait_exit(SOON);
    eventually(SOON, "all have moved", || active(&second) == 255);
    println!(
        "255 virtual routers moved {:?} after kill -9",
        killed.elapsed()
    );
    eventually(SOON, "their addresses, too", || {
        ["10.78.0.1", "10.78.0.255"]
            .iter()
            .all(|vip| lan.holders(vip) == [2])
    });
}
