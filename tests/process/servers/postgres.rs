//! PostgreSQL under pgbench: two servers with the same rows, and transactions that only read, so that either may
//! answer.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::unistd::{User, geteuid};

use super::program::{Server, find, run, run_for_bytes, setting};
use super::watch::Watch;
use crate::harness::{
    Folder, Launch, Ringway, SOON, Tier, eventually, number, refusing_address, skip,
};

/// Longest run of any program beside the time that it is told to take.
const LIMIT: Duration = Duration::from_secs(60);

both_tiers! {
    pgbench_has_no_failed_transaction,
}

fn pgbench_has_no_failed_transaction(tier: Tier) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let seconds = setting(
        "RINGWAY_PGBENCH_SECONDS",
        if tier == Tier::Limited { 8 } else { 3 },
    );
    let clients = setting("RINGWAY_PGBENCH_CLIENTS", 20);
    let pair = Pair::start(&programs, Encryption::Off);
    let ringway = Launch::to(pair.servers.each_ref().map(Server::address))
        .tier(tier)
        .start();
    let watch = Watch::on(&ringway);
    programs.bench(&ringway, clients, seconds, &["--protocol", "simple"]);
    programs.bench(&ringway, clients, seconds, &["--protocol", "prepared"]);
    programs.bench(&ringway, clients, seconds.min(10), &["--connect"]);
    watch.saw_no_kernel_worker();
    let counters = ringway.finish();
    let sessions = |backend| number(&counters["backends"][backend], "sessions_total");
    // Every worker goes round for itself.
    let play = number(&counters, "workers");
    assert!(
        sessions(0).abs_diff(sessions(1)) <= play,
        "round robin: {} and {} sessions",
        sessions(0),
        sessions(1)
    );
}

#[test]
fn encrypted_transactions_pass_unchanged() {
    let Some(programs) = Programs::find() else {
        return;
    };
    let pair = Pair::start(&programs, Encryption::On);
    let ringway = Launch::to(pair.servers.each_ref().map(Server::address)).start();
    let watch = Watch::on(&ringway);
    let is_encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(
        programs.query(ringway.address().port(), is_encrypted),
        b"t\n"
    );
    programs.bench(&ringway, 20, 3, &["--protocol", "simple"]);
    programs.bench(&ringway, 20, 3, &["--connect"]);
    watch.saw_no_kernel_worker();
    ringway.finish();
}

both_tiers! {
    a_large_result_passes_unchanged,
}

fn a_large_result_passes_unchanged(tier: Tier) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let pair = Pair::start(&programs, Encryption::Off);
    let ringway = Launch::to(pair.servers.each_ref().map(Server::address))
        .tier(tier)
        .start();
    let rows = "select n, repeat(md5(n::text), 32) from generate_series(1, 30000) n";
    let direct = programs.query(pair.servers[0].port(), rows);
    let balanced = programs.query(ringway.address().port(), rows);
    assert!(direct.len() > 30_000_000, "{} bytes", direct.len());
    assert!(
        direct == balanced,
        "the result differs, {} and {} bytes",
        direct.len(),
        balanced.len()
    );
    ringway.finish();
}

/// The database behind the first listener is away: the second one is asked at once.
#[test]
fn client_with_two_addresses_moves_on_when_the_first_is_refused() {
    let Some(programs) = Programs::find() else {
        return;
    };
    let pair = Pair::start(&programs, Encryption::Off);
    let ringway = Launch::config(format!(
        "listeners:\n  - {{name: away, bind: \"127.0.0.1:0\", pool: away}}\n  \
         - {{name: there, bind: \"127.0.0.1:0\", pool: there}}\n\
         pools:\n  away: {{backends: [\"{}\"], probe: {{type: tcp}}}}\n  \
         there: {{backends: [\"{}\"], probe: {{type: tcp}}}}\n",
        refusing_address(),
        pair.servers[0].address()
    ))
    .start();
    let ports = ["away", "there"].map(|name| ringway.address_of(name).port());
    let ask = |hosts: &str, ports: &str| {
        let mut command = Programs::client(&programs.psql, 0);
        command
            .env_remove("PGCONNECT_TIMEOUT")
            .args(["--host", hosts, "--port", ports]);
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]);
        let begun = Instant::now();
        let answer = run_for_bytes(command.args(["--command", "select 42", "postgres"]), LIMIT);
        assert_eq!(answer, b"42\n");
        begun.elapsed()
    };
    let shortest = |ask: &dyn Fn() -> Duration| (0..10).map(|_| ask()).min().expect("ten");
    let one = shortest(&|| ask("127.0.0.1", &ports[1].to_string()));
    let both = format!("{},{}", ports[0], ports[1]);
    let two = shortest(&|| ask("127.0.0.1,127.0.0.1", &both));
    println!("shortest of ten: {one:?} with one address, {two:?} with two");
    assert!(
        two < one + Duration::from_millis(200),
        "{two:?} with two addresses, {one:?} with one"
    );
    let counters = ringway.finish();
    assert_eq!(
        number(&counters, "sessions_total"),
        20,
        "nobody was let in by the first listener"
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Off,
    On,
}

/// Where PostgreSQL's programs are, and the user that its server runs as: it refuses to run as root.
pub(super) struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    pub(super) pgbench: PathBuf,
    psql: PathBuf,
    pg_isready: PathBuf,
    openssl: PathBuf,
    user: Option<User>,
}

impl Programs {
    pub(super) fn find() -> Option<Self> {
        let [initdb, postgres, pgbench, psql, pg_isready, openssl] = find([
            "initdb",
            "postgres",
            "pgbench",
            "psql",
            "pg_isready",
            "openssl",
        ])?;
        let user = User::from_name("postgres").expect("the list of users can be read");
        if geteuid().is_root() && user.is_none() {
            skip("there is no user postgres to run the server as");
            return None;
        }
        let user = user.filter(|_| geteuid().is_root());
        Some(Self {
            initdb,
            postgres,
            pgbench,
            psql,
            pg_isready,
            openssl,
            user,
        })
    }

    /// A command that runs as the server's user and ends when the test does.
    fn as_server(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        // Children of the server end by themselves once it is gone.
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = &self.user {
            command.args([
                "--reuid",
                &user.uid.to_string(),
                "--regid",
                &user.gid.to_string(),
                "--clear-groups",
            ]);
        }
        command.arg("--").arg(program);
        command
    }

    fn give_to_server(&self, path: &Path) {
        if let Some(user) = &self.user {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .expect("root may give files away");
        }
    }

    /// A client program that talks to the port on loopback.
    pub(super) fn client(program: &Path, port: u16) -> Command {
        let mut command = Command::new(program);
        command.args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--username",
            "postgres",
        ]);
        // A password file or options of whoever runs the tests have no place here.
        command
            .env_remove("PGOPTIONS")
            .env_remove("PGSSLMODE")
            .env("PGPASSFILE", "none");
        command
    }

    /// Makes the files of a server.
    fn prepare(&self, folder: &Path, encryption: Encryption) {
        self.give_to_server(folder);
        let data = folder.join("data");
        let mut initdb = self.as_server(&self.initdb);
        initdb.args([
            "--auth",
            "trust",
            "--username",
            "postgres",
            "--locale",
            "C",
            "--encoding",
            "UTF8",
            "--no-sync",
        ]);
        run(initdb.arg("--pgdata").arg(&data), LIMIT);
        if encryption == Encryption::On {
            self.make_certificate(&data);
        }
    }

    /// Starts a server, with pgbench's tables.
    fn start(&self, folder: &Path, encryption: Encryption) -> Server {
        let server = Server::start(folder, |port| {
            self.server(&folder.join("data"), port, encryption)
        });
        self.wait_ready(server.port());
        let mut fill = Self::client(&self.pgbench, server.port());
        run(
            fill.args(["--initialize", "--scale", "2", "--quiet", "postgres"]),
            LIMIT,
        );
        server
    }

    /// It listens before that.
    #[track_caller]
    pub(super) fn wait_ready(&self, port: u16) {
        eventually(SOON, "the server accepts transactions", || {
            let answer = Self::client(&self.pg_isready, port).arg("--quiet").status();
            answer.expect("pg_isready runs").success()
        });
    }

    pub(super) fn server(&self, data: &Path, port: u16, encryption: Encryption) -> Command {
        let mut command = self.as_server(&self.postgres);
        command
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        let ssl = if encryption == Encryption::On {
            "ssl=on"
        } else {
            "ssl=off"
        };
        for option in [
            "fsync=off",
            "max_connections=300",
            "shared_buffers=64MB",
            ssl,
        ] {
            command.args(["-c", option]);
        }
        command
    }

    /// A self-signed certificate and its key where the server looks for them.
    fn make_certificate(&self, data: &Path) {
        let (certificate, key) = (data.join("server.crt"), data.join("server.key"));
        let mut command = Command::new(&self.openssl);
        command.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        run(
            command
                .arg("-out")
                .arg(&certificate)
                .arg("-keyout")
                .arg(&key),
            LIMIT,
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the key is ours");
        self.give_to_server(&certificate);
        self.give_to_server(&key);
    }

    /// Runs pgbench through the balancer and requires that every transaction was answered.
    #[track_caller]
    pub(super) fn bench(&self, ringway: &Ringway, clients: u64, seconds: u64, options: &[&str]) {
        let before = ringway.counters();
        let mut command = Self::client(&self.pgbench, ringway.address().port());
        command.args(["--select-only", "--no-vacuum", "--jobs", "2"]);
        command
            .args([
                "--client",
                &clients.to_string(),
                "--time",
                &seconds.to_string(),
            ])
            .args(options)
            .arg("postgres");
        if self.encrypts(ringway.address().port()) {
            command.env("PGSSLMODE", "require");
        }
        let output = run(&mut command, LIMIT + Duration::from_secs(seconds));
        let value = |label: &str| {
            let line = output.lines().find_map(|line| line.strip_prefix(label));
            let word = line
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|word| word.parse::<u64>().ok());
            word.unwrap_or_else(|| panic!("{options:?}: no {label}\n{output}"))
        };
        assert_eq!(
            value("number of failed transactions:"),
            0,
            "{options:?}\n{output}"
        );
        let transactions = value("number of transactions actually processed:");
        assert!(transactions > clients, "{options:?}\n{output}");
        let sessions = ringway.counter("sessions_total") - number(&before, "sessions_total");
        let least = if options.contains(&"--connect") {
            transactions
        } else {
            clients
        };
        assert!(
            sessions >= least,
            "{options:?}: {sessions} sessions for {transactions} transactions of {clients} clients"
        );
    }

    /// Whether the server behind the port speaks TLS.
    fn encrypts(&self, port: u16) -> bool {
        self.query(port, "show ssl") == b"on\n"
    }

    pub(super) fn query(&self, port: u16, text: &str) -> Vec<u8> {
        let mut command = Self::client(&self.psql, port);
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--command",
            text,
            "postgres",
        ]);
        run_for_bytes(&mut command, LIMIT)
    }
}

/// Two servers that answer the same; the folders go after them.
pub(super) struct Pair {
    pub(super) servers: [Server; 2],
    pub(super) folders: [Folder; 2],
}

impl Pair {
    pub(super) fn start(programs: &Programs, encryption: Encryption) -> Self {
        let folders = [Folder::new(), Folder::new()];
        thread::scope(|scope| {
            for folder in &folders {
                scope.spawn(|| programs.prepare(folder.path(), encryption));
            }
        });
        // Not on the threads above: a server ends with the thread that has started it.
        let servers = folders
            .each_ref()
            .map(|folder| programs.start(folder.path(), encryption));
        Self { servers, folders }
    }
}
