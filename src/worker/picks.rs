//! Joins balancing and passive failure for one worker: which backend a session tries next.

use arrayvec::ArrayVec;
use socket2::SockAddr;

use crate::balance::RoundRobin;
use crate::control::snapshot::{Backend, BackendAddress, Snapshot};
use crate::health::Passive;
use crate::ids::{BackendId, PoolId, WorkerId};
use crate::metrics::WorkerCells;
use crate::session::Rules;
use crate::time::Time;

/// The backends that a session has tried.
pub(super) type Tried = ArrayVec<BackendId, { Rules::RETRIES_MAX as usize + 1 }>;

/// What one worker knows about who can be picked.
pub(super) struct Picks {
    pickers: Vec<RoundRobin>,
    passive: Vec<Passive>,
    addresses: Vec<Option<SockAddr>>,
}

impl Picks {
    /// The pickers of the workers begin with different backends.
    pub(super) fn new(snapshot: &Snapshot, worker: WorkerId) -> Picks {
        Picks {
            pickers: snapshot
                .pools
                .iter()
                .map(|_| RoundRobin::new(worker.index()))
                .collect(),
            passive: vec![Passive::default(); snapshot.backends.len()],
            addresses: addresses(snapshot),
        }
    }

    /// Addresses of backends may be others now.
    pub(super) fn see(&mut self, snapshot: &Snapshot) {
        self.addresses = addresses(snapshot);
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
        let (picker, passive) = (&mut self.pickers[pool.index()], &self.passive);
        let untried = |place: usize| {
            let backend = backends[place];
            snapshot.backends[backend.index()].takes_sessions() && !tried.contains(&backend)
        };
        let well =
            |place: usize| untried(place) && !passive[backends[place].index()].is_avoided(now);
        let place = picker
            .pick(backends.len(), well)
            .or_else(|| picker.pick(backends.len(), untried))?;
        let backend = backends[place];
        let avoided = u64::from(passive[backend.index()].is_avoided(now));
        if cells.backend(backend).avoided.get() != avoided {
            cells.backend(backend).avoided.set(avoided);
        }
        Some(backend)
    }

    pub(super) fn address(&self, backend: BackendId) -> &SockAddr {
        let address = &self.addresses[backend.index()];
        address
            .as_ref()
            .expect("only backends with an address are picked")
    }

    pub(super) fn connected(&mut self, backend: BackendId, cells: &WorkerCells) {
        if self.passive[backend.index()].succeeded() {
            cells.backend(backend).avoided.set(0);
        }
    }

    /// What another failed connect means.
    pub(super) fn failed(
        &mut self,
        snapshot: &Snapshot,
        backend: BackendId,
        now: Time,
        cells: &WorkerCells,
    ) -> Failing {
        let rule = &snapshot.pools[snapshot.backends[backend.index()].pool.index()].passive;
        let passive = &mut self.passive[backend.index()];
        let begins = passive.is_clean();
        if passive.failed(rule, now) {
            cells.backend(backend).avoided.set(1);
            Failing::Avoided
        } else if begins {
            Failing::Begins
        } else {
            Failing::GoesOn
        }
    }

    /// Somebody who knows better says how the backend is.
    pub(super) fn forget_failures(&mut self, backend: BackendId, cells: &WorkerCells) {
        self.passive[backend.index()] = Passive::default();
        cells.backend(backend).avoided.set(0);
    }
}

/// What another failed connect means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// The first after successes.
    Begins,
    GoesOn,
    /// So many in a row that the backend is avoided from now on.
    Avoided,
}

fn addresses(snapshot: &Snapshot) -> Vec<Option<SockAddr>> {
    let address = |backend: &Backend| backend.address.as_ref().map(socket_address);
    snapshot.backends.iter().map(address).collect()
}

fn socket_address(address: &BackendAddress) -> SockAddr {
    match address {
        BackendAddress::Tcp(address) => (*address).into(),
        BackendAddress::Unix(path) => {
            SockAddr::unix(path).expect("the configuration has checked the length of the path")
        }
    }
}
