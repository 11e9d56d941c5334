//! `ringway explain`.

use std::net::SocketAddr;

use clap::Args;
use serde_json::Value;

use super::status::SocketArguments;
use super::{Failure, Outcome};
use crate::admin::client;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway explain --listener postgres --source 10.0.0.7:40000
  ringway explain --listener postgres --source 10.0.0.7:40000 --worker 1

The exit code is 1 if the connection would get no backend. Nothing changes by asking.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where it would come in, as `ringway status` shows it
    #[arg(long, value_name = "NAME")]
    listener: String,

    /// Where it would come from; leave it out for a unix socket
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    source: Option<SocketAddr>,

    /// On this worker; which one gets a connection is the kernel's choice
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number)]
    worker: u16,

    #[command(flatten)]
    socket: SocketArguments,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "write IP:PORT, as in 10.0.0.7:40000 or [2001:db8::7]:40000".to_owned();
    text.parse().map_err(wrong)
}

fn number(text: &str) -> Result<u16, String> {
    let wrong = |_| "write a worker's number, from 0 on".to_owned();
    text.parse().map_err(wrong)
}

/// Asks and shows.
pub(super) fn explain(arguments: &Arguments) -> Result<Outcome, Failure> {
    let source = arguments.source.map(|source| source.to_string());
    let worker = arguments.worker.to_string();
    let mut query = vec![
        ("listener", arguments.listener.as_str()),
        ("worker", worker.as_str()),
    ];
    query.extend(source.as_deref().map(|source| ("source", source)));
    let answer = client::explain(&arguments.socket.socket, &query)?;
    if arguments.json {
        super::print_json(&answer)?;
    } else {
        super::print(&shown(&answer))?;
    }
    match why_none(&answer) {
        Some(why) => Err(Failure::Running(why)),
        None => Ok(Outcome::Success),
    }
}

/// Why it would get nowhere.
fn why_none(answer: &Value) -> Option<String> {
    if let Some(why) = answer["refuses"]["why"].as_str() {
        return Some(format!("connects are refused: {why}"));
    }
    if answer["listener_full"] == true {
        return Some("the listener has its max_sessions".to_owned());
    }
    let is_none = answer["picked"].is_null();
    is_none.then(|| "no backend of the pool can be picked".to_owned())
}

fn shown(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut text = format!(
        "listener {}, worker {}: pool {} by {}{}\n",
        word(&answer["listener"]),
        answer["worker"],
        word(&answer["pool"]),
        word(&answer["balance"]),
        hashed(answer),
    );
    for candidate in answer["candidates"].as_array().into_iter().flatten() {
        let is_picked = candidate["backend"] == answer["picked"];
        let mark = if is_picked { "->" } else { "  " };
        let backup = if candidate["backup"] == true {
            ", backup"
        } else {
            ""
        };
        let skipped = match candidate["skipped"].as_str() {
            Some(why) => format!(": left out, {why}"),
            None => String::new(),
        };
        text.push_str(&format!(
            "{mark} {}  weight {}, {} sessions{backup}{skipped}\n",
            word(&candidate["backend"]),
            candidate["weight"],
            candidate["sessions"],
        ));
    }
    if let Some(omitted) = answer["candidates_omitted"]
        .as_u64()
        .filter(|count| *count > 0)
    {
        let picked = word(&answer["picked"]);
        text.push_str(&format!("   and {omitted} more; picked: {picked}\n"));
    }
    text
}

/// Where the hash leads to while every backend can be picked.
fn hashed(answer: &Value) -> String {
    let Some(hash) = answer["hash"].as_str() else {
        return String::new();
    };
    let slot = &answer["slot"];
    match slot["backend"].as_str() {
        Some(backend) => {
            let (number, of) = (&slot["number"], &slot["of"]);
            format!(", hash {hash}, slot {number} of {of}: {backend}")
        }
        None => format!(", hash {hash}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_picked_backend_is_marked_and_the_others_say_why_not() {
        let mut answer = json!({
            "listener": "in", "worker": 0, "pool": "pg", "balance": "hash", "hash": "00ff", "picked": "one",
            "slot": {"number": 255, "of": 16381, "backend": "two"},
            "refuses": null, "listener_full": false,
            "candidates": [
                {"backend": "one", "weight": 1, "backup": false, "sessions": 3, "skipped": null},
                {"backend": "two", "weight": 2, "backup": true, "sessions": 0, "skipped": "it is down"},
            ],
        });
        assert_eq!(
            shown(&answer),
            "listener in, worker 0: pool pg by hash, hash 00ff, slot 255 of 16381: two\n\
             -> one  weight 1, 3 sessions\n   two  weight 2, 0 sessions, backup: left out, it is down\n"
        );
        assert_eq!(why_none(&answer), None);
        answer["picked"] = Value::Null;
        assert!(why_none(&answer).is_some());
        answer["refuses"] = json!({"why": "no backend is usable: 2 down"});
        assert!(why_none(&answer).unwrap().contains("2 down"));
    }
}
