//! From which of a pool's source addresses a connection to a backend comes. They take turns, so that together they give
//! all the ports that they have; when one has no port left for the backend's address, it rests for a moment and the
//! others are tried before the attempt is given up. Which addresses this host has, the kernel says at each bind.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr};

use super::token::Key;
use super::{Report, Worker};
use crate::ids::{BackendId, PoolId, WorkerId};
use crate::metrics::WorkerCells;
use crate::session::Event;
use crate::sys::socket;
use crate::time::{Seldom, Time};

/// How long a source that has no port left for a backend is not asked for one. A connect in vain looks at every port of
/// the range: 0.7 ms were measured for 10,000 ports, and all sessions of the worker wait for it.
const REST: Duration = Duration::from_millis(50);
/// Between two reports of one kind to control.
const REPORTS_EVERY: Duration = Duration::from_secs(1);

/// What one worker knows about sources.
pub(super) struct Sources {
    /// By pool: which source is the first of the next attempt.
    turns: Vec<usize>,
    /// Until when; no source is the one that the kernel chooses.
    resting: HashMap<(BackendId, Option<IpAddr>), Time>,
    exhausted: Seldom,
    absent: Seldom,
}

impl Sources {
    /// The workers begin with different sources.
    pub(super) fn new(pools: usize, worker: WorkerId) -> Sources {
        Sources {
            turns: vec![worker.index(); pools],
            resting: HashMap::new(),
            exhausted: Seldom::new(REPORTS_EVERY),
            absent: Seldom::new(REPORTS_EVERY),
        }
    }

    /// From now on there are so many pools, or more.
    pub(super) fn grow(&mut self, pools: usize, worker: WorkerId) {
        let count = pools.max(self.turns.len());
        self.turns.resize(count, worker.index());
    }

    /// The sources for another attempt to connect to `address`.
    pub(super) fn begin(&mut self, pool: PoolId, sources: &[IpAddr], address: &SockAddr) -> Turn {
        let first = &mut self.turns[pool.index()];
        *first = first.wrapping_add(1);
        Turn {
            next: *first,
            left: fitting(sources, address).count(),
            source: None,
        }
    }

    /// No port was free at a source. Counts it; whether control is to be told.
    pub(super) fn exhausted(&mut self, cells: &WorkerCells, now: Time) -> bool {
        cells.sources_exhausted_total.add(1);
        self.exhausted.may(now)
    }

    /// This host does not have a source. Counts it; whether control is to be told.
    pub(super) fn absent(&mut self, cells: &WorkerCells, now: Time) -> bool {
        cells.sources_absent_total.add(1);
        self.absent.may(now)
    }

    fn rests(&mut self, backend: BackendId, source: Option<IpAddr>, now: Time) -> bool {
        let until = self.resting.get(&(backend, source));
        let rests = until.is_some_and(|until| now < *until);
        if until.is_some() && !rests {
            self.resting.remove(&(backend, source));
        }
        rests
    }
}

/// How far one attempt to connect is with the sources of its pool.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    next: usize,
    left: usize,
    source: Option<IpAddr>,
}

impl Turn {
    /// The next of them; none when each has had its turn.
    pub(super) fn take(&mut self, sources: &[IpAddr], address: &SockAddr) -> Option<IpAddr> {
        self.left = self.left.checked_sub(1)?;
        let fitting = fitting(sources, address);
        self.source = fitting.clone().nth(self.next % fitting.count().max(1));
        self.next = self.next.wrapping_add(1);
        self.source
    }
}

/// Those of the address's family.
fn fitting<'a>(
    sources: &'a [IpAddr],
    address: &SockAddr,
) -> impl Iterator<Item = IpAddr> + Clone + use<'a> {
    let family = address.domain();
    let fits = move |source: &IpAddr| Domain::for_address((*source, 0).into()) == family;
    sources.iter().copied().filter(fits)
}

impl Worker {
    /// A socket to connect to the session's backend with, from the next source of its attempt that this host has.
    /// Without sources the kernel chooses.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when the host has none of those that are left, or they rest; others as of the system calls.
    pub(super) fn outgoing_socket(&mut self, key: Key, backend: BackendId) -> io::Result<OwnedFd> {
        let slot = self.slots.get(key).expect("asked for a live session");
        let pool = &self.snapshot.pools[slot.pool.index()];
        let address = self.picks.address(backend);
        let socket = socket::outgoing_socket(address, &pool.keepalive)?;
        let exhausted = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        if fitting(&pool.sources, address).next().is_none() {
            let rests = self.sources.rests(backend, None, self.now);
            return if rests { Err(exhausted) } else { Ok(socket) };
        }
        while let Some(source) = slot.turn.take(&pool.sources, address) {
            if self.sources.rests(backend, Some(source), self.now) {
                continue;
            }
            match socket::bind_source(socket.as_fd(), source) {
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    if self.sources.absent(&self.cells, self.now) {
                        let pool = slot.pool;
                        (self.reports)(Report::SourceAbsent { pool, source });
                    }
                }
                bound => return bound.map(|()| socket),
            }
        }
        Err(exhausted)
    }

    /// A connect found no free port at its source. True if the session goes on with another source.
    pub(super) fn source_exhausted(&mut self, key: Key, backend: BackendId) -> bool {
        let Some(slot) = self.slots.get(key) else {
            return false;
        };
        let source = slot.turn.source;
        if self.sources.exhausted(&self.cells, self.now) {
            (self.reports)(Report::SourceExhausted { backend, source });
        }
        let until = self.now + REST;
        self.sources.resting.insert((backend, source), until);
        let goes_on = slot.turn.left > 0;
        if goes_on {
            slot.session.on(Event::SourceExhausted, self.now);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> SockAddr {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn an_attempt_tries_each_source_of_its_family_once_and_the_next_begins_with_another() {
        let all = [ip("10.0.0.1"), ip("::1"), ip("10.0.0.2"), ip("10.0.0.3")];
        let backend = at("10.0.0.9:80");
        let mut sources = Sources::new(1, WorkerId(0));
        let mut firsts = Vec::new();
        for _ in 0..6 {
            let mut turn = sources.begin(PoolId(0), &all, &backend);
            let mut tried: Vec<IpAddr> = std::iter::from_fn(|| turn.take(&all, &backend)).collect();
            firsts.push(tried[0]);
            tried.sort_unstable();
            assert_eq!(tried, [all[0], all[2], all[3]]);
        }
        assert_eq!(firsts[..3], firsts[3..]);
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(
            firsts,
            [all[0], all[2], all[3]],
            "each is first in its turn"
        );
        let mut turn = sources.begin(PoolId(0), &all, &at("[::9]:80"));
        assert_eq!(turn.take(&all, &at("[::9]:80")), Some(all[1]));
        assert_eq!(turn.take(&all, &at("[::9]:80")), None);
    }

    #[test]
    fn a_source_rests_for_one_backend_and_only_for_a_while() {
        let mut sources = Sources::new(1, WorkerId(0));
        let source = Some(ip("10.0.0.1"));
        let until = Time::ZERO + REST;
        sources.resting.insert((BackendId(1), source), until);
        assert!(sources.rests(BackendId(1), source, Time::ZERO));
        assert!(!sources.rests(BackendId(2), source, Time::ZERO));
        assert!(!sources.rests(BackendId(1), None, Time::ZERO));
        assert!(!sources.rests(BackendId(1), source, until));
        assert!(sources.resting.is_empty(), "nothing is left of it");
    }

    #[test]
    fn without_a_source_of_the_family_there_is_none_to_take() {
        let mut sources = Sources::new(1, WorkerId(3));
        for (all, backend) in [
            (&[][..], at("10.0.0.9:80")),
            (&[ip("::1")][..], at("10.0.0.9:80")),
            (&[ip("::1")][..], SockAddr::unix("/run/x").unwrap()),
        ] {
            let mut turn = sources.begin(PoolId(0), all, &backend);
            assert_eq!(turn.take(all, &backend), None);
        }
    }
}
