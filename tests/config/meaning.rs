//! What the values of a file mean together, where nothing is wrong with them.

use std::time::Duration;

use ringway::config::{self, Config};

use super::{HOST, said};

/// A configuration about which there is nothing to say.
fn fine(text: &str) -> Config {
    let loaded = config::parse(text, "file.yaml", HOST);
    assert_eq!(loaded.report.counts(), (0, 0), "{text}\n{}", said(&loaded));
    loaded.config.unwrap()
}

#[test]
fn the_fast_interval_is_never_longer_than_the_interval_unless_written_so() {
    for (probe, millis) in [
        ("{}", 500),
        ("{interval: 20s}", 500),
        ("{interval: 200ms, timeout: 100ms}", 200),
        (
            "{interval: 200ms, timeout: 100ms, fast_interval: auto}",
            200,
        ),
        ("{interval: 200ms, timeout: 100ms, fast_interval: 50ms}", 50),
        ("{fast_interval: 2s}", 2_000),
    ] {
        let config = fine(&format!(
            "listeners: {{bind: \"*:1\", pool: p}}\npools: {{p: {{backends: [\"10.0.0.1:1\"], probe: {probe}}}}}\n"
        ));
        let fast = config.snapshot.pools[0].probe.fast_interval;
        assert_eq!(fast, Duration::from_millis(millis), "{probe}");
    }
}

#[test]
fn the_timeout_of_a_probe_is_never_longer_than_the_interval() {
    for (probe, millis) in [
        ("{}", 1_000),
        ("{interval: 20s}", 1_000),
        ("{interval: 500ms}", 500),
        ("{interval: 500ms, timeout: auto}", 500),
        ("{interval: 500ms, timeout: 200ms}", 200),
        ("{interval: 3s, timeout: 2s}", 2_000),
    ] {
        let config = fine(&format!(
            "listeners: {{bind: \"*:1\", pool: p}}\npools: {{p: {{backends: [\"10.0.0.1:1\"], probe: {probe}}}}}\n"
        ));
        let timeout = config.snapshot.pools[0].probe.timeout;
        assert_eq!(timeout, Duration::from_millis(millis), "{probe}");
    }
}

#[test]
fn listeners_may_lead_to_each_other_in_layers() {
    fine(
        "listeners:\n\
         - {name: outer, bind: 127.0.0.1:1, split: [{pool: a}, {pool: b}]}\n\
         - {name: inner, bind: \"*:2\", pool: c}\n\
         - {name: innermost, bind: unix:/run/x.sock, pool: d}\n\
         pools:\n  \
           a: [127.0.0.1:2, unix:/run/x.sock]\n  \
           b: [127.0.0.1:2, 10.0.0.11:1]\n  \
           c: [unix:/run/y/../x.sock, 10.0.0.12:1]\n  \
           d: [10.0.0.13:1]\n",
    );
}

#[test]
fn what_the_kernel_counts_may_be_as_long_as_the_kernel_counts() {
    let config = fine(
        "listeners: {bind: \"*:1\", pool: p}\n\
         pools: {p: {backends: [\"10.0.0.1:1\"], \
         keepalive: {idle: 1.0s, interval: 1s, count: 127, user_timeout: 24d}}}\n",
    );
    let keepalive = config.snapshot.pools[0].keepalive;
    let user_timeout = keepalive.user_timeout.unwrap();
    assert!(i32::try_from(user_timeout.as_millis()).is_ok());
    assert_eq!(keepalive.idle, Duration::from_secs(1));
}

#[test]
fn the_widest_circle_and_the_longest_chain_are_walked() {
    const FIRST: usize = 10_000;
    const LISTENERS: usize = 5_000;
    let file = |last: usize| {
        let mut listeners = String::from("listeners:\n");
        let mut pools = String::from("pools:\n");
        for number in 0..LISTENERS {
            let port = FIRST + number;
            let next = if number == LISTENERS - 1 {
                last
            } else {
                port + 1
            };
            listeners.push_str(&format!("- {{bind: 127.0.0.1:{port}, pool: p{number}}}\n"));
            pools.push_str(&format!("  p{number}: [127.0.0.1:{next}]\n"));
        }
        listeners + &pools
    };
    fine(&file(FIRST + LISTENERS));
    let loaded = config::parse(&file(FIRST), "file.yaml", HOST);
    assert_eq!(loaded.report.counts(), (1, 0));
    assert!(said(&loaded).contains("round in circles"));
}
