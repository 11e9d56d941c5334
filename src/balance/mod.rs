//! Who gets the next session: one file per algorithm, and the [`Picker`] that a worker has for each pool. Places are
//! the backends of a pool, counted from 0 in the order of the file. A picker is told by a [`View`] which of them may be
//! used; it does not know why, opens no connection and counts no session.
//!
//! | algorithm | picks | work of one pick |
//! |---|---|---|
//! | [`Algorithm::RoundRobin`] | in turn, each as often as its weight says, spread evenly | constant |
//! | [`Algorithm::LeastConnections`] | the least sessions relative to weight | one look at every place |
//! | [`Algorithm::Random`] | the less loaded of two drawn by weight | constant |
//! | [`Algorithm::Hash`] | by the client's address, the same on every node | constant |
//! | [`Algorithm::LeastTime`] | the least latency, sessions in flight and weight considered | one look at every place |
//! | [`Algorithm::First`] | the first in the order of the file that is not full | up to the first usable place |
//!
//! Constant means: whatever the number of places, as long as it does not change which of them may be used. When that
//! changes, and when nobody may be used, a pick asks the view up to twice about every place and a few dozen times
//! more, whatever the algorithm. No pick allocates.

mod first;
mod hash;
mod least;
mod least_connections;
mod least_time;
mod ramp;
mod random;
mod roster;
mod round_robin;
mod split;
#[cfg(test)]
mod tests;
mod turns;
mod weight;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;

use first::First;
use hash::Table;
use least_connections::LeastConnections;
use least_time::LeastTime;
use random::Random;
use round_robin::RoundRobin;

pub use hash::{HashKey, Slot};
pub use ramp::Ramp;
pub use split::Split;
pub use weight::Weight;

/// Most places of a pool: with the largest weights, sums of weights stay below 2^32.
pub const PLACES_MAX: usize = 1 << 20;

/// How a pool picks, in the words of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, by weight.
    RoundRobin,
    /// The least active sessions relative to weight.
    #[default]
    LeastConnections,
    /// The less loaded of two drawn by weight.
    Random,
    /// By the client's address.
    Hash,
    /// The least latency times sessions in flight, relative to weight.
    LeastTime,
    /// The first in the order of the file.
    First,
}

impl Algorithm {
    /// Whether a weight that grows bit by bit makes a difference.
    #[must_use]
    pub fn has_ramps(self) -> bool {
        match self {
            Algorithm::RoundRobin
            | Algorithm::LeastConnections
            | Algorithm::Random
            | Algorithm::LeastTime => true,
            Algorithm::Hash | Algorithm::First => false,
        }
    }

    /// All of them.
    pub const ALL: [Algorithm; 6] = [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::Random,
        Algorithm::Hash,
        Algorithm::LeastTime,
        Algorithm::First,
    ];

    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "round_robin",
            Algorithm::LeastConnections => "least_connections",
            Algorithm::Random => "random",
            Algorithm::Hash => "hash",
            Algorithm::LeastTime => "least_time",
            Algorithm::First => "first",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Algorithm, UnknownWord> {
        let mut all = Algorithm::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == word)
            .ok_or(UnknownWord)
    }
}

/// The word stands for nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;

/// A backend, as balancing sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Unique in the pool; what hashing goes by.
    pub name: &'a str,
    /// 0 to [`Weight::MOST`]; with 0 it is never picked.
    pub weight: u16,
    /// Picked only when no member that is not a backup can be.
    pub backup: bool,
}

/// What the pickers of a pool have in common. It is made once, by whoever makes the snapshot, and anew when a name, a
/// weight or the algorithm changes: building the table for hashing takes milliseconds, which a worker has not got.
#[derive(Clone, Debug)]
pub struct Plan {
    algorithm: Algorithm,
    is_backup: Arc<[bool]>,
    normal: Tier,
    backup: Tier,
}

/// The places of one rank; the others have no weight in it.
#[derive(Clone, Debug)]
struct Tier {
    weights: Vec<Weight>,
    hash: Option<(HashKey, Arc<Table>)>,
}

impl Plan {
    /// For these members in the order of the file, at most [`PLACES_MAX`]. `key` is for [`Algorithm::Hash`] only.
    #[must_use]
    pub fn new(algorithm: Algorithm, key: HashKey, members: &[Member<'_>]) -> Plan {
        assert!(
            members.len() <= PLACES_MAX,
            "the configuration has checked the number of backends"
        );
        let tier = |backup| Tier::new(algorithm, key, members, backup);
        Plan {
            algorithm,
            is_backup: members.iter().map(|member| member.backup).collect(),
            normal: tier(false),
            backup: tier(true),
        }
    }
}

impl Tier {
    fn new(algorithm: Algorithm, key: HashKey, members: &[Member<'_>], backup: bool) -> Tier {
        let weight = |member: &Member<'_>| {
            if member.backup == backup {
                member.weight
            } else {
                0
            }
        };
        let weighted = || members.iter().map(|member| (member.name, weight(member)));
        Tier {
            weights: weighted().map(|(_, weight)| Weight::full(weight)).collect(),
            hash: (algorithm == Algorithm::Hash).then(|| (key, Arc::new(Table::new(weighted())))),
        }
    }
}

/// A new session that needs a backend.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Where it comes from; none for a unix socket. By hash, all sessions without an address go to one backend.
    pub client: Option<SocketAddr>,
    /// Now.
    pub now: Time,
}

/// What a picker asks about places, at the moment of the pick.
pub trait View {
    /// Whether this session may go there: up, ready, not full, not tried before.
    fn is_usable(&self, place: usize) -> bool;

    /// Active sessions there, those of all workers. May be a little behind.
    fn active(&self, place: usize) -> u32;
}

/// What a session has shown about a place's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// How long a connect took. One that timed out counts with the time it took, one that was refused does not.
    Connect(Duration),
    /// How long the first byte of the answer took.
    FirstByte(Duration),
}

/// Picks for one pool on one worker.
#[derive(Clone, Debug)]
pub struct Picker {
    is_backup: Arc<[bool]>,
    normal: Turn,
    backup: Turn,
}

/// One tier's algorithm with its state.
#[derive(Clone, Debug)]
enum Turn {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    Random(Random),
    Hash(HashKey, Arc<Table>),
    LeastTime(LeastTime),
    First(First),
}

impl Picker {
    /// Pickers with different seeds (the workers' numbers, say) do not all begin with the same place.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64) -> Picker {
        Picker {
            is_backup: Arc::clone(&plan.is_backup),
            normal: Turn::new(plan.algorithm, &plan.normal, seed),
            backup: Turn::new(plan.algorithm, &plan.backup, seed),
        }
    }

    /// The place for a new session: a usable one with a weight, a backup only if there is no other. None if there is
    /// no such place.
    pub fn pick(&mut self, arrival: &Arrival, view: &impl View) -> Option<usize> {
        self.normal
            .pick(arrival, view)
            .or_else(|| self.backup.pick(arrival, view))
    }

    /// The weight of a place from now on: the operator has changed it, or its [`Ramp`] has taken a step. By hash
    /// nothing happens: it knows the weights of its plan only, and does not ramp.
    pub fn set_weight(&mut self, place: usize, weight: Weight) {
        self.tier_of(place).set_weight(place, weight);
    }

    /// Takes note of a latency; only [`Algorithm::LeastTime`] uses it.
    pub fn observe(&mut self, place: usize, sample: Sample, now: Time) {
        if let Turn::LeastTime(least_time) = self.tier_of(place) {
            least_time.observe(place, sample, now);
        }
    }

    /// What the client's address is hashed to; none unless it picks by hash.
    #[must_use]
    pub fn hash(&self, client: Option<SocketAddr>) -> Option<u64> {
        match &self.normal {
            Turn::Hash(key, _) => Some(key.hash(client)),
            Turn::RoundRobin(_)
            | Turn::LeastConnections(_)
            | Turn::Random(_)
            | Turn::LeastTime(_)
            | Turn::First(_) => None,
        }
    }

    /// The slot that this leads to in the table of those that are no backups; none unless it picks by hash.
    #[must_use]
    pub fn slot(&self, client: Option<SocketAddr>) -> Option<Slot> {
        match &self.normal {
            Turn::Hash(key, table) => table.slot(key.hash(client)),
            Turn::RoundRobin(_)
            | Turn::LeastConnections(_)
            | Turn::Random(_)
            | Turn::LeastTime(_)
            | Turn::First(_) => None,
        }
    }

    fn tier_of(&mut self, place: usize) -> &mut Turn {
        if self.is_backup[place] {
            &mut self.backup
        } else {
            &mut self.normal
        }
    }
}

/// Where rotation begins among `count` places.
fn start(seed: u64, count: usize) -> usize {
    let place = seed.checked_rem(count as u64).unwrap_or(0);
    usize::try_from(place).expect("less than count")
}

impl Turn {
    fn new(algorithm: Algorithm, tier: &Tier, seed: u64) -> Turn {
        let weights = tier.weights.clone();
        match (algorithm, &tier.hash) {
            (Algorithm::RoundRobin, _) => Turn::RoundRobin(RoundRobin::new(weights, seed)),
            (Algorithm::LeastConnections, _) => {
                Turn::LeastConnections(LeastConnections::new(weights, seed))
            }
            (Algorithm::Random, _) => Turn::Random(Random::new(weights, seed)),
            (Algorithm::LeastTime, _) => Turn::LeastTime(LeastTime::new(weights, seed)),
            (Algorithm::First, _) => Turn::First(First::new(weights)),
            (Algorithm::Hash, hash) => {
                let (key, table) = hash.as_ref().expect("a plan for hashing has its table");
                Turn::Hash(*key, Arc::clone(table))
            }
        }
    }

    fn pick(&mut self, arrival: &Arrival, view: &impl View) -> Option<usize> {
        match self {
            Turn::RoundRobin(round_robin) => round_robin.pick(view),
            Turn::LeastConnections(least_connections) => least_connections.pick(view),
            Turn::Random(random) => random.pick(view),
            Turn::Hash(key, table) => table.pick(key.hash(arrival.client), view),
            Turn::LeastTime(least_time) => least_time.pick(view, arrival.now),
            Turn::First(first) => first.pick(view),
        }
    }

    fn set_weight(&mut self, place: usize, weight: Weight) {
        match self {
            Turn::RoundRobin(round_robin) => round_robin.set_weight(place, weight),
            Turn::LeastConnections(least) => least.set_weight(place, weight),
            Turn::Random(random) => random.set_weight(place, weight),
            Turn::Hash(..) => {}
            Turn::LeastTime(least_time) => least_time.set_weight(place, weight),
            Turn::First(first) => first.set_weight(place, weight),
        }
    }
}
