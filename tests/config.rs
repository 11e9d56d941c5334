//! The configuration reader from outside: what it says of wrong and doubtful files, that nothing harms it, and that the
//! schema, the reference page, the examples and what it prints agree with it.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway::config::{self, Loaded};

#[path = "config/defaults.rs"]
mod defaults;
#[path = "config/documents.rs"]
mod documents;
#[path = "config/hostile.rs"]
mod hostile;
#[path = "config/meaning.rs"]
mod meaning;
#[path = "config/round_trip.rs"]
mod round_trip;
#[path = "config/schema.rs"]
mod schema;

/// The host that all files are read for.
const HOST: &str = "lb1";

/// As wide as a file is shown where there is no terminal.
const WIDTH: usize = 140;

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The YAML files of a folder of the tree, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree(folder)).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no files");
    files
}

/// A file as `ringway check` reads it, called by its name alone.
fn load(path: &Path) -> Loaded {
    let mut loaded = config::load(path, HOST);
    loaded.report.name = path.file_name().unwrap().to_str().unwrap().to_owned();
    loaded
}

/// Everything that is said of a file.
fn said(loaded: &Loaded) -> String {
    loaded.report.render(false, WIDTH)
}

/// Compares with the stored snapshots; `INSTA_UPDATE=always` writes them anew.
fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_bad_file_gets_its_message() {
    assert!(files("tests/config/bad").len() >= 70);
    snapshots().bind(|| {
        insta::glob!("config/bad/*.yaml", |path| {
            let loaded = load(path);
            assert!(
                loaded.config.is_none(),
                "{} can be used: move it to warned/",
                path.display()
            );
            assert!(loaded.report.counts().0 > 0);
            insta::assert_snapshot!("bad", said(&loaded));
        });
    });
}

#[test]
fn every_doubtful_file_gets_its_warning() {
    snapshots().bind(|| {
        insta::glob!("config/warned/*.yaml", |path| {
            let loaded = load(path);
            assert!(loaded.config.is_some(), "{}", said(&loaded));
            assert!(loaded.report.counts().1 > 0);
            insta::assert_snapshot!("warned", said(&loaded));
        });
    });
}

#[test]
fn every_message_fits_a_width_and_says_its_place() {
    for path in files("tests/config/bad") {
        let loaded = load(&path);
        for problem in &loaded.report.problems {
            assert!(!problem.message.contains('\n'), "{}", problem.message);
            assert!(problem.message.chars().count() < 320, "{}", problem.message);
        }
        let columns = |line: &str| line.chars().count();
        let of_file = |line: &&str| {
            line.trim_start()
                .starts_with(|letter: char| letter.is_ascii_digit())
        };
        let text = said(&loaded);
        let widest = text.lines().filter(of_file).map(columns).max();
        assert!(widest.unwrap_or(0) <= WIDTH + 10, "{text}");
    }
}

#[test]
fn a_thousand_listeners_and_ten_thousand_backends_are_read_at_once() {
    let text = documents::large(1_000, 10_000);
    let begun = Instant::now();
    let loaded = config::parse(&text, "large.yaml", HOST);
    let took = begun.elapsed();
    let config = loaded.config.as_ref().unwrap();
    assert_eq!(config.snapshot.listeners.len(), 1_000);
    assert_eq!(config.snapshot.backends.len(), 10_000);
    println!("{} bytes in {took:?}", text.len());
    assert!(took < Duration::from_secs(10), "{took:?}");
}
