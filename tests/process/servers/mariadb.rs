//! MariaDB counts connections that end before the handshake against the host that they come from, and locks that host
//! out after `max_connect_errors` of them: every client behind a balancer. What may probe it and what may not.
//!
//! It keeps such counts for hosts whose address has a name only, and never for 127.0.0.1; so the test has a network and
//! a file of hosts of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use super::program::{find, mortal, run};
use crate::harness::backend::listener_on;
use crate::harness::namespace::Namespace;
use crate::harness::{Folder, Launch, Ringway, SOON, eventually, one_pool};
use crate::probes::{becomes, health, http_on};

/// Of the database, of the balancer, and of its clients.
const HOST: &str = "10.86.0.1";
/// Longest run of a program.
const LIMIT: Duration = Duration::from_secs(60);
/// More than `max_connect_errors`, which is 100 by default.
const MANY: u64 = 200;
/// As often as the configuration lets it, for a test that has no hours.
const PACE: &str =
    "interval: 20ms, fast_interval: 20ms, down_interval: 20ms, timeout: 20ms, fall: 50";

#[test]
fn probes_over_http_let_clients_into_mariadb_and_plain_connects_lock_them_out() {
    let Some([server, client, install]) = find(["mariadbd", "mariadb", "mariadb-install-db"])
    else {
        return;
    };
    let Some(namespace) = Namespace::new("maria") else {
        return;
    };
    namespace.ip(&["address", "add", &format!("{HOST}/32"), "dev", "lo"]);
    let database = Database::install(client, &install);
    namespace.run(|| {
        let database = database.start(&server);
        database.query("create user app@'%'");
        let name = database.address.to_string();

        let healthy = Arc::new(AtomicUsize::new(200));
        let checker = http_on(listener(), &healthy);
        let http = "http: {path: /primary, host: db.example}";
        let ringway = database.balance(&format!(
            "type: http, port: {}, {http}, {PACE}",
            checker.port()
        ));
        let before = database.aborted();
        thread::sleep(Duration::from_secs(4));
        assert_eq!(database.aborted(), before, "it has noticed nothing");
        becomes(&ringway, &name, "up");
        database.ask(&ringway).expect("clients get in");
        ringway.finish();

        let ringway = database.balance(&format!("type: tcp, {PACE}"));
        database.wait_aborted(before + MANY);
        let refused = database.ask(&ringway).expect_err("locked out");
        println!("after plain connects: {}", refused.trim_end());
        assert!(refused.contains("1129"), "{refused}");
        assert_eq!(
            health(&ringway, &name)["state"],
            "up",
            "as far as this probe sees"
        );
        ringway.stop();

        // Reading the greeting first is no better, but such a probe finds out what it has done.
        database.query("flush hosts");
        let greeting = format!("type: send_expect, expect: mysql_native_password, {PACE}");
        let ringway = database.balance(&greeting);
        becomes(&ringway, &name, "up");
        let down = becomes(&ringway, &name, "down");
        assert!(
            down["why"].as_str().unwrap().contains("is blocked"),
            "{down}"
        );

        // What the warning of the configuration advises.
        database.query("set global host_cache_size = 0");
        becomes(&ringway, &name, "up");
        database.wait_aborted(database.aborted() + MANY);
        database.ask(&ringway).expect("clients get in");
        assert_eq!(health(&ringway, &name)["state"], "up");
        ringway.stop();
    });
}

fn listener() -> TcpListener {
    listener_on(SocketAddr::new(HOST.parse().unwrap(), 0), 128)
}

struct Database {
    folder: Folder,
    client: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

impl Database {
    fn install(client: PathBuf, install: &Path) -> Database {
        let folder = Folder::new();
        let mut command = Command::new(install);
        let data = format!("--datadir={}", folder.path().join("data").display());
        command.args(["--no-defaults", "--user=root", "--skip-test-db", &data]);
        run(
            command.arg("--auth-root-authentication-method=normal"),
            LIMIT,
        );
        Database {
            folder,
            client,
            address: SocketAddr::new(HOST.parse().unwrap(), 0),
            process: None,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// With a file of hosts in which this host has a name, which nobody else sees.
    fn start(mut self, server: &Path) -> Database {
        // The namespace is ours: nobody else takes the port.
        self.address = listener().local_addr().unwrap();
        let folder = self.folder.path();
        let hosts = folder.join("hosts");
        fs::write(
            &hosts,
            format!("127.0.0.1 localhost\n{HOST} balancer.example\n"),
        )
        .unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = mortal("unshare".as_ref());
        command.args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        ]);
        command
            .arg(&hosts)
            .arg(server)
            .args(["--no-defaults", "--user=root"]);
        command.arg(format!("--datadir={}", folder.join("data").display()));
        command.arg(format!("--socket={}", self.socket().display()));
        command.arg(format!("--pid-file={}", folder.join("pid").display()));
        command.arg(format!("--bind-address={HOST}"));
        command.arg(format!("--port={}", self.address.port()));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
        eventually(SOON, "the database answers", || {
            self.run_client(&["--execute", "select 1"]).status.success()
        });
        self
    }

    fn run_client(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.client);
        command.args(["--no-defaults", "--batch", "--skip-column-names"]);
        command.arg(format!("--socket={}", self.socket().display()));
        command
            .args(["--user=root"])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// As its own root, past the balancer.
    #[track_caller]
    fn query(&self, text: &str) -> String {
        let output = self.run_client(&["--execute", text]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Connections that ended before they were through.
    fn aborted(&self) -> u64 {
        let line = self.query("show global status like 'Aborted_connects'");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[track_caller]
    fn wait_aborted(&self, count: u64) {
        eventually(SOON, "it counts the probes", || self.aborted() >= count);
    }

    fn balance(&self, probe: &str) -> Ringway {
        let pool = format!("probe: {{{probe}}}, backends: [\"{}\"]", self.address);
        Launch::config(one_pool("workers: 2", &pool)).start()
    }

    /// As a client of the balancer; what was wrong otherwise.
    fn ask(&self, ringway: &Ringway) -> Result<(), String> {
        let mut command = Command::new(&self.client);
        command.args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--user=app",
        ]);
        command.args(["--host", "127.0.0.1", "--execute", "select 1"]);
        let port = ringway.address().port().to_string();
        let output = command.args(["--port", &port]).output().unwrap();
        if output.status.success() {
            assert_eq!(output.stdout, b"1\n");
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- log of the database ---\n{}", log.unwrap_or_default());
        }
        if let Some(mut process) = self.process.take() {
            // Both fail only when it has ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
