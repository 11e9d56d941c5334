//! Long runs: short intervals under load, and everything that must not disturb advertisements.

use std::time::{Duration, Instant};

use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, start, states};
use crate::onlooker::Onlooker;

/// So long at least; the variable makes it longer.
fn seconds() -> u64 {
    crate::program::setting("RINGWAY_VRRP_SECONDS", 8)
}

#[test]
fn ten_milliseconds_under_full_load_without_a_false_transition() {
    let Some(lan) = Lan::new("load", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let more = "advert_interval: 10ms";
    let first = start(&lan, 1, &config(&format!("priority: 254, {more}")));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let second = start(&lan, 2, &config(&format!("priority: 250, {more}")));
    becomes(&second, "backup");
    let end = Instant::now() + Duration::from_secs(seconds());
    let cpus = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..2 * cpus {
            scope.spawn(|| {
                let mut sum = 0_u64;
                while Instant::now() < end {
                    sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
                }
            });
        }
    });
    println!(
        "{} advertisements, longest silence {:?}",
        onlooker.from(1).len(),
        onlooker.longest_silence()
    );
    assert_eq!(states(&first), ["backup", "active"]);
    assert_eq!(states(&second), ["backup"]);
}
