//! Joins balancing and passive failure for one worker: which backend a session tries next.

use arrayvec::ArrayVec;
use socket2::SockAddr;

use crate::balance::{Algorithm, Arrival, HashKey, Member, Picker, Plan, View};
use crate::control::snapshot::{BackendAddress, Pool, Snapshot};
use crate::health::Passive;
use crate::ids::{BackendId, PoolId, WorkerId};
use crate::metrics::WorkerCells;
use crate::session::Rules;
use crate::time::Time;

/// The backends that a session has tried.
pub(super) type Tried = ArrayVec<BackendId, { Rules::RETRIES_MAX as usize + 1 }>;

/// What one worker knows about who can be picked.
pub(super) struct Picks {
    pickers: Vec<Picker>,
    passive: Vec<Passive>,
    addresses: Vec<SockAddr>,
}

impl Picks {
    /// The pickers of the workers begin with different backends.
    pub(super) fn new(snapshot: &Snapshot, worker: WorkerId) -> Picks {
        Picks {
            pickers: snapshot
                .pools
                .iter()
                .map(|pool| Picker::new(&plan(snapshot, pool), u64::from(worker.0)))
                .collect(),
            passive: vec![Passive::default(); snapshot.backends.len()],
            addresses: snapshot
                .backends
                .iter()
                .map(|backend| socket_address(&backend.address))
                .collect(),
        }
    }

    /// A backend of the pool that was not tried yet: one that is not avoided if there is one, else any.
    pub(super) fn pick(
        &mut self,
        snapshot: &Snapshot,
        pool: PoolId,
        tried: &Tried,
        now: Time,
        cells: &WorkerCells,
    ) -> Option<BackendId> {
        let backends = &snapshot.pools[pool.index()].backends;
        let arrival = Arrival { client: None, now };
        let candidates = |avoid| Candidates {
            backends,
            tried,
            passive: &self.passive,
            avoid,
        };
        let picker = &mut self.pickers[pool.index()];
        let place = picker
            .pick(&arrival, &candidates(Some(now)))
            .or_else(|| picker.pick(&arrival, &candidates(None)))?;
        let backend = backends[place];
        let avoided = u64::from(self.passive[backend.index()].is_avoided(now));
        if cells.backend(backend).avoided.get() != avoided {
            cells.backend(backend).avoided.set(avoided);
        }
        Some(backend)
    }

    pub(super) fn address(&self, backend: BackendId) -> &SockAddr {
        &self.addresses[backend.index()]
    }

    pub(super) fn connected(&mut self, backend: BackendId, cells: &WorkerCells) {
        if self.passive[backend.index()].succeeded() {
            cells.backend(backend).avoided.set(0);
        }
    }

    /// True when this failure was the one too many.
    pub(super) fn failed(
        &mut self,
        snapshot: &Snapshot,
        backend: BackendId,
        now: Time,
        cells: &WorkerCells,
    ) -> bool {
        let rule = &snapshot.pools[snapshot.backends[backend.index()].pool.index()].passive;
        let avoided = self.passive[backend.index()].failed(rule, now);
        if avoided {
            cells.backend(backend).avoided.set(1);
        }
        avoided
    }
}

/// The backends of a pool that are left for a session.
struct Candidates<'a> {
    backends: &'a [BackendId],
    tried: &'a Tried,
    passive: &'a [Passive],
    /// When to leave out those that are avoided; none = leave nobody out.
    avoid: Option<Time>,
}

impl View for Candidates<'_> {
    fn is_usable(&self, place: usize) -> bool {
        let backend = self.backends[place];
        let avoided = |now| self.passive[backend.index()].is_avoided(now);
        !self.tried.contains(&backend) && !self.avoid.is_some_and(avoided)
    }

    /// Nobody counts sessions by backend, and round robin does not ask.
    fn active(&self, _place: usize) -> u32 {
        0
    }
}

/// All backends in turn, with the same weight.
fn plan(snapshot: &Snapshot, pool: &Pool) -> Plan {
    let member = |backend: &BackendId| Member {
        name: &snapshot.backends[backend.index()].name,
        weight: 1,
        backup: false,
    };
    let members: Vec<_> = pool.backends.iter().map(member).collect();
    Plan::new(Algorithm::RoundRobin, HashKey::SourceIp, &members)
}

fn socket_address(address: &BackendAddress) -> SockAddr {
    match address {
        BackendAddress::Tcp(address) => (*address).into(),
        BackendAddress::Unix(path) => {
            SockAddr::unix(path).expect("the configuration has checked the length of the path")
        }
    }
}
