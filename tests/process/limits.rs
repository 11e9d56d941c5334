//! Many sessions, and more than there may be: what an idle one costs, and that at each limit the sessions that live
//! go on, the others wait, and nothing spins.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::backend::{self, Backend};
use crate::harness::load::Busy;
use crate::harness::stream;
use crate::harness::{
    Launch, Ringway, SOON, Tier, assert_ends, ends_total, eventually, facts, join, number,
    one_pool, raise_files_limit, skip,
};

both_tiers! {
    nine_thousand_idle_sessions_cost_little,
    thousands_of_sessions_that_end_at_once_harm_nobody,
    storm_of_connects_never_exceeds_the_limit_and_all_are_served,
    clients_that_give_up_waiting_leave_nothing_behind,
    low_limit_of_files_makes_clients_wait,
    running_out_of_files_harms_nobody_and_passes,
}

const IDLE_SESSIONS: usize = 9000;

fn nine_thousand_idle_sessions_cost_little(tier: Tier) {
    let _alone = alone();
    if raise_files_limit() < 20_000 {
        skip("9,000 sessions need RLIMIT_NOFILE 20,000");
        return;
    }
    let backend = HoldingBackend::start();
    let pool = format!("backends: [\"{}\"]", backend.address);
    let global = "workers: 2, max_sessions: 9500, pipe_memory: 8MiB";
    let ringway = Launch::config(one_pool(global, &pool)).tier(tier).start();
    let before = facts::resident_bytes(ringway.pid());
    let clients: Vec<TcpStream> = (0..IDLE_SESSIONS).map(|_| ringway.connect()).collect();
    ringway.counters_become("all are connected", |counters| {
        let all = IDLE_SESSIONS as u64;
        number(counters, "sessions_active") == all && number(counters, "connects_total") == all
    });
    let each = facts::resident_bytes(ringway.pid()).saturating_sub(before) / IDLE_SESSIONS as u64;
    println!("{each} bytes of memory for each idle session");
    assert!(each < 4096, "{each} bytes for each idle session");
    ringway.assert_idle(Duration::from_millis(60));
    drop(clients);
    drop(backend);
    // All clients close before their backend does, but nothing says when the last FIN was seen.
    let counters = ringway.finish();
    let closed = number(&counters, "ends.client_closed") + number(&counters, "ends.backend_closed");
    assert_eq!(closed, IDLE_SESSIONS as u64, "{counters}");
    assert_eq!(ends_total(&counters), closed, "{counters}");
}

fn thousands_of_sessions_that_end_at_once_harm_nobody(tier: Tier) {
    const SESSIONS: usize = 4000;
    let _alone = alone();
    raise_files_limit();
    let holding = HoldingBackend::start();
    let echoing = Backend::echo();
    let config = format!(
        "listeners: [{{name: held, bind: \"127.0.0.1:0\", pool: held}}, {{name: busy, bind: \
         \"127.0.0.1:0\", pool: busy}}]\npools: {{held: [\"{}\"], busy: [\"{}\"]}}\n",
        holding.address,
        echoing.address()
    );
    let ringway = Launch::config(config).tier(tier).start();
    let (held, busy) = (ringway.address_of("held"), ringway.address_of("busy"));
    let quiet = Busy::run_for(Duration::from_secs(1), busy, 4, 64);
    let clients: Vec<TcpStream> = (0..SESSIONS).map(|_| stream::connect(held)).collect();
    ringway.counter_becomes("sessions_active", SESSIONS as u64);
    let running = Busy::start(busy, 4, 64);
    ringway.counter_becomes("sessions_active", SESSIONS as u64 + 4);
    clients.into_iter().for_each(stream::abort);
    ringway.counter_becomes("sessions_active", 4);
    let latencies = running.finish();
    println!(
        "worst {:?} without, {:?} beside the ends",
        quiet.worst(),
        latencies.worst()
    );
    // Measured on a busy machine: some 150 ms; cancelling one by one in a long list took seconds.
    let allowed = Duration::from_millis(400) + 5 * quiet.worst();
    assert!(
        latencies.worst() < allowed,
        "{:?}, {:?} without",
        latencies.worst(),
        quiet.worst()
    );
    let counters = ringway.finish();
    assert_ends(
        &counters,
        &[("client_closed", 8), ("client_reset", SESSIONS as u64)],
    );
}

/// Under `cargo test` the tests of this binary share one limit of open files.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A backend in a process of its own, so that its files do not count here: it accepts and holds what comes.
pub(crate) struct HoldingBackend {
    process: Child,
    pub(crate) address: SocketAddr,
    _output: Lines<BufReader<ChildStdout>>,
}

const HOLDING_BACKEND: &str = "RINGWAY_TESTS_HOLDING_BACKEND";

impl HoldingBackend {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "limits::holding_backend_process",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(HOLDING_BACKEND, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            line.unwrap()
                .split_once("holding at ")
                .map(|(_, address)| address.parse().unwrap())
        });
        let address = address.expect("the process says where it is");
        Self {
            process,
            address,
            _output: lines,
        }
    }
}

impl Drop for HoldingBackend {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Whoever opens a file waits where it has to grow, and all sessions of a worker with it.
#[test]
fn the_table_of_open_files_is_as_large_as_it_may_become() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let limit = raise_files_limit();
    let places = facts::file_table(ringway.pid());
    assert!(places >= limit.min(1 << 20), "{places} of {limit}");
    stream::exchange(&mut ringway.connect(), b"hello");
    ringway.finish();
}

#[test]
#[ignore = "a part of other tests, which start it as a process of its own"]
fn holding_backend_process() {
    if std::env::var_os(HOLDING_BACKEND).is_none() {
        return;
    }
    raise_files_limit();
    let listener = backend::listener();
    println!("holding at {}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Far more clients than sessions: each waits for its turn, is served, and makes room for another.
fn storm_of_connects_never_exceeds_the_limit_and_all_are_served(tier: Tier) {
    const LIMIT: u64 = 40;
    const CLIENTS: usize = 500;
    let backend = Backend::echo();
    let pool = format!("backends: [\"{}\"]", backend.address());
    let global = format!("workers: 2, max_sessions: {LIMIT}");
    let ringway = Launch::config(one_pool(&global, &pool)).tier(tier).start();
    let address = ringway.address();
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS)
        .map(|_| {
            let served = Arc::clone(&served);
            thread::spawn(move || {
                let mut client = stream::connect(address);
                stream::exchange(&mut client, b"my turn");
                thread::sleep(Duration::from_millis(50));
                stream::exchange(&mut client, b"and done");
                served.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let (mut most, mut parked) = (0, 0);
    eventually(Duration::from_secs(40), "all clients are served", || {
        let counters = ringway.counters();
        let active = number(&counters, "sessions_active");
        parked = parked.max(number(&counters, "accepts_parked"));
        assert!(
            active <= LIMIT,
            "{active} sessions at once, {LIMIT} are allowed"
        );
        most = most.max(active);
        served.load(Ordering::SeqCst) == CLIENTS || clients.iter().all(JoinHandle::is_finished)
    });
    clients.into_iter().for_each(join);
    let counters = ringway.finish();
    assert!(
        most > LIMIT / 2,
        "only {most} sessions at once of the {LIMIT} that are allowed"
    );
    assert_eq!(backend.accepted(), CLIENTS);
    assert_eq!(number(&counters, "sessions_total"), CLIENTS as u64);
    assert!(parked > 0, "no accepted connection ever waited: {counters}");
    assert_eq!(number(&counters, "accepts_parked"), 0, "one still waits");
    assert_ends(&counters, &[("client_closed", CLIENTS as u64)]);
}

/// Some were accepted and wait, others are still in the kernel's queue.
fn clients_that_give_up_waiting_leave_nothing_behind(tier: Tier) {
    const WAITING: usize = 60;
    let backend = Backend::echo();
    let pool = format!("backends: [\"{}\"]", backend.address());
    let ringway = Launch::config(one_pool("workers: 2, max_sessions: 2", &pool))
        .tier(tier)
        .start();
    let mut live = [ringway.connect(), ringway.connect()];
    live.iter_mut()
        .for_each(|client| stream::exchange(client, b"served"));
    let mut waiting: Vec<TcpStream> = (0..WAITING).map(|_| ringway.connect()).collect();
    waiting
        .iter_mut()
        .for_each(|client| client.write_all(b"waits").unwrap());
    let stay = waiting.split_off(WAITING - 5);
    for (number, client) in waiting.into_iter().enumerate() {
        if number % 2 == 0 {
            stream::abort(client)
        } else {
            drop(client)
        }
    }
    live.iter_mut()
        .for_each(|client| stream::exchange(client, b"still served"));
    drop(live);
    let staying: Vec<_> = stay
        .into_iter()
        .map(|mut client| thread::spawn(move || client.read_exact(&mut [0; 5]).unwrap()))
        .collect();
    staying.into_iter().for_each(join);
    stream::exchange(&mut ringway.connect(), b"a new one");
    let counters = ringway.finish();
    assert_eq!(
        ends_total(&counters),
        number(&counters, "sessions_total"),
        "{counters}"
    );
}

/// With `max_sessions: auto` the limit of files decides how many sessions there are; nobody is refused.
fn low_limit_of_files_makes_clients_wait(tier: Tier) {
    const CLIENTS: usize = 300;
    let backend = Backend::echo();
    let pool = format!("backends: [\"{}\"]", backend.address());
    let config = one_pool("workers: 2, pipe_memory: 1MiB", &pool);
    let ringway = Launch::config(config).tier(tier).files_limit(200).start();
    let address = ringway.address();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| stream::connect(address)).collect();
    let full = wait_steady(&ringway);
    assert!((10..100).contains(&full), "{full} sessions with 200 files");
    ringway.assert_idle(Duration::from_millis(200));
    // Who waits for whom is not known: each leaves as soon as it was served.
    let served: Vec<_> = clients
        .into_iter()
        .map(|mut client| thread::spawn(move || stream::exchange(&mut client, b"my turn")))
        .collect();
    served.into_iter().for_each(join);
    let counters = ringway.finish();
    assert_ends(&counters, &[("client_closed", CLIENTS as u64)]);
}

/// Waits until the number of active sessions stays the same for a while.
#[track_caller]
fn wait_steady(ringway: &Ringway) -> u64 {
    let mut last = 0;
    eventually(SOON, "the number of sessions is steady", || {
        let now = ringway.counter("sessions_active");
        let steady = now > 0 && now == last;
        last = now;
        thread::sleep(Duration::from_millis(200));
        steady
    });
    last
}

/// The limit is lowered under the running process, below what it has planned for.
fn running_out_of_files_harms_nobody_and_passes(tier: Tier) {
    const LIVE: usize = 20;
    const CLIENTS: usize = 60;
    let backend = Backend::echo();
    let pool = format!("backends: [\"{}\"]", backend.address());
    let global = "workers: 2, max_sessions: 500, pipe_memory: 8MiB";
    let ringway = Launch::config(one_pool(global, &pool)).tier(tier).start();
    let mut live: Vec<TcpStream> = (0..LIVE).map(|_| ringway.connect()).collect();
    live.iter_mut()
        .for_each(|client| stream::exchange(client, b"hello"));

    let lowered = facts::files_limit_leaving(ringway.pid(), 10);
    if let Err(error) = set_files_limit(&ringway, &lowered.to_string()) {
        skip(&format!(
            "the limit of files of a process cannot be set: {error}"
        ));
        return;
    }
    let address = ringway.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| thread::spawn(move || serve_or_reset(address)))
        .collect();
    ringway.counters_become("accepts fail for want of files", |counters| {
        number(counters, "accept_errors.EMFILE") > 0
    });
    live.iter_mut()
        .for_each(|client| stream::exchange(client, b"still here"));
    ringway.assert_idle(Duration::from_millis(300));
    live.iter_mut()
        .for_each(|client| stream::exchange(client, b"still here"));

    // Those who wait take the places of those who leave; when all are taken again, the rest goes on waiting.
    let before = ringway.counter("connects_established_total");
    drop(live);
    ringway.counters_become("there is room for others when some have left", |counters| {
        let nobody_waits = number(counters, "accepts_total") == (LIVE + CLIENTS) as u64;
        nobody_waits || number(counters, "connects_established_total") > before
    });
    set_files_limit(&ringway, "4096").unwrap();
    let served: Vec<TcpStream> = clients.into_iter().filter_map(join).collect();
    let served_total = served.len();
    drop(served);
    let counters = ringway.finish();
    let refused = number(&counters, "ends.out_of_resources");
    println!(
        "{served_total} of {} clients were served, {refused} were reset",
        CLIENTS
    );
    assert_eq!(
        served_total as u64 + refused,
        CLIENTS as u64,
        "nobody is refused silently"
    );
    assert_ends(
        &counters,
        &[
            ("client_closed", (LIVE + served_total) as u64),
            ("out_of_resources", refused),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect::<Vec<_>>(),
    );
}

/// A client that is served and stays; a reset is the only other end that is allowed.
fn serve_or_reset(address: SocketAddr) -> Option<TcpStream> {
    let served = stream::try_connect(address).and_then(|mut client| {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answer = [0; 5];
        client.write_all(b"hello")?;
        client.read_exact(&mut answer)?;
        Ok((client, answer))
    });
    match served {
        Ok((client, answer)) => {
            assert_eq!(&answer, b"hello");
            Some(client)
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("neither served nor reset: {error}"),
    }
}

/// Sets the soft limit of a running process.
fn set_files_limit(ringway: &Ringway, soft: &str) -> Result<(), String> {
    let output = Command::new("prlimit")
        .args([
            "--pid",
            &ringway.pid().to_string(),
            &format!("--nofile={soft}:"),
        ])
        .output()
        .map_err(|error| format!("the program prlimit: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}
