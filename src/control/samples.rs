//! What there is to measure, as samples for Prometheus. It only reads; the list of metrics says what each means.

use std::collections::HashMap;
use std::sync::Arc;

use super::snapshot::{Backend, Listener, OperatorState, Pool, Protocol};
use super::status::View;
use crate::flow::Loss;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::metrics::exposition::{Label, Samples};
use crate::metrics::list::{Metric, SHOWN_MAX};
use crate::metrics::{BackendCells, Counts, Histogram, LATENCIES, LIVES, Usage, WorkerCells};
use crate::session::{CloseReason, Direction};

/// In the order of [`Direction::BOTH`].
const DIRECTIONS: [(Direction, &str); 2] = [
    (Direction::ToBackend, "to_backend"),
    (Direction::ToClient, "to_client"),
];

/// Reads a number of a worker.
type Read = fn(&WorkerCells) -> u64;
/// Reads a number of a backend on a worker.
type ReadBackend = fn(&BackendCells) -> u64;

/// Of each worker.
const OF_WORKERS: [(Metric, Read); 16] = [
    (Metric::WorkerTurns, |cells| cells.turns_total.get()),
    (Metric::WorkerSessionsActive, |cells| {
        cells.sessions_active.get()
    }),
    (Metric::WorkerFlowsActive, |cells| cells.flows_active.get()),
    (Metric::WorkerRingOverflows, |cells| {
        cells.cq_overflows_total.get()
    }),
    (Metric::WorkerStaleCompletions, |cells| {
        cells.stale_completions_total.get()
    }),
    (Metric::WorkerMailboxFull, |cells| {
        cells.mailbox_full_total.get()
    }),
    (Metric::WorkerBuffers, |cells| cells.buffers_total.get()),
    (Metric::WorkerBuffersFree, |cells| cells.buffers_free.get()),
    (Metric::WorkerStarved, |cells| cells.starved_total.get()),
    (Metric::WorkerPipes, |cells| cells.pipes_total.get()),
    (Metric::WorkerPipesFree, |cells| cells.pipes_free.get()),
    (Metric::WorkerPipesUnavailable, |cells| {
        cells.pipes_unavailable_total.get()
    }),
    (Metric::WorkerSpill, |cells| cells.spill_bytes.get()),
    (Metric::WorkerDatagramBuffers, |cells| {
        cells.datagram_buffers_total.get()
    }),
    (Metric::WorkerDatagramBuffersFree, |cells| {
        cells.datagram_buffers_free.get()
    }),
    (Metric::WorkerDatagramsStarved, |cells| {
        cells.datagrams_starved_total.get()
    }),
];

/// Of all workers together.
const OF_ALL: [(Metric, Read); 10] = [
    (Metric::SessionsActive, |cells| cells.sessions_active.get()),
    (Metric::Sessions, |cells| cells.sessions_total.get()),
    (Metric::FlowsActive, |cells| cells.flows_active.get()),
    (Metric::Flows, |cells| cells.flows_total.get()),
    (Metric::Accepts, |cells| cells.accepts_total.get()),
    (Metric::AcceptsWaiting, |cells| cells.accepts_parked.get()),
    (Metric::AcceptsRefused, |cells| {
        cells.accepts_refused_total.get()
    }),
    (Metric::Adoptions, |cells| cells.adoptions_total.get()),
    (Metric::SourcesExhausted, |cells| {
        cells.sources_exhausted_total.get()
    }),
    (Metric::SourcesAbsent, |cells| {
        cells.sources_absent_total.get()
    }),
];

const ACCEPT_ERRORS: [(&str, Read); 4] = [
    ("emfile", |cells| cells.accept_errors_emfile.get()),
    ("enfile", |cells| cells.accept_errors_enfile.get()),
    ("memory", |cells| cells.accept_errors_memory.get()),
    ("other", |cells| cells.accept_errors_other.get()),
];

/// Of each backend.
const OF_BACKENDS: [(Metric, ReadBackend); 5] = [
    (Metric::BackendSessionsActive, |cells| {
        cells.sessions_active.get()
    }),
    (Metric::BackendSessions, |cells| cells.sessions_total.get()),
    (Metric::BackendConnectFailures, |cells| {
        cells.connect_failures_total.get()
    }),
    (Metric::BackendFlowsActive, |cells| cells.flows_active.get()),
    (Metric::BackendFlows, |cells| cells.flows_total.get()),
];

/// Of each pool, summed over its backends.
const OF_POOLS: [(Metric, ReadBackend); 3] = [
    (Metric::PoolConnectFailures, |cells| {
        cells.connect_failures_total.get()
    }),
    (Metric::PoolFlowsActive, |cells| cells.flows_active.get()),
    (Metric::PoolFlows, |cells| cells.flows_total.get()),
];

/// What the sessions of backends were like, on all workers together.
struct Usages {
    connect: Counts,
    first_byte: Counts,
    duration: Counts,
}

impl Usages {
    fn new() -> Usages {
        Usages {
            connect: Counts::new(&LATENCIES),
            first_byte: Counts::new(&LATENCIES),
            duration: Counts::new(&LIVES),
        }
    }

    fn add(&mut self, usage: &Usage) {
        let of = |counts: &mut Counts, histogram: &Histogram| counts.add(histogram);
        of(&mut self.connect, &usage.connect);
        of(&mut self.first_byte, &usage.first_byte);
        of(&mut self.duration, &usage.duration);
    }
}

impl View<'_> {
    /// Everything, but for what the process itself uses.
    pub(super) fn samples(&self) -> Samples {
        let mut out = Samples::default();
        self.of_process(&mut out);
        self.of_workers(&mut out);
        let listeners = self.snapshot.listeners_in_order();
        for (id, listener) in listeners.take(SHOWN_MAX) {
            self.of_listener(id, listener, &mut out);
        }
        let mut leaving: HashMap<PoolId, Vec<BackendId>> = HashMap::new();
        for (id, backend) in self.snapshot.leaving_backends() {
            leaving.entry(backend.pool).or_default().push(id);
        }
        let pools = self.snapshot.pools_in_order();
        for (id, pool) in pools.take(SHOWN_MAX) {
            let left = leaving.remove(&id).unwrap_or_default();
            self.of_pool(id, pool, &left, &mut out);
        }
        let backends = self.snapshot.backends_in_order();
        for (id, backend) in backends.take(SHOWN_MAX) {
            self.of_backend(id, backend, &mut out);
        }
        if let Some(vrrp) = self.vrrp {
            vrrp.sample(&mut out);
        }
        out
    }

    fn of_process(&self, out: &mut Samples) {
        out.add(Metric::BuildInfo, [env!("CARGO_PKG_VERSION").into()], 1);
        out.add(Metric::ConfigInfo, [self.config_hash.into()], 1);
        let begun = self.clock.system_time(crate::time::Time::ZERO);
        if let Ok(since) = begun.duration_since(std::time::UNIX_EPOCH) {
            out.add_seconds(Metric::ProcessStart, [], since.as_secs_f64());
        }
        out.add(Metric::EventsLost, [], self.events_lost);
        out.add(Metric::AccessLinesLost, [], self.access_lost);
        out.add(Metric::ConfigGeneration, [], self.snapshot.generation);
        self.reloads.sample(out);
        let phases = ["starting", "serving", "draining", "ending"];
        out.add_states(Metric::Phase, &[], &phases, self.phase);
        for (of, count) in [
            ("listeners", self.snapshot.listener_order.len()),
            ("pools", self.snapshot.pool_order.len()),
            ("backends", self.snapshot.backends_in_order().count()),
        ] {
            let omitted = count.saturating_sub(SHOWN_MAX) as u64;
            out.add(Metric::SeriesOmitted, [of.into()], omitted);
        }
        for (metric, read) in OF_ALL {
            out.add(metric, [], self.sum(read));
        }
        out.add(Metric::SessionsMax, [], u64::from(self.max_sessions));
        out.add(Metric::FlowsMax, [], u64::from(self.max_flows));
        for (error, read) in ACCEPT_ERRORS {
            out.add(Metric::AcceptErrors, [error.into()], self.sum(read));
        }
        for reason in CloseReason::ALL {
            let sum = self.sum(|cells| cells.ends.get(*reason));
            out.add(Metric::SessionEnds, [reason.as_str().into()], sum);
        }
    }

    fn of_workers(&self, out: &mut Samples) {
        for (number, cells) in self.cells.iter().enumerate() {
            let worker = Label::Name(Arc::from(number.to_string()));
            for (metric, read) in OF_WORKERS {
                out.add(metric, [worker.clone()], read(cells));
            }
        }
    }

    fn of_listener(&self, id: ListenerId, listener: &Listener, out: &mut Samples) {
        let name = || Label::from(&listener.name);
        let door = self.doors[id.index()];
        let is_open = door.is_open && self.phase == "serving";
        out.add(Metric::ListenerOpen, [name()], u64::from(is_open));
        out.add(Metric::ListenerShut, [name()], door.shut_total);
        let active = u64::from(self.shared.sessions_of(id));
        match listener.protocol {
            Protocol::Tcp => {
                out.add(Metric::ListenerSessionsActive, [name()], active);
                let total = self.sum(|cells| cells.listener(id).sessions_total.get());
                out.add(Metric::ListenerSessions, [name()], total);
                for (direction, word) in DIRECTIONS {
                    let bytes = self.sum(|cells| cells.listener(id).given.get(direction));
                    out.add(Metric::ListenerBytes, [name(), word.into()], bytes);
                }
            }
            Protocol::Udp => {
                out.add(Metric::ListenerFlowsActive, [name()], active);
                let total = self.sum(|cells| cells.listener(id).flows_total.get());
                out.add(Metric::ListenerFlows, [name()], total);
                for reason in CloseReason::ALL {
                    let ends = self.sum(|cells| cells.listener(id).flow_ends.get(*reason));
                    let labels = [name(), reason.as_str().into()];
                    out.add(Metric::ListenerFlowEnds, labels, ends);
                }
                self.of_datagrams(id, &name, out);
            }
        }
    }

    fn of_datagrams(&self, id: ListenerId, name: &dyn Fn() -> Label, out: &mut Samples) {
        for (direction, word) in DIRECTIONS {
            let traffic = |cells: &WorkerCells| {
                let cells = cells.listener(id);
                let traffic = match direction {
                    Direction::ToBackend => &cells.received,
                    Direction::ToClient => &cells.sent,
                };
                (traffic.datagrams.get(), traffic.bytes.get())
            };
            let labels = || [name(), word.into()];
            let datagrams = self.sum(|cells| traffic(cells).0);
            out.add(Metric::ListenerDatagrams, labels(), datagrams);
            let bytes = self.sum(|cells| traffic(cells).1);
            out.add(Metric::ListenerDatagramBytes, labels(), bytes);
        }
        for loss in Loss::ALL {
            let lost = self.sum(|cells| cells.listener(id).lost[loss.index()].get());
            let labels = [name(), loss.as_str().into()];
            out.add(Metric::ListenerDatagramsLost, labels, lost);
        }
        let overflows = self.datagrams.overflows(id);
        out.add(
            Metric::ListenerDatagramsLost,
            [name(), "overflow".into()],
            overflows,
        );
    }

    /// What its backends have counted that leave, or are gone, is counted on.
    fn of_pool(&self, id: PoolId, pool: &Pool, left: &[BackendId], out: &mut Samples) {
        let name = || Label::from(&pool.name);
        let backends = || pool.backends.iter().chain(left).copied();
        let gone = self.gone.of_pool(id);
        let is_usable = |id: &BackendId| self.snapshot.backends[id.index()].takes_sessions();
        let usable = pool.backends.iter().filter(|id| is_usable(id)).count();
        out.add(Metric::PoolBackends, [name()], pool.backends.len() as u64);
        out.add(Metric::PoolBackendsUsable, [name()], usable as u64);
        let active = self.sum(|cells| cells.pool(id).sessions_active.get());
        out.add(Metric::PoolSessionsActive, [name()], active);
        let total = self.sum(|cells| cells.pool(id).sessions_total.get());
        out.add(Metric::PoolSessions, [name()], total);
        let retries = self.sum(|cells| cells.pool(id).connect_retries_total.get());
        out.add(Metric::PoolConnectRetries, [name()], retries);
        for reason in CloseReason::ALL {
            let ends = self.sum(|cells| cells.pool(id).ends.get(*reason));
            out.add(
                Metric::PoolSessionEnds,
                [name(), reason.as_str().into()],
                ends,
            );
        }
        for (direction, word) in DIRECTIONS {
            let bytes: u64 = backends().map(|id| self.bytes(id, direction)).sum();
            let before = gone.map_or(0, |gone| gone.given.get(direction));
            out.add(Metric::PoolBytes, [name(), word.into()], before + bytes);
        }
        for (metric, read) in OF_POOLS {
            let sum = |id| self.sum(|cells| read(cells.backend(id)));
            let before = gone.map_or(0, read);
            out.add(metric, [name()], before + backends().map(sum).sum::<u64>());
        }
        let mut usages = Usages::new();
        let before = gone.and_then(BackendCells::usage_so_far);
        before.into_iter().for_each(|usage| usages.add(usage));
        for id in backends() {
            self.usages(id).for_each(|usage| usages.add(usage));
        }
        out.add_counts(Metric::PoolConnect, [name()], usages.connect);
        out.add_counts(Metric::PoolFirstByte, [name()], usages.first_byte);
        out.add_counts(Metric::PoolDuration, [name()], usages.duration);
    }

    fn bytes(&self, id: BackendId, direction: Direction) -> u64 {
        self.sum(|cells| cells.backend(id).given.get(direction))
    }

    fn usages(&self, id: BackendId) -> impl Iterator<Item = &Usage> {
        let cells = self.cells.iter();
        cells.filter_map(move |cells| cells.backend(id).usage_so_far())
    }

    fn of_backend(&self, id: BackendId, backend: &Backend, out: &mut Samples) {
        let pool = &self.snapshot.pools[backend.pool.index()].name;
        let name = || [Label::from(pool), Label::from(&backend.name)];
        let with = |word: &'static str| {
            let [pool, backend] = name();
            [pool, backend, Label::Word(word)]
        };
        let is_up = backend.address.is_some() && backend.is_up.unwrap_or(!backend.is_probed);
        out.add(Metric::BackendUp, name(), u64::from(is_up));
        let is_usable = u64::from(backend.takes_sessions());
        out.add(Metric::BackendUsable, name(), is_usable);
        let states = OperatorState::ALL.map(OperatorState::as_str);
        let now = backend.state.as_str();
        out.add_states(Metric::BackendState, &name(), &states, now);
        out.add(Metric::BackendWeight, name(), u64::from(backend.weight));
        if let Some(most) = backend.max_sessions {
            out.add(Metric::BackendSessionsMax, name(), u64::from(most));
        }
        for (metric, read) in OF_BACKENDS {
            let sum = self.sum(|cells| read(cells.backend(id)));
            out.add(metric, name(), sum);
        }
        for (direction, word) in DIRECTIONS {
            out.add(Metric::BackendBytes, with(word), self.bytes(id, direction));
            let traffic = |cells: &WorkerCells| {
                let cells = cells.backend(id);
                let traffic = match direction {
                    Direction::ToBackend => &cells.sent,
                    Direction::ToClient => &cells.received,
                };
                (traffic.datagrams.get(), traffic.bytes.get())
            };
            let datagrams = self.sum(|cells| traffic(cells).0);
            out.add(Metric::BackendDatagrams, with(word), datagrams);
            let bytes = self.sum(|cells| traffic(cells).1);
            out.add(Metric::BackendDatagramBytes, with(word), bytes);
        }
        self.of_usage(id, &name, out);
        self.of_probes(id, &name, out);
    }

    fn of_usage(&self, id: BackendId, name: &dyn Fn() -> [Label; 2], out: &mut Samples) {
        if self.usages(id).next().is_none() {
            return;
        }
        let mut usages = Usages::new();
        self.usages(id).for_each(|usage| usages.add(usage));
        out.add_counts(Metric::BackendConnect, name(), usages.connect);
        out.add_counts(Metric::BackendFirstByte, name(), usages.first_byte);
        out.add_counts(Metric::BackendDuration, name(), usages.duration);
        for reason in CloseReason::ALL {
            let ends: u64 = self.usages(id).map(|usage| usage.ends.get(*reason)).sum();
            if ends > 0 {
                let [pool, backend] = name();
                let labels = [pool, backend, reason.as_str().into()];
                out.add(Metric::BackendSessionEnds, labels, ends);
            }
        }
    }

    fn of_probes(&self, id: BackendId, name: &dyn Fn() -> [Label; 2], out: &mut Samples) {
        let probes = self.watch.probes(id);
        for (result, count) in [
            ("success", probes.succeeded),
            ("failure", probes.failed),
            ("hindered", probes.hindered),
        ] {
            let [pool, backend] = name();
            out.add(Metric::BackendProbes, [pool, backend, result.into()], count);
        }
        if let Some(has_succeeded) = probes.has_last_succeeded {
            out.add(
                Metric::BackendProbeSuccess,
                name(),
                u64::from(has_succeeded),
            );
        }
        if let Some(took) = probes.last_took {
            out.add_seconds(Metric::BackendProbeDuration, name(), took.as_secs_f64());
        }
    }
}
