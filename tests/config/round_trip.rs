//! What the program prints of a configuration is that configuration, on every host.

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringway::config::{self, Config};

use super::{HOST, documents, files, said};

fn used(text: &str, host: &str) -> Config {
    let loaded = config::parse(text, "file.yaml", host);
    assert!(loaded.config.is_some(), "{text}\n{}", said(&loaded));
    loaded.config.unwrap()
}

/// All that a configuration means.
fn meaning(config: &Config) -> String {
    format!(
        "{:#?}{:#?}{:#?}{:#?}",
        config.global, config.log, config.admin, config.snapshot
    )
}

fn comes_back(text: &str) {
    let config = used(text, HOST);
    let printed = config.to_yaml();
    for host in [HOST, "another"] {
        let again = used(&printed, host);
        assert!(again == config, "{text}\nis printed as\n{printed}");
        assert_eq!(meaning(&again), meaning(&config), "{text}\n{printed}");
        assert_eq!(again.to_yaml(), printed, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn any_configuration_comes_back_from_what_is_printed(text in documents::usable()) {
        comes_back(&text);
    }
}

#[test]
fn every_example_comes_back_from_what_is_printed() {
    for folder in ["conf", "tests/config/warned"] {
        for path in files(folder) {
            comes_back(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_program_prints_what_the_library_does() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("config-print-{}.yaml", std::process::id()));
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let text = documents::usable().new_tree(&mut runner).unwrap().current();
        fs::write(&path, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["run", "--print-config", "--node", HOST, "-c"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, used(&text, HOST).to_yaml());
    }
    fs::remove_file(path).unwrap();
}
