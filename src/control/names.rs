//! Host names of backends, looked up in the background again and again. The system's own resolver does it (as
//! /etc/nsswitch.conf, /etc/hosts and /etc/resolv.conf say), on a few threads that may hang without harm.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::snapshot::Snapshot;
use crate::ids::BackendId;

/// Look-ups at a time.
pub(super) const LOOKUPS_MAX: usize = 8;
/// Until a name that has an address is looked up again.
const AGAIN: Duration = Duration::from_secs(30);
/// The same for one that has none: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

type Name = (Arc<str>, u16);

/// See the module's text.
pub(super) struct Names {
    /// Which backends have which name, and its address, if it ever had one.
    backends: HashMap<Name, (Vec<BackendId>, Option<SocketAddr>)>,
    waiting: VecDeque<(Name, Duration, Duration)>,
    lookups: JoinSet<(Name, Duration, io::Result<Vec<SocketAddr>>)>,
}

impl Names {
    pub(super) fn new(snapshot: &Snapshot) -> Names {
        let mut names = Names {
            backends: HashMap::new(),
            waiting: VecDeque::new(),
            lookups: JoinSet::new(),
        };
        for (id, backend) in (0..).map(BackendId).zip(&snapshot.backends) {
            let Some(name) = &backend.host else {
                continue;
            };
            let (backends, _) = names.backends.entry(name.clone()).or_insert_with(|| {
                names
                    .waiting
                    .push_back((name.clone(), Duration::ZERO, RETRY_FIRST));
                (Vec::new(), None)
            });
            backends.push(id);
        }
        names
    }

    /// The next outcome, and whose it is. Never, if there are no names. May be dropped and called again at any time.
    pub(super) async fn resolved(&mut self) -> (Vec<BackendId>, Result<SocketAddr, String>) {
        loop {
            for (name, pause, retry) in self.waiting.drain(..) {
                self.lookups.spawn(look_up(name, pause, retry));
            }
            match self.lookups.join_next().await {
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
