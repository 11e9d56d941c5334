//! What a reload does to virtual routers: those that can go on with other settings do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Command, Vrrp};
use crate::control::Control;
use crate::vrrp::settings::Settings;
use crate::vrrp::{RouterId, Ticket};
use crate::worker;

/// Of sessions on addresses that the file has no more; the thread counts its own from 1.
const ADDRESSES_GONE: Ticket = Ticket(u64::MAX);

/// Whether running virtual routers become others without a restart. Both have the same ids for pools.
pub(in crate::control) fn takes_over(running: &[Arc<Settings>], wanted: &[Arc<Settings>]) -> bool {
    running.len() == wanted.len()
        && running
            .iter()
            .zip(wanted)
            .all(|(one, other)| one.name == other.name && one.becomes(other))
}

/// How often control and the workers show that they are at work.
pub(super) fn beat_of(settings: &[Arc<Settings>]) -> Interval {
    let timeouts = settings.iter().map(|one| one.progress_timeout);
    let shortest = timeouts.min().unwrap_or(Duration::from_secs(1));
    let mut beat = interval(shortest / 4);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

impl Control {
    /// The virtual routers go on with the settings of the snapshot, which they can. Sessions on addresses that go are
    /// ended before.
    pub(in crate::control) fn configure_routers(&mut self) {
        let Some(vrrp) = &mut self.vrrp else { return };
        let gone = vrrp.take_settings(&self.snapshot.virtual_routers);
        let live = self.live.iter().filter(|is_live| **is_live).count();
        if gone.is_empty() || live == 0 {
            vrrp.configure();
        } else {
            vrrp.clearing.insert(ADDRESSES_GONE, live);
            let gone: Arc<[IpAddr]> = gone.into();
            self.tell_all(|| worker::Command::ClearAddresses(Arc::clone(&gone), ADDRESSES_GONE));
        }
        self.judge_readiness();
    }
}

impl Vrrp {
    /// Has other settings from now on, of which the thread is told later. Addresses that are not among them any more.
    fn take_settings(&mut self, wanted: &[Arc<Settings>]) -> Vec<IpAddr> {
        let all = self.settings.iter().zip(wanted).zip(0..);
        let mut gone = Vec::new();
        for ((running, wanted), number) in all {
            if running != wanted && !self.unconfigured.contains(&RouterId(number)) {
                self.unconfigured.push(RouterId(number));
            }
            let is_kept = |address: &IpAddr| wanted.addresses().any(|one| one == *address);
            gone.extend(running.addresses().filter(|address| !is_kept(address)));
        }
        if self.unconfigured.is_empty() {
            return gone;
        }
        self.scripts.become_those_of(wanted);
        self.notify.take_settings(wanted);
        self.beat = beat_of(wanted);
        self.settings = wanted.to_vec();
        gone
    }

    /// Tells the thread.
    fn configure(&mut self) {
        for id in std::mem::take(&mut self.unconfigured) {
            let settings = Arc::clone(&self.settings[id.index()]);
            self.handle.send(Command::Configure(id, settings));
        }
    }

    /// Sessions are ended as this ticket asked for.
    pub(super) fn cleared(&mut self, ticket: Ticket) {
        if ticket == ADDRESSES_GONE {
            self.configure();
        } else {
            self.handle.send(Command::SessionsEnded(ticket));
        }
    }
}
