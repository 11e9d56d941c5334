//! Flows and their lines: a flow begins with a datagram that belongs to none, leads to one backend, and goes on with
//! another one when that refuses it or goes down.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::SockAddr;

use super::super::access::{Led, Traffic};
use super::super::picks::{Picked, Tried};
use super::super::token::{Datagrams, Key, Token};
use super::super::{Report, Worker};
use super::Dry;
use super::runs::{self, Run};
use crate::balance::{Arrival, Sample};
use crate::flow::{Client, FlowId, Gone, Loss, Request};
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::ring::{Completion, Message, Payload};
use crate::session::{CloseReason, Direction};
use crate::sys::datagram;
use crate::time::Time;

/// The socket of a flow, connected to its backend.
pub(super) struct Line {
    socket: OwnedFd,
    /// None once the flow has ended, or leads elsewhere: what still comes is not for anybody.
    flow: Option<FlowId>,
    /// The flow has had all its replies, so that none of them is missing.
    is_complete: bool,
    backend: BackendId,
    /// When it was opened.
    since: Time,
    /// Where replies go: from this place.
    place: u16,
    client: SockAddr,
    /// From this address of ours, if the place has several.
    local: Option<IpAddr>,
    is_armed: bool,
    /// A cancel has not completed.
    is_cancelled: bool,
    /// What is too large for the path leaves in fragments.
    fragments: bool,
    /// For the access log, if there is one.
    traffic: Option<Box<Traffic>>,
}

impl Line {
    pub(super) fn flow(&self) -> Option<FlowId> {
        self.flow
    }

    pub(super) fn backend(&self) -> BackendId {
        self.backend
    }

    fn allow_fragments(&mut self) {
        self.fragments = true;
        datagram::allow_fragments(self.socket.as_fd());
    }

    /// Sends datagrams that can leave together.
    fn send(&mut self, all: &[IoSlice<'_>]) -> Sent {
        let is_large = all.iter().any(|one| one.len() > datagram::FITS_EVERYWHERE);
        if is_large && !self.fragments {
            self.allow_fragments();
        }
        let sent = self.send_as_it_is(all);
        if !datagram::is_too_big(&sent.result) || self.fragments {
            return sent;
        }
        self.allow_fragments();
        self.send_as_it_is(all)
    }

    /// A router's word about an earlier datagram says nothing about these: they are sent once more.
    fn send_as_it_is(&self, all: &[IoSlice<'_>]) -> Sent {
        let first = datagram::send(self.socket.as_fd(), all);
        if !datagram::is_too_big(&first) {
            return Sent {
                result: first,
                was_earlier_lost: false,
            };
        }
        let result = datagram::send(self.socket.as_fd(), all);
        let was_earlier_lost = !datagram::is_too_big(&result);
        Sent {
            result,
            was_earlier_lost,
        }
    }
}

/// What a send on a line came to.
struct Sent {
    result: io::Result<()>,
    /// A router has said that an earlier datagram was too large for the path.
    was_earlier_lost: bool,
}

/// Which client's datagrams are to leave together, and by which line.
pub(super) struct Asking {
    client: Client,
    key: Key,
}

impl Worker {
    // --- from the client ---

    /// A datagram of a client: to the backend of its flow, which may have to begin first. It leaves with the next one
    /// that cannot leave together with it, or at the end of the turn.
    pub(super) fn take_request(&mut self, place: u16, message: &Message) {
        let client = Client {
            place,
            address: message.from,
            local: message.to,
        };
        let payload = message.payload;
        let joins = |run: &Run<Asking>| run.whose.client == client && run.takes(payload);
        if !self.udp.requests.as_ref().is_some_and(joins) {
            self.send_requests();
        }
        let listener = self.udp.places[usize::from(place)].listener;
        self.cells.listener(listener).received.add(payload.len);
        match self.lead(&client, listener) {
            Ok((id, key, is_last)) => {
                self.join_requests(client, key, payload);
                if is_last {
                    self.send_requests();
                    self.done(id, key);
                }
            }
            Err(loss) => {
                self.cells.lost(listener, loss);
                self.drop_payload(payload);
            }
        }
    }

    fn join_requests(&mut self, client: Client, key: Key, payload: Payload) {
        match &mut self.udp.requests {
            Some(run) if run.whose.key == key => run.parts.push(payload),
            Some(_) | None => {
                self.send_requests();
                let run = Run::begin(Asking { client, key }, payload);
                self.udp.requests = Some(run);
            }
        }
    }

    /// Sends what waits for more of its kind, either way.
    pub(in crate::worker) fn send_runs(&mut self) {
        self.send_requests();
        self.send_replies();
    }

    fn send_requests(&mut self) {
        let Some(Run { whose, parts }) = self.udp.requests.take() else {
            return;
        };
        let Asking { client, key } = whose;
        let listener = self.udp.places[usize::from(client.place)].listener;
        let together = self.forward(key, &parts);
        let one_by_one = runs::are_to_go_apart(&parts, together);
        for payload in parts {
            let mut sent = together;
            if one_by_one {
                sent = self.forward(key, &[payload]);
            }
            if sent == Err(Loss::Refused) {
                // That was the answer to an earlier one, or the flow has ended since. These go another way.
                sent = self.pass_on(&client, listener, payload);
            }
            if let Err(loss) = sent {
                self.cells.lost(listener, loss);
            }
            self.drop_payload(payload);
        }
    }

    fn pass_on(
        &mut self,
        client: &Client,
        listener: ListenerId,
        payload: Payload,
    ) -> Result<(), Loss> {
        let (id, key, is_last) = self.lead(client, listener)?;
        let sent = self.forward(key, &[payload]);
        if is_last {
            self.done(id, key);
        }
        sent
    }

    /// A flow has had all that was expected, unless a refusal has ended it, or left it without this line.
    fn done(&mut self, id: FlowId, key: Key) {
        let line = self.udp.lines.get(key);
        if line.is_some_and(|line| line.flow == Some(id)) {
            self.end_flow(id, CloseReason::FlowDone);
        }
    }

    /// The flow and the line that the client's datagram belongs to, and whether the flow ends with it.
    fn lead(&mut self, client: &Client, listener: ListenerId) -> Result<(FlowId, Key, bool), Loss> {
        let found = match self.udp.table.request(client, self.now) {
            found @ Request::Forward { .. } => found,
            Request::Stranded(id) => {
                self.move_flow(id, client, listener)?;
                self.udp.table.request(client, self.now)
            }
            Request::Nobody => {
                self.begin_flow(client, listener)?;
                self.udp.table.request(client, self.now)
            }
        };
        match found {
            Request::Forward { id, line, is_last } => Ok((id, line, is_last)),
            Request::Stranded(_) | Request::Nobody => unreachable!("it has just got a line"),
        }
    }

    /// Sends datagrams along a line, all of one length. A line that leads nowhere any more refuses.
    fn forward(&mut self, key: Key, parts: &[Payload]) -> Result<(), Loss> {
        let line = self.udp.lines.get(key);
        let Some(line) = line.filter(|line| line.flow.is_some()) else {
            return Err(Loss::Refused);
        };
        let (backend, since) = (line.backend, line.since);
        let sent = line.send(&runs::slices(&self.ring, parts));
        if let (Ok(()), Some(traffic)) = (&sent.result, &mut line.traffic) {
            let all = parts.iter();
            all.for_each(|payload| traffic.add(Direction::ToBackend, payload.len));
        }
        if sent.was_earlier_lost {
            self.lose(key, Loss::TooBig);
        }
        let Err(error) = sent.result else {
            let cells = &self.cells.backend(backend).sent;
            parts.iter().for_each(|payload| cells.add(payload.len));
            self.picks.unrefused(backend, since, self.now, &self.cells);
            return Ok(());
        };
        match error.raw_os_error().unwrap_or(libc::EINVAL) {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Err(Loss::Blocked),
            libc::EMSGSIZE => Err(Loss::TooBig),
            // Perhaps only because there are several.
            libc::EPERM | libc::EINVAL | libc::EIO if parts.len() > 1 => Err(Loss::SendFailed),
            // A firewall, a route into nowhere: that does not pass by itself.
            errno @ (libc::EPERM | libc::EINVAL | libc::EIO) => {
                self.refused(key, errno);
                Err(Loss::SendFailed)
            }
            // The answer to an earlier datagram, or the lack of a way to the backend.
            errno => {
                self.refused(key, errno);
                Err(Loss::Refused)
            }
        }
    }

    fn begin_flow(&mut self, client: &Client, listener: ListenerId) -> Result<(), Loss> {
        if self.stopping {
            return Err(Loss::Stopping);
        }
        if !self.udp.table.has_room() {
            return Err(Loss::Full);
        }
        let pool = self.picks.pool(&self.snapshot, listener);
        let key = self.open_line(client, pool, &Tried::new())?;
        let rules = self.snapshot.pools[pool.index()].flows;
        let begun = self.udp.table.begin(*client, rules, key, self.now);
        let (id, evicted) = begun.expect("there was room");
        if let Some(gone) = evicted {
            self.flow_gone(&gone, CloseReason::Evicted);
        }
        self.lead_line_to(key, id);
        self.shared.enter(listener, None);
        self.cells.flows_total.add(1);
        self.cells.flows_active.add(1);
        self.cells.listener(listener).flows_total.add(1);
        Ok(())
    }

    /// A flow that has lost its backend goes on with another one; with one that has refused it only if there is no
    /// other.
    fn move_flow(&mut self, id: FlowId, client: &Client, listener: ListenerId) -> Result<(), Loss> {
        if self.stopping {
            return Err(Loss::Stopping);
        }
        let pool = self.picks.pool(&self.snapshot, listener);
        let tried = self.udp.refusals.get(&id).cloned().unwrap_or_default();
        let key = match self.open_line(client, pool, &tried) {
            Err(Loss::NoBackend) if !tried.is_empty() => {
                self.udp.refusals.remove(&id);
                self.open_line(client, pool, &Tried::new())?
            }
            opened => opened?,
        };
        let rules = self.snapshot.pools[pool.index()].flows;
        self.udp.table.attach(id, rules, key, self.now);
        self.lead_line_to(key, id);
        self.shared.enter(listener, None);
        self.cells.flows_moved_total.add(1);
        Ok(())
    }

    fn lead_line_to(&mut self, key: Key, id: FlowId) {
        if let Some(line) = self.udp.lines.get(key) {
            line.flow = Some(id);
        }
        let deadline = self.udp.table.deadline(id);
        self.udp.timers.set(id.0, Some(deadline));
        self.hear_line(key);
    }

    /// A line to a backend that the pool picks, and that this host has a way to. Its flow counts there from now on.
    fn open_line(&mut self, client: &Client, pool: PoolId, tried: &Tried) -> Result<Key, Loss> {
        if !self.udp.lines.has_room() || self.udp.lacked == Some((pool, self.now)) {
            return Err(Loss::OutOfResources);
        }
        let mut address = client.address;
        address.set_ip(address.ip().to_canonical());
        let arrival = Arrival {
            client: Some(address),
            now: self.now,
        };
        let mut tried = tried.clone();
        let mut nobody = Loss::NoBackend;
        loop {
            let picked = self
                .picks
                .pick(&self.snapshot, pool, &tried, &arrival, &self.shared);
            let backend = match picked {
                Picked::Backend(backend) => backend,
                Picked::AllFull => return Err(Loss::Limit),
                Picked::Nobody => return Err(nobody),
            };
            let errno = match self.connect_line(pool, backend) {
                Ok(socket) => return Ok(self.keep_line(socket, backend, client)),
                Err(errno) => errno,
            };
            self.shared.disclaim(backend);
            if is_scarce(errno) {
                self.make_room(pool);
                return Err(Loss::OutOfResources);
            }
            // For want of an address of this host no backend is to blame.
            nobody = match errno {
                libc::EADDRNOTAVAIL => Loss::OutOfResources,
                errno => {
                    self.note_connect_failure(backend, errno);
                    Loss::SendFailed
                }
            };
            if tried.try_push(backend).is_err() {
                return Err(nobody);
            }
        }
    }

    /// A flow of this pool lacked what others have. The kernel gives that back only when a socket has been closed, so
    /// one makes way for those that come next, and until the next turn nobody else of the pool asks in vain.
    fn make_room(&mut self, pool: PoolId) {
        self.udp.lacked = Some((pool, self.now));
        if !self.udp.endings.is_empty() {
            return;
        }
        if let Some(gone) = self.udp.table.evict() {
            self.flow_gone(&gone, CloseReason::Evicted);
        }
    }

    fn keep_line(&mut self, socket: OwnedFd, backend: BackendId, client: &Client) -> Key {
        let cells = self.cells.backend(backend);
        cells.flows_total.add(1);
        cells.flows_active.add(1);
        let line = Line {
            socket,
            flow: None,
            is_complete: false,
            backend,
            since: self.now,
            place: client.place,
            client: client.address.into(),
            local: client.local,
            is_armed: false,
            is_cancelled: false,
            fragments: false,
            traffic: (self.access.as_ref()).map(|_| Box::new(Traffic::begin(self.now))),
        };
        let key = self.udp.lines.insert(line);
        key.expect("there was room before it was opened")
    }

    /// Connects from the pool's sources in turn, until one has a port left. When one lacked a port, that is the error.
    fn connect_line(&mut self, pool: PoolId, backend: BackendId) -> Result<OwnedFd, i32> {
        let sources = &self.snapshot.pools[pool.index()].sources;
        let address = self.picks.address(backend);
        let mut turn = self.sources.begin(pool, sources, address);
        let mut source = turn.take(sources, address);
        let mut scarce = None;
        loop {
            let errno = match datagram::connect(address, source) {
                Ok(socket) => return Ok(socket),
                Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
            };
            if errno == NO_PORT && self.sources.exhausted(&self.cells, self.now) {
                (self.reports)(Report::SourceExhausted { backend, source });
            }
            if let (libc::EADDRNOTAVAIL, Some(source)) = (errno, source)
                && self.sources.absent(&self.cells, self.now)
            {
                (self.reports)(Report::SourceAbsent { pool, source });
            }
            scarce = scarce.or_else(|| is_scarce(errno).then_some(errno));
            source = turn.take(sources, address);
            if source.is_none() {
                return Err(scarce.unwrap_or(errno));
            }
        }
    }

    // --- from the backend ---

    /// Receives what the backend sends, from now on.
    pub(super) fn hear_line(&mut self, key: Key) {
        let Some(line) = self.udp.lines.get(key) else {
            return;
        };
        if !line.is_armed && line.flow.is_some() {
            line.is_armed = true;
            let fd = line.socket.as_raw_fd();
            let token = Token::Datagrams(Datagrams::Line(key)).encode();
            self.ring.receive_datagrams(fd, token);
        }
    }

    pub(super) fn line_completion(&mut self, key: Key, completion: Completion) {
        match u32::try_from(completion.result) {
            Ok(len) => self.take_reply(key, Payload::whole(completion.buffer, len)),
            Err(_) => self.drop_payload(Payload::whole(completion.buffer, 0)),
        }
        let Some(line) = self.udp.lines.get(key).filter(|_| !completion.more) else {
            return;
        };
        line.is_armed = false;
        if line.flow.is_none() {
            self.close_line(key);
            return;
        }
        match -completion.result {
            // An empty datagram ends a receive, too.
            ..=0 => self.hear_line(key),
            libc::ENOBUFS => {
                self.cells.datagrams_starved_total.add(1);
                self.udp.dry.push_back(Dry::Line(key));
            }
            // A router's word about an earlier datagram: the kernel knows the path better from now on.
            libc::EMSGSIZE => {
                line.allow_fragments();
                self.lose(key, Loss::TooBig);
                self.hear_line(key);
            }
            errno => self.refused(key, errno),
        }
    }

    /// A datagram of a backend: to the client of its flow, together with the next ones that can leave with it.
    fn take_reply(&mut self, key: Key, payload: Payload) {
        let line = self.udp.lines.get(key);
        let Some((id, backend)) = line.and_then(|line| Some((line.flow?, line.backend))) else {
            self.lose(key, Loss::Late);
            self.drop_payload(payload);
            return;
        };
        let reply = self.udp.table.reply(id, self.now);
        self.cells.backend(backend).received.add(payload.len);
        self.join_replies(key, payload);
        if reply.is_first {
            let took = Sample::FirstByte(self.now - reply.since);
            self.picks.observe(&self.snapshot, backend, took, self.now);
            self.picks.connected(backend, &self.cells);
            self.udp.refusals.remove(&id);
        }
        if reply.is_last {
            self.end_flow(id, CloseReason::FlowDone);
        } else if self.stopping {
            self.end_flow(id, CloseReason::Shutdown);
        }
    }

    fn join_replies(&mut self, key: Key, payload: Payload) {
        match &mut self.udp.replies {
            Some(run) if run.whose == key && run.takes(payload) => run.parts.push(payload),
            Some(_) | None => {
                self.send_replies();
                self.udp.replies = Some(Run::begin(key, payload));
            }
        }
    }

    pub(super) fn send_replies(&mut self) {
        let Some(Run { whose: key, parts }) = self.udp.replies.take() else {
            return;
        };
        let together = self.send_back(key, &parts);
        let one_by_one = runs::are_to_go_apart(&parts, together);
        for payload in parts {
            let mut sent = together;
            if one_by_one {
                sent = self.send_back(key, &[payload]);
            }
            if let Err(loss) = sent {
                self.lose(key, loss);
            }
            self.drop_payload(payload);
        }
    }

    /// Sends datagrams that can leave together to the client of a line.
    fn send_back(&mut self, key: Key, parts: &[Payload]) -> Result<(), Loss> {
        let line = self.udp.lines.get(key);
        let line = line.expect("what a flow has been told leaves before its line goes");
        let place = &mut self.udp.places[usize::from(line.place)];
        let all = runs::slices(&self.ring, parts);
        place.send(&all, &line.client, line.local)?;
        let sent = &self.cells.listener(place.listener).sent;
        parts.iter().for_each(|payload| sent.add(payload.len));
        if let Some(traffic) = &mut line.traffic {
            let all = parts.iter();
            all.for_each(|payload| traffic.add(Direction::ToClient, payload.len));
        }
        Ok(())
    }

    // --- what fails ---

    fn lose(&mut self, key: Key, loss: Loss) {
        if let Some(line) = self.udp.lines.get(key) {
            let listener = self.udp.places[usize::from(line.place)].listener;
            self.cells.lost(listener, loss);
        }
    }

    /// Nobody receives at the backend's address, or nobody can get there: the flow's next datagram goes to another one.
    fn refused(&mut self, key: Key, errno: i32) {
        let line = self.udp.lines.get(key);
        let Some((id, backend)) = line.and_then(|line| Some((line.flow?, line.backend))) else {
            return;
        };
        self.note_connect_failure(backend, errno);
        let tried = self.udp.refusals.entry(id).or_default();
        if tried.is_full() {
            tried.clear();
        }
        tried.push(backend);
        let reason = match errno {
            libc::ECONNREFUSED => CloseReason::ConnectRefused,
            _ => CloseReason::BackendUnreachable,
        };
        self.strand(key, reason);
    }

    // --- ends ---

    /// A flow's line leads nowhere any more. The flow waits for its client's next datagram, or is over for this reason.
    pub(super) fn strand(&mut self, key: Key, reason: CloseReason) {
        let Some(id) = self.udp.lines.get(key).and_then(|line| line.flow) else {
            return;
        };
        match self.udp.table.strand(id) {
            Some(gone) => self.flow_gone(&gone, reason),
            None => {
                // It takes part in nothing until its client is heard again.
                self.shared.leave(self.udp.listener_of(id));
                self.release_line(key, reason);
            }
        }
    }

    pub(super) fn end_flow(&mut self, id: FlowId, reason: CloseReason) {
        let gone = self.udp.table.end(id);
        self.flow_gone(&gone, reason);
    }

    /// A flow is over.
    pub(super) fn flow_gone(&mut self, gone: &Gone<Key>, reason: CloseReason) {
        self.udp.timers.unset(gone.id.0);
        if !self.udp.refusals.is_empty() {
            self.udp.refusals.remove(&gone.id);
        }
        let listener = self.udp.places[usize::from(gone.client.place)].listener;
        self.cells.flows_active.sub(1);
        self.cells.flow_ended(listener, reason);
        if let Some(key) = gone.line {
            self.shared.leave(listener);
            if reason == CloseReason::IdleTimeout {
                self.expired(key);
            }
            self.release_line(key, reason);
        }
        tracing::trace!(
            listener = %self.snapshot.listeners[listener.index()].name, client = %gone.client.address,
            reason = reason.as_str(), "flow ended"
        );
    }

    fn expired(&mut self, key: Key) {
        if let Some(line) = self.udp.lines.get(key) {
            let (backend, since) = (line.backend, line.since);
            self.cells.backend(backend).flows_expired_total.add(1);
            self.picks.unrefused(backend, since, self.now, &self.cells);
        }
    }

    /// The line is nobody's any more, and will be closed in its turn.
    fn release_line(&mut self, key: Key, reason: CloseReason) {
        if self
            .udp
            .replies
            .as_ref()
            .is_some_and(|run| run.whose == key)
        {
            self.send_replies();
        }
        let Some(line) = self.udp.lines.get(key) else {
            return;
        };
        line.flow = None;
        line.is_complete = reason == CloseReason::FlowDone;
        let backend = line.backend;
        if let Some(traffic) = line.traffic.take() {
            let led = Led {
                listener: self.udp.places[usize::from(line.place)].listener,
                client: line.client.as_socket(),
                backend,
            };
            self.log_flow(&traffic, &led, reason);
        }
        self.shared.disclaim(backend);
        self.cells.backend(backend).flows_active.sub(1);
        self.udp.endings.push(key);
    }

    /// Lines that are nobody's any more: all, or some of a mass.
    pub(in crate::worker) fn end_lines(&mut self) {
        for _ in 0..self.udp.endings.share() {
            let Some(key) = self.udp.endings.pop() else {
                return;
            };
            self.end_line(key);
        }
    }

    /// What it has in the kernel ends, then it is closed.
    fn end_line(&mut self, key: Key) {
        let Some(line) = self.udp.lines.get(key) else {
            return;
        };
        if line.is_armed {
            line.is_cancelled = true;
            let target = Token::Datagrams(Datagrams::Line(key)).encode();
            let token = Token::Datagrams(Datagrams::CancelLine(key)).encode();
            self.ring.cancel(target, token);
        } else {
            self.close_line(key);
        }
    }

    pub(super) fn line_cancelled(&mut self, key: Key) {
        match self.udp.lines.get(key) {
            Some(line) => {
                line.is_cancelled = false;
                self.close_line(key);
            }
            None => self.cells.stale_completions_total.add(1),
        }
    }

    /// Once nothing of it is in the kernel.
    fn close_line(&mut self, key: Key) {
        let is_over = |line: &mut Line| line.flow.is_none() && !line.is_armed && !line.is_cancelled;
        if !self.udp.lines.get(key).is_some_and(is_over) {
            return;
        }
        if let Some(line) = self.udp.lines.remove(key).filter(|line| !line.is_complete) {
            let overflows = datagram::overflows(line.socket.as_fd());
            let listener = self.udp.places[usize::from(line.place)].listener;
            let lost = &self.cells.listener(listener).lost;
            lost[Loss::ReplyOverflow.index()].add(u64::from(overflows));
        }
    }

    fn drop_payload(&mut self, payload: Payload) {
        if let Some(buffer) = payload.buffer {
            self.ring.drop_datagram(buffer);
        }
    }
}

/// What a datagram socket says that finds no free port.
const NO_PORT: i32 = libc::EAGAIN;

/// Whether a line was not opened for want of what other lines have: a file, memory, or a port.
fn is_scarce(errno: i32) -> bool {
    matches!(
        errno,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | NO_PORT
    )
}
