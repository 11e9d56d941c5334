//! TCP and unix sockets: made with the options we want, asked what only the kernel knows, ended the way we mean.
#![allow(
    unsafe_code,
    reason = "three queries that no crate offers: TCP_INFO, SIOCOUTQ and SIOCINQ"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Keepalive: how a peer that vanished without a word is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// Probes without an answer until the connection is given up.
    pub count: u32,
    /// `TCP_USER_TIMEOUT`: a peer that acknowledges nothing for so long is given up. It also overrides `count`.
    pub user_timeout: Option<Duration>,
}

/// Where a listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// One address. `[::]` takes IPv6 only.
    Address(SocketAddr),
    /// Every address of the host, IPv4 and IPv6.
    Any(u16),
}

impl Bind {
    /// Whether somebody could come in by either.
    #[must_use]
    pub fn overlaps(self, other: Bind) -> bool {
        let parts = |bind: Bind| match bind {
            Bind::Address(address) if address.ip().is_unspecified() => {
                (None, Some(address.is_ipv4()), address.port())
            }
            Bind::Address(address) => (Some(address.ip()), Some(address.is_ipv4()), address.port()),
            Bind::Any(port) => (None, None, port),
        };
        let ((ip, family, port), (other_ip, other_family, other_port)) =
            (parts(self), parts(other));
        port == other_port
            && ip.zip(other_ip).is_none_or(|(one, other)| one == other)
            && family
                .zip(other_family)
                .is_none_or(|(one, other)| one == other)
    }

    /// Its port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Bind::Address(address) => address.port(),
            Bind::Any(port) => port,
        }
    }

    /// The same with this port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Bind {
        match self {
            Bind::Address(mut address) => {
                address.set_port(port);
                Bind::Address(address)
            }
            Bind::Any(_) => Bind::Any(port),
        }
    }
}

/// A TCP socket for a listener, bound but not listening: nobody can connect yet. What is set here, accepted sockets
/// inherit. With `freebind` the host need not have the address (`IP_FREEBIND`, which needs no privilege).
///
/// # Errors
/// As of the system calls: the address is in use, not ours, or not permitted.
///
/// `SO_REUSEADDR` is off where that works, until it listens: with it on both sides, two processes can be bound to one
/// port as long as neither listens.
pub fn bind_tcp(bind: Bind, keepalive: &Keepalive, freebind: bool) -> io::Result<Socket> {
    match bind_with(bind, keepalive, freebind, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bind_with(bind, keepalive, freebind, true)
        }
        bound => bound,
    }
}

fn bind_with(
    bind: Bind,
    keepalive: &Keepalive,
    freebind: bool,
    reuse_address: bool,
) -> io::Result<Socket> {
    let (socket, address) = socket_for(bind, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(reuse_address)?;
    socket.set_reuse_port(true)?;
    set_stream_options(&socket, keepalive)?;
    set_keepalive_times(socket.as_fd(), keepalive)?;
    set_freebind(&socket, address, freebind)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether another socket, ours or another process's, listens where `bind` would.
///
/// `SO_REUSEPORT` lets two processes of one user share a port without an error, so it is asked without it.
///
/// # Errors
/// `AddrInUse` if so, `AddrNotAvailable` if the host does not have the address (without `freebind`); others as of the
/// system calls.
pub fn check_free(bind: Bind, freebind: bool) -> io::Result<()> {
    let (socket, address) = socket_for(bind, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    set_freebind(&socket, address, freebind)?;
    socket.bind(&address.into())
}

/// A socket of the right family, and the address to bind it to. Where the kernel has no IPv6, every address is every
/// IPv4 address.
pub(super) fn socket_for(
    bind: Bind,
    kind: Type,
    protocol: Protocol,
) -> io::Result<(Socket, SocketAddr)> {
    let open = |address| {
        let domain = Domain::for_address(address);
        Socket::new(domain, kind.nonblocking(), Some(protocol))
    };
    let (address, only_v6) = match bind {
        Bind::Address(address) => (address, true),
        Bind::Any(port) => (SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), false),
    };
    match open(address) {
        Ok(socket) => {
            if address.is_ipv6() {
                socket.set_only_v6(only_v6)?;
            }
            Ok((socket, address))
        }
        Err(error) if !only_v6 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            Ok((open(address)?, address))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn set_freebind(socket: &Socket, address: SocketAddr, freebind: bool) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(freebind),
        SocketAddr::V6(_) => socket.set_freebind_v6(freebind),
    }
}

/// A unix socket for a listener, bound but not listening.
///
/// # Errors
/// As of the system calls.
pub fn bind_unix(path: &std::path::Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// A socket to connect with; see [`bind_source`].
///
/// # Errors
/// As of the system calls.
pub fn outgoing_socket(address: &SockAddr, keepalive: &Keepalive) -> io::Result<OwnedFd> {
    let domain = address.domain();
    if domain == Domain::UNIX {
        return Ok(Socket::new(domain, Type::STREAM.nonblocking(), None)?.into());
    }
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    set_stream_options(&socket, keepalive)?;
    Ok(socket.into())
}

/// Lets a connection come from `source`. Its port is chosen by connect, so that one port serves many destinations;
/// bind alone would take one that no other socket of the address has.
///
/// # Errors
/// `EADDRNOTAVAIL` when this host does not have the address; others as of the system calls.
pub fn bind_source(socket: BorrowedFd<'_>, source: IpAddr) -> io::Result<()> {
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    nix::sys::socket::bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(source, 0)),
    )?;
    Ok(())
}

/// No delay (a relay must not wait for more), urgent data in line (it would get lost otherwise). Never buffer sizes:
/// that would end the kernel's own tuning.
fn set_stream_options(socket: &Socket, keepalive: &Keepalive) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    if keepalive.user_timeout.is_some() {
        socket.set_tcp_user_timeout(keepalive.user_timeout)?;
    }
    Ok(())
}

/// What is set on a listening socket from now on, those that are accepted later inherit.
///
/// # Errors
/// As of the system calls.
pub fn set_inherited(socket: &Socket, keepalive: &Keepalive) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(keepalive.user_timeout.unwrap_or_default()))?;
    set_keepalive_times(socket.as_fd(), keepalive)
}

/// When the kernel probes a silent peer, once [`keep_alive`] lets it.
fn set_keepalive_times(socket: BorrowedFd<'_>, keepalive: &Keepalive) -> io::Result<()> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    setsockopt(&socket, sockopt::TcpKeepIdle, &seconds(keepalive.idle))?;
    setsockopt(
        &socket,
        sockopt::TcpKeepInterval,
        &seconds(keepalive.interval),
    )?;
    setsockopt(&socket, sockopt::TcpKeepCount, &keepalive.count)?;
    Ok(())
}

/// Lets the kernel probe the peer of a TCP socket whenever it is silent. Accepted sockets have their times from their
/// listener; others are given some.
///
/// # Errors
/// As of setsockopt(2).
pub fn keep_alive(socket: BorrowedFd<'_>, times: Option<&Keepalive>) -> io::Result<()> {
    if let Some(times) = times {
        set_keepalive_times(socket, times)?;
    }
    Ok(setsockopt(&socket, sockopt::KeepAlive, &true)?)
}

/// From now on clients can connect. What they leave in TIME_WAIT must not be in the way of another start.
///
/// # Errors
/// As of listen(2).
pub fn listen(socket: &Socket, backlog: i32) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.listen(backlog)
}

/// Ends what is listening: connects are refused from now on, accepts in flight end, the port stays ours.
///
/// # Errors
/// As of shutdown(2).
pub fn refuse(socket: &Socket) -> io::Result<()> {
    socket.shutdown(Shutdown::Read)?;
    socket.set_reuse_address(false)
}

/// Sends FIN. A connection that is gone already needs none.
pub fn shutdown_write(socket: BorrowedFd<'_>) {
    let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
}

/// Makes close send a reset.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Takes the error that the socket has, 0 if none. The next call on the socket does not get it any more.
#[must_use]
pub fn take_error(socket: BorrowedFd<'_>) -> i32 {
    nix::sys::socket::getsockopt(&socket, sockopt::SocketError).unwrap_or(0)
}

/// Whether a TCP connection is in state CLOSE: then it has no peer any more. At the end of a stream, and before we sent
/// FIN, that means a reset; a FIN would leave it in CLOSE_WAIT. Not to be asked of a unix socket.
#[must_use]
pub fn is_tcp_closed(socket: BorrowedFd<'_>) -> bool {
    let peer = nix::sys::socket::getpeername::<SockaddrStorage>(socket.as_raw_fd());
    peer == Err(nix::errno::Errno::ENOTCONN)
}

/// Bytes given to the socket that its peer has not acknowledged (`SIOCOUTQ`); 0 when the kernel does not tell.
#[must_use]
pub fn undelivered(socket: BorrowedFd<'_>) -> u32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 {
        u32::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// Bytes that wait to be read (`SIOCINQ`), urgent ones included since those are in line; 0 when the kernel does not
/// tell. A FIN does not count.
#[must_use]
pub fn unread(socket: BorrowedFd<'_>) -> u32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCINQ (the same number as FIONREAD) writes one int.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if done == 0 {
        u32::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

/// What the kernel knows about a TCP connection (`TCP_INFO`): the smoothed round-trip time, and how many segments were
/// sent again. None when it does not tell.
#[must_use]
pub fn tcp_path(socket: BorrowedFd<'_>) -> Option<(Duration, u32)> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    let (fd, into) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `len` bytes, which is the size of what it writes to.
    let done =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut len) };
    if done != 0 {
        return None;
    }
    // SAFETY: all of its fields are integers: what the kernel left as it was is zero.
    let info = unsafe { info.assume_init() };
    let rtt = Duration::from_micros(u64::from(info.tcpi_rtt));
    Some((rtt, info.tcpi_total_retrans))
}

/// Takes one waiting connection off a listening socket, if there is one.
#[must_use]
pub fn accept_waiting(listening: &Socket) -> Option<(OwnedFd, Option<SocketAddr>)> {
    let (socket, address) = listening.accept().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket.into(), address.as_socket()))
}

/// The address of this host that a socket is bound to, IPv4 as such; none for a unix socket.
#[must_use]
pub fn own_address(socket: BorrowedFd<'_>) -> Option<IpAddr> {
    let address = SockRef::from(&socket).local_addr().ok()?.as_socket()?;
    Some(address.ip().to_canonical())
}

/// The address that a socket got, for a port that the kernel chose.
#[must_use]
pub fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}
