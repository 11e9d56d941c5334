//! Raw sockets: one IP protocol on one interface, and whole Ethernet frames. What is in them is somebody else's
//! business.
#![allow(
    unsafe_code,
    reason = "what the crates do not offer: an address of a packet socket, and the filter of ICMPv6"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// The lowest precedence of network control, as RFC 791 has it: routing protocols are sent with it.
const NETWORK_CONTROL: u32 = 0xc0;
/// Of include/uapi/linux/icmpv6.h.
const ICMPV6_FILTER: libc::c_int = 1;
/// What may wait to be read, in bytes. The kernel allows twice as much, and counts half a KiB or more for a datagram.
pub const RECEIVE_BUFFER: usize = 1 << 20;

/// An interface, as sockets need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
}

/// A raw socket of one IP protocol that hears and speaks on one interface only. What it sends to a group does not
/// come back.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    index: u32,
    is_ipv4: bool,
}

/// What a raw socket of IPv6 tells of a datagram beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes that were written to the buffer: of IPv4 the header, too; of IPv6 the payload alone.
    pub len: usize,
    /// From where, to where and with which hop limit it came; none for IPv4, whose header has it.
    pub ends: Option<(Ipv6Addr, Ipv6Addr, u8)>,
}

impl RawSocket {
    /// Opens one, and joins the group. Joining can wait for the kernel's lock.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; others as of the system calls.
    pub fn open(device: &Device, protocol: u8, group: IpAddr) -> io::Result<RawSocket> {
        let (domain, is_ipv4) = match group {
            IpAddr::V4(_) => (Domain::IPV4, true),
            IpAddr::V6(_) => (Domain::IPV6, false),
        };
        let protocol = Protocol::from(i32::from(protocol));
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
        socket.bind_device(Some(device.name.as_bytes()))?;
        // Less than asked for is still enough.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        match group {
            IpAddr::V4(group) => {
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_ttl_v4(255)?;
                socket.set_ttl_v4(255)?;
                socket.set_tos_v4(NETWORK_CONTROL)?;
                let on = InterfaceIndexOrAddress::Index(device.index);
                socket.join_multicast_v4_n(&group, &on)?;
            }
            IpAddr::V6(group) => {
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(255)?;
                socket.set_unicast_hops_v6(255)?;
                socket.set_tclass_v6(NETWORK_CONTROL)?;
                socket.set_multicast_if_v6(device.index)?;
                socket.set_recv_hoplimit_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                socket.join_multicast_v6(&group, device.index)?;
            }
        }
        Ok(RawSocket {
            socket,
            index: device.index,
            is_ipv4,
        })
    }

    /// Of an IPv4 socket: hears what is sent to this group alone, not what is sent to this host.
    ///
    /// # Errors
    /// As of bind(2).
    pub fn hear_group_only(&self, group: Ipv4Addr) -> io::Result<()> {
        self.socket.bind(&SocketAddrV4::new(group, 0).into())
    }

    /// Of an ICMPv6 socket: hears messages of this type only.
    ///
    /// # Errors
    /// As of setsockopt(2).
    pub fn hear_only(&self, icmp_type: u8) -> io::Result<()> {
        // A bit that is set keeps a type out.
        let mut filter = [u32::MAX; 8];
        filter[usize::from(icmp_type / 32)] &= !(1 << (icmp_type % 32));
        let len = libc::socklen_t::try_from(size_of_val(&filter)).expect("32 bytes");
        // SAFETY: the kernel reads `len` bytes of the filter, which lives until it returns.
        let done = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_ICMPV6,
                ICMPV6_FILTER,
                filter.as_ptr().cast(),
                len,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Sends a payload; the kernel writes the header. Never waits.
    ///
    /// # Errors
    /// As of sendmsg(2): `EPERM` where a firewall drops it, `ENOBUFS`, `EADDRNOTAVAIL` without the source.
    pub fn send(&self, payload: &[u8], source: IpAddr, destination: IpAddr) -> io::Result<()> {
        let parts = [io::IoSlice::new(payload)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: i32::try_from(self.index).unwrap_or(0),
                    ipi_spec_dst: in_addr(source),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &control, flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: source.octets(),
                    },
                    ipi6_ifindex: self.index,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.index));
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &control, flags, Some(&to))?;
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
            }
        }
        Ok(())
    }

    /// Takes a datagram that has arrived; what does not fit into the buffer is cut off. None if there is none. Also
    /// takes errors that earlier sends have left.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<Arrival> {
        // Each error is taken by the call that tells it.
        (0..8).find_map(|_| match self.try_receive(buffer) {
            Ok(arrival) => Some(Some(arrival)),
            Err(nix::errno::Errno::EAGAIN) => Some(None),
            Err(_) => None,
        })?
    }

    fn try_receive(&self, buffer: &mut [u8]) -> nix::Result<Arrival> {
        let mut parts = [io::IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut space), flags)?;
        let len = message.bytes;
        if self.is_ipv4 {
            return Ok(Arrival { len, ends: None });
        }
        let source = message.address.map(|address| address.ip());
        let (mut destination, mut hop_limit) = (None, None);
        for control in message.cmsgs()? {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            } else if let ControlMessageOwned::Ipv6HopLimit(limit) = control {
                hop_limit = u8::try_from(limit).ok();
            }
        }
        let ends = source.zip(destination).zip(hop_limit);
        let ends = ends.map(|((source, destination), limit)| (source, destination, limit));
        ends.map(|ends| Arrival {
            len,
            ends: Some(ends),
        })
        .ok_or(nix::errno::Errno::EBADMSG)
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

/// Sends whole Ethernet frames on one interface, and hears those of one type.
#[derive(Debug)]
pub struct FrameSocket {
    socket: Socket,
}

impl FrameSocket {
    /// Opens one that hears frames of this type; 0 hears nothing.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; others as of the system calls.
    pub fn open(device: &Device, ether_type: u16) -> io::Result<FrameSocket> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
        socket.bind(&packet_address(device.index, ether_type))?;
        Ok(FrameSocket { socket })
    }

    /// Sends a frame, with its header. Never waits.
    ///
    /// # Errors
    /// As of send(2).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Takes a frame that has arrived, cut to the buffer; none if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        use std::io::Read;
        (&self.socket).read(buffer).ok()
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn packet_address(index: u32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll is smaller than the storage, and valid whatever its bytes are.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20 bytes");
    // SAFETY: the storage holds an address of its family and of this length.
    unsafe { SockAddr::new(storage, len) }
}
