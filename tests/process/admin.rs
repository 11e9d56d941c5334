//! The admin socket: status, what the operator changes, names of backends, and requests that make no sense.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::namespace::Namespace;
use crate::harness::stream;
use crate::harness::{
    Launch, Ringway, SOON, assert_ends, eventually, free_address, free_port, one_pool, skip,
};

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
        (get("/v1/stat"), 404, "/v1/status"),
        (post("/v1/status", ""), 405, "GET /v1/status"),
        (get(&name), 200, "takes_sessions"),
        (post(&name, ""), 400, "not what is asked for"),
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
fn connections_that_say_nothing_or_not_all_keep_nobody_out_for_long() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let files = || {
        let folder = format!("/proc/{}/fd", ringway.pid());
        std::fs::read_dir(folder).unwrap().count()
    };
    let before = files();
    let name = backend.address();
    let head = format!(
        "POST /v1/backends/default/{name} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{"
    );
    let idle: Vec<UnixStream> = (0..40)
        .map(|number| {
            let mut stream = UnixStream::connect(ringway.admin_socket()).unwrap();
            if number % 2 == 0 {
                stream.write_all(head.as_bytes()).unwrap();
            }
            stream
        })
        .collect();
    // Some of them hold every place, and no more.
    eventually(SOON, "they are accepted", || files() >= before + 20);
    assert!(files() <= before + 36, "{} files", files() - before);
    stream::exchange(&mut ringway.connect(), b"hello");
    assert_eq!(ringway.status()["phase"], "serving");
    for mut stream in idle {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // What was not read by the other side may end it with a reset.
        let ended = stream.read_to_end(&mut rest);
        let is_late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!ended.as_ref().is_err_and(is_late), "it is never ended");
    }
}

#[test]
fn socket_may_be_written_as_an_address() {
    let backend = Backend::echo();
    let folder = crate::harness::Folder::new();
    let path = folder.path().join("admin.sock");
    let written = format!("unix:{}", path.display());
    let ringway = Launch::to([backend.address()])
        .without_own_socket()
        .arguments(["--socket", &written])
        .start();
    assert!(path.exists());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["status", "--socket", &written])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    ringway.stop();
}

/// A pipe that is full for good takes lines of the log, and nothing else.
#[test]
fn reader_of_the_log_that_stalls_stops_nothing() {
    let echoing = Backend::echo();
    let folder = crate::harness::Folder::new();
    let file = folder.path().join("ringway.yaml");
    let socket = folder.path().join("admin.sock");
    let config = format!(
        "listeners: [{{bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: {{probe: {{interval: 200ms, timeout: 200ms, fall: 1}}, \
         backends: [{{name: one, address: \"{}\"}}]}}}}\n",
        echoing.address()
    );
    std::fs::write(&file, config).unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["run", "-c"])
        .arg(&file)
        .arg("--socket")
        .arg(&socket)
        .stdout(writer.try_clone().unwrap())
        .stderr(writer.try_clone().unwrap())
        .spawn()
        .unwrap();
    let status = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["status", "--json", "--socket"])
            .arg(&socket)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let health = |wanted: &str| {
        let status = status();
        status["pools"][0]["backends"][0]["health"]["state"] == wanted
    };
    eventually(SOON, "the backend is up", || health("up"));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let takes_more = || {
        let mut wanted = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        poll(&mut wanted, PollTimeout::ZERO).unwrap() > 0
    };
    eventually(SOON, "the pipe is full", || {
        kill(pid, Signal::SIGUSR1).unwrap();
        !takes_more()
    });
    (0..16).for_each(|_| kill(pid, Signal::SIGUSR1).unwrap());
    assert_eq!(status()["phase"], "serving");
    drop(echoing);
    eventually(SOON, "the backend's death is noticed", || health("down"));
    kill(pid, Signal::SIGTERM).unwrap();
    let mut exited = None;
    eventually(SOON, "it ends", || {
        exited = child.try_wait().unwrap();
        exited.is_some()
    });
    assert_eq!(exited.and_then(|status| status.code()), Some(0));
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

/// A name may lead anywhere, to the virtual address of the balancer itself, too.
#[test]
fn name_that_leads_back_to_its_own_listener_is_not_used() {
    let port = free_port();
    let file = format!(
        "global: {{workers: 1}}\nlisteners: [{{name: in, bind: \"*:{port}\", pool: p}}]\n\
         pools: {{p: {{probe: none, backends: [{{name: local, address: \"localhost:{port}\"}}]}}}}\n"
    );
    let ringway = Launch::config(file).start();
    eventually(SOON, "the name is looked up", || {
        let why = backend(&ringway.status(), "local")["health"]["why"].clone();
        why.as_str()
            .is_some_and(|why| why.contains("go round in circles"))
    });
    let local = backend(&ringway.status(), "local");
    assert_eq!(local["health"]["state"], "down");
    stream::assert_refused((Ipv4Addr::LOCALHOST, port).into());
    assert_ends(&ringway.finish(), &[]);
}

#[test]
fn status_says_that_others_are_preferred_for_as_long_as_they_are() {
    let (failing, echoing) = (free_address(), Backend::echo());
    let pool = format!(
        "probe: none, passive: {{failures: 1, retry_after: 3s}}, \
         backends: [{{name: failing, address: \"{failing}\"}}, \"{}\"]",
        echoing.address()
    );
    let ringway = Launch::config(one_pool("workers: 1", &pool)).start();
    let is_avoided = || {
        let why = backend(&ringway.status(), "failing")["health"]["why"].clone();
        why.as_str().is_some_and(|why| why.contains("preferred"))
    };
    eventually(SOON, "it is avoided", || {
        stream::exchange(&mut ringway.connect(), b"hello");
        is_avoided()
    });
    // No session comes that would notice.
    eventually(SOON, "it may be tried again", || !is_avoided());
    ringway.finish();
}
