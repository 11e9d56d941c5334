//! iperf3 in both directions: bulk, and a control connection that has to stay usable beside it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::program::{Server, find, mortal, run};
use super::watch::Watch;
use crate::harness::{Folder, Launch, Tier, assert_no_leaks, number};

/// What the control connections say at most, both ways.
const CONTROL_BYTES: u64 = 256 * 1024;

both_tiers! {
    bulk_bytes_of_iperf3_are_those_of_the_counters,
}

fn bulk_bytes_of_iperf3_are_those_of_the_counters(tier: Tier) {
    let Some([iperf3]) = find(["iperf3"]) else {
        return;
    };
    let folder = Folder::new();
    let server = Server::start(folder.path(), |port| {
        let mut command = mortal(&iperf3);
        command.args([
            "--server",
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command
    });
    let ringway = Launch::to([server.address()]).tier(tier).start();
    let watch = Watch::on(&ringway);
    let mut before = ringway.counters();
    for (direction, options) in [
        ("bytes_to_backend", ["--parallel", "1"].as_slice()),
        ("bytes_to_client", &["--parallel", "1", "--reverse"]),
        ("bytes_to_backend", &["--parallel", "4"]),
        ("bytes_to_client", &["--parallel", "4", "--reverse"]),
    ] {
        let (sent, received) = measure(&iperf3, ringway.address().port(), options);
        assert_no_leaks(&ringway);
        let after = ringway.counters();
        let relayed = number(&after, direction) - number(&before, direction);
        // The sender counts what the kernel took from it, of which some is still under way when the time is up.
        assert!(
            received > 0 && received <= relayed && relayed <= sent + CONTROL_BYTES,
            "{options:?}: sent {sent}, relayed {relayed}, received {received}"
        );
        before = after;
    }
    watch.saw_no_kernel_worker();
    ringway.finish();
}

/// Bytes sent and received over all streams.
fn measure(iperf3: &Path, port: u16, options: &[&str]) -> (u64, u64) {
    let mut command = Command::new(iperf3);
    command
        .args([
            "--client",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--time",
            "2",
            "--json",
        ])
        .args(options);
    let output = run(&mut command, Duration::from_secs(30));
    let report: Value = serde_json::from_str(&output).expect("iperf3 reports in JSON");
    let bytes = |sum: &str| {
        report["end"][sum]["bytes"]
            .as_u64()
            .unwrap_or_else(|| panic!("no {sum}:\n{output}"))
    };
    (bytes("sum_sent"), bytes("sum_received"))
}
