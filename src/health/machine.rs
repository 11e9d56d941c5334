//! Rise and fall: how outcomes of probes, one after the other, make a backend up or down. Pure; time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Transitions that are remembered for the status.
const HISTORY_MAX: usize = 8;

/// How many outcomes in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiseFall {
    /// Successes that bring it up.
    pub rise: u32,
    /// Failures that take it down.
    pub fall: u32,
}

/// How soon the next probe is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It is up, and nothing speaks against that.
    Usual,
    /// The state is changing.
    Fast,
    /// It is down, and nothing speaks against that.
    Down,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// To which state.
    pub is_up: bool,
    /// The evidence, in words.
    pub why: String,
}

/// One backend's health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// None until the first outcome.
    is_up: Option<bool>,
    /// Outcomes in a row that speak against the state.
    against: u32,
    /// The first of them, while it is up.
    doubted_since: Option<Time>,
    /// Sessions found it failing: the next failed probe takes it down.
    is_doubted_by_sessions: bool,
    /// A probe at once has been asked for, and nothing has come of it yet.
    is_hurried: bool,
    /// What the last probe found wrong.
    wrong: Option<String>,
    hindered: Option<Hindrance>,
    history: VecDeque<Transition>,
}

/// Why probes cannot be made although they are due: for a reason of this host, so nothing is known about the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The first that could not be made.
    pub since: Time,
    /// In words, for the last one.
    pub why: String,
}

impl Health {
    /// Whether it is up; none while nothing is known.
    #[must_use]
    pub fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// Whether connects of sessions failed since the last probe.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.is_doubted_by_sessions
    }

    /// When the failures began that took it down, or that may.
    #[must_use]
    pub fn doubted_since(&self) -> Option<Time> {
        self.doubted_since
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Transition> {
        self.history.iter()
    }

    /// What the last probe found wrong, which may be something else than what took it down; none if it succeeded.
    #[must_use]
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// Why probes cannot be made; none while they are.
    #[must_use]
    pub fn hindered(&self) -> Option<&Hindrance> {
        self.hindered.as_ref()
    }

    /// A probe could not be made. Nothing else changes: neither the state nor what counts towards another.
    pub fn hindered_by(&mut self, why: &str, now: Time) {
        self.is_hurried = false;
        let since = self.hindered.as_ref().map_or(now, |first| first.since);
        self.hindered = Some(Hindrance {
            since,
            why: why.to_owned(),
        });
    }

    /// Probes can be made, or none is due any more.
    pub fn unhinder(&mut self) {
        self.hindered = None;
    }

    /// Nobody looks any more: what was known is history.
    pub fn forget(&mut self) {
        *self = Health {
            history: std::mem::take(&mut self.history),
            ..Health::default()
        };
    }

    /// How soon the next probe is wanted.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self.is_up {
            _ if self.against > 0 || self.is_doubted_by_sessions => Pace::Fast,
            Some(false) => Pace::Down,
            Some(true) | None => Pace::Usual,
        }
    }

    /// The outcome of a probe: how long it took, or what was wrong. The first one decides by itself.
    pub fn probed(
        &mut self,
        rule: RiseFall,
        outcome: Result<Duration, &str>,
        now: Time,
    ) -> Option<Transition> {
        self.unhinder();
        self.is_hurried = false;
        let succeeded = outcome.is_ok();
        if self.wrong.as_deref() != outcome.err() {
            self.wrong = outcome.err().map(str::to_owned);
        }
        if succeeded {
            self.is_doubted_by_sessions = false;
        }
        if self.is_up == Some(succeeded) {
            self.against = 0;
            if succeeded {
                self.doubted_since = None;
            }
            return None;
        }
        self.against += 1;
        if !succeeded {
            self.doubted_since.get_or_insert(now);
        }
        let enough = match (self.is_up, succeeded) {
            (None, _) => true,
            (Some(_), true) => self.against >= rule.rise,
            (Some(_), false) => self.against >= rule.fall || self.is_doubted_by_sessions,
        };
        enough.then(|| {
            let why = match outcome {
                Ok(took) if self.is_up.is_none() => format!("first probe succeeded in {took:.1?}"),
                Ok(took) => format!("{} probes succeeded, the last in {took:.1?}", self.against),
                Err(why) if self.is_up.is_none() => format!("first probe failed: {why}"),
                Err(why) if self.against < rule.fall => {
                    format!("connects of sessions and a probe failed: {why}")
                }
                Err(why) if self.against == 1 => format!("a probe failed: {why}"),
                Err(why) => format!("{} probes in a row failed: {why}", self.against),
            };
            self.become_state(succeeded, why, now)
        })
    }

    /// A connect of a session failed; whether a probe should be made at once. Only one, while nothing else is known to
    /// be wrong: a hiccup that many workers notice is not `fall` failures.
    pub fn hurried(&mut self) -> bool {
        let is_news = self.pace() == Pace::Usual && !self.is_hurried;
        self.is_hurried |= is_news;
        is_news
    }

    /// Connects of sessions failed; whether that is news, so that a probe should be made at once.
    pub fn doubted(&mut self, now: Time) -> bool {
        if self.is_up != Some(true) || self.is_doubted_by_sessions {
            return false;
        }
        self.is_doubted_by_sessions = true;
        self.doubted_since.get_or_insert(now);
        true
    }

    /// What sessions said is not to hasten anything: probes alone decide.
    pub fn trusted(&mut self) {
        self.is_doubted_by_sessions = false;
    }

    fn become_state(&mut self, is_up: bool, why: String, now: Time) -> Transition {
        self.is_up = Some(is_up);
        self.against = 0;
        self.is_doubted_by_sessions = false;
        if is_up {
            self.doubted_since = None;
        }
        let transition = Transition {
            at: now,
            is_up,
            why,
        };
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(transition.clone());
        transition
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: RiseFall = RiseFall { rise: 2, fall: 3 };

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn good() -> Result<Duration, &'static str> {
        Ok(Duration::from_millis(2))
    }

    fn bad() -> Result<Duration, &'static str> {
        Err("refused")
    }

    /// Up or down after each outcome, written as `+` and `-`.
    fn states(outcomes: &str) -> String {
        let mut health = Health::default();
        let one = |letter| {
            let outcome = if letter == '+' { good() } else { bad() };
            health.probed(RULE, outcome, at(0));
            if health.is_up() == Some(true) {
                '+'
            } else {
                '-'
            }
        };
        outcomes.chars().map(one).collect()
    }

    #[test]
    fn rise_and_fall_count_outcomes_in_a_row() {
        for (outcomes, expected) in [
            ("+", "+"),
            ("-", "-"),
            ("+--+---", "++++++-"),
            ("+---+-++", "+++----+"),
            ("-+-+-++", "------+"),
        ] {
            assert_eq!(states(outcomes), expected, "{outcomes}");
        }
    }

    #[test]
    fn what_is_wrong_now_is_known_beside_what_took_it_down() {
        let mut health = Health::default();
        health.probed(RULE, bad(), at(0));
        health.probed(RULE, Err("status 503"), at(1));
        assert_eq!(health.wrong(), Some("status 503"));
        let last = health.history().last().map(|last| last.why.as_str());
        assert_eq!(last, Some("first probe failed: refused"));
        health.probed(RULE, good(), at(2));
        assert_eq!(health.wrong(), None);
    }

    #[test]
    fn only_one_probe_is_hurried_until_something_comes_of_it() {
        let mut health = Health::default();
        health.probed(RULE, good(), at(0));
        assert!(health.hurried());
        assert!(!health.hurried());
        health.probed(RULE, good(), at(1));
        assert!(health.hurried());
        health.hindered_by("no files", at(2));
        assert!(health.hurried());
        health.probed(RULE, bad(), at(3));
        assert!(!health.hurried(), "the next one is soon");
    }

    #[test]
    fn doubt_begins_with_the_first_failure_and_ends_with_a_success() {
        let mut health = Health::default();
        health.probed(RULE, good(), at(0));
        assert_eq!(health.pace(), Pace::Usual);
        health.probed(RULE, bad(), at(5));
        health.probed(RULE, bad(), at(6));
        assert_eq!(
            (health.doubted_since(), health.pace()),
            (Some(at(5)), Pace::Fast)
        );
        health.probed(RULE, good(), at(7));
        assert_eq!((health.doubted_since(), health.pace()), (None, Pace::Usual));
        for second in 8..=10 {
            health.probed(RULE, bad(), at(second));
        }
        assert_eq!(health.is_up(), Some(false));
        assert_eq!(
            (health.doubted_since(), health.pace()),
            (Some(at(8)), Pace::Down)
        );
        let history: Vec<_> = health
            .history()
            .map(|transition| (transition.at, transition.is_up))
            .collect();
        assert_eq!(history, [(at(0), true), (at(10), false)]);
    }

    #[test]
    fn sessions_that_fail_to_connect_let_one_probe_decide() {
        let mut health = Health::default();
        assert!(!health.doubted(at(0)), "nothing is known yet");
        health.probed(RULE, good(), at(0));
        assert!(health.doubted(at(1)));
        assert!(!health.doubted(at(1)), "once is enough");
        assert_eq!(health.pace(), Pace::Fast);
        health.probed(RULE, good(), at(2));
        assert_eq!(health.is_up(), Some(true), "the probe vetoes");
        assert!(health.doubted(at(3)));
        let down = health.probed(RULE, bad(), at(4)).unwrap();
        assert!(!down.is_up && down.why.contains("sessions"), "{down:?}");
        assert_eq!(health.doubted_since(), Some(at(3)));
    }

    #[test]
    fn probes_that_cannot_be_made_change_nothing_but_are_told() {
        let mut health = Health::default();
        health.hindered_by("no port", at(0));
        assert_eq!(health.is_up(), None);
        health.probed(RULE, good(), at(1));
        assert_eq!(health.hindered(), None, "one was made");
        health.probed(RULE, bad(), at(2));
        health.probed(RULE, bad(), at(3));
        let before = (health.is_up(), health.doubted_since(), health.pace());
        for second in 4..20 {
            let why = if second % 2 == 0 {
                "no port"
            } else {
                "no file"
            };
            health.hindered_by(why, at(second));
        }
        assert_eq!(
            before,
            (health.is_up(), health.doubted_since(), health.pace())
        );
        let hindrance = health.hindered().unwrap();
        assert_eq!((hindrance.since, &*hindrance.why), (at(4), "no file"));
        assert!(
            health.probed(RULE, bad(), at(20)).is_some(),
            "the third failure"
        );
        assert_eq!(health.hindered(), None);
    }

    #[test]
    fn what_sessions_found_is_forgotten_when_probes_alone_are_to_decide() {
        let mut health = Health::default();
        health.probed(RULE, good(), at(0));
        health.doubted(at(1));
        health.trusted();
        let changes = [2, 3, 4].map(|second| health.probed(RULE, bad(), at(second)).is_some());
        assert_eq!(changes, [false, false, true]);
        assert_eq!(health.doubted_since(), Some(at(1)), "it was the first sign");
    }

    proptest! {
        /// Whatever happens: no change without `rise` or `fall` outcomes of one kind in a row, and always with them.
        #[test]
        fn state_changes_exactly_when_enough_outcomes_agree(
            outcomes in proptest::collection::vec(any::<bool>(), 1..200), rise in 1u32..5, fall in 1u32..5,
        ) {
            let rule = RiseFall { rise, fall };
            let mut health = Health::default();
            let mut state = None;
            let mut row = (outcomes[0], 0);
            for (second, succeeded) in (0..).zip(outcomes) {
                row = if row.0 == succeeded { (succeeded, row.1 + 1) } else { (succeeded, 1) };
                let outcome = if succeeded { good() } else { bad() };
                let changed = health.probed(rule, outcome, at(second)).is_some();
                let needed = if succeeded { rise } else { fall };
                let expected = state.is_none() || (state != Some(succeeded) && row.1 >= needed);
                prop_assert_eq!(changed, expected);
                if expected {
                    state = Some(succeeded);
                }
                prop_assert_eq!(health.is_up(), state);
                prop_assert!(health.history().count() <= HISTORY_MAX);
            }
        }
    }
}
