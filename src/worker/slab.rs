//! Places with generations: a key that outlived its entry finds nothing, never somebody else.

use super::token::Key;

/// Places are allocated so many at a time, and never move.
const CHUNK: u32 = 256;

/// Entries by key; a place is used again last in, first out, while it is warm.
pub(super) struct Slab<T> {
    chunks: Vec<Box<[Place<T>]>>,
    free: Vec<u32>,
    capacity: u32,
    len: usize,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Slab<T> {
    /// Room for `capacity` entries; memory is taken as they come.
    pub(super) fn new(capacity: u32) -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            free: Vec::new(),
            capacity,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many places there are, taken or not; they are numbered from 0.
    pub(super) fn places(&self) -> u32 {
        let places: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        u32::try_from(places).unwrap_or(u32::MAX)
    }

    pub(super) fn has_room(&self) -> bool {
        self.len < self.capacity as usize
    }

    /// None when it is full.
    pub(super) fn insert(&mut self, entry: T) -> Option<Key> {
        if self.free.is_empty() {
            self.grow();
        }
        let slot = self.free.pop()?;
        let place = self.place(slot)?;
        place.entry = Some(entry);
        let generation = place.generation;
        self.len += 1;
        Some(Key { slot, generation })
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut T> {
        let place = self.place(key.slot)?;
        (place.generation == key.generation)
            .then_some(place.entry.as_mut())
            .flatten()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self
            .place(key.slot)
            .filter(|place| place.generation == key.generation)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.len -= 1;
        Some(entry)
    }

    /// The key of what is in a slot now.
    pub(super) fn key(&mut self, slot: u32) -> Option<Key> {
        let place = self.place(slot)?;
        place.entry.is_some().then_some(Key {
            slot,
            generation: place.generation,
        })
    }

    /// The keys of all entries.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let places = (0..).zip(self.chunks.iter().flatten());
        let taken = places.filter(|(_, place)| place.entry.is_some());
        taken.map(|(slot, place)| Key {
            slot,
            generation: place.generation,
        })
    }

    fn place(&mut self, slot: u32) -> Option<&mut Place<T>> {
        self.chunks
            .get_mut((slot / CHUNK) as usize)?
            .get_mut((slot % CHUNK) as usize)
    }

    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(CHUNK);
        let more = CHUNK.min(self.capacity.saturating_sub(first));
        if more > 0 {
            self.chunks.push(
                (0..more)
                    .map(|_| Place {
                        generation: 0,
                        entry: None,
                    })
                    .collect(),
            );
            self.free.extend((first..first + more).rev());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new(4);
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(first.slot, second.slot);
        assert!(slab.get(first).is_none());
        assert!(slab.remove(first).is_none());
        assert_eq!(slab.get(second), Some(&mut "second"));
        assert_eq!(slab.key(second.slot), Some(second));
    }

    #[test]
    fn it_has_a_bound() {
        let mut slab = Slab::new(2);
        slab.insert(1).unwrap();
        let key = slab.insert(2).unwrap();
        assert!(!slab.has_room());
        assert!(slab.insert(3).is_none());
        slab.remove(key);
        assert_eq!(slab.len(), 1);
        assert!(slab.has_room());
        assert!(slab.insert(3).is_some());
        assert_eq!(slab.keys().count(), 2);
    }

    #[test]
    fn it_grows_up_to_its_bound_and_not_beyond() {
        let mut slab = Slab::new(CHUNK + 3);
        let keys: Vec<_> = (0..CHUNK + 3)
            .map(|number| slab.insert(number).unwrap())
            .collect();
        assert!(slab.insert(0).is_none());
        assert_eq!(slab.keys().count(), keys.len());
        for (key, number) in keys.into_iter().zip(0..) {
            assert_eq!(slab.remove(key), Some(number));
        }
        assert_eq!(slab.len(), 0);
    }
}
