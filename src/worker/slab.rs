//! Places with generations: a key that outlived its entry finds nothing, never somebody else.

use super::token::Key;

/// Entries by key; a place is used again last in, first out, while it is warm.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    capacity: u32,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Slab<T> {
    /// Room for `capacity` entries. The memory is used as they come, and never moves.
    pub(super) fn new(capacity: u32) -> Slab<T> {
        Slab {
            places: Vec::with_capacity(capacity as usize),
            free: Vec::new(),
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// None when it is full.
    pub(super) fn insert(&mut self, entry: T) -> Option<Key> {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.places[slot as usize];
            place.entry = Some(entry);
            return Some(Key {
                slot,
                generation: place.generation,
            });
        }
        let slot = u32::try_from(self.places.len())
            .ok()
            .filter(|slot| *slot < self.capacity)?;
        self.places.push(Place {
            generation: 0,
            entry: Some(entry),
        });
        Some(Key {
            slot,
            generation: 0,
        })
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.slot as usize)?;
        (place.generation == key.generation)
            .then_some(place.entry.as_mut())
            .flatten()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self
            .places
            .get_mut(key.slot as usize)
            .filter(|place| place.generation == key.generation)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(entry)
    }

    /// The key of what is in a slot now.
    pub(super) fn key(&self, slot: u32) -> Option<Key> {
        let place = self.places.get(slot as usize)?;
        place.entry.is_some().then_some(Key {
            slot,
            generation: place.generation,
        })
    }

    /// The keys of all entries.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..)
            .zip(&self.places)
            .filter(|(_, place)| place.entry.is_some())
            .map(|(slot, place)| Key {
                slot,
                generation: place.generation,
            })
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
        assert!(slab.insert(3).is_none());
        slab.remove(key);
        assert_eq!(slab.len(), 1);
        assert!(slab.insert(3).is_some());
        assert_eq!(slab.keys().count(), 2);
    }
}
