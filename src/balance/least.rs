//! The place with the least load, for the algorithms that compare all of them.

use std::cmp::Ordering;

/// The usable place with the least load below `most`. Of several the first one from `first` on, so that a caller who
/// begins behind its last pick favours nobody. `load` is told the place and what `places` has of it. Whether a place is
/// usable is asked only if it would be picked.
pub(super) fn least<P, L: PartialOrd>(
    places: &[P],
    first: usize,
    most: L,
    load: impl Fn(usize, &P) -> L,
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut least = most;
    let mut found = None;
    let (before, from) = places.split_at(first.min(places.len()));
    // Two plain loops: chained iterators are half as fast.
    for (begin, part) in [(first, from), (0, before)] {
        for (place, of_place) in (begin..).zip(part) {
            let load = load(place, of_place);
            if load < least && usable(place) {
                least = load;
                found = Some(place);
            }
        }
    }
    found
}

/// Sessions relative to weight, compared exactly. Without a weight it is not less than any other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) sessions: u32,
    pub(super) sixteenths: u32,
}

impl Load {
    /// More than any load of a place that has a weight.
    pub(super) const MOST: Load = Load {
        sessions: 1,
        sixteenths: 0,
    };
}

impl PartialEq for Load {
    fn eq(&self, other: &Load) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        let own = u64::from(self.sessions) * u64::from(other.sixteenths);
        own.partial_cmp(&(u64::from(other.sessions) * u64::from(self.sixteenths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sessions: u32, sixteenths: u32) -> Load {
        Load {
            sessions,
            sixteenths,
        }
    }

    #[test]
    fn loads_compare_relative_to_weight() {
        assert!(load(3, 2) < load(2, 1));
        assert!(load(2, 3) > load(1, 2));
        assert_eq!(load(2, 6), load(1, 3));
        assert!(load(u32::MAX, 4096) < load(u32::MAX, 4095));
        assert!(load(u32::MAX, 1) < Load::MOST);
    }

    #[test]
    fn without_a_weight_nothing_is_less() {
        for sessions in [0, 1, 7] {
            for other in [Load::MOST, load(9, 1)] {
                assert_ne!(load(sessions, 0).partial_cmp(&other), Some(Ordering::Less));
            }
        }
    }
}
