//! How it is, for the service manager: one line, and that everybody is at work.

use std::sync::Arc;

use super::Control;
use super::Phase;
use crate::notify::Notify;
use crate::vrrp::progress::{CONTROL, Progress};
use crate::worker::Command;

impl Control {
    /// Clients are let in.
    pub(super) fn service_is_ready(&mut self) {
        self.service_status();
        if let Some(notify) = &self.notify {
            notify.ready();
        }
    }

    /// The end begins.
    pub(super) fn service_stops(&mut self) {
        self.service_status();
        if let Some(notify) = &self.notify {
            notify.stopping();
        }
    }

    /// Shows that control is at work, asks the workers to, and tells how it is.
    pub(super) fn service_beat(&mut self) {
        let Some(notify) = &self.notify else { return };
        self.beat_for(notify.progress());
        match self.phase {
            Phase::Starting(_) | Phase::Serving => {}
            Phase::Closing(_) | Phase::Draining { .. } | Phase::Killing { .. } | Phase::Over => {
                notify.needs_time();
            }
        }
        self.service_status();
    }

    /// Shows somebody who watches that control is at work, and asks the workers to.
    pub(super) fn beat_for(&self, progress: &Arc<Progress>) {
        progress.beat(CONTROL);
        for (number, mailbox) in self.mailboxes.iter().enumerate() {
            if self.live[number] {
                // One whose mailbox is full has nothing to show.
                let _ = mailbox.send(Command::Beat(Arc::clone(progress)));
            } else {
                progress.beat(1 + number);
            }
        }
    }

    fn service_status(&mut self) {
        if self.notify.is_none() {
            return;
        }
        let status = self.in_one_line();
        if let Some(notify) = &mut self.notify {
            notify.status(status);
        }
    }

    /// What `ringway status` says first, and what is not well.
    fn in_one_line(&self) -> String {
        let view = self.view();
        let sessions = view.sum(|cells| cells.sessions_active.get());
        let flows = view.sum(|cells| cells.flows_active.get());
        let backends = &self.snapshot.backends;
        let configured = self.snapshot.backends_in_order();
        let (mut count, mut usable) = (0, 0);
        for (_, backend) in configured {
            count += 1;
            usable += usize::from(backend.takes_sessions());
        }
        let mut line = format!(
            "{}: {sessions} of {} sessions",
            self.phase.as_str(),
            self.max_sessions
        );
        if self.listeners.datagrams().count() > 0 {
            line.push_str(&format!(", {flows} flows"));
        }
        line.push_str(&format!(", {usable} of {count} backends usable"));
        let empty = self.snapshot.pools_in_order().filter(|(_, pool)| {
            let ids = pool.backends.iter();
            !ids.clone().any(|id| backends[id.index()].takes_sessions())
        });
        let mut empty = empty.map(|(_, pool)| &*pool.name);
        if let Some(first) = empty.next() {
            line.push_str(&format!("; pool {first} has none"));
            match empty.count() {
                0 => {}
                more => line.push_str(&format!(", nor have {more} more")),
            }
        }
        line
    }
}

/// When everybody is to show that they are at work.
pub(super) fn interval(notify: Option<&Notify>) -> Option<tokio::time::Interval> {
    notify.map(|notify| {
        let mut beat = tokio::time::interval(notify.look_every());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        beat
    })
}
