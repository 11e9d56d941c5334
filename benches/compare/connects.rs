//! Connections that live for one request: connect, send, wait for the answer, close, and the next one.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use crate::Outcome;
use crate::generator::{Driver, Tally};
use crate::sockets::{EDGE, Events, Read, Routes, Scratch};
use crate::spec::Sizes;

pub(crate) struct Connects {
    routes: Routes,
    sizes: Sizes,
    places: Vec<Option<Attempt>>,
    scratch: Scratch,
}

/// One connection, from its connect on.
struct Attempt {
    socket: OwnedFd,
    began: Instant,
    sent: bool,
    to_receive: usize,
}

/// How an attempt stands.
enum Standing {
    Waiting,
    Answered,
    Failed,
}

impl Connects {
    pub(crate) fn new(routes: Routes, sizes: Sizes, at_once: usize) -> Self {
        let places = (0..at_once).map(|_| None).collect();
        Self {
            routes,
            sizes,
            places,
            scratch: Scratch::new(),
        }
    }

    fn open(&mut self, place: usize, events: &Events) -> Outcome<()> {
        let began = Instant::now();
        let socket = self.routes.connect(true)?;
        events.add(&socket, EDGE, place as u64)?;
        self.places[place] = Some(Attempt {
            socket,
            began,
            sent: false,
            to_receive: self.sizes.answer,
        });
        Ok(())
    }
}

impl Driver for Connects {
    fn start(&mut self, events: &Events) -> Outcome<()> {
        (0..self.places.len()).try_for_each(|place| self.open(place, events))
    }

    fn progress(&mut self, token: u64, flags: EpollFlags, events: &Events, tally: &mut Tally) {
        let place = token as usize;
        let Some(attempt) = self.places[place].as_mut() else {
            return;
        };
        match attempt.progress(&mut self.scratch, self.sizes, flags) {
            Standing::Waiting => return,
            Standing::Answered => drop(tally.done(attempt.began)),
            Standing::Failed => tally.errors += 1,
        }
        self.places[place] = None; // closes the socket
        if self.open(place, events).is_err() {
            tally.errors += 1;
        }
    }
}

impl Attempt {
    fn progress(&mut self, scratch: &mut Scratch, sizes: Sizes, flags: EpollFlags) -> Standing {
        if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            return Standing::Failed;
        }
        if !self.sent && flags.contains(EpollFlags::EPOLLOUT) {
            self.sent = scratch.write(&self.socket, sizes.request) == Some(sizes.request);
            if !self.sent {
                return Standing::Failed;
            }
        }
        if !flags.contains(EpollFlags::EPOLLIN) {
            return Standing::Waiting;
        }
        loop {
            match scratch.read(&self.socket, sizes.answer, flags) {
                Read::Ended => return Standing::Failed,
                Read::Some(count) | Read::Last(count) if count >= self.to_receive => {
                    return Standing::Answered;
                }
                Read::Some(count) => self.to_receive -= count,
                Read::Last(count) => {
                    self.to_receive -= count;
                    return Standing::Waiting;
                }
            }
        }
    }
}
