//! Changing over to another configuration, between two turns: snapshot, gates and places for datagrams at once. What
//! the configuration does not touch is not touched here; sockets that it has no use for go once nothing of them is in
//! the kernel, and control is told then.

use std::rc::Rc;
use std::sync::Arc;

use super::mailbox::TakeOver;
use super::token::SLOTS_MAX;
use super::udp::{self, Udp};
use super::{Report, Worker};

impl Worker {
    /// See the module's text.
    pub(super) fn take_over(&mut self, other: TakeOver) {
        let TakeOver {
            snapshot,
            gates,
            open,
            places,
            heard,
            max_flows,
        } = other;
        let generation = snapshot.generation;
        self.follow_pools(&snapshot);
        self.see(snapshot);
        if !self.stopping {
            self.listen_on(gates, &open);
            if self.can_hear(places.is_empty(), max_flows) {
                self.change_places(&places);
                self.hear(&heard);
            }
        }
        self.taking_over = Some(generation);
    }

    /// The rules of new sessions. Those that there are keep theirs.
    fn follow_pools(&mut self, snapshot: &Arc<super::Snapshot>) {
        self.sources.grow(snapshot.pools.len(), self.id);
        for (index, pool) in snapshot.pools.iter().enumerate() {
            match self.rules.get_mut(index) {
                Some(rules) if **rules == pool.rules => {}
                Some(rules) => *rules = Rc::new(pool.rules.clone()),
                None => self.rules.push(Rc::new(pool.rules.clone())),
            }
        }
    }

    /// The first UDP listener needs buffers, and a table of flows.
    fn can_hear(&mut self, is_idle: bool, max_flows: u32) -> bool {
        if is_idle || self.udp.has_places() {
            return true;
        }
        match self.ring.allow_datagrams(udp::BUFFERS) {
            Ok(()) => {
                self.udp = Udp::new(&[], max_flows.min(SLOTS_MAX));
                true
            }
            Err(error) => {
                tracing::error!(worker = self.id.0, %error, "no buffers for datagrams: none are received");
                false
            }
        }
    }

    /// Tells once no socket is used any more that the configuration does not have.
    pub(super) fn report_taken_over(&mut self) {
        if self.taking_over.is_some() && self.has_settled_gates() && self.udp.has_settled() {
            let generation = self.taking_over.take().expect("just seen");
            (self.reports)(Report::TakenOver(self.id, generation));
        }
    }
}
