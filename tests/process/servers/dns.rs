//! Knot DNS behind Ringway, asked by dnsperf.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::program::{self, Server, mortal};
use crate::harness::{Folder, Launch, Ringway, SOON, eventually, free_port, number};

const ZONE: &str = "\
$ORIGIN example.test.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.1
www A 192.0.2.2
";

/// Queries for each second, which anybody can answer.
const MODERATE: u32 = 1_000;

/// One name server in a folder of its own.
struct Knot {
    program: PathBuf,
    folder: Folder,
    port: u16,
    server: Option<Server>,
}

impl Knot {
    fn start(program: &Path) -> Self {
        let mut knot = Self {
            program: program.to_owned(),
            folder: Folder::new(),
            port: free_port(),
            server: None,
        };
        knot.start_again();
        knot
    }

    fn start_again(&mut self) {
        let folder = self.folder.path();
        let config = format!(
            "server:\n  listen: 127.0.0.1@{port}\n  rundir: {at}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\nlog:\n- target: stderr\n  any: warning\ndatabase:\n  storage: {at}/db\n\
             zone:\n- domain: example.test\n  file: {at}/zone\n  zonefile-sync: -1\n",
            port = self.port,
            at = folder.display(),
        );
        fs::write(folder.join("zone"), ZONE).unwrap();
        let file = folder.join("knot.conf");
        fs::write(&file, config).unwrap();
        let mut command = mortal(&self.program);
        command.arg("-c").arg(&file);
        self.server = Some(Server::start_on(folder, self.port, &mut command));
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }
}

fn launch(backends: &[&Knot]) -> Ringway {
    let backends: Vec<String> = backends
        .iter()
        .map(|knot| format!("\"127.0.0.1:{}\"", knot.port))
        .collect();
    Launch::config(format!(
        "listeners: [{{name: in, bind: \"127.0.0.1:0\", protocol: udp, pool: p}}]\n\
         pools:\n  p:\n    backends: [{}]\n    balance: round_robin\n    slow_start: none\n    \
         udp: {{responses: 1}}\n    \
         probe: {{type: dns, interval: 200ms, fast_interval: 50ms, down_interval: 100ms, timeout: 200ms, \
         dns: {{name: www.example.test, type: A, rcodes: NOERROR}}}}\n",
        backends.join(", ")
    ))
    .start()
}

/// Queries sent, and those without an answer.
fn dnsperf(program: &Path, ringway: &Ringway, seconds: u32) -> (u64, u64) {
    let folder = Folder::new();
    let queries = folder.path().join("queries");
    fs::write(
        &queries,
        "www.example.test A\nns.example.test A\nexample.test SOA\n",
    )
    .unwrap();
    let mut command = Command::new(program);
    command
        .args([
            "-s",
            "127.0.0.1",
            "-p",
            &ringway.address().port().to_string(),
        ])
        .args(["-l", &seconds.to_string(), "-Q", &MODERATE.to_string()])
        .args(["-c", "20", "-t", "2", "-d"])
        .arg(&queries);
    let said = program::run(&mut command, Duration::from_secs(60));
    let count = |what: &str| {
        let line = said.lines().find(|line| line.trim().starts_with(what));
        let line = line.unwrap_or_else(|| panic!("no `{what}` in {said}"));
        line.split_whitespace()
            .nth(2)
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{line}"))
    };
    (count("Queries sent:"), count("Queries lost:"))
}

#[test]
fn no_query_is_lost_at_moderate_load() {
    let Some([knotd, dnsperf_program]) = program::find(["knotd", "dnsperf"]) else {
        return;
    };
    let (one, two) = (Knot::start(&knotd), Knot::start(&knotd));
    let ringway = launch(&[&one, &two]);
    let (sent, lost) = dnsperf(&dnsperf_program, &ringway, 4);
    assert!(sent > 1_000, "{sent} queries");
    assert_eq!(lost, 0);
    let counters = ringway.counters_become("flows end with their answers", |counters| {
        number(counters, "flows_active") == 0
    });
    for backend in counters["backends"].as_array().unwrap() {
        assert!(number(backend, "flows_total") > sent / 3, "{backend}");
    }
    assert_eq!(number(&ringway.stop(), "lines_used"), 0);
}

#[test]
fn a_name_server_that_dies_takes_only_queries_along_that_were_on_their_way_to_it() {
    let Some([knotd, dnsperf_program]) = program::find(["knotd", "dnsperf"]) else {
        return;
    };
    let (mut one, two) = (Knot::start(&knotd), Knot::start(&knotd));
    let ringway = launch(&[&one, &two]);
    let answered = |ringway: &Ringway| {
        let status = ringway.status();
        number(&status["listeners"][0]["datagrams"], "datagrams_sent")
    };
    let (sent, lost) = thread::scope(|scope| {
        let load = scope.spawn(|| dnsperf(&dnsperf_program, &ringway, 7));
        eventually(SOON, "the load runs", || answered(&ringway) > 500);
        one.kill();
        ringway.wait_line("backend down");
        let at = answered(&ringway);
        eventually(SOON, "the other one answers", || {
            answered(&ringway) > at + 500
        });
        one.start_again();
        eventually(SOON, "it is up again", || {
            ringway.log().matches("backend up").count() > 0
        });
        let at = answered(&ringway);
        eventually(SOON, "both answer", || answered(&ringway) > at + 500);
        join_scoped(load)
    });
    let counters = ringway.counters();
    let unanswered = |backend: &serde_json::Value| {
        number(backend, "datagrams_sent") - number(backend, "datagrams_received")
    };
    let of_each = [0, 1].map(|place| unanswered(&counters["backends"][place]));
    println!("{sent} queries, {lost} lost; unanswered by each backend: {of_each:?}");
    assert!(sent > 5_000, "{sent} queries");
    assert_eq!(of_each, [lost, 0], "of the dead one, and of the other");
    assert!(lost <= 100, "{lost} lost");
    drop(two);
    assert_eq!(number(&ringway.stop(), "lines_used"), 0);
}

fn join_scoped<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    match handle.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
