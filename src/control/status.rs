//! How everything is, as one JSON object: what the status command shows. It only reads.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::alarms::{Alarm, Alarms};
use super::counters;
use super::datagrams::Datagrams;
use super::gone::Gone;
use super::listeners::Door;
use super::operator::Notes;
use super::ports::Ports;
use super::reload::Reloads;
use super::snapshot::{
    Backend, BackendAddress, Listener, OperatorState, Protocol, Snapshot, Standing,
};
use super::usable;
use super::vrrp::Vrrp;
use super::watch::Watch;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::metrics::{
    BackendCells, Counts, Histogram, LATENCIES, ListenerCells, Usage, WorkerCells,
};
use crate::session::Direction;
use crate::sys::clock::Clock;
use crate::sys::host;
use crate::sys::socket::{Bind, check_free};
use crate::time::Time;
use crate::worker::Shared;

/// What a status is made from.
pub(super) struct View<'a> {
    /// Of the file's text.
    pub(super) config_hash: &'a Arc<str>,
    /// The configuration as this host reads it.
    pub(super) config_text: &'a Arc<str>,
    /// Events that subscribers have not got.
    pub(super) events_lost: u64,
    /// Lines about sessions that nobody has got.
    pub(super) access_lost: u64,
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
    pub(super) clock: Clock,
    /// When it was told to stop.
    pub(super) stopping_since: Option<Time>,
    /// When the sessions that are left then end.
    pub(super) stopping_until: Option<Instant>,
    pub(super) max_sessions: u32,
    pub(super) max_flows: u32,
    pub(super) datagrams: &'a Datagrams,
    pub(super) gone: &'a Gone,
    pub(super) reloads: &'a Reloads,
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
            "stopping": self.stopping(),
            "started": seconds(self.clock.system_time(Time::ZERO)),
            "now": self.now(),
            "host": host::name().ok(),
            "generation": self.snapshot.generation,
            "config_hash": &**self.config_hash,
            "reloads": self.reloads.status(),
            "workers": self.cells.len(),
            "sessions_active": self.sum(|cells| cells.sessions_active.get()),
            "sessions_total": self.sum(|cells| cells.sessions_total.get()),
            "max_sessions": self.max_sessions,
            "connects_total": self.sum(|cells| cells.connects_total.get()),
            "connect_failures_total": self.sum(|cells| cells.connect_failures_total.get()),
            "connect_retries_total": self.sum(|cells| cells.connect_retries_total.get()),
            "access_lines_lost": self.access_lost,
            "accepts_parked": self.sum(|cells| cells.accepts_parked.get()),
            "listeners": self.listeners(),
            "pools": self.pools(),
            "ends": counters::session_ends(self.cells),
            "flows_active": self.sum(|cells| cells.flows_active.get()),
            "flows_total": self.sum(|cells| cells.flows_total.get()),
            "max_flows": self.max_flows,
            "flow_ends": counters::flow_ends(self.cells, self.gone),
            "virtual_routers": self.routers(),
        })
    }

    pub(super) fn routers(&self) -> Value {
        self.vrrp.map_or_else(|| json!([]), Vrrp::status)
    }

    /// Seconds since 1970, to the millisecond, by a clock that nobody sets: rates are made with it.
    fn now(&self) -> Value {
        let now = self.clock.system_time(self.clock.now());
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        json!(Duration::from_millis(millis).as_secs_f64())
    }

    /// Since when, and until when sessions may go on; null while it is not.
    fn stopping(&self) -> Value {
        let until = self.stopping_until.map(|at| seconds(system_time(at)));
        self.stopping_since.map_or(
            Value::Null,
            |since| json!({"since": seconds(self.clock.system_time(since)), "until": until}),
        )
    }

    pub(super) fn sum(&self, read: impl Fn(&WorkerCells) -> u64) -> u64 {
        self.cells.iter().map(|cells| read(cells)).sum()
    }

    fn max(&self, read: impl Fn(&WorkerCells) -> u64) -> u64 {
        let each = self.cells.iter().map(|cells| read(cells));
        each.max().unwrap_or(0)
    }

    pub(super) fn listeners(&self) -> Value {
        let configured = self.snapshot.listeners_in_order();
        let leaving = (0..).map(ListenerId).zip(&self.snapshot.listeners);
        let leaving = leaving.filter(|(id, listener)| {
            listener.standing == Standing::Leaving && self.shared.sessions_of(*id) > 0
        });
        let each = configured.chain(leaving).map(|(id, listener)| {
            let addresses = &self.addresses[id.index()];
            let pools = listener.pools.iter().map(|(pool, weight)| {
                json!({"pool": &*self.snapshot.pools[pool.index()].name, "weight": weight})
            });
            let active = self.shared.sessions_of(id);
            let (sessions, flows, datagrams) = match listener.protocol {
                Protocol::Tcp => (active, 0, Value::Null),
                Protocol::Udp => {
                    let datagrams = counters::of_listener(self.cells, id, self.datagrams);
                    (0, active, datagrams)
                }
            };
            let sum =
                |read: &dyn Fn(&ListenerCells) -> u64| self.sum(|cells| read(cells.listener(id)));
            let bytes = |direction| sum(&|cells| cells.given.get(direction));
            json!({
                "name": &*listener.name,
                "removed": listener.standing != Standing::Configured,
                "protocol": listener.protocol.as_str(),
                "addresses": addresses,
                "pools": pools.collect::<Vec<_>>(),
                "sessions_active": sessions,
                "sessions_total": sum(&|cells| cells.sessions_total.get()),
                "bytes_to_backend": bytes(Direction::ToBackend),
                "bytes_to_client": bytes(Direction::ToClient),
                "max_sessions": listener.max_sessions,
                "flows_active": flows,
                "datagrams": datagrams,
                "refuses": self.refuses(id, listener),
                "shut_total": self.doors[id.index()].shut_total,
            })
        });
        each.collect()
    }

    /// Since when and why the kernel refuses connects to a listener; null if it does not.
    pub(super) fn refuses(&self, id: ListenerId, listener: &Listener) -> Value {
        let door = self.doors[id.index()];
        if listener.standing != Standing::Configured {
            let why = "it has left the configuration";
            return json!({"since": seconds(door.since), "why": why});
        }
        match (self.stopping_since, self.phase) {
            (Some(since), _) => {
                let since = seconds(self.clock.system_time(since));
                json!({"since": since, "why": "the process is stopping"})
            }
            (None, "serving") if !door.is_open => {
                let why = usable::why_none(self.snapshot, listener);
                json!({"since": seconds(door.since), "why": why})
            }
            (None, _) => Value::Null,
        }
    }

    pub(super) fn pools(&self) -> Value {
        let mut leaving: BTreeMap<PoolId, Vec<BackendId>> = BTreeMap::new();
        for (id, backend) in self.snapshot.leaving_backends() {
            if self.shared.active(id) > 0 {
                leaving.entry(backend.pool).or_default().push(id);
            }
        }
        let is_gone =
            |id: &&PoolId| self.snapshot.pools[id.index()].standing != Standing::Configured;
        let order = self
            .snapshot
            .pool_order
            .iter()
            .chain(leaving.keys().filter(is_gone));
        let each = order.map(|id| {
            let pool = &self.snapshot.pools[id.index()];
            let left = leaving.get(id).into_iter().flatten();
            let backends = pool.backends.iter().chain(left);
            let backends: Vec<Value> = backends.map(|id| self.backend(*id)).collect();
            json!({
                "name": &*pool.name, "removed": pool.standing != Standing::Configured,
                "balance": pool.balance.as_str(), "backends": backends,
                "sources_absent": absent(&pool.sources),
            })
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
        let avoiding = counters::avoiding(self.cells, id, self.clock.now());
        let health = self.health(id, avoiding > 0);
        let placed = self.shared.active(id);
        let full = backend.max_sessions.filter(|most| placed >= *most);
        let why_full = || full.map(|most| format!("it has its max_sessions of {most}"));
        let ramps = Time::from_micros(self.max(|cells| cells.backend(id).ramp_until.get()));
        let has_ramps = self.snapshot.pools[backend.pool.index()]
            .balance
            .has_ramps();
        json!({
            "pool": &*self.snapshot.pools[backend.pool.index()].name,
            "name": &*backend.name,
            "address": backend.address.as_ref().map(BackendAddress::to_string),
            "added_by": if notes.is_added { "operator" } else { "file" },
            "removed": backend.standing != Standing::Configured,
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
            "not_as_in_file": not_as_in_file(backend, notes),
            "takes_sessions": backend.takes_sessions() && full.is_none(),
            "why_not": why_not(backend).or_else(why_full),
            "slow_start_until": (has_ramps && ramps > self.clock.now())
                .then(|| seconds(self.clock.system_time(ramps))),
            "sessions_active": sum(|cells| cells.sessions_active.get()),
            "sessions_placed": placed,
            "max_sessions": backend.max_sessions,
            "max_sessions_by": notes.max_sessions.by(),
            "max_sessions_since": seconds(notes.max_sessions.since),
            "sessions_total": sum(|cells| cells.sessions_total.get()),
            "source_ports": self.source_ports(id),
            "bytes_to_backend": sum(|cells| cells.given.get(Direction::ToBackend)),
            "bytes_to_client": sum(|cells| cells.given.get(Direction::ToClient)),
            "connect_failures_total": sum(|cells| cells.connect_failures_total.get()),
            "connect_duration_seconds": self.took(id, |usage| &usage.connect),
            "first_byte_duration_seconds": self.took(id, |usage| &usage.first_byte),
            "flows_active": sum(|cells| cells.flows_active.get()),
            "flows_total": sum(|cells| cells.flows_total.get()),
            "flows_expired_total": sum(|cells| cells.flows_expired_total.get()),
            "datagrams_sent": sum(|cells| cells.sent.datagrams.get()),
            "datagrams_received": sum(|cells| cells.received.datagrams.get()),
            "bytes_sent": sum(|cells| cells.sent.bytes.get()),
            "bytes_received": sum(|cells| cells.received.bytes.get()),
        })
    }
}

impl View<'_> {
    /// How often something of a backend's sessions took how long, all together.
    fn took(&self, id: BackendId, of: fn(&Usage) -> &Histogram) -> Value {
        let mut counts = Counts::new(&LATENCIES);
        let usages = self.cells.iter();
        for usage in usages.filter_map(|cells| cells.backend(id).usage_so_far()) {
            counts.add(of(usage));
        }
        json!({"count": counts.count(), "sum": counts.sum_seconds()})
    }

    /// Null for a unix socket and for a name that is not resolved.
    pub(super) fn source_ports(&self, id: BackendId) -> Value {
        self.ports[id.index()].map_or(Value::Null, |ports| {
            let of = self.ports_each.map(|each| u64::from(each) * ports.sources);
            json!({"used": ports.used, "of": of})
        })
    }

    /// When the sessions of a backend that drains end, if they are to.
    fn drain_until(&self, id: BackendId) -> Option<SystemTime> {
        self.alarms.at(Alarm::Drained(id)).map(system_time)
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
                    "since": seconds(self.clock.system_time(change.at)),
                    "why": change.why,
                })
            })
            .collect();
        let last = history.last();
        let is_probed = self.snapshot.pools[backend.pool.index()]
            .probe
            .check
            .is_some();
        let is_left = backend.standing != Standing::Configured;
        let probes_are_due = is_probed && !is_left && backend.state != OperatorState::Maintenance;
        let is_down = backend.address.is_none() || backend.is_up == Some(false);
        let why = match (&backend.address, is_avoided && !is_down) {
            // What was known is history.
            _ if is_probed && !probes_are_due => Value::Null,
            (None, _) => json!(self.notes[id.index()].why_unresolved()),
            (Some(_), true) => json!("connects of sessions fail: others are preferred for now"),
            (Some(_), false) => last.map_or(Value::Null, |last| last["why"].clone()),
        };
        let hindered = self.watch.health(id).hindered().map(|hindrance| {
            json!({
                "since": seconds(self.clock.system_time(hindrance.since)),
                "why": hindrance.why,
            })
        });
        json!({
            "state": if is_down { "down" } else { state(backend.is_up.or((!is_probed).then_some(true))) },
            "since": last.map(|last| last["since"].clone()),
            "why": why,
            "last_probe_failed": self.watch.health(id).wrong().filter(|_| probes_are_due),
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

/// The keys that an operator has changed at runtime.
fn not_as_in_file(backend: &Backend, notes: &Notes) -> Value {
    let file = &notes.file;
    let keys = [
        ("state", backend.state != file.state),
        ("weight", backend.weight != file.weight),
        ("max_sessions", backend.max_sessions != file.max_sessions),
    ];
    let changed = keys.iter().filter(|(_, is_changed)| *is_changed);
    changed.map(|(key, _)| json!(key)).collect()
}

/// Those that this host does not have now.
pub(super) fn absent(sources: &[IpAddr]) -> Vec<IpAddr> {
    let is_absent = |source: &&IpAddr| {
        let bind = Bind::Address(SocketAddr::new(**source, 0));
        check_free(bind, false).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    };
    sources.iter().filter(is_absent).copied().collect()
}

fn system_time(at: Instant) -> SystemTime {
    SystemTime::now() + at.saturating_duration_since(Instant::now())
}

/// Why a backend takes no new sessions although its health is good, in words.
fn why_not(backend: &Backend) -> Option<String> {
    match (backend.state, backend.weight) {
        _ if backend.standing != Standing::Configured => {
            Some("it has left the configuration".to_owned())
        }
        (OperatorState::Drain | OperatorState::Maintenance, _) => {
            Some(format!("the operator says {}", backend.state.as_str()))
        }
        (OperatorState::Ready, 0) => Some("its weight is 0".to_owned()),
        // Its health says why.
        (OperatorState::Ready, _) => None,
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
