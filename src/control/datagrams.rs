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
    /// None where a place is free.
    places: Vec<Option<Place>>,
}

/// What it is to become.
#[derive(Default)]
pub(super) struct Prepared {
    /// Those that stay, and for which listener.
    kept: Vec<(usize, ListenerId)>,
    new: Vec<Place>,
}

/// An address of a listener that cannot be had, and why.
pub(super) type Failed = (ListenerId, ListenAddress, io::Error);

/// One address of one listener.
struct Place {
    listener: ListenerId,
    /// As the file has it.
    configured: ListenAddress,
    /// With the port that the kernel chose.
    bind: Bind,
    freebind: Freebind,
    /// One per worker; none while it is shut.
    sockets: Vec<Arc<Socket>>,
    /// What overflowed in sockets that are closed.
    overflows: u64,
}

impl Place {
    fn new(listener: ListenerId, address: &ListenAddress, bind: Bind, freebind: Freebind) -> Place {
        Place {
            listener,
            configured: address.clone(),
            bind,
            freebind,
            sockets: Vec::new(),
            overflows: 0,
        }
    }

    /// `is_ours` if another place of ours has it, which is about to go.
    fn open(&mut self, workers: usize, name: &str, is_ours: bool) -> io::Result<()> {
        let is_missing = match datagram::check_free(self.bind, false) {
            Ok(()) => false,
            Err(error) if is_ours && error.kind() == io::ErrorKind::AddrInUse => false,
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
    pub(super) fn bind(snapshot: &Snapshot, workers: usize) -> Result<Datagrams, Failed> {
        let mut places = Vec::new();
        for (listener, id) in snapshot.listeners.iter().zip((0..).map(ListenerId)) {
            for address in &listener.addresses {
                let ListenAddress::Udp(bind, freebind) = address else {
                    continue;
                };
                let mut place = Place::new(id, address, *bind, *freebind);
                place
                    .open(workers, &listener.name, false)
                    .map_err(|error| (id, address.clone(), error))?;
                places.push(Some(place));
            }
        }
        Ok(Datagrams { workers, places })
    }

    /// Claims the ports that another configuration has and this one has not; nothing changes. An error names the
    /// address.
    pub(super) fn prepare(&self, snapshot: &Snapshot) -> Result<Prepared, Failed> {
        let (kept, new) = self.compare(snapshot);
        let mut prepared = Prepared {
            kept,
            new: Vec::new(),
        };
        for place in new {
            let is_ours = self.overlaps(&place);
            let opened = self.opened(place, snapshot, is_ours)?;
            prepared.new.push(opened);
        }
        Ok(prepared)
    }

    /// The same, and all of it is given back. Ports to which datagrams come now would lose some: those are told, and
    /// not tried.
    pub(super) fn rehearse(&self, snapshot: &Snapshot) -> Result<Vec<ListenAddress>, Failed> {
        let (_, new) = self.compare(snapshot);
        let (untried, free): (Vec<Place>, Vec<Place>) =
            new.into_iter().partition(|place| self.overlaps(place));
        let mut tried = Vec::new();
        for place in free {
            tried.push(self.opened(place, snapshot, false)?);
        }
        Ok(untried.into_iter().map(|place| place.configured).collect())
    }

    /// The places that another configuration keeps, for which of its listeners, and those that are new in it.
    fn compare(&self, snapshot: &Snapshot) -> (Vec<(usize, ListenerId)>, Vec<Place>) {
        let (mut kept, mut new) = (Vec::new(), Vec::new());
        for (id, listener) in snapshot.listeners_in_order() {
            for address in &listener.addresses {
                let ListenAddress::Udp(bind, freebind) = address else {
                    continue;
                };
                let is_it = |place: &Place| {
                    place.configured == *address
                        && (place.listener == id || !address.port_is_chosen())
                };
                let mut places = self.places.iter();
                match places.position(|place| place.as_ref().is_some_and(is_it)) {
                    Some(index) => kept.push((index, id)),
                    None => new.push(Place::new(id, address, *bind, *freebind)),
                }
            }
        }
        (kept, new)
    }

    /// Whether datagrams for it come to a place of ours now.
    fn overlaps(&self, place: &Place) -> bool {
        let mut all = self.places.iter().flatten();
        all.any(|known| known.bind.overlaps(place.bind))
    }

    fn opened(&self, mut place: Place, of: &Snapshot, is_ours: bool) -> Result<Place, Failed> {
        let name = &of.listeners[place.listener.index()].name;
        match place.open(self.workers, name, is_ours) {
            Ok(()) => Ok(place),
            Err(error) => Err((place.listener, place.configured, error)),
        }
    }

    /// Becomes what was prepared. A place that goes now stays empty until the next change: to workers it is what the
    /// flows belong to that end with it.
    pub(super) fn become_prepared(&mut self, prepared: Prepared) {
        let mut free: Vec<usize> = (0..self.places.len())
            .filter(|index| self.places[*index].is_none())
            .collect();
        let mut stays = vec![None; self.places.len()];
        for (index, id) in prepared.kept {
            stays[index] = Some(id);
        }
        for (place, stays) in self.places.iter_mut().zip(stays) {
            match (place.as_mut(), stays) {
                (Some(kept), Some(id)) => kept.listener = id,
                (Some(gone), None) => {
                    gone.shut();
                    *place = None;
                }
                (None, _) => {}
            }
        }
        for new in prepared.new {
            match free.pop() {
                Some(index) => self.places[index] = Some(new),
                None => self.places.push(Some(new)),
            }
        }
    }

    /// Addresses in all.
    pub(super) fn count(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Which listener each place belongs to.
    pub(super) fn places(&self) -> Box<[Option<ListenerId>]> {
        let listener = |place: &Option<Place>| place.as_ref().map(|place| place.listener);
        self.places.iter().map(listener).collect()
    }

    /// What a worker is to receive from.
    pub(super) fn of_worker(&self, worker: WorkerId) -> Heard {
        let socket = |place: &Place| place.sockets.get(worker.index()).cloned();
        let places = self.places.iter();
        places
            .map(|place| place.as_ref().and_then(socket))
            .collect()
    }

    /// Opens all addresses of a listener, or none.
    pub(super) fn open(&mut self, listener: ListenerId, name: &str) -> io::Result<()> {
        let workers = self.workers;
        let opened = self
            .of_listener(listener)
            .filter(|place| place.sockets.is_empty())
            .try_for_each(|place| place.open(workers, name, false));
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
        self.places.iter_mut().flatten().for_each(Place::shut);
    }

    /// Where each place is, with its listener.
    pub(super) fn names(&self) -> impl Iterator<Item = (ListenerId, String)> + '_ {
        let places = self.places.iter().flatten();
        places.map(|place| (place.listener, place.name()))
    }

    /// Datagrams to a listener that found its sockets' buffers full, which only the kernel knows of.
    pub(super) fn overflows(&self, listener: ListenerId) -> u64 {
        let places = self.places.iter().flatten();
        let its = places.filter(|place| place.listener == listener);
        its.map(|place| place.overflows + place.overflows_now())
            .sum()
    }

    fn of_listener(&mut self, listener: ListenerId) -> impl Iterator<Item = &mut Place> {
        let is_its = move |place: &&mut Place| place.listener == listener;
        self.places.iter_mut().flatten().filter(is_its)
    }
}
