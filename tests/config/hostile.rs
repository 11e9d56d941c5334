//! Files that nobody would call a configuration, given to the real program: it says so, soon, in little memory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// Address space that the program gets.
const MEMORY: &str = "--as=1073741824";
/// Seconds of a CPU that it gets, which a busy machine makes no shorter; unoptimised, it takes three at most.
const PATIENCE: &str = "--cpu=10";
/// More than anybody reads.
const OUTPUT_MAX: usize = 256 * 1024;

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Checks a file with the real program, with little memory and little time.
fn check(path: &Path, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args([
            "--kill-after=1",
            "120",
            "prlimit",
            MEMORY,
            PATIENCE,
            RINGWAY,
        ])
        .args(["check", "--node", "lb1", "-c"])
        .arg(path)
        .args(arguments)
        .output()
        .expect("coreutils and util-linux are installed")
}

/// Asserts that it is refused as it should, with these words.
fn refused(path: &Path, words: &str) {
    let begun = Instant::now();
    let output = check(path, &[]);
    let took = begun.elapsed();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    let shown: String = out.chars().take(2_000).collect();
    let name = path.display();
    assert_eq!(output.status.code(), Some(78), "{name}: {shown}{err}");
    assert!(out.contains(words), "{name}: no `{words}` in: {shown}");
    assert!(!err.contains("panicked"), "{name}: {err}");
    assert!(out.len() < OUTPUT_MAX, "{name}: {} bytes", out.len());
    let raw = |letter: char| letter.is_control() && letter != '\n';
    assert!(!out.contains(raw), "{name}: control characters: {shown:?}");
    println!("{name}: {took:?}");
}

#[test]
fn junk_is_refused() {
    let folder = Folder::new("junk");
    // The same on every run.
    let junk: Vec<u8> = (0..100_000_u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    for (name, content, words) in [
        ("empty", &b""[..], "the file is empty"),
        ("blank", b" \n\n \n", "the file is empty"),
        ("comments", b"# a\n# b\n", "the file is empty"),
        ("junk", &junk, "is not UTF-8"),
        ("latin", b"# caf\xe9\nlisteners: []\n", "line 1"),
        ("zeros", &[0; 1_000], "error"),
        ("a-zero", b"listeners: \0\n", "error"),
        ("utf16", b"\xff\xfel\0i\0", "is not UTF-8"),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "error"),
        ("terminal", b"\x1b[2J\x1b]0;x\x07: [1\n", "error"),
        ("c1", "listeners: \u{9b}31m\u{202e}x\n".as_bytes(), "error"),
    ] {
        refused(&folder.file(name, content), words);
    }
}

#[test]
fn what_grows_is_bounded() {
    let folder = Folder::new("large");
    let mut laughs = String::from("x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("x-{level}: &a{level} [{below}]\n"));
    }
    let mut merges = String::from("x-0: &m0 {k0: 1}\n");
    for level in 1..200 {
        let below = level - 1;
        merges.push_str(&format!(
            "x-{level}: &m{level} {{<<: [*m{below}, *m{below}], k{level}: 1}}\n"
        ));
    }
    let listeners = |item: &str, count: usize| format!("listeners:\n{}", item.repeat(count));
    let ports = listeners("  - {bind: \"*:1-65535\", pool: a}\n", 10_000)
        + "pools: {a: [\"10.0.0.1:1\"]}\n";
    let expression = listeners("  - {bind: \"*:1\", pool: a}\n", 1)
        + "pools: {a: {backends: [\"10.0.0.1:1\"], probe: {expect: \"/(((a{1,99}){1,99}){1,99})/\"}}}\n";
    for (name, content, words) in [
        ("laughs", laughs, "aliases"),
        ("merges", merges, "error"),
        ("brackets", "[".repeat(100_000), "nested"),
        ("braces", "{a: ".repeat(100_000), "nested"),
        ("dashes", "- ".repeat(100_000), "nested"),
        ("questions", "? ".repeat(100_000), "error"),
        (
            "indented",
            (0..2_000)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
            "nested",
        ),
        (
            "long-line",
            "x".repeat(10 << 20),
            "expected keys and values",
        ),
        (
            "long-key",
            format!("{}: 1\n", "x".repeat(900)),
            "there is no key",
        ),
        (
            "wide-list",
            format!("pools: [{}]\n", "1, ".repeat(3 << 20)),
            "error",
        ),
        ("twice", "a: 1\n".repeat(200_000), "written twice"),
        (
            "unknown",
            (0..200_000)
                .map(|number| format!("k{number}: 1\n"))
                .collect(),
            "there is no key",
        ),
        (
            "anchors",
            (0..100_000)
                .map(|number| format!("x-{number}: &a{number} 1\n"))
                .collect(),
            "error",
        ),
        (
            "wrong-everywhere",
            listeners("  - {bind: 1, pool: x}\n", 100_000),
            "is no address",
        ),
        ("ports", ports, "16384"),
        ("expression", expression, "size limit"),
    ] {
        refused(&folder.file(name, content), words);
    }
}

/// A list in one line.
fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// So many lines.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|number| line(number) + "\n").collect()
}

#[test]
fn what_is_inherited_is_bounded() {
    let folder = Folder::new("inherited");
    let file = |defaults: &str, pool: &str| {
        let pools = lines(30_000, |number| format!("  p{number}: {pool}"));
        format!(
            "defaults: {{pool: {{{defaults}}}}}\nlisteners: {{bind: \"*:1\", pool: p0}}\npools:\n{pools}"
        )
    };
    let backends = list((1..2_000).map(|port| format!("\"10.0.0.1:{port}\"")));
    let unknown = list((0..100_000).map(|number| format!("k{number}: 1"))).replace(['[', ']'], "");
    let long = "x".repeat(8 << 20);
    for (name, defaults, pool) in [
        ("list", format!("backends: {backends}"), ""),
        ("unknown", unknown.clone(), "[\"10.0.0.1:1\"]"),
        (
            "unknown-below",
            format!("timeouts: {{{unknown}}}"),
            "{timeouts: }",
        ),
        (
            "unknown-for-hosts",
            format!("timeouts: {{lb1: {{{unknown}}}}}"),
            "{timeouts: }",
        ),
        (
            "hosts",
            format!("timeouts: {{lb1: , {unknown}}}"),
            "{timeouts: {lb2: , lb1: }}",
        ),
        (
            "text",
            format!("probe: {{type: send_expect, send: {long}}}"),
            "[\"10.0.0.1:1\"]",
        ),
    ] {
        refused(
            &folder.file(name, file(&defaults, pool)),
            "would inherit more than",
        );
    }
}

#[test]
fn what_is_compared_is_bounded() {
    let folder = Folder::new("compared");
    let name = |start: &str, number: usize| format!("{start}{number:0>50}");
    let pools = |count: usize| {
        lines(count, |number| {
            format!("  {}: [127.1.1.1:1]", name("p", number))
        })
    };
    let misspelt = |listeners: usize, count: usize| {
        let each = |number| format!("- {{bind: \"*:{number}\", pool: {}}}", name("q", number));
        format!(
            "listeners:\n{}pools:\n{}",
            lines(listeners, each),
            pools(count)
        )
    };
    let split = list((0..30_000).map(|number| format!("{{pool: {}}}", name("p", number))));
    let address = |number: usize| format!("10.1.{}.{}", number / 250, number % 250);
    let same_port = format!(
        "wrong: 1\nlisteners:\n{}pools:\n  p:\n{}",
        lines(16_000, |number| format!(
            "- {{bind: {}:1, pool: p}}",
            address(number)
        )),
        lines(200_000, |number| format!(
            "  - {{name: b{number}, address: 10.2.1.1:1}}"
        )),
    );
    let binds = list((0..16_000).map(|number| format!("{}:1", address(number))));
    for (name, content, words) in [
        ("names", misspelt(16_000, 30_000), "there is no pool"),
        ("few-names", misspelt(16_000, 1_000), "did you mean"),
        (
            "split",
            format!(
                "wrong: 1\nlisteners: {{bind: \"*:1\", split: {split}}}\npools:\n{}",
                pools(30_000)
            ),
            "there is no key",
        ),
        ("same-port", same_port, "there is no key"),
        (
            "binds",
            format!(
                "listeners:\n- {{bind: {binds}, pool: p}}\n- {{bind: {binds}, pool: p}}\npools: {{p: [\"b:1\"]}}\n"
            ),
            "has this address already",
        ),
        (
            "long-word",
            format!("pools: {{p: {{balance: {}}}}}\n", "x".repeat(8 << 20)),
            "is no balancing algorithm",
        ),
        (
            "long-name",
            format!(
                "pools:\n  ? {}\n  : [{}]\n",
                "x".repeat(4 << 20),
                "1, ".repeat(500_000)
            ),
            "at most 1024 bytes",
        ),
        (
            "wrong-items",
            format!("pools: {{{}: [{}]}}\n", name("p", 1), "1, ".repeat(400_000)),
            "is no address",
        ),
        (
            "long-alias",
            format!(
                "x-a: &a {}\npools:\n{}",
                "x".repeat(4 << 20),
                lines(5_000, |number| format!("  p{number}: *a"))
            ),
            "error",
        ),
    ] {
        refused(&folder.file(name, content), words);
    }
}

#[test]
fn a_program_is_told_of_many_problems_soon() {
    let folder = Folder::new("many");
    for (name, content, problems) in [
        ("lines", "a: 1\n".repeat(200_000), 1_000),
        (
            "one-line",
            format!("{{{}}}", "a: 1, ".repeat(200_000)),
            1_000,
        ),
    ] {
        let path = folder.file(name, content);
        let output = check(&path, &["--format", "json"]);
        assert_eq!(output.status.code(), Some(78));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["problems"].as_array().unwrap().len(), problems);
        assert!(
            told["errors"].as_u64().unwrap() >= 200_000,
            "{}",
            told["errors"]
        );
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = Folder::new("special");
    refused(&folder.0, "is a directory");
    refused(Path::new("/dev/zero"), "is no regular file");
    refused(Path::new("/dev/null"), "is no regular file");
    refused(&folder.0.join("missing.yaml"), "No such file");
    refused(
        &folder.file("file", "x: 1\n").join("below"),
        "Not a directory",
    );
    let fifo = folder.0.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    refused(&fifo, "is no regular file");
    let huge = folder.0.join("huge");
    let mut file = File::create(&huge).unwrap();
    file.write_all(b"listeners: []\n").unwrap();
    file.set_len(100 << 20).unwrap();
    refused(&huge, "at most");
    let itself = folder.0.join("loop");
    std::os::unix::fs::symlink(&itself, &itself).unwrap();
    refused(&itself, "cannot be read");
}

#[test]
fn an_unreadable_file_is_refused() {
    let folder = Folder::new("unreadable");
    let path = folder.file("secret", "listeners: []\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if !Uid::effective().is_root() {
        return refused(&path, "Permission denied");
    }
    // Root may read anything: somebody else is asked.
    let as_nobody = |arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", RINGWAY])
            .args(arguments)
            .output()
    };
    match as_nobody(&["--version"]) {
        Ok(output) if output.status.success() => {}
        Ok(_) | Err(_) => return println!("SKIPPED: nobody else may run the program here"),
    }
    let output = as_nobody(&["check", "-c", path.to_str().unwrap()]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
}
