//! From starting to serving to the end: what a stop waits for, and what cuts it short.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::session::CloseReason;
use crate::worker::Command;

use super::{Control, Error};

/// After a failure, so long may the other workers take to reset their sessions.
const FAILURE_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// So many workers are not ready yet.
    Starting(usize),
    Serving,
    /// So many workers still take what waits in the listeners' queues.
    Closing(usize),
    /// Waiting for the last sessions.
    Draining {
        until: Option<Instant>,
    },
    /// They are being reset.
    Killing {
        until: Option<Instant>,
    },
    /// Not waiting any longer.
    Over,
}

impl Phase {
    /// The word of the status.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Starting(_) => "starting",
            Phase::Serving => "serving",
            Phase::Closing(_) | Phase::Draining { .. } => "draining",
            Phase::Killing { .. } | Phase::Over => "ending",
        }
    }
}

impl Control {
    pub(super) fn told_to_stop(&mut self) {
        if self.hands_over_first() {
            return;
        }
        match self.phase {
            Phase::Starting(_) | Phase::Serving => {
                tracing::info!(
                    "stopping: no new connections, waiting for sessions; a second signal ends them at once"
                );
                self.phase = Phase::Closing(self.mailboxes.len());
                self.stopping_since = Some(self.clock.now());
                self.service_stops();
                self.tell_all(|| Command::StopAccepting);
            }
            Phase::Closing(_) | Phase::Draining { .. } => self.kill_all(CloseReason::Shutdown),
            Phase::Killing { .. } | Phase::Over => {}
        }
    }

    /// Once nobody waits in the listeners' queues any more, connects are refused.
    pub(super) fn accepts_drained(&mut self) {
        let Phase::Closing(missing) = self.phase else {
            return;
        };
        self.phase = Phase::Closing(missing - 1);
        if missing == 1 {
            self.listeners.refuse();
            self.phase = Phase::Draining {
                until: self.drain_timeout.map(|timeout| Instant::now() + timeout),
            };
        }
    }

    pub(super) fn deadline_reached(&mut self) {
        if let Phase::Killing { .. } = self.phase {
            self.phase = Phase::Over;
        } else {
            self.kill_all(CloseReason::DrainTimeout);
        }
    }

    pub(super) fn kill_all(&mut self, reason: CloseReason) {
        self.listeners.refuse();
        self.phase = Phase::Killing { until: None };
        self.tell_all(|| Command::Kill(reason));
    }

    /// Something broke: end what still runs with a reset, so that no client takes it for a clean end.
    pub(super) fn fail(&mut self, error: Error) {
        tracing::error!(%error, "failed; ending every session");
        self.failure.get_or_insert(error);
        self.kill_all(CloseReason::Internal);
        self.phase = Phase::Killing {
            until: Some(Instant::now() + FAILURE_PATIENCE),
        };
        self.judge_readiness();
    }
}

/// The deadline of a phase that has one.
pub(super) async fn reached(phase: Phase) {
    match phase {
        Phase::Draining { until: Some(until) } | Phase::Killing { until: Some(until) } => {
            sleep_until(until).await;
        }
        Phase::Starting(_)
        | Phase::Serving
        | Phase::Closing(_)
        | Phase::Draining { until: None }
        | Phase::Killing { until: None }
        | Phase::Over => std::future::pending().await,
    }
}
