//! A word of the active node that lies behind more datagrams than are read in one turn.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringway::vrrp::packet::GROUP_V4;

use crate::harness::{SOON, eventually, skip};
use crate::lan::Lan;
use crate::node::{pair, router, states};
use crate::onlooker::{Onlooker, socket};

const INTERVAL: Duration = Duration::from_millis(300);
/// More than are read in one turn, fewer than fit into the socket's buffer.
const NONSENSE: u64 = 2_000;
/// What the socket asks for.
const BUFFER: u64 = 1 << 20;

#[test]
fn what_the_active_node_has_said_is_read_before_it_is_believed_to_be_dead() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    if limit.trim().parse::<u64>().unwrap() < BUFFER {
        return skip("net.core.rmem_max is less than what fills a turn");
    }
    let Some(lan) = Lan::new("deep", 3) else {
        return;
    };
    let onlooker = Onlooker::on(&lan, 3);
    let more = format!("advert_interval: {INTERVAL:?}");
    let (first, second) = pair(&lan, &more);
    let counter = |name: &str| {
        let counters = router(&second, "vip")["counters"].clone();
        counters[name].as_u64().unwrap()
    };
    eventually(SOON, "it has heard the active node", || {
        counter("accepted") > 0
    });
    let (group, source): (IpAddr, IpAddr) = (GROUP_V4.into(), "10.77.0.3".parse().unwrap());
    let raw = socket(&lan, 3, group);
    let count = onlooker.from(1).len();
    eventually(SOON, "the active node speaks", || {
        onlooker.from(1).len() > count
    });
    second.signal(Signal::SIGSTOP);
    let halted = Instant::now();
    // Of another virtual router.
    let nonsense = (0..NONSENSE).filter(|_| raw.send(&[0x31, 77, 100, 1], source, group).is_ok());
    let nonsense = u64::try_from(nonsense.count()).unwrap();
    let sent = halted.elapsed();
    assert!(
        sent < INTERVAL / 2,
        "the next word came in between: {sent:?}"
    );
    // Four more words lie behind it, and the time of the active node is over by the fourth of its intervals.
    let heard = onlooker.from(1).len();
    eventually(SOON, "the active node goes on", || {
        onlooker.from(1).len() >= heard + 4
    });
    second.signal(Signal::SIGCONT);
    eventually(SOON, "all is read", || counter("unknown_vrid") >= nonsense);
    assert!(nonsense > NONSENSE * 3 / 4, "{nonsense} were sent");
    assert_eq!(states(&second), ["backup"], "it is alive");
    assert_eq!(states(&first), ["backup", "active"]);
}
