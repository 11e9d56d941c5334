//! `ringway top` in a real terminal: what the screen says, what keys do, and how it leaves the terminal.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::{Folder, Launch, SOON, eventually, eventually_some, one_pool, skip};

fn config(first: &Backend, second: &Backend) -> String {
    let pool = format!(
        "probe: {{type: tcp, interval: 100ms, fast_interval: 50ms, fall: 2, rise: 1}}, \
         backends: [{{name: one, address: \"{}\"}}, {{name: two, address: \"{}\"}}]",
        first.address(),
        second.address()
    );
    one_pool("workers: 1", &pool)
}

/// A terminal with `ringway top` in it; when that has ended, it says so, and how the terminal is.
struct Terminal {
    folder: Folder,
}

impl Terminal {
    /// None where there is no tmux.
    fn start(socket: &Path) -> Option<Terminal> {
        let terminal = Terminal {
            folder: Folder::new(),
        };
        let script = format!(
            "sh -c 'echo $$ > {pid}; exec {binary} top --socket {socket}'; \
             echo ENDED WITH $?; stty -a | grep -ow -e -icanon -e icanon; exec sleep 100",
            pid = terminal.pid_file().display(),
            binary = env!("CARGO_BIN_EXE_ringway"),
            socket = socket.display(),
        );
        let begun = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
        ];
        let output = terminal.tmux(&[&begun[..], &[&script]].concat());
        match output {
            None => {
                skip("tmux is not installed");
                None
            }
            Some(output) => {
                assert!(output.status.success(), "{output:?}");
                Some(terminal)
            }
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    /// A tmux of its own.
    fn tmux(&self, arguments: &[&str]) -> Option<Output> {
        let socket = self.folder.path().join("tmux");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(socket).args(arguments);
        command
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .env("LC_ALL", "C.UTF-8");
        command.output().ok()
    }

    fn text(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn shows(&self, what: &str, wished: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually_some(SOON, what, || {
                last = self.text();
                wished(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{what}: the screen is\n{last}"))
    }

    fn press(&self, keys: &[&str]) {
        let output = self.tmux(&[&["send-keys"][..], keys].concat()).unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[track_caller]
    fn is_given_back(&self) {
        let text = self.shows("it ends and gives the terminal back", |text| {
            text.contains("ENDED WITH 0") && text.contains("icanon")
        });
        assert!(!text.contains("-icanon"), "lines are read again: {text}");
        assert!(!text.contains("q quit"), "the screen is gone: {text}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn line<'a>(text: &'a str, part: &str) -> &'a str {
    text.lines()
        .find(|line| line.contains(part))
        .unwrap_or_default()
}

#[test]
fn top_shows_a_backend_that_dies_and_drains_another_by_keys() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&first, &second)).start();
    let Some(terminal) = Terminal::start(&ringway.admin_socket()) else {
        return;
    };
    terminal.shows("both are up", |text| {
        line(text, "> one ").contains(" up ") && line(text, "  two ").contains(" up ")
    });
    drop(second);
    let text = terminal.shows("one is down, with the reason", |text| {
        line(text, "  two ").contains(" down ") && text.contains("connection refused")
    });
    assert!(line(&text, "p/two").contains("down"), "an event: {text}");
    assert!(text.contains("1 of 2 usable"), "{text}");
    terminal.press(&["d"]);
    terminal.shows("it asks first, and warns", |text| {
        text.contains("drain p/one?") && text.contains("THE LAST USABLE ONE")
    });
    assert_eq!(ringway.get("/v1/backends/p/one").json()["state"], "ready");
    terminal.press(&["y"]);
    terminal.shows("it drains, and nobody is left", |text| {
        line(text, "> one ").contains(" drain ") && text.contains("POOL p HAS NO USABLE BACKEND")
    });
    assert_eq!(ringway.get("/v1/backends/p/one").json()["state"], "drain");
    terminal.press(&["r", "y"]);
    terminal.shows("it is ready again", |text| {
        line(text, "> one ").contains(" ready ") && !text.contains("NO USABLE")
    });
    terminal.press(&["q"]);
    terminal.is_given_back();
    ringway.stop();
}

#[test]
fn top_says_that_the_process_is_gone_finds_the_next_one_and_ends_at_a_signal() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let folder = Folder::new();
    let socket = folder.path().join("admin.sock");
    let launch = || {
        let arguments = ["--socket", socket.to_str().unwrap()];
        let launch = Launch::config(config(&first, &second)).without_own_socket();
        launch.arguments(arguments).start()
    };
    let ringway = launch();
    let Some(terminal) = Terminal::start(&socket) else {
        return;
    };
    let pid = format!("pid {} ", ringway.pid());
    terminal.shows("it is served", |text| {
        (text.to_owned() + " ").contains(pid.trim_end())
    });
    ringway.stop();
    terminal.shows("nobody answers", |text| {
        text.contains("NOT CONNECTED") && text.contains("nothing answers at")
    });
    let again = launch();
    let pid = format!("pid {}", again.pid());
    terminal.shows("it is served again", |text| {
        text.contains(&pid) && !text.contains("NOT CONNECTED")
    });
    let top = std::fs::read_to_string(terminal.pid_file()).unwrap();
    let top = Pid::from_raw(top.trim().parse().unwrap());
    kill(top, Signal::SIGTERM).unwrap();
    terminal.is_given_back();
    eventually(SOON, "the process is gone", || kill(top, None).is_err());
    again.stop();
}

#[test]
fn top_for_programs_is_a_line_of_json_each_second_until_nobody_answers() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&first, &second)).start();
    let mut top = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["top", "--json", "--socket"])
        .arg(ringway.admin_socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let times = [next(), next(), next()].map(|status| status["now"].as_f64().unwrap());
    let took = times[2] - times[0];
    assert!((1.5..20.0).contains(&took), "{times:?}");
    ringway.stop();
    let rest = lines.filter(|line| !line.as_ref().unwrap().starts_with('{'));
    assert_eq!(rest.count(), 0);
    assert_eq!(top.wait().unwrap().code(), Some(69));
}

#[test]
fn top_without_a_terminal_points_to_status() {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).start();
    let (code, out, said) = ringway.command(&["top"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("needs a terminal"), "{said}");
    assert!(said.contains("`ringway status`"), "{said}");
}
