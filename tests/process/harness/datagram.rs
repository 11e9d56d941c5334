//! Small UDP backends and clients. A backend is a thread that answers each datagram as the test wants; a client is a
//! socket whose reads end after [`SOON`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Ringway, SOON, join};

/// How often a backend looks whether it is to end.
const LOOKS: Duration = Duration::from_millis(20);

/// A UDP backend on a thread. Dropping it closes its socket: the kernel refuses datagrams from then on.
pub struct Responder {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Calls the closure for each datagram with it and where it came from, and sends what it returns.
    pub fn answering(
        address: SocketAddr,
        answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(address).expect("the address is free");
        Self::on(socket, answer)
    }

    /// The same on a socket that is bound.
    pub fn on(
        socket: UdpSocket,
        mut answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let address = socket.local_addr().expect("it is bound");
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(8 << 20)
            .expect("the option exists");
        socket
            .set_read_timeout(Some(LOOKS))
            .expect("it is not zero");
        let received = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (count, ends) = (Arc::clone(&received), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ends.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                for reply in answer(&buffer[..len], from) {
                    // A client that is gone is not the backend's business.
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self {
            address,
            received,
            is_over,
            thread: Some(thread),
        }
    }

    /// Sends each datagram back, on a free port.
    pub fn echo() -> Self {
        Self::answering(any_port(), |datagram, _| vec![datagram.to_vec()])
    }

    /// Answers each datagram with its name, on a free port.
    pub fn named(name: &'static str) -> Self {
        Self::answering(any_port(), move |_, _| vec![name.as_bytes().to_vec()])
    }

    /// Takes everything and says nothing.
    pub fn silent() -> Self {
        Self::answering(any_port(), |_, _| Vec::new())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams that it got.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            join(thread);
        }
    }
}

/// A backend whose answers are all at hand at once.
pub struct Burst {
    asked: Receiver<()>,
    go: Sender<()>,
    has_sent: Receiver<()>,
    pub backend: Responder,
}

impl Burst {
    /// Once so many clients have said `burst`, each gets all these answers, and so on. Says nothing to others.
    pub fn on(socket: UdpSocket, clients: usize, answers: Vec<Vec<u8>>) -> Self {
        let own = socket.try_clone().expect("there are files");
        let ((ask, asked), (go, may_go), (done, has_sent)) = (channel(), channel(), channel());
        let mut waiting = Vec::new();
        let backend = Responder::on(socket, move |datagram, from| {
            waiting.extend((datagram == b"burst").then_some(from));
            if waiting.len() < clients {
                return Vec::new();
            }
            // Where nobody waits for that, the test is over.
            if ask.send(()).is_ok() && may_go.recv().is_ok() {
                for answer in &answers {
                    for to in &waiting {
                        own.send_to(answer, to).expect("it can be sent");
                    }
                }
                let _ = done.send(());
            }
            waiting.clear();
            Vec::new()
        });
        Self {
            asked,
            go,
            has_sent,
            backend,
        }
    }

    /// Has them answered while the process stands still.
    #[track_caller]
    pub fn answer_at_once(&self, ringway: &Ringway) {
        self.answer_while(ringway, || {});
    }

    /// The same, and something else happens meanwhile.
    #[track_caller]
    pub fn answer_while(&self, ringway: &Ringway, work: impl FnOnce()) {
        self.asked.recv_timeout(SOON).expect("all ask");
        ringway.freeze();
        self.go.send(()).expect("the backend waits for it");
        self.has_sent.recv_timeout(SOON).expect("it answers");
        work();
        ringway.signal(Signal::SIGCONT);
    }
}

/// A port of 127.0.0.1 that the kernel chooses.
pub fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A UDP address that refuses datagrams: the port was free a moment ago.
pub fn refusing() -> SocketAddr {
    let socket = UdpSocket::bind(any_port()).expect("a free port");
    socket.local_addr().expect("it is bound")
}

/// A socket that talks to this address only.
#[track_caller]
pub fn client(to: SocketAddr) -> UdpSocket {
    let local: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).expect("a free port");
    socket.connect(to).expect("it can be connected");
    socket.set_read_timeout(Some(SOON)).expect("not zero");
    socket
}

/// Sends, and waits for the answer.
#[track_caller]
pub fn ask(client: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    client.send(datagram).expect("it can be sent");
    receive(client).expect("there is an answer")
}

/// The next datagram.
pub fn receive(client: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let len = client.recv(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Asks again and again until there is an answer; how often nobody answered.
#[track_caller]
pub fn ask_until_answered(client: &UdpSocket, datagram: &[u8]) -> (Vec<u8>, u32) {
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("not zero");
    let tries = u32::try_from(SOON.as_millis() / 100).expect("not long");
    for unanswered in 0..tries {
        // What an earlier one got is told with this one.
        let answer = client.send(datagram).and_then(|_| receive(client));
        if let Ok(answer) = answer {
            client.set_read_timeout(Some(SOON)).expect("not zero");
            return (answer, unanswered);
        }
    }
    panic!("no answer within {SOON:?}");
}
