//! The counters of all workers as one JSON object, for SIGUSR1 and the last line of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::datagrams::Datagrams;
use super::gone::Gone;
use super::snapshot::{Protocol, Snapshot};
use crate::flow::Loss;
use crate::ids::{BackendId, ListenerId};
use crate::metrics::{ListenerCells, WorkerCells};
use crate::session::{CloseReason, Direction};
use crate::time::Time;

pub(super) fn as_json(
    snapshot: &Snapshot,
    cells: &[Arc<WorkerCells>],
    gone: &Gone,
    datagrams: &Datagrams,
    now: Time,
) -> Value {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, value) in cells.iter().flat_map(|cells| cells.named()) {
        *sums.entry(name).or_default() += value;
    }
    let mut all: Map<String, Value> = Map::new();
    let mut accept_errors = Map::new();
    for (name, value) in sums {
        match name.strip_prefix("accept_errors_") {
            Some(kind) => drop(accept_errors.insert(kind.to_uppercase(), json!(value))),
            None => drop(all.insert(name.to_owned(), json!(value))),
        }
    }
    for (name, direction) in [
        ("bytes_to_backend", Direction::ToBackend),
        ("bytes_to_client", Direction::ToClient),
    ] {
        let each = cells.iter().flat_map(|cells| cells.listeners.iter());
        let each = each.chain([gone.of_listeners()]);
        let bytes: u64 = each.map(|listener| listener.given.get(direction)).sum();
        all.insert(name.to_owned(), json!(bytes));
    }
    all.insert("workers".to_owned(), json!(cells.len()));
    all.insert("accept_errors".to_owned(), Value::Object(accept_errors));
    all.insert("ends".to_owned(), session_ends(cells));
    all.insert("flow_ends".to_owned(), flow_ends(cells, gone));
    all.insert(
        "listeners".to_owned(),
        listeners(snapshot, cells, datagrams),
    );
    all.insert(
        "per_worker".to_owned(),
        cells.iter().map(|cells| per_worker(cells)).collect(),
    );
    all.insert("backends".to_owned(), backends(snapshot, cells, now));
    Value::Object(all)
}

/// How many sessions ended for each reason that occurred.
pub(super) fn session_ends(cells: &[Arc<WorkerCells>]) -> Value {
    ends(cells, |cells, reason| cells.ends.get(reason))
}

/// The same of flows.
pub(super) fn flow_ends(cells: &[Arc<WorkerCells>], gone: &Gone) -> Value {
    occurred(|reason| {
        let each = cells.iter().flat_map(|cells| cells.listeners.iter());
        let each = each.chain([gone.of_listeners()]);
        each.map(|listener| listener.flow_ends.get(reason)).sum()
    })
}

fn ends(cells: &[Arc<WorkerCells>], count: impl Fn(&WorkerCells, CloseReason) -> u64) -> Value {
    occurred(|reason| cells.iter().map(|cells| count(cells, reason)).sum())
}

fn occurred(count: impl Fn(CloseReason) -> u64) -> Value {
    let mut occurred: Map<String, Value> = Map::new();
    for reason in CloseReason::ALL {
        match count(*reason) {
            0 => {}
            count => drop(occurred.insert(reason.as_str().to_owned(), json!(count))),
        }
    }
    Value::Object(occurred)
}

/// UDP listeners only.
fn listeners(snapshot: &Snapshot, cells: &[Arc<WorkerCells>], datagrams: &Datagrams) -> Value {
    let all = snapshot.listeners_in_order();
    let udp = all.filter(|(_, listener)| listener.protocol == Protocol::Udp);
    udp.map(|(id, listener)| {
        let mut traffic = of_listener(cells, id, datagrams);
        traffic["name"] = json!(&*listener.name);
        traffic
    })
    .collect()
}

/// The datagrams of a UDP listener.
pub(super) fn of_listener(
    cells: &[Arc<WorkerCells>],
    id: ListenerId,
    datagrams: &Datagrams,
) -> Value {
    let sum = |read: &dyn Fn(&ListenerCells) -> u64| {
        let each = cells.iter().map(|cells| read(cells.listener(id)));
        each.sum::<u64>()
    };
    let mut lost: Map<String, Value> = Map::new();
    for loss in Loss::ALL {
        let count = sum(&|cells| cells.lost[loss.index()].get());
        if count > 0 {
            lost.insert(loss.as_str().to_owned(), json!(count));
        }
    }
    let overflows = datagrams.overflows(id);
    if overflows > 0 {
        lost.insert("overflow".to_owned(), json!(overflows));
    }
    json!({
        "flows_total": sum(&|cells| cells.flows_total.get()),
        "flow_ends": ends(cells, |cells, reason| cells.listener(id).flow_ends.get(reason)),
        "datagrams_received": sum(&|cells| cells.received.datagrams.get()),
        "bytes_received": sum(&|cells| cells.received.bytes.get()),
        "datagrams_sent": sum(&|cells| cells.sent.datagrams.get()),
        "bytes_sent": sum(&|cells| cells.sent.bytes.get()),
        "datagrams_lost": lost,
    })
}

fn per_worker(cells: &WorkerCells) -> Value {
    json!({
        "sessions_active": cells.sessions_active.get(),
        "sessions_total": cells.sessions_total.get(),
        "accepts_total": cells.accepts_total.get(),
        "flows_active": cells.flows_active.get(),
        "flows_total": cells.flows_total.get(),
    })
}

/// How many workers prefer others to a backend.
pub(super) fn avoiding(cells: &[Arc<WorkerCells>], id: BackendId, now: Time) -> usize {
    let avoids =
        |cells: &&Arc<WorkerCells>| Time::from_micros(cells.backend(id).avoided_until.get()) > now;
    cells.iter().filter(avoids).count()
}

fn backends(snapshot: &Snapshot, cells: &[Arc<WorkerCells>], now: Time) -> Value {
    let all = snapshot.backends_in_order();
    let each = all.map(|(id, backend)| {
        let sum = |read: fn(&crate::metrics::BackendCells) -> u64| {
            cells
                .iter()
                .map(|cells| read(cells.backend(id)))
                .sum::<u64>()
        };
        json!({
            "pool": &*snapshot.pools[backend.pool.index()].name,
            "name": &*backend.name,
            "sessions_active": sum(|cells| cells.sessions_active.get()),
            "sessions_total": sum(|cells| cells.sessions_total.get()),
            "connect_failures_total": sum(|cells| cells.connect_failures_total.get()),
            "avoided": avoiding(cells, id, now),
            "flows_active": sum(|cells| cells.flows_active.get()),
            "flows_total": sum(|cells| cells.flows_total.get()),
            "flows_expired_total": sum(|cells| cells.flows_expired_total.get()),
            "datagrams_sent": sum(|cells| cells.sent.datagrams.get()),
            "bytes_sent": sum(|cells| cells.sent.bytes.get()),
            "datagrams_received": sum(|cells| cells.received.datagrams.get()),
            "bytes_received": sum(|cells| cells.received.bytes.get()),
        })
    });
    each.collect()
}
