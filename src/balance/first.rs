//! In the order of the file: the first place that can take a session takes it, so that the last ones stay empty.

use super::{View, Weight};

#[derive(Clone, Debug)]
pub(super) struct First {
    weights: Vec<Weight>,
}

impl First {
    pub(super) fn new(weights: Vec<Weight>) -> First {
        First { weights }
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) {
        self.weights[place] = weight;
    }

    /// The first usable place.
    pub(super) fn pick(&self, view: &impl View) -> Option<usize> {
        let mut places = self.weights.iter().enumerate();
        let found =
            places.find(|(place, weight)| **weight > Weight::NONE && view.is_usable(*place));
        found.map(|(place, _)| place)
    }
}
