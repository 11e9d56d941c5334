//! The commands that need no running process, as a user meets them: what they print, where, and how they end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Folder, Launch, eventually, refusing_address};

fn ringway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

/// Standard output, standard error and the exit code.
#[track_caller]
fn run(arguments: &[&str]) -> (String, String, Option<i32>) {
    let Output {
        status,
        stdout,
        stderr,
    } = ringway(arguments).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(stdout), text(stderr), status.code())
}

/// The demo with its output, line by line.
struct Demo {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    said: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let arguments = [&["demo"], arguments].concat();
        let mut child = ringway(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let said = String::new();
        Demo { child, lines, said }
    }

    /// Reads on to a line with this text.
    #[track_caller]
    fn until(&mut self, text: &str) {
        while !self.said.lines().last().unwrap_or("").contains(text) {
            let read = self.lines.read_line(&mut self.said).expect("UTF-8");
            assert!(read > 0, "it ended without {text:?}:\n{}", self.said);
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Reads to the end: everything that it said, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        self.lines.read_to_string(&mut self.said).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        (self.said, status.code())
    }
}

#[test]
fn demo_shows_a_backend_that_dies_and_comes_back() {
    let demo = Demo::start(&["--seconds", "5"]);
    let (said, code) = demo.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !said.contains('\u{1b}'),
        "plain where there is no terminal: {said}"
    );
    for part in [
        "backend two is killed",
        "takes it out of use",
        "connection refused",
        "backend two is back",
        "uses it again",
        "Summary",
        "requests answered",
        "0 new connections failed",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let answered = said
        .lines()
        .find_map(|line| line.split_once(" requests answered"));
    let answered = answered.expect("a summary").0.trim().replace(',', "");
    let answered: u64 = answered.parse().expect("a number");
    assert!(answered > 100, "a load of {answered} requests is none");
}

#[test]
fn demo_ends_with_its_summary_when_it_is_interrupted() {
    let mut demo = Demo::start(&["--seconds", "60"]);
    demo.until("1.0s");
    demo.signal(Signal::SIGINT);
    let (said, code) = demo.end();
    assert!(said.contains("Summary"), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn demo_that_is_kept_stays_until_it_is_interrupted() {
    let mut demo = Demo::start(&["--seconds", "5", "--keep"]);
    demo.until("Ctrl-C");
    assert_eq!(demo.child.try_wait().expect("a child"), None, "it stays");
    demo.signal(Signal::SIGINT);
    let (said, code) = demo.end();
    assert!(said.contains("\nSummary\n"), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

/// A reader that goes away, as `head` does, ends it; nothing is left behind.
#[test]
fn demo_ends_when_nobody_reads_it_any_more() {
    let mut demo = Demo::start(&["--seconds", "60"]);
    demo.until("1.0s");
    let Demo {
        mut child, lines, ..
    } = demo;
    drop(lines);
    let ends = || child.try_wait().expect("a child").is_some();
    eventually(Duration::from_secs(20), "it ends", ends);
}

#[test]
fn mistyped_commands_and_flags_are_answered_with_the_nearest() {
    for (arguments, nearest) in [
        (&["statsu"][..], "'status'"),
        (&["chekc"], "'check'"),
        (&["run", "--lisen", "127.0.0.1:1"], "'--listen'"),
        (&["check", "--confg", "x"], "'--config'"),
        (&["backend", "pg/a", "drian"], "'drain'"),
        (&["check", "--format", "jsn"], "'json'"),
        (&["check", "pair.yaml"], "-c pair.yaml"),
        (&["check", "-f", "pair.yaml"], "-c FILE"),
        (&["run", "--verbose"], "RINGWAY_LOG=debug"),
        (&["start"], "ringway run"),
        (&["relaod"], "'reload'"),
        (&["restart"], "ringway reload"),
        (&["backend", "drain"], "which backend?"),
        (&["backend", "add", "pg/a"], "<ADDRESS>"),
        (&["drain", "pg/a"], "ringway backend POOL/NAME drain"),
        (&["backend", "pg/a", "weight", "-1"], "from 0 to 256"),
        (&["backend", "pg/a", "weight", "ten"], "from 0 to 256"),
    ] {
        let (said, error, code) = run(arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {error}");
        assert!(said.is_empty(), "errors go to standard error: {said}");
        assert!(error.contains(nearest), "{arguments:?}: {error}");
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let (help, _, code) = run(&["--help"]);
    assert_eq!(code, Some(0));
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help");
    let mut seen = 0;
    for command in commands {
        let (help, _, code) = run(&[command, "--help"]);
        assert_eq!(code, Some(0), "{command}");
        assert!(help.contains("Examples:"), "{command}: {help}");
        assert!(
            help.contains(&format!("  ringway {command}")),
            "{command}: {help}"
        );
        seen += 1;
    }
    assert!(seen >= 7, "{help}");
    assert!(run(&["--version"]).0.starts_with("ringway "));
}

fn file(text: &str) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.path().join("lab.yaml");
    std::fs::write(&path, text).expect("a file can be written");
    (folder, path.display().to_string())
}

const GOOD: &str = "listeners: [{bind: \"*:5432\", pool: pg}]\npools: {pg: [10.0.0.11:5432]}\n";

#[test]
fn check_says_that_a_good_file_can_be_used() {
    let (_folder, path) = file(GOOD);
    let (said, error, code) = run(&["check", "-c", &path]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        said.contains("can be used: 1 listener, 1 pool, 1 backend"),
        "{said}"
    );
    assert!(
        !said.contains('\u{1b}'),
        "no colours where there is no terminal: {said}"
    );
}

#[test]
fn check_tells_programs_each_problem_with_its_place() {
    let text = GOOD
        .replace("pool: pg", "pool: pq")
        .replace("11:5432", "11:5432, x");
    let (_folder, path) = file(&text);
    let (said, _, code) = run(&["check", "-c", &path, "--json"]);
    assert_eq!(code, Some(78));
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["errors"], 2);
    let problem = &answer["problems"][0];
    assert_eq!(problem["line"], 1, "{said}");
    assert_eq!(problem["column"], 36, "{said}");
    assert_eq!(problem["severity"], "error", "{said}");
    let (text, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(78));
    assert!(
        text.contains("lab.yaml:1:36") && text.contains("did you mean `pg`"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("2 errors"), "{text}");
}

/// Warnings alone are no reason not to use a file.
#[test]
fn check_tells_warnings_from_errors() {
    let (_folder, path) = file(&GOOD.replace("11:5432", "11:3306"));
    let (said, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("warning") && said.contains("can be used"),
        "{said}"
    );
}

/// The same file on both nodes of a pair, checked on a third.
#[test]
fn check_reads_a_file_of_two_nodes_for_each_of_them() {
    let with =
        |workers: &str| GOOD.replace("pools", &format!("global: {{workers: {workers}}}\npools"));
    let (_folder, path) = file(&with("{lb1: 2, lb2: 4}"));
    let (said, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("hosts lb1, lb2"), "{said}");
    let (said, _, code) = run(&["check", "-c", &path, "--node", "lb3"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("none for `lb3`"), "{said}");

    // What is wrong for one node is told on every one.
    let (_folder, path) = file(&with("{lb1: 2, lb2: many}"));
    for node in ["lb1", "lb2"] {
        let (said, _, code) = run(&["check", "-c", &path, "--node", node]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("global.workers.lb2"), "{said}");
    }
}

/// A pool, or a key, that is called like the host is no value for the host.
#[test]
fn host_may_be_called_like_a_pool_or_a_key() {
    let text = GOOD.replace(
        "[10.0.0.11:5432]",
        "{backends: [{name: a, address: 10.0.0.11:5432}]}",
    );
    let (_folder, path) = file(&text);
    for node in ["pg", "name", "backends", "listeners", "lb1"] {
        let (said, _, code) = run(&["check", "-c", &path, "--node", node]);
        assert_eq!(code, Some(0), "as {node}: {said}");
    }
    // And where a value has a long form, one for each host is taken all the same.
    let text = GOOD.replace(
        "\"*:5432\"",
        "{lb1: \"10.0.0.1:5432\", lb2: \"10.0.0.2:5432\"}",
    );
    let (_folder, path) = file(&text);
    assert_eq!(run(&["check", "-c", &path, "--node", "lb2"]).2, Some(0));
    let (said, _, code) = run(&["check", "-c", &path, "--node", "lb3"]);
    assert_eq!(code, Some(78));
    assert!(said.contains("there is none for `lb3`"), "{said}");
}

#[test]
fn flags_print_as_a_file_that_check_takes() {
    let flags = [
        "--listen",
        "*:5432",
        "--to",
        "db1:5432",
        "--to",
        "unix:/run/x.sock",
    ];
    let more = ["--balance", "hash", "--print-config"];
    let (printed, error, code) = run(&[&["run"][..], &flags, &more].concat());
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let (_folder, path) = file(&printed);
    let (said, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 listener, 1 pool, 2 backends"), "{said}");
    let (again, _, _) = run(&["run", "-c", &path, "--print-config"]);
    assert_eq!(again, printed);
}

#[test]
fn schema_is_one_of_draft_2020_12() {
    let (said, _, code) = run(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    jsonschema::meta::validate(&schema).expect("a schema by its own rules");
}

/// All output is refused by a full disk: that is said, and the exit code tells.
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let (_folder, path) = file(GOOD);
    let full = || {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full");
        file.expect("every Linux has it")
    };
    let ringway_there = Launch::to([refusing_address()]).start();
    let socket = ringway_there.admin_socket().display().to_string();
    for arguments in [
        &["schema"][..],
        &["schema", "--reference"],
        &["check", "-c", &path],
        &["check", "-c", &path, "--json"],
        &["run", "-c", &path, "--print-config"],
        &["doctor", "-c", &path],
        &["status", "--socket", &socket],
        &["status", "--socket", &socket, "--json"],
        &["--help"],
    ] {
        let output = ringway(arguments).stdout(full()).output();
        let output = output.expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("standard output: No space"), "{said}");
    }
    // Where nothing can be said either, the exit code is the same as ever.
    for (arguments, code) in [
        (&["check", "-c", "/nowhere.yaml"][..], 78),
        (&["run", "-c", "/nowhere.yaml"], 78),
        (&["status", "--socket", "/nowhere.sock"], 69),
        (&["nonsense"], 64),
    ] {
        let status = ringway(arguments)
            .stdout(Stdio::null())
            .stderr(full())
            .status();
        let status = status.expect("the binary starts");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = ringway(&["schema"]).stdout(writer).output();
    let output = output.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}

/// A log line, and the lines on standard error, of a run with this variable; the file says `warn`.
#[track_caller]
fn run_with_log(variable: &str, format: &str) -> (Vec<String>, String) {
    let (_folder, path) = file(&format!(
        "log: {{level: warn, format: {format}}}\nlisteners: [{{bind: \"127.0.0.1:0\", pool: p}}]\n\
         pools: {{p: {{probe: none, backends: [{}]}}}}\n",
        refusing_address()
    ));
    let socket = _folder.path().join("admin.sock").display().to_string();
    let mut child = ringway(&["run", "-c", &path, "--socket", &socket])
        .env("RINGWAY_LOG", variable)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let is_serving = || run(&["status", "--socket", &socket]).0.contains("serving");
    eventually(Duration::from_secs(20), "it serves", is_serving);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("it runs");
    let mut error = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut error).expect("UTF-8");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{error}");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    (said.lines().map(str::to_owned).collect(), error)
}

#[test]
fn log_variable_that_says_nothing_or_nonsense_leaves_the_level_of_the_file() {
    for (variable, complaint, ready) in [
        ("", "", false),
        (" ", "", false),
        ("verbose", "RINGWAY_LOG=verbose is not understood", false),
        ("ringway=loud", "RINGWAY_LOG=ringway=loud", false),
        ("info", "", true),
        ("ringway::control=info", "", true),
        ("off", "", false),
    ] {
        let (lines, error) = run_with_log(variable, "text");
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        assert_eq!(has(" ready "), ready, "{variable:?}: {lines:?}");
        assert!(has(" INFO counters {"), "{variable:?}: {lines:?}");
        assert_eq!(error.is_empty(), complaint.is_empty(), "{error}");
        assert!(error.contains(complaint), "{error}");
        assert!(
            error.is_empty() || error.contains("debug or trace"),
            "{error}"
        );
    }
}

#[test]
fn log_in_json_is_one_object_for_each_line_and_the_counters_are_one() {
    let (lines, _) = run_with_log("info", "json");
    let events: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let message = |event: &Value| event["message"].as_str().map(str::to_owned);
    let mut counters = events
        .iter()
        .filter_map(message)
        .filter_map(|message| Some(message.strip_prefix("counters ")?.to_owned()));
    let counters: Value = serde_json::from_str(&counters.next().expect("counters")).expect("JSON");
    assert_eq!(counters["sessions_active"], 0);
}

#[test]
fn check_says_what_run_would_say_on_a_host_that_the_file_does_not_know() {
    let with = |workers: &str| {
        file(&GOOD.replace("pools", &format!("global: {{workers: {workers}}}\npools")))
    };
    let (_folder, path) = with("{lb1: 2, lb2: 4}");
    let (said, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "hosts lb1, lb2:",
        "none for this host",
        "--node NAME",
        "--node lb1",
    ] {
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(part), "{part} is missing in {said}");
    }
    assert_eq!(said.matches("can be used").count(), 1, "{said}");

    let (said, _, _) = run(&["check", "-c", &path, "--json"]);
    let answer: Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["hosts"][1]["host"], "lb2");
    assert!(
        answer["note"]
            .as_str()
            .is_some_and(|note| note.contains("--node"))
    );

    // An error that only one of them has.
    let (_folder, path) = file(&GOOD.replace("pool: pg}", "pool: {lb1: pg, lb2: pq}}"));
    let (said, _, code) = run(&["check", "-c", &path, "--json"]);
    let answer: Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(
        (code, &answer["ok"]),
        (Some(78), &Value::Bool(false)),
        "{said}"
    );
    assert_eq!(answer["errors"], 1, "{said}");
    assert_eq!(answer["problems"][0]["host"], "lb2", "{said}");
    assert_eq!(answer["hosts"][0]["ok"], true, "{said}");
}

#[test]
fn check_reads_a_file_of_very_many_hosts_for_some_of_them() {
    let hosts: Vec<String> = (0..2_000).map(|host| format!("lb{host}: 2")).collect();
    let workers = format!("global: {{workers: {{{}}}}}\npools", hosts.join(", "));
    let (_folder, path) = file(&GOOD.replace("pools", &workers));
    let (said, _, code) = run(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{said}");
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("16 of its 2000 hosts"), "{said}");
    assert!(said.len() < 2_000, "{said}");
    let (said, _, _) = run(&["check", "-c", &path, "--json"]);
    let answer: Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(answer["hosts_known"], 2_000);
    assert_eq!(answer["hosts"].as_array().map(Vec::len), Some(16));
}
