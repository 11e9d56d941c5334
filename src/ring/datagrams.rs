//! Datagrams: receives that tell where each one came from and where it was sent to, into buffers of their own that
//! take the largest one. They are not sent by the ring: a system call for each costs less than an operation (4 % of a
//! request and its answer, with 100 clients), and tells at once how it went.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, RecvMsgOut};
use io_uring::{IoUring, opcode};

use super::SetupError;
use super::buffers::{BufferId, Buffers, DATAGRAM_GROUP, DATAGRAMS_FIRST};

/// Largest payload: the length of a UDP datagram has 16 bits, 8 bytes of which are its header.
const PAYLOAD_MAX: u32 = 65_535 - 8;
/// Room for the sender's address: a `sockaddr_in6`.
const NAME_LEN: u32 = 28;
/// Room for what comes with a datagram: an `in6_pktinfo` in its header.
const CONTROL_LEN: u32 = 40;
/// Where the payload begins in a buffer: behind the kernel's header of four numbers, the address and the rest.
const PAYLOAD_START: u32 = 16 + NAME_LEN + CONTROL_LEN;
/// Bytes of a buffer, a multiple of a cache line.
const BUFFER_SIZE: u32 = (PAYLOAD_START + PAYLOAD_MAX).next_multiple_of(64);

const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

/// What a datagram carries, in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// In which; an empty datagram may have none.
    pub buffer: Option<BufferId>,
    from: u32,
    /// Bytes.
    pub len: u32,
}

impl Payload {
    /// The whole of a buffer that holds nothing else; an empty datagram has none.
    #[must_use]
    pub fn whole(buffer: Option<BufferId>, len: u32) -> Payload {
        Payload {
            buffer,
            from: 0,
            len,
        }
    }
}

/// A datagram that was received together with its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where to, if the socket was told to say.
    pub to: Option<IpAddr>,
    /// What it carries.
    pub payload: Payload,
    /// It is not all there.
    pub is_truncated: bool,
}

/// What datagrams need of a ring.
pub(super) struct Datagrams {
    pub(super) buffers: Buffers,
    /// What receives say that they have room for.
    template: Box<libc::msghdr>,
}

impl Datagrams {
    pub(super) fn register(io: &mut IoUring, count: u16) -> Result<Datagrams, SetupError> {
        Self::with_buffers_of(BUFFER_SIZE, io, count)
    }

    fn with_buffers_of(size: u32, io: &mut IoUring, count: u16) -> Result<Datagrams, SetupError> {
        // SAFETY: all zeroes is a valid message header: null pointers and no lengths.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        template.msg_namelen = NAME_LEN;
        template.msg_controllen = CONTROL_LEN as usize;
        Ok(Datagrams {
            buffers: Buffers::register(io, DATAGRAM_GROUP, DATAGRAMS_FIRST, count, size)?,
            template,
        })
    }

    /// Receives again and again, with addresses.
    pub(super) fn receive_messages(&self, fd: RawFd) -> Entry {
        opcode::RecvMsgMulti::new(Fd(fd), &raw const *self.template, DATAGRAM_GROUP).build()
    }

    /// What the completion of such a receive has put into a buffer, so many bytes in all; none if it makes no sense.
    pub(super) fn message(&self, buffer: BufferId, bytes: u32) -> Option<Message> {
        let parsed =
            RecvMsgOut::parse(self.buffers.bytes(buffer, 0, bytes), &self.template).ok()?;
        let len = u32::try_from(parsed.payload_data().len()).ok()?;
        Some(Message {
            from: sender(parsed.name_data())?,
            to: destination(parsed.control_data()),
            payload: Payload {
                buffer: Some(buffer),
                from: PAYLOAD_START,
                len,
            },
            is_truncated: parsed.is_payload_truncated(),
        })
    }

    /// What a datagram carries.
    pub(super) fn bytes(&self, payload: Payload) -> &[u8] {
        payload.buffer.map_or(&[][..], |buffer| {
            self.buffers.bytes(buffer, payload.from, payload.len)
        })
    }
}

/// An address as the kernel writes it.
fn sender(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(part(name, 0)?);
    let port = u16::from_be_bytes(part(name, 2)?);
    match i32::from(family) {
        libc::AF_INET => Some((Ipv4Addr::from(part::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(part::<16>(name, 8)?);
            let label = u32::from_ne_bytes(part(name, 4)?);
            let scope = u32::from_ne_bytes(part(name, 24)?);
            Some(SocketAddrV6::new(ip, port, label, scope).into())
        }
        _ => None,
    }
}

/// The local address in what comes with a datagram, which is at most one such thing.
fn destination(control: &[u8]) -> Option<IpAddr> {
    let level = i32::from_ne_bytes(part(control, size_of::<usize>())?);
    let kind = i32::from_ne_bytes(part(control, size_of::<usize>() + 4)?);
    match (level, kind) {
        // Behind the number of an interface; then comes what was in the header, which may be a group.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            Some(Ipv4Addr::from(part::<4>(control, CMSG_HEADER + 4)?).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            Some(Ipv6Addr::from(part::<16>(control, CMSG_HEADER)?).into())
        }
        _ => None,
    }
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use io_uring::cqueue;
    use socket2::SockAddr;

    use super::*;

    #[test]
    fn what_does_not_fit_into_a_buffer_is_known_not_to_be_all_there() {
        let mut io = IoUring::new(8).unwrap();
        let mut datagrams = Datagrams::with_buffers_of(PAYLOAD_START + 100, &mut io, 4).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receive = datagrams.receive_messages(receiver.as_raw_fd());
        // SAFETY: what the entry points to outlives the ring.
        unsafe { io.submission().push(&receive) }.unwrap();
        for (sent, received, is_truncated) in [(100, 100, false), (101, 100, true), (3, 3, false)] {
            let bytes: Vec<u8> = (0..sent).collect();
            sender
                .send_to(&bytes, receiver.local_addr().unwrap())
                .unwrap();
            io.submit_and_wait(1).unwrap();
            let completion = io.completion().next().unwrap();
            let buffer = BufferId(cqueue::buffer_select(completion.flags()).unwrap());
            datagrams.buffers.taken();
            let len = u32::try_from(completion.result()).unwrap();
            let message = datagrams.message(buffer, len).unwrap();
            assert_eq!(message.from, sender.local_addr().unwrap());
            assert_eq!(message.is_truncated, is_truncated, "{sent} bytes");
            assert_eq!(datagrams.bytes(message.payload), &bytes[..received]);
        }
        drop(io);
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["10.1.2.3:53", "[2001:db8::7]:65535", "[::ffff:10.0.0.1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let written = SockAddr::from(address);
            let start: *const u8 = written.as_ptr().cast();
            // SAFETY: so many bytes are what the address has.
            let bytes = unsafe { std::slice::from_raw_parts(start, written.len() as usize) };
            assert_eq!(sender(bytes), Some(address));
            assert_eq!(
                sender(&bytes[..bytes.len() - 1]).is_some(),
                address.is_ipv4()
            );
        }
        assert_eq!(sender(&[]), None);
    }
}
