//! Writes samples in the formats that Prometheus reads. It collects nothing itself: control fills in the [`Samples`].

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Counts;
use super::list::{Kind, Metric};

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A word of ours.
    Word(&'static str),
    /// A name of the file.
    Name(Arc<str>),
}

impl Label {
    fn as_str(&self) -> &str {
        match self {
            Label::Word(word) => word,
            Label::Name(name) => name,
        }
    }
}

impl From<&'static str> for Label {
    fn from(word: &'static str) -> Label {
        Label::Word(word)
    }
}

impl From<&Arc<str>> for Label {
    fn from(name: &Arc<str>) -> Label {
        Label::Name(Arc::clone(name))
    }
}

/// What was measured.
#[derive(Clone, Debug)]
enum Value {
    Whole(u64),
    Fraction(f64),
    Counts(Counts),
}

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<Label>,
    value: Value,
}

/// What is served of each metric.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Vec<Sample>>);

impl Default for Samples {
    fn default() -> Samples {
        Samples(vec![Vec::new(); Metric::ALL.len()])
    }
}

impl Samples {
    /// Adds a whole number to a metric; labels in the order of the list.
    pub fn add<const N: usize>(&mut self, metric: Metric, labels: [Label; N], value: u64) {
        self.push(metric, labels.to_vec(), Value::Whole(value));
    }

    /// Adds a number of seconds.
    pub fn add_seconds<const N: usize>(&mut self, metric: Metric, labels: [Label; N], value: f64) {
        self.push(metric, labels.to_vec(), Value::Fraction(value));
    }

    /// Adds a histogram.
    pub fn add_counts<const N: usize>(
        &mut self,
        metric: Metric,
        labels: [Label; N],
        value: Counts,
    ) {
        self.push(metric, labels.to_vec(), Value::Counts(value));
    }

    /// Adds a series for each word: 1 for the one that is so now, 0 for the others.
    pub fn add_states(
        &mut self,
        metric: Metric,
        labels: &[Label],
        words: &[&'static str],
        now: &'static str,
    ) {
        for word in words {
            let labels = labels.iter().cloned().chain([Label::Word(word)]);
            self.push(
                metric,
                labels.collect(),
                Value::Whole(u64::from(*word == now)),
            );
        }
    }

    fn push(&mut self, metric: Metric, labels: Vec<Label>, value: Value) {
        debug_assert_eq!(labels.len(), metric.describe().labels.len(), "{metric:?}");
        self.0[metric as usize].push(Sample { labels, value });
    }

    /// In the text format of OpenMetrics 1.0.
    #[must_use]
    pub fn open_metrics(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        text::encode(&mut written, &registry).expect("a string takes everything");
        written
    }

    /// In the text format of Prometheus, version 0.0.4: there, a counter is described by the name it is queried by.
    #[must_use]
    pub fn plain(self) -> String {
        let open = self.open_metrics();
        let mut plain = String::with_capacity(open.len());
        let mut about = "";
        for line in open.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                about = rest;
                continue;
            }
            if line.starts_with("# UNIT ") || line == "# EOF" {
                continue;
            }
            let Some(rest) = line.strip_prefix("# TYPE ") else {
                plain.extend([line, "\n"]);
                continue;
            };
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            let total = if kind == "counter" { "_total" } else { "" };
            let help = about.strip_prefix(name).unwrap_or(about);
            plain.push_str(&format!(
                "# HELP {name}{total}{help}\n# TYPE {name}{total} {kind}\n"
            ));
        }
        plain
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, samples) in Metric::ALL.iter().zip(&self.0) {
            if samples.is_empty() {
                continue;
            }
            let described = metric.describe();
            let (name, unit) = unit_of(described.name);
            let kind = match described.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family =
                encoder.encode_descriptor(name, described.help, unit.as_ref(), kind)?;
            for sample in samples {
                if sample.labels.is_empty() {
                    write(&mut family, described.kind, &sample.value)?;
                    continue;
                }
                let names = described.labels.iter().copied();
                let labels: Vec<(&str, &str)> =
                    names.zip(sample.labels.iter().map(Label::as_str)).collect();
                let mut one = family.encode_family(&labels)?;
                write(&mut one, described.kind, &sample.value)?;
            }
        }
        Ok(())
    }
}

fn unit_of(name: &'static str) -> (&'static str, Option<Unit>) {
    if let Some(name) = name.strip_suffix("_seconds") {
        (name, Some(Unit::Seconds))
    } else if let Some(name) = name.strip_suffix("_bytes") {
        (name, Some(Unit::Bytes))
    } else {
        (name, None)
    }
}

fn write(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
        }
        (Kind::Counter, Value::Fraction(value)) => {
            encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
        }
        (_, Value::Whole(value)) => encoder.encode_gauge(value),
        (_, Value::Fraction(value)) => encoder.encode_gauge(value),
        (_, Value::Counts(counts)) => {
            let buckets: Vec<(f64, u64)> = counts.buckets().collect();
            let (sum, count) = (counts.sum_seconds(), counts.count());
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::{Histogram, LATENCIES};
    use super::*;

    fn samples() -> Samples {
        let mut samples = Samples::default();
        let pool: Arc<str> = Arc::from("a\"b");
        samples.add(Metric::SessionsActive, [], 3);
        let labels = [(&pool).into(), "to_backend".into()];
        samples.add(Metric::PoolBytes, labels, 12);
        samples.add_seconds(Metric::WorkerBusy, ["0".into()], 1.5);
        samples.add_states(Metric::Phase, &[], &["starting", "serving"], "serving");
        let histogram = Histogram::new(&LATENCIES);
        histogram.observe(Duration::from_millis(20));
        let mut counts = Counts::new(&LATENCIES);
        counts.add(&histogram);
        samples.add_counts(Metric::PoolConnect, [(&pool).into()], counts);
        samples
    }

    #[test]
    fn open_metrics_names_families_without_total_and_ends_with_eof() {
        let text = samples().open_metrics();
        for line in [
            "# TYPE ringway_sessions_active gauge",
            "ringway_sessions_active 3",
            "# TYPE ringway_pool_bytes counter",
            "# UNIT ringway_pool_bytes bytes",
            "ringway_pool_bytes_total{pool=\"a\\\"b\",direction=\"to_backend\"} 12",
            "ringway_worker_busy_seconds_total{worker=\"0\"} 1.5",
            "ringway_phase{phase=\"starting\"} 0",
            "ringway_phase{phase=\"serving\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_older_format_names_counters_as_they_are_queried() {
        let text = samples().plain();
        for line in [
            "# TYPE ringway_pool_bytes_total counter",
            "# HELP ringway_pool_bytes_total Bytes of a pool's sessions: to_backend or to_client.",
            "# TYPE ringway_pool_connect_duration_seconds histogram",
            "ringway_pool_connect_duration_seconds_bucket{le=\"0.01\",pool=\"a\\\"b\"} 0",
            "ringway_pool_connect_duration_seconds_bucket{le=\"0.025\",pool=\"a\\\"b\"} 1",
            "ringway_pool_connect_duration_seconds_bucket{le=\"+Inf\",pool=\"a\\\"b\"} 1",
            "ringway_pool_connect_duration_seconds_count{pool=\"a\\\"b\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }
}
