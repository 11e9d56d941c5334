//! A data-plane thread: one ring, its listening sockets, its sessions. The loop is [`Worker::run`]; it blocks nowhere
//! but in its ring's wait, takes no lock on the byte path and allocates nothing per read.
//!
//! A worker decides nothing about a session ([`crate::session`] does), owns no configuration (it reads a snapshot)
//! and opens no listener (control does).

mod accept;
mod access;
mod clearing;
mod explain;
mod held;
mod mailbox;
mod picks;
mod pipes;
mod pump;
mod shared;
mod slab;
mod sources;
mod sweep;
mod take_over;
mod tcp;
pub mod timers;
mod token;
mod udp;
mod view;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use accept::{Gates, Listening, accepts_of};
pub use explain::{Candidate, Explain, Explained};
pub use mailbox::{Accepted, Command, Mailbox, TakeOver};
pub use pipes::PIPE_SIZE;
pub use shared::Shared;
pub use sweep::{Clients, Filter, Reply, SessionFacts, SessionId, Sweep, Swept};
pub use udp::{Heard, LINES_ENDING};

use accept::Accepts;
use mailbox::Inbox;
use picks::Picks;
use pipes::Pipes;
use slab::Slab;
use sources::Sources;
use tcp::Slot;
use timers::Timers;
use token::{Key, SLOTS_MAX, Token};
use udp::Udp;

use crate::access::Sink;
use crate::control::snapshot::Snapshot;
use crate::ids::{BackendId, ListenerId, PoolId, WorkerId};
use crate::metrics::WorkerCells;
use crate::ring::{Completion, POLL_READABLE, ReceiveTier, Ring, Setup, SetupError};
use crate::session::{CloseReason, Event, Links, Rules, Side};
use crate::sys::clock::Clock;
use crate::time::Time;
use crate::vrrp::Ticket;

/// Receive buffers of one worker: 8 MiB.
const BUFFERS: u16 = 512;
const BUFFER_SIZE: u32 = 16 * 1024;

/// After a turn that brought so many completions the next ones are gathered: few at a time do not wait for each other.
const CROWD: usize = 8;

/// What bounds a worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions of the whole process.
    pub max_sessions: u32,
    /// UDP flows of this worker.
    pub max_flows: u32,
    /// Pipes of this worker.
    pub pipes: usize,
    /// Bytes held in memory for targets that take no more, from which on this worker receives in small portions.
    pub spill_memory: u64,
}

/// What a worker is made from.
#[derive(Debug)]
pub struct Parts {
    /// Which one it is.
    pub id: WorkerId,
    /// What time it is.
    pub clock: Clock,
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Its listening sockets for connections.
    pub sockets: Vec<Listening>,
    /// Which listener each of its places for datagrams belongs to.
    pub places: Vec<ListenerId>,
    /// How to receive.
    pub tier: ReceiveTier,
    /// What bounds it.
    pub limits: Limits,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// What it counts.
    pub cells: Arc<WorkerCells>,
    /// Where what ended is told; none = nowhere.
    pub access: Option<Sink>,
}

/// What a worker reports to control.
#[derive(Debug)]
pub enum Report {
    /// It can accept.
    Ready(WorkerId),
    /// Nothing waits in its listeners' queues any more.
    AcceptsDrained(WorkerId),
    /// A connect to this backend failed, after others had succeeded.
    Doubted(BackendId),
    /// Several connects in a row to this backend failed, the last one with this errno: others are preferred.
    Avoided {
        /// Which one.
        backend: BackendId,
        /// Why.
        errno: i32,
    },
    /// Connects to this backend found no free port at a source address; none = the one that the kernel chose. Told
    /// once in a while.
    SourceExhausted {
        /// To which one.
        backend: BackendId,
        /// From where.
        source: Option<IpAddr>,
    },
    /// This host does not have a source address. Told once in a while.
    SourceAbsent {
        /// Of which pool.
        pool: PoolId,
        /// Which one.
        source: IpAddr,
    },
    /// It sees a newer snapshot; this is the one before.
    Replaced(Arc<Snapshot>),
    /// It has changed over to the configuration of this generation, and to its sockets.
    TakenOver(WorkerId, u64),
    /// No session of it is on the addresses of this ticket any more.
    AddressesCleared(Ticket),
    /// It has no session left and has stopped.
    Stopped(WorkerId),
    /// It cannot go on.
    Failed(WorkerId, Failure),
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No ring.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The ring broke.
    #[error("io_uring_enter failed: {0}")]
    Ring(io::Error),
}

/// Both ends of a mailbox: the first for everybody, the second for the worker.
#[derive(Debug)]
pub struct Letterbox {
    /// For everybody.
    pub mailbox: Mailbox,
    inbox: Inbox,
}

impl Letterbox {
    /// A new one.
    ///
    /// # Errors
    /// When there is no file descriptor for it.
    pub fn new() -> io::Result<Letterbox> {
        let (mailbox, inbox) = mailbox::mailbox()?;
        Ok(Letterbox { mailbox, inbox })
    }
}

/// See the module's text.
pub struct Worker {
    id: WorkerId,
    snapshot: Arc<Snapshot>,
    rules: Vec<Rc<Rules>>,
    limits: Limits,
    shared: Arc<Shared>,
    cells: Arc<WorkerCells>,
    access: Option<Sink>,
    inbox: Inbox,
    mailboxes: Vec<Mailbox>,
    reports: Box<dyn Fn(Report)>,
    clock: Clock,
    now: Time,
    /// Clients have been let in.
    has_opened: bool,
    ring: Ring,
    links: Links,
    pipes: Pipes,
    picks: Picks,
    sources: Sources,
    accepts: Accepts,
    slots: Slab<Slot>,
    timers: Timers,
    udp: Udp,
    /// Sessions that changed in this turn.
    dirty: Vec<Key>,
    /// Sessions that go on in the next turn, having used up their budget.
    next_turn: Vec<Key>,
    /// Receives that wait for a buffer.
    starved: VecDeque<(Key, Side)>,
    /// Sessions that changed and are on their way out.
    endings: VecDeque<Key>,
    /// Sessions that hold still; thawed when all do.
    frozen: Vec<Key>,
    freezing: bool,
    /// Of the configuration that it changes over to.
    taking_over: Option<u64>,
    /// Sessions that end because their address goes, by ticket.
    clearing: Vec<(Ticket, Vec<Key>)>,
    due: Vec<u32>,
    stopping: bool,
    /// Every session is to end for this reason, those that are still to come included.
    killing: Option<CloseReason>,
}

impl Worker {
    /// Makes the ring and everything else a worker needs, on the thread that will run it.
    ///
    /// # Errors
    /// When the host gives no ring.
    pub fn new(
        parts: Parts,
        letterbox: Letterbox,
        mailboxes: Vec<Mailbox>,
        reports: Box<dyn Fn(Report)>,
    ) -> Result<Worker, SetupError> {
        let places = u16::try_from(accepts_of(parts.sockets.len())).unwrap_or(u16::MAX);
        let setup = Setup {
            tier: parts.tier,
            buffers: BUFFERS,
            buffer_size: BUFFER_SIZE,
            accepts: places,
            datagrams: if parts.places.is_empty() {
                0
            } else {
                udp::BUFFERS
            },
        };
        let (pipes, fewer) = Pipes::new(parts.limits.pipes);
        if let Some(error) = fewer {
            tracing::warn!(wanted = parts.limits.pipes, made = pipes.total(), %error, "fewer splice pipes than wanted");
        }
        let worker = Worker {
            has_opened: false,
            ring: Ring::new(setup)?,
            links: Links::new(BUFFERS),
            picks: Picks::new(&parts.snapshot, parts.id),
            sources: Sources::new(parts.snapshot.pools.len(), parts.id),
            accepts: Accepts::new(parts.sockets),
            slots: Slab::new(parts.limits.max_sessions.min(SLOTS_MAX)),
            udp: Udp::new(&parts.places, parts.limits.max_flows.min(SLOTS_MAX)),
            rules: parts
                .snapshot
                .pools
                .iter()
                .map(|pool| Rc::new(pool.rules.clone()))
                .collect(),
            id: parts.id,
            snapshot: parts.snapshot,
            limits: parts.limits,
            shared: parts.shared,
            cells: parts.cells,
            access: parts.access,
            inbox: letterbox.inbox,
            mailboxes,
            reports,
            clock: parts.clock,
            now: parts.clock.now(),
            pipes,
            timers: Timers::default(),
            dirty: Vec::new(),
            next_turn: Vec::new(),
            starved: VecDeque::new(),
            endings: VecDeque::new(),
            frozen: Vec::new(),
            freezing: false,
            taking_over: None,
            clearing: Vec::new(),
            due: Vec::new(),
            stopping: false,
            killing: None,
        };
        Ok(worker)
    }

    /// The loop: submit and wait, take in what happened, ask the sessions that changed what to do.
    ///
    /// # Errors
    /// When the ring breaks.
    pub fn run(mut self) -> Result<(), Failure> {
        self.ring
            .poll(self.inbox.wake_fd(), POLL_READABLE, Token::Wake.encode());
        (self.reports)(Report::Ready(self.id));
        let mut completions = Vec::new();
        let mut brought = 0;
        while !self.is_done() {
            self.count_gauges();
            let gather = brought >= CROWD;
            self.ring
                .enter(self.patience(), gather)
                .map_err(Failure::Ring)?;
            brought = 0;
            self.now = self.clock.now();
            self.begin_turn();
            self.begin_datagrams();
            loop {
                self.ring.completions(&mut completions);
                if completions.is_empty() {
                    break;
                }
                brought += completions.len();
                completions
                    .drain(..)
                    .for_each(|completion| self.complete(completion));
                // A kernel since 6.13 hands out 20 at a time. Of a mass of endings each leaves several, and everybody
                // else's completions come behind those: all there are are taken before more is ended.
                if self.is_ending_a_mass() || self.udp.is_ending_a_mass() {
                    self.ring
                        .enter(Some(Duration::ZERO), false)
                        .map_err(Failure::Ring)?;
                }
            }
            self.send_runs();
            self.expire_timers();
            self.expire_flows();
            self.read_mail();
            self.run_dirty();
            self.feed_starved();
            self.thaw_when_all_hold_still();
            self.run_dirty();
            self.accept_more();
            self.run_dirty();
            self.run_endings();
            self.end_lines();
            self.report_cleared();
            self.report_taken_over();
        }
        self.count_gauges();
        (self.reports)(Report::Stopped(self.id));
        Ok(())
    }

    /// How long the ring may wait: not at all while something is left to do.
    fn patience(&self) -> Option<Duration> {
        let fed = !self.starved.is_empty() && self.ring.free_buffers() > 0;
        if !self.next_turn.is_empty() || !self.endings.is_empty() || !self.inbox.is_empty() || fed {
            return Some(Duration::ZERO);
        }
        let accept = self.accept_again_at().map(|at| at - self.now);
        let has_buffers = self.ring.free_datagram_buffers() > 0;
        let datagrams = self.udp.patience(self.now, has_buffers);
        if datagrams == Some(Duration::ZERO) {
            return datagrams;
        }
        let timer = self.timers.next_in(self.now);
        let soonest = timer.into_iter().chain(accept).chain(datagrams).min();
        // A timeout of zero only looks; a deadline that has come is handled by the turn itself.
        soonest.map(|patience| patience.max(Duration::from_micros(1)))
    }

    fn complete(&mut self, completion: Completion) {
        if let Some(buffer) = completion.buffer {
            self.ring.taken(buffer);
        }
        match Token::decode(completion.token) {
            Some(Token::Session {
                operation,
                side,
                key,
            }) => self.session_completion(operation, side, key, completion),
            Some(Token::Cancel {
                operation,
                side,
                key,
            }) => self.cancel_completion(operation, side, key),
            Some(Token::Accept { place }) => self.accepted(place, completion.result),
            // The accept reports for itself.
            Some(Token::CancelAccept { .. }) => self.accepts.cancelled(),
            Some(Token::Wake) if completion.more => {}
            Some(Token::Wake) => {
                self.ring
                    .poll(self.inbox.wake_fd(), POLL_READABLE, Token::Wake.encode())
            }
            Some(Token::Datagrams(operation)) => self.datagrams_completion(operation, completion),
            None => self.cells.stale_completions_total.add(1),
        }
    }

    fn read_mail(&mut self) {
        while let Some(command) = self.inbox.take() {
            match command {
                Command::Adopt(accepted) => self.begin_session(accepted),
                Command::Accept(open) => self.accept_from(&open),
                Command::Hear(heard) => self.hear(&heard),
                Command::See(snapshot) => self.see(snapshot),
                Command::TakeOver(other) => self.take_over(*other),
                Command::Trust(backend) => self.picks.forget_failures(backend, &self.cells),
                Command::StopAccepting => self.stop_accepting(),
                Command::Kill(reason) => {
                    self.killing = Some(reason);
                    self.stop_accepting();
                    let keys: Vec<_> = self.slots.keys().collect();
                    keys.into_iter()
                        .for_each(|key| self.tell(key, Event::Kill(reason)));
                    self.refuse_parked();
                    self.end_flows(reason);
                }
                Command::ClearAddresses(addresses, ticket) => {
                    self.clear_addresses(&addresses, ticket);
                }
                Command::Beat(progress) => progress.beat(1 + self.id.index()),
                Command::Sweep(sweep) => self.sweep(sweep),
                Command::Explain(explain) => self.explain(explain),
                Command::FreezeAndThaw => self.freeze_all(),
            }
        }
    }

    fn freeze_all(&mut self) {
        if !self.freezing {
            self.freezing = true;
            let keys: Vec<_> = self.slots.keys().collect();
            for key in keys {
                self.tell(key, Event::Freeze);
            }
        }
    }

    /// Those that are ending do not freeze, and new ones may have come: only those that were told are waited for.
    fn thaw_when_all_hold_still(&mut self) {
        if !self.freezing || self.any_freezing() {
            return;
        }
        self.freezing = false;
        for key in std::mem::take(&mut self.frozen) {
            if self.is_frozen(key) {
                self.cells.freezes_total.add(1);
                self.tell(key, Event::Thaw);
            }
        }
    }

    fn count_gauges(&mut self) {
        let cells = &self.cells;
        cells.turns_total.add(1);
        cells
            .cq_overflows_total
            .add(u64::from(self.ring.new_overflows()));
        cells.buffers_total.set(u64::from(BUFFERS));
        cells.buffers_free.set(u64::from(self.ring.free_buffers()));
        cells.pipes_total.set(self.pipes.total() as u64);
        cells.pipes_free.set(self.pipes.free() as u64);
        cells.slots_used.set(self.slots.len() as u64);
        self.count_datagram_gauges();
    }

    fn is_done(&self) -> bool {
        self.stopping
            && self.slots.len() == 0
            && self.udp.is_done()
            && self.accepts.parked.is_empty()
            && self.accepts.are_drained()
            && self.inbox.is_empty()
    }
}
