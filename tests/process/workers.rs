//! Two workers share the sessions evenly, also when there are few of them and they live long.

use std::net::TcpStream;
use std::thread;

use crate::harness::backend::Backend;
use crate::harness::{Launch, Ringway, Tier, join, number, one_pool, stream};

both_tiers! {
    few_long_sessions_are_balanced,
    many_long_sessions_are_balanced,
    sessions_that_come_all_at_once_are_balanced,
    sessions_are_balanced_again_after_others_left,
}

fn start(tier: Tier, backend: &Backend) -> Ringway {
    let pool = format!("backends: [\"{}\"]", backend.address());
    Launch::config(one_pool("workers: 2", &pool))
        .tier(tier)
        .start()
}

/// Connected one after the other; each has been served once.
fn open(ringway: &Ringway, sessions: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut client = ringway.connect();
        stream::exchange(&mut client, b"hello");
        client
    };
    (0..sessions).map(one).collect()
}

/// No worker has more than a quarter above its share, and one session.
#[track_caller]
fn assert_balanced(ringway: &Ringway, sessions: u64) {
    let counters = ringway.counter_becomes("sessions_active", sessions);
    let workers = counters["per_worker"].as_array().unwrap();
    let active: Vec<u64> = workers
        .iter()
        .map(|worker| number(worker, "sessions_active"))
        .collect();
    assert_eq!(active.len(), 2, "workers");
    assert_eq!(active.iter().sum::<u64>(), sessions);
    let most = active.iter().max().unwrap();
    let allowed = sessions * 5 / 8 + 1;
    println!(
        "{active:?} sessions, {} adopted",
        number(&counters, "adoptions_total")
    );
    assert!(
        *most <= allowed,
        "{active:?}: more than {allowed} on one worker"
    );
}

/// The kernel spreads by a hash of the ports: several rounds meet an uneven one.
fn few_long_sessions_are_balanced(tier: Tier) {
    let backend = Backend::echo();
    let ringway = start(tier, &backend);
    for _ in 0..10 {
        let clients = open(&ringway, 16);
        assert_balanced(&ringway, 16);
        drop(clients);
        ringway.counter_becomes("sessions_active", 0);
    }
    ringway.finish();
}

fn many_long_sessions_are_balanced(tier: Tier) {
    let backend = Backend::echo();
    let ringway = start(tier, &backend);
    for _ in 0..4 {
        let clients = open(&ringway, 64);
        assert_balanced(&ringway, 64);
        drop(clients);
        ringway.counter_becomes("sessions_active", 0);
    }
    ringway.finish();
}

fn sessions_that_come_all_at_once_are_balanced(tier: Tier) {
    let backend = Backend::echo();
    let ringway = start(tier, &backend);
    let address = ringway.address();
    for _ in 0..4 {
        let connecting: Vec<_> = (0..64)
            .map(|_| thread::spawn(move || stream::connect(address)))
            .collect();
        let mut clients: Vec<TcpStream> = connecting.into_iter().map(join).collect();
        clients
            .iter_mut()
            .for_each(|client| stream::exchange(client, b"hello"));
        assert_balanced(&ringway, 64);
        drop(clients);
        ringway.counter_becomes("sessions_active", 0);
    }
    ringway.finish();
}

/// The sessions of one worker end: the next ones go to it.
fn sessions_are_balanced_again_after_others_left(tier: Tier) {
    let backend = Backend::echo();
    let ringway = start(tier, &backend);
    let on_first = || number(&ringway.counters()["per_worker"][0], "sessions_active");
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..32 {
        let before = on_first();
        let client = open(&ringway, 1).remove(0);
        if on_first() > before {
            first.push(client)
        } else {
            second.push(client)
        }
    }
    drop(second);
    ringway.counter_becomes("sessions_active", first.len() as u64);
    let more = open(&ringway, first.len());
    assert_balanced(&ringway, 2 * first.len() as u64);
    drop((first, more));
    ringway.finish();
}
