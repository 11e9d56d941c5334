//! `/metrics`: what it says is what a load has counted, what is listed is what is served, and Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use ringway::metrics::list::{self, Kind, Metric};

use crate::harness::backend::Backend;
use crate::harness::datagram::{self, Responder};
use crate::harness::http::{self, request};
use crate::harness::stream;
use crate::harness::{Launch, Ringway, SOON, eventually, skip};

/// The values of an exposition by series, as in `name{label="value"}`.
type Series = BTreeMap<String, f64>;

fn parsed(exposition: &str) -> Series {
    let lines = exposition.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value = if value == "+Inf" {
            f64::INFINITY
        } else {
            value.parse().unwrap()
        };
        (name.to_owned(), value)
    });
    series.collect()
}

#[track_caller]
fn scrape(ringway: &Ringway) -> (String, Series) {
    let answer = ringway.get("/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let series = parsed(&answer.body);
    (answer.body, series)
}

/// The sum of a metric over all its series that have these labels.
#[track_caller]
fn sum(series: &Series, name: &str, labels: &[&str]) -> f64 {
    let has = |found: &str| {
        let (found, rest) = found.split_once('{').unwrap_or((found, ""));
        found == name && labels.iter().all(|label| rest.contains(label))
    };
    let found: Vec<f64> = series
        .iter()
        .filter(|(found, _)| has(found))
        .map(|(_, value)| *value)
        .collect();
    assert!(!found.is_empty(), "no {name} with {labels:?}");
    found.iter().sum()
}

/// Two listeners in front of two pools; `a` is probed, `b` has a listener for TCP and one for UDP.
fn config(a: &[SocketAddr], b: SocketAddr) -> String {
    let a: Vec<String> = a.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "global: {{workers: 2}}\n\
         admin: {{metrics: \"127.0.0.1:0\"}}\n\
         listeners:\n\
         - {{name: first, bind: \"127.0.0.1:0\", pool: a}}\n\
         - {{name: second, bind: \"127.0.0.1:0\", pool: b}}\n\
         - {{name: third, bind: \"127.0.0.1:0\", pool: b, protocol: udp}}\n\
         pools:\n\
         \x20 a: {{balance: round_robin, backends: [{}]}}\n\
         \x20 b: {{probe: none, backends: [{{name: only, address: \"{b}\", max_sessions: 99}}]}}\n",
        a.join(", ")
    )
}

#[test]
fn sessions_and_bytes_are_those_that_the_load_counted() {
    const CLIENTS: usize = 40;
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let ringway = Launch::config(config(&addresses[..2], addresses[2])).start();
    let (first, second) = (ringway.address_of("first"), ringway.address_of("second"));
    let mut bytes = [0.0, 0.0];
    let mut kept = Vec::new();
    for client in 0..CLIENTS {
        let place = client % 2;
        let mut stream = stream::connect([first, second][place]);
        for round in 1..=5 {
            let text = vec![b'x'; round * 1000 + client];
            stream::exchange(&mut stream, &text);
            bytes[place] += f64::from(u32::try_from(text.len()).unwrap());
        }
        if client % 10 < 2 {
            kept.push(stream);
        }
    }
    let ended = f64::from(u32::try_from(CLIENTS - kept.len()).unwrap());
    eventually(SOON, "those that closed have ended", || {
        (sum(&scrape(&ringway).1, "ringway_session_ends_total", &[]) - ended).abs() < 0.5
    });
    let (_, series) = scrape(&ringway);
    let is = |name: &str, labels: &[&str], expected: f64| {
        let found = sum(&series, name, labels);
        assert!(
            (found - expected).abs() < 0.5,
            "{name} {labels:?}: {found}, not {expected}"
        );
    };
    let half = f64::from(u32::try_from(CLIENTS / 2).unwrap());
    let kept_of_each = f64::from(u32::try_from(kept.len() / 2).unwrap());
    for (place, (listener, pool)) in [("first", "a"), ("second", "b")].iter().enumerate() {
        let (listener, pool) = (
            format!("listener=\"{listener}\""),
            format!("pool=\"{pool}\""),
        );
        is("ringway_listener_sessions_total", &[&listener], half);
        is(
            "ringway_listener_sessions_active",
            &[&listener],
            kept_of_each,
        );
        is("ringway_pool_sessions_total", &[&pool], half);
        is("ringway_pool_sessions_active", &[&pool], kept_of_each);
        is("ringway_backend_sessions_total", &[&pool], half);
        is("ringway_backend_sessions_active", &[&pool], kept_of_each);
        for direction in ["direction=\"to_backend\"", "direction=\"to_client\""] {
            is(
                "ringway_listener_bytes_total",
                &[&listener, direction],
                bytes[place],
            );
            is(
                "ringway_pool_bytes_total",
                &[&pool, direction],
                bytes[place],
            );
            is(
                "ringway_backend_bytes_total",
                &[&pool, direction],
                bytes[place],
            );
        }
        let closed = half - kept_of_each;
        let reason = "reason=\"client_closed\"";
        is("ringway_pool_session_ends_total", &[&pool, reason], closed);
        is(
            "ringway_backend_session_ends_total",
            &[&pool, reason],
            closed,
        );
        for (histogram, count) in [
            ("connect_duration", half),
            ("first_byte_duration", half),
            ("session_duration", closed),
        ] {
            for of in ["pool", "backend"] {
                let name = |end: &str| format!("ringway_{of}_{histogram}_seconds_{end}");
                is(&name("count"), &[&pool], count);
                is(&name("bucket"), &[&pool, "le=\"+Inf\""], count);
                assert!(sum(&series, &name("sum"), &[&pool]) > 0.0);
            }
        }
    }
    is("ringway_sessions_total", &[], 2.0 * half);
    is("ringway_backend_up", &["pool=\"a\""], 2.0);
    is("ringway_pool_backends_usable", &["pool=\"a\""], 2.0);
    is("ringway_backend_probe_success", &["pool=\"a\""], 2.0);
    assert!(
        sum(
            &series,
            "ringway_backend_probes_total",
            &["result=\"success\""]
        ) >= 2.0
    );
    assert!(sum(&series, "ringway_worker_busy_seconds_total", &[]) > 0.0);
}

#[test]
fn failed_connects_retries_and_ends_are_told_by_pool() {
    let good = Backend::echo();
    let bad = crate::harness::refusing_address();
    let ringway = Launch::config(format!(
        "listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p, when_empty: reset}}]\n\
         pools: {{p: {{probe: none, balance: first, passive: {{failures: none}}, backends: [\"{bad}\", \"{}\"]}}}}\n",
        good.address()
    ))
    .start();
    stream::exchange(&mut ringway.connect(), b"hello");
    let (_, series) = scrape(&ringway);
    let bad = format!("backend=\"{bad}\"");
    for (name, labels, expected) in [
        ("ringway_pool_connect_failures_total", &[][..], 1.0),
        ("ringway_pool_connect_retries_total", &[], 1.0),
        ("ringway_backend_connect_failures_total", &[&bad[..]], 1.0),
        ("ringway_backend_sessions_total", &[&bad], 0.0),
    ] {
        let found = sum(&series, name, labels);
        assert!((found - expected).abs() < 0.5, "{name} {labels:?}: {found}");
    }
}

#[test]
fn datagrams_are_those_that_a_client_counted_and_listeners_tell_when_they_are_shut() {
    let responder = Responder::echo();
    let ringway = Launch::config(format!(
        "listeners:\n\
         - {{name: in, bind: \"127.0.0.1:0\", pool: p, protocol: udp}}\n\
         - {{name: tcp, bind: \"127.0.0.1:0\", pool: q}}\n\
         pools:\n\
         \x20 p: {{probe: none, backends: [{{name: one, address: \"{0}\"}}]}}\n\
         \x20 q: {{probe: none, backends: [{{name: two, address: \"{0}\"}}]}}\n",
        responder.address()
    ))
    .start();
    let client = datagram::client(ringway.address_of("in"));
    for _ in 0..10 {
        assert_eq!(datagram::ask(&client, b"twelve bytes"), b"twelve bytes");
    }
    // The client may have the last one before it is counted.
    eventually(SOON, "all are counted", || {
        let name = "ringway_listener_datagrams_total";
        let labels = ["listener=\"in\"", "direction=\"to_client\""];
        sum(&scrape(&ringway).1, name, &labels) > 9.5
    });
    let (_, series) = scrape(&ringway);
    for direction in ["direction=\"to_backend\"", "direction=\"to_client\""] {
        for of in ["listener", "backend"] {
            let count = |what: &str| {
                let labels = match of {
                    "listener" => ["listener=\"in\"", direction],
                    _ => ["backend=\"one\"", direction],
                };
                sum(&series, &format!("ringway_{of}_{what}_total"), &labels)
            };
            assert!((count("datagrams") - 10.0).abs() < 0.5, "{of} {direction}");
            assert!(
                (count("datagram_bytes") - 120.0).abs() < 0.5,
                "{of} {direction}"
            );
        }
    }
    assert!((sum(&series, "ringway_flows_active", &[]) - 1.0).abs() < 0.5);
    let open = |series: &Series| sum(series, "ringway_listener_open", &["listener=\"tcp\""]);
    assert!(open(&series) > 0.5);
    ringway.command(&["backend", "q/two", "drain"]);
    let (_, series) = scrape(&ringway);
    assert!(open(&series) < 0.5);
    for (name, labels, expected) in [
        ("ringway_listener_shut_total", "listener=\"tcp\"", 1.0),
        ("ringway_pool_backends_usable", "pool=\"q\"", 0.0),
        ("ringway_backend_state", "state=\"drain\"", 1.0),
    ] {
        let found = sum(&series, name, &[labels]);
        assert!((found - expected).abs() < 0.5, "{name} {labels}: {found}");
    }
}

/// Names and kinds of an exposition.
fn kinds(exposition: &str) -> BTreeMap<String, String> {
    let lines = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let kinds = lines.map(|line| line.split_once(' ').unwrap());
    kinds
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn what_is_listed_is_what_is_served() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&[one.address()], two.address())).start();
    stream::exchange(&mut stream::connect(ringway.address_of("first")), b"hello");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"hello", ringway.address_of("third")).unwrap();
    ringway.counters_become("the session has ended", |counters| {
        counters["ends"]["client_closed"] == 1
    });
    let (exposition, series) = scrape(&ringway);
    let served = kinds(&exposition);
    // Virtual routers need addresses of their own, events somebody who listens to them.
    let is_here = |metric: &&Metric| !metric.describe().name.contains("virtual_router");
    let listed: BTreeMap<String, String> = Metric::ALL
        .iter()
        .filter(is_here)
        .map(|metric| metric.describe())
        .map(|metric| (metric.queried(), metric.kind.as_str().to_owned()))
        .collect();
    assert_eq!(served, listed);
    let described = |series: &str| {
        let name = series.split('{').next().unwrap();
        let of = |end: &str| name.strip_suffix(end).unwrap_or(name).to_owned();
        let all = Metric::ALL.iter().map(|metric| metric.describe());
        let mut all = all.filter(|metric| match metric.kind {
            Kind::Counter | Kind::Gauge => metric.queried() == name,
            Kind::Histogram => {
                let ends = ["_bucket", "_count", "_sum"];
                ends.iter().any(|end| of(end) == metric.name)
            }
        });
        all.next()
            .unwrap_or_else(|| panic!("{series} is not listed"))
    };
    for series in series.keys() {
        let listed = described(series);
        let labels = series.split_once('{').map_or("", |(_, labels)| labels);
        let found: BTreeSet<&str> = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\"").map(|(name, _)| name))
            .filter(|name| *name != "le")
            .collect();
        let expected: BTreeSet<&str> = listed.labels.iter().copied().collect();
        assert_eq!(found, expected, "{series}");
    }
}

#[test]
fn promtool_accepts_the_exposition() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&[one.address()], two.address())).start();
    stream::exchange(&mut stream::connect(ringway.address_of("first")), b"hello");
    let (exposition, _) = scrape(&ringway);
    let Some(mut promtool) = promtool(&["check", "metrics"]) else {
        return;
    };
    let mut child = promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(exposition.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn promtool_accepts_and_plays_the_alerts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
    ] {
        let Some(mut promtool) = promtool(&arguments) else {
            return;
        };
        let output = promtool.current_dir(&folder).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
}

/// Debian has it in the package `prometheus`.
fn promtool(arguments: &[&str]) -> Option<Command> {
    if Command::new("promtool").arg("--version").output().is_err() {
        skip("promtool is not installed (apt-get install prometheus)");
        return None;
    }
    let mut command = Command::new("promtool");
    command.args(arguments);
    Some(command)
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for metric in Metric::ALL.iter().map(|metric| metric.describe()) {
        match metric.kind {
            Kind::Counter | Kind::Gauge => drop(known.insert(metric.queried())),
            Kind::Histogram => {
                known.extend(["bucket", "sum", "count"].map(|end| format!("{}_{end}", metric.name)))
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("conf/grafana/ringway.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    queries.extend(variables.filter_map(|one| one["query"].as_str().map(str::to_owned)));
    queries.push(read("conf/prometheus/alerts.yaml"));
    let mut asked = 0;
    for query in queries {
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for word in
            words.filter(|word| word.starts_with("ringway_") || word.starts_with("process_"))
        {
            assert!(known.contains(word), "{word} is no metric: {query}");
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked} names were found");
}

#[test]
fn the_page_of_metrics_is_the_one_that_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/metrics.md");
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == list::reference(),
        "conf/metrics.md is out of date: cargo run -- schema --metrics > conf/metrics.md"
    );
}

#[test]
fn the_address_for_metrics_serves_nothing_else() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&[one.address()], two.address())).start();
    let address = ringway.address_in_line("metrics served");
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        http::exchange(http::tcp(address), &request(method, path, headers, ""))
    };
    let plain = ask("GET", "/metrics", &[]);
    assert_eq!(plain.status, 200);
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = ask("GET", "/metrics", &[("accept", accept)]);
    assert!(
        open.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    for (method, path, status, body) in [
        ("GET", "/healthz", 200, "alive"),
        ("GET", "/readyz", 200, "serving"),
        ("GET", "/", 404, "/metrics"),
        ("GET", "/v1/status", 404, "/metrics"),
        ("POST", "/v1/backends/b/only", 404, ""),
        ("POST", "/metrics", 405, ""),
    ] {
        let answer = ask(method, path, &[]);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.body.contains(body), "{method} {path}: {answer:?}");
    }
}

#[test]
fn more_scrapes_than_there_are_places_wait_for_those_that_say_nothing() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let ringway = Launch::config(config(&[one.address()], two.address())).start();
    let address = ringway.address_in_line("metrics served");
    let silent: Vec<_> = (0..100).map(|_| http::tcp(address)).collect();
    // They are given up one round after the other; the data plane does not notice.
    stream::exchange(&mut stream::connect(ringway.address_of("first")), b"hello");
    let answer = http::exchange(http::tcp(address), &request("GET", "/metrics", &[], ""));
    assert_eq!(answer.status, 200);
    drop(silent);
}

/// Who meets a word in the counters finds it in the guide.
#[test]
fn the_guide_explains_every_end_reason() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/operations.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for reason in ringway::session::CloseReason::ALL {
        let row = format!("| `{}` | ", reason.as_str());
        assert_eq!(guide.matches(&row).count(), 1, "{row}");
    }
}
