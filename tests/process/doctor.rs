//! `ringway doctor` on this host: what it says about ports, addresses, limits and files that the tests make so, and
//! that its text fits a terminal and its JSON a program. What it says about the host itself differs from host to host;
//! the unit tests of the checks cover that.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Folder, Launch, refusing_address, skip};

/// What `ringway doctor` has printed, and its exit code.
struct Answer {
    code: Option<i32>,
    text: String,
    /// Keeps the configuration, whose path is in the text.
    _folder: Folder,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {}", self.text))
    }

    /// The findings of one check.
    #[track_caller]
    fn findings(&self, check: &str) -> Vec<Value> {
        let json = self.json();
        let all = json["findings"].as_array().expect("a list of findings");
        let found = all.iter().filter(|finding| finding["check"] == check);
        found.cloned().collect()
    }

    /// The one finding of a check: its level and its text.
    #[track_caller]
    fn finding(&self, check: &str) -> (String, String) {
        let found = self.findings(check);
        let [finding] = &found[..] else {
            panic!("not one finding of {check}: {found:?}")
        };
        let word = |key: &str| finding[key].as_str().expect("a text").to_owned();
        (word("level"), word("finding"))
    }
}

/// Runs it with this configuration; `prepare` changes the command.
#[track_caller]
fn doctor_with(config: &str, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Answer {
    let folder = Folder::new();
    let file = folder.path().join("ringway.yaml");
    std::fs::write(&file, config).expect("the configuration can be written");
    // The shell is for those that change limits.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "${PREPARE:-:} && exec \"$0\" doctor -c \"$@\""])
        .arg(env!("CARGO_BIN_EXE_ringway"))
        .arg(&file)
        .args(arguments)
        .env("COLUMNS", "80")
        .env_remove("NO_COLOR");
    prepare(&mut command);
    let output = command.output().expect("the binary starts");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Answer {
        code: output.status.code(),
        text: String::from_utf8(output.stdout).expect("the text is UTF-8"),
        _folder: folder,
    }
}

#[track_caller]
fn doctor(config: &str, arguments: &[&str]) -> Answer {
    doctor_with(config, arguments, |_| {})
}

fn listening(bind: &str) -> String {
    format!(
        "listeners: [{{name: in, bind: \"{bind}\", pool: p}}]\npools: {{p: [\"127.0.0.1:9\"]}}\n"
    )
}

/// As the kernel calls this process.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").expect("every process has a name");
    name.trim_end().to_owned()
}

#[test]
fn text_fits_the_terminal_and_has_no_colours_in_a_pipe() {
    let config = listening("203.0.113.77:443");
    for (columns, most) in [("80", 80), ("200", 200), ("", 80)] {
        for arguments in [&[][..], &["--verbose"][..]] {
            let answer = doctor_with(&config, arguments, |command| {
                command.env("COLUMNS", columns);
            });
            assert!(!answer.text.contains('\u{1b}'), "{}", answer.text);
            for line in answer.text.lines() {
                let fits = line.chars().count() <= most;
                assert!(fits, "more than {most} columns: {line}");
            }
            assert!(answer.text.contains("\nKernel\n"), "{}", answer.text);
        }
    }
}

#[test]
fn json_has_the_findings_of_the_text() {
    let config = listening("203.0.113.77:443");
    let (text, json) = (doctor(&config, &[]), doctor(&config, &["--json"]));
    assert_eq!(text.code, json.code);
    let expected: Vec<String> = text
        .text
        .lines()
        .filter_map(|line| {
            let (word, name) = line.strip_prefix("  ")?.split_at_checked(4)?;
            let level = match word.trim_end() {
                "OK" => "ok",
                "WARN" => "warn",
                "FAIL" => "fail",
                "?" => "unknown",
                _ => return None,
            };
            let name = name.get(2..16)?.trim_end();
            Some(format!("{level} {name}"))
        })
        .collect();
    let all = json.json();
    let found: Vec<String> = all["findings"]
        .as_array()
        .expect("a list of findings")
        .iter()
        .map(|finding| {
            let word = |key: &str| finding[key].as_str().expect("a text");
            assert!(!word("finding").is_empty() && !word("why").is_empty());
            let mends = !finding["mend"].as_array().expect("a list").is_empty();
            assert_eq!(
                mends,
                ["warn", "fail"].contains(&word("level")),
                "{finding}"
            );
            format!("{} {}", word("level"), word("check"))
        })
        .collect();
    assert_eq!(found, expected);
    assert!(found.len() > 15, "{found:?}");
    let long = doctor(&config, &["--format", "json"]).json();
    assert_eq!(long["findings"].as_array().map(Vec::len), Some(found.len()));
}

#[test]
fn a_taken_port_is_found_and_its_process_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for bind in [address.to_string(), format!("*:{}", address.port())] {
        let answer = doctor(&listening(&bind), &["--json"]);
        let (level, text) = answer.finding("listener");
        let owner = format!("taken by {} (process {})", own_name(), std::process::id());
        assert_eq!(level, "fail", "{text}");
        assert!(text.contains(&owner), "`{owner}` is not in: {text}");
        assert_eq!(answer.code, Some(69));
    }
    let said = doctor(&listening(&address.to_string()), &[]).text;
    assert!(said.contains("ss -ltnp"), "{said}");
    assert!(!said.contains("kill"), "nobody is to be killed: {said}");
    drop(taken);
    let answer = doctor(&listening(&address.to_string()), &["--json"]);
    let (level, text) = answer.finding("listener");
    assert_eq!(level, "ok", "{text}");
    assert!(text.ends_with("free, on lo"), "{text}");
}

#[test]
fn ports_flows_and_buffers_of_udp_are_looked_at() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = |bind: &str| {
        let global = "global: {workers: 2, max_flows: 10000000}\n";
        global.to_owned() + &listening(bind).replace("pool: p", "protocol: udp, pool: p")
    };
    for bind in [address.to_string(), format!("*:{}", address.port())] {
        let answer = doctor(&config(&bind), &["--json"]);
        let (level, text) = answer.finding("listener");
        let owner = format!(
            "(UDP): taken by {} (process {})",
            own_name(),
            std::process::id()
        );
        assert_eq!(level, "fail", "{text}");
        assert!(text.contains(&owner), "`{owner}` is not in: {text}");
    }
    drop(taken);
    let answer = doctor(&config(&address.to_string()), &["--json"]);
    let (level, text) = answer.finding("listener");
    assert_eq!(level, "ok", "{text}");
    assert!(text.ends_with("(UDP): free, on lo"), "{text}");
    let (level, text) = answer.finding("udp flows");
    assert_eq!(level, "warn", "{text}");
    assert!(
        text.contains("fewer than global.max_flows 10,000,000"),
        "{text}"
    );
    let (_, text) = answer.finding("datagram buffers");
    assert!(text.contains("4 MiB"), "{text}");
    assert!(
        doctor(&listening("127.0.0.1:0"), &["--json"])
            .findings("udp flows")
            .is_empty()
    );
}

#[test]
fn a_running_ringway_is_no_failure() {
    let ringway = Launch::to([refusing_address()]).start();
    let answer = doctor(&listening(&ringway.address().to_string()), &["--json"]);
    let (level, text) = answer.finding("listener");
    assert_eq!(level, "ok", "{text}");
    let process = format!("process {}", ringway.pid());
    assert!(text.contains(&process), "`{process}` is not in: {text}");
    ringway.stop();
}

#[test]
fn addresses_that_the_host_does_not_have_are_warnings() {
    let pool = "pools: {p: {backends: [\"127.0.0.1:9\"], source: 203.0.113.78}}\n";
    let config = listening("203.0.113.77:5432");
    let config = config.lines().next().unwrap().to_owned() + "\n" + pool;
    let answer = doctor(&config, &["--json"]);
    for (check, address) in [("listener", "203.0.113.77"), ("source", "203.0.113.78")] {
        let (level, text) = answer.finding(check);
        assert_eq!(level, "warn", "{text}");
        assert!(text.contains(address), "{text}");
    }
    assert_eq!(answer.code, Some(0), "{}", answer.text);
}

#[test]
fn a_low_limit_of_files_is_told_in_sessions() {
    let config = listening("127.0.0.1:0");
    let two_workers = |others: &str| format!("global: {{workers: 2{others}}}\n{config}");
    let with_limit = |limit: u32, config: &str| {
        doctor_with(config, &["--json"], |command| {
            command.env("PREPARE", format!("ulimit -n {limit}"));
        })
    };
    let answer = with_limit(1000, &two_workers(""));
    let (level, text) = answer.finding("open files");
    assert_eq!(level, "warn", "{text}");
    assert!(text.starts_with("1,000; that makes "), "{text}");
    assert_eq!(answer.code, Some(0), "{}", answer.text);

    let modest = two_workers(", max_sessions: 100");
    let (level, text) = with_limit(1000, &modest).finding("open files");
    assert_eq!(level, "ok", "{text}");

    let answer = with_limit(60, &two_workers(""));
    let (level, text) = answer.finding("open files");
    assert_eq!(level, "fail", "{text}");
    assert_eq!(answer.code, Some(69));
}

#[test]
fn unix_sockets_need_a_folder_and_nobody_else() {
    let folder = Folder::new();
    let at = |path: &Path| {
        let answer = doctor(&listening(&format!("unix:{}", path.display())), &["--json"]);
        answer.finding("listener")
    };
    let path = folder.path().join("pg.sock");
    assert_eq!(at(&path).0, "ok");
    let (level, text) = at(&folder.path().join("none/pg.sock"));
    assert!(level == "fail" && text.contains("does not exist"), "{text}");

    let listener = UnixListener::bind(&path).unwrap();
    let (level, text) = at(&path);
    let owner = format!("{} (process {})", own_name(), std::process::id());
    assert!(level == "fail" && text.contains(&owner), "{text}");
    drop(listener);
    let (level, text) = at(&path);
    assert!(level == "ok" && text.contains("left over"), "{text}");

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "no socket").unwrap();
    let (level, text) = at(&path);
    assert!(level == "fail" && text.contains("not a socket"), "{text}");
}

#[test]
fn a_file_with_mistakes_is_a_failure_that_says_how_to_see_them() {
    let config = listening("127.0.0.1:0").replace("pool: p", "pool: nowhere");
    for arguments in [&[][..], &["--json"][..]] {
        let answer = doctor(&config, arguments);
        assert_eq!(answer.code, Some(69), "{}", answer.text);
        assert!(answer.text.contains("1 error"), "{}", answer.text);
        assert!(answer.text.contains("ringway check -c"), "{}", answer.text);
        assert!(answer.text.contains("io_uring"), "the host is looked at");
    }
    let (level, _) = doctor(&config, &["--json"]).finding("file");
    assert_eq!(level, "fail");
}

#[test]
fn a_port_without_the_privilege_is_a_failure() {
    const NOBODY: u32 = 65_534;
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start: u16 = start
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    if !nix::unistd::geteuid().is_root() || start < 2 {
        skip(
            "another user that may not have every port needs root and ports that need a privilege",
        );
        return;
    }
    // The build folder may be closed to other users.
    let open = Folder::new();
    let binary = open.path().join("ringway");
    std::fs::copy(env!("CARGO_BIN_EXE_ringway"), &binary).unwrap();
    let file = open.path().join("ringway.yaml");
    std::fs::write(&file, listening(&format!("127.0.0.1:{}", start - 1))).unwrap();
    let output = Command::new(&binary)
        .args(["doctor", "--json", "-c"])
        .arg(&file)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let answer = Answer {
        code: output.status.code(),
        text: String::from_utf8(output.stdout).unwrap(),
        _folder: open,
    };
    let (level, text) = answer.finding("privileges");
    assert_eq!(level, "fail", "{text}");
    assert!(text.contains("CAP_NET_BIND_SERVICE"), "{text}");
    assert_eq!(answer.finding("listener").0, "unknown");
    assert_eq!(answer.code, Some(69));
}

/// A listening socket that did not ask to share its port with what is left of its connections.
fn selfish_listener() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("there are file descriptors");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("there are ports");
    socket.listen(8).expect("it is bound");
    socket.into()
}

#[test]
fn a_port_that_only_connections_have_is_told_from_one_that_is_taken() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
    let own_end = connection.local_addr().unwrap();
    let answer = doctor(&listening(&own_end.to_string()), &["--json"]);
    let (level, text) = answer.finding("listener");
    let owner = format!(
        "a connection of {} (process {})",
        own_name(),
        std::process::id()
    );
    assert!(level == "fail" && text.contains(&owner), "{text}");

    // Who closes first keeps the port for a while.
    let listener = selfish_listener();
    let address = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    drop(client);
    drop(listener);
    let is_told = || {
        let (level, text) =
            doctor(&listening(&address.to_string()), &["--json"]).finding("listener");
        level == "fail" && text.contains("connections that have ended")
    };
    crate::harness::eventually(crate::harness::SOON, "it is told", is_told);
}

#[test]
fn a_file_for_other_hosts_is_answered_with_their_names_and_the_flag() {
    let config = format!(
        "global: {{workers: {{lb1: 2, lb2: 4}}}}\n{}",
        listening("127.0.0.1:0")
    );
    let answer = doctor(&config, &["--json"]);
    let (level, text) = answer.finding("file");
    assert_eq!(level, "fail", "{text}");
    assert!(
        text.contains("it has values for lb1, lb2, and none for"),
        "{text}"
    );
    let mend = answer.findings("file")[0]["mend"].to_string();
    assert!(
        mend.contains("--node lb1") && !mend.contains("ringway check"),
        "{mend}"
    );
    let (level, text) = doctor(&config, &["--json", "--node", "lb2"]).finding("file");
    assert_eq!(level, "ok", "{text}");
}

#[test]
fn run_warns_as_well_when_the_limit_of_files_makes_few_sessions() {
    let launch = Launch::to([refusing_address()]).files_limit(220);
    let ringway = launch.start();
    ringway.wait_line("RLIMIT_NOFILE allows few sessions");
    ringway.stop();
}

#[test]
fn the_user_of_the_file_has_to_be_there() {
    let config = |user: &str| format!("global: {{user: {user}}}\n{}", listening("127.0.0.1:0"));
    let (level, text) = doctor(&config("nobody"), &["--json"]).finding("user");
    assert_eq!(
        (level.as_str(), text.contains("65534")),
        ("ok", true),
        "{text}"
    );
    let answer = doctor(&config("somebody-else"), &["--json"]);
    let (level, text) = answer.finding("user");
    assert_eq!(level, "fail", "{text}");
    assert_eq!(answer.code, Some(69));
}

#[test]
fn the_table_of_capabilities_is_shown_to_who_asks_for_reasons() {
    let table = |arguments: &[&str]| {
        let text = doctor(&listening("127.0.0.1:0"), arguments).text;
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .join(" ")
            .contains("CAP_SYS_NICE is for advertisements before all other work.")
    };
    assert!(table(&["--verbose"]));
    assert!(!table(&[]));
}
