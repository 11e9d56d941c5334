//! The pool of pipes: made once, held by a relay only while it splices, last in first out so that a few of them stay
//! warm.

use std::io;

use crate::sys::pipe::Pipe;

/// Bytes of a pipe where memory and the host allow it.
pub const PIPE_SIZE: u32 = 256 * 1024;

/// See the module's text.
pub(super) struct Pipes {
    free: Vec<Pipe>,
    total: usize,
}

impl Pipes {
    /// Makes up to `count` pipes, fewer if the host has no more; the error says why there are fewer.
    pub(super) fn new(count: usize) -> (Pipes, Option<io::Error>) {
        let mut free = Vec::with_capacity(count);
        let mut error = None;
        while free.len() < count {
            match Pipe::new(PIPE_SIZE) {
                Ok(pipe) => free.push(pipe),
                Err(reason) => {
                    error = Some(reason);
                    break;
                }
            }
        }
        let total = free.len();
        (Pipes { free, total }, error)
    }

    pub(super) fn take(&mut self) -> Option<Pipe> {
        self.free.pop()
    }

    /// Takes an empty pipe back.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.free.push(pipe);
    }

    /// Takes a pipe back that may still hold bytes; nobody wants them any more.
    pub(super) fn give_back_dirty(&mut self, pipe: Pipe) {
        pipe.discard();
        self.free.push(pipe);
    }

    /// Whether fewer than a quarter are free.
    pub(super) fn are_scarce(&self) -> bool {
        self.free.len() < self.total.div_ceil(4)
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
}
