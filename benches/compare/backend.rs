//! The role that plays all backends: answers requests, swallows uploads, sends downloads.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;
use socket2::Socket;

use crate::Outcome;
use crate::datagrams;
use crate::process;
use crate::sockets::{CHUNK, EDGE, Endless, Events, Read, Scratch, listen};
use crate::spec::{Serve, Service, Sizes};

/// The hidden argument that selects this role.
pub(crate) const ROLE: &str = "__backend";

/// Tokens from here on are listeners, below are connections.
const LISTENERS: u64 = 1 << 32;
/// And from here on sockets for datagrams.
const DATAGRAMS: u64 = 1 << 33;

/// Serves until it is killed.
pub(crate) fn run(arguments: &[String]) -> Outcome<()> {
    let serve: Serve = process::enter_role(arguments)?;
    let mut backend = Backend::new(&serve)?;
    process::answer("ready");
    let mut events = Events::new()?;
    for (index, listener) in backend.listeners.iter().enumerate() {
        events.add(
            &listener.socket,
            EpollFlags::EPOLLIN,
            LISTENERS + index as u64,
        )?;
    }
    for (index, socket) in backend.datagrams.iter().enumerate() {
        events.add(socket, EpollFlags::EPOLLIN, DATAGRAMS + index as u64)?;
    }
    loop {
        for index in 0..events.wait(Duration::from_secs(1))? {
            let (token, flags) = events.at(index);
            if token >= DATAGRAMS {
                let socket = &backend.datagrams[(token - DATAGRAMS) as usize];
                datagrams::answer(socket, &mut backend.memory, backend.sizes);
            } else if token >= LISTENERS {
                backend.accept((token - LISTENERS) as usize, &events)?;
            } else {
                backend.progress(token as usize, flags);
            }
        }
    }
}

struct Listener {
    socket: Socket,
    service: Service,
}

struct Connection {
    socket: OwnedFd,
    service: Service,
    /// Bytes of the current request that have come.
    received: usize,
    /// Bytes of answers that have not gone yet.
    owed: usize,
}

struct Backend {
    listeners: Vec<Listener>,
    datagrams: Vec<UdpSocket>,
    memory: Vec<u8>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    sizes: Sizes,
    scratch: Scratch,
    endless: Endless,
}

impl Backend {
    fn new(serve: &Serve) -> Outcome<Self> {
        let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
        for address in &serve.addresses {
            for (service, port) in &serve.services {
                if matches!(service, Service::Datagrams) {
                    let socket = UdpSocket::bind((*address, *port))?;
                    socket.set_nonblocking(true)?;
                    datagrams.push(socket);
                    continue;
                }
                listeners.push(Listener {
                    socket: listen(*address, *port)?,
                    service: *service,
                });
            }
        }
        let (scratch, endless) = (Scratch::new(), Endless::new()?);
        Ok(Self {
            listeners,
            datagrams,
            memory: vec![b'r'; 65_536],
            connections: Vec::new(),
            free: Vec::new(),
            sizes: serve.sizes,
            scratch,
            endless,
        })
    }

    /// Accepts everybody who waits. Bulk is level-triggered, one chunk per turn, so that streams take turns.
    fn accept(&mut self, index: usize, events: &Events) -> Outcome<()> {
        while let Ok((socket, _)) = self.listeners[index].socket.accept() {
            let service = self.listeners[index].service;
            let flags = match service {
                Service::Answer => EDGE,
                Service::Swallow => EpollFlags::EPOLLIN,
                Service::Pour => EpollFlags::EPOLLOUT,
                Service::Datagrams => continue,
            };
            socket.set_nonblocking(true)?;
            let slot = self.free.pop().unwrap_or(self.connections.len());
            if slot == self.connections.len() {
                self.connections.push(None);
            }
            events.add(&socket, flags, slot as u64)?;
            self.connections[slot] = Some(Connection {
                socket: socket.into(),
                service,
                received: 0,
                owed: 0,
            });
        }
        Ok(())
    }

    fn progress(&mut self, slot: usize, flags: EpollFlags) {
        let Some(connection) = self.connections[slot].as_mut() else {
            return;
        };
        let open = match connection.service {
            Service::Answer => connection.answer(&mut self.scratch, self.sizes, flags),
            Service::Swallow => self.scratch.read(&connection.socket, CHUNK, flags) != Read::Ended,
            Service::Pour => self.endless.send(&connection.socket).is_some(),
            Service::Datagrams => false,
        };
        if !open {
            self.connections[slot] = None;
            self.free.push(slot);
        }
    }
}

impl Connection {
    /// Reads requests and sends what they ask for; false when the connection is over.
    fn answer(&mut self, scratch: &mut Scratch, sizes: Sizes, flags: EpollFlags) -> bool {
        loop {
            let read = scratch.read(&self.socket, sizes.request, flags);
            let (Read::Some(count) | Read::Last(count)) = read else {
                return false;
            };
            self.received += count;
            self.owed += self.received / sizes.request * sizes.answer;
            self.received %= sizes.request;
            if self.owed > 0 {
                match scratch.write(&self.socket, self.owed) {
                    Some(sent) => self.owed -= sent,
                    None => return false,
                }
            }
            if matches!(read, Read::Last(_)) {
                return true;
            }
        }
    }
}
