//! Which backend a connection would get now on this worker, and why: the pickers themselves say so, on a copy.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Worker;
use super::sweep::Reply;
use crate::balance::{Algorithm, Slot};
use crate::ids::{ListenerId, WorkerId};

/// Backends of a pool that are told about, beside the one that is picked.
pub(super) const CANDIDATES_MAX: usize = 1_000;

/// A question.
#[derive(Debug)]
pub struct Explain {
    /// Where it would come in.
    pub listener: ListenerId,
    /// Where it would come from; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// Who wants to know.
    pub reply: Reply<Explained>,
}

/// The answer.
#[derive(Debug)]
pub struct Explained {
    /// Which worker says so.
    pub worker: WorkerId,
    /// The pool that it would be led to.
    pub pool: Arc<str>,
    /// How that picks.
    pub balance: Algorithm,
    /// What is hashed for it came to this; none unless the pool picks by hash.
    pub hash: Option<u64>,
    /// The slot that the hash leads to, and the backend that the slot belongs to.
    pub slot: Option<(Slot, Arc<str>)>,
    /// The backend that it would get first; none if there is none.
    pub picked: Option<Arc<str>>,
    /// The listener has all the sessions it may have: it would be ended at once.
    pub is_full: bool,
    /// The first backends of the pool, in the order of the file.
    pub candidates: Vec<Candidate>,
    /// How many more there are.
    pub omitted: usize,
}

/// A backend that could be picked.
#[derive(Debug)]
pub struct Candidate {
    /// Its name.
    pub backend: Arc<str>,
    /// Its weight.
    pub weight: u16,
    /// Whether it is for when no other is usable.
    pub backup: bool,
    /// Sessions on it, those that still connect included.
    pub sessions: u32,
    /// Why it cannot be picked; none if it can.
    pub skipped: Option<String>,
}

impl Worker {
    /// Answers, and changes nothing.
    pub(super) fn explain(&mut self, explain: Explain) {
        let Explain {
            listener,
            client,
            reply,
        } = explain;
        let most = self.snapshot.listeners[listener.index()].max_sessions;
        let sessions = self.shared.sessions_of(listener);
        let answer = self
            .picks
            .explain(&self.snapshot, listener, client, self.now, &self.shared);
        reply.tell(Explained {
            worker: self.id,
            is_full: most.is_some_and(|most| sessions >= most),
            ..answer
        });
    }
}
