//! Short intervals under load.

use std::time::{Duration, Instant};

use crate::lan::{Lan, VIP};
use crate::node::{becomes, config, start, states};
use crate::onlooker::Onlooker;
use crate::program::setting;

/// The variables make it longer and harder: `RINGWAY_VRRP_SECONDS=600 RINGWAY_VRRP_INTERVAL_MS=10`. A virtual machine
/// whose host takes a processor away for 30 ms fails that, whoever sends advertisements.
#[test]
fn short_intervals_under_full_load_without_a_false_transition() {
    let seconds = setting("RINGWAY_VRRP_SECONDS", 8);
    let interval = setting("RINGWAY_VRRP_INTERVAL_MS", 50);
    let Some(lan) = Lan::new("load", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let more = format!("advert_interval: {interval}ms");
    let first = start(&lan, 1, &config(&format!("priority: 254, {more}")));
    becomes(&first, "active");
    lan.moves_to(1, VIP);
    let second = start(&lan, 2, &config(&format!("priority: 250, {more}")));
    becomes(&second, "backup");
    let end = Instant::now() + Duration::from_secs(seconds);
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
