//! What the workers share and write: how many sessions each of them has, and all together, each backend and each
//! listener. Touched when a session begins or ends, never on the byte path.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::ids::{BackendId, ListenerId, WorkerId};
use crate::metrics::Table;

/// A counter with a cache line (and its neighbour) to itself.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU32);

/// See the module's text.
#[derive(Debug)]
pub struct Shared {
    sessions: Box<[Padded]>,
    total: Padded,
    max_sessions: u32,
    /// Close together: a pick by least connections looks at all of a pool.
    backends: Table<AtomicU32>,
    listeners: Table<AtomicU32>,
}

impl Shared {
    /// For so many workers, sessions, backends and listeners.
    #[must_use]
    pub fn new(workers: usize, max_sessions: u32, backends: usize, listeners: usize) -> Shared {
        Shared {
            backends: Table::new(backends),
            listeners: Table::new(listeners),
            sessions: (0..workers).map(|_| Padded::default()).collect(),
            total: Padded::default(),
            max_sessions,
        }
    }

    /// From now on there are so many backends and listeners.
    pub fn grow(&self, backends: usize, listeners: usize) {
        self.backends.grow(backends);
        self.listeners.grow(listeners);
    }

    /// Takes one of the places for sessions; false when all are taken. Exact, however many workers try at once.
    pub(super) fn admit(&self) -> bool {
        let one_more = |total| (total < self.max_sessions).then_some(total + 1);
        self.total
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// A session counts on this backend from its pick on; false when it has as many as it may have.
    pub(super) fn claim(&self, backend: BackendId, most: Option<u32>) -> bool {
        take(&self.backends[backend.index()], most)
    }

    /// The backend has one session less.
    pub(super) fn disclaim(&self, backend: BackendId) {
        self.backends[backend.index()].fetch_sub(1, Ordering::Relaxed);
    }

    /// Sessions on a backend, those that still connect included.
    #[must_use]
    pub fn active(&self, backend: BackendId) -> u32 {
        self.backends[backend.index()].load(Ordering::Relaxed)
    }

    /// A session came in through this listener; false when it has as many as it may have.
    pub(super) fn enter(&self, listener: ListenerId, most: Option<u32>) -> bool {
        take(&self.listeners[listener.index()], most)
    }

    /// The listener has one session less.
    pub(super) fn leave(&self, listener: ListenerId) {
        self.listeners[listener.index()].fetch_sub(1, Ordering::Relaxed);
    }

    /// Sessions of a listener.
    #[must_use]
    pub fn sessions_of(&self, listener: ListenerId) -> u32 {
        self.listeners[listener.index()].load(Ordering::Relaxed)
    }

    /// Places that are free.
    pub(super) fn room(&self) -> usize {
        self.max_sessions
            .saturating_sub(self.total.0.load(Ordering::Relaxed)) as usize
    }

    /// An admitted session is this worker's.
    pub(super) fn count(&self, worker: WorkerId) {
        self.sessions[worker.index()]
            .0
            .fetch_add(1, Ordering::Relaxed);
    }

    /// It is another's after all.
    pub(super) fn recount(&self, from: WorkerId, to: WorkerId) {
        self.sessions[from.index()]
            .0
            .fetch_sub(1, Ordering::Relaxed);
        self.count(to);
    }

    /// A session of this worker is over.
    pub(super) fn ended(&self, worker: WorkerId) {
        self.sessions[worker.index()]
            .0
            .fetch_sub(1, Ordering::Relaxed);
        self.total.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sessions of one worker, those on their way to it included.
    pub(super) fn sessions(&self, worker: WorkerId) -> u32 {
        self.sessions[worker.index()].0.load(Ordering::Relaxed)
    }

    /// The worker with the fewest sessions, and their number.
    pub(super) fn least_loaded(&self) -> (WorkerId, u32) {
        let loads = self
            .sessions
            .iter()
            .map(|sessions| sessions.0.load(Ordering::Relaxed));
        let least = (0..).map(WorkerId).zip(loads).min_by_key(|(_, load)| *load);
        least.expect("there is at least one worker")
    }
}

/// One more, unless that is too many. Exact, however many workers try at once.
fn take(count: &AtomicU32, most: Option<u32>) -> bool {
    let Some(most) = most else {
        count.fetch_add(1, Ordering::Relaxed);
        return true;
    };
    let one_more = |count| (count < most).then_some(count + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_limit_is_exact_even_when_threads_race_for_the_last_place() {
        let shared = Arc::new(Shared::new(2, 1000, 1, 1));
        let admitted: usize = std::thread::scope(|scope| {
            let race = |worker| {
                let shared = Arc::clone(&shared);
                scope.spawn(move || {
                    (0..1000)
                        .filter(|_| shared.admit())
                        .map(|_| shared.count(WorkerId(worker)))
                        .count()
                })
            };
            [race(0), race(1)]
                .map(|thread| thread.join().unwrap())
                .iter()
                .sum()
        });
        assert_eq!(admitted, 1000);
        assert_eq!(shared.room(), 0);
        let total = shared.sessions(WorkerId(0)) + shared.sessions(WorkerId(1));
        assert_eq!(total, 1000);
    }
}
