//! In turn, by weight. Places of the same weight form a class and follow each other; the classes' turns interleave.

use super::roster::Roster;
use super::turns::Turns;
use super::{View, Weight};

/// Over any full cycle of picks, in which nothing else changes, each usable place is picked exactly as often as its
/// weight says (all weights divided by what they have in common). An unusable one is passed over and saves up nothing.
#[derive(Clone, Debug)]
pub(super) struct RoundRobin {
    roster: Roster,
    /// By class: the live place whose turn is next.
    next: Vec<usize>,
    turns: Turns,
    seed: u64,
}

impl RoundRobin {
    pub(super) fn new(weights: Vec<Weight>, seed: u64) -> RoundRobin {
        let mut round_robin = RoundRobin {
            roster: Roster::new(&weights, |sixteenths| sixteenths),
            next: Vec::new(),
            turns: Turns::default(),
            seed,
        };
        for class in 0..round_robin.roster.classes().len() {
            round_robin.weigh(class);
        }
        round_robin
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) {
        for class in self.roster.set_weight(place, weight).into_iter().flatten() {
            self.weigh(class);
        }
    }

    /// The usable place whose turn it is.
    pub(super) fn pick(&mut self, view: &impl View) -> Option<usize> {
        let turns = &mut self.turns;
        self.roster
            .recall_some(view, |class, lane| turns.set_weight(lane, class.total()));
        if let Some(place) = self.pick_live(view) {
            return Some(place);
        }
        let turns = &mut self.turns;
        self.roster
            .recall_all(view, |class, lane| turns.set_weight(lane, class.total()));
        self.pick_live(view)
    }

    /// Ends: it parks a place each time round, or has found one.
    fn pick_live(&mut self, view: &impl View) -> Option<usize> {
        loop {
            let class = self.turns.due()?;
            let live = &self.roster.classes()[class].live;
            let position = if self.next[class] < live.len() {
                self.next[class]
            } else {
                0
            };
            let place = live[position];
            // If it is parked, the last of the class takes its position and its turn, and is not passed over.
            self.next[class] = position;
            if view.is_usable(place) {
                self.next[class] += 1;
                self.turns.taken(class);
                return Some(place);
            }
            self.roster.park(class, position);
            let total = self.roster.classes()[class].total();
            self.turns.set_weight(class, total);
        }
    }

    /// The class has gained or lost a place.
    fn weigh(&mut self, class: usize) {
        let of_class = &self.roster.classes()[class];
        if class == self.next.len() {
            self.next.push(super::start(self.seed, of_class.live.len()));
        }
        self.turns.set_weight(class, of_class.total());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pool;

    fn round_robin(weights: &[u16]) -> RoundRobin {
        let weights = weights.iter().map(|weight| Weight::full(*weight)).collect();
        RoundRobin::new(weights, 0)
    }

    fn picks(round_robin: &mut RoundRobin, view: &Pool, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| round_robin.pick(view).unwrap())
            .collect()
    }

    #[test]
    fn equal_places_follow_each_other() {
        let view = Pool::new(3);
        assert_eq!(
            picks(&mut round_robin(&[7, 7, 7]), &view, 6),
            [0, 1, 2, 0, 1, 2]
        );
    }

    #[test]
    fn pickers_with_different_seeds_begin_with_different_places() {
        let view = Pool::new(3);
        let first = |seed| RoundRobin::new(vec![Weight::full(1); 3], seed).pick(&view);
        assert_eq!(
            [0, 1, 2, 3].map(first),
            [Some(0), Some(1), Some(2), Some(0)]
        );
    }

    #[test]
    fn light_places_come_between_the_turns_of_a_heavy_one() {
        let picked = picks(&mut round_robin(&[5, 1, 1]), &Pool::new(3), 7);
        assert_eq!(picked, [0, 1, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn what_is_unusable_is_passed_over_and_comes_back_without_credit() {
        let mut view = Pool::new(3);
        let mut round_robin = round_robin(&[1, 1, 1]);
        view.usable[1] = false;
        assert_eq!(picks(&mut round_robin, &view, 4), [0, 2, 0, 2]);
        picks(&mut round_robin, &view, 1000);
        view.usable[1] = true;
        let picked = picks(&mut round_robin, &view, 300);
        let of_1 = picked.iter().filter(|place| **place == 1).count();
        assert!((99..=101).contains(&of_1), "{of_1}");
        assert!(picked.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn the_last_of_many_light_places_does_not_get_the_share_of_all() {
        let mut view = Pool::new(11);
        let mut weights = [1; 11];
        weights[10] = 10;
        let mut round_robin = round_robin(&weights);
        view.usable[1..10].fill(false);
        picks(&mut round_robin, &view, 100);
        let picked = picks(&mut round_robin, &view, 110);
        assert_eq!(picked.iter().filter(|place| **place == 0).count(), 10);
    }

    #[test]
    fn a_place_that_each_session_tries_in_vain_does_not_distort_the_shares() {
        let mut view = Pool::new(4);
        let mut round_robin = round_robin(&[1, 2, 3, 4]);
        let mut picked = [0; 4];
        for _ in 0..10_000 {
            let tried = round_robin.pick(&view).unwrap();
            view.usable[tried] = false;
            picked[round_robin.pick(&view).unwrap()] += 1;
            view.usable[tried] = true;
        }
        assert!(picked.iter().all(|count| *count > 500), "{picked:?}");
    }
}
