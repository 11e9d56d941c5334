//! Streams that carry as much as they can, in one direction, without copying anything in this process.

use std::os::fd::OwnedFd;

use nix::sys::epoll::EpollFlags;

use crate::Outcome;
use crate::generator::{Driver, Tally};
use crate::sockets::{CHUNK, Endless, Events, Read, Routes, Scratch};

/// Streams are level-triggered and move one chunk per turn, so that they take turns.
pub(crate) struct Bulk {
    routes: Routes,
    streams: usize,
    sockets: Vec<Option<OwnedFd>>,
    end: End,
}

/// What this end of the streams does.
enum End {
    Sends(Endless),
    Receives(Scratch),
}

impl Bulk {
    pub(crate) fn upload(routes: Routes, streams: usize) -> Outcome<Self> {
        Ok(Self {
            routes,
            streams,
            sockets: Vec::new(),
            end: End::Sends(Endless::new()?),
        })
    }

    pub(crate) fn download(routes: Routes, streams: usize) -> Outcome<Self> {
        Ok(Self {
            routes,
            streams,
            sockets: Vec::new(),
            end: End::Receives(Scratch::new()),
        })
    }
}

impl Driver for Bulk {
    fn start(&mut self, events: &Events) -> Outcome<()> {
        let flags = match self.end {
            End::Sends(_) => EpollFlags::EPOLLOUT,
            End::Receives(_) => EpollFlags::EPOLLIN,
        };
        for index in 0..self.streams {
            let socket = self.routes.connect(true)?;
            events.add(&socket, flags, index as u64)?;
            self.sockets.push(Some(socket));
        }
        Ok(())
    }

    /// The unit is a byte; both ends' counts agree up to what the sockets hold.
    fn progress(&mut self, token: u64, flags: EpollFlags, _: &Events, tally: &mut Tally) {
        let place = &mut self.sockets[token as usize];
        let Some(socket) = place.as_ref() else { return };
        let moved = match &mut self.end {
            End::Sends(endless) => endless.send(socket),
            End::Receives(scratch) => match scratch.read(socket, CHUNK, flags) {
                Read::Some(count) | Read::Last(count) => Some(count),
                Read::Ended => None,
            },
        };
        match moved {
            Some(count) => tally.units += count as u64,
            None => {
                *place = None;
                tally.errors += 1;
            }
        }
    }
}
