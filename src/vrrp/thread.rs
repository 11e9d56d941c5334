//! The thread that receives, decides and sends. Nothing on it waits for anything but the next moment or the next
//! datagram: what can block is done elsewhere, and what it says leaves through a bounded channel.

mod runner;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::channel::Sender;
use super::frames::{self, Mac};
use super::kernel::{self, News, Order, Wires};
use super::machine::{Action, Event, Readiness};
use super::paced::Paced;
use super::packet::{Datagram, LEN_MAX, Password, Rejection, Vrid};
use super::progress::{Progress, Watchdog};
use super::reading::{Reading, WAITING_MAX};
use super::settings::Settings;
use super::wishes::Wish;
use super::{Command, Description, Report, RouterId, Segment, Ticket};
use crate::sys::priority;
use crate::sys::raw::RECEIVE_BUFFER;
use crate::time::{Seldom, Time};

use runner::Runner;

/// Its real-time priority. Low among those: nothing of the kernel's own waits for it.
pub const PRIORITY: u8 = 10;
/// Of the thread beside it, which renews leases: little work, but in time.
const PRIORITY_BESIDE: u8 = 9;
/// Datagrams of one socket in one turn; a flood cannot keep advertisements waiting.
const DATAGRAMS_MAX: usize = 1024;
const _: () = assert!(2 * RECEIVE_BUFFER / 512 <= WAITING_MAX);
/// Longest datagram that is read: the longest advertisement with the longest IPv4 header.
const DATAGRAM_MAX: usize = LEN_MAX + 60;
/// Messages that may wait in a channel.
const CHANNEL_MAX: usize = 4096;
/// Reports that may wait while control is busy; log lines beyond are dropped.
const OUTBOX_MAX: usize = 4096;
/// Before reports that found the channel full are sent again.
const SEND_AGAIN: Duration = Duration::from_millis(10);
/// Between two lines about the same thing.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How control talks to the thread.
#[derive(Debug)]
pub struct Handle {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Never waits; whether it was sent. It is not only if the thread stands still or is gone.
    pub fn send(&self, command: Command) -> bool {
        self.commands.try_send(command)
    }

    /// Waits for the end of the thread, which follows [`Report::Stopped`] at once.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Why it panicked has been printed.
            let _ = thread.join();
        }
    }
}

/// What the thread is made from.
#[derive(Debug)]
pub struct Parts {
    /// The virtual routers; at least one.
    pub settings: Vec<Arc<Settings>>,
    /// Their passwords.
    pub passwords: Vec<Option<Password>>,
    /// Who is to be at work.
    pub progress: Arc<Progress>,
    /// From when all [`Time`]s count.
    pub started: Instant,
    /// Where reports go.
    pub reports: tokio::sync::mpsc::Sender<Report>,
}

/// Starts the thread, and the one beside it.
///
/// # Errors
/// When there are no threads or file descriptors.
pub fn start(parts: Parts) -> io::Result<Handle> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = || EventFd::from_value_and_flags(0, flags).map(Arc::new);
    let (wake, wake_kernel) = (event()?, event()?);
    let (command, commands) = bounded(CHANNEL_MAX);
    let (news, told) = bounded(CHANNEL_MAX);
    let (order, orders) = bounded(CHANNEL_MAX);
    let mut segments: Vec<Segment> = Vec::new();
    for settings in &parts.settings {
        let segment = Segment::of(settings);
        if !segments.contains(&segment) {
            segments.push(segment);
        }
    }
    let beside = kernel::Parts {
        settings: parts.settings.clone(),
        segments: segments.clone(),
        orders,
        wake: Arc::clone(&wake_kernel),
        news: Sender::new(news, Arc::clone(&wake)),
    };
    let troubled = beside.news.clone();
    let kernel = std::thread::Builder::new()
        .name("vrrp-kernel".to_owned())
        .spawn(move || {
            // Where it is not permitted the other thread says so. A lease that is renewed late is an address that is
            // gone for a while.
            let _ = priority::real_time(PRIORITY_BESIDE);
            if let Err(error) = kernel::run(beside) {
                troubled.send(News::Over(error.to_string()));
            }
        })?;
    let handle = Sender::new(command, Arc::clone(&wake));
    let orders = Sender::new(order, wake_kernel);
    let thread = std::thread::Builder::new()
        .name("vrrp".to_owned())
        .spawn(move || {
            let reports = parts.reports.clone();
            let channels = Channels {
                commands,
                told,
                wake,
                orders,
            };
            Loop::new(parts, segments, channels).run();
            // Addresses are gone when this is told.
            let _ = kernel.join();
            let _ = reports.blocking_send(Report::Stopped);
        })?;
    Ok(Handle {
        commands: handle,
        thread: Some(thread),
    })
}

struct Channels {
    commands: Receiver<Command>,
    told: Receiver<News>,
    wake: Arc<EventFd>,
    orders: Sender<Order>,
}

/// One address family of one interface.
struct Wired {
    wires: Option<Wires>,
    routers: HashMap<Vrid, RouterId>,
    /// Those of addresses that have one of their own.
    virtual_macs: HashMap<IpAddr, Mac>,
    paced: Paced,
    reading: Reading,
    unknown_vrid: u64,
    malformed: u64,
    seldom: Seldom,
}

impl Wired {
    /// The MAC address of a virtual address while it is here.
    fn mac_of(&self, wires: &Wires, address: IpAddr) -> Mac {
        self.virtual_macs
            .get(&address)
            .copied()
            .unwrap_or(wires.mac)
    }
}

struct Loop {
    started: Instant,
    runners: Vec<Runner>,
    segments: Vec<Wired>,
    channels: Channels,
    reports: tokio::sync::mpsc::Sender<Report>,
    outbox: VecDeque<Report>,
    lines_dropped: u64,
    watchdog: Watchdog,
    /// How often the watchdog looks.
    look_every: Duration,
    look_at: Time,
    tickets: u64,
    is_stopping: bool,
    /// Nothing can be asked of the kernel any more, for this reason.
    is_deaf: Option<Arc<str>>,
}

impl Loop {
    fn new(parts: Parts, segments: Vec<Segment>, channels: Channels) -> Loop {
        let now = Time::ZERO + parts.started.elapsed();
        let look_every = look_every(parts.settings.iter());
        let mut wired: Vec<Wired> = segments
            .iter()
            .map(|_| Wired {
                wires: None,
                routers: HashMap::new(),
                virtual_macs: HashMap::new(),
                paced: Paced::default(),
                reading: Reading::default(),
                unknown_vrid: 0,
                malformed: 0,
                seldom: Seldom::new(SAY_EVERY),
            })
            .collect();
        let all = parts.settings.iter().zip(parts.passwords).zip(0..);
        let runners = all
            .map(|((settings, password), number)| {
                let segment = segments.iter().position(|one| one.has(settings));
                let segment = segment.expect("there is a segment for each virtual router");
                wired[segment]
                    .routers
                    .insert(settings.vrid, RouterId(number));
                if let Some(mac) = settings.virtual_mac() {
                    let macs = settings.addresses().map(|address| (address, mac));
                    wired[segment].virtual_macs.extend(macs);
                }
                Runner::new(Arc::clone(settings), password, segment, now)
            })
            .collect();
        Loop {
            started: parts.started,
            runners,
            segments: wired,
            channels,
            reports: parts.reports,
            outbox: VecDeque::new(),
            lines_dropped: 0,
            watchdog: Watchdog::new(parts.progress),
            look_every,
            look_at: now,
            tickets: 0,
            is_stopping: false,
            is_deaf: None,
        }
    }

    fn run(mut self) {
        if let Err(error) = priority::real_time(PRIORITY) {
            self.say(
                None,
                true,
                format!(
                    "no real-time priority ({error}): a busy machine may delay advertisements and leases; \
                 CAP_SYS_NICE or LimitRTPRIO= in the unit gives it"
                ),
            );
        }
        if let Err(error) = priority::lock_memory() {
            self.say(
                None,
                true,
                format!(
                    "memory is not locked ({error}): swapping may delay advertisements; \
                 CAP_IPC_LOCK or LimitMEMLOCK=infinity in the unit allows it"
                ),
            );
        }
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.is_done() {
            self.wait();
            // Everything that has arrived is told before time is; what a turn leaves is waited for.
            self.receive(&mut buffer);
            self.take_news();
            self.take_commands();
            self.expire();
            self.announce();
            self.flush();
        }
        self.flush();
        self.channels.orders.send(Order::End);
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    fn is_done(&self) -> bool {
        let has_let_go = |one: &Runner| match self.is_deaf {
            None => one.has_let_go(),
            Some(_) => one.is_stopped,
        };
        self.is_stopping && self.runners.iter().all(has_let_go)
    }

    /// Until something arrives, or the next moment comes.
    fn wait(&self) {
        let timeout = self
            .next()
            .map(|at| TimeSpec::from_duration(at - self.now()));
        let wires = self.segments.iter().filter_map(|one| one.wires.as_ref());
        let sockets = wires.flat_map(|wires| {
            let more = [&wires.neighbours, &wires.authenticated];
            let more = more.into_iter().flatten().map(AsFd::as_fd);
            [wires.raw.as_fd(), wires.frames.as_fd()]
                .into_iter()
                .chain(more)
        });
        let fds = std::iter::once(self.channels.wake.as_fd()).chain(sockets);
        let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interrupted wait is a short one.
        let _ = ppoll(&mut fds, timeout, None);
        let _ = self.channels.wake.read();
    }

    fn next(&self) -> Option<Time> {
        let again = (!self.outbox.is_empty()).then(|| self.now() + SEND_AGAIN);
        let runners = self.runners.iter().filter_map(Runner::due);
        let wired = self.segments.iter().filter(|one| one.wires.is_some());
        let paced = wired.filter_map(|one| one.paced.due());
        runners
            .chain(paced)
            .chain(again)
            .chain([self.look_at])
            .min()
    }

    // --- what arrives ---

    fn receive(&mut self, buffer: &mut [u8]) {
        for number in 0..self.segments.len() {
            self.hear_authenticated(number, buffer);
            for _ in 0..DATAGRAMS_MAX {
                let at = self.now();
                let segment = &mut self.segments[number];
                let arrival = segment
                    .wires
                    .as_ref()
                    .and_then(|one| one.raw.receive(buffer));
                let Some(arrival) = arrival else {
                    segment.reading.found_nothing(at);
                    break;
                };
                segment.reading.took_one(at);
                let bytes = &buffer[..arrival.len];
                match Datagram::from_raw(arrival.ends, bytes) {
                    Ok(datagram) => self.received(number, &datagram),
                    Err(rejection) => self.unreadable(number, rejection, bytes),
                }
            }
            self.hear_claims(number, buffer);
        }
    }

    /// Those who authenticate by AH are not listened to, which people are to know.
    fn hear_authenticated(&mut self, number: usize, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_MAX {
            let wires = self.segments[number].wires.as_ref();
            let socket = wires.and_then(|wires| wires.authenticated.as_ref());
            let Some(arrival) = socket.and_then(|socket| socket.receive(buffer)) else {
                return;
            };
            let bytes = &buffer[..arrival.len];
            self.unreadable(number, Rejection::AuthenticationHeader, bytes);
        }
    }

    fn received(&mut self, number: usize, datagram: &Datagram) {
        let segment = &mut self.segments[number];
        let known = datagram.vrid().and_then(|vrid| segment.routers.get(&vrid));
        match known.copied() {
            Some(router) => self.tell(router, Event::Received(datagram)),
            None => segment.unknown_vrid += 1,
        }
    }

    /// A datagram that cannot be taken apart, but may say whom it is for.
    fn unreadable(&mut self, number: usize, rejection: Rejection, bytes: &[u8]) {
        let now = self.now();
        let segment = &mut self.segments[number];
        let Some((source, vrid)) = Datagram::addressee(bytes) else {
            segment.malformed += 1;
            if segment.seldom.may(now) {
                let text = format!("a datagram is not listened to: {rejection}");
                self.say(None, true, text);
            }
            return;
        };
        match segment.routers.get(&vrid).copied() {
            Some(router) => self.tell(router, Event::Unreadable { source, rejection }),
            None => segment.unknown_vrid += 1,
        }
    }

    /// Somebody says, in ARP or in neighbour discovery, that it has an address of ours.
    fn hear_claims(&mut self, number: usize, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_MAX {
            let segment = &self.segments[number];
            let Some(wires) = &segment.wires else {
                return;
            };
            let claim: Option<(Mac, IpAddr)> = match &wires.neighbours {
                None => {
                    let Some(len) = wires.frames.receive(buffer) else {
                        return;
                    };
                    frames::arp_claim(&buffer[..len]).map(|(mac, address)| (mac, address.into()))
                }
                Some(neighbours) => {
                    let Some(arrival) = neighbours.receive(buffer) else {
                        return;
                    };
                    let hop_limit = arrival.ends.map_or(0, |(_, _, hop_limit)| hop_limit);
                    let claim = frames::neighbour_claim(&buffer[..arrival.len], hop_limit);
                    claim.map(|(mac, address)| (mac, address.into()))
                }
            };
            let is_foreign = |(mac, address): &(Mac, IpAddr)| {
                *mac != wires.mac && *mac != segment.mac_of(wires, *address)
            };
            let Some((_, address)) = claim.filter(is_foreign) else {
                continue;
            };
            let owner = self.runners.iter().position(|one| {
                one.segment == number && one.settings.addresses().any(|own| own == address)
            });
            if let Some(owner) = owner {
                self.tell(id(owner), Event::ForeignOwner(address));
            }
        }
    }

    fn take_news(&mut self) {
        while let Ok(news) = self.channels.told.try_recv() {
            match news {
                News::Wired(number, wires) => {
                    if let Some(old) = self.segments[number].wires.replace(wires) {
                        self.channels.orders.try_send(Order::Close(old));
                    }
                }
                News::Link(router, source) => self.link(router, source),
                News::Tracked(name, is_up) => self.tracked(&name, is_up),
                News::Done(router, wish, result) => self.done(router, wish, result),
                News::Owned(router, address) => self.owned(router, address),
                News::AddressDeleted(router) => {
                    let text = "somebody removed an address, or its lease ran out; it is to be there again";
                    if self.runners[router.index()].is_active() {
                        self.say(Some(router), true, text.to_owned());
                    }
                    let now = self.now();
                    self.runners[router.index()].lacks_addresses(now);
                    self.tell(router, Event::AddressDeleted);
                }
                News::Trouble(text) => self.say(None, true, text),
                News::Over(why) => self.deaf(&why),
            }
        }
    }

    fn owned(&mut self, router: RouterId, address: IpAddr) {
        let text = format!(
            "{address} is the interface's own (priority 255): it is neither set nor removed here, and stays there \
             when another node takes over"
        );
        self.say(Some(router), false, text);
    }

    /// Addresses can be neither set nor removed: their leases end, and somebody else is to take over.
    fn deaf(&mut self, why: &str) {
        let text = format!("the kernel cannot be asked about interfaces and addresses: {why}");
        self.is_deaf = Some(Arc::from(text.as_str()));
        self.say(None, true, text);
        (0..self.runners.len()).for_each(|number| self.judge(number));
    }

    /// What makes one of a group give way makes all of it.
    fn tracked(&mut self, name: &Arc<str>, is_up: bool) {
        for number in 0..self.runners.len() {
            let tracks = |one: usize| {
                let interfaces = &self.runners[one].settings.track.interfaces;
                interfaces.contains(name)
            };
            if tracks(number) || self.group_of(id(number)).into_iter().any(tracks) {
                self.runners[number].fitness.interface(name, is_up);
                self.judge(number);
            }
        }
    }

    fn link(&mut self, router: RouterId, source: Option<IpAddr>) {
        let runner = &mut self.runners[router.index()];
        let was = std::mem::replace(&mut runner.source, source);
        let event = match source {
            Some(source) => Event::LinkUp(source),
            None => Event::LinkDown,
        };
        let is_virtual = |source| runner.settings.addresses().any(|own| own == source);
        if let Some(source) = source.filter(|source| is_virtual(*source)) {
            let text = format!(
                "advertisements come from {source}, which is virtual itself: a node that has taken it over does not \
                 hear them (Linux takes nothing from its own addresses); give the interface a second address"
            );
            self.say(Some(router), true, text);
        }
        // Another address is another sender: what was said from the first one is over.
        if was.is_some() && source.is_some() {
            self.tell(router, Event::LinkDown);
        }
        self.judge_links(router.index());
        self.tell(router, event);
        for number in self.group_of(router) {
            self.judge_links(number);
        }
    }

    /// One without a link keeps all others of its group out.
    fn judge_links(&mut self, number: usize) {
        let group = self.group_of(id(number));
        let mut group = group.into_iter().map(|one| &self.runners[one]);
        let without = group.find(|one| one.source.is_none());
        let name = without.map(|one| Arc::clone(&one.settings.name));
        self.runners[number].fitness.group(name);
        self.judge(number);
    }

    /// The other members of its group.
    fn group_of(&self, router: RouterId) -> Vec<usize> {
        let Some(group) = &self.runners[router.index()].settings.group else {
            return Vec::new();
        };
        let all = self.runners.iter().enumerate();
        all.filter(|(number, one)| {
            *number != router.index() && one.settings.group.as_ref() == Some(group)
        })
        .map(|(number, _)| number)
        .collect()
    }

    fn done(&mut self, router: RouterId, wish: Wish, result: Result<(), String>) {
        let now = self.now();
        let runner = &mut self.runners[router.index()];
        runner.wishes.done();
        runner.is_answered();
        match (wish, result) {
            (Wish::Hold { term }, Ok(())) => {
                runner.lacks_nothing();
                self.tell(router, Event::AddressesHeld { term });
            }
            (Wish::Remove, Ok(())) => {
                if std::mem::take(&mut runner.sweeps) {
                    self.end_sessions(router);
                }
            }
            (Wish::Hold { .. }, Err(error)) => {
                runner.lacks_addresses(now);
                if runner.failed(now) {
                    let text = format!("the addresses cannot be set: {error}; trying on");
                    self.say(Some(router), true, text);
                }
            }
            (Wish::Remove, Err(error)) => {
                if runner.failed(now) {
                    let text = format!("the addresses cannot be removed: {error}; trying on");
                    self.say(Some(router), true, text);
                }
            }
        }
        self.begin(router);
    }

    fn take_commands(&mut self) {
        loop {
            let command = match self.channels.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return,
                // Nobody is left who could serve the addresses.
                Err(TryRecvError::Disconnected) if !self.is_stopping => Command::Stop,
                Err(TryRecvError::Disconnected) => return,
            };
            match command {
                Command::Readiness(router, readiness) => {
                    self.runners[router.index()].fitness.told(readiness);
                    self.judge(router.index());
                }
                Command::ProbesEnded => {
                    (0..self.runners.len()).for_each(|one| self.tell(id(one), Event::ProbesEnded));
                }
                Command::Failover(router) => self.tell(router, Event::Failover),
                Command::Hold(router) => self.tell(router, Event::HoldBack),
                Command::Release(router) => self.tell(router, Event::Release),
                Command::Configure(router, settings) => self.configure(router, settings),
                Command::SessionsEnded(ticket) => self.sessions_ended(ticket),
                Command::Describe => {
                    let described = Report::Described(self.describe());
                    self.outbox.push_back(described);
                }
                Command::Stop => self.stop(),
                Command::StopNow => {
                    self.stop();
                    (0..self.runners.len()).for_each(|one| self.tell(id(one), Event::LinkDown));
                }
            }
        }
    }

    fn configure(&mut self, router: RouterId, settings: Arc<Settings>) {
        let runner = &mut self.runners[router.index()];
        let before = Arc::clone(&runner.settings);
        let machine = runner.configure(Arc::clone(&settings));
        let segment = &mut self.segments[runner.segment];
        let is_gone = |address: &IpAddr| settings.addresses().all(|one| one != *address);
        let gone: Vec<IpAddr> = before.addresses().filter(is_gone).collect();
        for address in &gone {
            segment.virtual_macs.remove(address);
        }
        if let Some(mac) = settings.virtual_mac() {
            let macs = settings.addresses().map(|address| (address, mac));
            segment.virtual_macs.extend(macs);
        }
        segment.paced.forget(gone);
        self.look_every = look_every(self.runners.iter().map(|one| &one.settings));
        let order = Order::Configure(router, settings);
        let is_sent = self.channels.orders.try_send(order);
        debug_assert!(
            is_sent || self.is_deaf.is_some(),
            "control configures a virtual router now and then"
        );
        self.forget_untracked(router);
        self.tell(router, Event::Configured(Box::new(machine)));
    }

    /// An interface that nobody tracks any more keeps nobody out.
    fn forget_untracked(&mut self, router: RouterId) {
        for number in self.group_of(router).into_iter().chain([router.index()]) {
            let members = self.group_of(id(number)).into_iter().chain([number]);
            let tracked: Vec<Arc<str>> = members
                .flat_map(|one| self.runners[one].settings.track.interfaces.clone())
                .collect();
            let fitness = &mut self.runners[number].fitness;
            fitness.tracks(|name| tracked.contains(name));
            self.judge(number);
        }
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        (0..self.runners.len()).for_each(|one| self.tell(id(one), Event::Stop));
    }

    fn describe(&self) -> Vec<Description> {
        let at = self.now();
        let each = self.runners.iter().map(|runner| Description {
            machine: runner.machine.clone(),
            readiness: runner.readiness.clone(),
            send_failures: runner.send_failures,
            unknown_vrid: self.segments[runner.segment].unknown_vrid,
            malformed: self.segments[runner.segment].malformed,
            at,
        });
        each.collect()
    }

    // --- time ---

    fn expire(&mut self) {
        let now = self.now();
        if now >= self.look_at {
            self.look(now);
        }
        for number in 0..self.runners.len() {
            let runner = &mut self.runners[number];
            let reading = &self.segments[runner.segment].reading;
            if runner.has_expired(now, reading) {
                self.tell(id(number), Event::Expired);
            }
            let runner = &mut self.runners[number];
            if runner.ending.is_some_and(|(_, until)| until <= now) {
                runner.ending = None;
                self.remove_if_due(id(number));
            }
            if self.runners[number].take_retry(now) {
                self.try_again(id(number));
            }
            if let Some(is_unheld) = self.runners[number].cannot_hold(now) {
                self.unheld(number, is_unheld);
            }
        }
    }

    /// What could not be done with the addresses of a virtual router.
    fn try_again(&mut self, router: RouterId) {
        if self.runners[router.index()].is_active() {
            self.tell(router, Event::AddressDeleted);
        } else {
            self.runners[router.index()].wishes.want(Wish::Remove);
            self.begin(router);
        }
    }

    /// A virtual router could not set its addresses, or that is long ago.
    fn unheld(&mut self, number: usize, is_unheld: bool) {
        let name = Arc::clone(&self.runners[number].settings.name);
        for one in self.group_of(id(number)).into_iter().chain([number]) {
            self.runners[one].fitness.unheld(&name, is_unheld);
            self.judge(one);
        }
    }

    /// Whether everybody is at work.
    fn look(&mut self, now: Time) {
        self.look_at = now + self.look_every;
        let longest = self
            .runners
            .iter()
            .map(|one| one.settings.progress_timeout)
            .max();
        self.watchdog.look(now, longest.unwrap_or_default());
        for number in 0..self.runners.len() {
            // The most impatient one of a group speaks for all.
            let group = self.group_of(id(number)).into_iter().chain([number]);
            let timeouts = group.map(|one| self.runners[one].settings.progress_timeout);
            let timeout = timeouts.min().unwrap_or_default();
            let stalled = self.watchdog.stalled(now, timeout);
            self.runners[number].fitness.stalled(stalled);
            self.judge(number);
        }
    }

    fn announce(&mut self) {
        let now = self.now();
        for segment in &mut self.segments {
            if segment.wires.is_none() {
                continue;
            }
            let addresses = segment.paced.take(now);
            let Some(wires) = &segment.wires else {
                continue;
            };
            for address in addresses {
                let mac = segment.mac_of(wires, address);
                let frame = match address {
                    IpAddr::V4(address) => frames::gratuitous_arp(mac, address),
                    IpAddr::V6(address) => frames::unsolicited_advertisement(mac, address),
                };
                // It is announced again.
                let _ = wires.frames.send(&frame);
            }
        }
    }

    // --- what the machines want ---

    fn judge(&mut self, number: usize) {
        let runner = &mut self.runners[number];
        let readiness = match &self.is_deaf {
            Some(why) => Readiness::HardFault(Arc::clone(why)),
            None => runner.fitness.readiness(),
        };
        if readiness != runner.readiness {
            runner.readiness = readiness.clone();
            self.tell(id(number), Event::Readiness(readiness));
        }
    }

    fn tell(&mut self, router: RouterId, event: Event) {
        let now = self.now();
        let mut actions = Vec::new();
        self.runners[router.index()]
            .machine
            .on(event, now, &mut actions);
        for action in actions {
            self.perform(router, action, now);
        }
    }

    fn perform(&mut self, router: RouterId, action: Action, now: Time) {
        let runner = &mut self.runners[router.index()];
        match action {
            Action::SendAdvertisement { priority } => {
                let wires = self.segments[runner.segment].wires.as_ref();
                if let Some(text) = runner.advertise(priority, wires, now) {
                    self.say(Some(router), true, text);
                }
            }
            Action::HoldAddresses { term } => {
                // One that has just become Active does not have them yet.
                if runner.is_new_term(term) {
                    runner.lacks_addresses(now);
                }
                runner.ending = None;
                runner.is_removing = false;
                runner.wishes.want(Wish::Hold { term });
                self.begin(router);
            }
            Action::RemoveAddresses => {
                let addresses: Vec<IpAddr> = runner.settings.addresses().collect();
                runner.is_removing = true;
                self.segments[runner.segment].paced.forget(addresses);
                self.remove_if_due(router);
            }
            Action::EndSessions => {
                runner.sweeps = true;
                let ticket = self.end_sessions(router);
                let until = now + runner::SESSIONS_END_MAX;
                self.runners[router.index()].ending = Some((ticket, until));
            }
            Action::Announce => {
                let addresses: Vec<IpAddr> = runner.settings.addresses().collect();
                self.segments[runner.segment].paced.add(addresses);
            }
            Action::Changed(transition) => {
                let priority = runner.machine.priority(now);
                let is_lost = transition.is_lost_to_another();
                self.outbox.push_back(Report::Changed {
                    router,
                    transition,
                    priority,
                });
                if is_lost {
                    self.lead(router);
                }
            }
            Action::Lost => self.lead(router),
            Action::Alarm(alarm) => self.say(Some(router), true, alarm.to_string()),
            Action::Rejected { source, rejection } => {
                let text = format!("not listening to {source}: {rejection}");
                self.say(Some(router), true, text);
            }
            Action::HandedOver(outcome) => {
                self.outbox.push_back(Report::HandedOver(router, outcome));
            }
            Action::Stopped => runner.is_stopped = true,
        }
    }

    /// Another machine has the addresses of one of a group: it is to have those of all.
    fn lead(&mut self, router: RouterId) {
        for other in self.group_of(router) {
            self.tell(id(other), Event::Follow);
        }
    }

    fn end_sessions(&mut self, router: RouterId) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.outbox
            .push_back(Report::EndSessions { router, ticket });
        ticket
    }

    fn sessions_ended(&mut self, ticket: Ticket) {
        let is_its = |one: &Runner| one.ending.is_some_and(|(waited, _)| waited == ticket);
        if let Some(number) = self.runners.iter().position(is_its) {
            self.runners[number].ending = None;
            self.remove_if_due(id(number));
        }
    }

    /// Once nobody needs them any more, or has had the time to end.
    fn remove_if_due(&mut self, router: RouterId) {
        let runner = &mut self.runners[router.index()];
        if runner.is_removing && runner.ending.is_none() {
            runner.is_removing = false;
            runner.wishes.want(Wish::Remove);
            self.begin(router);
        }
    }

    fn begin(&mut self, router: RouterId) {
        let now = self.now();
        if let Some(wish) = self.runners[router.index()].wishes.begin() {
            if matches!(wish, Wish::Hold { .. }) {
                self.runners[router.index()].asks(now);
            }
            let is_sent = self
                .channels
                .orders
                .try_send(Order::Addresses(router, wish));
            debug_assert!(
                is_sent || self.is_deaf.is_some(),
                "one order for each virtual router at a time fits"
            );
        }
    }

    // --- what it says ---

    fn say(&mut self, router: Option<RouterId>, is_warning: bool, text: String) {
        if self.outbox.len() >= OUTBOX_MAX {
            self.lines_dropped += 1;
            return;
        }
        self.outbox.push_back(Report::Said {
            router,
            is_warning,
            text,
        });
    }

    fn flush(&mut self) {
        use tokio::sync::mpsc::error::TrySendError;
        while let Some(report) = self.outbox.pop_front() {
            match self.reports.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.outbox.push_front(report);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.outbox.clear(),
            }
        }
        let dropped = std::mem::take(&mut self.lines_dropped);
        if dropped > 0 {
            self.say(
                None,
                true,
                format!("{dropped} lines about virtual routers were dropped"),
            );
        }
    }
}

/// How often the watchdog looks, for the most impatient one.
fn look_every<'a>(settings: impl Iterator<Item = &'a Arc<Settings>>) -> Duration {
    let timeouts = settings.map(|one| one.progress_timeout);
    timeouts.min().unwrap_or(Duration::from_secs(1)) / 4
}

fn id(number: usize) -> RouterId {
    RouterId(u16::try_from(number).expect("no more virtual routers than ids"))
}
