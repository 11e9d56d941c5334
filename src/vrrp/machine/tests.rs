//! One virtual router, event by event.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;

use super::super::packet::{
    AddressList, Addresses, Authentication, Centiseconds, Ends, GROUP_V4, HOP_LIMIT, Password, Vrid,
};
use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn host(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn v3(interval: u16, addresses: &[u8]) -> Body {
    let addresses = addresses.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last));
    Body::V3 {
        interval: Centiseconds::new(interval).unwrap(),
        addresses: Addresses::V4(AddressList::new(addresses.collect()).unwrap()),
    }
}

fn router(priority: u8) -> VirtualRouter {
    VirtualRouter {
        vrid: Vrid::new(51).unwrap(),
        priority,
        body: v3(10, &[100]),
        checksum: ChecksumForm::PseudoHeader,
        peers: Vec::new(),
        preempt: false,
        preempt_delay: Duration::from_secs(60),
        lease: Some(Duration::from_secs(1)),
    }
}

/// A virtual router on 10.0.0.10, the time, and what it said last.
struct Bench {
    machine: Machine,
    now: Time,
    actions: Vec<Action>,
}

impl Bench {
    fn new(router: VirtualRouter) -> Bench {
        let now = Time::from_micros(1_000_000_000);
        Bench {
            machine: Machine::new(router, now),
            now,
            actions: Vec::new(),
        }
    }

    /// Started, its first probes over, Backup.
    fn backup(router: VirtualRouter) -> Bench {
        let mut bench = Bench::new(router);
        bench.on(Event::LinkUp(host(10)));
        bench.on(Event::ProbesEnded);
        assert_eq!(bench.machine.role(), Role::Backup);
        bench
    }

    /// Active, its addresses on the interface.
    fn active(router: VirtualRouter) -> Bench {
        let mut bench = Bench::backup(router);
        bench.expire();
        assert_eq!(bench.machine.role(), Role::Active);
        bench.on(Event::AddressesHeld { term: 1 });
        bench
    }

    fn on(&mut self, event: Event) -> &[Action] {
        self.actions.clear();
        self.machine.on(event, self.now, &mut self.actions);
        &self.actions
    }

    /// At its deadline.
    fn expire(&mut self) -> &[Action] {
        self.now = self.machine.deadline().unwrap().max(self.now);
        self.on(Event::Expired)
    }

    /// Time passes, with its deadlines on time.
    fn wait(&mut self, duration: Duration) -> Vec<Action> {
        let end = self.now + duration;
        let mut all = Vec::new();
        while let Some(deadline) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = deadline.max(self.now);
            all.extend_from_slice(self.on(Event::Expired));
        }
        self.now = end;
        all
    }

    /// From 10.0.0.`source`.
    fn hear(&mut self, source: u8, priority: u8) -> &[Action] {
        let body = self.machine.router().body.clone();
        self.hear_body(source, priority, body)
    }

    fn hear_body(&mut self, source: u8, priority: u8, body: Body) -> &[Action] {
        let vrid = self.machine.router().vrid;
        let ends = Ends::new(host(source), GROUP_V4.into()).unwrap();
        let advertisement = super::super::packet::Advertisement {
            vrid,
            priority,
            body,
        };
        let payload = advertisement.encode(&ends, ChecksumForm::PseudoHeader);
        let datagram = Datagram {
            ends,
            hop_limit: HOP_LIMIT,
            payload: &payload,
        };
        self.on(Event::Received(&datagram))
    }

    fn role(&self) -> Role {
        self.machine.role()
    }

    fn last_cause(&self) -> &Cause {
        &self.machine.history().last().unwrap().cause
    }

    /// Microseconds until its deadline.
    fn left(&self) -> u128 {
        (self.machine.deadline().unwrap() - self.now).as_micros()
    }
}

fn sent(actions: &[Action]) -> Vec<u8> {
    let priorities = actions.iter().filter_map(|action| {
        let Action::SendAdvertisement { priority } = action else {
            return None;
        };
        Some(*priority)
    });
    priorities.collect()
}

fn why(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[test]
fn a_start_waits_for_link_probes_and_silence() {
    let mut bench = Bench::new(router(254));
    assert_eq!(bench.machine.waits_for(bench.now), Some(Wait::Link));
    assert_eq!(bench.machine.deadline(), None);
    let actions = bench.on(Event::LinkUp(host(10)));
    assert_eq!(actions[0], Action::RemoveAddresses, "of a crash");
    assert_eq!(bench.role(), Role::Backup);
    assert_eq!(bench.machine.waits_for(bench.now), Some(Wait::Probes));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.role(), Role::Backup);
    bench.on(Event::ProbesEnded);
    assert_eq!(bench.machine.waits_for(bench.now), None);
    assert_eq!(bench.left(), 781, "the skew of 254");
    bench.expire();
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_start_does_not_wait_for_probes_for_ever() {
    let mut bench = Bench::new(router(254));
    bench.on(Event::LinkUp(host(10)));
    bench.wait(PROBES_WAIT_MAX);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn an_owner_is_active_at_once() {
    let mut bench = Bench::new(router(PRIORITY_OWNER));
    bench.on(Event::LinkUp(host(10)));
    assert_eq!(bench.role(), Role::Active);
    assert_eq!(bench.last_cause(), &Cause::Owner);
}

#[test]
fn becoming_active_advertises_first_then_holds_then_announces() {
    let mut bench = Bench::backup(router(254));
    let actions = bench.expire().to_vec();
    assert_eq!(actions[0], Action::SendAdvertisement { priority: 254 });
    assert_eq!(actions[1], Action::HoldAddresses { term: 1 });
    assert!(matches!(actions[2], Action::Changed(_)));
    assert_eq!(
        bench.on(Event::AddressesHeld { term: 0 }),
        [],
        "of another term"
    );
    assert_eq!(
        bench.on(Event::AddressesHeld { term: 1 }),
        [Action::Announce]
    );
    assert_eq!(bench.on(Event::AddressesHeld { term: 1 }), [], "renewed");
}

#[test]
fn intervals_and_skews_are_those_of_the_standards_to_the_microsecond() {
    let fast = VirtualRouter {
        body: v3(1, &[100]),
        ..router(100)
    };
    assert_eq!(fast.down_interval(100, fast.interval()).as_micros(), 36_093);
    assert_eq!(fast.skew(254, fast.interval()).as_micros(), 78);
    let second = VirtualRouter {
        body: Body::V2 {
            seconds: NonZeroU8::new(2).unwrap(),
            authentication: Authentication::None,
            addresses: AddressList::new(vec![Ipv4Addr::new(10, 0, 0, 100)]).unwrap(),
        },
        ..router(100)
    };
    assert_eq!(second.skew(100, second.interval()).as_micros(), 609_375);
    assert_eq!(
        second.down_interval(250, second.interval()).as_micros(),
        6_023_437
    );
}

#[test]
fn priorities_of_the_ill_keep_their_order_below_those_of_the_well() {
    let ill: Vec<_> = (PRIORITY_WELL..=PRIORITY_OWNER)
        .map(|priority| router(priority).priority_ill())
        .collect();
    assert!(ill.is_sorted());
    assert_eq!((ill[0], ill[155]), (1, 99));
    assert!(router(250).priority_ill() < router(254).priority_ill());
}

#[test]
fn a_backup_follows_the_interval_of_the_active_router_within_bounds() {
    let mut bench = Bench::backup(router(254));
    bench.hear_body(20, 200, v3(20, &[100]));
    assert_eq!(bench.left(), 601_562, "3 x 200 ms and the skew");
    bench.hear_body(20, 200, v3(4095, &[100]));
    assert_eq!(bench.left(), 3_007_812, "10 x our own interval");
    let alarm = bench.machine.alarms(bench.now).next().unwrap().0.clone();
    assert!(matches!(alarm, Alarm::IntervalDiffers { .. }));
    bench.hear(20, 200);
    assert_eq!(bench.left(), 300_781);
    assert_eq!(bench.machine.alarms(bench.now).count(), 0);
}

#[test]
fn a_backup_takes_over_after_the_skew_when_the_active_router_leaves() {
    let mut bench = Bench::backup(router(250));
    bench.hear(20, 254);
    bench.hear(30, 0);
    assert_eq!(bench.left(), 302_343, "not from the Active router");
    bench.hear(20, 0);
    assert_eq!(bench.left(), 2_343);
    bench.now = bench.now + Duration::from_millis(1);
    bench.hear(20, 0);
    assert_eq!(bench.left(), 1_343, "said twice");
    bench.expire();
    assert_eq!(bench.last_cause(), &Cause::ActiveLeft(host(20)));
}

#[test]
fn a_lower_router_is_answered_at_once_and_the_link_is_told() {
    let mut bench = Bench::active(router(254));
    bench.wait(Duration::from_millis(7_050));
    let actions = bench.hear(20, 250).to_vec();
    assert_eq!(sent(&actions), [254]);
    assert!(actions.contains(&Action::Announce));
    let alarm = Alarm::AnotherActive {
        from: host(20),
        priority: 250,
    };
    assert!(actions.contains(&Action::Alarm(alarm)));
    assert_eq!(bench.hear(20, 250), [], "not twice at once");
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn the_last_word_of_a_router_that_lost_is_no_second_active_router() {
    let mut bench = Bench::active(router(254));
    bench.now = bench.now + Duration::from_millis(2);
    bench.hear(20, 98);
    assert_eq!(bench.machine.alarms(bench.now).count(), 0);
}

#[test]
fn the_loser_says_one_last_word_and_lets_go() {
    for (source, priority, loses) in [
        (20, 254, true),
        (20, 200, true),
        (9, 200, false),
        (20, 199, false),
    ] {
        let mut bench = Bench::active(router(200));
        bench.now = bench.now + INTERVAL / 2;
        let actions = bench.hear(source, priority).to_vec();
        assert_eq!(sent(&actions), [200], "from {source} with {priority}");
        let lets_go = [Action::EndSessions, Action::RemoveAddresses];
        assert_eq!(actions.windows(2).any(|pair| pair == lets_go), loses);
        assert_eq!(bench.role() == Role::Backup, loses);
    }
}

#[test]
fn preemption_waits_for_its_delay() {
    for preempt in [false, true] {
        let mut bench = Bench::backup(VirtualRouter {
            preempt,
            preempt_delay: Duration::from_secs(1),
            ..router(254)
        });
        for round in 0..20 {
            bench.hear(20, 250);
            bench.wait(INTERVAL);
            let late = preempt && round >= 12;
            assert_eq!(bench.role() == Role::Active, late, "round {round}");
        }
    }
}

#[test]
fn a_backup_that_is_well_takes_over_from_one_that_is_not() {
    let mut bench = Bench::backup(router(250));
    for _ in 0..3 {
        bench.hear(20, 98);
        bench.wait(INTERVAL);
    }
    bench.hear(20, 98);
    bench.expire();
    let cause = Cause::ActiveIsIll {
        from: host(20),
        priority: 98,
    };
    assert_eq!(bench.last_cause(), &cause);
}

#[test]
fn a_backup_that_is_ill_leaves_the_addresses_where_they_are() {
    let mut bench = Bench::backup(VirtualRouter {
        preempt: true,
        preempt_delay: Duration::ZERO,
        ..router(254)
    });
    bench.on(Event::Readiness(Readiness::SoftFault(why("pool pg"))));
    for _ in 0..10 {
        bench.hear(20, 95);
        bench.wait(INTERVAL);
    }
    assert_eq!(bench.role(), Role::Backup);
    bench.expire();
    assert_eq!(bench.role(), Role::Active, "nobody else is there");
}

#[test]
fn an_ill_active_router_stays_until_it_hears_a_better_one() {
    let mut bench = Bench::active(router(254));
    bench.on(Event::Readiness(Readiness::SoftFault(why("pool pg"))));
    assert_eq!(sent(&bench.wait(INTERVAL)), [98]);
    bench.hear(20, 95);
    assert_eq!(bench.role(), Role::Active);
    bench.hear(20, 250);
    let cause = Cause::GaveWay {
        to: host(20),
        why: why("pool pg"),
    };
    assert_eq!(bench.last_cause(), &cause);
}

#[test]
fn recovery_of_a_backup_counts_after_the_delay() {
    let mut bench = Bench::backup(router(254));
    bench.on(Event::Readiness(Readiness::SoftFault(why("pool pg"))));
    bench.on(Event::Readiness(Readiness::Well));
    assert_eq!(bench.machine.priority(bench.now), 98);
    for _ in 0..600 {
        bench.hear(20, 255);
        bench.wait(INTERVAL);
    }
    assert_eq!(bench.machine.priority(bench.now), 254);
    assert_eq!(bench.machine.role(), Role::Backup);
}

#[test]
fn what_the_first_probes_find_is_no_recovery() {
    let mut bench = Bench::new(router(254));
    bench.on(Event::LinkUp(host(10)));
    bench.on(Event::Readiness(Readiness::SoftFault(why("no probe yet"))));
    bench.on(Event::Readiness(Readiness::Well));
    bench.on(Event::ProbesEnded);
    assert_eq!(bench.machine.priority(bench.now), 254);
}

#[test]
fn a_hard_fault_gives_up_at_once_and_stays_out() {
    let mut bench = Bench::active(router(254));
    let fault = || Readiness::HardFault(why("a worker is stalled"));
    let actions = bench.on(Event::Readiness(fault())).to_vec();
    assert_eq!(
        actions[..3],
        [
            Action::SendAdvertisement { priority: 0 },
            Action::EndSessions,
            Action::RemoveAddresses
        ]
    );
    assert_eq!(bench.machine.deadline(), None);
    bench.hear(20, 0);
    assert_eq!(bench.role(), Role::Initialize);
    let waits = bench.machine.waits_for(bench.now);
    assert_eq!(waits, Some(Wait::HardFault(why("a worker is stalled"))));
    bench.on(Event::Readiness(Readiness::Well));
    assert_eq!(bench.role(), Role::Backup);
    assert_eq!(bench.machine.priority(bench.now), 98, "for a while");
}

#[test]
fn a_lost_link_lets_go_without_a_word() {
    let mut bench = Bench::active(router(254));
    let actions = bench.on(Event::LinkDown).to_vec();
    assert_eq!(actions[..2], [Action::EndSessions, Action::RemoveAddresses]);
    assert_eq!(bench.machine.waits_for(bench.now), Some(Wait::Link));
    let actions = bench.on(Event::LinkUp(host(10))).to_vec();
    assert_eq!(actions.len(), 1, "nothing to clean: {actions:?}");
}

#[test]
fn a_stop_serves_on_until_another_router_is_heard() {
    let mut bench = Bench::active(router(254));
    assert_eq!(
        bench.on(Event::Stop),
        [Action::SendAdvertisement { priority: 0 }]
    );
    assert_eq!(sent(&bench.wait(INTERVAL)), [0], "a packet may be lost");
    let actions = bench.hear(20, 250).to_vec();
    assert_eq!(
        actions[..3],
        [
            Action::SendAdvertisement { priority: 0 },
            Action::EndSessions,
            Action::RemoveAddresses
        ]
    );
    assert_eq!(actions.last(), Some(&Action::Stopped));
    assert_eq!(bench.machine.waits_for(bench.now), Some(Wait::Stopped));
    bench.on(Event::LinkUp(host(10)));
    assert_eq!(bench.role(), Role::Initialize);
}

#[test]
fn a_stop_waits_for_at_most_a_down_interval() {
    let mut bench = Bench::active(router(254));
    bench.on(Event::Stop);
    let actions = bench.wait(Duration::from_millis(301));
    assert_eq!(actions.last(), Some(&Action::Stopped));
    assert!(actions.contains(&Action::RemoveAddresses));
    let mut bench = Bench::backup(router(254));
    assert_eq!(bench.on(Event::Stop).last(), Some(&Action::Stopped));
    let mut bench = Bench::new(router(254));
    assert_eq!(
        bench.on(Event::Stop),
        [Action::RemoveAddresses, Action::Stopped],
        "of a crash"
    );
}

#[test]
fn a_failover_is_taken_over_or_taken_back() {
    let mut bench = Bench::active(router(254));
    bench.on(Event::Failover);
    let actions = bench.wait(Duration::from_millis(301));
    assert_eq!(
        actions.last(),
        Some(&Action::HandedOver(HandOver::NobodyTookOver))
    );
    assert_eq!(sent(&actions).last(), Some(&254));
    assert_eq!(bench.role(), Role::Active);
    bench.on(Event::Failover);
    let actions = bench.hear(20, 250).to_vec();
    assert_eq!(
        actions.last(),
        Some(&Action::HandedOver(HandOver::To(host(20))))
    );
    assert!(bench.machine.is_held_back());
    let actions = bench.on(Event::Failover);
    assert_eq!(actions, [Action::HandedOver(HandOver::NotActive)]);
}

#[test]
fn a_router_that_handed_over_holds_back_until_released_or_needed() {
    let handed_over = || {
        let mut bench = Bench::active(VirtualRouter {
            preempt: true,
            preempt_delay: Duration::ZERO,
            ..router(254)
        });
        bench.on(Event::Failover);
        for _ in 0..10 {
            bench.hear(20, 98);
            bench.wait(INTERVAL);
        }
        assert_eq!(bench.role(), Role::Backup);
        bench
    };
    let mut bench = handed_over();
    bench.wait(Duration::from_millis(300));
    assert_eq!(bench.role(), Role::Active, "the other one died");
    assert!(!bench.machine.is_held_back());
    let mut bench = handed_over();
    bench.on(Event::Release);
    for _ in 0..4 {
        bench.hear(20, 98);
        bench.wait(INTERVAL);
    }
    assert_eq!(bench.role(), Role::Active, "released");
}

#[test]
fn a_late_loop_stops_to_answer_and_listens() {
    let late = || {
        let mut bench = Bench::active(router(254));
        bench.now = bench.now + Duration::from_millis(500);
        bench
    };
    let mut bench = late();
    let actions = bench.on(Event::Expired).to_vec();
    assert_eq!(actions[0], Action::RemoveAddresses);
    assert!(sent(&actions).is_empty());
    assert_eq!(bench.left(), 100_781, "one interval and the skew");
    bench.expire();
    assert_eq!(bench.role(), Role::Active, "nobody else was there");
    let mut bench = late();
    let actions = bench.hear(20, 250).to_vec();
    assert_eq!(bench.role(), Role::Backup);
    assert!(sent(&actions).is_empty());
    assert!(actions.ends_with(&[Action::EndSessions, Action::Lost]));
    assert_eq!(bench.machine.counters().loops_late, 1);
}

#[test]
fn a_backup_whose_loop_was_late_listens_before_it_takes_over() {
    let mut bench = Bench::backup(router(254));
    bench.hear(20, 254);
    bench.now = bench.now + Duration::from_secs(1);
    bench.on(Event::Expired);
    assert_eq!(bench.role(), Role::Backup);
    assert_eq!(bench.left(), 100_781);
    bench.expire();
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn the_lease_is_renewed_three_times_in_its_life() {
    let mut bench = Bench::active(router(254));
    let actions = bench.wait(Duration::from_millis(1_010));
    let holds = actions
        .iter()
        .filter(|action| **action == Action::HoldAddresses { term: 1 });
    assert_eq!(holds.count(), 3);
    let mut bench = Bench::active(VirtualRouter {
        lease: None,
        ..router(254)
    });
    let actions = bench.wait(Duration::from_secs(10));
    assert!(!actions.contains(&Action::HoldAddresses { term: 1 }));
}

#[test]
fn a_lease_that_was_renewed_too_late_is_announced_again() {
    let mut bench = Bench::active(router(254));
    bench.wait(Duration::from_millis(1_500));
    let actions = bench.on(Event::AddressesHeld { term: 1 }).to_vec();
    assert!(actions.contains(&Action::Announce));
    assert!(matches!(actions[0], Action::Alarm(Alarm::LeaseLate(_))));
    assert_eq!(bench.machine.counters().leases_late, 1);
}

#[test]
fn a_deleted_address_is_put_back_and_announced() {
    let mut bench = Bench::active(router(254));
    bench.wait(Duration::from_millis(150));
    assert_eq!(
        bench.on(Event::AddressDeleted),
        [Action::HoldAddresses { term: 1 }]
    );
    assert_eq!(
        bench.on(Event::AddressesHeld { term: 1 }),
        [Action::Announce]
    );
    let mut bench = Bench::backup(router(254));
    assert_eq!(bench.on(Event::AddressDeleted), []);
}

#[test]
fn a_foreign_owner_is_an_alarm_and_one_round_of_announcements_per_second() {
    let mut bench = Bench::active(router(254));
    bench.wait(Duration::from_secs(10));
    let mut rounds = 0;
    for _ in 0..30 {
        let now = bench.on(Event::ForeignOwner(host(100))).to_vec();
        let then = bench.wait(INTERVAL);
        let announces = |action: &&Action| **action == Action::Announce;
        rounds += now.iter().chain(&then).filter(announces).count();
    }
    assert!((3..=4).contains(&rounds), "{rounds} in 3 seconds");
    assert_eq!(bench.machine.alarms(bench.now).count(), 1);
}

#[test]
fn other_addresses_are_an_alarm_and_no_reason_to_be_deaf() {
    let mut bench = Bench::backup(VirtualRouter {
        body: v3(10, &[100, 101]),
        ..router(254)
    });
    let actions = bench.hear_body(20, 254, v3(10, &[102, 100])).to_vec();
    let alarm = Alarm::AddressesDiffer {
        from: host(20),
        missing: vec![host(101)],
        added: vec![host(102)],
    };
    assert_eq!(actions, [Action::Alarm(alarm)]);
    assert_eq!(bench.machine.active_router(), Some(host(20)));
    bench.hear_body(20, 254, v3(10, &[101, 100]));
    assert_eq!(
        bench.machine.alarms(bench.now).count(),
        0,
        "the order does not matter"
    );
}

#[test]
fn rejections_are_counted_each_and_told_rarely() {
    let mut bench = Bench::backup(router(254));
    let mut told = 0;
    for _ in 0..150 {
        let before = (bench.machine.state.clone(), bench.machine.deadline());
        told += bench.hear(10, 255).len();
        assert_eq!(
            before,
            (bench.machine.state.clone(), bench.machine.deadline())
        );
        bench.now = bench.now + INTERVAL;
    }
    assert_eq!(
        bench.machine.counters().rejected[Kind::SourceOurs.index()],
        150
    );
    assert_eq!(told, 3, "an alarm, and two lines in 15 seconds");
}

#[test]
fn another_password_is_an_alarm() {
    let body = |password: &[u8]| Body::V2 {
        seconds: NonZeroU8::MIN,
        authentication: Authentication::Password(Password::new(password).unwrap()),
        addresses: AddressList::new(vec![Ipv4Addr::new(10, 0, 0, 100)]).unwrap(),
    };
    let mut bench = Bench::backup(VirtualRouter {
        body: body(b"ours"),
        ..router(254)
    });
    let actions = bench.hear_body(20, 255, body(b"theirs")).to_vec();
    let alarm = Alarm::PasswordDiffers { from: host(20) };
    assert_eq!(actions[0], Action::Alarm(alarm));
    assert_eq!(bench.machine.active_router(), None);
}

#[test]
fn a_router_that_speaks_what_is_not_heard_is_an_alarm_until_it_is_heard() {
    let second = || Body::V2 {
        seconds: NonZeroU8::MIN,
        authentication: Authentication::None,
        addresses: AddressList::new(vec![Ipv4Addr::new(10, 0, 0, 100)]).unwrap(),
    };
    let unreadable = || Event::Unreadable {
        source: host(20),
        rejection: Rejection::AuthenticationHeader,
    };
    let mut bench = Bench::active(router(254));
    let first = bench.hear_body(20, 255, second())[0].clone();
    let then = bench.on(unreadable())[0].clone();
    for (told, text) in [
        (first, "10.0.0.20 speaks version 2, here it is version 3"),
        (then, "10.0.0.20 authenticates by AH"),
    ] {
        let Action::Alarm(alarm) = told else {
            panic!("{told:?}");
        };
        assert!(alarm.to_string().starts_with(text), "{alarm}");
    }
    assert_eq!(bench.role(), Role::Active);
    let rejected = bench.machine.counters().rejected.iter().sum::<u64>();
    assert_eq!(rejected, 2);
    let alarms = |bench: &Bench| bench.machine.alarms(bench.now).count();
    bench.hear(30, 0);
    assert_eq!(alarms(&bench), 2, "that is another router");
    bench.hear(20, 0);
    assert_eq!(alarms(&bench), 0);
}

#[test]
fn a_group_follows_the_one_that_lost() {
    let mut lost = Bench::active(router(200));
    lost.hear(20, 254);
    let transition = lost.machine.history().last().unwrap().clone();
    assert!(transition.is_lost_to_another());
    let mut follower = Bench::active(router(200));
    assert_eq!(sent(follower.on(Event::Follow)), [0]);
    follower.hear(20, 190);
    assert_eq!(follower.role(), Role::Backup);
    assert!(!follower.machine.is_held_back());
    let mut alone = Bench::active(router(200));
    alone.on(Event::Follow);
    alone.wait(Duration::from_millis(400));
    assert_eq!(alone.role(), Role::Active, "nobody else wants them");
}

#[test]
fn the_history_is_bounded() {
    let mut bench = Bench::backup(router(254));
    for _ in 0..HISTORY_MAX {
        bench.on(Event::LinkDown);
        bench.on(Event::LinkUp(host(10)));
    }
    assert_eq!(bench.machine.history().count(), HISTORY_MAX);
    assert_eq!(bench.last_cause(), &Cause::Started);
}

#[test]
fn an_active_one_says_at_once_what_it_is_configured_to_be_and_nothing_else_happens() {
    let mut bench = Bench::active(router(200));
    bench.wait(INTERVAL * 5);
    let term = 1;
    let wanted = VirtualRouter {
        priority: 210,
        body: v3(10, &[100, 101]),
        ..router(200)
    };
    let actions = bench.on(Event::Configured(Box::new(wanted.clone())));
    assert_eq!(
        actions,
        [
            Action::HoldAddresses { term },
            Action::SendAdvertisement { priority: 210 }
        ]
    );
    let actions = bench.on(Event::AddressesHeld { term });
    assert_eq!(actions, [Action::Announce], "the new address is made known");
    // Less is said at once, too, and nothing has to be set.
    let actions = bench.on(Event::Configured(Box::new(VirtualRouter {
        priority: 150,
        ..wanted.clone()
    })));
    assert_eq!(actions, [Action::SendAdvertisement { priority: 150 }]);
    let actions = bench.on(Event::Configured(Box::new(VirtualRouter {
        lease: None,
        ..wanted
    })));
    assert!(actions.contains(&Action::HoldAddresses { term }));
    assert_eq!(bench.machine.role(), Role::Active);
    assert_eq!(bench.machine.history().count(), 2, "started, took over");
}

#[test]
fn a_longer_interval_comes_slowly_so_that_a_lost_advertisement_is_no_silence() {
    let mut bench = Bench::active(router(200));
    let body = v3(100, &[100]);
    bench.on(Event::Configured(Box::new(VirtualRouter {
        body,
        ..router(200)
    })));
    let sent = |actions: &[Action]| {
        let is_one = |action: &&Action| matches!(action, Action::SendAdvertisement { .. });
        actions.iter().filter(is_one).count()
    };
    assert_eq!(sent(&bench.wait(INTERVAL * 3)), 3, "at the pace of before");
    assert_eq!(sent(&bench.wait(INTERVAL * 9)), 0);
    assert_eq!(sent(&bench.wait(INTERVAL)), 1, "at its own");
    bench.on(Event::Configured(Box::new(router(200))));
    assert_eq!(sent(&bench.wait(INTERVAL * 3)), 3, "a shorter one at once");
}

#[test]
fn a_backup_that_is_configured_anew_waits_as_it_did() {
    let mut bench = Bench::backup(router(200));
    bench.hear(20, 220);
    let deadline = bench.machine.deadline();
    let preempting = VirtualRouter {
        priority: 230,
        preempt: true,
        preempt_delay: Duration::ZERO,
        ..router(200)
    };
    assert_eq!(bench.on(Event::Configured(Box::new(preempting))), []);
    assert_eq!(bench.machine.deadline(), deadline);
    assert_eq!(bench.machine.role(), Role::Backup);
}

#[test]
fn an_active_one_that_is_well_again_is_so_at_once() {
    let fault = || Readiness::SoftFault(Arc::from("a pool is empty"));
    let mut active = Bench::active(router(200));
    active.on(Event::Readiness(fault()));
    assert!(active.machine.priority(active.now) < PRIORITY_WELL);
    active.wait(INTERVAL * 5);
    active.on(Event::Readiness(Readiness::Well));
    assert_eq!(
        active.machine.priority(active.now),
        200,
        "it serves already"
    );
    let mut backup = Bench::backup(router(200));
    backup.on(Event::Readiness(fault()));
    backup.hear(20, 220);
    backup.on(Event::Readiness(Readiness::Well));
    assert!(backup.machine.priority(backup.now) < PRIORITY_WELL);
}
