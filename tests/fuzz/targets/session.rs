//! Fuzzes the session machine: the bytes choose the order and the results of completions in the simulated kernel,
//! which asserts every promise of the session after every turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::session::simulation::{Choices, Tier, play};

struct Bytes<'a> {
    left: &'a [u8],
    /// Counts on once the bytes have run out.
    count: u32,
}

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let wanted = if bound > 256 { 4 } else { 1 };
        let Some((head, rest)) = self.left.split_at_checked(wanted) else {
            self.count = self.count.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            return (self.count >> 8) % bound;
        };
        self.left = rest;
        head.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) % bound
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((tier, choices)) = data.split_first() else { return };
    let tier = if tier & 1 == 0 { Tier::Limited } else { Tier::Single };
    play(&mut Bytes { left: choices, count: 1 }, tier);
});
