//! One virtual router: whether this machine holds its addresses (RFC 9568, section 6.4, and what the field taught).
//!
//! A pure state machine. [`Machine::on`] takes an event and says what to do; [`Machine::deadline`] says when it wants
//! [`Event::Expired`]. It sends nothing, touches no interface and reads no clock. The shell tells it everything that
//! has arrived before it tells it that time has passed, and does the actions in their order; those that can block
//! (addresses, sessions, log lines) it does elsewhere, so that no advertisement is late.
//!
//! Beyond the RFC:
//!
//! - The *loser* of two Active routers sends one last advertisement, so that the winner announces itself.
//! - Three kinds of [`Readiness`]. An Active router with a soft fault keeps the addresses and advertises a priority
//!   below [`PRIORITY_WELL`]: a Backup that is well takes over, one that is as ill does not. A hard fault gives up.
//! - Leaving (stop, fail-over): priority 0, and serve on until another router is heard, for at most a down interval.
//!   It is repeated, for packets get lost; a Backup believes it from the router that it knows as Active only.
//! - A loop that was late by a down interval takes it that another router is Active: it stops answering and listens.
//! - The interval of the Active router is believed up to [`LEARNED_MAX`] times our own.
//!
//! **Invariants**, asserted by the simulation: a datagram that fails a check changes nothing but counters; once all
//! routers hear each other, at most one is Active within an interval; a router without a hard fault holds the
//! addresses within a down interval; one fault moves no router twice.

mod alarms;
mod announce;
mod event;
mod router;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::packet::{
    Accepted, Advertisement, Body, ChecksumForm, Datagram, Kind, Rejection, Rules,
};
use crate::time::Time;

pub use event::{Action, Alarm, Cause, Event, HandOver, Readiness, Role, Transition, Wait};
pub use router::{LEARNED_MAX, PRIORITY_OWNER, PRIORITY_WELL, VirtualRouter};

use alarms::Alarms;
use announce::Announcements;

/// A start waits for the first round of probes, but not longer.
pub const PROBES_WAIT_MAX: Duration = Duration::from_secs(10);

/// Transitions that are remembered.
pub const HISTORY_MAX: usize = 32;

/// Advertisements that keep a shorter pace once the interval is longer: of three one may be lost, and one more.
const SLOWING: u8 = 3;

/// The part of an interval within which a second router is answered once only.
const ANSWER_PAUSE: u32 = 10;

/// What a virtual router has counted since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Advertisements that were listened to.
    pub accepted: u64,
    /// Of those, by [`ChecksumForm::index`].
    pub accepted_by_checksum: [u64; ChecksumForm::ALL.len()],
    /// Of those, with priority 0.
    pub accepted_leaving: u64,
    /// Datagrams that were not listened to, by [`Kind::index`].
    pub rejected: [u64; Kind::ALL.len()],
    /// Advertisements that were sent.
    pub sent: u64,
    /// Of those, with priority 0.
    pub sent_leaving: u64,
    /// How often it became Active.
    pub terms: u64,
    /// How often its loop was late by more than a down interval.
    pub loops_late: u64,
    /// How often the lease of its addresses ran out before it was renewed.
    pub leases_late: u64,
}

/// What another router said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub from: IpAddr,
    /// What.
    pub advertisement: Advertisement,
    /// When.
    pub at: Time,
}

/// Waiting for the Active router to fall silent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backup {
    /// Who was heard last as Active.
    active: Option<IpAddr>,
    /// The Active router's interval.
    interval: Duration,
    /// When it takes over.
    down_at: Time,
    /// What it will say then.
    cause: Cause,
    /// Sessions of its last term are kept: nobody else has been heard since.
    keeps_sessions: bool,
}

impl Backup {
    fn listening(active: Option<IpAddr>, interval: Duration, down_at: Time) -> Backup {
        Backup {
            active,
            interval,
            down_at,
            cause: Cause::NothingHeard,
            keeps_sessions: false,
        }
    }
}

/// Holding the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Active {
    since: Time,
    advertised: Time,
    advertise_at: Time,
    /// When the lease is to be renewed, if there is one.
    renew_at: Option<Time>,
    /// When the addresses were last known to be on the interface, in this term.
    held: Option<Time>,
    /// The addresses are being put back, and will be announced once they are there.
    announces: bool,
    announcements: Announcements,
    leaving: Option<Leaving>,
    /// Its interval has become longer.
    slowing: Option<Slowing>,
}

/// Advertisements that still come at the pace of a shorter interval: who was promised it and misses the first one that
/// says otherwise must not take silence for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slowing {
    interval: Duration,
    left: u8,
}

impl Active {
    /// How long the next advertisement waits.
    fn pace(&mut self, interval: Duration) -> Duration {
        let Some(slowing) = &mut self.slowing else {
            return interval;
        };
        let pace = slowing.interval;
        slowing.left -= 1;
        if slowing.left == 0 {
            self.slowing = None;
        }
        pace
    }
}

/// Waiting for another router to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaving {
    purpose: Purpose,
    until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Stop,
    Failover,
    Follow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Initialize,
    Backup(Backup),
    Active(Active),
}

/// One virtual router. See the module's text.
#[derive(Clone, Debug)]
pub struct Machine {
    router: VirtualRouter,
    rules: Rules,
    state: State,
    /// Where advertisements come from, while the interface can be used.
    link: Option<IpAddr>,
    readiness: Readiness,
    /// After a fault it counts as ill until then.
    well_from: Time,
    /// It preempts from then on.
    preempts_from: Time,
    /// Before that it does not become Active: the backends are not known yet.
    probes_until: Time,
    probes_ended: bool,
    /// It has handed over and does not want the addresses back while another router serves.
    is_held_back: bool,
    is_stopped: bool,
    /// Addresses that a crash left behind are removed at the first event, whether it can take part or not.
    is_clean: bool,
    term: u32,
    history: VecDeque<Transition>,
    counters: Counters,
    alarms: Alarms,
    heard: Option<Heard>,
}

impl Machine {
    /// A virtual router that waits for its interface.
    #[must_use]
    pub fn new(router: VirtualRouter, now: Time) -> Machine {
        Machine {
            rules: router.rules(),
            router,
            state: State::Initialize,
            link: None,
            readiness: Readiness::Well,
            well_from: now,
            preempts_from: now,
            probes_until: now + PROBES_WAIT_MAX,
            probes_ended: false,
            is_held_back: false,
            is_stopped: false,
            is_clean: false,
            term: 0,
            history: VecDeque::new(),
            counters: Counters {
                accepted: 0,
                accepted_by_checksum: [0; ChecksumForm::ALL.len()],
                accepted_leaving: 0,
                rejected: [0; Kind::ALL.len()],
                sent: 0,
                sent_leaving: 0,
                terms: 0,
                loops_late: 0,
                leases_late: 0,
            },
            alarms: Alarms::new(),
            heard: None,
        }
    }

    /// Takes an event in; what is to be done is added to `out`.
    pub fn on(&mut self, event: Event, now: Time, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.is_clean, true) {
            out.push(Action::RemoveAddresses);
        }
        self.doubt_itself_if_late(now, out);
        match event {
            Event::LinkUp(source) => {
                self.link = Some(source);
                self.start(now, out);
            }
            Event::LinkDown => {
                self.link = None;
                self.give_up(Cause::LinkDown, now, out);
            }
            Event::Received(datagram) => self.received(datagram, now, out),
            Event::Unreadable { source, rejection } => self.rejected(source, rejection, now, out),
            Event::Expired => self.expired(now, out),
            Event::Readiness(readiness) => self.readiness_changed(readiness, now, out),
            Event::ProbesEnded => self.probes_ended(now),
            Event::AddressesHeld { term } => self.addresses_held(term, now, out),
            Event::AddressDeleted => self.put_back(out),
            Event::ForeignOwner(address) => self.foreign_owner(address, now, out),
            Event::Failover => self.failover(now, out),
            Event::Follow => {
                self.leave(Purpose::Follow, now, out);
            }
            Event::HoldBack => self.is_held_back = self.role() != Role::Active,
            Event::Release => self.is_held_back = false,
            Event::Configured(router) => self.configured(*router, now, out),
            Event::Stop => self.stop(now, out),
        }
    }

    /// When [`Event::Expired`] is wanted, if nothing happens before. Any event may move it.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Initialize => None,
            State::Backup(backup) => Some(backup.down_at.max(self.probes_until)),
            State::Active(active) => {
                let others = [
                    active.renew_at,
                    active.announcements.due(),
                    active.leaving.map(|leaving| leaving.until),
                ];
                let others = others.into_iter().flatten();
                others.chain([active.advertise_at]).min()
            }
        }
    }

    /// Its state.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            State::Initialize => Role::Initialize,
            State::Backup(_) => Role::Backup,
            State::Active(_) => Role::Active,
        }
    }

    /// The priority that counts now: the configured one, or one below [`PRIORITY_WELL`] while it is not well.
    #[must_use]
    pub fn priority(&self, now: Time) -> u8 {
        if self.readiness == Readiness::Well && now >= self.well_from {
            self.router.priority
        } else {
            self.router.priority_ill()
        }
    }

    /// What it waits for before it takes part.
    #[must_use]
    pub fn waits_for(&self, now: Time) -> Option<Wait> {
        match &self.state {
            State::Initialize if self.is_stopped => Some(Wait::Stopped),
            State::Initialize => match &self.readiness {
                Readiness::HardFault(why) => Some(Wait::HardFault(Arc::clone(why))),
                Readiness::Well | Readiness::SoftFault(_) => Some(Wait::Link),
            },
            State::Backup(_) if !self.knows_backends(now) => Some(Wait::Probes),
            State::Backup(_) | State::Active(_) => None,
        }
    }

    /// Whether it has handed over and holds back.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// The router that a Backup last heard as Active.
    #[must_use]
    pub fn active_router(&self) -> Option<IpAddr> {
        match &self.state {
            State::Backup(backup) => backup.active,
            State::Active(_) => self.link,
            State::Initialize => None,
        }
    }

    /// What another router said last, and was listened to.
    #[must_use]
    pub fn last_heard(&self) -> Option<&Heard> {
        self.heard.as_ref()
    }

    /// As it is configured.
    #[must_use]
    pub fn router(&self) -> &VirtualRouter {
        &self.router
    }

    /// The last [`HISTORY_MAX`] transitions, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Transition> {
        self.history.iter()
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What people should look at, and since when.
    pub fn alarms(&self, now: Time) -> impl Iterator<Item = (&Alarm, Time)> {
        self.alarms.fresh(now)
    }

    // --- taking part and not ---

    /// Takes part if nothing is in the way.
    fn start(&mut self, now: Time, out: &mut Vec<Action>) {
        let is_failed = matches!(self.readiness, Readiness::HardFault(_));
        let can = self.link.is_some() && !is_failed && !self.is_stopped;
        if self.state != State::Initialize || !can {
            return;
        }
        self.preempts_from = now + self.router.preempt_delay;
        if self.priority(now) == PRIORITY_OWNER {
            self.become_active(Cause::Owner, now, out);
            return;
        }
        let interval = self.router.interval();
        let wait = self.router.down_interval(self.priority(now), interval);
        let backup = Backup::listening(None, interval, now + wait);
        self.become_backup(backup, Cause::Started, now, out);
    }

    /// Stops to take part, at once.
    fn give_up(&mut self, cause: Cause, now: Time, out: &mut Vec<Action>) {
        match &self.state {
            State::Initialize => return,
            State::Backup(backup) => {
                if backup.keeps_sessions {
                    out.push(Action::EndSessions);
                }
            }
            State::Active(active) => {
                let leaving = active.leaving;
                if self.link.is_some() {
                    self.send(0, now, out);
                }
                out.extend([Action::EndSessions, Action::RemoveAddresses]);
                if leaving.is_some_and(|leaving| leaving.purpose == Purpose::Failover) {
                    out.push(Action::HandedOver(HandOver::Interrupted));
                }
                if leaving.is_some_and(|leaving| leaving.purpose == Purpose::Stop) {
                    self.is_stopped = true;
                }
            }
        }
        let changed = self.change(State::Initialize, cause, now);
        out.push(changed);
        if self.is_stopped {
            out.push(Action::Stopped);
        }
    }

    fn stop(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.leave(Purpose::Stop, now, out) || self.is_stopped {
            return;
        }
        self.is_stopped = true;
        if self.state == State::Initialize {
            out.push(Action::Stopped);
        } else {
            self.give_up(Cause::Stopped, now, out);
        }
    }

    fn readiness_changed(&mut self, readiness: Readiness, now: Time, out: &mut Vec<Action>) {
        let was_well = std::mem::replace(&mut self.readiness, readiness) == Readiness::Well;
        match self.readiness.clone() {
            Readiness::HardFault(why) => self.give_up(Cause::HardFault(why), now, out),
            Readiness::SoftFault(_) => self.start(now, out),
            Readiness::Well => {
                // What the first probes have not found yet is no fault that it recovers from. One that has kept the
                // addresses serves now; to wait would only make another one take over.
                let serves = self.role() == Role::Active;
                if !was_well && !serves && self.knows_backends(now) {
                    self.well_from = now + self.router.preempt_delay;
                }
                self.start(now, out);
            }
        }
    }

    fn knows_backends(&self, now: Time) -> bool {
        self.probes_ended || now >= self.probes_until
    }

    /// Routers that end their first round at the same moment still take over one after the other.
    fn probes_ended(&mut self, now: Time) {
        let skew = self.router.skew(self.priority(now), self.router.interval());
        self.probes_ended = true;
        self.probes_until = self.probes_until.min(now + skew);
    }

    /// Says at once what is new. What another router is believed to be is not touched, so that nothing moves by itself.
    fn configured(&mut self, router: VirtualRouter, now: Time, out: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.router, router);
        self.rules = self.router.rules();
        let priority = self.priority(now);
        let State::Active(active) = &mut self.state else {
            return;
        };
        let moves = !before.body.addresses().eq(self.router.body.addresses());
        active.announces |= moves;
        if moves || before.lease != self.router.lease {
            active.renew_at = renewal(self.router.lease, now);
            out.push(Action::HoldAddresses { term: self.term });
        }
        if before.interval() < self.router.interval() {
            active.slowing = Some(Slowing {
                interval: before.interval(),
                left: SLOWING,
            });
        }
        let is_leaving = active.leaving.is_some();
        self.send(if is_leaving { 0 } else { priority }, now, out);
    }

    // --- hearing others ---

    fn received(&mut self, datagram: &Datagram, now: Time, out: &mut Vec<Action>) {
        match self.rules.accept(datagram, self.link) {
            Ok(accepted) => self.heard(&accepted, now, out),
            Err(rejection) => self.rejected(datagram.ends.source(), rejection, now, out),
        }
    }

    fn rejected(&mut self, source: IpAddr, rejection: Rejection, now: Time, out: &mut Vec<Action>) {
        let kind = rejection.kind();
        self.counters.rejected[kind.index()] += 1;
        if kind == Kind::SourceOurs {
            self.raise(Alarm::OwnAddressHeard(source), now, out);
        }
        if matches!(kind, Kind::Password | Kind::AuthenticationDiffers) {
            self.raise(Alarm::PasswordDiffers { from: source }, now, out);
        }
        if kind == Kind::AuthenticationHeader {
            self.raise(Alarm::AuthenticationHeader { from: source }, now, out);
        }
        let from = source;
        if let Rejection::IntervalDiffers { theirs, ours } = rejection {
            self.raise(Alarm::IntervalDiffers { from, theirs, ours }, now, out);
        }
        if let Rejection::VersionDiffers { theirs, ours } = rejection {
            self.raise(Alarm::VersionDiffers { from, theirs, ours }, now, out);
        }
        if self.alarms.tells(&rejection, now) {
            out.push(Action::Rejected { source, rejection });
        }
    }

    fn heard(&mut self, accepted: &Accepted, now: Time, out: &mut Vec<Action>) {
        self.counters.accepted += 1;
        self.counters.accepted_by_checksum[accepted.checksum.index()] += 1;
        self.counters.accepted_leaving += u64::from(accepted.advertisement.priority == 0);
        self.note(accepted, now);
        self.compare_configurations(accepted, now, out);
        let priority = accepted.advertisement.priority;
        match &self.state {
            State::Initialize => {}
            State::Backup(_) if priority == 0 => self.active_leaves(accepted.source, now),
            State::Backup(_) => self.heard_as_backup(accepted, now, out),
            State::Active(_) if priority == 0 => self.assert_itself(now, out),
            State::Active(_) => self.heard_as_active(accepted, now, out),
        }
    }

    fn note(&mut self, accepted: &Accepted, now: Time) {
        match &mut self.heard {
            Some(heard) if heard.advertisement == accepted.advertisement => {
                (heard.from, heard.at) = (accepted.source, now);
            }
            heard => {
                *heard = Some(Heard {
                    from: accepted.source,
                    advertisement: accepted.advertisement.clone(),
                    at: now,
                });
            }
        }
    }

    /// A Backup that believed anybody would take over whenever the last word of a router comes late.
    fn active_leaves(&mut self, source: IpAddr, now: Time) {
        let priority = self.priority(now);
        let State::Backup(backup) = &mut self.state else {
            return;
        };
        if backup.active.is_none_or(|active| active == source) {
            let skew = self.router.skew(priority, backup.interval);
            backup.down_at = backup.down_at.min(now + skew);
            backup.cause = Cause::ActiveLeft(source);
            backup.active = None;
        }
    }

    fn heard_as_backup(&mut self, accepted: &Accepted, now: Time, out: &mut Vec<Action>) {
        let ours = self.priority(now);
        let contested = self.contested(accepted, now);
        let State::Backup(backup) = &mut self.state else {
            return;
        };
        if std::mem::take(&mut backup.keeps_sessions) {
            out.extend([Action::EndSessions, Action::Lost]);
        }
        backup.active = Some(accepted.source);
        if let Some(cause) = contested {
            // Not listened to: the time that was running runs on.
            backup.cause = cause;
            return;
        }
        backup.interval = self.router.believed(accepted.advertisement.interval());
        backup.down_at = now + self.router.down_interval(ours, backup.interval);
        backup.cause = Cause::NothingHeard;
    }

    /// Why it takes over although this Active router is alive.
    fn contested(&self, accepted: &Accepted, now: Time) -> Option<Cause> {
        let ours = self.priority(now);
        let (from, priority) = (accepted.source, accepted.advertisement.priority);
        if self.is_held_back || ours < PRIORITY_WELL {
            return None;
        }
        if priority < PRIORITY_WELL {
            return Some(Cause::ActiveIsIll { from, priority });
        }
        let preempts = self.router.preempt && now >= self.preempts_from;
        let wins = priority < ours && (preempts || ours == PRIORITY_OWNER);
        wins.then_some(Cause::Preempted { from, priority })
    }

    fn heard_as_active(&mut self, accepted: &Accepted, now: Time, out: &mut Vec<Action>) {
        let State::Active(active) = &self.state else {
            return;
        };
        if active.leaving.is_some() {
            self.yield_to(accepted, now, out);
            return;
        }
        let theirs = (accepted.advertisement.priority, Some(accepted.source));
        if theirs > (self.priority(now), self.link) {
            self.yield_to(accepted, now, out);
            return;
        }
        // A router that has just lost says one last word: that is no second one.
        if now - active.since > self.router.interval() {
            let alarm = Alarm::AnotherActive {
                from: accepted.source,
                priority: theirs.0,
            };
            self.raise(alarm, now, out);
        }
        self.assert_itself(now, out);
    }

    /// Another router spoke as if it were Active: says who is, to it and to the link.
    fn assert_itself(&mut self, now: Time, out: &mut Vec<Action>) {
        let priority = self.priority(now);
        let pause = self.router.interval() / ANSWER_PAUSE;
        let State::Active(active) = &mut self.state else {
            return;
        };
        if active.leaving.is_some() {
            return;
        }
        active.announcements.doubt(now);
        if now - active.advertised >= pause {
            self.send(priority, now, out);
        }
        self.announce_if_due(now, out);
    }

    /// Leaves the addresses to another Active router.
    fn yield_to(&mut self, accepted: &Accepted, now: Time, out: &mut Vec<Action>) {
        let State::Active(active) = &self.state else {
            return;
        };
        let to = accepted.source;
        let (leaving, ours) = (active.leaving, self.priority(now));
        let cause = match (&self.readiness, leaving) {
            (_, Some(_)) => Cause::HandedOver(to),
            (Readiness::SoftFault(why), None) => Cause::GaveWay {
                to,
                why: Arc::clone(why),
            },
            (Readiness::Well | Readiness::HardFault(_), None) => Cause::HigherPriority {
                from: to,
                priority: accepted.advertisement.priority,
            },
        };
        // The last word, so that the winner announces itself.
        self.send(if leaving.is_some() { 0 } else { ours }, now, out);
        out.extend([Action::EndSessions, Action::RemoveAddresses]);
        if leaving.is_some_and(|leaving| leaving.purpose == Purpose::Stop) {
            self.is_stopped = true;
            let changed = self.change(State::Initialize, cause, now);
            out.extend([changed, Action::Stopped]);
            return;
        }
        let interval = self.router.believed(accepted.advertisement.interval());
        let down_at = now + self.router.down_interval(ours, interval);
        let backup = Backup::listening(Some(to), interval, down_at);
        self.become_backup(backup, cause, now, out);
        if leaving.is_some_and(|leaving| leaving.purpose == Purpose::Failover) {
            self.is_held_back = true;
            out.push(Action::HandedOver(HandOver::To(to)));
        }
    }

    /// What people configured differently here and there. It is listened to all the same.
    fn compare_configurations(&mut self, accepted: &Accepted, now: Time, out: &mut Vec<Action>) {
        let from = accepted.source;
        self.alarms.clear(|alarm| alarm.is_deafness_to(from));
        let (theirs, ours) = (accepted.advertisement.interval(), self.router.interval());
        if theirs == ours {
            self.alarms.clear(
                |alarm| matches!(alarm, Alarm::IntervalDiffers { from: other, .. } if *other == from),
            );
        } else {
            self.raise(Alarm::IntervalDiffers { from, theirs, ours }, now, out);
        }
        let (missing, added) = differences(&self.router.body, &accepted.advertisement.body);
        if missing.is_empty() && added.is_empty() {
            self.alarms.clear(
                |alarm| matches!(alarm, Alarm::AddressesDiffer { from: other, .. } if *other == from),
            );
        } else {
            let alarm = Alarm::AddressesDiffer {
                from,
                missing,
                added,
            };
            self.raise(alarm, now, out);
        }
    }

    fn raise(&mut self, alarm: Alarm, now: Time, out: &mut Vec<Action>) {
        if self.alarms.raise(&alarm, now) {
            out.push(Action::Alarm(alarm));
        }
    }

    // --- time ---

    fn expired(&mut self, now: Time, out: &mut Vec<Action>) {
        let Some(deadline) = self.deadline().filter(|deadline| *deadline <= now) else {
            return;
        };
        match &self.state {
            State::Initialize => {}
            State::Backup(backup) => {
                let late = now - deadline;
                if late > self.patience() {
                    self.counters.loops_late += 1;
                    self.listen_once_more(now);
                } else {
                    let cause = backup.cause.clone();
                    self.become_active(cause, now, out);
                }
            }
            State::Active(_) => self.expired_as_active(now, out),
        }
    }

    fn expired_as_active(&mut self, now: Time, out: &mut Vec<Action>) {
        let is_over = |leaving: &mut Leaving| leaving.until <= now;
        if let State::Active(active) = &mut self.state
            && let Some(leaving) = active.leaving.take_if(is_over)
        {
            self.nobody_took_over(leaving.purpose, now, out);
        }
        let priority = self.priority(now);
        let State::Active(active) = &mut self.state else {
            return;
        };
        let priority = if active.leaving.is_some() {
            0
        } else {
            priority
        };
        if active.renew_at.is_some_and(|at| at <= now) {
            active.renew_at = renewal(self.router.lease, now);
            out.push(Action::HoldAddresses { term: self.term });
        }
        if active.advertise_at <= now {
            self.send(priority, now, out);
        }
        self.announce_if_due(now, out);
    }

    fn announce_if_due(&mut self, now: Time, out: &mut Vec<Action>) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        if active.announcements.take_due(now) {
            out.push(Action::Announce);
        }
    }

    /// The soonest that another router can have taken over from one that is silent.
    fn patience(&self) -> Duration {
        let best = PRIORITY_OWNER - 1;
        self.router.down_interval(best, self.router.interval())
    }

    /// Silent for so long that another router may be Active: stops answering, and listens before it decides.
    fn doubt_itself_if_late(&mut self, now: Time, out: &mut Vec<Action>) {
        let State::Active(active) = &self.state else {
            return;
        };
        let silent = now - active.advertised;
        if silent <= self.patience() {
            return;
        }
        self.counters.loops_late += 1;
        match active.leaving.map(|leaving| leaving.purpose) {
            Some(Purpose::Stop) => return self.give_up(Cause::LoopLate(silent), now, out),
            Some(Purpose::Failover) => out.push(Action::HandedOver(HandOver::Interrupted)),
            Some(Purpose::Follow) | None => {}
        }
        out.push(Action::RemoveAddresses);
        let mut backup = Backup::listening(None, self.router.interval(), now);
        backup.keeps_sessions = true;
        self.become_backup(backup, Cause::LoopLate(silent), now, out);
        self.listen_once_more(now);
    }

    fn listen_once_more(&mut self, now: Time) {
        let priority = self.priority(now);
        let State::Backup(backup) = &mut self.state else {
            return;
        };
        let skew = self.router.skew(priority, backup.interval);
        backup.down_at = now + backup.interval + skew;
    }

    // --- handing over ---

    /// Says that it leaves; whether there was anything to leave.
    fn leave(&mut self, purpose: Purpose, now: Time, out: &mut Vec<Action>) -> bool {
        let ours = self.priority(now);
        let wait = self.router.down_interval(ours, self.router.interval());
        let State::Active(active) = &mut self.state else {
            return false;
        };
        if let Some(leaving) = &mut active.leaving {
            // The more lasting purpose counts; the time that was running runs on.
            if purpose == Purpose::Stop && leaving.purpose == Purpose::Failover {
                out.push(Action::HandedOver(HandOver::Interrupted));
            }
            if leaving.purpose == Purpose::Follow || purpose == Purpose::Stop {
                leaving.purpose = purpose;
            }
            return true;
        }
        active.leaving = Some(Leaving {
            purpose,
            until: now + wait,
        });
        self.send(0, now, out);
        true
    }

    fn failover(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.leave(Purpose::Failover, now, out) {
            out.push(Action::HandedOver(HandOver::NotActive));
        }
    }

    fn nobody_took_over(&mut self, purpose: Purpose, now: Time, out: &mut Vec<Action>) {
        match purpose {
            Purpose::Stop => {
                self.is_stopped = true;
                self.give_up(Cause::Stopped, now, out);
            }
            Purpose::Failover => {
                self.send(self.priority(now), now, out);
                out.push(Action::HandedOver(HandOver::NobodyTookOver));
            }
            Purpose::Follow => self.send(self.priority(now), now, out),
        }
    }

    // --- the addresses ---

    fn addresses_held(&mut self, term: u32, now: Time, out: &mut Vec<Action>) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        if term != self.term {
            return;
        }
        let since = active
            .held
            .replace(now)
            .map_or(Duration::ZERO, |held| now - held);
        let lapsed = self.router.lease.is_some_and(|lease| since > lease);
        if std::mem::take(&mut active.announces) || lapsed {
            active.announcements.begin(now);
        }
        if lapsed {
            self.counters.leases_late += 1;
            self.raise(Alarm::LeaseLate(since), now, out);
        }
        self.announce_if_due(now, out);
    }

    fn put_back(&mut self, out: &mut Vec<Action>) {
        if let State::Active(active) = &mut self.state {
            active.announces = true;
            out.push(Action::HoldAddresses { term: self.term });
        }
    }

    fn foreign_owner(&mut self, address: IpAddr, now: Time, out: &mut Vec<Action>) {
        if let State::Active(active) = &mut self.state {
            active.announcements.doubt(now);
            self.raise(Alarm::ForeignOwner(address), now, out);
            self.announce_if_due(now, out);
        }
    }

    // --- changing the role ---

    fn become_active(&mut self, cause: Cause, now: Time, out: &mut Vec<Action>) {
        self.term = self.term.wrapping_add(1);
        self.counters.terms += 1;
        self.is_held_back = false;
        if self.readiness == Readiness::Well {
            // It serves now, whatever was before.
            self.well_from = now;
        }
        let active = Active {
            since: now,
            advertised: now,
            advertise_at: now,
            renew_at: renewal(self.router.lease, now),
            held: None,
            announces: true,
            announcements: Announcements::default(),
            leaving: None,
            slowing: None,
        };
        let changed = self.change(State::Active(active), cause, now);
        // The advertisement goes out before anything else: it ends the others' waiting.
        self.send(self.priority(now), now, out);
        out.push(Action::HoldAddresses { term: self.term });
        out.push(changed);
    }

    fn become_backup(&mut self, backup: Backup, cause: Cause, now: Time, out: &mut Vec<Action>) {
        let changed = self.change(State::Backup(backup), cause, now);
        out.push(changed);
    }

    fn change(&mut self, state: State, cause: Cause, now: Time) -> Action {
        let from = self.role();
        self.state = state;
        let transition = Transition {
            at: now,
            from,
            to: self.role(),
            cause,
        };
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(transition.clone());
        Action::Changed(transition)
    }

    fn send(&mut self, priority: u8, now: Time, out: &mut Vec<Action>) {
        self.counters.sent += 1;
        self.counters.sent_leaving += u64::from(priority == 0);
        let interval = self.router.interval();
        if let State::Active(active) = &mut self.state {
            active.advertised = now;
            active.advertise_at = now + active.pace(interval);
        }
        out.push(Action::SendAdvertisement { priority });
    }
}

/// The addresses that are only in one of two advertisements: in the first, in the second.
fn differences(ours: &Body, theirs: &Body) -> (Vec<IpAddr>, Vec<IpAddr>) {
    if ours.addresses().eq(theirs.addresses()) {
        return (Vec::new(), Vec::new());
    }
    let ours: Vec<IpAddr> = ours.addresses().collect();
    let theirs: Vec<IpAddr> = theirs.addresses().collect();
    let only = |these: &[IpAddr], those: &[IpAddr]| {
        let only = these.iter().filter(|address| !those.contains(address));
        only.copied().collect()
    };
    (only(&ours, &theirs), only(&theirs, &ours))
}

/// When a lease that begins now is to be renewed: two renewals may be lost.
fn renewal(lease: Option<Duration>, now: Time) -> Option<Time> {
    lease.map(|lease| now + lease / 3)
}
