//! The provided-buffer ring: user memory that receives are done into, so that an idle connection holds no buffer.
//!
//! A buffer is either the kernel's (in the ring) or ours (named by a completion, until it is given back). Only the
//! latter are read.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::SetupError;

/// The buffer group of streams.
pub(super) const GROUP: u16 = 0;
/// The buffer group of datagrams, whose numbers begin where those of streams end.
pub(super) const DATAGRAM_GROUP: u16 = 1;
pub(super) const DATAGRAMS_FIRST: u16 = 1 << 15;

const PAGE: usize = 4096;

/// Between two buffers, so that their first bytes, which every small message uses, do not all fall into the same few
/// sets of the caches.
const SPACING: usize = 64;

/// Which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(pub u16);

/// Memory with a fixed place, zeroed, aligned to a page.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Pages {
        let layout =
            Layout::from_size_align(bytes.max(PAGE), PAGE).expect("buffers fit the address space");
        // SAFETY: the layout has a size of at least a page.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Pages { start, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The buffers of one group.
pub struct Buffers {
    entries: Pages,
    memory: Pages,
    first: u16,
    count: u16,
    size: u32,
    tail: u16,
    free: u16,
}

impl Buffers {
    /// So many buffers of this size, with numbers from `first` on.
    pub(super) fn register(
        io: &mut IoUring,
        group: u16,
        first: u16,
        count: u16,
        size: u32,
    ) -> Result<Buffers, SetupError> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Pages::new(usize::from(count) * (size as usize + SPACING));
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the memory has a fixed place and lives as long as the ring: both are fields of `Ring`, and the ring
        // is dropped first.
        let registered = unsafe {
            io.submitter()
                .register_buf_ring_with_flags(address, count, group, 0)
        };
        registered.map_err(SetupError::buffers)?;
        let mut buffers = Buffers {
            entries,
            memory,
            first,
            count,
            size,
            tail: 0,
            free: 0,
        };
        for place in 0..count {
            buffers.give_back(BufferId(first + place));
        }
        Ok(buffers)
    }

    /// Number of buffers that a receive could take now.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Notes that a completion has named a buffer: it is ours now.
    pub fn taken(&mut self) {
        debug_assert!(self.free > 0, "a buffer that was not free was taken");
        self.free -= 1;
    }

    /// Gives a buffer back to the kernel.
    pub fn give_back(&mut self, id: BufferId) {
        debug_assert!(
            self.has(id) && self.free < self.count,
            "{id:?} is given back twice"
        );
        let address = self.start_of(id).as_ptr() as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, for which `entries` has room.
        let entry = unsafe { self.entries.start.cast::<BufRingEntry>().add(slot) };
        // SAFETY: the kernel reads an entry only after the tail was moved past it, below.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(id.0);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        self.publish();
    }

    /// What a buffer of ours holds.
    pub(super) fn bytes(&self, id: BufferId, from: u32, len: u32) -> &[u8] {
        assert!(
            self.has(id) && from.checked_add(len).is_some_and(|end| end <= self.size),
            "{id:?} has no bytes {from}+{len}"
        );
        // SAFETY: within the buffer, as just asserted.
        let start = unsafe { self.start_of(id).add(from as usize) };
        // SAFETY: zeroed when allocated, so always initialised; the kernel does not write to a buffer that it has
        // handed out, and the caller has not given it back, which would take `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) }
    }

    fn has(&self, id: BufferId) -> bool {
        id.0.wrapping_sub(self.first) < self.count
    }

    fn start_of(&self, id: BufferId) -> NonNull<u8> {
        let place = usize::from(id.0 - self.first);
        // SAFETY: `place` is below `count` (numbers come from the kernel, which has them from us).
        unsafe {
            self.memory
                .start
                .add(place * (self.size as usize + SPACING))
        }
    }

    fn publish(&self) {
        let entries = self.entries.start.cast::<BufRingEntry>().as_ptr();
        // SAFETY: `entries` points to the first entry of a registered ring, whose reserved field is the tail.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: aligned, alive, and written by this thread alone; the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
