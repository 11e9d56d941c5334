//! One direction of a session: what it holds, how it reads, and what it wants to do next. It counts bytes and never
//! touches one.

/// A receive ends by itself once it has reached so many bytes, so that no client can pin more than this and a buffer.
pub const RECEIVE_LIMIT: u32 = 64 * 1024;

/// Reads of at least this many bytes on average are cheaper to splice than to copy through buffers.
const PUMP_FROM_AVERAGE: u32 = 8 * 1024;

/// A pump that found less than this was not worth its system calls.
const PUMP_SMALL: u32 = 6 * 1024;

/// So many small pumps in a row lead back to receiving.
const PUMP_SMALL_RUN: u8 = 4;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Received into buffers and sent: cheapest for small messages.
    Receive,
    /// Spliced socket to pipe to socket, without a copy: cheapest for bulk.
    Pump,
}

/// When a relay in [`Mode::Pump`] may pump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pump {
    /// The source was dry; its poll will tell.
    Waiting,
    /// Now.
    Ready,
    /// It used up its budget; others come first.
    NextTurn,
}

/// What a pump found at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpSource {
    /// There may be more: the budget ended it, or the pipe was full.
    Open,
    /// Nothing more for now.
    Dry,
    /// Bytes wait that splice does not pass: urgent data. The pipe is empty.
    Urgent,
    /// The end.
    Eof,
    /// The connection is broken: errno.
    Error(i32),
}

/// What a pump found at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpTarget {
    /// It took everything.
    Ready,
    /// It takes no more for now.
    Full,
    /// The connection is broken: errno.
    Error(i32),
}

/// What a relay wants to do about its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Send,
    Spill,
    Pump,
    /// Let go of what is held: nobody will take it.
    Discard,
    /// Everything went out and the source has ended: pass the FIN on.
    Finish,
}

/// One direction. See the module's text.
#[derive(Clone, Debug)]
pub struct Relay {
    mode: Mode,
    pump: Pump,
    /// Nothing more comes from the source.
    source_ended: bool,
    /// The session gave this direction up: nothing is read or sent any more.
    discarded: bool,
    /// A send is in flight.
    sending: bool,
    /// The target took less than it was given; its poll will tell.
    blocked: bool,
    /// The ring had no buffer; [`super::Event::Fed`] will tell.
    starved: bool,
    /// Nothing has come for a while: a poll tells of more.
    resting: bool,
    /// The FIN was passed on.
    finished: bool,
    /// The target has been blocked, and since then not taken [`RECEIVE_LIMIT`] bytes without a stop.
    slow: bool,
    flowed: u32,
    small_pumps: u8,
    reads: u16,
    read_bytes: u32,
    queued: u32,
    spilled: u32,
    piped: u32,
    taken: u64,
    given: u64,
}

impl Relay {
    pub(super) fn new() -> Relay {
        Relay {
            mode: Mode::Receive,
            pump: Pump::Waiting,
            source_ended: false,
            discarded: false,
            sending: false,
            blocked: false,
            starved: false,
            resting: false,
            finished: false,
            slow: false,
            flowed: 0,
            small_pumps: 0,
            reads: 0,
            read_bytes: 0,
            queued: 0,
            spilled: 0,
            piped: 0,
            taken: 0,
            given: 0,
        }
    }

    /// How the bytes travel now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Bytes in buffers, in the order in which they came.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// Bytes moved out of the buffers while the target was blocked; they come before the queued ones.
    #[must_use]
    pub fn spilled(&self) -> u32 {
        self.spilled
    }

    /// Bytes in the pipe. While there are any, nothing is queued or spilled.
    #[must_use]
    pub fn piped(&self) -> u32 {
        self.piped
    }

    /// Bytes taken from the source so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes given to the target so far.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Whether the source has said everything.
    #[must_use]
    pub fn source_ended(&self) -> bool {
        self.source_ended
    }

    /// Whether the target waits for its poll.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the target lags behind: it was blocked of late.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Whether a budget ended the last pump, so that the next turn goes on with it.
    #[must_use]
    pub fn waits_for_turn(&self) -> bool {
        self.pump == Pump::NextTurn && self.may_pump()
    }

    /// Everything the source said has been given to the target's socket.
    pub(super) fn drained(&self) -> bool {
        self.source_ended && self.held() == 0 && !self.sending
    }

    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    pub(super) fn wants_receive(&self) -> bool {
        self.mode == Mode::Receive
            && self.reads_source()
            && !self.starved
            && !self.resting
            && !self.blocked
            && self.queued < RECEIVE_LIMIT
            && self.spilled == 0
            && self.piped == 0
    }

    pub(super) fn wants_readable(&self) -> bool {
        (self.mode == Mode::Pump || self.resting) && self.reads_source()
    }

    /// Whether it waits for its source, and for nothing else.
    pub(super) fn can_rest(&self) -> bool {
        self.wants_receive() && self.held() == 0
    }

    pub(super) fn rest(&mut self) {
        self.resting = true;
    }

    pub(super) fn wants_writable(&self) -> bool {
        self.blocked && !self.discarded
    }

    /// Whether a receive that is armed should be taken back.
    pub(super) fn refuses_receive(&self) -> bool {
        self.discarded || self.resting
    }

    pub(super) fn wish(&self, receive_armed: bool) -> Wish {
        if self.sending {
            return Wish::Nothing;
        }
        if self.discarded {
            return if self.held() > 0 {
                Wish::Discard
            } else {
                Wish::Nothing
            };
        }
        if self.queued + self.spilled > 0 {
            return match (self.blocked, self.queued) {
                (false, _) => Wish::Send,
                (true, 0) => Wish::Nothing,
                (true, _) => Wish::Spill,
            };
        }
        if self.pump == Pump::Ready && self.may_pump() && !receive_armed {
            return Wish::Pump;
        }
        if self.drained() && !self.finished {
            return Wish::Finish;
        }
        Wish::Nothing
    }

    pub(super) fn sending(&mut self) {
        self.sending = true;
    }

    pub(super) fn pumping(&mut self) {
        self.pump = Pump::Waiting;
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    pub(super) fn discard(&mut self) {
        self.discarded = true;
    }

    pub(super) fn end_source(&mut self) {
        self.source_ended = true;
    }

    pub(super) fn received(&mut self, len: u32) {
        self.resting = false;
        self.queued += len;
        self.taken += u64::from(len);
        self.reads = self.reads.saturating_add(1);
        self.read_bytes = self.read_bytes.saturating_add(len);
    }

    /// A receive ended at its limit: time to ask whether the messages are large enough to splice.
    pub(super) fn receive_ended_at_limit(&mut self) {
        if self.read_bytes < RECEIVE_LIMIT {
            return;
        }
        let average = self.read_bytes / u32::from(self.reads.max(1));
        self.reads = 0;
        self.read_bytes = 0;
        if average >= PUMP_FROM_AVERAGE {
            self.mode = Mode::Pump;
            self.pump = Pump::Ready;
            self.small_pumps = 0;
        }
    }

    pub(super) fn starve(&mut self) {
        self.starved = true;
    }

    pub(super) fn feed(&mut self) {
        self.starved = false;
    }

    pub(super) fn sent(&mut self, bytes: u32, blocked: bool) {
        self.sending = false;
        self.give(bytes);
        self.block(blocked);
        let from_spill = bytes.min(self.spilled);
        self.spilled -= from_spill;
        self.queued -= bytes - from_spill;
    }

    pub(super) fn send_failed(&mut self) {
        self.sending = false;
    }

    pub(super) fn spill(&mut self) {
        self.spilled += self.queued;
        self.queued = 0;
    }

    pub(super) fn pumped(&mut self, took: u32, gave: u32, source: PumpSource, target: PumpTarget) {
        self.taken += u64::from(took);
        self.piped = self.piped + took - gave;
        self.give(gave);
        self.block(target == PumpTarget::Full);
        match source {
            PumpSource::Open => self.pump = Pump::NextTurn,
            PumpSource::Dry => self.judge_small_pumps(took),
            PumpSource::Urgent => self.receive_instead(),
            PumpSource::Eof | PumpSource::Error(_) => self.source_ended = true,
        }
    }

    /// What was in the pipe has been moved into memory, and the pipe is gone.
    pub(super) fn unpiped(&mut self) {
        self.spilled += self.piped;
        self.piped = 0;
        self.receive_instead();
    }

    /// What was held is gone.
    pub(super) fn let_go(&mut self) {
        (self.queued, self.spilled, self.piped) = (0, 0, 0);
    }

    /// Splice cannot be used now: no pipe is free, or urgent data waits.
    pub(super) fn receive_instead(&mut self) {
        debug_assert_eq!(self.piped, 0, "a relay whose bytes are in a pipe has one");
        self.mode = Mode::Receive;
        self.pump = Pump::Waiting;
    }

    pub(super) fn readable(&mut self) {
        self.resting = false;
        if self.mode == Mode::Pump {
            self.pump = Pump::Ready;
        }
    }

    pub(super) fn writable(&mut self) {
        self.blocked = false;
        if self.mode == Mode::Pump {
            self.pump = Pump::Ready;
        }
    }

    pub(super) fn next_turn(&mut self) {
        if self.pump == Pump::NextTurn {
            self.pump = Pump::Ready;
        }
    }

    /// After a thaw nothing is known about readiness: look.
    pub(super) fn look_again(&mut self) {
        if self.mode == Mode::Pump {
            self.pump = Pump::Ready;
        }
    }

    pub(super) fn restore(record: &super::RelayRecord) -> Relay {
        Relay {
            mode: if record.piped > 0 {
                Mode::Pump
            } else {
                Mode::Receive
            },
            pump: Pump::Ready,
            source_ended: record.source_ended,
            finished: record.finished,
            spilled: record.held,
            piped: record.piped,
            taken: record.taken,
            given: record.given,
            ..Relay::new()
        }
    }

    /// Bytes taken from the source and not yet given to the target.
    pub(super) fn held(&self) -> u32 {
        self.queued + self.spilled + self.piped
    }

    fn reads_source(&self) -> bool {
        !self.source_ended && !self.discarded
    }

    fn may_pump(&self) -> bool {
        self.mode == Mode::Pump && !self.blocked && (self.piped > 0 || self.reads_source())
    }

    fn give(&mut self, bytes: u32) {
        self.given += u64::from(bytes);
        self.flowed = self.flowed.saturating_add(bytes);
        self.slow &= self.flowed < RECEIVE_LIMIT;
    }

    fn block(&mut self, blocked: bool) {
        if blocked {
            self.blocked = true;
            self.slow = true;
            self.flowed = 0;
        }
    }

    fn judge_small_pumps(&mut self, took: u32) {
        if took >= PUMP_SMALL {
            self.small_pumps = 0;
        } else if took > 0 {
            self.small_pumps += 1;
        }
        if self.small_pumps >= PUMP_SMALL_RUN && self.piped == 0 {
            self.receive_instead();
        }
    }
}
