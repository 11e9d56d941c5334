//! Accepting: a bounded number of one-shot accepts per listening socket, paused while there is no room. Which worker
//! serves a connection is decided here, before a byte is read.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use super::Worker;
use super::mailbox::{Accepted, Command};
use super::token::Token;
use crate::ids::ListenerId;
use crate::ring::Ring;
use crate::sys::socket;
use crate::time::Time;

/// Accepts armed per listening socket, and over all of a worker's.
const PER_SOCKET: usize = 16;
const PER_WORKER: usize = 1024;

/// After an accept failed for want of resources, nothing is accepted for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// While `max_sessions` is reached, other workers may make room: look again after so long.
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

/// The accepts of one worker.
pub(super) struct Accepts {
    sockets: Vec<Listening>,
    /// For each place: which socket its accepts are for, and whether one is armed.
    places: Vec<(usize, bool)>,
    armed: usize,
    pub(super) open: bool,
    paused_until: Option<Time>,
    /// Accepted beyond `max_sessions`: they wait here as they would in the kernel.
    pub(super) parked: std::collections::VecDeque<Accepted>,
}

impl Accepts {
    pub(super) fn new(sockets: Vec<Listening>) -> Accepts {
        let each = (PER_WORKER / sockets.len().max(1)).clamp(1, PER_SOCKET);
        let places = (0..sockets.len())
            .flat_map(|socket| std::iter::repeat_n((socket, false), each))
            .collect();
        Accepts {
            sockets,
            places,
            armed: 0,
            open: false,
            paused_until: None,
            parked: std::collections::VecDeque::new(),
        }
    }

    /// Accepts that may be armed at once, for so many sockets.
    pub(super) fn places(sockets: usize) -> usize {
        sockets * (PER_WORKER / sockets.max(1)).clamp(1, PER_SOCKET)
    }

    /// Whether an accept is still in the kernel.
    pub(super) fn any_armed(&self) -> bool {
        self.armed > 0
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

    fn arm_all(&mut self, ring: &mut Ring) {
        for (place, (socket, armed)) in (0..).zip(&mut self.places) {
            if !*armed {
                *armed = true;
                self.armed += 1;
                ring.accept(
                    self.sockets[*socket].socket.as_raw_fd(),
                    place,
                    Token::Accept { place }.encode(),
                );
            }
        }
    }
}

impl Worker {
    /// Arms accepts again where there is room for sessions, and serves those who wait.
    pub(super) fn accept_more(&mut self) {
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
        let unarmed = self.accepts.armed < self.accepts.places.len();
        if self.accepts.open && unarmed && self.shared.has_room() {
            self.accepts.arm_all(&mut self.ring);
        }
    }

    /// An accept is done.
    pub(super) fn accepted(&mut self, place: u16, result: i32) {
        let (socket, armed) = &mut self.accepts.places[usize::from(place)];
        let listener = self.accepts.sockets[*socket].listener;
        *armed = false;
        self.accepts.armed -= 1;
        if result < 0 {
            self.accept_failed(-result);
            return;
        }
        let client = self.ring.accepted_from(place);
        self.welcome(Accepted {
            socket: Ring::accepted(result),
            listener,
            client,
        });
    }

    /// Takes what waits in the kernel's queues, so that closing the listeners loses nobody.
    pub(super) fn drain_accepts(&mut self) {
        self.accepts.open = false;
        for listening in self.accepts.sockets.clone() {
            while let Some((socket, client)) = socket::accept_waiting(&listening.socket) {
                self.welcome(Accepted {
                    socket,
                    listener: listening.listener,
                    client,
                });
            }
        }
    }

    /// Ends those who wait for room with a reset.
    pub(super) fn refuse_parked(&mut self) {
        for accepted in self.accepts.parked.drain(..) {
            socket::reset_on_close(accepted.socket.as_fd());
            self.cells.accepts_parked.sub(1);
        }
    }

    fn accept_failed(&mut self, errno: i32) {
        let cells = &self.cells;
        let scarce = match errno {
            libc::EMFILE => &cells.accept_errors_emfile,
            libc::ENFILE => &cells.accept_errors_enfile,
            libc::ENOBUFS | libc::ENOMEM => &cells.accept_errors_memory,
            // The listener was shut down or the accept cancelled: that is an end, not an error.
            libc::EINVAL | libc::ECANCELED => {
                self.accepts.open = false;
                return;
            }
            _ => {
                cells.accept_errors_other.add(1);
                return;
            }
        };
        scarce.add(1);
        self.accepts.pause_if_scarce(errno, self.now);
    }

    /// A new connection: parked until there is room, behind those who wait already.
    fn welcome(&mut self, accepted: Accepted) {
        self.cells.accepts_total.add(1);
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
        if ours <= theirs + CLEARLY_LESS + theirs / 8 {
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
        let waits = !self.accepts.parked.is_empty()
            || (self.accepts.open && self.accepts.armed < self.accepts.places.len());
        waits.then(|| self.accepts.paused_until.unwrap_or(self.now + LOOK_AGAIN))
    }
}
