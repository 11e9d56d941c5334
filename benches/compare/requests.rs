//! Sessions that each send a request, wait for the whole answer and send the next one, beside sessions that are silent.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::Outcome;
use crate::generator::{Driver, Tally};
use crate::sockets::{EDGE, Events, Read, Routes, Scratch, listen};
use crate::spec::Sizes;

/// So many sessions are opened before their first answers are waited for.
const OPENED_AT_ONCE: usize = 64;

/// How long a first answer may take.
const FIRST_ANSWER: TimeVal = TimeVal::new(10, 0);

pub(crate) struct Requests {
    routes: Routes,
    sizes: Sizes,
    active: usize,
    idle: usize,
    sessions: Vec<Session>,
    silent: Vec<OwnedFd>,
    scratch: Scratch,
}

struct Session {
    socket: OwnedFd,
    /// Bytes of the request still to send.
    to_send: usize,
    /// Bytes of the answer still to come.
    to_receive: usize,
    began: Instant,
    open: bool,
}

impl Requests {
    pub(crate) fn new(routes: Routes, sizes: Sizes, active: usize, idle: usize) -> Self {
        let scratch = Scratch::new();
        Self {
            routes,
            sizes,
            active,
            idle,
            sessions: Vec::new(),
            silent: Vec::new(),
            scratch,
        }
    }
}

impl Driver for Requests {
    fn start(&mut self, events: &Events) -> Outcome<()> {
        let total = self.active + self.idle;
        let sockets = open(&mut self.routes, self.sizes, total)?;
        for (index, socket) in sockets.into_iter().enumerate() {
            // The active ones are spread over all that are open.
            let due = (index + 1) * self.active / total;
            if due > self.sessions.len() {
                self.sessions.push(Session {
                    socket,
                    to_send: 0,
                    to_receive: 0,
                    began: Instant::now(),
                    open: true,
                });
            } else {
                self.silent.push(socket);
            }
        }
        for (index, session) in self.sessions.iter_mut().enumerate() {
            events.add(&session.socket, EDGE, index as u64)?;
            session.begin(self.sizes, Instant::now());
            session.send(&self.scratch);
        }
        Ok(())
    }

    fn progress(&mut self, token: u64, flags: EpollFlags, _: &Events, tally: &mut Tally) {
        let session = &mut self.sessions[token as usize];
        if session.open && !session.progress(&mut self.scratch, self.sizes, flags, tally) {
            session.open = false;
            tally.errors += 1;
        }
    }
}

impl Session {
    fn begin(&mut self, sizes: Sizes, now: Instant) {
        self.began = now;
        self.to_send = sizes.request;
        self.to_receive = sizes.answer;
    }

    fn send(&mut self, scratch: &Scratch) -> bool {
        match scratch.write(&self.socket, self.to_send) {
            Some(sent) => {
                self.to_send -= sent;
                true
            }
            None => false,
        }
    }

    /// Goes on as far as the socket lets it; false when it has ended or more came than was asked for.
    fn progress(
        &mut self,
        scratch: &mut Scratch,
        sizes: Sizes,
        flags: EpollFlags,
        tally: &mut Tally,
    ) -> bool {
        if self.to_send > 0 && !self.send(scratch) {
            return false;
        }
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR) {
            return true;
        }
        loop {
            let read = scratch.read(&self.socket, sizes.answer, flags);
            let (Read::Some(count) | Read::Last(count)) = read else {
                return false;
            };
            if count > self.to_receive {
                return false;
            }
            self.to_receive -= count;
            if self.to_receive == 0 && count > 0 {
                let now = tally.done(self.began);
                self.begin(sizes, now);
                if !self.send(scratch) {
                    return false;
                }
            }
            if matches!(read, Read::Last(_)) {
                return true;
            }
        }
    }
}

/// Opens sessions, and has one request answered on each of them: then it is known to reach a backend.
fn open(routes: &mut Routes, sizes: Sizes, total: usize) -> Outcome<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(total);
    let request = vec![b'q'; sizes.request];
    let mut answer = vec![0; sizes.answer];
    while sockets.len() < total {
        let first = sockets.len();
        for _ in 0..OPENED_AT_ONCE.min(total - first) {
            let socket = routes.connect(false)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &FIRST_ANSWER)?;
            let sent = send(socket.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL)?;
            if sent < request.len() {
                return Err("the first request did not fit into the socket".into());
            }
            sockets.push(socket);
        }
        for (index, socket) in sockets.iter().enumerate().skip(first) {
            let mut received = 0;
            while received < answer.len() {
                match recv(
                    socket.as_raw_fd(),
                    &mut answer[received..],
                    MsgFlags::empty(),
                ) {
                    Ok(0) => {
                        return Err(
                            format!("session {index} was closed before its first answer").into(),
                        );
                    }
                    Ok(count) => received += count,
                    Err(errno) => {
                        return Err(format!("session {index}, first answer: {errno}").into());
                    }
                }
            }
        }
    }
    Ok(sockets)
}

/// Sockets connected to this very process, in pairs, in no epoll set.
pub(crate) fn bare_pairs(routes: &mut Routes, pairs: usize) -> Outcome<Vec<OwnedFd>> {
    let target = routes.first_target();
    let listener = listen(*target.ip(), target.port())?;
    let mut sockets = Vec::with_capacity(2 * pairs);
    for _ in 0..pairs {
        sockets.push(routes.connect(false)?);
        sockets.push(listener.accept()?.0.into());
    }
    Ok(sockets)
}
