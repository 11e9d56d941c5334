//! A frozen session as plain data, and back: for a session that goes on in another process.

use std::rc::Rc;
use std::time::Duration;

use super::{CloseReason, Direction, Frost, Phase, Relay, Rules, Session, Side};
use crate::time::Time;

/// A frozen session as plain data: enough to go on elsewhere, given its sockets and the bytes it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version of this layout.
    pub version: u16,
    /// Whether a backend connection exists; without one the session connects anew.
    pub connected: bool,
    /// Attempts to connect so far.
    pub attempts: u8,
    /// Age of the session.
    pub age: Duration,
    /// Time since the last byte.
    pub quiet: Duration,
    /// The FIN that came first, if one has come.
    pub first_closed: Option<Side>,
    /// Both relays, `ToBackend` first.
    pub relays: [RelayRecord; 2],
}

/// One relay of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRecord {
    /// Bytes taken from the source.
    pub taken: u64,
    /// Bytes given to the target.
    pub given: u64,
    /// Bytes held in memory.
    pub held: u32,
    /// Bytes held in the pipe.
    pub piped: u32,
    /// The source has sent FIN.
    pub source_ended: bool,
    /// FIN was sent to the target.
    pub finished: bool,
}

impl Session {
    /// A frozen session as plain data.
    ///
    /// # Panics
    /// If the session is not frozen: its state would still change.
    #[must_use]
    pub fn record(&self, now: Time) -> Record {
        assert!(self.is_frozen(), "only a frozen session has a record");
        Record {
            version: 1,
            connected: self.phase == Phase::Open,
            attempts: self.attempts,
            age: now - self.started,
            quiet: now - self.moved,
            first_closed: match self.reason {
                Some(CloseReason::ClientClosed) => Some(Side::Client),
                Some(CloseReason::BackendClosed) => Some(Side::Backend),
                Some(_) | None => None,
            },
            relays: Direction::BOTH.map(|direction| {
                let relay = self.relay_of(direction);
                RelayRecord {
                    taken: relay.taken(),
                    given: relay.given(),
                    held: relay.queued() + relay.spilled(),
                    piped: relay.piped(),
                    source_ended: relay.source_ended(),
                    finished: relay.finished(),
                }
            }),
        }
    }

    /// A session that goes on from a record. The bytes held in memory count as spilled.
    #[must_use]
    pub fn from_record(record: &Record, rules: Rc<Rules>, now: Time) -> Session {
        let mut session = Session::new(rules, Time::from_micros(micros_before(now, record.age)));
        session.moved = Time::from_micros(micros_before(now, record.quiet));
        session.attempts = record.attempts;
        session.reason = record.first_closed.map(CloseReason::closed);
        session.frost = Frost::Frozen;
        for direction in Direction::BOTH {
            let relay = &record.relays[direction.index()];
            session.relays[direction.index()] = Relay::restore(relay);
            session.socket(direction.target()).write_shut = relay.finished;
        }
        if record.connected {
            session.phase = Phase::Open;
            session.socket(Side::Backend).open = true;
        }
        session
    }
}

fn micros_before(now: Time, age: Duration) -> u64 {
    now.as_micros()
        .saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}
