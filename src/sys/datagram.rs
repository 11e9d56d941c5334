//! UDP sockets: bound for a group of receivers, or connected to one peer.
#![allow(
    unsafe_code,
    reason = "options and a query that no crate offers: the discovery of path MTUs, SO_MEMINFO"
)]

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Socket, Type};

use super::socket::{Bind, bind_source, set_freebind, socket_for};

/// Bytes that may wait in a bound socket, with what the kernel counts around each datagram: some 5,000 small ones.
/// Datagrams have no flow control, and the kernel does not tune this by itself. `net.core.rmem_max` bounds it for who
/// lacks CAP_NET_ADMIN.
pub const RECEIVE_BUFFER: usize = 4 << 20;

const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

/// What the kernel is told beside what is sent: one thing after the other, each behind a header.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; Control::ROOM],
    len: usize,
}

impl Control {
    /// For an `in6_pktinfo`, and the length of the datagrams that several are made of.
    const ROOM: usize = space(20) + space(2);

    fn new() -> Control {
        Control {
            bytes: [0; Control::ROOM],
            len: 0,
        }
    }

    /// The datagram comes from this address (`in_pktinfo`, `in6_pktinfo`).
    fn put_source(&mut self, from: IpAddr) {
        match from {
            IpAddr::V4(from) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(from) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Datagrams of this length are made of what is sent (`UDP_SEGMENT`).
    fn put_segments(&mut self, len: usize) -> io::Result<()> {
        let len = u16::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
        Ok(())
    }

    fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = CMSG_HEADER + data.len();
        let (header, room) = self.bytes[self.len..].split_at_mut(CMSG_HEADER);
        let (header_len, header_kind) = header.split_at_mut(size_of_val(&len));
        header_len.copy_from_slice(&len.to_ne_bytes());
        header_kind[..4].copy_from_slice(&level.to_ne_bytes());
        header_kind[4..].copy_from_slice(&kind.to_ne_bytes());
        room[..data.len()].copy_from_slice(data);
        self.len += space(data.len());
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What so many bytes take behind a header.
const fn space(len: usize) -> usize {
    (CMSG_HEADER + len).next_multiple_of(size_of::<usize>())
}

/// Where in `SO_MEMINFO` the number of datagrams stands that did not fit (`SK_MEMINFO_DROPS`), and how many numbers
/// there are.
const MEMINFO_DROPS: usize = 8;
const MEMINFO_VARS: usize = 9;

/// Payloads up to here fit into one packet on every path there is.
pub const FITS_EVERYWHERE: usize = 1_200;

/// A socket that receives its share of the datagrams to an address, together with others that are bound in the same
/// way. On every address of the host it tells with each datagram where it was sent to. With `freebind` the host need
/// not have the address. It sends nothing that has to be fragmented until [`allow_fragments`].
///
/// # Errors
/// As of the system calls: the address is in use, not ours, or not permitted.
pub fn bind(bind: Bind, freebind: bool) -> io::Result<Socket> {
    let (socket, address) = socket_for(bind, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(true)?;
    set_freebind(&socket, address, freebind)?;
    forbid_fragments(&socket, address.is_ipv6())?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    if address.ip().is_unspecified() {
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether another socket, ours or another process's, is bound where `bind` would. It is asked without `SO_REUSEPORT`,
/// which lets two processes of one user share a port without an error.
///
/// # Errors
/// `AddrInUse` if so, `AddrNotAvailable` if the host does not have the address (without `freebind`); others as of the
/// system calls.
pub fn check_free(bind: Bind, freebind: bool) -> io::Result<()> {
    let (socket, address) = socket_for(bind, Type::DGRAM, Protocol::UDP)?;
    set_freebind(&socket, address, freebind)?;
    socket.bind(&address.into())
}

/// A socket that sends to `address` and receives from nowhere else, from `source` or from what the kernel chooses. It
/// sends nothing that has to be fragmented until [`allow_fragments`].
///
/// # Errors
/// `EADDRNOTAVAIL` when the host does not have the source, `EAGAIN` when it has no port left there, as of connect(2).
pub fn connect(address: &SockAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let domain = address.domain();
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    forbid_fragments(&socket, domain == Domain::IPV6)?;
    if let Some(source) = source {
        bind_source(socket.as_fd(), source)?;
    }
    socket.connect(address)?;
    Ok(socket.into())
}

/// Sends datagrams of one length, of which the last may be shorter, on a connected socket, without waiting: all or
/// none. The kernel carries several as one through most of its layers.
///
/// # Errors
/// `EAGAIN` when it takes no more at the moment, that of an ICMP message about an earlier one; `EINVAL`, `EIO` or
/// `EMSGSIZE` where several cannot go together; others as of send(2).
pub fn send(socket: BorrowedFd<'_>, datagrams: &[IoSlice<'_>]) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    let sent = match datagrams {
        [] => Ok(0),
        [one] => socket.send_with_flags(one, SEND_FLAGS),
        [first, ..] => {
            let mut control = Control::new();
            control.put_segments(first.len())?;
            let message = MsgHdr::new().with_buffers(datagrams);
            socket.sendmsg(&message.with_control(control.bytes()), SEND_FLAGS)
        }
    };
    sent.map(|_| ())
}

/// The same to an address, from an address of this host if one is given.
///
/// # Errors
/// As [`send`], but for those of ICMP.
pub fn send_to(
    socket: BorrowedFd<'_>,
    datagrams: &[IoSlice<'_>],
    to: &SockAddr,
    from: Option<IpAddr>,
) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    let mut control = Control::new();
    match (datagrams, from) {
        ([], _) => return Ok(()),
        ([one], None) => return socket.send_to_with_flags(one, to, SEND_FLAGS).map(|_| ()),
        ([_], Some(_)) => {}
        ([first, ..], _) => control.put_segments(first.len())?,
    }
    if let Some(from) = from {
        control.put_source(from);
    }
    let message = MsgHdr::new().with_addr(to).with_buffers(datagrams);
    let sent = socket.sendmsg(&message.with_control(control.bytes()), SEND_FLAGS);
    sent.map(|_| ())
}

/// Whether a datagram was not sent because it is larger than the path takes, or an earlier one was: the kernel knows
/// the path better from then on.
#[must_use]
pub fn is_too_big(sent: &io::Result<()>) -> bool {
    let error = sent.as_ref().err();
    error.and_then(io::Error::raw_os_error) == Some(libc::EMSGSIZE)
}

/// Datagrams that did not fit into the socket's buffer since it was made; 0 when the kernel does not tell.
#[must_use]
pub fn overflows(socket: BorrowedFd<'_>) -> u32 {
    let mut numbers = [0_u32; MEMINFO_VARS];
    let mut len = libc::socklen_t::try_from(size_of_val(&numbers)).expect("a small array");
    // SAFETY: `numbers` has room for the bytes that `len` says.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if done == 0 { numbers[MEMINFO_DROPS] } else { 0 }
}

/// From now on, what is larger than the path takes leaves in fragments of the size that the path is known to take.
pub fn allow_fragments(socket: BorrowedFd<'_>) {
    // A socket of IPv4 has no such option; one of IPv6 alone does not mind the other.
    let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
    let _ = set_number(socket, level, name, libc::IPV6_PMTUDISC_WANT);
    let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
    let _ = set_number(socket, level, name, libc::IP_PMTUDISC_WANT);
}

/// The default would be to fragment what is too large, for which the kernel numbers every packet: 2 % of what a
/// datagram costs. What is small enough for every path needs none, and is the same on the wire.
fn forbid_fragments(socket: &Socket, is_v6: bool) -> io::Result<()> {
    if is_v6 {
        let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        set_number(socket.as_fd(), level, name, libc::IPV6_PMTUDISC_DO)?;
    }
    let (level, name) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
    set_number(socket.as_fd(), level, name, libc::IP_PMTUDISC_DO)
}

fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).expect("a number");
    let fd = socket.as_raw_fd();
    // SAFETY: `value` has the bytes that `len` says.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn sockets_share_a_port_in_a_group_that_is_not_free_for_others() {
        let any_port = Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0)));
        let first = bind(any_port, false).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let second = bind(Bind::Address(address), false).unwrap();
        let taken = check_free(Bind::Address(address), false).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop((first, second));
        check_free(Bind::Address(address), false).unwrap();
    }

    /// Sixteen of one length, and one that is shorter.
    fn several() -> Vec<Vec<u8>> {
        let all = (0..17).map(|number| vec![number; if number == 16 { 3 } else { 700 }]);
        all.collect()
    }

    #[test]
    fn several_arrive_as_they_were() {
        for here in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = std::net::UdpSocket::bind(here).unwrap();
            let sender = connect(&receiver.local_addr().unwrap().into(), None).unwrap();
            let datagrams = several();
            let parts: Vec<IoSlice<'_>> = datagrams.iter().map(|one| IoSlice::new(one)).collect();
            send(sender.as_fd(), &parts).unwrap();
            let mut memory = [0; 2_000];
            for expected in &datagrams {
                let len = receiver.recv(&mut memory).unwrap();
                assert_eq!(&memory[..len], expected);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let receiver = bind(Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0))), false).unwrap();
        receiver.set_recv_buffer_size(4096).unwrap();
        let sender = connect(&receiver.local_addr().unwrap(), None).unwrap();
        assert_eq!(overflows(receiver.as_fd()), 0);
        for _ in 0..100 {
            Socket::from(sender.try_clone().unwrap())
                .send(&[0; 1000])
                .unwrap();
        }
        assert!(overflows(receiver.as_fd()) > 50);
    }

    #[test]
    fn datagrams_come_from_the_address_that_is_asked_for() {
        for (here, from) in [("127.0.0.1:0", "127.0.0.7"), ("[::1]:0", "::1")] {
            let receiver = std::net::UdpSocket::bind(here).unwrap();
            let to = SockAddr::from(receiver.local_addr().unwrap());
            let sender = bind(Bind::Any(0), false).unwrap();
            let from: IpAddr = from.parse().unwrap();
            // A dual-stack socket names IPv4 addresses in the form of IPv6.
            let mapped = |address: SocketAddr| match address {
                SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
                SocketAddr::V6(_) => address,
            };
            let to = SockAddr::from(mapped(to.as_socket().unwrap()));
            let ours = match from {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                IpAddr::V6(_) => from,
            };
            let datagrams = several();
            let parts: Vec<IoSlice<'_>> = datagrams.iter().map(|one| IoSlice::new(one)).collect();
            for together in [&parts[..1], &parts] {
                send_to(sender.as_fd(), together, &to, Some(ours)).unwrap();
                for expected in together {
                    let mut memory = [0; 2_000];
                    let (len, sender) = receiver.recv_from(&mut memory).unwrap();
                    assert_eq!((&memory[..len], sender.ip()), (&**expected, from));
                }
            }
        }
    }
}
