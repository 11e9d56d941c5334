//! Virtual addresses without root: the node has become another user, with the capabilities that it needs.

use crate::harness::backend::Backend;
use crate::harness::{Launch, facts, skip, stream};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, start, with_routers};

const NET_ADMIN_RAW_IPC_LOCK_NICE_RESOURCE: u64 =
    (1 << 12) | (1 << 13) | (1 << 14) | (1 << 23) | (1 << 24);

#[test]
fn a_node_that_is_not_root_any_more_holds_serves_and_hands_over_the_address() {
    let Some(lan) = Lan::new("priv", 2) else {
        return;
    };
    let backend = lan.node(1).run(Backend::echo);
    let router =
        "[{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: 254}]";
    let text = with_routers(router)
        .replace("global: {", "global: {user: nobody, ")
        .replace("127.0.0.1:7001", &backend.address().to_string());
    let first = lan
        .node(1)
        .run(|| Launch::config(text).open_folder().start());
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let control = facts::thread_named(first.pid(), "ringway");
    assert!(facts::status_of(first.pid(), control, "Uid").starts_with("65534"));
    let kept = facts::capabilities(first.pid(), control, "CapEff");
    assert_eq!(kept, facts::own_of(NET_ADMIN_RAW_IPC_LOCK_NICE_RESOURCE));
    let log = first.log();
    for lack in [
        "no real-time priority",
        "memory is not locked",
        "not permitted",
    ] {
        assert!(!log.contains(lack), "{log}");
    }
    let second = start(&lan, 2, &with_routers(&router.replace("254", "250")));
    becomes(&second, "backup");
    lan.node(2).run(|| {
        let mut client = stream::connect("10.77.0.100:7000".parse().unwrap());
        stream::exchange(&mut client, b"hello");
    });
    let (code, out, said) = first.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    lan.moves_to(2, VIP);
    becomes(&first, "backup");
    first.stop();
}

#[test]
fn commands_that_a_reload_brings_wait_for_a_restart_where_files_are_out_of_reach() {
    let Some(lan) = Lan::new("commands", 1) else {
        return;
    };
    let router =
        "[{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: 254}]";
    let text = with_routers(router).replace("global: {", "global: {user: nobody, ");
    let ringway = lan
        .node(1)
        .run(|| Launch::config(text.clone()).open_folder().start());
    becomes(&ringway, "active");
    if !ringway.log().contains("(landlock)") {
        skip("this kernel has no landlock, or an old one");
        return;
    }
    let reload = |more: &str| {
        let text = text.replace("priority: 254", &format!("priority: 240, {more}"));
        std::fs::write(ringway.folder().join("ringway.yaml"), text).unwrap();
        let (code, out, said) = ringway.command(&["reload"]);
        assert_eq!(code, Some(0), "{out}{said}");
        out
    };
    for (commands, key) in [
        ("notify: /bin/true", "vrrp.vip.notify"),
        (
            "track: {scripts: [{command: /bin/true}]}",
            "vrrp.vip.track.scripts",
        ),
    ] {
        let out = reload(commands);
        for key in [key, "vrrp.vip.priority 254 -> 240"] {
            assert!(out.contains(&format!("needs a restart: {key}")), "{out}");
        }
    }
    let out = reload("");
    assert!(out.starts_with("vrrp.vip.priority 254 -> 240\n"), "{out}");
    becomes(&ringway, "active");
    ringway.stop();
}
