//! The schema, the reference page, the examples and the defaults say the same.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{self, Index};
use ringway::config::{self, KeyDoc};
use serde_json::{Value, json};

use super::{HOST, documents, files, load, said, tree};

/// Where the key's parent leads in a document that can be used, `NAME` being `a`.
fn with(document: &Value, path: &str, value: Value) -> Value {
    let mut document = document.clone();
    let mut at = &mut document;
    for part in path.split('.') {
        let part = if part == "NAME" { "a" } else { part };
        if at.is_array() {
            at = &mut at[0];
        }
        if at.is_null() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
    document
}

/// A document in which a key may stand.
fn around(path: &str) -> Value {
    let mut types = ["http", "dns"].into_iter();
    let of_type = types.find(|kind| path.contains(&format!("probe.{kind}")));
    let mut document = json!({
        "listeners": [{"bind": {"address": "10.0.0.1:80"}, "pool": "a"}],
        "pools": {"a": {"backends": [{"address": "10.0.0.2:80"}]}},
    });
    if let Some(kind) = of_type {
        document["pools"]["a"]["probe"] = json!({"type": kind});
    }
    if path.starts_with("listeners.split") {
        document["listeners"][0] = json!({"bind": "10.0.0.1:80", "split": [{"pool": "a"}]});
    }
    if path.starts_with("admin.http.") {
        document["admin"] = json!({"http": {"address": "127.0.0.1:9901"}});
    }
    if path.starts_with("vrrp.") {
        document["vrrp"] = json!([{
            "name": "vip", "interface": "eth0", "vrid": 51, "priority": 254, "addresses": "10.0.0.100",
        }]);
    }
    match path.rsplit_once('.').map(|(parent, _)| parent) {
        Some("vrrp.track.pools") => {
            document["vrrp"][0]["track"] = json!({"pools": [{"pool": "a"}]})
        }
        Some("vrrp.track.scripts") => {
            document["vrrp"][0]["track"] = json!({"scripts": [{"command": "/bin/true"}]});
        }
        _ => {}
    }
    document
}

/// A default as it would be written.
fn written(default: &str) -> Value {
    serde_json::from_str(default).unwrap_or_else(|_| json!(default))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn validator() -> Validator {
    let schema = config::schema();
    jsonschema::meta::validate(&schema).expect("the schema is a schema");
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_default_is_valid_and_is_what_applies() {
    let validator = validator();
    let keys = config::keys();
    assert!(keys.len() > 70, "{}", keys.len());
    for key in keys {
        let Some(default) = &key.default else {
            continue;
        };
        let without = around(&key.path);
        let with = with(&without, &key.path, written(default));
        if let Err(error) = validator.validate(&with) {
            panic!("{}: {default} against the schema: {error}", key.path);
        }
        let of = |document: &Value| {
            let loaded = config::parse(&document.to_string(), &key.path, HOST);
            assert!(loaded.config.is_some(), "{}", said(&loaded));
            loaded.config.unwrap()
        };
        let (with, without) = (of(&with), of(&without));
        assert!(
            with == without,
            "{}: {default} is not the default",
            key.path
        );
        assert_eq!(with.to_yaml(), without.to_yaml(), "{}", key.path);
    }
}

#[test]
fn every_key_is_described() {
    for key in config::keys() {
        let KeyDoc {
            path,
            takes,
            meaning,
            ..
        } = key;
        assert!(
            meaning.len() > 8 && meaning.ends_with('.'),
            "{path}: {meaning}"
        );
        assert!(
            !takes.is_empty() && !takes.ends_with(", "),
            "{path}: {takes}"
        );
    }
}

/// The paths of all keys of a document, as the reference names them.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = if path == "pools" { "NAME" } else { key };
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, path, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_example_of_everything_has_every_key() {
    let text = fs::read_to_string(tree("conf/everything.yaml")).unwrap();
    let mut found = BTreeSet::new();
    paths(&yaml(&text), "", &mut found);
    let missing: Vec<String> = config::keys()
        .into_iter()
        .map(|key| key.path)
        .filter(|path| !found.contains(path))
        .collect();
    assert!(
        missing.is_empty(),
        "add to conf/everything.yaml: {missing:?}"
    );
}

#[test]
fn what_the_example_of_everything_shows_as_default_is_it() {
    let text = fs::read_to_string(tree("conf/everything.yaml")).unwrap();
    let keys = config::keys();
    // Lines are enough: each key is on a line of its own.
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut seen = 0;
    for line in text.lines() {
        let (content, comment) = line.split_once('#').unwrap_or((line, ""));
        let plain = match content.trim_start().strip_prefix("- ") {
            Some(_) => content.replacen("- ", "  ", 1),
            None => content.to_owned(),
        };
        let plain = plain.trim_end();
        let Some((key, value)) = plain
            .trim()
            .split_once(": ")
            .or(plain.trim().strip_suffix(':').map(|key| (key, "")))
        else {
            continue;
        };
        let depth = plain.len() - plain.trim_start().len();
        parents.retain(|(other, _)| *other < depth);
        let in_pools = matches!(parents.as_slice(), [(_, name)] if name == "pools");
        parents.push((depth, if in_pools { "NAME" } else { key }.to_owned()));
        let path: Vec<&str> = parents.iter().map(|(_, name)| name.as_str()).collect();
        let path = path.join(".");
        let value = value.trim();
        if value.is_empty() || comment.contains("example") {
            continue;
        }
        let Some(key) = keys.iter().find(|key| key.path == path) else {
            panic!("{path} is no key, or has more than one value on its line: {line}");
        };
        assert_eq!(
            Some(value.trim_matches('"')),
            key.default.as_deref().or(Some("{}")),
            "`{line}` is not the default: mark it with (example), or correct it"
        );
        seen += 1;
    }
    assert!(seen > 50, "{seen} defaults are shown");
}

#[test]
fn the_reference_page_is_the_one_that_the_program_prints() {
    let stored = fs::read_to_string(tree("conf/reference.md")).unwrap_or_default();
    assert!(
        stored == config::reference(),
        "conf/reference.md is out of date: cargo run -- schema --reference > conf/reference.md"
    );
    for key in config::keys() {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(stored.contains(&format!("| `{name}` |")), "{}", key.path);
    }
}

#[test]
fn what_can_be_used_is_valid_for_an_editor() {
    let validator = validator();
    for folder in ["conf", "tests/config/warned"] {
        for path in files(folder) {
            let document = yaml(&fs::read_to_string(&path).unwrap());
            if let Err(error) = validator.validate(&document) {
                panic!("{}: {} {error}", path.display(), error.instance_path());
            }
        }
    }
    let base =
        |listener: &str, pool: &str| format!("listeners:\n  - {listener}\npools:\n  pg: {pool}\n");
    for text in [
        base("{bind: \"*:5432\", pool: pg}", "[10.0.0.11:5432]"),
        base(
            "{bind: [\"*:1\", \"unix:/run/x\"], pool: pg}",
            "10.0.0.11:5432",
        ),
        base(
            "{bind: {address: \"*:1\", freebind: true}, pool: pg}",
            "{backends: 10.0.0.11:5432}",
        ),
        base(
            "{bind: [{address: \"*:1\", freebind: auto}, \"*:2\"], pool: pg}",
            "[{address: db1:5}]",
        ),
        base(
            "{bind: \"*:1\", split: [{pool: pg, weight: 95}]}",
            "{backends: [db:1], probe: none}",
        ),
        base(
            "{bind: \"*:1\", pool: pg, backlog: {lb1: 5, lb2: 6}}",
            "{backends: [db:1], probe: {port: 80}}",
        ),
        base(
            "{bind: \"*:1\", pool: pg}",
            "{backends: [\"10.0.0.1:1\"], source: {lb1: 10.0.0.5, lb2: [10.0.0.6]}}",
        ),
        base(
            "{bind: \"*:1\", pool: pg}",
            "{backends: [db:1], timeouts: {idle: {lb1: none, lb2: 5s}}}",
        ),
        base(
            "{bind: \"*:1\", pool: pg}",
            "{backends: [db:1], probe: {type: http, http: {status: 200}}}",
        ),
        format!(
            "admin: {{socket: off}}\nlog: {{access: off}}\n{}",
            base("{bind: \"*:1\", pool: pg}", "[db:1]")
        ),
        format!(
            "x-a: &a [db:1]\n{}",
            base("{bind: \"*:1\", pool: pg}", "*a ")
        ),
        format!(
            "defaults: {{listener: {{backlog: 9}}, pool: {{retries: 1}}}}\n{}",
            base("{bind: \"*:1\", pool: pg}", "[db:1]")
        ),
    ] {
        let loaded = config::parse(&text, "form.yaml", HOST);
        assert!(loaded.config.is_some(), "{}", said(&loaded));
        if let Err(error) = validator.validate(&yaml(&text)) {
            panic!("{text}: {} {error}", error.instance_path());
        }
    }
}

/// All values in a document, maps and lists themselves included.
fn values(value: &mut Value) -> usize {
    1 + match value {
        Value::Object(entries) => entries.values_mut().map(values).sum(),
        Value::Array(items) => items.iter_mut().map(values).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Changes one of them, counted as they are written.
fn change(value: &mut Value, at: &mut usize, to: &impl Fn(Value) -> Value) {
    if *at == 0 {
        *value = to(value.take());
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Object(entries) => entries.values_mut().for_each(|value| change(value, at, to)),
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, at, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// In quotes.
fn quoted(value: Value) -> Value {
    if value.is_number() || value.is_boolean() {
        json!(value.to_string())
    } else {
        value
    }
}

/// Without its first key, or behind a space.
fn damaged(mut value: Value) -> Value {
    if let Some(entries) = value.as_object_mut() {
        let first = entries.keys().next().cloned().unwrap_or_default();
        entries.shift_remove(&first);
        return value;
    }
    json!(format!(" {}", value.as_str().unwrap_or_default()))
}

/// Ways to write something else, or the same in another way.
const CHANGES: [fn(Value) -> Value; 6] = [
    |value| value,
    |_| Value::Null,
    |value| json!({"lb1": value, "lb2": value}),
    |value| json!([value]),
    quoted,
    damaged,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn whatever_the_program_takes_is_valid_for_an_editor(
        text in documents::usable(),
        at in any::<Index>(),
        to in sample::select(&CHANGES[..]),
    ) {
        static VALIDATOR: LazyLock<Validator> = LazyLock::new(validator);
        let mut document = yaml(&text);
        let mut at = at.index(values(&mut document));
        change(&mut document, &mut at, &to);
        let loaded = config::parse(&document.to_string(), "file.json", HOST);
        if loaded.config.is_some() && let Err(error) = VALIDATOR.validate(&document) {
            panic!("{document}: {} {error}", error.instance_path());
        }
    }
}

/// Beginnings of the names of bad files whose mistake an editor can see.
const VISIBLE: &[&str] = &[
    "backend_without",
    "bind_empty",
    "bind_null",
    "bind_options",
    "defaults_",
    "duration_",
    "freebind_wrong",
    "global_as",
    "key_of",
    "keys_of",
    "listeners_",
    "log_",
    "not_yet",
    "number_negative",
    "number_null",
    "number_as_text",
    "number_as_list",
    "number_too",
    "number_with_fraction",
    "pools_as_list",
    "pools_missing",
    "probe_as_list",
    "probe_http_status",
    "probe_short",
    "size_",
    "split_of",
    "split_percent",
    "typos_of",
    "unknown_key",
    "version_of",
    "weight_above",
    "words_of",
    "pool_name",
    "pools_empty",
    "name_",
    "probe_http_path",
    "probe_http_host",
    "address_unix_folder",
    "text_as_list",
];

/// Those among them that only the program can see: what it takes for a host, it knows which one it is.
const NOT_VISIBLE: &[&str] = &[
    "defaults_for_other_hosts_only",
    "defaults_probe_short_and_long",
    "listeners_as_named_map",
];

#[test]
fn an_editor_sees_the_mistakes_that_a_schema_can_tell() {
    let validator = validator();
    let mut told = 0;
    for path in files("tests/config/bad") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let visible = VISIBLE.iter().any(|start| name.starts_with(start));
        if !visible || NOT_VISIBLE.contains(&name.as_str()) {
            continue;
        }
        assert!(load(&path).config.is_none());
        let document = yaml(&fs::read_to_string(&path).unwrap());
        assert!(
            !validator.is_valid(&document),
            "{name} is fine for the schema"
        );
        told += 1;
    }
    assert!(told > 40, "{told}");
}
