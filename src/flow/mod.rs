//! UDP flows: which client is bound to what, and for how long. A [`Table`] is told of datagrams and of time, and says
//! where a datagram belongs and which flows are over. It picks no backend, sees no payload and owns no socket: what a
//! flow leads to is its *line*, a value of the caller's.
//!
//! A flow is **proven** once its client has sent something after the first reply. The table is bounded. When it is
//! full, a newcomer takes the place of the oldest flow that is not proven; a proven one gives way to nobody.
//!
//! That protects those who are served from a flood of made-up source addresses, and only them. A source that was made
//! up gets no replies, but one that sends again a moment later becomes proven if the reply has left by then: who makes
//! up sources blindly and uses each twice fills the table with proven flows. Those that were there stay; newcomers find
//! no place until flows end by being idle or done.

#[cfg(test)]
mod simulation;

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashTable;

use crate::time::Time;

/// When flows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Without a datagram in either direction.
    pub idle: Duration,
    /// Datagrams of the client after which the next one begins another flow; none = no such number.
    pub requests: Option<u32>,
    /// Datagrams of the backend for each of the client, after which nothing is waited for; none = until it is idle.
    pub responses: Option<u32>,
}

/// Whose datagrams make a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Which socket they come in through.
    pub place: u16,
    /// Where they come from.
    pub address: SocketAddr,
    /// Where they were sent to, where that differs from one to the next.
    pub local: Option<IpAddr>,
}

/// Which flow; good until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u32);

/// What a client's datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<L> {
    /// Send it along this line; then the flow ends if `is_last`.
    Forward {
        /// Of this flow.
        id: FlowId,
        /// Where to.
        line: L,
        /// Nothing more is expected either way.
        is_last: bool,
    },
    /// Its flow has lost its line and needs another. It has not been counted yet.
    Stranded(FlowId),
    /// There is no flow for it. It has not been counted.
    Nobody,
}

/// What a datagram of a backend means for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// It is the first one.
    pub is_first: bool,
    /// All that was expected has come: the flow ends.
    pub is_last: bool,
    /// When the flow began, or got the line that it has.
    pub since: Time,
}

/// Why a datagram is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It did not fit into the largest buffer.
    Truncated,
    /// The pool has no backend that takes flows.
    NoBackend,
    /// Every backend has as many sessions and flows as it may have.
    Limit,
    /// All places for flows are taken by proven ones.
    Full,
    /// This host has no port, file descriptor or memory for another flow.
    OutOfResources,
    /// The socket to send it on takes no more at the moment.
    Blocked,
    /// It is larger than the way takes.
    TooBig,
    /// The backend refused it, or one before.
    Refused,
    /// This host would not send it.
    SendFailed,
    /// The process is stopping, and this would begin a flow.
    Stopping,
    /// A backend's, and its flow has ended or leads elsewhere.
    Late,
    /// A backend's, and the buffer of its flow's socket was full.
    ReplyOverflow,
}

impl Loss {
    /// All of them, in the order of the discriminants.
    pub const ALL: [Loss; 12] = [
        Loss::Truncated,
        Loss::NoBackend,
        Loss::Limit,
        Loss::Full,
        Loss::OutOfResources,
        Loss::Blocked,
        Loss::TooBig,
        Loss::Refused,
        Loss::SendFailed,
        Loss::Stopping,
        Loss::Late,
        Loss::ReplyOverflow,
    ];

    /// The word that counters and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Loss::Truncated => "truncated",
            Loss::NoBackend => "no_backend",
            Loss::Limit => "limit",
            Loss::Full => "full",
            Loss::OutOfResources => "out_of_resources",
            Loss::Blocked => "blocked",
            Loss::TooBig => "too_big",
            Loss::Refused => "refused",
            Loss::SendFailed => "send_failed",
            Loss::Stopping => "stopping",
            Loss::Late => "late",
            Loss::ReplyOverflow => "reply_overflow",
        }
    }

    /// The position in a table of all.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A flow that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone<L> {
    /// Which one it was.
    pub id: FlowId,
    /// Whose it was.
    pub client: Client,
    /// Where it led, unless it was stranded.
    pub line: Option<L>,
}

/// What is due for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due<L> {
    /// Nothing before this time.
    Later(Time),
    /// It has been idle for too long, and is over.
    Idle(Gone<L>),
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Flow<L> {
    client: Client,
    rules: Rules,
    line: Option<L>,
    /// Its client's next datagram is its own.
    is_bound: bool,
    is_proven: bool,
    /// It has had a reply, from whatever line.
    is_answered: bool,
    /// The last word was the client's.
    waits: bool,
    requests: u64,
    replies: u64,
    /// When it got its line.
    since: Time,
    /// The last datagram, either way.
    heard: Time,
    /// Among those that are not proven, in the order of their arrival.
    older: u32,
    newer: u32,
}

impl<L> Flow<L> {
    /// Whether nothing more is expected, in either direction.
    fn is_done(&self) -> bool {
        let asks_no_more = self
            .rules
            .requests
            .is_none_or(|most| self.requests >= u64::from(most));
        let expected = |each: u32| self.replies >= u64::from(each) * self.requests;
        asks_no_more && self.rules.responses.is_some_and(expected)
    }

    fn deadline(&self) -> Time {
        self.heard + self.rules.idle
    }
}

/// The flows of one worker. `L` is a line.
pub struct Table<L> {
    flows: Vec<Option<Flow<L>>>,
    free: Vec<u32>,
    capacity: u32,
    len: u32,
    /// Places of bound flows by their clients. Keyed anew in each process, so that nobody can choose addresses that
    /// all fall together.
    by_client: HashTable<u32>,
    hasher: RandomState,
    /// The first and the last to arrive of those that are not proven.
    oldest: u32,
    newest: u32,
}

impl<L: Copy> Table<L> {
    /// Room for `capacity` flows; memory is taken as they come.
    #[must_use]
    pub fn new(capacity: u32) -> Table<L> {
        Table {
            flows: Vec::new(),
            free: Vec::new(),
            capacity,
            len: 0,
            by_client: HashTable::new(),
            hasher: RandomState::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// Flows that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a new flow would find a place, be it another's.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len < self.capacity || self.oldest != NONE
    }

    /// A datagram of a client has come: counted if it can be forwarded.
    pub fn request(&mut self, client: &Client, now: Time) -> Request<L> {
        let Some(slot) = self.find(client) else {
            return Request::Nobody;
        };
        let id = FlowId(slot);
        let flow = self.flow_mut(id);
        let Some(line) = flow.line else {
            return Request::Stranded(id);
        };
        flow.heard = now;
        flow.waits = true;
        flow.requests += 1;
        let is_news = flow.is_answered && !std::mem::replace(&mut flow.is_proven, flow.is_answered);
        let is_full = flow
            .rules
            .requests
            .is_some_and(|most| flow.requests >= u64::from(most));
        let is_last = flow.is_done();
        if is_news {
            self.unlink(id);
        }
        if is_full {
            self.unbind(id);
        }
        Request::Forward { id, line, is_last }
    }

    /// A flow for a client that has none, and the one that made room for it. None when all places are taken by proven
    /// flows.
    pub fn begin(
        &mut self,
        client: Client,
        rules: Rules,
        line: L,
        now: Time,
    ) -> Option<(FlowId, Option<Gone<L>>)> {
        debug_assert!(self.find(&client).is_none(), "it has a flow already");
        let evicted = (self.len >= self.capacity).then(|| self.evict());
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.len < self.capacity => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).expect("the capacity is a u32")
            }
            None => return None,
        };
        self.flows[slot as usize] = Some(Flow {
            client,
            rules,
            line: Some(line),
            is_bound: true,
            is_proven: false,
            is_answered: false,
            waits: false,
            requests: 0,
            replies: 0,
            since: now,
            heard: now,
            older: NONE,
            newer: NONE,
        });
        self.len += 1;
        self.bind(slot);
        self.link(slot);
        Some((FlowId(slot), evicted.flatten()))
    }

    /// Ends the oldest flow that is not proven, if there is one.
    pub fn evict(&mut self) -> Option<Gone<L>> {
        (self.oldest != NONE).then(|| self.end(FlowId(self.oldest)))
    }

    /// A stranded flow leads somewhere else from now on, by the rules there, where nothing has been asked yet.
    pub fn attach(&mut self, id: FlowId, rules: Rules, line: L, now: Time) {
        let flow = self.flow_mut(id);
        debug_assert!(flow.line.is_none(), "it has a line already");
        flow.rules = rules;
        flow.line = Some(line);
        flow.requests = 0;
        flow.replies = 0;
        flow.since = now;
    }

    /// A datagram has come along a flow's line.
    pub fn reply(&mut self, id: FlowId, now: Time) -> Reply {
        let flow = self.flow_mut(id);
        flow.heard = now;
        flow.waits = false;
        flow.is_answered = true;
        flow.replies += 1;
        Reply {
            is_first: flow.replies == 1,
            is_last: flow.is_done(),
            since: flow.since,
        }
    }

    /// A flow leads nowhere any more; its client's next datagram needs another line. One whose client would not be led
    /// to it anyway is over, which is said.
    pub fn strand(&mut self, id: FlowId) -> Option<Gone<L>> {
        let flow = self.flow_mut(id);
        if !flow.is_bound {
            return Some(self.end(id));
        }
        flow.line = None;
        flow.waits = false;
        None
    }

    /// Ends a flow.
    pub fn end(&mut self, id: FlowId) -> Gone<L> {
        let flow = self.flow_mut(id);
        let (is_bound, is_proven) = (flow.is_bound, flow.is_proven);
        if is_bound {
            self.unbind(id);
        }
        if !is_proven {
            self.unlink(id);
        }
        let flow = self.flows[id.0 as usize].take();
        let flow = flow.expect("callers name live flows only");
        self.free.push(id.0);
        self.len -= 1;
        Gone {
            id,
            client: flow.client,
            line: flow.line,
        }
    }

    /// Whose flow it is.
    #[must_use]
    pub fn client(&self, id: FlowId) -> &Client {
        &self.flow(id).client
    }

    /// Whether the last word was the client's.
    #[must_use]
    pub fn waits(&self, id: FlowId) -> bool {
        self.flow(id).waits
    }

    /// When a flow has to be looked at, unless something comes.
    #[must_use]
    pub fn deadline(&self, id: FlowId) -> Time {
        self.flow(id).deadline()
    }

    /// Looks at a flow whose time may have come; none if there is no such flow any more.
    pub fn look(&mut self, id: FlowId, now: Time) -> Option<Due<L>> {
        let deadline = self.flows.get(id.0 as usize)?.as_ref()?.deadline();
        Some(if deadline > now {
            Due::Later(deadline)
        } else {
            Due::Idle(self.end(id))
        })
    }

    /// All flows.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> + '_ {
        let places = (0..).zip(&self.flows);
        places.filter_map(|(slot, flow)| flow.as_ref().map(|_| FlowId(slot)))
    }

    fn flow(&self, id: FlowId) -> &Flow<L> {
        let flow = self.flows[id.0 as usize].as_ref();
        flow.expect("callers name live flows only")
    }

    fn flow_mut(&mut self, id: FlowId) -> &mut Flow<L> {
        let flow = self.flows[id.0 as usize].as_mut();
        flow.expect("callers name live flows only")
    }

    fn find(&self, client: &Client) -> Option<u32> {
        let flows = &self.flows;
        let is_its = |slot: &u32| {
            let flow = flows[*slot as usize].as_ref();
            flow.is_some_and(|flow| flow.client == *client)
        };
        let hash = self.hasher.hash_one(client);
        self.by_client.find(hash, is_its).copied()
    }

    fn bind(&mut self, slot: u32) {
        let (flows, hasher) = (&self.flows, &self.hasher);
        let hash_of = |slot: &u32| {
            let flow = flows[*slot as usize].as_ref();
            hasher.hash_one(flow.expect("bound flows are live").client)
        };
        self.by_client.insert_unique(hash_of(&slot), slot, hash_of);
    }

    fn unbind(&mut self, id: FlowId) {
        let flow = self.flow_mut(id);
        flow.is_bound = false;
        let hash = self.hasher.hash_one(self.flow(id).client);
        let entry = self.by_client.find_entry(hash, |slot| *slot == id.0);
        entry.expect("a bound flow is in the index").remove();
    }

    /// Becomes the newest of those that are not proven.
    fn link(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.newest, slot);
        self.flow_mut(FlowId(slot)).older = before;
        if before == NONE {
            self.oldest = slot;
        } else {
            self.flow_mut(FlowId(before)).newer = slot;
        }
    }

    fn unlink(&mut self, id: FlowId) {
        let flow = self.flow_mut(id);
        let (older, newer) = (flow.older, flow.newer);
        match older {
            NONE => self.oldest = newer,
            older => self.flow_mut(FlowId(older)).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.flow_mut(FlowId(newer)).older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn client(number: u16) -> Client {
        Client {
            place: 0,
            address: SocketAddr::from(([10, 0, 0, 1], number)),
            local: None,
        }
    }

    fn rules(requests: Option<u32>, responses: Option<u32>) -> Rules {
        Rules {
            idle: IDLE,
            requests,
            responses,
        }
    }

    /// Begins a flow and forwards its first datagram.
    fn ask(table: &mut Table<u32>, number: u16, rules: Rules, now: Time) -> FlowId {
        let line = u32::from(number);
        let (id, _) = table.begin(client(number), rules, line, now).unwrap();
        let forward = table.request(&client(number), now);
        assert!(matches!(forward, Request::Forward { .. }), "{forward:?}");
        id
    }

    /// Plays an exchange written as `q` for a request and `r` for a reply to the oldest request without one. Shows with
    /// a dot where a flow is over, and says how many there were.
    fn play(requests: Option<u32>, responses: Option<u32>, exchange: &str) -> (String, u32) {
        let mut table = Table::new(100);
        let (mut flows, mut shown) = (0, String::new());
        let mut asked = std::collections::VecDeque::new();
        for letter in exchange.chars() {
            let (id, is_last) = if letter == 'q' {
                let rules = rules(requests, responses);
                let mut found = table.request(&client(1), at(0));
                if found == Request::Nobody {
                    table.begin(client(1), rules, 1, at(0)).unwrap();
                    flows += 1;
                    found = table.request(&client(1), at(0));
                }
                let Request::Forward { id, is_last, .. } = found else {
                    panic!("{found:?}");
                };
                (id, is_last)
            } else {
                let id: FlowId = asked.pop_front().unwrap();
                (id, table.reply(id, at(0)).is_last)
            };
            asked.extend((letter == 'q').then_some(id));
            shown.push(letter);
            if is_last {
                shown.push('.');
                table.end(id);
            }
        }
        (shown, flows)
    }

    #[test]
    fn requests_and_responses_end_a_flow_as_they_do_in_nginx() {
        for (requests, responses, expected, flows) in [
            (None, None, "qrqrqr", 1),
            (None, Some(1), "qr.qr.", 2),
            (None, Some(1), "qqrr.", 1),
            (None, Some(0), "q.q.q.", 3),
            (Some(1), Some(1), "qr.qr.", 2),
            (Some(1), Some(1), "qqr.r.", 2),
            (Some(1), None, "qqq", 3),
            (Some(2), Some(1), "qqrr.", 1),
            (Some(2), Some(1), "qrqr.qrqr.", 2),
            (Some(2), Some(0), "qq.qq.", 2),
        ] {
            let exchange = expected.replace('.', "");
            let played = play(requests, responses, &exchange);
            assert_eq!(
                played,
                (expected.to_owned(), flows),
                "{requests:?} {responses:?}"
            );
        }
    }

    #[test]
    fn a_flow_with_all_its_requests_is_left_to_its_replies_while_the_next_one_begins() {
        let mut table = Table::new(10);
        let rules = rules(Some(1), Some(1));
        let first = ask(&mut table, 1, rules, at(0));
        assert_eq!(table.request(&client(1), at(0)), Request::Nobody);
        let second = ask(&mut table, 1, rules, at(0));
        assert_ne!(first, second);
        assert!(table.reply(first, at(1)).is_last);
        table.end(first);
        assert!(table.reply(second, at(1)).is_last);
        table.end(second);
        assert!(table.is_empty());
    }

    #[test]
    fn the_oldest_that_is_not_proven_makes_room() {
        let mut table = Table::new(3);
        let rules = rules(None, None);
        let [first, _, third] = [1, 2, 3].map(|number| ask(&mut table, number, rules, at(0)));
        // A reply alone proves nothing, and neither do many requests.
        table.reply(third, at(1));
        table.reply(first, at(1));
        table.request(&client(2), at(1));
        table.request(&client(1), at(2));
        let (_, gone) = table.begin(client(4), rules, 4, at(2)).unwrap();
        assert_eq!(gone.unwrap().client, client(2));
        let (_, gone) = table.begin(client(5), rules, 5, at(2)).unwrap();
        assert_eq!(gone.unwrap().client, client(3));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn proven_flows_give_way_to_nobody() {
        let mut table = Table::new(2);
        let rules = rules(None, None);
        for number in [1, 2] {
            let id = ask(&mut table, number, rules, at(0));
            table.reply(id, at(0));
            table.request(&client(number), at(0));
        }
        assert!(!table.has_room());
        assert_eq!(table.begin(client(3), rules, 3, at(1)), None);
        assert_eq!(table.evict(), None);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_stranded_flow_keeps_its_place_and_what_it_has_proven() {
        let mut table = Table::new(1);
        let rules = rules(None, Some(1));
        let id = ask(&mut table, 1, rules, at(0));
        table.reply(id, at(0));
        table.request(&client(1), at(1));
        assert_eq!(table.strand(id), None);
        assert_eq!(table.request(&client(1), at(2)), Request::Stranded(id));
        assert!(!table.has_room(), "it is proven");
        table.attach(id, rules, 9, at(2));
        let forward = Request::Forward {
            id,
            line: 9,
            is_last: false,
        };
        assert_eq!(table.request(&client(1), at(2)), forward);
        assert_eq!(
            table.reply(id, at(3)),
            Reply {
                is_first: true,
                is_last: true,
                since: at(2)
            }
        );
    }

    #[test]
    fn a_flow_that_moves_obeys_the_rules_where_it_goes() {
        let mut table = Table::new(1);
        let id = ask(&mut table, 1, rules(None, None), at(0));
        assert_eq!(table.strand(id), None);
        let others = Rules {
            idle: Duration::from_secs(5),
            requests: Some(1),
            responses: Some(2),
        };
        table.attach(id, others, 9, at(2));
        table.request(&client(1), at(2));
        assert_eq!(table.deadline(id), at(7));
        assert_eq!(table.request(&client(1), at(2)), Request::Nobody);
        assert!(!table.reply(id, at(2)).is_last);
        assert!(table.reply(id, at(2)).is_last);
    }

    #[test]
    fn a_flow_that_nobody_is_led_to_does_not_outlive_its_line() {
        let mut table = Table::new(1);
        let id = ask(&mut table, 1, rules(Some(1), None), at(0));
        let gone = table.strand(id).unwrap();
        assert_eq!((gone.client, gone.line), (client(1), Some(1)));
        assert!(table.is_empty());
    }

    #[test]
    fn an_idle_flow_ends_when_nothing_came_either_way_for_so_long() {
        let mut table = Table::new(1);
        let id = ask(&mut table, 1, rules(None, None), at(0));
        assert_eq!(table.look(id, at(29)), Some(Due::Later(at(30))));
        table.reply(id, at(29));
        assert_eq!(table.look(id, at(30)), Some(Due::Later(at(59))));
        assert!(matches!(table.look(id, at(59)), Some(Due::Idle(_))));
        assert_eq!(table.look(id, at(60)), None);
    }

    #[test]
    fn every_loss_has_its_own_word_and_position() {
        let words: std::collections::HashSet<_> =
            Loss::ALL.iter().map(|loss| loss.as_str()).collect();
        assert_eq!(words.len(), Loss::ALL.len());
        for (position, loss) in Loss::ALL.iter().enumerate() {
            assert_eq!(loss.index(), position);
        }
    }

    #[test]
    fn one_client_has_a_flow_for_each_address_that_it_sends_to() {
        let mut table = Table::new(10);
        let to = |local: &str, place| Client {
            local: Some(local.parse().unwrap()),
            place,
            ..client(1)
        };
        let clients = [
            to("10.0.0.1", 0),
            to("10.0.0.2", 0),
            to("10.0.0.1", 1),
            client(1),
        ];
        for (line, client) in (0..).zip(clients) {
            table.begin(client, rules(None, None), line, at(0)).unwrap();
        }
        for (expected, client) in (0..).zip(clients) {
            let Request::Forward { line, .. } = table.request(&client, at(0)) else {
                panic!("{client:?} has no flow");
            };
            assert_eq!(line, expected);
        }
    }
}
