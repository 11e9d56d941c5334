//! What goes wrong on the host around it: the kernel's lock of network configuration is held, nobody reads the log, a
//! firewall drops advertisements, the clock jumps.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{Folder, Launch, Ringway, SOON, eventually, facts};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, pair, router, state, states};
use crate::onlooker::Onlooker;
use crate::program::{self, find};

/// No advertisement may be missing: another node takes over after three intervals of 100 ms.
const SILENCE_MAX: Duration = Duration::from_millis(290);

/// A small program of these tests, for what only C can ask of the kernel here.
pub fn compiled(name: &str, folder: &Folder) -> Option<PathBuf> {
    let [compiler] = find(["gcc"])?;
    let program = folder.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vrrp/{name}.c"));
    let mut compile = Command::new(compiler);
    compile.arg("-o").arg(&program).arg(source).arg("-lpthread");
    program::run(&mut compile, SOON);
    Some(program)
}

#[track_caller]
fn nothing_moved(first: &Ringway, second: &Ringway) {
    assert_eq!(states(first), ["backup", "active"], "{}", first.log());
    assert_eq!(states(second), ["backup"], "{}", second.log());
}

/// Alone: the lock is there once for all namespaces.
#[test]
fn rtnl_held_for_five_seconds_delays_no_advertisement() {
    let folder = Folder::new();
    let Some(holder) = compiled("hold_rtnl", &folder) else {
        return;
    };
    let Some(lan) = Lan::alone("rtnl", 3) else {
        return;
    };
    let (mut first, second) = pair(&lan, "");
    let onlooker = Onlooker::on(&lan, 3);
    // By the test's own thread: with the thread that has started it, what is mortal ends.
    let mut command = program::mortal("ip".as_ref());
    command.args(["netns", "exec", lan.node(3).name()]);
    command.arg(&holder).arg("5");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "held");
    let held = Instant::now();
    assert_eq!(lines.next().unwrap().unwrap(), "released");
    assert!(child.wait().unwrap().success());
    println!(
        "held for {:?}; {} advertisements, longest silence {:?}",
        held.elapsed(),
        onlooker.from(1).len(),
        onlooker.longest_silence()
    );
    assert!(held.elapsed() > Duration::from_secs(4));
    assert!(onlooker.longest_silence() < SILENCE_MAX);
    nothing_moved(&first, &second);
    lan.moves_to(1, VIP);
    // Nothing of it is left: a stop is as quick as ever.
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_exit(SOON).code(), Some(0));
    lan.moves_to(2, VIP);
}

#[test]
fn a_log_that_nobody_reads_delays_no_advertisement() {
    let Some(lan) = Lan::new("log", 3) else {
        return;
    };
    let (first, second) = pair(&lan, "");
    let onlooker = Onlooker::on(&lan, 3);
    let unread = first.stop_reading();
    // The pipe of the log, as small as pipes get.
    let pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{}/fd/1", first.pid()))
        .unwrap();
    fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let is_full = || {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 0
    };
    let mut words = ["drain", "ready"].into_iter().cycle();
    eventually(SOON, "the pipe is full", || {
        let word = words.next().unwrap();
        let (code, _, said) = first.command(&["backend", "pg/127.0.0.1:7001", word]);
        assert_eq!(code, Some(0), "{said}");
        is_full()
    });
    // What is said about virtual routers finds no reader, either.
    for _ in 0..20 {
        let (code, ..) = first.command(&["backend", "pg/127.0.0.1:7001", words.next().unwrap()]);
        assert_eq!(code, Some(0));
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(is_full());
    println!("longest silence {:?}", onlooker.longest_silence());
    assert!(onlooker.longest_silence() < SILENCE_MAX);
    nothing_moved(&first, &second);
    let (code, out, said) = first.command(&["failover"]);
    assert_eq!(code, Some(0), "{out}{said}");
    lan.moves_to(2, VIP);
    drop(unread);
}

#[test]
fn a_firewall_that_drops_advertisements_is_told_of_and_all_is_well_without_it() {
    let Some([nft]) = find(["nft"]) else {
        return;
    };
    let Some(lan) = Lan::new("wall", 2) else {
        return;
    };
    let rules = |number: usize, rules: &str| {
        let mut command = Command::new(&nft);
        command.arg(rules);
        lan.node(number).run(|| program::run(&mut command, SOON));
    };
    let (first, second) = pair(&lan, "");
    // What the first one says does not get out: it is told so, and the other one cannot know better.
    rules(
        1,
        "add table ip f; add chain ip f out { type filter hook output priority 0; }; \
         add rule ip f out ip protocol 112 drop",
    );
    becomes(&second, "active");
    let counters = || router(&first, "vip")["counters"].clone();
    eventually(SOON, "it says that sending fails", || {
        counters()["send_failures"].as_u64() > Some(2)
            && first
                .log()
                .contains("an advertisement to 224.0.0.18 cannot be sent")
    });
    eventually(SOON, "it hears the other one", || {
        let alarms = router(&first, "vip")["alarms"].to_string();
        alarms.contains("10.77.0.2 is Active too, with priority 250")
    });
    rules(1, "delete table ip f");
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    // What the first one says does not get in at the second: the second cannot know, but the first one sees it.
    rules(
        2,
        "add table ip f; add chain ip f in { type filter hook input priority 0; }; \
         add rule ip f in ip protocol 112 drop",
    );
    becomes(&second, "active");
    rules(2, "delete table ip f");
    becomes(&second, "backup");
    lan.moves_to(1, VIP);
    assert_eq!(states(&first), ["backup", "active"]);
}

#[test]
fn a_clock_that_jumps_moves_nothing() {
    let library = Path::new("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1");
    if !library.exists() {
        crate::harness::skip("not installed: faketime (scripts/test installs what the tests need)");
        return;
    }
    let Some(lan) = Lan::new("clock", 3) else {
        return;
    };
    let folder = Folder::new();
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    // The calendar's clock alone: no setting of a clock moves the monotonic one.
    let jumping = |number: usize, keys: &str| {
        let launch = Launch::config(config(keys))
            .environment("LD_PRELOAD", library)
            .environment("FAKETIME_TIMESTAMP_FILE", &offset)
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        lan.node(number).run(|| launch.start())
    };
    let first = jumping(1, "priority: 254");
    becomes(&first, "active");
    let second = jumping(2, "priority: 250");
    becomes(&second, "backup");
    let onlooker = Onlooker::on(&lan, 3);
    for jump in ["+86400", "-86400", "+1000000", "+0"] {
        std::fs::write(&offset, jump).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        // The log shows that the clock did jump.
        let (code, ..) = first.command(&["backend", "pg/127.0.0.1:7001", "drain"]);
        assert_eq!(code, Some(0));
        let (code, ..) = first.command(&["backend", "pg/127.0.0.1:7001", "ready"]);
        assert_eq!(code, Some(0));
    }
    let log = first.log();
    let days: std::collections::BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("127.0.0.1:7001"))
        .filter_map(|line| line.get(..10))
        .collect();
    assert!(days.len() >= 4, "the clock did not jump: {days:?}\n{log}");
    println!("longest silence {:?}", onlooker.longest_silence());
    assert!(onlooker.longest_silence() < SILENCE_MAX);
    nothing_moved(&first, &second);
    assert!(lan.has(1, VIP), "the lease is no matter of the calendar");
}

#[test]
fn a_thread_that_stands_still_makes_the_node_give_up_until_it_goes_on() {
    let folder = Folder::new();
    let Some(freezer) = compiled("freeze_thread", &folder) else {
        return;
    };
    let Some(lan) = Lan::new("still", 2) else {
        return;
    };
    let more = "progress_timeout: 500ms, preempt_delay: 100ms";
    let (first, second) = pair(&lan, more);
    // An idle one is alive.
    std::thread::sleep(Duration::from_secs(1));
    nothing_moved(&first, &second);
    let frozen = |ringway: &Ringway, name: &str| {
        let thread = facts::thread_named(ringway.pid(), name);
        let mut command = program::mortal(&freezer);
        command.args([&thread.to_string(), "2500"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    for (name, what) in [("ringway", "control plane"), ("worker-0", "worker 0")] {
        let mut child = frozen(&first, name);
        lan.moves_to(2, VIP);
        becomes(&second, "active");
        assert!(child.wait().unwrap().success());
        becomes(&first, "backup");
        let history = router(&first, "vip")["history"].to_string();
        assert!(
            history.contains(&format!("{what} has done nothing")),
            "{history}"
        );
        let (code, out, said) = second.command(&["failover"]);
        assert_eq!(code, Some(0), "{out}{said}");
        let (code, ..) = second.command(&["failover", "--release"]);
        assert_eq!(code, Some(0));
        becomes(&first, "active");
        lan.moves_to(1, VIP);
    }
}

#[test]
fn a_node_whose_kernel_does_not_answer_gives_way() {
    let folder = Folder::new();
    let Some(freezer) = compiled("freeze_thread", &folder) else {
        return;
    };
    let Some(lan) = Lan::new("mute", 2) else {
        return;
    };
    let (first, second) = pair(&lan, "");
    let thread = facts::thread_named(first.pid(), "vrrp-kernel");
    let mut command = program::mortal(&freezer);
    command.args([&thread.to_string(), "25000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // The lease has removed the address, and nothing has told the node.
    eventually(Duration::from_secs(20), "the second one takes over", || {
        state(&second) == "active" && lan.holders(VIP) == [2]
    });
    let why = router(&first, "vip")["why"].to_string();
    assert!(why.contains("does not take the addresses"), "{why}");
    child.kill().unwrap();
    child.wait().unwrap();
}
