//! `ringway status`.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use super::{Failure, Outcome};
use crate::admin::client;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway status
  ringway status --socket lab.sock
  ringway status --json | jq '.pools[].backends[] | select(.takes_sessions | not)'";

/// Where a running Ringway is talked to.
const DEFAULT_SOCKET: &str = "/run/ringway/admin.sock";

#[derive(Debug, Args)]
pub(super) struct SocketArguments {
    /// The running process's `admin.socket`
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    pub(super) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    socket: SocketArguments,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and shows.
pub(super) fn status(arguments: &Arguments) -> Result<Outcome, Failure> {
    let status = client::status(&arguments.socket.socket).map_err(Failure::from)?;
    if arguments.json {
        super::print_json(&status);
    } else {
        let out = std::io::stdout();
        let colours = super::file::has_colours(&out);
        let width = super::file::width(&out);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let _ = out
            .lock()
            .write_all(render(&status, now, colours, width).as_bytes());
    }
    Ok(Outcome::Success)
}

/// For people: the process, its listeners, then each pool as a table.
fn render(status: &Value, now: Duration, colours: bool, width: usize) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut shown = format!(
        "ringway {}  pid {}  {} for {}  {} of {} sessions\n",
        text(&status["version"]),
        status["pid"],
        text(&status["phase"]),
        age(&status["started"], now),
        status["sessions_active"],
        status["max_sessions"],
    );
    for listener in items(&status["listeners"]) {
        let addresses: Vec<String> = items(&listener["addresses"]).map(text).collect();
        let pools = items(&listener["pools"]);
        let many = items(&listener["pools"]).count() > 1;
        let pools: Vec<String> = pools
            .map(|share| match many {
                true => format!("{} ({})", text(&share["pool"]), share["weight"]),
                false => text(&share["pool"]),
            })
            .collect();
        shown.push_str(&format!(
            "listener {}  {}  to {}\n",
            text(&listener["name"]),
            some_of(&addresses),
            pools.join(", "),
        ));
        if let Some(why) = listener["refuses"]["why"].as_str() {
            let since = age(&listener["refuses"]["since"], now);
            shown.push_str(&format!("  refuses connects for {since}: {why}\n"));
        }
    }
    for pool in items(&status["pools"]) {
        let takes = |backend: &&Value| backend["takes_sessions"] == Value::Bool(true);
        shown.push_str(&format!(
            "\npool {}  {}, {} of {} backends take new sessions\n",
            text(&pool["name"]),
            text(&pool["balance"]),
            items(&pool["backends"]).filter(takes).count(),
            items(&pool["backends"]).count(),
        ));
        for line in table(pool, now, colours, width).lines() {
            shown.push_str(line.trim_end());
            shown.push('\n');
        }
    }
    shown
}

fn table(pool: &Value, now: Duration, colours: bool, width: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header([
        "backend", "health", "operator", "weight", "sessions", "total", "failed", "why",
    ]);
    if colours {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for number in [3, 4, 5, 6] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for backend in items(&pool["backends"]) {
        table.add_row(row(backend, now, colours));
    }
    table
}

fn row(backend: &Value, now: Duration, colours: bool) -> Vec<Cell> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, address) = (word(&backend["name"]), word(&backend["address"]));
    let name = match address.is_empty() || address == name {
        true => name,
        false => format!("{name} {address}"),
    };
    let paint = |cell: Cell, colour: Color| if colours { cell.fg(colour) } else { cell };
    let health = word(&backend["health"]["state"]);
    let colour = if health == "up" {
        Color::Green
    } else {
        Color::Red
    };
    let state = word(&backend["state"]);
    let state = if state == "ready" {
        Cell::new(state)
    } else {
        let since = age(&backend["state_since"], now);
        let left = match backend["drain_until"].as_u64() {
            Some(until) => format!(", {} left", span(until.saturating_sub(now.as_secs()))),
            None => String::new(),
        };
        paint(Cell::new(format!("{state} {since}{left}")), Color::Yellow)
    };
    let said = [&backend["health"]["why"], &backend["why_not"]].map(|why| why.as_str());
    let why: Vec<String> = said
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .chain(hindered(&backend["health"]["probes_hindered"], now))
        .chain(ports_running_out(&backend["source_ports"]))
        .collect();
    let backup = if backend["backup"] == Value::Bool(true) {
        " (backup)"
    } else {
        ""
    };
    vec![
        Cell::new(format!("{name}{backup}")),
        paint(Cell::new(health), colour),
        state,
        Cell::new(&backend["weight"]),
        Cell::new(&backend["sessions_active"]),
        Cell::new(&backend["sessions_total"]),
        Cell::new(&backend["connect_failures_total"]),
        Cell::new(why.join("; ")),
    ]
}

/// Probes that cannot be made.
fn hindered(hindrance: &Value, now: Duration) -> Option<String> {
    let why = hindrance["why"].as_str()?;
    Some(format!(
        "no probes for {}: {why}",
        age(&hindrance["since"], now)
    ))
}

/// Worth a word once more than half are used.
fn ports_running_out(ports: &Value) -> Option<String> {
    let (used, of) = (ports["used"].as_u64()?, ports["of"].as_u64()?);
    (used > of / 2).then(|| format!("{used} of {of} source ports used"))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn some_of(addresses: &[String]) -> String {
    match addresses {
        [first, .., last] if addresses.len() > 3 => {
            format!("{first} to {last} ({} addresses)", addresses.len())
        }
        few => few.join(", "),
    }
}

/// Time since then.
fn age(since: &Value, now: Duration) -> String {
    span(now.as_secs().saturating_sub(since.as_u64().unwrap_or(0)))
}

/// In its largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
