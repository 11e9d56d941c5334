//! How a reload is asked for: in a dry run, by signals, and of a level of the log.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::backend::Backend;
use crate::harness::datagram::Responder;
use crate::harness::{Launch, Ringway, SOON, eventually, facts, free_address, stream};
use crate::reload::{file, listener, pool, reload, write};
use crate::servers::program;

/// What `ringway reload --dry-run` gave: exit code, standard output and standard error.
fn dry_run(ringway: &Ringway, text: &str) -> (Option<i32>, String, String) {
    write(ringway, text);
    ringway.command(&["reload", "--dry-run"])
}

#[test]
fn a_dry_run_says_that_a_port_is_taken_and_gives_back_those_that_are_not() {
    let one = Backend::echo();
    let [address, free] = [(); 2].map(|()| free_address());
    let (holder, asked) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let pools = pool("p", "", &[("one", one.address())]);
    let with = |more: &[String]| {
        let all = [&[listener("in", address, "p")], more].concat();
        file(&all.join(", "), &pools)
    };
    let udp = |at| listener("dns", at, "p").replace("{name", "{protocol: udp, name");
    let ringway = Launch::config(with(&[])).start();
    let before = ringway.status();
    for (more, taken, who) in [
        (
            listener("y", holder.local_addr().unwrap(), "p"),
            &holder.local_addr().unwrap(),
            "ss -ltnp",
        ),
        (
            udp(asked.local_addr().unwrap()),
            &asked.local_addr().unwrap(),
            "ss -lunp",
        ),
    ] {
        let (code, out, said) = dry_run(&ringway, &with(&[listener("x", free, "p"), more]));
        assert_eq!((code, &*out), (Some(1), ""), "{said}");
        for part in [
            &*format!("cannot listen on {taken}: another process"),
            who,
            "a reload would change nothing: it would fail so",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    let taken = holder.local_addr().unwrap();
    drop(holder);
    let (code, out, said) = dry_run(&ringway, &with(&[listener("x", taken, "p")]));
    assert_eq!(
        (code, &*out),
        (
            Some(0),
            "listener x added\nnothing was changed: a dry run\n"
        ),
        "{said}"
    );
    assert!(TcpStream::connect(taken).is_err());
    drop(TcpListener::bind(taken).expect("it is nobody's"));
    let after = ringway.status();
    assert_eq!(after["generation"], before["generation"]);
    assert_eq!(
        after["reloads"], before["reloads"],
        "a dry run is no failure"
    );
    stream::exchange(&mut stream::connect(address), b"hello");
    ringway.stop();
}

#[test]
fn a_dry_run_names_what_it_does_not_try_and_disturbs_nobody() {
    let one = Backend::echo();
    let echo = Responder::echo();
    let [address, at] = [(); 2].map(|()| free_address());
    let pools = [
        pool("p", "", &[("one", one.address())]),
        pool("d", "", &[("echo", echo.address())]),
    ];
    let pools = pools.join(", ");
    let in_ = listener("in", address, "p");
    let dns = |bind: &str| format!("{{name: dns, protocol: udp, bind: \"{bind}\", pool: d}}");
    let ringway = Launch::config(file(&format!("{in_}, {}", dns(&at.to_string())), &pools)).start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let ask = || {
        let mut answer = [0; 16];
        client.send_to(b"ping", at).unwrap();
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
    };
    ask();
    // Datagrams for the running listener would come to a socket that is bound to try it.
    let any = format!("*:{}", at.port());
    let path = ringway.folder().join("in.sock");
    let unix = format!(
        "{{name: local, bind: \"unix:{}\", pool: p}}",
        path.display()
    );
    let text = file(&format!("{in_}, {unix}, {}", dns(&any)), &pools);
    let (code, out, said) = dry_run(&ringway, &text);
    assert_eq!(code, Some(0), "{said}");
    for untried in [&format!("unix:{}", path.display()), &any] {
        let line = format!("not tried: whether {untried} can be listened on\n");
        assert!(out.contains(&line), "{out}");
    }
    assert!(!path.exists());
    ask();
    assert_eq!(echo.received(), 2);
    ringway.stop();
}

#[test]
fn signals_that_come_during_a_reload_are_one_reload_after_it() {
    let one = Backend::echo();
    let address = free_address();
    let text = |name: &str| {
        let pools = pool("p", "", &[(name, one.address())]);
        file(&listener("in", address, "p"), &pools)
    };
    let ringway = Launch::config(text("first")).start();
    let Some(freezer) = program::freezer(ringway.folder()) else {
        return;
    };
    // A worker that stands still keeps a reload from its end.
    let worker = facts::thread_named(ringway.pid(), "worker-0");
    let mut frozen = program::freeze(&freezer, worker, Duration::from_secs(3));
    write(&ringway, &text("second"));
    ringway.signal(Signal::SIGHUP);
    ringway.wait_line("reloaded: ");
    write(&ringway, &text("third"));
    for _ in 0..20 {
        ringway.signal(Signal::SIGHUP);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ringway.status()["reloads"]["succeeded"], 1);
    assert!(frozen.wait().unwrap().success());
    eventually(SOON, "the last file is taken over", || {
        ringway.status()["pools"][0]["backends"][0]["name"] == "third"
    });
    // What waits comes before this.
    assert_eq!(reload(&ringway, &text("third")), [""; 0]);
    let reloads = ringway.status()["reloads"].clone();
    assert_eq!(
        (&reloads["succeeded"], &reloads["failed"]),
        (&json!(3), &json!(0))
    );
    stream::exchange(&mut stream::connect(address), b"hello");
    ringway.stop();
}

#[test]
fn a_reload_takes_the_level_of_the_log_over() {
    let one = Backend::echo();
    let address = free_address();
    let text = |level: &str| {
        let pools = pool("p", "", &[("one", one.address())]);
        format!("log: {{level: {level}}}\n") + &file(&listener("in", address, "p"), &pools)
    };
    let ringway = Launch::config(text("info")).start();
    let session = || stream::exchange(&mut stream::connect(address), b"hello");
    session();
    assert_eq!(
        reload(&ringway, &text("trace")),
        ["log.level default -> trace"]
    );
    session();
    ringway.wait_line("session ended");
    assert_eq!(
        reload(&ringway, &text("error")),
        ["log.level trace -> error"]
    );
    assert_eq!(
        reload(&ringway, &text("info")),
        ["log.level error -> default"]
    );
    let told = || ringway.log().matches("reloaded: log.level changed").count();
    eventually(SOON, "the last one is told", || told() >= 2);
    assert_eq!(told(), 2, "with `error` it is not");
    ringway.stop();
}
