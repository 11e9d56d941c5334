//! How much a place takes in relation to the others of its pool.

/// A weight in effect. It is kept in sixteenths of what is configured, so that a place of weight 1 can ramp too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// Takes no new sessions.
    pub const NONE: Weight = Weight(0);
    /// The largest weight that can be configured.
    pub const MOST: u16 = 256;
    /// Steps from nothing to the full weight.
    pub(super) const STEPS: u32 = 16;

    /// What is configured; more than [`Weight::MOST`] counts as that.
    #[must_use]
    pub fn full(configured: u16) -> Weight {
        Weight::part(configured, Weight::STEPS)
    }

    /// So many of [`Weight::STEPS`].
    pub(super) fn part(configured: u16, steps: u32) -> Weight {
        Weight(u32::from(configured.min(Weight::MOST)) * steps.min(Weight::STEPS))
    }

    /// In sixteenths; at most 2^12.
    pub(super) fn sixteenths(self) -> u32 {
        self.0
    }
}
