//! The place that promises to answer first: what connecting and the first byte took lately, times the sessions it
//! would have, relative to weight. It measures nothing itself; samples come in with their time.

use std::time::Duration;

use super::least::least;
use super::{Sample, View, Weight};
use crate::time::Time;

/// An average follows a change by two thirds in this time.
const AVERAGED_OVER: Duration = Duration::from_secs(10);

/// An average without a new sample is trusted less and less: what is expected of it shrinks by two thirds in this time.
/// So a place that was slow is tried again after a while, the sooner the less slow it was; one session is enough to
/// learn that it still is.
const FORGOTTEN_OVER: Duration = Duration::from_secs(60);

/// How far below the fastest average that goes, so that no place gets more than twice the sessions for being unknown.
const EXPECTED_OF_FASTEST: f64 = 0.5;

/// How often the shrinking is worked out.
const FADE_INTERVAL: Duration = Duration::from_millis(500);

/// No average counts as less than one microsecond, or the number of sessions would not matter any more.
const AVERAGE_LEAST: f64 = 1.0;

/// Looks at every place, so the pick is always a true minimum of what is expected. A place without a sample is taken
/// to be as fast as the fastest.
#[derive(Clone, Debug)]
pub(super) struct LeastTime {
    /// By place, microseconds over weight: what is expected of one session. Infinite without a weight. All that a pick
    /// reads.
    costs: Vec<f64>,
    places: Vec<Place>,
    next: usize,
    faded_at: Time,
    has_samples: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    weight: Weight,
    latency: Latency,
    /// Microseconds: the average, as far as it is still trusted.
    expected: f64,
}

impl Place {
    fn cost(&self) -> f64 {
        self.expected / f64::from(self.weight.sixteenths())
    }
}

/// What a place has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    connect: Option<Average>,
    first_byte: Option<Average>,
}

impl Latency {
    /// In microseconds; a part without a sample adds nothing. None without any sample.
    fn average(&self) -> Option<f64> {
        let parts = [self.connect, self.first_byte].into_iter().flatten();
        let average = parts.map(|part| part.micros).reduce(|a, b| a + b)?;
        Some(average.max(AVERAGE_LEAST))
    }
}

/// An average in which a sample counts for the time since the one before it.
#[derive(Clone, Copy, Debug)]
struct Average {
    micros: f64,
    at: Time,
}

impl Average {
    fn after(before: Option<Average>, sample: Duration, now: Time) -> Average {
        let sample = sample.as_secs_f64() * 1e6;
        let micros = before.map_or(sample, |before| {
            before.micros + (sample - before.micros) * (1.0 - kept(now - before.at, AVERAGED_OVER))
        });
        Average { micros, at: now }
    }
}

impl LeastTime {
    pub(super) fn new(weights: Vec<Weight>, seed: u64) -> LeastTime {
        let place = |weight: &Weight| Place {
            weight: *weight,
            latency: Latency::default(),
            expected: AVERAGE_LEAST,
        };
        let places: Vec<_> = weights.iter().map(place).collect();
        LeastTime {
            costs: places.iter().map(Place::cost).collect(),
            next: super::start(seed, places.len()),
            places,
            faded_at: Time::ZERO,
            has_samples: false,
        }
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) {
        self.places[place].weight = weight;
        self.costs[place] = self.places[place].cost();
    }

    pub(super) fn observe(&mut self, place: usize, sample: Sample, now: Time) {
        let latency = &mut self.places[place].latency;
        match sample {
            Sample::Connect(took) => {
                latency.connect = Some(Average::after(latency.connect, took, now));
            }
            Sample::FirstByte(took) => {
                latency.first_byte = Some(Average::after(latency.first_byte, took, now));
            }
        }
        let average = latency.average().expect("there is a sample now");
        if self.has_samples {
            self.places[place].expected = average;
            self.costs[place] = self.places[place].cost();
        } else {
            self.has_samples = true;
            self.expect(|_| average);
        }
    }

    /// The usable place with the least cost for one session more; places that tie take turns.
    pub(super) fn pick(&mut self, view: &impl View, now: Time) -> Option<usize> {
        if now - self.faded_at >= FADE_INTERVAL {
            self.fade(now);
        }
        let load = |place, cost: &f64| cost * (f64::from(view.active(place)) + 1.0);
        let usable = |place| view.is_usable(place);
        let place = least(&self.costs, self.next, f64::INFINITY, load, usable)?;
        self.next = place + 1;
        Some(place)
    }

    fn fade(&mut self, now: Time) {
        let kept = kept(now - self.faded_at, FORGOTTEN_OVER);
        self.faded_at = now;
        let averages = self
            .places
            .iter()
            .filter_map(|place| place.latency.average());
        let Some(fastest) = averages.reduce(f64::min) else {
            return;
        };
        self.expect(|place| {
            let before = match place.latency.average() {
                Some(_) => place.expected,
                None => place.expected.min(fastest),
            };
            (before * kept).max(fastest * EXPECTED_OF_FASTEST)
        });
    }

    fn expect(&mut self, expected: impl Fn(&Place) -> f64) {
        for (place, cost) in self.places.iter_mut().zip(&mut self.costs) {
            place.expected = expected(place);
            *cost = place.cost();
        }
    }
}

/// The part that is left after `elapsed`.
fn kept(elapsed: Duration, constant: Duration) -> f64 {
    (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pool;

    /// Opens one session after the other for so long, each over before the next, and returns who got how many.
    fn run(
        least_time: &mut LeastTime,
        from: Time,
        seconds: u64,
        per_second: u64,
        micros: &[u64],
    ) -> Vec<u64> {
        let view = Pool::new(micros.len());
        let mut picked = vec![0; micros.len()];
        for session in 0..seconds * per_second {
            let now = from + Duration::from_micros(session * 1_000_000 / per_second);
            let place = least_time.pick(&view, now).unwrap();
            picked[place] += 1;
            let took = Duration::from_micros(micros[place]);
            least_time.observe(place, Sample::Connect(took / 2), now + took / 2);
            least_time.observe(place, Sample::FirstByte(took / 2), now + took);
        }
        picked
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn least_time(weights: &[u16]) -> LeastTime {
        let weights = weights.iter().map(|weight| Weight::full(*weight)).collect();
        LeastTime::new(weights, 0)
    }

    #[test]
    fn the_faster_place_is_preferred_and_the_slow_one_looked_at_now_and_then() {
        let mut least_time = least_time(&[1, 1]);
        let picked = run(&mut least_time, at(0), 600, 100, &[500, 5_000]);
        assert!(picked[0] > 59_000 && picked[1] >= 3, "{picked:?}");
    }

    #[test]
    fn a_place_that_was_slow_gets_its_sessions_back() {
        let mut least_time = least_time(&[1, 1]);
        run(&mut least_time, at(0), 60, 100, &[500, 5_000]);
        run(&mut least_time, at(60), 240, 100, &[500, 200]);
        let picked = run(&mut least_time, at(300), 10, 100, &[500, 200]);
        assert!(picked[1] > 900, "{picked:?}");
    }

    #[test]
    fn a_change_is_noticed_within_seconds() {
        let mut least_time = least_time(&[1, 1]);
        run(&mut least_time, at(0), 60, 100, &[400, 500]);
        let picked = run(&mut least_time, at(60), 30, 100, &[4_000, 500]);
        assert!(picked[1] > 2_500, "{picked:?}");
    }

    #[test]
    fn sessions_in_flight_and_weights_count() {
        let mut least_time = least_time(&[1, 1, 4]);
        let mut view = Pool::new(3);
        for place in 0..3 {
            let took = Duration::from_micros([100, 300, 1_200][place]);
            least_time.observe(place, Sample::Connect(took), at(1));
        }
        for (active, expected) in [
            ([0, 0, 0], 0),
            ([3, 0, 0], 1),
            ([3, 2, 0], 2),
            ([2, 1, 1], 0),
        ] {
            view.active = active.to_vec();
            assert_eq!(least_time.pick(&view, at(1)), Some(expected), "{active:?}");
        }
    }

    #[test]
    fn a_place_without_a_sample_is_tried_soon_and_not_flooded() {
        let mut least_time = least_time(&[1, 1, 0]);
        run(&mut least_time, at(0), 10, 100, &[500, 500, 500]);
        // Each session lasts; the new place shows nothing.
        least_time.set_weight(2, Weight::full(1));
        let mut view = Pool::new(3);
        for session in 0..300 {
            let now = at(10) + Duration::from_millis(10 * session);
            let place = least_time.pick(&view, now).unwrap();
            view.active[place] += 1;
            if place != 2 {
                least_time.observe(place, Sample::Connect(Duration::from_micros(500)), now);
            }
        }
        assert!((50..=200).contains(&view.active[2]), "{:?}", view.active);
    }

    #[test]
    fn without_samples_it_is_like_least_connections() {
        let mut least_time = least_time(&[1, 2, 1]);
        let mut view = Pool::new(3);
        for _ in 0..40 {
            let place = least_time.pick(&view, at(1)).unwrap();
            view.active[place] += 1;
        }
        assert_eq!(view.active, [10, 20, 10]);
    }

    #[test]
    fn a_sample_counts_for_the_time_since_the_one_before() {
        let micros = Duration::from_micros;
        let first = Average::after(None, micros(1_000), at(0));
        let at_once = Average::after(Some(first), micros(9_000), at(0));
        assert!((at_once.micros - 1_000.0).abs() < 0.001);
        let later = Average::after(Some(first), micros(2_000), at(10));
        assert!((later.micros - 1_632.1).abs() < 0.1, "{}", later.micros);
        let much_later = Average::after(Some(first), micros(2_000), at(1_000));
        assert!((much_later.micros - 2_000.0).abs() < 0.001);
    }
}
