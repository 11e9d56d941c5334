//! The virtual routers in `ringway status`.

use std::time::Duration;

use serde_json::Value;

use super::{age, items, word};

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
        lines.extend(said.into_iter().flatten().map(|line| (true, line)));
        for alarm in items(&router["alarms"]) {
            let since = age(&alarm["since"], now);
            lines.push((true, format!("alarm for {since}: {}", word(&alarm["what"]))));
        }
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
            "active_router": "10.0.0.2", "heard": {"from": "10.0.0.2", "priority": 250},
            "alarms": [{"since": 40, "what": "addresses differ"}],
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
            ]
        );
    }
}
