//! Redis under redis-benchmark: many small requests, pipelined or not, and values large enough to be spliced.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::program::{Server, find, mortal, run};
use super::watch::Watch;
use crate::harness::{Folder, Launch, Tier, number, stream};

/// Requests, connections, commands sent at once, bytes of a value. Connections times commands divide the requests.
const ROUNDS: &[(u64, u64, u64, u64)] = &[
    (40_000, 50, 1, 3),
    (160_000, 50, 16, 64),
    (8_000, 20, 1, 4_096),
    (1_600, 10, 4, 262_144),
];

both_tiers! {
    every_redis_command_is_answered_once,
}

fn every_redis_command_is_answered_once(tier: Tier) {
    let Some([redis_server, redis_benchmark]) = find(["redis-server", "redis-benchmark"]) else {
        return;
    };
    let folders = [Folder::new(), Folder::new()];
    let servers = folders
        .each_ref()
        .map(|folder| start(&redis_server, folder.path()));
    let ringway = Launch::to(servers.each_ref().map(Server::address))
        .tier(tier)
        .start();
    let watch = Watch::on(&ringway);
    for &(requests, connections, pipeline, size) in ROUNDS {
        let before: u64 = servers
            .iter()
            .map(|server| commands(server, "set") + commands(server, "get"))
            .sum();
        benchmark(
            &redis_benchmark,
            ringway.address().port(),
            [requests, connections, pipeline, size],
        );
        let after: u64 = servers
            .iter()
            .map(|server| commands(server, "set") + commands(server, "get"))
            .sum();
        assert_eq!(
            after - before,
            2 * requests,
            "commands that arrived, values of {size} bytes"
        );
    }
    watch.saw_no_kernel_worker();
    let counters = ringway.finish();
    for backend in counters["backends"].as_array().expect("a list of backends") {
        assert!(
            number(backend, "sessions_total") > 0,
            "a backend got nothing: {backend}"
        );
    }
    let values: u64 = ROUNDS
        .iter()
        .map(|(requests, _, _, size)| requests * size)
        .sum();
    assert!(
        number(&counters, "bytes_to_backend") > values
            && number(&counters, "bytes_to_client") > values
    );
}

/// SETs and then GETs; the program says nothing of errors but by its exit code and its words.
fn benchmark(program: &Path, port: u16, [requests, connections, pipeline, size]: [u64; 4]) {
    let mut command = Command::new(program);
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-t",
        "set,get",
        "--csv",
    ]);
    for (option, value) in [
        ("-n", requests),
        ("-c", connections),
        ("-P", pipeline),
        ("-d", size),
    ] {
        command.args([option, &value.to_string()]);
    }
    let output = run(&mut command, Duration::from_secs(60));
    let rate = |test: &str| {
        let row = output
            .lines()
            .find(|line| line.starts_with(&format!("\"{test}\"")));
        let rate = row
            .and_then(|row| row.split('"').nth(3))
            .and_then(|rate| rate.parse::<f64>().ok());
        rate.unwrap_or_else(|| panic!("no result for {test}:\n{output}"))
    };
    assert!(rate("SET") > 0.0 && rate("GET") > 0.0, "{output}");
}

pub fn start(redis_server: &Path, folder: &Path) -> Server {
    Server::start(folder, |port| command(redis_server, folder, port))
}

/// Redis on a port of 127.0.0.1, keeping nothing.
pub fn command(redis_server: &Path, folder: &Path, port: u16) -> Command {
    let mut command = mortal(redis_server);
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
    ]);
    command
        .args(["--port", &port.to_string(), "--dir"])
        .arg(folder);
    command
}

/// How often a server has run a command, asked without the balancer.
fn commands(server: &Server, name: &str) -> u64 {
    let mut stream = stream::connect(server.address());
    stream
        .write_all(b"INFO commandstats\r\nQUIT\r\n")
        .expect("the server reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the server answers");
    let Some(line) = answer
        .lines()
        .find(|line| line.starts_with(&format!("cmdstat_{name}:")))
    else {
        return 0;
    };
    let calls = line
        .split(['=', ','])
        .nth(1)
        .and_then(|calls| calls.parse().ok());
    calls.unwrap_or_else(|| panic!("no number of calls in {line}"))
}
