//! Who takes part, for the algorithms that must not look at every place: places in classes of similar weight. A place
//! that was found unusable is parked, so that nobody stumbles over it at each pick, and a few of the parked ones are
//! asked again at each pick. That only saves work: nobody is refused before every parked place was asked.

use super::{View, Weight};

/// Parked places that a pick asks again: so many of those parked last (a place that was only tried by one session is
/// back at once), and so many of all, in turn.
const RECALLS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Roster {
    classes: Vec<Class>,
    seats: Vec<Seat>,
    parked: Vec<usize>,
    recall_next: usize,
    /// The weight of the class that a place of some weight belongs to.
    class_weight: fn(u32) -> u32,
}

/// Places of one class that are not parked.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) weight: u32,
    pub(super) live: Vec<usize>,
    /// Parked places included.
    members: usize,
}

impl Class {
    /// What its live places weigh together.
    pub(super) fn total(&self) -> u64 {
        u64::from(self.weight) * self.live.len() as u64
    }
}

/// Where a place is.
#[derive(Clone, Copy, Debug)]
struct Seat {
    weight: Weight,
    class: usize,
    /// Among the live ones of the class, or among the parked ones.
    position: usize,
    parked: bool,
}

impl Roster {
    /// Places of the same `class_weight` share a class; it gets a weight in sixteenths.
    pub(super) fn new(weights: &[Weight], class_weight: fn(u32) -> u32) -> Roster {
        let out = Seat {
            weight: Weight::NONE,
            class: 0,
            position: 0,
            parked: false,
        };
        let mut roster = Roster {
            classes: Vec::new(),
            seats: vec![out; weights.len()],
            parked: Vec::with_capacity(weights.len()),
            recall_next: 0,
            class_weight,
        };
        for (place, weight) in weights.iter().enumerate() {
            roster.set_weight(place, *weight);
        }
        roster
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(super) fn weight(&self, place: usize) -> Weight {
        self.seats[place].weight
    }

    /// The classes that lose and gain the place, if there are such.
    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) -> [Option<usize>; 2] {
        let before = self.seats[place].weight;
        self.seats[place].weight = weight;
        let sixteenths = weight.sixteenths();
        let old = (before > Weight::NONE).then(|| self.seats[place].class);
        let new = (weight > Weight::NONE).then(|| self.class_for((self.class_weight)(sixteenths)));
        if old == new {
            return [None, None];
        }
        if let Some(class) = old {
            self.leave(place);
            self.classes[class].members -= 1;
        }
        if let Some(class) = new {
            self.classes[class].members += 1;
            // Room for all, so that no pick allocates.
            let class_now = &mut self.classes[class];
            let missing = class_now.members - class_now.live.len();
            class_now.live.reserve(missing);
            self.seats[place].class = class;
            self.join(place);
        }
        [old, new]
    }

    /// A live place is unusable for now. Another one of its class takes over its position.
    pub(super) fn park(&mut self, class: usize, position: usize) {
        let place = self.classes[class].live[position];
        self.leave(place);
        let seat = &mut self.seats[place];
        seat.parked = true;
        seat.position = self.parked.len();
        self.parked.push(place);
    }

    /// Asks some of the parked places again, and says which class gains one back.
    pub(super) fn recall_some(&mut self, view: &impl View, mut gains: impl FnMut(&Class, usize)) {
        let newest = self.parked.len().saturating_sub(RECALLS);
        for position in (newest..self.parked.len()).rev() {
            self.recall(position, view, &mut gains);
        }
        for _ in 0..RECALLS.min(newest) {
            // Downwards, and from the top again.
            let position = match self.recall_next {
                0 => newest,
                next => next.min(newest),
            } - 1;
            self.recall_next = position;
            self.recall(position, view, &mut gains);
        }
    }

    /// Asks every parked place again.
    pub(super) fn recall_all(&mut self, view: &impl View, mut gains: impl FnMut(&Class, usize)) {
        for position in (0..self.parked.len()).rev() {
            self.recall(position, view, &mut gains);
        }
    }

    fn recall(&mut self, position: usize, view: &impl View, gains: &mut impl FnMut(&Class, usize)) {
        let parked = self.parked.get(position).copied();
        if let Some(place) = parked.filter(|place| view.is_usable(*place)) {
            self.leave(place);
            self.join(place);
            let class = self.seats[place].class;
            gains(&self.classes[class], class);
        }
    }

    /// To the live ones of its class.
    fn join(&mut self, place: usize) {
        let seat = &mut self.seats[place];
        let live = &mut self.classes[seat.class].live;
        seat.parked = false;
        seat.position = live.len();
        live.push(place);
    }

    /// Out of the list it is in; the last one of the list takes over its position.
    fn leave(&mut self, place: usize) {
        let seat = self.seats[place];
        let list = if seat.parked {
            &mut self.parked
        } else {
            &mut self.classes[seat.class].live
        };
        list.swap_remove(seat.position);
        if let Some(moved) = list.get(seat.position) {
            self.seats[*moved].position = seat.position;
        }
    }

    /// The class of this weight: there is one, or one without members becomes it, or it is new.
    fn class_for(&mut self, weight: u32) -> usize {
        let mut classes = self.classes.iter();
        if let Some(class) = classes.position(|class| class.weight == weight) {
            return class;
        }
        if let Some(class) = self.classes.iter().position(|class| class.members == 0) {
            self.classes[class].weight = weight;
            return class;
        }
        self.classes.push(Class {
            weight,
            live: Vec::new(),
            members: 0,
        });
        self.classes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::tests::Pool;

    impl Roster {
        /// Panics unless every place is where its seat says, once.
        fn check(&self) {
            let mut seen = 0;
            for (class, of_class) in self.classes.iter().enumerate() {
                let members = self
                    .seats
                    .iter()
                    .filter(|seat| seat.weight > Weight::NONE && seat.class == class);
                assert_eq!(of_class.members, members.count());
                for (position, place) in of_class.live.iter().enumerate() {
                    let seat = self.seats[*place];
                    assert_eq!(
                        (seat.class, seat.position, seat.parked),
                        (class, position, false)
                    );
                    assert_eq!(
                        (self.class_weight)(seat.weight.sixteenths()),
                        of_class.weight
                    );
                    seen += 1;
                }
            }
            for (position, place) in self.parked.iter().enumerate() {
                assert_eq!(
                    (self.seats[*place].position, self.seats[*place].parked),
                    (position, true)
                );
                seen += 1;
            }
            let weighted = self.seats.iter().filter(|seat| seat.weight > Weight::NONE);
            assert_eq!(seen, weighted.count());
        }
    }

    fn roster(weights: &[u16]) -> Roster {
        let weights: Vec<_> = weights.iter().map(|weight| Weight::full(*weight)).collect();
        Roster::new(&weights, |sixteenths| sixteenths)
    }

    #[test]
    fn a_place_that_is_usable_again_is_found_within_a_few_picks() {
        let mut roster = roster(&[1; 1000]);
        for _ in 0..1000 {
            roster.park(0, 0);
        }
        let mut view = Pool::new(1000);
        view.usable.fill(false);
        view.usable[500] = true;
        let picks = (1..=1000 / RECALLS).find(|_| {
            roster.recall_some(&view, |_, _| {});
            !roster.classes[0].live.is_empty()
        });
        assert!(picks.is_some());
        assert_eq!(roster.classes[0].live, [500]);
    }

    #[test]
    fn the_places_parked_last_are_asked_first() {
        let mut roster = roster(&[1; 1000]);
        for _ in 0..1000 {
            roster.park(0, 0);
        }
        let mut view = Pool::new(1000);
        view.usable.fill(false);
        let newest = *roster.parked.last().unwrap();
        view.usable[newest] = true;
        roster.recall_some(&view, |_, _| {});
        assert_eq!(roster.classes[0].live, [newest]);
    }

    #[test]
    fn ramping_places_leave_no_classes_behind() {
        let mut roster = roster(&[1, 2]);
        for round in 0..100 {
            for steps in 1..=16 {
                roster.set_weight(round % 2, Weight::part(16, steps));
            }
        }
        assert!(roster.classes.len() <= 3);
        roster.check();
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Weigh(usize, u16),
        Park(usize),
        Recall(u64),
        RecallAll(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0usize..40, 0u16..5).prop_map(|(place, weight)| Act::Weigh(place, weight)),
            (0usize..40).prop_map(Act::Park),
            any::<u64>().prop_map(Act::Recall),
            any::<u64>().prop_map(Act::RecallAll),
        ]
    }

    proptest! {
        #[test]
        fn every_place_is_in_one_list(acts in prop::collection::vec(act(), 0..200)) {
            let mut roster = roster(&[1; 40]);
            let mut view = Pool::new(40);
            for act in acts {
                match act {
                    Act::Weigh(place, weight) => {
                        roster.set_weight(place, Weight::full(weight));
                    }
                    Act::Park(pick) => {
                        let live = roster.classes.iter().position(|class| !class.live.is_empty());
                        if let Some(class) = live {
                            roster.park(class, pick % roster.classes[class].live.len());
                        }
                    }
                    Act::Recall(usable) | Act::RecallAll(usable) => {
                        for (place, is_usable) in view.usable.iter_mut().enumerate() {
                            *is_usable = usable >> place & 1 == 1;
                        }
                        if matches!(act, Act::RecallAll(_)) {
                            roster.recall_all(&view, |_, _| {});
                            prop_assert!(roster.parked.iter().all(|place| !view.usable[*place]));
                        } else {
                            roster.recall_some(&view, |_, _| {});
                        }
                    }
                }
                roster.check();
            }
        }
    }
}
