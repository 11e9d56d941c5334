//! The whole: two Ringways with a virtual IP in front of two PostgreSQL servers, and a client that connects again and
//! again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::harness::{Folder, Ringway, SOON, eventually};
use crate::lan::{Lan, VIP};
use crate::node::{router, start, state};
use crate::program::{find, run};

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

/// One connect and login through the virtual address.
fn log_in() -> std::io::Result<()> {
    let address: SocketAddr = format!("{VIP}:5432").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(100))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let words = b"user\0postgres\0database\0postgres\0\0";
    let len = u32::try_from(8 + words.len()).unwrap();
    let hello = [&len.to_be_bytes()[..], &196_608_u32.to_be_bytes(), words].concat();
    stream.write_all(&hello)?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut rest = vec![0; len - 4];
        stream.read_exact(&mut rest)?;
        match head[0] {
            b'Z' => return Ok(()),
            b'E' => {
                return Err(std::io::Error::other(
                    String::from_utf8_lossy(&rest).into_owned(),
                ));
            }
            _ => {}
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
fn databases_last_a_node_killed_and_all_databases_away() {
    let Some(lan) = Lan::new("whole", 5) else {
        return;
    };
    let (Some(one), Some(two)) = (Files::make(), Files::make()) else {
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
            .run(|| eventually(SOON, what, || log_in().is_ok()))
    };
    let databases = [one.start(&lan, 4), two.start(&lan, 5)];
    served("the databases came last, and clients are served");

    let is_well = |node: &Ringway| router(node, "vip")["fault"].is_null();
    eventually(SOON, "both nodes know their backends", || {
        nodes.iter().flatten().all(is_well)
    });
    let active = lan.holders(VIP)[0];
    let mut killed = nodes[active - 1].take().unwrap();
    let from = Instant::now();
    killed.signal(Signal::SIGKILL);
    killed.wait_exit(SOON);
    let after = lan.node(3).run(|| {
        loop {
            if log_in().is_ok() {
                return from.elapsed();
            }
            assert!(from.elapsed() < SOON, "nobody serves after a kill");
        }
    });
    println!("kill -9 of the active node: a client is served again after {after:?}");
    assert!(after < Duration::from_secs(3), "{after:?}");
    let other = 3 - active;
    lan.moves_to(other, VIP);

    drop(databases);
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    lan.node(3).run(|| {
        eventually(SOON, "clients are refused at once", || {
            log_in().is_err_and(refused)
        });
    });
    let left = nodes.iter().flatten().next().unwrap();
    assert_eq!(state(left), "active", "the address stays");
    assert_eq!(lan.holders(VIP), [other]);
    let _again = [one.start(&lan, 4), two.start(&lan, 5)];
    served("everything returns by itself");
    assert_eq!(state(left), "active");
}
