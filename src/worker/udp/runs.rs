//! Datagrams of one flow that came one after the other and can leave by one system call (`UDP_SEGMENT`): they are of
//! one length, of which the last may be shorter. None of them waits longer than for the rest of what has already come.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use crate::flow::Loss;
use crate::ring::{Payload, Ring};
use crate::sys::datagram;

/// Datagrams that leave by one system call: what more of them would save is little.
const MOST: usize = 16;

/// At least one, and whose they are.
pub(super) struct Run<W> {
    pub(super) whose: W,
    pub(super) parts: ArrayVec<Payload, MOST>,
}

impl<W> Run<W> {
    pub(super) fn begin(whose: W, first: Payload) -> Run<W> {
        let mut parts = ArrayVec::new();
        parts.push(first);
        Run { whose, parts }
    }

    /// Whether another one can leave with them. What is too large for some path leaves by itself, since the path
    /// decides whether several of that length can go together.
    pub(super) fn takes(&self, payload: Payload) -> bool {
        let (first, last) = (self.parts[0].len, self.parts[self.parts.len() - 1].len);
        let fits = first as usize <= datagram::FITS_EVERYWHERE;
        fits && (1..=first).contains(&payload.len) && last == first && !self.parts.is_full()
    }
}

/// What several datagrams carry, as the kernel takes it.
pub(super) fn slices<'a>(ring: &'a Ring, parts: &[Payload]) -> ArrayVec<IoSlice<'a>, MOST> {
    let each = parts.iter().map(|payload| ring.payload(*payload));
    each.map(IoSlice::new).collect()
}

/// Whether they are to be sent one by one after this came of sending them together: not every device and path takes
/// several at once.
pub(super) fn are_to_go_apart(parts: &[Payload], together: Result<(), Loss>) -> bool {
    parts.len() > 1 && matches!(together, Err(Loss::SendFailed | Loss::TooBig))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of datagrams of these lengths leave at a time.
    fn runs(lengths: &[u32]) -> Vec<usize> {
        let mut runs: Vec<Run<()>> = Vec::new();
        for payload in lengths.iter().map(|len| Payload::whole(None, *len)) {
            match runs.last_mut() {
                Some(run) if run.takes(payload) => run.parts.push(payload),
                Some(_) | None => runs.push(Run::begin((), payload)),
            }
        }
        runs.iter().map(|run| run.parts.len()).collect()
    }

    #[test]
    fn those_of_one_length_leave_together_and_a_shorter_one_ends_them() {
        assert_eq!(runs(&[64; 5]), [5]);
        assert_eq!(runs(&[64, 64, 10, 10, 64]), [3, 1, 1]);
        assert_eq!(runs(&[64, 65, 65]), [1, 2]);
        assert_eq!(runs(&[1, 1]), [2]);
    }

    #[test]
    fn what_is_empty_or_too_large_for_some_path_leaves_by_itself() {
        assert_eq!(runs(&[0, 0, 1, 0]), [1, 1, 1, 1]);
        assert_eq!(runs(&[1_200, 1_200]), [2]);
        assert_eq!(runs(&[1_201, 1_201, 1_200]), [1, 1, 1]);
    }

    #[test]
    fn there_is_a_most_of_them() {
        assert_eq!(runs(&[64; 40]), [16, 16, 8]);
    }
}
