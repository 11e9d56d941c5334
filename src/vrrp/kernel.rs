//! The thread that talks to the kernel about interfaces and addresses, since that can block for seconds. It puts
//! addresses where they are wanted, opens the sockets of interfaces that appear, and tells the thread that sends
//! advertisements what has become of them. It decides nothing about virtual routers.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::channel::Sender;
use super::frames::{ALL_NODES, ETHER_TYPE_ARP, ICMP_TYPE_ADVERTISEMENT, Mac};
use super::interfaces::Interfaces;
use super::machine::PRIORITY_OWNER;
use super::packet::{GROUP_V4, GROUP_V6, PROTOCOL};
use super::settings::Settings;
use super::virtual_link::VirtualLinks;
use super::wishes::Wish;
use super::{RouterId, Segment};
use crate::sys::netlink::{Change, Netlink, Watch};
use crate::sys::raw::{Device, FrameSocket, RawSocket};

/// Before something that has failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The sockets of one interface and address family.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) raw: RawSocket,
    /// Also hears ARP.
    pub(super) frames: FrameSocket,
    /// Hears neighbour advertisements, where there is IPv6.
    pub(super) neighbours: Option<RawSocket>,
    /// Hears what is sent to the group with an authentication header, where there is IPv4.
    pub(super) authenticated: Option<RawSocket>,
    pub(super) mac: Mac,
    index: u32,
}

/// What this thread is asked.
#[derive(Debug)]
pub(super) enum Order {
    /// See to it that this is so.
    Addresses(RouterId, Wish),
    /// It has these settings from now on. Addresses that are not among them go; those that are new come with the next
    /// [`Order::Addresses`].
    Configure(RouterId, Arc<Settings>),
    /// Sockets that are not used any more: closing them can block, too.
    Close(Wires),
    /// Let go of everything, and end.
    End,
}

/// What this thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// An interface can be spoken on: its sockets, instead of those before.
    Wired(usize, Wires),
    /// The interface of this virtual router can be used, and advertisements come from there; or it cannot.
    Link(RouterId, Option<IpAddr>),
    /// A tracked interface is up or down.
    Tracked(Arc<str>, bool),
    /// What was ordered is done, or why not.
    Done(RouterId, Wish, Result<(), String>),
    /// This address is the interface's own: it is neither set nor removed here.
    Owned(RouterId, IpAddr),
    /// Somebody else removed addresses.
    AddressDeleted(RouterId),
    /// Something does not work, in words.
    Trouble(String),
    /// The kernel cannot be talked to any more, for this reason, and nothing that is ordered will be done.
    Over(String),
}

/// What it is made from.
pub(super) struct Parts {
    pub(super) settings: Vec<Arc<Settings>>,
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
    pub(super) orders: Receiver<Order>,
    /// Written to when there are orders.
    pub(super) wake: Arc<EventFd>,
    pub(super) news: Sender<News>,
}

struct Kernel {
    parts: Parts,
    netlink: Netlink,
    watch: Watch,
    interfaces: Interfaces,
    virtual_links: VirtualLinks,
    is_virtual: HashSet<IpAddr>,
    /// Of those, the ones that were their interface's own before they were anything else, and stay that.
    is_owned: HashSet<IpAddr>,
    /// By segment: the interface that its sockets were opened for, and its address.
    wired: Vec<Option<(u32, Mac)>>,
    /// By virtual router: where its addresses are.
    held: Vec<Option<u32>>,
    /// By virtual router: what was told last.
    links: Vec<Option<IpAddr>>,
    tracked: BTreeMap<Arc<str>, Option<bool>>,
    has_trouble: bool,
}

/// Runs until it is told to end, then removes the addresses that are still held.
///
/// # Errors
/// When the kernel cannot be talked to at all.
pub(super) fn run(parts: Parts) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let watch = Watch::open()?;
    let interfaces = Interfaces::new(&netlink.everything()?);
    let mut kernel = Kernel {
        tracked: BTreeMap::new(),
        wired: vec![None; parts.segments.len()],
        held: vec![None; parts.settings.len()],
        links: vec![None; parts.settings.len()],
        parts,
        netlink,
        watch,
        interfaces,
        virtual_links: VirtualLinks::default(),
        is_virtual: HashSet::new(),
        is_owned: HashSet::new(),
        has_trouble: false,
    };
    kernel.look_what_is_meant();
    for number in 0..kernel.parts.settings.len() {
        kernel.look_what_is_owned(number, |_| true);
    }
    kernel.settle();
    while kernel.turn()? {}
    kernel.let_go();
    Ok(())
}

impl Kernel {
    /// Waits for something to happen and deals with it. Whether there will be more.
    fn turn(&mut self) -> io::Result<bool> {
        let patience = match self.has_trouble {
            true => PollTimeout::try_from(TRY_AGAIN).expect("a second"),
            false => PollTimeout::NONE,
        };
        let mut fds = [
            PollFd::new(self.parts.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, patience) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The counter only wakes; it is empty when there is nothing.
        let _ = self.parts.wake.read();
        self.take_changes();
        loop {
            match self.parts.orders.try_recv() {
                Ok(Order::Addresses(router, wish)) => self.fulfil(router, wish),
                Ok(Order::Configure(router, settings)) => self.configure(router, settings),
                Ok(Order::Close(wires)) => drop(wires),
                Err(TryRecvError::Empty) => break,
                Ok(Order::End) | Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
        if std::mem::take(&mut self.has_trouble) {
            self.settle();
        }
        Ok(true)
    }

    fn take_changes(&mut self) {
        match self.watch.changes() {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                for change in &changes {
                    self.interfaces.apply(change);
                    match change {
                        Change::Address(given) if given.is_permanent => {
                            self.is_given(given.address)
                        }
                        Change::AddressGone(gone) => self.is_gone(gone.index, gone.address),
                        Change::Address(_) | Change::Link(_) | Change::LinkGone(_) => {}
                    }
                }
                self.settle();
            }
            // Some were lost.
            Err(_) => self.ask_for_everything(),
        }
    }

    fn ask_for_everything(&mut self) {
        match self.netlink.everything() {
            Ok(everything) => {
                self.interfaces = Interfaces::new(&everything);
                for number in 0..self.parts.settings.len() {
                    self.put_back_if_lost(number);
                }
                self.settle();
            }
            Err(error) => {
                self.trouble(format!("interfaces cannot be listed: {error}"));
            }
        }
    }

    fn put_back_if_lost(&mut self, number: usize) {
        let Some(index) = self.held[number] else {
            return;
        };
        let settings = &self.parts.settings[number];
        let mut set_here = settings
            .addresses()
            .filter(|address| !self.is_owned.contains(address));
        if !set_here.all(|address| self.interfaces.has(index, address)) {
            self.parts.news.send(News::AddressDeleted(id(number)));
        }
    }

    /// An interface has an address for good: not by us, where we only ever lease it.
    fn is_given(&mut self, address: IpAddr) {
        for number in 0..self.parts.settings.len() {
            if self.parts.settings[number].lease.is_some() {
                self.look_what_is_owned(number, |one| one == address);
            }
        }
    }

    /// An address of an interface is gone; one of ours is told only if we still want it there.
    fn is_gone(&mut self, index: u32, address: IpAddr) {
        let held = self.held.iter().zip(&self.parts.settings).enumerate();
        for (number, (held, settings)) in held {
            let is_there = self.is_owned.contains(&address) && self.interfaces.has(index, address);
            let is_its = *held == Some(index) && settings.addresses().any(|own| own == address);
            if is_its && !is_there {
                self.parts.news.send(News::AddressDeleted(id(number)));
            }
        }
    }

    /// Opens sockets where there are new interfaces, and tells what has changed.
    fn settle(&mut self) {
        for number in 0..self.parts.segments.len() {
            self.wire(number);
        }
        for number in 0..self.parts.settings.len() {
            let settings = &self.parts.settings[number];
            let is_wired = self.wired[settings_segment(&self.parts.segments, settings)].is_some();
            let present = self.links[number];
            let (is_virtual, is_owned) = (&self.is_virtual, &self.is_owned);
            let source = self
                .interfaces
                .source(settings, present, is_virtual, is_owned);
            let source = source.filter(|_| is_wired);
            if self.links[number] != source {
                self.links[number] = source;
                self.parts.news.send(News::Link(id(number), source));
            }
        }
        for (name, told) in &mut self.tracked {
            let is_up = self.interfaces.is_up(name);
            if told.replace(is_up) != Some(is_up) {
                let name = Arc::clone(name);
                self.parts.news.send(News::Tracked(name, is_up));
            }
        }
    }

    fn wire(&mut self, number: usize) {
        let segment = &self.parts.segments[number];
        let link = self.interfaces.named(&segment.interface);
        let Some(link) = link.filter(|link| link.is_up) else {
            if link.is_none() {
                self.wired[number] = None;
            }
            return;
        };
        let mac = link.mac.unwrap_or_default();
        if self.wired[number] == Some((link.index, mac)) {
            return;
        }
        match open(segment, link.index, mac) {
            Ok(wires) => {
                self.wired[number] = Some((wires.index, mac));
                self.parts.news.send(News::Wired(number, wires));
            }
            Err(error) => {
                let text = format!("no sockets on {}: {error}", segment.interface);
                self.trouble(text);
            }
        }
    }

    fn fulfil(&mut self, router: RouterId, wish: Wish) {
        let result = match wish {
            Wish::Hold { .. } => self.hold(router.index()),
            Wish::Remove => self.remove(router.index()),
        };
        let result = result.map_err(|error| error.to_string());
        self.parts.news.send(News::Done(router, wish, result));
        if wish == Wish::Remove {
            // What we removed ourselves is not to be put back when it is held again.
            self.take_changes();
        }
    }

    /// Takes the addresses and interfaces out of the settings.
    fn look_what_is_meant(&mut self) {
        let settings = self.parts.settings.iter();
        self.is_virtual = settings.clone().flat_map(|one| one.addresses()).collect();
        let told = std::mem::take(&mut self.tracked);
        let tracked = settings.flat_map(|one| one.track.interfaces.iter());
        self.tracked = tracked
            .map(|name| (Arc::clone(name), told.get(name).copied().flatten()))
            .collect();
    }

    /// Those of its addresses that may be, and that its interface had before anybody set them here, are that one's own.
    fn look_what_is_owned(&mut self, number: usize, may_be: impl Fn(IpAddr) -> bool) {
        for address in self.interfaces.owned(&self.parts.settings[number]) {
            if may_be(address) && self.is_owned.insert(address) {
                self.parts.news.send(News::Owned(id(number), address));
            }
        }
    }

    fn configure(&mut self, router: RouterId, settings: Arc<Settings>) {
        // What was set with the settings before is to be known by then.
        self.take_changes();
        let number = router.index();
        let before = std::mem::replace(&mut self.parts.settings[number], settings);
        let now = Arc::clone(&self.parts.settings[number]);
        if let Some(index) = self.held[number] {
            for net in &before.addresses {
                if !now.addresses.contains(net)
                    && !self.is_owned.contains(&net.addr())
                    && let Err(error) = self.netlink.remove_address(index, *net)
                {
                    // Its lease does the rest, if it has one.
                    let text = format!("{net} is no virtual address any more and stays: {error}");
                    self.parts.news.send(News::Trouble(text));
                }
            }
        }
        self.look_what_is_meant();
        let had = |address: IpAddr| before.addresses().any(|one| one == address);
        let is_virtual = &self.is_virtual;
        let is_owner = now.priority == PRIORITY_OWNER;
        self.is_owned
            .retain(|address| is_virtual.contains(address) && (is_owner || !had(*address)));
        self.look_what_is_owned(number, |address| !had(address));
        // Whoever tracks an interface now is told how it is.
        for name in &now.track.interfaces {
            self.tracked.insert(Arc::clone(name), None);
        }
        self.settle();
    }

    fn hold(&mut self, number: usize) -> io::Result<()> {
        let settings = Arc::clone(&self.parts.settings[number]);
        let link = self.interfaces.named(&settings.interface);
        let link = link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let index = match settings.virtual_mac() {
            None => link.index,
            Some(mac) => {
                let wanted = (mac, self.held[number]);
                self.virtual_links
                    .make(&mut self.netlink, link, &settings, wanted)?
            }
        };
        let own = link.index;
        self.held[number] = Some(index);
        let mut result = Ok(());
        for net in &settings.addresses {
            let done = match self.is_owned.contains(&net.addr()) {
                false => self.netlink.set_address(index, *net, settings.lease),
                true if self.interfaces.has(own, net.addr()) => Ok(()),
                true => Err(io::Error::other(format!(
                    "{}, which is the interface's own, is gone, and is for others to give back",
                    net.addr()
                ))),
            };
            result = result.and(done);
        }
        result
    }

    fn remove(&mut self, number: usize) -> io::Result<()> {
        let settings = Arc::clone(&self.parts.settings[number]);
        let link = self.interfaces.named(&settings.interface);
        let held = self.held[number].take();
        let mut result = Ok(());
        if let Some(index) = held.or(link.map(|link| link.index)) {
            let is_ours = |net: &&IpNet| !self.is_owned.contains(&net.addr());
            for net in settings.addresses.iter().filter(is_ours) {
                result = self.netlink.remove_address(index, *net).and(result);
            }
        }
        // Also one that was left behind when the file still wanted it.
        if let Some(link) = link {
            result = VirtualLinks::remove(&mut self.netlink, link, &settings).and(result);
        }
        result
    }

    /// The other thread has ended: nothing of ours is to stay behind.
    fn let_go(&mut self) {
        for number in 0..self.held.len() {
            if self.held[number].is_some() {
                // There is nobody left to tell; the lease does the rest.
                let _ = self.remove(number);
            }
        }
        self.virtual_links.let_go();
    }

    fn trouble(&mut self, text: String) {
        self.has_trouble = true;
        self.parts.news.send(News::Trouble(text));
    }
}

fn id(number: usize) -> RouterId {
    RouterId(u16::try_from(number).expect("no more virtual routers than ids"))
}

fn settings_segment(segments: &[Segment], settings: &Settings) -> usize {
    let position = segments.iter().position(|one| one.has(settings));
    position.expect("there is a segment for each virtual router")
}

fn open(segment: &Segment, index: u32, mac: Mac) -> io::Result<Wires> {
    let device = Device {
        name: segment.interface.to_string(),
        index,
    };
    let (group, ether_type) = match segment.is_ipv4 {
        true => (IpAddr::V4(GROUP_V4), ETHER_TYPE_ARP),
        false => (IpAddr::V6(GROUP_V6), 0),
    };
    let (mut neighbours, mut authenticated) = (None, None);
    if segment.is_ipv4 {
        let ah = u8::try_from(libc::IPPROTO_AH).expect("51");
        let socket = RawSocket::open(&device, ah, group)?;
        socket.hear_group_only(GROUP_V4)?;
        authenticated = Some(socket);
    } else {
        let icmp = u8::try_from(libc::IPPROTO_ICMPV6).expect("58");
        let socket = RawSocket::open(&device, icmp, ALL_NODES.into())?;
        socket.hear_only(ICMP_TYPE_ADVERTISEMENT)?;
        neighbours = Some(socket);
    }
    Ok(Wires {
        raw: RawSocket::open(&device, PROTOCOL, group)?,
        frames: FrameSocket::open(&device, ether_type)?,
        neighbours,
        authenticated,
        mac,
        index,
    })
}
