//! Backends that are killed and started again, over and over, under every kind of load: afterwards Ringway holds what
//! it held before. One backend at most is down at a time, so every client must reach one, and no answer is ever wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program::{Server, find, setting};
use super::redis;
use super::watch::Watch;
use crate::harness::stream::{self, Ended, Pattern, Random};
use crate::harness::{
    Folder, Launch, Ringway, SOON, Tier, assert_no_leaks, ends_total, eventually, facts, join,
    number,
};

/// Brings slots, buffers and the allocator to the size that the load needs.
const WARM_UP: Duration = Duration::from_secs(5);

/// Resident memory may grow by so much: the allocator's own play, far below one byte per session of a minute.
const MEMORY_PLAY: u64 = 4 << 20;

both_tiers! {
    killed_and_restarted_backends_leave_nothing_behind,
}

fn killed_and_restarted_backends_leave_nothing_behind(tier: Tier) {
    // The second tier has the same ends; it gets a shorter run.
    let share = if tier == Tier::Limited { 1 } else { 4 };
    survive(tier, &[], setting("RINGWAY_CHAOS_SECONDS", 60) / share);
}

#[test]
fn sessions_that_are_frozen_again_and_again_leave_nothing_behind() {
    survive(
        Tier::Limited,
        &["--freeze-every", "30ms"],
        setting("RINGWAY_CHAOS_SECONDS", 60) / 4,
    );
}

/// Compares what Ringway holds before and after a storm.
fn survive(tier: Tier, options: &[&str], seconds: u64) {
    let Some([redis_server]) = find(["redis-server"]) else {
        return;
    };
    let seed = setting("RINGWAY_CHAOS_SEED", std::process::id().into());
    println!("RINGWAY_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let mut backends: Vec<_> = (0..3).map(|_| Restartable::start(&redis_server)).collect();
    let launch = Launch::to(backends.iter().map(|backend| backend.address));
    let ringway = launch.tier(tier).arguments(options.iter().copied()).start();
    let watch = Watch::on(&ringway);

    storm(&mut backends, &ringway, WARM_UP, &mut random);
    let before = Footprint::of(&ringway);
    let load = storm(
        &mut backends,
        &ringway,
        Duration::from_secs(seconds),
        &mut random,
    );
    every_backend_comes_back(&ringway);
    let after = Footprint::of(&ringway);

    watch.saw_no_kernel_worker();
    println!("{load:?}\nbefore {before:?}\nafter  {after:?}");
    let held = |footprint: &Footprint| (footprint.files, footprint.buffers, footprint.threads);
    assert_eq!(held(&after), held(&before), "open files, buffers, threads");
    assert!(
        after.resident <= before.resident + MEMORY_PLAY,
        "{} bytes grew to {}",
        before.resident,
        after.resident
    );
    let counters = ringway.finish();
    assert_it_was_a_storm(&load, seconds, &counters);
    assert_eq!(
        ends_total(&counters),
        number(&counters, "sessions_total"),
        "every session has one end: {counters}"
    );
    for reason in [
        "connect_refused",
        "connect_timeout",
        "no_backend",
        "internal",
    ] {
        assert_eq!(
            number(&counters, &format!("ends.{reason}")),
            0,
            "two backends were always there: {counters}"
        );
    }
}

/// A calm run proves nothing: backends were missed, sessions cut, bytes sent every way that there is.
#[track_caller]
fn assert_it_was_a_storm(load: &Load, seconds: u64, counters: &Value) {
    assert!(
        load.kills > seconds / 10 && load.answers > load.connections && load.cuts > 0,
        "{load:?}"
    );
    for path in [
        "connect_retries_total",
        "pumps_entered_total",
        "pumps_left_total",
        "ends.backend_reset",
    ] {
        assert!(
            number(counters, path) > 0,
            "{path} is 0 after {load:?}: {counters}"
        );
    }
}

/// A Redis that can be killed and started again on the same port.
struct Restartable {
    program: PathBuf,
    folder: Folder,
    address: SocketAddr,
    server: Option<Server>,
}

impl Restartable {
    fn start(redis_server: &std::path::Path) -> Self {
        let folder = Folder::new();
        let server = redis::start(redis_server, folder.path());
        Self {
            program: redis_server.to_owned(),
            folder,
            address: server.address(),
            server: Some(server),
        }
    }

    fn kill(&mut self) {
        self.server.take().expect("it runs").kill();
    }

    fn restart(&mut self) {
        let mut command = redis::command(&self.program, self.folder.path(), self.address.port());
        self.server = Some(Server::start_on(
            self.folder.path(),
            self.address.port(),
            &mut command,
        ));
    }
}

/// What Ringway holds while nothing is connected. Pipes are made when they are first needed and kept, so their two file
/// descriptors each do not count.
#[derive(Debug)]
struct Footprint {
    files: u64,
    buffers: u64,
    threads: usize,
    resident: u64,
}

impl Footprint {
    fn of(ringway: &Ringway) -> Self {
        assert_no_leaks(ringway);
        let counters = ringway.counters();
        let files = u64::try_from(facts::open_files(ringway.pid())).expect("a count");
        Self {
            files: files - 2 * number(&counters, "pipes_total"),
            buffers: number(&counters, "buffers_total"),
            threads: facts::threads(ringway.pid()).len(),
            resident: facts::resident_bytes(ringway.pid()),
        }
    }
}

/// What the clients saw.
#[derive(Debug)]
struct Load {
    kills: u64,
    connections: u64,
    answers: u64,
    cuts: u64,
}

#[derive(Default)]
struct Tally {
    over: AtomicBool,
    connections: AtomicU64,
    answers: AtomicU64,
    cuts: AtomicU64,
}

/// Kills backends, one at a time, while clients of every kind are at work; ends with all backends running.
fn storm(
    backends: &mut [Restartable],
    ringway: &Ringway,
    duration: Duration,
    random: &mut Random,
) -> Load {
    const OF_EACH_KIND: u64 = 3;
    let kinds: [fn(&mut Client) -> io::Result<()>; 5] = [
        Client::chat,
        Client::pipeline,
        Client::large_values,
        Client::read_slowly,
        Client::idle,
    ];
    let tally = Arc::new(Tally::default());
    let mut clients = Vec::new();
    for (kind, number) in kinds
        .into_iter()
        .flat_map(|kind| (0..OF_EACH_KIND).map(move |number| (kind, number)))
    {
        let (tally, address, seed) = (
            Arc::clone(&tally),
            ringway.address(),
            random.next() + number,
        );
        clients.push(thread::spawn(move || {
            be_clients(kind, address, seed, &tally)
        }));
    }
    let end = Instant::now() + duration;
    let mut kills = 0;
    while Instant::now() < end {
        let backend = &mut backends[random.range(0, 3)];
        backend.kill();
        kills += 1;
        pause(random, 20, 400);
        backend.restart();
        pause(random, 50, 600);
    }
    tally.over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(join);
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Load {
        kills,
        connections: read(&tally.connections),
        answers: read(&tally.answers),
        cuts: read(&tally.cuts),
    }
}

/// How long something lasts is what varies here; nothing is waited for.
fn pause(random: &mut Random, from: usize, to: usize) {
    thread::sleep(Duration::from_millis(random.range(from, to) as u64));
}

/// One client after the other until the storm is over.
fn be_clients(
    work: fn(&mut Client) -> io::Result<()>,
    address: SocketAddr,
    seed: u64,
    tally: &Tally,
) {
    let mut random = Random::new(seed);
    while !tally.over.load(Ordering::Relaxed) {
        let seed = random.next();
        // A server that is killed at this moment resets it before it is there.
        let Some(stream) = stream::connect_unless_reset(address) else {
            tally.connections.fetch_add(1, Ordering::Relaxed);
            tally.cuts.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let mut client = Client {
            stream,
            random: Random::new(seed),
            seed,
            answers: 0,
        };
        let result = work(&mut client);
        tally.connections.fetch_add(1, Ordering::Relaxed);
        tally.answers.fetch_add(client.answers, Ordering::Relaxed);
        match result {
            Ok(()) => client.leave(),
            Err(error) => {
                let cut = [
                    ErrorKind::ConnectionReset,
                    ErrorKind::BrokenPipe,
                    ErrorKind::UnexpectedEof,
                ];
                assert!(
                    cut.contains(&error.kind()),
                    "a client saw neither an answer nor the end of its backend: {error}"
                );
                tally.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A connection to one of the Redis servers, which knows only the keys that this client has set.
struct Client {
    stream: TcpStream,
    random: Random,
    seed: u64,
    answers: u64,
}

impl Client {
    /// Small requests, one after the other.
    fn chat(&mut self) -> io::Result<()> {
        for _ in 0..self.random.range(1, 100) {
            let size = self.random.range(0, 3_000);
            self.set(size)?;
            self.send_gets(1)?;
            self.receive(size)?;
        }
        Ok(())
    }

    /// Many requests before the first answer is read.
    fn pipeline(&mut self) -> io::Result<()> {
        let (size, count) = (self.random.range(1, 20_000), self.random.range(2, 60));
        self.set(size)?;
        self.send_gets(count)?;
        (0..count).try_for_each(|_| self.receive(size))
    }

    fn large_values(&mut self) -> io::Result<()> {
        for _ in 0..self.random.range(1, 5) {
            let size = self.random.range(100_000, 2_000_000);
            self.set(size)?;
            self.send_gets(2)?;
            self.receive(size)?;
            self.receive(size)?;
        }
        Ok(())
    }

    /// Asks for more than sockets hold and takes a part of it late, or nothing at all.
    fn read_slowly(&mut self) -> io::Result<()> {
        let size = self.random.range(500_000, 1_000_000);
        self.set(size)?;
        self.send_gets(12)?;
        for _ in 0..self.random.range(0, 12) {
            pause(&mut self.random, 5, 100);
            self.receive(size)?;
        }
        Ok(())
    }

    fn idle(&mut self) -> io::Result<()> {
        for _ in 0..self.random.range(1, 4) {
            self.stream.write_all(b"PING\r\n")?;
            self.expect(b"+PONG\r\n")?;
            pause(&mut self.random, 1, 700);
        }
        Ok(())
    }

    /// Ends the connection in one of the ways there are; unread answers may still be on their way.
    fn leave(mut self) {
        match self.random.range(0, 3) {
            0 => stream::abort(self.stream),
            1 => drop(self.stream),
            _ => {
                stream::finish_writing(&self.stream);
                let (_, Ended::Fin | Ended::Reset) = stream::discard_to_end(&mut self.stream);
            }
        }
    }

    fn set(&mut self, size: usize) -> io::Result<()> {
        let key = self.key();
        write!(
            self.stream,
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${size}\r\n",
            key.len()
        )?;
        stream::send_pattern(
            &mut self.stream,
            Pattern::new(self.seed),
            size as u64,
            1 << 20,
        )?;
        self.stream.write_all(b"\r\n")?;
        self.expect(b"+OK\r\n")
    }

    fn send_gets(&mut self, count: usize) -> io::Result<()> {
        let get = format!("GET {}\r\n", self.key());
        self.stream.write_all(get.repeat(count).as_bytes())
    }

    /// Reads the value that was set and compares it.
    fn receive(&mut self, size: usize) -> io::Result<()> {
        let mut head = format!("${size}\r\n").into_bytes();
        let expected = head.clone();
        self.stream.read_exact(&mut head)?;
        assert!(
            head == expected,
            "an answer begins with {:?}",
            String::from_utf8_lossy(&head)
        );
        let mut value = vec![0; size];
        self.stream.read_exact(&mut value)?;
        Pattern::new(self.seed)
            .check(0, &value)
            .unwrap_or_else(|error| panic!("value of {size} bytes: {error}"));
        self.expect(b"\r\n")
    }

    fn expect(&mut self, expected: &[u8]) -> io::Result<()> {
        let mut answer = vec![0; expected.len()];
        self.stream.read_exact(&mut answer)?;
        assert!(
            answer == expected,
            "answer {:?}",
            String::from_utf8_lossy(&answer)
        );
        self.answers += 1;
        Ok(())
    }

    fn key(&self) -> String {
        format!("key:{:016x}", self.seed)
    }
}

/// Backends that were avoided for a while get sessions again.
fn every_backend_comes_back(ringway: &Ringway) {
    let sessions = || -> Vec<u64> {
        let counters = ringway.counters();
        let backends = counters["backends"].as_array().expect("a list of backends");
        backends
            .iter()
            .map(|backend| number(backend, "sessions_total"))
            .collect()
    };
    let before = sessions();
    eventually(SOON, "every backend gets sessions again", || {
        let mut stream = ringway.connect();
        stream.write_all(b"PING\r\n").expect("the request is taken");
        stream
            .read_exact(&mut [0; 7])
            .expect("every backend answers");
        sessions()
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before)
    });
}
