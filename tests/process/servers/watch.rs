//! Watches a running Ringway for what counters do not show: kernel threads for io_uring that come and go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Ringway, facts, join};

const PERIOD: Duration = Duration::from_millis(20);

/// Looks at the names of all threads again and again until it is asked.
pub struct Watch {
    ended: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: thread::JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub fn on(ringway: &Ringway) -> Self {
        let (ended, looks) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (pid, end, count) = (ringway.pid(), Arc::clone(&ended), Arc::clone(&looks));
        let tasks = PathBuf::from(format!("/proc/{pid}/task"));
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            // A test that fails lets the process go before it asks.
            while !end.load(Ordering::Relaxed) && tasks.exists() {
                seen.extend(facts::threads(pid));
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PERIOD);
            }
            seen
        });
        Self {
            ended,
            looks,
            thread,
        }
    }

    /// Checks that the kernel never made a thread for an operation of the ring.
    #[track_caller]
    pub fn saw_no_kernel_worker(self) {
        self.ended.store(true, Ordering::Relaxed);
        let looks = self.looks.load(Ordering::Relaxed);
        let seen = join(self.thread);
        assert!(
            looks > 0 && !seen.is_empty(),
            "the process was never looked at"
        );
        let workers: Vec<_> = seen
            .iter()
            .filter(|name| name.starts_with("iou-wrk"))
            .collect();
        assert!(
            workers.is_empty(),
            "operations went to kernel threads: {workers:?}"
        );
    }
}
