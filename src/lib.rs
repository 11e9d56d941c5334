//! Ringway: a Layer 4 load balancer for bare-metal Linux on io_uring. This page is the map of the code.
//!
//! # The planes
//!
//! The **data plane** is one [`worker`] per core: a thread with its own [`ring`], its own listening sockets, sessions,
//! buffers, pipes, timers and counters. A session lives on the worker that adopted it and never moves. The **control
//! plane** is one thread, [`control`]: it owns the configuration and the listening sockets, starts and stops the
//! workers and answers signals. Commands go to workers by mailbox, reports come back by channel. **Virtual addresses**
//! have a thread of their own, [`vrrp::thread`], which nothing else can delay.
//!
//! # Logic returns, the loop acts
//!
//! What decides is pure: plain values that take an event and the time, and return what to do. Only the shells touch the
//! kernel, and only [`ring`] and [`sys`] contain `unsafe`.
//!
//! | module | kind | what it is for |
//! |---|---|---|
//! | [`session`] | pure | one TCP session: events in, steps out; both endings; its simulation |
//! | [`flow`] | pure | UDP: which client is bound to what, and for how long |
//! | [`balance`] | pure | who gets the next connection, one file per algorithm |
//! | [`health`] | pure | what traffic says about a backend |
//! | [`vrrp`] | pure | who holds a virtual address: advertisements on the wire, the machine of one virtual router |
//! | [`vrrp::thread`] | shell | a thread that receives, decides and sends; one beside it that asks for addresses |
//! | [`metrics`] | pure | the counters: cells with one writer each; the list of metrics, and how they are written |
//! | [`ids`], [`time`] | pure | names of configured things; time as a value |
//! | [`config`] | pure | the YAML file as written, resolved and checked |
//! | [`worker`] | shell | the event loop; sessions on the ring; accepts, timers, mailbox, pipes |
//! | [`control`] | shell | the owner of the truth: listeners, workers, signals; the snapshot that workers read |
//! | [`admin`] | shell | HTTP and JSON over a unix socket and TCP: requests for control, and asking a running process |
//! | [`doctor`] | shell | what this host is like, judged: facts gathered, checked (pure), shown |
//! | [`access`] | shell | a line for each session and flow that ended |
//! | [`privileges`] | shell | another user, fewer capabilities, fewer files |
//! | [`notify`] | shell | what the service manager is told |
//! | [`cli`] | shell | one file per command |
//! | [`demo`] | shell | a balancer, its backends and a load in one process, to be looked at |
//! | [`ring`] | kernel | io_uring behind a safe interface, its buffers, the probe of the host |
//! | [`sys`] | kernel | sockets, pipes and splice, limits, affinity, clock |
//!
//! # The path of a byte
//!
//! 1. `worker::accept` takes a connection from the kernel, on this worker or for a less loaded one.
//! 2. `worker::tcp` makes a [`session::Session`] and arms a receive for the client, so that a reset is noticed from
//!    here on. At [`session::Step::Connect`] `worker::picks` asks [`balance`] for a backend. A connect that fails is
//!    tried elsewhere; what the client says meanwhile is kept, up to the limit of one receive.
//! 3. Once connected, a receive is armed for the backend, too. A completion names a buffer: it is queued in the
//!    relay's [`session::Chain`].
//! 4. At the end of the turn each session that changed is asked for its steps: everything queued leaves in one gathered
//!    send that never waits. If the target takes no more, the rest moves out of the buffers into memory of the relay's
//!    own, and a poll tells when to go on.
//! 5. A receive ends by itself at its limit. If the reads were large, the relay then pumps: splice(2) from socket to
//!    pipe to socket, without a copy, with a budget per turn. When reads become small it goes back to receiving.
//! 6. A FIN is passed on once everything before it went out, and the other direction goes on. A reset is passed on as
//!    a reset, after what came before it was delivered. Then everything that is still in the kernel is cancelled and
//!    waited for, and the sockets are closed.
//!
//! # The path of a datagram
//!
//! `worker::udp` receives it with its addresses into a buffer for the largest one, asks [`flow`] whose it is, has
//! `worker::picks` choose a backend if it is nobody's, and sends it on at once; an answer goes the same way back. What
//! cannot be sent at once is lost, and counted.
//!
//! # A change of the configuration
//!
//! `control::reload` has the file read beside control's loop, and says what differs (`control::difference`).
//! `control::reconcile` makes the next snapshot: an id means the same for as long as a session may use it, what leaves
//! keeps its place until then. New sockets are bound before anything else, so that all of it happens or nothing. Each
//! worker gets the snapshot together with its sockets in one command and changes over between two turns
//! (`worker::take_over`); counters are in tables that grow and never move ([`metrics::Table`]). The next change begins
//! when every worker has changed over.
//!
//! # Invariants
//!
//! - A worker blocks nowhere but in its ring's wait, takes no lock on the byte path, and allocates nothing per read.
//! - No two workers write to one cache line, except when a session begins or ends ([`worker::Shared`]).
//! - A relay's bytes are in memory or in a pipe, never both; a pipe that holds bytes never goes back to the pool.
//! - Every open socket has an operation armed that reports a reset, from accept on; where none but a watch is left to
//!   arm, that follows within [`session::WATCH_DELAY`].
//! - A receive always ends by itself: nothing is pinned across turns by a client that does not read.
//! - Nothing is closed while something of it is in flight, so no completion is ever for somebody else.
//! - Only a FIN becomes a FIN.
//! - The thread that sends advertisements waits for no other thread, no lock and no file; nothing that it keeps grows.
//! - A virtual address is on an interface for a lease, unless the file says otherwise: who stops renewing loses it.
//! - Nothing on a session's sockets makes it impossible to freeze the session: no direct descriptors, no zero-copy
//!   sends, no linked requests.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod access;
pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod flow;
pub mod health;
pub mod ids;
pub mod metrics;
pub mod notify;
pub mod privileges;
pub mod ring;
#[cfg(test)]
mod seeds;
pub mod session;
pub mod sys;
pub mod time;
pub mod vrrp;
pub mod worker;
