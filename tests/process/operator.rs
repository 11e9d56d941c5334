//! What an operator does who knows only the README: see why a backend is down, drain another one, watch its sessions
//! go, take it out of the file, and have all of that in the figures that alerts are made from.

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::{Launch, Ringway, SOON, eventually, free_address, stream};

/// What a command prints, which has to succeed.
#[track_caller]
fn said(ringway: &Ringway, arguments: &[&str]) -> String {
    let (code, out, wrong) = ringway.command(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {wrong}");
    out
}

/// The value of a backend's series that alerts ask for; none if there is no such series.
fn series(ringway: &Ringway, name: &str, backend: &str) -> Option<String> {
    let metrics = ringway.get("/metrics").body;
    let head = format!("{name}{{pool=\"pg\",backend=\"{backend}\"}} ");
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(&head).map(str::to_owned))
}

#[test]
fn a_backend_that_is_down_is_explained_and_one_that_is_drained_leaves_the_file() {
    let (first, second, third) = (Backend::echo(), Backend::echo(), Backend::echo());
    let address = free_address();
    let backends = |names: &[(&str, &str)]| {
        let all = names
            .iter()
            .map(|(name, address)| format!("      - {{name: {name}, address: \"{address}\"}}\n"));
        format!(
            "listeners: [{{name: postgres, bind: \"{address}\", pool: pg}}]\n\
             pools:\n  pg:\n    balance: round_robin\n    slow_start: none\n    \
             probe: {{type: tcp, interval: 100ms, fast_interval: 50ms}}\n    backends:\n{}",
            all.collect::<String>()
        )
    };
    let [one, two, three] = [&first, &second, &third].map(|backend| backend.address().to_string());
    let all = [("pg1", &*one), ("pg2", &*two), ("pg3", &*three)];
    let ringway = Launch::config(backends(&all)).start();

    // Why is it down, and does somebody hear of it?
    drop(third);
    eventually(SOON, "it is told with the reason", || {
        said(&ringway, &["status"])
            .contains("  pg3: 3 probes in a row failed: connect: connection refused")
    });
    assert_eq!(
        series(&ringway, "ringway_backend_up", "pg3").as_deref(),
        Some("0")
    );
    let explained = said(
        &ringway,
        &[
            "explain",
            "--listener",
            "postgres",
            "--source",
            "10.0.0.7:40000",
        ],
    );
    assert!(
        explained.contains("pg3  weight 1, 0 sessions: left out, it is down"),
        "{explained}"
    );

    // Drain one, and watch; no sessions on what is not there would be a false comfort.
    let (code, _, wrong) = ringway.command(&["sessions", "--backend", "pg22"]);
    assert_eq!(code, Some(1));
    assert!(
        wrong.contains("no backend called `pg22`, did you mean `pg2`"),
        "{wrong}"
    );
    let mut clients = [ringway.connect(), ringway.connect()];
    clients
        .iter_mut()
        .for_each(|client| stream::exchange(client, b"hello"));
    said(&ringway, &["backend", "pg/pg2", "drain"]);
    let left = || said(&ringway, &["sessions", "--backend", "pg2"]);
    assert!(left().ends_with("\n1 session\n"), "{}", left());
    let answer: Value = serde_json::from_str(&said(&ringway, &["sessions", "--json"])).unwrap();
    let of_pg2 = |session: &&Value| session["backend"] == "pg2";
    let client = answer["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .find(of_pg2)
        .unwrap();
    let client = client["client"].as_str().unwrap();
    let (going, mut staying): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .partition(|one| one.local_addr().unwrap().to_string() == client);
    drop(going);
    eventually(SOON, "its sessions are gone", || left() == "0 sessions\n");
    stream::exchange(&mut staying[0], b"still here");

    // Take it out of the file.
    std::fs::write(
        ringway.folder().join("ringway.yaml"),
        backends(&[all[0], all[2]]),
    )
    .unwrap();
    let dry = said(&ringway, &["reload", "--dry-run"]);
    assert_eq!(
        dry,
        "backend pg/pg2 removed\nnothing was changed: a dry run\n"
    );
    let done = said(&ringway, &["reload"]);
    assert!(
        done.starts_with("backend pg/pg2 removed\nreloaded: "),
        "{done}"
    );
    assert!(!said(&ringway, &["status"]).contains("pg2"));
    assert_eq!(series(&ringway, "ringway_backend_up", "pg2"), None);
    assert_eq!(
        series(&ringway, "ringway_backend_up", "pg1").as_deref(),
        Some("1")
    );
    stream::exchange(&mut staying[0], b"still here");
    drop(staying);
    ringway.stop();
}
