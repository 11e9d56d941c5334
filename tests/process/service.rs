//! The process as a service: what it tells whoever started it, by a notification socket of the test's own; the unit and
//! the package.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::backend::{Backend, FullBacklog};
use crate::harness::{Folder, Launch, Ringway, SOON, facts, skip, stream};
use crate::servers::program::{self, find};

/// Stands in for the service manager.
struct Manager {
    folder: Folder,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { folder, socket }
    }

    /// Starts it with this watchdog.
    fn spawn(&self, launch: Launch, watchdog: Duration) -> Ringway {
        let socket = self.folder.path().join("notify");
        launch
            .environment("NOTIFY_SOCKET", socket)
            .environment("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .spawn()
    }

    /// What it is told next, if that is soon enough.
    fn told(&self, patience: Duration) -> Option<String> {
        let mut text = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        match self.socket.recv(&mut text) {
            Ok(len) => Some(String::from_utf8(text[..len].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until it is told something that contains this; everything that it was told until then.
    #[track_caller]
    fn wait(&self, wanted: &str) -> Vec<String> {
        let (mut all, end) = (Vec::new(), Instant::now() + SOON);
        while !all
            .last()
            .is_some_and(|last: &String| last.contains(wanted))
        {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not told: {wanted}; but {all:?}");
            all.extend(self.told(left.max(Duration::from_millis(1))));
        }
        all
    }

    /// For so long: the longest time without a word of the watchdog.
    fn longest_silence(&self, time: Duration) -> Duration {
        let end = Instant::now() + time;
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while Instant::now() < end {
            let told = self.told(Duration::from_millis(10));
            let now = Instant::now();
            longest = longest.max(now - last);
            if told.is_some_and(|told| told.contains("WATCHDOG=1")) {
                last = now;
            }
        }
        longest
    }
}

/// A probe of a backend whose backlog is full takes all its time, and so does the first round.
#[test]
fn the_service_manager_is_told_when_clients_are_let_in_how_it_is_and_when_it_stops() {
    let (slow, backend, manager) = (FullBacklog::new(), Backend::echo(), Manager::new());
    let launch = Launch::config(format!(
        "listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: {{probe: {{interval: 4s, timeout: 2s}}, backends: [\
         {{name: b, address: \"{}\"}}, {{name: slow, address: \"{}\", weight: 0}}]}}}}\n",
        backend.address(),
        slow.address()
    ));
    let begun = Instant::now();
    let mut ringway = manager.spawn(launch, Duration::from_secs(2));
    let told = manager.wait("READY=1");
    let after = begun.elapsed();
    assert!(
        after > Duration::from_millis(1900),
        "nobody was let in yet: {after:?}"
    );
    ringway.wait_line("listening listener=");
    // No pause: whoever is started after it can connect.
    let mut client = ringway.connect();
    stream::exchange(&mut client, b"hello");
    let status = |told: &[String], text: &str| {
        let mut all = told.iter().filter(|one| one.starts_with("STATUS="));
        all.any(|one| one.contains(text))
    };
    assert!(status(&told, "serving: 0 of "), "{told:?}");
    let told = manager.wait("serving: 1 of ");
    assert!(!told.iter().any(|one| one.contains("STOPPING")), "{told:?}");
    let (code, _, said) = ringway.command(&["backend", "p/b", "drain"]);
    assert_eq!(code, Some(0), "{said}");
    manager.wait("0 of 2 backends usable; pool p has none");
    ringway.signal(Signal::SIGTERM);
    manager.wait("STOPPING=1");
    // A session is left, however long that takes.
    manager.wait("EXTEND_TIMEOUT_USEC=30000000");
    manager.wait("EXTEND_TIMEOUT_USEC=30000000");
    stream::exchange(&mut client, b"still there");
    drop(client);
    assert_eq!(ringway.wait_exit(SOON).code(), Some(0));
}

#[test]
fn the_watchdog_runs_out_when_a_worker_or_control_stands_still_and_only_then() {
    const WATCHDOG: Duration = Duration::from_secs(2);
    let (backend, manager) = (Backend::echo(), Manager::new());
    let Some(freezer) = program::freezer(manager.folder.path()) else {
        return;
    };
    let launch = Launch::to([backend.address()]);
    let ringway = manager.spawn(launch, WATCHDOG);
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    let idle = manager.longest_silence(WATCHDOG * 2);
    assert!(idle < WATCHDOG, "nothing is wrong, but {idle:?}");
    for name in ["worker-0", "ringway"] {
        let thread = facts::thread_named(ringway.pid(), name);
        let mut child = program::freeze(&freezer, thread, Duration::from_secs(5));
        let silence = manager.longest_silence(Duration::from_secs(6));
        println!("{name} stood still for 5 s: silence of {silence:?}");
        assert!(silence > WATCHDOG, "{name} stands still: {silence:?}");
        assert!(child.wait().unwrap().success());
        manager.wait("WATCHDOG=1");
    }
    let log = ringway.log();
    assert!(log.contains("worker 0 has done nothing"), "{log}");
    ringway.finish();
}

#[test]
fn a_service_manager_that_takes_nothing_keeps_nobody_waiting() {
    let (backend, manager) = (Backend::echo(), Manager::new());
    let launch = Launch::to([backend.address()]);
    let mut ringway = manager.spawn(launch, Duration::from_millis(40));
    ringway.wait_line(" ready ");
    // A hundred times as much as fits into a socket that nobody reads.
    std::thread::sleep(Duration::from_secs(5));
    stream::exchange(&mut ringway.connect(), b"hello");
    let stopped = Instant::now();
    ringway.signal(Signal::SIGTERM);
    ringway.exit_in_order(SOON);
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// The unit with the binary of this build.
fn unit(folder: &Folder) -> std::path::PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ringway.service");
    let text = std::fs::read_to_string(own).unwrap();
    let text = text.replace("/usr/bin/ringway", env!("CARGO_BIN_EXE_ringway"));
    // The page is there once it is installed.
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("Documentation="));
    let path = folder.path().join("ringway.service");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn the_unit_is_valid_and_has_no_more_rights_than_it_says() {
    let Some([analyze]) = find(["systemd-analyze"]) else {
        return;
    };
    let folder = Folder::new();
    let unit = unit(&folder);
    let output = Command::new(&analyze)
        .arg("verify")
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // Some machines have no units at all to start it with.
    let about_it = said
        .lines()
        .filter(|line| !line.contains("Unit sysinit.target not found"));
    assert_eq!(about_it.collect::<Vec<_>>(), Vec::<&str>::new());
    let mut security = Command::new(&analyze);
    let output = security
        .args(["security", "--offline=true"])
        .arg(&unit)
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let Some((_, rest)) = table.split_once("Overall exposure level for ringway.service: ") else {
        skip("this systemd-analyze cannot rate a unit that is not installed");
        return;
    };
    let score: f64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    println!("systemd-analyze security: {score}");
    assert!(score <= 3.0, "{table}");
}

#[test]
fn the_user_of_the_unit_is_made_and_has_its_folders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let of = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let unit = of("ringway.service");
    let (users, folders) = (of("ringway.sysusers"), of("ringway.tmpfile"));
    assert!(unit.lines().any(|line| line == "User=ringway"));
    assert!(users.lines().any(|line| line.starts_with("u ringway ")));
    for (key, folder) in [
        ("RuntimeDirectory=ringway", "/run/ringway "),
        ("StateDirectory=ringway", "/var/lib/ringway "),
        ("LogsDirectory=ringway", "/var/log/ringway "),
    ] {
        assert!(unit.lines().any(|line| line == key), "{key}");
        assert!(folders.contains(folder), "{folder}");
    }
}

/// The package in a folder of its own; the machine is not changed.
#[test]
fn the_package_has_what_a_service_needs_and_its_program_starts() {
    let Some([_, deb, _]) = find(["cargo-deb", "dpkg-deb", "dpkg-shlibdeps"]) else {
        return;
    };
    let folder = Folder::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package");
    let mut package = Command::new(script);
    package.args(["--dev", "--output"]).arg(folder.path());
    let said = program::run(&mut package, Duration::from_secs(100));
    let package = said.lines().last().unwrap().trim();
    let root = folder.path().join("root");
    program::run(Command::new(&deb).arg("-x").arg(package).arg(&root), SOON);
    program::run(
        Command::new(&deb)
            .arg("-e")
            .arg(package)
            .arg(root.join("DEBIAN")),
        SOON,
    );
    for name in [
        "usr/bin/ringway",
        "usr/lib/sysusers.d/ringway.conf",
        "usr/lib/tmpfiles.d/ringway.conf",
        "usr/share/bash-completion/completions/ringway",
        "usr/share/doc/ringway/reference.md",
        "usr/share/doc/ringway/operations.md",
        "usr/share/doc/ringway/examples/everything.yaml",
        "usr/share/doc/ringway/examples/prometheus/alerts.yaml",
        "usr/share/man/man1/ringway.1.gz",
        "usr/share/man/man1/ringway-run.1.gz",
    ] {
        assert!(root.join(name).is_file(), "{name}");
    }
    let units = ["lib/systemd/system", "usr/lib/systemd/system"];
    assert!(
        units
            .iter()
            .any(|unit| root.join(unit).join("ringway.service").is_file())
    );
    let conffiles = std::fs::read_to_string(root.join("DEBIAN/conffiles")).unwrap();
    assert_eq!(conffiles.trim(), "/etc/ringway/ringway.yaml");
    for script in ["postinst", "prerm", "postrm"] {
        let script = root.join("DEBIAN").join(script);
        program::run(Command::new("sh").arg("-n").arg(&script), SOON);
        let text = std::fs::read_to_string(script).unwrap();
        assert!(!text.contains("#DEBHELPER#"), "{text}");
    }
    starts_installed(Path::new(package), &folder);
}

/// Installs over folders that are the machine's own below and thrown away above, and becomes the service's process.
const INSTALL: &str = "set -e
mount -t tmpfs tmpfs \"$1\"
for folder in etc usr var; do
    mkdir -p \"$1/$folder/upper\" \"$1/$folder/work\"
    options=lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work
    mount -t overlay overlay -o $options /$folder || exit 40
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd /run/lock
dpkg --force-depends --install \"$2\"
/usr/bin/ringway check
systemd-analyze verify ringway.service
exec /usr/bin/ringway run";

/// With the file, the user and the unit as the package installs them.
fn starts_installed(package: &Path, folder: &Folder) {
    if !nix::unistd::geteuid().is_root() {
        skip("only root can install a package");
        return;
    }
    let manager = Manager::new();
    manager.folder.open();
    let notify = manager.folder.path().join("notify");
    std::fs::set_permissions(&notify, Permissions::from_mode(0o777)).unwrap();
    let over = folder.path().join("over");
    std::fs::create_dir(&over).unwrap();
    let said = File::create(folder.path().join("said")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-c", INSTALL, "sh"]);
    command
        .arg(&over)
        .arg(package)
        .env("NOTIFY_SOCKET", &notify);
    command.stdout(said.try_clone().unwrap()).stderr(said);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + SOON * 2;
    let mut told = String::new();
    while !told.contains("READY=1") && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "{told}");
        told.push_str(&manager.told(Duration::from_millis(100)).unwrap_or_default());
    }
    let said = || std::fs::read_to_string(folder.path().join("said")).unwrap();
    if child
        .try_wait()
        .unwrap()
        .is_some_and(|status| status.code() == Some(40))
    {
        skip("no folder can be laid over another one here");
        return;
    }
    assert!(told.contains("READY=1"), "{told}{}", said());
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success(), "{}", said());
    assert!(said().contains("runs as ringway ("), "{}", said());
}
