//! SIP calls through Ringway, made and taken by sipp: each call is several requests and answers on one flow.

use std::path::Path;
use std::time::Duration;

use super::program::{self, Server, mortal};
use crate::harness::{Folder, free_port, number};
use crate::udp;

const CALLS: u64 = 300;

/// Takes calls.
fn taker(sipp: &Path, folder: &Folder) -> Server {
    let port = free_port();
    let mut command = mortal(sipp);
    command
        .args(["-sn", "uas", "-i", "127.0.0.1", "-nostdin"])
        .args(["-max_socket", "1000"])
        .args(["-p", &port.to_string()])
        .current_dir(folder.path());
    Server::start_for_datagrams(folder.path(), port, &mut command)
}

#[test]
fn every_call_is_made_and_stays_with_its_backend() {
    let Some([sipp]) = program::find(["sipp"]) else {
        return;
    };
    let folders = [Folder::new(), Folder::new()];
    let takers = folders.each_ref().map(|folder| taker(&sipp, folder));
    let pool = udp::backends_at(takers.each_ref().map(Server::address));
    let ringway = udp::launch(&(pool + ", balance: round_robin"));
    let folder = Folder::new();
    let mut calls = mortal(&sipp);
    // A socket for each call.
    calls
        .args(["-sn", "uac", "-i", "127.0.0.1", "-t", "un", "-nostdin"])
        .args(["-m", &CALLS.to_string(), "-r", "100", "-d", "200"])
        .args(["-timeout", "30s", "-timeout_error"])
        .args(["-max_socket", "1000"])
        .arg(ringway.address().to_string())
        .current_dir(folder.path());
    // It ends with 0 only if every call was successful.
    program::run(&mut calls, Duration::from_secs(60));
    let counters = ringway.counters();
    assert!(number(&counters, "flows_total") >= CALLS / 4, "{counters}");
    for backend in counters["backends"].as_array().unwrap() {
        assert!(number(backend, "datagrams_received") > CALLS, "{backend}");
    }
    assert_eq!(
        counters["listeners"][0]["datagrams_lost"],
        serde_json::json!({})
    );
    udp::finish(ringway);
}
