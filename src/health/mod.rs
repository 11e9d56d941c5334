//! What probes and traffic say about a backend. Counting is pure ([`machine`], [`passive`]), and so is what a probe of
//! a name server asks and accepts ([`dns`]); [`prober`] is the shell that probes. What the operator says is somebody
//! else's business.

pub mod dns;
pub mod machine;
mod passive;
pub mod prober;

pub use machine::{Health, Hindrance, Pace, RiseFall, Transition};
pub use passive::{Passive, PassiveRule};
