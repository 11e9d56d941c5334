//! Counters: one set of cells per worker, written by that worker alone and read by anybody at any time. No lock, and
//! no cache line that two workers write.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::Loss;
use crate::ids::{BackendId, ListenerId};
use crate::session::{CloseReason, Direction};

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
            pub ends: [Cell; CloseReason::ALL.len()],
            /// What each backend got from this worker.
            pub backends: Box<[BackendCells]>,
            /// What came to each listener by UDP.
            pub listeners: Box<[ListenerCells]>,
        }

        impl WorkerCells {
            /// Cells at zero, for so many backends and listeners.
            #[must_use]
            pub fn new(backends: usize, listeners: usize) -> WorkerCells {
                WorkerCells {
                    $($name: Cell::default(),)+
                    ends: std::array::from_fn(|_| Cell::default()),
                    backends: (0..backends).map(|_| BackendCells::default()).collect(),
                    listeners: (0..listeners).map(|_| ListenerCells::default()).collect(),
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
    /// Bytes given to backends.
    bytes_to_backend,
    /// Bytes given to clients.
    bytes_to_client,
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

/// What one backend got from one worker.
#[derive(Debug, Default)]
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
}

/// What came to one listener by UDP.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// UDP flows begun.
    pub flows_total: Cell,
    /// UDP flows ended, by reason.
    pub flow_ends: [Cell; CloseReason::ALL.len()],
    /// Datagrams of clients, and their bytes; those that were lost then included.
    pub received: Traffic,
    /// Datagrams sent to clients, and their bytes.
    pub sent: Traffic,
    /// Datagrams that were not forwarded, by reason.
    pub lost: [Cell; Loss::ALL.len()],
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
    /// Notes a datagram.
    pub fn add(&self, bytes: u32) {
        self.datagrams.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

impl WorkerCells {
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

    /// Notes a datagram that was not forwarded.
    pub fn lost(&self, listener: ListenerId, loss: Loss) {
        self.listener(listener).lost[loss.index()].add(1);
    }

    /// Notes why a flow of a listener ended.
    pub fn flow_ended(&self, listener: ListenerId, reason: CloseReason) {
        self.listener(listener).flow_ends[reason.index()].add(1);
    }

    /// Notes bytes that a target took.
    pub fn given(&self, direction: Direction, bytes: u32) {
        let cell = match direction {
            Direction::ToBackend => &self.bytes_to_backend,
            Direction::ToClient => &self.bytes_to_client,
        };
        cell.add(u64::from(bytes));
    }

    /// Notes why a session ended.
    pub fn ended(&self, reason: CloseReason) {
        self.ends[reason.index()].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_of_two_workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerCells>() % 128, 0);
        assert_eq!(size_of::<WorkerCells>() % 128, 0);
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let cells = WorkerCells::new(1, 1);
        cells.sessions_active.add(2);
        cells.sessions_active.sub(1);
        assert_eq!(cells.named()[0], ("sessions_active", 1));
    }
}
