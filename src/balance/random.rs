//! Two places drawn by weight, and the one with less load of the two: nearly as even as looking at all of them, and
//! the workers' choices do not run after each other.

use fastrand::Rng;

use super::least::Load;
use super::roster::Roster;
use super::{View, Weight};

/// Draws that hit a place too light for its class, or the place drawn first, before it is taken all the same.
const REDRAWS: usize = 32;
const SECOND_DRAWS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Random {
    /// Classes by power of two: at most 13, and a place weighs more than half of what its class says.
    roster: Roster,
    rng: Rng,
}

impl Random {
    pub(super) fn new(weights: Vec<Weight>, seed: u64) -> Random {
        Random {
            roster: Roster::new(&weights, u32::next_power_of_two),
            rng: Rng::with_seed(seed),
        }
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) {
        self.roster.set_weight(place, weight);
    }

    /// The less loaded of two usable places; the first one if they tie.
    pub(super) fn pick(&mut self, view: &impl View) -> Option<usize> {
        self.roster.recall_some(view, |_, _| {});
        let first = match self.draw_usable(view) {
            Some(place) => place,
            None => {
                self.roster.recall_all(view, |_, _| {});
                self.draw_usable(view)?
            }
        };
        let mut others = (0..SECOND_DRAWS).map_while(|_| self.draw_usable(view));
        let second = others.find(|place| *place != first).unwrap_or(first);
        let load = |place| Load {
            sessions: view.active(place),
            sixteenths: self.roster.weight(place).sixteenths(),
        };
        Some(if load(second) < load(first) {
            second
        } else {
            first
        })
    }

    /// Ends: it parks a place each time round, or has found one.
    fn draw_usable(&mut self, view: &impl View) -> Option<usize> {
        loop {
            let (class, position) = self.draw()?;
            let place = self.roster.classes()[class].live[position];
            if view.is_usable(place) {
                return Some(place);
            }
            self.roster.park(class, position);
        }
    }

    /// A live place, each with the probability of its weight: class and position.
    fn draw(&mut self) -> Option<(usize, usize)> {
        let classes = self.roster.classes();
        let total: u64 = classes.iter().map(|class| class.total()).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = (0, 0);
        for _ in 0..REDRAWS {
            // One number tells the class, the place in it, and whether the place is heavy enough.
            let mut point = self.rng.u64(0..total);
            let mut class = 0;
            while point >= classes[class].total() {
                point -= classes[class].total();
                class += 1;
            }
            // The weight of a class is a power of two: this divides.
            let bits = classes[class].weight.trailing_zeros();
            let position = usize::try_from(point >> bits).expect("a position in a list");
            drawn = (class, position);
            let place = classes[class].live[position];
            if point - ((point >> bits) << bits) < u64::from(self.roster.weight(place).sixteenths())
            {
                break;
            }
        }
        Some(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pool;

    fn random(weights: &[u16], seed: u64) -> Random {
        let weights = weights.iter().map(|weight| Weight::full(*weight)).collect();
        Random::new(weights, seed)
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 3, 5, 7, 100, 256, 0];
        let mut random = random(&weights, 7);
        let view = Pool::new(weights.len());
        let mut picked = [0u32; 7];
        for _ in 0..200_000 {
            picked[random.pick(&view).unwrap()] += 1;
        }
        let total: u16 = weights.iter().sum();
        for (picked, weight) in picked.iter().zip(weights) {
            let share = f64::from(weight) / f64::from(total);
            // Five standard deviations of a binomial distribution.
            let margin = 5.0 * (200_000.0 * share * (1.0 - share)).sqrt();
            let ideal = 200_000.0 * share;
            assert!(
                (f64::from(*picked) - ideal).abs() <= margin,
                "{picked} {ideal}"
            );
        }
    }

    #[test]
    fn of_two_places_the_less_loaded_one_is_picked() {
        let mut view = Pool::new(2);
        view.active = vec![10, 3];
        // 10/4 is less than 3/1; and 10/2 is more than 3/2.
        for (weights, lighter) in [([4, 1], 0), ([2, 2], 1)] {
            let mut random = random(&weights, 1);
            let picks = (0..1000).map(|_| random.pick(&view).unwrap());
            let to_lighter = picks.filter(|place| *place == lighter).count();
            // A second draw may be in vain, one in sixteen times for two equal places.
            assert!(to_lighter > 940, "{weights:?} {to_lighter}");
        }
    }

    #[test]
    fn two_choices_keep_the_loads_close() {
        let mut view = Pool::new(100);
        let mut random = random(&[1; 100], 3);
        for _ in 0..100_000 {
            let place = random.pick(&view).unwrap();
            view.active[place] += 1;
        }
        let most = view.active.iter().max().unwrap();
        // One choice alone would be about 1,080.
        assert!(*most < 1_010, "{most}");
    }

    #[test]
    fn seeds_make_different_pickers() {
        let picks = |seed| {
            let mut random = random(&[1; 100], seed);
            let view = Pool::new(100);
            (0..20).map(|_| random.pick(&view)).collect::<Vec<_>>()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
    }
}
