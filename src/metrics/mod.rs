//! Counters: one set of cells per worker, written by that worker alone and read by anybody at any time. No lock, and
//! no cache line that two workers write. [`list`] names what is made of them for Prometheus, [`exposition`] writes it.

pub mod exposition;
mod histogram;
pub mod list;
mod table;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::Loss;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::session::{CloseReason, Direction};

pub use histogram::{BUCKETS, Counts, Histogram, LATENCIES, LIVES};
pub use table::Table;

/// A number with one writer. Monotonic as a counter, up and down as a gauge.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the one writer may call this.
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// Subtracts; only the one writer may call this.
    pub fn sub(&self, amount: u64) {
        self.0
            .store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }

    /// Sets; only the one writer may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds what another one holds, which is at zero then; nobody else may write to either.
    pub fn take(&self, other: &Cell) {
        self.add(other.get());
        other.set(0);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! worker_cells {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What one worker counts. Aligned so that no two workers write to one cache line (or to a neighbouring pair,
        /// which the hardware fetches together).
        #[derive(Debug)]
        #[repr(align(128))]
        pub struct WorkerCells {
            $($(#[$doc])* pub $name: Cell,)+
            /// Sessions ended, by reason.
            pub ends: Ends,
            /// What each backend got from this worker.
            pub backends: Table<BackendCells>,
            /// What each pool got from this worker.
            pub pools: Table<PoolCells>,
            /// What came to each listener.
            pub listeners: Table<ListenerCells>,
        }

        impl WorkerCells {
            /// Cells at zero, for so many backends, pools and listeners.
            #[must_use]
            pub fn new(backends: usize, pools: usize, listeners: usize) -> WorkerCells {
                WorkerCells {
                    $($name: Cell::default(),)+
                    ends: Ends::default(),
                    backends: Table::new(backends),
                    pools: Table::new(pools),
                    listeners: Table::new(listeners),
                }
            }

            /// Name and value of every plain cell.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

worker_cells! {
    /// Sessions that live now.
    sessions_active,
    /// Sessions begun.
    sessions_total,
    /// Places of the session table in use.
    slots_used,
    /// Connections accepted from a listener.
    accepts_total,
    /// Accepted connections that wait because `max_sessions` is reached.
    accepts_parked,
    /// Of those, reset by a stop before there was room for them.
    accepts_refused_total,
    /// Connections handed to a less loaded worker.
    adoptions_total,
    /// Accepts that failed for want of file descriptors in this process (EMFILE).
    accept_errors_emfile,
    /// Accepts that failed for want of file descriptors on this host (ENFILE).
    accept_errors_enfile,
    /// Accepts that failed for want of memory (ENOBUFS, ENOMEM).
    accept_errors_memory,
    /// Accepts that failed otherwise; the client was gone, mostly.
    accept_errors_other,
    /// Attempts to connect to a backend.
    connects_total,
    /// Of those, succeeded.
    connects_established_total,
    /// Of those, failed.
    connect_failures_total,
    /// Attempts after a failed one of the same session.
    connect_retries_total,
    /// Connects that found no free port at their source address, which then rests while the pool's others are tried.
    sources_exhausted_total,
    /// Connects whose source address this host did not have; the pool's others are tried then.
    sources_absent_total,
    /// Receive buffers.
    buffers_total,
    /// Of those, free.
    buffers_free,
    /// Receives that found no free buffer.
    starved_total,
    /// Splice pipes.
    pipes_total,
    /// Of those, free.
    pipes_free,
    /// Pumps that found no free pipe and went on receiving.
    pipes_unavailable_total,
    /// Bytes held in memory for targets that take no more.
    spill_bytes,
    /// Times that buffers were emptied into that memory.
    spills_total,
    /// Times that a relay went from receiving to splicing.
    pumps_entered_total,
    /// Times that a relay went back to receiving.
    pumps_left_total,
    /// Relays that went to rest because no byte had moved for a while.
    rests_total,
    /// Completions that found the queue full and waited in the kernel.
    cq_overflows_total,
    /// Completions for a session that no longer exists: a mistake of ours.
    stale_completions_total,
    /// Sessions frozen.
    freezes_total,
    /// Commands that found another worker's mailbox full.
    mailbox_full_total,
    /// Turns of the loop.
    turns_total,
    /// UDP flows that live now.
    flows_active,
    /// UDP flows begun.
    flows_total,
    /// Flows that went on with another backend.
    flows_moved_total,
    /// Sockets of flows, those of ended ones that are still to be closed included.
    lines_used,
    /// Buffers for datagrams.
    datagram_buffers_total,
    /// Of those, free.
    datagram_buffers_free,
    /// Receives of datagrams that found no free buffer.
    datagrams_starved_total,
}

/// How many ended, by reason.
#[derive(Debug)]
pub struct Ends([Cell; CloseReason::ALL.len()]);

impl Default for Ends {
    fn default() -> Ends {
        Ends(std::array::from_fn(|_| Cell::default()))
    }
}

impl Ends {
    fn take(&self, other: &Ends) {
        let both = self.0.iter().zip(&other.0);
        both.for_each(|(cell, other)| cell.take(other));
    }

    /// Notes one.
    pub fn add(&self, reason: CloseReason) {
        self.0[reason.index()].add(1);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self, reason: CloseReason) -> u64 {
        self.0[reason.index()].get()
    }
}

/// Bytes that targets took, by direction.
#[derive(Debug, Default)]
pub struct Given([Cell; 2]);

impl Given {
    fn take(&self, other: &Given) {
        let both = self.0.iter().zip(&other.0);
        both.for_each(|(cell, other)| cell.take(other));
    }

    fn add(&self, direction: Direction, bytes: u32) {
        self.0[direction.index()].add(u64::from(bytes));
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self, direction: Direction) -> u64 {
        self.0[direction.index()].get()
    }
}

/// What one backend got from one worker. Aligned like [`WorkerCells`], because a worker writes to it for each send.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendCells {
    /// Sessions that live now.
    pub sessions_active: Cell,
    /// Sessions connected.
    pub sessions_total: Cell,
    /// Attempts to connect that failed.
    pub connect_failures_total: Cell,
    /// Until when others are preferred after failed connects, in microseconds of the process' clock.
    pub avoided_until: Cell,
    /// Until when it gets less than its full share because it has come back, in microseconds of the process' clock.
    pub ramp_until: Cell,
    /// UDP flows that live now.
    pub flows_active: Cell,
    /// UDP flows that were led to it.
    pub flows_total: Cell,
    /// Of those, ended because nothing came either way for too long.
    pub flows_expired_total: Cell,
    /// Datagrams sent to it, and their bytes.
    pub sent: Traffic,
    /// Datagrams that came from it, and their bytes.
    pub received: Traffic,
    /// Bytes of its sessions.
    pub given: Given,
    /// Made with its first session: files may have very many backends.
    usage: OnceLock<Box<Usage>>,
}

impl BackendCells {
    /// What its sessions were like.
    pub fn usage(&self) -> &Usage {
        self.usage.get_or_init(Box::default)
    }

    /// Takes over what another has counted, which begins anew then. No worker may use either.
    pub fn take(&self, other: &BackendCells) {
        for (cell, other) in [
            (&self.sessions_active, &other.sessions_active),
            (&self.sessions_total, &other.sessions_total),
            (&self.connect_failures_total, &other.connect_failures_total),
            (&self.flows_active, &other.flows_active),
            (&self.flows_total, &other.flows_total),
            (&self.flows_expired_total, &other.flows_expired_total),
        ] {
            cell.take(other);
        }
        other.avoided_until.set(0);
        other.ramp_until.set(0);
        self.sent.take(&other.sent);
        self.received.take(&other.received);
        self.given.take(&other.given);
        if let Some(usage) = other.usage_so_far() {
            self.usage().take(usage);
        }
    }

    /// The same, if it has had one.
    #[must_use]
    pub fn usage_so_far(&self) -> Option<&Usage> {
        self.usage.get().map(Box::as_ref)
    }
}

/// What the sessions of one backend on one worker were like.
#[derive(Debug)]
#[repr(align(128))]
pub struct Usage {
    /// How long connects took that succeeded.
    pub connect: Histogram,
    /// From the client's first bytes, or from the connect if the backend speaks first, to the backend's first byte.
    pub first_byte: Histogram,
    /// From the accept to the end, of sessions that were connected.
    pub duration: Histogram,
    /// Why those ended.
    pub ends: Ends,
}

impl Usage {
    fn take(&self, other: &Usage) {
        self.connect.take(&other.connect);
        self.first_byte.take(&other.first_byte);
        self.duration.take(&other.duration);
        self.ends.take(&other.ends);
    }
}

impl Default for Usage {
    fn default() -> Usage {
        Usage {
            connect: Histogram::new(&LATENCIES),
            first_byte: Histogram::new(&LATENCIES),
            duration: Histogram::new(&LIVES),
            ends: Ends::default(),
        }
    }
}

/// What one pool got from one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolCells {
    /// Sessions that live now, those that still connect included.
    pub sessions_active: Cell,
    /// Sessions begun.
    pub sessions_total: Cell,
    /// Attempts to connect after a failed one of the same session.
    pub connect_retries_total: Cell,
    /// Why sessions ended.
    pub ends: Ends,
}

impl PoolCells {
    /// Begins anew. No worker may use it.
    pub fn clear(&self) {
        PoolCells::default().take(self);
    }

    fn take(&self, other: &PoolCells) {
        self.sessions_active.take(&other.sessions_active);
        self.sessions_total.take(&other.sessions_total);
        let retries = &other.connect_retries_total;
        self.connect_retries_total.take(retries);
        self.ends.take(&other.ends);
    }
}

/// What came to one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerCells {
    /// Connections accepted,
    pub accepts_total: Cell,
    /// and connections that are over, whether they became sessions or not.
    pub over_total: Cell,
    /// Sessions begun.
    pub sessions_total: Cell,
    /// Bytes of its sessions.
    pub given: Given,
    /// UDP flows begun.
    pub flows_total: Cell,
    /// UDP flows ended, by reason.
    pub flow_ends: Ends,
    /// Datagrams of clients, and their bytes; those that were lost then included.
    pub received: Traffic,
    /// Datagrams sent to clients, and their bytes.
    pub sent: Traffic,
    /// Datagrams that were not forwarded, by reason.
    pub lost: [Cell; Loss::ALL.len()],
}

impl ListenerCells {
    /// Takes over what another has counted, which begins anew then. No worker may use either.
    pub fn take(&self, other: &ListenerCells) {
        self.accepts_total.take(&other.accepts_total);
        self.over_total.take(&other.over_total);
        self.sessions_total.take(&other.sessions_total);
        self.given.take(&other.given);
        self.flows_total.take(&other.flows_total);
        self.flow_ends.take(&other.flow_ends);
        self.received.take(&other.received);
        self.sent.take(&other.sent);
        for (lost, other) in self.lost.iter().zip(&other.lost) {
            lost.take(other);
        }
    }
}

/// Datagrams and their bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: Cell,
    /// Bytes that they carried.
    pub bytes: Cell,
}

impl Traffic {
    fn take(&self, other: &Traffic) {
        self.datagrams.take(&other.datagrams);
        self.bytes.take(&other.bytes);
    }

    /// Notes a datagram.
    pub fn add(&self, bytes: u32) {
        self.datagrams.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

impl WorkerCells {
    /// From now on there are cells for so many.
    pub fn grow(&self, backends: usize, pools: usize, listeners: usize) {
        self.backends.grow(backends);
        self.pools.grow(pools);
        self.listeners.grow(listeners);
    }

    /// The cells of one backend.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &BackendCells {
        &self.backends[id.index()]
    }

    /// The cells of one listener.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &ListenerCells {
        &self.listeners[id.index()]
    }

    /// The cells of one pool.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> &PoolCells {
        &self.pools[id.index()]
    }

    /// Notes a datagram that was not forwarded.
    pub fn lost(&self, listener: ListenerId, loss: Loss) {
        self.listener(listener).lost[loss.index()].add(1);
    }

    /// Notes why a flow of a listener ended.
    pub fn flow_ended(&self, listener: ListenerId, reason: CloseReason) {
        self.listener(listener).flow_ends.add(reason);
    }

    /// Notes bytes of a session that a target took.
    pub fn given(
        &self,
        listener: ListenerId,
        backend: Option<BackendId>,
        direction: Direction,
        bytes: u32,
    ) {
        self.listener(listener).given.add(direction, bytes);
        if let Some(backend) = backend {
            self.backend(backend).given.add(direction, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_of_two_workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerCells>() % 128, 0);
        assert_eq!(size_of::<WorkerCells>() % 128, 0);
        assert_eq!(size_of::<BackendCells>(), 128);
        assert_eq!(size_of::<ListenerCells>() % 128, 0);
        assert_eq!(size_of::<PoolCells>() % 128, 0);
        assert_eq!(size_of::<Usage>() % 128, 0);
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let cells = WorkerCells::new(1, 1, 1);
        cells.sessions_active.add(2);
        cells.sessions_active.sub(1);
        assert_eq!(cells.named()[0], ("sessions_active", 1));
    }
}
