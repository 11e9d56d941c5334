//! The control plane: one thread that owns the truth. It binds the listeners, starts the workers, answers signals and
//! ends everything in order. It relays no byte, and never waits for a worker before it serves somebody else.

pub mod bounds;
mod counters;
mod listeners;
pub mod snapshot;

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, interval, sleep_until};

use crate::ids::{BackendId, WorkerId};
use crate::metrics::WorkerCells;
use crate::ring::{self, ReceiveTier, SetupError};
use crate::session::CloseReason;
use crate::sys::host;
use crate::worker::{Command, Letterbox, Limits, Mailbox, Parts, Report, Shared, Worker};

use bounds::{Bounds, Demand};
use listeners::Listeners;
use snapshot::{Global, Snapshot};

/// After a failure, so long may the other workers take to reset their sessions.
const FAILURE_PATIENCE: Duration = Duration::from_secs(5);
/// Before a command is sent again to a worker whose mailbox was full.
const SEND_AGAIN: Duration = Duration::from_millis(10);

/// What only the command line can say.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How to receive; the best there is unless given.
    pub tier: Option<ReceiveTier>,
    /// Freeze and thaw all sessions again and again.
    pub freeze_every: Option<Duration>,
}

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
    let findings = ring::probe()?;
    let files =
        host::raise_file_limit().map_err(|error| Error::Host(format!("RLIMIT_NOFILE: {error}")))?;
    let cpus =
        host::usable_cpus().map_err(|error| Error::Host(format!("CPU affinity: {error}")))?;
    let workers = usize::from(
        global
            .workers
            .unwrap_or(u16::try_from(cpus.len()).unwrap_or(u16::MAX)),
    );
    let listeners = Listeners::bind(&snapshot, workers)?;
    let bounds = bounds(global, files, &listeners);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Host(format!("control's runtime: {error}")))?;
    let tier = options.tier.unwrap_or(findings.tier);
    let control = Control::start(global, snapshot, listeners, &bounds, tier, &cpus)?;
    runtime.block_on(control.serve(options))
}

/// What the process may use, and a word in the log when the file asks for more.
fn bounds(global: &Global, files: u64, listeners: &Listeners) -> Bounds {
    let demand = Demand {
        workers: listeners.workers(),
        addresses: listeners.addresses(),
        pipe_memory: global.pipe_memory,
        max_sessions: global.max_sessions,
    };
    let bounds = demand.bounds(files);
    let (max_sessions, possible) = (bounds.max_sessions, bounds.possible_sessions);
    if max_sessions > possible {
        tracing::warn!(
            max_sessions,
            possible,
            open_files = files,
            "global.max_sessions is more than RLIMIT_NOFILE allows: raise it (LimitNOFILE= in the unit, ulimit -n)"
        );
    }
    bounds
}

struct Control {
    snapshot: Arc<Snapshot>,
    listeners: Listeners,
    mailboxes: Vec<Mailbox>,
    cells: Vec<Arc<WorkerCells>>,
    threads: Vec<JoinHandle<()>>,
    reports: UnboundedReceiver<Report>,
    drain_timeout: Option<Duration>,
    max_sessions: u32,
    tier: ReceiveTier,
    phase: Phase,
    /// Which workers have not stopped.
    live: Vec<bool>,
    /// Commands that found a mailbox full.
    unsent: VecDeque<(usize, Command)>,
    failure: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many workers are not ready yet.
    Starting(usize),
    Serving,
    /// So many workers still take what waits in the listeners' queues.
    Closing(usize),
    /// Waiting for the last sessions.
    Draining {
        until: Option<Instant>,
    },
    /// They are being reset.
    Killing {
        until: Option<Instant>,
    },
    /// Not waiting any longer.
    Over,
}

impl Control {
    fn start(
        global: &Global,
        snapshot: Snapshot,
        listeners: Listeners,
        bounds: &Bounds,
        tier: ReceiveTier,
        cpus: &[usize],
    ) -> Result<Control, Error> {
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
        let shared = Arc::new(Shared::new(workers, bounds.max_sessions));
        let (report, reports) = unbounded_channel();
        let mut cells = Vec::new();
        let mut threads = Vec::new();
        for (id, letterbox) in (0..).map(WorkerId).zip(letterboxes) {
            let parts = Parts {
                id,
                snapshot: Arc::clone(&snapshot),
                sockets: listeners.of_worker(id),
                tier,
                limits: Limits {
                    max_sessions: bounds.max_sessions,
                    pipes: bounds.pipes,
                    spill_memory: bounds.spill_memory,
                },
                shared: Arc::clone(&shared),
                cells: Arc::new(WorkerCells::new(snapshot.backends.len())),
            };
            cells.push(Arc::clone(&parts.cells));
            let cpu = global.pin_workers.then(|| cpus[id.index() % cpus.len()]);
            let thread = spawn_worker(parts, letterbox, mailboxes.clone(), cpu, report.clone())
                .map_err(|error| Error::Host(format!("a worker's thread: {error}")))?;
            threads.push(thread);
        }
        Ok(Control {
            snapshot,
            listeners,
            mailboxes,
            cells,
            threads,
            reports,
            drain_timeout: global.drain_timeout,
            max_sessions: bounds.max_sessions,
            tier,
            phase: Phase::Starting(workers),
            live: vec![true; workers],
            unsent: VecDeque::new(),
            failure: None,
        })
    }

    async fn serve(mut self, options: Options) -> Result<(), Error> {
        let Signals {
            mut stop,
            mut print_counters,
        } = Signals::new().map_err(|error| Error::Host(format!("signals: {error}")))?;
        let mut freeze = options.freeze_every.map(interval);
        while self.is_running() {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.take_report(report),
                () = stop.told() => self.told_to_stop(),
                _ = print_counters.recv() => self.print_counters(),
                () = tick(freeze.as_mut()) => self.tell_all(|| Command::FreezeAndThaw),
                () = pause(!self.unsent.is_empty()) => self.send_again(),
                () = reached(self.phase) => self.deadline_reached(),
            }
        }
        self.listeners.clean_up();
        self.print_counters();
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
            Report::Ready(_) => {
                if let Err(error) = self.worker_ready() {
                    self.fail(error);
                }
            }
            Report::AcceptsDrained(_) => self.accepts_drained(),
            Report::Avoided { backend, errno } => self.log_avoided(backend, errno),
            Report::Stopped(worker) => self.live[worker.index()] = false,
            Report::Failed(worker, failure) => {
                self.live[worker.index()] = false;
                self.fail(failed(worker, failure));
            }
        }
    }

    /// Something broke: end what still runs with a reset, so that no client takes it for a clean end.
    fn fail(&mut self, error: Error) {
        tracing::error!(%error, "failed; ending every session");
        self.failure.get_or_insert(error);
        self.kill_all(CloseReason::Internal);
        self.phase = Phase::Killing {
            until: Some(Instant::now() + FAILURE_PATIENCE),
        };
    }

    fn log_avoided(&self, backend: BackendId, errno: i32) {
        let backend = &self.snapshot.backends[backend.index()];
        let pool = &self.snapshot.pools[backend.pool.index()];
        let error = io::Error::from_raw_os_error(errno);
        tracing::warn!(
            pool = %pool.name, backend = %backend.name, for_up_to = ?pool.passive.retry_after, %error,
            "backend avoided: connects fail"
        );
    }

    fn worker_ready(&mut self) -> Result<(), Error> {
        let Phase::Starting(missing) = self.phase else {
            return Ok(());
        };
        self.phase = Phase::Starting(missing - 1);
        if missing > 1 {
            return Ok(());
        }
        self.listeners.listen(&self.snapshot)?;
        self.tell_all(|| Command::Open);
        self.phase = Phase::Serving;
        tracing::info!(
            workers = self.mailboxes.len(),
            max_sessions = self.max_sessions,
            receive = ?self.tier,
            "ready"
        );
        Ok(())
    }

    fn told_to_stop(&mut self) {
        match self.phase {
            Phase::Starting(_) | Phase::Serving => {
                tracing::info!(
                    "stopping: no new connections, waiting for sessions; a second signal ends them at once"
                );
                self.phase = Phase::Closing(self.mailboxes.len());
                self.tell_all(|| Command::StopAccepting);
            }
            Phase::Closing(_) | Phase::Draining { .. } => self.kill_all(CloseReason::Shutdown),
            Phase::Killing { .. } | Phase::Over => {}
        }
    }

    /// Once nobody waits in the listeners' queues any more, connects are refused.
    fn accepts_drained(&mut self) {
        let Phase::Closing(missing) = self.phase else {
            return;
        };
        self.phase = Phase::Closing(missing - 1);
        if missing == 1 {
            self.listeners.refuse();
            self.phase = Phase::Draining {
                until: self.drain_timeout.map(|timeout| Instant::now() + timeout),
            };
        }
    }

    fn deadline_reached(&mut self) {
        if let Phase::Killing { .. } = self.phase {
            self.phase = Phase::Over;
        } else {
            self.kill_all(CloseReason::DrainTimeout);
        }
    }

    fn kill_all(&mut self, reason: CloseReason) {
        self.listeners.refuse();
        self.phase = Phase::Killing { until: None };
        self.tell_all(|| Command::Kill(reason));
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
    }

    /// A reader that is gone must not end the process.
    fn print_counters(&self) {
        let counters = counters::as_json(&self.snapshot, &self.cells);
        let _ = writeln!(io::stdout().lock(), "counters {counters}");
    }
}

struct Signals {
    stop: StopSignals,
    print_counters: Signal,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            print_counters: signal(SignalKind::user_defined1())?,
        })
    }
}

impl StopSignals {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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

/// A short while, if there is something to wait for.
async fn pause(wanted: bool) {
    if wanted {
        tokio::time::sleep(SEND_AGAIN).await;
    } else {
        std::future::pending().await
    }
}

/// The deadline of a phase that has one.
async fn reached(phase: Phase) {
    match phase {
        Phase::Draining { until: Some(until) } | Phase::Killing { until: Some(until) } => {
            sleep_until(until).await;
        }
        Phase::Starting(_)
        | Phase::Serving
        | Phase::Closing(_)
        | Phase::Draining { until: None }
        | Phase::Killing { until: None }
        | Phase::Over => std::future::pending().await,
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
        .name(format!("worker-{}", id.0))
        .spawn(move || {
            if let Some(Err(error)) = cpu.map(host::pin_to_cpu) {
                tracing::warn!(worker = id.0, %error, "not pinned to a CPU");
            }
            let report = reports.clone();
            // Control is gone only when the process ends.
            let send = Box::new(move |message| drop(report.send(message)));
            let outcome = Worker::new(parts, letterbox, mailboxes, send)
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
