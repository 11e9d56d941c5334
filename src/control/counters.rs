//! The counters of all workers as one JSON object, for SIGUSR1 and the last line of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;
use crate::ids::BackendId;
use crate::metrics::WorkerCells;
use crate::session::CloseReason;
use crate::time::Time;

pub(super) fn as_json(snapshot: &Snapshot, cells: &[Arc<WorkerCells>], now: Time) -> Value {
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
    all.insert("workers".to_owned(), json!(cells.len()));
    all.insert("accept_errors".to_owned(), Value::Object(accept_errors));
    all.insert("ends".to_owned(), ends(cells));
    all.insert(
        "per_worker".to_owned(),
        cells.iter().map(|cells| per_worker(cells)).collect(),
    );
    all.insert("backends".to_owned(), backends(snapshot, cells, now));
    Value::Object(all)
}

/// How many sessions ended for each reason that occurred.
pub(super) fn ends(cells: &[Arc<WorkerCells>]) -> Value {
    let count = |reason: &CloseReason| {
        cells
            .iter()
            .map(|cells| cells.ends[reason.index()].get())
            .sum::<u64>()
    };
    let occurred = CloseReason::ALL
        .iter()
        .map(|reason| (reason.as_str(), count(reason)))
        .filter(|(_, count)| *count > 0);
    Value::Object(
        occurred
            .map(|(word, count)| (word.to_owned(), json!(count)))
            .collect(),
    )
}

fn per_worker(cells: &WorkerCells) -> Value {
    json!({
        "sessions_active": cells.sessions_active.get(),
        "sessions_total": cells.sessions_total.get(),
        "accepts_total": cells.accepts_total.get(),
    })
}

/// How many workers prefer others to a backend.
pub(super) fn avoiding(cells: &[Arc<WorkerCells>], id: BackendId, now: Time) -> usize {
    let avoids =
        |cells: &&Arc<WorkerCells>| Time::from_micros(cells.backend(id).avoided_until.get()) > now;
    cells.iter().filter(avoids).count()
}

fn backends(snapshot: &Snapshot, cells: &[Arc<WorkerCells>], now: Time) -> Value {
    let each = snapshot
        .backends
        .iter()
        .zip((0..).map(BackendId))
        .map(|(backend, id)| {
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
            })
        });
    each.collect()
}
