//! How an end is passed on: a FIN as a FIN, a reset as a reset, at every stage and in both directions, after everything
//! that was received before it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::backend::{self, Backend, FullBacklog};
use crate::harness::stream::{self, Ended, Pattern, Random};
use crate::harness::{
    Launch, Ringway, SOON, Tier, assert_ends, ends_total, join, number, one_pool,
};

both_tiers! {
    client_reset_before_any_byte,
    backend_reset_before_any_byte,
    client_reset_after_some_bytes,
    backend_reset_after_some_bytes,
    reset_after_half_an_answer_comes_after_its_bytes,
    reset_after_half_an_answer_waits_for_a_client_that_reads_slowly,
    reset_after_half_a_request_waits_for_a_backend_that_reads_slowly,
    reset_at_the_end_of_a_bulk_answer_comes_after_its_bytes,
    client_reset_in_the_middle_of_a_bulk_answer,
    backend_reset_in_the_middle_of_a_bulk_request,
    client_reset_while_nobody_reads_the_request,
    backend_reset_after_the_client_has_half_closed,
    client_reset_after_the_backend_has_half_closed,
    client_reset_after_its_own_fin,
    backend_reset_after_its_own_fin,
    closing_with_unread_bytes_is_a_reset,
    client_reset_during_connect,
    fin_during_connect_is_no_abort,
    client_fin_without_a_byte,
    backend_fin_without_a_byte,
    backend_sends_a_lot_after_the_clients_fin,
    client_sends_a_lot_after_the_backends_fin,
    data_then_fin_arrives_complete_at_any_size,
    client_that_closed_before_the_answer,
    client_reset_in_the_middle_of_an_answer_after_its_own_fin,
    delivery_before_a_reset_takes_a_second_at_most,
    random_endings_leave_nothing_behind,
    nothing_spins_while_sessions_wait,
    many_resets_at_once_reach_their_backends,
    ends_are_passed_on_while_frozen_again_and_again,
}

/// A session whose two ends the test holds.
fn session(tier: Tier) -> (Ringway, Backend, TcpStream, TcpStream) {
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let (client, served) = connect(&ringway, &accepted);
    (ringway, backend, client, served)
}

fn connect(ringway: &Ringway, accepted: &Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let before = ringway.counter("connects_established_total");
    let client = ringway.connect();
    let served = accepted.recv_timeout(SOON).unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    ringway.counters_become("the backend is connected", |counters| {
        number(counters, "connects_established_total") > before
    });
    (client, served)
}

#[track_caller]
fn assert_ended_for(ringway: Ringway, reason: &str) {
    let counters = ringway.finish();
    assert_ends(&counters, &[(reason, 1)]);
}

fn client_reset_before_any_byte(tier: Tier) {
    let (ringway, _backend, client, mut served) = session(tier);
    stream::abort(client);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ended_for(ringway, "client_reset");
}

fn backend_reset_before_any_byte(tier: Tier) {
    let (ringway, _backend, mut client, served) = session(tier);
    stream::abort(served);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_ended_for(ringway, "backend_reset");
}

fn client_reset_after_some_bytes(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    exchange(&mut client, &mut served, 100);
    exchange(&mut served, &mut client, 20_000);
    stream::abort(client);
    assert_eq!(stream::ended(&mut served), Ended::Reset);
    assert_ended_for(ringway, "client_reset");
}

fn backend_reset_after_some_bytes(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    exchange(&mut client, &mut served, 100);
    exchange(&mut served, &mut client, 20_000);
    stream::abort(served);
    assert_eq!(stream::ended(&mut client), Ended::Reset);
    assert_ended_for(ringway, "backend_reset");
}

/// Bytes from one end that arrive at the other.
fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: u64) {
    let pattern = Pattern::new(bytes);
    stream::send_pattern(from, pattern, bytes, 64 * 1024).unwrap();
    stream::receive_exactly(to, pattern, 0, bytes);
}

fn reset_after_half_an_answer_comes_after_its_bytes(tier: Tier) {
    for bytes in [1, 100, 5_000, 70_000] {
        let (ringway, _backend, mut client, mut served) = session(tier);
        let pattern = Pattern::new(bytes);
        stream::send_pattern(&mut served, pattern, bytes, 64 * 1024).unwrap();
        stream::wait_acknowledged(&served);
        stream::abort(served);
        assert_eq!(
            stream::receive_pattern(&mut client, pattern),
            (bytes, Ended::Reset)
        );
        assert_ended_for(ringway, "backend_reset");
    }
}

fn reset_after_half_an_answer_waits_for_a_client_that_reads_slowly(tier: Tier) {
    let (ringway, _backend, client, served) = session(tier);
    send_and_abort_towards_a_slow_reader(served, client);
    assert_ended_for(ringway, "backend_reset");
}

fn reset_after_half_a_request_waits_for_a_backend_that_reads_slowly(tier: Tier) {
    let (ringway, _backend, client, served) = session(tier);
    send_and_abort_towards_a_slow_reader(client, served);
    assert_ended_for(ringway, "client_reset");
}

/// The reader starts only after the reset and takes about a quarter of a second: within the time that is promised.
fn send_and_abort_towards_a_slow_reader(mut writer: TcpStream, mut reader: TcpStream) {
    const BYTES: u64 = 320 * 1024;
    let pattern = Pattern::new(7);
    stream::send_pattern(&mut writer, pattern, BYTES, 64 * 1024).unwrap();
    stream::wait_acknowledged(&writer);
    stream::abort(writer);
    for part in 0..16 {
        thread::sleep(Duration::from_millis(15));
        stream::receive_exactly(&mut reader, pattern, part * BYTES / 16, BYTES / 16);
    }
    assert_eq!(stream::ended(&mut reader), Ended::Reset);
}

fn reset_at_the_end_of_a_bulk_answer_comes_after_its_bytes(tier: Tier) {
    const BYTES: u64 = 64 << 20;
    let (ringway, _backend, mut client, mut served) = session(tier);
    let pattern = Pattern::new(8);
    let reader = thread::spawn(move || stream::receive_pattern(&mut client, pattern));
    stream::send_pattern(&mut served, pattern, BYTES, 256 * 1024).unwrap();
    stream::wait_acknowledged(&served);
    stream::abort(served);
    assert_eq!(join(reader), (BYTES, Ended::Reset));
    assert_ended_for(ringway, "backend_reset");
}

fn client_reset_in_the_middle_of_a_bulk_answer(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    let writer = thread::spawn(move || stream::write_to_end(&mut served));
    client.read_exact(&mut vec![0; 8 << 20]).unwrap();
    stream::abort(client);
    assert_eq!(join(writer), Ended::Reset);
    assert_ended_for(ringway, "client_reset");
}

fn backend_reset_in_the_middle_of_a_bulk_request(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    let writer = thread::spawn(move || stream::write_to_end(&mut client));
    served.read_exact(&mut vec![0; 8 << 20]).unwrap();
    stream::abort(served);
    assert_eq!(join(writer), Ended::Reset);
    assert_ended_for(ringway, "backend_reset");
}

/// The relay is stuck: nothing can be sent and nothing is read, but the reset is seen and passed on.
fn client_reset_while_nobody_reads_the_request(tier: Tier) {
    let (ringway, _backend, client, mut served) = session(tier);
    fill(&client);
    stream::abort(client);
    let (bytes, ended) = stream::discard_to_end(&mut served);
    assert!(bytes > 0, "nothing of the request arrived");
    assert_eq!(ended, Ended::Reset);
    assert_ended_for(ringway, "client_reset");
}

/// Writes until nothing more is taken for a while.
fn fill(mut stream: &TcpStream) {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let block = vec![b'f'; 256 * 1024];
    while stream.write(&block).is_ok() {}
}

fn backend_reset_after_the_client_has_half_closed(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    client.write_all(b"request").unwrap();
    stream::finish_writing(&client);
    assert_eq!(
        stream::read_to_end(&mut served),
        (b"request".to_vec(), Ended::Fin)
    );
    served.write_all(b"half an ans").unwrap();
    stream::wait_acknowledged(&served);
    stream::abort(served);
    assert_eq!(
        stream::read_to_end(&mut client),
        (b"half an ans".to_vec(), Ended::Reset)
    );
    assert_ended_for(ringway, "backend_reset");
}

fn client_reset_after_the_backend_has_half_closed(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    stream::finish_writing(&served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    client.write_all(b"half a requ").unwrap();
    stream::wait_acknowledged(&client);
    stream::abort(client);
    assert_eq!(
        stream::read_to_end(&mut served),
        (b"half a requ".to_vec(), Ended::Reset)
    );
    assert_ended_for(ringway, "client_reset");
}

fn client_reset_after_its_own_fin(tier: Tier) {
    let (ringway, _backend, client, mut served) = session(tier);
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    stream::abort(client);
    stream::wait_reset_after_fin(&served);
    assert_ended_for(ringway, "client_reset");
}

fn backend_reset_after_its_own_fin(tier: Tier) {
    let (ringway, _backend, mut client, served) = session(tier);
    stream::finish_writing(&served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    stream::abort(served);
    stream::wait_reset_after_fin(&client);
    assert_ended_for(ringway, "backend_reset");
}

/// What the kernel does for a process that dies or hangs up with a request unread.
fn closing_with_unread_bytes_is_a_reset(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    client.write_all(b"never read").unwrap();
    served.peek(&mut [0]).unwrap();
    served.write_all(b"busy, go away").unwrap();
    stream::wait_acknowledged(&served);
    drop(served);
    assert_eq!(
        stream::read_to_end(&mut client),
        (b"busy, go away".to_vec(), Ended::Reset)
    );
    assert_ended_for(ringway, "backend_reset");
}

fn client_reset_during_connect(tier: Tier) {
    let backend = FullBacklog::new();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    client.write_all(b"early").unwrap();
    ringway.counter_becomes("sessions_active", 1);
    stream::abort(client);
    let gone = ringway.counter_becomes("sessions_active", 0);
    assert_ends(&gone, &[("client_reset", 1)]);
    assert_ended_for(ringway, "client_reset");
}

fn fin_during_connect_is_no_abort(tier: Tier) {
    let backend = FullBacklog::new();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    client.write_all(b"early").unwrap();
    stream::finish_writing(&client);
    ringway.counter_becomes("sessions_active", 1);
    stream::wait_acknowledged(&client);
    let (mut served, _) = backend.open().accept().unwrap();
    assert_eq!(
        stream::read_to_end(&mut served),
        (b"early".to_vec(), Ended::Fin)
    );
    served.write_all(b"answer").unwrap();
    drop(served);
    assert_eq!(
        stream::read_to_end(&mut client),
        (b"answer".to_vec(), Ended::Fin)
    );
    assert_ended_for(ringway, "client_closed");
}

fn client_fin_without_a_byte(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    drop(served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    assert_ended_for(ringway, "client_closed");
}

fn backend_fin_without_a_byte(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    stream::finish_writing(&served);
    assert_eq!(stream::ended(&mut client), Ended::Fin);
    drop(client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    assert_ended_for(ringway, "backend_closed");
}

fn backend_sends_a_lot_after_the_clients_fin(tier: Tier) {
    const BYTES: u64 = 48 << 20;
    let (ringway, _backend, mut client, mut served) = session(tier);
    client.write_all(b"all of it, please").unwrap();
    stream::finish_writing(&client);
    let pattern = Pattern::new(9);
    let writer = thread::spawn(move || {
        assert_eq!(
            stream::read_to_end(&mut served),
            (b"all of it, please".to_vec(), Ended::Fin)
        );
        stream::send_pattern(&mut served, pattern, BYTES, 100_000).unwrap();
    });
    assert_eq!(
        stream::receive_pattern(&mut client, pattern),
        (BYTES, Ended::Fin)
    );
    join(writer);
    assert_ended_for(ringway, "client_closed");
}

fn client_sends_a_lot_after_the_backends_fin(tier: Tier) {
    const BYTES: u64 = 48 << 20;
    let (ringway, _backend, mut client, mut served) = session(tier);
    stream::finish_writing(&served);
    let pattern = Pattern::new(10);
    let writer = thread::spawn(move || {
        assert_eq!(stream::ended(&mut client), Ended::Fin);
        stream::send_pattern(&mut client, pattern, BYTES, 100_000).unwrap();
    });
    assert_eq!(
        stream::receive_pattern(&mut served, pattern),
        (BYTES, Ended::Fin)
    );
    join(writer);
    assert_ended_for(ringway, "backend_closed");
}

fn data_then_fin_arrives_complete_at_any_size(tier: Tier) {
    const SIZES: [u64; 11] = [
        1,
        2,
        4095,
        4096,
        4097,
        16_384,
        65_535,
        65_536,
        65_537,
        1 << 20,
        24 << 20,
    ];
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    for bytes in SIZES {
        let (client, served) = connect(&ringway, &accepted);
        assert_arrives_complete(client, served, bytes);
        let (client, served) = connect(&ringway, &accepted);
        assert_arrives_complete(served, client, bytes);
    }
    let counters = ringway.finish();
    let total: u64 = SIZES.iter().sum();
    assert_eq!(number(&counters, "bytes_to_backend"), total);
    assert_eq!(number(&counters, "bytes_to_client"), total);
    let sessions = u64::try_from(SIZES.len()).unwrap();
    assert_ends(
        &counters,
        &[("backend_closed", sessions), ("client_closed", sessions)],
    );
}

/// The writer closes as soon as it has written: nothing waits for the reader, which starts late.
fn assert_arrives_complete(mut writer: TcpStream, mut reader: TcpStream, bytes: u64) {
    let pattern = Pattern::new(bytes);
    let writer =
        thread::spawn(move || stream::send_pattern(&mut writer, pattern, bytes, 1 << 20).unwrap());
    assert_eq!(
        stream::receive_pattern(&mut reader, pattern),
        (bytes, Ended::Fin)
    );
    join(writer);
}

/// A client that is gone looks as if it had only closed, until it answers the backend's bytes with a reset.
fn client_that_closed_before_the_answer(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    client.write_all(b"request").unwrap();
    drop(client);
    assert_eq!(
        stream::read_to_end(&mut served),
        (b"request".to_vec(), Ended::Fin)
    );
    served.write_all(b"answer").unwrap();
    stream::wait_reset_after_fin(&served);
    assert_ended_for(ringway, "client_reset");
}

fn client_reset_in_the_middle_of_an_answer_after_its_own_fin(tier: Tier) {
    let (ringway, _backend, mut client, mut served) = session(tier);
    stream::finish_writing(&client);
    assert_eq!(stream::ended(&mut served), Ended::Fin);
    // Ends with an error only when a reset comes; a writer does not notice a FIN.
    let writer = thread::spawn(move || stream::write_to_end(&mut served));
    client.read_exact(&mut vec![0; 8 << 20]).unwrap();
    stream::abort(client);
    join(writer);
    assert_ended_for(ringway, "client_reset");
}

fn delivery_before_a_reset_takes_a_second_at_most(tier: Tier) {
    let (ringway, _backend, mut client, served) = session(tier);
    fill(&served);
    let start = Instant::now();
    stream::abort(served);
    ringway.counter_becomes("sessions_active", 0);
    let waited = start.elapsed();
    assert!(
        waited < Duration::from_secs(4),
        "the session ended after {waited:?}"
    );
    let (bytes, ended) = stream::discard_to_end(&mut client);
    assert!(bytes > 0, "what the client's kernel had taken is lost");
    assert_eq!(ended, Ended::Reset);
    assert_ended_for(ringway, "backend_reset");
}

/// Both ends decide by chance how much they send and read and how they leave, some while the session is being frozen.
fn random_endings_leave_nothing_behind(tier: Tier) {
    const THREADS: u64 = 8;
    const EACH: u64 = 250;
    let backend = Backend::scripted_on(backend::listener(), |served, number| {
        leave_by_chance(served, &mut Random::new(number as u64 + 1));
    });
    let pool = format!(
        "backends: [\"{}\"], timeouts: {{idle: 400ms}}",
        backend.address()
    );
    let ringway = Launch::config(one_pool("workers: 2", &pool))
        .tier(tier)
        .arguments(["--freeze-every", "25ms"])
        .start();
    let address = ringway.address();
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            thread::spawn(move || {
                let mut random = Random::new(1_000_000 + seed);
                for _ in 0..EACH {
                    // Where the backend resets at once there may be nobody left to talk to.
                    if let Some(client) = stream::connect_unless_reset(address) {
                        leave_by_chance(client, &mut random);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(join);
    let counters = ringway.finish();
    println!("{}", counters["ends"]);
    assert_eq!(number(&counters, "sessions_total"), THREADS * EACH);
    assert_eq!(ends_total(&counters), THREADS * EACH);
}

/// Errors are of no interest here: the other end has left in its own way.
fn leave_by_chance(mut stream: TcpStream, random: &mut Random) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
    for _ in 0..random.range(0, 4) {
        let size = [1, 300, 20_000, 400_000][random.range(0, 4)];
        let _ = match random.range(0, 4) {
            0 => stream.read(&mut vec![0; size]).map(drop),
            1 => stream.shutdown(Shutdown::Write),
            _ => stream.write_all(&vec![b'r'; size]),
        };
    }
    match random.range(0, 3) {
        0 => stream::abort(stream),
        1 => drop(stream),
        _ => {
            let _ = stream.shutdown(Shutdown::Write);
            while stream.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {}
        }
    }
}

/// Every state in which a session may wait for long: half-closed either way, blocked either way, connecting after a
/// FIN.
fn nothing_spins_while_sessions_wait(tier: Tier) {
    let (backend, accepted) = Backend::handing_over();
    let full = FullBacklog::new();
    let config = format!(
        "listeners: [{{name: in, bind: \"127.0.0.1:0\", pool: p}}, {{name: full, bind: \
         \"127.0.0.1:0\", pool: full}}]\npools: {{p: [\"{}\"], full: {{backends: [\"{}\"], \
         timeouts: {{connect: 1h}}}}}}\n",
        backend.address(),
        full.address(),
    );
    let ringway = Launch::config(config).tier(tier).start();
    let mut waiting: Vec<_> = (0..6).map(|_| connect(&ringway, &accepted)).collect();
    stream::finish_writing(&waiting[0].0);
    stream::finish_writing(&waiting[1].1);
    fill(&waiting[2].0);
    fill(&waiting[3].1);
    // Half-closed, and the other direction is blocked.
    stream::finish_writing(&waiting[4].0);
    fill(&waiting[4].1);
    exchange_small(&mut waiting[5]);
    let connecting = stream::connect(ringway.address_of("full"));
    stream::finish_writing(&connecting);
    ringway.counter_becomes("sessions_active", 7);
    ringway.assert_idle(Duration::from_millis(60));
    drop((waiting, connecting));
    drop(full);
    ringway.counters_become("those that were connected are gone", |counters| {
        number(counters, "sessions_active") <= 1
    });
}

fn exchange_small((client, served): &mut (TcpStream, TcpStream)) {
    exchange(client, served, 10);
    exchange(served, client, 10);
}

fn many_resets_at_once_reach_their_backends(tier: Tier) {
    const SESSIONS: usize = 400;
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut sessions: Vec<_> = (0..SESSIONS)
        .map(|_| (ringway.connect(), accepted.recv_timeout(SOON).unwrap()))
        .collect();
    // The two of a pair need not belong to each other.
    for (client, served) in &mut sessions {
        client.write_all(b"0123456789").unwrap();
        served.set_read_timeout(Some(SOON)).unwrap();
    }
    for (_, served) in &mut sessions {
        served.read_exact(&mut [0; 10]).unwrap();
    }
    let (clients, served): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
    clients.into_iter().for_each(stream::abort);
    for mut served in served {
        assert_eq!(stream::ended(&mut served), Ended::Reset);
    }
    let counters = ringway.finish();
    assert_ends(&counters, &[("client_reset", SESSIONS as u64)]);
}

fn ends_are_passed_on_while_frozen_again_and_again(tier: Tier) {
    const ROUNDS: u64 = 40;
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()])
        .tier(tier)
        .arguments(["--freeze-every", "5ms"])
        .start();
    for _ in 0..ROUNDS {
        let (client, mut served) = connect(&ringway, &accepted);
        stream::abort(client);
        assert_eq!(stream::ended(&mut served), Ended::Reset);

        let (mut client, served) = connect(&ringway, &accepted);
        stream::abort(served);
        assert_eq!(stream::ended(&mut client), Ended::Reset);

        let (client, served) = connect(&ringway, &accepted);
        assert_arrives_complete(client, served, 100_000);

        let (client, mut served) = connect(&ringway, &accepted);
        stream::finish_writing(&client);
        assert_eq!(stream::ended(&mut served), Ended::Fin);
        stream::abort(client);
        stream::wait_reset_after_fin(&served);
    }
    assert!(ringway.counter("freezes_total") > 0);
    let counters = ringway.finish();
    let expected = [
        ("backend_reset", ROUNDS),
        ("client_closed", ROUNDS),
        ("client_reset", 2 * ROUNDS),
    ];
    assert_ends(&counters, &expected);
}
