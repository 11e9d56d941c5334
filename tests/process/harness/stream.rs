//! One TCP connection seen from its end: how it ended, how to end it, and streams whose bytes depend on their
//! position, so that a lost, doubled or swapped stretch shows.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::{SOON, eventually, facts};

/// How the peer ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Fin,
    Reset,
}

/// Connects: no delay, and a read that waits for [`SOON`] and longer fails.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// The same where the peer may reset at once: then `connect` itself may say so.
pub fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true).expect("the option exists");
    stream
        .set_read_timeout(Some(SOON))
        .expect("the option exists");
    Ok(stream)
}

/// Connects where the peer may reset at once; none if it has done so before `connect` has returned.
#[track_caller]
pub fn connect_unless_reset(address: SocketAddr) -> Option<TcpStream> {
    match try_connect(address) {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("connect to {address}: {error}"),
    }
}

/// Connects, says nothing and tells how it ended.
#[track_caller]
pub fn connect_to_end(address: SocketAddr) -> Ended {
    connect_unless_reset(address).map_or(Ended::Reset, |mut stream| ended(&mut stream))
}

/// Checks that the kernel refuses connects to the address.
#[track_caller]
pub fn assert_refused(address: SocketAddr) {
    match try_connect(address) {
        Ok(_) => panic!("{address} lets clients in"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
    }
}

/// Connects to a unix socket. Reads, writes and shutdowns are the same calls for every kind of stream socket.
#[track_caller]
pub fn connect_unix(path: &Path) -> TcpStream {
    let stream = UnixStream::connect(path)
        .unwrap_or_else(|error| panic!("connect to {}: {error}", path.display()));
    stream
        .set_read_timeout(Some(SOON))
        .expect("the option exists");
    TcpStream::from(OwnedFd::from(stream))
}

/// Reads until the peer ends; the bytes and how it ended.
#[track_caller]
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Ended) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read_some(stream, &mut buffer) {
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(ended) => return (bytes, ended),
        }
    }
}

/// Reads until the peer ends; the number of bytes and how it ended.
#[track_caller]
pub fn discard_to_end(stream: &mut TcpStream) -> (u64, Ended) {
    let mut total = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match read_some(stream, &mut buffer) {
            Ok(n) => total += n as u64,
            Err(ended) => return (total, ended),
        }
    }
}

/// How the peer ended, where it has nothing more to say before.
#[track_caller]
pub fn ended(stream: &mut TcpStream) -> Ended {
    let (bytes, ended) = read_to_end(stream);
    assert!(
        bytes.is_empty(),
        "{} bytes came before the end: {ended:?}",
        bytes.len()
    );
    ended
}

/// One read: so many bytes, or the end; panics when nothing comes in time.
#[track_caller]
fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, Ended> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(Ended::Fin),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Ended::Reset),
            Err(error) => panic!("neither bytes nor an end came: {error}"),
        }
    }
}

/// Ends the connection with a reset: linger 0 and close. Clones of the stream keep it open.
pub fn abort(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("the option exists");
    drop(stream);
}

/// Sends a FIN: the other direction goes on.
#[track_caller]
pub fn finish_writing(stream: &TcpStream) {
    match stream.shutdown(Shutdown::Write) {
        // The peer has reset the connection, which reading it will say.
        Err(error) if error.kind() == ErrorKind::NotConnected => {}
        result => result.expect("a connected stream can be shut down"),
    }
}

/// Waits until a reset has come on a connection whose FIN has been read already: reading does not tell it any more.
#[track_caller]
pub fn wait_reset_after_fin(stream: &TcpStream) {
    eventually(SOON, "a reset after the FIN", || {
        stream.take_error().expect("the option exists").is_some()
    });
}

/// Writes until the peer no longer takes it; how the peer ended.
#[track_caller]
pub fn write_to_end(stream: &mut TcpStream) -> Ended {
    let block = vec![b'w'; 64 * 1024];
    stream
        .set_write_timeout(Some(SOON))
        .expect("the option exists");
    loop {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ended::Reset,
            // The peer's FIN had come before its reset.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ended::Fin,
            Err(error) => panic!("the peer neither reads nor ends: {error}"),
        }
    }
}

/// Waits until the peer's kernel has acknowledged everything that was written.
#[track_caller]
pub fn wait_acknowledged(stream: &TcpStream) {
    eventually(SOON, "everything is acknowledged", || {
        facts::unacknowledged(stream) == Some(0)
    });
}

/// A stream that counts what it was given to write, so that another thread can see it make progress.
pub struct Counted {
    pub stream: TcpStream,
    pub written: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.written.fetch_add(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Waits until a writer has begun and then makes no progress for a while, although it wants to.
#[track_caller]
pub fn wait_stuck(written: &AtomicU64) {
    let mut last = 0;
    eventually(SOON, "the writer is stuck", || {
        let now = written.load(Ordering::SeqCst);
        let stuck = now > 0 && now == last;
        last = now;
        thread::sleep(Duration::from_millis(200));
        stuck
    });
}

/// Sends one request and reads an answer of the same size, which must be equal.
#[track_caller]
pub fn exchange(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the request is taken");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("the answer comes");
    assert!(answer == message, "the answer differs from the request");
}

/// Bytes that are a function of their position: a random block of a prime length, again and again, from an offset
/// that the seed decides. A missing stretch shows unless it is a whole number of blocks, which the total shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    offset: usize,
}

const BLOCK: usize = 1_048_573;

impl Pattern {
    pub fn new(seed: u64) -> Self {
        let offset = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % BLOCK as u64;
        Self {
            offset: usize::try_from(offset).expect("less than a block"),
        }
    }

    /// The bytes from a position on: as many as there are without wrapping around, at most `most`.
    pub fn bytes(self, position: u64, most: usize) -> &'static [u8] {
        let at = (position % BLOCK as u64 + self.offset as u64) % BLOCK as u64;
        let at = usize::try_from(at).expect("less than a block");
        &block()[at..(at + most).min(BLOCK)]
    }

    /// Where the received bytes first differ from what belongs at the position.
    pub fn check(self, position: u64, received: &[u8]) -> Result<(), String> {
        let mut done = 0;
        while done < received.len() {
            let expected = self.bytes(position + done as u64, received.len() - done);
            let found = &received[done..done + expected.len()];
            if found != expected {
                let differs = found
                    .iter()
                    .zip(expected)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                return Err(format!(
                    "wrong byte at position {}",
                    position + (done + differs) as u64
                ));
            }
            done += expected.len();
        }
        Ok(())
    }
}

/// Sends so many bytes of the pattern, `chunk` at a time.
pub fn send_pattern(
    stream: &mut impl Write,
    pattern: Pattern,
    bytes: u64,
    chunk: usize,
) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let most = usize::try_from(bytes - sent).unwrap_or(chunk).min(chunk);
        let part = pattern.bytes(sent, most);
        stream.write_all(part)?;
        sent += part.len() as u64;
    }
    Ok(())
}

/// Reads to the end, checking every byte; the number of bytes and how it ended.
#[track_caller]
pub fn receive_pattern(stream: &mut TcpStream, pattern: Pattern) -> (u64, Ended) {
    let mut position = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match read_some(stream, &mut buffer) {
            Ok(n) => {
                pattern
                    .check(position, &buffer[..n])
                    .unwrap_or_else(|error| panic!("{error}"));
                position += n as u64;
            }
            Err(ended) => return (position, ended),
        }
    }
}

/// Reads exactly so many bytes from a position of the pattern on.
#[track_caller]
pub fn receive_exactly(stream: &mut impl Read, pattern: Pattern, from: u64, bytes: u64) {
    let mut buffer = vec![0; 64 * 1024];
    let mut position = from;
    while position < from + bytes {
        let most = usize::try_from(from + bytes - position)
            .unwrap_or(buffer.len())
            .min(buffer.len());
        let n = stream
            .read(&mut buffer[..most])
            .unwrap_or_else(|error| panic!("at {position}: {error}"));
        assert!(n > 0, "the stream ended at {position} of {}", from + bytes);
        pattern
            .check(position, &buffer[..n])
            .unwrap_or_else(|error| panic!("{error}"));
        position += n as u64;
    }
}

fn block() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut random = Random::new(1);
        (0..BLOCK).map(|_| random.next().to_le_bytes()[3]).collect()
    })
}

/// Small deterministic random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from `from` up to but without `to`.
    pub fn range(&mut self, from: usize, to: usize) -> usize {
        let span = u64::try_from(to - from).expect("a usize fits");
        from + usize::try_from(self.next() % span).expect("less than the span")
    }
}
