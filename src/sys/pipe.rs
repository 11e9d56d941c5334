//! Pipes, and splice(2) through them: bytes go from socket to socket without being copied.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, read};

/// A pipe of known capacity. It does not know how much is in it: its holder counts.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: u32,
}

impl Pipe {
    /// A new pipe of `wanted` bytes, or smaller where the user's share is used up (`fs.pipe-user-pages-soft`).
    ///
    /// # Errors
    /// When no pipe can be made at all: file descriptors or memory.
    pub fn new(wanted: u32) -> io::Result<Pipe> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut size = i32::try_from(wanted).unwrap_or(i32::MAX);
        while fcntl(&write, FcntlArg::F_SETPIPE_SZ(size)).is_err() && size > 4096 {
            size /= 2;
        }
        let capacity = fcntl(&write, FcntlArg::F_GETPIPE_SZ)?;
        Ok(Pipe {
            read,
            write,
            capacity: u32::try_from(capacity).unwrap_or(4096),
        })
    }

    /// Bytes that fit, if they come in whole pages.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Moves up to `len` bytes from a socket into the pipe. 0 is the end of the stream.
    ///
    /// # Errors
    /// The errno; EAGAIN when the socket is dry *or* the pipe is full.
    pub fn fill(&self, source: BorrowedFd<'_>, len: u32) -> Result<u32, i32> {
        transfer(source, self.write.as_fd(), len)
    }

    /// Moves up to `len` bytes from the pipe to a socket.
    ///
    /// # Errors
    /// The errno; EAGAIN when the socket takes no more (or the pipe is empty).
    pub fn drain(&self, target: BorrowedFd<'_>, len: u32) -> Result<u32, i32> {
        transfer(self.read.as_fd(), target, len)
    }

    /// Throws away what is in it.
    pub fn discard(&self) {
        let mut waste = [0; 16 * 1024];
        while read(&self.read, &mut waste).is_ok_and(|len| len > 0) {}
    }

    /// Moves what is in it, `len` bytes, into memory.
    pub fn read_out(&self, len: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + len as usize, 0);
        let mut at = start;
        while at < into.len() {
            match read(&self.read, &mut into[at..]) {
                Ok(len) if len > 0 => at += len,
                Ok(_) | Err(_) => break,
            }
        }
        into.truncate(at);
    }
}

fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u32) -> Result<u32, i32> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    match splice(from, None, to, None, len as usize, flags) {
        Ok(moved) => Ok(u32::try_from(moved).unwrap_or(u32::MAX)),
        Err(errno) => Err(errno as i32),
    }
}
