//! Every byte arrives once and in order, whatever its way through the process: small, large, switching between the two,
//! both directions at once, frozen and thawed in between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::backend::{Backend, listener_on};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Ended, Pattern, Random};
use crate::harness::{Launch, SOON, Tier, assert_ends, join, number, one_pool};

both_tiers! {
    single_bytes_arrive_in_order,
    requests_around_the_crossover_arrive_in_order,
    streams_of_mixed_sizes_arrive_in_order,
    gigabyte_each_way_at_once_arrives_in_order,
    bytes_are_counted_while_their_session_lives,
    tiny_writes_behind_large_ones_wait_for_a_slow_reader,
    bulk_streams_arrive_without_a_pipe_for_each,
    segments_of_an_ordinary_network_arrive_in_order,
    frozen_again_and_again_nothing_is_lost,
}

fn single_bytes_arrive_in_order(tier: Tier) {
    const BYTES: u64 = 30_000;
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let mut client = ringway.connect();
            let pattern = Pattern::new(number);
            let reader = read_all(&client, pattern, BYTES);
            thread::spawn(move || {
                stream::send_pattern(&mut client, pattern, BYTES, 1).unwrap();
                stream::finish_writing(&client);
                join(reader);
            })
        })
        .collect();
    clients.into_iter().for_each(join);
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_backend"), 4 * BYTES);
    assert_eq!(number(&counters, "bytes_to_client"), 4 * BYTES);
}

/// Reads so many bytes of the pattern and a FIN, on a thread.
fn read_all(client: &TcpStream, pattern: Pattern, bytes: u64) -> JoinHandle<()> {
    let mut reader = client.try_clone().unwrap();
    thread::spawn(move || {
        assert_eq!(
            stream::receive_pattern(&mut reader, pattern),
            (bytes, Ended::Fin)
        )
    })
}

fn bytes_are_counted_while_their_session_lives(tier: Tier) {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    stream::exchange(&mut client, &[b'c'; 1000]);
    ringway.counter_becomes("bytes_to_backend", 1000);
    ringway.counter_becomes("bytes_to_client", 1000);
    stream::exchange(&mut client, &[b'c'; 500]);
    ringway.counter_becomes("bytes_to_client", 1500);
    drop(client);
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_backend"), 1500);
}

/// Small and large messages take turns, so that each relay goes over to splice and comes back again and again.
fn requests_around_the_crossover_arrive_in_order(tier: Tier) {
    const SESSIONS: u64 = 24;
    const ROUNDS: usize = 150;
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let address = ringway.address();
    let clients: Vec<_> = (0..SESSIONS)
        .map(|seed| thread::spawn(move || exchange_mixed_messages(address, seed, ROUNDS)))
        .collect();
    let bytes: u64 = clients.into_iter().map(join).sum();
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_backend"), bytes);
    assert_eq!(number(&counters, "bytes_to_client"), bytes);
    let entered = number(&counters, "pumps_entered_total");
    println!(
        "{entered} times over to splice, {} back",
        number(&counters, "pumps_left_total")
    );
    assert!(
        entered >= 1000,
        "relays went over to splice only {entered} times"
    );
    let left = number(&counters, "pumps_left_total");
    assert!(
        left <= entered && entered <= left + 2 * SESSIONS,
        "{entered} entered, {left} left"
    );
    assert_ends(&counters, &[("client_closed", SESSIONS)]);
}

/// A few small messages, then a few large ones, each waited for; so many bytes each way.
fn exchange_mixed_messages(address: SocketAddr, seed: u64, rounds: usize) -> u64 {
    let mut random = Random::new(seed);
    let mut client = stream::connect(address);
    let pattern = Pattern::new(seed);
    let mut position = 0;
    for round in 0..rounds {
        let (from, to) = if round % 2 == 0 {
            (1, 2048)
        } else {
            (2048, 65_537)
        };
        for _ in 0..random.range(1, 12) {
            let size = random.range(from, to);
            let mut left = size;
            while left > 0 {
                let part = pattern.bytes(position + (size - left) as u64, left);
                client.write_all(part).unwrap();
                left -= part.len();
            }
            stream::receive_exactly(&mut client, pattern, position, size as u64);
            position += size as u64;
        }
    }
    position
}

/// Nobody waits for answers: writes of random sizes with pauses that let the queues run empty.
fn streams_of_mixed_sizes_arrive_in_order(tier: Tier) {
    const BYTES: u64 = 6 << 20;
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let clients: Vec<_> = (0..24)
        .map(|seed| {
            let mut client = ringway.connect();
            let pattern = Pattern::new(seed);
            let reader = read_all(&client, pattern, BYTES);
            thread::spawn(move || {
                send_mixed_sizes(&mut client, pattern, BYTES, seed);
                stream::finish_writing(&client);
                join(reader);
            })
        })
        .collect();
    clients.into_iter().for_each(join);
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_client"), 24 * BYTES);
    assert_ends(&counters, &[("client_closed", 24)]);
}

fn send_mixed_sizes(client: &mut TcpStream, pattern: Pattern, bytes: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut sent = 0;
    while sent < bytes {
        let largest = [16, 1500, 16_384, 65_536][random.range(0, 4)];
        let size = random
            .range(1, largest + 1)
            .min(usize::try_from(bytes - sent).unwrap());
        let part = pattern.bytes(sent, size);
        client.write_all(part).unwrap();
        sent += part.len() as u64;
        if random.range(0, 16) == 0 {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn gigabyte_each_way_at_once_arrives_in_order(tier: Tier) {
    const BYTES: u64 = 1 << 30;
    let (requests, answers) = (Pattern::new(15), Pattern::new(16));
    let backend = Backend::scripted(move |served| both_ways(served, answers, requests, BYTES));
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let start = Instant::now();
    both_ways(ringway.connect(), requests, answers, BYTES);
    println!("a gigabyte each way in {:?}", start.elapsed());
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_backend"), BYTES);
    assert_eq!(number(&counters, "bytes_to_client"), BYTES);
}

/// Writes one pattern and reads another at the same time.
fn both_ways(mut stream: TcpStream, written: Pattern, read: Pattern, bytes: u64) {
    let reader = read_all(&stream, read, bytes);
    stream::send_pattern(&mut stream, written, bytes, 1 << 20).unwrap();
    stream::finish_writing(&stream);
    join(reader);
}

/// Many small segments fill a pipe long before its bytes do, while the target takes nothing.
fn tiny_writes_behind_large_ones_wait_for_a_slow_reader(tier: Tier) {
    const BYTES: u64 = 24 << 20;
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    let mut served = accepted.recv_timeout(SOON).unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    let pattern = Pattern::new(22);
    let writer = thread::spawn(move || {
        let mut sent = 0;
        while sent < BYTES {
            let left = usize::try_from(BYTES - sent).unwrap();
            let large = pattern.bytes(sent, left.min(700_000));
            client.write_all(large).unwrap();
            sent += large.len() as u64;
            for _ in 0..left.saturating_sub(large.len()).min(3000) {
                client.write_all(pattern.bytes(sent, 1)).unwrap();
                sent += 1;
            }
        }
    });
    for part in 0..24 {
        thread::sleep(Duration::from_millis(40));
        stream::receive_exactly(&mut served, pattern, part << 20, 1 << 20);
    }
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    join(writer);
    drop(served);
    ringway.finish();
}

/// Four pipes for thirty-two relays, of which some have a reader that makes them need one.
fn bulk_streams_arrive_without_a_pipe_for_each(tier: Tier) {
    const BYTES: u64 = 12 << 20;
    let (requests, answers) = (Pattern::new(23), Pattern::new(24));
    let backend = Backend::scripted(move |served| both_ways(served, answers, requests, BYTES));
    let pool = format!("backends: [\"{}\"]", backend.address());
    let config = one_pool("workers: 2, pipe_memory: 1MiB", &pool);
    let ringway = Launch::config(config).tier(tier).start();
    let address = ringway.address();
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let mut client = stream::connect(address);
            thread::spawn(move || {
                if number % 2 == 0 {
                    return both_ways(client, requests, answers, BYTES);
                }
                // Reads only after everything was written as far as it is taken.
                let mut reader = client.try_clone().unwrap();
                let writer = thread::spawn(move || {
                    stream::send_pattern(&mut client, requests, BYTES, 1 << 20).unwrap();
                    stream::finish_writing(&client);
                });
                thread::sleep(Duration::from_millis(500));
                assert_eq!(
                    stream::receive_pattern(&mut reader, answers),
                    (BYTES, Ended::Fin)
                );
                join(writer);
            })
        })
        .collect();
    clients.into_iter().for_each(join);
    let counters = ringway.finish();
    assert!(
        number(&counters, "pipes_total") <= 8,
        "it keeps to its memory: {counters}"
    );
    assert!(
        number(&counters, "pipes_unavailable_total") + number(&counters, "spills_total") > 0,
        "pipes were never scarce: {counters}"
    );
    assert_eq!(number(&counters, "bytes_to_client"), 16 * BYTES);
}

/// Over a veth pair, where a segment has 1448 bytes and not 64 KiB.
fn segments_of_an_ordinary_network_arrive_in_order(tier: Tier) {
    const BYTES: u64 = 128 << 20;
    let Some(inside) = Namespace::new("lb") else {
        return;
    };
    let Some(outside) = Namespace::new("peers") else {
        return;
    };
    inside.link("10.83.0.1/24", &outside, "10.83.0.2/24");
    let (requests, answers) = (Pattern::new(25), Pattern::new(26));
    let backend = outside.run(|| {
        let listener = listener_on("10.83.0.2:4000".parse().unwrap(), 128);
        Backend::scripted_on(listener, move |served, _| {
            both_ways(served, answers, requests, BYTES)
        })
    });
    let ringway = inside.run(|| {
        Launch::listening("10.83.0.1:0", [backend.address()])
            .tier(tier)
            .start()
    });
    let client = outside.run(|| ringway.connect());
    both_ways(client, requests, answers, BYTES);
    let counters = ringway.finish();
    assert_eq!(number(&counters, "bytes_to_backend"), BYTES);
    assert_eq!(number(&counters, "bytes_to_client"), BYTES);
}

fn frozen_again_and_again_nothing_is_lost(tier: Tier) {
    const BULK: u64 = 96 << 20;
    let (requests, answers) = (Pattern::new(17), Pattern::new(18));
    let streaming = Backend::scripted(move |served| both_ways(served, answers, requests, BULK));
    let echoing = Backend::echo();
    let config = format!(
        "global: {{workers: 2}}\nlisteners: [{{name: bulk, bind: \"127.0.0.1:0\", pool: bulk}}, {{name: small, bind: \
         \"127.0.0.1:0\", pool: small}}]\npools: {{bulk: [{}], small: [{}]}}\n",
        streaming.address(),
        echoing.address(),
    );
    let ringway = Launch::config(config)
        .tier(tier)
        .arguments(["--freeze-every", "20ms"])
        .start();
    let (bulk, small) = (ringway.address_of("bulk"), ringway.address_of("small"));
    let end = Instant::now() + Duration::from_secs(4);
    let mut threads: Vec<JoinHandle<()>> = (0..3)
        .map(|_| thread::spawn(move || both_ways(stream::connect(bulk), requests, answers, BULK)))
        .collect();
    threads.extend((0..8).map(|seed| thread::spawn(move || exchange_until(small, seed, end))));
    threads.extend((0..2).map(|seed| thread::spawn(move || reconnect_until(small, seed, end))));
    threads.into_iter().for_each(join);
    let counters = ringway.counters();
    let freezes = number(&counters, "freezes_total");
    assert!(freezes >= 20, "frozen only {freezes} times");
    ringway.finish();
}

fn exchange_until(address: SocketAddr, seed: u64, end: Instant) {
    let mut round = seed;
    while Instant::now() < end {
        exchange_mixed_messages(address, round, 30);
        round += 100;
    }
}

/// Short sessions: freezing also meets those that connect or end.
fn reconnect_until(address: SocketAddr, seed: u64, end: Instant) {
    let message = vec![u8::try_from(seed).unwrap(); 3000];
    while Instant::now() < end {
        let mut client = stream::connect(address);
        client.write_all(&message).unwrap();
        stream::finish_writing(&client);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(
            answer == message,
            "{} of {} bytes came back",
            answer.len(),
            message.len()
        );
    }
}
