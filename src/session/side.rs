//! The two ends of a session and the two directions between them.

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who connected to a listener.
    Client,
    /// The backend that was picked for it.
    Backend,
}

impl Side {
    /// Both, in the order of their positions.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Backend];

    /// The other end.
    #[must_use]
    pub fn peer(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    /// The direction whose source this side is.
    #[must_use]
    pub fn outgoing(self) -> Direction {
        match self {
            Side::Client => Direction::ToBackend,
            Side::Backend => Direction::ToClient,
        }
    }

    /// The direction whose target this side is.
    #[must_use]
    pub fn incoming(self) -> Direction {
        self.peer().outgoing()
    }

    /// The position in a table of both sides.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One of the two relays of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the backend.
    ToBackend,
    /// From the backend to the client.
    ToClient,
}

impl Direction {
    /// Both, in the order of their positions.
    pub const BOTH: [Direction; 2] = [Direction::ToBackend, Direction::ToClient];

    /// Where the bytes come from.
    #[must_use]
    pub fn source(self) -> Side {
        match self {
            Direction::ToBackend => Side::Client,
            Direction::ToClient => Side::Backend,
        }
    }

    /// Where the bytes go.
    #[must_use]
    pub fn target(self) -> Side {
        self.source().peer()
    }

    /// The position in a table of both directions.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
