//! How many sessions, UDP flows and pipes the limit of open files makes. Arithmetic only: who asks reads the
//! limit, and raises it.

use crate::worker::{LINES_ENDING, PIPE_SIZE, accepts_of};

/// File descriptors that are neither sessions nor pipes: listeners come on top.
const FILES_RESERVED: u64 = 64;
/// Pipes, and probes, take at most this part of the file descriptors.
const SHARE: u64 = 20;
/// Most probes at a time.
const PROBES_MOST: u64 = 256;
/// Most sessions that a process can count.
const SESSIONS_MAX: u32 = 1 << 24;
/// At least this part of the source ports for UDP flows is left to others: the resolver, NTP, our own probes, and lines
/// that are ending.
const PORTS_LEFT: u64 = 8;
/// Where there are TCP listeners, UDP flows take at most this part of what is left, unless the file says how many.
const FLOWS_SHARE: u64 = 4;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Data-plane threads; at least one.
    pub workers: usize,
    /// Addresses that are listened on, of all TCP listeners.
    pub addresses: usize,
    /// The same of all UDP listeners.
    pub datagram_addresses: usize,
    /// Backends of all pools.
    pub backends: usize,
    /// Bytes for splice pipes and spilled data together.
    pub pipe_memory: u64,
    /// Most sessions at a time; none = as many as possible.
    pub max_sessions: Option<u32>,
    /// Most UDP flows at a time; none = as many as fit.
    pub max_flows: Option<u32>,
    /// Source ports for UDP flows, if they are known.
    pub flow_ports: Option<u32>,
}

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sessions at a time: as asked for, or else what is possible.
    pub max_sessions: u32,
    /// Sessions for which there are file descriptors; at least one is tried.
    pub possible_sessions: u32,
    /// UDP flows at a time: as asked for, or else what is possible; 0 without UDP listeners.
    pub max_flows: u32,
    /// UDP flows for which there are file descriptors and ports.
    pub possible_flows: u32,
    /// Pipes of each worker.
    pub pipes: usize,
    /// Bytes of spilled data of each worker.
    pub spill_memory: u64,
    /// Probes at a time.
    pub probes: usize,
}

impl Bounds {
    /// UDP flows of each of so many workers: an equal share.
    #[must_use]
    pub fn max_flows_each(&self, workers: usize) -> u32 {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        (self.max_flows / workers.max(1)).max(1)
    }
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
        let left = files.saturating_sub(reserved);
        let possible_flows = self.possible_flows(left);
        let max_flows = match self.max_flows {
            Some(flows) if self.datagram_addresses > 0 => flows,
            Some(_) | None => possible_flows,
        };
        let left = left.saturating_sub(u64::from(max_flows));
        let possible_sessions = u32::try_from(left / 2)
            .unwrap_or(u32::MAX)
            .clamp(1, SESSIONS_MAX);
        Bounds {
            max_sessions: self.max_sessions.unwrap_or(possible_sessions),
            possible_sessions,
            max_flows,
            possible_flows,
            pipes: usize::try_from(pipes).unwrap_or(0) / workers,
            spill_memory: (self.pipe_memory - pipes * pipe_size) / workers as u64,
            probes: usize::try_from(probes).unwrap_or(1),
        }
    }

    /// UDP flows for which there is room in `left` files.
    fn possible_flows(&self, left: u64) -> u32 {
        if self.datagram_addresses == 0 {
            return 0;
        }
        let files = match self.addresses {
            0 => left.saturating_sub(2),
            _ => left / FLOWS_SHARE,
        };
        let ports = self.ports_for_flows().map_or(u64::MAX, u64::from);
        u32::try_from(files.min(ports))
            .unwrap_or(u32::MAX)
            .clamp(1, SESSIONS_MAX)
    }

    /// Source ports that UDP flows may take, if they are known: an eighth stays free, or what the lines take that are
    /// ending if that is more, but never more than half.
    #[must_use]
    pub fn ports_for_flows(&self) -> Option<u32> {
        let all = self.flow_ports?;
        let others = (u64::from(all) / PORTS_LEFT).max(self.lines_ending());
        Some(all - u32::try_from(others).map_or(all / 2, |others| others.min(all / 2)))
    }

    /// Sockets of ended UDP flows that may wait to be closed.
    fn lines_ending(&self) -> u64 {
        match self.datagram_addresses {
            0 => 0,
            _ => self.workers.max(1) as u64 * u64::from(LINES_ENDING),
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
        let listening = (self.addresses + self.datagram_addresses) * self.workers;
        let own = listening + self.workers * (8 + accepts_of(self.addresses));
        FILES_RESERVED + own as u64 + self.lines_ending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        workers: 2,
        addresses: 1,
        backends: 3,
        datagram_addresses: 0,
        pipe_memory: 256 << 20,
        max_sessions: None,
        max_flows: None,
        flow_ports: None,
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
    fn flows_leave_the_files_that_sessions_need() {
        let demand = Demand {
            datagram_addresses: 2,
            flow_ports: Some(28_000),
            ..DEMAND
        };
        let (without, bounds) = (DEMAND.bounds(40_000), demand.bounds(40_000));
        assert!((8_000..10_000).contains(&bounds.max_flows), "{bounds:?}");
        let files = 2 * bounds.possible_sessions + bounds.max_flows;
        assert!(files <= 2 * without.possible_sessions);
        let all = Demand {
            addresses: 0,
            ..demand
        };
        assert_eq!(all.bounds(1 << 20).max_flows, 24_500, "no more ports");
        assert!(all.bounds(20_000).max_flows > 15_000);
        let asked = Demand {
            max_flows: Some(20_000),
            ..demand
        };
        let bounds = asked.bounds(40_000);
        assert_eq!(bounds.max_flows, 20_000);
        assert!(bounds.possible_sessions < 10_000, "{bounds:?}");
        assert_eq!(without.max_flows, 0);
    }

    #[test]
    fn flows_leave_ports_to_others() {
        for (workers, ports, expected) in [
            (2, 28_232, 24_703),
            (2, 4_000, 3_488),
            (16, 28_232, 24_136),
            (64, 28_232, 14_116),
            (2, 20, 10),
            (2, 1, 1),
        ] {
            let demand = Demand {
                addresses: 0,
                datagram_addresses: 1,
                workers,
                flow_ports: Some(ports),
                ..DEMAND
            };
            let bounds = demand.bounds(1 << 20);
            assert_eq!(
                bounds.max_flows, expected,
                "{workers} workers, {ports} ports"
            );
            let asked = Demand {
                max_flows: Some(ports),
                ..demand
            };
            assert!(asked.bounds(1 << 20).possible_flows <= ports);
        }
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
