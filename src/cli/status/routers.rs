//! The virtual routers in `ringway status`.

use std::time::Duration;

use serde_json::Value;

use super::{age, items, word};

/// Transitions that are shown besides the last one.
const EARLIER_MAX: usize = 3;

/// A line for each, and what is to be said about it on lines of their own.
pub(super) fn lines(status: &Value, now: Duration) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for router in items(&status["virtual_routers"]) {
        let addresses: Vec<&str> = items(&router["addresses"]).map(word).collect();
        let others = match router["active_router"].as_str() {
            Some(other) if word(&router["state"]) == "backup" => {
                let heard = &router["heard"];
                let priority = heard["priority"]
                    .as_u64()
                    .filter(|_| heard["from"] == router["active_router"]);
                let priority =
                    priority.map_or(String::new(), |priority| format!(" with {priority}"));
                format!(", {other} is active{priority}")
            }
            Some(_) | None => String::new(),
        };
        lines.push((
            false,
            format!(
                "virtual router {}  {}  {} for {}, priority {}{others}  {} on {}",
                word(&router["name"]),
                router["vrid"],
                word(&router["state"]),
                age(&router["since"], now),
                router["priority"],
                addresses.join(", "),
                word(&router["interface"]),
            ),
        ));
        let said = [
            router["why"].as_str().map(str::to_owned),
            router["waits_for"]
                .as_str()
                .map(|what| format!("waits for {what}")),
            router["fault"]
                .as_str()
                .map(|what| format!("not well: {what}")),
            (router["held_back"] == Value::Bool(true))
                .then(|| "held back (`ringway failover --release` ends that)".to_owned()),
        ];
        let alarms = items(&router["alarms"]).map(|alarm| {
            let since = age(&alarm["since"], now);
            format!("alarm for {since}: {}", word(&alarm["what"]))
        });
        let further = said
            .into_iter()
            .flatten()
            .chain(alarms)
            .chain(heard(&router["heard"], now))
            .chain(troubles(&router["counters"]))
            .chain(earlier(router, now));
        lines.extend(further.map(|line| (true, line)));
    }
    lines
}

/// What another node said last.
fn heard(heard: &Value, now: Duration) -> Option<String> {
    let from = heard["from"].as_str()?;
    let interval = Duration::from_millis(heard["interval_ms"].as_u64()?);
    let said = match heard["priority"].as_u64()? {
        0 => "that it leaves (priority 0)".to_owned(),
        priority => format!("priority {priority} every {interval:?}"),
    };
    let since = age(&heard["at"], now);
    Some(format!("{from} advertised {said}, {since} ago"))
}

/// What was counted and should not be.
fn troubles(counters: &Value) -> Option<String> {
    let rejected = counters["rejected"].as_object().into_iter().flatten();
    let rejected: Vec<String> = rejected
        .chain([(&"malformed".to_owned(), &counters["malformed"])])
        .filter(|(_, count)| count.as_u64() > Some(0))
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    let others = [
        ("advertisements that could not be sent", "send_failures"),
        ("times that its own loop was too late", "loops_late"),
        ("leases of its addresses that ran out", "leases_late"),
    ];
    let others = others.map(|(what, key)| (what, counters[key].as_u64().unwrap_or(0)));
    let mut all: Vec<String> = others
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what}: {count}"))
        .collect();
    if !rejected.is_empty() {
        all.insert(0, format!("not listened to: {}", rejected.join(", ")));
    }
    (!all.is_empty()).then(|| all.join("; "))
}

/// The transitions before the last one, latest first.
fn earlier(router: &Value, now: Duration) -> Vec<String> {
    let history: Vec<&Value> = items(&router["history"]).collect();
    let earlier = history.iter().rev().skip(1).take(EARLIER_MAX);
    let mut lines: Vec<String> = earlier
        .map(|one| {
            let (since, to) = (age(&one["at"], now), word(&one["to"]));
            format!("{since} ago: {to}, {}", word(&one["why"]))
        })
        .collect();
    let more = history.len().saturating_sub(1 + EARLIER_MAX);
    if more > 0 {
        lines.push(format!("{more} more before that (`--json` has them)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_router_has_a_line_and_its_troubles_have_theirs() {
        let status = json!({"virtual_routers": [{
            "name": "vip", "interface": "eth0", "vrid": 51, "addresses": ["10.0.0.100/32"], "state": "backup",
            "since": 10, "why": "the interface can be used", "waits_for": null, "priority": 16,
            "fault": "pool pg: 0 of 2 backends take sessions, 1 wanted", "held_back": true,
            "active_router": "10.0.0.2",
            "heard": {"from": "10.0.0.2", "priority": 250, "interval_ms": 1500, "at": 49},
            "alarms": [{"since": 40, "what": "addresses differ"}],
            "counters": {
                "rejected": {"checksum": 12, "password": 0, "version_differs": 3}, "malformed": 0, "unknown_vrid": 9,
                "send_failures": 2, "loops_late": 0, "leases_late": 1,
            },
            "history": [
                {"at": 1, "to": "backup", "why": "lost"},
                {"at": 2, "to": "backup", "why": "the interface can be used"},
                {"at": 3, "to": "active", "why": "no other router is heard"},
                {"at": 4, "to": "initialize", "why": "the interface, its carrier or its address is gone"},
                {"at": 10, "to": "backup", "why": "the interface can be used"},
            ],
        }]});
        let lines = lines(&status, Duration::from_secs(50));
        let text: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(
            text,
            [
                "virtual router vip  51  backup for 40s, priority 16, 10.0.0.2 is active with 250  \
                 10.0.0.100/32 on eth0",
                "the interface can be used",
                "not well: pool pg: 0 of 2 backends take sessions, 1 wanted",
                "held back (`ringway failover --release` ends that)",
                "alarm for 10s: addresses differ",
                "10.0.0.2 advertised priority 250 every 1.5s, 1s ago",
                "not listened to: 12 checksum, 3 version_differs; advertisements that could not be sent: 2; \
                 leases of its addresses that ran out: 1",
                "46s ago: initialize, the interface, its carrier or its address is gone",
                "47s ago: active, no other router is heard",
                "48s ago: backup, the interface can be used",
                "1 more before that (`--json` has them)",
            ]
        );
    }
}
