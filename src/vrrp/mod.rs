//! The virtual addresses: which of the machines that may hold them does (RFC 9568, RFC 3768).
//!
//! [`packet`] is the wire; it is pure.

pub mod packet;
