//! Started as root with `global.user`: what is left of root, and that everything goes on without it. Needs root.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::backend::Backend;
use crate::harness::namespace::Namespace;
use crate::harness::{Folder, Launch, Ringway, SOON, eventually, facts, skip, stream};

/// Debian's `nobody`.
const NOBODY: &str = "65534";
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("only root can become another user");
    }
    is_root
}

/// A set of capabilities of one of its threads.
fn capabilities(ringway: &Ringway, thread: &str, set: &str) -> u64 {
    let thread = facts::thread_named(ringway.pid(), thread);
    facts::capabilities(ringway.pid(), thread, set)
}

/// Every thread is somebody else, and control has these capabilities.
#[track_caller]
fn assert_dropped(ringway: &Ringway, kept: u64) {
    let (pid, kept) = (ringway.pid(), facts::own_of(kept));
    let four = [NOBODY; 4].join("\t");
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let id = thread
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(facts::status_of(pid, id, "Uid"), four);
        assert_eq!(facts::status_of(pid, id, "Gid"), four);
    }
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(capabilities(ringway, "ringway", set), kept, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(capabilities(ringway, "ringway", set), 0, "{set}");
    }
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(
            capabilities(ringway, "worker-0", set),
            0,
            "{set} of a worker"
        );
        assert_eq!(
            capabilities(ringway, "prober", set),
            0,
            "{set} of the prober"
        );
    }
}

fn config(bind: &str, backend: impl std::fmt::Display, more: &str) -> String {
    format!(
        "global: {{user: nobody, workers: 1, drain_timeout: 1s}}\n\
         listeners: [{{name: in, bind: \"{bind}\", pool: p}}]\n\
         pools: {{p: {{probe: tcp, backends: [{{name: b, address: \"{backend}\"}}]}}}}\n{more}\n"
    )
}

#[test]
fn relay_admin_state_file_and_access_log_work_without_root() {
    if !is_root() {
        return;
    }
    let (backend, folder) = (Backend::echo(), Folder::new());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let more = format!(
        "admin: {{state_file: {}, metrics: \"127.0.0.1:0\"}}\nlog: {{access: {}}}",
        path("state/state.json"),
        path("log/access.log")
    );
    let launch = Launch::config(config("127.0.0.1:0", backend.address(), &more));
    let ringway = launch.open_folder().start();
    let line = ringway.wait_line("runs as nobody (65534)");
    let has_all = facts::own_of(CAP_SYS_RESOURCE) != 0;
    let kept = if has_all {
        "CAP_SYS_RESOURCE"
    } else {
        "no capabilities"
    };
    assert!(line.contains(&format!("with {kept}; ")), "{line}");
    assert_dropped(&ringway, CAP_SYS_RESOURCE);
    stream::exchange(&mut ringway.connect(), &vec![b'x'; 3 << 20]);
    for word in ["drain", "ready"] {
        let (code, _, said) = ringway.command(&["backend", "p/b", word]);
        assert_eq!(code, Some(0), "{said}");
    }
    for name in ["state/state.json", "log/access.log"] {
        let file = folder.path().join(name);
        eventually(SOON, name, || file.exists());
    }
    // What `/proc` tells of a process that changed its user is still there for itself.
    let metrics = ringway.get("/metrics").body;
    for metric in [
        "process_open_fds ",
        "process_resident_memory_bytes ",
        "process_threads ",
    ] {
        assert!(metrics.contains(&format!("\n{metric}")), "{metric}");
    }
    ringway.finish();
}

#[test]
fn a_port_below_1024_needs_its_capability_and_no_other() {
    let Some(space) = Namespace::new("low") else {
        return;
    };
    let ringway = space.run(|| {
        let launch = Launch::config(config("127.0.0.1:70", "127.0.0.1:7001", ""));
        launch.open_folder().start()
    });
    assert_dropped(&ringway, CAP_SYS_RESOURCE | CAP_NET_BIND_SERVICE);
    ringway.stop();
}

#[test]
fn a_file_that_was_not_named_is_out_of_reach() {
    if !is_root() {
        return;
    }
    let (backend, folder, other) = (Backend::echo(), Folder::new(), Folder::new());
    folder.open();
    other.open();
    let file = folder.path().join("access.log");
    let more = format!("log: {{access: {}}}", file.display());
    let launch = Launch::config(config("127.0.0.1:0", backend.address(), &more));
    let ringway = launch.open_folder().start();
    if !ringway.log().contains("(landlock)") {
        skip("this kernel has no landlock, or an old one");
        return;
    }
    stream::exchange(&mut ringway.connect(), b"hello");
    eventually(SOON, "there is a line", || file.exists());
    // Its name leads elsewhere now, where everybody may write.
    std::fs::remove_file(&file).unwrap();
    let elsewhere = other.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    stream::exchange(&mut ringway.connect(), b"hello");
    let line = ringway.wait_line("log.access: lines are lost");
    assert!(line.contains("Permission denied"), "{line}");
    assert!(!elsewhere.exists());
    ringway.finish();
}

#[test]
fn who_cannot_become_the_user_does_not_start() {
    if !is_root() {
        return;
    }
    let text = config("127.0.0.1:0", "127.0.0.1:7001", "");
    let unknown = text.replace("user: nobody", "user: somebody-else");
    let (code, log) = Launch::config(unknown).run_to_end();
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("there is no user somebody-else"), "{log}");
    assert!(!log.contains("listening"), "{log}");
    let root = text.replace("user: nobody", "user: root");
    let (code, log) = Launch::config(root).user(65_534).run_to_end();
    assert_eq!(code, Some(77), "{log}");
    assert!(log.contains("only root can become another user"), "{log}");
}

/// Nothing is changed for who it is already but the capabilities, and nothing at all without the key.
#[test]
fn the_user_that_it_runs_as_may_be_named() {
    if !is_root() {
        return;
    }
    let backend = Backend::echo();
    for user in ["nobody", "none", NOBODY] {
        let text = config("127.0.0.1:0", backend.address(), "");
        let text = text.replace("user: nobody", &format!("user: {user}"));
        let mut ringway = Launch::config(text).user(65_534).open_folder().start();
        assert_eq!(ringway.log().contains("runs as nobody"), user != "none");
        stream::exchange(&mut ringway.connect(), b"hello");
        ringway.signal(Signal::SIGTERM);
        ringway.exit_in_order(SOON);
    }
}

/// What `ringway reload` says, with `--dry-run` first, which says the same.
#[track_caller]
fn reload_fails(ringway: &Ringway, text: &str) -> String {
    std::fs::write(ringway.folder().join("ringway.yaml"), text).unwrap();
    let without_last_line = |said: &str| said.rsplit_once("\nringway: ").unwrap().0.to_owned();
    let (code, _, dry) = ringway.command(&["reload", "--dry-run"]);
    assert_eq!(code, Some(1), "{dry}");
    let (code, _, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(without_last_line(&dry), without_last_line(&said));
    said
}

#[test]
fn a_reload_that_needs_what_is_gone_changes_nothing_and_says_that_a_restart_has_it() {
    let Some(space) = Namespace::new("gone") else {
        return;
    };
    let (backend, other) = (space.run(Backend::echo), Folder::new());
    other.open();
    let text = config("127.0.0.1:7000", backend.address(), "");
    let ringway = space.run(|| Launch::config(text.clone()).open_folder().start());
    let is_bounded = ringway.log().contains("(landlock)");
    let exchange = |at: &str| {
        let mut client = space.run(|| stream::connect(at.parse().unwrap()));
        stream::exchange(&mut client, b"hello");
    };
    let hint = "it became user nobody when it started, and kept what its file needed then: a restart keeps";
    let with = |bind: &str| {
        text.replace(
            "pool: p}]",
            &format!("pool: p}}, {{bind: \"{bind}\", pool: p}}]"),
        )
    };
    let said = reload_fails(&ringway, &with("127.0.0.1:70"));
    for part in ["127.0.0.1:70: not permitted", "CAP_NET_BIND_SERVICE", hint] {
        assert!(said.contains(part), "{said}");
    }
    if is_bounded {
        let path = other.path().join("in.sock");
        let text = with(&format!("unix:{}", path.display()));
        std::fs::write(ringway.folder().join("ringway.yaml"), text).unwrap();
        let (code, _, said) = ringway.command(&["reload"]);
        assert_eq!(code, Some(1), "{said}");
        for part in ["in.sock: not permitted; its folder", hint] {
            assert!(said.contains(part), "{said}");
        }
    } else {
        skip("this kernel has no landlock, or an old one");
    }
    exchange("127.0.0.1:7000");
    // What only a restart takes over is named, and what does not need one is done.
    let more = format!(
        "log: {{access: {}}}\nvrrp: [{{name: v, interface: lo, vrid: 5, priority: 200, addresses: 10.9.9.9/32}}]\n",
        other.path().join("access.log").display()
    );
    let text = with("127.0.0.1:7002").replace("user: nobody", "user: daemon") + &more;
    std::fs::write(ringway.folder().join("ringway.yaml"), text).unwrap();
    let (code, out, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    for key in [
        "global.user nobody -> daemon",
        "log.access default -> ",
        "vrrp default -> ",
    ] {
        assert!(out.contains(&format!("needs a restart: {key}")), "{out}");
    }
    exchange("127.0.0.1:7002");
    ringway.stop();
}

#[test]
fn a_file_that_the_new_user_cannot_read_is_told_with_what_helps() {
    if !is_root() {
        return;
    }
    let (backend, elsewhere) = (Backend::echo(), Folder::new());
    let text = config("127.0.0.1:0", backend.address(), "");
    let ringway = Launch::config(text.clone()).open_folder().start();
    let file = ringway.folder().join("ringway.yaml");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let said = reload_fails(&ringway, &text);
    let hint = "it became user nobody when it started, which has to be able to read the file";
    assert!(
        said.contains("Permission denied") && said.contains(hint),
        "{said}"
    );
    assert_eq!(ringway.status()["reloads"]["failed"], 1);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let (code, _, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(0), "{said}");
    if !ringway.log().contains("(landlock)") {
        skip("this kernel has no landlock, or an old one");
        return;
    }
    // Its name leads to where nothing was at the start.
    let target = elsewhere.path().join("ringway.yaml");
    std::fs::rename(&file, &target).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    let (code, _, said) = ringway.command(&["reload"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the file has to be in the folder where it was"),
        "{said}"
    );
    ringway.stop();
}

/// The table of what needs which capability has the same words everywhere.
#[test]
fn the_readme_has_the_table_of_capabilities() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for row in ringway::privileges::table::ALL {
        let line = format!("| {} | {} | {} |", row.feature, row.capability, row.without);
        assert!(readme.contains(&line), "README.md has not:\n{line}");
    }
}
