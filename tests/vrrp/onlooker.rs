//! Somebody on the link who hears all advertisements and notes when they came.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringway::sys::netlink::{Change, Netlink};
use ringway::sys::priority;
use ringway::sys::raw::{Device, FrameSocket, RawSocket};
use ringway::vrrp::packet::{Advertisement, Datagram, GROUP_V4, PROTOCOL};

use crate::harness::join;
use crate::lan::Lan;

/// Before the virtual routers' threads.
const REAL_TIME: u8 = 40;

#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub from: IpAddr,
    pub advertisement: Advertisement,
}

pub struct Onlooker {
    heard: Arc<Mutex<Vec<Heard>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A node's `eth0`, for sockets of its namespace.
fn device() -> Device {
    let all = Netlink::open().unwrap().everything().unwrap();
    let index = all.iter().find_map(|one| match one {
        Change::Link(link) if link.name == "eth0" => Some(link.index),
        Change::Link(_) | Change::LinkGone(_) | Change::Address(_) | Change::AddressGone(_) => None,
    });
    Device {
        name: "eth0".to_owned(),
        index: index.unwrap(),
    }
}

/// A raw socket on a node's `eth0`.
pub fn socket(lan: &Lan, number: usize, group: IpAddr) -> RawSocket {
    lan.node(number)
        .run(|| RawSocket::open(&device(), PROTOCOL, group).unwrap())
}

/// Sends a frame from a node.
pub fn send_frame(lan: &Lan, number: usize, frame: &[u8]) {
    lan.node(number).run(|| {
        FrameSocket::open(&device(), 0)
            .unwrap()
            .send(frame)
            .unwrap()
    });
}

/// From which MAC addresses advertisements of IPv4 come within some intervals, as a node sees it.
pub fn advertising_macs(lan: &Lan, number: usize) -> Vec<[u8; 6]> {
    const ETHER_TYPE_IPV4: u16 = 0x0800;
    let socket = lan
        .node(number)
        .run(|| FrameSocket::open(&device(), ETHER_TYPE_IPV4).unwrap());
    let (mut macs, end) = (Vec::new(), Instant::now() + Duration::from_millis(500));
    let mut buffer = vec![0; 2048];
    while Instant::now() < end {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(50_u16)).unwrap();
        while let Some(len) = socket.receive(&mut buffer) {
            let mac: [u8; 6] = buffer[6..12].try_into().unwrap();
            if len > 33 && buffer[23] == PROTOCOL && !macs.contains(&mac) {
                macs.push(mac);
            }
        }
    }
    macs
}

impl Onlooker {
    pub fn on(lan: &Lan, number: usize) -> Onlooker {
        Self::of(socket(lan, number, GROUP_V4.into()))
    }

    fn of(socket: RawSocket) -> Onlooker {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (into, end) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            // What it notes is to be late by the sender alone.
            let _ = priority::real_time(REAL_TIME);
            let mut buffer = vec![0; 8192];
            while !end.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(50_u16)).unwrap();
                let at = Instant::now();
                while let Some(arrival) = socket.receive(&mut buffer) {
                    let bytes = &buffer[..arrival.len];
                    let datagram = Datagram::from_raw(arrival.ends, bytes);
                    let datagram = datagram.expect("a whole datagram");
                    let Ok((advertisement, _)) = Advertisement::decode(&datagram) else {
                        continue;
                    };
                    into.lock().unwrap().push(Heard {
                        at,
                        from: datagram.ends.source(),
                        advertisement,
                    });
                }
            }
        });
        Onlooker {
            heard,
            is_over,
            thread: Some(thread),
        }
    }

    pub fn all(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub fn from(&self, number: usize) -> Vec<Heard> {
        let source: IpAddr = format!("10.77.0.{number}").parse().unwrap();
        let mut all = self.all();
        all.retain(|one| one.from == source);
        all
    }

    /// The longest time that nobody said anything, between the first and the last word.
    pub fn longest_silence(&self) -> Duration {
        let all = self.all();
        let gaps = all.windows(2).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or_default()
    }

    /// When a node that is to take over after that moment says its first word.
    pub fn first_after(&self, number: usize, moment: Instant) -> Option<Duration> {
        let all = self.from(number).into_iter();
        let mut later = all.filter(|one| one.at >= moment && one.advertisement.priority > 0);
        later.next().map(|one| one.at - moment)
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            if std::thread::panicking() {
                let _ = thread.join();
            } else {
                join(thread);
            }
        }
    }
}
