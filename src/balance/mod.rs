//! Who gets the next connection. One file per algorithm; each picks among the places `0..count` of a pool and is told
//! which of them may be used. It does not know why, and counts nothing but its own turns.

mod round_robin;

pub use round_robin::RoundRobin;
