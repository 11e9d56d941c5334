//! Ending the sessions on addresses that are about to leave this host: once they are gone not even a reset reaches the
//! client. Who decides that, and takes the addresses away, is elsewhere.

use std::net::{IpAddr, SocketAddr};

use super::slab::Slab;
use super::tcp::Slot;
use super::token::Key;
use super::{Report, Worker};
use crate::control::snapshot::{ListenAddress, Snapshot};
use crate::session::{CloseReason, Event};
use crate::sys::socket::Bind;
use crate::vrrp::Ticket;

/// Who may have a session on some addresses; of the others, sockets need not be asked.
struct Suspects {
    listeners: Vec<bool>,
    pools: Vec<bool>,
}

impl Suspects {
    fn of(snapshot: &Snapshot, addresses: &[IpAddr]) -> Suspects {
        let listens = |address: &ListenAddress| match address {
            ListenAddress::Tcp(Bind::Address(own), _) => is_among(own, addresses),
            ListenAddress::Tcp(Bind::Any(_), _) => true,
            // Flows have no connection that could be ended.
            ListenAddress::Udp(..) | ListenAddress::Unix(_) => false,
        };
        let listeners = snapshot.listeners.iter();
        let pools = snapshot.pools.iter();
        Suspects {
            listeners: listeners
                .map(|listener| listener.has_moved || listener.addresses.iter().any(listens))
                .collect(),
            pools: pools
                .map(|pool| {
                    pool.has_moved || pool.sources.iter().any(|own| addresses.contains(own))
                })
                .collect(),
        }
    }

    fn include(&self, slot: &Slot) -> bool {
        self.listeners[slot.listener.index()] || self.pools[slot.pool.index()]
    }
}

fn is_among(own: &SocketAddr, addresses: &[IpAddr]) -> bool {
    own.ip().is_unspecified() || addresses.contains(&own.ip())
}

impl Worker {
    /// Ends those on one of these addresses, whichever their side, with a reset.
    pub(super) fn clear_addresses(&mut self, addresses: &[IpAddr], ticket: Ticket) {
        let suspects = Suspects::of(&self.snapshot, addresses);
        let mut keys: Vec<Key> = self.slots.keys().collect();
        keys.retain(|key| {
            let slot = self.slots.get(*key);
            slot.is_some_and(|slot| suspects.include(slot) && slot.is_on(addresses))
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
