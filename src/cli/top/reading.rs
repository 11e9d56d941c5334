//! What the process says of itself, as far as the screen shows it. Keys that are missing or new do not matter.

use serde::Deserialize;
use serde_json::Value;

/// How everything is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reading {
    pub(super) version: String,
    pub(super) host: Option<String>,
    pub(super) pid: u64,
    pub(super) phase: String,
    pub(super) stopping: Option<Stopping>,
    /// Seconds since 1970, as all times here.
    pub(super) started: u64,
    /// When it was so, to the millisecond.
    pub(super) now: f64,
    pub(super) sessions_active: u64,
    pub(super) sessions_total: u64,
    pub(super) max_sessions: u64,
    pub(super) flows_active: u64,
    pub(super) flows_total: u64,
    pub(super) max_flows: u64,
    pub(super) listeners: Vec<Listener>,
    pub(super) pools: Vec<Pool>,
    pub(super) virtual_routers: Vec<Router>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stopping {
    pub(super) since: u64,
    pub(super) until: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    pub(super) pools: Vec<Share>,
    pub(super) sessions_active: u64,
    pub(super) sessions_total: u64,
    pub(super) flows_active: u64,
    pub(super) bytes_to_backend: u64,
    pub(super) bytes_to_client: u64,
    pub(super) datagrams: Option<Datagrams>,
    pub(super) refuses: Option<Because>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Datagrams {
    pub(super) flows_total: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Share {
    pub(super) pool: String,
    pub(super) weight: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Because {
    pub(super) since: u64,
    pub(super) why: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) balance: String,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Backend {
    pub(super) pool: String,
    pub(super) name: String,
    pub(super) address: Option<String>,
    pub(super) host: Option<String>,
    pub(super) health: Health,
    pub(super) state: String,
    pub(super) state_since: u64,
    pub(super) drain_until: Option<u64>,
    pub(super) weight: u64,
    pub(super) backup: bool,
    pub(super) takes_sessions: bool,
    pub(super) why_not: Option<String>,
    pub(super) sessions_active: u64,
    pub(super) sessions_total: u64,
    pub(super) max_sessions: Option<u64>,
    pub(super) bytes_to_backend: u64,
    pub(super) bytes_to_client: u64,
    pub(super) connect_duration_seconds: Took,
    pub(super) first_byte_duration_seconds: Took,
    pub(super) flows_active: u64,
    pub(super) flows_total: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) state: String,
    pub(super) since: Option<u64>,
    pub(super) why: Option<String>,
    pub(super) last_probe_failed: Option<String>,
}

/// How often something took how many seconds, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Took {
    pub(super) count: u64,
    pub(super) sum: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Router {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) vrid: u64,
    pub(super) addresses: Vec<String>,
    pub(super) state: String,
    pub(super) since: Option<u64>,
    pub(super) priority: u64,
    pub(super) fault: Option<String>,
    pub(super) waits_for: Option<String>,
    pub(super) held_back: bool,
    pub(super) active_router: Option<String>,
    pub(super) alarms: Vec<Alarm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alarm {
    pub(super) what: String,
}

/// Something that has happened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) id: u64,
    pub(super) at: u64,
    pub(super) kind: String,
    pub(super) facts: Value,
}

/// How something is, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Bad,
    Doubtful,
    Good,
    Plain,
}

impl Pool {
    /// Backends that new sessions can go to.
    pub(super) fn usable(&self) -> usize {
        let takes = |backend: &&Backend| backend.takes_sessions;
        self.backends.iter().filter(takes).count()
    }

    /// What its backends are that new sessions cannot go to, by number: `2 down, 1 draining`.
    pub(super) fn unusable(&self) -> String {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for word in self.backends.iter().filter_map(Backend::obstacle) {
            match counts.iter_mut().find(|(known, _)| *known == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word, 1)),
            }
        }
        let each = counts.iter().map(|(word, count)| format!("{count} {word}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Backend {
    /// Sessions and flows: a flow is to a pool of UDP what a session is to others.
    pub(super) fn active(&self) -> u64 {
        self.sessions_active + self.flows_active
    }

    /// Where it is, unless its name says so.
    pub(super) fn place(&self) -> Option<&str> {
        let place = self.address.as_deref().or(self.host.as_deref());
        place.filter(|place| *place != self.name)
    }

    /// In a word, what keeps new sessions from it.
    fn obstacle(&self) -> Option<&'static str> {
        match self.state.as_str() {
            _ if self.takes_sessions => None,
            "drain" => Some("draining"),
            "maintenance" => Some("in maintenance"),
            _ if self.weight == 0 => Some("with weight 0"),
            _ if self.health.state == "down" => Some("down"),
            _ if self.health.state == "up" => Some("full"),
            _ => Some("not probed yet"),
        }
    }

    /// How it is, the operator's wish included.
    pub(super) fn tone(&self) -> Tone {
        match (self.health.state.as_str(), self.takes_sessions) {
            ("down", _) => Tone::Bad,
            ("up", true) => Tone::Good,
            _ => Tone::Doubtful,
        }
    }

    /// Why it is not simply up and ready.
    pub(super) fn why(&self) -> Option<String> {
        let is_down = self.health.state != "up";
        let why = self.health.why.clone().filter(|_| is_down);
        let wrong = self.health.last_probe_failed.as_ref();
        let wrong = wrong.filter(|wrong| why.as_ref().is_none_or(|why| !why.ends_with(*wrong)));
        let wrong = wrong.map(|wrong| format!("the last probe failed: {wrong}"));
        // The operator's word has a column of its own.
        let why_not = self.why_not.clone().filter(|_| self.state == "ready");
        let said: Vec<String> = [why, why_not, wrong].into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

impl Event {
    /// In words, and how bad it is.
    pub(super) fn words(&self) -> (Tone, String) {
        let fact = |key: &str| self.facts.get(key);
        let word = |key: &str| fact(key).map_or_else(String::new, written);
        let why = match fact("why") {
            None | Some(Value::Null) => String::new(),
            Some(why) => format!(": {}", written(why)),
        };
        match self.kind.as_str() {
            "backend" => {
                let up = fact("up").map(|up| up.as_bool());
                let (tone, mut said) = match up {
                    Some(Some(true)) => (Tone::Good, vec![format!("up{why}")]),
                    Some(Some(false)) => (Tone::Bad, vec![format!("down{why}")]),
                    Some(None) => (Tone::Doubtful, vec!["health unknown".to_owned()]),
                    None => (Tone::Doubtful, Vec::new()),
                };
                said.extend(fact("state").map(written));
                for key in ["weight", "max_sessions", "address"] {
                    let value = fact(key).map(|value| match value.is_null() {
                        true => "none".to_owned(),
                        false => written(value),
                    });
                    let key = key.replace('_', "-");
                    said.extend(value.map(|value| format!("{key} {value}")));
                }
                for (key, told) in [
                    ("drained", "its sessions have ended"),
                    ("added", "added by the operator"),
                    ("removed", "removed by the operator"),
                ] {
                    said.extend(fact(key).map(|_| told.to_owned()));
                }
                let text = format!("{}/{} {}", word("pool"), word("backend"), said.join(", "));
                (tone, text)
            }
            "listener" => match fact("open").and_then(Value::as_bool) {
                Some(true) => (
                    Tone::Good,
                    format!("listener {} is open again", word("listener")),
                ),
                Some(false) | None => (
                    Tone::Bad,
                    format!("listener {} refuses clients", word("listener")),
                ),
            },
            "virtual_router" => (
                Tone::Doubtful,
                format!(
                    "virtual router {} {} (was {}){why}",
                    word("virtual_router"),
                    word("to"),
                    word("from")
                ),
            ),
            "sessions_closed" => {
                let several = if fact("sessions") == Some(&1.into()) {
                    ""
                } else {
                    "s"
                };
                let count = word("sessions");
                let text = format!("{count} session{several} ended by the operator");
                (Tone::Doubtful, text)
            }
            "reload" => (Tone::Plain, format!("reload: {}", word("difference"))),
            "reload_failed" => {
                let error = word("error");
                let first = error.lines().next().unwrap_or_default();
                let first = first.strip_prefix("error: ").unwrap_or(first);
                (Tone::Bad, format!("reload failed: {first}"))
            }
            "log_level" => (Tone::Plain, format!("log level {}", word("level"))),
            kind => {
                let facts = self.facts.as_object().into_iter().flatten();
                let facts = facts.map(|(key, value)| format!("{key} {}", written(value)));
                let facts = facts.collect::<Vec<_>>().join(", ");
                (Tone::Plain, format!("{}: {facts}", kind.replace('_', " ")))
            }
        }
    }
}

/// A text without quotes.
fn written(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
