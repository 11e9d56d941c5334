//! The configuration: the YAML file as written ([`document`]), its names resolved and its values checked
//! ([`resolve`]). Reads no socket and starts nothing.

mod document;
mod resolve;
mod units;

use std::path::Path;

use crate::control::snapshot::{Global, Snapshot};

pub use document::Document;

/// Largest file that is read; the largest sensible one is far smaller.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What concerns the process.
    pub global: Global,
    /// What workers read.
    pub snapshot: Snapshot,
}

/// What is wrong with a configuration: one line or more for each mistake, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Invalid(pub Vec<String>);

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Invalid> {
    let text =
        read(path).map_err(|problem| Invalid(vec![format!("{}: {problem}", path.display())]))?;
    parse(&text, &path.display().to_string())
}

/// Checks a text; `name` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, name: &str) -> Result<Config, Invalid> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|error| Invalid(vec![format!("{name}: {error}")]))?;
    resolve::resolve(document).map_err(|problems| {
        Invalid(
            problems
                .into_iter()
                .map(|problem| format!("{name}: {problem}"))
                .collect(),
        )
    })
}

/// The file that `--listen` and `--to` stand for.
///
/// # Errors
/// Everything that is wrong with the addresses.
pub fn from_addresses(listen: &[String], to: &[String]) -> Result<Config, Invalid> {
    resolve::resolve(Document::of_addresses(listen, to)).map_err(Invalid)
}

fn read(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.len() > FILE_MAX {
        return Err(format!(
            "has {} bytes; a configuration has at most {FILE_MAX}",
            meta.len()
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| {
        format!(
            "is not UTF-8 text (byte {})",
            error.utf8_error().valid_up_to()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_file_loads() {
        let text = "listeners:\n  - bind: \"*:5432\"\n    pool: pg\npools:\n  pg: [10.0.0.11:5432, 10.0.0.12:5432]\n";
        let config = parse(text, "test").unwrap();
        assert_eq!(config.snapshot.listeners.len(), 1);
        assert_eq!(&*config.snapshot.listeners[0].name, "*:5432");
        assert_eq!(&*config.snapshot.backends[1].name, "10.0.0.12:5432");
        assert_eq!(config.snapshot.pools[0].rules.retries, 2);
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "listeners:\n  - {bind: 1.2.3.4, pool: nope}\npools:\n  pg: {backends: [x:y], retries: 99}\n";
        let Invalid(problems) = parse(text, "test").unwrap_err();
        let all = problems.join("\n");
        for part in ["1.2.3.4", "nope", "x:y", "retries"] {
            assert!(all.contains(part), "{part} is missing in:\n{all}");
        }
    }

    #[test]
    fn two_listeners_on_one_address_are_refused() {
        let listeners = "listeners: [{bind: '*:1', pool: p}, {bind: ['[::1]:2', '*:1'], pool: p}]";
        let Invalid(problems) =
            parse(&format!("{listeners}\npools: {{p: [1.1.1.1:1]}}\n"), "test").unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("listener *:1 has `*:1` already"),
            "{problems:?}"
        );
        let chosen =
            "listeners: [{name: a, bind: '*:0', pool: p}, {name: b, bind: '*:0', pool: p}]";
        assert!(parse(&format!("{chosen}\npools: {{p: [1.1.1.1:1]}}\n"), "test").is_ok());
    }

    #[test]
    fn unknown_keys_and_values_are_refused() {
        assert!(parse("listeners: []\npools: {}\nnonsense: 1\n", "test").is_err());
        let text = "listeners: [{bind: '*:1', pool: p}]\npools: {p: {backends: [1.1.1.1:1], balance: hash}}\n";
        assert!(
            parse(text, "test")
                .unwrap_err()
                .to_string()
                .contains("not supported yet")
        );
    }
}
