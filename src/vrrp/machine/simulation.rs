//! Two to four virtual routers on a simulated link, with a clock of its own: everything that a seed can think of to
//! happen to them, with the promises of the machine asserted after every event.
//!
//! The link delays, doubles and spoils datagrams, loses them (never two in a row between the same two hosts) and can be
//! cut. Hosts lose power, their link and their backends; their loops stall; their kernel is slow with addresses.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::mem::Discriminant;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

use fastrand::Rng;

use super::super::packet::{
    AddressList, Addresses, Authentication, Centiseconds, Ends, HOP_LIMIT, Password, Vrid,
};
use super::*;

#[cfg(test)]
mod tests;

const DELAY_MAX: Duration = Duration::from_millis(2);
const WAKE_LATE_MAX: Duration = Duration::from_micros(500);
const NETLINK_TAKES: Duration = Duration::from_millis(1);
/// Delays of the link, there and back, and of the loops and kernels at both ends.
const SLACK: Duration = Duration::from_millis(10);
const INBOX_MAX: usize = 64;

/// What may go wrong at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// One fault after the other, each only once the last one has been dealt with, and nothing is lost.
    OneByOne,
    /// Faults at any moment, and datagrams are lost. Then everything is mended.
    Chaos,
}

/// What a run did, so that a test can assert that the runs together reach everything.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) causes: HashSet<Discriminant<Cause>>,
    pub(super) hand_overs: HashSet<Discriminant<HandOver>>,
    pub(super) alarms: HashSet<Discriminant<Alarm>>,
    pub(super) moves: u64,
    pub(super) rejected: u64,
    pub(super) loops_late: u64,
    pub(super) leases_late: u64,
}

/// A change that is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Netlink {
    Hold { term: u32 },
    Remove,
}

#[derive(Debug)]
struct Host {
    source: IpAddr,
    router: VirtualRouter,
    /// None without power.
    machine: Option<Machine>,
    is_linked: bool,
    readiness: Readiness,
    probes_ended: bool,
    stalled_until: Option<Time>,
    /// What arrives while it is stalled is lost, as when a whole virtual machine is paused.
    is_deaf: bool,
    inbox: VecDeque<(Ends, Vec<u8>)>,
    /// The kernel has the addresses until then.
    addresses: Option<Time>,
    /// In order, with the time at which each is done.
    netlink: VecDeque<(Time, Netlink)>,
    netlink_takes: Duration,
    /// The deadline for which it will wake.
    wakes_for: Option<Time>,
    /// How often it became Active or ceased to be, since the last fault.
    moves: u32,
}

impl Host {
    fn runs(&self) -> bool {
        self.machine.is_some() && self.stalled_until.is_none()
    }

    fn is_active(&self) -> bool {
        let role = self.machine.as_ref().map(Machine::role);
        self.runs() && role == Some(Role::Active)
    }

    fn holds_addresses(&self, now: Time) -> bool {
        self.addresses.is_some_and(|until| until > now)
    }

    fn is_leaving(&self) -> bool {
        self.machine.as_ref().is_some_and(
            |machine| matches!(&machine.state, State::Active(active) if active.leaving.is_some()),
        )
    }

    /// Nothing keeps it from serving.
    fn can_serve(&self) -> bool {
        let is_failed = matches!(self.readiness, Readiness::HardFault(_));
        let is_stopped = self
            .machine
            .as_ref()
            .is_some_and(|machine| machine.is_stopped);
        let is_ready = self.probes_ended && !is_failed && !is_stopped && !self.is_leaving();
        self.runs() && self.is_linked && is_ready
    }

    /// Its kernel is slow with addresses, or still at work on something that it was slow with.
    fn is_slow(&self, now: Time) -> bool {
        let is_late = |(done, _): &(Time, Netlink)| *done > now + 3 * NETLINK_TAKES;
        self.netlink_takes > NETLINK_TAKES || self.netlink.iter().any(is_late)
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    Arrives {
        from: usize,
        to: usize,
        ends: Ends,
        hop_limit: u8,
        payload: Vec<u8>,
        /// It must not be listened to.
        is_spoiled: bool,
    },
    Wakes(usize),
    NetlinkDone(usize),
    ProbesEnd(usize),
    StallEnds(usize),
}

struct World {
    choices: Rng,
    tier: Tier,
    now: Time,
    hosts: Vec<Host>,
    /// By the time and the order in which they were thought of.
    happenings: BTreeMap<(Time, u64), Happening>,
    count: u64,
    /// The side of the cut that each host is on.
    sides: [u8; 4],
    /// Between these two the last datagram was lost.
    lost: [[bool; 4]; 4],
    interval: Duration,
    priorities_are_equal: bool,
    /// When something was last done to the world.
    disturbed: Time,
    /// Since when more than one is Active.
    many_active: Option<Time>,
    /// Since when nobody holds the addresses although somebody could.
    nobody_holds: Option<Time>,
    outcome: Outcome,
}

/// Plays one world from power-on to the end.
///
/// # Panics
/// If a machine breaks one of its promises.
pub(super) fn play(seed: u64, tier: Tier) -> Outcome {
    let mut world = World::new(Rng::with_seed(seed), tier);
    for host in 0..world.hosts.len() {
        world.power_on(host);
    }
    world.settle();
    world.assert_settled();
    for _ in 0..world.choices.u32(4..12) {
        world.one_fault();
    }
    world.mend_everything();
    world.settle();
    world.assert_settled();
    assert_eq!(world.active().count(), 1, "all is well, and one is Active");
    world.finish()
}

impl World {
    fn new(mut choices: Rng, tier: Tier) -> World {
        let count = choices.usize(2..=4);
        let family_v6 = choices.u8(0..4) == 0;
        let interval = [10, 20, 50][choices.usize(0..3)];
        let is_v2 = !family_v6 && choices.u8(0..4) == 0;
        let interval = if is_v2 { 100 } else { interval };
        let is_unicast = choices.u8(0..4) == 0;
        let priorities_are_equal = choices.u8(0..6) == 0;
        let preempt = choices.bool();
        let preempt_delay = Duration::from_millis(10) * interval * choices.u32(0..4);
        let lease = choices
            .bool()
            .then(|| Duration::from_millis(10) * interval * 5);
        let source = |host: usize| -> IpAddr {
            let last = u16::try_from(host + 1).expect("few");
            if family_v6 {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last).into()
            } else {
                Ipv4Addr::new(10, 0, 0, u8::try_from(last).expect("few")).into()
            }
        };
        let mut places: Vec<usize> = (0..count).collect();
        choices.shuffle(&mut places);
        let host = |host: usize| {
            let place = u8::try_from(places[host]).expect("few");
            let others = (0..count).filter(|other| is_unicast && *other != host);
            Host {
                source: source(host),
                router: VirtualRouter {
                    vrid: Vrid::new(51).expect("not 0"),
                    // So far apart that the skew is longer than the link's delay.
                    priority: if priorities_are_equal {
                        200
                    } else {
                        254 - 40 * place
                    },
                    body: body(is_v2, family_v6, u16::try_from(interval).expect("small")),
                    checksum: ChecksumForm::PseudoHeader,
                    peers: others.map(source).collect(),
                    preempt,
                    preempt_delay,
                    lease,
                },
                machine: None,
                is_linked: true,
                readiness: Readiness::Well,
                probes_ended: false,
                stalled_until: None,
                is_deaf: false,
                inbox: VecDeque::new(),
                addresses: None,
                netlink: VecDeque::new(),
                netlink_takes: NETLINK_TAKES,
                wakes_for: None,
                moves: 0,
            }
        };
        let now = Time::from_micros(1_000_000_000);
        World {
            hosts: (0..count).map(host).collect(),
            choices,
            tier,
            now,
            happenings: BTreeMap::new(),
            count: 0,
            sides: [0; 4],
            lost: [[false; 4]; 4],
            interval: Duration::from_millis(10) * interval,
            priorities_are_equal,
            disturbed: now,
            many_active: None,
            nobody_holds: None,
            outcome: Outcome::default(),
        }
    }

    // --- what may go wrong ---

    fn one_fault(&mut self) {
        for host in &mut self.hosts {
            host.moves = 0;
        }
        let moves_allowed = self.inject();
        self.disturbed = self.now;
        if self.tier == Tier::Chaos {
            let micros = self.choices.u64(0..8) * self.choices.u64(0..100_000);
            self.run_for(Duration::from_micros(micros));
            return;
        }
        self.settle();
        self.assert_settled();
        // Equal routers take over at the same moment, and one of them yields.
        let moves_allowed = moves_allowed + u32::from(self.priorities_are_equal);
        for host in &self.hosts {
            assert!(
                host.moves <= moves_allowed,
                "{} moved {} times",
                host.source,
                host.moves
            );
        }
    }

    /// One fault, or the end of one; how often it may move a host.
    fn inject(&mut self) -> u32 {
        let host = self.choices.usize(0..self.hosts.len());
        match self.choices.u32(0..17) {
            0 if self.hosts[host].machine.is_some() => self.power_off(host),
            0 | 1 => self.power_on(host),
            2 => self.cut(),
            3 => self.sides = [0; 4],
            4 if self.hosts[host].is_linked => self.link_down(host),
            4 | 5 => self.link_up(host),
            6 => self.readiness(host, Readiness::SoftFault(Arc::from("a pool is empty"))),
            7 => self.readiness_of_all(Readiness::SoftFault(Arc::from("a pool is empty"))),
            8 => {
                // As many faults end as there are hosts, and more than one may preempt.
                self.readiness_of_all(Readiness::Well);
                return 2;
            }
            9 => self.readiness(host, Readiness::HardFault(Arc::from("a worker is stalled"))),
            10 => self.readiness(host, Readiness::Well),
            11 => return self.stall(host),
            12 => self.event(host, Event::Failover),
            13 => self.event(host, Event::Release),
            14 => self.event(host, Event::Stop),
            15 => self.netlink_trouble(host),
            _ => {
                let active = self.active().next();
                self.event(active.unwrap_or(host), Event::Failover);
            }
        }
        1
    }

    fn power_on(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.machine.is_some() {
            return;
        }
        host.machine = Some(Machine::new(host.router.clone(), self.now));
        host.probes_ended = false;
        let (readiness, source, is_linked) = (host.readiness.clone(), host.source, host.is_linked);
        self.event(at, Event::Readiness(readiness));
        if is_linked {
            self.event(at, Event::LinkUp(source));
        }
        let probes_take = self.interval * self.choices.u32(0..6);
        self.later(probes_take, Happening::ProbesEnd(at));
    }

    /// As with `kill -9`: the kernel keeps the addresses until their lease ends.
    fn power_off(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.machine = None;
        host.wakes_for = None;
        host.stalled_until = None;
        host.inbox.clear();
        host.netlink.clear();
    }

    /// Another cut while there is one would be two faults: an end and a new one.
    fn cut(&mut self) {
        let is_cut = !self.is_whole();
        for side in &mut self.sides {
            *side = self.choices.u8(0..2);
        }
        if is_cut && self.tier == Tier::OneByOne {
            self.sides = [0; 4];
        }
    }

    fn link_down(&mut self, at: usize) {
        self.hosts[at].is_linked = false;
        self.event(at, Event::LinkDown);
    }

    fn link_up(&mut self, at: usize) {
        self.hosts[at].is_linked = true;
        let source = self.hosts[at].source;
        self.event(at, Event::LinkUp(source));
    }

    fn readiness(&mut self, at: usize, readiness: Readiness) {
        self.hosts[at].readiness = readiness.clone();
        self.event(at, Event::Readiness(readiness));
    }

    fn readiness_of_all(&mut self, readiness: Readiness) {
        for host in 0..self.hosts.len() {
            self.readiness(host, readiness.clone());
        }
    }

    /// An Active router that stalls may lose the addresses, and may preempt when it is back. A Backup that was deaf
    /// takes over if its time is over by less than its patience, as it does when datagrams get lost.
    fn stall(&mut self, at: usize) -> u32 {
        let time = self.interval / 10 * self.choices.u32(1..150);
        let is_deaf = self.choices.bool();
        let may_err = self.hosts[at].is_active() || (is_deaf && time < self.interval * 8);
        if self.hosts[at].runs() {
            self.hosts[at].stalled_until = Some(self.now + time);
            self.hosts[at].is_deaf = is_deaf;
            self.later(time, Happening::StallEnds(at));
        }
        if may_err { 2 } else { 1 }
    }

    fn netlink_trouble(&mut self, at: usize) {
        let active = self.active().next().unwrap_or(at);
        match self.choices.u32(0..4) {
            0 if self.hosts[active].runs() => {
                self.hosts[active].addresses = None;
                self.event(active, Event::AddressDeleted);
            }
            1 => self.event(active, Event::ForeignOwner(self.hosts[active].source)),
            2 => self.hosts[active].netlink_takes = self.interval * 10,
            _ => self.netlink_is_fast_again(),
        }
    }

    fn netlink_is_fast_again(&mut self) {
        for host in &mut self.hosts {
            host.netlink_takes = NETLINK_TAKES;
        }
    }

    fn mend_everything(&mut self) {
        self.sides = [0; 4];
        self.netlink_is_fast_again();
        for host in 0..self.hosts.len() {
            if !self.hosts[host].is_linked {
                self.link_up(host);
            }
            self.readiness(host, Readiness::Well);
            self.event(host, Event::Release);
            let machine = self.hosts[host].machine.as_ref();
            if machine.is_some_and(|machine| machine.is_stopped) || self.hosts[host].is_leaving() {
                self.power_off(host);
            }
            self.power_on(host);
        }
        self.disturbed = self.now;
    }

    // --- what happens ---

    fn later(&mut self, wait: Duration, happening: Happening) {
        self.count += 1;
        self.happenings
            .insert((self.now + wait, self.count), happening);
    }

    /// Long enough for everything that one fault can start.
    fn settle(&mut self) {
        self.run_for(self.interval * 30);
        let stalled = self
            .hosts
            .iter()
            .filter_map(|host| host.stalled_until)
            .max();
        if let Some(until) = stalled {
            self.run_for(until - self.now + self.interval * 12);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            let happening = entry.remove();
            self.happens(happening);
            self.assert_promises();
        }
        self.now = end;
        self.assert_promises();
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Wakes(host) => {
                let deadline = self.hosts[host]
                    .machine
                    .as_ref()
                    .and_then(Machine::deadline);
                if deadline.is_some_and(|deadline| deadline <= self.now) {
                    self.event(host, Event::Expired);
                }
            }
            Happening::ProbesEnd(host) => {
                self.hosts[host].probes_ended = true;
                self.disturbed = self.now;
                self.event(host, Event::ProbesEnded);
            }
            Happening::StallEnds(host) => self.stall_ends(host),
            Happening::NetlinkDone(host) => self.netlink_done(host),
            Happening::Arrives {
                from,
                to,
                ends,
                hop_limit,
                payload,
                is_spoiled,
            } => {
                let host = &mut self.hosts[to];
                if self.sides[from] != self.sides[to] || !host.is_linked || host.machine.is_none() {
                    return;
                }
                if is_spoiled {
                    self.spoiled_arrives(to, ends, hop_limit, &payload);
                } else if host.stalled_until.is_none() {
                    self.arrives(to, ends, &payload);
                } else if host.inbox.len() < INBOX_MAX && !host.is_deaf {
                    host.inbox.push_back((ends, payload));
                }
            }
        }
    }

    fn arrives(&mut self, to: usize, ends: Ends, payload: &[u8]) {
        let datagram = Datagram {
            ends,
            hop_limit: HOP_LIMIT,
            payload,
        };
        self.event(to, Event::Received(&datagram));
    }

    /// It changes nothing, and nothing is done but telling people.
    fn spoiled_arrives(&mut self, to: usize, ends: Ends, hop_limit: u8, payload: &[u8]) {
        if !self.hosts[to].runs() {
            return;
        }
        let machine = self.hosts[to].machine.as_mut().expect("it runs");
        // A late loop is no doing of the datagram.
        let advertised = match &machine.state {
            State::Active(active) => active.advertised,
            State::Initialize | State::Backup(_) => self.now,
        };
        if self.now - advertised > machine.patience() {
            return;
        }
        let seen = |machine: &Machine| {
            let times = (
                machine.well_from,
                machine.preempts_from,
                machine.probes_until,
            );
            let flags = (machine.is_held_back, machine.is_stopped, machine.term);
            let rest = (
                machine.link,
                machine.readiness.clone(),
                machine.history.clone(),
            );
            (machine.state.clone(), times, flags, rest)
        };
        let (before, accepted) = (seen(machine), machine.counters.accepted);
        let datagram = Datagram {
            ends,
            hop_limit,
            payload,
        };
        let mut actions = Vec::new();
        machine.on(Event::Received(&datagram), self.now, &mut actions);
        assert_eq!(accepted, machine.counters.accepted, "{datagram:?}");
        assert_eq!(before, seen(machine), "{datagram:?}");
        for action in actions {
            let tells = matches!(action, Action::Alarm(_) | Action::Rejected { .. });
            assert!(tells, "{action:?}");
            self.act(to, action);
        }
    }

    fn stall_ends(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.stalled_until != Some(self.now) {
            return;
        }
        host.stalled_until = None;
        self.disturbed = self.now;
        for (ends, payload) in std::mem::take(&mut host.inbox) {
            self.arrives(at, ends, &payload);
        }
        let (readiness, source) = (self.hosts[at].readiness.clone(), self.hosts[at].source);
        self.event(at, Event::Expired);
        // What it was not told of while it could not listen.
        self.event(at, Event::Readiness(readiness));
        let is_linked = self.hosts[at].is_linked;
        self.event(
            at,
            if is_linked {
                Event::LinkUp(source)
            } else {
                Event::LinkDown
            },
        );
    }

    fn netlink(&mut self, at: usize, change: Netlink) {
        let host = &mut self.hosts[at];
        if let (Netlink::Hold { .. }, Some((_, last @ Netlink::Hold { .. }))) =
            (change, host.netlink.back_mut())
        {
            *last = change;
            return;
        }
        let begins = host
            .netlink
            .back()
            .map_or(self.now, |(done, _)| (*done).max(self.now));
        let done = begins + host.netlink_takes;
        host.netlink.push_back((done, change));
        self.later(done - self.now, Happening::NetlinkDone(at));
    }

    fn netlink_done(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host
            .netlink
            .front()
            .is_none_or(|(done, _)| *done > self.now)
        {
            return;
        }
        let (_, change) = host.netlink.pop_front().expect("just seen");
        match change {
            Netlink::Remove => host.addresses = None,
            Netlink::Hold { term } => {
                let lease = host.router.lease.unwrap_or(Duration::MAX);
                host.addresses = Some(self.now + lease);
                self.event(at, Event::AddressesHeld { term });
            }
        }
    }

    // --- hosts act ---

    fn event(&mut self, at: usize, event: Event) {
        let host = &mut self.hosts[at];
        if !host.runs() {
            return;
        }
        let machine = host.machine.as_mut().expect("it runs");
        let mut actions = Vec::new();
        machine.on(event, self.now, &mut actions);
        for action in actions {
            self.act(at, action);
        }
        let deadline = self.hosts[at].machine.as_ref().and_then(Machine::deadline);
        if let Some(deadline) = deadline
            && self.hosts[at].wakes_for.replace(deadline) != Some(deadline)
        {
            let late = Duration::from_micros(self.choices.u64(0..micros(WAKE_LATE_MAX)));
            self.later(deadline - self.now + late, Happening::Wakes(at));
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::SendAdvertisement { priority } => self.send(at, priority),
            Action::HoldAddresses { term } => self.netlink(at, Netlink::Hold { term }),
            Action::RemoveAddresses => self.netlink(at, Netlink::Remove),
            Action::Changed(transition) => {
                self.assert_lost_to_a_better_one(at, &transition.cause);
                if transition.to == Role::Active {
                    // Whoever it contends with has not heard it before.
                    self.many_active = None;
                }
                self.outcome
                    .causes
                    .insert(std::mem::discriminant(&transition.cause));
                self.outcome.moves += 1;
                let is_move = transition.from == Role::Active || transition.to == Role::Active;
                self.hosts[at].moves += u32::from(is_move);
            }
            Action::HandedOver(hand_over) => {
                self.outcome
                    .hand_overs
                    .insert(std::mem::discriminant(&hand_over));
            }
            Action::Alarm(alarm) => {
                self.outcome.alarms.insert(std::mem::discriminant(&alarm));
            }
            Action::EndSessions
            | Action::Lost
            | Action::Announce
            | Action::Rejected { .. }
            | Action::Stopped => {}
        }
    }

    fn send(&mut self, from: usize, priority: u8) {
        let host = &self.hosts[from];
        let (source, router) = (host.source, host.router.clone());
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            let ends = if router.peers.is_empty() {
                Ends::to_group(source)
            } else {
                Ends::new(source, self.hosts[to].source).expect("of one family")
            };
            let payload = router
                .advertisement(priority)
                .encode(&ends, router.checksum);
            if self.choices.u32(0..16) == 0 {
                self.send_spoiled(from, to, ends, payload.clone());
            }
            let is_lost =
                self.tier == Tier::Chaos && self.choices.u32(0..8) == 0 && !self.lost[from][to];
            self.lost[from][to] = is_lost;
            if self.sides[from] != self.sides[to] || is_lost {
                continue;
            }
            let copies = if self.choices.u32(0..16) == 0 { 2 } else { 1 };
            for _ in 0..copies {
                let arrives = Happening::Arrives {
                    from,
                    to,
                    ends,
                    hop_limit: HOP_LIMIT,
                    payload: payload.clone(),
                    is_spoiled: false,
                };
                let delay = Duration::from_micros(self.choices.u64(50..micros(DELAY_MAX)));
                self.later(delay, arrives);
            }
        }
    }

    fn send_spoiled(&mut self, from: usize, to: usize, mut ends: Ends, mut payload: Vec<u8>) {
        let mut hop_limit = HOP_LIMIT;
        let receiver = self.hosts[to].source;
        match self.choices.u32(0..4) {
            0 if self.hosts[to].router.peers.is_empty() => hop_limit = self.choices.u8(..HOP_LIMIT),
            1 => ends = Ends::new(receiver, ends.destination()).expect("of one family"),
            2 => payload.truncate(self.choices.usize(..payload.len())),
            _ => {
                let at = self.choices.usize(..payload.len());
                payload[at] ^= self.choices.u8(1..);
            }
        }
        let arrives = Happening::Arrives {
            from,
            to,
            ends,
            hop_limit,
            payload,
            is_spoiled: true,
        };
        self.later(DELAY_MAX, arrives);
    }

    // --- the promises ---

    fn active(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].is_active())
    }

    /// Those that hear each other.
    fn is_whole(&self) -> bool {
        let sides = &self.sides[..self.hosts.len()];
        sides.iter().all(|side| *side == sides[0])
    }

    fn assert_promises(&mut self) {
        // Where datagrams get lost, the second one in a row arrives.
        let tries = if self.tier == Tier::Chaos { 2 } else { 1 };
        let active = self
            .active()
            .filter(|host| self.hosts[*host].is_linked)
            .count();
        let all_leave = self.active().all(|host| self.hosts[host].is_leaving());
        if active > 1 && !all_leave && self.is_whole() {
            let since = *self.many_active.get_or_insert(self.now);
            let time = self.now - since.max(self.disturbed);
            assert!(
                time <= self.interval * tries + SLACK,
                "{active} are Active for {time:?}"
            );
        } else {
            self.many_active = None;
        }
        self.assert_somebody_holds(tries);
    }

    fn assert_somebody_holds(&mut self, tries: u32) {
        let able: Vec<&Host> = self.hosts.iter().filter(|host| host.can_serve()).collect();
        let holds = |host: &Host| host.runs() && host.is_linked && host.holds_addresses(self.now);
        let is_slow = self.hosts.iter().any(|host| host.is_slow(self.now));
        if able.is_empty() || is_slow || !self.is_whole() || self.hosts.iter().any(holds) {
            self.nobody_holds = None;
            return;
        }
        let since = *self.nobody_holds.get_or_insert(self.now);
        let time = self.now - since.max(self.disturbed);
        // It may have been ill when it heard the Active router last.
        let down_interval = |host: &&Host| {
            let router = &host.router;
            router.down_interval(router.priority_ill(), router.interval())
        };
        let longest = able.iter().map(down_interval).max().expect("not empty");
        let longest = longest + self.interval * (tries - 1);
        assert!(
            time <= longest + SLACK,
            "nobody holds the addresses for {time:?}"
        );
    }

    fn assert_lost_to_a_better_one(&self, at: usize, cause: &Cause) {
        let host = &self.hosts[at];
        let machine = host.machine.as_ref().expect("it has just changed");
        if let Cause::HigherPriority { from, priority } = cause {
            let ours = (machine.priority(self.now), host.source);
            assert!(
                (*priority, *from) > ours,
                "{ours:?} lost to {from}, {priority}"
            );
        }
    }

    /// On each side of a cut, one is Active if one can be; who is not does not have the addresses.
    fn assert_settled(&self) {
        for side in 0..2 {
            let here: Vec<usize> = (0..self.hosts.len())
                .filter(|host| self.sides[*host] == side && self.hosts[*host].is_linked)
                .collect();
            let able = here
                .iter()
                .filter(|host| self.hosts[**host].can_serve())
                .count();
            let active = here
                .iter()
                .filter(|host| self.hosts[**host].is_active())
                .count();
            assert_eq!(active, able.min(1), "of {able} on side {side}");
        }
        for host in self
            .hosts
            .iter()
            .filter(|host| host.runs() && !host.is_slow(self.now))
        {
            assert_eq!(host.is_active(), host.holds_addresses(self.now), "{host:?}");
        }
    }

    fn finish(mut self) -> Outcome {
        let leader = self.active().next().map(|host| self.hosts[host].source);
        for host in &self.hosts {
            let machine = host.machine.as_ref().expect("it was mended");
            assert_eq!(
                machine.active_router(),
                leader,
                "all know the same Active router"
            );
            self.outcome.rejected += machine.counters.rejected.iter().sum::<u64>();
            self.outcome.loops_late += machine.counters.loops_late;
            self.outcome.leases_late += machine.counters.leases_late;
        }
        self.outcome
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("short")
}

fn body(is_v2: bool, is_v6: bool, interval: u16) -> Body {
    let v4 = || AddressList::new(vec![Ipv4Addr::new(10, 0, 0, 100)]).expect("one");
    let v6 =
        || AddressList::new(vec![Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100)]).expect("one");
    if is_v2 {
        let password = Password::new(b"secret12").expect("eight bytes");
        return Body::V2 {
            seconds: NonZeroU8::MIN,
            authentication: Authentication::Password(password),
            addresses: v4(),
        };
    }
    Body::V3 {
        interval: Centiseconds::new(interval).expect("within range"),
        addresses: if is_v6 {
            Addresses::V6(v6())
        } else {
            Addresses::V4(v4())
        },
    }
}
