//! A PostgreSQL of two is killed and comes back while clients connect for every transaction. What they may notice is
//! the end of what was running on it, and nothing else.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, mem};

use super::postgres::{Encryption, Pair, Programs};
use super::program::Server;
use crate::harness::{Launch, Ringway, SOON, eventually, join, number, one_pool};

/// Clients of the test's own, beside those of pgbench.
const ASKING: usize = 4;
/// Clients of pgbench.
const BENCHING: usize = 6;
/// PostgreSQL's code (SQLSTATE) while it starts, stops or recovers.
const CANNOT_CONNECT_NOW: &str = "57P03";

#[test]
fn nobody_fails_to_connect_when_a_database_is_killed_and_comes_back() {
    kill_one_of_two(2, Duration::ZERO);
}

/// Connects of sessions speak against the dead one before its probes do.
#[test]
fn nobody_fails_to_connect_a_second_after_a_database_was_killed_even_without_retries() {
    kill_one_of_two(0, Duration::from_secs(1));
}

/// From `grace` after the kill on no client may fail; before the kill none may but those whose transaction was running
/// when it happened.
fn kill_one_of_two(retries: u8, grace: Duration) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let Pair {
        servers: [first, second],
        folders,
    } = Pair::start(&programs, Encryption::Off);
    let pool = format!(
        "probe: tcp, retries: {retries}, \
         backends: [{{name: first, address: \"{}\"}}, {{name: second, address: \"{}\"}}]",
        first.address(),
        second.address()
    );
    let ringway = Launch::config(one_pool("workers: 2", &pool)).start();
    let asking = Asking::start(ringway.address());
    let overall = start_bench(&programs, &ringway, 6);
    thread::sleep(Duration::from_millis(1500));

    // So that the dead one has next to nothing to recover.
    programs.query(first.port(), "checkpoint");
    let children = children(first.pid());
    let (port, killing) = (first.port(), Instant::now());
    first.kill();
    wait_closed(port);
    let killed = Instant::now();
    thread::sleep(grace);
    // It connects to nothing but what is left, and would end with a failure at the first connect that fails.
    programs.bench(&ringway, BENCHING as u64, 2, &["--connect"]);
    eventually(SOON, "it is down", || health(&ringway, "first") == "down");

    children.iter().for_each(|child| wait_gone(child));
    let before = sessions(&ringway, "first");
    let data = folders[0].path().join("data");
    let mut command = programs.server(&data, port, Encryption::Off);
    let restarted = Instant::now();
    let _first = Server::start_on(folders[0].path(), port, &mut command);
    eventually(SOON, "it is up again", || health(&ringway, "first") == "up");
    println!("up {:?} after the restart began", restarted.elapsed());
    programs.wait_ready(port);
    programs.bench(&ringway, BENCHING as u64, 2, &["--connect"]);
    assert!(
        sessions(&ringway, "first") > before,
        "it gets sessions again"
    );

    let aborted = overall.finish();
    let attempts = asking.finish();
    let failed = |attempt: &&Attempt| attempt.outcome.is_err();
    // It listens before it has recovered, and a `tcp` probe asks no more than that: only the database's own answer says
    // so then, and it is nobody else's fault.
    let is_recovering = |attempt: &&Attempt| {
        let says = |error: &String| error.contains(CANNOT_CONNECT_NOW);
        attempt.begun >= restarted && attempt.outcome.as_ref().is_err_and(says)
    };
    let (recovering, failures): (Vec<&Attempt>, Vec<&Attempt>) =
        attempts.iter().filter(failed).partition(is_recovering);
    println!(
        "retries {retries}: {} transactions of our own, {} failed, {} answered by a database that recovers; \
         pgbench lost {aborted} of {BENCHING} clients",
        attempts.len(),
        failures.len(),
        recovering.len()
    );
    for failure in &failures {
        let since = |at: Instant| {
            let sign = if at < killing { '-' } else { '+' };
            format!("{sign}{:?}", at.max(killing) - at.min(killing))
        };
        let (begun, ended) = (since(failure.begun), since(failure.ended));
        println!("begun {begun}, ended {ended}: {:?}", failure.outcome);
    }
    for failure in &failures {
        assert!(failure.ended >= killing, "before the kill: {failure:?}");
        assert!(
            failure.begun <= killed + grace,
            "{:?} after the kill: {failure:?}",
            failure.begun - killed
        );
    }
    if grace.is_zero() {
        let running = failures.iter().filter(|failure| failure.begun < killing);
        assert!(
            running.count() <= ASKING,
            "each had one transaction running"
        );
        assert!(aborted < BENCHING, "some of pgbench's were on the other");
    }
    let last = attempts.iter().map(|attempt| attempt.begun).max();
    assert!(last > Some(restarted), "they went on to the end");
    assert!(attempts.len() > 100, "{} transactions", attempts.len());
    ringway.finish();
}

fn backend(ringway: &Ringway, name: &str) -> serde_json::Value {
    let status = ringway.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    let found = backends.iter().find(|backend| backend["name"] == name);
    found.unwrap().clone()
}

fn health(ringway: &Ringway, name: &str) -> String {
    let backend = backend(ringway, name);
    backend["health"]["state"].as_str().unwrap().to_owned()
}

fn sessions(ringway: &Ringway, name: &str) -> u64 {
    number(&backend(ringway, name), "sessions_total")
}

/// A child that has just been forked has the server's listening socket, too, and the kernel accepts connections on it
/// until that child has closed it or ended: to everybody else the server is there for so long.
fn wait_closed(port: u16) {
    eventually(SOON, "the dead server's port is closed", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    });
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<PathBuf> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let path = |child: &str| Path::new("/proc").join(child);
    list.split_whitespace().map(path).collect()
}

/// A server's memory is its own again once the last of its children has noticed that it is gone.
fn wait_gone(process: &Path) {
    eventually(SOON, "the dead server's children end", || !process.exists());
}

/// pgbench beside the test, of which clients may be lost.
struct Bench(JoinHandle<std::process::Output>);

fn start_bench(programs: &Programs, ringway: &Ringway, seconds: u64) -> Bench {
    let mut command: Command = Programs::client(&programs.pgbench, ringway.address().port());
    command.args(["--select-only", "--no-vacuum", "--connect", "--time"]);
    command.arg(seconds.to_string());
    command.args(["--client", &BENCHING.to_string(), "postgres"]);
    command.stdin(Stdio::null());
    Bench(thread::spawn(move || command.output().unwrap()))
}

impl Bench {
    /// How many of its clients gave up.
    fn finish(self) -> usize {
        let output = join(self.0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let aborted = said
            .lines()
            .filter(|line| line.contains("aborted in") || line.contains("aborted while"));
        let count = aborted.count();
        assert!(output.status.success() || count > 0, "{said}");
        count
    }
}

/// One transaction over a connection of its own.
#[derive(Debug)]
struct Attempt {
    begun: Instant,
    ended: Instant,
    outcome: Result<(), String>,
}

/// Clients that do one transaction after the other until they are told to stop.
struct Asking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Attempt>>>,
}

impl Asking {
    fn start(address: SocketAddr) -> Asking {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut attempts = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let outcome = transaction(address).map_err(|error| error.to_string());
                    let ended = Instant::now();
                    attempts.push(Attempt {
                        begun,
                        ended,
                        outcome,
                    });
                    // Leaves processor time to the others.
                    thread::sleep(Duration::from_millis(5));
                }
                attempts
            })
        };
        let threads = (0..ASKING).map(one).collect();
        Asking { stop, threads }
    }

    fn finish(mut self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        mem::take(&mut self.threads)
            .into_iter()
            .flat_map(join)
            .collect()
    }
}

/// Connects, asks for one row and says goodbye, as PostgreSQL's protocol (version 3) has it.
fn transaction(address: SocketAddr) -> io::Result<()> {
    const VERSION: u32 = 3 << 16;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut startup = VERSION.to_be_bytes().to_vec();
    startup.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
    send(&mut stream, None, &startup)?;
    wait_ready(&mut stream)?;
    send(&mut stream, Some(b'Q'), b"select 1\0")?;
    wait_ready(&mut stream)?;
    send(&mut stream, Some(b'X'), &[])
}

fn send(stream: &mut TcpStream, kind: Option<u8>, body: &[u8]) -> io::Result<()> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    let len = u32::try_from(body.len() + 4).expect("a short message");
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message)
}

/// Reads messages until the server is ready for a query; its own errors are errors too.
fn wait_ready(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(len).expect("a usize fits") - 4];
        stream.read_exact(&mut body)?;
        match head[0] {
            b'Z' => return Ok(()),
            b'E' => {
                return Err(io::Error::other(
                    String::from_utf8_lossy(&body).into_owned(),
                ));
            }
            _ => {}
        }
    }
}
