//! The bytes that a relay holds: receive buffers, memory they were spilled into, a pipe. The session counts them; this
//! is where they are.

use std::io::IoSlice;

use nix::sys::socket::{MsgFlags, sendmsg};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::ring::{BufferId, Ring};
use crate::session::{Chain, Links};
use crate::sys::pipe::Pipe;

/// Vectors of one inline send; what is beyond them goes with the next.
const VECTORS: usize = 64;

/// See the module's text.
#[derive(Default)]
pub(super) struct Held {
    pub(super) chain: Chain,
    /// Comes before what is in the chain.
    spill: Vec<u8>,
    spill_gone: usize,
    pub(super) pipe: Option<Pipe>,
    /// Bytes that the send in flight was given.
    pub(super) sending: u32,
}

impl Held {
    pub(super) fn has_spill(&self) -> bool {
        !self.spill.is_empty()
    }

    /// Moves the chain's bytes behind what was spilled before. Returns by how much the memory grew.
    pub(super) fn spill(&mut self, ring: &mut Ring, links: &Links) -> u64 {
        self.spill.reserve_exact(self.chain.bytes() as usize);
        for part in self.chain.parts(links) {
            self.spill
                .extend_from_slice(ring.bytes(BufferId(part.buffer), part.from, part.len));
        }
        let grown = u64::from(self.chain.bytes());
        self.chain
            .clear(links, |buffer| ring.buffers().give_back(BufferId(buffer)));
        grown
    }

    /// Moves the `piped` bytes of a pipe into memory. Nothing is held besides. Returns by how much the memory grew.
    pub(super) fn unpipe(&mut self, pipe: &Pipe, piped: u32) -> u64 {
        debug_assert!(
            self.spill.is_empty() && self.chain.is_empty(),
            "bytes in memory and in a pipe"
        );
        pipe.read_out(piped, &mut self.spill);
        debug_assert_eq!(
            self.spill.len(),
            piped as usize,
            "the session counts what is in the pipe"
        );
        self.spill.len() as u64
    }

    /// Sends spilled and queued bytes by a system call of its own. Returns what was taken (or the errno), how much
    /// was offered, and how many bytes of spill memory became free.
    pub(super) fn send_now(
        &mut self,
        socket: &OwnedFd,
        ring: &mut Ring,
        links: &Links,
    ) -> (Result<u32, i32>, u32, u64) {
        let mut parts = vec![IoSlice::new(&self.spill[self.spill_gone..])];
        let queued = self.chain.parts(links).take(VECTORS);
        parts.extend(
            queued.map(|part| IoSlice::new(ring.bytes(BufferId(part.buffer), part.from, part.len))),
        );
        let offered = parts.iter().map(|part| part.len()).sum::<usize>();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(socket.as_raw_fd(), &parts, &[], flags, None);
        let offered = u32::try_from(offered).unwrap_or(u32::MAX);
        match sent {
            Ok(bytes) => {
                let bytes = u32::try_from(bytes).unwrap_or(offered);
                (Ok(bytes), offered, self.consume(bytes, ring, links))
            }
            Err(errno) => (Err(errno as i32), offered, 0),
        }
    }

    /// The target took `bytes`: spilled ones first. Returns how many bytes of spill memory became free.
    pub(super) fn consume(&mut self, bytes: u32, ring: &mut Ring, links: &Links) -> u64 {
        let from_spill = (self.spill.len() - self.spill_gone).min(bytes as usize);
        self.spill_gone += from_spill;
        let from_chain = bytes - u32::try_from(from_spill).unwrap_or(bytes);
        if from_chain > 0 {
            self.chain.consume(links, from_chain, |buffer| {
                ring.buffers().give_back(BufferId(buffer))
            });
        }
        if self.spill_gone == self.spill.len() {
            self.forget_spill()
        } else {
            0
        }
    }

    /// Lets go of everything. Returns how many bytes of spill memory became free, and the pipe.
    pub(super) fn clear(&mut self, ring: &mut Ring, links: &Links) -> (u64, Option<Pipe>) {
        self.chain
            .clear(links, |buffer| ring.buffers().give_back(BufferId(buffer)));
        (self.forget_spill(), self.pipe.take())
    }

    fn forget_spill(&mut self) -> u64 {
        self.spill_gone = 0;
        std::mem::take(&mut self.spill).len() as u64
    }
}
