//! What the demo shows at one moment, as lines of text. Pure: a frame, a width and a height in; lines out.

use std::time::Duration;

use console::{Style, truncate_str};
use textwrap::Options;

/// Narrower than this, nothing would be left to see.
const WIDTH_MIN: usize = 40;
/// Columns of everything but the curve.
const WIDTH_OF_NUMBERS: usize = 67;
const CURVE_MAX: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One moment.
pub(super) struct Frame {
    pub(super) address: String,
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    pub(super) rows: Vec<Row>,
    pub(super) failed: u64,
    pub(super) story: Vec<String>,
}

/// One backend.
pub(super) struct Row {
    pub(super) name: String,
    /// `up`, `down` or `unknown`.
    pub(super) state: String,
    pub(super) sessions: u64,
    /// Requests per second.
    pub(super) rate: u64,
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) answered: u64,
    /// The rates so far, the newest last.
    pub(super) rates: Vec<u64>,
}

impl Frame {
    /// For a terminal. No line is wider, and there are no more lines than the height.
    pub(super) fn lines(&self, width: usize, height: usize, colours: bool) -> Vec<String> {
        let width = width.max(WIDTH_MIN);
        let style = |style: Style| style.force_styling(colours);
        let (bold, dim) = (style(Style::new().bold()), style(Style::new().dim()));
        let mut lines = vec![
            format!(
                "{}  listening on {}, three backends behind it",
                bold.apply_to("ringway demo"),
                self.address
            ),
            self.progress(width, &dim),
            String::new(),
            dim.apply_to("backend  state    sessions  requests/s   median      p99   answered")
                .to_string(),
        ];
        let most = self
            .rows
            .iter()
            .flat_map(|row| &row.rates)
            .copied()
            .max()
            .unwrap_or(0);
        for row in &self.rows {
            lines.push(row.line(width, most, colours));
        }
        let rate: u64 = self.rows.iter().map(|row| row.rate).sum();
        let sessions: u64 = self.rows.iter().map(|row| row.sessions).sum();
        let answered: u64 = self.rows.iter().map(|row| row.answered).sum();
        let all = format!(
            "{:<8} {:<8} {sessions:>8}  {:>10}  {:>7}  {:>7}  {:>9}",
            "all",
            "",
            count(rate),
            "",
            "",
            count(answered)
        );
        lines.push(bold.apply_to(all).to_string());
        let failed = format!("{} requests failed", count(self.failed));
        let failing = style(if self.failed == 0 {
            Style::new().green()
        } else {
            Style::new().yellow()
        });
        lines.push(failing.apply_to(failed).to_string());
        lines.push(String::new());
        let room = height.saturating_sub(lines.len());
        let further = Options::new(width).subsequent_indent("        ");
        let story: Vec<_> = self
            .story
            .iter()
            .flat_map(|event| textwrap::wrap(event, &further))
            .collect();
        let skipped = story.len().saturating_sub(room);
        lines.extend(story[skipped..].iter().map(|line| line.to_string()));
        lines.truncate(height.max(1));
        lines
            .into_iter()
            .map(|line| truncate_str(&line, width, "…").into_owned())
            .collect()
    }

    fn progress(&self, width: usize, dim: &Style) -> String {
        let cells = (width - 20).min(CURVE_MAX);
        let done = self.elapsed.as_secs_f64() / self.length.as_secs_f64().max(0.001);
        let full = (0..cells).filter(|cell| share(*cell, cells) < done).count();
        let bar = format!(
            "{}{}",
            "━".repeat(full),
            dim.apply_to("─".repeat(cells - full))
        );
        format!(
            "{bar} {:>4.1}s of {}s",
            self.elapsed.as_secs_f64(),
            self.length.as_secs()
        )
    }

    /// For a log: everything on one line.
    pub(super) fn line(&self) -> String {
        let each = self.rows.iter().map(|row| {
            let p99 = match row.rate {
                0 => String::new(),
                _ => format!(" p99 {}", span(row.p99)),
            };
            format!("{} {} {}/s{p99}", row.name, row.state, row.rate)
        });
        let each: Vec<String> = each.collect();
        format!(
            "{:>5.1}s  {}; {} failed",
            self.elapsed.as_secs_f64(),
            each.join(", "),
            self.failed
        )
    }
}

impl Row {
    fn line(&self, width: usize, most: u64, colours: bool) -> String {
        let state = format!("{:<8}", self.state);
        let style = match self.state.as_str() {
            "up" => Style::new().green(),
            "down" => Style::new().red().bold(),
            _ => Style::new().yellow(),
        };
        let state = style.force_styling(colours).apply_to(state);
        let time = |duration: Duration| match self.rate {
            0 => "-".to_owned(),
            _ => span(duration),
        };
        let room = width.saturating_sub(WIDTH_OF_NUMBERS + 3).min(CURVE_MAX);
        let from = self.rates.len().saturating_sub(room);
        let curve: String = self.rates[from..]
            .iter()
            .map(|rate| bar(*rate, most))
            .collect();
        format!(
            "{:<8} {state} {:>8}  {:>10}  {:>7}  {:>7}  {:>9}   {curve}",
            self.name,
            self.sessions,
            count(self.rate),
            time(self.median),
            time(self.p99),
            count(self.answered),
        )
    }
}

fn bar(rate: u64, most: u64) -> char {
    match (rate, most) {
        (0, _) | (_, 0) => ' ',
        _ => {
            let step = (rate * 8).div_ceil(most.max(1)).clamp(1, 8);
            BARS[usize::try_from(step - 1).unwrap_or(0)]
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |value: usize| u32::try_from(value).map_or(f64::MAX, f64::from);
    number(part) / number(whole).max(1.0)
}

/// With thin marks between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration as people write it.
pub(super) fn span(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{:.1}s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;

    use super::*;

    fn frame() -> Frame {
        let row = |name: &str, state: &str, rate| Row {
            name: name.to_owned(),
            state: state.to_owned(),
            sessions: 8,
            rate,
            median: Duration::from_micros(180),
            p99: Duration::from_micros(2_300),
            answered: 1_234_567,
            rates: (0..200).map(|second| second % 17 * 100).collect(),
        };
        Frame {
            address: "127.0.0.1:54321".to_owned(),
            elapsed: Duration::from_millis(7_500),
            length: Duration::from_secs(15),
            rows: vec![
                row("one", "up", 1_234),
                row("two", "down", 0),
                row("three", "up", 12_345),
            ],
            failed: 3,
            story: (0..40)
                .map(|number| {
                    format!(
                        "{number} something quite long that happened {}",
                        "x".repeat(90)
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_there_are_not_too_many() {
        for (width, height) in [(80, 24), (200, 50), (40, 10), (80, 5), (10, 3)] {
            for colours in [false, true] {
                let lines = frame().lines(width, height, colours);
                assert!(
                    lines.len() <= height.max(1),
                    "{} lines of {height}",
                    lines.len()
                );
                for line in &lines {
                    assert!(
                        measure_text_width(line) <= width.max(WIDTH_MIN),
                        "{width}: {line}"
                    );
                    assert_eq!(line.contains('\u{1b}'), colours && line.contains('\u{1b}'));
                }
                assert_eq!(lines.concat().contains('\u{1b}'), colours);
            }
        }
    }

    #[test]
    fn columns_stand_under_their_titles() {
        let lines = frame().lines(120, 30, false);
        let end = |line: &str, part: &str| {
            line.find(part)
                .map(|at| line[..at].chars().count() + part.len())
        };
        let (titles, row) = (&lines[3], &lines[4]);
        for (title, value) in [
            ("sessions", " 8"),
            ("requests/s", "1,234"),
            ("median", "180us"),
            ("p99", "2.3ms"),
            ("answered", "1,234,567"),
        ] {
            assert_eq!(
                end(titles, title),
                end(row, value),
                "{title}\n{titles}\n{row}"
            );
        }
        assert!(lines[5].contains("down"), "{}", lines[5]);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [count(7), count(1_234), count(1_234_567)],
            ["7", "1,234", "1,234,567"]
        );
        let spans =
            [90, 1_234, 45_678, 2_345_678].map(|micros| span(Duration::from_micros(micros)));
        assert_eq!(spans, ["90us", "1.2ms", "45ms", "2.3s"]);
    }
}
