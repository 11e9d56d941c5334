//! Clients that each send a datagram, wait for the answer and send the next one. A lost datagram silences its client,
//! and is seen as an error at the end.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use crate::Outcome;
use crate::generator::{Driver, Tally};
use crate::sockets::{EDGE, Events, Routes};
use crate::spec::Sizes;

/// How long a first answer may take.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

pub(crate) struct Datagrams {
    routes: Routes,
    sizes: Sizes,
    count: usize,
    clients: Vec<(UdpSocket, Instant)>,
    memory: Vec<u8>,
}

impl Datagrams {
    pub(crate) fn new(routes: Routes, sizes: Sizes, count: usize) -> Self {
        Self {
            routes,
            sizes,
            count,
            clients: Vec::new(),
            memory: vec![b'q'; 65_536],
        }
    }
}

impl Driver for Datagrams {
    /// One question after the other has to be answered first: then each client is known to reach a backend.
    fn start(&mut self, events: &Events) -> Outcome<()> {
        for index in 0..self.count {
            let socket = self.routes.connect_datagrams()?;
            socket.set_read_timeout(Some(FIRST_ANSWER))?;
            socket.send(&self.memory[..self.sizes.request])?;
            socket.recv(&mut self.memory)?;
            socket.set_nonblocking(true)?;
            events.add(&socket, EDGE, index as u64)?;
            self.clients.push((socket, Instant::now()));
        }
        for (socket, began) in &mut self.clients {
            *began = Instant::now();
            socket.send(&self.memory[..self.sizes.request])?;
        }
        Ok(())
    }

    fn progress(&mut self, token: u64, flags: EpollFlags, _: &Events, tally: &mut Tally) {
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR) {
            return;
        }
        let (socket, began) = &mut self.clients[token as usize];
        while let Ok(count) = socket.recv(&mut self.memory) {
            if count != self.sizes.answer {
                tally.errors += 1;
            }
            *began = tally.done(*began);
            if socket.send(&self.memory[..self.sizes.request]).is_err() {
                tally.errors += 1;
            }
        }
    }
}

/// Answers everything that has come.
pub(crate) fn answer(socket: &UdpSocket, memory: &mut [u8], sizes: Sizes) {
    while let Ok((_, from)) = socket.recv_from(memory) {
        // A balancer that is gone needs no answer.
        let _ = socket.send_to(&memory[..sizes.answer], from);
    }
}
