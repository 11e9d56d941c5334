//! Announcements one after the other, so that many addresses do not flood a link. Pure.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Time;

/// So many go out at once.
const BATCH: usize = 10;
/// From one batch to the next: 1,000 frames per second.
const PAUSE: Duration = Duration::from_millis(10);

/// What is still to be announced on one link. An address waits once at most.
#[derive(Debug, Default)]
pub struct Paced {
    waiting: VecDeque<IpAddr>,
    known: HashSet<IpAddr>,
    next: Time,
}

impl Paced {
    /// These are to be announced.
    pub fn add(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if self.known.insert(address) {
                self.waiting.push_back(address);
            }
        }
    }

    /// These have gone elsewhere.
    pub fn forget(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if self.known.remove(&address) {
                self.waiting.retain(|waiting| *waiting != address);
            }
        }
    }

    /// When something may go out.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// What goes out now.
    pub fn take(&mut self, now: Time) -> Vec<IpAddr> {
        if now < self.next {
            return Vec::new();
        }
        let count = self.waiting.len().min(BATCH);
        if count > 0 {
            self.next = now + PAUSE;
        }
        let taken: Vec<IpAddr> = self.waiting.drain(..count).collect();
        for address in &taken {
            self.known.remove(address);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn at_most_a_thousand_frames_leave_in_a_second_and_each_address_once() {
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number));
        let mut paced = Paced::default();
        paced.add((0..2000).map(address));
        paced.add((0..2000).map(address));
        paced.forget([address(0)]);
        let mut now = Time::ZERO;
        let mut sent = Vec::new();
        while let Some(due) = paced
            .due()
            .filter(|due| *due < Time::from_micros(1_000_000))
        {
            now = now.max(due);
            sent.extend(paced.take(now));
            assert!(paced.take(now).is_empty(), "not twice at one moment");
        }
        assert_eq!(sent.len(), 1000);
        assert_eq!(sent.first(), Some(&address(1)));
        sent.dedup();
        assert_eq!(sent.len(), 1000);
    }
}
