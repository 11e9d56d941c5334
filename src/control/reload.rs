//! Changing the configuration while it runs: read again from its file, or by the operator's adding and removing of
//! backends. One change at a time; the next one begins when every worker has changed over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::difference::{self, Difference, Written};
use super::gone::Counts;
use super::memory::Remembered;
use super::operator::Notes;
use super::options::Source;
use super::reconcile::{Draft, reconcile};
use super::snapshot::{BackendAddress, Global, Snapshot};
use super::{Control, Phase, additions, vrrp};
use crate::admin::{Addition, Refusal};
use crate::config::Config;
use crate::ids::{BackendId, WorkerId};
use crate::metrics::exposition::Samples;
use crate::metrics::list::Metric;
use crate::privileges::Dropped;
use crate::worker::{Command, TakeOver};

/// Changes that may wait.
const WAITING_MAX: usize = 64;
/// How long reading a file may take.
const READING_MAX: Duration = Duration::from_secs(60);

type Reply = oneshot::Sender<Result<Value, Refusal>>;

/// What is wanted.
pub(super) enum Wanted {
    /// The file is read again. Nobody waits for what a signal brings about.
    Reload { dry_run: bool, reply: Option<Reply> },
    /// Another backend.
    Add {
        pool: String,
        name: String,
        addition: Addition,
        reply: Reply,
    },
    /// One that was added goes.
    Remove {
        pool: String,
        name: String,
        reply: Reply,
    },
}

impl Wanted {
    fn is_by_signal(&self) -> bool {
        matches!(self, Wanted::Reload { reply: None, .. })
    }

    /// Whoever waits may be gone.
    fn refuse(self, refusal: Refusal) {
        match self {
            Wanted::Reload { reply, .. } => answer(reply, Err(refusal)),
            Wanted::Add { reply, .. } | Wanted::Remove { reply, .. } => {
                answer(Some(reply), Err(refusal));
            }
        }
    }
}

fn answer(reply: Option<Reply>, said: Result<Value, Refusal>) {
    if let Some(reply) = reply {
        // Whoever asked may be gone by now.
        let _ = reply.send(said);
    }
}

/// What is going on.
enum Stage {
    Idle,
    Reading {
        dry_run: bool,
        reply: Option<Reply>,
        read: oneshot::Receiver<Result<Config, String>>,
        until: Instant,
    },
    /// The workers change over.
    Changing {
        generation: u64,
        /// By worker.
        waits_for: Vec<bool>,
        then: Then,
    },
}

/// Who is told of what once every worker has changed over.
enum Then {
    Reloaded(Value, Option<Reply>),
    /// How the backend is then.
    Show(BackendId, Reply),
    /// That it is gone.
    Say(Value, Reply),
}

/// What another configuration would bring about.
struct Change {
    draft: Draft,
    difference: Difference,
    written: Written,
    /// Whether virtual routers become what is written of them.
    takes_routers: bool,
}

/// What came of the last reload.
struct Last {
    at: SystemTime,
    outcome: Result<String, String>,
}

/// See the module's text.
pub(super) struct Reloads {
    source: Option<Source>,
    /// What is left of the rights that it was started with; none = all of them.
    dropped: Option<Dropped>,
    global: Global,
    /// Open files that the process may have.
    files: u64,
    /// The configuration without what the operator changed.
    file: Snapshot,
    /// As it is written, but for what needs a restart: that is as it was at the start.
    running: Written,
    waiting: VecDeque<Wanted>,
    stage: Stage,
    last: Option<Last>,
    succeeded: u64,
    failed: u64,
    needs_restart: Value,
}

impl Reloads {
    pub(super) fn new(global: Global, files: u64, file: Snapshot) -> Reloads {
        Reloads {
            source: None,
            dropped: None,
            global,
            files,
            file,
            running: Written::default(),
            waiting: VecDeque::new(),
            stage: Stage::Idle,
            last: None,
            succeeded: 0,
            failed: 0,
            needs_restart: json!([]),
        }
    }

    pub(super) fn global(&self) -> &Global {
        &self.global
    }

    /// From now on the file can be read again, by a process with these rights.
    pub(super) fn set_source(&mut self, source: Source, dropped: Option<Dropped>) {
        self.running = Written::new(source.document.clone(), &self.file);
        self.source = Some(source);
        self.dropped = dropped;
    }

    /// What is not permitted to somebody with fewer rights than at the start may be so after a restart.
    fn refusal(&self, error: &super::Error) -> Refusal {
        if let (super::Error::Permission(text), Some(dropped)) = (error, &self.dropped) {
            return Refusal::conflict(format!("{text}; {}", dropped.hint()));
        }
        Refusal::conflict(error.to_string())
    }

    /// The file, once it has been read. May be dropped and called again at any time.
    pub(super) async fn read(&mut self) -> Result<Config, String> {
        let Stage::Reading { read, until, .. } = &mut self.stage else {
            return std::future::pending().await;
        };
        match timeout_at(*until, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("reading it failed".to_owned()),
            Err(_) => Err(format!("reading it took more than {READING_MAX:?}")),
        }
    }

    pub(super) fn sample(&self, out: &mut Samples) {
        for (outcome, count) in [("succeeded", self.succeeded), ("failed", self.failed)] {
            out.add(Metric::ConfigReloads, [outcome.into()], count);
        }
        let last = self.last.as_ref();
        let has_failed = last.is_some_and(|last| last.outcome.is_err());
        out.add(Metric::ConfigReloadFailed, [], u64::from(has_failed));
        let keys = self.needs_restart.as_array().map_or(0, Vec::len);
        out.add(Metric::ConfigNeedsRestart, [], keys as u64);
    }

    /// For the status.
    pub(super) fn status(&self) -> Value {
        let last = self.last.as_ref().map(|last| {
            let at = last.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            json!({
                "at": at.as_secs(),
                "outcome": last.outcome.as_ref().ok(),
                "error": last.outcome.as_ref().err(),
            })
        });
        json!({
            "succeeded": self.succeeded,
            "failed": self.failed,
            "last": last,
            "needs_restart": self.needs_restart,
        })
    }
}

impl Control {
    /// As soon as nothing else is being changed. Signals that wait are one.
    pub(super) fn want(&mut self, wanted: Wanted) {
        let waiting = &self.reloads.waiting;
        if wanted.is_by_signal() && waiting.iter().any(Wanted::is_by_signal) {
            return;
        }
        if waiting.len() >= WAITING_MAX {
            wanted.refuse(Refusal::conflict("too many changes wait".to_owned()));
            return;
        }
        self.reloads.waiting.push_back(wanted);
        self.change_next();
    }

    /// Begins what waits, if it can begin.
    pub(super) fn change_next(&mut self) {
        while matches!(self.reloads.stage, Stage::Idle) {
            match self.phase {
                Phase::Starting(_) => return,
                Phase::Serving => {}
                Phase::Closing(_)
                | Phase::Draining { .. }
                | Phase::Killing { .. }
                | Phase::Over => {
                    let stopping = || Refusal::conflict("the process is stopping".to_owned());
                    let waiting = std::mem::take(&mut self.reloads.waiting);
                    waiting.into_iter().for_each(|one| one.refuse(stopping()));
                    return;
                }
            }
            match self.reloads.waiting.pop_front() {
                None => return,
                Some(Wanted::Reload { dry_run, reply }) => self.begin_reading(dry_run, reply),
                Some(Wanted::Add {
                    pool,
                    name,
                    addition,
                    reply,
                }) => {
                    if let Err((reply, refusal)) = self.add(&pool, &name, &addition, reply) {
                        answer(Some(reply), Err(refusal));
                    }
                }
                Some(Wanted::Remove { pool, name, reply }) => {
                    if let Err((reply, refusal)) = self.remove(&pool, &name, reply) {
                        answer(Some(reply), Err(refusal));
                    }
                }
            }
        }
    }

    fn begin_reading(&mut self, dry_run: bool, reply: Option<Reply>) {
        let Some(source) = &self.reloads.source else {
            let why = "it was started without a file: there is nothing to reload";
            tracing::warn!("{why}");
            answer(reply, Err(Refusal::conflict(why.to_owned())));
            return;
        };
        let (done, read) = oneshot::channel();
        let source = Arc::clone(&source.read);
        if !dry_run && let Some(notify) = &self.notify {
            notify.reloading();
        }
        tokio::task::spawn_blocking(move || {
            // Nobody may wait any more.
            let _ = done.send(source());
        });
        self.reloads.stage = Stage::Reading {
            dry_run,
            reply,
            read,
            until: Instant::now() + READING_MAX,
        };
    }

    /// The file has been read, or is wrong.
    pub(super) fn has_read(&mut self, read: Result<Config, String>) {
        let stage = std::mem::replace(&mut self.reloads.stage, Stage::Idle);
        let Stage::Reading { dry_run, reply, .. } = stage else {
            return;
        };
        if self.phase != Phase::Serving {
            let why = "the process is stopping".to_owned();
            answer(reply, Err(Refusal::conflict(why)));
            return self.change_next();
        }
        match read {
            Err(why) => self.reload_failed(dry_run, reply, Refusal::unprocessable(why)),
            Ok(config) if dry_run => self.rehearse(&config, reply),
            Ok(config) => self.reload(config, reply),
        }
        self.change_next();
    }

    /// What a reload would say.
    fn rehearse(&mut self, config: &Config, reply: Option<Reply>) {
        let change = self.change(config);
        match self.listeners.rehearse(&change.draft.snapshot) {
            Ok(untried) => {
                let mut said = self.said(&change.difference, config, true);
                said["not_tried"] = json!(untried);
                answer(reply, Ok(said));
            }
            Err(error) => self.reload_failed(true, reply, self.reloads.refusal(&error)),
        }
    }

    fn reload_failed(&mut self, dry_run: bool, reply: Option<Reply>, refusal: Refusal) {
        if !dry_run {
            let error = refusal.message.trim_end();
            tracing::error!("reload failed, nothing was changed: {error}");
            self.journal.note("reload_failed", json!({"error": error}));
            self.service_is_ready();
            self.reloads.failed += 1;
            self.reloads.last = Some(Last {
                at: SystemTime::now(),
                outcome: Err(error.to_owned()),
            });
        }
        answer(reply, Err(refusal));
    }

    /// What another configuration would bring about.
    fn change(&self, config: &Config) -> Change {
        let written = Written::new(config.document(), &config.snapshot);
        let (target, notes) = additions::with_added(
            &config.snapshot,
            &self.snapshot,
            &self.notes,
            SystemTime::now(),
        );
        let draft = self.draft(&target, &notes);
        let running = &self.snapshot.virtual_routers;
        let dropped = self.reloads.dropped.as_ref();
        let takes_routers = vrrp::reload::takes_over(running, &draft.virtual_routers)
            && dropped.is_none_or(|dropped| dropped.can_run_commands_of(config));
        Change {
            difference: difference::between(&self.reloads.running, &written, takes_routers),
            draft,
            written,
            takes_routers,
        }
    }

    fn draft(&self, target: &Snapshot, notes: &[Notes]) -> Draft {
        let users = Counts {
            cells: &self.cells,
            shared: &self.shared,
            routers: &self.snapshot.virtual_routers,
        };
        let mut draft = reconcile(&self.snapshot, &self.notes, target, notes, &users);
        for id in &draft.arrived {
            let backend = &draft.snapshot.backends[id.index()];
            let known = backend
                .host
                .as_ref()
                .and_then(|name| self.names.known(name));
            let pool = backend.pool;
            let is_ours = |address| draft.snapshot.circle(pool, address).is_some();
            if let Some(address) = known.filter(|address| !is_ours(*address)) {
                let backend = &mut draft.snapshot.backends[id.index()];
                backend.address = Some(BackendAddress::Tcp(address));
            }
        }
        draft
    }

    /// All of it or nothing.
    fn reload(&mut self, config: Config, reply: Option<Reply>) {
        let Change {
            mut draft,
            difference,
            written,
            takes_routers,
        } = self.change(&config);
        if takes_routers {
            draft.snapshot.virtual_routers = std::mem::take(&mut draft.virtual_routers);
        }
        let said = self.said(&difference, &config, false);
        let begun = self.begin_change(draft);
        let generation = match begun {
            Ok(generation) => generation,
            Err(error) => {
                return self.reload_failed(false, reply, self.reloads.refusal(&error));
            }
        };
        self.configure_routers();
        let running = written.taken_over_from(&self.reloads.running, takes_routers);
        self.reloads.running = running;
        self.config_hash = Arc::from(format!("{:016x}", config.hash));
        self.config_text = Arc::from(config.to_yaml());
        self.drain_timeout = config.global.drain_timeout;
        if difference.process.iter().any(|key| key.name == "log.level")
            && let Some(level) = &self.level
            && let Err(error) = level.set(config.log.level.as_str())
        {
            tracing::warn!(%error, "log.level is not changed");
        }
        self.reloads.file = config.snapshot;
        self.reloads.needs_restart = said["needs_restart"].clone();
        let summary = difference.summary();
        tracing::info!(config_hash = %self.config_hash, generation, "reloaded: {summary}");
        let facts = json!({"generation": generation, "difference": summary});
        self.journal.note("reload", facts);
        self.reloads.succeeded += 1;
        self.reloads.last = Some(Last {
            at: SystemTime::now(),
            outcome: Ok(summary),
        });
        self.keep_in_mind();
        self.wait_for_workers(generation, Then::Reloaded(said, reply));
    }

    fn said(&self, difference: &Difference, config: &Config, dry_run: bool) -> Value {
        let snapshot = &self.snapshot;
        let sessions = |kind: &str, name: &str| match kind {
            "listeners" => {
                let mut all = snapshot.listeners_in_order();
                let found = all.find(|(_, listener)| *listener.name == *name);
                found.map_or(0, |(id, _)| u64::from(self.shared.sessions_of(id)))
            }
            "pools" => {
                let mut all = snapshot.pools_in_order();
                let found = all.find(|(_, pool)| *pool.name == *name);
                found.map_or(0, |(_, pool)| {
                    let backends = pool.backends.iter();
                    backends.map(|id| u64::from(self.shared.active(*id))).sum()
                })
            }
            _ => {
                let mut all = snapshot.backends_in_order();
                let found = all.find(|(_, backend)| {
                    let pool = &snapshot.pools[backend.pool.index()].name;
                    name.split_once('/') == Some((&**pool, &*backend.name))
                });
                found.map_or(0, |(id, _)| u64::from(self.shared.active(id)))
            }
        };
        let mut said = difference.to_json(sessions);
        said["dry_run"] = json!(dry_run);
        said["different"] = json!(!difference.is_empty());
        said["config_hash"] = json!(format!("{:016x}", config.hash));
        said
    }

    /// What the operator has changed, for after a restart.
    pub(super) fn keep_in_mind(&self) {
        if let Some(writer) = &self.writer {
            writer.keep(&Remembered::of(&self.snapshot, &self.notes));
        }
    }

    /// Binds what is new, and then nothing can fail any more: from here on the draft is the configuration.
    fn begin_change(&mut self, draft: Draft) -> Result<u64, super::Error> {
        let prepared = self.listeners.prepare(&draft.snapshot)?;
        let Draft {
            mut snapshot,
            notes,
            freed,
            arrived,
            left,
            changed,
            virtual_routers: _,
        } = draft;
        let old = Arc::clone(&self.snapshot);
        self.gone.take(&freed, &old, &self.cells);
        for id in &freed.backends {
            self.alarms.unset(super::Alarm::Drained(*id));
        }
        let (backends, pools) = (snapshot.backends.len(), snapshot.pools.len());
        self.shared.grow(backends, snapshot.listeners.len());
        for cells in &self.cells {
            cells.grow(backends, pools, snapshot.listeners.len());
        }
        self.listeners.become_prepared(prepared, &old, &snapshot);
        self.notes = notes;
        self.names.follow(&snapshot);
        snapshot.generation = old.generation + 1;
        self.snapshot = Arc::new(snapshot);
        self.follow_health(&old, &arrived, &left, &changed);
        self.note_changes(&old);
        self.tell_of_change();
        self.settle_listeners();
        Ok(self.snapshot.generation)
    }

    /// Probes go on as they were, but for what has come, gone or changed; so do the times to drain.
    fn follow_health(
        &mut self,
        old: &Snapshot,
        arrived: &[BackendId],
        left: &[BackendId],
        changed: &[BackendId],
    ) {
        let probes = super::demand(&self.reloads.global, &self.listeners, &self.snapshot);
        let probes = probes.bounds(self.reloads.files).probes;
        self.watch.begin(&self.snapshot, arrived, probes);
        let snapshot = Arc::clone(&self.snapshot);
        for (id, backend) in snapshot.backends_in_order() {
            let is_another = || {
                let was = old.pools.get(backend.pool.index());
                was.is_none_or(|was| was.probe != snapshot.pools[backend.pool.index()].probe)
            };
            if !arrived.contains(&id) && (changed.contains(&id) || is_another()) {
                self.watch.retarget(&snapshot, id);
            }
        }
        for id in arrived {
            self.alarms.unset(super::Alarm::Drained(*id));
        }
        for id in changed {
            self.time_drain(*id, old.backends[id.index()].state);
        }
        for id in left {
            self.watch.end(*id);
            let pool = snapshot.backends[id.index()].pool;
            let timeout = old.pools[pool.index()].drain_timeout;
            let drained = super::Alarm::Drained(*id);
            if let Some(timeout) = timeout.filter(|_| self.alarms.at(drained).is_none()) {
                let until = Instant::now() + timeout;
                self.alarms.set(drained, until.into_std());
            }
        }
    }

    /// The snapshot and the sockets that go with it, for each worker at once.
    fn tell_of_change(&mut self) {
        let workers = self.mailboxes.len();
        let is_first_datagram = self.max_flows == 0 && self.listeners.datagrams().count() > 0;
        if is_first_datagram {
            let demand = super::demand(&self.reloads.global, &self.listeners, &self.snapshot);
            self.max_flows = demand.bounds(self.reloads.files).max_flows;
        }
        let each = self.max_flows / u32::try_from(workers).unwrap_or(u32::MAX);
        for worker in (0..workers).filter(|worker| self.live[*worker]) {
            let id = WorkerId(u16::try_from(worker).expect("workers are numbered so"));
            let other = TakeOver {
                snapshot: Arc::clone(&self.snapshot),
                gates: self.listeners.gates(id),
                open: self.listeners.accepting(),
                places: self.listeners.datagrams().places(),
                heard: self.listeners.datagrams().of_worker(id),
                max_flows: each.max(1),
            };
            self.unsent
                .push_back((worker, Command::TakeOver(Box::new(other))));
        }
        self.send_again();
    }

    fn wait_for_workers(&mut self, generation: u64, then: Then) {
        self.reloads.stage = Stage::Changing {
            generation,
            waits_for: self.live.clone(),
            then,
        };
    }

    /// A worker has changed over, or is gone.
    pub(super) fn taken_over(&mut self, worker: WorkerId, of: Option<u64>) {
        let Stage::Changing {
            generation,
            waits_for,
            ..
        } = &mut self.reloads.stage
        else {
            return;
        };
        if of.is_none_or(|of| of == *generation) {
            waits_for[worker.index()] = false;
        }
        if waits_for.contains(&true) {
            return;
        }
        let generation = *generation;
        let stage = std::mem::replace(&mut self.reloads.stage, Stage::Idle);
        if let Stage::Changing { then, .. } = stage {
            match then {
                Then::Reloaded(mut said, reply) => {
                    said["generation"] = json!(generation);
                    self.service_is_ready();
                    answer(reply, Ok(said));
                }
                Then::Show(id, reply) => answer(Some(reply), Ok(self.view().backend(id))),
                Then::Say(said, reply) => answer(Some(reply), Ok(said)),
            }
        }
        self.change_next();
    }

    // --- backends that the operator adds ---

    fn add(
        &mut self,
        pool: &str,
        name: &str,
        addition: &Addition,
        reply: Reply,
    ) -> Result<(), (Reply, Refusal)> {
        let made = additions::backend(&self.snapshot, pool, name, addition);
        let backend = match made {
            Ok(backend) => backend,
            Err(refusal) => return Err((reply, refusal)),
        };
        let (mut target, mut notes) = additions::with_added(
            &self.reloads.file,
            &self.snapshot,
            &self.notes,
            SystemTime::now(),
        );
        additions::put(&mut target, &mut notes, pool, backend, SystemTime::now());
        match self.begin_change(self.draft(&target, &notes)) {
            Ok(generation) => {
                let id = super::operator::find(&self.snapshot, pool, name);
                let id = id.expect("it has just been added");
                tracing::info!(%pool, backend = %name, "added by the operator");
                let facts = json!({"pool": pool, "backend": name, "added": true});
                self.journal.note("backend", facts);
                self.keep_in_mind();
                self.wait_for_workers(generation, Then::Show(id, reply));
                Ok(())
            }
            Err(error) => Err((reply, Refusal::conflict(error.to_string()))),
        }
    }

    fn remove(&mut self, pool: &str, name: &str, reply: Reply) -> Result<(), (Reply, Refusal)> {
        let id = match super::operator::find(&self.snapshot, pool, name) {
            Ok(id) => id,
            Err(refusal) => return Err((reply, refusal)),
        };
        if !self.notes[id.index()].is_added {
            let why = format!(
                "{pool}/{name} is in the configuration file: take it out there and reload; `ringway backend \
                 {pool}/{name} maintenance` takes it out of use until then"
            );
            return Err((reply, Refusal::conflict(why)));
        }
        let sessions = self.shared.active(id);
        let mut notes = self.notes.clone();
        notes[id.index()].is_added = false;
        let (target, target_notes) = additions::with_added(
            &self.reloads.file,
            &self.snapshot,
            &notes,
            SystemTime::now(),
        );
        match self.begin_change(self.draft(&target, &target_notes)) {
            Ok(generation) => {
                tracing::info!(%pool, backend = %name, sessions, "removed by the operator");
                let facts = json!({"pool": pool, "backend": name, "removed": true});
                self.journal.note("backend", facts);
                self.keep_in_mind();
                let said = json!({"pool": pool, "name": name, "sessions": sessions});
                self.wait_for_workers(generation, Then::Say(said, reply));
                Ok(())
            }
            Err(error) => Err((reply, Refusal::conflict(error.to_string()))),
        }
    }
}
