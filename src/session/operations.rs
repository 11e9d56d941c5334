//! The operations that a session may have in the kernel on one of its sockets, and sets of them.

/// One kind of operation. A socket has at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Connect to the backend.
    Connect,
    /// Receive into buffers, until a byte limit.
    Receive,
    /// Send without waiting: it completes while it is submitted and is never cancelled.
    Send,
    /// Poll for nothing but errors: reports a reset.
    Watch,
    /// Poll for something to read.
    Readable,
    /// Poll for room to write.
    Writable,
}

impl Operation {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Operation; 6] = [
        Operation::Connect,
        Operation::Receive,
        Operation::Send,
        Operation::Watch,
        Operation::Readable,
        Operation::Writable,
    ];

    /// Those that may stay in the kernel for long, and are cancelled to end them.
    pub const CANCELLABLE: [Operation; 5] = [
        Operation::Connect,
        Operation::Receive,
        Operation::Watch,
        Operation::Readable,
        Operation::Writable,
    ];
}

/// A set of [`Operation`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations(u8);

impl Operations {
    /// The empty set.
    pub const NONE: Operations = Operations(0);

    /// Those that report a reset while they are armed.
    pub const REPORTING: Operations = Operations(0b11_1011);

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `operation` is in it.
    #[must_use]
    pub fn contains(self, operation: Operation) -> bool {
        self.0 & Self::bit(operation) != 0
    }

    /// Whether the two sets share an operation.
    #[must_use]
    pub fn intersects(self, other: Operations) -> bool {
        self.0 & other.0 != 0
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(self, other: Operations) -> Operations {
        Operations(self.0 & !other.0)
    }

    /// Adds one.
    pub fn insert(&mut self, operation: Operation) {
        debug_assert!(!self.contains(operation), "{operation:?} is there already");
        self.0 |= Self::bit(operation);
    }

    /// Takes one away, if it is there.
    pub fn remove(&mut self, operation: Operation) {
        self.0 &= !Self::bit(operation);
    }

    fn bit(operation: Operation) -> u8 {
        1 << operation as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_a_send_reports_a_reset() {
        for operation in Operation::ALL {
            let mut set = Operations::NONE;
            set.insert(operation);
            assert_eq!(
                set.intersects(Operations::REPORTING),
                operation != Operation::Send,
                "{operation:?}"
            );
        }
    }
}
