//! Commands to a worker: a bounded channel, and an eventfd that its ring polls. Whoever sends never waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::accept::Gates;
use super::explain::Explain;
use super::sweep::Sweep;
use super::udp::Heard;
use crate::control::snapshot::Snapshot;
use crate::ids::{BackendId, ListenerId};
use crate::session::CloseReason;
use crate::vrrp::Ticket;
use crate::vrrp::progress::Progress;

/// Commands that may wait in one mailbox.
const CAPACITY: usize = 4096;

/// A connection that was accepted and has no session yet.
#[derive(Debug)]
pub struct Accepted {
    /// The client's socket.
    pub socket: OwnedFd,
    /// Where it connected.
    pub listener: ListenerId,
    /// Who connected; none for a unix socket.
    pub client: Option<SocketAddr>,
}

/// Another configuration, with the sockets that go with it: between two turns everything is as it says.
#[derive(Debug)]
pub struct TakeOver {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// What it listens on.
    pub gates: Gates,
    /// From which of those it accepts.
    pub open: Arc<[bool]>,
    /// Which listener each of its places for datagrams belongs to; none = the place is not in use.
    pub places: Box<[Option<ListenerId>]>,
    /// What it receives from there.
    pub heard: Heard,
    /// UDP flows of this worker, if it is to have its first ones.
    pub max_flows: u32,
}

/// What a worker can be told.
#[derive(Debug)]
pub enum Command {
    /// Serve this client: another worker has more sessions.
    Adopt(Accepted),
    /// Accept from these of the listening sockets, in their order, and from no others.
    Accept(Arc<[bool]>),
    /// Take datagrams of clients from these sockets, one for each place, and from no others.
    Hear(Heard),
    /// Take what waits in the listeners' queues, then report `AcceptsDrained` and accept no more.
    StopAccepting,
    /// See things this way from now on.
    See(Arc<Snapshot>),
    /// Change over to another configuration, then report `TakenOver`.
    TakeOver(Box<TakeOver>),
    /// A probe of this backend succeeded: failed connects before that count no more.
    Trust(BackendId),
    /// End every session with this reason, and stop when there are none.
    Kill(CloseReason),
    /// End every session on these addresses of this host, then report `AddressesCleared` with this ticket.
    ClearAddresses(Arc<[IpAddr]>, Ticket),
    /// Look at some sessions, or end them, and tell.
    Sweep(Sweep),
    /// Tell what a connection would get.
    Explain(Explain),
    /// Show that you are at work.
    Beat(Arc<Progress>),
    /// Freeze every session; thaw each again once all hold still.
    FreezeAndThaw,
}

/// The sending end. Cloned freely.
#[derive(Clone, Debug)]
pub struct Mailbox {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

/// The receiving end, the worker's own.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
}

/// Both ends of a new mailbox.
///
/// # Errors
/// When there is no file descriptor for the eventfd.
pub(super) fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let (sender, receiver) = bounded(CAPACITY);
    // Blocking: the ring only polls it, nobody reads.
    let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?);
    Ok((
        Mailbox {
            commands: sender,
            wake: Arc::clone(&wake),
        },
        Inbox {
            commands: receiver,
            wake,
        },
    ))
}

impl Mailbox {
    /// Sends without waiting.
    ///
    /// # Errors
    /// The command comes back when the mailbox is full or its worker is gone.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands
            .try_send(command)
            .map_err(TrySendError::into_inner)?;
        // A counter of 64 bits that nobody reads does not fill up.
        let _ = self.wake.write(1);
        Ok(())
    }
}

impl Inbox {
    pub(super) fn take(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}
