//! A syslog stream, which nobody answers: sent by logger, counted at both ends.

use std::fs;
use std::time::Duration;

use super::program::{self, mortal};
use crate::harness::datagram::Responder;
use crate::harness::{Folder, SOON, eventually, number};
use crate::udp;

const LINES: u64 = 5_000;
const SENDERS: u64 = 4;

#[test]
fn every_line_of_a_stream_that_nobody_answers_arrives() {
    let Some([logger]) = program::find(["logger"]) else {
        return;
    };
    let takers = [Responder::silent(), Responder::silent()];
    let ringway = udp::launch(&(udp::backends(&takers) + ", balance: round_robin"));
    let folder = Folder::new();
    let file = folder.path().join("lines");
    let lines: Vec<String> = (0..LINES).map(|line| format!("line {line}")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    for _ in 0..SENDERS {
        let mut send = mortal(&logger);
        send.args(["--udp", "--server", "127.0.0.1", "--port"])
            .arg(ringway.address().port().to_string())
            .arg("--file")
            .arg(&file);
        program::run(&mut send, Duration::from_secs(30));
    }
    let arrived = || takers.iter().map(Responder::received).sum::<u64>();
    eventually(SOON, "all have arrived", || arrived() == SENDERS * LINES);
    let counters = udp::finish(ringway);
    let listener = &counters["listeners"][0];
    assert_eq!(number(listener, "datagrams_received"), SENDERS * LINES);
    assert_eq!(listener["datagrams_lost"], serde_json::json!({}));
    assert_eq!(number(&counters, "flows_total"), SENDERS);
}
