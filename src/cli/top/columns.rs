//! The columns of the tables: which there are at a width, how wide they are, and what stands in them. Pure.

use console::{Alignment, measure_text_width, pad_str};
use ratatui::style::Style;
use ratatui::text::Span;

use super::figures::{bars, bytes, short, span};
use super::model::{Model, Row};
use super::reading::{Backend, Listener, Tone};
use super::screen::{WIDE, operator};
use super::track::{Rates, Track};
use crate::cli::status::span as age;

/// Columns of the marker before a backend's name.
const MARKER: usize = 2;
const TREND: &str = "trend";
const TREND_MAX: usize = 30;

/// What stands in a row: a text for each title.
pub(super) type Cells = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug)]
struct Column {
    title: &'static str,
    width: usize,
    alignment: Alignment,
}

/// Those of one table.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    gap: usize,
    indent: usize,
}

impl Columns {
    /// The titles.
    pub(super) fn heading(&self) -> String {
        let titles: Cells = self
            .columns
            .iter()
            .map(|column| (column.title, column.title.to_owned()))
            .collect();
        " ".repeat(self.indent) + &self.line(&titles)
    }

    /// A row as text.
    pub(super) fn line(&self, cells: &Cells) -> String {
        let spans = self.spans(cells, |_| Style::new());
        spans.iter().map(|span| span.content.as_ref()).collect()
    }

    /// A row, each cell with its style.
    pub(super) fn spans(&self, cells: &Cells, style: impl Fn(&str) -> Style) -> Vec<Span<'static>> {
        let mut spans = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            if number > 0 {
                spans.push(Span::raw(" ".repeat(self.gap)));
            }
            let cell = cells.iter().find(|(title, _)| *title == column.title);
            let text = cell.map_or("", |(_, text)| text);
            let text = pad_str(text, column.width, column.alignment, Some("…")).into_owned();
            spans.push(Span::styled(text, style(column.title)));
        }
        spans
    }

    /// Gives the first column what is left, at most what it needs.
    fn fit(mut self, width: usize, wanted: usize) -> Columns {
        let others: usize = self.columns[1..]
            .iter()
            .map(|one| one.width + self.gap)
            .sum();
        let left = width.saturating_sub(others + self.indent);
        self.columns[0].width = wanted.min(left).max(8);
        self
    }

    /// Columns of the trend.
    pub(super) fn trend(&self) -> usize {
        let trend = self.columns.iter().find(|one| one.title == TREND);
        trend.map_or(0, |trend| trend.width)
    }

    /// What a full row takes.
    fn taken(&self) -> usize {
        let all: usize = self.columns.iter().map(|one| one.width).sum();
        all + self.gap * self.columns.len().saturating_sub(1) + self.indent
    }

    /// What a full row and another gap leave free.
    fn left(&self, width: usize) -> usize {
        width.saturating_sub(self.taken() + self.gap)
    }
}

fn left(title: &'static str, width: usize) -> Column {
    Column {
        title,
        width: width.max(title.len()),
        alignment: Alignment::Left,
    }
}

fn right(title: &'static str, width: usize) -> Column {
    Column {
        alignment: Alignment::Right,
        ..left(title, width)
    }
}

/// Bytes per second: by direction where there is room for it.
fn traffic(is_wide: bool) -> Vec<Column> {
    match is_wide {
        true => vec![right("to backend", 6), right("to client", 6)],
        false => vec![right("bytes/s", 6)],
    }
}

fn widest(texts: impl Iterator<Item = String>) -> usize {
    let widths = texts.map(|text| measure_text_width(&text));
    widths.max().unwrap_or(0)
}

/// The table of listeners.
pub(super) fn listeners(width: usize, all: &[&Listener]) -> Columns {
    let wanted = widest(all.iter().map(|listener| listener.name.clone()));
    let address = widest(all.iter().map(|listener| addresses(listener)));
    let pools = widest(all.iter().map(|listener| shares(listener)));
    let is_wide = width >= WIDE;
    let mut columns = vec![
        left("listener", 0),
        left("address", address.min(if is_wide { 30 } else { 21 })),
        left("pool", pools.min(if is_wide { 20 } else { 12 })),
        right("sessions", 8),
        right("new/s", 5),
    ];
    columns.extend(traffic(is_wide));
    let gap = if width < WIDE { 1 } else { 2 };
    let columns = Columns {
        columns,
        gap,
        indent: 0,
    };
    columns.fit(width, wanted.max(8))
}

/// What stands in the row of a listener.
pub(super) fn of_listener(listener: &Listener, rates: Rates) -> Cells {
    vec![
        ("listener", listener.name.clone()),
        ("address", addresses(listener)),
        ("pool", shares(listener)),
        (
            "sessions",
            (listener.sessions_active + listener.flows_active).to_string(),
        ),
        ("new/s", short(rates.sessions)),
        ("to backend", bytes(rates.to_backend)),
        ("to client", bytes(rates.to_client)),
        ("bytes/s", bytes(rates.to_backend + rates.to_client)),
    ]
}

fn addresses(listener: &Listener) -> String {
    match listener.addresses.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    }
}

fn shares(listener: &Listener) -> String {
    match listener.pools.as_slice() {
        [one] => one.pool.clone(),
        shares => {
            let each = shares.iter();
            let each = each.map(|share| format!("{} {}", share.pool, share.weight));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The table of backends.
pub(super) fn backends(width: usize, model: &Model, now: u64) -> Columns {
    let rows = model.rows();
    let all = || {
        rows.iter().filter_map(|row| match row {
            Row::Backend(backend) => Some(*backend),
            Row::Pool(_) | Row::Why(_) => None,
        })
    };
    let is_wide = width >= WIDE;
    let name = widest(all().map(name));
    let place = widest(all().map(|backend| backend.place().unwrap_or_default().to_owned()));
    let word = |backend: &Backend| operator(&backend.state, backend.drain_until, now);
    let mut columns = vec![left("backend", 0)];
    if is_wide && place > 0 {
        columns.push(left("address", place.min(24)));
    }
    columns.push(left("health", widest(all().map(|one| health(one, now)))));
    columns.push(left("operator", widest(all().map(word))));
    if is_wide {
        columns.push(right("weight", 0));
    }
    columns.push(right("sessions", widest(all().map(sessions))));
    columns.push(right("new/s", 5));
    columns.extend(traffic(is_wide));
    columns.push(right("connect", 6));
    columns.push(right("1st byte", 6));
    let gap = if is_wide { 2 } else { 1 };
    let columns = Columns {
        columns,
        gap,
        indent: MARKER,
    };
    let mut columns = columns.fit(width, name.max(10));
    // A name that can be read is worth more than these, and so is the last column.
    for spare in ["weight", "address"] {
        if columns.columns[0].width < name || columns.taken() > width {
            columns.columns.retain(|column| column.title != spare);
            columns = columns.fit(width, name.max(10));
        }
    }
    let room = columns.left(width);
    if room >= TREND.len() {
        columns.columns.push(left(TREND, room.min(TREND_MAX)));
    }
    columns
}

/// What stands in the row of a backend; its trend is so wide.
pub(super) fn of_backend(
    backend: &Backend,
    track: Option<&Track>,
    trend: usize,
    now: u64,
) -> Cells {
    let rates = track.and_then(Track::rates).unwrap_or_default();
    let latencies = track.map(Track::latencies).unwrap_or_default();
    let took = |seconds: Option<f64>| seconds.map_or("-".to_owned(), span);
    let curve = track.map(|track| {
        let rates = track.all_rates().map(|rates| rates.sessions);
        bars(rates.collect::<Vec<_>>().into_iter(), trend)
    });
    vec![
        ("backend", name(backend)),
        ("address", backend.place().unwrap_or_default().to_owned()),
        ("health", health(backend, now)),
        (
            "operator",
            operator(&backend.state, backend.drain_until, now),
        ),
        ("weight", backend.weight.to_string()),
        ("sessions", sessions(backend)),
        ("new/s", short(rates.sessions)),
        ("to backend", bytes(rates.to_backend)),
        ("to client", bytes(rates.to_client)),
        ("bytes/s", bytes(rates.to_backend + rates.to_client)),
        ("connect", took(latencies.connect)),
        ("1st byte", took(latencies.first_byte)),
        (TREND, curve.unwrap_or_default()),
    ]
}

fn name(backend: &Backend) -> String {
    let backup = if backend.backup { " (backup)" } else { "" };
    format!("{}{backup}", backend.name)
}

/// Since when is worth its place where it is not as it should be.
fn health(backend: &Backend, now: u64) -> String {
    let state = &backend.health.state;
    match backend.health.since.filter(|_| state != "up") {
        Some(since) => format!("{state} {}", age(now.saturating_sub(since))),
        None => state.clone(),
    }
}

fn sessions(backend: &Backend) -> String {
    match backend.max_sessions {
        Some(most) => format!("{}/{most}", backend.active()),
        None => backend.active().to_string(),
    }
}

impl Backend {
    /// How good its health is, whatever the operator says.
    pub(super) fn tone_of_health(&self) -> Tone {
        match self.health.state.as_str() {
            "up" => Tone::Good,
            "down" => Tone::Bad,
            _ => Tone::Doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At any width in which there is room for them without their addresses.
    #[test]
    fn no_column_of_a_backend_is_cut_off() {
        let status = serde_json::json!({"pools": [{"name": "web", "backends": [
            {"pool": "web", "name": "one", "address": "127.0.0.1:18001", "state": "ready",
             "health": {"state": "down", "since": 5}},
        ]}]});
        let answer = super::super::model::Answer {
            reading: serde_json::from_value(status).unwrap(),
            events: Vec::new(),
        };
        let model = Model::new(answer, 30.0);
        for width in 80..200 {
            let columns = backends(width, &model, 30);
            assert!(columns.taken() <= width, "{width}: {}", columns.heading());
        }
    }
}
