//! The API beyond the status: sessions, events, what an operator changes, its document, and who may do what over TCP.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::http::{self, Answer, request};
use crate::harness::stream::{self, Ended};
use crate::harness::{
    Folder, Launch, Ringway, SOON, assert_ends, eventually, one_pool, raise_files_limit, skip,
};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

fn two_backends(first: &Backend, second: &Backend) -> String {
    let pool = format!(
        "balance: round_robin, slow_start: none, \
         backends: [{{name: one, address: \"{}\"}}, {{name: two, address: \"{}\"}}]",
        first.address(),
        second.address()
    );
    one_pool("workers: 2", &pool)
}

fn sessions(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sessions"].as_array().unwrap().clone()
}

#[test]
fn every_part_of_the_status_can_be_asked_for() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let status = ringway.status();
    assert_eq!(ringway.get("/v1/listeners").json(), status["listeners"]);
    assert_eq!(ringway.get("/v1/virtual_routers").json(), json!([]));
    let one = ringway.get("/v1/backends/p/one").json();
    assert_eq!(one["name"], "one");
    assert!(one["health"]["history"].is_array(), "{one}");
    for path in ["/v1/backends", "/v1/backends?pool=p"] {
        let all = ringway.get(path).json();
        let names: Vec<&Value> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["one", "two"], "{path}");
    }
    assert_eq!(
        ringway.get("/v1/pools").json()[0]["backends"][1]["name"],
        "two"
    );
    let config = ringway.get("/v1/config").json();
    assert_eq!(config["hash"], status["config_hash"]);
    assert!(
        config["yaml"]
            .as_str()
            .unwrap()
            .contains("slow_start: none"),
        "{config}"
    );
    for (path, status, part) in [
        ("/v1/backends?pool=q", 404, "There is: p"),
        ("/v1/backends/p/three", 404, "one, two"),
        ("/v1/backends?pol=p", 400, "`pol`"),
        ("/v1/sessions?limit=0", 400, "1 to 1000"),
        ("/v1/sessions?client=x", 400, "10.0.0.7"),
        ("/v1/sessions?backend=x", 404, "one, two"),
        ("/v1/sessions?backend=x&pool=p", 404, "one, two"),
        ("/v1/explain", 400, "listener=NAME"),
        ("/v1/explain?listener=x", 404, "There is: in"),
        ("/v1/explain?listener=in&worker=9", 404, "0 to 1"),
    ] {
        let answer = ringway.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.body.contains(part), "{path}: {answer:?}");
    }
}

#[test]
fn sessions_are_listed_filtered_and_paged() {
    const CLIENTS: usize = 30;
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| ringway.connect()).collect();
    for client in &mut clients {
        stream::exchange(client, b"twelve bytes");
    }
    let all = sessions(&ringway.get("/v1/sessions"));
    let expected: Vec<String> = sorted(
        clients
            .iter()
            .map(|one| one.local_addr().unwrap().to_string()),
    );
    let found = sorted(
        all.iter()
            .map(|one| one["client"].as_str().unwrap().to_owned()),
    );
    assert_eq!(found, expected);
    for session in &all {
        assert_eq!(session["state"], "open");
        assert_eq!(
            (&session["listener"], &session["pool"]),
            (&json!("in"), &json!("p"))
        );
        assert_eq!(session["bytes_to_backend"], 12, "{session}");
        assert_eq!(session["bytes_to_client"], 12);
    }
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = ringway.get(&format!("/v1/sessions?limit=7{after}")).json();
        let of_page = page["sessions"].as_array().unwrap();
        assert!(of_page.len() <= 7);
        paged.extend(
            of_page
                .iter()
                .map(|one| one["client"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(sorted(paged), expected);
    let count = |query: &str| sessions(&ringway.get(&format!("/v1/sessions?{query}"))).len();
    assert_eq!(
        count("pool=p&backend=one") + count("pool=p&backend=two"),
        CLIENTS
    );
    assert_eq!(count("client=127.0.0.0/8&listener=in"), CLIENTS);
    assert_eq!(count("client=10.0.0.0/8"), 0);
    assert_eq!(count(&format!("client={}", expected[3])), 1);
    assert_eq!(count(&format!("id={}", all[5]["id"].as_str().unwrap())), 1);
    assert_eq!(count("id=0-5-999"), 0);
    let (code, out, said) = ringway.command(&["sessions", "--backend", "one", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        out["sessions"].as_array().unwrap().len(),
        count("backend=one")
    );
    let (_, out, _) = ringway.command(&["sessions", "--limit", "3"]);
    assert!(out.contains("the first 3 sessions"), "{out}");
}

#[test]
fn thousands_of_sessions_are_listed_and_ended_in_portions_while_others_are_served() {
    const SESSIONS: usize = 3_000;
    raise_files_limit();
    let (first, second) = (Backend::echo(), Backend::echo());
    let config = two_backends(&first, &second).replace("workers: 2", "workers: 1");
    let ringway = Launch::config(config).start();
    let mut clients: Vec<TcpStream> = (0..SESSIONS).map(|_| ringway.connect()).collect();
    ringway.counters_become("all are connected", |counters| {
        counters["connects_established_total"] == SESSIONS
    });
    let (code, out, said) = ringway.command(&["sessions", "--limit", "5000", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let out: Value = serde_json::from_str(&out).unwrap();
    let ids = out["sessions"].as_array().unwrap().iter();
    let mut ids: Vec<String> = ids
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), SESSIONS);
    // The last one lies in the last portion.
    let last = clients.last().unwrap().local_addr().unwrap();
    let found = sessions(&ringway.get(&format!("/v1/sessions?client={last}")));
    assert_eq!(found.len(), 1);
    let closed = ringway.post(
        "/v1/sessions/close",
        &json!({"pool": "p", "backend": "one"}),
    );
    assert_eq!(closed.json()["sessions"], SESSIONS / 2);
    let mut stays = 0;
    for client in &mut clients {
        if client.write_all(b"x").is_ok()
            && std::io::Read::read(client, &mut [0]).is_ok_and(|read| read == 1)
        {
            stays += 1;
        }
    }
    assert_eq!(stays, SESSIONS / 2);
    drop(clients);
    ringway.finish();
}

fn sorted(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().collect();
    texts.sort_unstable();
    texts
}

#[test]
fn sessions_that_a_filter_names_are_ended_with_a_reset_and_no_others() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let mut clients: Vec<TcpStream> = (0..20).map(|_| ringway.connect()).collect();
    for client in &mut clients {
        stream::exchange(client, b"hello");
    }
    let on_one = sessions(&ringway.get("/v1/sessions?backend=one"));
    let (code, out, said) =
        ringway.command(&["sessions", "--pool", "p", "--backend", "one", "--close"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out, format!("sessions ended: {}\n", on_one.len()));
    let ended: Vec<SocketAddr> = on_one
        .iter()
        .map(|one| one["client"].as_str().unwrap().parse().unwrap())
        .collect();
    for client in &mut clients {
        if ended.contains(&client.local_addr().unwrap()) {
            assert_eq!(stream::ended(client), Ended::Reset);
        } else {
            stream::exchange(client, b"still");
        }
    }
    let (code, _, said) = ringway.command(&["sessions", "--close"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("say which"), "{said}");
    assert_eq!(
        ringway
            .post("/v1/sessions/close", &json!({"pool": "q"}))
            .status,
        404
    );
    drop(clients);
    let (operator, closed) = (on_one.len() as u64, 20 - on_one.len() as u64);
    assert_ends(
        &ringway.finish(),
        &[("client_closed", closed), ("operator", operator)],
    );
}

#[test]
fn explain_names_the_backend_that_the_next_connection_gets() {
    let (first, second) = (Backend::echo(), Backend::echo());
    for balance in [
        "round_robin",
        "hash",
        "random",
        "least_connections",
        "first",
    ] {
        let config = two_backends(&first, &second)
            .replace("workers: 2", "workers: 1")
            .replace("round_robin", balance);
        let ringway = Launch::config(config).start();
        let mut kept = Vec::new();
        for _ in 0..6 {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket
                .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
                .unwrap();
            let source = socket.local_addr().unwrap().as_socket().unwrap();
            let path = format!("/v1/explain?listener=in&source={source}");
            let said = ringway.get(&path).json();
            // Asking again gives the same answer: nothing changes by it.
            assert_eq!(ringway.get(&path).json()["picked"], said["picked"]);
            socket.connect(&ringway.address().into()).unwrap();
            let mut client = TcpStream::from(std::os::fd::OwnedFd::from(socket));
            stream::exchange(&mut client, b"hello");
            let found = sessions(&ringway.get(&format!("/v1/sessions?client={source}")));
            assert_eq!(found[0]["backend"], said["picked"], "{balance}: {said}");
            assert_eq!(said["hash"].is_string(), balance == "hash", "{said}");
            if balance == "hash" {
                assert_eq!(said["slot"]["backend"], said["picked"], "{said}");
            }
            kept.push(client);
        }
    }
}

#[test]
fn explain_says_why_a_backend_is_left_out_and_fails_when_there_is_none() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let ask = ["explain", "--listener", "in", "--source", "10.0.0.7:40000"];
    ringway.command(&["backend", "p/one", "drain"]);
    let (code, out, _) = ringway.command(&ask);
    assert_eq!(code, Some(0));
    assert!(out.contains("-> two"), "{out}");
    assert!(
        out.contains("one  weight 1, 0 sessions: left out, the operator says drain"),
        "{out}"
    );
    ringway.command(&["backend", "p/two", "weight", "0"]);
    let (code, out, said) = ringway.command(&ask);
    assert_eq!(code, Some(1), "{out}");
    assert!(said.contains("1 draining, 1 with weight 0"), "{said}");
}

/// Lines of a stream of events, read on the test's thread.
struct Events(BufReader<std::os::unix::net::UnixStream>);

impl Events {
    fn subscribe(ringway: &Ringway, path: &str) -> Events {
        let mut stream = http::unix(&ringway.admin_socket());
        stream
            .write_all(request("GET", path, &[], "").as_bytes())
            .unwrap();
        let mut events = Events(BufReader::new(stream));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            events.0.read_line(&mut line).unwrap();
        }
        events
    }

    /// The next event that is wished for.
    fn next(&mut self, wished: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.0.read_line(&mut line).unwrap(),
                0,
                "the stream has ended"
            );
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value = serde_json::from_str(data).unwrap();
            if wished(&event) {
                return event;
            }
        }
    }
}

#[test]
fn events_come_as_they_happen_and_are_remembered() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let address = second.address();
    let config = two_backends(&first, &second).replace(
        "balance:",
        "probe: {type: tcp, interval: 100ms, fast_interval: 50ms, fall: 2, rise: 1}, balance:",
    );
    let ringway = Launch::config(config).start();
    let mut events = Events::subscribe(&ringway, "/v1/events");
    ringway.command(&["backend", "p/one", "drain"]);
    let drained = events.next(|event| event["facts"]["backend"] == "one");
    assert_eq!(drained["facts"]["state"], "drain", "{drained}");
    drop(second);
    let down = events.next(|event| event["facts"]["up"] == false);
    assert_eq!(down["facts"]["backend"], "two");
    assert!(
        down["facts"]["why"].as_str().unwrap().contains("failed"),
        "{down}"
    );
    let shut = events.next(|event| event["kind"] == "listener");
    assert_eq!(shut["facts"], json!({"listener": "in", "open": false}));
    let _again = Backend::scripted_on(
        crate::harness::backend::listener_on(address, 16),
        |stream, _| {
            crate::harness::backend::echo(stream);
        },
    );
    events.next(|event| event["facts"]["open"] == true);
    let since = drained["id"].as_u64().unwrap();
    let history = ringway.get(&format!("/v1/history?after={since}")).json();
    assert_eq!(history[0], down, "{history}");
    // A second subscriber goes on where it was.
    let mut late = Events::subscribe(&ringway, &format!("/v1/events?after={since}"));
    assert_eq!(late.next(|_| true), down);
    // A stream outlives the time that other requests have.
    std::thread::sleep(std::time::Duration::from_secs(6));
    ringway.command(&["backend", "p/one", "ready"]);
    assert_eq!(
        events.next(|event| event["facts"]["backend"] == "one")["facts"]["state"],
        "ready"
    );
}

#[test]
fn a_stop_does_not_wait_for_those_who_watch() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let mut events = Events::subscribe(&ringway, "/v1/events");
    ringway.command(&["backend", "p/one", "drain"]);
    events.next(|event| event["facts"]["state"] == "drain");
    ringway.stop();
    let mut rest = Vec::new();
    // The end of the process ends the stream, in whichever way.
    let _ = std::io::Read::read_to_end(&mut events.0, &mut rest);
}

#[test]
fn subscribers_that_do_not_read_cost_nobody_anything_and_are_told_what_they_lost() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let mut slow: Vec<Events> = (0..16)
        .map(|_| Events::subscribe(&ringway, "/v1/events"))
        .collect();
    let refused = ringway.get("/v1/events");
    assert_eq!(refused.status, 503, "{refused:?}");
    // What the sockets hold is not lost yet; far more comes.
    for round in 0..4_000 {
        let weight = json!({"weight": 1 + round % 2});
        assert_eq!(ringway.post("/v1/backends/p/one", &weight).status, 200);
    }
    let told = slow[0].next(|event| event["events"].is_u64() || event["id"] == 4_000);
    let lost = told["events"].as_u64().unwrap_or(0);
    assert!(lost > 0, "nothing was lost: {told}");
    let metrics = ringway.get("/metrics").body;
    let counted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("ringway_events_lost_total "));
    assert!(counted.unwrap().parse::<f64>().unwrap() > 0.0);
    stream::exchange(&mut ringway.connect(), b"hello");
}

#[test]
fn what_an_operator_changed_holds_after_a_restart_unless_the_file_says_otherwise() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let folder = Folder::new();
    let file = folder.path().join("state/kept.json");
    let config = |weight: u16| {
        two_backends(&first, &second)
            .replace("{name: one,", &format!("{{name: one, weight: {weight},"))
            + &format!("admin: {{state_file: {}}}\n", file.display())
    };
    let one = |ringway: &Ringway| ringway.get("/v1/backends/p/one").json();
    let ringway = Launch::config(config(1)).start();
    for change in [&["drain"][..], &["weight", "7"], &["max-sessions", "40"]] {
        let arguments = [&["backend", "p/one"], change].concat();
        let (code, out, said) = ringway.command(&arguments);
        assert_eq!(code, Some(0), "{said}");
        assert!(out.contains("on this node only"), "{out}");
    }
    ringway.finish();
    let ringway = Launch::config(config(1)).start();
    ringway.wait_line("changes of the operator hold on");
    let found = one(&ringway);
    assert_eq!(
        (&found["state"], &found["weight"], &found["max_sessions"]),
        (&json!("drain"), &json!(7), &json!(40))
    );
    for key in ["state_by", "weight_by", "max_sessions_by"] {
        assert_eq!(found[key], "operator", "{found}");
    }
    assert_eq!(
        found["not_as_in_file"],
        json!(["state", "weight", "max_sessions"])
    );
    let (_, shown, _) = ringway.command(&["status"]);
    let remark = "changed on this node only: state, weight, max_sessions";
    assert!(shown.contains(remark), "{shown}");
    for _ in 0..4 {
        stream::exchange(&mut ringway.connect(), b"hello");
    }
    assert_eq!(one(&ringway)["sessions_total"], 0);
    ringway.finish();
    let ringway = Launch::config(config(3)).start();
    let found = one(&ringway);
    assert_eq!(
        (&found["state"], &found["weight"]),
        (&json!("drain"), &json!(3))
    );
    ringway.finish();
    // Its loss, and rubbish in its place, are harmless.
    fs::write(&file, "{rubbish").unwrap();
    let ringway = Launch::config(config(1)).start();
    ringway.wait_line("state_file: not read");
    assert_eq!(one(&ringway)["state_by"], "file");
    ringway.finish();
}

#[test]
fn sessions_on_a_backend_that_drains_end_at_the_deadline_and_not_before() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let mut clients: Vec<TcpStream> = (0..4).map(|_| ringway.connect()).collect();
    for client in &mut clients {
        stream::exchange(client, b"hello");
    }
    let (code, _, said) = ringway.command(&["backend", "p/one", "drain", "--deadline", "1h"]);
    assert_eq!(code, Some(0), "{said}");
    let one = || ringway.get("/v1/backends/p/one").json();
    assert!(one()["drain_until"].is_u64(), "{}", one());
    for client in &mut clients {
        stream::exchange(client, b"still");
    }
    let (code, _, said) = ringway.command(&["backend", "p/one", "maintenance", "--deadline", "0s"]);
    assert_eq!(code, Some(0), "{said}");
    eventually(SOON, "they end", || one()["sessions_active"] == 0);
    for path in [
        r#"{"deadline_seconds": 5}"#,
        r#"{"state": "ready", "deadline_seconds": 5}"#,
    ] {
        let body: Value = serde_json::from_str(path).unwrap();
        assert_eq!(
            ringway.post("/v1/backends/p/one", &body).status,
            409,
            "{path}"
        );
    }
    drop(clients);
    assert_ends(
        &ringway.finish(),
        &[("client_closed", 2), ("drain_timeout", 2)],
    );
}

#[test]
fn level_of_the_log_changes_while_it_runs() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    assert_eq!(
        ringway.post("/v1/log", &json!({"level": "trace"})).status,
        200
    );
    stream::exchange(&mut ringway.connect(), b"hello");
    ringway.wait_line("session ended");
    assert_eq!(
        ringway.post("/v1/log", &json!({"level": "loud"})).status,
        400
    );
}

/// With the API over TCP; more keys of `admin.http`.
fn over_tcp(folder: &Folder, first: &Backend, more: &str) -> Launch {
    fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    Launch::config(format!(
        "admin: {{http: {{address: \"127.0.0.1:0\"{more}}}}}\n\
         listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: {{backends: [{{name: one, address: \"{}\"}}]}}}}\n",
        first.address()
    ))
}

#[test]
fn the_socket_has_the_owner_and_the_group_of_the_file() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        skip("only root can give a file away");
        return;
    }
    let (backend, folder) = (Backend::echo(), Folder::new());
    let path = folder.path().join("own.sock");
    let start = |owner: &str| {
        let config = format!(
            "admin: {{socket: {{path: {}, owner: {owner}, group: daemon}}}}\n\
             listeners: [{{bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
            path.display(),
            backend.address()
        );
        Launch::config(config).without_own_socket().start()
    };
    let ringway = start("4711");
    let daemon = nix::unistd::Group::from_name("daemon").unwrap().unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (4711, daemon.gid.as_raw()));
    assert_eq!(meta.mode() & 0o777, 0o660);
    ringway.finish();
    let ringway = start("nobody-of-that-name");
    let line = ringway.wait_line("no admin socket");
    assert!(
        line.contains("there is no user nobody-of-that-name"),
        "{line}"
    );
    assert!(!path.exists());
}

#[test]
fn over_tcp_nothing_changes_without_the_token() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let token_file = format!(", token_file: {}/token", folder.path().display());
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {}", TOKEN.replace('9', "8"));
    for (more, look, change, look_wrong, change_wrong, change_right) in [
        ("", 200, 403, 200, 403, 403),
        (&*token_file, 200, 401, 401, 401, 200),
    ] {
        let ringway = over_tcp(&folder, &backend, more).start();
        let address = ringway.address_in_line("API served");
        let ask = |method: &str, path: &str, token: Option<&str>, body: &str| {
            let headers: Vec<_> = token
                .iter()
                .map(|token| ("authorization", *token))
                .collect();
            http::exchange(http::tcp(address), &request(method, path, &headers, body))
        };
        let (status, change_path) = ("/v1/status", "/v1/backends/p/one");
        let body = r#"{"weight": 5}"#;
        assert_eq!(ask("GET", status, None, "").status, look);
        assert_eq!(ask("GET", status, Some(&wrong), "").status, look_wrong);
        let denied = ask("POST", change_path, None, body);
        assert_eq!(denied.status, change, "{denied:?}");
        assert_eq!(denied.header("www-authenticate").is_some(), change == 401);
        assert_eq!(
            ask("POST", change_path, Some(&wrong), body).status,
            change_wrong
        );
        assert_eq!(
            ask("POST", change_path, Some(TOKEN), body).status,
            change_wrong
        );
        assert_eq!(ringway.get(change_path).json()["weight"], 1);
        assert_eq!(
            ask("POST", change_path, Some(&right), body).status,
            change_right
        );
        let weight = if change_right == 200 { 5 } else { 1 };
        assert_eq!(ringway.get(change_path).json()["weight"], weight);
    }
}

#[test]
fn an_api_that_other_hosts_reach_needs_token_and_tls() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let token = format!("token_file: {}/token", folder.path().display());
    let tls = "tls: {cert: /c.pem, key: /k.pem}";
    for (more, missing) in [
        (String::new(), "`token_file` and `tls` is needed"),
        (format!(", {token}"), "`tls` is needed"),
        (format!(", {tls}"), "`token_file` is needed"),
    ] {
        let text = format!(
            "admin: {{http: {{address: \"0.0.0.0:9901\"{more}}}}}\n\
             listeners: [{{bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: [\"{}\"]}}\n",
            backend.address()
        );
        let (code, log) = Launch::config(text).run_to_end();
        assert_eq!(code, Some(78), "{log}");
        assert!(log.contains(missing), "{log}");
    }
}

/// A key and a certificate for localhost; none where openssl is missing.
pub fn certificate(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Some((cert, key));
    }
    skip("openssl is not installed, which makes the certificate");
    None
}

#[test]
fn over_tls_the_api_answers_and_says_nothing_in_the_clear() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    let Some((cert, key)) = certificate(folder.path()) else {
        return;
    };
    let (cert, key) = (cert.display(), key.display());
    let more = format!(
        ", token_file: {}/token, tls: {{cert: {cert}, key: {key}}}",
        folder.path().display()
    );
    let ringway = over_tcp(&folder, &backend, &more).start();
    let address = ringway.address_in_line("API served");
    let mut openssl = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-connect",
            &address.to_string(),
        ])
        .arg("-CAfile")
        .arg(cert.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = request("GET", "/v1/status", &[], "");
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut output = BufReader::new(openssl.stdout.take().unwrap());
    while !answer.contains("\"phase\"") {
        assert_ne!(output.read_line(&mut answer).unwrap(), 0, "{answer}");
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(input);
    openssl.kill().unwrap();
    openssl.wait().unwrap();
    let mut plain = http::tcp(address);
    plain.write_all(request.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain, &mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    stream::exchange(&mut ringway.connect(), b"hello");
}

#[test]
fn unusable_tokens_and_certificates_keep_the_api_from_tcp_and_nothing_else() {
    let (backend, folder) = (Backend::echo(), Folder::new());
    fs::write(folder.path().join("short"), "short").unwrap();
    let path = folder.path().display();
    for (more, part) in [
        (
            format!(", token_file: {path}/short"),
            "does not hold a token",
        ),
        (format!(", token_file: {path}/missing"), "missing"),
        (
            format!(", tls: {{cert: {path}/short, key: {path}/short}}"),
            "short",
        ),
    ] {
        let ringway = over_tcp(&folder, &backend, &more).start();
        let line = ringway.wait_line("admin.http: not served");
        assert!(line.contains(part), "{line}");
        stream::exchange(&mut ringway.connect(), b"hello");
        assert_eq!(ringway.status()["phase"], "serving");
    }
}

#[test]
fn the_document_and_the_paths_say_the_same() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(two_backends(&first, &second)).start();
    let document = ringway.get("/v1/openapi.json").json();
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3."),
        "{document}"
    );
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{pool}", "p").replace("{backend}", "one");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let is_described = item.get(method.to_lowercase()).is_some();
            if path == "/v1/events" && is_described {
                continue;
            }
            let text = request(method, &concrete, &[], "");
            let answer = http::exchange(http::unix(&ringway.admin_socket()), &text);
            assert_eq!(
                answer.status == 405,
                !is_described,
                "{method} {path}: {answer:?}"
            );
            assert_eq!(
                answer.header("allow").is_some(),
                !is_described,
                "{answer:?}"
            );
            if is_described {
                let codes = &item[method.to_lowercase()]["responses"];
                let code = answer.status.to_string();
                assert!(
                    codes.get(&code).is_some(),
                    "{method} {path}: {code} is not described"
                );
            }
        }
    }
}

/// The command of schemathesis: in the path, or where `RINGWAY_SCHEMATHESIS` says.
fn schemathesis() -> Option<PathBuf> {
    let named = std::env::var_os("RINGWAY_SCHEMATHESIS").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("schemathesis"));
    let is_there = Command::new(&program).arg("--version").output();
    is_there
        .is_ok_and(|output| output.status.success())
        .then_some(program)
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(program) = schemathesis() else {
        skip("schemathesis is not installed (pip install schemathesis)");
        return;
    };
    let (backend, folder) = (Backend::echo(), Folder::new());
    let token_file = format!(", token_file: {}/token", folder.path().display());
    let ringway = over_tcp(&folder, &backend, &token_file).start();
    let address = ringway.address_in_line("API served");
    let known = "[parameters]\npool = \"p\"\nbackend = \"one\"\nlistener = \"in\"\n";
    fs::write(folder.path().join("known.toml"), known).unwrap();
    let output = Command::new(program)
        .args(["--config-file", "known.toml", "run"])
        .arg(format!("http://{address}/v1/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args([
            "--exclude-path",
            "/v1/events",
            "--max-examples",
            "40",
            "--seed",
            "1",
        ])
        .args(["--request-timeout", "10", "--no-color"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let as_before = json!({"state": "ready", "weight": 1, "max_sessions": "none"});
    assert_eq!(ringway.post("/v1/backends/p/one", &as_before).status, 200);
    stream::exchange(&mut ringway.connect(), b"hello");
    assert_eq!(ringway.status()["phase"], "serving");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = [
        "run", "check", "status", "backend", "sessions", "explain", "failover", "doctor",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let text = run(&["completions", shell]);
        assert!(
            commands.iter().all(|command| text.contains(command)),
            "{shell}"
        );
    }
    assert!(run(&["man"]).contains(".TH ringway"));
    let folder = Folder::new();
    let pages = folder.path().join("man1");
    run(&["man", "--folder", pages.to_str().unwrap()]);
    for command in commands {
        assert!(
            pages.join(format!("ringway-{command}.1")).exists(),
            "{command}"
        );
    }
    eventually(SOON, "the program's own page", || {
        pages.join("ringway.1").exists()
    });
}
