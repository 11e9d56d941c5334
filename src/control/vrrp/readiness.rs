//! How well this machine could serve the addresses of each virtual router, as far as control knows, and telling the
//! thread what has changed of it.

use std::sync::Arc;

use super::super::{Control, Phase};
use super::Vrrp;
use crate::control::snapshot::{Snapshot, Standing};
use crate::vrrp::machine::Readiness;
use crate::vrrp::settings::Settings;
use crate::vrrp::{Command, RouterId};

impl Control {
    /// Tells the virtual routers what has changed for them.
    pub(in crate::control) fn judge_readiness(&mut self) {
        let fault = match self.phase {
            Phase::Serving if self.listeners.cannot_open() => {
                Some("a listener that should be open is not")
            }
            Phase::Killing { .. } | Phase::Over => Some("the process is ending"),
            Phase::Starting(_) | Phase::Serving | Phase::Closing(_) | Phase::Draining { .. } => {
                None
            }
        };
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.judge(&self.snapshot, fault);
        }
    }

    /// Clients are let in: the backends are known as well as they will be.
    pub(in crate::control) fn probes_ended(&mut self) {
        self.judge_readiness();
        if let Some(vrrp) = &self.vrrp {
            vrrp.handle.send(Command::ProbesEnded);
        }
    }
}

impl Vrrp {
    fn judge(&mut self, snapshot: &Snapshot, fault: Option<&str>) {
        for id in self.all() {
            let members = self.group_of(id);
            let readiness = match fault {
                Some(fault) => Readiness::HardFault(Arc::from(fault)),
                None => self.of_all(snapshot, &members),
            };
            let told = &mut self.told[id.index()];
            if told.as_ref() != Some(&readiness) {
                let is_sent = self.handle.send(Command::Readiness(id, readiness.clone()));
                // What was not taken is told the next time.
                *told = is_sent.then_some(readiness);
            }
        }
    }

    /// What is wrong for one of a group is wrong for all of it.
    fn of_all(&self, snapshot: &Snapshot, members: &[RouterId]) -> Readiness {
        let mut faults: Vec<String> = Vec::new();
        for id in members {
            let settings = &self.settings[id.index()];
            let found = pools(snapshot, settings).chain(self.scripts.failing(*id));
            for fault in found {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
        match faults.as_slice() {
            [] => Readiness::Well,
            faults => Readiness::SoftFault(Arc::from(faults.join("; "))),
        }
    }
}

/// Tracked pools with too few backends that take sessions.
fn pools(snapshot: &Snapshot, settings: &Settings) -> impl Iterator<Item = String> {
    let tracked = settings.track.pools.iter();
    tracked.filter_map(|(pool, wanted)| {
        let pool = &snapshot.pools[pool.index()];
        if pool.standing != Standing::Configured {
            // Nobody means it any more.
            return None;
        }
        let backends = pool
            .backends
            .iter()
            .map(|id| &snapshot.backends[id.index()]);
        let usable = backends.filter(|backend| backend.takes_sessions()).count();
        (usable < *wanted as usize).then(|| {
            format!(
                "pool {}: {usable} of {} backends take sessions, {wanted} wanted",
                pool.name,
                pool.backends.len()
            )
        })
    })
}
