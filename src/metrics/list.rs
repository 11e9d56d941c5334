//! The list of metrics: what is served to Prometheus, and what it means. The page in `conf/metrics.md` is made from it.

use std::fmt::Write;

/// Listeners, pools and backends have series of their own up to so many of each, in the order of the file. What is
/// beyond counts in the pools and in the sums of the process, and [`Metric::SeriesOmitted`] says how many it is.
pub const SHOWN_MAX: usize = 1_000;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

impl Kind {
    /// The word of the exposition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What is known about a metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// With its unit, without the `_total` of a counter.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What each series of it has.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

impl Description {
    /// As it is queried: histograms by this name and `_bucket`, `_sum` or `_count`.
    #[must_use]
    pub fn queried(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

macro_rules! metrics {
    ($(#[doc = $help:literal] $variant:ident: $kind:ident $name:literal $labels:tt),+ $(,)?) => {
        /// All there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric { $(#[doc = $help] $variant),+ }

        impl Metric {
            /// In the order of the exposition.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),+];

            /// What is known about it.
            #[must_use]
            pub fn describe(self) -> Description {
                match self {
                    $(Metric::$variant => Description {
                        name: $name,
                        kind: Kind::$kind,
                        labels: &$labels,
                        help: $help.trim_ascii(),
                    }),+
                }
            }
        }
    };
}

metrics! {
    /// Always 1; which version runs.
    BuildInfo: Gauge "ringway_build_info" ["version"],
    /// Always 1; a hash of the text of the configuration file, the same on nodes that run the same file.
    ConfigInfo: Gauge "ringway_config_info" ["hash"],
    /// Number of the view that workers have: it grows with each change of a state, a weight or the configuration.
    ConfigGeneration: Gauge "ringway_config_generation" [],
    /// Reloads of the configuration file; those with the outcome failed have changed nothing.
    ConfigReloads: Counter "ringway_config_reloads" ["outcome"],
    /// 1 if the last reload of the configuration file has failed, 0 if it has not, or there was none.
    ConfigReloadFailed: Gauge "ringway_config_last_reload_failed" [],
    /// Keys of the configuration file that only a restart takes over.
    ConfigNeedsRestart: Gauge "ringway_config_keys_needing_restart" [],
    /// 1 for the phase that the process is in, 0 for the others: starting, serving, draining, ending.
    Phase: Gauge "ringway_phase" ["phase"],
    /// Listeners, pools or backends that are beyond the 1000 of each that have series of their own.
    SeriesOmitted: Gauge "ringway_series_omitted" ["of"],
    /// Events that subscribers have not got because they were too slow.
    EventsLost: Counter "ringway_events_lost" [],
    /// Lines of the access log that were lost: whoever reads it was too slow, or the file could not be written.
    AccessLinesLost: Counter "ringway_access_lines_lost" [],

    /// Processor time of the process.
    ProcessCpu: Counter "process_cpu_seconds" [],
    /// When the process began, in seconds since 1970.
    ProcessStart: Gauge "process_start_time_seconds" [],
    /// Memory that the process has in RAM.
    ProcessResident: Gauge "process_resident_memory_bytes" [],
    /// Address space of the process.
    ProcessVirtual: Gauge "process_virtual_memory_bytes" [],
    /// File descriptors in use.
    ProcessFds: Gauge "process_open_fds" [],
    /// File descriptors that the process may use (RLIMIT_NOFILE).
    ProcessFdsMax: Gauge "process_max_fds" [],
    /// Threads of the process.
    ProcessThreads: Gauge "process_threads" [],

    /// Sessions that live now.
    SessionsActive: Gauge "ringway_sessions_active" [],
    /// Most sessions at a time; beyond it clients wait in the kernel's backlog.
    SessionsMax: Gauge "ringway_sessions_max" [],
    /// Sessions begun.
    Sessions: Counter "ringway_sessions" [],
    /// Sessions ended, by reason.
    SessionEnds: Counter "ringway_session_ends" ["reason"],
    /// UDP flows that live now.
    FlowsActive: Gauge "ringway_flows_active" [],
    /// Most UDP flows at a time.
    FlowsMax: Gauge "ringway_flows_max" [],
    /// UDP flows begun.
    Flows: Counter "ringway_flows" [],
    /// Connections accepted from listeners.
    Accepts: Counter "ringway_accepts" [],
    /// Accepted connections that wait because the process has all the sessions it may have.
    AcceptsWaiting: Gauge "ringway_accepts_waiting" [],
    /// Of those, reset by a stop before there was room for them.
    AcceptsRefused: Counter "ringway_accepts_refused" [],
    /// Accepts that failed: for want of file descriptors (emfile, enfile), of memory, or because the client was gone.
    AcceptErrors: Counter "ringway_accept_errors" ["error"],
    /// Connections that another worker than the accepting one serves.
    Adoptions: Counter "ringway_adoptions" [],
    /// Connects that found no free port at their source address.
    SourcesExhausted: Counter "ringway_sources_exhausted" [],
    /// Connects whose source address this host did not have.
    SourcesAbsent: Counter "ringway_sources_absent" [],

    /// Processor time of a worker: its rate is the part of a CPU that it is busy.
    WorkerBusy: Counter "ringway_worker_busy_seconds" ["worker"],
    /// Turns of a worker's loop.
    WorkerTurns: Counter "ringway_worker_turns" ["worker"],
    /// Sessions of a worker that live now.
    WorkerSessionsActive: Gauge "ringway_worker_sessions_active" ["worker"],
    /// UDP flows of a worker that live now.
    WorkerFlowsActive: Gauge "ringway_worker_flows_active" ["worker"],
    /// Completions that found the queue of the ring full and waited in the kernel.
    WorkerRingOverflows: Counter "ringway_worker_ring_overflows" ["worker"],
    /// Completions for sessions that no longer exist: a mistake of Ringway.
    WorkerStaleCompletions: Counter "ringway_worker_stale_completions" ["worker"],
    /// Commands to other workers that found their mailbox full.
    WorkerMailboxFull: Counter "ringway_worker_mailbox_full" ["worker"],
    /// Receive buffers of a worker.
    WorkerBuffers: Gauge "ringway_worker_buffers" ["worker"],
    /// Of those, free.
    WorkerBuffersFree: Gauge "ringway_worker_buffers_free" ["worker"],
    /// Receives that found no free buffer and waited for one.
    WorkerStarved: Counter "ringway_worker_receives_starved" ["worker"],
    /// Splice pipes of a worker.
    WorkerPipes: Gauge "ringway_worker_pipes" ["worker"],
    /// Of those, free.
    WorkerPipesFree: Gauge "ringway_worker_pipes_free" ["worker"],
    /// Times that a session found no free pipe and went on without one.
    WorkerPipesUnavailable: Counter "ringway_worker_pipes_unavailable" ["worker"],
    /// Memory with data for peers that take no more for now.
    WorkerSpill: Gauge "ringway_worker_spill_bytes" ["worker"],
    /// Buffers for datagrams of a worker.
    WorkerDatagramBuffers: Gauge "ringway_worker_datagram_buffers" ["worker"],
    /// Of those, free.
    WorkerDatagramBuffersFree: Gauge "ringway_worker_datagram_buffers_free" ["worker"],
    /// Receives of datagrams that found no free buffer.
    WorkerDatagramsStarved: Counter "ringway_worker_datagrams_starved" ["worker"],

    /// 1 while clients are let in, 0 while the kernel refuses them because no backend is usable, or at a stop.
    ListenerOpen: Gauge "ringway_listener_open" ["listener"],
    /// Times that a listener was shut because no backend was usable.
    ListenerShut: Counter "ringway_listener_shut" ["listener"],
    /// Sessions of a listener that live now.
    ListenerSessionsActive: Gauge "ringway_listener_sessions_active" ["listener"],
    /// Sessions of a listener begun.
    ListenerSessions: Counter "ringway_listener_sessions" ["listener"],
    /// Bytes of a listener's sessions: to_backend or to_client.
    ListenerBytes: Counter "ringway_listener_bytes" ["listener", "direction"],
    /// UDP flows of a listener that live now.
    ListenerFlowsActive: Gauge "ringway_listener_flows_active" ["listener"],
    /// UDP flows of a listener begun.
    ListenerFlows: Counter "ringway_listener_flows" ["listener"],
    /// UDP flows of a listener ended, by reason.
    ListenerFlowEnds: Counter "ringway_listener_flow_ends" ["listener", "reason"],
    /// Datagrams: to_backend are those that came from clients, lost ones included, to_client those that went to them.
    ListenerDatagrams: Counter "ringway_listener_datagrams" ["listener", "direction"],
    /// Bytes of those datagrams.
    ListenerDatagramBytes: Counter "ringway_listener_datagram_bytes" ["listener", "direction"],
    /// Datagrams that were not forwarded, by reason.
    ListenerDatagramsLost: Counter "ringway_listener_datagrams_lost" ["listener", "reason"],

    /// Backends of a pool.
    PoolBackends: Gauge "ringway_pool_backends" ["pool"],
    /// Of those, backends that new sessions may go to; full ones included.
    PoolBackendsUsable: Gauge "ringway_pool_backends_usable" ["pool"],
    /// Sessions of a pool that live now, those that still connect included.
    PoolSessionsActive: Gauge "ringway_pool_sessions_active" ["pool"],
    /// Sessions of a pool begun.
    PoolSessions: Counter "ringway_pool_sessions" ["pool"],
    /// Sessions of a pool ended, by reason.
    PoolSessionEnds: Counter "ringway_pool_session_ends" ["pool", "reason"],
    /// Bytes of a pool's sessions: to_backend or to_client.
    PoolBytes: Counter "ringway_pool_bytes" ["pool", "direction"],
    /// Connects to a pool's backends that failed.
    PoolConnectFailures: Counter "ringway_pool_connect_failures" ["pool"],
    /// Connects after a failed one of the same session.
    PoolConnectRetries: Counter "ringway_pool_connect_retries" ["pool"],
    /// How long connects to a pool's backends took that succeeded.
    PoolConnect: Histogram "ringway_pool_connect_duration_seconds" ["pool"],
    /// From a client's first bytes (or the connect, if the backend speaks first) to the backend's first byte.
    PoolFirstByte: Histogram "ringway_pool_first_byte_duration_seconds" ["pool"],
    /// How long the sessions lived that have ended and were connected.
    PoolDuration: Histogram "ringway_pool_session_duration_seconds" ["pool"],
    /// UDP flows of a pool that live now.
    PoolFlowsActive: Gauge "ringway_pool_flows_active" ["pool"],
    /// UDP flows that were led to a pool's backends.
    PoolFlows: Counter "ringway_pool_flows" ["pool"],

    /// 1 if a backend is up or not probed, 0 if it is down or nothing is known yet.
    BackendUp: Gauge "ringway_backend_up" ["pool", "backend"],
    /// 1 if new sessions may go to a backend, as far as probes, the operator and its weight say.
    BackendUsable: Gauge "ringway_backend_usable" ["pool", "backend"],
    /// 1 for what the operator says about a backend, 0 for the others: ready, drain, maintenance.
    BackendState: Gauge "ringway_backend_state" ["pool", "backend", "state"],
    /// Weight of a backend.
    BackendWeight: Gauge "ringway_backend_weight" ["pool", "backend"],
    /// Most sessions of a backend, if it has a limit of its own.
    BackendSessionsMax: Gauge "ringway_backend_sessions_max" ["pool", "backend"],
    /// Sessions connected to a backend now.
    BackendSessionsActive: Gauge "ringway_backend_sessions_active" ["pool", "backend"],
    /// Sessions that were connected to a backend.
    BackendSessions: Counter "ringway_backend_sessions" ["pool", "backend"],
    /// Of those, ended ones by reason; only reasons that have occurred.
    BackendSessionEnds: Counter "ringway_backend_session_ends" ["pool", "backend", "reason"],
    /// Bytes of a backend's sessions: to_backend or to_client.
    BackendBytes: Counter "ringway_backend_bytes" ["pool", "backend", "direction"],
    /// Connects to a backend that failed.
    BackendConnectFailures: Counter "ringway_backend_connect_failures" ["pool", "backend"],
    /// How long connects to a backend took that succeeded; none before its first session.
    BackendConnect: Histogram "ringway_backend_connect_duration_seconds" ["pool", "backend"],
    /// From a client's first bytes (or the connect, if the backend speaks first) to its first byte.
    BackendFirstByte: Histogram "ringway_backend_first_byte_duration_seconds" ["pool", "backend"],
    /// How long the sessions lived that have ended and were connected to a backend.
    BackendDuration: Histogram "ringway_backend_session_duration_seconds" ["pool", "backend"],
    /// UDP flows of a backend that live now.
    BackendFlowsActive: Gauge "ringway_backend_flows_active" ["pool", "backend"],
    /// UDP flows that were led to a backend.
    BackendFlows: Counter "ringway_backend_flows" ["pool", "backend"],
    /// Datagrams to and from a backend.
    BackendDatagrams: Counter "ringway_backend_datagrams" ["pool", "backend", "direction"],
    /// Bytes of those datagrams.
    BackendDatagramBytes: Counter "ringway_backend_datagram_bytes" ["pool", "backend", "direction"],
    /// Probes of a backend: success, failure, or hindered by a reason of this host.
    BackendProbes: Counter "ringway_backend_probes" ["pool", "backend", "result"],
    /// 1 if the last probe of a backend succeeded, 0 if it failed.
    BackendProbeSuccess: Gauge "ringway_backend_probe_success" ["pool", "backend"],
    /// How long the last successful probe of a backend took.
    BackendProbeDuration: Gauge "ringway_backend_probe_duration_seconds" ["pool", "backend"],

    /// 1 for the state that a virtual router is in, 0 for the others: initialize, backup, active.
    RouterState: Gauge "ringway_virtual_router_state" ["virtual_router", "state"],
    /// 1 if this node is active or could take over, 0 if something is in the way.
    RouterReady: Gauge "ringway_virtual_router_ready" ["virtual_router"],
    /// Priority of this node now; the one of the file unless it is not well.
    RouterPriority: Gauge "ringway_virtual_router_priority" ["virtual_router"],
    /// Things that people should look at, as the status shows them.
    RouterAlarms: Gauge "ringway_virtual_router_alarms" ["virtual_router"],
    /// Times that this node became active.
    RouterTerms: Counter "ringway_virtual_router_terms" ["virtual_router"],
    /// Advertisements sent.
    RouterSent: Counter "ringway_virtual_router_advertisements_sent" ["virtual_router"],
    /// Advertisements that could not be sent.
    RouterSendFailures: Counter "ringway_virtual_router_send_failures" ["virtual_router"],
    /// Advertisements accepted.
    RouterAccepted: Counter "ringway_virtual_router_advertisements_accepted" ["virtual_router"],
    /// Advertisements not accepted, by reason.
    RouterRejected: Counter "ringway_virtual_router_advertisements_rejected" ["virtual_router", "reason"],
    /// Times that the thread that advertises came too late.
    RouterLoopsLate: Counter "ringway_virtual_router_loops_late" ["virtual_router"],
    /// Times that the lease of an address was renewed too late.
    RouterLeasesLate: Counter "ringway_virtual_router_leases_late" ["virtual_router"],
}

/// The list as a page in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = format!(
        "# Metrics\n\nMade by `ringway schema --metrics`. `/metrics` is served on `admin.socket`, on `admin.http` and \
         on `admin.metrics`, in the\ntext format of Prometheus, or of OpenMetrics for those who ask for it. Counters \
         begin at 0 with the process.\n\nNo more than {SHOWN_MAX} listeners, {SHOWN_MAX} pools and {SHOWN_MAX} \
         backends have series of their own, the first ones of the file;\n`ringway_series_omitted` says how many are \
         left out.\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    );
    for metric in Metric::ALL {
        let described = metric.describe();
        let labels = described.labels.join(", ");
        let (name, kind) = (described.queried(), described.kind.as_str());
        writeln!(
            page,
            "| `{name}` | {kind} | {labels} | {} |",
            described.help
        )
        .expect("a string takes everything");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut names: Vec<&str> = Metric::ALL.iter().map(|one| one.describe().name).collect();
        for metric in Metric::ALL {
            let described = metric.describe();
            let name = described.name;
            assert!(
                name.starts_with("ringway_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                !name.ends_with("_total"),
                "{name}: the exposition appends it"
            );
            let is_time = name.ends_with("_seconds");
            assert!(
                described.kind != Kind::Histogram || is_time,
                "{name} has no unit"
            );
            assert!(described.help.ends_with('.'), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
