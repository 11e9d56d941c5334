//! Configurations made up for tests.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest::{collection, option, sample};
use serde_json::{Map, Value, json};

/// One pool for each listener, with the backends spread over the pools.
pub(crate) fn large(listeners: usize, backends: usize) -> String {
    let mut text = String::from("listeners:\n");
    for number in 0..listeners {
        let _ = writeln!(
            text,
            "  - {{name: l{number}, bind: \"10.0.0.1:{}\", pool: p{number}}}",
            1_000 + number
        );
    }
    text.push_str("pools:\n");
    for number in 0..listeners {
        let _ = writeln!(text, "  p{number}:\n    backends:");
        for backend in (number..backends).step_by(listeners) {
            let (high, low) = (backend / 256, backend % 256);
            let _ = writeln!(
                text,
                "      - {{name: b{backend}, address: 10.1.{high}.{low}:5432, weight: 10}}"
            );
        }
    }
    text
}

/// Names that YAML could take for something else.
const NAMES: &[&str] = &[
    "pg", "db-1", "größe", "1", "0x10", "1.5", "true", "no", "null", "~", "-", "*a", "&a", "!x",
    "a:b", "#c", "'", "\"", "%x", "@x", "[", "{", "a#b", "<<", "5s", "1e3", ".inf", "=", "?", "|",
];

/// Texts to send or to find in an answer, as written in the file.
const TEXTS: &[&str] = &[
    r"PING\r\n",
    r"\x00\xff",
    "a: b",
    " x ",
    "- x",
    "{}",
    "true",
    "200",
    "/a+b/",
    "Grüße",
    "'\"",
    "# no",
    "none!",
    "a\nb",
    "a\n\nb\n",
    "\u{1b}[0m",
    "\t",
    "null",
];

/// One of several values, each as likely.
fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = Value> + Clone {
    sample::select(values).prop_map(|value| json!(value))
}

fn number(range: RangeInclusive<u32>) -> BoxedStrategy<Value> {
    range.prop_map(|number| json!(number)).boxed()
}

fn switch() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        one_of(&["on", "off"])
    ]
    .boxed()
}

fn or(word: &'static str, value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(json!(word)), 3 => value].boxed()
}

/// A duration of some milliseconds to some days.
fn duration() -> BoxedStrategy<Value> {
    let number = (1_u32..2_000, sample::select(&["ms", "s", "m", "h"][..]));
    let plain = number.prop_map(|(number, unit)| json!(format!("{number}{unit}")));
    let odd = one_of(&["0.5s", "1.25h", "7us", "60s", "3600 s", "1d", "3650d"]);
    prop_oneof![3 => plain, 1 => odd].boxed()
}

fn seconds(least: u32, most: u32) -> BoxedStrategy<Value> {
    (least..=most)
        .prop_map(|number| json!(format!("{number}s")))
        .boxed()
}

fn sessions() -> BoxedStrategy<Value> {
    or("none", number(1..=16_777_216))
}

/// A value, or a map with it for each host.
fn by_host(value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let each = value
        .clone()
        .prop_map(|value| json!({"lb1": value, "lb2": value}));
    prop_oneof![4 => value, 1 => each].boxed()
}

/// Keys whose values are maps and the same on every host.
const SECTIONS: &[&str] = &["timeouts", "keepalive", "passive"];

/// A map with some of the keys.
fn some_of(keys: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Map<String, Value>> {
    let each: Vec<_> = keys
        .into_iter()
        .map(|(key, value)| {
            let value = if SECTIONS.contains(&key) {
                value
            } else {
                by_host(value)
            };
            option::of(value).prop_map(move |value| (key, value))
        })
        .collect();
    each.prop_map(|entries| {
        let written = entries
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        written.collect()
    })
    .boxed()
}

fn section(keys: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    some_of(keys).prop_map(Value::Object).boxed()
}

fn merged(parts: (Map<String, Value>, Map<String, Value>)) -> Value {
    let (mut all, more) = parts;
    all.extend(more);
    Value::Object(all)
}

fn with(key: &'static str, value: &'static str) -> BoxedStrategy<Map<String, Value>> {
    Just(Map::from_iter([(key.to_owned(), json!(value))])).boxed()
}

fn probe() -> BoxedStrategy<Value> {
    let common = || {
        some_of(vec![
            ("port", or("none", number(1..=65_535))),
            (
                "source",
                or("none", one_of(&["10.0.0.5", "192.0.2.1"]).boxed()),
            ),
            ("interval", seconds(2, 100)),
            ("fast_interval", or("auto", seconds(1, 2))),
            ("down_interval", seconds(1, 100)),
            ("timeout", one_of(&["1s", "100ms", "2s"]).boxed()),
            ("rise", number(1..=1_000)),
            ("fall", number(1..=1_000)),
        ])
    };
    let http = section(vec![
        ("path", one_of(&["/", "/a?b=c", "/a%20b", "//"]).boxed()),
        ("method", one_of(&["GET", "HEAD", "OPTIONS"]).boxed()),
        (
            "status",
            prop_oneof![
                one_of(&["200", "200-204,301", "200 , 404"]),
                number(100..=599)
            ]
            .boxed(),
        ),
        (
            "host",
            or("none", one_of(&["db.example.net", "1", "~"]).boxed()),
        ),
        ("body", or("none", one_of(TEXTS).boxed())),
    ]);
    let http = http.prop_map(|http| {
        Map::from_iter([
            ("type".to_owned(), json!("http")),
            ("http".to_owned(), http),
        ])
    });
    let send = some_of(vec![("send", one_of(TEXTS).boxed())]).prop_map(|mut keys| {
        keys.insert("type".to_owned(), json!("send_expect"));
        keys.insert("expect".to_owned(), json!("/./"));
        keys
    });
    prop_oneof![
        one_of(&["tcp", "none"]),
        (with("type", "tcp"), common()).prop_map(merged),
        (with("type", "none"), common()).prop_map(merged),
        (common(), http).prop_map(merged),
        (common(), send).prop_map(merged),
    ]
    .boxed()
}

fn backends() -> BoxedStrategy<Value> {
    let keys = some_of(vec![
        ("backup", switch()),
        ("max_sessions", sessions()),
        ("state", one_of(&["ready", "drain", "maintenance"]).boxed()),
        ("weight", number(1..=256)),
    ]);
    const HOSTS: &[&str] = &["10.9.0.1", "db1.example.net", "DB2.example.net.", "pg_3"];
    let one = (
        keys,
        sample::select(HOSTS),
        any::<bool>(),
        sample::select(NAMES),
    );
    let list = collection::vec(one, 1..5).prop_map(|items| {
        let items = items.into_iter().enumerate();
        let each = items.map(|(index, (mut keys, host, short, name))| {
            let address = json!(format!("{host}:{}", 4_000 + index));
            if short {
                return address;
            }
            keys.insert("name".to_owned(), json!(format!("{name}{index}")));
            keys.insert("address".to_owned(), address);
            Value::Object(keys)
        });
        let each: Vec<Value> = each.collect();
        match each.as_slice() {
            [one] if one.is_string() => one.clone(),
            _ => json!(each),
        }
    });
    let more = json!(["unix:/run/a b.sock", {"address": "unix:/run/x", "weight": 0}, "10.9.0.2:1"]);
    prop_oneof![5 => list, 1 => Just(more)].boxed()
}

fn pool_keys() -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let timeouts = section(vec![
        ("connect", duration()),
        ("idle", or("none", duration())),
        ("half_close", or("none", duration())),
        ("session", or("none", duration())),
    ]);
    let keepalive = section(vec![
        ("idle", seconds(1, 32_767)),
        ("interval", seconds(1, 32_767)),
        ("count", number(1..=127)),
        (
            "user_timeout",
            or("none", one_of(&["1ms", "1500ms", "30s", "24d"]).boxed()),
        ),
    ]);
    let passive = section(vec![
        ("failures", or("none", number(1..=1_000_000))),
        ("retry_after", duration()),
    ]);
    let sources = prop_oneof![
        one_of(&["10.0.0.5"]),
        Just(json!(["10.0.0.5", "2001:db8::5"])),
        Just(json!(["10.0.0.6"]))
    ];
    vec![
        (
            "balance",
            one_of(&[
                "least_connections",
                "round_robin",
                "random",
                "hash",
                "least_time",
                "first",
            ])
            .boxed(),
        ),
        ("hash_key", one_of(&["source_ip", "source"]).boxed()),
        ("passive", passive),
        (
            "on_down",
            one_of(&["close_silent", "close", "keep"]).boxed(),
        ),
        ("on_up", one_of(&["keep", "close_backup"]).boxed()),
        ("retries", number(0..=7)),
        ("slow_start", or("none", duration())),
        ("drain_timeout", or("none", duration())),
        ("timeouts", timeouts),
        ("keepalive", keepalive),
        ("source", or("none", sources.boxed())),
    ]
}

fn pool() -> BoxedStrategy<Value> {
    let long = (
        some_of(pool_keys()),
        backends(),
        option::of(probe()),
        any::<bool>(),
    );
    let long = long.prop_map(|(mut keys, backends, probe, shared)| {
        keys.insert("backends".to_owned(), backends);
        if let Some(probe) = probe {
            keys.insert("probe".to_owned(), probe);
        }
        if shared {
            keys.insert("timeouts".to_owned(), json!("@shared"));
        }
        Value::Object(keys)
    });
    // A short form is a list: a single map would be the long form of the pool.
    let short = backends().prop_filter("a list or an address", |value| !value.is_object());
    prop_oneof![3 => long, 1 => short].boxed()
}

fn listener_keys() -> Vec<(&'static str, BoxedStrategy<Value>)> {
    vec![
        ("protocol", one_of(&["tcp"]).boxed()),
        ("when_empty", one_of(&["refuse", "reset"]).boxed()),
        ("max_sessions", sessions()),
        ("backlog", number(1..=1_048_576)),
    ]
}

/// A listener on ports of its own, to pools by their numbers.
fn listener(index: usize, pools: usize) -> BoxedStrategy<Value> {
    let port = 10_000 + 10 * index;
    let plain = vec![
        json!(format!("*:{port}")),
        json!(format!("10.0.0.1:{port}-{}", port + 9)),
        json!(format!("[2001:db8::1]:{port}")),
        json!(format!("unix:/run/l{index}.sock")),
        json!({"address": format!("[::]:{port}"), "freebind": true}),
        json!({"address": format!("10.0.0.1:{port}"), "freebind": "auto"}),
        json!({"address": format!("0.0.0.0:{port}"), "freebind": false}),
        json!([format!("10.0.0.1:{port}"), {"address": format!("10.0.0.2:{port}")}]),
        json!([{"address": format!("*:{port}"), "freebind": true}]),
    ];
    let target = (any::<bool>(), 0..pools, 1_u32..=256);
    (
        some_of(listener_keys()),
        sample::select(plain),
        option::of(sample::select(NAMES)),
        target,
    )
        .prop_map(move |(mut keys, bind, name, (split, pool, weight))| {
            keys.insert("bind".to_owned(), bind);
            if let Some(name) = name {
                keys.insert("name".to_owned(), json!(format!("{name}{index}")));
            }
            let pool = NAMES[pool];
            if split {
                keys.insert(
                    "split".to_owned(),
                    json!([{"pool": pool, "weight": weight}]),
                );
            } else {
                keys.insert("pool".to_owned(), json!(pool));
            }
            Value::Object(keys)
        })
        .boxed()
}

fn top() -> BoxedStrategy<Map<String, Value>> {
    let global = section(vec![
        ("workers", or("auto", number(1..=256))),
        ("pin_workers", switch()),
        ("max_sessions", or("auto", number(1..=16_777_216))),
        ("max_flows", or("auto", number(1..=16_777_216))),
        (
            "pipe_memory",
            one_of(&["1MiB", "2GiB", "1048577B", "4096KiB"]).boxed(),
        ),
        ("drain_timeout", or("none", duration())),
        ("user", one_of(&["none"]).boxed()),
    ]);
    let log = section(vec![
        (
            "level",
            one_of(&["error", "warn", "info", "debug", "trace"]).boxed(),
        ),
        ("format", one_of(&["text", "json"]).boxed()),
        ("access", one_of(&["off"]).boxed()),
    ]);
    let admin = section(vec![
        (
            "socket",
            or(
                "off",
                prop_oneof![
                    one_of(&["/run/a.sock", "unix:/run/b c.sock"]),
                    Just(json!({"path": "/run/c.sock", "group": "adm"})),
                ]
                .boxed(),
            ),
        ),
        ("http", http()),
        ("metrics", one_of(&["off", "0.0.0.0:9902"]).boxed()),
        (
            "state_file",
            one_of(&["auto", "off", "/var/lib/x.json"]).boxed(),
        ),
    ]);
    let defaults = (some_of(listener_keys()), some_of(pool_keys()));
    let defaults =
        defaults.prop_map(|(listener, pool)| json!({"listener": listener, "pool": pool}));
    let keys = (global, log, admin, option::of(defaults), any::<bool>());
    keys.prop_map(|(global, log, admin, defaults, version)| {
        let mut top = Map::from_iter([
            ("global".to_owned(), global),
            ("log".to_owned(), log),
            ("admin".to_owned(), admin),
        ]);
        if let Some(defaults) = defaults {
            top.insert("defaults".to_owned(), defaults);
        }
        if version {
            top.insert("version".to_owned(), json!(1));
        }
        top
    })
    .boxed()
}

/// Any configuration that can be used, as the text of a file: all keys, both forms of what has two, values for each
/// host, defaults, anchors.
pub(crate) fn usable() -> impl Strategy<Value = String> {
    let pools = collection::vec(pool(), 1..4);
    let parts = pools.prop_flat_map(|pools| {
        let count = pools.len();
        let listeners: Vec<_> = (0..3).map(|index| listener(index, count)).collect();
        (top(), Just(pools), listeners, 1_usize..=3, any::<bool>())
    });
    parts.prop_map(|(mut top, pools, listeners, count, block)| {
        let pools = NAMES.iter().map(|name| (*name).to_owned()).zip(pools);
        top.insert("pools".to_owned(), Value::Object(pools.collect()));
        let mut listeners = listeners;
        listeners.truncate(count);
        top.insert("listeners".to_owned(), json!(listeners));
        written(&Value::Object(top), block)
    })
}

/// As lines, or as the JSON that YAML contains; with an alias for what is shared.
fn written(value: &Value, block: bool) -> String {
    let shared = "{connect: 3s, idle: 1h}";
    if block {
        let text = serde_saphyr::to_string(value).unwrap();
        let body = text.replace("\"@shared\"", "*shared ");
        format!("x-shared: &shared {shared}\n{body}")
    } else {
        let text = value.to_string().replace("\"@shared\"", "*shared ");
        format!("{{x-shared: &shared {shared}, {}", &text[1..])
    }
}

fn http() -> BoxedStrategy<Value> {
    let tls = json!({"cert": "/etc/cert.pem", "key": "/etc/key.pem"});
    let forms = [
        json!(false),
        json!("127.0.0.1:9901"),
        json!({"address": "[::1]:9901", "token_file": "/etc/token"}),
        json!({"address": "10.0.0.1:9901", "token_file": "/etc/token", "tls": tls}),
    ];
    proptest::sample::select(forms.to_vec()).boxed()
}
