//! The virtual addresses: which of the machines that may hold them does (RFC 9568, RFC 3768).
//!
//! [`packet`] is the wire, [`machine`] is one virtual router; both are pure. Whoever drives them owns the sockets, the
//! addresses of the interface and the clock.

pub mod machine;
pub mod packet;
