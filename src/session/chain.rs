//! Queues of numbered buffers without allocation: each buffer has one place in a table of links, and a queue is its
//! two ends. It knows numbers and lengths, not memory.

const NONE: u16 = u16::MAX;

/// For each buffer: how much is in it, and which comes after it in its queue.
#[derive(Debug)]
pub struct Links {
    next: Box<[u16]>,
    len: Box<[u32]>,
}

impl Links {
    /// A table for buffers `0..count`.
    #[must_use]
    pub fn new(count: u16) -> Links {
        Links {
            next: vec![NONE; usize::from(count)].into(),
            len: vec![0; usize::from(count)].into(),
        }
    }
}

/// A queue of buffers in the order in which they were filled.
#[derive(Debug)]
pub struct Chain {
    first: u16,
    last: u16,
    /// Bytes of the first buffer that are gone already.
    skip: u32,
    bytes: u32,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            first: NONE,
            last: NONE,
            skip: 0,
            bytes: 0,
        }
    }
}

impl Chain {
    /// Bytes in the queue.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a buffer that holds `len` bytes, at least 1, and is in no queue.
    pub fn push(&mut self, links: &mut Links, buffer: u16, len: u32) {
        debug_assert!(len > 0, "an empty buffer is never queued");
        links.next[usize::from(buffer)] = NONE;
        links.len[usize::from(buffer)] = len;
        if self.first == NONE {
            self.first = buffer;
        } else {
            links.next[usize::from(self.last)] = buffer;
        }
        self.last = buffer;
        self.bytes += len;
    }

    /// Takes `bytes` bytes away at the front; buffers that became empty are handed to `free`.
    pub fn consume(&mut self, links: &Links, bytes: u32, mut free: impl FnMut(u16)) {
        debug_assert!(bytes <= self.bytes, "more taken than there is");
        self.bytes -= bytes;
        let mut skip = self.skip + bytes;
        while self.first != NONE && skip >= links.len[usize::from(self.first)] {
            let buffer = self.first;
            skip -= links.len[usize::from(buffer)];
            self.first = links.next[usize::from(buffer)];
            free(buffer);
        }
        self.skip = skip;
    }

    /// Empties the queue; all its buffers are handed to `free`.
    pub fn clear(&mut self, links: &Links, free: impl FnMut(u16)) {
        self.consume(links, self.bytes, free);
    }

    /// What is queued, in order: buffer, where in it, and how many bytes.
    pub fn parts<'a>(&self, links: &'a Links) -> impl Iterator<Item = Part> + 'a {
        let mut buffer = self.first;
        let mut skip = self.skip;
        std::iter::from_fn(move || {
            let at = usize::from((buffer != NONE).then_some(buffer)?);
            let part = Part {
                buffer,
                from: skip,
                len: links.len[at] - skip,
            };
            skip = 0;
            buffer = links.next[at];
            Some(part)
        })
    }
}

/// A stretch of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which buffer.
    pub buffer: u16,
    /// Offset of the first byte.
    pub from: u32,
    /// How many bytes, at least 1.
    pub len: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chain_is_a_queue_of_bytes(operations in prop::collection::vec((any::<bool>(), 1_u32..50), 1..200)) {
            const BUFFERS: u16 = 8;
            let mut links = Links::new(BUFFERS);
            let mut chain = Chain::default();
            let mut free: Vec<u16> = (0..BUFFERS).collect();
            let mut model: VecDeque<(u16, u32)> = VecDeque::new();
            for (push, amount) in operations {
                if push && let Some(buffer) = free.pop() {
                    chain.push(&mut links, buffer, amount);
                    model.extend((0..amount).map(|offset| (buffer, offset)));
                } else if !push {
                    let amount = amount.min(chain.bytes());
                    chain.consume(&links, amount, |buffer| free.push(buffer));
                    model.drain(..amount as usize);
                }
                let bytes: Vec<_> = chain
                    .parts(&links)
                    .flat_map(|part| (part.from..part.from + part.len).map(move |offset| (part.buffer, offset)))
                    .collect();
                prop_assert_eq!(&bytes, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(chain.bytes() as usize, model.len());
            }
            chain.clear(&links, |buffer| free.push(buffer));
            free.sort_unstable();
            prop_assert_eq!(free, (0..BUFFERS).collect::<Vec<_>>());
        }
    }
}
