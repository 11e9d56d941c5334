//! The whole: two Ringways with a virtual IP in front of two PostgreSQL servers, and pgbench, whose clients connect
//! again and again.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::harness::{Folder, Ringway, SOON, eventually, eventually_some};
use crate::lan::{Lan, VIP};
use crate::node::{router, start, states};
use crate::program::{find, mortal, run};

const LIMIT: Duration = Duration::from_secs(60);

/// A PostgreSQL on a node, killed on drop.
struct Database {
    child: Child,
}

struct Files {
    folder: Folder,
    postgres: PathBuf,
    user: User,
}

impl Files {
    fn make() -> Option<Files> {
        let [initdb, postgres] = find(["initdb", "postgres"])?;
        let Some(user) = User::from_name("postgres").unwrap() else {
            crate::harness::skip("there is no user postgres to run the server as");
            return None;
        };
        let folder = Folder::new();
        chown(
            folder.path(),
            Some(user.uid.as_raw()),
            Some(user.gid.as_raw()),
        )
        .unwrap();
        let files = Files {
            folder,
            postgres,
            user,
        };
        let mut command = files.as_server(Command::new("setpriv"), &initdb);
        command.args([
            "--auth",
            "trust",
            "--username",
            "postgres",
            "--no-sync",
            "--pgdata",
        ]);
        run(command.arg(files.data()), LIMIT);
        let rules = files.data().join("pg_hba.conf");
        let mut text = std::fs::read_to_string(&rules).unwrap();
        text.push_str("host all all 10.77.0.0/24 trust\n");
        std::fs::write(&rules, text).unwrap();
        Some(files)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs as the server's user, and ends when the test does.
    fn as_server(&self, mut setpriv: Command, program: &PathBuf) -> Command {
        let (user, group) = (self.user.uid.to_string(), self.user.gid.to_string());
        setpriv.args(["--pdeathsig", "KILL", "--reuid", &user, "--regid", &group]);
        setpriv.args(["--clear-groups", "--"]).arg(program);
        setpriv
    }

    fn start(&self, lan: &Lan, number: usize) -> Database {
        // A server that was killed leaves it.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", lan.node(number).name(), "setpriv"]);
        let mut command = self.as_server(inside, &self.postgres);
        let address = format!("10.77.0.{number}");
        command.arg("-D").arg(self.data());
        command.args(["-h", &address, "-p", "5432", "-k", "", "-c", "fsync=off"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Database { child }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// pgbench through the virtual address: a new connection for each transaction, and the end with the first that fails.
fn pgbench(program: &Path) -> bool {
    let mut command = mortal(program);
    command.args(["--host", VIP, "--username", "postgres", "--no-vacuum"]);
    command.args(["--connect", "--client", "2", "--transactions", "3"]);
    command.args(["--file", "-", "postgres"]);
    // Who waits for a node that is gone asks again.
    command.env("PGCONNECT_TIMEOUT", "2");
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.stdin(Stdio::piped()).spawn().unwrap();
    let mut script = child.stdin.take().unwrap();
    script.write_all(b"select 1;\n").unwrap();
    drop(script);
    child.wait().unwrap().success()
}

/// Clients on the third node that run pgbench again and again.
struct Clients {
    is_over: Arc<AtomicBool>,
    /// When each run began and ended, and whether it went well.
    runs: Arc<Mutex<Vec<(Instant, Instant, bool)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    fn start(lan: &Lan, program: &Path) -> Clients {
        let is_over = Arc::new(AtomicBool::new(false));
        let runs: Arc<Mutex<Vec<_>>> = Arc::default();
        let (end, into) = (Arc::clone(&is_over), Arc::clone(&runs));
        let program = program.to_owned();
        let thread = lan.node(3).run(|| {
            std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let is_well = pgbench(&program);
                    into.lock().unwrap().push((began, Instant::now(), is_well));
                }
            })
        });
        Clients {
            is_over,
            runs,
            thread: Some(thread),
        }
    }

    /// How long after a moment the first run that began later has gone well.
    #[track_caller]
    fn served_after(&self, moment: Instant, what: &str) -> Duration {
        eventually_some(SOON, what, || {
            let runs = self.runs.lock().unwrap();
            let mut later = runs.iter().filter(|(began, ..)| *began > moment);
            let first = later.find(|(.., is_well)| *is_well);
            first.map(|(_, ended, _)| *ended - moment)
        })
    }

    fn counts(&self) -> (usize, usize) {
        let runs = self.runs.lock().unwrap();
        let well = runs.iter().filter(|(.., is_well)| *is_well).count();
        (well, runs.len() - well)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn file(priority: u8) -> String {
    format!(
        "global: {{workers: 1, drain_timeout: 1s}}\n\
         listeners: [{{name: in, bind: \"10.77.0.100:5432\", pool: pg}}]\n\
         pools: {{pg: {{backends: [\"10.77.0.4:5432\", \"10.77.0.5:5432\"], slow_start: none, \
         probe: {{interval: 200ms, fast_interval: 100ms, down_interval: 200ms, timeout: 200ms, rise: 2, fall: 2}}}}}}\n\
         vrrp: [{{name: vip, interface: eth0, vrid: 51, addresses: 10.77.0.100/32, priority: {priority}, \
         preempt_delay: 1s, track: {{pools: [pg]}}}}]\n"
    )
}

#[test]
fn databases_last_then_all_of_them_away_and_a_node_killed_under_pgbench() {
    let Some(lan) = Lan::new("whole", 5) else {
        return;
    };
    let (Some(one), Some(two), Some([program])) = (Files::make(), Files::make(), find(["pgbench"]))
    else {
        return;
    };
    let mut nodes = [
        Some(start(&lan, 1, &file(254))),
        Some(start(&lan, 2, &file(250))),
    ];
    eventually(SOON, "a node holds the address without a database", || {
        lan.holders(VIP).len() == 1
    });
    let served = |what: &str| {
        lan.node(3)
            .run(|| eventually(SOON, what, || pgbench(&program)))
    };
    let databases = [one.start(&lan, 4), two.start(&lan, 5)];
    served("the databases came last, and clients are served");

    let are_well = |nodes: &[Option<Ringway>], are_well: bool| {
        let all = nodes.iter().flatten();
        let each = all.map(|node| router(node, "vip")["fault"].is_null());
        each.into_iter().all(|is_well| is_well == are_well)
    };
    eventually(SOON, "both nodes know their backends", || {
        are_well(&nodes, true)
    });
    let active = lan.holders(VIP)[0];
    let before: Vec<Vec<String>> = nodes.iter().flatten().map(states).collect();
    drop(databases);
    eventually(SOON, "both nodes are without a database", || {
        are_well(&nodes, false)
    });
    let address: SocketAddr = format!("{VIP}:5432").parse().unwrap();
    lan.node(3).run(|| {
        eventually(SOON, "clients are refused at once", || {
            let result = TcpStream::connect_timeout(&address, Duration::from_millis(100));
            result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
    });
    assert_eq!(lan.holders(VIP), [active], "the address stays");
    let databases = [one.start(&lan, 4), two.start(&lan, 5)];
    served("everything returns by itself");
    eventually(SOON, "both nodes are well again", || are_well(&nodes, true));
    assert_eq!(lan.holders(VIP), [active]);
    let after: Vec<Vec<String>> = nodes.iter().flatten().map(states).collect();
    assert_eq!(after, before, "nothing has moved");

    let clients = Clients::start(&lan, &program);
    clients.served_after(Instant::now(), "pgbench runs");
    let mut killed = nodes[active - 1].take().unwrap();
    let from = Instant::now();
    killed.signal(Signal::SIGKILL);
    killed.wait_exit(SOON);
    let after = clients.served_after(from, "somebody serves after a kill");
    println!("kill -9 of the active node: pgbench runs again after {after:?}");
    assert!(after < Duration::from_secs(3), "{after:?}");
    lan.moves_to(3 - active, VIP);
    clients.served_after(Instant::now(), "it goes on");
    let (well, failed) = clients.counts();
    println!("{well} runs went well, {failed} failed");
    drop(clients);
    drop(databases);
}
