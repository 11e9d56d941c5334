//! Fuzzes the session machine: the bytes choose the order and the results of completions in the simulated kernel,
//! which asserts every promise of the session after every turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::session::simulation::{Choices, Tier, play};

struct Bytes<'a>(&'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let wide = bound > 256;
        let taken = if wide { 4 } else { 1 }.min(self.0.len());
        let (head, rest) = self.0.split_at(taken);
        self.0 = rest;
        let number = head.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        number.checked_rem(bound).unwrap_or(0)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((tier, choices)) = data.split_first() else { return };
    let tier = if tier & 1 == 0 { Tier::Limited } else { Tier::Single };
    play(&mut Bytes(choices), tier);
});
