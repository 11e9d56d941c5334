//! What differs between two configurations, in the words of the file: which listeners, pools and backends come, go or
//! change, and in which keys. Pure: how many sessions that touches is asked for.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;

/// What a key is that is not written.
const DEFAULT: &str = "default";
/// Sections of which a running process takes over nothing but what [`TAKEN_OVER`] names.
const SECTIONS: [&str; 3] = ["global", "log", "admin"];
const TAKEN_OVER: [&str; 2] = ["global.drain_timeout", "log.level"];

/// A configuration as it is written, with the names that its parts go by.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    document: Value,
    listeners: Vec<String>,
    pools: Vec<(String, Vec<String>)>,
}

/// A key whose value is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    from: Value,
    to: Value,
}

/// What becomes of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Changed(Vec<Key>),
    Removed,
}

/// One part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What people call it; a backend by its pool and itself.
    pub(super) name: String,
    pub(super) what: What,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) listeners: Vec<Part>,
    pub(super) pools: Vec<Part>,
    pub(super) backends: Vec<Part>,
    /// Of the process, taken over.
    pub(super) process: Vec<Key>,
    /// What only a restart takes over.
    pub(super) restart: Vec<Key>,
}

impl Written {
    /// What a document and its snapshot say; their parts are in the same order.
    pub(super) fn new(document: Value, snapshot: &Snapshot) -> Written {
        let listeners = snapshot.listeners_in_order();
        let pools = snapshot.pools_in_order().map(|(_, pool)| {
            let backends = pool.backends.iter();
            let names = backends.map(|id| snapshot.backends[id.index()].name.to_string());
            (pool.name.to_string(), names.collect())
        });
        Written {
            document,
            listeners: listeners
                .map(|(_, listener)| listener.name.to_string())
                .collect(),
            pools: pools.collect(),
        }
    }

    /// The same, once a process that began as `running` has taken over what it can.
    pub(super) fn taken_over_from(&self, running: &Written, takes_routers: bool) -> Written {
        let mut now = self.clone();
        let kept = SECTIONS.iter().copied();
        for section in kept.chain((!takes_routers).then_some("vrrp")) {
            let mut value = running.document[section].clone();
            for key in TAKEN_OVER {
                if let Some((_, key)) = key.split_once('.').filter(|(of, _)| *of == section) {
                    put(&mut value, key, &self.document[section][key]);
                }
            }
            put(&mut now.document, section, &value);
        }
        now
    }

    fn parts_of_listeners(&self) -> Vec<(String, Value)> {
        let written = self.document["listeners"].as_array();
        let written = written.into_iter().flatten().cloned();
        self.listeners.iter().cloned().zip(written).collect()
    }

    fn parts_of_pools(&self) -> Vec<(String, Value)> {
        let each = self.pools.iter().map(|(name, _)| {
            let mut pool = long(&self.document["pools"][name], "backends");
            if let Value::Object(keys) = &mut pool {
                keys.shift_remove("backends");
            }
            (name.clone(), pool)
        });
        each.collect()
    }

    fn parts_of_backends(&self) -> Vec<(String, Value)> {
        let mut parts = Vec::new();
        for (pool, names) in &self.pools {
            let written = long(&self.document["pools"][pool], "backends");
            let items = match &written["backends"] {
                Value::Array(items) => items.clone(),
                Value::Null => Vec::new(),
                one @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                    vec![one.clone()]
                }
            };
            for (name, item) in names.iter().zip(&items) {
                let mut item = long(item, "address");
                if let Value::Object(keys) = &mut item {
                    keys.shift_remove("name");
                }
                parts.push((format!("{pool}/{name}"), item));
            }
        }
        parts
    }
}

fn put(value: &mut Value, key: &str, now: &Value) {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    if let Value::Object(keys) = value {
        if now.is_null() {
            keys.shift_remove(key);
        } else {
            keys.insert(key.to_owned(), now.clone());
        }
    }
}

/// The long form of what may be written as the value of one of its keys.
fn long(value: &Value, short: &str) -> Value {
    match value {
        Value::Object(_) => value.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json!({short: value})
        }
    }
}

/// What differs. `takes_routers` says whether virtual routers become what is written of them.
pub(super) fn between(old: &Written, new: &Written, takes_routers: bool) -> Difference {
    let mut difference = Difference {
        listeners: parts(&old.parts_of_listeners(), &new.parts_of_listeners()),
        pools: parts(&old.parts_of_pools(), &new.parts_of_pools()),
        backends: parts(&old.parts_of_backends(), &new.parts_of_backends()),
        ..Difference::default()
    };
    for section in SECTIONS {
        let (was, is) = (&old.document[section], &new.document[section]);
        for key in keys(section, was, is) {
            if TAKEN_OVER.contains(&key.name.as_str()) {
                difference.process.push(key);
            } else {
                difference.restart.push(key);
            }
        }
    }
    let routers = of_routers(&old.document["vrrp"], &new.document["vrrp"]);
    if takes_routers {
        difference.process.extend(routers);
    } else {
        difference.restart.extend(routers);
    }
    difference
}

/// The changes of the virtual routers, by their names where those are the same.
fn of_routers(old: &Value, new: &Value) -> Vec<Key> {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (was, is) = (all(old), all(new));
    let names = |all: &[Value]| {
        all.iter()
            .map(|one| one["name"].clone())
            .collect::<Vec<_>>()
    };
    if names(&was) != names(&is) {
        return keys("vrrp", old, new);
    }
    let each = was.iter().zip(&is);
    each.flat_map(|(old, new)| {
        let path = format!("vrrp.{}", old["name"].as_str().unwrap_or_default());
        keys(&path, old, new)
    })
    .collect()
}

fn parts(old: &[(String, Value)], new: &[(String, Value)]) -> Vec<Part> {
    let was: HashMap<&str, &Value> = old.iter().map(|(name, value)| (&**name, value)).collect();
    let is: HashSet<&str> = new.iter().map(|(name, _)| &**name).collect();
    let mut parts = Vec::new();
    for (name, value) in new {
        let what = match was.get(&**name) {
            None => What::Added,
            Some(before) => What::Changed(keys("", before, value)),
        };
        if what != What::Changed(Vec::new()) {
            let name = name.clone();
            parts.push(Part { name, what });
        }
    }
    let gone = old.iter().filter(|(name, _)| !is.contains(&**name));
    parts.extend(gone.map(|(name, _)| Part {
        name: name.clone(),
        what: What::Removed,
    }));
    parts
}

/// The keys whose values differ, with their paths.
fn keys(path: &str, old: &Value, new: &Value) -> Vec<Key> {
    if old == new {
        return Vec::new();
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match (old, new) {
        (Value::Object(was), Value::Object(is)) => {
            let gone = was.keys().filter(|key| !is.contains_key(*key));
            let names = is.keys().chain(gone);
            names
                .flat_map(|name| keys(&below(name), &old[name], &new[name]))
                .collect()
        }
        (Value::Null, Value::Object(is)) if !path.is_empty() => is
            .keys()
            .flat_map(|name| keys(&below(name), &Value::Null, &new[name]))
            .collect(),
        (Value::Object(was), Value::Null) if !path.is_empty() => was
            .keys()
            .flat_map(|name| keys(&below(name), &old[name], &Value::Null))
            .collect(),
        (_, _) => vec![Key {
            name: path.to_owned(),
            from: old.clone(),
            to: new.clone(),
        }],
    }
}

impl Key {
    fn to_json(&self) -> Value {
        let shown = |value: &Value| match value.is_null() {
            true => json!(DEFAULT),
            false => value.clone(),
        };
        json!({"key": self.name, "from": shown(&self.from), "to": shown(&self.to)})
    }
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        *self == Difference::default()
    }

    /// How many there are of each kind, in words.
    pub(super) fn summary(&self) -> String {
        let mut words = Vec::new();
        for (what, parts) in [
            ("listener", &self.listeners),
            ("pool", &self.pools),
            ("backend", &self.backends),
        ] {
            let count = |wanted: fn(&What) -> bool| {
                let found = parts.iter().filter(|part| wanted(&part.what));
                found.count()
            };
            for (count, word) in [
                (count(|what| *what == What::Added), "added"),
                (count(|what| matches!(what, What::Changed(_))), "changed"),
                (count(|what| *what == What::Removed), "removed"),
            ] {
                let several = if count == 1 { "" } else { "s" };
                if count > 0 {
                    words.push(format!("{count} {what}{several} {word}"));
                }
            }
        }
        let process = self
            .process
            .iter()
            .map(|key| format!("{} changed", key.name));
        words.extend(process);
        if !self.restart.is_empty() {
            let names: Vec<&str> = self.restart.iter().map(|key| key.name.as_str()).collect();
            words.push(format!("a restart is needed for {}", names.join(", ")));
        }
        match words.as_slice() {
            [] => "no difference".to_owned(),
            words => words.join(", "),
        }
    }

    /// With the sessions on what is changed or removed: `sessions` is asked for a kind and a name.
    pub(super) fn to_json(&self, sessions: impl Fn(&str, &str) -> u64) -> Value {
        let part = |kind: &str, part: &Part| {
            let mut facts = Map::new();
            match part.name.split_once('/').filter(|_| kind == "backends") {
                Some((pool, name)) => {
                    facts.insert("pool".to_owned(), json!(pool));
                    facts.insert("name".to_owned(), json!(name));
                }
                None => drop(facts.insert("name".to_owned(), json!(part.name))),
            }
            if let What::Changed(keys) = &part.what {
                let keys: Vec<Value> = keys.iter().map(Key::to_json).collect();
                facts.insert("keys".to_owned(), json!(keys));
            }
            if part.what != What::Added {
                let count = sessions(kind, &part.name);
                facts.insert("sessions".to_owned(), json!(count));
            }
            Value::Object(facts)
        };
        let kind = |kind: &str, parts: &[Part]| {
            let of = |wanted: fn(&What) -> bool| -> Vec<Value> {
                let found = parts.iter().filter(|part| wanted(&part.what));
                found.map(|found| part(kind, found)).collect()
            };
            json!({
                "added": of(|what| *what == What::Added),
                "changed": of(|what| matches!(what, What::Changed(_))),
                "removed": of(|what| *what == What::Removed),
            })
        };
        let keys = |keys: &[Key]| -> Vec<Value> { keys.iter().map(Key::to_json).collect() };
        json!({
            "listeners": kind("listeners", &self.listeners),
            "pools": kind("pools", &self.pools),
            "backends": kind("backends", &self.backends),
            "process": keys(&self.process),
            "needs_restart": keys(&self.restart),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Written {
        let loaded = crate::config::parse(text, "test", "here");
        let (config, _) = loaded.into_result().expect("it is right");
        Written::new(config.document(), &config.snapshot)
    }

    const OLD: &str = "global: {workers: 2}\n\
        listeners: [{name: a, bind: \"*:1\", pool: p}, {bind: \"*:2\", pool: q}]\n\
        pools: {p: [\"10.0.0.1:1\", {name: two, address: \"10.0.0.2:1\"}], q: [\"10.0.0.3:1\"]}\n";

    #[test]
    fn every_part_and_every_key_is_told_whichever_form_it_is_written_in() {
        let new = "global: {workers: 3, drain_timeout: 5s}\nlog: {level: warn}\n\
            listeners: [{name: a, bind: \"*:1\", pool: p, max_sessions: 5}, {name: c, bind: \"*:3\", pool: p}]\n\
            pools: {p: {backends: [{address: \"10.0.0.1:1\"}, {name: two, address: \"10.0.0.9:1\", weight: 2}], \
            timeouts: {connect: 1s}}}\n";
        let difference = between(&written(OLD), &written(new), true);
        assert_eq!(
            difference.summary(),
            "1 listener added, 1 listener changed, 1 listener removed, 1 pool changed, 1 pool removed, \
             1 backend changed, 1 backend removed, global.drain_timeout changed, log.level changed, \
             a restart is needed for global.workers"
        );
        let told = difference.to_json(|_, _| 7);
        assert_eq!(
            told["listeners"],
            json!({
                "added": [{"name": "c"}],
                "changed": [{"name": "a", "sessions": 7,
                    "keys": [{"key": "max_sessions", "from": "default", "to": 5}]}],
                "removed": [{"name": "*:2", "sessions": 7}],
            })
        );
        assert_eq!(
            told["backends"]["changed"],
            json!([{"pool": "p", "name": "two", "sessions": 7, "keys": [
                {"key": "address", "from": "10.0.0.2:1", "to": "10.0.0.9:1"},
                {"key": "weight", "from": "default", "to": 2},
            ]}])
        );
        assert_eq!(
            told["pools"]["changed"][0]["keys"],
            json!([{"key": "timeouts.connect", "from": "default", "to": "1s"}])
        );
    }

    #[test]
    fn the_same_in_another_form_is_no_difference() {
        let new = OLD.replace("\"10.0.0.1:1\"", "{address: \"10.0.0.1:1\", weight: 1}");
        let difference = between(&written(OLD), &written(&new), true);
        assert!(difference.is_empty(), "{difference:?}");
        assert_eq!(difference.summary(), "no difference");
    }

    #[test]
    fn what_needs_a_restart_is_named_until_it_is_done_or_taken_back() {
        let (old, new) = (
            written(OLD),
            written(&OLD.replace("workers: 2", "workers: 4, drain_timeout: 1s")),
        );
        let running = new.taken_over_from(&old, true);
        let difference = between(&running, &new, true);
        assert_eq!(
            difference.summary(),
            "a restart is needed for global.workers"
        );
        let back = between(&running, &written(OLD), true);
        assert_eq!(back.summary(), "global.drain_timeout changed");
    }
}
