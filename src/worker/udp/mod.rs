//! UDP on the ring: datagrams of clients come in through *places*, the worker's own sockets of the listeners'
//! addresses, and go out on *lines*, one connected socket for each flow. Which flow a datagram belongs to, and when one
//! is over, [`crate::flow`] says.
//!
//! Nothing here waits: a datagram that cannot be sent at once is lost, and counted.

mod endings;
mod lines;
mod places;
mod runs;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Worker;
use super::picks::Tried;
use super::slab::Slab;
use super::timers::Timers;
use super::token::{Datagrams, Key};
use crate::flow::{Due, FlowId, Table};
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::ring::Completion;
use crate::session::CloseReason;
use crate::time::Time;

use endings::Endings;
use lines::{Asking, Line};
use places::Place;
use runs::Run;

pub use places::Heard;

/// Buffers for datagrams of one worker, each for the largest one: 16 MiB, of which only what was used takes memory.
pub(super) const BUFFERS: u16 = 256;

/// Sockets of ended flows that may wait to be closed while all flows that there may be live.
pub const LINES_ENDING: u32 = 256;

/// Once the process is to stop, answers to what was asked before are waited for so long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What one worker knows of UDP.
pub(super) struct Udp {
    places: Vec<Place>,
    table: Table<Key>,
    lines: Slab<Line>,
    timers: Timers,
    due: Vec<u32>,
    /// What is to be sent to a backend next.
    requests: Option<Run<Asking>>,
    /// What is to be sent to the client of a line next.
    replies: Option<Run<Key>>,
    /// Backends that refused a flow which has had no reply since.
    refusals: HashMap<FlowId, Tried>,
    /// Receives that found no buffer.
    dry: VecDeque<Dry>,
    /// Lines that are nobody's any more.
    endings: Endings,
    /// The pool whose flows lacked a port, a file or memory last, and when.
    lacked: Option<(PoolId, Time)>,
}

/// What waits for a buffer to receive into.
enum Dry {
    Place(u16),
    Line(Key),
}

impl Udp {
    /// So many flows at a time.
    pub(super) fn new(places: &[ListenerId], max_flows: u32) -> Udp {
        Udp {
            places: places.iter().copied().map(Place::new).collect(),
            table: Table::new(max_flows),
            lines: Slab::new(max_flows.saturating_add(LINES_ENDING)),
            timers: Timers::default(),
            due: Vec::new(),
            requests: None,
            replies: None,
            refusals: HashMap::new(),
            dry: VecDeque::new(),
            endings: Endings::default(),
            lacked: None,
        }
    }

    /// Whether nothing of it is in the kernel and no flow is left.
    pub(super) fn is_done(&self) -> bool {
        self.table.is_empty() && self.lines.len() == 0 && self.is_silent()
    }

    /// Whether there are any places for datagrams.
    pub(super) fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether every place has the socket that it is to have.
    pub(super) fn has_settled(&self) -> bool {
        self.places.iter().all(Place::has_settled)
    }

    /// Whether so many lines are on their way out that the others have to be protected from them.
    pub(super) fn is_ending_a_mass(&self) -> bool {
        self.endings.are_a_mass()
    }

    fn listener_of(&self, id: FlowId) -> ListenerId {
        self.places[usize::from(self.table.client(id).place)].listener
    }

    /// Whether nothing is received from clients.
    pub(super) fn is_silent(&self) -> bool {
        self.places.iter().all(Place::is_silent)
    }

    /// How long nothing will be due, seen from `now`; none if nothing ever will. Whether buffers are free decides
    /// whether receives that wait for some can go on.
    pub(super) fn patience(&self, now: Time, buffers: bool) -> Option<Duration> {
        if (!self.dry.is_empty() && buffers) || !self.endings.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.next_in(now)
    }
}

impl Worker {
    /// A completion of something of UDP.
    pub(super) fn datagrams_completion(&mut self, operation: Datagrams, completion: Completion) {
        match operation {
            Datagrams::Place(place) => self.place_completion(place, completion),
            // The receive reports for itself.
            Datagrams::CancelPlace(place) => self.udp.places[usize::from(place)].cancelled(),
            Datagrams::Line(key) => self.line_completion(key, completion),
            Datagrams::CancelLine(key) => self.line_cancelled(key),
        }
    }

    /// As many receives that found no buffer go on as there are buffers, first come, first served.
    pub(super) fn begin_datagrams(&mut self) {
        for _ in 0..self.ring.free_datagram_buffers() {
            match self.udp.dry.pop_front() {
                Some(Dry::Place(place)) => self.listen_at(place),
                Some(Dry::Line(key)) => self.hear_line(key),
                None => return,
            }
        }
    }

    /// Flows whose time may have come.
    pub(super) fn expire_flows(&mut self) {
        let mut due = std::mem::take(&mut self.udp.due);
        self.udp.timers.expire(self.now, &mut due);
        for slot in due.drain(..) {
            match self.udp.table.look(FlowId(slot), self.now) {
                Some(Due::Idle(gone)) => self.flow_gone(&gone, CloseReason::IdleTimeout),
                Some(Due::Later(_)) if self.stopping => {
                    self.end_flow(FlowId(slot), CloseReason::Shutdown);
                }
                Some(Due::Later(deadline)) => self.udp.timers.set(slot, Some(deadline)),
                None => {}
            }
        }
        self.udp.due = due;
    }

    /// Takes no more from clients. Flows that wait for an answer have a moment to get it.
    pub(super) fn stop_datagrams(&mut self) {
        self.leave_places();
        let ids: Vec<FlowId> = self.udp.table.ids().collect();
        for id in ids {
            if self.udp.table.waits(id) {
                let until = self.now + LAST_ANSWERS;
                self.udp.timers.set(id.0, Some(until));
            } else {
                self.end_flow(id, CloseReason::Shutdown);
            }
        }
    }

    pub(super) fn count_datagram_gauges(&self) {
        let cells = &self.cells;
        if !self.udp.places.is_empty() {
            cells.lines_used.set(self.udp.lines.len() as u64);
            cells.datagram_buffers_total.set(u64::from(BUFFERS));
            let free = self.ring.free_datagram_buffers();
            cells.datagram_buffers_free.set(u64::from(free));
        }
    }

    /// Ends every flow.
    pub(super) fn end_flows(&mut self, reason: CloseReason) {
        let ids: Vec<FlowId> = self.udp.table.ids().collect();
        ids.into_iter().for_each(|id| self.end_flow(id, reason));
    }

    /// Other places, and other listeners for some. The flows of a place belong to its listener, and end with that.
    pub(super) fn change_places(&mut self, places: &[Option<ListenerId>]) {
        for (index, listener) in (0_u16..).zip(places) {
            match (self.udp.places.get(usize::from(index)), listener) {
                (Some(place), Some(listener)) if place.listener == *listener => {}
                (Some(_), _) => self.end_flows_of(index),
                (None, _) => {}
            }
            match (self.udp.places.get_mut(usize::from(index)), listener) {
                (Some(place), Some(listener)) => place.listener = *listener,
                (Some(_), None) => {}
                (None, listener) => {
                    let listener = listener.unwrap_or(ListenerId(0));
                    self.udp.places.push(Place::new(listener));
                }
            }
        }
    }

    fn end_flows_of(&mut self, place: u16) {
        let ids: Vec<FlowId> = self.udp.table.ids().collect();
        for id in ids {
            if self.udp.table.client(id).place == place {
                self.end_flow(id, CloseReason::Operator);
            }
        }
    }

    /// Flows that lead to such a backend are to lead elsewhere from their next datagrams on.
    pub(super) fn strand_flows(&mut self, lost: impl Fn(BackendId) -> Option<CloseReason>) {
        if self.udp.lines.len() == 0 {
            return;
        }
        let keys: Vec<Key> = self.udp.lines.keys().collect();
        for key in keys {
            let line = self.udp.lines.get(key);
            let backend = line.and_then(|line| line.flow().map(|_| line.backend()));
            if let Some(reason) = backend.and_then(&lost) {
                self.strand(key, reason);
            }
        }
    }
}
