//! Counters over the last minutes, and what their differences say: how much per second, how long on average. Pure.

use std::collections::{HashMap, VecDeque};

use super::reading::{Backend, Listener, Reading, Took};

/// Readings that are remembered: two minutes at one per second.
const REMEMBERED: usize = 120;
/// How far back the average of a latency goes, in seconds.
const LATENCY_WINDOW: f64 = 10.0;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// In seconds since 1970.
    pub(super) at: f64,
    /// Sessions and flows begun.
    pub(super) sessions: u64,
    pub(super) to_backend: u64,
    pub(super) to_client: u64,
    pub(super) connect: Took,
    pub(super) first_byte: Took,
}

/// Per second, between the last two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) sessions: f64,
    pub(super) to_backend: f64,
    pub(super) to_client: f64,
}

/// In seconds, of what happened within the last ten; none if nothing did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latencies {
    pub(super) connect: Option<f64>,
    pub(super) first_byte: Option<f64>,
}

/// The counters of one thing, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Track(VecDeque<Counted>);

impl Track {
    fn note(&mut self, counted: Counted) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(counted);
    }

    /// None before the second reading.
    pub(super) fn rates(&self) -> Option<Rates> {
        self.all_rates().last()
    }

    /// Of all readings, the newest last.
    pub(super) fn all_rates(&self) -> impl Iterator<Item = Rates> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs.map(|(before, now)| {
            let seconds = (now.at - before.at).max(0.001);
            let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
            Rates {
                sessions: per_second(before.sessions, now.sessions),
                to_backend: per_second(before.to_backend, now.to_backend),
                to_client: per_second(before.to_client, now.to_client),
            }
        })
    }

    pub(super) fn latencies(&self) -> Latencies {
        let Some(now) = self.0.back() else {
            return Latencies::default();
        };
        let is_recent = |one: &&Counted| now.at - one.at <= LATENCY_WINDOW;
        let before = self.0.iter().find(is_recent).unwrap_or(now);
        let mean = |before: Took, now: Took| {
            let count = now.count.saturating_sub(before.count);
            (count > 0).then(|| (now.sum - before.sum).max(0.0) / count as f64)
        };
        Latencies {
            connect: mean(before.connect, now.connect),
            first_byte: mean(before.first_byte, now.first_byte),
        }
    }
}

/// The counters of everything that has some.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    pub(super) process: Track,
    listeners: HashMap<String, Track>,
    /// By pool, then by name.
    backends: HashMap<String, HashMap<String, Track>>,
}

impl Tracks {
    pub(super) fn note(&mut self, reading: &Reading) {
        let mut all = Counted {
            at: reading.now,
            sessions: reading.sessions_total + reading.flows_total,
            ..Counted::default()
        };
        for listener in &reading.listeners {
            let counted = of_listener(listener, reading.now);
            all.to_backend += counted.to_backend;
            all.to_client += counted.to_client;
            let track = self.listeners.entry(listener.name.clone()).or_default();
            track.note(counted);
        }
        for backend in reading.pools.iter().flat_map(|pool| &pool.backends) {
            let counted = of_backend(backend, reading.now);
            for (sum, one) in [
                (&mut all.connect, counted.connect),
                (&mut all.first_byte, counted.first_byte),
            ] {
                sum.count += one.count;
                sum.sum += one.sum;
            }
            let pool = self.backends.entry(backend.pool.clone()).or_default();
            pool.entry(backend.name.clone()).or_default().note(counted);
        }
        self.process.note(all);
        // What is no longer there is forgotten.
        let is_current = |track: &mut Track| {
            let last = track.0.back();
            last.is_some_and(|last| last.at >= reading.now)
        };
        self.listeners.retain(|_, track| is_current(track));
        self.backends.retain(|_, pool| {
            pool.retain(|_, track| is_current(track));
            !pool.is_empty()
        });
    }

    pub(super) fn listener(&self, name: &str) -> Option<&Track> {
        self.listeners.get(name)
    }

    pub(super) fn backend(&self, pool: &str, name: &str) -> Option<&Track> {
        self.backends.get(pool)?.get(name)
    }
}

fn of_listener(listener: &Listener, at: f64) -> Counted {
    let datagrams = listener.datagrams.clone().unwrap_or_default();
    Counted {
        at,
        sessions: listener.sessions_total + datagrams.flows_total,
        to_backend: listener.bytes_to_backend + datagrams.bytes_received,
        to_client: listener.bytes_to_client + datagrams.bytes_sent,
        ..Counted::default()
    }
}

fn of_backend(backend: &Backend, at: f64) -> Counted {
    Counted {
        at,
        sessions: backend.sessions_total + backend.flows_total,
        to_backend: backend.bytes_to_backend + backend.bytes_sent,
        to_client: backend.bytes_to_client + backend.bytes_received,
        connect: backend.connect_duration_seconds,
        first_byte: backend.first_byte_duration_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(all: &[(f64, u64, u64, f64)]) -> Track {
        let mut track = Track::default();
        for (at, sessions, count, sum) in all.iter().copied() {
            let connect = Took { count, sum };
            track.note(Counted {
                at,
                sessions,
                connect,
                ..Counted::default()
            });
        }
        track
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        assert_eq!(track(&[(10.0, 5, 0, 0.0)]).rates(), None);
        let track = track(&[(10.0, 5, 0, 0.0), (10.5, 15, 0, 0.0), (12.5, 17, 0, 0.0)]);
        let each: Vec<f64> = track.all_rates().map(|rates| rates.sessions).collect();
        assert_eq!(each, [20.0, 1.0]);
    }

    #[test]
    fn a_latency_is_the_mean_of_the_last_seconds_and_none_without_any() {
        let long_ago = (0.0, 0, 100, 100.0);
        let quiet = track(&[long_ago, (100.0, 0, 100, 100.0), (101.0, 0, 100, 100.0)]);
        assert_eq!(quiet.latencies().connect, None);
        let busy = track(&[long_ago, (100.0, 0, 100, 100.0), (101.0, 0, 104, 100.5)]);
        assert_eq!(busy.latencies().connect, Some(0.125));
    }

    #[test]
    fn only_so_much_is_remembered() {
        let mut track = Track::default();
        for number in 0..500 {
            track.note(Counted {
                sessions: number,
                ..Counted::default()
            });
        }
        assert_eq!(track.0.len(), REMEMBERED);
    }
}
