//! The fewest active sessions, relative to weight. The counts are those of all workers, and the view's business.

use super::least::{Load, least};
use super::{View, Weight};

/// Looks at every place, so the pick is always a true minimum of what the view says; places that tie take turns.
#[derive(Clone, Debug)]
pub(super) struct LeastConnections {
    weights: Vec<Weight>,
    next: usize,
}

impl LeastConnections {
    pub(super) fn new(weights: Vec<Weight>, seed: u64) -> LeastConnections {
        let next = super::start(seed, weights.len());
        LeastConnections { weights, next }
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: Weight) {
        self.weights[place] = weight;
    }

    /// The usable place with the least sessions relative to weight.
    pub(super) fn pick(&mut self, view: &impl View) -> Option<usize> {
        let load = |place, weight: &Weight| Load {
            sessions: view.active(place),
            sixteenths: weight.sixteenths(),
        };
        let usable = |place| view.is_usable(place);
        let place = least(&self.weights, self.next, Load::MOST, load, usable)?;
        self.next = place + 1;
        Some(place)
    }
}
