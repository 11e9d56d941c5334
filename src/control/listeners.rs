//! The listening sockets: bound before anything else happens, kept for the life of the process. Each worker has its own
//! socket for every TCP address (`SO_REUSEPORT`); a unix socket is one that all accept from.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use socket2::Socket;

use super::Error;
use super::snapshot::{Freebind, ListenAddress, Snapshot};
use crate::ids::{ListenerId, WorkerId};
use crate::sys::socket::{self, Bind, Keepalive};
use crate::worker::Listening;

/// See the module's text.
pub(super) struct Listeners {
    workers: usize,
    bound: Vec<Bound>,
}

/// One address of one listener.
struct Bound {
    listener: ListenerId,
    address: ListenAddress,
    /// One per worker; for a unix socket the same one for all.
    sockets: Vec<Arc<Socket>>,
}

impl Bound {
    /// Its address, with the port that the kernel chose.
    fn name(&self) -> String {
        let first = self.sockets.first();
        match first.and_then(|socket| socket::local_address(socket)) {
            Some(address) if matches!(self.address, ListenAddress::Tcp(..)) => address.to_string(),
            _ => describe(&self.address),
        }
    }
}

impl Listeners {
    /// Binds everything. Nobody can connect yet.
    pub(super) fn bind(snapshot: &Snapshot, workers: usize) -> Result<Listeners, Error> {
        let mut bound = Vec::new();
        for (listener, id) in snapshot.listeners.iter().zip((0..).map(ListenerId)) {
            let keepalive = snapshot.pools[listener.pools[0].0.index()].keepalive;
            for address in &listener.addresses {
                let sockets = bind(&listener.name, address, &keepalive, workers)
                    .map_err(|error| bind_error(&listener.name, address, &error))?;
                bound.push(Bound {
                    listener: id,
                    address: address.clone(),
                    sockets,
                });
            }
        }
        Ok(Listeners { workers, bound })
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Addresses in all, each with a socket for every worker.
    pub(super) fn count(&self) -> usize {
        self.bound.len()
    }

    pub(super) fn of_worker(&self, worker: WorkerId) -> Vec<Listening> {
        let listening = |bound: &Bound| Listening {
            listener: bound.listener,
            socket: Arc::clone(&bound.sockets[worker.index()]),
        };
        self.bound.iter().map(listening).collect()
    }

    /// Opens them: from now on clients can connect. In the order of the workers, which is the order of the group.
    pub(super) fn listen(&self, snapshot: &Snapshot) -> Result<(), Error> {
        for bound in &self.bound {
            let listener = &snapshot.listeners[bound.listener.index()];
            let backlog = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
            for socket in &bound.sockets {
                socket
                    .listen(backlog)
                    .map_err(|error| bind_error(&listener.name, &bound.address, &error))?;
            }
            let address = bound.name();
            tracing::info!(listener = %listener.name, %address, "listening");
        }
        Ok(())
    }

    /// Where each listener is bound, with the ports that the kernel chose.
    pub(super) fn addresses(&self, listeners: usize) -> Vec<Vec<String>> {
        let mut addresses = vec![Vec::new(); listeners];
        for bound in &self.bound {
            addresses[bound.listener.index()].push(bound.name());
        }
        addresses
    }

    /// From now on the kernel refuses connects.
    pub(super) fn refuse(&self) {
        for socket in self.bound.iter().flat_map(|bound| &bound.sockets) {
            // Not listening any more is what was wanted.
            let _ = socket::refuse(socket);
        }
    }

    /// Removes the files of unix sockets.
    pub(super) fn clean_up(&self) {
        for bound in &self.bound {
            if let ListenAddress::Unix(path) = &bound.address {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn bind(
    listener: &str,
    address: &ListenAddress,
    keepalive: &Keepalive,
    workers: usize,
) -> io::Result<Vec<Arc<Socket>>> {
    match address {
        ListenAddress::Unix(path) => {
            remove_stale(path)?;
            let socket = Arc::new(socket::bind_unix(path)?);
            Ok(vec![socket; workers])
        }
        ListenAddress::Tcp(bind, freebind) => {
            let is_missing = is_missing(*bind)?;
            if is_missing {
                match freebind {
                    Freebind::On => {}
                    Freebind::Off => return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
                    Freebind::Auto => tracing::warn!(
                        listener,
                        address = %describe(address),
                        "this host does not have the address; clients are served as soon as it has \
                         (`ip address` shows those it has; `freebind: true` silences this)"
                    ),
                }
            }
            bind_group(*bind, keepalive, is_missing, workers)
        }
    }
}

/// Whether the host does not have the address; an error if somebody else listens there.
fn is_missing(bind: Bind) -> io::Result<bool> {
    match socket::check_free(bind, false) {
        Ok(()) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            socket::check_free(bind, true).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// A socket for every worker, all on one address and port.
fn bind_group(
    mut bind: Bind,
    keepalive: &Keepalive,
    freebind: bool,
    workers: usize,
) -> io::Result<Vec<Arc<Socket>>> {
    let mut sockets: Vec<Arc<Socket>> = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket::bind_tcp(bind, keepalive, freebind)?;
        if let Some(chosen) = socket::local_address(&socket) {
            bind = with_port(bind, chosen.port());
        }
        sockets.push(Arc::new(socket));
    }
    Ok(sockets)
}

/// The port that the kernel chose for the first socket is the others' too.
fn with_port(bind: Bind, port: u16) -> Bind {
    match bind {
        Bind::Address(mut address) => {
            address.set_port(port);
            Bind::Address(address)
        }
        Bind::Any(_) => Bind::Any(port),
    }
}

/// A socket file that nobody listens on is left over from a crash.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is there already",
        ));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    std::fs::remove_file(path)
}

fn bind_error(listener: &str, address: &ListenAddress, error: &io::Error) -> Error {
    let place = format!(
        "listener {listener}: cannot listen on {}",
        describe(address)
    );
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::Permission(format!(
            "{place}: not permitted; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE \
             (AmbientCapabilities= in the unit, or run as root)"
        )),
        Some(libc::EADDRINUSE) => Error::Host(format!(
            "{place}: another process (or another listener of this file) listens there already; \
             `ss -ltnp` shows which"
        )),
        Some(libc::EADDRNOTAVAIL) => Error::Host(format!(
            "{place}: this host does not have that address, and `freebind: false` says that it must; \
             `ip address` shows those it has"
        )),
        _ => Error::Host(format!("{place}: {error}")),
    }
}

fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(Bind::Address(address), _) => address.to_string(),
        ListenAddress::Tcp(Bind::Any(port), _) => format!("*:{port}"),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
