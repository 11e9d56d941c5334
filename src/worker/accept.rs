//! Accepting: a bounded number of one-shot accepts per listening socket, paused while there is no room. Which worker
//! serves a connection is decided here, before a byte is read.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use super::mailbox::{Accepted, Command};
use super::token::Token;
use super::{Report, Worker};
use crate::ids::ListenerId;
use crate::ring::Ring;
use crate::sys::socket;
use crate::time::Time;

/// Accepts armed per listening socket, and over all of a worker's.
const PER_SOCKET: usize = 16;
const PER_WORKER: usize = 1024;

/// After an accept failed for want of resources, nothing is accepted for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections taken from one kernel queue at the end, at most: a flood of them must not keep us.
const DRAINED_MOST: usize = 8192;

/// While `max_sessions` is reached, other workers may make room, and a socket found shut may be opened: look again
/// after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A worker hands a connection over when another has fewer sessions by more than this, and by more than an eighth.
const CLEARLY_LESS: u32 = 1;

/// A listening socket, as one worker has it. Control owns it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// For which listener.
    pub listener: ListenerId,
    /// The socket.
    pub socket: Arc<Socket>,
}

/// What a worker listens on, by gate; none = nothing, which is what a gate without a socket is for.
pub type Gates = Box<[Option<Listening>]>;

/// A place for a listening socket, and whether clients are to be accepted from it.
#[derive(Default)]
struct Gate {
    listening: Option<Listening>,
    /// What control wants instead, once nothing of it is in the kernel.
    next: Option<Option<Listening>>,
    open: bool,
    /// Accepts in the kernel.
    armed: usize,
    /// It was found shut, although it is to be open.
    rests_until: Option<Time>,
}

impl Gate {
    fn is_open(&self) -> bool {
        self.open && self.next.is_none() && self.listening.is_some()
    }
}

/// The accepts of one worker.
pub(super) struct Accepts {
    gates: Vec<Gate>,
    /// For each place: which socket its accepts are for, and whether one is armed.
    places: Vec<(usize, bool)>,
    armed: usize,
    /// Places of open sockets where none is armed.
    missing: usize,
    /// Cancels of accepts that have not completed.
    cancels: usize,
    /// Gates that are to get another socket, or none.
    changing: usize,
    /// Once nothing is armed any more, the kernel's queues are emptied and control is told.
    closing: bool,
    paused_until: Option<Time>,
    /// Accepted beyond `max_sessions`: they wait here as they would in the kernel.
    pub(super) parked: std::collections::VecDeque<Accepted>,
}

/// Accepts that a worker with so many listening sockets has in flight at most.
#[must_use]
pub fn accepts_of(sockets: usize) -> usize {
    sockets * (PER_WORKER / sockets.max(1)).clamp(1, PER_SOCKET)
}

impl Accepts {
    pub(super) fn new(sockets: Vec<Listening>) -> Accepts {
        let mut accepts = Accepts {
            gates: Vec::new(),
            places: Vec::new(),
            armed: 0,
            missing: 0,
            cancels: 0,
            changing: 0,
            closing: false,
            paused_until: None,
            parked: std::collections::VecDeque::new(),
        };
        accepts.grow(sockets.len());
        for (gate, listening) in accepts.gates.iter_mut().zip(sockets) {
            gate.listening = Some(listening);
        }
        accepts
    }

    /// From now on there are so many gates, or more. A gate keeps its places for accepts.
    fn grow(&mut self, gates: usize) {
        let each = (PER_WORKER / gates.max(1)).clamp(1, PER_SOCKET);
        for gate in self.gates.len()..gates {
            self.gates.push(Gate::default());
            self.places.extend(std::iter::repeat_n((gate, false), each));
        }
    }

    /// Accepts that may be in flight.
    fn places(&self) -> u16 {
        u16::try_from(self.places.len()).unwrap_or(u16::MAX)
    }

    /// Another socket for a gate, or another listener for its socket, or none.
    fn change(&mut self, number: usize, wanted: Option<Listening>, ring: &mut Ring) {
        let gate = &mut self.gates[number];
        if let (None, Some(now), Some(wanted)) = (&gate.next, &mut gate.listening, &wanted)
            && Arc::ptr_eq(&now.socket, &wanted.socket)
        {
            now.listener = wanted.listener;
            return;
        }
        if gate.next.is_none() && gate.listening.is_none() && wanted.is_none() {
            return;
        }
        let is_first = gate.next.replace(wanted).is_none();
        self.changing += usize::from(is_first);
        let armed = (0..).zip(&self.places);
        let its = armed.filter(|(_, (other, armed))| *other == number && *armed && is_first);
        for (place, _) in its {
            self.cancels += 1;
            ring.cancel(
                Token::Accept { place }.encode(),
                Token::CancelAccept { place }.encode(),
            );
        }
    }

    /// Gates that nothing in the kernel belongs to any more get what is wanted; the sockets that they had.
    fn settle(&mut self) -> Vec<Listening> {
        let mut left = Vec::new();
        for gate in self.gates.iter_mut().filter(|gate| gate.armed == 0) {
            if let Some(next) = gate.next.take() {
                self.changing -= 1;
                gate.rests_until = None;
                left.extend(std::mem::replace(&mut gate.listening, next));
            }
        }
        self.count_missing();
        left
    }

    fn count_missing(&mut self) {
        let is_missing = |(gate, armed): &&(usize, bool)| !armed && self.gates[*gate].is_open();
        self.missing = self.places.iter().filter(is_missing).count();
    }

    /// Whether nothing of it is in the kernel and nobody waits there any more.
    pub(super) fn are_drained(&self) -> bool {
        self.is_joined() && !self.closing
    }

    /// A cancel of an accept has completed.
    pub(super) fn cancelled(&mut self) {
        self.cancels -= 1;
    }

    fn is_joined(&self) -> bool {
        self.armed == 0 && self.cancels == 0
    }

    /// Takes the armed accepts back. (Shutting the socket down would end them too, but on a unix socket each would
    /// first be tried by a kernel worker thread.)
    fn cancel_all(&mut self, ring: &mut Ring) {
        for (place, (_, armed)) in (0..).zip(&self.places) {
            if *armed {
                self.cancels += 1;
                ring.cancel(
                    Token::Accept { place }.encode(),
                    Token::CancelAccept { place }.encode(),
                );
            }
        }
    }

    /// When this host has no file descriptors or memory left, those who wait had better wait in the kernel: an accept
    /// would take what the connection to a backend needs.
    pub(super) fn pause_if_scarce(&mut self, errno: i32, now: Time) {
        if matches!(
            errno,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
        ) {
            self.paused_until = Some(now + PAUSE);
        }
    }

    /// Whether an accept is wanted on each of the sockets.
    fn set_open(&mut self, open: impl Iterator<Item = bool>) {
        for (gate, open) in self.gates.iter_mut().zip(open) {
            gate.open = open;
            gate.rests_until = None;
        }
        self.count_missing();
    }

    /// Arms up to `most` more accepts.
    fn arm(&mut self, most: usize, now: Time, ring: &mut Ring) {
        let mut left = most;
        for (place, (gate, armed)) in (0..).zip(&mut self.places) {
            if left == 0 || self.missing == 0 {
                return;
            }
            let gate = &mut self.gates[*gate];
            let rests = gate.rests_until.is_some_and(|until| now < until);
            let is_wanted = !*armed && gate.is_open() && !rests;
            if let Some(listening) = gate.listening.as_ref().filter(|_| is_wanted) {
                let fd = listening.socket.as_raw_fd();
                ring.accept(fd, place, Token::Accept { place }.encode());
                *armed = true;
                gate.armed += 1;
                self.armed += 1;
                self.missing -= 1;
                left -= 1;
            }
        }
    }

    /// The accept of this place is not armed any more; which socket it was for.
    fn disarmed(&mut self, place: u16) -> usize {
        let (gate, armed) = &mut self.places[usize::from(place)];
        *armed = false;
        self.armed -= 1;
        self.gates[*gate].armed -= 1;
        self.missing += usize::from(self.gates[*gate].is_open());
        *gate
    }
}

impl Worker {
    /// Arms accepts again where there is room for sessions, and serves those who wait.
    pub(super) fn accept_more(&mut self) {
        if self.accepts.changing > 0 {
            for left in self.accepts.settle() {
                self.drain(&left);
            }
        }
        if self.accepts.closing && self.accepts.is_joined() && self.udp.is_silent() {
            self.drain_accepts();
        }
        if !self.accepts.parked.is_empty() {
            self.serve_parked();
        }
        if self
            .accepts
            .paused_until
            .is_some_and(|until| self.now < until)
        {
            return;
        }
        self.accepts.paused_until = None;
        if self.accepts.missing > 0 {
            // Near the limit few are armed: what is accepted beyond it has to wait with us.
            self.accepts
                .arm(self.shared.room(), self.now, &mut self.ring);
        }
    }

    /// Control has opened some listeners, and shut others. What is armed on those that were shut ends by itself.
    pub(super) fn accept_from(&mut self, open: &[bool]) {
        self.has_opened |= open.contains(&true);
        if !self.stopping {
            self.accepts.set_open(open.iter().copied());
        }
    }

    /// An accept is done.
    pub(super) fn accepted(&mut self, place: u16, result: i32) {
        let gate = self.accepts.disarmed(place);
        if result < 0 {
            self.accept_failed(gate, -result);
            return;
        }
        let listening = self.accepts.gates[gate].listening.as_ref();
        let listener = listening
            .expect("it stays while an accept is armed")
            .listener;
        let client = self.ring.accepted_from(place);
        self.welcome(Accepted {
            socket: Ring::accepted(result),
            listener,
            client,
        });
    }

    /// Accepts no more, once what waits in the kernel's queues has been taken.
    pub(super) fn stop_accepting(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.accepts.set_open(std::iter::repeat(false));
            self.accepts.closing = true;
            self.accepts.cancel_all(&mut self.ring);
            self.stop_datagrams();
        }
    }

    /// Takes what waits in the kernel's queues, so that closing the listeners loses nobody.
    fn drain_accepts(&mut self) {
        self.accepts.closing = false;
        let gates = self.accepts.gates.iter();
        for listening in gates
            .filter_map(|gate| gate.listening.clone())
            .collect::<Vec<_>>()
        {
            self.drain(&listening);
        }
        (self.reports)(Report::AcceptsDrained(self.id));
    }

    fn drain(&mut self, listening: &Listening) {
        for _ in 0..DRAINED_MOST {
            let Some((socket, client)) = socket::accept_waiting(&listening.socket) else {
                return;
            };
            self.welcome(Accepted {
                socket,
                listener: listening.listener,
                client,
            });
        }
    }

    /// Other sockets for some gates. Those that go are emptied first.
    pub(super) fn listen_on(&mut self, gates: Gates, open: &[bool]) {
        self.accepts.grow(gates.len());
        self.ring.allow_accepts(self.accepts.places());
        for (number, wanted) in gates.into_iter().enumerate() {
            self.accepts.change(number, wanted, &mut self.ring);
        }
        self.accept_from(open);
    }

    /// Whether every gate has the socket that it is to have.
    pub(super) fn has_settled_gates(&self) -> bool {
        self.accepts.changing == 0
    }

    /// Ends those who wait for room with a reset.
    pub(super) fn refuse_parked(&mut self) {
        for accepted in self.accepts.parked.drain(..) {
            socket::reset_on_close(accepted.socket.as_fd());
            self.cells.listener(accepted.listener).over_total.add(1);
            self.cells.accepts_parked.sub(1);
            self.cells.accepts_refused_total.add(1);
        }
    }

    fn accept_failed(&mut self, gate: usize, errno: i32) {
        if self.stopping || self.accepts.gates[gate].next.is_some() {
            // Cancelled, or the socket is shut down: an end, not an error.
            return;
        }
        if errno == libc::EINVAL {
            // Control has shut it. Its word is on the way: until then the socket is only looked at now and then.
            self.accepts.gates[gate].rests_until = Some(self.now + LOOK_AGAIN);
            return;
        }
        let cells = &self.cells;
        let counted = match errno {
            libc::EMFILE => &cells.accept_errors_emfile,
            libc::ENFILE => &cells.accept_errors_enfile,
            libc::ENOBUFS | libc::ENOMEM => &cells.accept_errors_memory,
            _ => &cells.accept_errors_other,
        };
        counted.add(1);
        match errno {
            // The client was gone before it was accepted, or is not permitted: the next one need not wait.
            libc::ECONNABORTED | libc::EPROTO | libc::EPERM => {}
            _ => self.accepts.paused_until = Some(self.now + PAUSE),
        }
    }

    /// A new connection: parked until there is room, behind those who wait already.
    fn welcome(&mut self, accepted: Accepted) {
        self.cells.accepts_total.add(1);
        self.cells.listener(accepted.listener).accepts_total.add(1);
        if self.accepts.parked.is_empty() && self.shared.admit() {
            self.place(accepted);
        } else {
            self.accepts.parked.push_back(accepted);
            self.cells.accepts_parked.add(1);
        }
    }

    /// An admitted connection: ours, or a clearly less loaded worker's.
    fn place(&mut self, accepted: Accepted) {
        let ours = self.shared.sessions(self.id);
        let (other, theirs) = self.shared.least_loaded();
        if self.stopping || ours <= theirs + CLEARLY_LESS + theirs / 8 {
            self.shared.count(self.id);
            self.begin_session(accepted);
            return;
        }
        self.shared.count(other);
        match self.mailboxes[other.index()].send(Command::Adopt(accepted)) {
            Ok(()) => self.cells.adoptions_total.add(1),
            Err(Command::Adopt(accepted)) => {
                self.shared.recount(other, self.id);
                self.cells.mailbox_full_total.add(1);
                self.begin_session(accepted);
            }
            Err(_) => unreachable!("the command comes back as it was"),
        }
    }

    fn serve_parked(&mut self) {
        while !self.accepts.parked.is_empty() && self.shared.admit() {
            let Some(accepted) = self.accepts.parked.pop_front() else {
                return;
            };
            self.cells.accepts_parked.sub(1);
            self.place(accepted);
        }
    }

    /// When to look again for room that other workers make, or for resources; none if nothing is waited for.
    pub(super) fn accept_again_at(&self) -> Option<Time> {
        let waits = !self.accepts.parked.is_empty() || self.accepts.missing > 0;
        waits.then(|| self.accepts.paused_until.unwrap_or(self.now + LOOK_AGAIN))
    }
}
