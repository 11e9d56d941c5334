//! Moments at which something is due for a backend. Pure: nothing is looked at before its time, and no clock is read.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::ids::BackendId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// It has been avoided for long enough.
    TryAgain(BackendId),
}

/// At most one moment for each alarm.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeSet<(Instant, Alarm)>);

impl Alarms {
    /// Instead of when it was due before.
    pub(super) fn set(&mut self, alarm: Alarm, at: Instant) {
        self.unset(alarm);
        self.0.insert((at, alarm));
    }

    pub(super) fn unset(&mut self, alarm: Alarm) {
        self.0.retain(|(_, other)| *other != alarm);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Alarm> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, alarm)| alarm)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_due_once_at_the_last_moment_it_was_set_to() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let [first, other] = [0, 1].map(|id| Alarm::TryAgain(BackendId(id)));
        let mut alarms = Alarms::default();
        alarms.set(first, start + second);
        alarms.set(other, start + 2 * second);
        alarms.set(first, start + 3 * second);
        assert_eq!(alarms.due(start + second), None);
        assert_eq!(alarms.next(), Some(start + 2 * second));
        assert_eq!(alarms.due(start + 3 * second), Some(other));
        assert_eq!(alarms.due(start + 3 * second), Some(first));
        assert_eq!(alarms.due(start + 3 * second), None);
        alarms.set(first, start);
        alarms.unset(first);
        assert_eq!(alarms.next(), None);
    }
}
