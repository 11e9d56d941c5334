//! Ending the sessions on addresses that are about to leave this host: once they are gone not even a reset reaches the
//! client. Who decides that, and takes the addresses away, is elsewhere.

use std::net::IpAddr;

use super::slab::Slab;
use super::tcp::Slot;
use super::token::Key;
use super::{Report, Worker};
use crate::session::{CloseReason, Event};
use crate::vrrp::Ticket;

impl Worker {
    /// Ends those on one of these addresses, whichever their side, with a reset.
    pub(super) fn clear_addresses(&mut self, addresses: &[IpAddr], ticket: Ticket) {
        let mut keys: Vec<Key> = self.slots.keys().collect();
        keys.retain(|key| {
            let slot = self.slots.get(*key);
            slot.is_some_and(|slot| slot.is_on(addresses))
        });
        for key in &keys {
            self.tell(*key, Event::Kill(CloseReason::AddressLost));
        }
        self.clearing.push((ticket, keys));
    }

    /// Tells of those that are gone.
    pub(super) fn report_cleared(&mut self) {
        if self.clearing.is_empty() {
            return;
        }
        let is_gone = |slots: &mut Slab<Slot>, key: &Key| slots.get(*key).is_none();
        for (ticket, keys) in std::mem::take(&mut self.clearing) {
            if keys.iter().all(|key| is_gone(&mut self.slots, key)) {
                (self.reports)(Report::AddressesCleared(ticket));
            } else {
                self.clearing.push((ticket, keys));
            }
        }
    }
}
