//! When a node that is not well gives way, and when it keeps the addresses.

use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::backend::{Backend, listener_on};
use crate::harness::stream::{self, Ended};
use crate::harness::{Folder, Launch, Ringway, SOON, eventually, eventually_some};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, executable, router, start, state, states, with_routers};

/// A file whose pool is probed, at an address that the node has itself.
fn probed(priority: u8, more: &str) -> String {
    format!(
        "global: {{workers: 1, drain_timeout: 1s}}\n\
         listeners: [{{name: in, bind: \"10.77.0.100:7000\", pool: pg}}]\n\
         pools: {{pg: {{backends: [\"127.0.0.1:7001\"], retries: 0, slow_start: none, \
         probe: {{interval: 100ms, fast_interval: 50ms, down_interval: 100ms, timeout: 100ms, rise: 2, fall: 2}}}}}}\n\
         vrrp: [{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: {priority}, \
         preempt_delay: 500ms, track: {{pools: [pg]}}, {more}}}]\n"
    )
}

fn backend(lan: &Lan, number: usize) -> Backend {
    lan.node(number).run(|| {
        let listener = listener_on("127.0.0.1:7001".parse().unwrap(), 128);
        Backend::scripted_on(listener, |stream, _| crate::harness::backend::echo(stream))
    })
}

fn fault(ringway: &Ringway) -> Option<String> {
    router(ringway, "vip")["fault"].as_str().map(str::to_owned)
}

#[test]
fn the_node_whose_pool_empties_gives_way_and_if_both_do_the_address_stays() {
    let Some(lan) = Lan::new("pool", 3) else {
        return;
    };
    let (near, far) = (backend(&lan, 1), backend(&lan, 2));
    let first = start(&lan, 1, &probed(254, ""));
    becomes(&first, "active");
    let second = start(&lan, 2, &probed(250, ""));
    becomes(&second, "backup");
    eventually(SOON, "the second one is well", || fault(&second).is_none());
    drop(near);
    becomes(&second, "active");
    lan.moves_to(2, VIP);
    assert!(fault(&first).unwrap().contains("pool pg: 0 of 1"));
    assert_eq!(router(&first, "vip")["priority"].as_u64().unwrap() / 100, 0);
    drop(far);
    eventually(SOON, "the second one is ill, too", || {
        fault(&second).is_some()
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(state(&second), "active", "both are ill: the address stays");
    assert_eq!(lan.holders(VIP), [2]);
    let refused = lan
        .node(3)
        .run(|| TcpStream::connect("10.77.0.100:7000").unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let _back = backend(&lan, 1);
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    assert_eq!(states(&first), ["backup", "active", "backup", "active"]);
}

#[test]
fn both_powered_on_with_the_databases_last_one_of_them_serves() {
    let Some(lan) = Lan::new("last", 3) else {
        return;
    };
    let first = start(&lan, 1, &probed(254, ""));
    let second = start(&lan, 2, &probed(250, ""));
    eventually(SOON, "one of them holds the address", || {
        lan.holders(VIP).len() == 1
    });
    let _backends = [backend(&lan, 1), backend(&lan, 2)];
    lan.node(3).run(|| {
        eventually_some(SOON, "a client is served", || {
            let mut client = TcpStream::connect("10.77.0.100:7000").ok()?;
            stream::exchange(&mut client, b"hello");
            Some(())
        });
    });
    assert_eq!(lan.holders(VIP).len(), 1);
    let active = [&first, &second]
        .iter()
        .filter(|one| state(one) == "active")
        .count();
    assert_eq!(active, 1);
}

#[test]
fn a_tracked_interface_and_a_script_make_a_node_give_way() {
    let Some(lan) = Lan::new("track", 2) else {
        return;
    };
    let folder = Folder::new();
    let (script, flag) = (folder.path().join("check"), folder.path().join("bad"));
    executable(&script, &format!("test ! -e {}", flag.display()));
    let track = format!(
        "preempt_delay: 300ms, track: {{interfaces: [lo], \
         scripts: [{{command: {}, interval: 200ms, timeout: 200ms}}]}}",
        script.display()
    );
    let first = start(&lan, 1, &config(&format!("priority: 254, {track}")));
    becomes(&first, "active");
    let second = start(&lan, 2, &config("priority: 250"));
    becomes(&second, "backup");
    std::fs::write(&flag, "").unwrap();
    becomes(&second, "active");
    let why = router(&first, "vip")["why"].to_string();
    assert!(why.contains("check fails: exit status: 1"), "{why}");
    std::fs::remove_file(&flag).unwrap();
    eventually(SOON, "the script succeeds again", || {
        fault(&first).is_none()
    });
    let (code, _, said) = second.command(&["failover"]);
    assert_eq!(code, Some(0), "{said}");
    becomes(&first, "active");
    let (code, ..) = second.command(&["failover", "--release"]);
    assert_eq!(code, Some(0));
    lan.node(1).ip(&["link", "set", "lo", "down"]);
    becomes(&second, "active");
    let why = router(&first, "vip")["why"].to_string();
    assert!(why.contains("no link on lo"), "{why}");
}

#[test]
fn a_failover_ends_the_sessions_with_a_reset_and_holds_the_node_back() {
    let Some(lan) = Lan::new("move", 3) else {
        return;
    };
    let _backends = [backend(&lan, 1), backend(&lan, 2)];
    let first = start(&lan, 1, &probed(254, "preempt: true"));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let connect = || {
        lan.node(3).run(|| {
            let mut client = stream::connect("10.77.0.100:7000".parse().unwrap());
            stream::exchange(&mut client, b"hello");
            client
        })
    };
    let mut client = connect();
    let (code, out, said) = first.command(&["failover", "vip"]);
    assert_eq!(code, Some(1), "nobody is there: {out}{said}");
    assert!(out.contains("nobody took over"), "{out}");
    stream::exchange(&mut client, b"still here");
    let second = start(&lan, 2, &probed(250, ""));
    becomes(&second, "backup");
    eventually(SOON, "the second one is well", || fault(&second).is_none());
    let began = Instant::now();
    let (code, out, said) = first.command(&["failover", "vip"]);
    assert_eq!(code, Some(0), "{out}{said}");
    println!("handed over within {:?}: {out}", began.elapsed());
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    lan.moves_to(2, VIP);
    let mut client = connect();
    stream::exchange(&mut client, b"hello there");
    let counters = first.counters();
    assert_eq!(counters["ends"]["address_lost"], 1, "{counters}");
    assert_eq!(router(&first, "vip")["held_back"], true);
    let (_, text, _) = first.command(&["status"]);
    assert!(text.contains("held back"), "{text}");
    let (code, out, _) = first.command(&["failover", "--release"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "vip: may take over again\n")
    );
    becomes(&first, "active");
    let (code, _, said) = first.command(&["failover", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("there is no virtual router `nobody`; there are vip"),
        "{said}"
    );
}

#[test]
fn a_held_backup_takes_over_from_nobody_who_serves_but_from_one_who_is_gone() {
    let Some(lan) = Lan::new("hold", 2) else {
        return;
    };
    let near = backend(&lan, 1);
    let _far = backend(&lan, 2);
    let mut first = start(&lan, 1, &probed(250, ""));
    becomes(&first, "active");
    let second = start(&lan, 2, &probed(240, ""));
    becomes(&second, "backup");
    eventually(SOON, "the second one is well", || fault(&second).is_none());
    let hold = || {
        let (code, out, said) = second.command(&["failover", "--hold"]);
        assert_eq!(code, Some(0), "{out}{said}");
        assert_eq!(out, "vip: was not active here; held back\n");
    };
    hold();
    assert_eq!(router(&second, "vip")["held_back"], true);
    drop(near);
    // Not held, it would go on to the address with the first of these advertisements.
    let heard = || {
        let heard = &router(&second, "vip")["heard"];
        let is_ill = heard["priority"].as_u64()? < 100;
        is_ill.then(|| heard["at"].as_f64()).flatten()
    };
    let ill_at = eventually_some(SOON, "the first one says that it is ill", heard);
    eventually(SOON, "it has said so for a second", || {
        heard().is_some_and(|at| at > ill_at + 1.0)
    });
    assert_eq!(
        (state(&first).as_str(), state(&second).as_str()),
        ("active", "backup")
    );
    let (code, out, _) = second.command(&["failover", "--release"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "vip: may take over again\n")
    );
    becomes(&second, "active");
    lan.moves_to(2, VIP);
    let near = backend(&lan, 1);
    eventually(SOON, "the first one is well again", || {
        fault(&first).is_none()
    });
    let (code, out, said) = second.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    becomes(&first, "active");
    becomes(&second, "backup");
    hold();
    first.signal(Signal::SIGKILL);
    first.wait_exit(SOON);
    becomes(&second, "active");
    lan.moves_to(2, VIP);
    drop(near);
}

#[test]
fn a_stop_ends_the_sessions_with_a_reset_while_the_address_is_there() {
    let Some(lan) = Lan::new("reset", 3) else {
        return;
    };
    let _backend = backend(&lan, 1);
    let mut first = start(&lan, 1, &probed(254, ""));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let mut client = lan.node(3).run(|| {
        let mut client = stream::connect("10.77.0.100:7000".parse().unwrap());
        stream::exchange(&mut client, b"hello");
        client
    });
    first.signal(Signal::SIGTERM);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_eq!(first.wait_exit(SOON).code(), Some(0), "{}", first.log());
    assert_eq!(lan.holders(VIP), [0; 0]);
}

/// A command that writes what it is told into a file, and is still running when the next change comes.
fn slow_command(folder: &Folder) -> (PathBuf, PathBuf) {
    let (script, log) = (folder.path().join("on-change"), folder.path().join("log"));
    executable(
        &script,
        &format!("sleep 0.3\necho \"$@\" >> {}", log.display()),
    );
    (script, log)
}

#[test]
fn every_change_of_state_is_told_to_the_command_in_order() {
    let Some(lan) = Lan::new("notify", 2) else {
        return;
    };
    let folder = Folder::new();
    let (script, log) = slow_command(&folder);
    let first = start(
        &lan,
        1,
        &config(&format!(
            "priority: 254, notify: [{}, now]",
            script.display()
        )),
    );
    becomes(&first, "active");
    lan.pull(1);
    becomes(&first, "initialize");
    let expected =
        "now vip initialize backup 254\nnow vip backup active 254\nnow vip active initialize 254\n";
    eventually(SOON, "all three were told", || {
        std::fs::read_to_string(&log).unwrap_or_default() == expected
    });
}

#[test]
fn without_the_capabilities_it_says_which_are_missing() {
    let Some(lan) = Lan::new("caps", 1) else {
        return;
    };
    let file = config("priority: 254");
    let (code, log) = lan
        .node(1)
        .run(|| Launch::config(file).user(65534).run_to_end());
    assert_eq!(code, Some(77), "{log}");
    assert!(log.contains("CAP_NET_ADMIN"), "{log}");
}

#[test]
fn one_of_a_group_without_its_interface_keeps_the_other_out() {
    let Some(lan) = Lan::new("lame", 1) else {
        return;
    };
    let file = with_routers(
        "[{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, group: g, priority: 254}, \
         {name: other, interface: eth1, vrid: 51, addresses: 10.78.0.100/32, group: g, priority: 254}]",
    );
    let first = start(&lan, 1, &file);
    eventually(SOON, "it says what is missing", || {
        fault(&first).is_some_and(|why| why.contains("other, of the same group, has no link"))
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(&first), "initialize");
    assert!(!lan.has(1, VIP));
    let node = lan.node(1);
    node.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "far"]);
    node.ip(&["address", "add", "10.78.0.1/24", "dev", "eth1"]);
    node.ip(&["link", "set", "far", "up"]);
    node.ip(&["link", "set", "eth1", "up"]);
    becomes(&first, "active");
    lan.moves_to(1, "10.78.0.100");
    lan.moves_to(1, VIP);
    node.ip(&["link", "set", "far", "down"]);
    becomes(&first, "initialize");
    eventually(SOON, "both are gone", || {
        !lan.has(1, VIP) && !lan.has(1, "10.78.0.100")
    });
}

#[test]
fn a_node_whose_kernel_does_not_take_the_address_gives_way() {
    let Some(lan) = Lan::new("refuse", 2) else {
        return;
    };
    // Where there is one like this, there is no place for another one.
    lan.node(1).ip(&[
        "link", "add", "link", "eth0", "name", "hog", "type", "macvlan", "mode", "passthru",
    ]);
    let first = start(&lan, 1, &config("priority: 254, virtual_mac: true"));
    becomes(&first, "active");
    eventually(SOON, "it says what is wrong", || {
        fault(&first).is_some_and(|why| why.contains("does not take the addresses of vip"))
    });
    assert_eq!(state(&first), "active", "there is nobody else");
    let second = start(&lan, 2, &config("priority: 250, virtual_mac: true"));
    becomes(&second, "active");
    lan.moves_to(2, VIP);
    assert_eq!(states(&first), ["backup", "active", "backup"]);
}

#[test]
fn a_udp_listener_that_waits_for_its_last_flows_is_no_fault() {
    let Some(lan) = Lan::new("flows", 2) else {
        return;
    };
    let first = start(
        &lan,
        1,
        "global: {workers: 1}\n\
         listeners: [{name: in, protocol: udp, bind: \"10.77.0.100:7000\", pool: dns}]\n\
         pools: {dns: {backends: [{name: d1, address: \"127.0.0.1:7001\"}], probe: none, udp: {idle: 60s}}}\n\
         vrrp: [{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: 254}]\n",
    );
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let (_backend, _client) = (
        lan.node(1)
            .run(|| UdpSocket::bind("127.0.0.1:7001").unwrap()),
        lan.node(2).run(|| {
            let client = UdpSocket::bind("10.77.0.2:0").unwrap();
            client.send_to(b"hello", "10.77.0.100:7000").unwrap();
            client
        }),
    );
    first.counter_becomes("flows_active", 1);
    let (code, out, said) = first.command(&["backend", "dns/d1", "drain"]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert_eq!(first.counters()["flows_active"], 1, "it goes on");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(&first), "active");
    assert_eq!(fault(&first), None);
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn the_last_change_before_the_end_is_told_to_the_command() {
    let Some(lan) = Lan::new("told", 1) else {
        return;
    };
    let folder = Folder::new();
    let (script, log) = slow_command(&folder);
    let notify = format!("priority: 254, notify: [{}]", script.display());
    let mut first = start(&lan, 1, &config(&notify));
    becomes(&first, "active");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_exit(SOON).code(), Some(0), "{}", first.log());
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "vip initialize backup 254\nvip backup active 254\nvip active initialize 254\n"
    );
}
