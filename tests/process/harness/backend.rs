//! Small backends on threads: one thread accepts, one more serves each connection. A panic in one of them fails the
//! test when the backend is dropped.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::stream::{self, Counted, Ended, Pattern};

/// A listening backend. Dropping it refuses further connections; those that are open go on.
pub struct Backend {
    address: SocketAddr,
    listener: Arc<Socket>,
    accepted: Arc<AtomicUsize>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// Calls the closure on a thread of its own for each connection.
    pub fn scripted(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::scripted_on(listener(), move |stream, _| serve(stream))
    }

    /// The same on a given listener; the closure also gets the number of the connection, counted from 0.
    pub fn scripted_on(
        listener: TcpListener,
        serve: impl Fn(TcpStream, usize) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        Self::serve(Socket::from(listener), address, serve)
    }

    /// A backend on a unix socket; its [`address`](Self::address) says nothing.
    pub fn scripted_unix(
        path: &Path,
        serve: impl Fn(TcpStream, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).expect("the path is free");
        Self::serve(
            Socket::from(OwnedFd::from(listener)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            serve,
        )
    }

    fn serve(
        listener: Socket,
        address: SocketAddr,
        serve: impl Fn(TcpStream, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(listener);
        let accepted = Arc::new(AtomicUsize::new(0));
        let panics = Arc::new(Mutex::new(Vec::new()));
        let backend = Self {
            address,
            listener: Arc::clone(&listener),
            accepted,
            panics,
        };
        let (accepted, panics) = (Arc::clone(&backend.accepted), Arc::clone(&backend.panics));
        let serve = Arc::new(serve);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                // Reads and writes are the same calls for every kind of stream socket.
                let stream = TcpStream::from(OwnedFd::from(socket));
                // Fails on unix sockets, which have no delay.
                let _ = stream.set_nodelay(true);
                let (serve, panics) = (Arc::clone(&serve), Arc::clone(&panics));
                thread::spawn(move || {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(stream, number))) {
                        panics
                            .lock()
                            .expect("nobody panics here")
                            .push(message(&*panic));
                    }
                });
            }
        });
        backend
    }

    /// Sends everything back, and the FIN too.
    pub fn echo() -> Self {
        Self::scripted(echo)
    }

    /// Reads and forgets everything, then closes.
    pub fn sink() -> Self {
        Self::scripted(|mut stream| {
            let mut buffer = vec![0; 256 * 1024];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        })
    }

    /// Sends so many bytes of the pattern at once, whatever the client says, then a FIN; reads until the client's end.
    /// The counter says how much it has written to all clients.
    pub fn source(pattern: Pattern, bytes: u64) -> (Self, Arc<AtomicU64>) {
        let written = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&written);
        let backend = Self::scripted(move |stream| {
            let mut counted = Counted {
                stream,
                written: Arc::clone(&total),
            };
            if stream::send_pattern(&mut counted, pattern, bytes, 64 * 1024).is_ok() {
                stream::finish_writing(&counted.stream);
                let _ = stream::discard_to_end(&mut counted.stream);
            }
        });
        (backend, written)
    }

    /// Answers each 8-byte request (a count of bytes, little endian) with so many bytes.
    pub fn answering() -> Self {
        Self::scripted(|mut stream| {
            let block = vec![b'a'; 64 * 1024];
            let mut request = [0; 8];
            while stream.read_exact(&mut request).is_ok() {
                let mut left = u64::from_le_bytes(request);
                while left > 0 {
                    let part = usize::try_from(left)
                        .unwrap_or(block.len())
                        .min(block.len());
                    if stream.write_all(&block[..part]).is_err() {
                        return;
                    }
                    left -= part as u64;
                }
            }
        })
    }

    /// Hands each accepted connection to the test.
    pub fn handing_over() -> (Self, Receiver<TcpStream>) {
        let (sender, receiver) = mpsc::channel();
        let backend = Self::scripted(move |stream| {
            // The test may have ended before.
            let _ = sender.send(stream);
        });
        (backend, receiver)
    }

    /// Reports how each connection ended and how many bytes came before.
    pub fn reporting_ends() -> (Self, Receiver<(u64, Ended)>) {
        let (sender, receiver): (Sender<(u64, Ended)>, _) = mpsc::channel();
        let backend = Self::scripted(move |mut stream| {
            let ended = stream::discard_to_end(&mut stream);
            // The test may have ended before.
            let _ = sender.send(ended);
        });
        (backend, receiver)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then closes the socket.
        let _ = self.listener.shutdown(std::net::Shutdown::Read);
        let panics = self.panics.lock().expect("nobody panics here");
        if thread::panicking() {
            panics
                .iter()
                .for_each(|panic| eprintln!("a backend panicked: {panic}"));
        } else {
            assert!(panics.is_empty(), "backends panicked: {panics:?}");
        }
    }
}

/// Sends back what comes until the end; a failure ends it silently.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// A listener on a free port of 127.0.0.1 with a long backlog.
pub fn listener() -> TcpListener {
    listener_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 4096)
}

/// A listener on an address, with its backlog; the port may have been in use a moment ago.
#[track_caller]
pub fn listener_on(address: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("the option exists");
    socket
        .bind(&SockAddr::from(address))
        .unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket.listen(backlog).expect("it can listen");
    socket.into()
}

/// A listener whose backlog is full: the kernel drops every further SYN until somebody accepts.
pub struct FullBacklog {
    pub listener: TcpListener,
    waiting: Vec<TcpStream>,
}

impl FullBacklog {
    #[track_caller]
    pub fn new() -> Self {
        let listener = listener_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 0);
        let mut full = Self {
            listener,
            waiting: Vec::new(),
        };
        let address = full.address();
        while let Ok(stream) =
            TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300))
        {
            full.waiting.push(stream);
            assert!(full.waiting.len() < 16, "a backlog of 0 does not get full");
        }
        full
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Takes those out that filled it: from now on connections are accepted.
    pub fn open(self) -> TcpListener {
        for _ in &self.waiting {
            drop(
                self.listener
                    .accept()
                    .expect("the waiting ones can be accepted"),
            );
        }
        SockRef::from(&self.listener)
            .listen(4096)
            .expect("it can listen on");
        self.listener
    }
}

impl Default for FullBacklog {
    fn default() -> Self {
        Self::new()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "?".to_owned())
}
