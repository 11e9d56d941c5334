//! When the link is told where the addresses are: at once, again after 100 ms, 1 s and 5 s, then every minute; and once
//! more on a sign of another owner, but for that not twice within a second.

use std::time::Duration;

use crate::time::Time;

const ROUNDS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(900),
    Duration::from_secs(4),
];
const THEN_EVERY: Duration = Duration::from_secs(60);
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// The rounds of one term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcements {
    /// When the next round of the schedule is due; none before the first.
    next: Option<Time>,
    /// The schedule's rounds that are over.
    rounds: usize,
    /// The last round out of turn. One of the schedule does not count: who looked elsewhere may not have heard it.
    last: Option<Time>,
    /// A round out of turn.
    doubted: Option<Time>,
}

impl Announcements {
    /// The addresses are (again) here: the schedule begins, with a round that is due now.
    pub(super) fn begin(&mut self, now: Time) {
        self.rounds = 0;
        self.next = Some(now);
    }

    /// There is a sign that others look for an address elsewhere.
    pub(super) fn doubt(&mut self, now: Time) {
        if self.next.is_some() && self.doubted.is_none() {
            let earliest = self.last.map(|last| last + DOUBT_PAUSE);
            self.doubted = Some(earliest.map_or(now, |earliest| earliest.max(now)));
        }
    }

    /// Whether a round is due now; it then counts as done.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        if self.next.is_some_and(|next| next <= now) {
            let pause = ROUNDS.get(self.rounds).copied().unwrap_or(THEN_EVERY);
            self.next = Some(now + pause);
            self.rounds = (self.rounds + 1).min(ROUNDS.len());
        }
        if self.doubted.is_some_and(|doubted| doubted <= now) {
            self.doubted = None;
            self.last = Some(now);
        }
        true
    }

    /// When the next round is due.
    pub(super) fn due(&self) -> Option<Time> {
        self.next.into_iter().chain(self.doubted).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Time {
        Time::from_micros(count * 1_000)
    }

    fn rounds_until(announcements: &mut Announcements, end: Time) -> Vec<u64> {
        let mut rounds = Vec::new();
        while let Some(due) = announcements.due().filter(|due| *due <= end) {
            assert!(announcements.take_due(due));
            rounds.push(due.as_micros() / 1_000);
        }
        rounds
    }

    #[test]
    fn rounds_come_at_once_then_ever_more_rarely() {
        let mut announcements = Announcements::default();
        assert_eq!(announcements.due(), None);
        announcements.begin(millis(0));
        let rounds = rounds_until(&mut announcements, millis(130_000));
        assert_eq!(rounds, [0, 100, 1_000, 5_000, 65_000, 125_000]);
    }

    #[test]
    fn a_doubt_is_one_round_and_not_twice_within_a_second() {
        let mut announcements = Announcements::default();
        announcements.doubt(millis(0));
        assert_eq!(announcements.due(), None, "nothing to announce yet");
        announcements.begin(millis(0));
        rounds_until(&mut announcements, millis(10_000));
        for at in [10_000, 10_001, 10_002, 10_999] {
            announcements.doubt(millis(at));
            let rounds = rounds_until(&mut announcements, millis(at));
            assert_eq!(rounds.len(), usize::from(at == 10_000), "{at}");
        }
        let rounds = rounds_until(&mut announcements, millis(60_000));
        assert_eq!(rounds, [11_000]);
    }

    #[test]
    fn a_doubt_right_after_a_round_of_the_schedule_does_not_wait() {
        let mut announcements = Announcements::default();
        announcements.begin(millis(0));
        rounds_until(&mut announcements, millis(5_000));
        announcements.doubt(millis(5_001));
        assert_eq!(announcements.due(), Some(millis(5_001)));
    }
}
