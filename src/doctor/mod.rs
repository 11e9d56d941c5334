//! `ringway doctor`: looks at this host and says what keeps Ringway from running well here, and what mends it.
//!
//! [`facts`] gathers what the host is like, [`mod@checks`] judges it (plain values in, findings out), [`report`] shows
//! it. What a configuration asks for is a [`Wanted`]. Nothing on the host is changed, and nobody is connected to.

pub mod checks;
pub mod facts;
pub mod finding;
pub mod report;
mod wanted;

pub use checks::checks;
pub use facts::Facts;
pub use finding::{Area, Finding, Level};
pub use report::{Look, Report};
pub use wanted::{Listen, Place, Wanted};
