//! Interfaces and their addresses by rtnetlink: asked, changed, watched. A change can block for seconds while another
//! process holds the kernel's lock, so none of this belongs on a thread that has deadlines.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

/// For as long as it is.
const FOREVER: u32 = u32::MAX;
/// Bytes that may wait to be read by a watcher.
const WATCH_BUFFER: usize = 1 << 20;
/// Changes that are taken at once; what is left is there the next time.
const CHANGES_MAX: usize = 65_536;
/// The longest that an answer is waited for.
const ANSWER_MAX: i64 = 60;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, which outlives a change of its name.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Switched on, and with a carrier.
    pub is_up: bool,
    /// Of Ethernet.
    pub mac: Option<[u8; 6]>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Of which interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix: one address may be there with several.
    pub prefix_len: u8,
    /// Whether it is known that nobody else has it.
    pub is_usable: bool,
    /// Whether it is there until somebody removes it.
    pub is_permanent: bool,
}

/// What is, or has become, of interfaces and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is like this.
    Link(Link),
    /// The interface with this index is gone.
    LinkGone(u32),
    /// An interface has this address.
    Address(Address),
    /// An interface has lost this address.
    AddressGone(Address),
}

/// Asks and changes. Every call waits for the kernel's answer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A new socket.
    ///
    /// # Errors
    /// As of the system calls.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let patience = TimeVal::new(ANSWER_MAX, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Gives an interface an address, or renews it: for so long (in whole seconds), or for ever. One of IPv6 works at
    /// once, and nothing of this host prefers it as its source.
    ///
    /// # Errors
    /// The kernel's: not permitted, no such interface.
    pub fn set_address(
        &mut self,
        index: u32,
        net: IpNet,
        lifetime: Option<Duration>,
    ) -> io::Result<()> {
        let valid = lifetime.map_or(FOREVER, |lifetime| {
            u32::try_from(lifetime.as_secs()).unwrap_or(FOREVER)
        });
        let mut times = CacheInfo::default();
        times.ifa_valid = valid;
        times.ifa_preferred = if net.addr().is_ipv6() { 0 } else { valid };
        let mut message = address_message(index, net);
        message.attributes.push(AddressAttribute::CacheInfo(times));
        if net.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Takes an address from an interface. One that it does not have was not there: no error.
    ///
    /// # Errors
    /// The kernel's: not permitted.
    pub fn remove_address(&mut self, index: u32, net: IpNet) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, net));
        match self.change(message, 0) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::ENODEV)
                ) =>
            {
                Ok(())
            }
            done => done,
        }
    }

    /// Makes an interface with a MAC address of its own on another one (macvlan). It is not switched on yet. Its mode
    /// is `bridge`: in `private` the interface below would not hear what another host sends from the same address.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`, not permitted, no such interface, no macvlan in this kernel.
    pub fn add_macvlan(&mut self, lower: u32, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut message = LinkMessage::default();
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(lower),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(mode),
            ]),
        ];
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// The kernel's: not permitted, no such interface.
    pub fn switch_on(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes an interface that was made. One that is not there: no error.
    ///
    /// # Errors
    /// The kernel's: not permitted, not one that can be removed.
    pub fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.change(RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// Everything that there is, interfaces first.
    ///
    /// # Errors
    /// As of the system calls.
    pub fn everything(&mut self) -> io::Result<Vec<Change>> {
        let mut all = Vec::new();
        self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            &mut all,
        )?;
        self.dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            &mut all,
        )?;
        Ok(all)
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for message in messages(&bytes) {
                if let Some(NetlinkPayload::Error(error)) = self.answer(message) {
                    return error.code.map_or(Ok(()), |code| Err(os_error(code)));
                }
            }
        }
    }

    fn dump(&mut self, message: RouteNetlinkMessage, all: &mut Vec<Change>) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for message in messages(&bytes) {
                match self.answer(message) {
                    Some(NetlinkPayload::Done(_)) => return Ok(()),
                    Some(NetlinkPayload::Error(error)) => {
                        return error.code.map_or(Ok(()), |code| Err(os_error(code)));
                    }
                    Some(NetlinkPayload::InnerMessage(message)) => all.extend(change(message)),
                    Some(_) | None => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// What a message says, if it answers the last question.
    fn answer(
        &self,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Option<NetlinkPayload<RouteNetlinkMessage>> {
        (message.header.sequence_number == self.sequence).then_some(message.payload)
    }
}

/// Told by the kernel what changes.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
}

impl Watch {
    /// From now on changes are noted.
    ///
    /// # Errors
    /// As of the system calls.
    pub fn open() -> io::Result<Watch> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // More than the kernel's limit is silently less.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &WATCH_BUFFER);
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
        ] {
            socket.add_membership(group)?;
        }
        Ok(Watch { socket })
    }

    /// Takes what has changed since the last time.
    ///
    /// # Errors
    /// `ENOBUFS`: some changes were lost, and everything is to be asked for again. Others as of the system call.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let mut all = Vec::new();
        let mut lost = None;
        // Also after a loss everything is taken: what was noted before it would hide what is asked for now.
        while all.len() < CHANGES_MAX {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => {
                    for message in messages(&bytes) {
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            all.extend(change(message));
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = Some(error),
                Err(error) => return Err(error),
            }
        }
        lost.map_or(Ok(all), Err)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn os_error(code: NonZeroI32) -> io::Error {
    io::Error::from_raw_os_error(code.get().saturating_abs())
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

/// The messages of one datagram. One that cannot be read says nothing about what is asked here.
fn messages(bytes: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let len = u32::from_ne_bytes(*head) as usize;
        let Some(one) = rest.get(..len).filter(|one| one.len() >= 16) else {
            break;
        };
        all.extend(NetlinkMessage::deserialize(one));
        // Each begins at a multiple of four.
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate's enums may grow; all that is not asked for is left aside"
)]
fn change(message: RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(message).map(Change::Link),
        RouteNetlinkMessage::DelLink(message) => Some(Change::LinkGone(message.header.index)),
        RouteNetlinkMessage::NewAddress(message) => address(&message).map(Change::Address),
        RouteNetlinkMessage::DelAddress(message) => address(&message).map(Change::AddressGone),
        _ => None,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate's enums may grow; all that is not asked for is left aside"
)]
fn link(message: LinkMessage) -> Option<Link> {
    let up = LinkFlags::Up | LinkFlags::LowerUp;
    let (mut name, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::Address(bytes) => mac = bytes.try_into().ok(),
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        is_up: message.header.flags.contains(up),
        mac,
    })
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the crate's enums may grow; all that is not asked for is left aside"
)]
fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    Some(Address {
        index: message.header.index,
        address: local.or(peer)?,
        prefix_len: message.header.prefix_len,
        is_usable: !flags.intersects(unusable),
        is_permanent: flags.contains(AddressFlags::Permanent),
    })
}
