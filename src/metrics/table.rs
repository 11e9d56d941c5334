//! A table that grows while others use it: what is in it never moves, so who reads or writes an entry needs no lock.

use std::ops::Index;
use std::sync::OnceLock;

/// Entries of the first further part; each one after that has twice as many as the one before.
const MORE: usize = 64;
/// Enough for any number of entries that fits into memory.
const PARTS: usize = 32;

/// See the module's text. Entries are there from the start, or from [`Table::grow`] on.
#[derive(Debug)]
pub struct Table<T> {
    first: Box<[T]>,
    more: [OnceLock<Box<[T]>>; PARTS],
}

impl<T: Default> Table<T> {
    /// With so many entries.
    #[must_use]
    pub fn new(count: usize) -> Table<T> {
        Table {
            first: entries(count),
            more: [const { OnceLock::new() }; PARTS],
        }
    }

    /// From now on there are so many entries, or more.
    pub fn grow(&self, count: usize) {
        let mut missing = count.saturating_sub(self.first.len());
        for (part, size) in self.more.iter().zip((0..).map(|number| MORE << number)) {
            if missing == 0 {
                return;
            }
            part.get_or_init(|| entries(size));
            missing = missing.saturating_sub(size);
        }
    }
}

impl<T> Table<T> {
    /// All entries, those that nobody uses included.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let more = self.more.iter().filter_map(OnceLock::get);
        self.first.iter().chain(more.flatten())
    }

    #[cold]
    fn further(&self, index: usize) -> Option<&T> {
        let number = (index / MORE + 1).ilog2();
        let before = MORE * ((1 << number) - 1);
        let part = self.more.get(number as usize)?.get()?;
        part.get(index - before)
    }
}

impl<T> Index<usize> for Table<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let first = self.first.get(index);
        let entry = first.or_else(|| self.further(index - self.first.len()));
        entry.expect("the table has grown before an id is used")
    }
}

fn entries<T: Default>(count: usize) -> Box<[T]> {
    (0..count).map(|_| T::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Cell;

    #[test]
    fn entries_stay_where_they_are_while_it_grows() {
        for first in [0, 1, 3, 64, 100] {
            let table: Table<Cell> = Table::new(first);
            let mut places = Vec::new();
            for count in [first, first + 1, 64, 65, 500, 499, 3_000] {
                table.grow(count);
                for index in places.len()..count {
                    table[index].set(index as u64);
                    places.push(&raw const table[index]);
                }
            }
            let is_there = |(index, place): (usize, &*const Cell)| {
                table[index].get() == index as u64 && &raw const table[index] == *place
            };
            assert!(places.iter().enumerate().all(is_there), "{first}");
            assert!(table.iter().count() >= 3_000);
            let sum: u64 = table.iter().map(Cell::get).sum();
            assert_eq!(sum, (0..3_000).sum::<u64>());
        }
    }

    #[test]
    #[should_panic(expected = "grown before")]
    fn nobody_gets_an_entry_that_is_not_there() {
        let table: Table<Cell> = Table::new(2);
        table.grow(3);
        let _ = &table[2 + 64];
    }
}
