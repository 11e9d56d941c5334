//! Moments at which something is due for a backend. Pure: nothing is looked at before its time, and no clock is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::ids::BackendId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// Its sessions have had the time that a drain gives them.
    Drained(BackendId),
}

/// At most one moment for each alarm.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    moments: BTreeMap<Alarm, Instant>,
    in_order: BTreeSet<(Instant, Alarm)>,
}

impl Alarms {
    /// Instead of when it was due before.
    pub(super) fn set(&mut self, alarm: Alarm, at: Instant) {
        self.unset(alarm);
        self.moments.insert(alarm, at);
        self.in_order.insert((at, alarm));
    }

    pub(super) fn unset(&mut self, alarm: Alarm) {
        if let Some(at) = self.moments.remove(&alarm) {
            self.in_order.remove(&(at, alarm));
        }
    }

    /// When it is due.
    pub(super) fn at(&self, alarm: Alarm) -> Option<Instant> {
        self.moments.get(&alarm).copied()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Alarm> {
        let (_, alarm) = *self.in_order.first().filter(|(at, _)| *at <= now)?;
        self.unset(alarm);
        Some(alarm)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_due_once_at_the_last_moment_it_was_set_to() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let [first, other] = [0, 1].map(|id| Alarm::Drained(BackendId(id)));
        let mut alarms = Alarms::default();
        alarms.set(first, start + second);
        alarms.set(other, start + 2 * second);
        alarms.set(first, start + 3 * second);
        assert_eq!(alarms.at(first), Some(start + 3 * second));
        assert_eq!(alarms.due(start + second), None);
        assert_eq!(alarms.next(), Some(start + 2 * second));
        assert_eq!(alarms.due(start + 3 * second), Some(other));
        assert_eq!(alarms.due(start + 3 * second), Some(first));
        assert_eq!(alarms.due(start + 3 * second), None);
        alarms.set(first, start);
        alarms.unset(first);
        assert_eq!((alarms.next(), alarms.at(first)), (None, None));
    }
}
