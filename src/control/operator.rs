//! What the operator changes while it runs, and what control remembers of it for the status. Pure.

use std::time::SystemTime;

use super::snapshot::{Backend, OperatorState, Snapshot};
use crate::admin::{Change, Most, Refusal, WEIGHT_MAX};
use crate::config::nearest;
use crate::ids::{BackendId, ListenerId, PoolId};

/// When something became what it is, and through whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) since: SystemTime,
    by_operator: bool,
}

impl Since {
    pub(super) fn by(self) -> &'static str {
        if self.by_operator { "operator" } else { "file" }
    }
}

/// What is remembered of a backend beside the snapshot.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    pub(super) state: Since,
    pub(super) weight: Since,
    pub(super) max_sessions: Since,
    /// What the configuration says.
    pub(super) file: InFile,
    /// Since when it is there.
    pub(super) since: SystemTime,
    /// The operator has added it: it is in no file.
    pub(super) is_added: bool,
    /// Why its name has no address.
    pub(super) unresolved: Option<String>,
}

/// What the configuration says of what the operator can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFile {
    pub(super) state: OperatorState,
    pub(super) weight: u16,
    pub(super) max_sessions: Option<u32>,
}

impl Notes {
    /// Of each backend of a configuration that was just read.
    pub(super) fn of(snapshot: &Snapshot, now: SystemTime) -> Vec<Notes> {
        let backends = snapshot.backends.iter();
        backends
            .map(|backend| Notes::new(backend, now, false))
            .collect()
    }

    /// Of a backend that the operator adds.
    pub(super) fn added(backend: &Backend, now: SystemTime) -> Notes {
        Notes::new(backend, now, true)
    }

    fn new(backend: &Backend, now: SystemTime, is_added: bool) -> Notes {
        let since = Since {
            since: now,
            by_operator: is_added,
        };
        Notes {
            state: since,
            weight: since,
            max_sessions: since,
            file: InFile {
                state: backend.state,
                weight: backend.weight,
                max_sessions: backend.max_sessions,
            },
            since: now,
            is_added,
            unresolved: None,
        }
    }

    pub(super) fn why_unresolved(&self) -> String {
        let why = self.unresolved.as_deref().unwrap_or("not looked up yet");
        format!("its name has no address: {why}")
    }
}

/// The pool of that name.
pub(super) fn find_pool(snapshot: &Snapshot, pool: &str) -> Result<PoolId, Refusal> {
    let mut all = snapshot.pools_in_order();
    let found = all.find(|(_, known)| &*known.name == pool);
    let order = snapshot.pool_order.iter();
    let names = order.map(|id| &*snapshot.pools[id.index()].name);
    found
        .map(|(id, _)| id)
        .ok_or_else(|| missing("pool", pool, names))
}

/// The listener of that name.
pub(super) fn find_listener(snapshot: &Snapshot, name: &str) -> Result<ListenerId, Refusal> {
    let mut all = snapshot.listeners_in_order();
    let found = all.find(|(_, known)| &*known.name == name);
    let order = snapshot.listener_order.iter();
    let names = order.map(|id| &*snapshot.listeners[id.index()].name);
    found
        .map(|(id, _)| id)
        .ok_or_else(|| missing("listener", name, names))
}

/// The backend of that name.
pub(super) fn find(snapshot: &Snapshot, pool: &str, backend: &str) -> Result<BackendId, Refusal> {
    let found = &snapshot.pools[find_pool(snapshot, pool)?.index()];
    let name = |id: &BackendId| &*snapshot.backends[id.index()].name;
    let place = found.backends.iter().find(|id| name(id) == backend);
    place.copied().ok_or_else(|| {
        missing(
            &format!("backend in pool {pool}"),
            backend,
            found.backends.iter().map(name),
        )
    })
}

/// Whether a pool has a backend of that name.
pub(super) fn find_anywhere(snapshot: &Snapshot, backend: &str) -> Result<(), Refusal> {
    let all = snapshot.backends_in_order();
    let names = all.map(|(_, known)| &*known.name);
    match names.clone().any(|known| known == backend) {
        true => Ok(()),
        false => Err(missing("backend", backend, names)),
    }
}

fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Refusal {
    const SHOWN: usize = 12;
    let all: Vec<&str> = known.clone().take(SHOWN).collect();
    let meant = match nearest(name, known.clone()) {
        Some(meant) => format!(", did you mean `{meant}`?"),
        None => ".".to_owned(),
    };
    let more = if known.count() > SHOWN { ", ..." } else { "" };
    let all = all.join(", ");
    Refusal::not_found(format!(
        "there is no {what} called `{name}`{meant} There is: {all}{more}"
    ))
}

/// Changes the snapshot and the notes of a backend.
pub(super) fn operate(
    snapshot: &mut Snapshot,
    notes: &mut [Notes],
    id: BackendId,
    change: &Change,
    now: SystemTime,
) -> Result<(), Refusal> {
    if *change == Change::default() {
        return Err(Refusal::bad_request(
            "nothing to change: give a state, a weight or max_sessions".to_owned(),
        ));
    }
    let is_out = matches!(
        change.state,
        Some(OperatorState::Drain | OperatorState::Maintenance)
    );
    if change.deadline_seconds.is_some() && !is_out {
        return Err(Refusal::conflict(
            "a deadline goes with the state drain or maintenance".to_owned(),
        ));
    }
    if let Some(weight) = change.weight.filter(|weight| *weight > WEIGHT_MAX) {
        return Err(Refusal::bad_request(format!(
            "a weight is 0 to {WEIGHT_MAX}, not {weight}"
        )));
    }
    let backend = &mut snapshot.backends[id.index()];
    let notes = &mut notes[id.index()];
    let since = Since {
        since: now,
        by_operator: true,
    };
    if let Some(state) = change.state.filter(|state| *state != backend.state) {
        backend.state = state;
        backend.is_drained &= state != OperatorState::Ready;
        if state == OperatorState::Maintenance {
            // Nobody looks meanwhile: what is known now will not be known when it comes back.
            backend.is_up = None;
        }
        notes.state = since;
    }
    if let Some(Most(most)) = change
        .max_sessions
        .filter(|most| most.0 != backend.max_sessions)
    {
        backend.max_sessions = most;
        notes.max_sessions = since;
    }
    if let Some(weight) = change.weight.filter(|weight| *weight != backend.weight) {
        backend.weight = weight;
        notes.weight = since;
        let pool = backend.pool.index();
        let of = &snapshot.pools[pool];
        let plan = snapshot.plan(of.balance, of.hash_key, &of.backends);
        snapshot.pools[pool].plan = plan;
    }
    Ok(())
}
