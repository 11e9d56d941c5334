//! Whose turn it is among a few lanes of different weight: each gets as many turns of a cycle as its weight, evenly
//! spread. Does not know what a lane is.

/// A cycle's length on the scale that turns are laid out on.
const CYCLE: u64 = 1 << 32;

/// Each lane of weight `w` has a turn every `1/w` of a cycle; the next turn of all is the one that comes first. A
/// lane's turns are computed from the beginning of its cycle and not by adding up rounded steps, so every cycle is
/// exact, and the order of turns repeats until a weight changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// As many as the tree has leaves: a power of two, or none.
    lanes: Vec<Lane>,
    /// A tournament: node 1 is the root, the children of `n` are `2n` and `2n + 1`, the leaves are the lanes. Each node
    /// holds the lane of its subtree whose turn comes first.
    first: Vec<usize>,
    /// When the last turn was; not below one cycle once there are lanes.
    now: u128,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Turns in a cycle; below 2^32.
    weight: u64,
    /// When its cycle began.
    began: u128,
    /// Turns of this cycle that are over.
    taken: u64,
    /// When its next turn is.
    due: u128,
}

impl Lane {
    const IDLE: Lane = Lane {
        weight: 0,
        began: 0,
        taken: 0,
        due: u128::MAX,
    };

    fn wait_for_next(&mut self) {
        if self.taken == self.weight {
            self.taken = 0;
            self.began += u128::from(CYCLE);
        }
        self.due = self.began + u128::from((self.taken + 1) * CYCLE / self.weight);
    }
}

impl Turns {
    /// The lane whose turn it is.
    pub(super) fn due(&self) -> Option<usize> {
        if self.lanes.is_empty() {
            return None;
        }
        let lane = self.winner(1);
        (self.lanes[lane].weight > 0).then_some(lane)
    }

    /// The lane that was due has had its turn.
    pub(super) fn taken(&mut self, lane: usize) {
        let turn = &mut self.lanes[lane];
        self.now = turn.due;
        turn.taken += 1;
        turn.wait_for_next();
        self.replay(lane);
    }

    /// Without weight a lane has no turns. What is left of the wait for the next turn shrinks or grows with the weight;
    /// one that had none waits half as long as between two turns: nobody saves up turns while away.
    pub(super) fn set_weight(&mut self, lane: usize, weight: u64) {
        if lane >= self.lanes.len() {
            self.grow(lane + 1);
        }
        let turn = &mut self.lanes[lane];
        if turn.weight == weight {
            return;
        }
        *turn = match CYCLE.checked_div(weight) {
            None => Lane::IDLE,
            Some(interval) => {
                let wait = match turn.weight {
                    0 => u128::from(interval / 2),
                    before => {
                        let left = turn.due.saturating_sub(self.now);
                        left * u128::from(before) / u128::from(weight)
                    }
                };
                // `now` is never below one cycle, so the beginning is not below zero.
                let due = self.now + wait;
                Lane {
                    weight,
                    began: due - u128::from(interval),
                    taken: 0,
                    due,
                }
            }
        };
        self.replay(lane);
    }

    fn grow(&mut self, lanes: usize) {
        let leaves = lanes.next_power_of_two();
        self.lanes.resize(leaves, Lane::IDLE);
        self.first = vec![0; leaves];
        for node in (1..leaves).rev() {
            self.play(node);
        }
        self.now = self.now.max(u128::from(CYCLE));
    }

    fn replay(&mut self, lane: usize) {
        let mut node = (lane + self.lanes.len()) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    fn play(&mut self, node: usize) {
        let (left, right) = (self.winner(2 * node), self.winner(2 * node + 1));
        let is_left = self.lanes[left].due <= self.lanes[right].due;
        self.first[node] = if is_left { left } else { right };
    }

    fn winner(&self, node: usize) -> usize {
        match node.checked_sub(self.lanes.len()) {
            Some(lane) => lane,
            None => self.first[node],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u64]) -> Turns {
        let mut turns = Turns::default();
        for (lane, weight) in weights.iter().enumerate() {
            turns.set_weight(lane, *weight);
        }
        turns
    }

    fn take(turns: &mut Turns) -> usize {
        let lane = turns.due().unwrap();
        turns.taken(lane);
        lane
    }

    #[test]
    fn a_heavy_lane_has_its_turns_between_those_of_the_others() {
        let mut turns = turns(&[5, 1, 1]);
        let taken: Vec<_> = (0..14).map(|_| take(&mut turns)).collect();
        assert_eq!(taken, [0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn without_weights_nobody_has_a_turn() {
        assert_eq!(Turns::default().due(), None);
        assert_eq!(turns(&[0, 0, 0]).due(), None);
    }

    #[test]
    fn who_comes_back_has_saved_up_no_turns() {
        let mut turns = turns(&[10, 10]);
        turns.set_weight(1, 0);
        for _ in 0..1000 {
            assert_eq!(take(&mut turns), 0);
        }
        turns.set_weight(1, 10);
        let taken: usize = (0..100).map(|_| take(&mut turns)).sum();
        assert!((49..=51).contains(&taken), "{taken}");
    }

    #[test]
    fn a_weight_that_changes_all_the_time_gains_no_turns() {
        let mut turns = turns(&[20, 10]);
        let mut taken = 0;
        for turn in 0..3000 {
            turns.set_weight(1, 10 + turn % 2);
            taken += take(&mut turns);
        }
        assert!((950..=1100).contains(&taken), "{taken}");
    }

    #[test]
    fn the_largest_weights_are_exact_too() {
        let mut turns = turns(&[u64::from(u32::MAX), 1]);
        let taken: usize = (0..1_000_000).map(|_| take(&mut turns)).sum();
        assert_eq!(taken, 0);
    }

    proptest! {
        #[test]
        fn any_full_cycle_is_exact(weights in prop::collection::vec(0u64..300, 1..20), skip in 0usize..1000) {
            let cycle: u64 = weights.iter().sum();
            prop_assume!(cycle > 0);
            let mut turns = turns(&weights);
            for _ in 0..skip {
                take(&mut turns);
            }
            let mut taken = vec![0; weights.len()];
            for _ in 0..cycle {
                taken[take(&mut turns)] += 1;
            }
            prop_assert_eq!(taken, weights);
        }

        #[test]
        fn turns_are_spread_evenly(weights in prop::collection::vec(1u64..50, 1..10)) {
            let cycle: u64 = weights.iter().sum();
            let mut turns = turns(&weights);
            let mut taken = vec![0; weights.len()];
            for turn in 1..=2 * cycle {
                taken[take(&mut turns)] += 1;
                // Within the number of lanes of the ideal share, in units of one over the cycle.
                for (taken, weight) in taken.iter().zip(&weights) {
                    let ideal = weight * turn;
                    let lanes = weights.len() as u64;
                    prop_assert!((taken * cycle).abs_diff(ideal) <= cycle.max(weight * lanes));
                }
            }
        }

        #[test]
        fn changes_on_the_way_leave_it_sound(
            changes in prop::collection::vec((0usize..8, 0u64..1 << 32, 0usize..50), 1..50)
        ) {
            let mut turns = Turns::default();
            let mut weights = [0; 8];
            for (lane, weight, takes) in changes {
                turns.set_weight(lane, weight);
                weights[lane] = weight;
                for _ in 0..takes {
                    let due = turns.due();
                    prop_assert_eq!(due.is_some(), weights.iter().any(|weight| *weight > 0));
                    if let Some(due) = due {
                        prop_assert!(weights[due] > 0);
                        turns.taken(due);
                    }
                }
            }
        }
    }
}
