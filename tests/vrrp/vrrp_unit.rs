//! A node with exactly the rights that the unit gives: user, capabilities, limits, system calls.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::{Folder, Launch, SOON, facts, stream};
use crate::lan::{Lan, VIP};
use crate::node::{becomes, with_routers};
use crate::program::{self, find};

const CAP_SYS_RESOURCE: u64 = 1 << 24;

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ringway.service");
    std::fs::read_to_string(path).unwrap()
}

/// What the unit has for a key, once for each line.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines();
    lines
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// The names of sets, with their members.
fn sets(analyze: &Path) -> HashMap<String, Vec<String>> {
    let said = program::run(Command::new(analyze).arg("syscall-filter"), SOON);
    let (mut sets, mut last) = (HashMap::new(), String::new());
    for line in said.lines() {
        match line.strip_prefix("    ") {
            Some(member) if !member.starts_with('#') => {
                let members: &mut Vec<String> = sets.entry(last.clone()).or_default();
                members.push(member.trim().to_owned());
            }
            Some(_) => {}
            None => last = line.trim().to_owned(),
        }
    }
    sets
}

fn add(name: &str, sets: &HashMap<String, Vec<String>>, into: &mut HashSet<String>) {
    match sets.get(name) {
        Some(members) => members.iter().for_each(|member| add(member, sets, into)),
        None => drop(into.insert(name.to_owned())),
    }
}

fn permitted(unit: &str, analyze: &Path) -> HashSet<String> {
    let sets = sets(analyze);
    let mut permitted = HashSet::new();
    for value in values(unit, "SystemCallFilter") {
        let mut named = HashSet::new();
        let (takes_away, names) = match value.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, value),
        };
        let names = names.split_whitespace();
        names.for_each(|name| add(name, &sets, &mut named));
        if takes_away {
            permitted.retain(|name| !named.contains(name));
        } else {
            permitted.extend(named);
        }
    }
    permitted
}

/// The names of the calls in what strace wrote: `PID name(...`, or `PID <... name resumed>`.
fn calls(written: &str) -> HashSet<&str> {
    written.lines().filter_map(call).collect()
}

fn call(line: &str) -> Option<&str> {
    let start = line.find(|letter: char| !letter.is_ascii_digit() && letter != ' ')?;
    let (name, _) = line[start..].split_once('(')?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(is_name).then_some(name)
}

#[test]
fn a_node_with_the_rights_of_the_unit_serves_the_address_and_uses_no_other_system_calls() {
    let Some([analyze, strace, setpriv, prlimit]) =
        find(["systemd-analyze", "strace", "setpriv", "prlimit"])
    else {
        return;
    };
    let (unit, folder) = (unit(), Folder::new());
    folder.open();
    let calls_file = folder.path().join("calls");
    let permitted = permitted(&unit, &analyze);
    assert!(permitted.contains("io_uring_enter") && !permitted.contains("mount"));
    let Some(lan) = Lan::new("unit", 2) else {
        return;
    };
    let wanted = values(&unit, "AmbientCapabilities")[0].to_lowercase();
    // Not every root may use all.
    let own = program::run(Command::new(&setpriv).arg("--dump"), SOON);
    let bounds = own
        .lines()
        .find(|line| line.starts_with("Capability bounding set"));
    let bounds = bounds.unwrap();
    let wanted = wanted
        .split(' ')
        .map(|name| name.trim_start_matches("cap_"));
    let wanted = wanted.filter(|name| bounds.contains(name));
    // Nor raise limits; then these stand in for them.
    let may_raise = facts::own_of(CAP_SYS_RESOURCE) != 0;
    let instead = ["ipc_lock", "sys_nice"];
    let instead = instead.into_iter().filter(|_| !may_raise);
    let capabilities = wanted.chain(instead).map(|name| format!("+{name}"));
    let capabilities = capabilities.collect::<Vec<_>>().join(",");
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"];
    let limit = |key: &str| values(&unit, key)[0].replace("infinity", "unlimited");
    let mut under = match may_raise {
        true => vec![
            prlimit.display().to_string(),
            format!("--memlock={}", limit("LimitMEMLOCK")),
            format!("--rtprio={}", limit("LimitRTPRIO")),
        ],
        false => Vec::new(),
    };
    under.extend([
        setpriv.display().to_string(),
        "--reuid=65534".to_owned(),
        "--regid=65534".to_owned(),
        "--clear-groups".to_owned(),
        "--no-new-privs".to_owned(),
    ]);
    under.extend(sets.map(|set| format!("{set}=-all,{capabilities}")));
    let traced = ["-D", "-f", "-qq", "-o"].map(str::to_owned);
    under.extend([strace.display().to_string()].into_iter().chain(traced));
    under.push(calls_file.display().to_string());
    let backend = lan.node(1).run(Backend::echo);
    let router =
        "[{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: 254}]";
    let more = format!(
        "log: {{access: {}}}\nadmin: {{state_file: {}, metrics: \"127.0.0.1:0\"}}\n",
        folder.path().join("access.log").display(),
        folder.path().join("state.json").display()
    );
    let text = with_routers(router)
        .replace("global: {", "global: {user: nobody, ")
        .replace("10.77.0.100:7000", "10.77.0.100:70")
        .replace("probe: none", "probe: tcp")
        .replace("127.0.0.1:7001", &backend.address().to_string());
    let launch = Launch::config(format!("{text}{more}"))
        .open_folder()
        .under(under);
    let first = lan.node(1).run(|| launch.start());
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    lan.node(2).run(|| {
        let mut client = stream::connect("10.77.0.100:70".parse().unwrap());
        stream::exchange(&mut client, &vec![b'x'; 3 << 20]);
    });
    for word in ["drain", "ready"] {
        let name = format!("pg/{}", backend.address());
        let (code, _, said) = first.command(&["backend", &name, word]);
        assert_eq!(code, Some(0), "{said}");
    }
    let log = first.log();
    for lack in [
        "no real-time priority",
        "memory is not locked",
        "not permitted",
        "EPERM",
    ] {
        assert!(!log.contains(lack), "{lack}: {log}");
    }
    first.stop();
    let written = std::fs::read_to_string(&calls_file).unwrap();
    let made = calls(&written);
    assert!(
        made.contains("io_uring_enter") && made.len() > 40,
        "{made:?}"
    );
    let refused: Vec<_> = made
        .iter()
        .filter(|name| !permitted.contains(**name))
        .collect();
    assert!(
        refused.is_empty(),
        "SystemCallFilter= does not permit {refused:?}"
    );
}
