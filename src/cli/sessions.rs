//! `ringway sessions`.

use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::status::SocketArguments;
use super::{Failure, Outcome};
use crate::admin::{CloseRequest, client};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway sessions                              the first 100
  ringway sessions --backend pg2 --limit 1000
  ringway sessions --client 10.0.0.0/8 --json | jq '.sessions[].client'
  ringway sessions --pool pg --backend pg2 --close      ends them with a reset";

/// Sessions of one page.
const PAGE: usize = 1_000;

const COLUMNS: [&str; 8] = [
    "id",
    "listener",
    "client",
    "backend",
    "state",
    "age",
    "idle",
    "bytes to backend, client",
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Those that came in at this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// Those of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,

    /// Those on a backend of this name
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,

    /// Those from this address, network, or address and port
    #[arg(long, value_name = "ADDR")]
    client: Option<String>,

    /// The one with this id
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// So many at most
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = limit,
        conflicts_with = "close"
    )]
    limit: usize,

    /// End them, with a reset to both sides; needs one of --listener, --pool, --backend, --client, --id
    #[arg(long)]
    close: bool,

    #[command(flatten)]
    socket: SocketArguments,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let most = text.parse().ok().filter(|most| *most > 0);
    most.ok_or_else(|| "write a whole number, 1 or more".to_owned())
}

/// Shows them, or ends them and says how many.
pub(super) fn sessions(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.close {
        return close(arguments);
    }
    let (all, is_more) = fetch(arguments)?;
    if arguments.json {
        super::print_json(&json!({"sessions": all, "more": is_more}))?;
        return Ok(Outcome::Success);
    }
    let mut text = String::new();
    if !all.is_empty() {
        let table = table(&all).to_string();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    let count = all.len();
    text.push_str(&match (count, is_more) {
        (1, false) => "1 session\n".to_owned(),
        (_, false) => format!("{count} sessions\n"),
        (_, true) => format!("the first {count} sessions; --limit shows more\n"),
    });
    super::print(&text)?;
    Ok(Outcome::Success)
}

/// Page after page; whether there may be more.
fn fetch(arguments: &Arguments) -> Result<(Vec<Value>, bool), Failure> {
    let filters = [
        ("listener", &arguments.listener),
        ("pool", &arguments.pool),
        ("backend", &arguments.backend),
        ("client", &arguments.client),
        ("id", &arguments.id),
    ];
    let mut query: Vec<(&str, &str)> = Vec::new();
    for (key, value) in filters {
        query.extend(value.as_deref().map(|value| (key, value)));
    }
    let (mut all, mut next) = (Vec::new(), None::<String>);
    loop {
        let limit = arguments
            .limit
            .saturating_sub(all.len())
            .clamp(1, PAGE)
            .to_string();
        let mut query = query.clone();
        query.push(("limit", &limit));
        query.extend(next.as_deref().map(|next| ("after", next)));
        let page = client::sessions(&arguments.socket.socket, &query)?;
        all.extend(page["sessions"].as_array().into_iter().flatten().cloned());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() || all.len() >= arguments.limit {
            all.truncate(arguments.limit);
            return Ok((all, next.is_some()));
        }
    }
}

fn close(arguments: &Arguments) -> Result<Outcome, Failure> {
    let request = CloseRequest {
        listener: arguments.listener.clone(),
        pool: arguments.pool.clone(),
        backend: arguments.backend.clone(),
        client: arguments.client.clone(),
        id: arguments.id.clone(),
    };
    let answer = client::close_sessions(&arguments.socket.socket, &request)?;
    if arguments.json {
        super::print_json(&answer)?;
    } else {
        super::print(&format!("sessions ended: {}\n", answer["sessions"]))?;
    }
    Ok(Outcome::Success)
}

fn table(sessions: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    table.set_header(COLUMNS.map(Cell::new));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let period = |value: &Value| {
        let seconds = value.as_f64().unwrap_or_default();
        let period = Duration::from_secs_f64(seconds.max(0.0));
        let rounded = if period < Duration::from_secs(1) {
            Duration::from_millis(u64::from(period.subsec_millis()))
        } else {
            Duration::from_secs(period.as_secs())
        };
        humantime::format_duration(rounded).to_string()
    };
    for session in sessions {
        table.add_row([
            word(&session["id"]),
            word(&session["listener"]),
            word(&session["client"]),
            format!("{}/{}", word(&session["pool"]), word(&session["backend"])),
            word(&session["state"]),
            period(&session["age_seconds"]),
            period(&session["idle_seconds"]),
            format!(
                "{}, {}",
                session["bytes_to_backend"], session["bytes_to_client"]
            ),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_line() {
        let session = json!({
            "id": "0-1-2", "listener": "in", "client": "10.0.0.7:4000", "pool": "pg", "backend": "pg1",
            "state": "open", "age_seconds": 3661.7, "idle_seconds": 0.0123, "bytes_to_backend": 5,
            "bytes_to_client": 7,
        });
        let shown = table(&[session]).to_string();
        let line = shown.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "0-1-2",
                "in",
                "10.0.0.7:4000",
                "pg/pg1",
                "open",
                "1h",
                "1m",
                "1s",
                "12ms",
                "5,",
                "7"
            ]
        );
    }
}
