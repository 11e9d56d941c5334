//! The simulation, seed after seed.

use std::mem::discriminant;

use super::*;
use crate::seeds;

fn play_all(tier: Tier, seeds: u64) {
    let Some(outcomes) = seeds::play_all(seeds, tier, |seed| play(seed, tier)) else {
        return;
    };
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.causes.extend(outcome.causes);
        all.hand_overs.extend(outcome.hand_overs);
        all.alarms.extend(outcome.alarms);
        all.moves += outcome.moves;
        all.rejected += outcome.rejected;
        all.loops_late += outcome.loops_late;
        all.leases_late += outcome.leases_late;
    }
    let who = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (from, priority, why) = (who, 0, Arc::from(""));
    for cause in [
        Cause::Started,
        Cause::NothingHeard,
        Cause::ActiveLeft(who),
        Cause::ActiveIsIll { from, priority },
        Cause::Preempted { from, priority },
        Cause::HigherPriority { from, priority },
        Cause::GaveWay {
            to: who,
            why: Arc::clone(&why),
        },
        Cause::HandedOver(who),
        Cause::Stopped,
        Cause::LinkDown,
        Cause::HardFault(why),
        Cause::LoopLate(Duration::ZERO),
    ] {
        assert!(
            all.causes.contains(&discriminant(&cause)),
            "no seed with {cause:?}"
        );
    }
    for hand_over in [
        HandOver::To(who),
        HandOver::NobodyTookOver,
        HandOver::NotActive,
    ] {
        let is_seen = all.hand_overs.contains(&discriminant(&hand_over));
        assert!(is_seen, "no seed with {hand_over:?}");
    }
    for alarm in [
        Alarm::AnotherActive { from, priority },
        Alarm::ForeignOwner(who),
        Alarm::OwnAddressHeard(who),
        Alarm::LeaseLate(Duration::ZERO),
    ] {
        assert!(
            all.alarms.contains(&discriminant(&alarm)),
            "no seed with {alarm:?}"
        );
    }
    assert!(all.moves > 5 * seeds, "roles changed {} times", all.moves);
    assert!(all.rejected > 5 * seeds, "{} spoiled", all.rejected);
    assert!(all.loops_late > seeds / 50, "{} late loops", all.loops_late);
    assert!(
        all.leases_late > seeds / 1_000,
        "{} late leases",
        all.leases_late
    );
}

#[test]
fn no_single_fault_moves_a_router_twice_or_leaves_the_addresses_without_one() {
    play_all(Tier::OneByOne, 4_000);
}

#[test]
fn whatever_happens_to_them_the_routers_agree_once_they_hear_each_other() {
    play_all(Tier::Chaos, 4_000);
}
