//! Urgent bytes (`MSG_OOB`): they travel in line, where they stand in the stream, and nothing stalls behind them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use socket2::SockRef;

use crate::harness::backend::Backend;
use crate::harness::stream::{self, Ended, Pattern};
use crate::harness::{Launch, SOON, Tier, join};

both_tiers! {
    urgent_byte_in_small_traffic_arrives_in_line,
    urgent_byte_alone_arrives,
    urgent_byte_before_a_fin_arrives,
    urgent_bytes_in_a_bulk_request_arrive_in_line,
    urgent_bytes_in_a_bulk_answer_arrive_in_line,
}

#[track_caller]
fn send_urgent(stream: &TcpStream, byte: u8) {
    assert_eq!(SockRef::from(stream).send_out_of_band(&[byte]).unwrap(), 1);
}

fn urgent_byte_in_small_traffic_arrives_in_line(tier: Tier) {
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    let mut served = accepted.recv_timeout(SOON).unwrap();
    served.set_read_timeout(Some(SOON)).unwrap();
    for _ in 0..200 {
        assert_urgent_is_in_line(&mut client, &mut served);
        assert_urgent_is_in_line(&mut served, &mut client);
    }
    drop((client, served));
    ringway.finish();
}

fn assert_urgent_is_in_line(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"before ").unwrap();
    send_urgent(from, b'!');
    from.write_all(b" after").unwrap();
    let mut received = [0; 14];
    to.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"before ! after");
}

fn urgent_byte_alone_arrives(tier: Tier) {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    for round in 0..200 {
        send_urgent(&client, round);
        let mut received = [0];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, [round]);
    }
    drop(client);
    ringway.finish();
}

fn urgent_byte_before_a_fin_arrives(tier: Tier) {
    let backend = Backend::echo();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let mut client = ringway.connect();
    client.write_all(b"the end").unwrap();
    send_urgent(&client, b'!');
    stream::finish_writing(&client);
    assert_eq!(
        stream::read_to_end(&mut client),
        (b"the end!".to_vec(), Ended::Fin)
    );
    ringway.finish();
}

fn urgent_bytes_in_a_bulk_request_arrive_in_line(tier: Tier) {
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let client = ringway.connect();
    let served = accepted.recv_timeout(SOON).unwrap();
    assert_bulk_with_urgent_bytes_is_in_line(client, served);
    ringway.finish();
}

fn urgent_bytes_in_a_bulk_answer_arrive_in_line(tier: Tier) {
    let (backend, accepted) = Backend::handing_over();
    let ringway = Launch::to([backend.address()]).tier(tier).start();
    let client = ringway.connect();
    let served = accepted.recv_timeout(SOON).unwrap();
    assert_bulk_with_urgent_bytes_is_in_line(served, client);
    ringway.finish();
}

/// The urgent bytes are those that the pattern has at their place, so that the reader needs to know of nothing.
fn assert_bulk_with_urgent_bytes_is_in_line(mut writer: TcpStream, mut reader: TcpStream) {
    const BYTES: u64 = 24 << 20;
    let pattern = Pattern::new(11);
    let writer = thread::spawn(move || {
        let mut sent = 0;
        while sent < BYTES {
            let part = pattern.bytes(sent, 300_000.min(usize::try_from(BYTES - sent).unwrap()));
            let (urgent, ordinary) = part.split_last().unwrap();
            writer.write_all(ordinary).unwrap();
            send_urgent(&writer, *urgent);
            sent += part.len() as u64;
        }
    });
    reader.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(
        stream::receive_pattern(&mut reader, pattern),
        (BYTES, Ended::Fin)
    );
    join(writer);
}
