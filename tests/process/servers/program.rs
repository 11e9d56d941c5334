//! Programs of the system: finding them, running them to their end within a time limit, and servers that listen on a
//! port until they are ended.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{SOON, eventually_some, free_port, join, skip};

/// Where a program may be but for PATH. An ordinary user's PATH lacks the second, Debian keeps PostgreSQL's servers
/// in folders of their version.
const FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/usr/lib/postgresql"];

/// The paths of the named programs, or `None` after saying why the test is skipped.
pub fn find<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found = names.map(|name| {
        folders()
            .into_iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    });
    let missing: Vec<_> = names
        .iter()
        .zip(&found)
        .filter(|(_, path)| path.is_none())
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        skip(&format!(
            "not installed: {} (scripts/test installs what the tests need)",
            missing.join(", ")
        ));
        return None;
    }
    Some(found.map(|path| path.expect("none is missing")))
}

/// A program that stops one thread of another process for a while, made in this folder; `None` after saying why not.
pub fn freezer(folder: &Path) -> Option<PathBuf> {
    let [compiler] = find(["gcc"])?;
    let freezer = folder.join("freeze_thread");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vrrp/freeze_thread.c");
    let mut compile = Command::new(compiler);
    run(compile.arg("-o").arg(&freezer).arg(source), SOON);
    Some(freezer)
}

/// Stops a thread of another process for so long, and returns once it stands still.
#[track_caller]
pub fn freeze(freezer: &Path, thread: u32, time: Duration) -> Child {
    let mut command = mortal(freezer);
    command.args([thread.to_string(), time.as_millis().to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("stdout is piped"));
    said.read_line(&mut line).expect("it says when");
    assert_eq!(line, "frozen\n");
    child
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for folder in FOLDERS {
        folders.push(folder.into());
        let versions = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    folders
}

/// A number from the environment, for longer runs by hand.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Runs a program to its end, which has to be a successful one; what it wrote to stdout.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> String {
    String::from_utf8(run_for_bytes(command, limit)).expect("the output is text")
}

/// The same for output that is no text.
#[track_caller]
pub fn run_for_bytes(command: &mut Command, limit: Duration) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = follow(child.stdout.take().expect("stdout is piped"));
    let stderr = follow(child.stderr.take().expect("stderr is piped"));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("the child can be killed");
            child.wait().expect("the child can be waited for");
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = (join(stdout), join(stderr));
    let output = format!(
        "{}\n{}",
        String::from_utf8_lossy(&stdout[..stdout.len().min(10_000)]),
        String::from_utf8_lossy(&stderr)
    );
    match status {
        None => panic!("{command:?} did not end within {limit:?}:\n{output}"),
        Some(status) => assert!(status.success(), "{command:?}: {status}\n{output}"),
    }
    stdout
}

fn follow(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// A server that listens on a port of 127.0.0.1; killed on drop.
pub struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts it on a port that is free. The closure makes the command for a port; another port is tried when somebody
    /// takes it in between.
    #[track_caller]
    pub fn start(folder: &Path, command: impl Fn(u16) -> Command) -> Self {
        for _ in 0..5 {
            let port = free_port();
            if let Ok(server) = Self::try_start(folder, port, &mut command(port), listens) {
                return server;
            }
        }
        let log = fs::read_to_string(log_of(folder)).unwrap_or_default();
        panic!("{:?} does not start:\n{log}", command(0));
    }

    /// Starts it on this port.
    #[track_caller]
    pub fn start_on(folder: &Path, port: u16, command: &mut Command) -> Self {
        Self::try_start(folder, port, command, listens)
            .unwrap_or_else(|log| panic!("{command:?} does not start:\n{log}"))
    }

    /// Starts one that takes datagrams on this port.
    #[track_caller]
    pub fn start_for_datagrams(folder: &Path, port: u16, command: &mut Command) -> Self {
        Self::try_start(folder, port, command, takes_datagrams)
            .unwrap_or_else(|log| panic!("{command:?} does not start:\n{log}"))
    }

    fn try_start(
        folder: &Path,
        port: u16,
        command: &mut Command,
        is_there: fn(u16) -> bool,
    ) -> Result<Self, String> {
        let log = log_of(folder);
        let file = fs::File::create(&log).expect("the folder can be written to");
        let errors = file.try_clone().expect("a file can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, port, log };
        let listens = eventually_some(SOON, "the server listens or ends", || {
            if is_there(server.port) {
                return Some(true);
            }
            server
                .child
                .try_wait()
                .expect("the child can be waited for")
                .map(|_| false)
        });
        if listens {
            Ok(server)
        } else {
            Err(server.log())
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- log of {} ---\n{}--- end of log ---",
                self.log.display(),
                self.log()
            );
        }
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A command that ends when the test does, even if the test is killed: with the thread that starts it, that is
/// (`PR_SET_PDEATHSIG`), so that must be one that waits for it.
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Whether somebody has this UDP port of 127.0.0.1, or of every address.
fn takes_datagrams(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/udp").expect("the kernel's list of sockets");
    let local = [
        format!("0100007F:{port:04X}"),
        format!("00000000:{port:04X}"),
    ];
    let mut bound = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    bound.any(|address| local.iter().any(|local| local == address))
}

/// Whether somebody listens on this port of 127.0.0.1, without connecting to it.
fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's list of sockets");
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(&local) && columns.nth(1) == Some(LISTEN)
    })
}
