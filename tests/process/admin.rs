//! The admin socket: status, what the operator changes, names of backends, and requests that make no sense.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::namespace::Namespace;
use crate::harness::stream;
use crate::harness::{Launch, Ringway, SOON, assert_ends, eventually, one_pool, skip};

/// A backend's status.
#[track_caller]
fn backend(status: &Value, name: &str) -> Value {
    let pools = status["pools"].as_array().unwrap();
    let mut all = pools
        .iter()
        .flat_map(|pool| pool["backends"].as_array().unwrap());
    all.find(|backend| backend["name"] == name)
        .unwrap_or_else(|| panic!("no backend {name} in {status}"))
        .clone()
}

#[track_caller]
fn operate(ringway: &Ringway, arguments: &[&str]) -> String {
    let (code, out, said) = ringway.command(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    out
}

fn two_backends(first: &Backend, second: &Backend) -> Ringway {
    let pool = format!(
        "balance: round_robin, slow_start: none, \
         backends: [{{name: one, address: \"{}\"}}, {{name: two, address: \"{}\"}}]",
        first.address(),
        second.address()
    );
    Launch::config(one_pool("workers: 2", &pool)).start()
}

#[test]
fn status_shows_listeners_pools_and_sessions() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = two_backends(&first, &second);
    let mut clients: Vec<TcpStream> = (0..4).map(|_| ringway.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| stream::exchange(client, b"hello"));
    let status = ringway.status();
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["sessions_active"], 4);
    assert_eq!(
        status["listeners"][0]["addresses"],
        json!([ringway.address().to_string()])
    );
    assert_eq!(
        status["listeners"][0]["pools"],
        json!([{"pool": "p", "weight": 1}])
    );
    let active: u64 = ["one", "two"]
        .iter()
        .map(|name| backend(&status, name)["sessions_active"].as_u64().unwrap())
        .sum();
    assert_eq!(active, 4);
    let one = backend(&status, "one");
    assert_eq!(one["address"], first.address().to_string());
    assert_eq!(
        (&one["health"]["state"], &one["state"], &one["state_by"]),
        (&json!("up"), &json!("ready"), &json!("file"))
    );

    let (_, text, _) = ringway.command(&["status"]);
    for part in [
        "serving",
        "4 of",
        "listener in",
        "pool p",
        "2 of 2 backends",
        "one",
        "two",
        "ready",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "colours without a terminal: {text:?}"
    );
}

#[test]
fn drained_backend_keeps_its_sessions_and_gets_no_new_ones() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = two_backends(&first, &second);
    let mut before: Vec<TcpStream> = (0..8).map(|_| ringway.connect()).collect();
    before
        .iter_mut()
        .for_each(|client| stream::exchange(client, b"before"));
    let said = operate(&ringway, &["backend", "p/one", "drain"]);
    assert!(said.contains("p/one: drain"), "{said}");
    let kept = backend(&ringway.status(), "one")["sessions_active"].clone();
    assert_ne!(kept, 0, "it has sessions to keep");

    for change in [&["drain"][..], &["maintenance"], &["weight", "0"]] {
        let mut arguments = vec!["backend", "p/one"];
        arguments.extend(change);
        operate(&ringway, &["backend", "p/one", "ready"]);
        operate(&ringway, &["backend", "p/one", "weight", "1"]);
        operate(&ringway, &arguments);
        let total = backend(&ringway.status(), "one")["sessions_total"].clone();
        for _ in 0..8 {
            stream::exchange(&mut ringway.connect(), b"new");
        }
        let status = backend(&ringway.status(), "one");
        assert_eq!(
            status["sessions_total"], total,
            "after {change:?}: {status}"
        );
        assert_eq!(status["takes_sessions"], false);
        assert!(status["why_not"].is_string(), "{status}");
    }
    before
        .iter_mut()
        .for_each(|client| stream::exchange(client, b"still"));

    operate(&ringway, &["backend", "p/one", "ready"]);
    operate(&ringway, &["backend", "p/one", "weight", "1"]);
    let total = backend(&ringway.status(), "one")["sessions_total"]
        .as_u64()
        .unwrap();
    for _ in 0..8 {
        stream::exchange(&mut ringway.connect(), b"again");
    }
    let status = backend(&ringway.status(), "one");
    assert!(
        status["sessions_total"].as_u64().unwrap() > total,
        "{status}"
    );
    assert_eq!(status["state_by"], "operator");
}

#[test]
fn with_no_backend_in_use_clients_are_refused_until_one_is() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = two_backends(&first, &second);
    operate(&ringway, &["backend", "p/one", "maintenance"]);
    operate(&ringway, &["backend", "p/two", "maintenance"]);
    stream::assert_refused(ringway.address());
    operate(&ringway, &["backend", "p/two", "ready"]);
    stream::exchange(&mut ringway.connect(), b"hello");
    assert_ends(&ringway.finish(), &[("client_closed", 1)]);
}

#[test]
fn names_that_do_not_exist_are_answered_with_those_that_do() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = two_backends(&first, &second);
    for (arguments, code, parts) in [
        (
            &["backend", "q/one", "drain"][..],
            1,
            &["no pool called `q`", "There is: p"][..],
        ),
        (
            &["backend", "p/on", "drain"],
            1,
            &["`on`", "did you mean `one`", "one, two"],
        ),
        (&["backend", "one", "drain"], 64, &["POOL/NAME"]),
        (&["backend", "p/one", "dran"], 64, &["'drain'"]),
        (&["backend", "p/one", "weight", "257"], 64, &["257"]),
    ] {
        let (exit, _, said) = ringway.command(arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {said}");
        for part in parts {
            assert!(
                said.contains(part),
                "{arguments:?}: {part} is missing in {said}"
            );
        }
    }
}

#[test]
fn without_a_running_process_it_says_so() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let nowhere = ringway.folder().join("nowhere.sock");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["status", "--socket"])
        .arg(&nowhere)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69));
    for part in ["nothing answers", "nowhere.sock", "ringway run", "--socket"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn second_process_with_the_same_socket_runs_without_one() {
    let echoing = Backend::echo();
    let first = Launch::to([echoing.address()]).start();
    let socket = first.admin_socket();
    let config = format!(
        "admin: {{socket: \"{}\"}}\nlisteners: [{{bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
        socket.display(),
        echoing.address()
    );
    let folder = first.folder().join("second.yaml");
    std::fs::write(&folder, config).unwrap();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
        .arg("run")
        .arg("-c")
        .arg(&folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut out = std::io::BufReader::new(second.stdout.take().unwrap());
    while !said.contains(" ready ") {
        assert_ne!(
            std::io::BufRead::read_line(&mut out, &mut said).unwrap(),
            0,
            "{said}"
        );
    }
    assert!(said.contains("another process has it"), "{said}");
    assert_eq!(first.status()["pid"], first.pid());
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn socket_left_over_from_a_crash_is_replaced_and_removed_at_the_end() {
    let backend = Backend::echo();
    let first = Launch::to([backend.address()]).start();
    let socket = first.folder().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut second =
        Launch::to([backend.address()]).arguments(["--socket", socket.to_str().unwrap()]);
    second = second.without_own_socket();
    let second = second.start();
    assert_eq!(
        raw(
            &socket,
            b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .0,
        200
    );
    second.finish();
    assert!(!socket.exists());
}

/// Sends bytes and reads the answer's status and body.
fn raw(socket: &std::path::Path, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    // What it does not want to read it answers with a reset, after its words.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no status: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn requests_that_make_no_sense_are_answered_with_what_would() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let socket = ringway.admin_socket();
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let name = format!("/v1/backends/default/{}", backend.address());
    for (request, status, part) in [
        (get("/"), 404, "/v1/status"),
        (post("/v1/status", ""), 405, "GET /v1/status"),
        (get(&name), 405, "POST"),
        (post(&name, ""), 400, "no change"),
        (post(&name, "{}"), 400, "nothing to change"),
        (post(&name, r#"{"state": "up"}"#), 400, "maintenance"),
        (post(&name, r#"{"weight": 257}"#), 400, "0 to 256"),
        (post(&name, r#"{"weigth": 2}"#), 400, "weight"),
        (post(&name, &"x".repeat(100_000)), 413, ""),
        (
            post("/v1/backends/nope/x", r#"{"weight": 1}"#),
            404,
            "default",
        ),
    ] {
        let (found, body) = raw(&socket, request.as_bytes());
        assert_eq!(found, status, "{request}: {body}");
        assert!(body.contains(part), "{request}: {body}");
    }
    // None of it has changed anything, or keeps the next one waiting.
    stream::exchange(&mut ringway.connect(), b"hello");
    assert_eq!(ringway.status()["phase"], "serving");
}

#[test]
fn idle_connections_have_a_bound_and_hold_up_nothing_else() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let idle: Vec<UnixStream> = (0..64)
        .map(|_| UnixStream::connect(ringway.admin_socket()).unwrap())
        .collect();
    stream::exchange(&mut ringway.connect(), b"hello");
    let files = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid()))
        .unwrap()
        .count();
    drop(idle);
    eventually(SOON, "the status is answered again", || {
        ringway.command(&["status"]).0 == Some(0)
    });
    let after = std::fs::read_dir(format!("/proc/{}/fd", ringway.pid()))
        .unwrap()
        .count();
    assert!(
        files < after + 60,
        "64 idle connections took {} files",
        files - after
    );
}

#[test]
fn name_is_resolved_and_one_that_is_not_stops_nothing() {
    let echoing = Backend::echo();
    let port = echoing.address().port();
    let pool = format!("backends: [{{name: local, address: \"localhost:{port}\"}}]");
    let ringway = Launch::config(one_pool("workers: 1", &pool)).start();
    eventually(SOON, "the name is resolved", || {
        backend(&ringway.status(), "local")["address"].is_string()
    });
    stream::exchange(&mut ringway.connect(), b"hello");
    drop(ringway);

    // Without any network no name server can be asked.
    let Some(alone) = Namespace::new("alone") else {
        return skip("no network namespace can be made");
    };
    alone.run(|| {
        let pool = "backends: [{name: lost, address: \"db.example:5432\"}]";
        let ringway = Launch::config(one_pool("workers: 1", pool)).start();
        eventually(Duration::from_secs(60), "the look-up has failed", || {
            let why = backend(&ringway.status(), "lost")["health"]["why"].clone();
            why.as_str()
                .is_some_and(|why| !why.contains("not looked up yet"))
        });
        let lost = backend(&ringway.status(), "lost");
        assert_eq!(
            (&lost["health"]["state"], &lost["takes_sessions"]),
            (&json!("down"), &json!(false))
        );
        stream::assert_refused(ringway.address());
        assert_ends(&ringway.finish(), &[]);
    });
}
