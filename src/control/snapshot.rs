//! The immutable view of the configuration that workers read: names are resolved, defaults applied, every address
//! known. It owns no socket and no thread.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Algorithm, HashKey, Member, Plan};
use crate::flow;
use crate::health::PassiveRule;
use crate::health::dns::DnsCheck;
use crate::ids::{BackendId, ListenerId, PoolId};
use crate::session::Rules;
use crate::sys::socket::{Bind, Keepalive};
use crate::time::Time;
use crate::vrrp::settings::Settings;

/// Everything that workers need to know.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its number: each published one is newer than those before.
    pub generation: u64,
    /// By [`crate::ids::ListenerId`].
    pub listeners: Vec<Listener>,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`BackendId`].
    pub backends: Vec<Backend>,
    /// The listeners of the configuration, in the order of the file.
    pub listener_order: Vec<ListenerId>,
    /// The pools of the configuration, in the order of the file.
    pub pool_order: Vec<PoolId>,
    /// In the order of the file.
    pub virtual_routers: Vec<Arc<Settings>>,
}

impl Snapshot {
    /// Everything there is belongs to the configuration, in the order in which it was added.
    pub fn put_in_order(&mut self) {
        let listeners = (0..=u16::MAX).map(ListenerId);
        self.listener_order = listeners.take(self.listeners.len()).collect();
        let pools = (0..=u16::MAX).map(PoolId);
        self.pool_order = pools.take(self.pools.len()).collect();
    }

    /// The listeners of the configuration, in the order of the file.
    pub fn listeners_in_order(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let order = self.listener_order.iter();
        order.map(|id| (*id, &self.listeners[id.index()]))
    }

    /// The pools of the configuration, in the order of the file.
    pub fn pools_in_order(&self) -> impl Iterator<Item = (PoolId, &Pool)> + Clone {
        let order = self.pool_order.iter();
        order.map(|id| (*id, &self.pools[id.index()]))
    }

    /// The backends of the configuration, in the order of the file.
    pub fn backends_in_order(&self) -> impl Iterator<Item = (BackendId, &Backend)> + Clone {
        let ids = self.pools_in_order().flat_map(|(_, pool)| &pool.backends);
        ids.map(|id| (*id, &self.backends[id.index()]))
    }

    /// Backends that have left the configuration and may still have sessions.
    pub fn leaving_backends(&self) -> impl Iterator<Item = (BackendId, &Backend)> {
        let all = (0..).map(BackendId).zip(&self.backends);
        all.filter(|(_, backend)| backend.standing == Standing::Leaving)
    }

    /// The listener that makes sessions go round in circles if a backend of this pool has this address.
    #[must_use]
    pub fn circle(&self, pool: PoolId, address: SocketAddr) -> Option<&Listener> {
        let leads_back = |listener: &&Listener| listener.pools.iter().any(|(id, _)| *id == pool);
        let all = self.listeners_in_order().map(|(_, listener)| listener);
        let mut leading_back = all.filter(leads_back);
        leading_back.find(|listener| listener.is_reached_at(address))
    }

    /// What a pool's pickers are made from, with the weights as they are now.
    #[must_use]
    pub fn plan(&self, algorithm: Algorithm, key: HashKey, backends: &[BackendId]) -> Arc<Plan> {
        let member = |id: &BackendId| {
            let backend = &self.backends[id.index()];
            Member {
                name: &backend.name,
                weight: backend.weight,
                backup: backend.backup,
            }
        };
        let members: Vec<Member<'_>> = backends.iter().map(member).collect();
        Arc::new(Plan::new(algorithm, key, &members))
    }
}

/// Whether something belongs to the configuration. Ids mean the same for as long as anybody may use them: what leaves
/// the configuration keeps its place until its last session is over, then the place is free for something new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is part of it.
    #[default]
    Configured,
    /// It has left it: what it has goes on, nothing new comes.
    Leaving,
    /// Nothing is left of it.
    Free,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Whether it belongs to the configuration.
    pub standing: Standing,
    /// Sessions may be on addresses that it does not have any more.
    pub has_moved: bool,
    /// As in the file.
    pub name: Arc<str>,
    /// What it speaks; all its addresses are of that kind.
    pub protocol: Protocol,
    /// Where it listens; at least one.
    pub addresses: Vec<ListenAddress>,
    /// Where its sessions go: at least one, with its weight relative to the others'.
    pub pools: Vec<(PoolId, u32)>,
    /// What happens when no backend is usable.
    pub when_empty: WhenEmpty,
    /// Most sessions of this listener; none = no limit of its own.
    pub max_sessions: Option<u32>,
    /// Connections that the kernel keeps for us until they are accepted.
    pub backlog: u32,
}

impl Listener {
    /// Whether connects to an address come in here, as far as the address alone tells: one of this host that is bound
    /// by a wildcard is known if it is a loopback one.
    #[must_use]
    pub fn is_reached_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        self.addresses.iter().any(|listens| match listens {
            ListenAddress::Tcp(Bind::Address(bound), _)
            | ListenAddress::Udp(Bind::Address(bound), _) => {
                let is_bound = bound.ip() == ip
                    || (bound.ip().is_unspecified()
                        && ip.is_loopback()
                        && bound.is_ipv4() == ip.is_ipv4());
                is_bound && bound.port() == address.port()
            }
            ListenAddress::Tcp(Bind::Any(port), _) | ListenAddress::Udp(Bind::Any(port), _) => {
                ip.is_loopback() && *port == address.port()
            }
            ListenAddress::Unix(_) => false,
        })
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections, through unix sockets too.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// The position in a table of both.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
        }
    }

    /// The word of the file and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What clients of a listener see when no backend is usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenEmpty {
    /// The kernel refuses connects, and answers datagrams with ICMP port unreachable: clients with several addresses
    /// move on at once.
    #[default]
    Refuse,
    /// They are accepted and reset. TCP only.
    Reset,
    /// Datagrams get no answer. UDP only.
    Drop,
}

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(Bind, Freebind),
    /// UDP.
    Udp(Bind, Freebind),
    /// A unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether the kernel chooses the port, so that two with this address are not the same.
    #[must_use]
    pub fn port_is_chosen(&self) -> bool {
        match self {
            ListenAddress::Tcp(bind, _) | ListenAddress::Udp(bind, _) => bind.port() == 0,
            ListenAddress::Unix(_) => false,
        }
    }
}

/// What happens when the host does not have the address that a listener wants (yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Freebind {
    /// It is bound all the same, which serves clients as soon as the host has it, and said in the log.
    #[default]
    Auto,
    /// It is bound, and that is as it should be.
    On,
    /// Ringway does not start.
    Off,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Whether it belongs to the configuration.
    pub standing: Standing,
    /// Sessions may come from sources that it does not have any more.
    pub has_moved: bool,
    /// As in the file.
    pub name: Arc<str>,
    /// In the order of the file; those that have left the configuration are not among them.
    pub backends: Vec<BackendId>,
    /// For its sessions.
    pub rules: Rules,
    /// For its UDP flows.
    pub flows: flow::Rules,
    /// For both sides of its sessions.
    pub keepalive: Keepalive,
    /// Who gets the next session.
    pub balance: Algorithm,
    /// What is hashed for that.
    pub hash_key: HashKey,
    /// What the workers' pickers are made from: names, weights and ranks of the backends.
    pub plan: Arc<Plan>,
    /// How backends are probed.
    pub probe: Probe,
    /// What becomes of the sessions of a backend that goes down.
    pub on_down: OnDown,
    /// What becomes of sessions on backup backends when a normal one comes back.
    pub on_up: OnUp,
    /// How long a backend that came up takes to its full share.
    pub slow_start: Option<Duration>,
    /// Longest life of sessions on a backend that drains or left the file.
    pub drain_timeout: Option<Duration>,
    /// Addresses that connections to backends come from; none = the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// What failed connects say.
    pub passive: PassiveRule,
}

impl Pool {
    /// The sources of connections to `address`: those of its family.
    pub fn sources_of(&self, address: SocketAddr) -> impl Iterator<Item = IpAddr> + Clone {
        let fits = move |source: &IpAddr| source.is_ipv4() == address.is_ipv4();
        self.sources.iter().copied().filter(fits)
    }
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Whether it belongs to the configuration.
    pub standing: Standing,
    /// Where it is among its pool's backends.
    pub place: u32,
    /// As in the file; the address if it has no name.
    pub name: Arc<str>,
    /// Which pool it is in.
    pub pool: PoolId,
    /// Where it is; none while its host name is not resolved.
    pub address: Option<BackendAddress>,
    /// The host name and port that the address comes from.
    pub host: Option<(Arc<str>, u16)>,
    /// Its part of the sessions, relative to the others' weights; 0 takes no new ones.
    pub weight: u16,
    /// Used only when no other backend is usable.
    pub backup: bool,
    /// Most sessions on it; none = no limit of its own.
    pub max_sessions: Option<u32>,
    /// What the operator says.
    pub state: OperatorState,
    /// Whether its pool probes backends.
    pub is_probed: bool,
    /// What probes say; none while nothing is known, or without probes.
    pub is_up: Option<bool>,
    /// When it goes down: since when it has been failing.
    pub doubted_since: Option<Time>,
    /// It has been draining for as long as its pool allows: what is left of its sessions ends.
    pub is_drained: bool,
}

impl Backend {
    /// Whether new sessions may go to it, as far as operator, probes and name say. One that is probed is used once it
    /// is known to be up.
    #[must_use]
    pub fn takes_sessions(&self) -> bool {
        self.standing == Standing::Configured
            && self.address.is_some()
            && self.is_up.unwrap_or(!self.is_probed)
            && self.state == OperatorState::Ready
            && self.weight > 0
    }
}

/// What the operator says about a backend, apart from what probes and traffic say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OperatorState {
    /// It takes sessions.
    #[default]
    Ready,
    /// It takes no new sessions; those it has go on.
    Drain,
    /// It takes no new sessions and is not probed.
    Maintenance,
}

impl OperatorState {
    /// All of them.
    pub const ALL: [OperatorState; 3] = [
        OperatorState::Ready,
        OperatorState::Drain,
        OperatorState::Maintenance,
    ];

    /// The word of the file, the command line and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperatorState::Ready => "ready",
            OperatorState::Drain => "drain",
            OperatorState::Maintenance => "maintenance",
        }
    }
}

/// What becomes of the sessions of a backend that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// Those on which it has said nothing since the first failed probe or connect are ended.
    #[default]
    CloseSilent,
    /// All are ended.
    Close,
    /// All go on.
    Keep,
}

/// What becomes of sessions on backup backends when a normal one comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUp {
    /// They go on.
    #[default]
    Keep,
    /// They are ended.
    CloseBackup,
}

/// How backends are probed.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What a probe does; none = backends are not probed.
    pub check: Option<Check>,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// Address that probes come from.
    pub source: Option<IpAddr>,
    /// From one probe to the next.
    pub interval: Duration,
    /// The same while the state is changing.
    pub fast_interval: Duration,
    /// The same while the backend is down.
    pub down_interval: Duration,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// So many successes in a row bring a backend up.
    pub rise: u32,
    /// So many failures in a row take it down.
    pub fall: u32,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// It connects.
    Tcp,
    /// It asks for a page.
    Http(HttpCheck),
    /// It sends a text and waits for another.
    SendExpect {
        /// What it speaks.
        protocol: Protocol,
        /// What is sent once connected.
        send: Vec<u8>,
        /// What the answer has to contain: a text, or `/an expression/`.
        expect: Option<String>,
    },
    /// It asks a name server over UDP.
    Dns(DnsCheck),
}

/// What an HTTP probe asks for and accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: &'static str,
    /// First and last status of each range that is a success.
    pub statuses: Vec<(u16, u16)>,
    /// The Host header; the backend's address unless given.
    pub host: Option<String>,
    /// What the body has to contain: a text, or `/an expression/`.
    pub body: Option<String>,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An address for TCP, and for UDP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Tcp(address) => address.fmt(out),
            BackendAddress::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// What concerns the whole process.
#[derive(Clone, Debug)]
pub struct Global {
    /// Data-plane threads; none = as many as CPUs.
    pub workers: Option<u16>,
    /// Keep each on a CPU of its own.
    pub pin_workers: bool,
    /// Most sessions at a time; none = what the limit of open files allows.
    pub max_sessions: Option<u32>,
    /// Most UDP flows at a time; none = what that limit and the ports of this host allow.
    pub max_flows: Option<u32>,
    /// Bytes for splice pipes and spilled data together.
    pub pipe_memory: u64,
    /// How long a graceful stop waits for sessions.
    pub drain_timeout: Option<Duration>,
}
