//! Host names of backends, looked up in the background again and again. The system's own resolver does it (as
//! /etc/nsswitch.conf, /etc/hosts and /etc/resolv.conf say), on a few threads that may hang without harm.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Control;
use super::snapshot::{Backend, BackendAddress, Snapshot};
use crate::ids::BackendId;

/// Look-ups at a time.
pub(super) const LOOKUPS_MAX: usize = 8;
/// Until a name that has an address is looked up again.
const AGAIN: Duration = Duration::from_secs(30);
/// The same for one that has none: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

pub(super) type Name = (Arc<str>, u16);

/// See the module's text.
pub(super) struct Names {
    /// Which backends have which name, and its address, if it ever had one.
    backends: HashMap<Name, (Vec<BackendId>, Option<SocketAddr>)>,
    waiting: VecDeque<(Name, Duration, Duration)>,
    lookups: JoinSet<(Name, Duration, io::Result<Vec<SocketAddr>>)>,
    /// Names that nobody has any more, and whose last look-up is still to come back; with what they were.
    forgotten: HashMap<Name, Option<SocketAddr>>,
}

impl Names {
    pub(super) fn new(snapshot: &Snapshot) -> Names {
        let mut names = Names {
            backends: HashMap::new(),
            waiting: VecDeque::new(),
            lookups: JoinSet::new(),
            forgotten: HashMap::new(),
        };
        names.follow(snapshot);
        names
    }

    /// The backends are others now. Names that stay keep their address and when they are looked up again.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let before = std::mem::take(&mut self.backends);
        for (id, backend) in snapshot.backends_in_order() {
            let Some(name) = &backend.host else {
                continue;
            };
            let (backends, _) = self.backends.entry(name.clone()).or_insert_with(|| {
                let looked_up = self.forgotten.remove(name);
                let looked_up = looked_up.or_else(|| before.get(name).map(|(_, known)| *known));
                if looked_up.is_none() {
                    let first = (name.clone(), Duration::ZERO, RETRY_FIRST);
                    self.waiting.push_back(first);
                }
                (Vec::new(), looked_up.flatten())
            });
            backends.push(id);
        }
        let gone = before.into_iter().map(|(name, (_, known))| (name, known));
        let gone = gone.filter(|(name, _)| !self.backends.contains_key(name));
        self.forgotten.extend(gone);
    }

    /// The address of a name that is known.
    pub(super) fn known(&self, name: &Name) -> Option<SocketAddr> {
        let known = self.backends.get(name).map(|(_, known)| *known);
        known.or_else(|| self.forgotten.get(name).copied())?
    }

    /// The next outcome, and whose it is. Never, if there are no names. May be dropped and called again at any time.
    pub(super) async fn resolved(&mut self) -> (Vec<BackendId>, Result<SocketAddr, String>) {
        loop {
            for (name, pause, retry) in self.waiting.drain(..) {
                self.lookups.spawn(look_up(name, pause, retry));
            }
            match self.lookups.join_next().await {
                Some(Ok((name, _, _))) if self.forgotten.remove(&name).is_some() => {}
                Some(Ok((name, retry, found))) => return self.outcome(name, retry, found),
                // A task that panicked, or none at all.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn outcome(
        &mut self,
        name: Name,
        retry: Duration,
        found: io::Result<Vec<SocketAddr>>,
    ) -> (Vec<BackendId>, Result<SocketAddr, String>) {
        let (backends, known) = self
            .backends
            .get_mut(&name)
            .expect("only known names are looked up");
        let outcome = match found {
            // One that is still among them stays: sessions of a backend go to one place.
            Ok(addresses) if known.is_some_and(|known| addresses.contains(&known)) => {
                Ok(known.expect("just seen"))
            }
            Ok(addresses) => addresses
                .first()
                .copied()
                .ok_or_else(|| "no address".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (pause, retry) = match &outcome {
            Ok(address) => {
                *known = Some(*address);
                (AGAIN, RETRY_FIRST)
            }
            Err(_) => (retry, (retry * 2).min(RETRY_MOST)),
        };
        let backends = backends.clone();
        self.waiting.push_back((name, pause, retry));
        (backends, outcome)
    }
}

impl Control {
    /// The backends of a host name have an address now, or still none.
    pub(super) fn resolved(&mut self, backends: &[BackendId], outcome: Result<SocketAddr, String>) {
        let mut snapshot = Snapshot::clone(&self.snapshot);
        let mut is_new = false;
        for id in backends {
            match self.usable_address(*id, &outcome) {
                Ok(address) => {
                    is_new |= self.found(&mut snapshot.backends[id.index()], *id, address)
                }
                Err(why) => self.not_found(*id, why),
            }
        }
        if is_new {
            self.publish(snapshot);
            for id in backends {
                self.watch.retarget(&self.snapshot, *id);
            }
        }
        self.open_or_fail();
    }

    /// What was found, unless it is one of our own listeners: a name may lead anywhere.
    fn usable_address(
        &self,
        id: BackendId,
        found: &Result<SocketAddr, String>,
    ) -> Result<SocketAddr, String> {
        let address = found.clone()?;
        let pool = self.snapshot.backends[id.index()].pool;
        match self.snapshot.circle(pool, address) {
            Some(listener) => Err(format!(
                "it is {address}, where listener `{}` of its own pool listens: sessions would go round in circles",
                listener.name
            )),
            None => Ok(address),
        }
    }

    /// Whether the address is another than before.
    fn found(&mut self, backend: &mut Backend, id: BackendId, address: SocketAddr) -> bool {
        self.notes[id.index()].unresolved = None;
        let known = backend.address.replace(BackendAddress::Tcp(address));
        let is_new = backend.address != known;
        if is_new {
            tracing::info!(backend = %backend.name, %address, "name resolved");
        }
        is_new
    }

    /// An address that is known is kept: a name server that is away takes nobody down.
    fn not_found(&mut self, id: BackendId, error: String) {
        self.watch.is_unresolved(id);
        let backend = &self.snapshot.backends[id.index()];
        let unresolved = &mut self.notes[id.index()].unresolved;
        if backend.address.is_none() && unresolved.as_ref() != Some(&error) {
            tracing::warn!(
                backend = %backend.name, %error,
                "name not resolved: the backend is down until it is"
            );
            *unresolved = Some(error);
        }
    }
}

async fn look_up(
    name: Name,
    pause: Duration,
    retry: Duration,
) -> (Name, Duration, io::Result<Vec<SocketAddr>>) {
    tokio::time::sleep(pause).await;
    let found = tokio::net::lookup_host((&*name.0, name.1)).await;
    let found = found.map(Iterator::collect);
    (name, retry, found)
}
