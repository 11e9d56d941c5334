//! The immutable view of the configuration that workers read: names are resolved, defaults applied, every address
//! known. It owns no socket and no thread.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::health::PassiveRule;
use crate::ids::{BackendId, PoolId};
use crate::session::Rules;
use crate::sys::socket::{Bind, Keepalive};

/// Everything that workers need to know.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By [`crate::ids::ListenerId`].
    pub listeners: Vec<Listener>,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`BackendId`].
    pub backends: Vec<Backend>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As in the file.
    pub name: Arc<str>,
    /// Where it listens; at least one.
    pub addresses: Vec<ListenAddress>,
    /// Where its sessions go.
    pub pool: PoolId,
    /// Connections that the kernel keeps for us until they are accepted.
    pub backlog: u32,
}

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(Bind),
    /// A unix socket.
    Unix(PathBuf),
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// As in the file.
    pub name: Arc<str>,
    /// In the order of the file.
    pub backends: Vec<BackendId>,
    /// For its sessions.
    pub rules: Rules,
    /// For both sides of its sessions.
    pub keepalive: Keepalive,
    /// Address that connections to backends come from.
    pub source: Option<IpAddr>,
    /// What failed connects say.
    pub passive: PassiveRule,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// As in the file; the address if it has no name.
    pub name: Arc<str>,
    /// Which pool it is in.
    pub pool: PoolId,
    /// Where it is.
    pub address: BackendAddress,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
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
    /// Bytes for splice pipes and spilled data together.
    pub pipe_memory: u64,
    /// How long a graceful stop waits for sessions.
    pub drain_timeout: Option<Duration>,
}
