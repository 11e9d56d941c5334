//! io_uring: the operations that Ringway uses, behind an interface without unsafe. It moves operations, results and
//! a `u64` token; what they mean is not known here.
//!
//! One [`Ring`] belongs to one thread. Memory that the kernel reads or writes is owned by the ring: the buffers of
//! the provided-buffer ring, the addresses of accepts, and what a submission refers to, which the kernel copies
//! before [`Ring::enter`] returns (`IORING_FEAT_SUBMIT_STABLE`).

mod buffers;
mod datagrams;
mod probe;
mod scratch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};

pub use buffers::{BufferId, Buffers};
pub use datagrams::{Message, Payload};
pub use probe::{Findings, SetupError, Support, probe};

use datagrams::Datagrams;
use scratch::{AcceptAddresses, Registration, Scratch, Wait};

/// Entries of the submission queue; a full one is submitted and refilled.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: beyond it the kernel keeps completions in a list of its own, which is counted.
const COMPLETIONS: u32 = 32 * 1024;
/// Completions taken out of the queue at a time.
const BATCH: usize = 512;

/// A wait that gathers ends with so many completions,
const GATHERED: u32 = 16;
/// or after so many microseconds with one.
const GATHER: u32 = 20;

/// Readiness for reading (`POLLIN`).
pub const POLL_READABLE: u32 = 0x1;
/// Readiness for writing (`POLLOUT`).
pub const POLL_WRITABLE: u32 = 0x4;
/// Nothing but errors and hang-ups, which are always reported.
pub const POLL_ERRORS: u32 = 0;
/// In a poll's result: the socket has an error.
pub const POLL_ERROR: u32 = 0x8;

/// How receives are done; [`probe()`] finds the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveTier {
    /// Multishot, ended by the kernel once it has reached a number of bytes (Linux 6.17 or so).
    Limited,
    /// One read at a time.
    Single,
}

/// What a ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How to receive.
    pub tier: ReceiveTier,
    /// Number of receive buffers, a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_size: u32,
    /// Number of accepts that may be armed at once.
    pub accepts: u16,
    /// Number of buffers for datagrams, a power of two up to 32,768; 0 = there are no datagrams.
    pub datagrams: u16,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// As given when the operation was started.
    pub token: u64,
    /// As of the system call, or minus an errno.
    pub result: i32,
    /// The buffer that holds what was received.
    pub buffer: Option<BufferId>,
    /// The operation goes on: there will be another completion.
    pub more: bool,
}

/// One io_uring instance and the memory it works on.
///
/// Field order is drop order: the ring goes first, so that nothing is in flight when its memory goes.
pub struct Ring {
    registration: Option<Registration>,
    io: IoUring,
    support: Support,
    setup: Setup,
    buffers: Buffers,
    datagrams: Option<Datagrams>,
    accepts: AcceptAddresses,
    scratch: Scratch,
    batch: Vec<Completion>,
    overflows: u32,
}

impl Ring {
    /// Stretches that one send takes.
    pub const SEND_PARTS: usize = Scratch::VECTORS;

    /// Sets a ring up on the calling thread, which becomes the only one that may use it.
    ///
    /// # Errors
    /// What the host lacks; the message says what to do.
    pub fn new(setup: Setup) -> Result<Ring, SetupError> {
        let mut io = probe::build(SUBMISSIONS, COMPLETIONS)?;
        let registration = Registration::new(&io);
        let support = probe::support(&io);
        let buffers =
            Buffers::register(&mut io, buffers::GROUP, 0, setup.buffers, setup.buffer_size)?;
        let datagrams =
            (setup.datagrams > 0).then(|| Datagrams::register(&mut io, setup.datagrams));
        Ok(Ring {
            registration,
            io,
            support,
            setup,
            buffers,
            datagrams: datagrams.transpose()?,
            accepts: AcceptAddresses::new(setup.accepts),
            scratch: Scratch::new(),
            batch: Vec::with_capacity(BATCH),
            overflows: 0,
        })
    }

    /// The receive buffers.
    pub fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// Number of buffers that a receive could take now.
    #[must_use]
    pub fn free_buffers(&self) -> u16 {
        self.buffers.free()
    }

    /// Bytes of a receive buffer that hold something.
    #[must_use]
    pub fn bytes(&self, buffer: BufferId, from: u32, len: u32) -> &[u8] {
        self.buffers.bytes(buffer, from, len)
    }

    /// Submits what was started and waits: until a completion is there or `timeout` has passed. With a `timeout` of
    /// zero it only looks. With `gather` the first completion may wait for others, up to 20 us, where the kernel can do
    /// that: each time that a thread sleeps and wakes costs as much as a datagram.
    ///
    /// # Errors
    /// Only those that mean a broken ring; a timeout or a signal is none.
    pub fn enter(&mut self, timeout: Option<Duration>, gather: bool) -> io::Result<()> {
        let wait = if timeout == Some(Duration::ZERO) || !self.batch.is_empty() {
            Wait::default()
        } else if gather && self.support.gathers {
            Wait {
                want: GATHERED,
                gather: GATHER,
                timeout,
            }
        } else {
            Wait {
                want: 1,
                gather: 0,
                timeout,
            }
        };
        let outcome = scratch::enter(
            &self.io,
            self.registration.as_ref(),
            wait,
            self.support.no_iowait,
        );
        self.forget_submitted();
        self.overflows += u32::from(self.io.submission().cq_overflow());
        if self.io.completion().overflow() > 0 {
            return Err(io::Error::other(
                "the kernel had no memory for a completion and lost it",
            ));
        }
        match outcome.map_err(|error| (error.raw_os_error(), error)) {
            // EBUSY: completions wait in the kernel's own list until the queue has room; the caller reads next.
            Ok(()) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Notes that a completion has named a buffer: it is ours now.
    pub fn taken(&mut self, buffer: BufferId) {
        match &mut self.datagrams {
            Some(datagrams) if buffer.0 >= buffers::DATAGRAMS_FIRST => datagrams.buffers.taken(),
            Some(_) | None => self.buffers.taken(),
        }
    }

    /// The next completions, at most a batch; empty when there are none.
    pub fn completions(&mut self, out: &mut Vec<Completion>) {
        out.clear();
        out.append(&mut self.batch);
        Self::reap(&mut self.io, out);
    }

    /// How often completions were found waiting in the kernel's own list because the queue was full, since the last
    /// call.
    pub fn new_overflows(&mut self) -> u32 {
        std::mem::take(&mut self.overflows)
    }

    /// From now on so many accepts may be armed at once, or more.
    pub fn allow_accepts(&mut self, count: u16) {
        self.accepts.grow(count);
    }

    /// From now on datagrams can be received, into so many buffers unless there are some already.
    ///
    /// # Errors
    /// What the host lacks.
    pub fn allow_datagrams(&mut self, buffers: u16) -> Result<(), SetupError> {
        if self.datagrams.is_none() {
            self.datagrams = Some(Datagrams::register(&mut self.io, buffers)?);
        }
        Ok(())
    }

    /// Accepts one connection into place `place`, whose peer address [`Self::accepted_from`] then tells.
    pub fn accept(&mut self, fd: RawFd, place: u16, token: u64) {
        let (addr, len) = self.accepts.place(place);
        let entry = opcode::Accept::new(types::Fd(fd), addr, len)
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        self.push(entry.build(), token);
    }

    /// Who connected by the accept of place `place` that completed last; none for a unix socket.
    #[must_use]
    pub fn accepted_from(&self, place: u16) -> Option<SocketAddr> {
        self.accepts.address(place)
    }

    /// Connects a socket.
    pub fn connect(&mut self, fd: RawFd, address: &socket2::SockAddr, token: u64) {
        self.make_room();
        let (addr, len) = self.scratch.address(address);
        self.push(
            opcode::Connect::new(types::Fd(fd), addr, len).build(),
            token,
        );
    }

    /// Receives into the ring's buffers until at least `limit` bytes have come (or, in the single tier, once).
    pub fn receive(&mut self, fd: RawFd, limit: u32, token: u64) {
        let fd = types::Fd(fd);
        let entry = match self.setup.tier {
            ReceiveTier::Limited => scratch::limited_receive(fd, limit),
            ReceiveTier::Single => single_receive(fd, 0),
        };
        self.push(entry, token);
    }

    /// Receives into one of the ring's buffers, once, at most `len` bytes.
    pub fn receive_once(&mut self, fd: RawFd, len: u32, token: u64) {
        self.push(single_receive(types::Fd(fd), len), token);
    }

    /// Sends stretches of receive buffers, in order, without waiting: what does not fit is not sent. Returns how many
    /// bytes were offered: the first [`Self::SEND_PARTS`] stretches.
    pub fn send(
        &mut self,
        fd: RawFd,
        parts: impl Iterator<Item = (BufferId, u32, u32)>,
        token: u64,
    ) -> u32 {
        let mut offered = 0;
        let parts = parts.inspect(|(_, _, len)| offered += len);
        let mut parts = parts.take(Self::SEND_PARTS).peekable();
        self.make_room();
        let Some((buffer, from, len)) = parts.next() else {
            return 0;
        };
        let first = self.buffers.bytes(buffer, from, len);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let entry = if parts.peek().is_none() {
            opcode::Send::new(types::Fd(fd), first.as_ptr(), len)
                .flags(flags)
                .build()
        } else {
            let buffers = &self.buffers;
            let rest = parts.map(|(buffer, from, len)| buffers.bytes(buffer, from, len));
            let header = self.scratch.message(std::iter::once(first).chain(rest));
            opcode::SendMsg::new(types::Fd(fd), header)
                .flags(flags.cast_unsigned())
                .build()
        };
        self.push(entry, token);
        offered
    }

    /// Receives datagrams with their addresses ([`Self::message`]), again and again, until there is no buffer for one
    /// or the receive is cancelled.
    pub fn receive_messages(&mut self, fd: RawFd, token: u64) {
        let entry = self.datagrams().receive_messages(fd);
        self.push(entry, token);
    }

    /// The datagram that the completion of such a receive has put into a buffer, with its result; none if the kernel
    /// gave no address that we know.
    #[must_use]
    pub fn message(&mut self, buffer: BufferId, result: i32) -> Option<Message> {
        let bytes = u32::try_from(result).ok()?;
        self.datagrams().message(buffer, bytes)
    }

    /// Receives datagrams on a connected socket, again and again, until there is no buffer for one, an empty one comes,
    /// or the receive is cancelled.
    pub fn receive_datagrams(&mut self, fd: RawFd, token: u64) {
        let entry = opcode::RecvMulti::new(types::Fd(fd), buffers::DATAGRAM_GROUP).build();
        self.push(entry, token);
    }

    /// Number of buffers that a datagram could be received into now.
    #[must_use]
    pub fn free_datagram_buffers(&self) -> u16 {
        let datagrams = self.datagrams.as_ref();
        datagrams.map_or(0, |datagrams| datagrams.buffers.free())
    }

    /// Gives a datagram's buffer back to the kernel.
    pub fn drop_datagram(&mut self, buffer: BufferId) {
        self.datagrams().buffers.give_back(buffer);
    }

    /// What a datagram carries.
    #[must_use]
    pub fn payload(&self, payload: Payload) -> &[u8] {
        let datagrams = self.datagrams.as_ref();
        datagrams.map_or(&[], |datagrams| datagrams.bytes(payload))
    }

    fn datagrams(&mut self) -> &mut Datagrams {
        let datagrams = self.datagrams.as_mut();
        datagrams.expect("who has datagrams has said so before")
    }

    /// Polls, edge-triggered and again and again until it is cancelled. (A one-shot poll would spin once the peer has
    /// sent FIN, since `POLLRDHUP` is always among what is waited for.)
    pub fn poll(&mut self, fd: RawFd, events: u32, token: u64) {
        self.push(
            opcode::PollAdd::new(types::Fd(fd), events)
                .multi(true)
                .build(),
            token,
        );
    }

    /// Cancels the operation that was started with `target`.
    pub fn cancel(&mut self, target: u64, token: u64) {
        self.push(opcode::AsyncCancel::new(target).build(), token);
    }

    /// The socket that an accept has made.
    ///
    /// Call it once, with the result of a completed accept that is not negative.
    #[must_use]
    pub fn accepted(result: i32) -> OwnedFd {
        scratch::own(result)
    }

    fn push(&mut self, entry: Entry, token: u64) {
        let entry = entry.user_data(token);
        while !scratch::try_push(&mut self.io, &entry) {
            self.submit();
        }
    }

    fn make_room(&mut self) {
        // With room in the queue, what is put into memory now is not forgotten before it has been queued.
        while !self.scratch.has_room() || self.io.submission().is_full() {
            self.submit();
        }
    }

    /// Submits in the middle of a turn, to make room.
    fn submit(&mut self) {
        if scratch::enter(&self.io, self.registration.as_ref(), Wait::default(), false).is_err() {
            // The completion queue is full: keep its content for the next look.
            Self::reap_all(&mut self.io, &mut self.batch);
        }
        self.forget_submitted();
    }

    /// What has been submitted has been copied by the kernel.
    fn forget_submitted(&mut self) {
        if self.io.submission().is_empty() {
            self.scratch.clear();
        }
    }

    fn reap(io: &mut IoUring, out: &mut Vec<Completion>) {
        out.extend(io.completion().take(BATCH).map(completion));
    }

    fn reap_all(io: &mut IoUring, out: &mut Vec<Completion>) {
        out.extend(io.completion().map(completion));
    }
}

/// One read of at most `len` bytes; 0 = as many as the buffer takes.
fn single_receive(fd: types::Fd, len: u32) -> Entry {
    let entry = opcode::Recv::new(fd, std::ptr::null_mut(), len)
        .buf_group(buffers::GROUP)
        .build();
    entry.flags(io_uring::squeue::Flags::BUFFER_SELECT)
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the completion queue's iterator yields values"
)]
fn completion(entry: cqueue::Entry) -> Completion {
    Completion {
        token: entry.user_data(),
        result: entry.result(),
        buffer: cqueue::buffer_select(entry.flags()).map(BufferId),
        more: cqueue::more(entry.flags()),
    }
}
