//! Sockets and the epoll set, as the generator and the backends use them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Outcome;

/// The most that one call sends or receives.
pub(crate) const CHUNK: usize = 1 << 20;

/// From this size on bytes are thrown away in the kernel, so that copying them does not slow the generator down.
const TRUNCATE_FROM: usize = 4096;

/// Everything that happens, until the edge comes again.
pub(crate) const EDGE: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// An epoll set with room for the events of one turn.
pub(crate) struct Events {
    epoll: Epoll,
    ready: Vec<EpollEvent>,
}

impl Events {
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            ready: vec![EpollEvent::empty(); 256],
        })
    }

    pub(crate) fn add(&self, socket: impl AsFd, flags: EpollFlags, token: u64) -> nix::Result<()> {
        self.epoll.add(socket, EpollEvent::new(flags, token))
    }

    pub(crate) fn remove(&self, socket: impl AsFd) -> nix::Result<()> {
        self.epoll.delete(socket)
    }

    /// Waits for events, at most `timeout`, and returns how many there are.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Outcome<usize> {
        let timeout = EpollTimeout::try_from(timeout)?;
        match self.epoll.wait(&mut self.ready, timeout) {
            Err(Errno::EINTR) => Ok(0),
            other => Ok(other?),
        }
    }

    pub(crate) fn at(&self, index: usize) -> (u64, EpollFlags) {
        (self.ready[index].data(), self.ready[index].events())
    }
}

/// What came of reading a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes, and there may be more.
    Some(usize),
    /// So many bytes (perhaps none), and for now no more.
    Last(usize),
    /// The other side has closed, or the socket has failed.
    Ended,
}

/// Memory that everything is read into and sent from; what it holds is never looked at.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(vec![b'r'; CHUNK])
    }

    /// Reads once. `expected` is how much is likely to come; `flags` are the event's.
    pub(crate) fn read(&mut self, socket: &OwnedFd, expected: usize, flags: EpollFlags) -> Read {
        let (len, truncate) = if expected >= TRUNCATE_FROM {
            (CHUNK, MsgFlags::MSG_TRUNC)
        } else {
            (TRUNCATE_FROM, MsgFlags::empty())
        };
        match recv(
            socket.as_raw_fd(),
            &mut self.0[..len],
            MsgFlags::MSG_DONTWAIT | truncate,
        ) {
            Ok(0) => Read::Ended,
            Ok(count) if count == len || flags.contains(EpollFlags::EPOLLRDHUP) => {
                Read::Some(count)
            }
            Ok(count) => Read::Last(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Last(0),
            Err(_) => Read::Ended,
        }
    }

    /// Sends up to `len` bytes and returns how many went; none when the socket has failed.
    pub(crate) fn write(&self, socket: &OwnedFd, len: usize) -> Option<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut sent = 0;
        while sent < len {
            match send(
                socket.as_raw_fd(),
                &self.0[..(len - sent).min(CHUNK)],
                flags,
            ) {
                Ok(count) => sent += count,
                Err(Errno::EAGAIN) => break,
                Err(_) => return None,
            }
        }
        Some(sent)
    }
}

/// A file in memory that is sent again and again without being copied.
pub(crate) struct Endless(OwnedFd);

impl Endless {
    pub(crate) fn new() -> Outcome<Self> {
        let file = memfd_create("endless", MFdFlags::MFD_CLOEXEC)?;
        let mut written = 0;
        let bytes = vec![b'r'; CHUNK];
        while written < CHUNK {
            written += nix::unistd::write(&file, &bytes[written..])?;
        }
        Ok(Self(file))
    }

    /// Sends one chunk's worth at most and returns how much went; none when the socket has failed.
    pub(crate) fn send(&self, socket: &OwnedFd) -> Option<usize> {
        let mut offset = 0;
        match sendfile64(socket, &self.0, Some(&mut offset), CHUNK) {
            Ok(count) => Some(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Some(0),
            Err(_) => None,
        }
    }
}

/// Where connections come from and where they go, both used in turn.
pub(crate) struct Routes {
    sources: Vec<Ipv4Addr>,
    targets: Vec<SocketAddrV4>,
    next: usize,
}

impl Routes {
    pub(crate) fn new(sources: Vec<Ipv4Addr>, targets: Vec<SocketAddrV4>) -> Self {
        Self {
            sources,
            targets,
            next: 0,
        }
    }

    pub(crate) fn first_target(&self) -> SocketAddrV4 {
        self.targets[0]
    }

    /// A socket whose connect is done, or under way if it is `nonblocking`.
    pub(crate) fn connect(&mut self, nonblocking: bool) -> io::Result<OwnedFd> {
        let target = self.targets[self.next % self.targets.len()];
        let source = self.sources[(self.next / self.targets.len()) % self.sources.len()];
        self.next += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(nonblocking)?;
        socket.set_tcp_nodelay(true)?;
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&SocketAddr::from(target).into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
            _ => Ok(socket.into()),
        }
    }
}

impl Routes {
    /// A UDP socket that talks to the next target.
    pub(crate) fn connect_datagrams(&mut self) -> io::Result<UdpSocket> {
        let target = self.targets[self.next % self.targets.len()];
        let source = self.sources[(self.next / self.targets.len()) % self.sources.len()];
        self.next += 1;
        let socket = UdpSocket::bind((source, 0))?;
        socket.connect(target)?;
        Ok(socket)
    }
}

/// A listening socket.
pub(crate) fn listen(address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
    socket.bind(&SocketAddr::from((address, port)).into())?;
    socket.listen(4096)?;
    Ok(socket)
}
