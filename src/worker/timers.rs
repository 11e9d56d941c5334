//! A timer wheel: at most one deadline per slot, set and removed in constant time. Deadlines are rounded up to a
//! tick, so that none comes early. It knows slots and time, not what they are for.

use std::time::Duration;

use crate::time::Time;

const TICK_MICROS: u64 = 1_000;
/// Slots of one level; each level's tick is a whole turn of the level below.
const SPOKES: usize = 64;
const SPOKE_BITS: u32 = 6;
/// Six levels of 64 spokes reach 2 years.
const LEVELS: usize = 6;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    deadline: u64,
    next: u32,
    previous: u32,
    /// Which list it is in; `NONE` = in none.
    list: u32,
}

const UNSET: Entry = Entry {
    deadline: 0,
    next: NONE,
    previous: NONE,
    list: NONE,
};

/// Deadlines of slots.
pub struct Timers {
    entries: Vec<Entry>,
    /// First entry of each spoke of each level.
    lists: [u32; LEVELS * SPOKES],
    /// A bit per spoke that is not empty.
    occupied: [u64; LEVELS],
    /// Every tick before this one has been looked at.
    now: u64,
}

/// None is set.
impl Default for Timers {
    fn default() -> Timers {
        Timers {
            entries: Vec::new(),
            lists: [NONE; LEVELS * SPOKES],
            occupied: [0; LEVELS],
            now: 0,
        }
    }
}

impl Timers {
    /// Makes `slot` due at `deadline`, instead of when it was due before. A slot that is due earlier already is left:
    /// it is cheaper to look once too often than to move it with every byte.
    pub fn set(&mut self, slot: u32, deadline: Option<Time>) {
        let Some(deadline) = deadline else {
            self.unset(slot);
            return;
        };
        let tick = deadline.as_micros().div_ceil(TICK_MICROS).max(self.now);
        let at = slot as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, UNSET);
        }
        let entry = &self.entries[at];
        if entry.list != NONE && entry.deadline <= tick {
            return;
        }
        self.unset(slot);
        self.entries[at].deadline = tick;
        self.link(slot);
    }

    /// Forgets the slot's deadline.
    pub fn unset(&mut self, slot: u32) {
        if self
            .entries
            .get(slot as usize)
            .is_some_and(|entry| entry.list != NONE)
        {
            self.unlink(slot);
        }
    }

    /// How long nothing will be due, seen from `now`; none if nothing ever will.
    pub fn next_in(&self, now: Time) -> Option<Duration> {
        let tick = self.next_tick()?;
        Some(Time::from_micros(tick * TICK_MICROS) - now)
    }

    /// Moves on to `now` and collects the slots that have become due; each is forgotten.
    pub fn expire(&mut self, now: Time, due: &mut Vec<u32>) {
        let until = now.as_micros() / TICK_MICROS;
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= until) {
            self.now = tick;
            for level in (1..LEVELS).rev() {
                self.cascade(level);
            }
            let list = list_of(0, tick);
            while self.lists[list] != NONE {
                let slot = self.lists[list];
                self.unlink(slot);
                due.push(slot);
            }
        }
        self.now = self.now.max(until);
    }

    /// The next tick at which something is due or a spoke must be dealt out.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| self.next_tick_of(level))
            .min()
    }

    fn next_tick_of(&self, level: usize) -> Option<u64> {
        let shift = SPOKE_BITS * u32::try_from(level).ok()?;
        let here = self.now >> shift;
        let first = u32::try_from(here % SPOKES as u64).ok()?;
        let rotated = self.occupied[level].rotate_right(first);
        let ahead = u64::from((rotated != 0).then_some(rotated)?.trailing_zeros());
        Some(((here + ahead) << shift).max(self.now))
    }

    /// Deals the entries of the spoke that begins now out to the levels below.
    fn cascade(&mut self, level: usize) {
        let list = list_of(level, self.now >> (SPOKE_BITS as usize * level));
        let mut slot = self.lists[list];
        while slot != NONE {
            let next = self.entries[slot as usize].next;
            self.unlink(slot);
            self.link(slot);
            slot = next;
        }
    }

    fn link(&mut self, slot: u32) {
        let deadline = self.entries[slot as usize].deadline;
        let level = self.level_of(deadline);
        // Beyond the reach of the wheel: the last spoke, to be dealt out again from there.
        let reach = (self.now >> (SPOKE_BITS as usize * level)) + SPOKES as u64 - 1;
        let list = list_of(
            level,
            (deadline >> (SPOKE_BITS as usize * level)).min(reach),
        );
        let first = self.lists[list];
        if first != NONE {
            self.entries[first as usize].previous = slot;
        }
        let entry = &mut self.entries[slot as usize];
        entry.next = first;
        entry.previous = NONE;
        entry.list = u32::try_from(list).unwrap_or(NONE);
        self.lists[list] = slot;
        self.occupied[level] |= 1 << (list % SPOKES);
    }

    fn unlink(&mut self, slot: u32) {
        let Entry {
            next,
            previous,
            list,
            ..
        } = self.entries[slot as usize];
        let list = list as usize;
        match previous {
            NONE => self.lists[list] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if self.lists[list] == NONE {
            self.occupied[list / SPOKES] &= !(1 << (list % SPOKES));
        }
        self.entries[slot as usize].list = NONE;
    }

    /// The lowest level on which the deadline is less than a whole turn away.
    fn level_of(&self, deadline: u64) -> usize {
        (0..LEVELS - 1)
            .find(|level| {
                let shift = SPOKE_BITS as usize * level;
                (deadline >> shift) - (self.now >> shift) < SPOKES as u64
            })
            .unwrap_or(LEVELS - 1)
    }
}

fn list_of(level: usize, spoke: u64) -> usize {
    level * SPOKES + usize::try_from(spoke % SPOKES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_slot_comes_due_on_time_and_once(
            steps in prop::collection::vec((0..20_u32, 0..4_u8, any::<u64>(), any::<u64>()), 1..200)
        ) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (slot, what, far, pass) in steps {
                match what {
                    0 => { timers.unset(slot); model.remove(&slot); }
                    1 | 2 => {
                        let deadline = now + far % [50_000, 100_000_000, 100_000_000_000_000][(pass % 3) as usize];
                        timers.set(slot, Some(Time::from_micros(deadline)));
                        let tick = |micros: u64| micros.div_ceil(TICK_MICROS);
                        let earlier = model.get(&slot).is_some_and(|old| tick(*old) <= tick(deadline));
                        if !earlier { model.insert(slot, deadline); }
                    }
                    _ => {
                        now += pass % [1_000, 1_000_000, 1_000_000_000_000][(far % 3) as usize];
                        let mut due = Vec::new();
                        timers.expire(Time::from_micros(now), &mut due);
                        due.sort_unstable();
                        let expected: Vec<u32> = model.iter()
                            .filter(|(_, deadline)| deadline.div_ceil(TICK_MICROS) <= now / TICK_MICROS)
                            .map(|(slot, _)| *slot).collect();
                        prop_assert_eq!(&due, &expected);
                        model.retain(|slot, _| !expected.contains(slot));
                    }
                }
                let next = timers.next_in(Time::from_micros(now));
                let earliest = model.values().min();
                prop_assert_eq!(next.is_some(), earliest.is_some());
                if let (Some(next), Some(earliest)) = (next, earliest) {
                    let tick = earliest.div_ceil(TICK_MICROS) * TICK_MICROS;
                    let latest = Duration::from_micros(tick.saturating_sub(now));
                    prop_assert!(next <= latest, "would sleep past a deadline: {next:?} > {latest:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_due_when_nothing_is_set() {
        let mut timers = Timers::default();
        let mut due = Vec::new();
        timers.expire(Time::from_micros(u64::MAX / 2), &mut due);
        assert!(due.is_empty());
        assert_eq!(timers.next_in(Time::ZERO), None);
    }
}
