//! How everything is, as one JSON object: what the status command shows. It only reads.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::alarms::{Alarm, Alarms};
use super::counters;
use super::listeners::Door;
use super::operator::Notes;
use super::ports::Ports;
use super::snapshot::{Backend, BackendAddress, Listener, OperatorState, Snapshot};
use super::usable;
use super::vrrp::Vrrp;
use super::watch::Watch;
use crate::ids::{BackendId, ListenerId};
use crate::metrics::{BackendCells, WorkerCells};
use crate::worker::Shared;

/// What a status is made from.
pub(super) struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) cells: &'a [Arc<WorkerCells>],
    pub(super) shared: &'a Shared,
    pub(super) notes: &'a [Notes],
    pub(super) watch: &'a Watch,
    pub(super) vrrp: Option<&'a Vrrp>,
    /// As the listeners are bound: with the ports that the kernel chose.
    pub(super) addresses: Vec<Vec<String>>,
    pub(super) alarms: &'a Alarms,
    /// By listener.
    pub(super) doors: &'a [Door],
    pub(super) phase: &'static str,
    pub(super) started: SystemTime,
    pub(super) max_sessions: u32,
    /// By backend.
    pub(super) ports: Vec<Option<Ports>>,
    /// Ports that the kernel gives to connections of one source address; none if it does not show them.
    pub(super) ports_each: Option<u32>,
}

impl View<'_> {
    pub(super) fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "phase": self.phase,
            "started": seconds(self.started),
            "generation": self.snapshot.generation,
            "workers": self.cells.len(),
            "sessions_active": self.sum(|cells| cells.sessions_active.get()),
            "sessions_total": self.sum(|cells| cells.sessions_total.get()),
            "max_sessions": self.max_sessions,
            "connects_total": self.sum(|cells| cells.connects_total.get()),
            "connect_failures_total": self.sum(|cells| cells.connect_failures_total.get()),
            "connect_retries_total": self.sum(|cells| cells.connect_retries_total.get()),
            "accepts_parked": self.sum(|cells| cells.accepts_parked.get()),
            "listeners": self.listeners(),
            "pools": self.pools(),
            "virtual_routers": self.vrrp.map_or_else(|| json!([]), Vrrp::status),
            "ends": counters::ends(self.cells),
        })
    }

    fn sum(&self, read: impl Fn(&WorkerCells) -> u64) -> u64 {
        self.cells.iter().map(|cells| read(cells)).sum()
    }

    fn listeners(&self) -> Value {
        let listeners = self.snapshot.listeners.iter().zip(&self.addresses);
        let each = (0..)
            .map(ListenerId)
            .zip(listeners)
            .map(|(id, (listener, addresses))| {
                let pools = listener.pools.iter().map(|(pool, weight)| {
                json!({"pool": &*self.snapshot.pools[pool.index()].name, "weight": weight})
            });
                json!({
                    "name": &*listener.name,
                    "addresses": addresses,
                    "pools": pools.collect::<Vec<_>>(),
                    "sessions_active": self.shared.sessions_of(id),
                    "max_sessions": listener.max_sessions,
                    "refuses": self.refuses(id, listener),
                    "shut_total": self.doors[id.index()].shut_total,
                })
            });
        each.collect()
    }

    /// Since when and why the kernel refuses connects to a listener; null if it does not.
    fn refuses(&self, id: ListenerId, listener: &Listener) -> Value {
        let door = self.doors[id.index()];
        if door.is_open || self.phase != "serving" {
            return Value::Null;
        }
        json!({"since": seconds(door.since), "why": usable::why_none(self.snapshot, listener)})
    }

    fn pools(&self) -> Value {
        let each = self.snapshot.pools.iter().map(|pool| {
            let backends: Vec<Value> = pool.backends.iter().map(|id| self.backend(*id)).collect();
            json!({"name": &*pool.name, "balance": pool.balance.as_str(), "backends": backends})
        });
        each.collect()
    }

    pub(super) fn backend(&self, id: BackendId) -> Value {
        let backend = &self.snapshot.backends[id.index()];
        let notes = &self.notes[id.index()];
        let sum = |read: fn(&BackendCells) -> u64| {
            self.cells
                .iter()
                .map(|cells| read(cells.backend(id)))
                .sum::<u64>()
        };
        let avoided = sum(|cells| cells.avoided.get());
        let health = self.health(id, avoided > 0);
        json!({
            "pool": &*self.snapshot.pools[backend.pool.index()].name,
            "name": &*backend.name,
            "address": backend.address.as_ref().map(address),
            "host": backend.host.as_ref().map(|(host, port)| format!("{host}:{port}")),
            "health": health,
            "state": backend.state.as_str(),
            "state_by": notes.state.by(),
            "state_since": seconds(notes.state.since),
            "drain_until": self.drain_until(id).map(seconds),
            "weight": backend.weight,
            "weight_by": notes.weight.by(),
            "weight_since": seconds(notes.weight.since),
            "backup": backend.backup,
            "takes_sessions": backend.takes_sessions(),
            "why_not": why_not(backend),
            "sessions_active": sum(|cells| cells.sessions_active.get()),
            "sessions_placed": self.shared.active(id),
            "max_sessions": backend.max_sessions,
            "sessions_total": sum(|cells| cells.sessions_total.get()),
            "source_ports": self.source_ports(id),
            "connect_failures_total": sum(|cells| cells.connect_failures_total.get()),
        })
    }
}

impl View<'_> {
    /// Null for a unix socket and for a name that is not resolved.
    pub(super) fn source_ports(&self, id: BackendId) -> Value {
        self.ports[id.index()].map_or(Value::Null, |ports| {
            let of = self.ports_each.map(|each| u64::from(each) * ports.sources);
            json!({"used": ports.used, "of": of})
        })
    }

    /// When the sessions of a backend that drains end, if they are to.
    fn drain_until(&self, id: BackendId) -> Option<SystemTime> {
        let at = self.alarms.at(Alarm::Drained(id))?;
        Some(SystemTime::now() + at.saturating_duration_since(Instant::now()))
    }

    /// What probes and traffic say, since when and why.
    fn health(&self, id: BackendId, is_avoided: bool) -> Value {
        let backend = &self.snapshot.backends[id.index()];
        let history: Vec<Value> = self
            .watch
            .health(id)
            .history()
            .map(|change| {
                json!({
                    "state": state(Some(change.is_up)),
                    "since": seconds(self.watch.system_time(change.at)),
                    "why": change.why,
                })
            })
            .collect();
        let last = history.last();
        let why = match (&backend.address, is_avoided) {
            (None, _) => json!(self.notes[id.index()].why_unresolved()),
            (Some(_), true) => json!("connects of sessions fail: others are preferred for now"),
            (Some(_), false) => last.map_or(Value::Null, |last| last["why"].clone()),
        };
        let is_probed = self.snapshot.pools[backend.pool.index()]
            .probe
            .check
            .is_some();
        let hindered = self.watch.health(id).hindered().map(|hindrance| {
            json!({
                "since": seconds(self.watch.system_time(hindrance.since)),
                "why": hindrance.why,
            })
        });
        let probes_are_due = is_probed && backend.state != OperatorState::Maintenance;
        let is_down = backend.address.is_none() || backend.is_up == Some(false);
        json!({
            "state": if is_down { "down" } else { state(backend.is_up.or((!is_probed).then_some(true))) },
            "since": last.map(|last| last["since"].clone()),
            "why": why,
            "probed": probes_are_due,
            "probes_hindered": hindered.filter(|_| probes_are_due),
            "history": history,
        })
    }
}

fn state(is_up: Option<bool>) -> &'static str {
    match is_up {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    }
}

/// Why a backend takes no new sessions although its health is good, in words.
fn why_not(backend: &Backend) -> Option<String> {
    match (backend.state, backend.weight) {
        (OperatorState::Drain | OperatorState::Maintenance, _) => {
            Some(format!("the operator says {}", backend.state.as_str()))
        }
        (OperatorState::Ready, 0) => Some("its weight is 0".to_owned()),
        // Its health says why.
        (OperatorState::Ready, _) => None,
    }
}

fn address(address: &BackendAddress) -> String {
    match address {
        BackendAddress::Tcp(address) => address.to_string(),
        BackendAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
