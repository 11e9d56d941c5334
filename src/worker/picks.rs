//! Joins balancing with what is known about backends, for one worker: which backend a session tries next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use socket2::SockAddr;

use super::Shared;
use super::explain::{CANDIDATES_MAX, Candidate, Explained};
use crate::balance::{Arrival, Picker, Ramp, Sample, Split, View, Weight};
use crate::control::snapshot::{
    Backend, BackendAddress, Listener, OperatorState, Snapshot, Standing,
};
use crate::health::Passive;
use crate::ids::{BackendId, ListenerId, PoolId, WorkerId};
use crate::metrics::WorkerCells;
use crate::session::Rules;
use crate::time::Time;

/// The backends that a session has tried.
pub(super) type Tried = ArrayVec<BackendId, { Rules::RETRIES_MAX as usize + 1 }>;

/// What one worker knows about who can be picked.
pub(super) struct Picks {
    worker: WorkerId,
    pickers: Vec<Picker>,
    splits: Vec<Split>,
    passive: Vec<Passive>,
    addresses: Vec<Option<SockAddr>>,
    /// Backends on the way back to their full weight.
    ramps: Vec<(BackendId, Ramp)>,
    next_step: Option<Time>,
}

/// What a pick came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    /// This one; the session counts there from now on.
    Backend(BackendId),
    /// Those that could be used are full.
    AllFull,
    Nobody,
}

impl Picks {
    /// The pickers of the workers begin with different backends.
    pub(super) fn new(snapshot: &Snapshot, worker: WorkerId) -> Picks {
        let picker =
            |pool: &crate::control::snapshot::Pool| Picker::new(&pool.plan, u64::from(worker.0));
        Picks {
            worker,
            pickers: snapshot.pools.iter().map(picker).collect(),
            splits: snapshot.listeners.iter().map(split).collect(),
            passive: vec![Passive::default(); snapshot.backends.len()],
            addresses: addresses(snapshot),
            ramps: Vec::new(),
            next_step: None,
        }
    }

    /// Addresses and weights may be others now, and there may be more of everything.
    pub(super) fn see(&mut self, old: &Snapshot, new: &Snapshot) {
        let both = old.backends.iter().zip(&new.backends);
        if new.backends.len() > old.backends.len()
            || both
                .into_iter()
                .any(|(before, now)| before.address != now.address)
        {
            self.addresses = addresses(new);
        }
        self.passive.resize(new.backends.len(), Passive::default());
        self.ramps
            .retain(|(id, _)| new.backends[id.index()].standing == Standing::Configured);
        let mut is_new = false;
        for (index, now) in new.pools.iter().enumerate() {
            match old.pools.get(index) {
                Some(before) if Arc::ptr_eq(&before.plan, &now.plan) => {}
                before => {
                    let picker = Picker::new(&now.plan, u64::from(self.worker.0));
                    match before {
                        Some(_) => self.pickers[index] = picker,
                        None => self.pickers.push(picker),
                    }
                    is_new = true;
                }
            }
        }
        for (index, now) in new.listeners.iter().enumerate() {
            match old.listeners.get(index) {
                Some(before) if before.pools == now.pools => {}
                Some(_) => self.splits[index] = split(now),
                None => self.splits.push(split(now)),
            }
        }
        if is_new {
            // A new picker knows full weights only.
            self.next_step = self.next_step.and(Some(Time::ZERO));
        }
    }

    /// The pool of a new session: one with a usable backend if there is one, by the weights of the split.
    pub(super) fn pool(&mut self, snapshot: &Snapshot, listener: ListenerId) -> PoolId {
        share(&mut self.splits[listener.index()], snapshot, listener)
    }

    /// A backend of the pool that was not tried yet: one that is not avoided if there is one, else any.
    pub(super) fn pick(
        &mut self,
        snapshot: &Snapshot,
        pool: PoolId,
        tried: &Tried,
        arrival: &Arrival,
        shared: &Shared,
    ) -> Picked {
        self.take_steps(snapshot, arrival.now);
        let backends = &snapshot.pools[pool.index()].backends;
        let candidates = |avoid| Candidates {
            snapshot,
            backends,
            tried,
            passive: &self.passive,
            shared,
            avoid,
        };
        let picker = &mut self.pickers[pool.index()];
        // Another worker may take the last place of a backend first; then it is full, and others are looked for.
        for _ in 0..backends.len() {
            let Some(place) = choose(picker, arrival, candidates) else {
                break;
            };
            let id = backends[place];
            if shared.claim(id, snapshot.backends[id.index()].max_sessions) {
                return Picked::Backend(id);
            }
        }
        let is_full =
            |id: &BackendId| snapshot.backends[id.index()].takes_sessions() && !tried.contains(id);
        if backends.iter().any(is_full) {
            Picked::AllFull
        } else {
            Picked::Nobody
        }
    }

    /// What a connection would get now, by copies of what picks: nothing changes.
    pub(super) fn explain(
        &mut self,
        snapshot: &Snapshot,
        listener: ListenerId,
        client: Option<SocketAddr>,
        now: Time,
        shared: &Shared,
    ) -> Explained {
        self.take_steps(snapshot, now);
        let split = &mut self.splits[listener.index()].clone();
        let id = share(split, snapshot, listener);
        let pool = &snapshot.pools[id.index()];
        let tried = Tried::new();
        let candidates = |avoid| Candidates {
            snapshot,
            backends: &pool.backends,
            tried: &tried,
            passive: &self.passive,
            shared,
            avoid,
        };
        let picker = &mut self.pickers[id.index()].clone();
        let arrival = Arrival { client, now };
        let picked = choose(picker, &arrival, candidates);
        let name = |id: BackendId| Arc::clone(&snapshot.backends[id.index()].name);
        let all = pool.backends.iter().enumerate().take(CANDIDATES_MAX);
        Explained {
            worker: self.worker,
            pool: Arc::clone(&pool.name),
            balance: pool.balance,
            hash: picker.hash(client),
            slot: picker
                .slot(client)
                .map(|slot| (slot, name(pool.backends[slot.place]))),
            picked: picked.map(|place| name(pool.backends[place])),
            is_full: false,
            omitted: pool.backends.len().saturating_sub(CANDIDATES_MAX),
            candidates: all
                .map(|(place, id)| {
                    let backend = &snapshot.backends[id.index()];
                    let skip = candidates(Some(now)).skip(place);
                    Candidate {
                        backend: name(*id),
                        weight: backend.weight,
                        backup: backend.backup,
                        sessions: shared.active(*id),
                        skipped: skip.map(|skip| skip.why(backend)),
                    }
                })
                .collect(),
        }
    }

    pub(super) fn address(&self, backend: BackendId) -> &SockAddr {
        let address = &self.addresses[backend.index()];
        address
            .as_ref()
            .expect("only backends with an address are picked")
    }

    pub(super) fn connected(&mut self, backend: BackendId, cells: &WorkerCells) {
        if self.passive[backend.index()].succeeded() {
            cells.backend(backend).avoided_until.set(0);
        }
    }

    /// A flow got there at `since`, and its datagrams are not refused.
    pub(super) fn unrefused(
        &mut self,
        backend: BackendId,
        since: Time,
        now: Time,
        cells: &WorkerCells,
    ) {
        if self.passive[backend.index()].unrefused(since, now) {
            cells.backend(backend).avoided_until.set(0);
        }
    }

    /// How long something took.
    pub(super) fn observe(
        &mut self,
        snapshot: &Snapshot,
        backend: BackendId,
        sample: Sample,
        now: Time,
    ) {
        let pool = snapshot.backends[backend.index()].pool;
        let of = &snapshot.backends[backend.index()];
        if of.standing == Standing::Configured {
            self.pickers[pool.index()].observe(of.place as usize, sample, now);
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
        let is_news = passive.failed(rule, now);
        if let Some(until) = passive.avoided_until() {
            let cell = &cells.backend(backend).avoided_until;
            cell.set(until.as_micros());
        }
        if is_news {
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
        cells.backend(backend).avoided_until.set(0);
    }

    /// It has come back, and gets its full share only after a while.
    pub(super) fn ramp(
        &mut self,
        snapshot: &Snapshot,
        backend: BackendId,
        lasts: Duration,
        now: Time,
    ) {
        self.ramps.retain(|(other, _)| *other != backend);
        self.ramps.push((backend, Ramp::new(now, lasts)));
        self.next_step = Some(now);
        self.take_steps(snapshot, now);
    }

    /// Ramps that are due take their next step.
    fn take_steps(&mut self, snapshot: &Snapshot, now: Time) {
        if self.next_step.is_none_or(|next| now < next) {
            return;
        }
        for (id, ramp) in &self.ramps {
            let backend = &snapshot.backends[id.index()];
            let weight: Weight = ramp.weight(backend.weight, now);
            self.pickers[backend.pool.index()].set_weight(backend.place as usize, weight);
        }
        self.ramps.retain(|(_, ramp)| ramp.next_step(now).is_some());
        self.next_step = self
            .ramps
            .iter()
            .filter_map(|(_, ramp)| ramp.next_step(now))
            .min();
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

/// The backends of a pool that are left for a session.
struct Candidates<'a> {
    snapshot: &'a Snapshot,
    backends: &'a [BackendId],
    tried: &'a Tried,
    passive: &'a [Passive],
    shared: &'a Shared,
    /// When to leave out those that are avoided; none = leave nobody out.
    avoid: Option<Time>,
}

/// Why a backend is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    /// The operator, probes, its name or its weight say so.
    Unusable,
    /// The session has tried it.
    Tried,
    /// Connects to it failed of late.
    Avoided,
    /// It has all the sessions it may have.
    Full,
}

impl Skip {
    /// In words.
    fn why(self, backend: &Backend) -> String {
        let word = match self {
            Skip::Tried => "tried already",
            Skip::Avoided => "connects of sessions fail: others are preferred for now",
            Skip::Full => "it has its max_sessions",
            Skip::Unusable if backend.standing != Standing::Configured => {
                "it has left the configuration"
            }
            Skip::Unusable => match backend.state {
                OperatorState::Drain => "the operator says drain",
                OperatorState::Maintenance => "the operator says maintenance",
                OperatorState::Ready if backend.weight == 0 => "its weight is 0",
                OperatorState::Ready if backend.address.is_none() => "its name has no address",
                OperatorState::Ready if backend.is_up == Some(false) => "it is down",
                OperatorState::Ready => "it is not known to be up yet",
            },
        };
        word.to_owned()
    }
}

impl Candidates<'_> {
    fn skip(&self, place: usize) -> Option<Skip> {
        let id = self.backends[place];
        let backend = &self.snapshot.backends[id.index()];
        let avoided = |now| self.passive[id.index()].is_avoided(now);
        let is_full = |most| self.shared.active(id) >= most;
        if !backend.takes_sessions() {
            Some(Skip::Unusable)
        } else if self.tried.contains(&id) {
            Some(Skip::Tried)
        } else if self.avoid.is_some_and(avoided) {
            Some(Skip::Avoided)
        } else if backend.max_sessions.is_some_and(is_full) {
            Some(Skip::Full)
        } else {
            None
        }
    }
}

impl View for Candidates<'_> {
    fn is_usable(&self, place: usize) -> bool {
        self.skip(place).is_none()
    }

    fn active(&self, place: usize) -> u32 {
        self.shared.active(self.backends[place])
    }
}

/// The place that a session tries next: one that is not avoided if there is one, else any.
fn choose<'a>(
    picker: &mut Picker,
    arrival: &Arrival,
    candidates: impl Fn(Option<Time>) -> Candidates<'a>,
) -> Option<usize> {
    picker
        .pick(arrival, &candidates(Some(arrival.now)))
        .or_else(|| picker.pick(arrival, &candidates(None)))
}

/// The pool of a session: one with a usable backend if there is one, by the weights of the split.
fn share(split: &mut Split, snapshot: &Snapshot, listener: ListenerId) -> PoolId {
    let pools = &snapshot.listeners[listener.index()].pools;
    if let [(only, _)] = pools[..] {
        return only;
    }
    let takes = |place: usize| {
        let pool = &snapshot.pools[pools[place].0.index()];
        pool.backends
            .iter()
            .any(|id| snapshot.backends[id.index()].takes_sessions())
    };
    let place = split.pick(takes).or_else(|| split.pick(|_| true));
    pools[place.unwrap_or(0)].0
}

fn split(listener: &Listener) -> Split {
    let weight = |(_, weight): &(PoolId, u32)| u16::try_from(*weight).unwrap_or(Weight::MOST);
    Split::new(&listener.pools.iter().map(weight).collect::<Vec<_>>())
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
