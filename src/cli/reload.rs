//! `ringway reload`.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use super::status::SocketArguments;
use super::{Failure, Outcome};
use crate::admin::{ReloadRequest, client};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway reload --dry-run     what would change, and how many sessions that touches
  ringway reload               all of it, or nothing
  ringway reload --json | jq '.needs_restart'

The running process reads its file again; SIGHUP does the same. Sessions go on; those of a removed backend for as long
as `drain_timeout` of its pool. What only a restart takes over is named, and stays as it is until then. A dry run says
what a reload would say: it binds new ports, lets nobody in, and gives them back.

Exit codes: 0 it is as the file says (but for what needs a restart), 1 it is not: nothing was changed.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    socket: SocketArguments,

    /// Print the difference as JSON
    #[arg(long)]
    json: bool,
}

/// Asks, waits and says what differs.
pub(super) fn reload(arguments: &Arguments) -> Result<Outcome, Failure> {
    let request = ReloadRequest {
        dry_run: arguments.dry_run,
    };
    let answer = match client::reload(&arguments.socket.socket, request) {
        Ok(answer) => answer,
        Err(client::Error::Refused(why)) => {
            // What is wrong with a file speaks for itself.
            super::say(why.trim_end());
            let what = match arguments.dry_run {
                true => "a reload would change nothing: it would fail so",
                false => "not reloaded: nothing was changed",
            };
            return Err(Failure::Running(what.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        super::print_json(&answer)?;
    } else {
        super::print(&shown(&answer))?;
    }
    Ok(Outcome::Success)
}

/// A line for everything that differs.
fn shown(answer: &Value) -> String {
    let mut text = String::new();
    for (key, word) in [
        ("listeners", "listener"),
        ("pools", "pool"),
        ("backends", "backend"),
    ] {
        let parts = &answer[key];
        for (key, what) in [
            ("added", "added"),
            ("changed", "changed"),
            ("removed", "removed"),
        ] {
            for part in items(&parts[key]) {
                let mut name = word_of(&part["name"]);
                if let Some(pool) = part["pool"].as_str() {
                    name = format!("{pool}/{name}");
                }
                let keys: Vec<String> = items(&part["keys"]).map(change).collect();
                let keys = match keys.as_slice() {
                    [] => String::new(),
                    keys => format!(": {}", keys.join("; ")),
                };
                let _ = writeln!(text, "{word} {name} {what}{}{keys}", touched(part));
            }
        }
    }
    for key in items(&answer["process"]) {
        let _ = writeln!(text, "{}", change(key));
    }
    for key in items(&answer["needs_restart"]) {
        let _ = writeln!(text, "needs a restart: {}", change(key));
    }
    for address in items(&answer["not_tried"]) {
        let address = word_of(address);
        let _ = writeln!(text, "not tried: whether {address} can be listened on");
    }
    let hash = word_of(&answer["config_hash"]);
    let is_dry = answer["dry_run"] == true;
    let last = match (answer["different"] == true, is_dry) {
        (false, _) => format!("no difference (configuration {hash})"),
        (true, true) => "nothing was changed: a dry run".to_owned(),
        (true, false) => format!(
            "reloaded: configuration {hash}, generation {}",
            answer["generation"]
        ),
    };
    let _ = writeln!(text, "{last}");
    text
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn word_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

fn change(key: &Value) -> String {
    let (from, to) = (word_of(&key["from"]), word_of(&key["to"]));
    format!("{} {from} -> {to}", word_of(&key["key"]))
}

fn touched(part: &Value) -> String {
    match part["sessions"].as_u64() {
        None | Some(0) => String::new(),
        Some(1) => " (1 session)".to_owned(),
        Some(more) => format!(" ({more} sessions)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_has_a_line() {
        let answer = json!({
            "listeners": {"added": [{"name": "new"}], "changed": [], "removed": []},
            "pools": {"added": [], "changed": [{"name": "pg", "sessions": 3, "keys": [
                {"key": "balance", "from": "default", "to": "hash"},
                {"key": "timeouts.connect", "from": "1s", "to": "2s"},
            ]}], "removed": []},
            "backends": {"added": [], "changed": [], "removed": [{"pool": "pg", "name": "one", "sessions": 1}]},
            "process": [{"key": "global.drain_timeout", "from": "default", "to": "1m"}],
            "needs_restart": [{"key": "global.workers", "from": 1, "to": "default"}],
            "dry_run": false, "different": true, "generation": 7, "config_hash": "00ff",
        });
        assert_eq!(
            shown(&answer),
            "listener new added\n\
             pool pg changed (3 sessions): balance default -> hash; timeouts.connect 1s -> 2s\n\
             backend pg/one removed (1 session)\n\
             global.drain_timeout default -> 1m\n\
             needs a restart: global.workers 1 -> default\n\
             reloaded: configuration 00ff, generation 7\n"
        );
        let same = json!({"different": false, "config_hash": "00ff"});
        assert_eq!(shown(&same), "no difference (configuration 00ff)\n");
    }
}
