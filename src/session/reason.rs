//! Why a session ended: one word, the same in counters, logs and the API. Also which errno means what.

use super::Side;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $word:literal),+ $(,)?) => {
        /// Why a session (or, later, a flow) ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseReason { $($(#[$doc])* $variant),+ }

        impl CloseReason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$variant),+];

            /// The word that counters, logs and the API use.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(CloseReason::$variant => $word),+ }
            }
        }
    };
}

reasons! {
    /// The client sent its FIN first, and both directions ended well.
    ClientClosed => "client_closed",
    /// The backend sent its FIN first, and both directions ended well.
    BackendClosed => "backend_closed",
    /// The client sent a reset, or a write to it failed.
    ClientReset => "client_reset",
    /// The backend sent a reset, or a write to it failed.
    BackendReset => "backend_reset",
    /// Keepalive or retransmission gave the client up.
    ClientUnreachable => "client_unreachable",
    /// Keepalive or retransmission gave the backend up, or no host answered for its address.
    BackendUnreachable => "backend_unreachable",
    /// Every backend tried refused the connection.
    ConnectRefused => "connect_refused",
    /// The last backend tried did not answer within `timeouts.connect`.
    ConnectTimeout => "connect_timeout",
    /// The pool has no backend to try.
    NoBackend => "no_backend",
    /// No byte in either direction for `timeouts.idle`.
    IdleTimeout => "idle_timeout",
    /// One side had closed, the other was silent for `timeouts.half_close`.
    HalfCloseTimeout => "half_close_timeout",
    /// The session reached `timeouts.session`.
    SessionTimeout => "session_timeout",
    /// The backend went down and `on_down` ends its sessions.
    BackendDown => "backend_down",
    /// A normal backend came back, and `on_up: close_backup` ends the sessions on backup ones.
    BackupLeft => "backup_left",
    /// The backend left the configuration.
    BackendRemoved => "backend_removed",
    /// An operator ended it.
    Operator => "operator",
    /// `drain_timeout` passed while draining.
    DrainTimeout => "drain_timeout",
    /// The process was told to stop at once.
    Shutdown => "shutdown",
    /// The virtual address that the client talks to left this node.
    AddressLost => "address_lost",
    /// A configured limit left no room for it.
    Limit => "limit",
    /// An access rule denied it.
    Denied => "denied",
    /// It waited in a queue for too long.
    QueueTimeout => "queue_timeout",
    /// A UDP flow had all its answers.
    FlowDone => "flow_done",
    /// A UDP flow made room for another.
    Evicted => "evicted",
    /// This host ran out of ports, file descriptors, memory or routes.
    OutOfResources => "out_of_resources",
    /// The peer broke a protocol that we speak.
    ProtocolError => "protocol_error",
    /// A mistake of ours.
    Internal => "internal",
}

impl CloseReason {
    /// The position in a table of all reasons.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The side sent its FIN before the other one did.
    /// Both sides ended it as they wanted.
    #[must_use]
    pub fn is_usual(self) -> bool {
        matches!(self, CloseReason::ClientClosed | CloseReason::BackendClosed)
    }

    pub(super) fn closed(side: Side) -> CloseReason {
        match side {
            Side::Client => CloseReason::ClientClosed,
            Side::Backend => CloseReason::BackendClosed,
        }
    }

    /// An established connection broke with `errno`.
    pub(super) fn broken(side: Side, errno: i32) -> CloseReason {
        if matches!(errno, libc::ENOMEM | libc::ENOBUFS) {
            return CloseReason::OutOfResources;
        }
        let gone = matches!(
            errno,
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH
        );
        match (side, gone) {
            (Side::Client, true) => CloseReason::ClientUnreachable,
            (Side::Client, false) => CloseReason::ClientReset,
            (Side::Backend, true) => CloseReason::BackendUnreachable,
            (Side::Backend, false) => CloseReason::BackendReset,
        }
    }

    /// The last attempt to connect ended with `errno`.
    pub(super) fn not_connected(errno: i32) -> CloseReason {
        if errno_is_ours(errno) {
            return CloseReason::OutOfResources;
        }
        match errno {
            libc::ETIMEDOUT | libc::ECANCELED => CloseReason::ConnectTimeout,
            libc::EHOSTUNREACH => CloseReason::BackendUnreachable,
            _ => CloseReason::ConnectRefused,
        }
    }
}

/// Whether a failed connect tells about this host rather than about the backend: no port, file descriptor, memory,
/// route or permission. Such a failure never touches the health of a backend.
#[must_use]
pub fn errno_is_ours(errno: i32) -> bool {
    matches!(
        errno,
        libc::EADDRNOTAVAIL
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::ENETUNREACH
            | libc::EACCES
            | libc::EPERM
            | libc::EAFNOSUPPORT
            | libc::EINVAL
            | libc::EADDRINUSE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_word_and_position() {
        let mut words: Vec<_> = CloseReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        for (position, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), CloseReason::ALL.len());
    }

    #[test]
    fn our_own_errors_are_told_apart_from_the_backends() {
        assert_eq!(
            CloseReason::not_connected(libc::EADDRNOTAVAIL),
            CloseReason::OutOfResources
        );
        assert_eq!(
            CloseReason::not_connected(libc::ECONNREFUSED),
            CloseReason::ConnectRefused
        );
        assert_eq!(
            CloseReason::not_connected(libc::ETIMEDOUT),
            CloseReason::ConnectTimeout
        );
        assert_eq!(
            CloseReason::not_connected(libc::EHOSTUNREACH),
            CloseReason::BackendUnreachable
        );
    }
}
