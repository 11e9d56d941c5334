//! The access log: what its lines add up to is what is counted, and nobody waits for whoever reads it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::datagram::{self, Responder};
use crate::harness::{Folder, Launch, SOON, eventually, number, refusing_address, stream};
use crate::servers::program;

/// The fields of each line, and its first word as `event`.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(fields).collect()
}

fn fields(line: &str) -> Value {
    let mut words = line.split(' ');
    let (time, event) = (words.next().unwrap(), words.next().unwrap());
    let mut fields = serde_json::json!({"time": time, "event": event});
    for word in words {
        let (key, value) = word
            .split_once('=')
            .unwrap_or_else(|| panic!("{word}: {line}"));
        fields[key] = match (value, value.parse::<u64>()) {
            ("-", _) => Value::Null,
            (_, Ok(number)) => number.into(),
            (text, Err(_)) => text.into(),
        };
    }
    fields
}

fn sum(lines: &[Value], key: &str) -> u64 {
    let values = lines.iter().map(|line| &line[key]);
    values
        .map(|value| value.as_u64().unwrap_or_else(|| panic!("{key}: {value}")))
        .sum()
}

/// How often each word is there.
fn words(lines: &[Value], key: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts
            .entry(line[key].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    counts
}

fn reasons(ends: &Value) -> BTreeMap<String, u64> {
    let ends = ends.as_object().unwrap().iter();
    ends.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap()))
        .collect()
}

#[test]
fn sessions_bytes_flows_retries_and_reasons_are_those_of_the_counters() {
    let (backend, responder, folder) = (Backend::echo(), Responder::echo(), Folder::new());
    let (file, old) = (
        folder.path().join("access.log"),
        folder.path().join("old.log"),
    );
    let ringway = Launch::config(format!(
        "global: {{workers: 2, drain_timeout: 1s}}\n\
         log: {{access: \"{}\"}}\n\
         listeners:\n\
         - {{name: in, bind: \"127.0.0.1:0\", pool: p}}\n\
         - {{name: names, bind: \"127.0.0.1:0\", pool: u, protocol: udp}}\n\
         pools:\n\
         \x20 p: {{probe: none, balance: round_robin, passive: {{failures: none}}, \
         backends: [{{name: good, address: \"{}\"}}, {{name: bad, address: \"{}\"}}]}}\n\
         \x20 u: {{probe: none, backends: [{{name: r, address: \"{}\"}}], udp: {{responses: 1, requests: 1}}}}\n",
        file.display(),
        backend.address(),
        refusing_address(),
        responder.address(),
    ));
    let mut ringway = ringway.start();
    let (address, names) = (ringway.address_of("in"), ringway.address_of("names"));
    let mut kept = Vec::new();
    for client in 0..60_usize {
        let mut stream = stream::connect(address);
        for round in 1..=3 {
            stream::exchange(&mut stream, &vec![b'x'; round * 700 + client]);
        }
        // Large enough for splice.
        if client % 20 == 0 {
            let large = vec![b'y'; 3 << 20];
            let mut writer = stream.try_clone().unwrap();
            let sent = large.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            let mut back = vec![0; large.len()];
            stream.read_exact(&mut back).unwrap();
            writing.join().unwrap();
            assert!(back == large);
        }
        match client % 4 {
            0 => stream.shutdown(Shutdown::Write).unwrap(),
            1 => socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap(),
            2 if client % 3 == 0 => kept.push(stream),
            _ => {}
        }
        if client == 30 {
            // The file is begun anew once somebody has renamed it.
            eventually(SOON, "there are lines", || file.exists());
            std::fs::rename(&file, &old).unwrap();
            std::thread::sleep(Duration::from_millis(1100));
        }
        let socket = datagram::client(names);
        for _ in 0..=client % 3 {
            socket.send(b"who is it").unwrap();
            assert_eq!(socket.recv(&mut [0; 100]).unwrap(), 9);
        }
    }
    drop(kept.split_off(kept.len() / 2));
    ringway.signal(nix::sys::signal::Signal::SIGTERM);
    let counters = ringway.exit_in_order(SOON);
    let (first, second) = (lines(&old), lines(&file));
    assert!(!first.is_empty() && !second.is_empty());
    let all: Vec<Value> = [first, second].concat();
    let of = |event: &str| -> Vec<Value> {
        let wanted = all.iter().filter(|line| line["event"] == event);
        wanted.cloned().collect()
    };
    let (sessions, flows) = (of("session"), of("flow"));
    assert_eq!(sessions.len() + flows.len(), all.len());
    assert_eq!(sessions.len(), 60);
    assert_eq!(number(&counters, "sessions_total"), 60);
    assert_eq!(words(&sessions, "reason"), reasons(&counters["ends"]));
    for direction in ["bytes_to_backend", "bytes_to_client"] {
        assert_eq!(sum(&sessions, direction), number(&counters, direction));
    }
    let retries = number(&counters, "connect_retries_total");
    assert!(retries > 0, "half of them try the other one first");
    assert_eq!(sum(&sessions, "retries"), retries);
    for session in &sessions {
        assert_eq!(session["listener"], "in");
        assert_eq!(session["pool"], "p");
        assert_eq!(session["backend"], "good");
        assert!(
            session["client"]
                .as_str()
                .unwrap()
                .starts_with("127.0.0.1:")
        );
        for measured in [
            "connect_us",
            "first_byte_us",
            "client_rtt_us",
            "backend_rtt_us",
        ] {
            assert!(
                session[measured].as_u64() > Some(0),
                "{measured}: {session}"
            );
        }
        assert!(session["backend_retransmits"].is_u64(), "{session}");
        assert!(session["duration_us"].as_u64() >= session["connect_us"].as_u64());
    }
    let udp = &counters["listeners"][0];
    assert_eq!(udp["name"], "names");
    assert_eq!(words(&flows, "reason"), reasons(&udp["flow_ends"]));
    for (key, counted) in [
        ("datagrams_to_backend", "datagrams_received"),
        ("bytes_to_backend", "bytes_received"),
        ("datagrams_to_client", "datagrams_sent"),
        ("bytes_to_client", "bytes_sent"),
    ] {
        assert_eq!(sum(&flows, key), udp[counted].as_u64().unwrap(), "{key}");
    }
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "not for everybody: {mode:o}");
}

#[test]
fn a_reader_that_reads_nothing_stops_nothing_and_what_it_does_not_get_is_counted() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let pipe = folder.path().join("pipe");
    program::run(Command::new("mkfifo").arg(&pipe), SOON);
    let mut reader = OpenOptions::new();
    let reader = reader
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let ringway = Launch::config(format!(
        "global: {{workers: 1}}\n\
         log: {{access: \"{}\"}}\n\
         listeners:\n\
         - {{name: in, bind: \"127.0.0.1:0\", pool: p}}\n\
         - {{name: full, bind: \"127.0.0.1:0\", pool: empty, when_empty: reset}}\n\
         pools:\n\
         \x20 p: {{probe: none, backends: [\"{}\"]}}\n\
         \x20 empty: {{probe: none, backends: [{{name: b, address: \"{}\", state: drain}}]}}\n",
        pipe.display(),
        backend.address(),
        backend.address(),
    ));
    let ringway = ringway.start();
    let full = ringway.address_of("full");
    let mut kept = ringway.connect();
    let lost = || ringway.status()["access_lines_lost"].as_u64().unwrap();
    let mut connected = 0;
    while lost() == 0 {
        assert!(connected < 50_000, "nothing is lost of {connected}");
        for _ in 0..500 {
            let _ = stream::connect_to_end(full);
        }
        connected += 500;
    }
    println!("lines are lost after {connected} sessions");
    stream::exchange(&mut kept, b"nobody waits");
    let metrics = ringway.get("/metrics").body;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("ringway_access_lines_lost_total "));
    let value: f64 = line.unwrap().split_once(' ').unwrap().1.parse().unwrap();
    assert!(value > 0.0);
    let (_, shown, _) = ringway.command(&["status"]);
    assert!(shown.contains("access log: "), "{shown}");
    drop(kept);
    let ended = number(&ringway.stop(), "ends.no_backend");
    assert_eq!(ended, connected);
    drop(reader);
}

#[test]
fn lines_on_standard_output_are_among_the_others() {
    let backend = Backend::echo();
    let ringway = Launch::config(format!(
        "log: {{access: stdout}}\n\
         listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: [\"{}\"]}}\n",
        backend.address()
    ));
    let ringway = ringway.start();
    stream::exchange(&mut ringway.connect(), b"hello");
    let line = ringway.wait_line(" session listener=in client=127.0.0.1:");
    assert!(line.contains(" reason=client_closed "), "{line}");
    assert!(
        line.contains(" bytes_to_backend=5 bytes_to_client=5 "),
        "{line}"
    );
    ringway.finish();
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_counted_and_all_else_goes_on() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let ringway = Launch::config(format!(
        "log: {{access: \"{}\"}}\n\
         listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: [\"{}\"]}}\n",
        folder.path().join("missing/access.log").display(),
        backend.address()
    ));
    let ringway = ringway.start();
    stream::exchange(&mut ringway.connect(), b"hello");
    let line = ringway.wait_line("log.access: lines are lost");
    assert!(line.contains("missing/access.log"), "{line}");
    assert_eq!(ringway.status()["access_lines_lost"], 1);
    ringway.finish();
}
