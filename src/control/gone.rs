//! What backends and listeners had counted that are gone: what is counted for their pools, and for all listeners
//! together, never goes down. Also who uses ids that are to be free.

use std::sync::Arc;

use super::reconcile::{Freed, Users};
use super::snapshot::Snapshot;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::metrics::{BackendCells, ListenerCells, WorkerCells};
use crate::vrrp::settings::Settings;
use crate::worker::Shared;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// By pool.
    pools: Vec<BackendCells>,
    listeners: ListenerCells,
}

impl Gone {
    /// Takes over what these had counted, so that something else can count there. `snapshot` still has them.
    pub(super) fn take(&mut self, freed: &Freed, snapshot: &Snapshot, cells: &[Arc<WorkerCells>]) {
        self.pools
            .resize_with(snapshot.pools.len(), BackendCells::default);
        for cells in cells {
            for id in &freed.backends {
                let pool = snapshot.backends[id.index()].pool;
                self.pools[pool.index()].take(cells.backend(*id));
            }
            for id in &freed.pools {
                cells.pool(*id).clear();
            }
            for id in &freed.listeners {
                self.listeners.take(cells.listener(*id));
            }
        }
        for id in &freed.pools {
            self.pools[id.index()] = BackendCells::default();
        }
    }

    /// Of all backends of a pool that are gone.
    pub(super) fn of_pool(&self, id: PoolId) -> Option<&BackendCells> {
        self.pools.get(id.index())
    }

    /// Of all listeners that are gone.
    pub(super) fn of_listeners(&self) -> &ListenerCells {
        &self.listeners
    }
}

/// Who uses ids, as far as the workers' counts tell. They are exact once every worker has changed over to a
/// configuration without what they are for: nothing is added any more then.
pub(super) struct Counts<'a> {
    pub(super) cells: &'a [Arc<WorkerCells>],
    pub(super) shared: &'a Shared,
    pub(super) routers: &'a [Arc<Settings>],
}

impl Users for Counts<'_> {
    fn of_backend(&self, id: BackendId) -> bool {
        self.shared.active(id) > 0
    }

    fn of_listener(&self, id: ListenerId) -> bool {
        let sum = |read: fn(&ListenerCells) -> u64| -> u64 {
            let each = self.cells.iter().map(|cells| read(cells.listener(id)));
            each.sum()
        };
        let accepted = sum(|cells| cells.accepts_total.get());
        accepted != sum(|cells| cells.over_total.get()) || self.shared.sessions_of(id) > 0
    }

    fn of_pool(&self, id: PoolId) -> bool {
        let cells = self.cells.iter();
        let has_sessions = cells.map(|cells| cells.pool(id).sessions_active.get());
        let tracks =
            |router: &Arc<Settings>| router.track.pools.iter().any(|(pool, _)| *pool == id);
        has_sessions.sum::<u64>() > 0 || self.routers.iter().any(tracks)
    }
}
