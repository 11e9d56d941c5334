//! A flood of made-up sources, each of which gets an answer, beside clients that are known.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrStorage, recvmsg, sendmsg};

use crate::harness::datagram::{Responder, ask, client};
use crate::harness::namespace::Namespace;
use crate::harness::{Launch, facts, number};

/// Sources that are made up; another number by RINGWAY_FLOOD_SOURCES.
const SOURCES: u32 = 1_000_000;
/// Datagrams of the flood that may be unanswered: more than that would overflow sockets, which says nothing about us.
const OUTSTANDING: u32 = 256;
const PROVEN: usize = 100;
const MAX_FLOWS: usize = 4_000;

/// The flood: one socket that sends from any address of 10.0.0.0/8, all of which the namespace has.
struct Flood {
    socket: UdpSocket,
    target: SockaddrIn,
    outstanding: u32,
    answered: u32,
}

impl Flood {
    fn new(target: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        let patience = Some(Duration::from_millis(500));
        socket.set_read_timeout(patience).unwrap();
        Self {
            socket,
            target: target.into(),
            outstanding: 0,
            answered: 0,
        }
    }

    fn send_from(&mut self, source: Ipv4Addr) {
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(source.octets()),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(b"made up")],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&self.target),
        );
        sent.unwrap_or_else(|errno| panic!("from {source}: {errno}"));
        self.outstanding += 1;
        while self.outstanding >= OUTSTANDING {
            self.take_answer();
        }
    }

    /// One more, or none for a while: what was lost does not count any more.
    fn take_answer(&mut self) {
        let mut memory = [0; 64];
        let mut parts = [IoSliceMut::new(&mut memory)];
        let fd = self.socket.as_raw_fd();
        match recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::empty()) {
            Ok(_) => {
                self.answered += 1;
                self.outstanding -= 1;
            }
            Err(_) => self.outstanding = 0,
        }
    }
}

#[test]
fn a_million_made_up_sources_take_nothing_from_proven_flows_nor_more_than_their_bound() {
    let Some(host) = Namespace::new("flood") else {
        return;
    };
    host.ip(&["route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
    let sources = crate::servers::setting("RINGWAY_FLOOD_SOURCES", u64::from(SOURCES));
    let sources = u32::try_from(sources).unwrap();
    host.run(|| {
        let backend = Responder::echo();
        let ringway = Launch::config(format!(
            "global: {{workers: 2, max_flows: {MAX_FLOWS}}}\n\
             listeners: [{{name: in, bind: \"127.0.0.1:5300\", protocol: udp, pool: p}}]\n\
             pools: {{p: [\"{}\"]}}\n",
            backend.address()
        ))
        .start();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5300);
        let proven: Vec<UdpSocket> = (0..PROVEN)
            .map(|_| client(SocketAddr::V4(address)))
            .collect();
        for client in &proven {
            ask(client, b"1");
            ask(client, b"2");
        }
        let files_before = facts::open_files(ringway.pid());
        let is_over = AtomicBool::new(false);
        let (rounds, most_files, memory, answered) = thread::scope(|scope| {
            let known = scope.spawn(|| {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for client in &proven {
                        assert_eq!(ask(client, b"known"), b"known");
                    }
                    rounds += 1;
                    // A few hundred datagrams each second from those who are known.
                    thread::sleep(Duration::from_millis(200));
                }
                rounds
            });
            let mut flood = Flood::new(address);
            let (mut most_files, mut memory) = (0, [0, 0]);
            for number in 0..sources {
                flood.send_from(Ipv4Addr::from(0x0a00_0100 + number));
                if number % 50_000 == 0 || number + 1 == sources {
                    most_files = most_files.max(facts::open_files(ringway.pid()));
                    let halves = usize::from(number > sources / 2);
                    memory[halves] = memory[halves].max(facts::resident_bytes(ringway.pid()));
                }
            }
            is_over.store(true, Ordering::Relaxed);
            (known.join().unwrap(), most_files, memory, flood.answered)
        });
        let counters = ringway.counters();
        println!(
            "{rounds} rounds of those who are known; {answered} of {sources} answered; at most {most_files} files; \
             {memory:?} bytes"
        );
        assert!(rounds >= 2, "{rounds} rounds");
        assert!(answered > sources / 2, "the backends answered {answered}");
        assert!(number(&counters, "flows_active") <= MAX_FLOWS as u64);
        assert!(number(&counters, "flows_total") > u64::from(sources) * 9 / 10);
        let bound = files_before + MAX_FLOWS + 2 * 256;
        assert!(most_files <= bound, "{most_files} files, {bound} at most");
        let grown = memory[1].saturating_sub(memory[0]);
        assert!(grown < 4 << 20, "memory grows: {memory:?}");
        let evicted = counters["flow_ends"].as_object().unwrap();
        assert_eq!(evicted.keys().collect::<Vec<_>>(), ["evicted"]);
        ringway.stop();
    });
}
