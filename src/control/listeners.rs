//! The listening sockets: bound before anything else happens, kept for the life of the process. Each worker has its own
//! socket for every TCP address (`SO_REUSEPORT`); a unix socket is one that all accept from.
//!
//! A listener that is shut keeps its sockets and ports, but the kernel refuses connects. Which ones are to be open is
//! decided elsewhere ([`super::usable`]). A unix socket cannot be shut and opened again: it always listens. The sockets
//! of UDP listeners are in [`super::datagrams`].

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use socket2::Socket;

use super::Error;
use super::datagrams::{self, Datagrams};
use super::snapshot::{Freebind, ListenAddress, Listener, Protocol, Snapshot, Standing};
use super::usable;
use crate::ids::{ListenerId, WorkerId};
use crate::sys::socket::{self, Bind, Keepalive};
use crate::sys::unix::{self, SocketFile};
use crate::worker::{Gates, Listening, Shared};

/// Who may connect to a unix socket: everybody who gets to its folder.
const UNIX_MODE: u32 = 0o666;

/// See the module's text.
pub(super) struct Listeners {
    workers: usize,
    /// By gate; none where one is free.
    bound: Vec<Option<Bound>>,
    datagrams: Datagrams,
    /// By listener.
    doors: Vec<Door>,
    /// A socket could not be opened again.
    is_behind: bool,
    cannot_open: bool,
}

/// What the listening sockets are to become. Dropping it gives the new ones back.
pub(super) struct Prepared {
    /// Gates that stay, and for which listener.
    kept: Vec<(usize, ListenerId)>,
    new: Vec<Bound>,
    datagrams: datagrams::Prepared,
}

impl Prepared {
    /// Removes the files of unix sockets that nobody will use.
    fn give_back(&self) {
        let files = self.new.iter().filter_map(|bound| bound.file.as_ref());
        files.for_each(SocketFile::remove);
    }
}

/// Whether clients are let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) is_open: bool,
    /// Since when.
    pub(super) since: SystemTime,
    /// How often it was shut because no backend was usable.
    pub(super) shut_total: u64,
}

impl Door {
    /// One that was never open.
    fn shut() -> Door {
        Door {
            is_open: false,
            since: SystemTime::now(),
            shut_total: 0,
        }
    }
}

/// One address of one listener.
struct Bound {
    listener: ListenerId,
    address: ListenAddress,
    /// One per worker; for a unix socket the same one for all.
    sockets: Vec<Arc<Socket>>,
    /// That of a unix socket.
    file: Option<SocketFile>,
}

impl Bound {
    /// An address of a listener with a socket for every worker. Nobody can connect yet. `is_ours`: another one of ours
    /// may still have it.
    fn new(
        snapshot: &Snapshot,
        id: ListenerId,
        address: &ListenAddress,
        workers: usize,
        is_ours: bool,
    ) -> Result<Bound, Error> {
        let listener = &snapshot.listeners[id.index()];
        let keepalive = snapshot.pools[listener.pools[0].0.index()].keepalive;
        let sockets = bind(&listener.name, address, &keepalive, workers, is_ours)
            .map_err(|error| bind_error(&listener.name, address, &error))?;
        Ok(Bound {
            listener: id,
            address: address.clone(),
            sockets,
            file: None,
        })
    }

    fn is_unix(&self) -> bool {
        matches!(self.address, ListenAddress::Unix(_))
    }

    /// A unix socket listens at once, so that nobody takes its file for left over; who connects waits. Like a port it
    /// is for everybody.
    fn claim_file(&mut self, backlog: u32) -> io::Result<()> {
        if let ListenAddress::Unix(path) = &self.address {
            self.file = Some(SocketFile::made(path)?);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
            self.listen(backlog)?;
        }
        Ok(())
    }

    /// The same for this listener, with an error that names it.
    fn claim(&mut self, listener: &Listener) -> Result<(), Error> {
        self.claim_file(listener.backlog)
            .map_err(|error| bind_error(&listener.name, &self.address, &error))
    }

    /// From now on the kernel refuses connects, and resets those that nobody has accepted.
    fn shut(&self) {
        for socket in &self.sockets {
            // Not listening any more is what was wanted.
            let _ = socket::refuse(socket);
        }
    }

    /// Whether clients of another address could come in here.
    fn overlaps(&self, address: &ListenAddress) -> bool {
        match (&self.address, address) {
            (ListenAddress::Tcp(own, _), ListenAddress::Tcp(other, _)) => own.overlaps(*other),
            (
                ListenAddress::Tcp(..) | ListenAddress::Udp(..) | ListenAddress::Unix(_),
                ListenAddress::Tcp(..) | ListenAddress::Udp(..) | ListenAddress::Unix(_),
            ) => false,
        }
    }

    /// What its listener has changed of what the kernel keeps for it. Refused by no kernel: it was set before.
    fn follow(&self, before: &Listener, now: &Listener, snapshot: &Snapshot) {
        let keepalive = snapshot.pools[now.pools[0].0.index()].keepalive;
        for socket in self.sockets.iter().filter(|_| !self.is_unix()) {
            let _ = socket::set_inherited(socket, &keepalive);
        }
        if before.backlog != now.backlog {
            let listens = |socket: &Arc<Socket>| socket.is_listener().unwrap_or(false);
            if !self.sockets.iter().any(listens) {
                return;
            }
            let _ = self.listen(now.backlog);
        }
    }

    fn open_or_shut(&self, is_open: bool, backlog: u32) {
        if self.is_unix() {
            return;
        }
        if !is_open {
            self.shut();
        } else if let Err(error) = self.listen(backlog) {
            tracing::error!(address = %self.name(), %error, "cannot listen");
        }
    }

    /// In the order of the workers, which is the order of the group.
    fn listen(&self, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        self.sockets
            .iter()
            .try_for_each(|socket| socket::listen(socket, backlog))
    }

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
            for address in streams(listener) {
                let mut one = Bound::new(snapshot, id, address, workers, false)?;
                one.claim(listener)?;
                bound.push(Some(one));
            }
        }
        let datagrams = Datagrams::bind(snapshot, workers)
            .map_err(|failed| datagram_error(snapshot, failed))?;
        Ok(Listeners {
            workers,
            bound,
            datagrams,
            doors: vec![Door::shut(); snapshot.listeners.len()],
            is_behind: false,
            cannot_open: false,
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Addresses for connections, each with a socket for every worker.
    pub(super) fn count(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &Bound> {
        self.bound.iter().flatten()
    }

    /// The sockets of UDP listeners.
    pub(super) fn datagrams(&self) -> &Datagrams {
        &self.datagrams
    }

    pub(super) fn of_worker(&self, worker: WorkerId) -> Vec<Listening> {
        self.gates(worker).into_iter().flatten().collect()
    }

    /// The same by gate.
    pub(super) fn gates(&self, worker: WorkerId) -> Gates {
        let listening = |bound: &Bound| Listening {
            listener: bound.listener,
            socket: Arc::clone(&bound.sockets[worker.index()]),
        };
        let gates = self.bound.iter();
        gates.map(|bound| bound.as_ref().map(listening)).collect()
    }

    /// Binds what another configuration has and this one has not, and lets clients connect there that the workers will
    /// find waiting. Nothing else changes: what is bound already is told by its address, whichever listener has it.
    pub(super) fn prepare(&self, snapshot: &Snapshot) -> Result<Prepared, Error> {
        let datagrams = self.datagrams.prepare(snapshot);
        let mut prepared = Prepared {
            kept: Vec::new(),
            new: Vec::new(),
            datagrams: datagrams.map_err(|failed| datagram_error(snapshot, failed))?,
        };
        match self.bind_new(snapshot, &mut prepared) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                prepared.give_back();
                Err(error)
            }
        }
    }

    fn bind_new(&self, snapshot: &Snapshot, prepared: &mut Prepared) -> Result<(), Error> {
        for (id, listener) in snapshot.listeners_in_order() {
            for address in streams(listener) {
                if let Some(gate) = self.gate_of(id, address) {
                    prepared.kept.push((gate, id));
                    continue;
                }
                let mut one = self.bind_one(snapshot, id, address)?;
                let claimed = one.claim(listener);
                prepared.new.push(one);
                claimed?;
            }
        }
        let open = usable::open(snapshot);
        for bound in &prepared.new {
            let listener = &snapshot.listeners[bound.listener.index()];
            if open[bound.listener.index()] && !bound.is_unix() {
                bound
                    .listen(listener.backlog)
                    .map_err(|error| bind_error(&listener.name, &bound.address, &error))?;
            }
        }
        Ok(())
    }

    /// The gate that has an address of a listener already.
    fn gate_of(&self, id: ListenerId, address: &ListenAddress) -> Option<usize> {
        let is_it = |bound: &Bound| {
            bound.address == *address && (bound.listener == id || !address.port_is_chosen())
        };
        let mut gates = self.bound.iter();
        gates.position(|bound| bound.as_ref().is_some_and(is_it))
    }

    fn bind_one(
        &self,
        snapshot: &Snapshot,
        id: ListenerId,
        address: &ListenAddress,
    ) -> Result<Bound, Error> {
        let is_ours = self.all().any(|bound| bound.overlaps(address));
        Bound::new(snapshot, id, address, self.workers, is_ours)
    }

    /// Fails as [`Listeners::prepare`] would, but lets nobody in and gives back what it binds. Addresses that cannot be
    /// tried so are told: a unix socket is a file that others see, and datagrams come to a port as soon as it is bound.
    pub(super) fn rehearse(&self, snapshot: &Snapshot) -> Result<Vec<String>, Error> {
        let (mut tried, mut untried) = (Vec::new(), Vec::new());
        for (id, listener) in snapshot.listeners_in_order() {
            let is_new = |address: &&ListenAddress| self.gate_of(id, address).is_none();
            for address in streams(listener).filter(is_new) {
                match address {
                    ListenAddress::Tcp(..) => tried.push(self.bind_one(snapshot, id, address)?),
                    ListenAddress::Unix(_) | ListenAddress::Udp(..) => {
                        untried.push(describe(address));
                    }
                }
            }
        }
        let of_datagrams = self.datagrams.rehearse(snapshot);
        let of_datagrams = of_datagrams.map_err(|failed| datagram_error(snapshot, failed))?;
        untried.extend(of_datagrams.iter().map(describe));
        Ok(untried)
    }

    /// Becomes what was prepared. `old` is the configuration until now.
    pub(super) fn become_prepared(&mut self, prepared: Prepared, old: &Snapshot, new: &Snapshot) {
        let open = usable::open(new);
        let mut stays = vec![None; self.bound.len()];
        for (gate, id) in prepared.kept {
            stays[gate] = Some(id);
        }
        for (index, listener) in new.listeners.iter().enumerate() {
            let is_configured = listener.standing == Standing::Configured;
            let before = old.listeners.get(index);
            let was_configured = before.is_some_and(|before| {
                before.standing == Standing::Configured && before.name == listener.name
            });
            if self.doors.len() <= index {
                self.doors.push(Door::shut());
            }
            if !(is_configured && was_configured) {
                self.doors[index] = Door {
                    is_open: open[index],
                    ..Door::shut()
                };
            }
        }
        for (slot, stays) in self.bound.iter_mut().zip(stays) {
            match (slot.as_mut(), stays) {
                (Some(kept), Some(id)) => {
                    let (before, now) = (kept.listener, &new.listeners[id.index()]);
                    kept.listener = id;
                    kept.follow(&old.listeners[before.index()], now, new);
                    if before != id {
                        let is_open = self.doors[id.index()].is_open || open[id.index()];
                        kept.open_or_shut(is_open, now.backlog);
                    }
                }
                (Some(gone), None) => {
                    if let Some(file) = &gone.file {
                        file.remove();
                    }
                    *slot = None;
                }
                (None, _) => {}
            }
        }
        for bound in prepared.new {
            let listener = &new.listeners[bound.listener.index()];
            let door = self.doors[bound.listener.index()];
            let is_open = door.is_open || open[bound.listener.index()];
            bound.open_or_shut(is_open, listener.backlog);
            let (listener, address) = (&listener.name, bound.name());
            if door.is_open {
                tracing::info!(%listener, %address, "listening");
            }
            match self.bound.iter_mut().find(|slot| slot.is_none()) {
                Some(free) => *free = Some(bound),
                None => self.bound.push(Some(bound)),
            }
        }
        self.datagrams.become_prepared(prepared.datagrams);
        for (index, door) in self.doors.iter().enumerate() {
            if !door.is_open {
                let id = ListenerId(u16::try_from(index).expect("as many as listeners"));
                self.datagrams.shut(id);
            }
        }
    }

    /// Opens those with a usable backend: from now on clients can connect.
    pub(super) fn listen(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let (open, now) = (usable::open(snapshot), SystemTime::now());
        for bound in self.bound.iter().flatten() {
            let listener = &snapshot.listeners[bound.listener.index()];
            let address = bound.name();
            if open[bound.listener.index()] || bound.is_unix() {
                bound
                    .listen(listener.backlog)
                    .map_err(|error| bind_error(&listener.name, &bound.address, &error))?;
                tracing::info!(listener = %listener.name, %address, "listening");
            } else {
                let why = usable::why_none(snapshot, listener);
                tracing::warn!(listener = %listener.name, %address, %why, "not listening");
            }
        }
        for (id, address) in self.datagrams.names() {
            let listener = &snapshot.listeners[id.index()];
            if open[id.index()] {
                tracing::info!(listener = %listener.name, %address, "listening");
            } else {
                let why = usable::why_none(snapshot, listener);
                tracing::warn!(listener = %listener.name, %address, %why, "not listening");
            }
        }
        for (door, (id, is_open)) in self.doors.iter_mut().zip((0..).map(ListenerId).zip(open)) {
            if !is_open {
                self.datagrams.shut(id);
            }
            *door = Door {
                is_open,
                since: now,
                shut_total: u64::from(!is_open),
            };
        }
        Ok(())
    }

    /// Opens and shuts listeners as the snapshot has it. Whether any changed. One with UDP flows stays open: on its
    /// sockets they go on.
    pub(super) fn settle(&mut self, snapshot: &Snapshot, shared: &Shared) -> bool {
        self.is_behind = false;
        let could_not_open = std::mem::take(&mut self.cannot_open);
        let mut is_changed = false;
        let open = usable::open(snapshot);
        for (id, is_open) in (0..).map(ListenerId).zip(open) {
            let listener = &snapshot.listeners[id.index()];
            if is_open == self.doors[id.index()].is_open {
                continue;
            }
            let is_udp = listener.protocol == Protocol::Udp;
            if is_udp && !is_open && shared.sessions_of(id) > 0 {
                self.is_behind = true;
                continue;
            }
            if is_open && let Err(error) = self.reopen(id, listener) {
                if !could_not_open {
                    tracing::error!(listener = %listener.name, %error, "cannot listen again; trying on");
                }
                (self.is_behind, self.cannot_open) = (true, true);
                continue;
            }
            if is_open {
                tracing::info!(listener = %listener.name, "listening again");
            } else {
                self.of_listener(id).for_each(Bound::shut);
                self.datagrams.shut(id);
                let why = usable::why_none(snapshot, listener);
                let what = if is_udp { "datagrams" } else { "connects" };
                tracing::warn!(listener = %listener.name, %why, "{what} are refused");
            }
            let door = &mut self.doors[id.index()];
            door.is_open = is_open;
            door.since = SystemTime::now();
            door.shut_total += u64::from(!is_open);
            is_changed = true;
        }
        is_changed
    }

    /// All of its addresses, or none: nobody would accept from the others.
    fn reopen(&mut self, id: ListenerId, listener: &Listener) -> io::Result<()> {
        self.datagrams.open(id, &listener.name)?;
        let opened = self
            .of_listener(id)
            .try_for_each(|bound| bound.listen(listener.backlog));
        if opened.is_err() {
            self.of_listener(id).for_each(Bound::shut);
        }
        opened
    }

    /// Its addresses that can be shut.
    fn of_listener(&self, id: ListenerId) -> impl Iterator<Item = &Bound> {
        let is_its = move |bound: &&Bound| bound.listener == id && !bound.is_unix();
        self.all().filter(is_its)
    }

    /// Whether a listener that should be open is not, or one that should be shut still has flows.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether a listener that should be open is not.
    pub(super) fn cannot_open(&self) -> bool {
        self.cannot_open
    }

    /// By listener.
    pub(super) fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// Whether each worker is to accept from each of its sockets.
    pub(super) fn accepting(&self) -> Arc<[bool]> {
        let is_open = |bound: &Bound| bound.is_unix() || self.doors[bound.listener.index()].is_open;
        let gates = self.bound.iter();
        gates
            .map(|bound| bound.as_ref().is_some_and(is_open))
            .collect()
    }

    /// Where each listener is bound, with the ports that the kernel chose.
    pub(super) fn addresses(&self, listeners: usize) -> Vec<Vec<String>> {
        let mut addresses = vec![Vec::new(); listeners];
        for bound in self.all() {
            addresses[bound.listener.index()].push(bound.name());
        }
        for (listener, name) in self.datagrams.names() {
            addresses[listener.index()].push(name);
        }
        addresses
    }

    /// From now on the kernel refuses connects, and datagrams once the workers have let go.
    pub(super) fn refuse(&mut self) {
        self.all().for_each(Bound::shut);
        self.datagrams.shut_all();
    }

    /// Removes the files of unix sockets.
    pub(super) fn clean_up(&self) {
        for file in self.all().filter_map(|bound| bound.file.as_ref()) {
            file.remove();
        }
    }
}

/// Its addresses for connections.
fn streams(listener: &Listener) -> impl Iterator<Item = &ListenAddress> {
    let is_stream = |address: &&ListenAddress| !matches!(address, ListenAddress::Udp(..));
    listener.addresses.iter().filter(is_stream)
}

fn bind(
    listener: &str,
    address: &ListenAddress,
    keepalive: &Keepalive,
    workers: usize,
    is_ours: bool,
) -> io::Result<Vec<Arc<Socket>>> {
    match address {
        ListenAddress::Unix(path) => {
            unix::make_room(path)?;
            let socket = Arc::new(socket::bind_unix(path)?);
            Ok(vec![socket; workers])
        }
        ListenAddress::Tcp(bind, freebind) => {
            let is_missing = match is_missing(*bind) {
                // An address of ours that overlaps is about to go.
                Err(error) if is_ours && error.kind() == io::ErrorKind::AddrInUse => false,
                found => found?,
            };
            if is_missing {
                freebind.allows(listener, &describe(address))?;
            }
            bind_group(*bind, keepalive, is_missing, workers)
        }
        ListenAddress::Udp(..) => Ok(Vec::new()),
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
    bind: Bind,
    keepalive: &Keepalive,
    freebind: bool,
    workers: usize,
) -> io::Result<Vec<Arc<Socket>>> {
    // A port that the kernel chose is asked for like any other: a socket would lose it when it is shut.
    let first = socket::bind_tcp(bind, keepalive, freebind)?;
    let bind = match socket::local_address(&first) {
        Some(chosen) => bind.with_port(chosen.port()),
        None => bind,
    };
    (0..workers)
        .map(|_| socket::bind_tcp(bind, keepalive, freebind).map(Arc::new))
        .collect()
}

impl Freebind {
    /// Whether an address that the host does not have is bound all the same, with a word in the log where that may be
    /// a mistake.
    pub(super) fn allows(self, listener: &str, address: &str) -> io::Result<()> {
        match self {
            Freebind::On => {}
            Freebind::Off => return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
            Freebind::Auto => tracing::warn!(
                listener,
                address,
                "this host does not have the address; clients are served as soon as it has \
                 (`ip address` shows those it has; `freebind: true` silences this)"
            ),
        }
        Ok(())
    }
}

fn datagram_error(snapshot: &Snapshot, (id, address, error): datagrams::Failed) -> Error {
    bind_error(&snapshot.listeners[id.index()].name, &address, &error)
}

fn bind_error(listener: &str, address: &ListenAddress, error: &io::Error) -> Error {
    let place = format!(
        "listener {listener}: cannot listen on {}",
        describe(address)
    );
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::Permission(match address {
            ListenAddress::Unix(_) => {
                format!(
                    "{place}: not permitted; its folder is not one that this process may write in"
                )
            }
            ListenAddress::Tcp(..) | ListenAddress::Udp(..) => format!(
                "{place}: not permitted; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE \
                 (AmbientCapabilities= in the unit, or run as root)"
            ),
        }),
        _ if error.kind() == io::ErrorKind::AddrInUse => Error::Host(format!(
            "{place}: another process (or another address of this file) has it already; \
             `{}` shows which",
            who_has(address)
        )),
        Some(libc::EADDRNOTAVAIL) => Error::Host(format!(
            "{place}: this host does not have that address, and `freebind: false` says that it must; \
             `ip address` shows those it has"
        )),
        _ => Error::Host(format!("{place}: {error}")),
    }
}

/// The command that shows who has an address.
fn who_has(address: &ListenAddress) -> &'static str {
    match address {
        ListenAddress::Tcp(..) => "ss -ltnp",
        ListenAddress::Udp(..) => "ss -lunp",
        ListenAddress::Unix(_) => "ss -lxp",
    }
}

fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(Bind::Address(address), _)
        | ListenAddress::Udp(Bind::Address(address), _) => address.to_string(),
        ListenAddress::Tcp(Bind::Any(port), _) | ListenAddress::Udp(Bind::Any(port), _) => {
            format!("*:{port}")
        }
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
