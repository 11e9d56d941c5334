//! What a session is told ([`Event`]) and what it says is to be done ([`Step`]).

use super::{CloseReason, Direction, Operation, PumpSource, PumpTarget, Side};
#[cfg(doc)]
use super::{RECEIVE_LIMIT, Session};

/// Why a receive is no longer armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// By itself: it reached its byte limit, or was for one read only.
    Limit,
    /// The source sent FIN.
    Eof,
    /// No buffer was free. [`Event::Fed`] follows when there is one.
    Starved,
    /// It was cancelled.
    Cancelled,
    /// The connection is broken: errno.
    Error(i32),
}

/// What happened. Past tense; the worker translates completions into these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The backend accepted the connection.
    Connected,
    /// The attempt failed, and the worker has closed its socket.
    ConnectFailed(i32),
    /// The attempt found no free port at its source address, and the pool has others; the worker has closed its
    /// socket and goes on with the same backend.
    SourceExhausted,
    /// The picker had no backend (left) to try, for this reason.
    NoBackend(CloseReason),
    /// Bytes are in a buffer, at the end of those from the same side.
    Received {
        /// From where.
        side: Side,
        /// How many, at least 1.
        len: u32,
    },
    /// A receive is no longer armed.
    ReceiveEnded {
        /// On which socket.
        side: Side,
        /// Why.
        end: ReceiveEnd,
    },
    /// A buffer is free for a receive that had starved.
    Fed(Side),
    /// A send is done.
    Sent {
        /// Of which relay.
        direction: Direction,
        /// How many bytes the target took.
        bytes: u32,
        /// It was given more than it took.
        blocked: bool,
    },
    /// A send failed and took nothing.
    SendFailed {
        /// Of which relay.
        direction: Direction,
        /// Why.
        errno: i32,
    },
    /// A pump is done.
    Pumped {
        /// Of which relay.
        direction: Direction,
        /// Bytes moved from the source into the pipe.
        took: u32,
        /// Bytes moved from the pipe to the target.
        gave: u32,
        /// What it found at the source.
        source: PumpSource,
        /// What it found at the target.
        target: PumpTarget,
    },
    /// A pump did not begin: no pipe is free.
    NoPipe(Direction),
    /// What was in the pipe has been moved into memory: pipes are scarce and the target is full.
    Unpiped(Direction),
    /// What was queued has been moved out of the buffers.
    Spilled(Direction),
    /// There is something to read.
    Readable(Side),
    /// There is room to write.
    Writable(Side),
    /// The connection is broken, says a poll.
    Hangup {
        /// Which one.
        side: Side,
        /// Why.
        errno: i32,
    },
    /// A poll is no longer armed.
    PollEnded {
        /// On which socket.
        side: Side,
        /// Which of the polls.
        operation: Operation,
    },
    /// A cancel is done; what it cancelled reports for itself.
    CancelEnded {
        /// On which socket.
        side: Side,
        /// What was to be cancelled.
        operation: Operation,
    },
    /// So many bytes given to a socket have not been acknowledged by its peer.
    Undelivered {
        /// Which socket.
        side: Side,
        /// How many.
        bytes: u32,
    },
    /// The deadline that [`Session::deadline`] named has passed.
    Expired,
    /// Waiting any longer for the backend that it connects to is in vain, for this reason.
    BackendLost(CloseReason),
    /// A new turn of the loop, for those that waited for it.
    Turn,
    /// End it now, with a reset to both sides.
    Kill(CloseReason),
    /// Take everything back from the kernel and hold still.
    Freeze,
    /// Go on.
    Thaw,
}

/// How the sockets are to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN was, or is now, sent to both.
    Close,
    /// Reset both (linger 0).
    Abort,
}

/// What to do. Imperative; the worker performs it. Those that act at once are answered by an event in the same turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pick a backend, or stay with the one of [`Event::SourceExhausted`], and connect. At once: `NoBackend` or
    /// `ConnectFailed`; else by completion.
    Connect,
    /// Arm a receive that ends by itself once it has reached [`RECEIVE_LIMIT`] bytes.
    Receive(Side),
    /// Give everything spilled and queued to the target, without waiting.
    Send(Direction),
    /// Move what is queued out of the buffers. At once.
    Spill(Direction),
    /// Splice until dry, full, or out of budget. At once.
    Pump {
        /// Which relay.
        direction: Direction,
        /// Only empty the pipe: the source has ended.
        drain_only: bool,
    },
    /// Let go of everything that is held: its target is gone. At once, without an answer.
    Discard(Direction),
    /// Arm one of the polls.
    Poll {
        /// On which socket.
        side: Side,
        /// Which of the polls.
        operation: Operation,
    },
    /// Take an operation back.
    Cancel {
        /// On which socket.
        side: Side,
        /// What.
        operation: Operation,
    },
    /// Send FIN.
    ShutdownWrite(Side),
    /// Let the kernel probe both peers while they are silent, from now on.
    KeepAlive,
    /// Ask how much a socket has not delivered. At once: `Undelivered`.
    CheckDelivered(Side),
    /// Close the open sockets; the session is over.
    Close(Ending),
}
