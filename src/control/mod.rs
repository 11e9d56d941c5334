//! The control plane: one thread that owns the truth. It binds the listeners, starts the workers, answers signals and
//! ends everything in order. It relays no byte, and never waits for a worker before it serves somebody else.

mod additions;
mod alarms;
pub mod bounds;
mod counters;
mod datagrams;
mod difference;
mod gone;
mod journal;
mod listeners;
mod memory;
mod names;
mod operator;
mod options;
mod phases;
pub(crate) mod ports;
mod reconcile;
mod reload;
mod requests;
mod samples;
mod service;
mod signals;
pub mod snapshot;
mod status;
mod usable;
mod vrrp;
mod warnings;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, interval, sleep_until};

use crate::access::Sink;
use crate::admin;
use crate::health::prober::{Outcome, Wrong};
use crate::ids::{BackendId, WorkerId};
use crate::metrics::WorkerCells;
use crate::notify::Notify;
use crate::privileges;
use crate::ring::{self, ReceiveTier, SetupError};
use crate::sys::clock::Clock;
use crate::sys::host;
use crate::time::Time;
use crate::worker::{Command, Letterbox, Limits, Mailbox, Parts, Report, Shared, Worker};

pub use options::{Embedded, LevelSwitch, Options, Source};

use alarms::{Alarm, Alarms};
use bounds::{Bounds, Demand};
use gone::Gone;
use journal::Journal;
use listeners::Listeners;
use memory::{Remembered, Writer};
use names::Names;
use operator::Notes;
use phases::{Phase, reached};
use reload::{Reloads, Wanted};
use signals::{Sign, Signals};
use snapshot::{Backend, Global, OperatorState, Snapshot};
use status::View;
use vrrp::Vrrp;
use warnings::Warnings;
use watch::Watch;

/// Threads for what takes a while beside control, such as writing metrics; names may keep theirs for long.
const BLOCKING_ELSE: usize = 2;
/// Before a command is sent again to a worker whose mailbox was full.
const SEND_AGAIN: Duration = Duration::from_millis(10);

/// Fewer sessions than this are worth a warning, unless the file asks for so few.
const SESSIONS_FEW: u32 = 100;

/// The target of the event that has the counters: it was asked for, whatever the level of the log is.
pub const COUNTERS: &str = "ringway::counters";

/// Before a listener that could not be opened, or not be shut for the flows that it has, is looked at again.
const OPEN_AGAIN: Duration = Duration::from_millis(100);

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A privilege is missing.
    #[error("{0}")]
    Permission(String),
    /// This host cannot do it.
    #[error("{0}")]
    Host(String),
    /// No io_uring.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It ran and failed.
    #[error("{0}")]
    Running(String),
}

/// Runs until told to stop by a signal.
///
/// # Errors
/// What the host lacks, or what broke.
pub fn run(global: &Global, snapshot: Snapshot, options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(names::LOOKUPS_MAX + BLOCKING_ELSE)
        .build()
        .map_err(|error| Error::Host(format!("control's runtime: {error}")))?;
    let signals = match &options.embedded {
        Some(embedded) => Signals::StandIn(Arc::clone(&embedded.stop)),
        None => runtime
            .block_on(async { Signals::take() })
            .map_err(|error| Error::Host(format!("signals: {error}")))?,
    };
    let findings = ring::probe()?;
    let files =
        host::raise_file_limit().map_err(|error| Error::Host(format!("RLIMIT_NOFILE: {error}")))?;
    if let Err(error) = host::make_room_for_files(files) {
        tracing::warn!(%error, "the table of open files grows while sessions wait");
    }
    let cpus =
        host::usable_cpus().map_err(|error| Error::Host(format!("CPU affinity: {error}")))?;
    let workers = usize::from(
        global
            .workers
            .unwrap_or(u16::try_from(cpus.len()).unwrap_or(u16::MAX)),
    );
    let prepared = vrrp::prepare(&snapshot)?;
    let listeners = Listeners::bind(&snapshot, workers)?;
    let bounds = bounds(global, files, &listeners, &snapshot);
    let tier = options.tier.unwrap_or(findings.tier);
    let reloads = Reloads::new(global.clone(), files, snapshot.clone());
    let known = remember(snapshot, options.state_file.as_deref());
    let (means, access) = ((tier, &*cpus), options.access.as_ref());
    let mut control = Control::start(reloads, known, listeners, &bounds, means, access)?;
    if let Some(prepared) = prepared {
        let started = runtime.block_on(async { Vrrp::start(prepared, &control.snapshot, workers) });
        let started = started.map_err(|error| Error::Host(format!("virtual routers: {error}")))?;
        control.vrrp = Some(started);
    }
    let result = runtime.block_on(control.serve(options, signals));
    // A look-up that hangs is not waited for.
    runtime.shutdown_background();
    result
}

/// The configuration with what the operator changed before a restart, and what is remembered of that.
fn remember(mut snapshot: Snapshot, file: Option<&Path>) -> (Snapshot, Vec<Notes>) {
    let mut notes = Notes::of(&snapshot, SystemTime::now());
    let Some(path) = file else {
        return (snapshot, notes);
    };
    match Remembered::read(path) {
        Ok(remembered) => {
            let backends = remembered.apply(&mut snapshot, &mut notes);
            if backends > 0 {
                let file = path.display();
                tracing::info!(%file, backends, "changes of the operator hold on: `ringway status` shows them");
            }
        }
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "state_file: not read; backends are as the configuration says");
        }
    }
    (snapshot, notes)
}

/// What is asked for.
fn demand(global: &Global, listeners: &Listeners, snapshot: &Snapshot) -> Demand {
    Demand {
        workers: listeners.workers(),
        addresses: listeners.count(),
        datagram_addresses: listeners.datagrams().count(),
        backends: snapshot.backends.len(),
        pipe_memory: global.pipe_memory,
        max_sessions: global.max_sessions,
        max_flows: global.max_flows,
        flow_ports: ports::of_flows(snapshot),
    }
}

/// What the process may use, and a word in the log when the file asks for more.
fn bounds(global: &Global, files: u64, listeners: &Listeners, snapshot: &Snapshot) -> Bounds {
    let demand = demand(global, listeners, snapshot);
    let bounds = demand.bounds(files);
    let (max_sessions, possible) = (bounds.max_sessions, bounds.possible_sessions);
    if max_sessions > possible {
        tracing::warn!(
            max_sessions,
            possible,
            open_files = files,
            "global.max_sessions is more than RLIMIT_NOFILE allows: raise it (LimitNOFILE= in the unit, ulimit -n)"
        );
    } else if global.max_sessions.is_none() && possible < SESSIONS_FEW && demand.addresses > 0 {
        tracing::warn!(
            possible,
            open_files = files,
            "RLIMIT_NOFILE allows few sessions: raise it (LimitNOFILE= in the unit, ulimit -n)"
        );
    }
    let (max_flows, possible) = (bounds.max_flows, bounds.possible_flows);
    if max_flows > possible {
        tracing::warn!(
            max_flows,
            possible,
            open_files = files,
            "global.max_flows is more than RLIMIT_NOFILE (LimitNOFILE= in the unit, ulimit -n) and \
             net.ipv4.ip_local_port_range allow, of which an eighth or more is to be left to the resolver, NTP and \
             probes: raise what is missing, or give the pools `source` addresses"
        );
    }
    bounds
}

struct Control {
    snapshot: Arc<Snapshot>,
    /// Of the file's text, in hexadecimal digits.
    config_hash: Arc<str>,
    /// As this host reads it.
    config_text: Arc<str>,
    journal: Journal,
    /// None if nothing keeps the operator's changes.
    writer: Option<Writer>,
    level: Option<LevelSwitch>,
    reloads: Reloads,
    gone: Gone,
    /// By backend.
    notes: Vec<Notes>,
    names: Names,
    watch: Watch,
    /// None if the file has no virtual router.
    vrrp: Option<Vrrp>,
    alarms: Alarms,
    clock: Clock,
    stopping_since: Option<Time>,
    listeners: Listeners,
    /// When a listener is to be looked at that could not be opened, or not be shut.
    settle_again: Option<std::time::Instant>,
    mailboxes: Vec<Mailbox>,
    cells: Vec<Arc<WorkerCells>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    reports: UnboundedReceiver<Report>,
    drain_timeout: Option<Duration>,
    max_sessions: u32,
    max_flows: u32,
    tier: ReceiveTier,
    phase: Phase,
    /// Which workers have not stopped.
    live: Vec<bool>,
    /// Commands that found a mailbox full.
    unsent: VecDeque<(usize, Command)>,
    /// When they are sent again.
    send_again: Option<std::time::Instant>,
    failure: Option<Error>,
    /// Who waits for it to be ready.
    ready: Option<oneshot::Sender<String>>,
    access: Option<Sink>,
    /// None if no service manager wants to know how it is.
    notify: Option<Notify>,
    seldom: Warnings,
}

impl Control {
    fn start(
        reloads: Reloads,
        (snapshot, notes): (Snapshot, Vec<Notes>),
        listeners: Listeners,
        bounds: &Bounds,
        (tier, cpus): (ReceiveTier, &[usize]),
        access: Option<&Sink>,
    ) -> Result<Control, Error> {
        let global = reloads.global().clone();
        let clock = Clock::start();
        let snapshot = Arc::new(snapshot);
        let workers = listeners.workers();
        let letterboxes: Vec<Letterbox> = (0..workers)
            .map(|_| Letterbox::new())
            .collect::<io::Result<_>>()
            .map_err(|error| Error::Host(format!("a worker's mailbox: {error}")))?;
        let mailboxes: Vec<Mailbox> = letterboxes
            .iter()
            .map(|letterbox| letterbox.mailbox.clone())
            .collect();
        let shared = Arc::new(Shared::new(
            workers,
            bounds.max_sessions,
            snapshot.backends.len(),
            snapshot.listeners.len(),
        ));
        let places = listeners.datagrams().places();
        let places: Vec<_> = places.iter().flatten().copied().collect();
        let (report, reports) = unbounded_channel();
        let mut cells = Vec::new();
        let mut threads = Vec::new();
        for (id, letterbox) in (0..).map(WorkerId).zip(letterboxes) {
            let parts = Parts {
                id,
                clock,
                snapshot: Arc::clone(&snapshot),
                sockets: listeners.of_worker(id),
                places: places.clone(),
                tier,
                limits: Limits {
                    max_sessions: bounds.max_sessions,
                    max_flows: bounds.max_flows_each(workers),
                    pipes: bounds.pipes,
                    spill_memory: bounds.spill_memory,
                },
                shared: Arc::clone(&shared),
                cells: Arc::new(WorkerCells::new(
                    snapshot.backends.len(),
                    snapshot.pools.len(),
                    snapshot.listeners.len(),
                )),
                access: access.cloned(),
            };
            cells.push(Arc::clone(&parts.cells));
            let cpu = global.pin_workers.then(|| cpus[id.index() % cpus.len()]);
            let thread = spawn_worker(parts, letterbox, mailboxes.clone(), cpu, report.clone())
                .map_err(|error| Error::Host(format!("a worker's thread: {error}")))?;
            threads.push(thread);
        }
        Ok(Control {
            notes,
            names: Names::new(&snapshot),
            watch: Watch::start(&snapshot, bounds.probes, clock)
                .map_err(|error| Error::Host(format!("the prober's thread: {error}")))?,
            vrrp: None,
            alarms: Alarms::default(),
            clock,
            stopping_since: None,
            snapshot,
            config_hash: Arc::from(""),
            config_text: Arc::from(""),
            journal: Journal::new(),
            writer: None,
            level: None,
            reloads,
            gone: Gone::default(),
            listeners,
            settle_again: None,
            mailboxes,
            cells,
            shared,
            threads,
            reports,
            drain_timeout: global.drain_timeout,
            max_sessions: bounds.max_sessions,
            max_flows: bounds.max_flows,
            tier,
            phase: Phase::Starting(workers),
            live: vec![true; workers],
            unsent: VecDeque::new(),
            send_again: None,
            failure: None,
            ready: None,
            access: access.cloned(),
            notify: None,
            seldom: Warnings::new(),
        })
    }

    async fn serve(mut self, options: Options, mut signals: Signals) -> Result<(), Error> {
        self.config_hash = Arc::from(format!("{:016x}", options.config_hash));
        self.config_text = Arc::from(options.config_text);
        self.level = options.level;
        self.writer = options.state_file.and_then(open_writer);
        if let Some(source) = options.file {
            self.reloads.set_source(source, options.dropped);
        }
        let is_embedded = options.embedded.is_some();
        if !is_embedded {
            self.notify = Notify::from_environment(self.clock.instant(Time::ZERO), self.live.len());
        }
        let mut beat = service::interval(self.notify.as_ref());
        let embedded = options.embedded.map(|embedded| {
            self.ready = Some(embedded.ready);
            embedded.requests
        });
        let mut freeze = options.freeze_every.map(interval);
        let (asking, asked) = channel(admin::REQUESTS_MAX);
        let admin_file = admin::serve(&options.admin, &asking);
        let mut requests = embedded.unwrap_or(asked);
        let first_round_until = self.watch.first_round_until();
        while self.is_running() {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.take_report(report),
                sign = signals.next() => match sign {
                    Sign::Stop => self.told_to_stop(),
                    Sign::PrintCounters => self.print_counters(),
                    Sign::Reload => self.want(Wanted::Reload { dry_run: false, reply: None }),
                    Sign::Ignored(signal) => tracing::warn!(signal, "ignored: it means nothing"),
                },
                // Also shows that this loop is at work, which nothing below may hide.
                happening = vrrp::next(self.vrrp.as_mut()) => self.vrrp_happened(happening),
                () = tick(beat.as_mut()) => self.service_beat(),
                Some(request) = requests.recv() => self.answer(request),
                read = self.reloads.read() => self.has_read(read),
                (backends, outcome) = self.names.resolved() => self.resolved(&backends, outcome),
                () = tick(freeze.as_mut()) => self.tell_all(|| Command::FreezeAndThaw),
                () = alarm(self.send_again) => self.send_again(),
                () = alarm(self.settle_again) => self.settle_listeners(),
                () = alarm(self.alarms.next()) => self.alarmed(),
                () = reached(self.phase) => self.deadline_reached(),
                outcomes = self.watch.outcomes() => self.probed(&outcomes),
                () = first_round(self.phase, first_round_until) => self.open_or_fail(),
            }
        }
        self.let_go_of_addresses().await;
        self.listeners.clean_up();
        if let Some(file) = admin_file {
            file.remove();
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        if !is_embedded {
            self.print_counters();
        }
        if let Some(error) = self.failure {
            return Err(error);
        }
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| Error::Running("a worker panicked".to_owned()))?;
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Until every worker has stopped, or a failed one has given the others long enough.
    fn is_running(&self) -> bool {
        self.phase != Phase::Over && self.live.contains(&true)
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Ready(_) => self.worker_ready(),
            Report::AcceptsDrained(_) => self.accepts_drained(),
            // The last view of it is dropped here, not where sessions are served.
            Report::Replaced(_) => {}
            Report::Doubted(backend) => self.watch.hurry(&self.snapshot, backend),
            Report::TakenOver(worker, generation) => self.taken_over(worker, Some(generation)),
            Report::Avoided { backend, errno } => {
                self.log_avoided(backend, errno);
                self.watch.doubted(&self.snapshot, backend);
            }
            Report::SourceExhausted { backend, source } => self.log_exhausted(backend, source),
            Report::SourceAbsent { pool, source } => self.log_absent(pool, source),
            Report::AddressesCleared(ticket) => self.addresses_cleared(ticket),
            Report::Stopped(worker) => {
                self.live[worker.index()] = false;
                self.taken_over(worker, None);
            }
            Report::Failed(worker, failure) => {
                self.live[worker.index()] = false;
                self.taken_over(worker, None);
                self.fail(failed(worker, failure));
            }
        }
    }

    fn alarmed(&mut self) {
        while let Some(alarm) = self.alarms.due(Instant::now().into_std()) {
            match alarm {
                Alarm::Drained(id) => self.drained(id),
            }
        }
    }

    fn worker_ready(&mut self) {
        if let Phase::Starting(missing) = self.phase {
            self.phase = Phase::Starting(missing - 1);
            self.open_or_fail();
        }
    }

    /// Lets clients in, once every worker is ready and the first round of probes is over.
    fn open_or_fail(&mut self) {
        if self.phase == Phase::Starting(0)
            && self.watch.first_round_is_over()
            && let Err(error) = self.open()
        {
            self.fail(error);
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        self.listeners.listen(&self.snapshot)?;
        self.tell_accepting();
        self.phase = Phase::Serving;
        self.change_next();
        self.warn_of_absent_sources();
        self.probes_ended();
        self.service_is_ready();
        if let Some(ready) = self.ready.take() {
            let addresses = self.listeners.addresses(self.snapshot.listeners.len());
            // Whoever contains us may have changed its mind.
            let _ = ready.send(addresses.into_iter().flatten().next().unwrap_or_default());
        }
        tracing::info!(
            workers = self.mailboxes.len(),
            max_sessions = self.max_sessions,
            receive = ?self.tier,
            "ready"
        );
        Ok(())
    }

    /// A listener is open if and only if one of its backends is usable.
    fn settle_listeners(&mut self) {
        if self.phase == Phase::Serving {
            let doors = self.listeners.doors().to_vec();
            if self.listeners.settle(&self.snapshot, &self.shared) {
                let now = self.listeners.doors();
                self.journal.note_doors(&self.snapshot, &doors, now);
                self.tell_accepting();
            }
        }
        let again = || std::time::Instant::now() + OPEN_AGAIN;
        self.settle_again = self.listeners.is_behind().then(again);
        self.judge_readiness();
    }

    fn tell_accepting(&mut self) {
        let accepting = self.listeners.accepting();
        self.tell_all(|| Command::Accept(Arc::clone(&accepting)));
        if self.listeners.datagrams().count() == 0 {
            return;
        }
        for worker in (0..self.mailboxes.len()).filter(|worker| self.live[*worker]) {
            let id = WorkerId(u16::try_from(worker).expect("workers are numbered so"));
            let heard = self.listeners.datagrams().of_worker(id);
            self.unsent.push_back((worker, Command::Hear(heard)));
        }
        self.send_again();
    }

    /// Probes have outcomes. All of them make one new snapshot: the work of making one grows with the backends.
    fn probed(&mut self, outcomes: &[Outcome]) {
        let mut changed: Option<Snapshot> = None;
        for outcome in outcomes {
            let id = outcome.backend;
            if self.watch.is_veto(outcome) {
                self.tell_all(|| Command::Trust(id));
            }
            if let Err(Wrong::Ours(why)) = &outcome.result {
                self.log_hindered(id, why);
            }
            let latest = changed.as_ref().unwrap_or(&self.snapshot);
            let Some(transition) = self.watch.count(latest, outcome) else {
                continue;
            };
            let snapshot = changed.get_or_insert_with(|| Snapshot::clone(&self.snapshot));
            let doubted_since = self.watch.health(id).doubted_since();
            let backend = &mut snapshot.backends[id.index()];
            backend.is_up = Some(transition.is_up);
            backend.doubted_since = doubted_since;
            let pool = &snapshot.pools[backend.pool.index()].name;
            if transition.is_up {
                tracing::info!(%pool, backend = %backend.name, why = %transition.why, "backend up");
            } else {
                tracing::warn!(%pool, backend = %backend.name, why = %transition.why, "backend down");
            }
        }
        if let Some(snapshot) = changed {
            self.publish(snapshot);
        }
        self.open_or_fail();
    }

    fn tell_all(&mut self, command: impl Fn() -> Command) {
        let workers = (0..self.mailboxes.len()).filter(|worker| self.live[*worker]);
        self.unsent
            .extend(workers.map(|worker| (worker, command())));
        self.send_again();
    }

    /// Sends what waits, in order; what finds a mailbox full waits on, so that control never waits for a worker.
    fn send_again(&mut self) {
        for (worker, command) in std::mem::take(&mut self.unsent) {
            let behind = self.unsent.iter().any(|(other, _)| *other == worker);
            let refused = if behind {
                Some(command)
            } else {
                self.mailboxes[worker].send(command).err()
            };
            if let Some(command) = refused.filter(|_| self.live[worker]) {
                self.unsent.push_back((worker, command));
            }
        }
        let again = || std::time::Instant::now() + SEND_AGAIN;
        self.send_again = (!self.unsent.is_empty()).then(again);
    }

    /// The sessions of a backend that is no longer ready have so long; from drain to maintenance the time goes on.
    fn time_drain(&mut self, id: BackendId, old_state: OperatorState) {
        let backend = &self.snapshot.backends[id.index()];
        let timeout = self.snapshot.pools[backend.pool.index()].drain_timeout;
        match (old_state, backend.state, timeout) {
            (_, OperatorState::Ready, _) => self.alarms.unset(Alarm::Drained(id)),
            (
                OperatorState::Ready,
                OperatorState::Drain | OperatorState::Maintenance,
                Some(timeout),
            ) => {
                let until = Instant::now() + timeout;
                self.alarms.set(Alarm::Drained(id), until.into_std());
            }
            (_, OperatorState::Drain | OperatorState::Maintenance, _) => {}
        }
    }

    /// Its time to drain is over.
    fn drained(&mut self, id: BackendId) {
        let backend = &self.snapshot.backends[id.index()];
        let pool = &self.snapshot.pools[backend.pool.index()].name;
        let sessions = self.shared.active(id);
        tracing::info!(%pool, backend = %backend.name, sessions, "drain_timeout: ending what is left");
        self.publish_backend(id, |backend| backend.is_drained = true);
    }

    /// From the next turn on every worker sees it. Only then are listeners opened, so that nobody is let in too early.
    fn publish(&mut self, mut snapshot: Snapshot) {
        snapshot.generation += 1;
        let old = std::mem::replace(&mut self.snapshot, Arc::new(snapshot));
        self.note_changes(&old);
        let published = Arc::clone(&self.snapshot);
        self.tell_all(|| Command::See(Arc::clone(&published)));
        self.settle_listeners();
    }

    fn publish_backend(&mut self, id: BackendId, change: impl FnOnce(&mut Backend)) {
        let mut snapshot = Snapshot::clone(&self.snapshot);
        change(&mut snapshot.backends[id.index()]);
        self.publish(snapshot);
    }

    fn view(&self) -> View<'_> {
        View {
            config_hash: &self.config_hash,
            config_text: &self.config_text,
            events_lost: self.journal.lost(),
            access_lost: self.access.as_ref().map_or(0, |sink| sink.lost().get()),
            snapshot: &self.snapshot,
            cells: &self.cells,
            shared: &self.shared,
            notes: &self.notes,
            watch: &self.watch,
            vrrp: self.vrrp.as_ref(),
            alarms: &self.alarms,
            doors: self.listeners.doors(),
            addresses: self.listeners.addresses(self.snapshot.listeners.len()),
            phase: self.phase.as_str(),
            clock: self.clock,
            stopping_since: self.stopping_since,
            stopping_until: match self.phase {
                Phase::Draining { until } => until.map(|until| until.into_std()),
                Phase::Starting(_)
                | Phase::Serving
                | Phase::Closing(_)
                | Phase::Killing { .. }
                | Phase::Over => None,
            },
            max_sessions: self.max_sessions,
            max_flows: self.max_flows,
            datagrams: self.listeners.datagrams(),
            gone: &self.gone,
            reloads: &self.reloads,
            ports: ports::of_backends(&self.snapshot, |id| self.shared.active(id)),
            ports_each: crate::sys::ports::outgoing(),
        }
    }

    fn print_counters(&self) {
        let counters = counters::as_json(
            &self.snapshot,
            &self.cells,
            &self.gone,
            self.listeners.datagrams(),
            self.clock.now(),
        );
        tracing::info!(target: COUNTERS, "counters {counters}");
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Without it the operator's changes are forgotten at the end.
fn open_writer(path: PathBuf) -> Option<Writer> {
    let started = Writer::start(path);
    started
        .inspect_err(|error| tracing::warn!(%error, "state_file: no thread to write it"))
        .ok()
}

/// The moment, if there is one.
async fn alarm(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The end of the first round of probes, if clients wait for it.
async fn first_round(phase: Phase, until: std::time::Instant) {
    if phase == Phase::Starting(0) {
        sleep_until(until.into()).await;
    } else {
        std::future::pending().await
    }
}

fn spawn_worker(
    parts: Parts,
    letterbox: Letterbox,
    mailboxes: Vec<Mailbox>,
    cpu: Option<usize>,
    reports: UnboundedSender<Report>,
) -> io::Result<JoinHandle<()>> {
    let id = parts.id;
    std::thread::Builder::new()
        .name(format!("{}{}", admin::metrics::WORKER_THREADS, id.0))
        .spawn(move || {
            if let Some(Err(error)) = cpu.map(host::pin_to_cpu) {
                tracing::warn!(worker = id.0, %error, "not pinned to a CPU");
            }
            let report = reports.clone();
            // Control is gone only when the process ends.
            let send = Box::new(move |message| drop(report.send(message)));
            let worker = Worker::new(parts, letterbox, mailboxes, send);
            // They were for its pipes.
            privileges::give_up();
            let outcome = worker
                .map_err(crate::worker::Failure::from)
                .and_then(Worker::run);
            if let Err(failure) = outcome {
                drop(reports.send(Report::Failed(id, failure)));
            }
        })
}

fn failed(worker: WorkerId, failure: crate::worker::Failure) -> Error {
    match failure {
        crate::worker::Failure::Setup(error) => Error::Setup(error),
        failure @ crate::worker::Failure::Ring(_) => {
            Error::Running(format!("worker {}: {failure}", worker.0))
        }
    }
}
