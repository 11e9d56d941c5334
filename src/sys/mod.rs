//! The kernel beyond io_uring: sockets, netlink, pipes, limits, affinity, clock. One small file each; system calls in,
//! values out.

pub mod clock;
pub mod datagram;
pub mod host;
pub mod netlink;
pub mod pipe;
pub mod ports;
pub mod priority;
pub mod raw;
pub mod socket;
pub mod unix;
pub mod usage;
