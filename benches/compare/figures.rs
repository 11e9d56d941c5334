//! Figures out of samples: medians, spreads and ratios.

use serde_json::{Value, json};

use crate::peers::Peer;
use crate::rows::Unit;
use crate::spec::Measured;

/// Somebody who takes part in a row, and what came of it.
pub(crate) struct Contender {
    pub(crate) label: &'static str,
    /// None: only sockets, no program.
    pub(crate) peer: Option<Peer>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failure: Option<String>,
}

/// One turn's result.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) measured: Measured,
    /// Bytes per second of bulk beside the small sessions.
    pub(crate) bulk: Option<f64>,
    pub(crate) memory: Option<Memory>,
    /// How long a start took, in seconds.
    pub(crate) start: Option<f64>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) process: u64,
    pub(crate) slab: u64,
}

impl Memory {
    /// Sessions without a balancer: what the client's and the backend's ends take.
    pub(crate) const DIRECT: &'static str = "direct";
    /// Connected sockets that nobody watches.
    pub(crate) const BARE: &'static str = "bare sockets";
}

impl Contender {
    pub(crate) fn new(label: &'static str, peer: Option<Peer>) -> Self {
        Self {
            label,
            peer,
            samples: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.peer.as_ref().is_some_and(Peer::is_ours)
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.peer.as_ref().is_some_and(Peer::is_direct)
    }
}

impl Sample {
    pub(crate) fn of(measured: Measured) -> Self {
        Self {
            measured,
            ..Self::default()
        }
    }

    pub(crate) fn beside(mut self, bulk: Measured) -> Self {
        self.bulk = Some(bulk.units as f64 / bulk.seconds);
        self.measured.errors += bulk.errors;
        self
    }

    pub(crate) fn holding(memory: Memory) -> Self {
        Self {
            memory: Some(memory),
            ..Self::default()
        }
    }

    pub(crate) fn started(seconds: f64) -> Self {
        Self {
            start: Some(seconds),
            ..Self::default()
        }
    }

    fn per_unit(&self, scale: f64) -> f64 {
        self.measured.balancer_cpu_ns as f64 / self.measured.units as f64 * scale
    }

    pub(crate) fn rate(&self) -> f64 {
        self.measured.units as f64 / self.measured.seconds
    }

    pub(crate) fn json(&self) -> Value {
        let memory = self
            .memory
            .map(|memory| json!({"process": memory.process, "slab": memory.slab}));
        json!({
            "measured": self.measured, "bulk_bytes_per_second": self.bulk, "memory": memory,
            "start_seconds": self.start,
        })
    }

    /// The share of the measured interval in which somebody else had the balancer's core.
    pub(crate) fn wait_percent(&self) -> f64 {
        self.measured.balancer_wait_ns as f64 / self.measured.seconds / 1e7
    }
}

/// A row's figure for one contender, turn by turn; empty where it has none.
pub(crate) fn figures(unit: Unit, contender: &Contender, all: &[Contender]) -> Vec<f64> {
    let cpu = |scale: f64| -> Vec<f64> {
        let through_balancer = contender.samples.iter().filter(|_| !contender.is_direct());
        through_balancer
            .map(|sample| sample.per_unit(scale))
            .collect()
    };
    match unit {
        Unit::Request | Unit::Connection => cpu(1e-3),
        Unit::Gigabyte => cpu(1e3),
        Unit::SmallLatency => contender
            .samples
            .iter()
            .map(|sample| sample.measured.p99_us)
            .collect(),
        Unit::SessionMemory => session_memory(contender, all),
        Unit::Start => {
            let starts = contender.samples.iter().filter_map(|sample| sample.start);
            starts.map(|seconds| seconds * 1e3).collect()
        }
    }
}

/// The process's memory and the kernel's, less what the four sockets take of the latter.
fn session_memory(contender: &Contender, all: &[Contender]) -> Vec<f64> {
    let slab_of = |label: &str| {
        let samples = all
            .iter()
            .find(|other| other.label == label)
            .map_or(&[][..], |other| &other.samples);
        let mut slabs: Vec<f64> = samples
            .iter()
            .filter_map(|sample| Some(sample.memory?.slab as f64))
            .collect();
        median(&mut slabs)
    };
    let sockets = slab_of(Memory::DIRECT).unwrap_or(0.0) + slab_of(Memory::BARE).unwrap_or(0.0);
    if contender.is_direct() || contender.peer.is_none() {
        return Vec::new();
    }
    let of_one = |memory: Memory| memory.process as f64 + (memory.slab as f64 - sockets).max(0.0);
    contender
        .samples
        .iter()
        .filter_map(|sample| sample.memory.map(of_one))
        .collect()
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

pub(crate) fn median_of(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median(&mut samples.iter().map(value).collect::<Vec<f64>>()).unwrap_or(0.0)
}

/// A median and how far the turns were apart.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        let median = median(&mut sorted)?;
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }

    /// Ours by theirs: of the medians, and the least and the greatest of the turns.
    pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let turns: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let median = Self::of(ours)?.median / Self::of(theirs)?.median;
        Self::of(&turns).map(|spread| Self { median, ..spread })
    }

    pub(crate) fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}
