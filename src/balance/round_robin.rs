//! In turn.

/// Each place in turn; what may not be used is passed over and does not lose its turn to the same neighbour for ever.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    /// Begins with place `first`, so that several pickers of one pool do not all begin with the same.
    #[must_use]
    pub fn new(first: usize) -> RoundRobin {
        RoundRobin { next: first }
    }

    /// The next usable place of `count`, or none.
    pub fn pick(&mut self, count: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.next.checked_rem(count)?;
        let place = (first..count)
            .chain(0..first)
            .find(|place| usable(*place))?;
        self.next = place + 1;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_the_same_share() {
        let mut picker = RoundRobin::new(2);
        let mut picked = [0; 3];
        for _ in 0..300 {
            picked[picker.pick(3, |_| true).unwrap()] += 1;
        }
        assert_eq!(picked, [100; 3]);
    }

    #[test]
    fn what_may_not_be_used_is_passed_over() {
        let mut picker = RoundRobin::new(0);
        let picked: Vec<_> = (0..4)
            .map(|_| picker.pick(3, |place| place != 1).unwrap())
            .collect();
        assert_eq!(picked, [0, 2, 0, 2]);
    }

    #[test]
    fn nobody_is_picked_when_nobody_may_be_used() {
        assert_eq!(RoundRobin::new(0).pick(3, |_| false), None);
        assert_eq!(RoundRobin::new(5).pick(0, |_| true), None);
    }
}
