//! The house rules that no lint knows, as a test over the whole source tree. Each finding says what to do instead, and
//! each rule carries examples of what it finds and what it lets pass.
//!
//! The rules read tokens, not types: a module hidden behind a macro or a renamed import gets through. They are there to
//! catch mistakes, not cunning.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::fs;
use std::path::Path;

use source::{Source, functions, is_below, paths, sources, tokens, words_of};

#[path = "tidy/source.rs"]
mod source;

const LINES_PER_FILE: usize = 1_000;
const LINES_PER_FUNCTION: usize = 100;
const COLUMNS_PER_LINE: usize = 120;

/// Everything that may lie at the top of the checkout.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".git",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "conf",
    "scripts",
    "src",
    "systemd",
    "target",
    "tests",
];

/// The only modules with `unsafe` code. They move operations and bytes and know nothing about load balancing.
const KERNEL: &[&str] = &["ring", "sys"];

/// Modules that are plain values: time and bytes come in as arguments, actions go out as return values.
const PURE: &[&str] = &[
    "ids",
    "time",
    "balance",
    "session",
    "flow",
    "health",
    "metrics",
    "worker::timers",
    "vrrp::packet",
    "vrrp::machine",
    "vrrp::settings",
    "vrrp::fitness",
    "vrrp::reading",
    "vrrp::wishes",
    "vrrp::paced",
    "vrrp::frames",
];

/// Shells that live inside a pure module's folder.
const NOT_PURE: &[&str] = &["health::prober"];

/// Pure modules that a shell joins; they do not know each other.
const DOMAINS: &[&str] = &["balance", "session", "flow", "health", "vrrp::machine"];

/// What workers must not see, but for the snapshot.
const BEHIND_THE_SNAPSHOT: &[&str] = &["config", "control", "admin", "cli"];
const SNAPSHOT: &str = "control::snapshot";

/// Words of load balancing, which the kernel modules do not know.
const DOMAIN_WORDS: &[&str] = &[
    "session", "flow", "relay", "backend", "client", "pool", "listener", "balancer", "picker",
    "snapshot", "vrrp",
];

/// Names from std that contain such a word.
const STD_NAMES: &[&str] = &["TcpListener", "UnixListener"];

/// Standard modules and crates that a pure module has no use for.
const IMPURE: &[&str] = &[
    "std::thread",
    "std::fs",
    "std::process",
    "std::env",
    "std::os",
    "libc",
    "nix",
    "io_uring",
    "socket2",
    "tokio",
    "crossbeam_channel",
];

/// Types that stand for a socket, a file descriptor or a clock.
const IMPURE_TYPES: &[&str] = &[
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "OwnedFd",
    "BorrowedFd",
    "RawFd",
];

/// Words and macros of unfinished work, spelled so that this file does not hold them.
const UNFINISHED_WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const UNFINISHED_MACROS: &[&str] = &["dbg", "todo", "unimplemented"];

/// Folders of somebody's machine; the last one is fine in tests.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/wo", "rk"),
    concat!("/ho", "me"),
    concat!("/ro", "ot"),
    concat!("/t", "mp"),
];

#[test]
fn the_tree_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(root, TOP_LEVEL);
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "the walk has not found the tree"
    );
    let mut findings = top_level(root);
    for source in &sources {
        for rule in RULES.iter().chain(SIZES) {
            let of_file = (rule.find)(source);
            findings.extend(
                of_file.iter().map(|(line, advice)| {
                    format!("{}:{line}: {}: {advice}", source.path, rule.name)
                }),
            );
        }
    }
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn every_rule_finds_what_it_is_there_for() {
    for rule in RULES {
        assert!(
            !rule.bad.is_empty() && !rule.good.is_empty(),
            "{}: no examples",
            rule.name
        );
        for (path, text) in rule.bad {
            let findings = (rule.find)(&Source::new(path, text, 0o644));
            assert!(
                !findings.is_empty(),
                "{}: does not find this in {path}:\n{text}",
                rule.name
            );
        }
        for (path, text) in rule.good {
            let findings = (rule.find)(&Source::new(path, text, 0o755));
            assert!(
                findings.is_empty(),
                "{}: finds {findings:?} in {path}:\n{text}",
                rule.name
            );
        }
    }
}

#[test]
fn every_example_configuration_loads_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let examples: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
        .collect();
    assert!(
        !examples.is_empty(),
        "conf/ has no example: write one that shows what is new"
    );
    let mistakes: Vec<_> = examples
        .iter()
        .map(|file| ringway::config::load(file, "lb1").report)
        .filter(|report| !report.problems.is_empty())
        .map(|report| report.to_string())
        .collect();
    assert!(
        mistakes.is_empty(),
        "mend the example or what reads it:\n{}",
        mistakes.join("\n")
    );
}

#[test]
fn sizes_are_counted_without_test_code() {
    let lines = |n: usize| "    x();\n".repeat(n);
    let function = |n: usize| {
        format!(
            "fn f(a: [u8; 4])\nwhere\n    A: B,\n{{\n{}}}\n",
            lines(n - 5)
        )
    };
    let tests = format!(
        "#[cfg(test)]\nmod tests {{\n{}}}\n",
        function(LINES_PER_FILE)
    );
    for (rule, path, text, found) in [
        ("lines fit", "src/x.rs", "é".repeat(COLUMNS_PER_LINE), 0),
        ("lines fit", "src/x.rs", "é".repeat(COLUMNS_PER_LINE + 1), 1),
        (
            "lines fit",
            "scripts/test",
            "x".repeat(COLUMNS_PER_LINE + 1),
            1,
        ),
        (
            "lines fit",
            "README.md",
            "x".repeat(COLUMNS_PER_LINE + 1),
            0,
        ),
        (
            "lines fit",
            "conf/reference.md",
            "x".repeat(COLUMNS_PER_LINE + 1),
            0,
        ),
        ("functions fit", "src/x.rs", function(LINES_PER_FUNCTION), 0),
        (
            "functions fit",
            "src/x.rs",
            function(LINES_PER_FUNCTION + 1),
            1,
        ),
        (
            "functions fit",
            "src/x.rs",
            "trait A { fn f(); }\nstruct B(fn(u8));\n".to_owned() + &lines(200),
            0,
        ),
        ("functions fit", "src/x.rs", tests.clone(), 0),
        (
            "functions fit",
            "tests/x.rs",
            function(LINES_PER_FUNCTION + 1),
            0,
        ),
        ("files fit", "src/x.rs", lines(LINES_PER_FILE), 0),
        ("files fit", "src/x.rs", lines(LINES_PER_FILE + 1), 1),
        ("files fit", "src/x.rs", lines(LINES_PER_FILE) + &tests, 0),
        ("files fit", "tests/x.rs", lines(LINES_PER_FILE + 1), 1),
    ] {
        let rule = SIZES
            .iter()
            .find(|candidate| candidate.name == rule)
            .unwrap();
        let findings = (rule.find)(&Source::new(path, &text, 0o644));
        assert_eq!(
            findings.len(),
            found,
            "{}: {path}, {} lines",
            rule.name,
            text.lines().count()
        );
    }
}

#[test]
fn an_unknown_name_at_the_top_is_found() {
    let folder = std::env::temp_dir().join(format!("ringway-tidy-{}", std::process::id()));
    fs::create_dir_all(folder.join("src")).unwrap();
    assert_eq!(top_level(&folder), Vec::<String>::new());
    fs::write(folder.join("notes.txt"), "").unwrap();
    let findings = top_level(&folder);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].starts_with("notes.txt:"), "{findings:?}");
}

/// One house rule, with examples as (path, text).
struct Rule {
    name: &'static str,
    find: fn(&Source) -> Vec<Finding>,
    bad: &'static [(&'static str, &'static str)],
    good: &'static [(&'static str, &'static str)],
}

/// The line, and what to do about it.
type Finding = (usize, String);

const RULES: &[Rule] = &[
    Rule {
        name: "unsafe only in ring and sys",
        find: unsafe_code,
        bad: &[
            ("src/worker/tcp.rs", "fn f() { unsafe { g() } }"),
            ("src/ringway.rs", "unsafe impl Send for A {}"),
            ("tests/process/main.rs", "fn f() { unsafe { g() } }"),
        ],
        good: &[
            ("src/ring/mod.rs", "fn f() { unsafe { g() } }"),
            ("src/sys.rs", "fn f() { unsafe { g() } }"),
            (
                "src/lib.rs",
                "#[allow(unsafe_code, reason = \"unsafe lives here\")] mod ring; // unsafe",
            ),
        ],
    },
    Rule {
        name: "pure modules touch nothing",
        find: impurity,
        bad: &[
            ("src/session/mod.rs", "let now = Instant::now();"),
            ("src/session/mod.rs", "let now = std::time::Instant::now();"),
            ("src/ids.rs", "use std::time::SystemTime;"),
            (
                "src/balance/hash.rs",
                "use std::net::{SocketAddr, TcpStream};",
            ),
            (
                "src/balance/hash.rs",
                "let s = std::net::UdpSocket::bind(a);",
            ),
            ("src/metrics/mod.rs", "use std::{sync::Arc, thread};"),
            ("src/metrics/mod.rs", "std::fs::write(a, b);"),
            ("src/health/rise.rs", "std::env::var(a)"),
            ("src/flow/mod.rs", "std::process::exit(1)"),
            ("src/worker/timers.rs", "libc::read(a, b, c)"),
            ("src/vrrp/packet.rs", "use nix::sys::socket::send;"),
            ("src/vrrp/machine.rs", "use io_uring::IoUring;"),
        ],
        good: &[
            (
                "src/session/mod.rs",
                "use std::net::SocketAddr;\nfn on(&mut self, now: Instant) {}",
            ),
            (
                "src/session/reason.rs",
                "matches!(errno, libc::ECONNRESET | libc::ETIMEDOUT)",
            ),
            (
                "src/session/mod.rs",
                "#[cfg(test)]\nmod tests {\n    use std::env;\n}",
            ),
            ("src/session/tests.rs", "let seed = std::env::var(a);"),
            ("src/health/prober.rs", "let now = Instant::now();"),
            ("src/worker/tcp.rs", "let now = Instant::now();"),
            ("src/ids.rs", "// never Instant::now()\nlet fs = self.env;"),
        ],
    },
    Rule {
        name: "pure modules import only pure modules",
        find: impure_import,
        bad: &[
            ("src/session/mod.rs", "use crate::ring::Ring;"),
            ("src/balance/mod.rs", "use crate::{ids::PoolId, sys};"),
            ("src/balance/first.rs", "let x = crate::config::load();"),
            (
                "src/metrics/cells.rs",
                "use super::super::control::Control;",
            ),
            ("src/worker/timers.rs", "use super::tcp::Tcp;"),
            ("src/vrrp/machine.rs", "use super::thread::Thread;"),
            ("src/session/relay.rs", "use crate::balance::Picker;"),
            ("src/flow/mod.rs", "use crate::session::CloseReason;"),
        ],
        good: &[
            (
                "src/session/relay.rs",
                "use super::{Session, Side};\nuse crate::ids::BackendId;",
            ),
            (
                "src/worker/timers.rs",
                "pub(super) struct Wheel;\nuse crate::time::Time;",
            ),
            ("src/vrrp/machine.rs", "use super::packet::Advertisement;"),
            ("src/worker/tcp.rs", "use crate::ring::Ring;"),
            ("src/health/prober.rs", "use crate::config::Probe;"),
        ],
    },
    Rule {
        name: "ring and sys know no domain word",
        find: domain_word,
        bad: &[
            ("src/ring/mod.rs", "struct SessionToken;"),
            ("src/ring/mod.rs", "fn submit(backends: u32) {}"),
            ("src/sys/pipe.rs", "let pool_of_pipes = 1;"),
            ("src/sys/socket.rs", "const LISTENERS_MAX: u32 = 1;"),
            ("src/ring/mod.rs", "use crate::worker::Token;"),
        ],
        good: &[
            ("src/ring/mod.rs", "fn overflows() {} // one session"),
            (
                "src/sys/socket.rs",
                "use std::net::TcpListener;\nuse crate::ring::Ring;",
            ),
            ("src/worker/tcp.rs", "struct Session;"),
        ],
    },
    Rule {
        name: "workers see the snapshot only",
        find: behind_the_snapshot,
        bad: &[
            ("src/worker/mod.rs", "use crate::config::Config;"),
            (
                "src/worker/tcp.rs",
                "use crate::control::{Control, snapshot::Snapshot};",
            ),
            ("src/worker/tcp.rs", "super::super::cli::run();"),
        ],
        good: &[
            (
                "src/worker/mod.rs",
                "use crate::control::snapshot::{Snapshot, Listener};",
            ),
            ("src/control/mod.rs", "use crate::config::Config;"),
        ],
    },
    Rule {
        name: "every file says what it is for",
        find: module_doc,
        bad: &[
            ("src/x.rs", "use std::fs;\n//! Late."),
            ("tests/x.rs", "// Not a doc."),
            ("src/x.rs", ""),
        ],
        good: &[
            ("src/x.rs", "//! What it is for."),
            ("scripts/test", "echo"),
        ],
    },
    Rule {
        name: "nothing is left to do",
        find: unfinished,
        bad: &[
            ("src/x.rs", concat!("// TO", "DO: later")),
            ("README.md", concat!("FIX", "ME")),
            ("scripts/test", concat!("# XX", "X")),
            ("src/x.rs", concat!("let a = todo", "!();")),
            ("src/x.rs", concat!("dbg", "!(a)")),
        ],
        good: &[(
            "src/x.rs",
            concat!("mktemp(a, \"XX", "XXXX\"); dbg(a); // a todo list"),
        )],
    },
    Rule {
        name: "no path of somebody's machine",
        find: machine_path,
        bad: &[
            ("src/x.rs", concat!("let a = \"/t", "mp/x\";")),
            ("scripts/test", concat!("cd /wo", "rk")),
            ("tests/x.rs", concat!("// see /ho", "me/me/x")),
            ("conf/x.yaml", concat!("socket: unix:/ro", "ot/x.sock")),
        ],
        good: &[
            (
                "src/x.rs",
                concat!("// src/wo", "rker, a/t", "mp, /wo", "rks"),
            ),
            ("tests/x.rs", concat!("let a = \"/t", "mp/x\";")),
        ],
    },
    Rule {
        name: "scripts can be run",
        find: script,
        bad: &[
            ("scripts/test", "#!/usr/bin/env bash\n"),
            (".ci/run", "#!/bin/sh"),
            ("scripts/check", "echo"),
        ],
        good: &[
            ("scripts/test", "#!/usr/bin/env bash\n"),
            ("scripts/lib.sh", "# sourced"),
            ("src/x.rs", "//! X."),
        ],
    },
];

/// Rules about sizes; `sizes_are_counted_without_test_code` has their examples.
const SIZES: &[Rule] = &[
    Rule {
        name: "lines fit",
        find: long_line,
        bad: &[],
        good: &[],
    },
    Rule {
        name: "functions fit",
        find: long_function,
        bad: &[],
        good: &[],
    },
    Rule {
        name: "files fit",
        find: long_file,
        bad: &[],
        good: &[],
    },
];

fn unsafe_code(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || KERNEL.iter().any(|module| source.is_in(module)) {
        return Vec::new();
    }
    let found = tokens(&source.code)
        .into_iter()
        .filter(|token| token.text == "unsafe");
    found
        .map(|token| {
            (
                token.line,
                "move the operation behind a safe function in src/ring or src/sys".to_owned(),
            )
        })
        .collect()
}

fn impurity(source: &Source) -> Vec<Finding> {
    if !is_pure(source) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, path) in paths(&source.product) {
        let is_errno = path.len() == 2 && path[0] == "libc" && path[1].starts_with('E');
        let joined = path.join("::");
        if joined.ends_with("Instant::now") || path.iter().any(|name| name == "SystemTime") {
            findings.push((
                line,
                "take the time as an argument; only the shells read a clock".to_owned(),
            ));
        } else if path
            .iter()
            .any(|name| IMPURE_TYPES.contains(&name.as_str()))
            || (!is_errno && IMPURE.iter().any(|module| is_below(&joined, module)))
        {
            findings.push((
                line,
                format!("`{joined}`: return what is to be done and let a shell do it"),
            ));
        }
    }
    findings
}

fn impure_import(source: &Source) -> Vec<Finding> {
    if !is_pure(source) {
        return Vec::new();
    }
    let own_domain = DOMAINS.iter().find(|domain| source.is_in(domain));
    let mut findings = Vec::new();
    for (line, path) in source.crate_paths() {
        let domain = DOMAINS.iter().find(|domain| is_below(&path, domain));
        if !is_pure_module(&path) {
            findings.push((
                line,
                format!("`crate::{path}` is no pure module: pass in the value that is needed"),
            ));
        } else if domain.is_some() && own_domain.is_some() && domain != own_domain {
            findings.push((
                line,
                format!(
                    "`crate::{path}`: domain modules do not know each other, let a shell join them"
                ),
            ));
        }
    }
    findings
}

fn domain_word(source: &Source) -> Vec<Finding> {
    if !KERNEL.iter().any(|module| source.is_in(module)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for token in tokens(&source.product) {
        let words = if STD_NAMES.contains(&token.text) {
            Vec::new()
        } else {
            words_of(token.text)
        };
        if let Some(word) = words
            .iter()
            .find(|word| DOMAIN_WORDS.contains(&word.trim_end_matches('s')))
        {
            findings.push((
                token.line,
                format!(
                    "`{}`: say what it is to the kernel, not `{word}`",
                    token.text
                ),
            ));
        }
    }
    for (line, path) in source.crate_paths() {
        if !["ring", "sys", "time"]
            .iter()
            .any(|module| is_below(&path, module))
        {
            findings.push((
                line,
                format!("`crate::{path}`: the kernel modules import nothing above them"),
            ));
        }
    }
    findings
}

fn behind_the_snapshot(source: &Source) -> Vec<Finding> {
    if !source.is_in("worker") {
        return Vec::new();
    }
    let behind = |path: &str| {
        BEHIND_THE_SNAPSHOT
            .iter()
            .any(|module| is_below(path, module))
    };
    let found = source
        .crate_paths()
        .into_iter()
        .filter(|(_, path)| behind(path) && !is_below(path, SNAPSHOT));
    found
        .map(|(line, path)| {
            (
                line,
                format!("`crate::{path}`: put what workers need into the snapshot"),
            )
        })
        .collect()
}

fn module_doc(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![(
        1,
        "begin with `//!`: what the file is for, and what it does not do".to_owned(),
    )]
}

fn unfinished(source: &Source) -> Vec<Finding> {
    let advice = "do it now, or say in the design why it is left out".to_owned();
    let mut findings = Vec::new();
    for token in tokens(&source.text) {
        if UNFINISHED_WORDS.contains(&token.text) {
            findings.push((token.line, advice.clone()));
        }
    }
    let code = tokens(&source.code);
    for pair in code.windows(2) {
        if source.is_rust() && UNFINISHED_MACROS.contains(&pair[0].text) && pair[1].text == "!" {
            findings.push((pair[0].line, advice.clone()));
        }
    }
    findings
}

fn machine_path(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folders = if source.test {
        &MACHINE_FOLDERS[..MACHINE_FOLDERS.len() - 1]
    } else {
        MACHINE_FOLDERS
    };
    for (number, line) in source.text.lines().enumerate() {
        for folder in folders {
            let is_whole = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                let after = line[at + folder.len()..].chars().next();
                let part_of_name = |c: char| c.is_alphanumeric() || "._-".contains(c);
                !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
            };
            if line.match_indices(folder).any(is_whole) {
                findings.push((
                    number + 1,
                    format!("`{folder}`: use a relative path, a temp folder or an argument"),
                ));
            }
        }
    }
    findings
}

fn script(source: &Source) -> Vec<Finding> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let is_script = source.path.starts_with(".ci/")
        || (source.path.starts_with("scripts/") && !name.contains('.'));
    if !is_script {
        Vec::new()
    } else if !source.text.starts_with("#!") {
        vec![(
            1,
            "begin with #!/usr/bin/env bash, or end the name in .sh if it is to be sourced"
                .to_owned(),
        )]
    } else if source.mode & 0o111 != 0o111 {
        vec![(1, format!("chmod +x {}", source.path))]
    } else {
        Vec::new()
    }
}

/// Markdown has tables, JSON has texts that cannot be broken.
fn has_long_lines(path: &str) -> bool {
    [".md", ".json"].iter().any(|end| path.ends_with(end))
}

fn long_line(source: &Source) -> Vec<Finding> {
    let wrapped = source.is_rust()
        || ["scripts/", ".ci/", "conf/"]
            .iter()
            .any(|folder| source.path.starts_with(folder) && !has_long_lines(&source.path));
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if wrapped && columns > COLUMNS_PER_LINE {
            findings.push((
                number + 1,
                format!("{columns} columns: break it before column {COLUMNS_PER_LINE}"),
            ));
        }
    }
    findings
}

fn long_file(source: &Source) -> Vec<Finding> {
    let count = source.text.lines().count() - source.test_lines;
    if !source.is_rust() || count <= LINES_PER_FILE {
        return Vec::new();
    }
    vec![(
        1,
        format!(
            "{count} lines, at most {LINES_PER_FILE}: a part of it has a name of its own, move it out"
        ),
    )]
}

fn long_function(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.test {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, first, last) in functions(&source.product) {
        let count = last - first + 1;
        if count > LINES_PER_FUNCTION {
            let advice = format!(
                "`{name}` has {count} lines, at most {LINES_PER_FUNCTION}: name a step and call it"
            );
            findings.push((first, advice));
        }
    }
    findings
}

fn top_level(root: &Path) -> Vec<String> {
    let names = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unknown = names.filter(|name| !TOP_LEVEL.contains(&name.as_str()));
    unknown
        .map(|name| {
            format!(
                "{name}: the top level is fixed, find it a place below ({})",
                TOP_LEVEL.join(" ")
            )
        })
        .collect()
}

fn is_pure(source: &Source) -> bool {
    !source.test && is_pure_module(&source.module())
}

fn is_pure_module(module: &str) -> bool {
    PURE.iter().any(|pure| is_below(module, pure))
        && !NOT_PURE.iter().any(|shell| is_below(module, shell))
}
