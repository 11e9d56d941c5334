//! From the configuration that runs to another one, with ids that go on meaning what they mean: a listener is known by
//! its name and protocol, a pool by its name, a backend by its name in its pool and the address that the file gives it.
//! What leaves keeps its id until nothing of it is left. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::operator::Notes;
use super::snapshot::{Backend, Listener, OperatorState, Pool, Snapshot, Standing};
use super::usable;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::vrrp::settings::Settings;

/// What there is to be told about ids that somebody may still use.
pub(super) trait Users {
    /// Whether sessions or flows are on the backend.
    fn of_backend(&self, id: BackendId) -> bool;
    /// Whether sessions or flows came in by the listener, or connections that will become some.
    fn of_listener(&self, id: ListenerId) -> bool;
    /// Whether sessions belong to the pool, or anything else that is not in the snapshot.
    fn of_pool(&self, id: PoolId) -> bool;
}

/// What the running configuration would become.
pub(super) struct Draft {
    pub(super) snapshot: Snapshot,
    /// By backend.
    pub(super) notes: Vec<Notes>,
    /// What was left of these is gone: their ids are free, or something else's already.
    pub(super) freed: Freed,
    /// Backends that come, or come back.
    pub(super) arrived: Vec<BackendId>,
    /// Backends that leave.
    pub(super) left: Vec<BackendId>,
    /// Backends that stay, and that are to be probed in another way or no more, or whose operator state is another.
    pub(super) changed: Vec<BackendId>,
    /// The virtual routers of the target, in the ids of this snapshot.
    pub(super) virtual_routers: Vec<Arc<Settings>>,
}

/// Ids that were given back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) backends: Vec<BackendId>,
    pub(super) pools: Vec<PoolId>,
    pub(super) listeners: Vec<ListenerId>,
}

/// The target has ids of its own, and everything in it is configured.
pub(super) fn reconcile(
    current: &Snapshot,
    notes: &[Notes],
    target: &Snapshot,
    target_notes: &[Notes],
    users: &impl Users,
) -> Draft {
    let mut draft = Draft {
        snapshot: current.clone(),
        notes: notes.to_vec(),
        freed: Freed::default(),
        arrived: Vec::new(),
        left: Vec::new(),
        changed: Vec::new(),
        virtual_routers: Vec::new(),
    };
    draft.free(users);
    let pools = draft.pools(target);
    draft.backends(target, target_notes, &pools);
    draft.plans(current);
    draft.listeners(target, &pools);
    draft.presume(current);
    draft.virtual_routers = routers(target, &pools);
    draft
}

/// The first place that is free, or a new one.
fn room<T>(all: &mut Vec<T>, from: &mut usize, is_free: impl Fn(&T) -> bool, entry: T) -> usize {
    let found = all[*from..].iter().position(is_free);
    let place = found.map_or(all.len(), |found| *from + found);
    *from = place + 1;
    match all.get_mut(place) {
        Some(free) => *free = entry,
        None => all.push(entry),
    }
    place
}

fn pool_id(index: usize) -> PoolId {
    PoolId(u16::try_from(index).expect("files have fewer pools, and those that leave are few"))
}

fn listener_id(index: usize) -> ListenerId {
    ListenerId(u16::try_from(index).expect("files have fewer listeners, and few leave at a time"))
}

fn backend_id(index: usize) -> BackendId {
    BackendId(u32::try_from(index).expect("files have fewer backends"))
}

impl Draft {
    /// Ids of what has left, and that nobody uses any more. A pool is used by its backends, and by listeners.
    fn free(&mut self, users: &impl Users) {
        let snapshot = &mut self.snapshot;
        let mut used = vec![false; snapshot.pools.len()];
        for (index, listener) in snapshot.listeners.iter_mut().enumerate() {
            let id = listener_id(index);
            if listener.standing == Standing::Leaving && !users.of_listener(id) {
                listener.standing = Standing::Free;
                self.freed.listeners.push(id);
            }
            if listener.standing != Standing::Free {
                let pools = listener.pools.iter();
                pools.for_each(|(pool, _)| used[pool.index()] = true);
            }
        }
        for (index, backend) in snapshot.backends.iter_mut().enumerate() {
            let id = backend_id(index);
            if backend.standing == Standing::Leaving && !users.of_backend(id) {
                backend.standing = Standing::Free;
                self.freed.backends.push(id);
            }
            used[backend.pool.index()] |= backend.standing != Standing::Free;
        }
        for (index, pool) in snapshot.pools.iter_mut().enumerate() {
            let id = pool_id(index);
            if pool.standing == Standing::Leaving && !used[index] && !users.of_pool(id) {
                pool.standing = Standing::Free;
                self.freed.pools.push(id);
            }
        }
    }

    /// The pools, still without their backends; by target.
    fn pools(&mut self, target: &Snapshot) -> Vec<PoolId> {
        let all = &mut self.snapshot.pools;
        let mut known: HashMap<Arc<str>, PoolId> = HashMap::new();
        for (index, pool) in all.iter_mut().enumerate() {
            if pool.standing != Standing::Free {
                known.insert(Arc::clone(&pool.name), pool_id(index));
                pool.standing = Standing::Leaving;
                pool.backends.clear();
            }
        }
        let mut from = 0;
        let mut ids = Vec::new();
        for pool in &target.pools {
            let mut now = Pool {
                backends: Vec::new(),
                ..pool.clone()
            };
            let id = match known.get(&pool.name) {
                Some(id) => {
                    let before = &all[id.index()];
                    now.has_moved = before.has_moved || before.sources != now.sources;
                    all[id.index()] = now;
                    *id
                }
                None => pool_id(room(
                    all,
                    &mut from,
                    |pool| pool.standing == Standing::Free,
                    now,
                )),
            };
            ids.push(id);
        }
        self.snapshot.pool_order.clone_from(&ids);
        ids
    }

    fn backends(&mut self, target: &Snapshot, target_notes: &[Notes], pools: &[PoolId]) {
        let mut known: HashMap<(PoolId, Arc<str>), Vec<BackendId>> = HashMap::new();
        let mut before = Vec::new();
        for (index, backend) in self.snapshot.backends.iter_mut().enumerate() {
            before.push(backend.standing);
            if backend.standing != Standing::Free {
                let key = (backend.pool, Arc::clone(&backend.name));
                known.entry(key).or_default().push(backend_id(index));
                backend.standing = Standing::Leaving;
            }
        }
        let mut from = 0;
        for (of_target, pool) in target.pools.iter().zip(pools) {
            for target_id in &of_target.backends {
                let wanted = Backend {
                    pool: *pool,
                    ..target.backends[target_id.index()].clone()
                };
                let wanted_notes = &target_notes[target_id.index()];
                let named = known.get(&(*pool, Arc::clone(&wanted.name)));
                // One that is still there rather than one of the same kind that was on its way out.
                let same = named
                    .into_iter()
                    .flatten()
                    .filter(|id| is_same_place(&self.snapshot.backends[id.index()], &wanted));
                let same = same
                    .copied()
                    .min_by_key(|id| before[id.index()] != Standing::Configured);
                let id = match same {
                    Some(id) if before[id.index()] == Standing::Configured => {
                        self.keep(id, wanted, wanted_notes);
                        id
                    }
                    Some(id) => {
                        self.arrive(id, wanted, wanted_notes);
                        id
                    }
                    None => {
                        let is_free = |backend: &Backend| backend.standing == Standing::Free;
                        let all = &mut self.snapshot.backends;
                        let id = backend_id(room(all, &mut from, is_free, wanted.clone()));
                        self.arrive(id, wanted, wanted_notes);
                        id
                    }
                };
                self.snapshot.pools[pool.index()].backends.push(id);
            }
        }
        let all = self.snapshot.backends.iter().zip(&before).enumerate();
        for (index, (backend, before)) in all {
            if backend.standing == Standing::Leaving && *before == Standing::Configured {
                self.left.push(backend_id(index));
            }
        }
        for id in &self.left {
            // Nobody looks any more.
            self.snapshot.backends[id.index()].is_up = None;
        }
    }

    fn arrive(&mut self, id: BackendId, wanted: Backend, notes: &Notes) {
        let place = self.snapshot.pools[wanted.pool.index()].backends.len();
        let known = &self.snapshot.backends[id.index()];
        let address = wanted.address.clone().or_else(|| {
            let is_same = known.host.is_some() && known.host == wanted.host;
            known.address.clone().filter(|_| is_same)
        });
        self.snapshot.backends[id.index()] = Backend {
            place: u32::try_from(place).expect("fewer than backends"),
            address,
            ..wanted
        };
        match self.notes.get_mut(id.index()) {
            Some(known) => known.clone_from(notes),
            None => self.notes.push(notes.clone()),
        }
        self.arrived.push(id);
    }

    /// What the operator has changed holds until the file changes the same key.
    fn keep(&mut self, id: BackendId, wanted: Backend, wanted_notes: &Notes) {
        let place = self.snapshot.pools[wanted.pool.index()].backends.len();
        let backend = &mut self.snapshot.backends[id.index()];
        let notes = &mut self.notes[id.index()];
        let (was, is) = (notes.file, wanted_notes.file);
        let old_state = backend.state;
        if was.state != is.state {
            backend.state = wanted.state;
            notes.state = wanted_notes.state;
        }
        if was.weight != is.weight {
            backend.weight = wanted.weight;
            notes.weight = wanted_notes.weight;
        }
        if was.max_sessions != is.max_sessions {
            backend.max_sessions = wanted.max_sessions;
            notes.max_sessions = wanted_notes.max_sessions;
        }
        notes.file = is;
        notes.is_added = wanted_notes.is_added;
        backend.standing = Standing::Configured;
        backend.place = u32::try_from(place).expect("fewer than backends");
        backend.backup = wanted.backup;
        let was_probed = std::mem::replace(&mut backend.is_probed, wanted.is_probed);
        backend.is_drained &= backend.state != OperatorState::Ready;
        match (was_probed, backend.is_probed, backend.state) {
            (_, _, OperatorState::Maintenance) | (true, false, _) => backend.is_up = None,
            // It was in use without being asked, and stays so until a probe knows better.
            (false, true, _) => backend.is_up = Some(true),
            (true, true, _) | (false, false, _) => {}
        }
        if backend.state != old_state || was_probed != backend.is_probed {
            self.changed.push(id);
        }
    }

    /// A plan that is the same as before is the one from before: workers go on where they are.
    fn plans(&mut self, current: &Snapshot) {
        for id in self.snapshot.pool_order.clone() {
            let pool = &self.snapshot.pools[id.index()];
            let before = current.pools.get(id.index());
            let before = before.filter(|before| {
                before.name == pool.name
                    && (before.balance, before.hash_key) == (pool.balance, pool.hash_key)
                    && before.backends.len() == pool.backends.len()
                    && before.backends.iter().zip(&pool.backends).all(|(was, is)| {
                        member(&current.backends[was.index()])
                            == member(&self.snapshot.backends[is.index()])
                    })
            });
            let plan = match before {
                Some(before) => Arc::clone(&before.plan),
                None => self
                    .snapshot
                    .plan(pool.balance, pool.hash_key, &pool.backends),
            };
            self.snapshot.pools[id.index()].plan = plan;
        }
    }

    fn listeners(&mut self, target: &Snapshot, pools: &[PoolId]) {
        let all = &mut self.snapshot.listeners;
        let mut known = HashMap::new();
        for (index, listener) in all.iter_mut().enumerate() {
            if listener.standing != Standing::Free {
                let key = (Arc::clone(&listener.name), listener.protocol);
                let is_better = listener.standing == Standing::Configured;
                if is_better || !known.contains_key(&key) {
                    known.insert(key, listener_id(index));
                }
                listener.standing = Standing::Leaving;
            }
        }
        let mut from = 0;
        let mut order = Vec::new();
        for listener in &target.listeners {
            let leads_to = listener.pools.iter();
            let leads_to = leads_to.map(|(pool, weight)| (pools[pool.index()], *weight));
            let mut now = Listener {
                pools: leads_to.collect(),
                ..listener.clone()
            };
            let id = match known.get(&(Arc::clone(&listener.name), listener.protocol)) {
                Some(id) => {
                    let before = &all[id.index()];
                    now.has_moved = before.has_moved || before.addresses != now.addresses;
                    all[id.index()] = now;
                    *id
                }
                None => listener_id(room(
                    all,
                    &mut from,
                    |listener| listener.standing == Standing::Free,
                    now,
                )),
            };
            order.push(id);
        }
        self.snapshot.listener_order = order;
    }

    /// A listener that had a usable backend is not shut because nothing is known yet of those that it has now: they
    /// are used until their first probe says otherwise.
    fn presume(&mut self, current: &Snapshot) {
        let (was_open, is_open) = (
            usable::has_usable(current),
            usable::has_usable(&self.snapshot),
        );
        for id in self.snapshot.listener_order.clone() {
            let was_open = was_open.get(id.index()).copied().unwrap_or(false);
            if !was_open || is_open[id.index()] {
                continue;
            }
            let pools = &self.snapshot.listeners[id.index()].pools;
            let backends: Vec<BackendId> = pools
                .iter()
                .filter(|(_, weight)| *weight > 0)
                .flat_map(|(pool, _)| &self.snapshot.pools[pool.index()].backends)
                .copied()
                .collect();
            for id in backends {
                let backend = &mut self.snapshot.backends[id.index()];
                let is_new = backend.is_probed && backend.is_up.is_none();
                if is_new && backend.state != OperatorState::Maintenance {
                    backend.is_up = Some(true);
                }
            }
        }
    }
}

/// Whether both are at one place, as the file has it.
fn is_same_place(one: &Backend, other: &Backend) -> bool {
    match (&one.host, &other.host) {
        (Some(host), Some(other)) => host == other,
        (None, None) => one.address == other.address,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What a plan is made from.
fn member(backend: &Backend) -> (&str, u16, bool) {
    (&backend.name, backend.weight, backend.backup)
}

/// The same with other ids for the pools that they track.
fn routers(target: &Snapshot, pools: &[PoolId]) -> Vec<Arc<Settings>> {
    let renamed = |settings: &Arc<Settings>| {
        let mut settings = Settings::clone(settings);
        for (pool, _) in &mut settings.track.pools {
            *pool = pools[pool.index()];
        }
        Arc::new(settings)
    };
    target.virtual_routers.iter().map(renamed).collect()
}

#[cfg(test)]
mod tests;
