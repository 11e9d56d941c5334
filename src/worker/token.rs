//! What a completion belongs to, in 64 bits: kind 7, side 1, slot 24, generation 32.

use crate::session::{Operation, Side};

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;
const CANCEL: u8 = 0x10;
const ACCEPT: u8 = 0x20;
const CANCEL_ACCEPT: u8 = 0x21;
const WAKE: u8 = 0x22;
const DATAGRAMS: u8 = 0x23;

/// Most sessions that one worker can tell apart.
pub(super) const SLOTS_MAX: u32 = 1 << SLOT_BITS;

/// Who a completion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An operation of a session.
    Session {
        operation: Operation,
        side: Side,
        key: Key,
    },
    /// The cancel of an operation of a session.
    Cancel {
        operation: Operation,
        side: Side,
        key: Key,
    },
    /// The accept of a place.
    Accept { place: u16 },
    /// The cancel of the accept of a place.
    CancelAccept { place: u16 },
    /// The mailbox's eventfd.
    Wake,
    /// Something of UDP.
    Datagrams(Datagrams),
}

/// An operation of UDP: of a place, which is a listening socket, or of a line, which is a flow's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagrams {
    /// The receive of a place.
    Place(u16),
    /// The cancel of that.
    CancelPlace(u16),
    /// The receive of a line.
    Line(Key),
    /// The cancel of that.
    CancelLine(Key),
}

/// A session's slot, and how often it had been used before: stale keys match nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        match self {
            Token::Session {
                operation,
                side,
                key,
            } => pack(operation as u8, side, key),
            Token::Cancel {
                operation,
                side,
                key,
            } => pack(CANCEL | operation as u8, side, key),
            Token::Accept { place } => pack(ACCEPT, Side::Client, place_key(place)),
            Token::CancelAccept { place } => pack(CANCEL_ACCEPT, Side::Client, place_key(place)),
            Token::Wake => pack(
                WAKE,
                Side::Client,
                Key {
                    slot: 0,
                    generation: 0,
                },
            ),
            Token::Datagrams(operation) => {
                let (kind, key) = match operation {
                    Datagrams::Place(place) => (0, place_key(place)),
                    Datagrams::CancelPlace(place) => (1, place_key(place)),
                    Datagrams::Line(key) => (2, key),
                    Datagrams::CancelLine(key) => (3, key),
                };
                pack(DATAGRAMS + kind, Side::Client, key)
            }
        }
    }

    /// None for a number that no token encodes to.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the parts are masked or shifted to their width"
    )]
    pub(super) fn decode(bits: u64) -> Option<Token> {
        let generation = bits as u32;
        let slot = (bits >> GENERATION_BITS) as u32 & (SLOTS_MAX - 1);
        let side = Side::BOTH[(bits >> (GENERATION_BITS + SLOT_BITS)) as usize & 1];
        let kind = (bits >> (GENERATION_BITS + SLOT_BITS + 1)) as u8;
        let key = Key { slot, generation };
        match kind {
            ACCEPT => Some(Token::Accept { place: slot as u16 }),
            CANCEL_ACCEPT => Some(Token::CancelAccept { place: slot as u16 }),
            WAKE => Some(Token::Wake),
            DATAGRAMS.. => {
                let operation = match kind - DATAGRAMS {
                    0 => Datagrams::Place(slot as u16),
                    1 => Datagrams::CancelPlace(slot as u16),
                    2 => Datagrams::Line(key),
                    3 => Datagrams::CancelLine(key),
                    _ => return None,
                };
                Some(Token::Datagrams(operation))
            }
            _ => {
                let operation = *Operation::ALL.get(usize::from(kind & !CANCEL))?;
                Some(if kind & CANCEL == 0 {
                    Token::Session {
                        operation,
                        side,
                        key,
                    }
                } else {
                    Token::Cancel {
                        operation,
                        side,
                        key,
                    }
                })
            }
        }
    }
}

fn place_key(place: u16) -> Key {
    Key {
        slot: u32::from(place),
        generation: 0,
    }
}

fn pack(kind: u8, side: Side, key: Key) -> u64 {
    debug_assert!(key.slot < SLOTS_MAX, "the slab is smaller than that");
    let place = u64::from(kind) << 1 | side.index() as u64;
    place << (SLOT_BITS + GENERATION_BITS)
        | u64::from(key.slot) << GENERATION_BITS
        | u64::from(key.generation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_survives_its_encoding(
            slot in 0..SLOTS_MAX, generation: u32, operation in 0..6_usize, side in 0..2_usize
        ) {
            let (operation, side) = (Operation::ALL[operation], Side::BOTH[side]);
            let key = Key { slot, generation };
            for token in [Token::Session { operation, side, key }, Token::Cancel { operation, side, key }] {
                prop_assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
    }

    #[test]
    fn the_other_tokens_survive_too() {
        let key = Key {
            slot: SLOTS_MAX - 1,
            generation: u32::MAX,
        };
        for token in [
            Token::Accept { place: 77 },
            Token::CancelAccept { place: 78 },
            Token::Wake,
            Token::Datagrams(Datagrams::Place(79)),
            Token::Datagrams(Datagrams::CancelPlace(80)),
            Token::Datagrams(Datagrams::Line(key)),
            Token::Datagrams(Datagrams::CancelLine(key)),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
