//! What traffic says about a backend. Pure counting: outcomes and time in, a verdict out.

mod passive;

pub use passive::{Passive, PassiveRule};
