//! What is noted of a session or a flow for the access log, and how it gets there. Nothing of it is done, and next to
//! no memory taken, where there is no such log.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::tcp::Slot;
use crate::access::{Kind, Path, Record};
use crate::ids::{BackendId, ListenerId};
use crate::session::{CloseReason, Direction, Side};
use crate::sys::socket;
use crate::time::Time;

/// What a session was like so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// How long the connect took.
    pub(super) connect: Option<Duration>,
    /// How long the first answer took.
    pub(super) first_byte: Option<Duration>,
}

/// What went along a line of a flow, in the order of [`Direction::BOTH`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    since: Time,
    datagrams: [u64; 2],
    bytes: [u64; 2],
}

impl Traffic {
    pub(super) fn begin(now: Time) -> Traffic {
        Traffic {
            since: now,
            datagrams: [0; 2],
            bytes: [0; 2],
        }
    }

    pub(super) fn add(&mut self, direction: Direction, bytes: u32) {
        self.datagrams[direction.index()] += 1;
        self.bytes[direction.index()] += u64::from(bytes);
    }
}

/// Which flow it was that a line belonged to.
pub(super) struct Led {
    pub(super) listener: ListenerId,
    pub(super) client: Option<SocketAddr>,
    pub(super) backend: BackendId,
}

impl Worker {
    /// A session ends, and its sockets are still there.
    pub(super) fn log_session(&self, slot: &Slot, reason: CloseReason) {
        let (Some(sink), Some(notes)) = (&self.access, &slot.notes) else {
            return;
        };
        let path = |side: Side| {
            let own = slot.sockets[side.index()].as_ref();
            let own = own.filter(|_| slot.is_tcp[side.index()])?;
            let (rtt, retransmits) = socket::tcp_path(own.as_fd())?;
            Some(Path { rtt, retransmits })
        };
        let given = |direction| slot.session.relay_of(direction).given();
        let backend = slot.backend();
        sink.put(Record {
            ended: self.clock.system_time(self.now),
            listener: Arc::clone(&self.snapshot.listeners[slot.listener.index()].name),
            client: slot.client,
            pool: Arc::clone(&self.snapshot.pools[slot.pool.index()].name),
            backend: backend.map(|id| Arc::clone(&self.snapshot.backends[id.index()].name)),
            reason,
            duration: self.now - slot.session.started(),
            bytes: Direction::BOTH.map(given),
            kind: Kind::Session {
                connect: notes.connect,
                first_byte: notes.first_byte,
                retries: slot.tried.len().saturating_sub(1),
                paths: [path(Side::Client), path(Side::Backend)],
            },
        });
    }

    /// A flow ends, or goes on with another backend.
    pub(super) fn log_flow(&self, traffic: &Traffic, led: &Led, reason: CloseReason) {
        let Some(sink) = &self.access else { return };
        let backend = &self.snapshot.backends[led.backend.index()];
        sink.put(Record {
            ended: self.clock.system_time(self.now),
            listener: Arc::clone(&self.snapshot.listeners[led.listener.index()].name),
            client: led.client,
            pool: Arc::clone(&self.snapshot.pools[backend.pool.index()].name),
            backend: Some(Arc::clone(&backend.name)),
            reason,
            duration: self.now - traffic.since,
            bytes: traffic.bytes,
            kind: Kind::Flow {
                datagrams: traffic.datagrams,
            },
        });
    }
}
