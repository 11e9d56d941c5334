//! Whether those who serve the addresses are at work: each writes the time into a cell of its own whenever it is asked
//! to, and the thread that sends advertisements reads them. So an idle one is alive, and a stalled one is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time::Time;

/// The control plane's cell; workers' cells follow.
pub const CONTROL: usize = 0;

/// The cells, and the clock that all read.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    cells: Box<[AtomicU64]>,
}

impl Progress {
    /// For control and so many workers, all at work now.
    #[must_use]
    pub fn new(started: Instant, workers: usize) -> Progress {
        let cells = (0..=workers).map(|_| AtomicU64::new(0)).collect();
        let progress = Progress { started, cells };
        (0..=workers).for_each(|who| progress.beat(who));
        progress
    }

    /// Whoever has this cell is at work.
    pub fn beat(&self, who: usize) {
        let now = Time::ZERO + self.started.elapsed();
        self.cells[who].store(now.as_micros(), Ordering::Relaxed);
    }

    /// Since when each has done nothing.
    fn last(&self) -> impl Iterator<Item = Time> {
        let cells = self.cells.iter();
        cells.map(|cell| Time::from_micros(cell.load(Ordering::Relaxed)))
    }
}

/// Watches the cells. A watcher that was itself stopped (a signal, a suspended machine) says nothing about the others
/// until they have had the time to show themselves.
#[derive(Debug)]
pub struct Watchdog {
    progress: Arc<Progress>,
    looked: Time,
    /// Everybody counts as at work until then.
    trusts_until: Time,
}

impl Watchdog {
    /// Of these.
    #[must_use]
    pub fn new(progress: Arc<Progress>) -> Watchdog {
        Watchdog {
            progress,
            looked: Time::ZERO,
            trusts_until: Time::ZERO,
        }
    }

    /// It has been looked at; a long time after the last one, the watcher was stopped itself.
    pub fn look(&mut self, now: Time, timeout: Duration) {
        if now - self.looked > timeout / 2 {
            self.trusts_until = now + timeout;
        }
        self.looked = now;
    }

    /// Who has done nothing for so long.
    #[must_use]
    pub fn stalled(&self, now: Time, timeout: Duration) -> Option<Arc<str>> {
        if now < self.trusts_until {
            return None;
        }
        let who = self.progress.last().position(|last| now - last > timeout)?;
        let who = match who {
            CONTROL => "the control plane".to_owned(),
            worker => format!("worker {}", worker - 1),
        };
        Some(Arc::from(format!("{who} has done nothing for {timeout:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    #[test]
    fn one_that_shows_nothing_is_stalled_but_not_when_the_watcher_was_stopped() {
        let progress = Arc::new(Progress::new(Instant::now(), 1));
        let mut watchdog = Watchdog::new(Arc::clone(&progress));
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        for half in 0..20_u64 {
            let now = Time::from_micros(half * 500_000);
            watchdog.look(now, TIMEOUT);
            let stalled = watchdog.stalled(now, TIMEOUT);
            assert_eq!(stalled.is_some(), half > 4, "{half}: {stalled:?}");
        }
        watchdog.look(at(100), TIMEOUT);
        assert_eq!(watchdog.stalled(at(100), TIMEOUT), None);
        watchdog.look(at(101), TIMEOUT);
        watchdog.look(at(102), TIMEOUT);
        let stalled = watchdog.stalled(at(102), TIMEOUT).unwrap();
        assert!(stalled.contains("control plane"), "{stalled}");
    }
}
