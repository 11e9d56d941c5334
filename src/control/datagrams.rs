//! The sockets of UDP listeners: one for each address and worker, in a group of which the kernel picks one by the
//! client's address. A listener that is shut has none, so that the kernel answers with ICMP port unreachable; the ports
//! are claimed anew when it is opened again, always in the order of the workers.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use socket2::Socket;

use super::snapshot::{Freebind, ListenAddress, Snapshot};
use crate::ids::{ListenerId, WorkerId};
use crate::sys::datagram;
use crate::sys::socket::{Bind, local_address};
use crate::worker::Heard;

/// See the module's text.
#[derive(Default)]
pub(super) struct Datagrams {
    workers: usize,
    places: Vec<Place>,
}

/// One address of one listener.
struct Place {
    listener: ListenerId,
    /// With the port that the kernel chose.
    bind: Bind,
    freebind: Freebind,
    /// One per worker; none while it is shut.
    sockets: Vec<Arc<Socket>>,
    /// What overflowed in sockets that are closed.
    overflows: u64,
}

impl Place {
    fn open(&mut self, workers: usize, name: &str) -> io::Result<()> {
        let is_missing = match datagram::check_free(self.bind, false) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                datagram::check_free(self.bind, true)?;
                self.freebind.allows(name, &self.name())?;
                true
            }
            Err(error) => return Err(error),
        };
        let mut sockets: Vec<Arc<Socket>> = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = datagram::bind(self.bind, is_missing)?;
            if let Some(chosen) = local_address(&socket) {
                self.bind = self.bind.with_port(chosen.port());
            }
            sockets.push(Arc::new(socket));
        }
        self.sockets = sockets;
        Ok(())
    }

    fn shut(&mut self) {
        self.overflows += self.overflows_now();
        self.sockets.clear();
    }

    fn overflows_now(&self) -> u64 {
        let each = |socket: &Arc<Socket>| u64::from(datagram::overflows(socket.as_fd()));
        self.sockets.iter().map(each).sum()
    }

    fn name(&self) -> String {
        match self.bind {
            Bind::Address(address) => address.to_string(),
            Bind::Any(port) => format!("*:{port}"),
        }
    }
}

impl Datagrams {
    /// Claims every port. An error names the address.
    pub(super) fn bind(
        snapshot: &Snapshot,
        workers: usize,
    ) -> Result<Datagrams, (ListenerId, ListenAddress, io::Error)> {
        let mut places = Vec::new();
        for (listener, id) in snapshot.listeners.iter().zip((0..).map(ListenerId)) {
            for address in &listener.addresses {
                let ListenAddress::Udp(bind, freebind) = address else {
                    continue;
                };
                let mut place = Place {
                    listener: id,
                    bind: *bind,
                    freebind: *freebind,
                    sockets: Vec::new(),
                    overflows: 0,
                };
                place
                    .open(workers, &listener.name)
                    .map_err(|error| (id, address.clone(), error))?;
                places.push(place);
            }
        }
        Ok(Datagrams { workers, places })
    }

    /// Addresses in all.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Which listener each place belongs to.
    pub(super) fn places(&self) -> Vec<ListenerId> {
        self.places.iter().map(|place| place.listener).collect()
    }

    /// What a worker is to receive from.
    pub(super) fn of_worker(&self, worker: WorkerId) -> Heard {
        let socket = |place: &Place| place.sockets.get(worker.index()).cloned();
        self.places.iter().map(socket).collect()
    }

    /// Opens all addresses of a listener, or none.
    pub(super) fn open(&mut self, listener: ListenerId, name: &str) -> io::Result<()> {
        let workers = self.workers;
        let opened = self
            .of_listener(listener)
            .filter(|place| place.sockets.is_empty())
            .try_for_each(|place| place.open(workers, name));
        if opened.is_err() {
            self.shut(listener);
        }
        opened
    }

    /// The workers keep their sockets until they are told.
    pub(super) fn shut(&mut self, listener: ListenerId) {
        self.of_listener(listener).for_each(Place::shut);
    }

    pub(super) fn shut_all(&mut self) {
        self.places.iter_mut().for_each(Place::shut);
    }

    /// Where each place is, with its listener.
    pub(super) fn names(&self) -> impl Iterator<Item = (ListenerId, String)> + '_ {
        self.places
            .iter()
            .map(|place| (place.listener, place.name()))
    }

    /// Datagrams to a listener that found its sockets' buffers full, which only the kernel knows of.
    pub(super) fn overflows(&self, listener: ListenerId) -> u64 {
        let its = self
            .places
            .iter()
            .filter(|place| place.listener == listener);
        its.map(|place| place.overflows + place.overflows_now())
            .sum()
    }

    fn of_listener(&mut self, listener: ListenerId) -> impl Iterator<Item = &mut Place> {
        let is_its = move |place: &&mut Place| place.listener == listener;
        self.places.iter_mut().filter(is_its)
    }
}
