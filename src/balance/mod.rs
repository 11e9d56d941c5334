//! Who gets the next connection. One file per algorithm; each picks among the places `0..count` of a pool and is told
//! which of them may be used. It does not know why, and counts nothing but its own turns.

mod round_robin;

pub use round_robin::RoundRobin;

/// Who gets the next session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The backend with the fewest sessions, relative to its weight.
    #[default]
    LeastConnections,
    /// Each in turn, as often as its weight says.
    RoundRobin,
    /// The less loaded of two at random.
    Random,
    /// The one that a hash of the client's address says.
    Hash,
    /// The one that answers fastest.
    LeastTime,
    /// The first that is usable and not full.
    First,
}

impl Algorithm {
    /// The word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::LeastConnections => "least_connections",
            Algorithm::RoundRobin => "round_robin",
            Algorithm::Random => "random",
            Algorithm::Hash => "hash",
            Algorithm::LeastTime => "least_time",
            Algorithm::First => "first",
        }
    }
}

/// What [`Algorithm::Hash`] hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    SourceIp,
    /// Its address and port.
    Source,
}
