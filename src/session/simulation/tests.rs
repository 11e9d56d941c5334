//! The simulation, seed after seed.

use std::collections::HashSet;

use super::*;
use crate::seeds;

/// splitmix64: small, seeded, good enough to choose by.
struct Seed(u64);

impl Choices for Seed {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = (z ^ (z >> 31)) >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).expect("below a u32")
    }
}

fn play_all(tier: Tier) {
    let play = |seed| play(&mut Seed(seed), tier);
    let Some(outcomes) = seeds::play_all(100_000, tier, play) else {
        return;
    };
    let reasons: HashSet<_> = outcomes.iter().map(|outcome| outcome.reason).collect();
    for reason in [
        CloseReason::ClientClosed,
        CloseReason::BackendClosed,
        CloseReason::ClientReset,
        CloseReason::BackendReset,
        CloseReason::ConnectRefused,
        CloseReason::ConnectTimeout,
        CloseReason::BackendUnreachable,
        CloseReason::NoBackend,
        CloseReason::OutOfResources,
        CloseReason::IdleTimeout,
        CloseReason::HalfCloseTimeout,
        CloseReason::SessionTimeout,
        CloseReason::Operator,
    ] {
        assert!(reasons.contains(&reason), "no seed ended with {reason:?}");
    }
    let share =
        |what: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| what(outcome)).count();
    assert!(
        share(|outcome| outcome.ending == Ending::Close) > 1_000,
        "clean ends"
    );
    assert!(share(|outcome| outcome.seen.pumped) > 1_000, "pumping");
    assert!(
        share(|outcome| outcome.seen.returned) > 1_000,
        "back to receiving"
    );
    assert!(share(|outcome| outcome.seen.spilled) > 1_000, "spilling");
    assert!(share(|outcome| outcome.seen.thawed) > 1_000, "thawing");
    assert!(share(|outcome| outcome.seen.exhausted) > 1_000, "no port");
    assert!(share(|outcome| outcome.seen.early) > 1_000, "early bytes");
    assert!(share(|outcome| outcome.seen.watched) > 1_000, "watching");
    assert!(share(|outcome| outcome.seen.rested) > 1_000, "resting");
    assert!(
        share(|outcome| outcome.seen.kept_alive) > 1_000,
        "keepalive"
    );
    assert!(
        outcomes.iter().map(|outcome| outcome.bytes).sum::<u64>() > 1_000_000_000,
        "bytes"
    );
}

#[test]
fn no_order_of_completions_breaks_a_session_that_receives_up_to_a_limit() {
    play_all(Tier::Limited);
}

#[test]
fn no_order_of_completions_breaks_a_session_that_receives_one_read_at_a_time() {
    play_all(Tier::Single);
}
