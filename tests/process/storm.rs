//! Storms of connects: sessions that live go on, and no listener has to wait for another one's clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt;
use socket2::{Domain, Socket, Type};

use crate::harness::backend::{Backend, listener_on};
use crate::harness::load::Busy;
use crate::harness::{Launch, Ringway, SOON, assert_ends, eventually, join, number, stream};

/// Threads that connect, and threads that serve them.
const THREADS: usize = 8;
/// A session that gets nothing for so long has been stopped. The machine may be busy with other things.
const STOPPED: Duration = Duration::from_secs(2);

/// A backend that serves one request on each connection, on few threads.
struct Brief {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Brief {
    fn new() -> Brief {
        let listener = Arc::new(listener_on("127.0.0.1:0".parse().unwrap(), 4096));
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |_| {
            let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
            thread::spawn(move || Self::serve(&listener, &stop))
        };
        Brief {
            address,
            threads: (0..THREADS).map(serve).collect(),
            stop,
        }
    }

    fn serve(listener: &TcpListener, stop: &AtomicBool) {
        while let Ok((mut stream, _)) = listener.accept() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let mut request = [0; 64];
            if stream.read_exact(&mut request).is_ok() {
                // The client may be gone.
                let _ = stream.write_all(&request);
                let _ = stream.read(&mut request);
            }
        }
    }
}

impl Drop for Brief {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let wake = |_| TcpStream::connect(self.address);
        let woken: Vec<_> = self.threads.iter().map(wake).collect();
        self.threads.drain(..).for_each(join);
        drop(woken);
    }
}

/// From an address of its own for each thread, or the ports would run out.
fn connect_from(thread: usize, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let host = u8::try_from(thread + 1).unwrap();
    let source = SocketAddr::from((Ipv4Addr::new(127, 7, 7, host), 0));
    nix::sys::socket::setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).unwrap();
    socket.bind(&source.into()).unwrap();
    socket
        .connect(&to.into())
        .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connects, has one request answered and closes, again and again.
struct Storm {
    served: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    fn start(to: SocketAddr, connects: usize) -> Storm {
        let served = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let one = |number| {
            let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
            thread::spawn(move || {
                for _ in 0..connects / THREADS {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    stream::exchange(&mut connect_from(number, to), &[7; 64]);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Storm {
            threads: (0..THREADS).map(one).collect(),
            served,
            stop,
        }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Until all connects are done, or the one that each thread is at.
    #[track_caller]
    fn end(self, at_once: bool) -> usize {
        self.stop.store(at_once, Ordering::Relaxed);
        self.threads.into_iter().for_each(join);
        self.served.load(Ordering::Relaxed)
    }
}

/// One worker; a listener for those who stay, and one for those who come and go.
fn start(echo: &Backend, brief: &Brief) -> Ringway {
    Launch::config(format!(
        "global: {{workers: 1}}\nlisteners:\n - {{name: calm, bind: \"127.0.0.1:0\", pool: echo}}\n \
         - {{name: storm, bind: \"127.0.0.1:0\", pool: brief}}\npools:\n echo: [\"{}\"]\n brief: [\"{}\"]\n",
        echo.address(),
        brief.address
    ))
    .start()
}

#[test]
fn fifty_thousand_connects_do_not_stop_live_sessions() {
    const CONNECTS: usize = 50_000;
    const LIVE: usize = 20;
    let (echo, brief) = (Backend::echo(), Brief::new());
    let ringway = start(&echo, &brief);
    let busy = Busy::start(ringway.address_of("calm"), LIVE, 64);
    let storm = Storm::start(ringway.address_of("storm"), CONNECTS);
    assert_eq!(storm.end(false), CONNECTS);
    let live = busy.finish();
    println!(
        "{} exchanges of {LIVE} sessions, p99 {:?}, worst {:?}",
        live.count(),
        live.p99(),
        live.worst()
    );
    assert!(
        live.worst() < STOPPED,
        "a session stood for {:?}",
        live.worst()
    );
    let counters = ringway.finish();
    assert_eq!(
        number(&counters, "sessions_total"),
        (CONNECTS + LIVE) as u64
    );
    assert_ends(&counters, &[("client_closed", (CONNECTS + LIVE) as u64)]);
}

#[test]
fn a_storm_on_one_listener_leaves_the_other_its_share() {
    const CLIENTS: usize = 300;
    let (echo, brief) = (Backend::echo(), Brief::new());
    let ringway = start(&echo, &brief);
    let storm = Storm::start(ringway.address_of("storm"), usize::MAX);
    let begun = |storm: &Storm| storm.served() > 100;
    eventually(SOON, "the storm has begun", || begun(&storm));
    let (calm, before) = (ringway.address_of("calm"), storm.served());
    let mut worst = Duration::ZERO;
    for _ in 0..CLIENTS {
        let start = Instant::now();
        stream::exchange(&mut stream::connect(calm), b"calm");
        worst = worst.max(start.elapsed());
    }
    let meanwhile = storm.served() - before;
    storm.end(true);
    println!("{CLIENTS} clients beside {meanwhile} of the storm, the worst waited {worst:?}");
    assert!(worst < STOPPED, "a client waited for {worst:?}");
    // Eight threads connect there and one here.
    let fair = CLIENTS * THREADS;
    assert!(
        meanwhile < fair * 5,
        "{meanwhile} were served meanwhile, {fair} had been fair"
    );
    ringway.finish();
}
