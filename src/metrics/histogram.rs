//! How often something took how long: a row of cells with fixed bounds.

use std::time::Duration;

use super::Cell;

/// Bounds of each histogram; what takes longer than the last one has a place of its own.
pub const BUCKETS: usize = 16;

/// Upper bounds for what should be short, in microseconds: 100 us to 10 s.
pub const LATENCIES: [u64; BUCKETS] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Upper bounds for lives of sessions, in microseconds: 1 ms to a week.
pub const LIVES: [u64; BUCKETS] = [
    1_000,
    10_000,
    100_000,
    500_000,
    SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    HOUR,
    4 * HOUR,
    12 * HOUR,
    24 * HOUR,
    168 * HOUR,
];

/// See the module's text. It has one writer, as its cells have.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64; BUCKETS],
    counts: [Cell; BUCKETS + 1],
    sum_micros: Cell,
}

impl Histogram {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(bounds: &'static [u64; BUCKETS]) -> Histogram {
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| Cell::default()),
            sum_micros: Cell::default(),
        }
    }

    /// Notes how long something took.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| *bound < micros);
        self.counts[place].add(1);
        self.sum_micros.add(micros);
    }
}

impl Histogram {
    /// Takes over what another holds, which is empty then; nobody else may write to either.
    pub(super) fn take(&self, other: &Histogram) {
        for (cell, other) in self.counts.iter().zip(&other.counts) {
            cell.take(other);
        }
        self.sum_micros.take(&other.sum_micros);
    }
}

/// What several histograms with the same bounds hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    bounds: &'static [u64; BUCKETS],
    counts: [u64; BUCKETS + 1],
    sum_micros: u64,
}

impl Counts {
    /// Nothing.
    #[must_use]
    pub fn new(bounds: &'static [u64; BUCKETS]) -> Counts {
        Counts {
            bounds,
            counts: [0; BUCKETS + 1],
            sum_micros: 0,
        }
    }

    /// Adds what a histogram holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        for (count, cell) in self.counts.iter_mut().zip(&histogram.counts) {
            *count += cell.get();
        }
        self.sum_micros += histogram.sum_micros.get();
    }

    /// Adds what others hold.
    pub fn add_counts(&mut self, other: &Counts) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_micros += other.sum_micros;
    }

    /// How many were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all together took, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros).as_secs_f64()
    }

    /// Upper bounds in seconds, the last one infinite, with how many were observed up to there since the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().map(|micros| {
            let bound = Duration::from_micros(*micros);
            bound.as_secs_f64()
        });
        bounds.chain([f64::INFINITY]).zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_exactly_a_bound_counts_below_it() {
        let histogram = Histogram::new(&LATENCIES);
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut counts = Counts::new(&LATENCIES);
        counts.add(&histogram);
        let buckets: Vec<(f64, u64)> = counts.buckets().collect();
        assert_eq!(buckets[0], (0.0001, 2));
        assert_eq!(buckets[1], (0.00025, 1));
        assert_eq!(buckets[BUCKETS - 1], (10.0, 1));
        assert_eq!(buckets[BUCKETS], (f64::INFINITY, 1));
        assert_eq!(counts.count(), 5);
        assert!((counts.sum_seconds() - 20.000_202).abs() < 1e-9);
    }

    #[test]
    fn bounds_grow() {
        for bounds in [LATENCIES, LIVES] {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{bounds:?}");
        }
    }

    #[test]
    fn the_histograms_of_two_workers_add_up() {
        let (one, other) = (Histogram::new(&LIVES), Histogram::new(&LIVES));
        one.observe(Duration::from_secs(1));
        other.observe(Duration::from_secs(2));
        let mut both = Counts::new(&LIVES);
        both.add(&one);
        both.add(&other);
        let mut twice = both.clone();
        twice.add_counts(&both);
        assert_eq!((both.count(), twice.count()), (2, 4));
        assert!((twice.sum_seconds() - 6.0).abs() < 1e-9);
    }
}
