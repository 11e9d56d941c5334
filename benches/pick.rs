//! What one pick costs, by algorithm and number of backends, as a worker asks: shared counts of sessions, a state for
//! each backend, a few backends tried already. Bars: 100 ns at 10 backends, 1 us at 1,000; 200 ns at 10,000 for hash,
//! random and round robin. Run it with `cargo bench --bench pick`.
//!
//! `cycle` is a pool with weights from 1 to 256, `half` one with every second backend down, `one` one with a single
//! backend up. It measures picks alone: no connect, no session.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

use ringway::balance::{Algorithm, Arrival, HashKey, Member, Picker, Plan, Sample, View};
use ringway::time::Time;

/// A kind of pool: its name, the weights that its backends have in turn, and which of them are up.
type Kind<'a> = (&'a str, &'a [u16], fn(usize) -> bool);

/// What a worker knows about a pool.
struct Pool {
    up: Vec<bool>,
    active: Vec<AtomicU32>,
    max_sessions: u32,
}

impl View for Pool {
    fn is_usable(&self, place: usize) -> bool {
        self.up[place] && self.active(place) < self.max_sessions
    }

    fn active(&self, place: usize) -> u32 {
        self.active[place].load(Ordering::Relaxed)
    }
}

/// Sessions that a pool has at a time, for each backend.
const SESSIONS_EACH: usize = 4;

struct Bench {
    picker: Picker,
    pool: Pool,
    /// A ring of the sessions that are open; the oldest ends when one begins.
    open: Vec<usize>,
    oldest: usize,
    client: u32,
}

impl Bench {
    fn new(algorithm: Algorithm, count: usize, weights: &[u16], up: fn(usize) -> bool) -> Bench {
        let plan = plan(algorithm, count, weights);
        let mut bench = Bench {
            picker: Picker::new(&plan, 1),
            pool: Pool {
                up: (0..count).map(up).collect(),
                active: (0..count).map(|_| AtomicU32::new(0)).collect(),
                max_sessions: u32::MAX,
            },
            open: Vec::new(),
            oldest: 0,
            client: 0,
        };
        for place in 0..count {
            let took = Duration::from_micros(100 + place as u64 * 7919 % 400);
            bench
                .picker
                .observe(place, Sample::Connect(took), Time::ZERO);
        }
        for _ in 0..count * SESSIONS_EACH {
            let place = bench.pick();
            bench.pool.active[place].fetch_add(1, Ordering::Relaxed);
            bench.open.push(place);
        }
        bench
    }

    fn pick(&mut self) -> usize {
        self.client = self.client.wrapping_add(2_654_435_761);
        let arrival = Arrival {
            client: Some((Ipv4Addr::from(self.client), 50_000).into()),
            now: Time::from_micros(u64::from(self.client >> 20)),
        };
        let picked = self.picker.pick(&arrival, black_box(&self.pool));
        picked.expect("somebody is up")
    }

    /// A session begins, the oldest ends.
    fn session(&mut self) -> usize {
        let place = self.pick();
        self.pool.active[place].fetch_add(1, Ordering::Relaxed);
        let ended = std::mem::replace(&mut self.open[self.oldest], place);
        self.pool.active[ended].fetch_sub(1, Ordering::Relaxed);
        self.oldest = (self.oldest + 1) % self.open.len();
        place
    }
}

fn plan(algorithm: Algorithm, count: usize, weights: &[u16]) -> Plan {
    let names: Vec<_> = (0..count).map(|place| format!("pg{place}")).collect();
    let weights = weights.iter().cycle();
    let member = |(name, weight): (_, &u16)| Member {
        name,
        weight: *weight,
        backup: false,
    };
    let members: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(weights)
        .map(member)
        .collect();
    Plan::new(algorithm, HashKey::SourceIp, &members)
}

fn picks(criterion: &mut Criterion) {
    let cycle: Vec<u16> = (1..=256).collect();
    for algorithm in Algorithm::ALL {
        let mut group = criterion.benchmark_group(algorithm.as_str());
        for count in [10, 100, 1_000, 10_000] {
            let kinds: [Kind<'_>; 4] = [
                ("equal", &[1], |_| true),
                ("cycle", &cycle, |_| true),
                ("half", &[1], |place| place % 2 == 1),
                ("one", &[1], |place| place == 5),
            ];
            for (name, weights, up) in kinds {
                let mut bench = Bench::new(algorithm, count, weights, up);
                group.bench_function(BenchmarkId::new(name, count), |bencher| {
                    bencher.iter(|| bench.session());
                });
            }
        }
        group.finish();
    }
}

/// What making a plan costs control: nearly all of it is the table for hashing.
fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for count in [10, 1_000, 10_000] {
        group.bench_function(BenchmarkId::new("hash", count), |bencher| {
            bencher.iter_batched(
                || (),
                |()| plan(Algorithm::Hash, count, &[1]),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = picks, plans
}
criterion_main!(all);
