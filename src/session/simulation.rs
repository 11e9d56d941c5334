//! A simulated kernel and two simulated peers around one session: every order and result of completions that a
//! source of choices can think of, with the session's promises asserted after every turn. Driven by a seed in the
//! tests, by raw bytes in the fuzz target.
//!
//! Bytes are positions: a stream is intact if and only if each stretch that is given to a target begins where the
//! last one ended.

use super::relay::RECEIVE_LIMIT;
use super::*;

const BUFFERS: u16 = 6;
const BUFFER_SIZE: u32 = 16 * 1024;
const PIPE_SIZE: u32 = 64 * 1024;
/// No run needs more turns than this to end once its peers have stopped misbehaving.
const TURNS_TO_END: u32 = 10_000;

/// Where the decisions come from.
pub trait Choices {
    /// A number in `0..bound`. A source that has run dry must still vary, or a session would wait for ever.
    fn below(&mut self, bound: u32) -> u32;

    /// True once in `times`, about.
    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }
}

/// How the simulated kernel receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Many reads per receive, up to the byte limit.
    Limited,
    /// One read per receive.
    Single,
}

/// What a run did, so that a test can assert that the runs together reach everything.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Why the session ended.
    pub reason: CloseReason,
    /// How its sockets were closed.
    pub ending: Ending,
    /// What happened on the way.
    pub seen: Seen,
    /// Bytes that went through.
    pub bytes: u64,
}

/// One socket, and the peer behind it.
#[derive(Debug)]
struct Wire {
    open: bool,
    /// Bytes that have arrived from the peer.
    arrived: u64,
    /// Bytes that the session took.
    read: u64,
    urgent_at: Option<u64>,
    fin: bool,
    reset: bool,
    /// The error that the next call on the socket gets, once.
    pending_error: Option<i32>,
    /// Bytes that the session gave.
    written: u64,
    space: u32,
    acked: u64,
    fin_sent: bool,
    edges: [bool; 6],
    /// Cancels whose own completion is due.
    cancels: [bool; 6],
    /// Bytes left until the armed receive ends by itself.
    receive_left: u32,
    /// Send in flight: how much was asked.
    asked: u32,
}

impl Wire {
    fn new(open: bool) -> Wire {
        Wire {
            open,
            arrived: 0,
            read: 0,
            urgent_at: None,
            fin: false,
            reset: false,
            pending_error: None,
            written: 0,
            space: 20_000,
            acked: 0,
            fin_sent: false,
            edges: [false; 6],
            cancels: [false; 6],
            receive_left: 0,
            asked: 0,
        }
    }

    fn unread(&self) -> u32 {
        u32::try_from(self.arrived - self.read).expect("peers send little")
    }

    fn is_readable(&self) -> bool {
        self.unread() > 0 || self.fin || self.reset
    }
}

#[derive(Debug, Default)]
struct HeldBytes {
    chain: Chain,
    /// Positions `from..to`.
    spill: (u64, u64),
    pipe: (u64, u64),
}

struct World<'c, C: Choices> {
    choices: &'c mut C,
    tier: Tier,
    now: Time,
    session: Session,
    rules: Rc<Rules>,
    wires: [Wire; 2],
    held: [HeldBytes; 2],
    links: Links,
    buffer_start: [u64; BUFFERS as usize],
    free: Vec<u16>,
    starved: Vec<Side>,
    closed: Option<Ending>,
    killed: bool,
    calm: bool,
    seen: Seen,
}

/// What happened to a session before its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// It went from receiving to pumping at least once.
    pub pumped: bool,
    /// It went from pumping back to receiving at least once.
    pub returned: bool,
    /// Bytes were spilled.
    pub spilled: bool,
    /// It was frozen, and thawed from its record.
    pub thawed: bool,
    /// A connect found no port at its source and began anew.
    pub exhausted: bool,
    /// The backend accepted after the client had said something.
    pub early: bool,
    /// A socket was watched because nothing else was armed on it.
    pub watched: bool,
    /// A relay rested.
    pub rested: bool,
    /// Its sockets got keepalive.
    pub kept_alive: bool,
    delivery_timed_out: bool,
    connected: bool,
}

/// Plays one session from accept to close.
///
/// # Panics
/// If the session breaks one of its promises.
pub fn play<C: Choices>(choices: &mut C, tier: Tier) -> Outcome {
    let mut world = World::new(choices, tier);
    world.turn();
    let actions = 20 + world.choices.below(600);
    for _ in 0..actions {
        if world.closed.is_some() {
            break;
        }
        world.act();
        if !world.choices.once_in(3) {
            world.turn();
        }
    }
    world.calm_down();
    world.outcome()
}

impl<'c, C: Choices> World<'c, C> {
    fn new(choices: &'c mut C, tier: Tier) -> World<'c, C> {
        let timeout = |choices: &mut C, bound: u32| {
            choices
                .once_in(4)
                .then(|| Duration::from_millis(u64::from(1 + choices.below(bound))))
        };
        let rules = Rc::new(Rules {
            retries: u8::try_from(choices.below(3)).expect("small"),
            connect_timeout: Duration::from_millis(100),
            idle_timeout: timeout(choices, 500),
            half_close_timeout: timeout(choices, 500),
            session_timeout: timeout(choices, 2_000),
        });
        let now = Time::from_micros(1_000_000);
        World {
            choices,
            tier,
            now,
            session: Session::new(Rc::clone(&rules), now),
            rules,
            wires: [Wire::new(true), Wire::new(false)],
            held: [HeldBytes::default(), HeldBytes::default()],
            links: Links::new(BUFFERS),
            buffer_start: [0; BUFFERS as usize],
            free: (0..BUFFERS).collect(),
            starved: Vec::new(),
            closed: None,
            killed: false,
            calm: false,
            seen: Seen::default(),
        }
    }

    // --- what may happen ---

    fn act(&mut self) {
        match self.choices.below(32) {
            0..=5 => self.peer_sends(),
            6..=24 => self.complete_something(),
            25 | 26 => self.peer_reads(),
            27 => self.peer_ends(),
            28 => self.time_passes(),
            29 => self.feed(),
            30 => self.freeze_or_thaw(),
            _ if self.choices.once_in(10) => {
                self.event(Event::BackendLost(CloseReason::BackendDown))
            }
            _ if self.choices.once_in(20) => {
                self.killed = true;
                self.event(Event::Kill(CloseReason::Operator));
            }
            _ => self.complete_something(),
        }
    }

    fn any_side(&mut self) -> Side {
        Side::BOTH[self.choices.below(2) as usize]
    }

    fn peer_sends(&mut self) {
        let side = self.any_side();
        let bound = [10, 1_000, 40_000, 200_000][self.choices.below(4) as usize];
        let len = 1 + self.choices.below(bound);
        let urgent = self.choices.once_in(40);
        let wire = &mut self.wires[side.index()];
        if !wire.open
            || wire.fin
            || wire.reset
            || (side == Side::Backend && !self.session.is_connected())
        {
            return;
        }
        wire.arrived += u64::from(len);
        if urgent {
            wire.urgent_at = Some(wire.arrived - 1);
        }
        wire.edges[Operation::Readable as usize] = true;
    }

    fn peer_reads(&mut self) {
        let side = self.any_side();
        let more = self.choices.below(100_000);
        let wire = &mut self.wires[side.index()];
        wire.space = wire.space.saturating_add(more).min(400_000);
        wire.acked = wire.written;
        wire.edges[Operation::Writable as usize] = true;
    }

    fn peer_ends(&mut self) {
        let side = self.any_side();
        let reset = self.choices.once_in(3);
        if side == Side::Backend && !self.session.is_connected() {
            return;
        }
        match (reset, self.choices.once_in(3)) {
            (true, true) => self.peer_resets(side),
            (false, true) => self.peer_finishes(side),
            (_, false) => {}
        }
    }

    fn peer_resets(&mut self, side: Side) {
        let wire = &mut self.wires[side.index()];
        if wire.open && !wire.reset {
            wire.reset = true;
            wire.pending_error = Some(libc::ECONNRESET);
            wire.urgent_at = None;
            wire.edges = [true; 6];
        }
    }

    fn peer_finishes(&mut self, side: Side) {
        let wire = &mut self.wires[side.index()];
        if wire.open && !wire.reset {
            wire.fin = true;
            wire.edges[Operation::Readable as usize] = true;
        }
    }

    fn time_passes(&mut self) {
        let millis = [0, 1, 5, 50, 300, 4_000][self.choices.below(6) as usize];
        self.now = self.now + Duration::from_millis(millis);
        if self
            .session
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            if let Phase::Resetting { since, .. } = self.session.phase {
                self.seen.delivery_timed_out |= self.now >= since + DELIVERY_LIMIT;
            }
            self.event(Event::Expired);
        }
        self.event(Event::Turn);
    }

    fn feed(&mut self) {
        let fed = self.starved.len().min(self.free.len());
        for side in self.starved.drain(..fed).collect::<Vec<_>>() {
            self.event(Event::Fed(side));
        }
    }

    fn freeze_or_thaw(&mut self) {
        if self.session.is_frozen() {
            self.thaw();
        } else if self.choices.once_in(4) {
            self.event(Event::Freeze);
        } else if self.choices.once_in(3) {
            self.event(Event::Thaw);
        }
    }

    /// Goes on as the same session, or as a new one made from the record, as another process would.
    fn thaw(&mut self) {
        if self.choices.once_in(2) {
            let record = self.session.record(self.now);
            for direction in Direction::BOTH {
                self.spill(direction);
            }
            self.starved.clear();
            self.session = Session::from_record(&record, Rc::clone(&self.rules), self.now);
            assert_eq!(
                self.session.record(self.now),
                record,
                "a record describes the session made from it"
            );
            self.seen.thawed = true;
        }
        for wire in &mut self.wires {
            wire.edges = [false; 6];
        }
        self.event(Event::Thaw);
    }

    // --- the kernel completes ---

    fn complete_something(&mut self) {
        let side = self.any_side();
        let first = self.choices.below(6) as usize;
        let armed = (0..6)
            .map(|step| Operation::ALL[(first + step) % 6])
            .find(|operation| {
                self.session.armed(side).contains(*operation)
                    || self.wires[side.index()].cancels[*operation as usize]
            });
        if let Some(operation) = armed {
            self.complete(side, operation);
        }
    }

    fn complete(&mut self, side: Side, operation: Operation) {
        if self.closed.is_some() {
            return;
        }
        let at = operation as usize;
        let armed = self.session.armed(side).contains(operation);
        if self.wires[side.index()].cancels[at] && (!armed || !self.choices.once_in(3)) {
            self.complete_cancel(side, operation, armed);
            return;
        }
        if !armed {
            return;
        }
        match operation {
            Operation::Connect => self.complete_connect(),
            Operation::Receive => self.complete_receive(side),
            Operation::Send => self.complete_send(side.incoming()),
            Operation::Watch | Operation::Readable | Operation::Writable => {
                self.complete_poll(side, operation)
            }
        }
    }

    fn complete_cancel(&mut self, side: Side, operation: Operation, armed: bool) {
        self.wires[side.index()].cancels[operation as usize] = false;
        self.event(Event::CancelEnded { side, operation });
        if armed {
            match operation {
                Operation::Connect => {
                    self.wires[side.index()].open = false;
                    self.event(Event::ConnectFailed(libc::ECANCELED));
                }
                Operation::Receive => self.event(Event::ReceiveEnded {
                    side,
                    end: ReceiveEnd::Cancelled,
                }),
                Operation::Send => unreachable!("a send is never cancelled"),
                Operation::Watch | Operation::Readable | Operation::Writable => {
                    self.event(Event::PollEnded { side, operation });
                }
            }
        }
    }

    fn complete_connect(&mut self) {
        let backend = &mut self.wires[Side::Backend.index()];
        let errno = match self.choices.below(8) {
            0 => libc::ECONNREFUSED,
            1 => libc::EHOSTUNREACH,
            2 | 3 if !self.calm => return,
            4 if !self.calm && self.choices.once_in(4) => libc::EADDRNOTAVAIL,
            5 if !self.calm => {
                backend.open = false;
                self.seen.exhausted = true;
                let attempts = self.session.attempts();
                self.event(Event::SourceExhausted);
                assert_eq!(
                    self.session.attempts(),
                    attempts,
                    "another source is no retry"
                );
                return;
            }
            _ => {
                self.seen.early |= self.session.relay_of(Direction::ToBackend).taken() > 0;
                self.event(Event::Connected);
                return;
            }
        };
        backend.open = false;
        self.event(Event::ConnectFailed(errno));
    }

    fn complete_receive(&mut self, side: Side) {
        let wire = &mut self.wires[side.index()];
        if wire.unread() == 0 {
            if let Some(errno) = wire.pending_error.take() {
                self.event(Event::ReceiveEnded {
                    side,
                    end: ReceiveEnd::Error(errno),
                });
            } else if wire.reset && !wire.fin {
                // What the worker makes of an EOF on a closed connection.
                self.event(Event::ReceiveEnded {
                    side,
                    end: ReceiveEnd::Error(libc::ECONNRESET),
                });
            } else if wire.fin {
                self.event(Event::ReceiveEnded {
                    side,
                    end: ReceiveEnd::Eof,
                });
            }
            return;
        }
        let Some(buffer) = self.free.pop() else {
            self.starved.push(side);
            self.event(Event::ReceiveEnded {
                side,
                end: ReceiveEnd::Starved,
            });
            return;
        };
        let most = wire.unread().min(BUFFER_SIZE);
        let len = if self.choices.once_in(3) {
            1 + self.choices.below(most)
        } else {
            most
        };
        self.buffer_start[usize::from(buffer)] = wire.read;
        wire.read += u64::from(len);
        wire.receive_left = wire.receive_left.saturating_sub(len);
        if wire.urgent_at.is_some_and(|at| at < wire.read) {
            wire.urgent_at = None;
        }
        let ended = wire.receive_left == 0 || self.tier == Tier::Single;
        self.held[side.outgoing().index()]
            .chain
            .push(&mut self.links, buffer, len);
        self.event(Event::Received { side, len });
        if ended {
            self.event(Event::ReceiveEnded {
                side,
                end: ReceiveEnd::Limit,
            });
        }
    }

    fn complete_send(&mut self, direction: Direction) {
        let wire = &mut self.wires[direction.target().index()];
        let asked = std::mem::take(&mut wire.asked);
        if let Some(errno) = self.write_error(direction) {
            self.event(Event::SendFailed { direction, errno });
            return;
        }
        let bytes = asked.min(self.wires[direction.target().index()].space);
        let held = &self.held[direction.index()];
        let from_spill = u64::from(bytes).min(held.spill.1 - held.spill.0);
        let from = held.spill.0;
        self.held[direction.index()].spill.0 += from_spill;
        self.give(direction, from, from_spill);
        self.give_from_chain(
            direction,
            bytes - u32::try_from(from_spill).expect("at most bytes"),
        );
        self.event(Event::Sent {
            direction,
            bytes,
            blocked: bytes < asked,
        });
    }

    fn give_from_chain(&mut self, direction: Direction, bytes: u32) {
        let mut left = bytes;
        let parts: Vec<_> = self.held[direction.index()]
            .chain
            .parts(&self.links)
            .collect();
        for part in parts {
            let len = part.len.min(left);
            self.give(
                direction,
                self.buffer_start[usize::from(part.buffer)] + u64::from(part.from),
                u64::from(len),
            );
            left -= len;
        }
        let (chain, free) = (&mut self.held[direction.index()].chain, &mut self.free);
        chain.consume(&self.links, bytes, |buffer| free.push(buffer));
    }

    /// Hands `len` bytes from position `from` on to the target.
    fn give(&mut self, direction: Direction, from: u64, len: u64) {
        let wire = &mut self.wires[direction.target().index()];
        if len > 0 {
            assert!(!wire.fin_sent, "bytes after FIN");
            assert_eq!(from, wire.written, "a byte was lost, doubled or reordered");
            wire.written += len;
            wire.space -= u32::try_from(len).expect("at most the space");
        }
    }

    fn write_error(&mut self, direction: Direction) -> Option<i32> {
        let wire = &mut self.wires[direction.target().index()];
        wire.reset
            .then(|| wire.pending_error.take().unwrap_or(libc::EPIPE))
    }

    fn complete_poll(&mut self, side: Side, operation: Operation) {
        let wire = &mut self.wires[side.index()];
        if !std::mem::take(&mut wire.edges[operation as usize]) {
            return;
        }
        if let Some(errno) = wire.pending_error.take() {
            self.event(Event::Hangup { side, errno });
        }
        let wire = &self.wires[side.index()];
        match operation {
            Operation::Readable if wire.is_readable() => {
                self.event(Event::Readable(side));
            }
            Operation::Writable if wire.space > 0 || wire.reset => {
                self.event(Event::Writable(side))
            }
            Operation::Connect
            | Operation::Receive
            | Operation::Send
            | Operation::Watch
            | Operation::Readable
            | Operation::Writable => {}
        }
    }

    // --- the worker performs ---

    fn event(&mut self, event: Event) {
        let modes = Direction::BOTH.map(|direction| self.session.relay_of(direction).mode());
        self.session.on(event, self.now);
        self.seen.connected |= self.session.is_connected();
        for direction in Direction::BOTH {
            match (
                modes[direction.index()],
                self.session.relay_of(direction).mode(),
            ) {
                (Mode::Receive, Mode::Pump) => self.seen.pumped = true,
                (Mode::Pump, Mode::Receive) => self.seen.returned = true,
                (Mode::Receive, Mode::Receive) | (Mode::Pump, Mode::Pump) => {}
            }
        }
    }

    fn turn(&mut self) {
        for round in 0.. {
            assert!(
                round < 100,
                "the steps of one turn never end: {:?}",
                self.session
            );
            let mut steps = Steps::new();
            self.session.steps(self.now, &mut steps);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.perform(step);
            }
        }
        self.check();
    }

    fn perform(&mut self, step: Step) {
        assert!(self.closed.is_none(), "{step:?} after the end");
        match step {
            Step::Connect => self.connect(),
            Step::Receive(side) => {
                let relay = self.session.relay_of(side.outgoing());
                assert!(
                    !relay.blocked() && relay.piped() == 0,
                    "received what cannot go on"
                );
                self.wires[side.index()].receive_left = RECEIVE_LIMIT;
            }
            Step::Send(direction) => {
                let relay = self.session.relay_of(direction);
                let asked = relay.queued() + relay.spilled();
                assert!(asked > 0, "a send of nothing");
                self.wires[direction.target().index()].asked = asked;
            }
            Step::Spill(direction) => {
                self.spill(direction);
                self.seen.spilled = true;
                self.event(Event::Spilled(direction));
            }
            Step::Pump {
                direction,
                drain_only,
            } => self.pump(direction, drain_only),
            Step::Discard(direction) => {
                let (held, free) = (&mut self.held[direction.index()], &mut self.free);
                held.chain.clear(&self.links, |buffer| free.push(buffer));
                (held.spill, held.pipe) = ((0, 0), (0, 0));
            }
            Step::Poll { side, operation } => {
                self.seen.watched |= operation == Operation::Watch;
                let mode = self.session.relay_of(side.outgoing()).mode();
                self.seen.rested |= (operation, mode) == (Operation::Readable, Mode::Receive);
                self.wires[side.index()].edges[operation as usize] = true;
            }
            Step::Cancel { side, operation } => {
                assert!(
                    !self.wires[side.index()].cancels[operation as usize],
                    "cancelled twice"
                );
                self.wires[side.index()].cancels[operation as usize] = true;
            }
            Step::ShutdownWrite(side) => self.shutdown_write(side),
            Step::KeepAlive => self.seen.kept_alive = true,
            Step::CheckDelivered(side) => {
                let wire = &self.wires[side.index()];
                let bytes = u32::try_from(wire.written - wire.acked).expect("little");
                self.event(Event::Undelivered { side, bytes });
            }
            Step::Close(ending) => self.close(ending),
        }
    }

    fn connect(&mut self) {
        match self.choices.below(24) {
            0 => self.event(Event::NoBackend(CloseReason::NoBackend)),
            1 => self.event(Event::ConnectFailed(libc::EMFILE)),
            _ => self.wires[Side::Backend.index()] = Wire::new(true),
        }
    }

    fn spill(&mut self, direction: Direction) {
        let held = &mut self.held[direction.index()];
        if held.chain.is_empty() {
            return;
        }
        let first = held.chain.parts(&self.links).next().expect("not empty");
        let from = self.buffer_start[usize::from(first.buffer)] + u64::from(first.from);
        if held.spill.0 == held.spill.1 {
            held.spill = (from, from);
        }
        assert_eq!(held.spill.1, from, "spilled out of order");
        held.spill.1 += u64::from(held.chain.bytes());
        let free = &mut self.free;
        held.chain.clear(&self.links, |buffer| free.push(buffer));
    }

    fn shutdown_write(&mut self, side: Side) {
        let source = &self.wires[side.peer().index()];
        assert!(source.fin, "a FIN that the other side never sent");
        assert_eq!(
            source.read, source.arrived,
            "FIN passed on before everything was read"
        );
        let arrived = source.arrived;
        let target = &mut self.wires[side.index()];
        assert_eq!(
            target.written, arrived,
            "FIN passed on before everything went out"
        );
        assert!(!target.fin_sent, "FIN sent twice");
        target.fin_sent = true;
    }

    fn pump(&mut self, direction: Direction, drain_only: bool) {
        if self.held[direction.index()].pipe.0 == self.held[direction.index()].pipe.1
            && self.choices.once_in(10)
        {
            self.event(Event::NoPipe(direction));
            return;
        }
        let (mut took, mut gave) = (0, 0);
        let mut budget = 1 + self.choices.below(4);
        let (source, target) = loop {
            let from_source = if drain_only {
                PumpSource::Dry
            } else {
                self.splice_in(direction, &mut took)
            };
            let to_target = self.splice_out(direction, &mut gave);
            budget -= 1;
            if to_target != PumpTarget::Ready || from_source != PumpSource::Open || budget == 0 {
                break (from_source, to_target);
            }
        };
        self.event(Event::Pumped {
            direction,
            took,
            gave,
            source,
            target,
        });
        let held = &mut self.held[direction.index()];
        if target == PumpTarget::Full && self.choices.once_in(4) {
            held.spill = std::mem::take(&mut held.pipe);
            self.event(Event::Unpiped(direction));
        }
    }

    fn splice_in(&mut self, direction: Direction, took: &mut u32) -> PumpSource {
        let pipe = &mut self.held[direction.index()].pipe;
        let wire = &mut self.wires[direction.source().index()];
        let room = PIPE_SIZE - u32::try_from(pipe.1 - pipe.0).expect("small");
        let until_urgent = wire.urgent_at.map_or(u32::MAX, |at| {
            u32::try_from(at.saturating_sub(wire.read)).expect("little")
        });
        let len = wire.unread().min(room).min(until_urgent);
        if len > 0 {
            if pipe.0 == pipe.1 {
                *pipe = (wire.read, wire.read);
            }
            pipe.1 += u64::from(len);
            wire.read += u64::from(len);
            *took += len;
            return PumpSource::Open;
        }
        if room == 0 {
            PumpSource::Open
        } else if until_urgent == 0 {
            if pipe.0 == pipe.1 {
                PumpSource::Urgent
            } else {
                PumpSource::Open
            }
        } else if wire.unread() == 0 && !wire.fin && !wire.reset {
            PumpSource::Dry
        } else if let Some(errno) = wire.pending_error.take() {
            PumpSource::Error(errno)
        } else if wire.fin {
            PumpSource::Eof
        } else {
            PumpSource::Error(libc::ECONNRESET)
        }
    }

    fn splice_out(&mut self, direction: Direction, gave: &mut u32) -> PumpTarget {
        let (from, to) = self.held[direction.index()].pipe;
        if from == to {
            return PumpTarget::Ready;
        }
        if let Some(errno) = self.write_error(direction) {
            return PumpTarget::Error(errno);
        }
        let len = (to - from).min(u64::from(self.wires[direction.target().index()].space));
        self.give(direction, from, len);
        self.held[direction.index()].pipe.0 += len;
        *gave += u32::try_from(len).expect("small");
        if from + len < to {
            PumpTarget::Full
        } else {
            PumpTarget::Ready
        }
    }

    fn close(&mut self, ending: Ending) {
        for wire in &mut self.wires {
            assert_eq!(
                wire.cancels, [false; 6],
                "closed before a cancel had completed"
            );
            wire.open = false;
        }
        for side in Side::BOTH {
            assert!(
                self.session.armed(side).is_empty(),
                "closed with something in flight"
            );
        }
        let [client, backend] = &self.wires;
        if ending == Ending::Close {
            assert!(
                client.fin && backend.fin,
                "a clean end without FIN from both sides"
            );
            assert_eq!(
                (client.arrived, backend.arrived),
                (backend.written, client.written),
                "bytes are missing"
            );
        }
        for side in Side::BOTH {
            let (failed, other) = (&self.wires[side.index()], &self.wires[side.peer().index()]);
            let resetting = matches!(
                (self.session.reason(), side),
                (Some(CloseReason::ClientReset), Side::Client)
                    | (Some(CloseReason::BackendReset), Side::Backend)
            );
            let cut_short = self.killed || self.seen.delivery_timed_out || other.reset;
            if resetting && !cut_short && self.seen.connected {
                assert_eq!(
                    failed.arrived, other.written,
                    "what came before a reset was not delivered"
                );
                assert_eq!(
                    other.written, other.acked,
                    "reset before the peer had everything"
                );
            }
        }
        let free = &mut self.free;
        for held in &mut self.held {
            held.chain.clear(&self.links, |buffer| free.push(buffer));
        }
        assert_eq!(self.free.len(), usize::from(BUFFERS), "a buffer was lost");
        self.closed = Some(ending);
    }

    // --- what must hold after every turn ---

    fn check(&self) {
        if self.closed.is_some() {
            assert!(self.session.is_closed());
            return;
        }
        for direction in Direction::BOTH {
            let (relay, held) = (
                self.session.relay_of(direction),
                &self.held[direction.index()],
            );
            assert_eq!(relay.queued(), held.chain.bytes(), "queued");
            assert_eq!(
                u64::from(relay.spilled()),
                held.spill.1 - held.spill.0,
                "spilled"
            );
            assert_eq!(u64::from(relay.piped()), held.pipe.1 - held.pipe.0, "piped");
            assert!(
                relay.queued() + relay.spilled() < 2 * RECEIVE_LIMIT + BUFFER_SIZE,
                "more in memory than a client may pin"
            );
            assert!(
                relay.piped() == 0 || relay.queued() + relay.spilled() == 0,
                "bytes in memory and in the pipe"
            );
            assert_eq!(
                relay.taken(),
                self.wires[direction.source().index()].read,
                "taken"
            );
            assert_eq!(
                relay.given(),
                self.wires[direction.target().index()].written,
                "given"
            );
            let at_rest = !self
                .session
                .armed(direction.target())
                .contains(Operation::Send);
            assert!(
                !at_rest
                    || !relay.blocked()
                    || relay.queued() == 0
                    || self.session.is_ending()
                    || self.is_freezing(),
                "buffers pinned by a blocked target"
            );
        }
        let relaying = matches!(
            self.session.phase,
            Phase::Connecting(_) | Phase::Open | Phase::Resetting { .. }
        );
        for side in Side::BOTH {
            let socket = &self.session.sockets[side.index()];
            let soon = socket.watch_at().is_some_and(|at| {
                let deadline = self.session.deadline();
                at <= socket.blind_since.expect("it is blind") + WATCH_DELAY
                    && deadline.is_some_and(|deadline| deadline <= at)
            });
            let watched = socket.is_watched() || soon || socket.failed || !socket.open;
            // A connect or a watch that is being taken back completes at once, and brings the session here again.
            let watched = watched
                || [Operation::Watch, Operation::Connect]
                    .iter()
                    .any(|op| socket.cancelling.contains(*op));
            assert!(
                watched || !relaying || self.is_freezing(),
                "{side:?} would not notice a reset: {:?}",
                self.session
            );
        }
        let keepalive_by = self.session.started() + KEEPALIVE_AFTER;
        let deadline = self.session.deadline();
        assert!(
            self.session.phase != Phase::Open
                || self.seen.kept_alive
                || self.is_freezing()
                || deadline.is_some_and(|deadline| deadline <= keepalive_by),
            "it would stay without keepalive"
        );
        if self.session.is_frozen() {
            assert!(
                self.session.sockets.iter().all(Socket::is_joined),
                "frozen with something in flight"
            );
        }
    }

    fn is_freezing(&self) -> bool {
        self.session.frost != Frost::None
    }

    // --- the end ---

    /// The peers behave: they read everything, finish, and time goes on. The session must end.
    fn calm_down(&mut self) {
        self.calm = true;
        for turn in 0.. {
            if self.closed.is_some() {
                return;
            }
            assert!(
                turn < TURNS_TO_END,
                "the session does not end: {:?}",
                self.session
            );
            if self.session.is_frozen() || self.choices.once_in(2) {
                self.event(Event::Thaw);
            }
            for side in Side::BOTH {
                if side == Side::Client || self.session.is_connected() {
                    self.peer_finishes(side);
                }
                let wire = &mut self.wires[side.index()];
                wire.space = 1_000_000;
                wire.acked = wire.written;
                wire.edges[Operation::Writable as usize] = true;
                for operation in Operation::ALL {
                    self.complete(side, operation);
                }
            }
            self.feed();
            self.time_passes();
            self.turn();
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            reason: self.session.reason().expect("every end has a reason"),
            ending: self.closed.expect("it has ended"),
            seen: self.seen,
            bytes: self.wires.iter().map(|wire| wire.written).sum(),
        }
    }
}

#[cfg(test)]
mod tests;
