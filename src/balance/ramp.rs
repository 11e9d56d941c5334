//! Slow start: the weight of a backend that has come up grows from a small share to the whole. Does not know why it
//! came up, and sets no timer.

use std::time::Duration;

use super::Weight;
use crate::time::Time;

/// One backend's way back to its full weight: 15 steps, from a sixteenth to the whole, evenly spread over the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    since: Time,
    lasts: Duration,
}

impl Ramp {
    /// The backend has come up at `since`, and is to have its full weight `lasts` later.
    #[must_use]
    pub fn new(since: Time, lasts: Duration) -> Ramp {
        Ramp { since, lasts }
    }

    /// What a configured weight is worth now.
    #[must_use]
    pub fn weight(&self, configured: u16, now: Time) -> Weight {
        Weight::part(configured, self.steps(now))
    }

    /// When the weight changes next; none if it is the full one.
    #[must_use]
    pub fn next_step(&self, now: Time) -> Option<Time> {
        let steps = self.steps(now);
        if steps == Weight::STEPS {
            return None;
        }
        let elapsed = (self.lasts_micros() * u128::from(steps)).div_ceil(GROWTH);
        Some(self.since + Duration::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX)))
    }

    /// At least one; the last at the very end.
    fn steps(&self, now: Time) -> u32 {
        let elapsed = (now - self.since).as_micros();
        let grown = (elapsed * GROWTH).checked_div(self.lasts_micros());
        let grown = grown.unwrap_or(GROWTH).min(GROWTH);
        1 + u32::try_from(grown).expect("at most 15")
    }

    fn lasts_micros(&self) -> u128 {
        self.lasts.as_micros()
    }
}

/// Steps that are added on the way.
const GROWTH: u128 = Weight::STEPS as u128 - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_evenly_from_a_sixteenth_to_the_whole() {
        let ramp = Ramp::new(Time::from_micros(500), Duration::from_micros(15_000));
        for (elapsed, sixteenths) in [
            (0, 1),
            (999, 1),
            (1_000, 2),
            (7_000, 8),
            (14_999, 15),
            (15_000, 16),
        ] {
            let now = Time::from_micros(500 + elapsed);
            assert_eq!(ramp.weight(1, now).sixteenths(), sixteenths, "{elapsed}");
            assert_eq!(ramp.weight(100, now).sixteenths(), 100 * sixteenths);
            assert_eq!(ramp.weight(0, now), Weight::NONE);
        }
    }

    #[test]
    fn without_a_time_the_full_weight_is_there_at_once() {
        let ramp = Ramp::new(Time::ZERO, Duration::ZERO);
        assert_eq!(ramp.weight(7, Time::ZERO), Weight::full(7));
        assert_eq!(ramp.next_step(Time::ZERO), None);
    }

    proptest! {
        #[test]
        fn it_never_shrinks_and_is_whole_at_the_end(
            lasts in 0u64..100_000_000_000, since in 0u64..1 << 50, weight in 0u16..=256,
        ) {
            let (start, lasts) = (Time::from_micros(since), Duration::from_micros(lasts));
            let ramp = Ramp::new(start, lasts);
            let mut before = Weight::NONE;
            for part in 0..=100 {
                let now = ramp.weight(weight, start + lasts * part / 100);
                prop_assert!(now >= before);
                before = now;
            }
            prop_assert_eq!(before, Weight::full(weight));
        }

        #[test]
        fn its_steps_lead_to_the_end_one_by_one(lasts in 1u64..100_000_000_000) {
            let ramp = Ramp::new(Time::ZERO, Duration::from_micros(lasts));
            let mut now = Time::ZERO;
            for _ in 0..15 {
                let Some(next) = ramp.next_step(now) else { break };
                prop_assert!(ramp.weight(1, next) > ramp.weight(1, now));
                now = next;
            }
            prop_assert_eq!(now, Time::from_micros(lasts));
            prop_assert_eq!(ramp.next_step(now), None);
        }
    }
}
