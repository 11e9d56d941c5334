//! `ringway status`.

mod routers;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use super::{Failure, Outcome, file};
use crate::admin::client;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway status
  ringway status --verbose                       why every backend is as it is
  ringway status --socket lab.sock
  ringway status --json | jq '.pools[].backends[] | select(.takes_sessions | not)'";

/// Below this, there is no room for wide gaps and for the sessions ever.
const WIDTH_FOR_ALL: usize = 80;
const COLUMNS: [&str; 7] = [
    "backend", "health", "operator", "weight", "sessions", "total", "failed",
];
/// The column of the sessions ever.
const TOTAL: usize = 5;
/// Where a running Ringway is talked to.
const DEFAULT_SOCKET: &str = "/run/ringway/admin.sock";

#[derive(Debug, Args)]
pub(super) struct SocketArguments {
    /// The running process's `admin.socket`
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true, value_parser = file::socket_path())]
    pub(super) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    socket: SocketArguments,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,

    /// Say of every backend why it is as it is, not only of those that are not simply up and ready
    #[arg(short, long)]
    verbose: bool,
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Since 1970.
    now: Duration,
    colours: bool,
    /// Columns.
    width: usize,
    verbose: bool,
}

/// Asks and shows.
pub(super) fn status(arguments: &Arguments) -> Result<Outcome, Failure> {
    let status = client::status(&arguments.socket.socket).map_err(Failure::from)?;
    if arguments.json {
        super::print_json(&status)?;
    } else {
        let out = std::io::stdout();
        let look = Look {
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            colours: file::has_colours(&out),
            // Nobody reads a pipe by width.
            width: file::columns(&out).unwrap_or(usize::from(u16::MAX)),
            verbose: arguments.verbose,
        };
        super::print(&render(&status, look))?;
    }
    Ok(Outcome::Success)
}

/// For people: the process, its listeners, then each pool as a table and what is to be said about its backends.
fn render(status: &Value, look: Look) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut shown = paragraph(
        &format!(
            "ringway {}  pid {}  {}  {} of {} sessions{}",
            text(&status["version"]),
            status["pid"],
            phase(status, look),
            status["sessions_active"],
            status["max_sessions"],
            flows(status),
        ),
        "",
        look,
    );
    if let Some(ends) = unusual_ends(&status["ends"]) {
        shown.push_str(&paragraph(&format!("sessions ended by {ends}"), "", look));
    }
    if let Some(lost @ 1..) = status["access_lines_lost"].as_u64() {
        let line = format!("access log: {lost} lines lost, nobody took them in time");
        shown.push_str(&paragraph(&line, "", look));
    }
    for line in reloads(&status["reloads"], look) {
        shown.push_str(&paragraph(&line, "", look));
    }
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
        let line = format!(
            "listener {}  {}  to {}",
            text(&listener["name"]),
            some_of(&addresses),
            pools.join(", "),
        );
        shown.push_str(&paragraph(&line, "", look));
        if let Some(line) = datagrams(listener) {
            shown.push_str(&paragraph(&line, "  ", look));
        }
        if let Some(why) = listener["refuses"]["why"].as_str() {
            let since = age(&listener["refuses"]["since"], look.now);
            let is_udp = listener["datagrams"].is_object();
            let what = if is_udp { "datagrams" } else { "connects" };
            let line = format!("refuses {what} for {since}: {why}");
            shown.push_str(&paragraph(&line, "  ", look));
        }
    }
    for (is_further_in, line) in routers::lines(status, look.now) {
        let indent = if is_further_in { "  " } else { "" };
        shown.push_str(&paragraph(&line, indent, look));
    }
    for pool in items(&status["pools"]) {
        let takes = |backend: &&Value| backend["takes_sessions"] == Value::Bool(true);
        shown.push('\n');
        let line = format!(
            "pool {}  {}, {} of {} backends take new sessions",
            text(&pool["name"]),
            text(&pool["balance"]),
            items(&pool["backends"]).filter(takes).count(),
            items(&pool["backends"]).count(),
        );
        shown.push_str(&paragraph(&line, "", look));
        let absent: Vec<String> = items(&pool["sources_absent"]).map(text).collect();
        if !absent.is_empty() {
            let line = format!(
                "this host does not have its `source` {}: no connection can come from there",
                absent.join(", ")
            );
            shown.push_str(&paragraph(&line, "  ", look));
        }
        for line in table(pool, look).lines() {
            shown.push_str(line.trim_end());
            shown.push('\n');
        }
        for backend in items(&pool["backends"]) {
            let said = remarks(backend, look);
            if !said.is_empty() {
                let line = format!("{}: {}", text(&backend["name"]), said.join("; "));
                shown.push_str(&paragraph(&line, "  ", look));
            }
        }
    }
    shown
}

/// That the last reload failed, and what waits for a restart.
fn reloads(reloads: &Value, look: Look) -> Vec<String> {
    let last = &reloads["last"];
    let mut lines = Vec::new();
    if let Some(error) = last["error"].as_str() {
        let since = age(&last["at"], look.now);
        let first = error.lines().next().unwrap_or_default();
        lines.push(format!(
            "the last reload failed {since} ago, nothing was changed: {first}"
        ));
    }
    let keys: Vec<&str> = items(&reloads["needs_restart"])
        .filter_map(|key| key["key"].as_str())
        .collect();
    if !keys.is_empty() {
        let keys = keys.join(", ");
        lines.push(format!("a restart is needed for {keys}"));
    }
    lines
}

/// How many UDP flows there are, where there may be any.
fn flows(status: &Value) -> String {
    match status["max_flows"].as_u64() {
        Some(most @ 1..) => format!(", {} of {most} flows", status["flows_active"]),
        Some(0) | None => String::new(),
    }
}

/// What went through a UDP listener; none for another.
fn datagrams(listener: &Value) -> Option<String> {
    let datagrams = listener["datagrams"].as_object()?;
    let lost = datagrams["datagrams_lost"].as_object()?;
    let lost: Vec<String> = lost
        .iter()
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    let lost = match lost.is_empty() {
        true => String::new(),
        false => format!("; lost: {}", lost.join(", ")),
    };
    Some(format!(
        "udp: {} flows, {} datagrams from clients, {} to clients{lost}",
        listener["flows_active"], datagrams["datagrams_received"], datagrams["datagrams_sent"],
    ))
}

/// What the process is doing, and since when.
fn phase(status: &Value, look: Look) -> String {
    let phase = word(&status["phase"]);
    let stopping = &status["stopping"];
    if stopping.is_null() {
        return format!("{phase} for {}", age(&status["started"], look.now));
    }
    let since = age(&stopping["since"], look.now);
    let left = match stopping["until"].as_u64() {
        Some(until) => format!(", {} left", span(until.saturating_sub(look.now.as_secs()))),
        None => String::new(),
    };
    format!("{phase} for {since}{left}")
}

/// How many sessions ended for other reasons than that a side was done.
fn unusual_ends(ends: &Value) -> Option<String> {
    let ends = ends.as_object().into_iter().flatten();
    let unusual = ends.filter(|(reason, count)| {
        !["client_closed", "backend_closed"].contains(&reason.as_str()) && count.as_u64() > Some(0)
    });
    let each: Vec<String> = unusual
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    (!each.is_empty()).then(|| each.join(", "))
}

/// A line that goes on below, further in, where it is too long.
fn paragraph(line: &str, indent: &str, look: Look) -> String {
    let further = format!("{indent}    ");
    let options = textwrap::Options::new(look.width)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .initial_indent(indent)
        .subsequent_indent(&further);
    textwrap::fill(line, options) + "\n"
}

/// Nothing in it is broken but between a name and its address, so that it can be searched.
fn table(pool: &Value, look: Look) -> Table {
    let is_narrow = look.width < WIDTH_FOR_ALL;
    let shown = |number: usize| !(is_narrow && number == TOTAL);
    let gap = if is_narrow { 1 } else { 2 };
    let rows: Vec<[Cell; COLUMNS.len()]> = items(&pool["backends"])
        .map(|backend| row(backend, look))
        .collect();
    let width_of = |number: usize| {
        let cells = rows.iter().map(|row| row[number].content().chars().count());
        cells.max().unwrap_or(0).max(COLUMNS[number].len()) + usize::from(gap)
    };
    let others: usize = (1..COLUMNS.len())
        .filter(|number| shown(*number))
        .map(width_of)
        .sum();
    let left = look.width.saturating_sub(others + usize::from(gap));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(filtered(COLUMNS.map(Cell::new), shown));
    if look.colours {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for (backend, mut cells) in items(&pool["backends"]).zip(rows) {
        cells[0] = Cell::new(in_width(&name(backend), left));
        table.add_row(filtered(cells, shown));
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap));
        if number > 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The parts in one line, or one below the other.
fn in_width(parts: &[String], width: usize) -> String {
    let line = parts.join(" ");
    if line.chars().count() <= width {
        line
    } else {
        parts.join("\n")
    }
}

/// A backend's name, its address, and whether it is a backup.
fn name(backend: &Value) -> Vec<String> {
    let name = word(&backend["name"]);
    let address = [&backend["address"], &backend["host"]]
        .into_iter()
        .find_map(Value::as_str)
        .filter(|address| *address != name);
    let backup = (backend["backup"] == Value::Bool(true)).then_some("(backup)");
    let parts = [Some(name), address, backup];
    parts.into_iter().flatten().map(str::to_owned).collect()
}

fn filtered(
    cells: [Cell; COLUMNS.len()],
    shown: impl Fn(usize) -> bool,
) -> impl Iterator<Item = Cell> {
    let numbered = cells.into_iter().enumerate();
    numbered.filter_map(move |(number, cell)| shown(number).then_some(cell))
}

fn row(backend: &Value, look: Look) -> [Cell; COLUMNS.len()] {
    let paint = |cell: Cell, colour: Color| match look.colours {
        true => cell.fg(colour),
        false => cell,
    };
    let health = word(&backend["health"]["state"]);
    let since = &backend["health"]["since"];
    let (health, colour) = match health {
        "up" => ("up".to_owned(), Color::Green),
        "down" if since.is_u64() => (format!("down {}", age(since, look.now)), Color::Red),
        "unknown" => ("unknown".to_owned(), Color::Yellow),
        other => (other.to_owned(), Color::Red),
    };
    let state = word(&backend["state"]);
    let state = if state == "ready" {
        Cell::new(state)
    } else {
        let since = age(&backend["state_since"], look.now);
        let left = match backend["drain_until"].as_u64() {
            Some(until) => format!(", {} left", span(until.saturating_sub(look.now.as_secs()))),
            None => String::new(),
        };
        paint(Cell::new(format!("{state} {since}{left}")), Color::Yellow)
    };
    // A flow is to a pool of UDP what a session is to others.
    let both = |sessions: &str, flows: &str| {
        let count = |key: &str| backend[key].as_u64().unwrap_or(0);
        count(sessions) + count(flows)
    };
    let active = both("sessions_active", "flows_active");
    [
        Cell::new(name(backend).join(" ")),
        paint(Cell::new(health), colour),
        state,
        Cell::new(&backend["weight"]),
        match backend["max_sessions"].as_u64() {
            Some(most) => Cell::new(format!("{active}/{most}")),
            None => Cell::new(active),
        },
        Cell::new(both("sessions_total", "flows_total")),
        Cell::new(&backend["connect_failures_total"]),
    ]
}

/// What is to be said about a backend: why it is as it is, unless that is simply up and ready.
fn remarks(backend: &Value, look: Look) -> Vec<String> {
    let health = &backend["health"];
    let last_change = items(&health["history"]).last().map(|last| &last["why"]);
    // Why a backend came up is no news; that others are preferred all the same is.
    let is_plain = health["state"] == "up" && last_change.is_none_or(|why| *why == health["why"]);
    let why = health["why"].as_str().filter(|_| look.verbose || !is_plain);
    // What took it down may be over, and something else keep it there.
    let wrong = health["last_probe_failed"]
        .as_str()
        .filter(|wrong| why.is_none_or(|why| !why.ends_with(wrong)))
        .map(|wrong| format!("the last probe failed: {wrong}"));
    let said = [why, backend["why_not"].as_str()];
    said.into_iter()
        .flatten()
        .map(str::to_owned)
        .chain(wrong)
        .chain(ramps(&backend["slow_start_until"], look))
        .chain(hindered(&health["probes_hindered"], look.now))
        .chain(ports_running_out(&backend["source_ports"]))
        .chain(changed(&backend["not_as_in_file"]))
        .chain((backend["added_by"] == "operator").then(|| "added on this node only".to_owned()))
        .collect()
}

/// What the operator changed while it ran.
fn changed(keys: &Value) -> Option<String> {
    let keys: Vec<&str> = items(keys).map(word).collect();
    let is_any = !keys.is_empty();
    is_any.then(|| format!("changed on this node only: {}", keys.join(", ")))
}

/// It has come back, and gets its full share later.
fn ramps(until: &Value, look: Look) -> Option<String> {
    let left = until.as_u64()?.checked_sub(look.now.as_secs())?;
    (left > 0).then(|| format!("slow start: its full share in {}", span(left)))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
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
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LONG: &str =
        "connect: no answer within 1s; the probe connects to 10.0.0.12:5432 from 10.0.0.1 every 2s";

    fn status() -> Value {
        let backend = |name: &str, address: Option<&str>, health: Value, why_not: Option<&str>| {
            json!({
                "name": name, "address": address, "host": format!("{name}.example:5432"),
                "health": health, "state": "ready", "why_not": why_not, "weight": 100,
                "sessions_active": 12_345, "sessions_total": 1_234_567, "connect_failures_total": 3,
            })
        };
        let health = |state: &str, why: &str, last: &str| {
            let history = json!([{"why": last}]);
            json!({"state": state, "why": why, "history": history})
        };
        let mut changed = health(
            "down",
            "first probe failed: refused",
            "first probe failed: refused",
        );
        changed["last_probe_failed"] = json!("status 503");
        json!({
            "version": "1.0.0", "pid": 4711, "phase": "serving", "started": 0, "sessions_active": 3,
            "max_sessions": 500_000,
            "max_flows": 9_000, "flows_active": 7,
            "listeners": [
                {"name": "in", "addresses": ["*:5432"], "pools": [{"pool": "pg", "weight": 1}]},
                {"name": "dns", "addresses": ["*:53"], "pools": [{"pool": "pg", "weight": 1}], "flows_active": 7,
                 "datagrams": {"datagrams_received": 25, "datagrams_sent": 21, "datagrams_lost": {"full": 3}}},
            ],
            "pools": [{"name": "pg", "balance": "least_connections", "backends": [
                backend("plain", Some("10.0.0.11:5432"), health("up", "it connects", "it connects"), None),
                backend("avoided", Some("10.0.0.13:5432"), health("up", "connects fail", "it connects"), None),
                backend("weightless", Some("10.0.0.14:5432"), health("up", "ok", "ok"), Some("its weight is 0")),
                backend("dead", Some("10.0.0.12:5432"), health("down", LONG, LONG), None),
                backend("changed", Some("10.0.0.15:5432"), changed, None),
                backend("lost", None, health("down", "no such host", ""), None),
            ]}],
        })
    }

    fn shown(width: usize, verbose: bool) -> String {
        let now = Duration::from_secs(90);
        let look = Look {
            now,
            colours: false,
            width,
            verbose,
        };
        render(&status(), look)
    }

    #[test]
    fn reasons_stand_below_the_table_and_fit_every_width() {
        for (width, head) in [
            (60, "weight sessions failed"),
            (80, "weight sessions total failed"),
            (200, "weight sessions total failed"),
        ] {
            let text = shown(width, false);
            for line in text.lines() {
                assert!(
                    line.chars().count() <= width,
                    "more than {width}: {line}\n{text}"
                );
            }
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [
                format!("dead: {LONG}"),
                "avoided: connects fail".to_owned(),
                "changed: first probe failed: refused; the last probe failed: status 503"
                    .to_owned(),
                "weightless: its weight is 0".to_owned(),
                "lost: no such host".to_owned(),
                "7 of 9000 flows".to_owned(),
                "udp: 7 flows, 25 datagrams from clients, 21 to clients; lost: 3 full".to_owned(),
                "10.0.0.12:5432".to_owned(),
                "lost.example:5432".to_owned(),
                format!("backend health operator {head}"),
            ] {
                assert!(flat.contains(&part), "{part} is missing:\n{text}");
            }
            assert!(
                !flat.contains("plain:") && !flat.contains("it connects"),
                "{text}"
            );
        }
    }

    #[test]
    fn reasons_of_all_are_shown_on_request() {
        let text = shown(80, true);
        assert!(text.contains("  plain: it connects\n"), "{text}");
    }
}
