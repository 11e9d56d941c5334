//! Control's side of health: what is probed, what outcomes mean for the snapshot, and when the first round is over.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::snapshot::{
    self, Backend, BackendAddress, OperatorState, Pool, Protocol, Snapshot, Standing,
};
use crate::config::pattern;
use crate::health::prober::{Check, Outcome, Place, Prober, Target, Wrong};
use crate::health::{Health, RiseFall, Transition};
use crate::ids::BackendId;
use crate::sys::clock::Clock;
use crate::time::Time;

/// The first round of probes is waited for at most so long before clients are let in.
const FIRST_ROUND_MOST: Duration = Duration::from_secs(5);
/// So that requests and signals get their turn between.
const OUTCOMES_AT_ONCE: usize = 1024;

/// What came of the probes of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probes {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// They could not be made, for a reason of this host.
    pub(super) hindered: u64,
    /// What the last one that could be made says.
    pub(super) has_last_succeeded: Option<bool>,
    /// Of the last one that succeeded.
    pub(super) last_took: Option<Duration>,
}

impl Probes {
    fn count(&mut self, result: &Result<Duration, Wrong>) {
        match result {
            Ok(took) => {
                self.succeeded += 1;
                self.has_last_succeeded = Some(true);
                self.last_took = Some(*took);
            }
            Err(Wrong::Theirs(_)) => {
                self.failed += 1;
                self.has_last_succeeded = Some(false);
            }
            Err(Wrong::Ours(_)) => self.hindered += 1,
        }
    }
}

/// See the module's text.
pub(super) struct Watch {
    prober: Prober,
    outcomes: UnboundedReceiver<Outcome>,
    healths: Vec<Health>,
    probes: Vec<Probes>,
    /// The number of the last order to probe each, or not to.
    orders: Vec<u64>,
    /// Probes at a time.
    at_a_time: usize,
    /// Backends about which clients should not be let in before something is known: neither a name looked up nor a
    /// probe made yet.
    awaited: BTreeSet<BackendId>,
    clock: Clock,
    first_round_until: Time,
}

impl Watch {
    pub(super) fn start(snapshot: &Snapshot, probes: usize, clock: Clock) -> io::Result<Watch> {
        let (sender, outcomes) = unbounded_channel();
        let mut watch = Watch {
            prober: Prober::start(sender, probes)?,
            outcomes,
            healths: vec![Health::default(); snapshot.backends.len()],
            probes: vec![Probes::default(); snapshot.backends.len()],
            orders: vec![0; snapshot.backends.len()],
            at_a_time: probes,
            awaited: BTreeSet::new(),
            first_round_until: clock.now() + FIRST_ROUND_MOST,
            clock,
        };
        for (id, backend) in (0..).map(BackendId).zip(&snapshot.backends) {
            let target = target(&snapshot.pools[backend.pool.index()], backend);
            if target.is_some() || is_unresolved(backend) {
                watch.awaited.insert(id);
            }
            watch.order(id, target);
        }
        Ok(watch)
    }

    /// The next outcomes, all that are there; at least one.
    pub(super) async fn outcomes(&mut self) -> Vec<Outcome> {
        let mut all = Vec::new();
        if self.outcomes.recv_many(&mut all, OUTCOMES_AT_ONCE).await == 0 {
            std::future::pending().await
        }
        all
    }

    /// Its address, state or probe is another now. What is known holds until the first outcome.
    pub(super) fn retarget(&mut self, snapshot: &Snapshot, id: BackendId) {
        let backend = &snapshot.backends[id.index()];
        let target = target(&snapshot.pools[backend.pool.index()], backend);
        if target.is_some() {
            self.healths[id.index()].unhinder();
        } else {
            self.healths[id.index()].forget();
            self.awaited.remove(&id);
        }
        self.order(id, target);
        self.prober.pace(id, self.healths[id.index()].pace());
    }

    fn order(&mut self, id: BackendId, target: Option<Target>) {
        let order = &mut self.orders[id.index()];
        *order += 1;
        self.prober.watch(id, *order, target);
    }

    /// Backends have come, or come back: nothing is known about them. So many probes may be made at a time.
    pub(super) fn begin(&mut self, snapshot: &Snapshot, arrived: &[BackendId], at_a_time: usize) {
        let count = snapshot.backends.len();
        self.healths.resize_with(count, Health::default);
        self.probes.resize(count, Probes::default());
        self.orders.resize(count, 0);
        if let Some(more) = at_a_time.checked_sub(self.at_a_time) {
            self.prober.allow(more);
            self.at_a_time = at_a_time;
        }
        for id in arrived {
            self.healths[id.index()] = Health::default();
            self.probes[id.index()] = Probes::default();
            let backend = &snapshot.backends[id.index()];
            let target = target(&snapshot.pools[backend.pool.index()], backend);
            self.order(*id, target);
        }
    }

    /// A backend has left: nobody looks any more.
    pub(super) fn end(&mut self, id: BackendId) {
        self.order(id, None);
    }

    /// When clients may be let in although not everything is known.
    pub(super) fn first_round_until(&self) -> Instant {
        self.clock.instant(self.first_round_until)
    }

    /// Its name could not be looked up: nobody waits for that.
    pub(super) fn is_unresolved(&mut self, id: BackendId) {
        self.awaited.remove(&id);
    }

    /// Whether every name has been looked up and every probed backend has had its first probe.
    pub(super) fn first_round_is_over(&self) -> bool {
        self.awaited.is_empty() || self.clock.now() >= self.first_round_until
    }

    /// Counts an outcome; the change of state, if it makes one.
    pub(super) fn count(&mut self, snapshot: &Snapshot, outcome: &Outcome) -> Option<Transition> {
        let id = outcome.backend;
        let backend = &snapshot.backends[id.index()];
        let probe = &snapshot.pools[backend.pool.index()].probe;
        let now = self.clock.now();
        let is_old = outcome.order != self.orders[id.index()];
        if is_old || backend.state == OperatorState::Maintenance {
            // It was on its way when that changed.
            return None;
        }
        self.probes[id.index()].count(&outcome.result);
        let health = &mut self.healths[id.index()];
        self.awaited.remove(&id);
        let evidence = match &outcome.result {
            Ok(took) => Ok(*took),
            Err(Wrong::Theirs(why)) => Err(why.as_str()),
            Err(Wrong::Ours(why)) => {
                health.hindered_by(why, now);
                return None;
            }
        };
        let (rule, pace) = (
            RiseFall {
                rise: probe.rise,
                fall: probe.fall,
            },
            health.pace(),
        );
        if evidence.is_err() && health.is_doubted() && is_last(snapshot, id) {
            health.trusted();
        }
        let transition = health.probed(rule, evidence, now);
        if health.pace() != pace {
            self.prober.pace(id, health.pace());
        }
        transition
    }

    /// Whether sessions doubted a backend that this outcome speaks for.
    pub(super) fn is_veto(&self, outcome: &Outcome) -> bool {
        let is_new = outcome.order == self.orders[outcome.backend.index()];
        is_new && outcome.result.is_ok() && self.healths[outcome.backend.index()].is_doubted()
    }

    /// A connect of a session failed.
    pub(super) fn hurry(&mut self, snapshot: &Snapshot, id: BackendId) {
        let is_configured = snapshot.backends[id.index()].standing == Standing::Configured;
        if is_configured && self.healths[id.index()].hurried() {
            self.prober.now(id);
        }
    }

    /// Several connects of sessions failed in a row: a probe is made at once, and decides.
    pub(super) fn doubted(&mut self, snapshot: &Snapshot, id: BackendId) {
        let now = self.clock.now();
        let backend = &snapshot.backends[id.index()];
        let is_configured = backend.standing == Standing::Configured;
        let is_probed = is_configured && backend.is_probed;
        if is_probed && self.healths[id.index()].doubted(now) {
            self.prober.pace(id, self.healths[id.index()].pace());
            self.prober.now(id);
        }
    }

    /// What came of its probes.
    pub(super) fn probes(&self, id: BackendId) -> &Probes {
        &self.probes[id.index()]
    }

    pub(super) fn health(&self, id: BackendId) -> &Health {
        &self.healths[id.index()]
    }
}

/// Whether nobody else in its pool takes sessions.
fn is_last(snapshot: &Snapshot, id: BackendId) -> bool {
    let pool = &snapshot.pools[snapshot.backends[id.index()].pool.index()];
    let takes =
        |other: &BackendId| *other != id && snapshot.backends[other.index()].takes_sessions();
    !pool.backends.iter().any(takes)
}

/// Whether it is used as soon as its name has an address.
fn is_unresolved(backend: &Backend) -> bool {
    backend.address.is_none() && backend.state != OperatorState::Maintenance
}

/// What to probe; none if there is nothing to.
fn target(pool: &Pool, backend: &Backend) -> Option<Target> {
    let probe = &pool.probe;
    let address = backend
        .address
        .as_ref()
        .filter(|_| backend.state != OperatorState::Maintenance)?;
    let check = match probe.check.as_ref()? {
        snapshot::Check::Tcp => Check::Connect,
        snapshot::Check::Http(check) => Check::Http {
            method: check.method,
            path: check.path.clone(),
            host: check.host.clone().unwrap_or_else(|| host(backend)),
            statuses: check.statuses.clone(),
            body: check.body.as_deref().and_then(pattern),
        },
        snapshot::Check::SendExpect {
            protocol,
            send,
            expect,
        } => {
            let (send, expect) = (send.clone(), expect.as_deref().and_then(pattern));
            match protocol {
                Protocol::Tcp => Check::SendExpect { send, expect },
                Protocol::Udp => Check::Datagram { send, expect },
            }
        }
        snapshot::Check::Dns(check) => Check::Dns(check.clone()),
    };
    let place = match address {
        BackendAddress::Unix(path) => Place::Unix(path.clone()),
        BackendAddress::Tcp(address) => {
            let mut address = *address;
            address.set_port(probe.port.unwrap_or(address.port()));
            Place::Tcp(address)
        }
    };
    Some(Target {
        place,
        source: probe.source,
        check,
        interval: probe.interval,
        fast_interval: probe.fast_interval,
        down_interval: probe.down_interval,
        timeout: probe.timeout,
    })
}

/// What a backend is called in a Host header.
fn host(backend: &Backend) -> String {
    match (&backend.host, &backend.address) {
        (Some((host, port)), _) => format!("{host}:{port}"),
        (None, Some(BackendAddress::Tcp(address))) => address.to_string(),
        (None, _) => "localhost".to_owned(),
    }
}
