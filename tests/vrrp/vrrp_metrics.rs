//! What the nodes of a pair tell Prometheus and those who watch.

use ringway::metrics::list::Metric;

use crate::harness::{Ringway, SOON, eventually};
use crate::lan::Lan;
use crate::node::{becomes, pair};

/// The value of a series, as it is written in the exposition.
#[track_caller]
fn value(ringway: &Ringway, series: &str) -> String {
    let body = ringway.get("/metrics").body;
    let mut lines = body.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == series);
    found
        .unwrap_or_else(|| panic!("no {series} in\n{body}"))
        .1
        .to_owned()
}

fn of_router(name: &str, more: &str) -> String {
    format!("ringway_virtual_router_{name}{{virtual_router=\"vip\"{more}}}")
}

#[test]
fn metrics_tell_who_is_active_who_is_ready_and_whether_the_files_differ() {
    let Some(lan) = Lan::new("tell", 3) else {
        return;
    };
    let (first, second) = pair(&lan, "");
    for (node, active, backup, priority) in [(&first, "1", "0", "254"), (&second, "0", "1", "250")]
    {
        assert_eq!(
            value(node, &of_router("state", ",state=\"active\"")),
            active
        );
        assert_eq!(
            value(node, &of_router("state", ",state=\"backup\"")),
            backup
        );
        assert_eq!(value(node, &of_router("ready", "")), "1");
        assert_eq!(value(node, &of_router("priority", "")), priority);
        let body = node.get("/metrics").body;
        let own = Metric::ALL.iter().map(|metric| metric.describe());
        for metric in own.filter(|metric| metric.name.contains("virtual_router")) {
            let described = format!("# TYPE {} {}", metric.queried(), metric.kind.as_str());
            assert!(body.contains(&described), "{described} in\n{body}");
        }
    }
    let hash = |node: &Ringway| node.status()["config_hash"].as_str().unwrap().to_owned();
    assert_ne!(hash(&first), hash(&second), "the priorities differ");
    let series = format!("ringway_config_info{{hash=\"{}\"}}", hash(&first));
    assert_eq!(value(&first, &series), "1");
    let sent = |node: &Ringway| -> u64 {
        let sent = value(node, &of_router("advertisements_sent_total", ""));
        sent.parse().unwrap()
    };
    let before = sent(&first);
    eventually(SOON, "advertisements are counted", || sent(&first) > before);

    let (code, out, said) = first.command(&["failover", "--hold"]);
    assert_eq!(code, Some(0), "{out}{said}");
    becomes(&second, "active");
    assert_eq!(
        value(&first, &of_router("ready", "")),
        "0",
        "it is held back"
    );
    assert_eq!(value(&second, &of_router("terms_total", "")), "1");
    let history = second.get("/v1/history").json();
    let moved = history
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .find(|event| event["kind"] == "virtual_router");
    let facts = &moved.expect("the move is an event")["facts"];
    assert_eq!(
        (&facts["virtual_router"], &facts["to"]),
        (&"vip".into(), &"active".into())
    );
    assert_eq!(
        second.get("/v1/virtual_routers").json()[0]["state"],
        "active"
    );
}
