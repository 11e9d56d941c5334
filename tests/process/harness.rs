//! What every test needs to run the real binary: start it, read its log, ask for its counters, stop it, and look at the
//! process from outside. The parts: [`backend`] (small backends on threads), [`datagram`] (the same for UDP),
//! [`stream`] (how a connection ended, patterns that verify order), [`load`] (busy sessions and their latencies),
//! [`namespace`] (network namespaces), [`facts`] (what `/proc` says).
//!
//! It can be shared with another test or bench crate by `#[path = "../process/harness.rs"] #[macro_use] mod harness;`.
#![allow(
    dead_code,
    reason = "each crate that shares the harness uses another part of it"
)]

#[path = "harness/backend.rs"]
pub mod backend;
#[path = "harness/datagram.rs"]
pub mod datagram;
#[path = "harness/facts.rs"]
pub mod facts;
#[path = "harness/http.rs"]
pub mod http;
#[path = "harness/load.rs"]
pub mod load;
#[path = "harness/namespace.rs"]
pub mod namespace;
#[path = "harness/stream.rs"]
pub mod stream;

use std::ffi::OsString;
use std::fmt::{Debug, Display};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything may take that should take no time at all, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// The two ways of receiving that the binary has; the second is for kernels without byte-limited multishot receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Limited,
    Single,
}

impl Tier {
    pub fn argument(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Single => "single",
        }
    }
}

/// Makes two tests of each function that takes a [`Tier`]: `name::limited` and `name::single`.
#[allow(
    unused_macros,
    reason = "each crate that shares the harness uses another part of it"
)]
macro_rules! both_tiers {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn limited() {
                super::$name($crate::harness::Tier::Limited);
            }

            #[test]
            fn single() {
                super::$name($crate::harness::Tier::Single);
            }
        }
    )+};
}

/// The admin socket of each process, in its own folder.
const ADMIN_SOCKET: &str = "admin.sock";

/// How to start the binary.
pub struct Launch {
    arguments: Vec<String>,
    config: Option<String>,
    tier: Tier,
    files_limit: Option<u64>,
    user: Option<u32>,
    own_socket: bool,
    open_folder: bool,
    under: Vec<String>,
    environment: Vec<(String, OsString)>,
}

impl Launch {
    /// One listener on a free port in front of these backends.
    pub fn to<A: Display>(backends: impl IntoIterator<Item = A>) -> Self {
        Self::listening("127.0.0.1:0", backends)
    }

    /// One listener in front of these backends, which are not probed.
    pub fn listening<A: Display>(listen: &str, backends: impl IntoIterator<Item = A>) -> Self {
        let backends: Vec<String> = backends
            .into_iter()
            .map(|backend| format!("\"{backend}\""))
            .collect();
        Self::config(format!(
            "listeners: [{{bind: \"{listen}\", pool: default}}]\n\
             pools: {{default: [{}]}}\n",
            backends.join(", ")
        ))
    }

    /// Clients are let in even when no backend is usable, for the forms with one listener in front of `default`.
    pub fn resetting_when_empty(mut self) -> Self {
        let reset =
            |text: String| text.replacen("pool: default", "pool: default, when_empty: reset", 1);
        self.config = self.config.map(reset);
        self
    }

    /// `run --listen 127.0.0.1:0 --to ...`, which are probed.
    pub fn flags<A: Display>(backends: impl IntoIterator<Item = A>) -> Self {
        let mut arguments = vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()];
        for backend in backends {
            arguments.extend(["--to".to_owned(), backend.to_string()]);
        }
        Self {
            arguments,
            config: None,
            tier: Tier::Limited,
            files_limit: None,
            user: None,
            own_socket: true,
            open_folder: false,
            under: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// `run -c FILE`, with the text in a file of a temporary folder. Unless it says otherwise, backends are not probed
    /// and take turns, so that a test sees its own connections only, where it expects them.
    pub fn config(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.contains("probe") {
            text.push_str("defaults: {pool: {probe: none, balance: round_robin}}\n");
        }
        Self {
            arguments: Vec::new(),
            config: Some(text),
            tier: Tier::Limited,
            files_limit: None,
            user: None,
            own_socket: true,
            open_folder: false,
            under: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// Further arguments after those of the form.
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// RLIMIT_NOFILE of the process, soft and hard.
    pub fn files_limit(mut self, limit: u64) -> Self {
        self.files_limit = Some(limit);
        self
    }

    /// The arguments or the file say where the admin socket is.
    pub fn without_own_socket(mut self) -> Self {
        self.own_socket = false;
        self
    }

    /// Anybody may write in its folder.
    pub fn open_folder(mut self) -> Self {
        self.open_folder = true;
        self
    }

    /// A program with its arguments that changes something and then becomes the binary.
    pub fn under(mut self, program: Vec<String>) -> Self {
        self.under = program;
        self
    }

    /// A variable of its environment.
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs as this user and group; the caller must be root.
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Starts it and waits until it is ready; panics with its log when it does not get there.
    #[track_caller]
    pub fn start(self) -> Ringway {
        let mut ringway = self.spawn();
        ringway.wait_ready();
        ringway
    }

    /// Starts it, expecting that it ends by itself; its exit code and log.
    #[track_caller]
    pub fn run_to_end(self) -> (Option<i32>, String) {
        let mut ringway = self.spawn();
        let status = ringway.wait_exit(SOON);
        (status.code(), ringway.log.text())
    }

    /// Starts it without waiting for anything.
    pub fn spawn(self) -> Ringway {
        let folder = Folder::new();
        if self.open_folder {
            folder.open();
        }
        let mut command = self.command(&folder);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        Ringway {
            child,
            log,
            folder,
            exited: None,
        }
    }

    fn command(&self, folder: &Folder) -> Command {
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_ringway"));
        if self.user.is_some() || !self.under.is_empty() {
            // The build folder may be closed to other users.
            let copy = folder.path().join("ringway");
            std::fs::copy(&binary, &copy).expect("the binary can be copied");
            binary = copy;
        }
        let mut command = match (self.files_limit, self.under.split_first()) {
            (None, None) => Command::new(&binary),
            (None, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&binary);
                command
            }
            (Some(limit), _) => {
                let mut shell = Command::new("/bin/sh");
                shell
                    .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
                    .arg(&binary);
                shell
            }
        };
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        command.args(["run", "--receive-tier", self.tier.argument()]);
        if self.own_socket {
            command
                .arg("--socket")
                .arg(folder.path().join(ADMIN_SOCKET));
        }
        if let Some(text) = &self.config {
            let file = folder.path().join("ringway.yaml");
            std::fs::write(&file, text).expect("the configuration can be written");
            command.arg("-c").arg(file);
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// A running `ringway`; killed on drop, when its log is also printed if the test is failing.
pub struct Ringway {
    child: Child,
    log: Arc<Log>,
    folder: Folder,
    exited: Option<ExitStatus>,
}

impl Ringway {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of its configuration file, removed with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.folder().join(ADMIN_SOCKET)
    }

    /// Runs another command that talks to this process: exit code, standard output, standard error.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(arguments)
            .arg("--socket")
            .arg(self.admin_socket())
            .output()
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The status as JSON.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, out, said) = self.command(&["status", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&out).expect("the status is JSON")
    }

    /// Leaves what it prints unread until what is returned is dropped.
    pub fn stop_reading(&self) -> Unread {
        self.log.leave_unread(true);
        Unread(Arc::clone(&self.log))
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The addresses that it says it listens on, as printed, with the names of their listeners.
    pub fn listeners(&self) -> Vec<(String, String)> {
        self.log
            .lines()
            .iter()
            .filter_map(|line| listening(line))
            .collect()
    }

    /// Where to connect to: the first listener.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let listeners = self.listeners();
        reachable(&listeners.first().expect("it has a listener").1)
    }

    /// Where to connect to: the first address of a named listener.
    #[track_caller]
    pub fn address_of(&self, name: &str) -> SocketAddr {
        let listeners = self.listeners();
        let listener = listeners.iter().find(|(found, _)| found == name);
        reachable(
            &listener
                .unwrap_or_else(|| panic!("no listener {name} in {listeners:?}"))
                .1,
        )
    }

    /// Connects to the first listener: no delay, and a read that waits for [`SOON`] and longer fails.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        stream::connect(self.address())
    }

    /// Asks for the counters (SIGUSR1) and waits for the answer.
    #[track_caller]
    pub fn counters(&self) -> Value {
        let seen = self
            .log
            .lines()
            .iter()
            .filter(|line| line.contains(COUNTERS))
            .count();
        self.signal(Signal::SIGUSR1);
        let line = self.log.wait(SOON, "the counters", |lines| {
            lines
                .iter()
                .filter(|line| line.contains(COUNTERS))
                .nth(seen)
                .cloned()
        });
        counters_of(&line)
    }

    /// One number of the counters; see [`number`].
    #[track_caller]
    pub fn counter(&self, path: &str) -> u64 {
        number(&self.counters(), path)
    }

    /// Waits until a counter has the value; the counters as they then are.
    #[track_caller]
    pub fn counter_becomes(&self, path: &str, expected: u64) -> Value {
        self.counters_become(&format!("{path} is {expected}"), |counters| {
            number(counters, path) == expected
        })
    }

    /// Waits until the counters are as wished; panics with the last ones. Workers count while others are read, so
    /// what is returned was read once more: all that was counted before the last one wished for is in it.
    #[track_caller]
    pub fn counters_become(&self, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let counters = self.counters();
            if wished(&counters) {
                return self.counters();
            }
            assert!(
                Instant::now() < deadline,
                "not within {SOON:?}: {what}; counters {counters}"
            );
            thread::sleep(POLL_PAUSE);
        }
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(self.exited.is_none(), "it has exited: {:?}", self.exited);
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is positive"));
        kill(pid, signal).expect("the process is still there");
    }

    /// Stops it until SIGCONT: what comes meanwhile is at hand at once when it goes on.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        eventually(SOON, "all its threads stand still", || {
            facts::stand_still(self.pid())
        });
    }

    /// Waits for a line of the log that contains the text.
    #[track_caller]
    pub fn wait_line(&self, text: &str) -> String {
        self.log.wait(SOON, text, |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        if let Some(status) = self.exited {
            return status;
        }
        let status = eventually_some(deadline, "the process exits", || {
            self.child.try_wait().expect("the child can be waited for")
        });
        self.exited = Some(status);
        self.log.wait_closed();
        status
    }

    pub fn has_exited(&mut self) -> bool {
        self.exited = self
            .exited
            .or_else(|| self.child.try_wait().expect("the child can be waited for"));
        self.exited.is_some()
    }

    /// Checks that it takes less processor time than this in two seconds in which it has nothing to do. Work that is
    /// done once (a session that is a second old gets its keepalive) and others on the machine take more: one of three
    /// intervals is enough.
    #[track_caller]
    pub fn assert_idle(&self, allowed: Duration) {
        const INTERVALS: usize = 3;
        let mut seen = Vec::new();
        for _ in 0..INTERVALS {
            let before = facts::cpu_time(self.pid());
            thread::sleep(Duration::from_secs(2));
            let used = facts::cpu_time(self.pid()) - before;
            println!("{used:?} of processor time in two idle seconds");
            if used < allowed {
                return;
            }
            seen.push(used);
        }
        panic!("it took {seen:?} of processor time in each two idle seconds");
    }

    /// Stops it gracefully (SIGTERM), requires exit code 0; its last counters.
    #[track_caller]
    pub fn stop(mut self) -> Value {
        self.signal(Signal::SIGTERM);
        self.exit_in_order(SOON)
    }

    /// Waits until it has ended with exit code 0; its last counters.
    #[track_caller]
    pub fn exit_in_order(&mut self, deadline: Duration) -> Value {
        let status = self.wait_exit(deadline);
        assert_eq!(status.code(), Some(0), "exit code; {status}");
        let lines = self.log.lines();
        let last = lines
            .iter()
            .rev()
            .find(|line| line.contains(COUNTERS))
            .expect("counters on exit");
        counters_of(last)
    }

    /// The usual end of a test: nothing is left over, and it stops in order; its last counters.
    #[track_caller]
    pub fn finish(self) -> Value {
        assert_no_leaks(&self);
        self.stop()
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let deadline = Instant::now() + SOON;
        while !self.log.lines().iter().any(|line| line.contains(" ready ")) {
            let exited = self.has_exited();
            assert!(!exited, "it ended before it was ready: {:?}", self.exited);
            assert!(Instant::now() < deadline, "it was not ready in {SOON:?}");
            self.log.wait_a_little();
        }
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        if self.exited.is_none() {
            // Both fail only when it has ended by itself, which is what they are for.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            self.log.wait_closed();
            eprintln!(
                "--- log of ringway {} ---\n{}--- end of log ---",
                self.child.id(),
                self.log.tail()
            );
        }
    }
}

/// Waits until nothing is connected and checks that everything was given back: slots, buffers, pipes, spilled bytes;
/// that the kernel made no worker threads for io_uring, and that no completion came for a session that was gone.
#[track_caller]
pub fn assert_no_leaks(ringway: &Ringway) {
    let counters = ringway.counters_become(
        "all sessions, slots, buffers and pipes are given back",
        |counters| {
            let is = |path: &str| number(counters, path);
            is("sessions_active") == 0
                && is("slots_used") == 0
                && is("buffers_free") == is("buffers_total")
                && is("pipes_free") == is("pipes_total")
                && is("spill_bytes") == 0
        },
    );
    let kernel_workers: Vec<_> = facts::threads(ringway.pid())
        .into_iter()
        .filter(|name| name.starts_with("iou-wrk"))
        .collect();
    assert!(
        kernel_workers.is_empty(),
        "operations went to kernel threads: {kernel_workers:?}"
    );
    assert_eq!(
        number(&counters, "stale_completions_total"),
        0,
        "completions for sessions that were gone"
    );
    for backend in counters["backends"].as_array().expect("a list of backends") {
        assert_eq!(
            number(backend, "sessions_active"),
            0,
            "sessions of a backend: {backend}"
        );
    }
    let overflows = number(&counters, "cq_overflows_total");
    if overflows > 0 {
        println!("NOTE: the completion queue overflowed {overflows} times");
    }
}

/// A number of the counters by its path, such as `ends.client_closed`. A missing word of `ends` or `accept_errors` is
/// 0, every other missing key is an error.
#[track_caller]
pub fn number(counters: &Value, path: &str) -> u64 {
    let mut value = counters;
    for key in path.split('.') {
        value = match value.get(key) {
            Some(found) => found,
            None if path.starts_with("ends.") || path.starts_with("accept_errors.") => return 0,
            None => panic!("no {path} in counters {counters}"),
        };
    }
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{path} is not a number but {value}"))
}

/// All ends, whatever their reason.
#[track_caller]
pub fn ends_total(counters: &Value) -> u64 {
    let ends = counters["ends"].as_object().expect("a map of ends");
    ends.values()
        .map(|count| count.as_u64().expect("a count"))
        .sum()
}

/// Checks that the counters know of these ends and of no others.
#[track_caller]
pub fn assert_ends(counters: &Value, expected: &[(&str, u64)]) {
    let ends = counters["ends"].as_object().expect("a map of ends");
    let mut found: Vec<(&str, u64)> = ends
        .iter()
        .map(|(reason, count)| (reason.as_str(), count.as_u64().expect("a count")))
        .collect();
    found.retain(|(_, count)| *count > 0);
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "reasons of the ends");
}

/// A configuration of one listener on a free port and one pool; both texts are the inside of a flow mapping.
pub fn one_pool(global: &str, pool: &str) -> String {
    format!(
        "global: {{{global}}}\nlisteners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}]\npools: {{p: {{{pool}}}}}\n"
    )
}

/// Polls until the condition holds; panics with `what` at the deadline.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    eventually_some(deadline, what, || holds().then_some(()));
}

/// Polls until there is a value; panics with `what` at the deadline.
#[track_caller]
pub fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(POLL_PAUSE);
    }
}

/// A port of 127.0.0.1 that nothing listens on: connecting to it is refused.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The address of [`free_port`]: connects are refused until something listens there.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// An address that refuses connects to the end of the test.
///
/// Bound for the life of the test, but not listening, so that nobody else gets the port.
pub fn refusing_address() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("there are file descriptors");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("there are ports");
    let address = socket.local_addr().expect("a bound socket has an address");
    std::mem::forget(socket);
    address.as_socket().expect("an IPv4 address")
}

/// Raises the limit of open files of this process as far as it goes; the new limit.
pub fn raise_files_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .expect("the soft limit may be raised to the hard one");
    hard
}

/// Says that a test did not run, and why; panics where every test has to run.
pub fn skip(reason: &str) {
    let required = std::env::var_os("RINGWAY_TESTS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "this test has to run but cannot: {reason}");
    println!("SKIPPED: {reason}");
}

/// A temporary folder that is removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ringway-test-{}-{number}", std::process::id()));
        // A process of the same number may have been killed before it could clean up.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Anybody may write in it from now on.
    pub fn open(&self) {
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&self.0, mode).expect("it is ours");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary folders.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const POLL_PAUSE: Duration = Duration::from_millis(5);
const COUNTERS: &str = "counters {";

/// The lines that the process has printed, and who waits for more.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    open: usize,
    is_left_unread: bool,
}

/// While it is there, nobody reads what the process prints.
pub struct Unread(Arc<Log>);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.leave_unread(false);
    }
}

impl Log {
    /// Reads lines on a thread of its own until the process closes the stream.
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        self.state.lock().expect("no reader panics").open += 1;
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                let mut state = log.state.lock().expect("no reader panics");
                while state.is_left_unread {
                    state = log.changed.wait(state).expect("no reader panics");
                }
                state
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
                drop(state);
                log.changed.notify_all();
            }
            log.state.lock().expect("no reader panics").open -= 1;
            log.changed.notify_all();
        });
    }

    fn leave_unread(&self, is_left_unread: bool) {
        self.state.lock().expect("no reader panics").is_left_unread = is_left_unread;
        self.changed.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.state.lock().expect("no reader panics").lines.clone()
    }

    fn text(&self) -> String {
        self.lines()
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// The last lines only, with only the last of the counters.
    fn tail(&self) -> String {
        let lines = self.lines();
        let counters = lines.iter().rposition(|line| line.contains(COUNTERS));
        let wanted: Vec<_> = lines
            .iter()
            .enumerate()
            .filter(|(at, line)| !line.contains(COUNTERS) || Some(*at) == counters)
            .collect();
        wanted
            .iter()
            .skip(wanted.len().saturating_sub(200))
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }

    #[track_caller]
    fn wait<T>(&self, deadline: Duration, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let end = Instant::now() + deadline;
        let mut state = self.state.lock().expect("no reader panics");
        loop {
            if let Some(found) = find(&state.lines) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && state.open > 0,
                "not printed within {deadline:?} or before the end: {what}"
            );
            state = self
                .changed
                .wait_timeout(state, left)
                .expect("no reader panics")
                .0;
        }
    }

    fn wait_a_little(&self) {
        let state = self.state.lock().expect("no reader panics");
        drop(
            self.changed
                .wait_timeout(state, POLL_PAUSE)
                .expect("no reader panics"),
        );
    }

    /// Waits until everything that was printed before the exit has been read.
    fn wait_closed(&self) {
        let state = self.state.lock().expect("no reader panics");
        drop(
            self.changed
                .wait_timeout_while(state, SOON, |state| state.open > 0)
                .expect("no reader panics"),
        );
    }
}

fn listening(line: &str) -> Option<(String, String)> {
    let rest = line.split_once("listening listener=")?.1;
    let (name, rest) = rest.split_once(" address=")?;
    let address = rest.split_whitespace().next()?;
    Some((
        name.trim_matches('"').to_owned(),
        address.trim_matches('"').to_owned(),
    ))
}

/// An address of a listener as something to connect to.
#[track_caller]
fn reachable(printed: &str) -> SocketAddr {
    let mut address: SocketAddr = match printed.strip_prefix("*:") {
        Some(port) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().expect("a port"))),
        None => printed
            .parse()
            .unwrap_or_else(|error| panic!("address {printed}: {error}")),
    };
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[track_caller]
fn counters_of(line: &str) -> Value {
    let start = line.find(COUNTERS).expect("a line of counters") + COUNTERS.len() - 1;
    serde_json::from_str(&line[start..])
        .unwrap_or_else(|error| panic!("counters are not JSON: {error}: {line}"))
}

/// Joins a thread and passes its panic on.
#[track_caller]
pub fn join<T: Debug>(handle: thread::JoinHandle<T>) -> T {
    match handle.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
