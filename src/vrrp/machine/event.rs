//! What a virtual router is told ([`Event`]), what it says is to be done ([`Action`]), and what it says about itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::packet::{Datagram, Rejection, Version};
#[cfg(doc)]
use super::Machine;
use super::VirtualRouter;
use crate::time::Time;

/// The three states of RFC 9568, section 6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes no part: see [`Machine::waits_for`].
    Initialize,
    /// Another router holds the addresses, or nobody does yet.
    Backup,
    /// It holds the addresses.
    Active,
}

/// How well this machine could serve the addresses. The reasons are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing is wrong.
    Well,
    /// It serves, but another one may serve better: leaves to a router that is well, and to nobody else.
    SoftFault(Arc<str>),
    /// It cannot serve: gives the addresses up at once and stays out.
    HardFault(Arc<str>),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The interface is there and has a carrier, and this address of it is where advertisements come from.
    LinkUp(IpAddr),
    /// The interface, its carrier or its address is gone.
    LinkDown,
    /// A datagram arrived. Everything that has arrived is told before [`Event::Expired`].
    Received(&'a Datagram<'a>),
    /// Something arrived for this virtual router that is no datagram of the protocol.
    Unreadable {
        /// From whom.
        source: IpAddr,
        /// Why.
        rejection: Rejection,
    },
    /// [`Machine::deadline`] has passed.
    Expired,
    /// How well this machine could serve has changed.
    Readiness(Readiness),
    /// The first round of probes is over.
    ProbesEnded,
    /// [`Action::HoldAddresses`] was done: every address is on the interface, for a lease from now on.
    AddressesHeld {
        /// That of the action.
        term: u32,
    },
    /// Somebody else removed an address of ours, or its lease ran out.
    AddressDeleted,
    /// Somebody else answers for this address: in ARP, in neighbour discovery.
    ForeignOwner(IpAddr),
    /// An operator wants another router to take over. [`Action::HandedOver`] follows.
    Failover,
    /// Another virtual router of the group has lost its addresses to another machine: follow it.
    Follow,
    /// An operator does not want it to take over while another router serves.
    HoldBack,
    /// An operator lets it take over again after [`Event::Failover`] or [`Event::HoldBack`].
    Release,
    /// It is configured otherwise from now on, for the same number on the same interface and in the same version.
    Configured(Box<VirtualRouter>),
    /// The process ends. [`Action::Stopped`] follows.
    Stop,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send [`VirtualRouter::advertisement`] with this priority, now.
    SendAdvertisement {
        /// 0: leaving.
        priority: u8,
    },
    /// See that every address is on the interface, for a lease from now on; answer with [`Event::AddressesHeld`].
    /// Asked for again before the lease is over; one that has not been begun is overtaken by the next one.
    HoldAddresses {
        /// Counts how often this router became Active.
        term: u32,
    },
    /// Take every address from the interface.
    RemoveAddresses,
    /// End the sessions of the addresses with a reset, while their packets still get out.
    EndSessions,
    /// Tell the link where every address is: one round, paced.
    Announce,
    /// Tell others about the new role.
    Changed(Transition),
    /// Tell the rest of the group: another router has taken the addresses while this one was late.
    Lost,
    /// Tell people. At most once per second and kind.
    Alarm(Alarm),
    /// Tell people what is not listened to. At most once per ten seconds and kind; [`super::Counters`] has all.
    Rejected {
        /// From whom.
        source: IpAddr,
        /// Why.
        rejection: Rejection,
    },
    /// What became of [`Event::Failover`].
    HandedOver(HandOver),
    /// It has let go of everything: the process may end.
    Stopped,
}

/// What became of a hand-over that an operator wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// This router holds the addresses now.
    To(IpAddr),
    /// Nobody was heard within one down interval: this router serves on.
    NobodyTookOver,
    /// There was nothing to hand over.
    NotActive,
    /// A fault or a stop was faster.
    Interrupted,
}

/// Why the role changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What it waited for is there.
    Started,
    /// It owns the addresses (priority 255) and need not wait.
    Owner,
    /// No Active router was heard for a down interval.
    NothingHeard,
    /// The Active router said that it leaves.
    ActiveLeft(IpAddr),
    /// The Active router is not well, and this one is.
    ActiveIsIll {
        /// Who it is.
        from: IpAddr,
        /// What it advertised.
        priority: u8,
    },
    /// The Active router has a lower priority, and this one preempts.
    Preempted {
        /// Who it is.
        from: IpAddr,
        /// What it advertised.
        priority: u8,
    },
    /// A router with a higher priority, or with the same one and a higher address, is Active.
    HigherPriority {
        /// Who it is.
        from: IpAddr,
        /// What it advertised.
        priority: u8,
    },
    /// This router was not well, for this reason, and gave way.
    GaveWay {
        /// To whom.
        to: IpAddr,
        /// What was wrong here.
        why: Arc<str>,
    },
    /// It was told to hand over, to follow its group or to stop, and another one took over.
    HandedOver(IpAddr),
    /// The process ends.
    Stopped,
    /// The interface, its carrier or its address is gone.
    LinkDown,
    /// It cannot serve.
    HardFault(Arc<str>),
    /// Nothing was sent for so long that another router may have taken over.
    LoopLate(Duration),
}

/// A change of the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// From which role.
    pub from: Role,
    /// To which role.
    pub to: Role,
    /// Why.
    pub cause: Cause,
}

impl Transition {
    /// Whether the addresses are another router's now, so that the rest of the group is to be told [`Event::Follow`].
    /// (What is wrong with this machine is wrong for the whole group: all of it is told the same readiness.)
    #[must_use]
    pub fn is_lost_to_another(&self) -> bool {
        match self.cause {
            Cause::HigherPriority { .. } | Cause::GaveWay { .. } | Cause::HandedOver(_) => true,
            Cause::Started
            | Cause::Owner
            | Cause::NothingHeard
            | Cause::ActiveLeft(_)
            | Cause::ActiveIsIll { .. }
            | Cause::Preempted { .. }
            | Cause::Stopped
            | Cause::LinkDown
            | Cause::HardFault(_)
            | Cause::LoopLate(_) => false,
        }
    }
}

/// What a virtual router waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For the interface, its carrier and its address.
    Link,
    /// For a hard fault to end.
    HardFault(Arc<str>),
    /// For the first round of probes.
    Probes,
    /// It has stopped.
    Stopped,
}

/// Something that people should look at. The machine goes on as well as it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// The routers are configured with different addresses.
    #[error("{from} advertises other addresses: not {missing:?}, but also {added:?}")]
    AddressesDiffer {
        /// The other router.
        from: IpAddr,
        /// Addresses that only we have.
        missing: Vec<IpAddr>,
        /// Addresses that only it has.
        added: Vec<IpAddr>,
    },
    /// The routers are configured with different intervals.
    #[error("{from} advertises every {theirs:?}, here it is {ours:?}")]
    IntervalDiffers {
        /// The other router.
        from: IpAddr,
        /// Its interval.
        theirs: Duration,
        /// Ours.
        ours: Duration,
    },
    /// The routers are configured with different passwords; they do not hear each other.
    #[error("{from} has another password, or only one side has one")]
    PasswordDiffers {
        /// The other router.
        from: IpAddr,
    },
    /// The routers speak different versions; they do not hear each other.
    #[error(
        "{from} speaks {theirs}, here it is {ours}: neither hears the other, and both may be active; give both the \
         same `version`"
    )]
    VersionDiffers {
        /// The other router.
        from: IpAddr,
        /// Its version.
        theirs: Version,
        /// Ours.
        ours: Version,
    },
    /// The other router authenticates by AH, which is not spoken here; they do not hear each other.
    #[error(
        "{from} authenticates by AH, which is not supported: neither hears the other, and both may be active; use \
         `auth_type PASS` there and `auth` here, or none on both"
    )]
    AuthenticationHeader {
        /// The other router.
        from: IpAddr,
    },
    /// Advertisements arrive from our own address.
    #[error("advertisements arrive from our own address {0}")]
    OwnAddressHeard(IpAddr),
    /// Two routers are Active.
    #[error("{from} is Active too, with priority {priority}")]
    AnotherActive {
        /// The other router.
        from: IpAddr,
        /// What it advertised.
        priority: u8,
    },
    /// Somebody else answers for a virtual address.
    #[error("somebody else answers for {0}")]
    ForeignOwner(IpAddr),
    /// The lease of the addresses ran out before it was renewed: they were gone for a while.
    #[error(
        "the addresses were renewed {0:?} after the last time, which is longer than their lease"
    )]
    LeaseLate(Duration),
}

impl Alarm {
    /// Whether it says that this router is not heard.
    pub(super) fn is_deafness_to(&self, router: IpAddr) -> bool {
        match self {
            Alarm::PasswordDiffers { from }
            | Alarm::VersionDiffers { from, .. }
            | Alarm::AuthenticationHeader { from } => *from == router,
            Alarm::AddressesDiffer { .. }
            | Alarm::IntervalDiffers { .. }
            | Alarm::OwnAddressHeard(_)
            | Alarm::AnotherActive { .. }
            | Alarm::ForeignOwner(_)
            | Alarm::LeaseLate(_) => false,
        }
    }
}
