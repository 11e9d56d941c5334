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
