//! Reloads under load: what a change of the file does, what it leaves alone, and what is said about it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::datagram::Responder;
use crate::harness::stream::Ended;
use crate::harness::{
    Folder, Launch, Ringway, SOON, assert_no_leaks, eventually, eventually_some, free_address,
    join, refusing_address,
};
use crate::harness::{facts, http, stream};

/// One worker is enough where nothing is about several, but two show what goes between them.
const HEAD: &str = "global: {workers: 2}\nadmin: {state_file: off}\n";
/// Backends are known at once.
const DEFAULTS: &str = "defaults: {pool: {probe: none, balance: round_robin}}\n";

/// A file with these listeners and pools.
pub fn file(listeners: &str, pools: &str) -> String {
    format!("{HEAD}{DEFAULTS}listeners: [{listeners}]\npools: {{{pools}}}\n")
}

pub fn listener(name: &str, address: SocketAddr, pool: &str) -> String {
    format!("{{name: {name}, bind: \"{address}\", pool: {pool}}}")
}

pub fn pool(name: &str, more: &str, backends: &[(&str, SocketAddr)]) -> String {
    let backends = backends
        .iter()
        .map(|(name, address)| format!("{{name: {name}, address: \"{address}\"}}"));
    let backends: Vec<String> = backends.collect();
    format!("{name}: {{{more}backends: [{}]}}", backends.join(", "))
}

pub fn write(ringway: &Ringway, text: &str) {
    std::fs::write(ringway.folder().join("ringway.yaml"), text).expect("it can be written");
}

/// What `ringway reload` printed, without the hash in its last line.
#[track_caller]
pub fn reload(ringway: &Ringway, text: &str) -> Vec<String> {
    write(ringway, text);
    let (code, out, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let last = lines.pop().expect("it says how it ended");
    assert!(
        last.starts_with("reloaded: configuration ") || last.starts_with("no difference "),
        "{last}"
    );
    lines
}

/// The whole text that says why nothing was changed.
#[track_caller]
pub fn reload_fails(ringway: &Ringway, text: &str) -> String {
    write(ringway, text);
    let (code, out, said) = ringway.command(&["reload"]);
    assert_eq!((code, &*out), (Some(1), ""), "{said}");
    said
}

/// Sessions that go on and connects that never fail, on one address. Slow enough to leave the machine to others.
struct Load {
    stop: Arc<AtomicBool>,
    connects: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    const SESSIONS: usize = 4;
    const PAUSE: Duration = Duration::from_millis(2);

    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let connects = Arc::new(AtomicU64::new(0));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&connects));
        let connecting = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let mut client = TcpStream::connect(address).expect("no connect is refused");
                stream::exchange(&mut client, b"new");
                count.fetch_add(1, Ordering::Relaxed);
                drop(client);
                thread::sleep(Self::PAUSE);
            }
        });
        let sessions = (0..Self::SESSIONS).map(|_| {
            let is_over = Arc::clone(&stop);
            let mut client = stream::connect(address);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    stream::exchange(&mut client, &[7; 1000]);
                    thread::sleep(Self::PAUSE);
                }
            })
        });
        let threads = sessions.chain([connecting]).collect();
        Self {
            stop,
            connects,
            threads,
        }
    }

    /// More clients have come since.
    fn goes_on(&self) {
        let before = self.connects.load(Ordering::Relaxed);
        eventually(SOON, "clients come", || {
            self.connects.load(Ordering::Relaxed) > before + 3
        });
    }

    /// Fails if anything has failed.
    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(join);
    }
}

fn backend<'a>(status: &'a Value, pool: &str, name: &str) -> Option<&'a Value> {
    let pools = status["pools"].as_array().unwrap();
    let pool = pools.iter().find(|known| known["name"] == pool)?;
    let backends = pool["backends"].as_array().unwrap();
    backends.iter().find(|known| known["name"] == name)
}

#[test]
fn backends_come_and_go_and_sessions_that_are_not_on_them_notice_nothing() {
    let [one, three] = [(); 2].map(|()| Backend::echo());
    let marked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&marked);
    let two = Backend::scripted(move |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            seen.fetch_or(buffer.starts_with(b"mark"), Ordering::SeqCst);
            if stream.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    });
    let address = free_address();
    let text = |backends: &[(&str, SocketAddr)]| {
        file(&listener("in", address, "p"), &pool("p", "", backends))
    };
    let (first, second) = (("one", one.address()), ("two", two.address()));
    let ringway = Launch::config(text(&[first])).start();
    let load = Load::start(address);
    load.goes_on();
    assert_eq!(
        reload(&ringway, &text(&[first, second])),
        ["backend p/two added"]
    );
    load.goes_on();
    eventually(SOON, "the new one is used", || two.accepted() > 0);
    // Its sessions go on when it leaves.
    let mut stays = eventually_some(SOON, "a session is led to it", || {
        let mut client = stream::connect(address);
        stream::exchange(&mut client, b"mark");
        marked.load(Ordering::SeqCst).then_some(client)
    });
    let third = ("three", three.address());
    let lines = reload(&ringway, &text(&[first, third]));
    assert_eq!(lines[0], "backend p/three added", "{lines:?}");
    assert!(lines[1].starts_with("backend p/two removed ("), "{lines:?}");
    assert!(lines[1].contains("session"), "{lines:?}");
    let accepted = two.accepted();
    load.goes_on();
    stream::exchange(&mut stays, b"still here");
    let status = ringway.status();
    let left = backend(&status, "p", "two").expect("it has a session");
    assert_eq!(left["removed"], true);
    assert_eq!(left["why_not"], "it has left the configuration");
    drop(stays);
    load.goes_on();
    assert_eq!(two.accepted(), accepted, "nothing new comes to it");
    load.finish();
    eventually(SOON, "it is gone with its last session", || {
        backend(&ringway.status(), "p", "two").is_none()
    });
    ringway.stop();
}

#[test]
fn what_a_pool_is_like_changes_under_way() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let backends = [("one", one.address()), ("two", two.address())];
    let text = |more: &str, weight: &str| {
        let pools = pool("p", more, &backends);
        let pools = pools.replacen("name: two,", &format!("name: two, {weight}"), 1);
        file(&listener("in", address, "p"), &pools)
    };
    let ringway = Launch::config(text("", "")).start();
    let load = Load::start(address);
    load.goes_on();
    let lines = reload(&ringway, &text("balance: hash, ", ""));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("pool p changed ("), "{lines:?}");
    assert!(
        lines[0].ends_with(": balance round_robin -> hash"),
        "{lines:?}"
    );
    load.goes_on();
    let pools = ringway.status()["pools"].clone();
    assert_eq!(pools[0]["balance"], "hash");
    let lines = reload(&ringway, &text("", "weight: 0, "));
    assert!(
        lines[0].ends_with(": balance hash -> round_robin"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with(": weight default -> 0"), "{lines:?}");
    let accepted = two.accepted();
    load.goes_on();
    assert_eq!(two.accepted(), accepted, "it has no weight");
    let lines = reload(&ringway, &text("timeouts: {idle: 1h}, ", "weight: 3, "));
    assert!(
        lines[0].ends_with(": timeouts.idle default -> 1h"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with(": weight 0 -> 3"), "{lines:?}");
    load.goes_on();
    load.finish();
    assert_eq!(
        reload(&ringway, &text("timeouts: {idle: 1h}, ", "weight: 3, ")),
        [""; 0]
    );
    ringway.stop();
}

#[test]
fn listeners_come_move_change_places_and_go() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let [stays, a, b, c] = [(); 4].map(|()| free_address());
    let pools = [
        pool("p", "", &[("one", one.address())]),
        pool("q", "", &[("two", two.address())]),
    ];
    let text = |listeners: &[(&str, SocketAddr, &str)]| {
        let all = listeners
            .iter()
            .map(|(name, address, pool)| listener(name, *address, pool));
        let all: Vec<String> = all.collect();
        file(&all.join(", "), &pools.join(", "))
    };
    let in_ = ("in", stays, "p");
    let ringway = Launch::config(text(&[in_, ("other", a, "q")])).start();
    let load = Load::start(stays);
    // Another one.
    let lines = reload(&ringway, &text(&[in_, ("other", a, "q"), ("new", b, "p")]));
    assert_eq!(lines, ["listener new added"]);
    stream::exchange(&mut stream::connect(b), b"hello");
    // Two change their addresses: nobody is refused at either.
    let swapping = Load::start(a);
    let mut old = stream::connect(b);
    stream::exchange(&mut old, b"hello");
    let lines = reload(&ringway, &text(&[in_, ("other", b, "q"), ("new", a, "p")]));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].ends_with(&format!(": bind {a} -> {b}")),
        "{lines:?}"
    );
    swapping.goes_on();
    let accepted = one.accepted();
    swapping.goes_on();
    assert!(one.accepted() > accepted);
    stream::exchange(&mut old, b"still here");
    swapping.finish();
    // One moves to where nobody was.
    let lines = reload(&ringway, &text(&[in_, ("other", c, "q"), ("new", a, "p")]));
    assert!(lines[0].starts_with("listener other changed"), "{lines:?}");
    stream::exchange(&mut stream::connect(c), b"hello");
    stream::exchange(&mut old, b"still here");
    eventually(SOON, "nobody listens where it was", || {
        TcpStream::connect(b).is_err()
    });
    // And goes, with its pool.
    let alone = file(&listener("in", stays, "p"), &pools[0]);
    let lines = reload(&ringway, &alone);
    assert_eq!(lines.len(), 4, "{lines:?}");
    eventually(SOON, "nobody listens there", || {
        TcpStream::connect(a).is_err() && TcpStream::connect(c).is_err()
    });
    stream::exchange(&mut old, b"still here");
    drop(old);
    load.finish();
    let status = ringway.status();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1);
    eventually(SOON, "the pool is gone", || {
        ringway.status()["pools"].as_array().unwrap().len() == 1
    });
    ringway.stop();
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_explained() {
    let one = Backend::echo();
    let address = free_address();
    let good = file(
        &listener("in", address, "p"),
        &pool("p", "", &[("one", one.address())]),
    );
    let ringway = Launch::config(good.clone()).start();
    let load = Load::start(address);
    let before = ringway.status();
    let said = reload_fails(&ringway, &good.replace("name: one", "nam: one"));
    assert!(said.contains("ringway.yaml:5:"), "{said}");
    assert!(
        said.contains("did you mean `name`") || said.contains("`name`"),
        "{said}"
    );
    assert!(said.contains("nothing was changed"), "{said}");
    load.goes_on();
    let after = ringway.status();
    assert_eq!(after["config_hash"], before["config_hash"]);
    assert_eq!(after["generation"], before["generation"]);
    assert_eq!(after["reloads"]["failed"], 1);
    let error = after["reloads"]["last"]["error"].as_str().unwrap();
    assert!(error.contains("nam"), "{error}");
    ringway.wait_line("reload failed, nothing was changed");
    let (_, events, _) = ringway.command(&["status", "--json"]);
    assert!(events.contains("\"failed\": 1"));
    load.finish();
    ringway.stop();
}

#[test]
fn when_one_new_listener_cannot_be_bound_none_is() {
    let one = Backend::echo();
    let [address, free] = [(); 2].map(|()| free_address());
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let pools = pool("p", "", &[("one", one.address())]);
    let good = file(&listener("in", address, "p"), &pools);
    let ringway = Launch::config(good).start();
    let load = Load::start(address);
    let listeners = [
        listener("in", address, "p"),
        listener("x", free, "p"),
        listener("y", taken, "p"),
    ];
    let said = reload_fails(&ringway, &file(&listeners.join(", "), &pools));
    let why = format!("listener y: cannot listen on {taken}");
    assert!(said.contains(&why), "{said}");
    assert!(
        TcpStream::connect(free).is_err(),
        "the other one is not there either"
    );
    load.goes_on();
    let status = ringway.status();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1);
    assert!(
        status["reloads"]["last"]["error"]
            .as_str()
            .unwrap()
            .contains(&why)
    );
    drop(holder);
    let (code, _, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    stream::exchange(&mut stream::connect(taken), b"hello");
    load.finish();
    ringway.stop();
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let one = Backend::echo();
    let [address, other] = [(); 2].map(|()| free_address());
    let pools = pool("p", "", &[("one", one.address())]);
    let ringway = Launch::config(file(&listener("in", address, "p"), &pools)).start();
    let before = ringway.status();
    let two = [listener("in", address, "p"), listener("new", other, "p")].join(", ");
    let text = file(&two, &pools).replace("workers: 2", "workers: 1, drain_timeout: 5s");
    write(&ringway, &text);
    let (code, out, said) = ringway.command(&["reload", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        out,
        "listener new added\nglobal.drain_timeout default -> 5s\n\
         needs a restart: global.workers 2 -> 1\nnothing was changed: a dry run\n"
    );
    let after = ringway.status();
    assert_eq!(after["generation"], before["generation"]);
    assert_eq!(after["reloads"]["succeeded"], 0);
    assert!(TcpStream::connect(other).is_err());
    let (code, out, said) = ringway.command(&["reload", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        answer["needs_restart"],
        json!([{"key": "global.workers", "from": 2, "to": 1}])
    );
    assert_eq!(answer["listeners"]["added"], json!([{"name": "new"}]));
    let now = ringway.status();
    assert_ne!(now["config_hash"], before["config_hash"]);
    assert!(now["generation"].as_u64() > before["generation"].as_u64());
    assert_eq!(now["reloads"]["succeeded"], 1);
    // It is named until it is done.
    let lines = reload(&ringway, &(text + "# the same\n"));
    assert_eq!(lines, ["needs a restart: global.workers 2 -> 1"]);
    ringway.stop();
}

#[test]
fn what_the_operator_changed_holds_until_the_file_changes_the_same_key() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let text = |weight: &str| {
        let backends = format!(
            "{{name: one, address: \"{}\"{weight}}}, {{name: two, address: \"{}\"}}",
            one.address(),
            two.address()
        );
        file(
            &listener("in", address, "p"),
            &format!("p: {{backends: [{backends}]}}"),
        )
    };
    let ringway = Launch::config(text("")).start();
    for arguments in [["p/one", "weight", "7"], ["p/two", "max-sessions", "70"]] {
        let (code, _, said) = ringway.command(&[&["backend"], &arguments[..]].concat());
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, _, said) = ringway.command(&["backend", "p/two", "drain"]);
    assert_eq!(code, Some(0), "{said}");
    reload(&ringway, &(text("") + "# another\n"));
    reload(&ringway, &text("").replace("p: {", "p: {balance: first, "));
    let status = ringway.status();
    let of = |name: &str| backend(&status, "p", name).unwrap().clone();
    assert_eq!(
        (&of("one")["weight"], &of("one")["weight_by"]),
        (&json!(7), &json!("operator"))
    );
    assert_eq!(
        (&of("two")["state"], &of("two")["max_sessions"]),
        (&json!("drain"), &json!(70))
    );
    reload(&ringway, &text(", weight: 3"));
    let status = ringway.status();
    let one_now = backend(&status, "p", "one").unwrap();
    assert_eq!(
        (&one_now["weight"], &one_now["weight_by"]),
        (&json!(3), &json!("file"))
    );
    assert_eq!(backend(&status, "p", "two").unwrap()["state"], "drain");
    ringway.stop();
}

#[test]
fn a_signal_reloads_and_the_log_says_what_differs() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let text = |backends: &[(&str, SocketAddr)]| {
        file(&listener("in", address, "p"), &pool("p", "", backends))
    };
    let (first, second) = (("one", one.address()), ("two", two.address()));
    let ringway = Launch::config(text(&[first])).start();
    write(&ringway, &text(&[first, second]));
    ringway.signal(Signal::SIGHUP);
    ringway.wait_line("reloaded: 1 backend added");
    write(&ringway, "listeners: 7\n");
    ringway.signal(Signal::SIGHUP);
    ringway.wait_line("reload failed, nothing was changed");
    stream::exchange(&mut stream::connect(address), b"hello");
    ringway.stop();
}

#[test]
fn a_pool_whose_backends_are_all_replaced_refuses_nobody_although_nothing_is_known_yet() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let probe = "probe: {type: tcp, interval: 200ms, timeout: 100ms}, ";
    let text = |name: &str, at: SocketAddr| {
        file(
            &listener("in", address, "p"),
            &pool("p", probe, &[(name, at)]),
        )
    };
    let ringway = Launch::config(text("one", one.address())).start();
    let load = Load::start(address);
    for round in 0..10 {
        let (name, at) = match round % 2 {
            0 => ("two", two.address()),
            _ => ("one", one.address()),
        };
        reload(&ringway, &text(name, at));
        load.goes_on();
    }
    // One that is not there is found out, and the listener is shut then.
    load.finish();
    reload(&ringway, &text("none", refusing_address()));
    eventually(SOON, "connects are refused", || {
        TcpStream::connect(address).is_err()
    });
    ringway.stop();
}

#[test]
fn backends_are_added_and_removed_at_runtime_and_hold_through_reloads_and_a_restart() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let folder = Folder::new();
    let state = folder.path().join("state.json");
    let text = |more: &str| {
        let backends = format!("{{name: one, address: \"{}\"}}{more}", one.address());
        file(
            &listener("in", address, "p"),
            &format!("p: {{backends: [{backends}]}}"),
        )
        .replace(
            "state_file: off",
            &format!("state_file: \"{}\"", state.display()),
        )
    };
    let ringway = Launch::config(text("")).start();
    let load = Load::start(address);
    let at = two.address().to_string();
    let (code, out, said) = ringway.command(&["backend", "add", "p/two", &at, "--weight", "3"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        out,
        "p/two: ready, weight 3, 0 sessions (on this node only)\n"
    );
    eventually(SOON, "it is used", || two.accepted() > 0);
    let (code, _, said) = ringway.command(&["backend", "add", "p/two", &at]);
    assert_eq!(code, Some(1));
    assert!(said.contains("already"), "{said}");
    let (code, _, said) = ringway.command(&["backend", "remove", "p/one"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("in the configuration file"), "{said}");
    reload(&ringway, &text("").replace("p: {", "p: {balance: first, "));
    reload(&ringway, &text(""));
    let (code, _, said) = ringway.command(&["backend", "p/two", "weight", "5"]);
    assert_eq!(code, Some(0), "{said}");
    let added = |ringway: &Ringway| backend(&ringway.status(), "p", "two").cloned();
    let now = added(&ringway).unwrap();
    assert_eq!(
        (&now["added_by"], &now["weight"]),
        (&json!("operator"), &json!(5))
    );
    load.finish();
    ringway.stop();
    let ringway = Launch::config(text("")).start();
    let now = eventually_some(SOON, "it is there again", || added(&ringway));
    assert_eq!(
        (&now["added_by"], &now["weight"]),
        (&json!("operator"), &json!(5))
    );
    let load = Load::start(address);
    let (code, out, said) = ringway.command(&["backend", "remove", "p/two", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["name"], "two");
    let accepted = two.accepted();
    load.goes_on();
    assert_eq!(two.accepted(), accepted);
    load.finish();
    ringway.stop();
    let ringway = Launch::config(text("")).start();
    assert_eq!(added(&ringway), None);
    ringway.stop();
}

#[test]
fn datagrams_are_served_from_the_first_reload_on_that_has_a_listener_for_them() {
    let one = Backend::echo();
    let [address, first, second] = [(); 3].map(|()| free_address());
    let echo = Responder::echo();
    let pools = [
        pool("p", "", &[("one", one.address())]),
        pool("d", "", &[("echo", echo.address())]),
    ];
    let pools = pools.join(", ");
    let with = |at: SocketAddr| {
        let udp = listener("dns", at, "d").replace("{name", "{protocol: udp, name");
        file(&[listener("in", address, "p"), udp].join(", "), &pools)
    };
    let without = file(&listener("in", address, "p"), &pools);
    let ringway = Launch::config(without.clone()).start();
    let load = Load::start(address);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let ask = |at: SocketAddr| {
        let mut answer = [0; 16];
        client.send_to(b"ping", at).unwrap();
        let (len, from) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..len], from), (&b"ping"[..], at));
    };
    for _ in 0..3 {
        assert_eq!(reload(&ringway, &with(first)), ["listener dns added"]);
        ask(first);
        // A port that is asked from again is a new flow at another address.
        let lines = reload(&ringway, &with(second));
        assert!(lines[0].contains(": bind "), "{lines:?}");
        ask(second);
        let lines = reload(&ringway, &without);
        assert!(lines[0].starts_with("listener dns removed"), "{lines:?}");
        ringway.counter_becomes("flows_active", 0);
    }
    assert_eq!(ringway.counters()["flow_ends"]["operator"], 6);
    load.goes_on();
    load.finish();
    ringway.stop();
}

/// Asks at the admin socket, without another process.
#[track_caller]
fn reload_at_once(ringway: &Ringway, text: &str) -> Value {
    write(ringway, text);
    let answer = ringway.post("/v1/reload", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn a_thousand_reloads_under_load_lose_nobody_and_leave_nothing_behind() {
    const RELOADS: usize = 1_000;
    const WARM: usize = 100;
    let [one, two, three] = [(); 3].map(|()| Backend::echo());
    let [address, other, third] = [(); 3].map(|()| free_address());
    // Probes go to a port of their own, so that each is seen.
    let probed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&probed);
    let probe = Backend::scripted(move |_| seen.lock().unwrap().push(Instant::now()));
    let more = format!(
        "probe: {{type: tcp, port: {}, interval: 200ms, timeout: 200ms, fall: 10}}, ",
        probe.address().port()
    );
    let text = |round: usize| {
        let mut pools = vec![pool("p", &more, &[("one", one.address())])];
        let mut listeners = vec![listener("in", address, "p")];
        let balance = ["", "balance: hash, ", "balance: least_connections, "][round % 3];
        let mut backends = vec![("three", three.address())];
        if round % 2 == 1 {
            backends.push(("two", two.address()));
        }
        pools.push(pool("q", balance, &backends));
        listeners.push(listener(
            "other",
            if round.is_multiple_of(5) {
                third
            } else {
                other
            },
            "q",
        ));
        if round.is_multiple_of(7) {
            let name = format!("r{}", round % 4);
            pools.push(pool(&name, "", &[("one", one.address())]));
            let at = if round.is_multiple_of(5) {
                other
            } else {
                third
            };
            listeners.push(listener("more", at, &name));
        }
        file(&listeners.join(", "), &pools.join(", ")) + &format!("# {round}\n")
    };
    let ringway = Launch::config(text(0)).start();
    let load = Load::start(address);
    let mut stays = stream::connect(third);
    stream::exchange(&mut stays, b"hello");
    let usage = || {
        let pid = ringway.pid();
        (facts::open_files(pid), facts::resident_bytes(pid))
    };
    let mut before = (0, 0);
    let begun = Instant::now();
    for round in 1..=RELOADS {
        let answer = reload_at_once(&ringway, &text(round));
        assert_eq!(answer["different"], true, "{answer}");
        if round.is_multiple_of(50) {
            stream::exchange(&mut stays, b"still here");
        }
        if round == WARM {
            load.goes_on();
            before = usage();
        }
    }
    let took = begun.elapsed();
    load.goes_on();
    // Sessions come and go, and so do probes.
    eventually(SOON, "no file is left open", || usage().0 <= before.0 + 24);
    let (files, memory) = usage();
    println!(
        "{took:?}, {files} files ({} before), {memory} bytes ({} before)",
        before.0, before.1
    );
    assert!(
        memory < before.1 + (16 << 20),
        "{memory} bytes, {} before",
        before.1
    );
    stream::exchange(&mut stays, b"still here");
    drop(stays);
    load.finish();
    let status = ringway.status();
    assert_eq!(status["reloads"]["succeeded"], RELOADS);
    assert_eq!(status["reloads"]["failed"], 0);
    let ends = status["ends"].as_object().unwrap();
    assert!(
        ends.keys().all(|reason| reason.ends_with("_closed")),
        "{ends:?}"
    );
    let times = probed.lock().unwrap().clone();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().unwrap();
    println!("{} probes, {longest:?} apart at most", times.len());
    assert!(longest < Duration::from_secs(2), "no probe for {longest:?}");
    let usual = took.as_millis() / 200;
    assert!(
        times.len() as u128 <= 2 * usual + 20,
        "reloads do not make probes"
    );
    assert_no_leaks(&ringway);
    ringway.stop();
}

#[test]
fn sessions_of_a_removed_backend_end_after_the_drain_timeout_of_its_pool() {
    let [one, two] = [(); 2].map(|()| Backend::echo());
    let address = free_address();
    let text = |backends: &[(&str, SocketAddr)]| {
        let pools = pool("p", "balance: first, drain_timeout: 1s, ", backends);
        file(&listener("in", address, "p"), &pools)
    };
    let (first, second) = (("one", one.address()), ("two", two.address()));
    let ringway = Launch::config(text(&[first, second])).start();
    let mut leaves = stream::connect(address);
    stream::exchange(&mut leaves, b"hello");
    assert_eq!(
        reload(&ringway, &text(&[second])),
        ["backend p/one removed (1 session)"]
    );
    let status = ringway.status();
    let left = backend(&status, "p", "one").expect("it has a session");
    assert!(left["drain_until"].is_u64(), "{left}");
    stream::exchange(&mut leaves, b"still here");
    assert_eq!(stream::ended(&mut leaves), Ended::Reset);
    ringway.counter_becomes("ends.backend_removed", 1);
    stream::exchange(&mut stream::connect(address), b"hello");
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
    ringway.stop();
}

#[test]
fn nothing_is_reloaded_while_it_stops() {
    let one = Backend::echo();
    let address = free_address();
    let text = file(
        &listener("in", address, "p"),
        &pool("p", "", &[("one", one.address())]),
    );
    let mut ringway = Launch::config(text.clone()).start();
    let mut client = stream::connect(address);
    stream::exchange(&mut client, b"hello");
    ringway.signal(Signal::SIGTERM);
    eventually(SOON, "it stops", || ringway.status()["phase"] == "draining");
    let said = reload_fails(&ringway, &(text + "# another\n"));
    assert!(said.contains("stopping"), "{said}");
    stream::exchange(&mut client, b"still here");
    drop(client);
    ringway.exit_in_order(SOON);
}

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    let one = Backend::echo();
    let address = free_address();
    let good = file(
        &listener("in", address, "p"),
        &pool("p", "", &[("one", one.address())]),
    );
    let ringway = Launch::config(good.clone()).start();
    let ask = |method: &str, path: &str, body: &Value| {
        let request = http::request(method, path, &[], &body.to_string());
        let answer = http::exchange(http::unix(&ringway.admin_socket()), &request);
        let error = answer.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (answer.status, error)
    };
    let at = |address: &str| json!({"address": address});
    for (method, path, body, status, part) in [
        (
            "PUT",
            "/v1/backends/x/new",
            at("10.0.0.1:1"),
            404,
            "no pool called `x`",
        ),
        (
            "PUT",
            "/v1/backends/p/one",
            at("10.0.0.1:1"),
            409,
            "already",
        ),
        (
            "PUT",
            "/v1/backends/p/new",
            at("10.0.0.1"),
            400,
            "no address",
        ),
        ("PUT", "/v1/backends/p/new", at("10.0.0.1:0"), 400, "port 0"),
        (
            "PUT",
            "/v1/backends/p/new",
            at(&address.to_string()),
            409,
            "circles",
        ),
        (
            "PUT",
            "/v1/backends/p/a%20b",
            at("10.0.0.1:1"),
            400,
            "white space",
        ),
        ("PUT", "/v1/backends/p/new", json!({}), 400, "address"),
        (
            "DELETE",
            "/v1/backends/p/one",
            json!({}),
            409,
            "configuration file",
        ),
        (
            "DELETE",
            "/v1/backends/p/none",
            json!({}),
            404,
            "called `none`",
        ),
        ("POST", "/v1/reload", json!({"dry": true}), 400, "dry"),
    ] {
        let (got, error) = ask(method, path, &body);
        assert_eq!(got, status, "{method} {path} {body}: {error}");
        assert!(error.contains(part), "{method} {path} {body}: {error}");
    }
    write(&ringway, "pools: 7\n");
    let (got, error) = ask("POST", "/v1/reload", &json!({"dry_run": true}));
    assert_eq!(got, 422, "{error}");
    let status = ringway.status();
    assert_eq!(status["reloads"]["failed"], 0, "a dry run is no failure");
    assert_eq!(status["pools"][0]["backends"].as_array().unwrap().len(), 1);
    ringway.stop();
}
