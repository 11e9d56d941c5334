//! TCP sessions on the ring: completions become events, steps become operations. Every decision is the session's.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::access::Notes;
use super::held::Held;
use super::mailbox::Accepted;
use super::picks::{Failing, Picked, Tried};
use super::pump::Pump;
use super::sources::Turn;
use super::token::{Key, Token};
use super::{Report, Worker};

use crate::balance::{Arrival, Sample};
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::ring::{BufferId, Completion, POLL_ERROR, POLL_ERRORS, POLL_READABLE, POLL_WRITABLE};
use crate::session::{
    CloseReason, Direction, Ending, Event, Mode, Operation, PumpSource, PumpTarget, RECEIVE_LIMIT,
    ReceiveEnd, Session, Side, Step, Steps, errno_is_ours,
};
use crate::sys::socket;
use crate::time::Time;

/// More sessions than this on their way out are a mass.
const MASS: usize = 64;
/// So many of a mass go on in one turn, so that it does not harm the others' latency: closing one takes some 50 us.
const ENDINGS_OF_A_MASS: usize = 16;

/// Once the spill memory is used up, a relay whose target lags behind receives only so many bytes at a time.
const RECEIVE_UNDER_PRESSURE: u32 = 4 * 1024;

/// A session together with what it owns in the kernel.
pub(super) struct Slot {
    pub(super) session: Session,
    pub(super) sockets: [Option<OwnedFd>; 2],
    pub(super) is_tcp: [bool; 2],
    held: [Held; 2],
    pub(super) listener: ListenerId,
    pub(super) client: Option<SocketAddr>,
    pub(super) pool: PoolId,
    backend: Option<BackendId>,
    /// When the backend said something last, or accepted.
    heard: Time,
    pub(super) tried: Tried,
    /// It counts among its backend's active sessions.
    counted: bool,
    /// The backend that has kept a place for it, from the pick on.
    claimed: Option<BackendId>,
    /// The sources of its attempt to connect.
    pub(super) turn: Turn,
    /// It counts among its listener's sessions.
    entered: bool,
    latency: Latency,
    /// For the access log, if there is one.
    pub(super) notes: Option<Box<Notes>>,
    /// It is in the list of those that changed.
    dirty: bool,
}

/// How far a session is in what it shows about its backend's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latency {
    /// Nothing to measure, yet or any more.
    Unknown,
    /// The connect began.
    Connecting(Time),
    /// Connected, or asked, since then: the answer's first byte is waited for.
    Waiting(Time),
}

impl Slot {
    /// Its backend, and when that said something last; none until it is connected.
    pub(super) fn connected_to(&self) -> Option<(BackendId, Time)> {
        let backend = self.backend.filter(|_| self.counted);
        backend.map(|backend| (backend, self.heard))
    }

    /// The backend that it connects to, or is connected to.
    pub(super) fn backend(&self) -> Option<BackendId> {
        self.backend
    }

    /// A client's first bytes begin what the backend's first bytes end; a backend that speaks first needs no question.
    fn first_bytes(&mut self, side: Side, now: Time) -> Option<(BackendId, Duration)> {
        let Latency::Waiting(since) = self.latency else {
            return None;
        };
        if side == Side::Client {
            self.latency = Latency::Waiting(now);
            return None;
        }
        self.latency = Latency::Unknown;
        self.backend.map(|backend| (backend, now - since))
    }

    fn fd(&self, side: Side) -> i32 {
        self.socket(side).as_raw_fd()
    }

    fn socket(&self, side: Side) -> &OwnedFd {
        self.sockets[side.index()]
            .as_ref()
            .expect("the session asks for open sockets only")
    }

    /// Whether one of its ends is on one of these addresses of this host.
    pub(super) fn is_on(&self, addresses: &[IpAddr]) -> bool {
        let own = self.sockets.iter().flatten();
        own.filter_map(|own| socket::own_address(own.as_fd()))
            .any(|own| addresses.contains(&own))
    }

    /// The end of a stream: a FIN, or a reset whose error somebody else got to see.
    fn end_of_stream(&self, side: Side) -> Result<(), i32> {
        let asked = self.is_tcp[side.index()] && !self.session.write_is_shut(side);
        if asked && socket::is_tcp_closed(self.socket(side).as_fd()) {
            Err(libc::ECONNRESET)
        } else {
            Ok(())
        }
    }
}

impl Worker {
    /// A session for a client that was admitted and counted.
    pub(super) fn begin_session(&mut self, accepted: Accepted) {
        let pool = self.picks.pool(&self.snapshot, accepted.listener);
        let most = self.snapshot.listeners[accepted.listener.index()].max_sessions;
        let entered = self.shared.enter(accepted.listener, most);
        let slot = Slot {
            session: Session::new(Rc::clone(&self.rules[pool.index()]), self.now),
            is_tcp: [accepted.client.is_some(), false],
            sockets: [Some(accepted.socket), None],
            held: [Held::default(), Held::default()],
            listener: accepted.listener,
            client: accepted.client,
            pool,
            backend: None,
            heard: self.now,
            tried: Tried::new(),
            counted: false,
            claimed: None,
            turn: Turn::default(),
            entered,
            latency: Latency::Unknown,
            notes: self.access.as_ref().map(|_| Box::default()),
            dirty: false,
        };
        // The slab has a place for every session that can be admitted.
        let key = self
            .slots
            .insert(slot)
            .expect("an admitted session has a place");
        self.cells.sessions_total.add(1);
        self.cells.sessions_active.add(1);
        self.cells.listener(accepted.listener).sessions_total.add(1);
        self.cells.pool(pool).sessions_total.add(1);
        self.cells.pool(pool).sessions_active.add(1);
        if let Some(reason) = self.killing.or((!entered).then_some(CloseReason::Limit)) {
            self.tell(key, Event::Kill(reason));
        }
        self.mark_dirty(key);
    }

    /// Gives a session an event from outside the kernel, if it still exists.
    pub(super) fn tell(&mut self, key: Key, event: Event) {
        if let Some(slot) = self.slots.get(key) {
            slot.session.on(event, self.now);
            self.mark_dirty(key);
        }
    }

    /// A completion of an operation of a session.
    pub(super) fn session_completion(
        &mut self,
        operation: Operation,
        side: Side,
        key: Key,
        completion: Completion,
    ) {
        let Some(slot) = self.slots.get(key) else {
            self.stale(completion);
            return;
        };
        let now = self.now;
        match operation {
            Operation::Connect => self.connect_completion(key, completion.result),
            Operation::Receive => self.receive_completion(side, key, completion),
            Operation::Send => {
                let direction = side.incoming();
                let held = &mut slot.held[direction.index()];
                let offered = std::mem::take(&mut held.sending);
                let taken = u32::try_from(completion.result).map_err(|_| -completion.result);
                if let Ok(bytes) = taken {
                    held.consume(bytes, &mut self.ring, &self.links);
                    self.cells
                        .given(slot.listener, slot.backend, direction, bytes);
                }
                slot.session.on(sent_event(direction, taken, offered), now);
            }
            Operation::Watch | Operation::Readable | Operation::Writable => {
                for event in poll_events(slot, operation, side, completion)
                    .into_iter()
                    .flatten()
                {
                    slot.session.on(event, now);
                }
            }
        }
        self.mark_dirty(key);
    }

    /// A cancel is done.
    pub(super) fn cancel_completion(&mut self, operation: Operation, side: Side, key: Key) {
        match self.slots.get(key) {
            Some(_) => self.tell(key, Event::CancelEnded { side, operation }),
            None => self.cells.stale_completions_total.add(1),
        }
    }

    /// Asks every session that changed what to do, and does it. Those on their way out wait for their share.
    pub(super) fn run_dirty(&mut self) {
        while let Some(key) = self.dirty.pop() {
            match self.slots.get(key) {
                Some(slot) if slot.session.is_ending() => self.endings.push_back(key),
                Some(slot) => {
                    slot.dirty = false;
                    self.ask(key);
                }
                None => {}
            }
        }
    }

    /// Whether so many sessions are on their way out that the others have to be protected from them.
    pub(super) fn is_ending_a_mass(&self) -> bool {
        self.endings.len() > MASS
    }

    /// Goes on with sessions that are on their way out: all, or some of a mass.
    pub(super) fn run_endings(&mut self) {
        let share = if self.is_ending_a_mass() {
            ENDINGS_OF_A_MASS
        } else {
            MASS
        };
        for _ in 0..share {
            let Some(key) = self.endings.pop_front() else {
                return;
            };
            if let Some(slot) = self.slots.get(key) {
                slot.dirty = false;
                self.ask(key);
            }
        }
    }

    /// Tells those that had used up their budget that a new turn has begun.
    pub(super) fn begin_turn(&mut self) {
        for key in std::mem::take(&mut self.next_turn) {
            self.tell(key, Event::Turn);
        }
    }

    pub(super) fn is_frozen(&mut self, key: Key) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.session.is_frozen())
    }

    /// Whether a session that was told to freeze still moves.
    pub(super) fn any_freezing(&mut self) -> bool {
        let keys: Vec<_> = self.slots.keys().collect();
        keys.into_iter().any(|key| {
            self.slots
                .get(key)
                .is_some_and(|slot| slot.session.is_freezing())
        })
    }

    /// Buffers came back: as many starved receives as there are buffers go on, first come, first served.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.ring.free_buffers().min(256) {
            let Some((key, side)) = self.starved.pop_front() else {
                return;
            };
            self.tell(key, Event::Fed(side));
        }
    }

    /// Deadlines that have passed.
    pub(super) fn expire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.now, &mut due);
        for slot in due.drain(..) {
            if let Some(key) = self.slots.key(slot) {
                self.tell(key, Event::Expired);
            }
        }
        self.due = due;
    }

    fn mark_dirty(&mut self, key: Key) {
        if let Some(slot) = self.slots.get(key)
            && !std::mem::replace(&mut slot.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// A completion for a session that is gone. With a correct join there is none: it is our bug, and counted.
    fn stale(&mut self, completion: Completion) {
        self.cells.stale_completions_total.add(1);
        if let Some(buffer) = completion.buffer {
            self.ring.buffers().give_back(buffer);
        }
    }

    // --- completions ---

    fn connect_completion(&mut self, key: Key, result: i32) {
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        let backend = slot.backend.expect("a session that connects has picked");
        if result == 0 {
            slot.counted = true;
            slot.heard = self.now;
            self.cells.connects_established_total.add(1);
            slot.session.on(Event::Connected, self.now);
            self.picks.connected(backend, &self.cells);
            let cells = self.cells.backend(backend);
            if let Latency::Connecting(since) = slot.latency {
                let took = self.now - since;
                cells.usage().connect.observe(took);
                if let Some(notes) = &mut slot.notes {
                    notes.connect = Some(took);
                }
                let took = Sample::Connect(took);
                self.picks.observe(&self.snapshot, backend, took, self.now);
            }
            slot.latency = Latency::Waiting(self.now);
            cells.sessions_active.add(1);
            cells.sessions_total.add(1);
            return;
        }
        slot.sockets[Side::Backend.index()] = None;
        if -result == libc::EADDRNOTAVAIL && self.source_exhausted(key, backend) {
            return;
        }
        self.disclaim(key);
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        let attempts = slot.session.attempts();
        slot.session.on(Event::ConnectFailed(-result), self.now);
        if slot.session.attempts() == attempts {
            // Withdrawn by a freeze or an end: nothing was learned about the backend.
            slot.tried.pop();
        } else {
            self.note_connect_failure(backend, -result);
        }
    }

    pub(super) fn note_connect_failure(&mut self, backend: BackendId, errno: i32) {
        self.cells.connect_failures_total.add(1);
        self.cells.backend(backend).connect_failures_total.add(1);
        let is_known = self.snapshot.backends[backend.index()].is_up == Some(false);
        if is_known || errno_is_ours(errno) {
            return;
        }
        match self
            .picks
            .failed(&self.snapshot, backend, self.now, &self.cells)
        {
            Failing::Begins => (self.reports)(Report::Doubted(backend)),
            Failing::Avoided => (self.reports)(Report::Avoided { backend, errno }),
            Failing::GoesOn => {}
        }
    }

    fn receive_completion(&mut self, side: Side, key: Key, completion: Completion) {
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        let direction = side.outgoing();
        if let (Some(BufferId(buffer)), Ok(len @ 1..)) =
            (completion.buffer, u32::try_from(completion.result))
        {
            slot.held[direction.index()]
                .chain
                .push(&mut self.links, buffer, len);
            if side == Side::Backend {
                slot.heard = self.now;
            }
            if let Some((backend, took)) = slot.first_bytes(side, self.now) {
                self.cells.backend(backend).usage().first_byte.observe(took);
                if let Some(notes) = &mut slot.notes {
                    notes.first_byte = Some(took);
                }
                let took = Sample::FirstByte(took);
                self.picks.observe(&self.snapshot, backend, took, self.now);
            }
            slot.session.on(Event::Received { side, len }, self.now);
        } else if let Some(buffer) = completion.buffer {
            self.ring.buffers().give_back(buffer);
        }
        if completion.more {
            return;
        }
        let end = match completion.result {
            1.. => ReceiveEnd::Limit,
            0 => match slot.end_of_stream(side) {
                Ok(()) => ReceiveEnd::Eof,
                Err(errno) => ReceiveEnd::Error(errno),
            },
            result if result == -libc::ENOBUFS => ReceiveEnd::Starved,
            result if result == -libc::ECANCELED => ReceiveEnd::Cancelled,
            result => ReceiveEnd::Error(-result),
        };
        let mode = slot.session.relay_of(direction).mode();
        slot.session.on(Event::ReceiveEnded { side, end }, self.now);
        if mode == Mode::Receive && slot.session.relay_of(direction).mode() == Mode::Pump {
            self.cells.pumps_entered_total.add(1);
        }
        if end == ReceiveEnd::Starved {
            self.cells.starved_total.add(1);
            self.starved.push_back((key, side));
        }
    }

    // --- steps ---

    /// Asks one session until it has nothing more to do.
    fn ask(&mut self, key: Key) {
        loop {
            let Some(slot) = self.slots.get(key) else {
                return;
            };
            let mut steps = Steps::new();
            slot.session.steps(self.now, &mut steps);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                if let Some(event) = self.perform(key, step) {
                    self.answer(key, event);
                }
            }
        }
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        self.timers.set(key.slot, slot.session.deadline());
        if slot.session.waits_for_turn() {
            self.next_turn.push(key);
        }
        if slot.session.is_frozen() {
            self.frozen.push(key);
        }
    }

    /// The event that answers a step which acted at once.
    fn answer(&mut self, key: Key, event: Event) {
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        slot.session.on(event, self.now);
        if let Event::Sent {
            direction, bytes, ..
        }
        | Event::Pumped {
            direction,
            gave: bytes,
            ..
        } = event
        {
            self.cells
                .given(slot.listener, slot.backend, direction, bytes);
        }
        if let Event::Pumped {
            direction,
            target: PumpTarget::Full,
            ..
        } = event
            && self.pipes.are_scarce()
        {
            self.unpipe(key, direction);
        }
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        if let Event::Pumped { direction, .. } | Event::NoPipe(direction) = event
            && slot.session.relay_of(direction).mode() == Mode::Receive
        {
            self.cells.pumps_left_total.add(1);
        }
    }

    /// Performs one step. Those that act at once are answered by an event.
    fn perform(&mut self, key: Key, step: Step) -> Option<Event> {
        let under_pressure = self.cells.spill_bytes.get() >= self.limits.spill_memory;
        let slot = self
            .slots
            .get(key)
            .expect("the steps of a session end with its slot");
        match step {
            Step::Connect => return self.connect(key),
            Step::Receive(side) => {
                let token = Token::Session {
                    operation: Operation::Receive,
                    side,
                    key,
                }
                .encode();
                let lags = slot.session.relay_of(side.outgoing()).is_slow();
                if under_pressure && (lags || !slot.session.is_connected()) {
                    self.ring
                        .receive_once(slot.fd(side), RECEIVE_UNDER_PRESSURE, token);
                } else {
                    self.ring.receive(slot.fd(side), RECEIVE_LIMIT, token);
                }
            }
            Step::Send(direction) => return self.send(key, direction),
            Step::Spill(direction) => return Some(self.spill(key, direction)),
            Step::Pump {
                direction,
                drain_only,
            } => return Some(self.pump(key, direction, drain_only)),
            Step::Poll { side, operation } => {
                let mode = slot.session.relay_of(side.outgoing()).mode();
                if (operation, mode) == (Operation::Readable, Mode::Receive) {
                    self.cells.rests_total.add(1);
                }
                let events = match operation {
                    Operation::Readable => POLL_READABLE,
                    Operation::Writable => POLL_WRITABLE,
                    Operation::Watch
                    | Operation::Connect
                    | Operation::Receive
                    | Operation::Send => POLL_ERRORS,
                };
                self.ring.poll(
                    slot.fd(side),
                    events,
                    Token::Session {
                        operation,
                        side,
                        key,
                    }
                    .encode(),
                );
            }
            Step::Cancel { side, operation } => {
                let target = Token::Session {
                    operation,
                    side,
                    key,
                }
                .encode();
                self.ring.cancel(
                    target,
                    Token::Cancel {
                        operation,
                        side,
                        key,
                    }
                    .encode(),
                );
            }
            Step::ShutdownWrite(side) => socket::shutdown_write(slot.socket(side).as_fd()),
            Step::KeepAlive => {
                let pool = &self.snapshot.pools[slot.pool.index()];
                for (side, times) in [(Side::Client, None), (Side::Backend, Some(&pool.keepalive))]
                {
                    if slot.is_tcp[side.index()] {
                        // The options exist on every TCP socket, whatever has become of the connection.
                        let _ = socket::keep_alive(slot.socket(side).as_fd(), times);
                    }
                }
            }
            Step::Discard(direction) => self.let_go(key, direction),
            Step::CheckDelivered(side) => {
                let bytes = if slot.is_tcp[side.index()] {
                    socket::undelivered(slot.socket(side).as_fd())
                } else {
                    0
                };
                return Some(Event::Undelivered { side, bytes });
            }
            Step::Close(ending) => self.close(key, ending),
        }
        None
    }

    fn connect(&mut self, key: Key) -> Option<Event> {
        let slot = self.slots.get(key).expect("performed for a live session");
        // A backend that is still claimed is tried from another source.
        let backend = match slot.claimed {
            Some(backend) => backend,
            None => match self.claim(key) {
                Ok(backend) => backend,
                Err(reason) => return Some(Event::NoBackend(reason)),
            },
        };
        match self.outgoing_socket(key, backend) {
            Ok(socket) => {
                let address = self.picks.address(backend);
                let token = Token::Session {
                    operation: Operation::Connect,
                    side: Side::Backend,
                    key,
                }
                .encode();
                self.ring.connect(socket.as_raw_fd(), address, token);
                let slot = self.slots.get(key).expect("performed for a live session");
                slot.is_tcp[Side::Backend.index()] = !address.is_unix();
                slot.sockets[Side::Backend.index()] = Some(socket);
                None
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                self.accepts.pause_if_scarce(errno, self.now);
                self.disclaim(key);
                self.note_connect_failure(backend, errno);
                Some(Event::ConnectFailed(errno))
            }
        }
    }

    /// Picks the backend of the session's next attempt to connect, which begins.
    fn claim(&mut self, key: Key) -> Result<BackendId, CloseReason> {
        let slot = self.slots.get(key).expect("performed for a live session");
        let arrival = Arrival {
            client: slot.client,
            now: self.now,
        };
        let picked = self.picks.pick(
            &self.snapshot,
            slot.pool,
            &slot.tried,
            &arrival,
            &self.shared,
        );
        let backend = match picked {
            Picked::Backend(backend) => backend,
            Picked::AllFull => return Err(CloseReason::Limit),
            Picked::Nobody => return Err(CloseReason::NoBackend),
        };
        slot.claimed = Some(backend);
        slot.latency = Latency::Connecting(self.now);
        self.cells.connects_total.add(1);
        if !slot.tried.is_empty() {
            self.cells.connect_retries_total.add(1);
            self.cells.pool(slot.pool).connect_retries_total.add(1);
        }
        slot.backend = Some(backend);
        slot.tried.push(backend);
        let sources = &self.snapshot.pools[slot.pool.index()].sources;
        let address = self.picks.address(backend);
        slot.turn = self.sources.begin(slot.pool, sources, address);
        Ok(backend)
    }

    /// Its backend keeps no place for it any more.
    fn disclaim(&mut self, key: Key) {
        let claimed = self.slots.get(key).and_then(|slot| slot.claimed.take());
        if let Some(backend) = claimed {
            self.shared.disclaim(backend);
        }
    }

    /// By the ring, so that the sends of a turn share one system call; what was spilled goes by itself.
    fn send(&mut self, key: Key, direction: Direction) -> Option<Event> {
        let slot = self.slots.get(key).expect("performed for a live session");
        let side = direction.target();
        if slot.held[direction.index()].has_spill() {
            let socket = slot.sockets[side.index()]
                .as_ref()
                .expect("the session sends to open sockets only");
            let held = &mut slot.held[direction.index()];
            let (taken, offered, freed) = held.send_now(socket, &mut self.ring, &self.links);
            self.cells.spill_bytes.sub(freed);
            return Some(sent_event(direction, taken, offered));
        }
        let fd = slot.fd(side);
        let held = &mut slot.held[direction.index()];
        let token = Token::Session {
            operation: Operation::Send,
            side,
            key,
        }
        .encode();
        let parts = held
            .chain
            .parts(&self.links)
            .map(|part| (BufferId(part.buffer), part.from, part.len));
        held.sending = self.ring.send(fd, parts, token);
        None
    }

    fn spill(&mut self, key: Key, direction: Direction) -> Event {
        let slot = self.slots.get(key).expect("performed for a live session");
        let held = &mut slot.held[direction.index()];
        let grown = held.spill(&mut self.ring, &self.links);
        self.cells.spill_bytes.add(grown);
        self.cells.spills_total.add(1);
        Event::Spilled(direction)
    }

    /// Splices until the source is dry, the target full, or the budget used up.
    fn pump(&mut self, key: Key, direction: Direction, drain_only: bool) -> Event {
        let slot = self.slots.get(key).expect("performed for a live session");
        let Some(pipe) = slot.held[direction.index()]
            .pipe
            .take()
            .or_else(|| self.pipes.take())
        else {
            self.cells.pipes_unavailable_total.add(1);
            return Event::NoPipe(direction);
        };
        let from = slot.socket(direction.source()).as_fd();
        let to = slot.socket(direction.target()).as_fd();
        let mut pump = Pump::new(&pipe, from, to, slot.session.relay_of(direction).piped());
        let (source, target) = if drain_only {
            (PumpSource::Dry, pump.drain())
        } else {
            pump.run(|| slot.end_of_stream(direction.source()))
        };
        let Pump {
            piped, took, gave, ..
        } = pump;
        if took > 0 && direction == Direction::ToClient {
            slot.heard = self.now;
        }
        if piped == 0 {
            self.pipes.give_back(pipe);
        } else {
            slot.held[direction.index()].pipe = Some(pipe);
        }
        Event::Pumped {
            direction,
            took,
            gave,
            source,
            target,
        }
    }

    /// Lets go of what a relay holds.
    fn let_go(&mut self, key: Key, direction: Direction) {
        let slot = self.slots.get(key).expect("performed for a live session");
        let held = std::mem::take(&mut slot.held[direction.index()]);
        self.release(held);
    }

    /// Buffers, memory and pipe go back to where they came from.
    fn release(&mut self, mut held: Held) {
        let (freed, pipe) = held.clear(&mut self.ring, &self.links);
        self.cells.spill_bytes.sub(freed);
        if let Some(pipe) = pipe {
            self.pipes.give_back_dirty(pipe);
        }
    }

    /// Pipes are scarce, and this relay's target is full: what its pipe holds goes into memory, so that a client that
    /// does not read keeps no pipe from those that flow.
    fn unpipe(&mut self, key: Key, direction: Direction) {
        let slot = self.slots.get(key).expect("performed for a live session");
        let piped = slot.session.relay_of(direction).piped();
        let Some(pipe) = slot.held[direction.index()].pipe.take_if(|_| piped > 0) else {
            return;
        };
        self.cells
            .spill_bytes
            .add(slot.held[direction.index()].unpipe(&pipe, piped));
        self.cells.spills_total.add(1);
        self.pipes.give_back(pipe);
        slot.session.on(Event::Unpiped(direction), self.now);
    }

    fn close(&mut self, key: Key, ending: Ending) {
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        self.timers.unset(key.slot);
        let reason = slot.session.reason().unwrap_or(CloseReason::Internal);
        self.log_session(&slot, reason);
        if ending == Ending::Abort {
            for socket in slot.sockets.iter().flatten() {
                socket::reset_on_close(socket.as_fd());
            }
        }
        slot.held.into_iter().for_each(|held| self.release(held));
        if let (true, Some(backend)) = (slot.counted, slot.backend) {
            let cells = self.cells.backend(backend);
            cells.sessions_active.sub(1);
            let duration = self.now - slot.session.started();
            cells.usage().duration.observe(duration);
            cells.usage().ends.add(reason);
        }
        if let Some(claimed) = slot.claimed {
            self.shared.disclaim(claimed);
        }
        if slot.entered {
            self.shared.leave(slot.listener);
        }
        self.cells.listener(slot.listener).over_total.add(1);
        self.cells.ends.add(reason);
        self.cells.sessions_active.sub(1);
        self.cells.pool(slot.pool).ends.add(reason);
        self.cells.pool(slot.pool).sessions_active.sub(1);
        self.shared.ended(self.id);
        let listener = &self.snapshot.listeners[slot.listener.index()].name;
        let backend = slot
            .backend
            .map(|id| &*self.snapshot.backends[id.index()].name);
        if reason.is_usual() {
            tracing::trace!(%listener, client = ?slot.client, backend, reason = reason.as_str(), "session ended");
        } else {
            tracing::debug!(%listener, client = ?slot.client, backend, reason = reason.as_str(), "session ended");
        }
    }
}

fn sent_event(direction: Direction, taken: Result<u32, i32>, offered: u32) -> Event {
    match taken {
        Ok(bytes) => Event::Sent {
            direction,
            bytes,
            blocked: bytes < offered,
        },
        Err(libc::EAGAIN) => Event::Sent {
            direction,
            bytes: 0,
            blocked: true,
        },
        Err(errno) => Event::SendFailed { direction, errno },
    }
}

/// What a poll says: an error, readiness, its own end.
fn poll_events(
    slot: &Slot,
    operation: Operation,
    side: Side,
    completion: Completion,
) -> [Option<Event>; 3] {
    let mask = u32::try_from(completion.result).unwrap_or(0);
    let errno = if mask & POLL_ERROR == 0 {
        0
    } else {
        socket::take_error(slot.socket(side).as_fd())
    };
    let readiness = match operation {
        Operation::Readable if mask != 0 => Some(Event::Readable(side)),
        // Not every wake-up is for us: a FIN from the peer is no room to write.
        Operation::Writable if mask & (POLL_WRITABLE | POLL_ERROR) != 0 => {
            Some(Event::Writable(side))
        }
        Operation::Readable
        | Operation::Writable
        | Operation::Watch
        | Operation::Connect
        | Operation::Receive
        | Operation::Send => None,
    };
    [
        (errno != 0).then_some(Event::Hangup { side, errno }),
        readiness,
        (!completion.more).then_some(Event::PollEnded { side, operation }),
    ]
}
