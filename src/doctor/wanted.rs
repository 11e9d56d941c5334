//! What a configuration asks of the host, as plain values. The only file of the doctor that knows the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::Config;
use crate::control::ports::flow_sources;
use crate::control::snapshot::{BackendAddress, Freebind, ListenAddress};
use crate::sys::socket::Bind;

/// Connections that the kernel keeps for a listener unless the file says otherwise.
const BACKLOG_DEFAULT: u32 = 4096;
/// Memory for pipes unless the file says otherwise.
const PIPE_MEMORY_DEFAULT: u64 = 256 << 20;

/// What a configuration asks of the host.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Data-plane threads; none = as many as CPUs.
    pub workers: Option<u16>,
    /// Most sessions at a time; none = what the limit of open files allows.
    pub max_sessions: Option<u32>,
    /// Most UDP flows at a time; none = as many as fit.
    pub max_flows: Option<u32>,
    /// Addresses that UDP flows come from, the one that the kernel chooses included; 0 without UDP listeners.
    pub flow_sources: usize,
    /// Bytes for splice pipes and spilled data together.
    pub pipe_memory: u64,
    /// Every address of every listener.
    pub listens: Vec<Listen>,
    /// TCP addresses of the backends, as far as no name must be looked up, with each source address that connections
    /// to them come from; none = the kernel chooses. The same pair may be there twice.
    pub backends: Vec<(Option<IpAddr>, SocketAddr)>,
    /// Backends of all kinds, also unix sockets and names.
    pub backends_in_all: usize,
    /// Virtual routers.
    pub virtual_routers: usize,
    /// Names of pools and the address that their connections to backends come from.
    pub sources: Vec<(String, IpAddr)>,
}

/// One address of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The listener's name.
    pub listener: String,
    /// Where.
    pub place: Place,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: u32,
    /// What happens when the host does not have the address.
    pub freebind: Freebind,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(Bind),
    /// UDP.
    Udp(Bind),
    /// A unix socket.
    Unix(PathBuf),
}

impl Place {
    /// The port; 0 is one that the kernel chooses.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.bind()? {
            Bind::Address(address) => Some(address.port()),
            Bind::Any(port) => Some(port),
        }
    }

    /// Where it is bound, unless it is a unix socket.
    #[must_use]
    pub fn bind(&self) -> Option<Bind> {
        match self {
            Place::Tcp(bind) | Place::Udp(bind) => Some(*bind),
            Place::Unix(_) => None,
        }
    }

    /// The one address that is listened on; none for all of them, and for a unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.bind()? {
            Bind::Address(address) => Some(address),
            Bind::Any(_) => None,
        }
    }

    fn is_udp(&self) -> bool {
        matches!(self, Place::Udp(_))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(Bind::Address(address)) => address.fmt(out),
            Place::Tcp(Bind::Any(port)) => write!(out, "*:{port}"),
            Place::Udp(Bind::Address(address)) => write!(out, "{address} (UDP)"),
            Place::Udp(Bind::Any(port)) => write!(out, "*:{port} (UDP)"),
            Place::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// Without a file: the defaults, and no address.
impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            workers: None,
            max_sessions: None,
            max_flows: None,
            flow_sources: 0,
            pipe_memory: PIPE_MEMORY_DEFAULT,
            listens: Vec::new(),
            backends: Vec::new(),
            backends_in_all: 0,
            virtual_routers: 0,
            sources: Vec::new(),
        }
    }
}

impl Wanted {
    /// The greatest backlog of all listeners that have one.
    #[must_use]
    pub fn backlog_max(&self) -> u32 {
        let streams = self.listens.iter().filter(|listen| !listen.place.is_udp());
        let backlogs = streams.map(|listen| listen.backlog);
        backlogs.max().unwrap_or(BACKLOG_DEFAULT)
    }

    /// Whether there are listeners, and none of them has sessions.
    #[must_use]
    pub fn is_udp_only(&self) -> bool {
        let udp = self.datagram_addresses();
        udp > 0 && udp == self.listens.len()
    }

    /// Addresses of UDP listeners.
    #[must_use]
    pub fn datagram_addresses(&self) -> usize {
        let places = self.listens.iter().map(|listen| &listen.place);
        places.filter(|place| place.is_udp()).count()
    }
}

impl From<&Config> for Wanted {
    fn from(config: &Config) -> Wanted {
        let mut wanted = Wanted {
            workers: config.global.workers,
            max_sessions: config.global.max_sessions,
            max_flows: config.global.max_flows,
            pipe_memory: config.global.pipe_memory,
            backends_in_all: config.snapshot.backends.len(),
            virtual_routers: config.snapshot.virtual_routers.len(),
            flow_sources: flow_sources(&config.snapshot),
            ..Wanted::default()
        };
        for listener in &config.snapshot.listeners {
            wanted
                .listens
                .extend(listener.addresses.iter().map(|address| {
                    let (place, freebind) = match address {
                        ListenAddress::Tcp(bind, freebind) => (Place::Tcp(*bind), *freebind),
                        ListenAddress::Udp(bind, freebind) => (Place::Udp(*bind), *freebind),
                        ListenAddress::Unix(path) => (Place::Unix(path.clone()), Freebind::Off),
                    };
                    Listen {
                        listener: listener.name.to_string(),
                        place,
                        backlog: listener.backlog,
                        freebind,
                    }
                }));
        }
        for backend in &config.snapshot.backends {
            if let Some(BackendAddress::Tcp(address)) = backend.address {
                let pool = &config.snapshot.pools[backend.pool.index()];
                let mut sources: Vec<_> = pool.sources_of(address).map(Some).collect();
                if sources.is_empty() {
                    sources.push(None);
                }
                let pairs = sources.into_iter().map(|source| (source, address));
                wanted.backends.extend(pairs);
            }
        }
        for pool in &config.snapshot.pools {
            let sources = pool.sources.iter().chain(&pool.probe.source);
            wanted
                .sources
                .extend(sources.map(|source| (pool.name.to_string(), *source)));
        }
        wanted
    }
}
