//! Time as the pure modules see it: a value that is passed in. Only the shells read a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in microseconds since the process began to count. Half the size of an `Instant`, and a test can
/// make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The beginning.
    pub const ZERO: Time = Time(0);

    /// The point `micros` microseconds after the beginning.
    #[must_use]
    pub fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub fn as_micros(self) -> u64 {
        self.0
    }
}

/// Lets something be done now and then only, such as a line in the log.
#[derive(Clone, Debug)]
pub struct Seldom {
    every: Duration,
    next: Time,
}

impl Seldom {
    /// At most once per `every`; the first time at once.
    #[must_use]
    pub fn new(every: Duration) -> Seldom {
        Seldom {
            every,
            next: Time::ZERO,
        }
    }

    /// Whether it may be done now; if so, it counts as done.
    pub fn may(&mut self, now: Time) -> bool {
        let may = now >= self.next;
        if may {
            self.next = now + self.every;
        }
        may
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: a deadline too far away to write down never comes.
    fn add(self, duration: Duration) -> Time {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(micros))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// Saturates at zero: a time that lies in the future is no time ago.
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_seldom_is_done_at_once_and_then_once_per_interval() {
        let mut seldom = Seldom::new(Duration::from_secs(60));
        let done: Vec<u64> = (0..=150)
            .filter(|second| seldom.may(Time::from_micros(second * 1_000_000)))
            .collect();
        assert_eq!(done, [0, 60, 120]);
    }
}
