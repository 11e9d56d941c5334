//! One virtual router on the thread: its machine, and what the machine does not know.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::Ticket;
use super::super::fitness::Fitness;
use super::super::frames;
use super::super::kernel::Wires;
use super::super::machine::{Machine, Readiness, Role, VirtualRouter};
use super::super::packet::{Ends, Password};
use super::super::reading::Reading;
use super::super::settings::Settings;
use super::super::wishes::Wishes;
use crate::time::{Seldom, Time};

/// The longest that addresses which are to go wait for the sessions on them to end.
pub(super) const SESSIONS_END_MAX: Duration = Duration::from_millis(250);
/// Before addresses that could not be set or removed are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// An Active router that could not set its addresses for so long is not well: another one may be able to. Hundreds of
/// them that come at once take a second or two.
const UNHELD_MAX: Duration = Duration::from_secs(5);
/// The same where the kernel does not even answer. Others may keep it busy for some seconds.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);
/// So long it counts as not well then.
const UNHELD_FAULT: Duration = Duration::from_secs(30);

pub(super) struct Runner {
    pub(super) settings: Arc<Settings>,
    password: Option<Password>,
    pub(super) machine: Machine,
    pub(super) segment: usize,
    pub(super) fitness: Fitness,
    /// What the machine was told last.
    pub(super) readiness: Readiness,
    /// Where advertisements come from, while the interface can be used.
    pub(super) source: Option<IpAddr>,
    pub(super) wishes: Wishes,
    /// Addresses are to go as soon as no session needs them.
    pub(super) is_removing: bool,
    /// Sessions are being ended, but not for longer than this.
    pub(super) ending: Option<(Ticket, Time)>,
    /// Once the addresses are gone, sessions that came in the meantime are ended, too.
    pub(super) sweeps: bool,
    pub(super) is_stopped: bool,
    pub(super) send_failures: u64,
    /// Its time is over since then, but not everything is read that came before.
    waits_to_hear_since: Option<Time>,
    /// The last one that addresses were wanted for.
    term: Option<u32>,
    /// It is Active and its addresses are not there, as far as is known: since when.
    unheld_since: Option<Time>,
    /// The kernel was asked for them then, and has not answered.
    asked_at: Option<Time>,
    /// It could not set them; it counts as not well until then.
    unheld_until: Option<Time>,
    retry_at: Option<Time>,
    says_send_failures: Seldom,
    says_failures: Seldom,
}

impl Runner {
    pub(super) fn new(
        settings: Arc<Settings>,
        password: Option<Password>,
        segment: usize,
        now: Time,
    ) -> Runner {
        Runner {
            machine: Machine::new(settings.virtual_router(password), now),
            settings,
            password,
            segment,
            fitness: Fitness::default(),
            readiness: Readiness::Well,
            source: None,
            wishes: Wishes::default(),
            is_removing: false,
            ending: None,
            sweeps: false,
            is_stopped: false,
            send_failures: 0,
            waits_to_hear_since: None,
            term: None,
            unheld_since: None,
            asked_at: None,
            unheld_until: None,
            retry_at: None,
            says_send_failures: Seldom::new(super::SAY_EVERY),
            says_failures: Seldom::new(super::SAY_EVERY),
        }
    }

    /// Has other settings from now on; what its machine is to know of them.
    pub(super) fn configure(&mut self, settings: Arc<Settings>) -> VirtualRouter {
        self.settings = settings;
        self.settings.virtual_router(self.password)
    }

    pub(super) fn is_active(&self) -> bool {
        self.machine.role() == Role::Active
    }

    /// Whether its machine is to be told that its time is over. A Backup is not while a word of the Active router may
    /// still lie unread; nonsense without end keeps it waiting for an interval: the loop may be late by more.
    pub(super) fn has_expired(&mut self, now: Time, reading: &Reading) -> bool {
        let since = self.waits_to_hear_since.take();
        let Some(deadline) = self.machine.deadline().filter(|at| *at <= now) else {
            return false;
        };
        if self.machine.role() != Role::Backup || reading.is_through(deadline) {
            return true;
        }
        let since = since.unwrap_or(now);
        let is_patient = now - since < self.machine.router().interval();
        self.waits_to_hear_since = is_patient.then_some(since);
        !is_patient
    }

    /// The next moment that concerns it.
    pub(super) fn due(&self) -> Option<Time> {
        let ending = self.ending.map(|(_, until)| until);
        let unheld = self.unheld_since.map(|since| since + UNHELD_MAX);
        let unanswered = self.asked_at.map(|asked| asked + UNANSWERED_MAX);
        let all = [
            unanswered,
            self.machine.deadline(),
            ending,
            self.retry_at,
            unheld,
            self.unheld_until,
        ];
        all.into_iter().flatten().min()
    }

    /// It has stopped, and its addresses are gone.
    pub(super) fn has_let_go(&self) -> bool {
        self.is_stopped && !self.is_removing && self.wishes.are_fulfilled()
    }

    /// Its addresses are wanted on the interface, or are not there although they are wanted.
    pub(super) fn lacks_addresses(&mut self, now: Time) {
        if self.is_active() && self.unheld_until.is_none() {
            self.unheld_since.get_or_insert(now);
        }
    }

    /// Whether this is the first that is heard of a term.
    pub(super) fn is_new_term(&mut self, term: u32) -> bool {
        self.term.replace(term) != Some(term)
    }

    /// Its addresses are there, or need not be.
    pub(super) fn lacks_nothing(&mut self) {
        self.unheld_since = None;
    }

    /// The kernel is asked for its addresses.
    pub(super) fn asks(&mut self, now: Time) {
        self.asked_at = Some(now);
    }

    /// The kernel has answered.
    pub(super) fn is_answered(&mut self) {
        self.asked_at = None;
    }

    /// What time says of its addresses: whether it cannot set them, if that has changed.
    pub(super) fn cannot_hold(&mut self, now: Time) -> Option<bool> {
        if !self.is_active() {
            (self.unheld_since, self.asked_at) = (None, None);
        }
        let is_lacking = |since: &mut Time| *since + UNHELD_MAX <= now;
        let is_lacking = self.unheld_since.take_if(is_lacking).is_some();
        let is_unanswered = |asked: Time| asked + UNANSWERED_MAX <= now;
        let is_unanswered = self.asked_at.is_some_and(is_unanswered);
        if is_unanswered {
            self.asked_at = Some(now);
        }
        if is_lacking || is_unanswered {
            self.unheld_until = Some(now + UNHELD_FAULT);
            return Some(true);
        }
        let is_over = self.unheld_until.take_if(|until| *until <= now);
        is_over.map(|_| false)
    }

    /// Its addresses could not be set or removed; whether to say so.
    pub(super) fn failed(&mut self, now: Time) -> bool {
        self.retry_at = Some(now + TRY_AGAIN);
        self.says_failures.may(now)
    }

    pub(super) fn take_retry(&mut self, now: Time) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    /// Sends to the group, or to each peer. What is to be said if that does not work.
    pub(super) fn advertise(
        &mut self,
        priority: u8,
        wires: Option<&Wires>,
        now: Time,
    ) -> Option<String> {
        let (wires, source) = (wires?, self.source?);
        let router = self.machine.router();
        let advertisement = router.advertisement(priority);
        let destinations = match router.peers.as_slice() {
            [] => vec![Ends::to_group(source)],
            peers => {
                let ends = peers.iter().filter_map(|peer| Ends::new(source, *peer));
                ends.collect()
            }
        };
        let mut failure = None;
        for ends in destinations {
            let bytes = advertisement.encode(&ends, router.checksum);
            // To a group it comes from the MAC address that is to be learnt.
            let mac = self.settings.virtual_mac();
            let sent = match mac.filter(|_| router.peers.is_empty()) {
                Some(mac) => wires
                    .frames
                    .send(&frames::advertisement(mac, &ends, &bytes)),
                None => wires.raw.send(&bytes, source, ends.destination()),
            };
            if let Err(error) = sent {
                self.send_failures += 1;
                failure = Some(format!(
                    "an advertisement to {} cannot be sent: {error}",
                    ends.destination()
                ));
            }
        }
        failure.filter(|_| self.says_send_failures.may(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::machine::Event;
    use super::*;

    fn millis(count: u64) -> Time {
        Time::from_micros(count * 1_000)
    }

    #[test]
    fn the_end_of_the_active_router_is_believed_once_all_is_read_that_came_before_it() {
        let settings = Arc::new(Settings::example("10.0.0.100/32"));
        let mut runner = Runner::new(settings, None, 0, millis(0));
        let link = Event::LinkUp("10.0.0.1".parse().expect("an address"));
        for event in [Event::ProbesEnded, link] {
            runner.machine.on(event, millis(0), &mut Vec::new());
        }
        let down = runner.machine.deadline().expect("it listens");
        let later = |count: u64| down + Duration::from_millis(count);
        let mut reading = Reading::default();
        assert!(!runner.has_expired(millis(1), &reading), "it is not over");
        reading.found_nothing(down);
        assert!(runner.has_expired(later(0), &reading));
        let mut reading = Reading::default();
        for waited in [0, 50, 99] {
            assert!(
                !runner.has_expired(later(20 + waited), &reading),
                "{waited}"
            );
        }
        assert!(
            runner.has_expired(later(120), &reading),
            "an interval is enough"
        );
        assert!(
            !runner.has_expired(later(130), &reading),
            "that was the first time"
        );
        reading.found_nothing(later(140));
        assert!(runner.has_expired(later(140), &reading));
        // An Active router speaks in time, whatever lies unread.
        runner
            .machine
            .on(Event::Expired, later(140), &mut Vec::new());
        assert_eq!(runner.machine.role(), Role::Active);
        assert!(runner.has_expired(later(10_000), &Reading::default()));
    }
}
