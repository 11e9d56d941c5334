//! Where datagrams of clients come in: a socket of this worker's own for each address of a UDP listener. Control opens
//! and closes them; one that is to be closed is given up here once nothing in the kernel refers to it.

use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use socket2::{SockAddr, Socket};

use super::super::Worker;
use super::super::token::{Datagrams, Token};
use super::Dry;
use crate::flow::Loss;
use crate::ids::ListenerId;
use crate::ring::Completion;
use crate::sys::datagram;

/// The sockets to receive from, in the order of the places; none = the listener is shut.
pub type Heard = Box<[Option<Arc<Socket>>]>;

/// A place and its socket.
pub(super) struct Place {
    pub(super) listener: ListenerId,
    socket: Option<Arc<Socket>>,
    /// What control wants instead, once the receive has ended.
    wanted: Option<Arc<Socket>>,
    is_armed: bool,
    /// A cancel has not completed.
    is_cancelled: bool,
    /// What is too large for the path leaves in fragments.
    fragments: bool,
}

impl Place {
    pub(super) fn new(listener: ListenerId) -> Place {
        Place {
            listener,
            socket: None,
            wanted: None,
            is_armed: false,
            is_cancelled: false,
            fragments: false,
        }
    }

    /// Sends datagrams that can leave together to a client, from this address of ours if the place has several.
    pub(super) fn send(
        &mut self,
        datagrams: &[IoSlice<'_>],
        to: &SockAddr,
        from: Option<IpAddr>,
    ) -> Result<(), Loss> {
        let Some(socket) = self.socket.as_deref().map(AsFd::as_fd) else {
            return Err(Loss::SendFailed);
        };
        let is_large = |one: &IoSlice<'_>| one.len() > datagram::FITS_EVERYWHERE;
        if !self.fragments && datagrams.iter().any(is_large) {
            self.fragments = true;
            datagram::allow_fragments(socket);
        }
        let mut sent = datagram::send_to(socket, datagrams, to, from);
        if datagram::is_too_big(&sent) && !self.fragments {
            self.fragments = true;
            datagram::allow_fragments(socket);
            sent = datagram::send_to(socket, datagrams, to, from);
        }
        sent.map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Loss::Blocked,
            Some(libc::EMSGSIZE) => Loss::TooBig,
            _ => Loss::SendFailed,
        })
    }

    /// Whether nothing of it is in the kernel.
    pub(super) fn is_silent(&self) -> bool {
        !self.is_armed && !self.is_cancelled
    }

    /// Whether it has the socket that it is to have.
    pub(super) fn has_settled(&self) -> bool {
        self.has_what_is_wanted() && !self.is_cancelled
    }

    fn has_what_is_wanted(&self) -> bool {
        match (&self.socket, &self.wanted) {
            (Some(socket), Some(wanted)) => Arc::ptr_eq(socket, wanted),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    pub(super) fn cancelled(&mut self) {
        self.is_cancelled = false;
    }
}

impl Worker {
    /// Control has opened some places, and shut others.
    pub(in crate::worker) fn hear(&mut self, heard: &Heard) {
        if self.stopping {
            return;
        }
        for (index, socket) in (0_u16..).zip(heard) {
            let place = &mut self.udp.places[usize::from(index)];
            place.wanted.clone_from(socket);
            if place.has_what_is_wanted() {
                continue;
            }
            if place.is_armed {
                self.cancel_place(index);
            } else {
                self.settle_place(index);
            }
        }
    }

    /// Receives no more, and keeps the sockets for what is still to be sent.
    pub(super) fn leave_places(&mut self) {
        for index in 0..u16::try_from(self.udp.places.len()).unwrap_or(u16::MAX) {
            if self.udp.places[usize::from(index)].is_armed {
                self.cancel_place(index);
            }
        }
    }

    /// The socket that is wanted becomes the place's, and is received from.
    fn settle_place(&mut self, index: u16) {
        self.send_replies();
        let place = &mut self.udp.places[usize::from(index)];
        place.socket.clone_from(&place.wanted);
        place.fragments = false;
        self.listen_at(index);
    }

    pub(super) fn listen_at(&mut self, index: u16) {
        let place = &mut self.udp.places[usize::from(index)];
        let fd = place.socket.as_ref().map(|socket| socket.as_raw_fd());
        if let Some(fd) = fd.filter(|_| !place.is_armed && !self.stopping) {
            place.is_armed = true;
            let token = Token::Datagrams(Datagrams::Place(index)).encode();
            self.ring.receive_messages(fd, token);
        }
    }

    fn cancel_place(&mut self, index: u16) {
        let place = &mut self.udp.places[usize::from(index)];
        if !std::mem::replace(&mut place.is_cancelled, true) {
            let target = Token::Datagrams(Datagrams::Place(index)).encode();
            let token = Token::Datagrams(Datagrams::CancelPlace(index)).encode();
            self.ring.cancel(target, token);
        }
    }

    pub(super) fn place_completion(&mut self, index: u16, completion: Completion) {
        let is_leaving = !self.udp.places[usize::from(index)].has_what_is_wanted();
        if let Some(buffer) = completion.buffer.filter(|_| is_leaving && !self.stopping) {
            // Nobody listens there any more.
            self.ring.drop_datagram(buffer);
        } else if let Some(buffer) = completion.buffer {
            match self.ring.message(buffer, completion.result) {
                Some(message) if message.is_truncated => {
                    self.ring.drop_datagram(buffer);
                    let listener = self.udp.places[usize::from(index)].listener;
                    self.cells
                        .listener(listener)
                        .received
                        .add(message.payload.len);
                    self.cells.lost(listener, Loss::Truncated);
                }
                Some(message) => self.take_request(index, &message),
                None => self.ring.drop_datagram(buffer),
            }
        }
        if completion.more {
            return;
        }
        let place = &mut self.udp.places[usize::from(index)];
        place.is_armed = false;
        if self.stopping {
            return;
        }
        if !place.has_what_is_wanted() {
            self.settle_place(index);
        } else if completion.result == -libc::ENOBUFS {
            self.cells.datagrams_starved_total.add(1);
            self.udp.dry.push_back(Dry::Place(index));
        } else {
            self.listen_at(index);
        }
    }
}
