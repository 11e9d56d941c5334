//! Looking at sessions, and ending some of them, for the operator: a portion per command, so that the others keep their
//! latency however many there are.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Worker;
use super::tcp::Slot;
use crate::control::snapshot::Snapshot;
use crate::ids::WorkerId;
use crate::session::{CloseReason, Direction, Event};

/// Places of the session table that are looked at for one command.
const PLACES_AT_ONCE: u32 = 1024;

/// Called with the answer to a command, on the worker's thread.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// Calls this; it must not wait for anything.
    pub fn new(tell: impl FnOnce(T) + Send + 'static) -> Reply<T> {
        Reply(Box::new(tell))
    }

    pub(super) fn tell(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// What a session is called: its worker, and its place and generation there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// Which worker serves it.
    pub worker: WorkerId,
    /// Its place there.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", self.worker.0, self.slot, self.generation)
    }
}

/// Which clients are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// All of these addresses.
    Network(IpNet),
    /// The one with this address and port.
    One(SocketAddr),
}

/// Which sessions are meant: those for which everything that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// They came in here.
    pub listener: Option<String>,
    /// They belong to this pool.
    pub pool: Option<String>,
    /// They are on a backend of this name, or connect to it.
    pub backend: Option<String>,
    /// Who connected.
    pub client: Option<Clients>,
    /// This one.
    pub id: Option<SessionId>,
}

impl fmt::Display for Clients {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clients::Network(network) => network.fmt(out),
            Clients::One(address) => address.fmt(out),
        }
    }
}

/// As in `pool=pg client=10.0.0.0/8`.
impl fmt::Display for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("listener", self.listener.clone()),
            ("pool", self.pool.clone()),
            ("backend", self.backend.clone()),
            ("client", self.client.map(|clients| clients.to_string())),
            ("id", self.id.map(|id| id.to_string())),
        ];
        let given = parts
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let given: Vec<String> = given.map(|(key, value)| format!("{key}={value}")).collect();
        out.write_str(&given.join(" "))
    }
}

/// A look at a portion of a worker's sessions.
#[derive(Debug)]
pub struct Sweep {
    /// Which are meant.
    pub filter: Arc<Filter>,
    /// From which place on.
    pub from: u32,
    /// So many at most.
    pub most: usize,
    /// Whether they are ended, rather than told about.
    pub ends: bool,
    /// Who wants to know.
    pub reply: Reply<Swept>,
}

/// What was found.
#[derive(Debug)]
pub struct Swept {
    /// How many were found.
    pub count: usize,
    /// Those, unless they were ended.
    pub sessions: Vec<SessionFacts>,
    /// From which place to go on; none = that was all.
    pub next: Option<u32>,
}

/// What is told about a session.
#[derive(Debug)]
pub struct SessionFacts {
    /// What it is called.
    pub id: SessionId,
    /// Where it came in.
    pub listener: Arc<str>,
    /// Which pool it belongs to.
    pub pool: Arc<str>,
    /// The backend that it is connected to, or connects to.
    pub backend: Option<Arc<str>>,
    /// Who connected; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// `connecting`, `open` or `ending`.
    pub state: &'static str,
    /// Since it was accepted.
    pub age: Duration,
    /// Since the last byte.
    pub quiet: Duration,
    /// Bytes given to the backend.
    pub to_backend: u64,
    /// Bytes given to the client.
    pub to_client: u64,
    /// Failed attempts to connect.
    pub failed_connects: u8,
}

/// A filter, and the names that it goes by: what has left the configuration still has its name.
struct Chosen<'a> {
    filter: &'a Filter,
    snapshot: &'a Snapshot,
}

impl Chosen<'_> {
    fn includes(&self, slot: &Slot) -> bool {
        let is_on = |name: &String| {
            let backend = slot.backend();
            backend.is_some_and(|id| *self.snapshot.backends[id.index()].name == **name)
        };
        let is_client = |clients: &Clients| match (clients, slot.client) {
            (Clients::Network(network), Some(client)) => network.contains(&client.ip()),
            (Clients::One(address), Some(client)) => *address == client,
            (_, None) => false,
        };
        let came_in =
            |name: &String| *self.snapshot.listeners[slot.listener.index()].name == **name;
        let belongs_to = |name: &String| *self.snapshot.pools[slot.pool.index()].name == **name;
        self.filter.listener.as_ref().is_none_or(came_in)
            && self.filter.pool.as_ref().is_none_or(belongs_to)
            && self.filter.backend.as_ref().is_none_or(is_on)
            && self.filter.client.as_ref().is_none_or(is_client)
    }
}

impl Worker {
    /// Looks at the next portion of sessions, and ends those that are meant if that is wanted.
    pub(super) fn sweep(&mut self, sweep: Sweep) {
        let (from, until) = match sweep.filter.id {
            Some(id) => (id.slot, id.slot.saturating_add(1)),
            None => (sweep.from, sweep.from.saturating_add(PLACES_AT_ONCE)),
        };
        let until = until.min(self.slots.places());
        let snapshot = Arc::clone(&self.snapshot);
        let mut swept = Swept {
            count: 0,
            sessions: Vec::new(),
            next: None,
        };
        let chosen = Chosen {
            filter: &sweep.filter,
            snapshot: &snapshot,
        };
        let mut place = from;
        while place < until && swept.count < sweep.most {
            let key = self.slots.key(place);
            place += 1;
            let is_the_one = |generation| {
                let wanted = sweep.filter.id;
                wanted.is_none_or(|id| id.generation == generation && id.worker == self.id)
            };
            let Some(key) = key.filter(|key| is_the_one(key.generation)) else {
                continue;
            };
            let slot = self.slots.get(key).expect("the place is taken");
            if !chosen.includes(slot) || (sweep.ends && slot.session.is_ending()) {
                continue;
            }
            swept.count += 1;
            if sweep.ends {
                self.tell(key, Event::Kill(CloseReason::Operator));
            } else {
                let id = SessionId {
                    worker: self.id,
                    slot: key.slot,
                    generation: key.generation,
                };
                swept.sessions.push(facts(id, slot, &snapshot, self.now));
            }
        }
        let is_left = place < self.slots.places() && sweep.filter.id.is_none();
        swept.next = is_left.then_some(place);
        sweep.reply.tell(swept);
    }
}

fn facts(id: SessionId, slot: &Slot, snapshot: &Snapshot, now: crate::time::Time) -> SessionFacts {
    let session = &slot.session;
    let backend = slot.backend();
    let given = |direction| session.relay_of(direction).given();
    SessionFacts {
        id,
        listener: Arc::clone(&snapshot.listeners[slot.listener.index()].name),
        pool: Arc::clone(&snapshot.pools[slot.pool.index()].name),
        backend: backend.map(|id| Arc::clone(&snapshot.backends[id.index()].name)),
        client: slot.client,
        state: if session.is_ending() {
            "ending"
        } else if session.is_connected() {
            "open"
        } else {
            "connecting"
        },
        age: now - session.started(),
        quiet: now - session.moved(),
        to_backend: given(Direction::ToBackend),
        to_client: given(Direction::ToClient),
        failed_connects: session.attempts(),
    }
}
