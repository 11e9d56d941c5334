//! Splicing: from one socket through a pipe into another, until there is a reason to stop.

use std::os::fd::BorrowedFd;

use crate::session::{PumpSource, PumpTarget};
use crate::sys::pipe::Pipe;
use crate::sys::socket;

/// Bytes that one pump may move in a turn; then others come first.
const BUDGET: u32 = 512 * 1024;

/// One pump of one relay.
pub(super) struct Pump<'a> {
    pub(super) pipe: &'a Pipe,
    pub(super) from: BorrowedFd<'a>,
    pub(super) to: BorrowedFd<'a>,
    /// Bytes in the pipe.
    pub(super) piped: u32,
    /// Bytes taken from the source, and given to the target.
    pub(super) took: u32,
    pub(super) gave: u32,
    /// The source would not give what it has.
    stuck: bool,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        pipe: &'a Pipe,
        from: BorrowedFd<'a>,
        to: BorrowedFd<'a>,
        piped: u32,
    ) -> Pump<'a> {
        Pump {
            pipe,
            from,
            to,
            piped,
            took: 0,
            gave: 0,
            stuck: false,
        }
    }

    /// Moves bytes until the source is dry, the target full, or the budget used up. `end_of_stream` tells what a read
    /// of nothing means: a FIN, or the errno of a broken connection.
    pub(super) fn run(
        &mut self,
        end_of_stream: impl Fn() -> Result<(), i32>,
    ) -> (PumpSource, PumpTarget) {
        loop {
            let source = self.fill(&end_of_stream);
            let target = self.drain();
            let goes_on = source == PumpSource::Open && target == PumpTarget::Ready;
            if !goes_on || self.took.max(self.gave) >= BUDGET {
                return (source, target);
            }
        }
    }

    fn fill(&mut self, end_of_stream: impl Fn() -> Result<(), i32>) -> PumpSource {
        match self.pipe.fill(self.from, self.pipe.capacity()) {
            // Dry or ended, or stopped by urgent data, which splice never passes; but a pipe that holds something may
            // also just be full.
            Ok(0) | Err(libc::EAGAIN) if self.piped > 0 => PumpSource::Open,
            Ok(0) if socket::unread(self.from) > 0 => PumpSource::Urgent,
            Ok(0) => match end_of_stream() {
                Ok(()) => PumpSource::Eof,
                Err(errno) => PumpSource::Error(errno),
            },
            Ok(bytes) => {
                self.took += bytes;
                self.piped += bytes;
                self.stuck = false;
                PumpSource::Open
            }
            Err(libc::EAGAIN) => match (socket::unread(self.from), self.stuck) {
                (0, _) => PumpSource::Dry,
                (_, true) => PumpSource::Urgent,
                (_, false) => {
                    // It may have come this very moment: look once more.
                    self.stuck = true;
                    PumpSource::Open
                }
            },
            Err(errno) => PumpSource::Error(errno),
        }
    }

    /// Moves what is in the pipe on.
    pub(super) fn drain(&mut self) -> PumpTarget {
        while self.piped > 0 {
            match self.pipe.drain(self.to, self.piped) {
                Ok(bytes) => {
                    self.gave += bytes;
                    self.piped -= bytes;
                }
                Err(libc::EAGAIN) => return PumpTarget::Full,
                Err(errno) => return PumpTarget::Error(errno),
            }
        }
        PumpTarget::Ready
    }
}
