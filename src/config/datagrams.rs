//! What is particular to UDP: keys of listeners and pools that make no sense there, and what a probe does by default.
//! Keys that are inherited from `defaults` and make no sense are left out instead, since others may need them.

use std::collections::HashMap;

use super::document::{self, Document};
use super::kind::{Field, List};
use super::report::{Problem, Problems};
use super::section::default_of;
use super::yaml::Place;
use crate::control::snapshot::{
    Check, ListenAddress, Listener, Pool, Protocol, Snapshot, WhenEmpty,
};
use crate::flow;
use crate::health::dns::{DnsCheck, DnsCode};

const TCP: usize = Protocol::Tcp.index();
const UDP: usize = Protocol::Udp.index();

/// When the flows of a pool end.
pub(super) fn rules(section: &document::Udp) -> flow::Rules {
    let number = |number: u64| u32::try_from(number).expect("the kinds of the document allow less");
    flow::Rules {
        idle: section.idle.0,
        requests: section.requests.0.map(|requests| number(requests.0)),
        responses: section.responses.0.map(|responses| number(responses.0)),
    }
}

/// What a DNS probe asks and accepts.
pub(super) fn dns(section: &document::DnsProbe) -> DnsCheck {
    let codes: &List<DnsCode> = &section.rcodes;
    DnsCheck {
        name: section.name.0.clone(),
        record: *section.r#type,
        codes: codes.0.iter().map(|code| code.value).collect(),
    }
}

/// Which pools, in their order, a listener of each protocol leads to.
pub(super) fn used(document: &Document) -> Vec<[bool; 2]> {
    let pools = document.pools.0.iter().enumerate();
    let ids: HashMap<&str, usize> = pools.map(|(id, (key, _))| (&*key.name, id)).collect();
    let mut used = vec![[false; 2]; document.pools.0.len()];
    for listener in &document.listeners.0 {
        let split = listener.split.0.iter().flat_map(|shares| &shares.0);
        let names = split
            .map(|share| &share.pool.0)
            .chain(listener.pool.0.as_ref().map(|name| &name.0));
        for id in names.filter_map(|name| ids.get(name.as_str())) {
            used[*id][listener.protocol.index()] = true;
        }
    }
    used
}

/// Gives keys their defaults that are inherited where they make no sense.
pub(super) fn forget_inherited(document: &mut Document, used: &[[bool; 2]], problems: &Problems) {
    let untouched: document::Listener = default_of("{bind: '*:1', pool: p}");
    for listener in &mut document.listeners.value.0 {
        let listener = &mut listener.value;
        if *listener.when_empty == senseless(*listener.protocol) {
            forget(&mut listener.when_empty, &untouched.when_empty, problems);
        }
        if *listener.protocol == Protocol::Udp {
            forget(
                &mut listener.max_sessions,
                &untouched.max_sessions,
                problems,
            );
            forget(&mut listener.backlog, &untouched.backlog, problems);
        }
    }
    let untouched: document::Pool = default_of("{backends: ['a:1']}");
    let pools = document.pools.value.0.iter_mut().zip(used);
    for (pool, used) in pools.filter_map(|((_, pool), used)| Some((pool.as_mut()?, used))) {
        if used[UDP] && !used[TCP] {
            forget(&mut pool.timeouts, &untouched.timeouts, problems);
            forget(&mut pool.keepalive, &untouched.keepalive, problems);
            forget(&mut pool.retries, &untouched.retries, problems);
            forget(&mut pool.on_down, &untouched.on_down, problems);
        }
    }
}

/// What cannot happen to clients of a listener that speaks this.
fn senseless(protocol: Protocol) -> WhenEmpty {
    match protocol {
        Protocol::Tcp => WhenEmpty::Drop,
        Protocol::Udp => WhenEmpty::Reset,
    }
}

fn forget<T: Clone>(field: &mut Field<T>, default: &Field<T>, problems: &Problems) {
    if field
        .place
        .is_some_and(|place| problems.is_inherited(place))
    {
        field.clone_from(default);
    }
}

/// Looks at what has been resolved with UDP in mind.
pub(super) struct Datagrams<'a> {
    pub(super) document: &'a Document,
    /// Which pools a listener of each protocol leads to.
    pub(super) used: &'a [[bool; 2]],
    pub(super) problems: &'a mut Problems,
}

impl Datagrams<'_> {
    pub(super) fn resolve(mut self, snapshot: &mut Snapshot) {
        // After an error in one, places and ids do not match any more.
        let written = &self.document.listeners.0;
        if written.len() == snapshot.listeners.len() {
            for (item, listener) in written.iter().zip(&snapshot.listeners) {
                self.listener(item, listener);
            }
        }
        let pools = self.document.pools.0.iter();
        let pools =
            pools.filter_map(|(key, section)| section.as_ref().map(|section| (key, section)));
        for (index, ((key, section), used)) in pools.zip(self.used).enumerate() {
            let Some(pool) = snapshot.pools.get_mut(index) else {
                return;
            };
            self.pool(&key.name, section, *used, pool);
            if used[UDP] {
                self.addresses(&key.name, section);
            }
            for id in &pool.backends {
                snapshot.backends[id.index()].is_probed = pool.probe.check.is_some();
            }
        }
    }

    fn push(&mut self, place: Option<Place>, key: String, message: &str, help: &str) {
        let mut problem = Problem::of(place, message);
        problem.key = key;
        self.problems.push(problem.help(help));
    }

    fn listener(&mut self, item: &Field<document::Listener>, listener: &Listener) {
        if listener.when_empty == senseless(listener.protocol) {
            let (message, help) = match listener.protocol {
                Protocol::Tcp => (
                    "`when_empty: drop` is for UDP: a TCP client would wait for nothing",
                    "accepted: refuse, reset",
                ),
                Protocol::Udp => (
                    "`when_empty: reset` is for TCP: UDP has no connections to reset",
                    "accepted: refuse, drop",
                ),
            };
            let key = "listeners.when_empty".to_owned();
            self.push(item.when_empty.place, key, message, help);
        }
        if listener.protocol == Protocol::Tcp {
            return;
        }
        for (name, place, help) in [
            (
                "max_sessions",
                item.max_sessions.place,
                "global.max_flows bounds the UDP flows of all listeners",
            ),
            (
                "backlog",
                item.backlog.place,
                "datagrams do not wait to be accepted",
            ),
        ] {
            if place.is_some() {
                let message = format!("`{name}` makes no sense on a UDP listener");
                self.push(place, format!("listeners.{name}"), &message, help);
            }
        }
        let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
        if listener.addresses.iter().any(is_unix) {
            self.push(
                item.bind.place,
                "listeners.bind".to_owned(),
                "a UDP listener has no unix sockets",
                "write an address and a port, as in `*:53`",
            );
        }
    }

    fn pool(&mut self, name: &str, section: &document::Pool, used: [bool; 2], pool: &mut Pool) {
        let key = |key: &str| format!("pools.{name}.{key}");
        if used == [true, false] && section.udp.place.is_some() && !self.problems.has_errors() {
            let message = format!("`udp` has no effect: no UDP listener leads to pool `{name}`");
            let mut problem = Problem::of(section.udp.place, message);
            problem.key = key("udp");
            self.problems.push_idle(problem);
        }
        if used[TCP] || !used[UDP] {
            return;
        }
        for (word, place, help) in [
            (
                "timeouts",
                section.timeouts.place,
                "`udp: {idle: 30s}` says when a flow ends",
            ),
            (
                "keepalive",
                section.keepalive.place,
                "`udp: {idle: 30s}` says when a flow ends",
            ),
            (
                "retries",
                section.retries.place,
                "a flow whose backend refuses goes to another one with its next datagram",
            ),
            (
                "on_down",
                section.on_down.place,
                "flows of a backend that goes down go to another one with their next datagrams",
            ),
        ] {
            if place.is_some() {
                let message = format!(
                    "`{word}` makes no sense here: only UDP listeners lead to pool `{name}`"
                );
                self.push(place, key(word), &message, help);
            }
        }
        match &mut pool.probe.check {
            Some(Check::SendExpect { protocol, .. }) => *protocol = Protocol::Udp,
            // A port that takes datagrams need not take connections.
            check @ Some(Check::Tcp) if section.probe.r#type.0.is_none() => *check = None,
            Some(Check::Tcp | Check::Http(_) | Check::Dns(_)) | None => {}
        }
    }

    fn addresses(&mut self, name: &str, section: &document::Pool) {
        for backend in &section.backends.0 {
            if let super::address::BackendAt::Unix(_) = backend.address.value {
                self.push(
                    backend.address.place.or(backend.place),
                    format!("pools.{name}.backends"),
                    &format!("a UDP listener leads to pool `{name}`, but this is a unix socket"),
                    "write an address and a port, as in `10.0.0.11:53`",
                );
            }
        }
    }
}
