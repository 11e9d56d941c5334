//! Up to which moment everything that a socket has received has been read, so that no time is believed to be over while
//! a word that came before lies unread. Whoever reads takes a bounded number of datagrams at a time; a flood may keep
//! the socket from ever being empty, but what was there at a moment is no more than the socket can hold. Pure.

use crate::time::Time;

/// More datagrams than the buffer of a socket can hold.
pub const WAITING_MAX: usize = 4096;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// What came before that is read.
    until: Time,
    /// A moment, and how many were read since: what was there then comes first.
    mark: Time,
    count: usize,
}

impl Reading {
    /// A datagram was taken; `at` is a moment at which it was there already.
    pub fn took_one(&mut self, at: Time) {
        if self.count == 0 {
            self.mark = at;
        }
        self.count += 1;
        if self.count == WAITING_MAX {
            self.until = self.mark;
            self.count = 0;
        }
    }

    /// Nothing was left, a moment after `at`.
    pub fn found_nothing(&mut self, at: Time) {
        *self = Reading {
            until: at,
            ..Reading::default()
        };
    }

    /// Whether everything is read that came before.
    #[must_use]
    pub fn is_through(&self, moment: Time) -> bool {
        self.until >= moment
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::seeds;

    const TURN: usize = 1024;

    fn micros(count: u64) -> Time {
        Time::from_micros(count)
    }

    #[test]
    fn a_flood_delays_the_belief_by_what_a_socket_can_hold_and_no_longer() {
        let mut reading = Reading::default();
        let turns = |reading: &mut Reading, from: u64| {
            let reads = (from..).take_while(|at| {
                reading.took_one(micros(*at));
                !reading.is_through(micros(from))
            });
            reads.count() + 1
        };
        assert_eq!(turns(&mut reading, 1_000), WAITING_MAX);
        // The last count had begun a little before this moment.
        reading.took_one(micros(9_000));
        assert_eq!(turns(&mut reading, 10_000), 2 * WAITING_MAX - 1);
        reading.found_nothing(micros(30_000));
        assert!(reading.is_through(micros(30_000)) && !reading.is_through(micros(30_001)));
    }

    /// A socket that loses what does not fit, senders that come and go, a reader with a bounded turn.
    fn play(seed: u64) -> (u64, u64) {
        let mut choices = fastrand::Rng::with_seed(seed);
        let (mut reading, mut waiting) = (Reading::default(), VecDeque::new());
        let (mut now, mut floods, mut quiet) = (1_u64, 0, 0);
        for _ in 0..400 {
            let arriving = match choices.u32(0..3) {
                0 => 0,
                1 => choices.usize(0..20),
                _ => choices.usize(0..3 * TURN),
            };
            for _ in 0..arriving {
                now += choices.u64(0..3);
                if waiting.len() < WAITING_MAX {
                    waiting.push_back(now);
                }
            }
            for _ in 0..TURN {
                now += 1;
                if waiting.pop_front().is_none() {
                    reading.found_nothing(micros(now));
                    quiet += 1;
                    break;
                }
                reading.took_one(micros(now));
            }
            floods += u64::from(!waiting.is_empty());
            let oldest = waiting.front().copied().unwrap_or(u64::MAX);
            for moment in [oldest + u64::from(oldest < u64::MAX), now, now / 2] {
                let lies_unread = oldest < moment;
                assert!(
                    !(lies_unread && reading.is_through(micros(moment))),
                    "{reading:?} is through {moment}, and one of {oldest} lies unread"
                );
            }
        }
        (floods, quiet)
    }

    #[test]
    fn nothing_that_came_before_lies_unread() {
        let Some(all) = seeds::play_all(200, "reading", play) else {
            return;
        };
        let floods: u64 = all.iter().map(|(floods, _)| floods).sum();
        let quiet: u64 = all.iter().map(|(_, quiet)| quiet).sum();
        assert!(floods > 1_000 && quiet > 1_000, "{floods} {quiet}");
    }
}
