//! One TCP session: an accepted connection together with its backend connection, until both are closed.
//!
//! A pure state machine in two phases. [`Session::on`] takes an event in and changes state only; [`Session::steps`]
//! is asked once per turn per session that changed, and says what to do. It knows which operations are in the
//! kernel, so that nothing is closed under one; it counts bytes and never touches one. It does not choose backends,
//! own sockets or read a clock.
//!
//! **Two endings.** *Close*: FIN both ways, each passed on as a FIN. *Abort*: a reset, an error or a kill. When one
//! side is reset, what it had sent is still delivered (for at most [`DELIVERY_LIMIT`]) and then the other side is
//! reset too, so that a truncated stream never looks complete. Either way in three steps: terminate (cancel what is
//! armed), join (wait for every completion), close.
//!
//! **Invariants**, asserted by the simulation after every event: at most one receive and one send or pump per relay;
//! a relay's bytes are in memory or in its pipe, never both; every open socket has an operation armed that reports a
//! reset, or gets one within [`WATCH_DELAY`]; closed exactly once, with nothing in flight; every session ends.

mod chain;
mod event;
mod operations;
mod reason;
mod record;
mod relay;
mod side;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;

use std::rc::Rc;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::time::Time;

pub use chain::{Chain, Links};
pub use event::{Ending, Event, ReceiveEnd, Step};
pub use operations::{Operation, Operations};
pub use reason::{CloseReason, errno_is_ours};
pub use record::{Record, RelayRecord};
pub use relay::{Mode, PumpSource, PumpTarget, RECEIVE_LIMIT, Relay};
pub use side::{Direction, Side};

use relay::Wish;

/// After a reset on one side, so long may the delivery of what it had sent take.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(1);

/// A socket that nothing reports a reset of is watched once that has lasted so long: most are read again or closed
/// sooner. A reset that comes meanwhile is not lost, the watch tells of it.
pub const WATCH_DELAY: Duration = Duration::from_millis(20);

/// When no byte has moved for so long, the relays rest: they poll for something to read instead of holding a receive,
/// which takes a third of the kernel's memory.
pub const REST_AFTER: Duration = Duration::from_secs(3);

/// A session that lives so long gets keepalive on its sockets. Many are over sooner, and the options are a twentieth
/// of what those cost.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(1);

/// The first pause between two looks at what a socket has not delivered yet; it doubles from look to look.
const DELIVERY_CHECK: Duration = Duration::from_millis(1);

/// What the configuration says about the sessions of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Other backends tried when a connect fails.
    pub retries: u8,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// No byte in either direction.
    pub idle_timeout: Option<Duration>,
    /// One side has closed, the other is silent.
    pub half_close_timeout: Option<Duration>,
    /// Longest life.
    pub session_timeout: Option<Duration>,
}

impl Rules {
    /// Most [`Self::retries`] that a configuration may ask for.
    pub const RETRIES_MAX: u8 = 7;
}

/// The steps of one turn; their number is bounded by the operations that exist.
pub type Steps = ArrayVec<Step, 16>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for a backend.
    Connecting(Attempt),
    /// Relaying.
    Open,
    /// One side is reset: deliver what it had sent, then reset the other.
    Resetting {
        failed: Side,
        since: Time,
        check_at: Time,
        pause: Duration,
    },
    /// Cancel and join.
    Terminating(Ending),
    /// Over.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// A backend is to be picked.
    Wanted,
    /// A connect is in flight.
    Pending { since: Time },
    /// Waiting on is in vain, for this reason: it is being cancelled.
    GivenUp(CloseReason),
    /// It is being cancelled by a freeze, and begins anew after the thaw.
    Withdrawn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frost {
    None,
    Freezing,
    Frozen,
}

#[derive(Clone, Debug)]
struct Socket {
    open: bool,
    armed: Operations,
    cancelling: Operations,
    write_shut: bool,
    failed: bool,
    /// Since when nothing is armed that would tell of a reset.
    blind_since: Option<Time>,
}

impl Socket {
    fn new(open: bool) -> Socket {
        Socket {
            open,
            armed: Operations::NONE,
            cancelling: Operations::NONE,
            write_shut: false,
            failed: false,
            blind_since: None,
        }
    }

    /// Whether an operation is armed that will tell of a reset.
    fn is_watched(&self) -> bool {
        self.armed
            .without(self.cancelling)
            .intersects(Operations::REPORTING)
    }

    /// When a watch is to be armed, if nothing else is before.
    fn watch_at(&self) -> Option<Time> {
        self.blind_since
            .filter(|_| self.is_idle(Operation::Watch))
            .map(|since| since + WATCH_DELAY)
    }

    /// Whether nothing of it is in the kernel.
    fn is_joined(&self) -> bool {
        self.armed.is_empty() && self.cancelling.is_empty()
    }

    /// Whether an operation can be armed: neither armed nor still being taken back.
    fn is_idle(&self, operation: Operation) -> bool {
        !self.armed.contains(operation) && !self.cancelling.contains(operation)
    }
}

/// One session. See the module's text.
#[derive(Clone, Debug)]
pub struct Session {
    rules: Rc<Rules>,
    phase: Phase,
    frost: Frost,
    sockets: [Socket; 2],
    relays: [Relay; 2],
    reason: Option<CloseReason>,
    attempts: u8,
    started: Time,
    moved: Time,
    kept_alive: bool,
}

impl Session {
    /// A session for a client that was just accepted; its first step picks a backend.
    #[must_use]
    pub fn new(rules: Rc<Rules>, now: Time) -> Session {
        Session {
            rules,
            phase: Phase::Connecting(Attempt::Wanted),
            frost: Frost::None,
            sockets: [Socket::new(true), Socket::new(false)],
            relays: [Relay::new(), Relay::new()],
            reason: None,
            attempts: 0,
            started: now,
            moved: now,
            kept_alive: false,
        }
    }

    /// Takes an event in. Changes state only; afterwards the session wants to be asked for its [`Self::steps`].
    pub fn on(&mut self, event: Event, now: Time) {
        match event {
            Event::Connected => self.connected(now),
            Event::ConnectFailed(errno) => self.connect_failed(errno, now),
            Event::SourceExhausted => self.source_exhausted(),
            Event::NoBackend(reason) => self.no_backend(reason),
            Event::Received { side, len } => {
                self.moved = now;
                self.relay(side.outgoing()).received(len);
            }
            Event::ReceiveEnded { side, end } => self.receive_ended(side, end, now),
            Event::Fed(side) => self.relay(side.outgoing()).feed(),
            Event::Sent {
                direction,
                bytes,
                blocked,
            } => self.sent(direction, bytes, blocked, now),
            Event::SendFailed { direction, errno } => {
                self.socket(direction.target())
                    .armed
                    .remove(Operation::Send);
                self.relay(direction).send_failed();
                self.fail(direction.target(), errno, now);
            }
            Event::Pumped {
                direction,
                took,
                gave,
                source,
                target,
            } => {
                self.pumped(direction, (took, gave), source, target, now);
            }
            Event::NoPipe(direction) => self.relay(direction).receive_instead(),
            Event::Unpiped(direction) => self.relay(direction).unpiped(),
            Event::Spilled(direction) => self.relay(direction).spill(),
            Event::Readable(side) => self.relay(side.outgoing()).readable(),
            Event::Writable(side) => self.relay(side.incoming()).writable(),
            Event::Hangup { side, errno } => self.fail(side, errno, now),
            Event::PollEnded { side, operation } => self.socket(side).armed.remove(operation),
            Event::CancelEnded { side, operation } => {
                self.socket(side).cancelling.remove(operation)
            }
            Event::Undelivered { bytes, .. } => self.delivery_checked(bytes, now),
            Event::Expired => self.expire(now),
            Event::BackendLost(reason) => self.give_up_connect(reason),
            Event::Turn => self.relays.iter_mut().for_each(Relay::next_turn),
            Event::Kill(reason) => self.abort(reason),
            Event::Freeze => self.freeze(),
            Event::Thaw => self.thaw(),
        }
    }

    /// What to do now. Each step is said once: what it starts counts as in flight until an event ends it.
    pub fn steps(&mut self, now: Time, out: &mut Steps) {
        if self.frost != Frost::None {
            self.freezing_steps(out);
            return;
        }
        match self.phase {
            Phase::Connecting(attempt) => self.connecting_steps(attempt, now, out),
            Phase::Open => self.open_steps(now, out),
            Phase::Resetting {
                failed, check_at, ..
            } => self.resetting_steps(failed, check_at, now, out),
            Phase::Terminating(ending) => self.terminating_steps(ending, out),
            Phase::Closed => {}
        }
    }

    /// When [`Event::Expired`] is wanted, if nothing happens before. Traffic moves it to later without notice; to
    /// earlier it moves only by an event, so that it is enough to ask after [`Self::steps`].
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.frost != Frost::None {
            return None;
        }
        let [client, backend] = &self.sockets;
        let watch = earliest(client.watch_at(), backend.watch_at());
        let life = earliest(watch, self.session_deadline());
        match self.phase {
            Phase::Connecting(Attempt::Pending { since }) => {
                earliest(life, Some(since + self.rules.connect_timeout))
            }
            Phase::Connecting(_) => life,
            Phase::Open => {
                let quiet = earliest(self.idle_deadline(), self.rest_at());
                let life = earliest(life, self.keepalive_at());
                earliest(life, earliest(quiet, self.half_close_deadline()))
            }
            Phase::Resetting {
                failed,
                since,
                check_at,
                ..
            } => {
                let check = self
                    .relay_of(failed.outgoing())
                    .drained()
                    .then_some(check_at);
                earliest(watch, earliest(Some(since + DELIVERY_LIMIT), check))
            }
            Phase::Terminating(_) | Phase::Closed => None,
        }
    }

    /// Whether the session wants [`Event::Turn`] in the next turn.
    #[must_use]
    pub fn waits_for_turn(&self) -> bool {
        let relaying = matches!(self.phase, Phase::Open | Phase::Resetting { .. });
        relaying && self.frost == Frost::None && self.relays.iter().any(Relay::waits_for_turn)
    }

    /// Whether the sockets have been closed and nothing is left to do.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether it was told to freeze and has still something in the kernel.
    #[must_use]
    pub fn is_freezing(&self) -> bool {
        self.frost == Frost::Freezing
    }

    /// Whether it holds still, with nothing in the kernel.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frost == Frost::Frozen
    }

    /// Failed attempts to connect so far.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Whether the backend connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Resetting { .. })
    }

    /// Whether it is on its way out: a reset is being passed on, or its operations are being taken back.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            Phase::Resetting { .. } | Phase::Terminating(_) | Phase::Closed
        )
    }

    /// Why it ends; known from the first sign of it on.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// When the client was accepted.
    #[must_use]
    pub fn started(&self) -> Time {
        self.started
    }

    /// When the last byte moved, or the connection was made.
    #[must_use]
    pub fn moved(&self) -> Time {
        self.moved
    }

    /// One direction, to look at.
    #[must_use]
    pub fn relay_of(&self, direction: Direction) -> &Relay {
        &self.relays[direction.index()]
    }

    /// Whether FIN was sent on that side's socket.
    #[must_use]
    pub fn write_is_shut(&self, side: Side) -> bool {
        self.sockets[side.index()].write_shut
    }

    /// The operations of that side that are in the kernel.
    #[must_use]
    pub fn armed(&self, side: Side) -> Operations {
        self.sockets[side.index()].armed
    }

    // --- events ---

    fn connected(&mut self, now: Time) {
        self.socket(Side::Backend).armed.remove(Operation::Connect);
        if matches!(self.phase, Phase::Connecting(_)) {
            self.phase = Phase::Open;
            self.moved = now;
            if self.relay_of(Direction::ToBackend).source_ended() {
                self.reason = Some(CloseReason::ClientClosed);
            }
        }
    }

    fn connect_failed(&mut self, errno: i32, now: Time) {
        let backend = self.socket(Side::Backend);
        backend.armed.remove(Operation::Connect);
        backend.open = false;
        let Phase::Connecting(attempt) = self.phase else {
            return;
        };
        if attempt == Attempt::Withdrawn && errno == libc::ECANCELED {
            self.phase = Phase::Connecting(Attempt::Wanted);
            return;
        }
        self.attempts += 1;
        self.moved = now;
        let given_up = if let Attempt::GivenUp(reason) = attempt {
            (errno == libc::ECANCELED).then_some(reason)
        } else {
            None
        };
        self.reason = Some(given_up.unwrap_or_else(|| CloseReason::not_connected(errno)));
        if self.attempts > self.rules.retries {
            self.terminate(Ending::Abort);
        } else {
            self.phase = Phase::Connecting(Attempt::Wanted);
        }
    }

    /// Nothing was sent, so it is no attempt yet. A step of its own begins the next connect, because a cancel may be in
    /// flight for the one that failed.
    fn source_exhausted(&mut self) {
        let backend = self.socket(Side::Backend);
        backend.armed.remove(Operation::Connect);
        backend.open = false;
        if let Phase::Connecting(_) = self.phase {
            self.phase = Phase::Connecting(Attempt::Wanted);
        }
    }

    /// No backend left: the last failure is the reason, if there was one.
    fn no_backend(&mut self, reason: CloseReason) {
        self.socket(Side::Backend).armed.remove(Operation::Connect);
        self.socket(Side::Backend).open = false;
        let reason = self.reason.unwrap_or(reason);
        self.abort(reason);
    }

    fn receive_ended(&mut self, side: Side, end: ReceiveEnd, now: Time) {
        self.socket(side).armed.remove(Operation::Receive);
        match end {
            ReceiveEnd::Limit => self.relay(side.outgoing()).receive_ended_at_limit(),
            ReceiveEnd::Cancelled => {}
            ReceiveEnd::Starved => self.relay(side.outgoing()).starve(),
            ReceiveEnd::Eof => self.source_closed(side, now),
            ReceiveEnd::Error(errno) => {
                self.relay(side.outgoing()).end_source();
                self.fail(side, errno, now);
            }
        }
    }

    fn source_closed(&mut self, side: Side, now: Time) {
        self.moved = now;
        self.relay(side.outgoing()).end_source();
        if self.phase == Phase::Open && self.reason_is_open() {
            self.reason = Some(CloseReason::closed(side));
        }
    }

    /// A retried connect leaves the reason of its failure behind; an established session has none yet.
    fn reason_is_open(&self) -> bool {
        !matches!(
            self.reason,
            Some(CloseReason::ClientClosed | CloseReason::BackendClosed)
        )
    }

    fn sent(&mut self, direction: Direction, bytes: u32, blocked: bool, now: Time) {
        self.socket(direction.target())
            .armed
            .remove(Operation::Send);
        if bytes > 0 {
            self.moved = now;
        }
        self.relay(direction).sent(bytes, blocked);
    }

    fn pumped(
        &mut self,
        direction: Direction,
        (took, gave): (u32, u32),
        source: PumpSource,
        target: PumpTarget,
        now: Time,
    ) {
        if took > 0 || gave > 0 {
            self.moved = now;
        }
        self.relay(direction).pumped(took, gave, source, target);
        match source {
            PumpSource::Open | PumpSource::Dry | PumpSource::Urgent => {}
            PumpSource::Eof => self.source_closed(direction.source(), now),
            PumpSource::Error(errno) => self.fail(direction.source(), errno, now),
        }
        if let PumpTarget::Error(errno) = target {
            self.fail(direction.target(), errno, now);
        }
    }

    /// The connection to `side` is broken.
    fn fail(&mut self, side: Side, errno: i32, now: Time) {
        self.socket(side).failed = true;
        match self.phase {
            Phase::Connecting(_) => self.abort(CloseReason::broken(side, errno)),
            Phase::Open => {
                self.reason = Some(CloseReason::broken(side, errno));
                self.frost = Frost::None;
                self.relay(side.incoming()).discard();
                self.relay(side.outgoing()).look_again();
                self.phase = Phase::Resetting {
                    failed: side,
                    since: now,
                    check_at: now,
                    pause: DELIVERY_CHECK,
                };
            }
            Phase::Resetting { failed, .. } if failed != side => self.terminate(Ending::Abort),
            Phase::Resetting { .. } | Phase::Terminating(_) | Phase::Closed => {}
        }
    }

    fn delivery_checked(&mut self, undelivered: u32, now: Time) {
        let Phase::Resetting {
            failed,
            since,
            pause,
            ..
        } = self.phase
        else {
            return;
        };
        if undelivered == 0 {
            self.terminate(Ending::Abort);
        } else {
            self.phase = Phase::Resetting {
                failed,
                since,
                check_at: now + pause,
                pause: pause * 2,
            };
        }
    }

    fn expire(&mut self, now: Time) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if let Phase::Resetting { since, .. } = self.phase {
            if now >= since + DELIVERY_LIMIT {
                self.terminate(Ending::Abort);
            }
            return;
        }
        let has_come = |deadline: Option<Time>| deadline.is_some_and(|deadline| now >= deadline);
        if has_come(self.session_deadline()) {
            self.abort(CloseReason::SessionTimeout);
        } else if let Phase::Connecting(attempt) = self.phase {
            if let Attempt::Pending { since } = attempt
                && now >= since + self.rules.connect_timeout
            {
                self.give_up_connect(CloseReason::ConnectTimeout);
            }
        } else if has_come(self.half_close_deadline()) {
            self.abort(CloseReason::HalfCloseTimeout);
        } else if has_come(self.idle_deadline()) {
            self.abort(CloseReason::IdleTimeout);
        } else if has_come(self.rest_at()) {
            for direction in Direction::BOTH {
                if self.can_rest(direction) {
                    self.relay(direction).rest();
                }
            }
        }
        // Or a watch is due, or keepalive; the next steps see to it.
    }

    /// The connect in flight is taken back and counts as failed; another backend is tried if the rules allow it.
    fn give_up_connect(&mut self, reason: CloseReason) {
        if let Phase::Connecting(Attempt::Pending { .. }) = self.phase {
            self.phase = Phase::Connecting(Attempt::GivenUp(reason));
        }
    }

    /// Ends the session with a reset to both sides, unless it is ending already.
    fn abort(&mut self, reason: CloseReason) {
        match self.phase {
            Phase::Connecting(_) | Phase::Open => {
                self.reason = Some(reason);
                self.terminate(Ending::Abort);
            }
            Phase::Resetting { .. } => self.terminate(Ending::Abort),
            Phase::Terminating(_) | Phase::Closed => {}
        }
    }

    fn terminate(&mut self, ending: Ending) {
        self.frost = Frost::None;
        self.phase = Phase::Terminating(ending);
    }

    fn freeze(&mut self) {
        if matches!(self.phase, Phase::Connecting(_) | Phase::Open) && self.frost == Frost::None {
            self.frost = Frost::Freezing;
        }
    }

    fn thaw(&mut self) {
        if self.frost != Frost::None {
            self.frost = Frost::None;
            self.relays.iter_mut().for_each(Relay::look_again);
        }
    }

    // --- steps ---

    fn connecting_steps(&mut self, attempt: Attempt, now: Time, out: &mut Steps) {
        self.arm(Side::Client, now, out);
        if self.relay_of(Direction::ToBackend).queued() > 0 {
            // The ring's buffers are for those that go on.
            out.push(Step::Spill(Direction::ToBackend));
        }
        match attempt {
            Attempt::Wanted if self.sockets[Side::Backend.index()].is_joined() => {
                self.phase = Phase::Connecting(Attempt::Pending { since: now });
                let backend = self.socket(Side::Backend);
                backend.open = true;
                backend.armed.insert(Operation::Connect);
                out.push(Step::Connect);
            }
            Attempt::GivenUp(_) => self.cancel(Side::Backend, Operation::Connect, out),
            Attempt::Wanted | Attempt::Pending { .. } | Attempt::Withdrawn => {}
        }
    }

    fn open_steps(&mut self, now: Time, out: &mut Steps) {
        for direction in Direction::BOTH {
            self.relay_steps(direction, out);
        }
        if self.relays.iter().all(Relay::drained) {
            self.terminate(Ending::Close);
            self.terminating_steps(Ending::Close, out);
            return;
        }
        for side in Side::BOTH {
            self.arm(side, now, out);
        }
        if self.keepalive_at().is_some_and(|at| now >= at) {
            self.kept_alive = true;
            out.push(Step::KeepAlive);
        }
    }

    fn relay_steps(&mut self, direction: Direction, out: &mut Steps) {
        let (source, target) = (direction.source(), direction.target());
        let receive_armed = self.sockets[source.index()]
            .armed
            .contains(Operation::Receive);
        match self.relays[direction.index()].wish(receive_armed) {
            Wish::Nothing => {}
            Wish::Send => {
                self.relay(direction).sending();
                self.socket(target).armed.insert(Operation::Send);
                out.push(Step::Send(direction));
            }
            Wish::Spill => out.push(Step::Spill(direction)),
            Wish::Pump => {
                let drain_only = self.relays[direction.index()].source_ended();
                self.relay(direction).pumping();
                out.push(Step::Pump {
                    direction,
                    drain_only,
                });
            }
            Wish::Discard => {
                self.relay(direction).let_go();
                out.push(Step::Discard(direction));
            }
            Wish::Finish => self.finish_relay(direction, out),
        }
    }

    /// Passes a FIN on. The second one of a session is sent by close, and none is sent to a side that will be reset.
    fn finish_relay(&mut self, direction: Direction, out: &mut Steps) {
        let other_drained = self.relays[direction.target().outgoing().index()].drained();
        if self.phase == Phase::Open && !other_drained {
            self.relay(direction).finish();
            self.socket(direction.target()).write_shut = true;
            out.push(Step::ShutdownWrite(direction.target()));
        }
    }

    fn resetting_steps(&mut self, failed: Side, check_at: Time, now: Time, out: &mut Steps) {
        let direction = failed.outgoing();
        self.relay_steps(direction, out);
        self.relay_steps(failed.incoming(), out);
        if self.relays[direction.index()].drained() && now >= check_at {
            out.push(Step::CheckDelivered(failed.peer()));
        }
        for side in Side::BOTH {
            self.arm(side, now, out);
        }
    }

    fn terminating_steps(&mut self, ending: Ending, out: &mut Steps) {
        if self.take_everything_back(out) {
            self.phase = Phase::Closed;
            out.push(Step::Close(ending));
        }
    }

    fn freezing_steps(&mut self, out: &mut Steps) {
        if let Phase::Connecting(Attempt::Pending { .. }) = self.phase {
            self.phase = Phase::Connecting(Attempt::Withdrawn);
        }
        if self.frost == Frost::Freezing && self.take_everything_back(out) {
            self.frost = Frost::Frozen;
        }
    }

    /// Cancels what is armed. True once nothing is in the kernel, the cancels' own completions included.
    fn take_everything_back(&mut self, out: &mut Steps) -> bool {
        for side in Side::BOTH {
            for operation in Operation::CANCELLABLE {
                if self.sockets[side.index()].armed.contains(operation) {
                    self.cancel(side, operation, out);
                }
            }
        }
        self.sockets.iter().all(Socket::is_joined)
    }

    /// Arms on a socket what its relays want, and takes back what they no longer want.
    fn arm(&mut self, side: Side, now: Time, out: &mut Steps) {
        let relaying = self.is_connected();
        // What a client says before it has a backend is kept for that: up to the limit of one receive.
        let early = side == Side::Client && matches!(self.phase, Phase::Connecting(_));
        let (source, sink) = (
            &self.relays[side.outgoing().index()],
            &self.relays[side.incoming().index()],
        );
        let receive = (relaying || early) && source.wants_receive();
        let readable = relaying && source.wants_readable();
        let writable = relaying && sink.wants_writable();
        let refuse_receive = source.refuses_receive();
        if receive && self.sockets[side.index()].is_idle(Operation::Receive) {
            self.socket(side).armed.insert(Operation::Receive);
            out.push(Step::Receive(side));
        }
        if refuse_receive
            && self.sockets[side.index()]
                .armed
                .contains(Operation::Receive)
        {
            self.cancel(side, Operation::Receive, out);
        }
        if readable {
            self.poll(side, Operation::Readable, out);
        } else if self.sockets[side.index()]
            .armed
            .contains(Operation::Readable)
        {
            self.cancel(side, Operation::Readable, out);
        }
        if writable {
            self.poll(side, Operation::Writable, out);
        }
        let socket = self.socket(side);
        let is_blind = socket.open && !socket.failed && !socket.is_watched();
        socket.blind_since = is_blind.then(|| socket.blind_since.unwrap_or(now));
        if socket.watch_at().is_some_and(|at| now >= at) {
            self.poll(side, Operation::Watch, out);
        }
    }

    fn poll(&mut self, side: Side, operation: Operation, out: &mut Steps) {
        if self.sockets[side.index()].is_idle(operation) {
            self.socket(side).armed.insert(operation);
            out.push(Step::Poll { side, operation });
        }
    }

    fn cancel(&mut self, side: Side, operation: Operation, out: &mut Steps) {
        let socket = self.socket(side);
        if socket.armed.contains(operation) && !socket.cancelling.contains(operation) {
            socket.cancelling.insert(operation);
            out.push(Step::Cancel { side, operation });
        }
    }

    fn session_deadline(&self) -> Option<Time> {
        let timeout = self.rules.session_timeout?;
        Some(self.started + timeout)
    }

    fn idle_deadline(&self) -> Option<Time> {
        self.rules.idle_timeout.map(|timeout| self.moved + timeout)
    }

    fn keepalive_at(&self) -> Option<Time> {
        (!self.kept_alive).then(|| self.started + KEEPALIVE_AFTER)
    }

    fn rest_at(&self) -> Option<Time> {
        let mut both = Direction::BOTH.into_iter();
        let can_rest = both.any(|direction| self.can_rest(direction));
        can_rest.then(|| self.moved + REST_AFTER)
    }

    /// Only while a receive is armed: a relay that was just told of something to read has to look first.
    fn can_rest(&self, direction: Direction) -> bool {
        let source = &self.sockets[direction.source().index()];
        let receives = source.armed.without(source.cancelling);
        receives.contains(Operation::Receive) && self.relay_of(direction).can_rest()
    }

    fn half_close_deadline(&self) -> Option<Time> {
        let half_closed = self.relays[0].source_ended() != self.relays[1].source_ended();
        self.rules
            .half_close_timeout
            .filter(|_| half_closed)
            .map(|timeout| self.moved + timeout)
    }

    fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side.index()]
    }

    fn relay(&mut self, direction: Direction) -> &mut Relay {
        &mut self.relays[direction.index()]
    }
}

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
