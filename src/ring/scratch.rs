//! What a submission points to: socket addresses, message headers and vectors. The kernel has copied it when the
//! submission returns, so that one area serves turn after turn. Also the few raw accesses to the queues.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};

use super::buffers::GROUP;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
/// Linux 6.15: an idle ring is not charged as waiting for a disk.
const ENTER_NO_IOWAIT: u32 = 1 << 7;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// Where `optlen` is in a submission entry: `include/uapi/linux/io_uring.h`, the union after `personality`.
const OPTLEN_OFFSET: usize = 44;

/// The area.
pub(super) struct Scratch {
    addresses: Vec<socket2::SockAddr>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
}

impl Scratch {
    /// Most stretches in one message; the system's own limit is 1,024.
    pub(super) const VECTORS: usize = 256;
    const MESSAGES: usize = 256;
    const ADDRESSES: usize = 256;

    pub(super) fn new() -> Scratch {
        Scratch {
            addresses: Vec::with_capacity(Self::ADDRESSES),
            vectors: Vec::with_capacity(Self::MESSAGES * 8),
            headers: Vec::with_capacity(Self::MESSAGES),
        }
    }

    /// Whether another message and address fit without anything moving in memory.
    pub(super) fn has_room(&self) -> bool {
        self.headers.len() < self.headers.capacity()
            && self.addresses.len() < self.addresses.capacity()
            && self.vectors.len() + Self::VECTORS <= self.vectors.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.addresses.clear();
        self.vectors.clear();
        self.headers.clear();
    }

    pub(super) fn address(
        &mut self,
        address: &socket2::SockAddr,
    ) -> (*const libc::sockaddr, libc::socklen_t) {
        debug_assert!(self.has_room(), "asked before");
        self.addresses.push(address.clone());
        let kept = self.addresses.last().expect("just pushed");
        (kept.as_ptr().cast(), kept.len())
    }

    pub(super) fn message<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> *const libc::msghdr {
        debug_assert!(self.has_room(), "asked before");
        let first = self.vectors.len();
        self.vectors.extend(parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        }));
        // SAFETY: all zeroes is a valid message header: null pointers and no lengths.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.vectors[first..].as_mut_ptr();
        header.msg_iovlen = self.vectors.len() - first;
        self.headers.push(header);
        self.headers.last().expect("just pushed")
    }
}

/// A fixed place for the peer address of each armed accept: the kernel writes it when the accept completes.
pub(super) struct AcceptAddresses {
    #[allow(
        clippy::vec_box,
        reason = "what is armed must not move when there are more"
    )]
    places: Vec<Box<(libc::sockaddr_storage, libc::socklen_t)>>,
}

impl AcceptAddresses {
    pub(super) fn new(count: u16) -> AcceptAddresses {
        let mut addresses = AcceptAddresses { places: Vec::new() };
        addresses.grow(count);
        addresses
    }

    /// From now on there are so many, or more.
    pub(super) fn grow(&mut self, count: u16) {
        // SAFETY: all zeroes is a valid address storage, of no family.
        let empty: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let missing = usize::from(count).saturating_sub(self.places.len());
        let more = (0..missing).map(|_| Box::new((empty, 0)));
        self.places.extend(more);
    }

    pub(super) fn place(&mut self, place: u16) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        let (address, len) = &mut *self.places[usize::from(place)];
        *len =
            libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).expect("a small struct");
        ((&raw mut *address).cast(), len)
    }

    pub(super) fn address(&self, place: u16) -> Option<SocketAddr> {
        let (address, len) = *self.places[usize::from(place)];
        // SAFETY: `SockAddrStorage` is a transparent wrapper of `sockaddr_storage`.
        let storage: socket2::SockAddrStorage = unsafe { std::mem::transmute(address) };
        // SAFETY: the kernel wrote an address of its family into it, `len` bytes long.
        unsafe { socket2::SockAddr::new(storage, len) }.as_socket()
    }
}

/// A multishot receive into the buffer group that ends after `limit` bytes. The crate has no setter for the limit.
pub(super) fn limited_receive(fd: Fd, limit: u32) -> Entry {
    let mut entry = opcode::RecvMulti::new(fd, GROUP).build();
    let start = (&raw mut entry).cast::<u8>();
    // SAFETY: an entry is a 64-byte submission of the kernel's layout; the field lies within it.
    let optlen = unsafe { start.add(OPTLEN_OFFSET) };
    // SAFETY: aligned to 4 bytes (offset 44 of an 8-byte aligned struct) and ours.
    unsafe { optlen.cast::<u32>().write(limit) };
    entry
}

/// Takes over a file descriptor that the kernel has just made.
pub(super) fn own(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "the result of an accept that failed");
    // SAFETY: new in this process, and named by one completion only.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Appends to the submission queue; false when it is full.
pub(super) fn try_push(io: &mut IoUring, entry: &Entry) -> bool {
    // SAFETY: whatever the entry points to is owned by the `Ring` (buffers, accept places) or stays in its scratch
    // area until it has been submitted.
    unsafe { io.submission().push(entry) }.is_ok()
}

/// A ring registered with its thread: entering it saves looking the file up (Linux 5.18). The crate keeps such a
/// registration in a value that does not outlive the borrow of a ring.
///
/// Dropped before its ring: as long as it is there, the ring is not closed.
pub(super) struct Registration {
    ring: i32,
    index: u32,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

impl Registration {
    /// None where the thread has no place left for it, or the kernel knows no such thing: everything works without.
    pub(super) fn new(io: &IoUring) -> Option<Registration> {
        let ring = io.as_raw_fd();
        let mut update = Update {
            offset: u32::MAX,
            reserved: 0,
            data: u64::try_from(ring).ok()?,
        };
        // SAFETY: one update is there, and the kernel writes its offset.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                REGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
        (done == 1).then_some(Registration {
            ring,
            index: update.offset,
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut update = Update {
            offset: self.index,
            reserved: 0,
            data: 0,
        };
        // SAFETY: one update is there. Without success the thread's end does it.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring,
                UNREGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
    }
}

/// What ends a wait. By default it has ended before it began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    /// So many completions.
    pub(super) want: u32,
    /// After so many microseconds, one; 0 where no fewer than `want` are enough (Linux 6.12).
    pub(super) gather: u32,
    /// So long a time; none for ever.
    pub(super) timeout: Option<Duration>,
}

/// Submits everything, runs deferred work and waits.
pub(super) fn enter(
    io: &IoUring,
    registration: Option<&Registration>,
    wait: Wait,
    no_iowait: bool,
) -> io::Result<()> {
    let spec = wait.timeout.map(Timespec::from);
    let mut args = SubmitArgs::new().min_wait_usec(wait.gather);
    if let Some(spec) = &spec {
        args = args.timespec(spec);
    }
    let mut flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
    if no_iowait {
        flags |= ENTER_NO_IOWAIT;
    }
    let mut ring = i64::from(io.as_raw_fd());
    if let Some(registration) = registration {
        ring = i64::from(registration.index);
        flags |= ENTER_REGISTERED_RING;
    }
    // SAFETY: the queue is not borrowed elsewhere, this is the ring's only thread.
    let queued = unsafe { io.submission_shared() }.len();
    // SAFETY: the arguments are of the type that EXT_ARG says, and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            queued,
            wait.want,
            flags,
            &raw const args,
            size_of::<SubmitArgs<'_, '_>>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
