//! Backends that the operator has added: they are in no file, and hold on through reloads for as long as their pool is
//! there and the file has none of the same name. Pure: time is passed in.

use std::time::SystemTime;

use super::operator::{self, Notes};
use super::snapshot::{Backend, BackendAddress, OperatorState, Protocol, Snapshot, Standing};
use crate::admin::{Addition, Refusal, WEIGHT_MAX};
use crate::config::{self, Destination};
use crate::ids::BackendId;

/// A backend as the operator wants it, for a pool of this snapshot.
pub(super) fn backend(
    snapshot: &Snapshot,
    pool: &str,
    name: &str,
    addition: &Addition,
) -> Result<Backend, Refusal> {
    let id = operator::find_pool(snapshot, pool)?;
    let of = &snapshot.pools[id.index()];
    if let Some(why) = config::unusable_name(name) {
        let why = format!("`{name}` is no name for a backend: {why}");
        return Err(Refusal::bad_request(why));
    }
    let weight = addition.weight.unwrap_or(1);
    if weight > WEIGHT_MAX {
        let why = format!("a weight is 0 to {WEIGHT_MAX}, not {weight}");
        return Err(Refusal::bad_request(why));
    }
    let place = config::destination(&addition.address).map_err(|why| {
        let address = &addition.address;
        Refusal::bad_request(format!("`{address}` is no address for a backend: {why}"))
    })?;
    if operator::find(snapshot, pool, name).is_ok() {
        let why = format!("there is a backend {pool}/{name} already");
        return Err(Refusal::conflict(why));
    }
    let (address, host) = match place {
        Destination::Address(address) => {
            if let Some(listener) = snapshot.circle(id, address) {
                return Err(Refusal::conflict(format!(
                    "{address} is where listener `{}` of its own pool listens: sessions would go round in circles",
                    listener.name
                )));
            }
            (Some(BackendAddress::Tcp(address)), None)
        }
        Destination::Unix(path) => {
            let leads_here = |listener: &super::snapshot::Listener| {
                listener.protocol == Protocol::Udp
                    && listener.pools.iter().any(|(pool, _)| *pool == id)
            };
            let mut listeners = snapshot.listeners_in_order();
            if let Some((_, listener)) = listeners.find(|(_, listener)| leads_here(listener)) {
                return Err(Refusal::conflict(format!(
                    "UDP listener `{}` leads to the pool, but this is a unix socket",
                    listener.name
                )));
            }
            (Some(BackendAddress::Unix(path)), None)
        }
        Destination::Host(host, port) => (None, Some((host, port))),
    };
    Ok(Backend {
        standing: Standing::Configured,
        place: 0,
        name: name.into(),
        pool: id,
        address,
        host,
        weight,
        backup: addition.backup,
        max_sessions: addition.max_sessions.and_then(|most| most.0),
        state: OperatorState::Ready,
        is_probed: of.probe.check.is_some(),
        is_up: None,
        doubted_since: None,
        is_drained: false,
    })
}

/// The file's configuration with what the operator has added to the one that runs.
pub(super) fn with_added(
    file: &Snapshot,
    running: &Snapshot,
    notes: &[Notes],
    now: SystemTime,
) -> (Snapshot, Vec<Notes>) {
    let mut target = file.clone();
    let mut target_notes = Notes::of(&target, now);
    for (id, backend) in running.backends_in_order() {
        let known = &notes[id.index()];
        if !known.is_added {
            continue;
        }
        let pool = &running.pools[backend.pool.index()].name;
        let mut added = backend.clone();
        (added.state, added.weight) = (known.file.state, known.file.weight);
        added.max_sessions = known.file.max_sessions;
        added.is_up = None;
        added.doubted_since = None;
        added.is_drained = false;
        if added.host.is_some() {
            added.address = None;
        }
        put(&mut target, &mut target_notes, pool, added, known.since);
    }
    (target, target_notes)
}

/// Adds one to a configuration, unless its pool is gone or has one of that name.
pub(super) fn put(
    target: &mut Snapshot,
    notes: &mut Vec<Notes>,
    pool: &str,
    mut backend: Backend,
    now: SystemTime,
) -> Option<BackendId> {
    let pool = operator::find_pool(target, pool).ok()?;
    let of = &mut target.pools[pool.index()];
    let is_known = |id: &BackendId| target.backends[id.index()].name == backend.name;
    if of.backends.iter().any(is_known) {
        return None;
    }
    let id = BackendId(u32::try_from(target.backends.len()).ok()?);
    backend.pool = pool;
    backend.place = u32::try_from(of.backends.len()).ok()?;
    backend.is_probed = of.probe.check.is_some();
    of.backends.push(id);
    notes.push(Notes::added(&backend, now));
    target.backends.push(backend);
    Some(id)
}
