//! What the pure parts cost by themselves: a request through the session machine, a deadline in the timer wheel, the
//! reading of a large file. Run it with `cargo bench --bench parts`.
//!
//! No socket, no ring: what the kernel takes is in `scripts/bench`.

use std::fmt::Write;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use ringway::config;
use ringway::session::{Direction, Event, ReceiveEnd, Rules, Session, Side, Step, Steps};
use ringway::time::Time;
use ringway::worker::timers::Timers;

/// Bytes of a request, and of its answer.
const MESSAGE: u32 = 64;

/// A session, and the kernel that completes whatever it asks for at once.
struct Relayed {
    session: Session,
    steps: Steps,
    now: Time,
}

impl Relayed {
    fn connected(rules: &Rc<Rules>) -> Relayed {
        let now = Time::from_micros(0);
        let mut relayed = Relayed {
            session: Session::new(Rc::clone(rules), now),
            steps: Steps::new(),
            now,
        };
        relayed.perform();
        relayed.tell(Event::Connected);
        relayed
    }

    fn tell(&mut self, event: Event) {
        self.session.on(event, self.now);
        self.perform();
    }

    fn perform(&mut self) {
        loop {
            self.steps.clear();
            self.session.steps(self.now, &mut self.steps);
            if self.steps.is_empty() {
                return;
            }
            for step in std::mem::take(&mut self.steps) {
                for event in answer(step).into_iter().flatten() {
                    self.session.on(event, self.now);
                }
            }
        }
    }

    fn message(&mut self, side: Side) {
        self.tell(Event::Received { side, len: MESSAGE });
    }

    fn request(&mut self) {
        self.now = self.now + Duration::from_micros(100);
        self.message(Side::Client);
        self.message(Side::Backend);
        black_box(self.session.deadline());
    }

    fn end(mut self) {
        for side in [Side::Client, Side::Backend] {
            let end = ReceiveEnd::Eof;
            self.tell(Event::ReceiveEnded { side, end });
        }
        assert!(self.session.is_closed(), "nothing is in flight any more");
    }
}

/// What a kernel that never lets anybody wait says at once.
fn answer(step: Step) -> [Option<Event>; 2] {
    match step {
        Step::Send(direction) => {
            let sent = Event::Sent {
                direction,
                bytes: MESSAGE,
                blocked: false,
            };
            [Some(sent), None]
        }
        Step::Spill(direction) => [Some(Event::Spilled(direction)), None],
        Step::Cancel { side, operation } => [
            Some(Event::PollEnded { side, operation }),
            Some(Event::CancelEnded { side, operation }),
        ],
        Step::Connect
        | Step::Receive(_)
        | Step::Pump { .. }
        | Step::Discard(_)
        | Step::Poll { .. }
        | Step::ShutdownWrite(_)
        | Step::KeepAlive
        | Step::CheckDelivered(_)
        | Step::Close(_) => [None, None],
    }
}

fn sessions(criterion: &mut Criterion) {
    let rules = Rc::new(Rules {
        retries: 2,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: None,
        half_close_timeout: Some(Duration::from_secs(3_600)),
        session_timeout: None,
    });
    let mut group = criterion.benchmark_group("session");
    let mut relayed = Relayed::connected(&rules);
    group.bench_function("request", |bencher| bencher.iter(|| relayed.request()));
    let taken = relayed.session.relay_of(Direction::ToBackend).taken();
    assert!(taken >= u64::from(MESSAGE), "it relays");
    group.bench_function("connect, request, close", |bencher| {
        bencher.iter(|| {
            let mut relayed = Relayed::connected(&rules);
            relayed.request();
            relayed.end();
        });
    });
    group.finish();
}

/// Every session has a deadline; one is moved, and now and then one is due.
fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    for count in [100, 10_000, 1_000_000] {
        let mut timers = Timers::default();
        let deadline = |now: u64, slot: u32| {
            Time::from_micros(now + 60_000_000 + u64::from(slot % 60_000) * 1_000)
        };
        for slot in 0..count {
            timers.set(slot, Some(deadline(0, slot)));
        }
        let (mut now, mut slot) = (0, 0);
        let mut due = Vec::new();
        group.bench_function(BenchmarkId::new("end, begin, turn", count), |bencher| {
            bencher.iter(|| {
                now += 100;
                slot = (slot + 7_919) % count;
                timers.unset(slot);
                timers.set(slot, Some(deadline(now, slot)));
                timers.expire(Time::from_micros(now), &mut due);
                for slot in due.drain(..) {
                    timers.set(slot, Some(deadline(now, slot)));
                }
            });
        });
    }
    group.finish();
}

fn loading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(10);
    for (listeners, backends) in [(1, 10), (1, 10_000), (1_000, 10_000)] {
        let text = file(listeners, backends);
        let name = format!("{listeners} listeners, {backends} backends");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let loaded = config::parse(&text, "bench.yaml", "lb1");
                assert!(loaded.config.is_some(), "{}", loaded.report);
                loaded
            });
        });
    }
    group.finish();
}

/// Each listener has a pool of its own; the backends are spread over them.
fn file(listeners: usize, backends: usize) -> String {
    let mut text = "listeners:\n".to_owned();
    for number in 0..listeners {
        let port = 10_000 + number;
        writeln!(text, "  - {{bind: \"*:{port}\", pool: p{number}}}").expect("memory");
    }
    text.push_str("pools:\n");
    for number in 0..listeners {
        writeln!(text, "  p{number}:").expect("memory");
        for backend in (number..backends).step_by(listeners) {
            let (high, low) = (backend / 250, backend % 250 + 1);
            writeln!(text, "    - 10.0.{high}.{low}:5432").expect("memory");
        }
    }
    text
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = sessions, timers, loading
}
criterion_main!(all);
