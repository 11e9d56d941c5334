//! Passive failure: a backend on which several connects in a row failed is avoided for a while.

use std::time::Duration;

use crate::time::Time;

/// When traffic speaks against a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveRule {
    /// Failed connects in a row; none = never.
    pub failures: Option<u32>,
    /// How long the backend is avoided then.
    pub retry_after: Duration,
}

/// What traffic said about one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passive {
    failures: u32,
    /// The last one.
    failed_at: Time,
    avoided_until: Option<Time>,
}

/// A refusal of a datagram that has not come for so long does not come any more.
const REFUSALS_WITHIN: Duration = Duration::from_secs(1);

impl Passive {
    /// A connect succeeded. Whether the backend was avoided and no longer is.
    pub fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.avoided_until.take().is_some()
    }

    /// Datagrams were sent there since `since`, and are not refused now. Where answers are not the rule that is all
    /// that tells of a success, if the last failure was before, and a refusal has had the time to come. Whether the
    /// backend was avoided and no longer is.
    pub fn unrefused(&mut self, since: Time, now: Time) -> bool {
        let is_proof = self.failed_at <= since && since + REFUSALS_WITHIN <= now;
        !self.is_clean() && is_proof && self.succeeded()
    }

    /// A connect failed, and it was not our own fault. Whether the backend is avoided from now on and was not before.
    pub fn failed(&mut self, rule: &PassiveRule, now: Time) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        let enough = rule.failures.is_some_and(|limit| self.failures >= limit);
        let was_avoided = self.is_avoided(now);
        if enough {
            self.avoided_until = Some(now + rule.retry_after);
        }
        enough && !was_avoided
    }

    /// Whether nothing has failed since the last success.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures == 0
    }

    /// Until when others are to be preferred.
    #[must_use]
    pub fn avoided_until(&self) -> Option<Time> {
        self.avoided_until
    }

    /// Whether others are to be preferred at this time.
    #[must_use]
    pub fn is_avoided(&self, now: Time) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: PassiveRule = PassiveRule {
        failures: Some(3),
        retry_after: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_in_a_row_avoid_it_for_a_while() {
        let mut passive = Passive::default();
        assert!(!passive.failed(&RULE, at(0)));
        assert!(!passive.failed(&RULE, at(0)));
        assert!(!passive.is_avoided(at(0)));
        assert!(passive.failed(&RULE, at(1)));
        assert!(passive.is_avoided(at(10)));
        assert!(!passive.is_avoided(at(11)));
    }

    #[test]
    fn a_success_in_between_begins_the_count_anew() {
        let mut passive = Passive::default();
        passive.failed(&RULE, at(0));
        passive.failed(&RULE, at(0));
        assert!(!passive.succeeded());
        assert!(!passive.failed(&RULE, at(0)));
        assert!(!passive.is_avoided(at(0)));
    }

    #[test]
    fn after_the_while_one_more_failure_avoids_it_again() {
        let mut passive = Passive::default();
        for _ in 0..3 {
            passive.failed(&RULE, at(0));
        }
        assert!(!passive.is_avoided(at(10)));
        assert!(passive.failed(&RULE, at(12)));
        assert!(passive.is_avoided(at(21)));
        assert!(passive.succeeded());
    }

    #[test]
    fn datagrams_that_nobody_refuses_for_a_second_after_a_failure_are_a_success() {
        let mut passive = Passive::default();
        passive.failed(&RULE, at(10));
        passive.failed(&RULE, at(20));
        // They went before the last failure; the refusal may still come; it has had its time.
        for (since, now, is_clean) in [(9, 30, false), (20, 20, false), (20, 21, true)] {
            passive.unrefused(at(since), at(now));
            assert_eq!(passive.is_clean(), is_clean, "since {since}, at {now}");
        }
        for _ in 0..3 {
            passive.failed(&RULE, at(22));
        }
        assert!(passive.unrefused(at(23), at(24)), "it was avoided");
        assert!(!passive.is_avoided(at(24)));
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut passive = Passive::default();
        let rule = PassiveRule {
            failures: None,
            ..RULE
        };
        for _ in 0..100 {
            assert!(!passive.failed(&rule, at(0)));
        }
        assert!(!passive.is_avoided(at(0)));
    }
}
