//! Lines that are nobody's any more and are still to be closed. Their flows have ended, or lead elsewhere, at once;
//! giving the sockets back takes the kernel longer, and when a backend goes down they may be tens of thousands. So a
//! mass is ended a few at a time, and everybody else's datagrams go on in between.

use std::collections::VecDeque;

use super::super::token::Key;
use super::LINES_ENDING;

/// So many of a mass are ended in one turn. When 8,000 flows lost their backend at once, a datagram of another flow
/// waited for 27 and 44 ms without this bound, and for less than 9 ms with it.
const SHARE_OF_A_MASS: usize = 64;

/// In the order in which they were given up.
#[derive(Debug, Default)]
pub(super) struct Endings(VecDeque<Key>);

impl Endings {
    pub(super) fn push(&mut self, key: Key) {
        self.0.push_back(key);
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What newcomers push out in one turn is none: there are not more buffers to come in by.
    pub(super) fn are_a_mass(&self) -> bool {
        self.0.len() > LINES_ENDING as usize
    }

    /// How many are to be ended in this turn.
    pub(super) fn share(&self) -> usize {
        if self.are_a_mass() {
            SHARE_OF_A_MASS
        } else {
            self.0.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives up so many lines, and says how many turns it takes to end them, and the most in one turn.
    fn turns(count: u32) -> (usize, usize) {
        let mut endings = Endings::default();
        (0..count).for_each(|slot| {
            endings.push(Key {
                slot,
                generation: 0,
            });
        });
        let (mut turns, mut most) = (0, 0);
        let mut expected = 0;
        while !endings.is_empty() {
            let share = endings.share();
            for _ in 0..share {
                assert_eq!(endings.pop().unwrap().slot, expected);
                expected += 1;
            }
            (turns, most) = (turns + 1, most.max(share));
        }
        assert_eq!(expected, count);
        (turns, most)
    }

    #[test]
    fn what_ends_by_itself_ends_at_once_and_a_mass_a_few_at_a_time() {
        assert_eq!(turns(1), (1, 1));
        assert_eq!(turns(LINES_ENDING), (1, LINES_ENDING as usize));
        let (turns, most) = turns(28_000);
        assert!(most <= LINES_ENDING as usize, "{most}: the last of them");
        assert!((400..=440).contains(&turns), "{turns} turns");
    }
}
