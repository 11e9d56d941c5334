//! What is made of the figures: verdicts, a table for people, JSON for machines.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::figures::{Contender, Sample, Spread, figures, median_of};
use crate::machine;
use crate::peers::Peer;
use crate::picture::{self, Stripe};
use crate::rows::{Bar, Row, Unit};
use crate::spec::Measured;

/// The contender that all ratios are about.
const OURS: &str = "ringway";

fn verdict(bar: &Bar, ratio: f64) -> &'static str {
    if ratio <= bar.stretch {
        "HOLDS+"
    } else if ratio <= bar.limit {
        "HOLDS"
    } else {
        "MISSED"
    }
}

/// All that one run found out.
pub(crate) struct Report {
    document: Value,
    verdicts: BTreeMap<&'static str, Vec<String>>,
    /// Rows in which one of our binaries failed.
    failures: Vec<&'static str>,
    stripes: Vec<Stripe>,
    title: String,
}

impl Report {
    /// Prints what the figures depend on.
    pub(crate) fn new(peers: &[Peer], turns: usize, measure: Duration, network: &str) -> Self {
        let command = env::args().collect::<Vec<_>>().join(" ");
        let (date, machine) = (machine::date(), machine::description());
        let seconds = measure.as_secs_f64();
        println!("{date}, {machine}\n{network}\n{turns} turns of {seconds} s\n{command}");
        let mut versions = serde_json::Map::new();
        for peer in peers {
            if let Some(version) = peer.version() {
                println!("  {:15} {version}", peer.name);
                versions.insert(peer.name.to_owned(), version.into());
            }
        }
        let document = json!({
            "date": date, "machine": machine, "network": network, "command": command,
            "turns": turns, "seconds": seconds, "versions": versions, "rows": [],
        });
        Self {
            document,
            verdicts: BTreeMap::new(),
            failures: Vec::new(),
            stripes: Vec::new(),
            title: format!("Ringway side by side with HAProxy and nginx, {date}"),
        }
    }

    pub(crate) fn skip(&mut self, row: &Row) {
        println!("\n{}: skipped, no time left", row.name);
        self.verdicts
            .entry("SKIPPED")
            .or_default()
            .push(row.name.to_owned());
    }

    /// Prints a row and keeps it.
    pub(crate) fn add(&mut self, row: &Row, contenders: &[Contender]) {
        println!("\n{}: {}; {}", row.name, row.what, row.unit.describe());
        println!("{HEADINGS}");
        let find_ours = contenders.iter().find(|contender| contender.label == OURS);
        let ours = find_ours.map_or(Vec::new(), |ours| figures(row.unit, ours, contenders));
        let mut lines = Vec::new();
        for contender in contenders {
            let theirs = figures(row.unit, contender, contenders);
            let line = Line::new(row, contender, &ours, &theirs);
            line.print(row.unit);
            lines.push(line.json(&theirs));
            self.keep_verdict(row, &line);
        }
        if let Some(rows) = self.document["rows"].as_array_mut() {
            rows.push(json!({"row": row.name, "unit": row.unit.describe(), "peers": lines}));
        }
    }

    fn keep_verdict(&mut self, row: &Row, line: &Line) {
        let label = line.contender.label;
        if let (Some(bar), Some(Spread { median, min, max })) = (line.bar, line.ratio) {
            self.stripes.push(Stripe {
                what: row.what.to_owned(),
                against: label,
                ratio: [median, min, max],
                limit: bar.limit,
            });
        }
        let words = match (line.ratio, line.most.and(line.figure)) {
            (Some(ratio), _) => Some(format!("{} {:.2} x {label}", row.name, ratio.median)),
            (None, Some(figure)) => Some(format!("{} {:.0}", row.name, figure.median)),
            (None, None) => None,
        };
        if let (Some(verdict), Some(words)) = (line.verdict, words) {
            self.verdicts.entry(verdict).or_default().push(words);
        }
        if line.contender.is_ours() && line.contender.failure.is_some() {
            self.failures.push(row.name);
        }
    }

    /// Prints which bars hold, and writes the files.
    pub(crate) fn finish(self, file: Option<&Path>, drawing: Option<&Path>) -> Outcome<()> {
        println!(
            "\nratio = ringway divided by that line; wait = share of the time in which others had the balancer's core"
        );
        for (verdict, rows) in &self.verdicts {
            println!("{verdict:7} {}", rows.join("; "));
        }
        if let Some(file) = file {
            fs::write(file, serde_json::to_string_pretty(&self.document)?)?;
        }
        if let Some(drawing) = drawing {
            picture::write(drawing, &self.title, &self.stripes)?;
        }
        if !self.failures.is_empty() {
            return Err(format!("ringway failed in {}", self.failures.join(", ")).into());
        }
        Ok(())
    }
}

/// The headings, in the widths of `Line::print`.
const HEADINGS: &str = "                   median          min..max                rate  p50 us  p99 us   p99.9 wait \
                        ratio    min..max   bar";

/// One contender's line in a row's table.
struct Line<'a> {
    contender: &'a Contender,
    figure: Option<Spread>,
    ratio: Option<Spread>,
    bar: Option<&'a Bar>,
    /// A bar for the figure itself.
    most: Option<f64>,
    verdict: Option<&'static str>,
}

impl<'a> Line<'a> {
    fn new(row: &'a Row, contender: &'a Contender, ours: &[f64], theirs: &[f64]) -> Self {
        let ratio = Spread::ratio(ours, theirs).filter(|_| contender.label != OURS);
        let bar = row.bars.iter().find(|bar| bar.against == contender.label);
        let figure = Spread::of(theirs);
        let judged = bar.zip(ratio);
        let within = row
            .most
            .zip(figure.filter(|_| contender.label == OURS))
            .map(|(most, figure)| {
                if figure.median <= most {
                    "HOLDS"
                } else {
                    "MISSED"
                }
            });
        Self {
            contender,
            figure,
            ratio,
            bar,
            most: row.most.filter(|_| contender.label == OURS),
            verdict: judged
                .map(|(bar, ratio)| verdict(bar, ratio.median))
                .or(within),
        }
    }

    fn print(&self, unit: Unit) {
        let Contender {
            label,
            samples,
            failure,
            ..
        } = self.contender;
        if samples.is_empty() {
            println!(
                "  {label:14} failed: {}",
                failure.as_deref().unwrap_or("not measured")
            );
            return;
        }
        let digits = if matches!(unit, Unit::Request | Unit::Connection) {
            2
        } else {
            0
        };
        let spread = |spread: Spread| format!("{:.digits$}..{:.digits$}", spread.min, spread.max);
        let of_ratio = |spread: Spread| format!("{:.2}..{:.2}", spread.min, spread.max);
        let latency = |value: fn(&Measured) -> f64| match median_of(samples, |sample| {
            value(&sample.measured)
        }) {
            0.0 => String::new(),
            value => format!("{value:.0}"),
        };
        let wait = median_of(samples, Sample::wait_percent);
        println!(
            "  {label:14} {:>8} {:>17} {:>19} {:>7} {:>7} {:>7} {:>4} {:>5} {:>11} {:>5} {}",
            self.figure.map_or(String::new(), |figure| format!(
                "{:.digits$}",
                figure.median
            )),
            self.figure.map_or(String::new(), spread),
            rate(unit, samples),
            latency(|measured| measured.p50_us),
            latency(|measured| measured.p99_us),
            latency(|measured| measured.p999_us),
            if wait.is_nan() {
                String::new()
            } else {
                format!("{wait:.0}%")
            },
            self.ratio
                .map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
            self.ratio.map_or(String::new(), of_ratio),
            match (self.bar, self.most) {
                (Some(bar), _) => format!("{:.2}", bar.limit),
                (None, Some(most)) => format!("{most:.0}"),
                (None, None) => String::new(),
            },
            self.verdict.unwrap_or(""),
        );
        print_doubts(self.contender);
    }

    fn json(&self, turns: &[f64]) -> Value {
        let Contender {
            label,
            samples,
            failure,
            ..
        } = self.contender;
        json!({
            "peer": label, "figure": self.figure.map(Spread::json), "turns": turns,
            "ratio": self.ratio.map(Spread::json), "bar": self.bar.map(|bar| bar.limit), "most": self.most,
            "stretch": self.bar.map(|bar| bar.stretch), "verdict": self.verdict, "failure": failure,
            "samples": samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

/// What throws doubt on a figure.
fn print_doubts(contender: &Contender) {
    let errors: u64 = contender
        .samples
        .iter()
        .map(|sample| sample.measured.errors)
        .sum();
    if errors > 0 {
        println!("  {:14} ! {errors} sessions failed or ended early", "");
    }
    let of_softirq = |sample: &Sample| {
        sample.measured.softirq_ns as f64 / sample.measured.balancer_cpu_ns.max(1) as f64
    };
    let softirq = median_of(&contender.samples, of_softirq);
    if softirq > 0.02
        && contender
            .samples
            .iter()
            .any(|sample| sample.measured.balancer_cpu_ns > 0)
    {
        println!(
            "  {:14} ! the kernel did another {:.0} % on this core in ksoftirqd",
            "",
            softirq * 100.0
        );
    }
    if let Some(failure) = &contender.failure {
        println!(
            "  {:14} ! given up after {} turns: {failure}",
            "",
            contender.samples.len()
        );
    }
}

fn rate(unit: Unit, samples: &[Sample]) -> String {
    let rate = median_of(samples, Sample::rate);
    match unit {
        Unit::Request | Unit::Connection => format!("{rate:.0}/s"),
        Unit::Gigabyte => format!("{:.2} GB/s", rate / 1e9),
        Unit::SmallLatency => {
            let bulk = median_of(samples, |sample| sample.bulk.unwrap_or(0.0));
            format!("{rate:.0}/s, {:.2} GB/s", bulk / 1e9)
        }
        Unit::SessionMemory => {
            let process = median_of(samples, |sample| {
                sample.memory.unwrap_or_default().process as f64
            });
            let slab = median_of(samples, |sample| {
                sample.memory.unwrap_or_default().slab as f64
            });
            format!("pss {process:.0} slab {slab:.0}")
        }
        Unit::Start => String::new(),
    }
}
