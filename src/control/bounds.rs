//! How many sessions and pipes the limit of open files makes. Arithmetic only: who asks reads the limit, and raises it.

use crate::worker::{PIPE_SIZE, accepts_of};

/// File descriptors that are neither sessions nor pipes: listeners come on top.
const FILES_RESERVED: u64 = 64;
/// Pipes, and probes, take at most this part of the file descriptors.
const SHARE: u64 = 20;
/// Most probes at a time.
const PROBES_MOST: u64 = 256;
/// Most sessions that a process can count.
const SESSIONS_MAX: u32 = 1 << 24;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Data-plane threads; at least one.
    pub workers: usize,
    /// Addresses that are listened on, of all listeners.
    pub addresses: usize,
    /// Backends of all pools.
    pub backends: usize,
    /// Bytes for splice pipes and spilled data together.
    pub pipe_memory: u64,
    /// Most sessions at a time; none = as many as possible.
    pub max_sessions: Option<u32>,
}

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sessions at a time: as asked for, or else what is possible.
    pub max_sessions: u32,
    /// Sessions for which there are file descriptors; at least one is tried.
    pub possible_sessions: u32,
    /// Pipes of each worker.
    pub pipes: usize,
    /// Bytes of spilled data of each worker.
    pub spill_memory: u64,
    /// Probes at a time.
    pub probes: usize,
}

impl Demand {
    /// What `files` open files allow.
    #[must_use]
    pub fn bounds(&self, files: u64) -> Bounds {
        let workers = self.workers.max(1);
        let pipe_size = u64::from(PIPE_SIZE);
        let pipes = self.pipes_wanted().min(files / SHARE / 2);
        let probes = self.probes_wanted().min(files / SHARE).max(1);
        let reserved = self.files_of_our_own() + probes + 2 * pipes;
        let possible_sessions = u32::try_from(files.saturating_sub(reserved) / 2)
            .unwrap_or(u32::MAX)
            .clamp(1, SESSIONS_MAX);
        Bounds {
            max_sessions: self.max_sessions.unwrap_or(possible_sessions),
            possible_sessions,
            pipes: usize::try_from(pipes).unwrap_or(0) / workers,
            spill_memory: (self.pipe_memory - pipes * pipe_size) / workers as u64,
            probes: usize::try_from(probes).unwrap_or(1),
        }
    }

    /// Open files that are certainly enough for so many sessions, with all pipes that are wanted.
    #[must_use]
    pub fn files_for(&self, sessions: u32) -> u64 {
        let sessions_and_pipes = 2 * (u64::from(sessions) + self.pipes_wanted());
        self.files_of_our_own() + self.probes_wanted() + sessions_and_pipes
    }

    /// Open files below which not even one session is certain.
    #[must_use]
    pub fn files_least(&self) -> u64 {
        // Of n files, 2 n / SHARE at most go to pipes and probes.
        let own = self.files_of_our_own() + 3;
        own + (2 * own).div_ceil(SHARE - 2)
    }

    /// Half of the memory, the other half is for what does not fit.
    fn pipes_wanted(&self) -> u64 {
        self.pipe_memory / 2 / u64::from(PIPE_SIZE)
    }

    /// One for each backend, within reason: they are spread over the interval.
    fn probes_wanted(&self) -> u64 {
        (self.backends as u64).clamp(1, PROBES_MOST)
    }

    /// Listening sockets, rings, mailboxes, and accepted sockets that are not sessions yet.
    fn files_of_our_own(&self) -> u64 {
        let listening = self.addresses * self.workers;
        let own = listening + self.workers * (8 + accepts_of(self.addresses));
        FILES_RESERVED + own as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        workers: 2,
        addresses: 1,
        backends: 3,
        pipe_memory: 256 << 20,
        max_sessions: None,
    };

    #[test]
    fn what_is_enough_for_so_many_sessions_allows_them() {
        for demand in [
            DEMAND,
            Demand {
                workers: 64,
                backends: 10_000,
                addresses: 1_000,
                ..DEMAND
            },
        ] {
            for sessions in [1, 100, 10_000, 1_000_000] {
                let bounds = demand.bounds(demand.files_for(sessions));
                assert!(
                    bounds.possible_sessions >= sessions,
                    "{sessions}: {bounds:?}"
                );
            }
            let least = demand.files_least();
            assert!(least - demand.files_of_our_own() >= 2);
            assert!(demand.bounds(least + 4).possible_sessions >= 2);
        }
    }

    #[test]
    fn pipes_take_a_twentieth_of_the_files_at_most() {
        let bounds = DEMAND.bounds(20_000);
        assert_eq!(bounds.pipes, 250);
        assert_eq!(DEMAND.bounds(1 << 20).pipes, 256);
        let few = DEMAND.bounds(200);
        assert_eq!(few.pipes, 2);
        assert!((1..100).contains(&few.possible_sessions), "{few:?}");
    }

    #[test]
    fn a_number_in_the_file_wins_over_what_is_possible() {
        let demand = Demand {
            max_sessions: Some(500_000),
            ..DEMAND
        };
        let bounds = demand.bounds(20_000);
        assert_eq!(bounds.max_sessions, 500_000);
        assert!(bounds.possible_sessions < 10_000);
    }
}
