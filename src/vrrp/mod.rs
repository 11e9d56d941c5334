//! The virtual addresses: which of the machines that may hold them does (RFC 9568, RFC 3768).
//!
//! - Pure: [`packet`] is the wire, [`machine`] is one virtual router, [`settings`] is one as the file has it;
//!   [`fitness`], [`wishes`], [`paced`], [`reading`] and [`frames`] are what a virtual router needs beside its machine.
//! - [`thread`] drives the machines on a thread of its own that receives, decides and sends, and does nothing that can
//!   block. [`kernel`](self) is the thread beside it that talks to the kernel about interfaces and addresses.
//! - Control says how well this machine could serve ([`Command`]) and is told what happens ([`Report`]); it logs, ends
//!   sessions and runs commands. [`progress`] shows that it and the workers are alive.

mod channel;
pub mod fitness;
pub mod frames;
mod interfaces;
mod kernel;
pub mod machine;
pub mod paced;
pub mod packet;
pub mod progress;
pub mod reading;
pub mod settings;
pub mod thread;
mod virtual_link;
pub mod wishes;

use std::sync::Arc;

use machine::{HandOver, Machine, Readiness, Transition};
use settings::Settings;

/// Which virtual router, counted from 0 in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u16);

impl RouterId {
    /// The position in a table of all virtual routers.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One address family of one interface: a pair of sockets serves all virtual routers on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    interface: Arc<str>,
    is_ipv4: bool,
}

impl Segment {
    fn of(settings: &Settings) -> Segment {
        Segment {
            interface: Arc::clone(&settings.interface),
            is_ipv4: settings.is_ipv4(),
        }
    }

    fn has(&self, settings: &Settings) -> bool {
        self.interface == settings.interface && self.is_ipv4 == settings.is_ipv4()
    }
}

/// What the thread can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// How well this machine could serve the addresses.
    Readiness(RouterId, Readiness),
    /// The first round of probes is over.
    ProbesEnded,
    /// Another machine is to take over. [`Report::HandedOver`] follows.
    Failover(RouterId),
    /// Not to take over while another machine serves.
    Hold(RouterId),
    /// To take over again as it sees fit.
    Release(RouterId),
    /// To go on with other settings, of which [`Settings::becomes`] is true.
    Configure(RouterId, Arc<Settings>),
    /// What [`Report::EndSessions`] asked for is done.
    SessionsEnded(Ticket),
    /// [`Report::Described`] follows.
    Describe,
    /// Give everything up in order. [`Report::Stopped`] follows.
    Stop,
    /// Give everything up at once. [`Report::Stopped`] follows.
    StopNow,
}

/// One time that sessions are to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the thread tells.
#[derive(Debug)]
pub enum Report {
    /// The role changed.
    Changed {
        /// Of which virtual router.
        router: RouterId,
        /// How, when and why.
        transition: Transition,
        /// With which priority it is there now.
        priority: u8,
    },
    /// End all sessions on the addresses with a reset, soon: the addresses are about to go.
    EndSessions {
        /// Of which virtual router.
        router: RouterId,
        /// To answer with.
        ticket: Ticket,
    },
    /// A line for the log.
    Said {
        /// About which virtual router, if about one.
        router: Option<RouterId>,
        /// Whether somebody should look at it.
        is_warning: bool,
        /// What.
        text: String,
    },
    /// What became of [`Command::Failover`].
    HandedOver(RouterId, HandOver),
    /// How every virtual router is, in their order.
    Described(Vec<Description>),
    /// Everything is given up, and the thread has ended.
    Stopped,
}

/// How a virtual router is.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its machine.
    pub machine: Machine,
    /// How well this machine could serve.
    pub readiness: Readiness,
    /// Advertisements that could not be sent.
    pub send_failures: u64,
    /// Datagrams on its interface for virtual routers that are not ours.
    pub unknown_vrid: u64,
    /// Datagrams on its interface that could not be read at all.
    pub malformed: u64,
    /// When it was looked at.
    pub at: crate::time::Time,
}
