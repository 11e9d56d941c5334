//! Which of several weighted pools a new session of a listener goes to. Does not pick a backend.

use super::Weight;

/// The pools in turn, by weight, those of the light ones evenly spread between those of the heavy ones. Over a full
/// cycle (as many sessions as the weights of the usable pools together) the shares are exact.
#[derive(Clone, Debug)]
pub struct Split {
    pools: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    weight: i64,
    /// What the pool is owed: its weight more with each session, the sum of weights less when it gets one.
    credit: i64,
}

impl Split {
    /// Weights are 0 to [`Weight::MOST`]; a pool with 0 gets nothing. Listeners have few pools: a pick looks at all.
    #[must_use]
    pub fn new(weights: &[u16]) -> Split {
        let part = |weight: &u16| Part {
            weight: i64::from(*weight.min(&Weight::MOST)),
            credit: 0,
        };
        Split {
            pools: weights.iter().map(part).collect(),
        }
    }

    /// The pool whose turn it is of those that are usable. What another one is owed stays as it is meanwhile: it is
    /// paid back at most one cycle's share, not what it would have had.
    pub fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut sum = 0;
        let mut first: Option<usize> = None;
        for place in 0..self.pools.len() {
            let part = self.pools[place];
            if part.weight == 0 || !usable(place) {
                continue;
            }
            let credit = part.credit + part.weight;
            self.pools[place].credit = credit;
            sum += part.weight;
            if first.is_none_or(|first| credit > self.pools[first].credit) {
                first = Some(place);
            }
        }
        let first = first?;
        self.pools[first].credit -= sum;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_light_pool_comes_between_the_turns_of_the_heavy_one() {
        let mut split = Split::new(&[3, 1]);
        let picks: Vec<_> = (0..8).map(|_| split.pick(|_| true).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_pool_without_weight_gets_nothing() {
        let mut split = Split::new(&[0, 5, 0]);
        assert!((0..100).all(|_| split.pick(|_| true) == Some(1)));
        assert_eq!(Split::new(&[0, 0]).pick(|_| true), None);
        assert_eq!(Split::new(&[]).pick(|_| true), None);
    }

    proptest! {
        #[test]
        fn every_cycle_is_exact(weights in prop::collection::vec(0u16..=256, 1..8), cycles in 1usize..4) {
            let cycle: usize = weights.iter().copied().map(usize::from).sum();
            let mut split = Split::new(&weights);
            for _ in 0..cycles {
                let mut picked = vec![0; weights.len()];
                for _ in 0..cycle {
                    picked[split.pick(|_| true).unwrap()] += 1;
                }
                prop_assert_eq!(&picked, &weights);
            }
        }

        #[test]
        fn an_unusable_pool_is_passed_over_and_owed_at_most_a_cycle(
            weights in prop::collection::vec(1u16..=256, 2..8), lost in 0usize..10_000
        ) {
            let cycle: usize = weights.iter().copied().map(usize::from).sum();
            let mut split = Split::new(&weights);
            for _ in 0..lost {
                prop_assert!(split.pick(|place| place != 0).unwrap() != 0);
            }
            let picks = (0..cycle).filter(|_| split.pick(|_| true) == Some(0)).count();
            prop_assert!(picks.abs_diff(usize::from(weights[0])) <= 1 + weights.len());
            prop_assert_eq!(split.pick(|_| false), None);
        }
    }
}
